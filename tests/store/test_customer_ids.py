"""One reading of ids: what is one id, what only looks like it, and that it is the same everywhere."""

from __future__ import annotations

import itertools
import time
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.config import Config, Match
from cvj_ml.store.customer_ids import CustomerIds, Known, canonical, canonical_sql, ids_in_line
from cvj_ml.store.headers import TextLayout
from cvj_ml.store.sql import connect_duckdb

LOG = ("A-1", "b-2", "15", "007", "0015000000abcAA", "Straße", "x y")
PARTS = [*"Abßé07'\"“” =-", "\u00a0", "\u200b", "\ufeff", "\uff21", "\uff02", "ﬁ", ".0", "e\u0301"]
IDS = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)


def read(text: str | None, match: Match) -> str | None:
    found: str | None = canonical(pa.array([text], pa.string()), match)[0].as_py()
    return found


@pytest.mark.parametrize(
    ("written", "trimmed", "folded"),
    [
        ("A-1", "A-1", "a-1"),
        (" \tA-1\u3000", "A-1", "a-1"),
        ("\u00a0A\u200b-1", "A-1", "a-1"),
        ("\ufeffA-1", "A-1", "a-1"),
        ('" A-1 "', "A-1", "a-1"),
        ("'A-1'", "A-1", "a-1"),
        ("“A-1”", "A-1", "a-1"),
        ('""A-1""', '"A-1"', '"a-1"'),
        ("\"A-1'", "\"A-1'", "\"a-1'"),
        ("e\u0301", "e\u0301", "é"),
        ("\uff21\uff0d\uff11", "\uff21\uff0d\uff11", "a-1"),
        ("STRASSE", "STRASSE", "strasse"),
        ("Straße", "Straße", "strasse"),
        ("007", "007", "007"),
        ("7.0", "7.0", "7.0"),
        ("x y", "x y", "x y"),
        (" \u200b ", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_what_each_reading_takes_away(written: str | None, trimmed: str | None, folded: str | None) -> None:
    assert read(written, "exact") == written
    assert read(written, "trimmed") == trimmed
    assert read(written, "folded") == folded


@given(st.lists(IDS, max_size=5))
def test_readings_are_of_single_ids_and_each_is_looser_than_the_one_before(ids: list[str]) -> None:
    """How an id is read depends on no other; equal under one reading is equal under every looser one."""
    column = pa.chunked_array([pa.array(ids[:2], pa.string()), pa.array(ids[2:], pa.string())])
    tables: list[list[str | None]] = []
    matches: tuple[Match, ...] = ("exact", "trimmed", "folded")
    for match in matches:
        found = canonical(column, match).to_pylist()
        assert found == [read(one, match) for one in ids]
        tables.append(found)
    for strict, loose in itertools.pairwise(tables):
        for i, one in enumerate(ids):
            for j, other in enumerate(ids):
                assert strict[i] != strict[j] or loose[i] == loose[j], (one, other)
    for text in filter(None, tables[2]):
        assert unicodedata.is_normalized("NFKC", text)


@pytest.mark.parametrize("match", ["exact", "trimmed", "folded"])
def test_sql_reads_as_everything_else_does(match: Match, tmp_path: Path) -> None:
    ids = [first + second for first in PARTS for second in PARTS] + [None]
    config = Config.model_construct(ids=Config.model_fields["ids"].annotation(match=match), engine=_engine())
    with connect_duckdb(config, tmp_path) as connection:
        connection.register("given", pa.table({"id": pa.array(ids, pa.string())}))
        rows = connection.execute(f"SELECT id, {canonical_sql('id', match)} FROM given").fetchall()
    assert len(rows) == len(ids)
    for written, found in rows:
        assert found == read(written, match)


def _engine() -> object:
    return Config.model_fields["engine"].default


@pytest.mark.parametrize(
    ("written", "way"),
    [
        ("A-1 ", "trimmed"),
        ("'A-1'", "trimmed"),
        ("\u3000A-1\t", "trimmed"),
        ("a-1", "folded"),
        ("\uff21-1", "folded"),
        (" B-2", "folded"),
        ("STRASSE", "folded"),
        ("x\u00a0y", "folded"),
        ("015", "number"),
        ("15.0", "number"),
        ("15,00", "number"),
        ("7", "number"),
        ('="007"', "number"),
        ("'007", "number"),
        (" 7.0 ", "number"),
        ("xy", None),
        ("16", None),
        ("150", None),
        ("15.5", None),
    ],
)
def test_what_would_name_somebody_under_a_looser_reading(written: str, way: str | None) -> None:
    known = Known(pa.array(LOG), "exact")
    assert known.nearly(pa.array(["nobody", written])).to_pylist() == [None, way]


def test_a_log_with_ids_that_differ_by_letters_alone_cannot_be_folded() -> None:
    assert Known(pa.array(LOG), "exact").foldable
    assert not Known(pa.array([*LOG, "0015000000abcAa"]), "exact").foldable
    assert Known(pa.array([*LOG, " 15"]), "exact").foldable


def test_ids_are_known_again_as_they_were_read_and_as_they_are_written() -> None:
    ids = CustomerIds.of(["'Ab'", "ab", '""c""', " "], "folded")
    assert ids.ids.to_pylist() == ['"c"', "ab"]
    assert ids.holds(pa.array(["AB ", '"c"', "c", None, ""])).to_pylist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a,1,2", ["1"]),  # complete, refused for another reason
        ("a,1", ["1", "a"]),  # a field is missing: before the id or after it
        ("a,1,2,3", ["1", "2"]),  # one too many, before the id or after it
        ("1", ["1"]),
        ('a,"1,2', ["1", "2", "a"]),
        ("", []),
    ],
)
def test_where_the_id_of_a_damaged_line_can_stand(line: str, found: list[str]) -> None:
    layout = TextLayout(",", ("event", "customer_id", "value"), 0)
    assert ids_in_line(line, layout, "customer_id") == found
    assert ids_in_line(line, layout, "id") == ids_in_line(line, layout, None) == []


def test_a_hundred_thousand_rows_against_as_many_customers_cost_a_second() -> None:
    known = Known(pa.array([f"c{n}" for n in range(100_000)]), "exact")
    ids = pa.array([f"x{n} " for n in range(100_000)])
    began = time.process_time()
    assert not known.named(ids).true_count and known.nearly(ids).null_count == 100_000
    assert time.process_time() - began < 2
