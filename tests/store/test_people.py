"""Tables of people: every row is a person, so none is lost in silence and each names whom it was meant for."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvj_ml.config import Config
from cvj_ml.customers import match_people, read_people
from cvj_ml.customers.permissions import Naming, People
from cvj_ml.errors import DataError
from cvj_ml.store import ingest

Configure = Callable[..., Config]

LOG = ("A-1", "b-2", "15", "007", "0015000000abcAA", "0015000000abcAa", "#9")


def matched(tmp_path: Path, configure: Configure, log: tuple[str, ...] = LOG, **settings: Any) -> People:
    rows = "".join(f'"{one}",2024-05-01,visit\n' for one in log)
    (tmp_path / "log.csv").write_text(f"customer_id,occurred_at,event\n{rows}", encoding="utf-8")
    config = configure(sources={"log": {"path": "log.csv"}}, **settings)
    return match_people(read_people(config), config, ingest(config))


def stop(tmp_path: Path, *ids: str, name: str = "stop.csv") -> dict[str, dict[str, str]]:
    (tmp_path / name).write_text("".join(f"{one}\n" for one in ("customer_id", *ids)), encoding="utf-8")
    return {"suppression": {"path": name}}


def test_how_many_rows_name_nobody(tmp_path: Path, configure: Configure) -> None:
    pq.write_table(pa.table({"customer_id": ["b-2", "x"], "email": ["b@x", None]}), tmp_path / "crm.parquet")
    people = matched(
        tmp_path, configure,
        contact={"path": "crm.parquet", "columns": ["email"]},
        **stop(tmp_path, "A-1", "stranger", "15", "another"),
    )  # fmt: skip
    assert people.naming == {"suppression": Naming(4, 2), "contact": Naming(2, 1)}
    assert str(people.naming["suppression"]) == "2 of 4 rows name nobody in the log"


TRIMMED, FOLDED, NUMBER = "{match: trimmed}", "capital and small letters", "a program took ids for numbers"


@pytest.mark.parametrize("table", ["suppression", "consent", "contact"])
def test_a_row_that_a_looser_reading_would_match_is_an_error(table: str, tmp_path: Path, configure: Configure) -> None:
    """Silent error 55."""
    file = tmp_path / "people.csv"
    written = ["stranger", "\u00a0A-1", "a-1", "15.0", "0015000000ABCAA", "b-2", "A\u200b-1", "B-2 "]
    file.write_text("customer_id,email\n" + "".join(f"{one},\n" for one in written), encoding="utf-8")
    spec = {"path": "people.csv"} | ({"columns": ["email"]} if table == "contact" else {})
    with pytest.raises(DataError) as caught:
        matched(tmp_path, configure, **{table: spec})
    message = str(caught.value)
    for lines, told in (("lines 3, 8", TRIMMED), ("lines 4, 6, 9", FOLDED), ("line 5", NUMBER), ("", "is no way out")):
        assert told in message
        assert not lines or f"row(s) ({file}, {lines}) name nobody in the log, but" in message
    for own in ("A-1", "a-1", "stranger", "ABC", "15.0"):
        assert own not in message


def test_the_rows_are_told_by_file_and_number(tmp_path: Path, configure: Configure) -> None:
    pq.write_table(pa.table({"customer_id": ["A-1", "a-1", "B-2"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"customer_id": [f"{n}" for n in range(60, 80)] + ["A-1 "]}), tmp_path / "2.parquet")
    with pytest.raises(DataError) as caught:
        matched(tmp_path, configure, suppression={"path": "?.parquet"})
    assert f"1 row(s) ({tmp_path / '2.parquet'}, row 21)" in str(caught.value)
    assert f"2 row(s) ({tmp_path / '1.parquet'}, rows 2, 3)" in str(caught.value)
    many = [*(["x"] * 3), *(["A-1 "] * 30)]
    with pytest.raises(DataError, match=r"lines 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 20 more\)"):
        matched(tmp_path, configure, **stop(tmp_path, *many))
    query = {"query": "SELECT customer_id FROM t", "files": {"t": "stop.csv"}}
    with pytest.raises(DataError, match=r"30 row\(s\) \(the query, rows 1, 2, "):
        matched(tmp_path, configure, suppression=query)


@pytest.mark.parametrize("match", ["trimmed", "folded"])
def test_a_way_out_lets_the_rows_name_whom_they_mean(match: str, tmp_path: Path, configure: Configure) -> None:
    log = ("A-1", "b-2 ", "15")
    people = matched(tmp_path, configure, log, ids={"match": match}, **stop(tmp_path, "\ufeffA-1 ", "'b-2'", "16"))
    assert people.naming["suppression"] == Naming(3, 1)
    named = people.permissions.suppression
    assert named is not None and set(named["customer_id"].to_pylist()) >= (
        {"A-1", "b-2"} if match == "trimmed" else {"a-1", "b-2"}
    )
    # The other readings stay errors: leading zeros and .0 have no way out but the file.
    with pytest.raises(DataError, match="Export the ids as text"):
        matched(tmp_path, configure, log, ids={"match": match}, **stop(tmp_path, "15.0"))


def test_text_as_ever(tmp_path: Path, configure: Configure) -> None:
    of = {"sources": {"log": {"path": "log.csv"}}}
    assert configure(**of, ids="text").ids == configure(**of, ids={"text": True}).ids
    assert not configure(**of).ids.text
    with pytest.raises(ValueError, match="write text, or a mapping such as"):
        configure(**of, ids="number")


def test_two_ids_of_the_log_that_fold_to_one_are_an_error(tmp_path: Path, configure: Configure) -> None:
    """Silent error 56."""
    with pytest.raises(DataError, match=r"sources.log: 1 customer\(s\) would be made of several different ids"):
        matched(tmp_path, configure, ids={"match": "folded"})
    assert matched(tmp_path, configure, ids={"match": "trimmed"}).naming == {}
    assert matched(tmp_path, configure, ("a", "B", " a", "'B'"), ids={"match": "folded"}).naming == {}


def test_ids_of_two_sources_that_fold_to_one(tmp_path: Path, configure: Configure) -> None:
    for name, customer in (("one", "Ab"), ("two", "aB"), ("three", "c")):
        (tmp_path / f"{name}.csv").write_text(f"customer_id,occurred_at,event\n{customer},2024-05-01,visit\n")
    sources = {name: {"path": f"{name}.csv"} for name in ("one", "two", "three")}
    with pytest.raises(DataError, match=r"sources\.one and sources\.two: 1 customer"):
        ingest(configure(sources=sources, ids={"match": "folded"}))


def test_attributes_are_read_as_the_log_is(tmp_path: Path, configure: Configure) -> None:
    (tmp_path / "attributes.csv").write_text("customer_id,plan\n 15 ,gold\n")
    attributes = {"path": "attributes.csv", "columns": {"plan": "plan"}, "static": True}
    (tmp_path / "log.csv").write_text("customer_id,occurred_at,event\n15,2024-05-01,visit\n")
    for match, stored in (("exact", 0), ("trimmed", 1)):
        store = ingest(configure(sources={"log": {"path": "log.csv"}}, attributes=attributes, ids={"match": match}))
        assert store.attribute_counts is not None
        assert (store.attribute_counts.stored, store.attribute_counts.unmatched) == (stored, 1 - stored)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("customer_id\nA-1\n\nb-2\n", "line 3: a blank row inside the file"),
        ("customer_id,x\nA-1,1\n\n  \nb-2,1\n", "lines 3, 4: a blank row inside the file"),
        ("customer_id,x\nA-1,1\n,\nb-2,1\n", "line 3: a blank row inside the file"),
        ("customer_id,x\nA-1,1\n# no more\nb-2,1\n", "line 3: a comment"),
        ("customer_id\nA-1\n# no more\n", r"1 row\(s\) \(.*line 3\) look like comments"),
        ("customer_id,x\nA-1,1\n// no more,2\n", r"1 row\(s\) \(.*line 3\) look like comments"),
    ],
)
@pytest.mark.parametrize("table", ["suppression", "contact"])
def test_blank_rows_and_comments_inside_are_errors(
    table: str, content: str, told: str, tmp_path: Path, configure: Configure
) -> None:
    """Silent error 55."""
    (tmp_path / "people.csv").write_text(content)
    spec = {"path": "people.csv"} | ({"columns": ["customer_id"]} if table == "contact" else {})
    with pytest.raises(DataError, match=told):
        matched(tmp_path, configure, ("A-1", "b-2"), **{table: spec}, refused_share=0.9)


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n \r\n", "\n,\n", "\n,\n\n"])
def test_blank_last_lines_are_nothing(end: str, tmp_path: Path, configure: Configure) -> None:
    for name, content in (("one", "customer_id\nA-1\nb-2"), ("two", "customer_id,x\nA-1,1\nb-2,2")):
        text = content.replace("\n", "\r\n" if "\r" in end else "\n")
        (tmp_path / f"{name}.csv").write_text(text + (end.replace(",", "") if name == "one" else end), newline="")
        people = matched(tmp_path, configure, suppression={"path": f"{name}.csv"})
        assert people.naming["suppression"] == Naming(2, 0), name


def test_lines_are_counted_in_any_file(tmp_path: Path, configure: Configure) -> None:
    """Rows over several lines, and lines that are refused, do not shift the number that is told."""
    text = 'customer_id;email\nA-1;"two\n\nlines"\nb-2;1;2\nx;\na-1;\n\n'
    with gzip.open(tmp_path / "crm.csv.gz", "wt", encoding="utf-16") as file:
        file.write(text)
    contact = {"path": "crm.csv.gz", "columns": ["email"], "encoding": "utf-16"}
    with pytest.raises(DataError, match=r"crm.csv.gz, line 7\)"):
        matched(tmp_path, configure, contact=contact, refused_share=0.5)


def test_titles_above_the_header_are_counted(tmp_path: Path, configure: Configure) -> None:
    (tmp_path / "stop.csv").write_text("sep=;\ncustomer_id;why\nA-1;x\n1;2;3\na-1;x\n")
    with pytest.raises(DataError, match="unreadable line"):
        matched(tmp_path, configure, suppression={"path": "stop.csv"})
    with pytest.raises(DataError, match=r"stop\.csv, line 5\)"):
        matched(tmp_path, configure, contact={"path": "stop.csv", "columns": ["why"]}, refused_share=0.5)


def test_a_suppression_of_which_nobody_occurs_in_the_log_is_an_error(tmp_path: Path, configure: Configure) -> None:
    with pytest.raises(DataError, match=r"none of its 2 row\(s\) names a customer of the log"):
        matched(tmp_path, configure, **stop(tmp_path, "x", "y"))
    assert matched(tmp_path, configure, **stop(tmp_path)).naming["suppression"] == Naming(0, 0)


def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent error 58: what was read is what lists use."""
    from cvj_ml.customers import id_tables

    real = id_tables.land

    def rewritten(*arguments: Any) -> Any:
        stop(tmp_path)  # as a program that writes the file anew: a header alone at first
        return real(*arguments)

    monkeypatch.setattr(id_tables, "land", rewritten)
    with pytest.raises(DataError, match="suppression: a file changed after this run had begun to read it"):
        matched(tmp_path, configure, **stop(tmp_path, "A-1"))
