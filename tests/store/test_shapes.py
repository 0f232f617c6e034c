"""Shapes of rows: several ids in one, rows that are no touchpoints, several dates in one; and their past.

The oracle is plain Python over the same rows. Silent error 89: a row that a condition leaves out is lost without a
count, or a date of tomorrow stands in a past row.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.test_formats import csv, touchpoints

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, DataError
from cvj_ml.store import Store, Truncation, ingest
from cvj_ml.windows import NEVER

Source = Callable[..., Config]

AT = "2024-03-01 10:00:00"


def people(store: Store) -> list[str]:
    """The customers of the end, who are people, whatever the number of their ids."""
    found = []
    for bucket in range(store.buckets):
        block = store.read(bucket)
        there = block.touchpoints.are_customers(NEVER)
        found += [name for name, one in zip(block.customers, there, strict=True) if one]
    return sorted(found)


# --- several ids in one row ------------------------------------------------------------------------------------------


def test_the_first_id_that_is_filled_counts(one_source: Source) -> None:
    rows = csv(
        f"u1,p1,{AT},x", f",p2,{AT},x", f"  ,p3,{AT},x", f"null,p4,{AT},x", f",,{AT},x", header="u,p,occurred_at,event"
    )
    source = {"columns": {"customer_id": ["u", "p"]}, "null_values": ["null"]}
    store = ingest(one_source(rows, source, refused_share=0.9, ids={"match": "trimmed"}))
    assert people(store) == ["p2", "p3", "p4", "u1"]
    assert store.counts["log"].refused == {"no customer_id": 1}


def test_an_id_that_cannot_be_read_is_not_replaced_by_the_next(one_source: Source) -> None:
    rows = pd.DataFrame({"u": [1.5, 2.0, None], "p": [7, 8, 9], "occurred_at": AT, "event": "x"})
    store = ingest(one_source(rows, {"columns": {"customer_id": ["u", "p"]}}, refused_share=0.9))
    assert people(store) == ["2", "9"]
    assert store.counts["log"].refused == {"unreadable customer_id": 1}


def test_ids_of_two_kinds_in_one_row_are_told(one_source: Source) -> None:
    rows = pd.DataFrame({"u": [1], "p": ["7"], "occurred_at": AT, "event": "x"})
    with pytest.raises(DataError, match="customer_id is a number in u, text in p: 7 and 007 may or may not"):
        ingest(one_source(rows, {"columns": {"customer_id": ["u", "p"]}}))
    assert ingest(one_source(rows, {"columns": {"customer_id": ["u", "p"]}}, ids="text")).customers == 1


@pytest.mark.parametrize("columns", [{"event": ["a", "b"]}, {"customer_id": []}, {"customer_id": ["a", "a"]}])
def test_a_list_of_columns_is_for_ids(configure: Source, columns: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="name one column; customer_id alone can have a list"):
        configure(sources={"log": {"path": "x", "columns": columns}})


def test_a_broken_line_may_be_of_either_id(one_source: Source) -> None:
    rows = csv(f"u1,p1,{AT},x", f"u2,p2,{AT},x,more", header="u,p,occurred_at,event")
    store = ingest(one_source(rows, {"columns": {"customer_id": ["u", "p"]}}, refused_share=0.9))
    (kept,) = pq.read_table(store.folder / "quarantine.parquet", partitioning=None).to_pylist()
    assert {"u2", "p2"} <= set(kept["customer_ids"])


# --- where -----------------------------------------------------------------------------------------------------------


def test_rows_of_another_kind_are_left_out_and_counted(one_source: Source) -> None:
    rows = csv(
        f"a,{AT},x,paid,1",
        f"b,{AT},x,void,1",
        f"c,{AT},x,Partially,",
        f",{AT},x,void,",
        header="customer_id,occurred_at,event,state,total",
    )
    store = ingest(one_source(rows, {"where": {"state": ["paid", "Partially"], "total": "filled"}}))
    counts = store.counts["log"]
    assert (counts.rows_in, counts.stored, counts.left_out, counts.refused) == (4, 1, 3, {})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(1, ["a"]), (1.5, ["b"]), ([1, 1.5], ["a", "b"]), ("filled", ["a", "b"])],
)
def test_numbers_are_asked_as_they_are_written(one_source: Source, wanted: Any, found: list[str]) -> None:
    rows = pd.DataFrame({"customer_id": ["a", "b", "c"], "occurred_at": AT, "event": "x", "n": [1.0, 1.5, None]})
    assert sorted(touchpoints(ingest(one_source(rows, {"where": {"n": wanted}})))["customer_id"]) == found


@pytest.mark.parametrize("written", [pd.Series([True, False]), pd.Series(["TRUE", "FALSE"])])
def test_true_is_true_however_it_is_written(one_source: Source, written: Any) -> None:
    rows = pd.DataFrame({"customer_id": ["a", "b"], "occurred_at": AT, "event": "x", "n": written})
    assert list(touchpoints(ingest(one_source(rows, {"where": {"n": True}})))["customer_id"]) == ["a"]


def test_a_condition_that_nothing_meets_is_told(one_source: Source) -> None:
    with pytest.raises(DataError, match=r"1 rows came in and none is left \(1 by where or melt\)"):
        ingest(one_source(csv(f"a,{AT},x"), {"where": {"event": "y"}}))
    with pytest.raises(DataError, match=r"where: there is no column 'evnt'\. Did you mean 'event'"):
        ingest(one_source(csv(f"a,{AT},x"), {"where": {"evnt": "y"}}))


def test_left_out_rows_are_in_no_share(one_source: Source) -> None:
    rows = csv(*[f"a,{AT},y"] * 98, f"a,{AT},x", f",{AT},x")
    with pytest.raises(DataError, match="1 of 2 rows refused"):
        ingest(one_source(rows, {"where": {"event": "x"}}))


# --- melt ------------------------------------------------------------------------------------------------------------

WIDE = csv("a,2024-01-05,2024-02-01 10:00,", "b,,2024-02-03,2024-03-01", "c,,, ", "d,never,,", header="id,new,lead,won")
MELT = {"columns": {"customer_id": "id"}, "melt": {"new": "new", "lead": "lead", "customer": "won"}}


def test_each_filled_date_is_a_touchpoint(one_source: Source) -> None:
    store = ingest(one_source(WIDE, MELT, refused_share=0.9))
    found = touchpoints(store).sort_values("occurred_at")
    assert list(found["event"]) == ["new", "lead", "lead", "customer"]
    assert list(found["date_only"]) == [True, False, True, True]
    counts = store.counts["log"]
    assert (counts.rows_in, counts.stored, counts.left_out) == (6, 4, 1)
    assert counts.refused == {"unreadable occurred_at": 1}


def test_dates_of_two_types_are_one_column(one_source: Source) -> None:
    rows = pd.DataFrame({"id": ["a"], "new": [datetime(2024, 1, 5, 3)], "lead": ["2024-02-01"], "won": [None]})
    assert list(touchpoints(ingest(one_source(rows, MELT)))["event"]) == ["new", "lead"]


@pytest.mark.parametrize("role", ["event", "occurred_at", "value", "touchpoint_id"])
def test_what_would_repeat_is_told(configure: Source, role: str) -> None:
    with pytest.raises(ValueError, match=f"{role} beside melt"):
        configure(sources={"log": {"path": "x", "columns": {role: "x"}, "melt": {"a": "b"}}})


def test_a_date_that_is_no_column_is_told(one_source: Source) -> None:
    with pytest.raises(DataError, match=r"melt\.x: there is no column 'wan'. Did you mean 'won'"):
        ingest(one_source(WIDE, MELT | {"melt": {"x": "wan"}}))


def test_a_melted_store_grows_as_if_made_anew(tmp_path: Path, configure: Source) -> None:
    (tmp_path / "1.csv").write_text(WIDE)
    source = MELT | {"path": str(tmp_path / "*.csv"), "where": {"id": ["a", "b", "c", "e"]}}
    config = configure(sources={"log": source}, refused_share=0.9)
    ingest(config)
    (tmp_path / "2.csv").write_text(csv("e,2024-01-01,,2024-02-02", "f,2024-01-01,,", header="id,new,lead,won"))
    grown, anew = ingest(config), ingest(config.model_copy(update={"out": str(tmp_path / "anew")}))
    assert grown.counts == anew.counts and grown.counts["log"].left_out == 3
    for file in sorted(anew.folder.glob("**/*.parquet")):
        assert file.read_bytes() == (grown.folder / file.relative_to(anew.folder)).read_bytes()


# --- money -----------------------------------------------------------------------------------------------------------

MONEY = csv(
    f"a,{AT},x,1000,EUR", f"b,{AT},x,1000, usd", f"c,{AT},x,1000,JPY", f"d,{AT},x,,", f"e,{AT},x,1000,",
    "f,2024-03-09 10:00:00,x,1000,USD", "g,2024-02-01 10:00:00,x,1000,USD",
    header="customer_id,occurred_at,event,value,cur",
)  # fmt: skip
RATES = csv("2024-02-28,USD,0.9", "2024-03-01,JPY,0.006", header="date,currency,rate")


def values(store: Any) -> dict[str, float]:
    rows = touchpoints(store)
    return dict(zip(rows["customer_id"], rows["value"].fillna(-1), strict=True))


def test_other_currencies_are_refused(one_source: Source) -> None:
    store = ingest(one_source(MONEY, {"currency": {"column": "cur", "to": "EUR"}}, refused_share=0.9))
    assert values(store) == {"a": 100_000, "d": -1}
    assert store.counts["log"].refused == {"another currency": 4, "no currency": 1}


def test_rates_of_the_day_make_one_currency(tmp_path: Path, one_source: Source) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    source = {"currency": {"column": "cur", "to": "EUR", "rates": "rates.csv"}}
    store = ingest(one_source(MONEY, source, refused_share=0.9))
    assert values(store) == {"a": 100_000, "b": 90_000, "c": 600, "d": -1}
    # A rate holds for a week, and none of later counts for an earlier day.
    assert store.counts["log"].refused == {"no rate of its currency": 2, "no currency": 1}
    (tmp_path / "rates.csv").write_text(RATES.replace("0.9", "0.8"))
    assert values(ingest(one_source(MONEY, source, refused_share=0.9)))["b"] == 80_000


def test_minor_units_are_the_currencys_own(tmp_path: Path, one_source: Source) -> None:
    rows = csv(f"a,{AT},x,1234,EUR", f"b,{AT},x,1234,JPY", f"c,{AT},x,1234,KWD", f"d,{AT},x,much,EUR",
               header="customer_id,occurred_at,event,value,cur")  # fmt: skip
    assert values(ingest(one_source(rows, {"minor_units": True}, refused_share=0.9))) == {
        "a": 1234,
        "b": 1234,
        "c": 1234,
    }
    (tmp_path / "rates.csv").write_text(csv("2024-03-01,JPY,1", "2024-03-01,KWD,1", header="date,currency,rate"))
    source = {"minor_units": True, "currency": {"column": "cur", "to": "EUR", "rates": "rates.csv"}}
    store = ingest(one_source(rows, source, refused_share=0.9))
    assert values(store) == {"a": 1234, "b": 123_400, "c": 123}
    assert store.counts["log"].refused == {"unreadable value": 1}


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ("date,currency\n2024-01-01,USD\n", "has no column 'rate'; it needs date, currency and rate"),
        ("date,currency,rate\n2024-01-01,USD,-1\n2024-13-01,USD,1\n", r"has 2 row\(s\) without a date, a currency or"),
        ("date,currency,rate\n2024-01-01,USD,1\n2024-01-01,usd,2\n", r"has 1 day\(s\) with two rates"),
    ],
)
def test_rates_that_are_none_are_told(tmp_path: Path, one_source: Source, rates: str, words: str) -> None:
    (tmp_path / "rates.csv").write_text(rates)
    with pytest.raises(DataError, match=words):
        ingest(one_source(MONEY, {"currency": {"column": "cur", "to": "EUR", "rates": "rates.csv"}}))


def test_currency_without_a_value_is_told(one_source: Source) -> None:
    with pytest.raises(DataError, match="there is no column for value"):
        ingest(one_source(csv(f"a,{AT},x"), {"minor_units": True}))


# --- the past of all of them -----------------------------------------------------------------------------------------

DAYS = st.one_of(st.none(), st.integers(0, 40))
ROWS = st.lists(st.tuples(st.sampled_from("abc"), DAYS, DAYS, st.integers(0, 3)), min_size=1, max_size=8)
BEGIN = datetime(2024, 1, 1, 12, tzinfo=UTC)


def written(day: int | None) -> str | None:
    return None if day is None else f"{BEGIN + timedelta(days=day):%Y-%m-%d %H:%M:%S}"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(0, 45), st.sampled_from(["jsonl", "csv"]), st.booleans())
def test_the_past_is_what_was_known_then(
    tmp_path_factory: Any, rows: list[Any], cut: int, kind: str, melted: bool
) -> None:
    folder = tmp_path_factory.mktemp("past")
    table = [{"id": {"u": who}, "u": who, "x": written(x), "y": written(y), "n": n} for who, x, y, n in rows]
    if kind == "csv":
        pd.DataFrame(table).drop(columns="id").to_csv(folder / "log.csv", index=False)
    else:
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, table)))
    source: dict[str, Any] = {
        "path": f"log.{kind}", "where": {"n": [0, 1, 2]},
        "columns": {"customer_id": ["u", "id.u"] if kind == "jsonl" else "u", "n": "n"},
    }  # fmt: skip
    source |= {"melt": {"ex": "x", "why": "y"}} if melted else {"constants": {"event": "ex"}}
    source["columns"] |= {} if melted else {"occurred_at": "x"}
    config = Config.model_validate(
        {"name": "t", "time_zone": "UTC", "history_from": "2024-01-01", "journey": "cvj8", "refused_share": 1.0,
         "sources": {"log": source}, "out": "out"}, context={"folder": folder},
    )  # fmt: skip
    columns = ["customer_id", "occurred_at", "event", "visible_at"]
    meant = sorted(
        (who, event, BEGIN + timedelta(days=day))
        for who, x, y, n in rows
        for event, day in (("ex", x), ("why", y if melted else None))
        if n < 3 and day is not None
    )
    if not meant:
        return
    now = touchpoints(ingest(config))[columns]
    assert sorted(now[["customer_id", "event", "occurred_at"]].itertuples(index=False, name=None)) == meant
    cut_off = int((BEGIN + timedelta(days=cut)).timestamp() * 1_000_000)
    (folder / "past").mkdir()
    then = Truncation(config, folder / "past").before(cut_off)
    known = now[now["visible_at"] < BEGIN + timedelta(days=cut)]
    if known.empty:
        try:
            assert then is None or touchpoints(ingest(then)).empty
        except DataError as error:
            assert "none is left" in str(error)
        return
    assert then is not None
    pd.testing.assert_frame_equal(
        touchpoints(ingest(then))[columns].reset_index(drop=True), known.reset_index(drop=True)
    )


def test_settings_that_decide_how_a_row_is_read_make_another_store(one_source: Source) -> None:
    plain = ingest(one_source(WIDE, MELT, refused_share=0.9))
    other = ingest(one_source(WIDE, MELT | {"where": {"id": "a"}}, refused_share=0.9))
    third = ingest(one_source(WIDE, MELT | {"melt": {"new": "new"}}, refused_share=0.9))
    assert len({plain.key, other.key, third.key}) == 3


def test_bad_conditions_are_no_configuration(configure: Source) -> None:
    with pytest.raises((ConfigError, ValueError)):
        configure(sources={"log": {"path": "x", "where": {"a": None}}})
