"""Files as other systems write them: times by a format or as numbers, decimal commas, encodings."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, DataError
from cvj_ml.store import Store, ingest
from cvj_ml.store.mapping import plain_number

Source = Callable[..., Config]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = datetime(2024, 3, 9, 17, 5, 7, tzinfo=UTC)


def touchpoints(store: Store) -> pd.DataFrame:
    """Return all touchpoints of a store."""
    files = sorted(store.folder.glob("bucket-*/touchpoints.parquet"))
    return pd.concat([pq.read_table(file, partitioning=None).to_pandas() for file in files], ignore_index=True)


def instants(config: Config) -> list[datetime]:
    """Return when the touchpoints of a configuration happened."""
    return [at.to_pydatetime() for at in touchpoints(ingest(config))["occurred_at"]]


def csv(*rows: str, header: str = "customer_id,occurred_at,event") -> str:
    return "\n".join((header, *rows)) + "\n"


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "written", "meant"),
    [
        ("%d.%m.%Y %H:%M:%S", "09.03.2024 17:05:07", AT),
        ("%d.%m.%Y", "9.3.2024", datetime(2024, 3, 9, tzinfo=UTC)),
        ("%m/%d/%Y %I:%M %p", "3/9/2024 5:05 PM", AT.replace(second=0)),
        ("%d-%b-%y", "09-MAR-24", datetime(2024, 3, 9, tzinfo=UTC)),
        ("%Y%m%d", "20240309", datetime(2024, 3, 9, tzinfo=UTC)),
        ("%Y/%j", "2024/069", datetime(2024, 3, 9, tzinfo=UTC)),
        ("%d/%m/%Y %H:%M:%S %z", "09/03/2024 19:05:07 +0200", AT),
        ("days since 1899-12-30", "45360", datetime(2024, 3, 9, tzinfo=UTC)),
        ("days since 1899-12-30", "45360.25", datetime(2024, 3, 9, 6, tzinfo=UTC)),
        ("hours since 2024-03-02", "168", datetime(2024, 3, 9, tzinfo=UTC)),
        ("weeks since 2024-03-17", "-2", datetime(2024, 3, 9, tzinfo=UTC)),
        ("epoch s", "1710003907", AT),
        ("epoch s", "1710003907.25", AT + timedelta(milliseconds=250)),
        ("epoch ms", "1710003907000", AT),
        ("epoch us", "1710003907000001", AT + timedelta(microseconds=1)),
        ("epoch ns", "1710003907000001000", AT + timedelta(microseconds=1)),
    ],
)
def test_text_is_read_by_its_format(one_source: Source, pattern: str, written: str, meant: datetime) -> None:
    config = one_source(csv(f"a,{written},visit"), {"time_format": pattern, "times": "utc"})
    assert instants(config) == [meant]


@pytest.mark.parametrize(("kind", "pattern"), [("int64", "epoch ms"), ("float64", "epoch ms"), ("int64", "%Y%m%d")])
def test_numbers_are_read_by_their_format(one_source: Source, kind: str, pattern: str) -> None:
    number = 1710003907000 if pattern == "epoch ms" else 20240309
    frame = pd.DataFrame({"customer_id": ["a"], "occurred_at": pd.array([number], dtype=kind), "event": ["visit"]})
    meant = AT if pattern == "epoch ms" else datetime(2024, 3, 9, tzinfo=UTC)
    assert instants(one_source(frame, {"time_format": pattern})) == [meant]


def test_a_pattern_is_wall_time_and_a_count_is_not(one_source: Source) -> None:
    zone = ZoneInfo("America/New_York")
    wall = one_source(csv("a,09.03.2024 12:05:07,visit"), {"time_format": "%d.%m.%Y %H:%M:%S"}, time_zone=zone.key)
    assert instants(wall) == [AT]
    count = one_source(csv("a,1710003907,visit"), {"time_format": "epoch s"}, time_zone=zone.key, out="other")
    assert instants(count) == [AT]


@pytest.mark.parametrize(
    ("times", "refused"), [("Europe/Berlin", True), ("local", True), ("utc", False), (None, False)]
)
def test_a_zone_beside_what_counts_in_utc_is_told(one_source: Source, times: str | None, refused: bool) -> None:
    source = {"time_format": "epoch s"} | ({"times": times} if times else {})
    config = one_source(csv("a,1710003907,visit"), source, time_zone="America/New_York")
    if not refused:
        assert instants(config) == [AT]
        return
    with pytest.raises(DataError, match=f"times: {times} changes nothing beside time_format: epoch s"):
        ingest(config)


def test_the_zone_stands_where_another_column_needs_it(one_source: Source) -> None:
    frame = pd.DataFrame(
        {"customer_id": ["a"], "occurred_at": [1710003907], "event": ["visit"], "known_at": [datetime(2024, 3, 9, 23)]}
    )
    assert instants(one_source(frame, {"time_format": "epoch s", "times": "Europe/Berlin"})) == [AT]


def test_what_counts_from_a_day_is_the_local_clock_and_whole_days_have_no_hours(one_source: Source) -> None:
    """Silent error 181: read as days of the business's calendar, and as times where a fraction says one."""
    frame = pd.DataFrame({"customer_id": list("abc"), "occurred_at": [45360.0, 45360.5, 1e12], "event": "visit"})
    spec = {"time_format": "days since 1899-12-30"}
    config = one_source(frame, spec, time_zone="America/New_York", refused_share=1)
    store = ingest(config)
    found = touchpoints(store).sort_values("occurred_at")
    assert [at.to_pydatetime() for at in found["occurred_at"]] == [
        datetime(2024, 3, 9, 5, tzinfo=UTC), datetime(2024, 3, 9, 17, tzinfo=UTC)
    ]  # fmt: skip
    assert found["date_only"].tolist() == [True, False]
    assert store.counts["log"].refused == {"unreadable occurred_at": 1}
    for wrong in ("days since 2024-02-31", "days since 2024", "months since 2024-01-01"):
        with pytest.raises(ValidationError, match=r"day is out of range|count from a day, as in days since 1899-12-30"):
            one_source(frame, {"time_format": wrong})


@given(
    st.integers(-(10**6), 10**6).map(lambda one: one / 64),
    st.sampled_from(["seconds", "minutes", "hours", "days", "weeks"]),
    st.dates(date(1900, 1, 1), date(2050, 1, 1)),
)
def test_python_counts_from_a_day_alike(number: float, unit: str, day: date) -> None:
    from cvj_ml.store.instants import formatted_instant

    time_format = f"{unit} since {day}"
    last = timedelta(days=6 if unit == "weeks" else 0)  # of the week
    meant = datetime.combine(day, time(), UTC) + timedelta(**{unit: number}) + last
    (found,) = duckdb.execute(f"SELECT {formatted_instant('?', time_format)}", [str(number)]).fetchall()[0]
    assert EPOCH + timedelta(microseconds=found) == meant


def test_what_does_not_fit_is_refused_and_counted(one_source: Source) -> None:
    text = csv("a,09.03.2024,visit", "b,2024-03-09,visit", "c,31.02.2024,visit", "d,,visit")
    store = ingest(one_source(text, {"time_format": "%d.%m.%Y"}, refused_share=1))
    assert store.counts["log"].refused == {"unreadable occurred_at": 2, "no occurred_at": 1}
    assert list(touchpoints(store)["customer_id"]) == ["a"]


def test_typed_times_need_no_format(one_source: Source) -> None:
    frame = pd.DataFrame({"customer_id": ["a"], "occurred_at": [AT], "event": ["visit"]})
    assert instants(one_source(frame, {"time_format": "epoch ms"})) == [AT]


@given(
    st.datetimes(datetime(1995, 1, 1), datetime(2090, 1, 1)),
    st.sampled_from(["%d.%m.%Y %H:%M:%S.%f", "%m/%d/%Y %I:%M:%S.%f %p", "%Y%m%d%H%M%S", "%d %B %Y %H:%M"]),
)
def test_python_writes_what_is_read(at: datetime, pattern: str) -> None:
    from cvj_ml.store.instants import formatted_instant

    written = at.strftime(pattern)
    meant = datetime.strptime(written, pattern).replace(tzinfo=UTC)
    (found,) = duckdb.execute(f"SELECT {formatted_instant('?', pattern)}", [written]).fetchall()[0]
    assert EPOCH + timedelta(microseconds=found) == meant


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("%d.%m", "has to give year, month and day"),
        ("epoch", "epoch s, epoch ms, epoch us, epoch ns"),
        ("%Y-%m-%d %Q", "%Q is not understood"),
        ("%Y-%m-%d %", "is not understood"),
    ],
)
def test_a_format_that_cannot_be_meant(one_source: Source, pattern: str, message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=re.escape(message)):
        one_source(csv("a,2024-03-09,visit"), {"time_format": pattern})


def test_the_message_names_the_setting(one_source: Source) -> None:
    with pytest.raises(DataError, match="say how they are written: time_format"):
        ingest(one_source(csv("a,09.03.2024,visit")))
    numbers = pd.DataFrame({"customer_id": ["a"], "occurred_at": [1710003907], "event": ["visit"]})
    with pytest.raises(DataError, match="time_format: epoch s"):
        ingest(one_source(numbers))


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mark", "meant"),
    [
        ("1.234,56 €", ",", 1234.56),
        ("3,45", ",", 3.45),
        ("-1 234,5", ",", -1234.5),
        ("$1,234.50", ".", 1234.5),
        ("1'234.50", ".", 1234.5),
        ("12", ".", 12.0),
        (".5", ".", 0.5),
        ("3,45", ".", None),
        ("1,23,456.00", ".", None),
        ("1.2.3", ".", None),
        ("12 pcs", ".", None),
        ("", ".", None),
    ],
)
def test_marks_and_signs(text: str, mark: str, meant: float | None) -> None:
    (found,) = duckdb.execute(f"SELECT CAST({plain_number('$1', mark)} AS DOUBLE)", [text]).fetchall()
    assert found == (meant,)


@given(st.integers(-(10**11), 10**11), st.sampled_from([".", ","]))
def test_what_is_written_with_separators_is_read(cents: int, mark: str) -> None:
    plain = f"{cents / 100:,.2f}"
    written = plain if mark == "." else plain.translate(str.maketrans(",.", ".,"))
    ((found,),) = duckdb.execute(
        f"SELECT CAST({plain_number('$1', mark)} AS DECIMAL(25, 2)) * 100", [written]
    ).fetchall()
    assert int(found) == cents


def test_values_and_properties_have_the_same_marks(one_source: Source) -> None:
    text = csv(
        'a,2024-03-09,buy,"1.234,56","4,5"', "b,2024-03-09,buy,7,3", header="customer_id,occurred_at,event,value,rating"
    )
    found = touchpoints(ingest(one_source(text, {"decimal_mark": ",", "columns": {"rating": "rating"}})))
    assert dict(zip(found["customer_id"], found["value"], strict=True)) == {"a": 123456, "b": 700}
    assert dict(zip(found["customer_id"], found["property_rating"], strict=True)) == {"a": 4.5, "b": 3.0}


def test_without_a_mark_a_comma_is_no_number(one_source: Source) -> None:
    text = csv('a,2024-03-09,buy,"3,45"', header="customer_id,occurred_at,event,value")
    with pytest.raises(DataError, match="say which: decimal_mark"):
        ingest(one_source(text))


# --- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "windows-1252", "latin-1", "utf-16"])
@pytest.mark.parametrize("query", [False, True])
def test_encodings(tmp_path: Path, configure: Source, encoding: str, query: bool) -> None:
    text = csv("Zoë,2024-03-09,café", "Jürgen,2024-03-09,visit")
    (tmp_path / "log.csv").write_bytes(text.encode(encoding))
    source: dict[str, Any] = {"path": "log.csv"}
    if query:
        source = {"query": "SELECT * FROM log", "files": {"log": "log.csv"}}
    store = ingest(configure(sources={"log": {**source, "encoding": encoding.removesuffix("-sig")}}))
    assert set(touchpoints(store)["customer_id"]) == {"Zoë", "Jürgen"}
    assert set(touchpoints(store)["event"]) == {"café", "visit"}


def test_a_wrong_encoding_is_told(tmp_path: Path, configure: Source) -> None:
    (tmp_path / "log.csv").write_bytes(csv("Zoë,2024-03-09,visit", "b,2024-03-09,visit").encode("latin-1"))
    with pytest.raises(DataError, match="say so: encoding: windows-1252"):
        ingest(configure(sources={"log": {"path": "log.csv"}}))


def test_bytes_that_an_encoding_does_not_have(tmp_path: Path, configure: Source) -> None:
    (tmp_path / "log.csv").write_bytes(csv("a,2024-03-09,visit").encode() + b"b\x81,2024-03-09,visit\n")
    with pytest.raises(DataError, match=r"log\.csv is not windows-1252 text"):
        ingest(configure(sources={"log": {"path": "log.csv", "encoding": "windows-1252"}}))


def test_a_compressed_file_in_another_encoding_and_a_broken_line(tmp_path: Path, configure: Source) -> None:
    text = csv("Zoë,2024-03-09,visit", "too,few", "Jürgen,2024-03-09,visit")
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode("windows-1252")))
    config = configure(sources={"log": {"path": "log.csv.gz", "encoding": "windows-1252"}}, refused_share=0.5)
    store = ingest(config)
    assert (store.counts["log"].rows_in, store.counts["log"].refused) == (3, {"unreadable line": 1})
    assert set(touchpoints(store)["customer_id"]) == {"Zoë", "Jürgen"}
    assert {one["file"] for one in store.fingerprints["log"]} == {"log.csv.gz"}
