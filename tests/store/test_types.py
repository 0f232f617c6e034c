"""Every Arrow type in every role: read with the value that Python sees in the file, or refused with what to do.

Silent error 64: a type that is nearly right is read as another value: nanoseconds rounded over a midnight, bytes as
their escapes, a duration as a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.store.test_formats import touchpoints

from cvj_ml.config import Config, SourceSpec
from cvj_ml.store import ingest
from cvj_ml.store.fields import Field, Reading, location_field
from cvj_ml.store.instants import read_instant, wall_column
from cvj_ml.store.mapping import kind_of, read_id, read_label, read_property, read_value
from cvj_ml.store.source_location import SourceLocation, land, locate
from cvj_ml.store.sql import connect_duckdb

ZONE = ZoneInfo("America/New_York")
"""Of the business: what naive times are read in."""

EPOCH = datetime(1970, 1, 1)
FAULT, REFUSED = "the type is refused", "the row is refused"

NOON = 1_710_003_907_123_456_789
"""Nanoseconds of 2024-03-09 17:05:07, and just before a midnight, and before 1970."""
MOMENTS = (NOON, 1_709_999_999_999_999_999, -1)


def kinds() -> Iterator[tuple[pa.DataType, list[Any]]]:
    """Yield every type that Parquet can keep, with values."""
    for size in (8, 16, 32, 64):
        top = 2 ** (size - 1) - 1
        yield pa.__dict__[f"int{size}"](), [0, -7, top]
        yield pa.__dict__[f"uint{size}"](), [0, 7, 2**size - 1]
    yield pa.float16(), [np.float16(3), np.float16(2.5), np.float16(4096)]
    yield pa.float32(), [3.0, 2.5, 2.0**25]
    yield pa.float64(), [3.0, 2.675, 2.0**54]
    yield pa.float64(), [math.nan, math.inf, -math.inf]
    for kind in (pa.decimal32(7, 2), pa.decimal64(15, 2), pa.decimal128(38, 9), pa.decimal128(38, 0)):
        yield kind, [Decimal(3), Decimal("-12"), Decimal(99999)]
    yield pa.decimal128(20, 3), [Decimal("3.005"), Decimal("-2.500"), Decimal("0.000")]
    yield pa.decimal256(60, 2), [Decimal(3), Decimal("-12.50"), Decimal(10**15)]
    yield pa.bool_(), [True, False, True]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        yield kind, ["2024-03-09", "", "Zoë"]
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        yield kind, [b"2024-03-09", "Zoë".encode(), b"\xffx"]
    yield pa.binary(4), [b"4.50", "äö".encode(), b"\xff\xfe\xfd\xfc"]
    yield pa.dictionary(pa.int8(), pa.binary()), [b"12", b"12", b""]
    yield pa.uuid(), [b"0" * 16, b"1" * 16, b"z" * 16]
    yield pa.json_(), ['{"a": 1}', "7", '"x"']
    yield pa.date32(), [date(2024, 3, 9), date(1969, 12, 31), date(1901, 1, 1)]
    yield pa.date64(), [date(2024, 3, 9), date(1969, 12, 31), date(9999, 12, 31)]
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)):
        for zone in (None, "UTC", "Europe/Berlin", "+02:00"):
            yield pa.timestamp(unit, tz=zone), [moment // size for moment in MOMENTS]
        yield pa.duration(unit), [1, 2, 3]
    yield pa.time32("s"), [time(1, 2, 3)] * 3
    yield pa.time32("ms"), [time(1, 2, 3)] * 3
    yield pa.time64("us"), [time(1, 2, 3)] * 3
    yield pa.time64("ns"), [time(1, 2, 3)] * 3
    yield pa.null(), [None] * 3
    yield pa.list_(pa.int64()), [[1], [], [2, 3]]
    yield pa.list_(pa.string(), 1), [["a"], ["b"], ["c"]]
    yield pa.struct([("a", pa.int64())]), [{"a": 1}, {"a": None}, {"a": 2}]
    yield pa.map_(pa.string(), pa.int64()), [[("a", 1)], [], [("b", 2)]]


def table() -> pa.Table:
    """Return a column of each type that may be null, with a null, and one that may not."""
    arrays, fields = [], []
    for kind, values in kinds():
        for nullable in (True, False) if not pa.types.is_null(kind) else (True,):
            held = [*values, None if nullable else values[0]]
            if isinstance(kind, pa.ExtensionType):
                arrays.append(pa.ExtensionArray.from_storage(kind, pa.array(held, kind.storage_type)))
            else:
                arrays.append(pa.array(held, kind))
            fields.append(pa.field(f"c{len(fields)} {kind}", kind, nullable))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def whole_text(number: float | Decimal) -> str:
    return str(int(number))


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return not pa.types.is_nested(kind) and ("string" in str(kind) or "json" in str(kind))


def is_bytes(kind: pa.DataType) -> bool:
    return "binary" in str(kind.value_type if pa.types.is_dictionary(kind) else kind)


def as_text(value: Any) -> str:
    """Return text and bytes as text, REFUSED for bytes that are none; the empty text is null."""
    try:
        return (value.decode() if isinstance(value, bytes) else value) or None
    except UnicodeDecodeError:
        return REFUSED


def exact_up_to(kind: pa.DataType) -> float:
    bits = {"halffloat": 11, "float": 24, "double": 53, "decimal256": 53}
    return 2 ** bits.get(str(kind).partition("(")[0], 200)


def expected_id(kind: pa.DataType, value: Any) -> Any:
    if is_number(kind):
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            return None if math.isnan(value) else REFUSED
        return whole_text(value) if value == int(value) and abs(value) <= exact_up_to(kind) else REFUSED
    if is_text(kind) or is_bytes(kind):
        return as_text(value)
    return str(value if isinstance(value, UUID) else UUID(bytes=value)) if "uuid" in str(kind) else FAULT


def local(moment: datetime) -> int:
    return (moment.replace(tzinfo=ZONE).astimezone(UTC).replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)


def expected_instant(kind: pa.DataType, value: Any) -> Any:
    if pa.types.is_date(kind):
        return local(datetime.combine(value, time()))
    if pa.types.is_timestamp(kind):  # value: its number of units
        size = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 0}[kind.unit]
        micros = value * size if size else value // 1000
        return micros if kind.tz else local(EPOCH + timedelta(microseconds=micros))
    if is_text(kind) or is_bytes(kind):
        text = as_text(value)
        if text is None or text is REFUSED:
            return text
        return local(datetime(2024, 3, 9)) if text == "2024-03-09" else REFUSED
    return REFUSED if "uuid" in str(kind) else FAULT


def expected_value(kind: pa.DataType, value: Any) -> Any:
    if is_text(kind) or is_bytes(kind):
        text = as_text(value)
        if text is None or text is REFUSED:
            return text
        try:
            return int(Decimal(text) * 100)
        except ArithmeticError:
            return REFUSED
    if not is_number(kind):
        return REFUSED if "uuid" in str(kind) else FAULT
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            return None if math.isnan(value) else REFUSED
        value = Decimal(repr(float(value)))
    cents = (Decimal(value) * 100).quantize(Decimal(1), rounding="ROUND_HALF_UP")
    limit = 2**53 if exact_up_to(kind) <= 2**53 else 2**63 - 1
    return int(cents) if abs(cents) <= limit else REFUSED


def expected_property(kind: pa.DataType, value: Any) -> Any:
    if is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_duration(kind):
        number = float(value)
        return number if math.isfinite(number) else None
    if is_text(kind) or is_bytes(kind):
        return as_text(value)
    if pa.types.is_nested(kind):
        return json.dumps(dict(value) if pa.types.is_map(kind) else value, separators=(",", ":"))
    return "some text"


def expected_label(kind: pa.DataType, value: Any) -> Any:
    if pa.types.is_nested(kind) or pa.types.is_duration(kind):
        return FAULT
    if pa.types.is_integer(kind):
        return str(value)
    if pa.types.is_boolean(kind):
        return str(value).lower()
    if is_text(kind) or is_bytes(kind):
        return as_text(value)
    return None if isinstance(value, float) and math.isnan(value) else "some text"


Read = Callable[[Field, list[str], Config, SourceSpec], Reading]
ROLES: dict[str, tuple[Read, Callable[[pa.DataType, Any], Any]]] = {
    "customer_id": (lambda one, faults, config, spec: read_id("log", "customer_id", one, faults), expected_id),
    "touchpoint_id": (lambda one, faults, config, spec: read_id("log", "touchpoint_id", one, faults), expected_id),
    "event": (lambda one, faults, config, spec: read_label("log", "event", one, faults), expected_label),
    "channel": (lambda one, faults, config, spec: read_label("log", "channel", one, faults), expected_label),
    "occurred_at": (
        lambda one, faults, config, spec: read_instant("log", "occurred_at", one, spec, config, faults),
        expected_instant,
    ),
    "known_at": (
        lambda one, faults, config, spec: read_instant("log", "known_at", one, spec, config, faults),
        expected_instant,
    ),
    "value": (lambda one, faults, config, spec: read_value("log", one, spec, 2, faults), expected_value),
    "property": (
        lambda one, faults, config, spec: read_property(one, kind_of(one) or "string", spec),
        expected_property,
    ),
}


@pytest.fixture(scope="module")
def held() -> pa.Table:
    return table()


@pytest.fixture
def described(
    held: pa.Table, tmp_path: Path, configure: Callable[..., Config]
) -> tuple[SourceLocation, Config, SourceSpec]:
    pq.write_table(held, tmp_path / "log.parquet")
    spec = SourceSpec(path=(str(tmp_path / "log.parquet"),))
    config = configure(sources={"log": {"path": "log.parquet"}}, time_zone=ZONE.key)
    return locate("sources.log", spec, config, tmp_path / "spill"), config, spec


def numbers(column: pa.ChunkedArray) -> list[Any]:
    """Return Python's values; times as their number of units, since datetime knows no nanoseconds."""
    if pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type):
        return column.cast(pa.int64()).to_pylist()
    return column.to_pylist()


@pytest.mark.parametrize("role", ROLES)
def test_every_type_in_every_role(
    held: pa.Table, described: tuple[SourceLocation, Config, SourceSpec], role: str, tmp_path: Path
) -> None:
    location, config, spec = described
    read, expected = ROLES[role]
    with connect_duckdb(config, tmp_path / "spill") as connection:
        relation = land(location, connection, config, tmp_path / "landed")
        wrong = []
        for name in held.column_names:
            faults: list[str] = []
            reading = read(location_field(location, name), faults, config, spec)
            kind, values = held[name].type, numbers(held[name])
            if faults:
                found: list[Any] = [None if value is None else FAULT for value in values]
                assert str(location.told.get(name, location.types[name])) in faults[0] and "log: " in faults[0]
            else:
                wall = f", {reading.wall} AS {wall_column(role)}" if reading.wall else ""
                rows = connection.execute(
                    f"SELECT {reading.value}, {reading.there} FROM (SELECT *{wall} FROM {relation.sql})"
                ).fetchall()
                found = [REFUSED if value is None and there else value for value, there in rows]
            wanted = [None if value is None else expected(kind, value) for value in values]
            wanted = [
                one if want == "some text" and isinstance(one, str) and one not in (FAULT, REFUSED) else want
                for want, one in zip(wanted, found, strict=True)
            ]
            if found != wanted:
                wrong.append(f"{name} ({location.types[name]}): {values} was read as {found}, not {wanted}")
    assert not wrong, "\n".join(wrong)


def test_pandas_and_the_store_agree_on_instants(one_source: Callable[..., Config]) -> None:
    """Pandas' ordinary output: times in a zone, to the nanosecond."""
    at = pd.to_datetime([NOON, MOMENTS[1]], utc=True).tz_convert("Europe/Berlin")
    frame = pd.DataFrame({"customer_id": ["a", "b"], "occurred_at": at, "event": "visit"})
    assert str(frame["occurred_at"].dtype) == "datetime64[ns, Europe/Berlin]"
    found = touchpoints(ingest(one_source(frame))).sort_values("customer_id")["occurred_at"]
    assert [at.value // 1000 for at in found] == [NOON // 1000, MOMENTS[1] // 1000]


@pytest.mark.parametrize("time_format", ["epoch s", "epoch ms", "epoch us", "epoch ns", "%Y%m%d"])
@pytest.mark.parametrize(
    "raw",
    ["1e300", "99999999999999999999999999999", "-99999999999999999999999999999", "9223372036854775807", "inf", "nan"],
)
def test_no_number_is_too_large_for_a_format(time_format: str, raw: str) -> None:
    from cvj_ml.store.instants import formatted_instant

    for kind in ("VARCHAR", "DOUBLE"):
        sql = f"SELECT {formatted_instant('one', time_format)} FROM (SELECT CAST('{raw}' AS {kind}) AS one)"
        ((found,),) = duckdb.execute(sql).fetchall()
        assert found is None or isinstance(found, int)


def test_nanoseconds_since_1970_are_cut_off() -> None:
    from cvj_ml.store.instants import formatted_instant

    sql = (
        f"SELECT {formatted_instant('one', 'epoch ns')} FROM (VALUES ('1709999999999999999'), ('-1'), ('1999')) t(one)"
    )
    assert duckdb.execute(sql).fetchall() == [(1709999999999999,), (-1,), (1,)]
