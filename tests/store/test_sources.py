"""Reading: what becomes of ids, times, values and columns, and what is refused."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvj_ml.config import DAY, Config, TableSpec
from cvj_ml.customers import read_people
from cvj_ml.errors import ConfigError, DataError
from cvj_ml.journey import Journey, entry_times
from cvj_ml.ownership import MARKER
from cvj_ml.store import ingest
from cvj_ml.store.fields import Field
from cvj_ml.store.mapping import read_value
from cvj_ml.store.sql import to_utc, to_wall
from cvj_ml.windows import NEVER, is_live, to_microseconds


def whole(store):
    """Return all touchpoints of a store as one frame."""
    tables = [
        pq.read_table(path, partitioning=None) for path in sorted(store.folder.glob("bucket-*/touchpoints.parquet"))
    ]
    return pa.concat_tables(tables).to_pandas().sort_values(["customer_id", "occurred_at"], ignore_index=True)


def frame(**columns):
    length = max(len(column) for column in columns.values() if isinstance(column, list))
    defaults = {"customer_id": ["a"] * length, "occurred_at": pd.Timestamp("2024-05-01"), "event": "visit"}
    return pd.DataFrame(defaults | columns)


# --- ids -------------------------------------------------------------------------------------------------------------


def test_ids_of_csv_keep_their_zeros(one_source):
    store = ingest(one_source("customer_id,occurred_at,event\n00123,2024-05-01,visit\n#9,2024-05-01,visit\n"))
    assert list(whole(store).customer_id) == ["#9", "00123"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pd.array([12, -3], dtype="int64"), {"12", "-3"}),
        (pd.array([12.0, 2.0**53 - 1], dtype="float64"), {"12", "9007199254740991"}),
        (pd.array([Decimal("12.00"), Decimal("7.00")], dtype=pd.ArrowDtype(pa.decimal128(9, 2))), {"12", "7"}),
        (pd.array(["007", "é"], dtype="str"), {"007", "é"}),
    ],
)
def test_ids_become_text(one_source, ids, expected):
    assert set(
        whole(ingest(one_source(frame(customer_id=list(ids), n=[1, 2]).assign(customer_id=ids)))).customer_id
    ) == (expected)


def test_ids_that_are_no_whole_numbers_are_refused(one_source):
    rows = frame(customer_id=[1.0, 1.5, 2.0**53, np.nan])  # 2**53 may have been one more
    store = ingest(one_source(rows, refused_share=1.0))
    assert store.counts["log"].refused == {"no customer_id": 1, "unreadable customer_id": 2}
    assert list(whole(store).customer_id) == ["1"]


def test_ids_as_number_here_and_text_there_are_an_error_unless_declared_text(tmp_path, configure):
    frame(customer_id=[7]).to_parquet(tmp_path / "numbers.parquet")
    frame(customer_id=["7"]).to_parquet(tmp_path / "texts.parquet")
    sources = {"one": {"path": "numbers.parquet"}, "two": {"path": "texts.parquet"}}
    with pytest.raises(DataError, match=r"a number in sources\.one, text in sources\.two.*ids: text"):
        ingest(configure(sources=sources))
    assert ingest(configure(sources=sources, ids="text")).customers == 1


def test_an_id_that_changes_type_between_files_of_one_source_is_an_error(tmp_path, configure):
    frame(customer_id=[7]).to_parquet(tmp_path / "a1.parquet")
    frame(customer_id=["007"]).to_parquet(tmp_path / "a2.parquet")
    with pytest.raises(DataError, match=r"'customer_id' is a number in a1.parquet and text in a2.parquet"):
        ingest(configure(sources={"log": {"path": "a*.parquet"}}))


# --- times -----------------------------------------------------------------------------------------------------------

ZONES = ("Europe/London", "Australia/Lord_Howe", "America/Havana", "Pacific/Apia", "Africa/Casablanca", "UTC")
WALLS = st.datetimes(datetime(1930, 1, 1), datetime(2090, 1, 1))


def walls_near_changes(zone):
    """Return wall times around the changes of a zone's offset since 1990."""
    rules, near = ZoneInfo(zone), []
    hours = [datetime(1990, 1, 1, tzinfo=UTC) + timedelta(hours=k) for k in range(0, 24 * 365 * 36, 6)]
    for this, following in pairwise(hours):
        if this.astimezone(rules).utcoffset() != following.astimezone(rules).utcoffset():
            start = this.astimezone(rules).replace(tzinfo=None)
            near += [start + timedelta(minutes=m) for m in range(-120, 600, 15)]
    return near


def check_zone(zone, walls):
    micros = [to_microseconds(wall.replace(tzinfo=UTC)) for wall in walls]
    with duckdb.connect() as connection:
        connection.register("walls", pa.table({"position": range(len(micros)), "wall": micros}))
        rows = connection.execute(f"SELECT {to_utc('wall', zone)} FROM walls ORDER BY position").fetchall()
    # Python's default for a wall time that happens twice is the first, as in windows.midnight.
    expected = [to_microseconds(wall.replace(tzinfo=ZoneInfo(zone))) for wall in walls]
    assert [row[0] for row in rows] == expected
    utc = np.array(expected)
    local = [instant.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone)) for instant in walls]
    assert list(to_wall(utc, zone)) == [to_microseconds(one.replace(tzinfo=UTC)) for one in local]


@pytest.mark.parametrize("zone", ZONES)
def test_wall_times_around_every_change_of_the_clock_agree_with_python(zone):
    check_zone(zone, walls_near_changes(zone) or [datetime(2024, 1, 1)])


@settings(max_examples=20)
@given(zone=st.sampled_from(ZONES), walls=st.lists(WALLS, min_size=1, max_size=20))
def test_wall_times_of_other_years_agree_with_python(zone, walls):
    check_zone(zone, walls)


@pytest.mark.parametrize(
    ("times", "text", "utc"),
    [
        ("local", "2024-07-01 12:00:00", "2024-07-01T11:00:00Z"),
        ("utc", "2024-07-01 12:00:00", "2024-07-01T12:00:00Z"),
        ("America/New_York", "2024-07-01T12:00:00.5", "2024-07-01T16:00:00.5Z"),
        ("local", "2024-07-01", "2024-06-30T23:00:00Z"),
        ("local", "2024-07-01T12:00:00+05:30", "2024-07-01T06:30:00Z"),
        ("local", "2024-07-01 12:00:00Z", "2024-07-01T12:00:00Z"),
        ("local", "2024-07-01 12:00:00-0800", "2024-07-01T20:00:00Z"),
        ("local", "2024-10-27 01:30:00", "2024-10-27T00:30:00Z"),
        ("local", "2024-03-31 01:30:00", "2024-03-31T01:30:00Z"),
    ],
)
def test_text_times(one_source, times, text, utc):
    rows = f"customer_id,occurred_at,event\na,{text},visit\n"
    store = ingest(one_source(rows, {"times": times}, time_zone="Europe/London"))
    assert list(whole(store).occurred_at) == [pd.Timestamp(utc)]


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "01/02/2024", "20240101", "epoch", "infinity", "12:30"])
def test_times_that_cannot_be_read_are_refused(one_source, text):
    rows = f"customer_id,occurred_at,event\na,{text},visit\na,2024-05-01,visit\na,,visit\n"
    store = ingest(one_source(rows, refused_share=1.0))
    assert store.counts["log"].refused == {"no occurred_at": 1, "unreadable occurred_at": 1}


def test_typed_times_in_every_unit_and_zone(one_source):
    expected = [pd.Timestamp("2024-07-01T11:00:00Z")]
    for kind, naive in (
        (pa.timestamp("ns"), True),
        (pa.timestamp("s"), True),
        (pa.timestamp("ms", "Asia/Tokyo"), False),
    ):
        moment = datetime(2024, 7, 1, 12) if naive else datetime(2024, 7, 1, 11, tzinfo=UTC)
        table = pa.table({"customer_id": ["a"], "occurred_at": pa.array([moment], kind), "event": ["visit"]})
        store = ingest(one_source(table.to_pandas(types_mapper=pd.ArrowDtype), time_zone="Europe/London"))
        assert list(whole(store).occurred_at) == expected, kind


def test_infinite_times_are_refused(tmp_path, configure):
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'a' AS customer_id, unnest(['infinity'::TIMESTAMP, '2024-05-01'::TIMESTAMP]) AS occurred_at,"
            f" 'visit' AS event) TO '{tmp_path}/log.parquet'"
        )
    store = ingest(configure(sources={"log": {"path": "log.parquet"}}, refused_share=1.0))
    assert store.counts["log"].refused == {"unreadable occurred_at": 1}


def test_a_number_is_no_time(one_source):
    with pytest.raises(DataError, match="occurred_at is BIGINT; give a timestamp"):
        ingest(one_source(frame(occurred_at=[1714521600])))


def test_the_day_is_the_local_calendar_day(one_source):
    times = pd.to_datetime(["2024-06-30 22:59:59", "2024-06-30 23:00:00", "2024-12-01 00:00:00"])
    store = ingest(one_source(frame(occurred_at=list(times), n=[1, 2, 3]), {"times": "utc"}, time_zone="Europe/London"))
    day = pd.Timestamp("2024-07-01").value // (DAY * 1000)
    assert list(whole(store).day) == [day - 1, day, day + 153]


def test_visible_is_the_later_of_occurred_and_known(one_source):
    known = pd.to_datetime(["2024-05-03", "2024-04-01"])
    store = ingest(one_source(frame(known_at=list(known))))
    assert sorted(whole(store).visible_at) == [
        pd.Timestamp("2024-05-01", tz="UTC"),
        pd.Timestamp("2024-05-03", tz="UTC"),
    ]


def test_a_missing_known_at_is_refused_and_not_taken_as_known_at_once(one_source):
    store = ingest(one_source(frame(known_at=[pd.Timestamp("2024-05-03"), pd.NaT]), refused_share=1.0))
    assert store.counts["log"].refused == {"no known_at": 1}


def test_known_after_shifts_visibility_and_is_the_arrival_delay(one_source):
    store = ingest(one_source(frame(n=[1]), {"known_after": "1d"}))
    assert list(whole(store).visible_at) == [pd.Timestamp("2024-05-02", tz="UTC")]
    assert store.arrival_delay == DAY


def one_day(kind: str, written: str = "2024-01-31") -> pd.DataFrame | str:
    """Return a log of one row that tells its day only, in one of the ways to do so."""
    date = pd.Timestamp(written)
    match kind:
        case "date":
            return frame(occurred_at=[date.date()], n=[1])
        case "text":
            return f"customer_id,occurred_at,event\na,{written},visit\n"
        case "format":
            return f"customer_id,occurred_at,event\na,{date:%d.%m.%Y},visit\n"
        case "number":
            return frame(occurred_at=[int(f"{date:%Y%m%d}")], n=[1])
        case _:
            return frame(occurred_at=[date + pd.Timedelta(hours=15)], n=[1])


DAY_SOURCES: dict[str, dict[str, str]] = {
    "date": {},
    "text": {},
    "format": {"time_format": "%d.%m.%Y"},
    "number": {"time_format": "%Y%m%d"},
    "declared": {"resolution": "day"},
}


@pytest.mark.parametrize("kind", DAY_SOURCES)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Auckland"])
def test_a_row_without_hours_is_a_day_of_the_own_calendar(one_source, kind, zone):
    """Silent error 67: whatever `times` says of hours, a date is the local day that is written."""
    for times in {"local", "UTC"} if kind != "declared" else {"local"}:
        rows = whole(ingest(one_source(one_day(kind), DAY_SOURCES[kind] | {"times": times}, time_zone=zone)))
        assert list(rows.date_only) == [True]
        assert list(rows.occurred_at) == [pd.Timestamp("2024-01-31", tz=zone)]
        assert list(rows.day) == [pd.Timestamp("2024-01-31").value // (DAY * 1000)]


@pytest.mark.parametrize("kind", DAY_SOURCES)
@pytest.mark.parametrize("written", ["2024-01-31", "2024-03-30", "2024-03-31", "2024-10-27"])
@pytest.mark.parametrize("days", [1, 2])
def test_a_day_known_so_many_days_later_is_seen_by_the_midnight_that_ends_them(one_source, kind, written, days):
    """Silent error 69: a row of 31 January is visible at 1 February's midnight under 1d, clock changes or not."""
    zone = "Europe/London"
    source = DAY_SOURCES[kind] | {"known_after": f"{days}d"}
    store = ingest(one_source(one_day(kind, written), source, time_zone=zone))
    midnight = (pd.Timestamp(written) + pd.Timedelta(days=days)).tz_localize(zone)
    (seen,) = whole(store).visible_at
    assert seen == midnight - pd.Timedelta(microseconds=1)
    assert is_live(to_microseconds(seen.to_pydatetime()), NEVER, to_microseconds(midnight.to_pydatetime()))
    assert store.arrival_delay == days * DAY


def test_hours_that_mean_nothing_make_no_row_known_earlier(one_source):
    rows = whole(ingest(one_source(one_day("declared"), DAY_SOURCES["declared"])))
    assert list(rows.occurred_at) == [pd.Timestamp("2024-01-31", tz="UTC")]
    assert list(rows.visible_at) == [pd.Timestamp("2024-01-31 15:00", tz="UTC")]


def test_hours_are_hours_and_of_text_each_row_tells(one_source):
    """Silent error 67: midnight that is written is an instant; what is not written is not known."""
    assert not whole(ingest(one_source(frame(n=[1])))).date_only.any()
    rows = "customer_id,occurred_at,event\na,2024-01-31,visit\nb,2024-01-31 00:00:00,visit\nc,2024-01-31T00:00Z,visit\n"
    found = whole(ingest(one_source(rows))).set_index("customer_id")
    assert found.date_only.to_dict() == {"a": True, "b": False, "c": False}


@pytest.mark.parametrize("last", ["review", "feedback"])
def test_a_log_of_dates_asks_whether_the_same_day_counts(tmp_path, configure, last):
    """Silent error 66, from the file on: the later event of the same day, under either name."""
    rows = f"customer_id,occurred_at,event\na,2024-01-05,purchase\na,2024-01-05,{last}\n"
    (tmp_path / "log.csv").write_text(rows, encoding="utf-8")
    for same_day, expected in (("counts", True), ("later", False)):
        stages = [
            {"name": "Convert", "enter": {"event": "purchase"}},
            {"name": "Stay", "enter": {"event": ["review", "feedback"], "after": "Convert"}},
        ]
        journey = {"name": "one", "same_day": same_day, "stages": stages}
        config = configure(sources={"log": {"path": "log.csv"}}, journey=journey)
        store = ingest(config)
        (bucket,) = store.buckets_of(None)
        entries = entry_times(Journey(config.journey), store.read(bucket).touchpoints)
        assert (entries[0, 1] != NEVER) == expected


def test_known_after_beside_a_known_at_column_is_an_error(one_source):
    with pytest.raises(DataError, match="known_at and known_after; keep one"):
        ingest(one_source(frame(known_at=[pd.Timestamp("2024-05-03")]), {"known_after": "1d"}))


def test_the_arrival_delay_is_the_99_percent_quantile_in_whole_seconds(one_source):
    late = [pd.Timestamp("2024-05-01") + pd.Timedelta(milliseconds=1500 * k) for k in range(1, 201)]
    config = one_source(frame(known_at=late))
    assert ingest(config).arrival_delay == 297_000_000
    configured = one_source(frame(known_at=late), {"arrival_delay": "2d"})
    assert ingest(configured).arrival_delay == 2 * DAY


# --- values and properties -------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.decimals(-9_999_999, 9_999_999, places=3), min_size=1, max_size=30))
def test_values_round_half_away_from_zero_alike_as_float_text_and_decimal(numbers):
    expected = [int((number * 100).quantize(Decimal(1), ROUND_HALF_UP)) for number in numbers]
    with duckdb.connect() as connection:
        for kind, column in (
            ("DOUBLE", [float(number) for number in numbers]),
            ("VARCHAR", [str(number) for number in numbers]),
            ("DECIMAL(12,3)", pa.array(numbers, pa.decimal128(12, 3))),
        ):
            connection.register("numbers", pa.table({"position": range(len(numbers)), "v": column}))
            sql = read_value("test", Field("v", kind, False, "v"), TableSpec(path=("v",)), 2, []).value
            rows = connection.execute(f"SELECT {sql} FROM numbers ORDER BY position").fetchall()
            assert [row[0] for row in rows] == expected, kind


def test_values_are_minor_units_with_nulls_and_unreadable_ones_refused(one_source):
    rows = "customer_id,occurred_at,event,value\n" + "".join(
        f"a,2024-05-0{day},visit,{value}\n"
        for day, value in enumerate(["12.345", "-0.5", "", "1e3", "12 EUR", "nan"], 1)
    )
    store = ingest(one_source(rows, refused_share=1.0))
    block = store.read(next(i for i, n in enumerate(store.bucket_customers) if n)).touchpoints
    assert list(block.value) == [1235, -50, 0, 100_000]
    assert list(block.has_value) == [True, True, False, True]
    assert store.counts["log"].refused == {"unreadable value": 2}


def test_a_float_value_without_number_is_missing_and_an_infinite_one_refused(one_source):
    store = ingest(one_source(frame(value=[1.5, np.nan, np.inf]), refused_share=1.0))
    assert store.counts["log"].refused == {"unreadable value": 1}
    assert sorted(whole(store).value.dropna()) == [150]


def test_decimals_of_the_value_are_configured(one_source):
    assert list(whole(ingest(one_source(frame(value=[7]), value_decimals=0))).value) == [7]


def test_properties_of_csv_become_numbers_only_if_all_of_them_are(one_source):
    rows = (
        "customer_id,occurred_at,event,a,b\nx,2024-05-01,visit,1,1\nx,2024-05-02,visit,,one\nx,2024-05-03,visit,-0,\n"
    )
    store = ingest(one_source(rows, {"columns": {"rating": "a", "word": "b"}}))
    assert store.property_kinds == {"rating": "double", "word": "string"}
    properties = store.read(next(i for i, n in enumerate(store.bucket_customers) if n)).touchpoints.properties
    np.testing.assert_array_equal(properties["rating"], [1.0, np.nan, 0.0])
    assert not np.signbit(properties["rating"][2])
    assert properties["word"].values == ("1", "one")
    assert list(properties["word"].codes) == [0, 1, -1]


def test_a_property_that_is_text_in_one_source_is_text_in_all(tmp_path, configure):
    frame(code=[5.0]).to_parquet(tmp_path / "one.parquet")
    frame(code=["x"]).to_parquet(tmp_path / "two.parquet")
    columns = {"columns": {"code": "code"}}
    sources = {"one": {"path": "one.parquet"} | columns, "two": {"path": "two.parquet"} | columns}
    store = ingest(configure(sources=sources))
    assert store.property_kinds == {"code": "string"}
    assert set(whole(store).property_code) == {"5", "x"}


def test_truth_values_become_zero_and_one(one_source):
    store = ingest(one_source(frame(member=[True, False]), {"columns": {"member": "member"}}))
    assert sorted(whole(store).property_member) == [0.0, 1.0]


# --- mapping and refusals --------------------------------------------------------------------------------------------


def test_columns_are_mapped_constants_filled_in_and_other_columns_left_out(one_source):
    rows = pd.DataFrame({"cust": ["a"], "ts": [pd.Timestamp("2024-05-01")], "channel": ["web"], "noise": [1]})
    source = {
        "columns": {"customer_id": "cust", "occurred_at": "ts"},
        "constants": {"event": "purchase", "kind": "x'y"},
    }
    row = whole(ingest(one_source(rows, source))).iloc[0]
    assert (row.event, row.channel, row.property_kind, row.source) == ("purchase", "web", "x'y", "log")
    assert "property_noise" not in row.index


def test_rows_are_refused_by_reason_kept_privately_and_add_up(one_source):
    rows = (
        "customer_id,occurred_at,event\na,2024-05-01,visit\n,2024-05-01,visit\na,2024-05-01,\na,nonsense,visit\n"
        "a,2024-05-01\na,2024-05-01,visit,more\nb,2024-05-01,visit\n"
    )
    store = ingest(one_source(rows, refused_share=0.9))
    counts = store.counts["log"]
    assert counts.refused == {"no customer_id": 1, "no event": 1, "unreadable line": 2, "unreadable occurred_at": 1}
    assert (counts.rows_in, counts.stored) == (7, 2)
    path = store.folder / "quarantine.parquet"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    quarantine = pq.read_table(path, partitioning=None).to_pandas()
    assert list(quarantine.source.unique()) == ["log"]
    unreadable = quarantine[quarantine.reason == "unreadable occurred_at"].row.item()
    assert json.loads(unreadable) == {"customer_id": "a", "occurred_at": "nonsense", "event": "visit"}


def test_too_many_refused_rows_stop_with_their_reasons_and_leave_only_the_quarantine(one_source, tmp_path):
    config = one_source("customer_id,occurred_at,event\nsecret-1,nonsense,visit\nb,2024-05-01,visit\n")
    with pytest.raises(DataError) as caught:
        ingest(config)
    message = str(caught.value)
    assert (
        "sources.log: 1 of 2 rows refused, more than refused_share 0.01 allows (unreadable occurred_at: 1)" in message
    )
    assert "secret-1" not in message and "nonsense" not in message
    (left,) = [path for path in Path(config.out).rglob("*") if path.is_file() and path.name not in (".lock", MARKER)]
    assert left.parent.name == "quarantine" and str(left) in message
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert {path.name for path in (Path(config.out) / "store").iterdir()} == {".lock"}


def test_a_stricter_share_stops_the_reuse_of_a_store(one_source):
    rows = "customer_id,occurred_at,event\na,nonsense,visit\nb,2024-05-01,visit\n"
    ingest(one_source(rows, refused_share=0.5))
    with pytest.raises(DataError, match=r"more than refused_share 0\.1 "):
        ingest(one_source(rows, refused_share=0.1))


def test_faults_of_all_sources_are_listed_at_once(tmp_path, configure):
    frame(n=[1]).rename(columns={"event": "evnt"}).to_parquet(tmp_path / "misspelt.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 this is no Parquet")
    pd.DataFrame().to_excel(tmp_path / "book.xlsx", engine="xlsxwriter")
    (tmp_path / "book.xlsx").rename(tmp_path / "book.csv")
    frame(n=[1]).to_parquet(tmp_path / "whole.parquet")
    sources = {
        "one": {"path": "misspelt.parquet"},
        "two": {"path": "torn.parquet"},
        "three": {"path": "wholes.parquet"},
        "four": {"path": "none/*.csv"},
        "five": {"path": "book.csv"},
        "six": {"path": "whole.parquet", "columns": {"rating": "m"}},
    }
    with pytest.raises(DataError) as caught:
        ingest(configure(sources=sources))
    message = str(caught.value)
    assert caught.value.exit_code == 3
    for part in (
        "sources.one: there is no column 'event'; map it under columns (event: <its name there>). Did you mean 'evnt'?",
        "torn.parquet is a Parquet file without its end: the copy is not complete",
        "there is no such file. Did you mean 'whole.parquet'?",
        "sources.four: no file matches",
        "book.csv is an Excel workbook",
        "sources.six: columns.rating: there is no column 'm'",
    ):
        assert part in message, part


def test_data_without_rows_is_an_error(one_source):
    with pytest.raises(DataError, match=r"sources\.log: 0 rows came in and none is left"):
        ingest(one_source("customer_id,occurred_at,event\n"))


def test_an_empty_file_is_an_error(one_source):
    with pytest.raises(DataError, match=r"sources\.log"):
        ingest(one_source(""))


def test_a_damaged_page_is_an_error_without_data(one_source, tmp_path):
    config = one_source(frame(customer_id=[f"person-{k}" for k in range(5000)]))
    raw = bytearray((tmp_path / "log.parquet").read_bytes())
    raw[200:4000] = bytes(3800)
    (tmp_path / "log.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"sources\.log: .*log\.parquet is damaged: not all of it"):
        ingest(config)
    assert {path.name for path in (Path(config.out) / "store").iterdir()} == {".lock"}


def test_file_names_that_look_like_patterns_are_read(tmp_path, configure):
    frame(n=[1]).to_parquet(tmp_path / "log[1].parquet")
    assert ingest(configure(sources={"log": {"path": "log[1].parquet"}})).customers == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_csv_is_that_of_its_header(one_source, delimiter):
    rows = "\ufeffcustomer_id,occurred_at,event,channel\na,2024-05-01,visit,x\n".replace(",", delimiter)
    other = next(one for one in ",;|" if one != delimiter)
    store = ingest(one_source(rows + f'b{delimiter}2024-05-01{delimiter}"say ""hi""\n"{delimiter}{other * 9}\n'))
    assert list(whole(store).event) == ["visit", 'say "hi"\n']
    assert list(whole(store).channel) == ["x", other * 9]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_of_csv(tmp_path, configure, end):
    rows = end.join(["customer_id,occurred_at,event", 'a,2024-05-01,"x"', "b,2024-05-01,y"])
    (tmp_path / "log.csv").write_bytes(rows.encode())
    assert list(whole(ingest(configure(sources={"log": {"path": "log.csv"}}))).event) == ["x", "y"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("customer_id,occurred_at,event,event", "names 'event' twice"),
        ("customer_id,,event,x", "names no column in place 2"),
        ("", "has no header: its first line holds data"),
    ],
)
def test_a_header_that_does_not_name_each_column_once_is_an_error(one_source, header, words):
    with pytest.raises(DataError, match=words):
        ingest(one_source(header + "\na,2024-05-01,visit,x\nb,2024-05-02,visit,x\n"))


def test_a_line_that_is_not_utf8_is_refused(tmp_path, configure):
    (tmp_path / "log.csv").write_bytes(b"customer_id,occurred_at,event\na,2024-05-01,caf\xe9\nb,2024-05-01,visit\n")
    store = ingest(configure(sources={"log": {"path": "log.csv"}}, refused_share=0.5))
    assert store.counts["log"].refused == {"unreadable line": 1}


def test_a_broken_gzip_file_is_an_error(tmp_path, configure):
    (tmp_path / "log.csv.gz").write_bytes(b"\x1f\x8b this is no gzip")
    with pytest.raises(DataError, match=r"sources\.log: .*is a gzip file that is cut or damaged; copy it again"):
        ingest(configure(sources={"log": {"path": "log.csv.gz"}}))


def test_gzipped_csv_and_several_files(tmp_path, configure):
    for number in (1, 2):
        frame(customer_id=[f"c{number}"]).to_csv(tmp_path / f"part{number}.csv.gz", index=False)
    assert ingest(configure(sources={"log": {"path": ["part*.csv.gz", "part1.csv.gz"]}})).counts["log"].rows_in == 2


# --- queries ---------------------------------------------------------------------------------------------------------


def query(configure, text, **extra):
    return configure(sources={"log": {"query": text, "files": {"lines": "lines.parquet"}} | extra})


def test_a_query_runs_over_its_files(tmp_path, configure):
    frame(customer_id=[1, 1, 2], value=[1.0, 2.5, 4.0]).to_parquet(tmp_path / "lines.parquet")
    text = (
        "SELECT customer_id, min(occurred_at) AS occurred_at, event, sum(value) AS value FROM lines GROUP BY ALL -- end"
    )
    rows = whole(ingest(query(configure, text)))
    assert list(rows.customer_id) == ["1", "2"] and list(rows.value) == [350, 400]


def test_a_whole_sum_keeps_its_digits(tmp_path, configure):
    frame(value=[2**53, 1]).to_parquet(tmp_path / "lines.parquet")
    text = "SELECT customer_id, occurred_at, event, sum(value) AS value FROM lines GROUP BY ALL"
    assert list(whole(ingest(query(configure, text))).value) == [(2**53 + 1) * 100]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT * FROM lines; SELECT * FROM lines", "found SELECT, SELECT"),
        ("COPY lines TO 'stolen.csv'", "found COPY"),
        ("", "found nothing"),
        ("SET threads = 1", "found SET"),
        ("SELECT * FROM linez", "linez"),
        ("SELECT * FORM lines", "yntax"),
        ("SELECT * FROM '{folder}/other.parquet'", "disabled by configuration"),
        ("SELECT * FROM read_text('{folder}/other.parquet')", "disabled by configuration"),
        ("SELECT * FROM glob('{folder}/*')", "disabled by configuration"),
        ("SELECT * FROM outside", "outside does not exist"),
    ],
)
def test_a_query_that_is_not_one_select_over_its_files_is_refused(tmp_path, configure, text, found):
    frame(n=[1]).to_parquet(tmp_path / "lines.parquet")
    outside = frame(n=[1])
    outside.to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match=found):
        ingest(query(configure, text.format(folder=tmp_path)))


def test_an_error_in_a_row_of_a_query_does_not_show_the_row(tmp_path, configure):
    frame(customer_id=["secret-7"]).to_parquet(tmp_path / "lines.parquet")
    text = "SELECT customer_id::INTEGER AS customer_id, occurred_at, event FROM lines"
    with pytest.raises(DataError, match="the query fails on its rows") as caught:
        ingest(query(configure, text))
    assert "secret-7" not in str(caught.value)


def test_ids_of_csv_stay_text_in_queries(tmp_path, configure):
    (tmp_path / "lines.csv").write_text("customer_id,occurred_at,event\n007,2024-05-01,visit\n")
    config = configure(sources={"log": {"query": "SELECT * FROM lines", "files": {"lines": "lines.csv"}}})
    assert list(whole(ingest(config)).customer_id) == ["007"]


# --- contact ---------------------------------------------------------------------------------------------------------


def test_contact_is_text_sorted_by_id(tmp_path, configure):
    frame(n=[1]).to_parquet(tmp_path / "log.parquet")
    (tmp_path / "crm.csv").write_text("id,name,email\n02,Bo,b@x\n01,Al,\n")
    config = configure(
        sources={"log": {"path": "log.parquet"}},
        contact={"path": "crm.csv", "customer_id": "id", "columns": ["name", "email"]},
    )
    assert read_people(config).contact.to_pylist() == [
        {"customer_id": "01", "name": "Al", "email": None},
        {"customer_id": "02", "name": "Bo", "email": "b@x"},
    ]


def test_contact_that_names_a_customer_twice_is_an_error(tmp_path, configure):
    (tmp_path / "crm.csv").write_text("customer_id,name\n1,Bo\n1,Al\n")
    config = configure(sources={"log": {"path": "log.parquet"}}, contact={"path": "crm.csv", "columns": "name"})
    with pytest.raises(DataError, match=r"1 row\(s\) repeat a customer_id"):
        read_people(config)


@pytest.mark.parametrize("name", ["out [2024]", "a*b?", "{x}", "o'clock", 'quo"te', "bucket=3", "100 %"])
@pytest.mark.parametrize("place", ["out", "folder", "source", "glob"])
def test_names_that_look_like_patterns(tmp_path, name, place):
    folder = tmp_path / (name if place in ("folder", "glob") else "plain")
    folder.mkdir()
    frame(touchpoint_id=["1", "1", "2"]).to_parquet(folder / "log.parquet")
    journey = {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "visit"}}]}
    source = name if place == "source" else "log"

    def read(path):
        settings = {"name": "test", "time_zone": "UTC", "history_from": "2024-01-01", "journey": journey}
        settings |= {"out": name if place == "out" else "out", "sources": {source: {"path": path}}}
        return ingest(Config.model_validate(settings, context={"folder": folder}))

    assert read("*.parquet" if place == "glob" else "log.parquet").customers == 1
    frame(touchpoint_id=["3", "4", "2"]).to_parquet(folder / "more.parquet")
    assert read(["log.parquet", "more.parquet"]).counts[source].rows_in == 6


@pytest.mark.parametrize("name", ["../../../beyond", "/", "a/b", "x" * 300, ".."])
def test_a_source_may_be_called_anything(tmp_path, configure, name):
    frame(n=[1]).to_parquet(tmp_path / "log.parquet")
    before = sorted(tmp_path.iterdir())
    assert ingest(configure(sources={name: {"path": "log.parquet"}})).customers == 1
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])
