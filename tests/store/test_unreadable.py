"""A fault of a row costs the row, a fault of a file is told with its cause: the disk only where it is the disk.

Silent error 65: a file that ends early, or a row that cannot be read, is taken for the end of the data.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.store.test_formats import touchpoints

from cvj_ml.config import Config
from cvj_ml.customers import read_people
from cvj_ml.errors import CvjError, DataError
from cvj_ml.setup.profile import open_tables
from cvj_ml.store import ingest
from cvj_ml.store.damage import unreadable

CANARY = "canary"


def broken_text(*values: bytes | None) -> pa.Array:
    """Return text that no check has seen."""
    held = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(held), held.buffers(), held.null_count)


def log(path: Path, **columns: Any) -> None:
    """Write a log of four customers with some columns instead of the good ones."""
    good: dict[str, Any] = {
        "customer_id": ["a", "b", "c", "d"],
        "occurred_at": pa.array([datetime(2024, 3, day) for day in (1, 2, 3, 4)], pa.timestamp("us")),
        "event": ["visit"] * 4,
    }
    pq.write_table(pa.table(good | columns), path)


IMPOSSIBLE = pa.array([0, 2**62, 1_710_000_000_000, -(2**63)], pa.timestamp("ms"))
BROKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "text that is not UTF-8": ({"event": broken_text(b"x", CANARY.encode() + b"\xff", b"y", None)}, ["a", "c"]),
    "an id that is not UTF-8": ({"customer_id": broken_text(b"a", b"b", b"\xc3(", b"d")}, ["a", "b", "d"]),
    "times beyond all calendars": ({"occurred_at": IMPOSSIBLE}, ["a", "c"]),
    "both": ({"occurred_at": IMPOSSIBLE, "event": broken_text(b"x", b"x", b"\xff", b"x")}, ["a"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_row_that_cannot_be_read_costs_that_row(tmp_path: Path, configure: Callable[..., Config], case: str) -> None:
    columns, left = BROKEN[case]
    log(tmp_path / "log.parquet", **columns)
    log(tmp_path / "more.parquet", customer_id=["e", "f", "g", "h"])
    config = configure(sources={"log": {"path": ["log.parquet", "more.parquet"]}}, refused_share=0.9)
    store = ingest(config)
    counts = store.counts["log"]
    assert sorted(touchpoints(store)["customer_id"]) == [*left, "e", "f", "g", "h"]
    refused = dict(counts.refused)
    no_event = refused.pop("no event", 0)
    assert (counts.rows_in, counts.stored, refused) == (8, len(left) + 4, {"unreadable line": 4 - len(left) - no_event})
    quarantine = pq.read_table(store.folder / "quarantine.parquet", partitioning=None).to_pylist()
    assert len(quarantine) == 4 - len(left) and all(row["row"].startswith("{") for row in quarantine)


def test_what_is_not_read_costs_nothing(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(tmp_path / "log.parquet", note=broken_text(b"\xff", b"", b"", b""), old=IMPOSSIBLE)
    assert ingest(configure(sources={"log": {"path": "log.parquet"}})).counts["log"].stored == 4


def test_a_store_that_grows_refuses_the_same_rows(tmp_path: Path, configure: Callable[..., Config]) -> None:
    for name in "xyz":
        log(tmp_path / f"{name}.parquet", customer_id=[f"{name}{i}" for i in range(4)])
    config = configure(sources={"log": {"path": str(tmp_path / "*.parquet")}}, refused_share=0.9)
    ingest(config)
    columns, _ = BROKEN["both"]
    log(tmp_path / "zz.parquet", **columns)
    grown = ingest(config)
    anew = ingest(config.model_copy(update={"out": str(tmp_path / "anew")}))
    assert grown.counts == anew.counts and grown.counts["log"].refused == {"unreadable line": 3}
    for file in sorted(anew.folder.glob("**/*.parquet")):
        assert file.read_bytes() == (grown.folder / file.relative_to(anew.folder)).read_bytes()


def test_init_looks_at_the_rows_that_can_be_read(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(tmp_path / "log.parquet", **BROKEN["both"][0])
    config = configure(sources={"log": {"path": "x"}})
    with open_tables([tmp_path / "log.parquet"], config, tmp_path / "spill") as (found,):
        assert (found.file.rows, found.file.unreadable) == (1, 3)


def test_too_many_of_them_say_what_they_are(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(tmp_path / "log.parquet", **BROKEN["text that is not UTF-8"][0])
    with pytest.raises(DataError, match=r"2 of 4 rows refused, .*unreadable line: 1") as caught:
        ingest(configure(sources={"log": {"path": "log.parquet"}}))
    assert CANARY not in str(caught.value)


def test_people_are_read_strictly(tmp_path: Path, configure: Callable[..., Config]) -> None:
    pq.write_table(
        pa.table({"customer_id": broken_text(b"a", b"\xff"), "email": ["x", "y"]}), tmp_path / "people.parquet"
    )
    base = {"sources": {"log": {"path": "x"}}, "refused_share": 0.9}
    with pytest.raises(DataError, match=r"1 row\(s\): unreadable line"):
        read_people(configure(**base, suppression={"path": "people.parquet"}))
    contact = read_people(configure(**base, contact={"path": "people.parquet", "columns": ["email"]})).contact
    assert contact.to_pylist() == [{"customer_id": "a", "email": "x"}]


def test_a_query_over_such_a_file_says_which_column(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(tmp_path / "log.parquet", **BROKEN["text that is not UTF-8"][0])
    config = configure(sources={"log": {"query": "SELECT * FROM log", "files": {"log": "log.parquet"}}})
    with pytest.raises(DataError, match=r"log\.parquet holds text in the column 'event' that is not UTF-8") as caught:
        ingest(config)
    assert CANARY not in str(caught.value)


def test_a_dictionary_with_such_a_word_is_told(tmp_path: Path, configure: Callable[..., Config]) -> None:
    words = broken_text(b"visit", b"\xff")
    log(tmp_path / "log.parquet", event=pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 0]), words))
    with pytest.raises(DataError, match=r"log\.parquet holds text that is not UTF-8; write it anew"):
        ingest(configure(sources={"log": {"path": "log.parquet"}}))


@pytest.mark.parametrize("query", [False, True])
def test_a_damaged_page_is_told(tmp_path: Path, configure: Callable[..., Config], query: bool) -> None:
    file = tmp_path / "log.parquet"
    names = [f"c{i}" for i in range(5000)]
    log(file, customer_id=names, occurred_at=[datetime(2024, 3, 1)] * 5000, event=["visit"] * 5000)
    content = bytearray(file.read_bytes())
    content[60:400] = b"\xff" * 340
    file.write_bytes(content)
    source: dict[str, Any] = {"path": "log.parquet"}
    if query:
        source = {"query": "SELECT * FROM log", "files": {"log": "log.parquet"}}
    with pytest.raises(DataError, match=r"log\.parquet is damaged: not all of it can be read") as caught:
        ingest(configure(sources={"log": source}))
    assert "disk" not in str(caught.value)


@pytest.mark.parametrize("query", [False, True])
def test_a_compressed_file_that_is_cut_is_told(tmp_path: Path, configure: Callable[..., Config], query: bool) -> None:
    rows = "".join(f"c{random.Random(i).random()},2024-03-01,visit\n" for i in range(40_000))
    whole = gzip.compress(f"customer_id,occurred_at,event\n{rows}".encode())
    (tmp_path / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    source: dict[str, Any] = {"path": "log.csv.gz"}
    if query:
        source = {"query": "SELECT * FROM log", "files": {"log": "log.csv.gz"}}
    with pytest.raises(DataError, match=r"log\.csv\.gz is a gzip file that is cut or damaged; copy it again"):
        ingest(configure(sources={"log": source}))


def test_the_disk_is_named_only_where_it_is_full(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "log.parquet")
    other = unreadable("sources.log", [tmp_path / "log.parquet"], duckdb.IOException("of any kind"))
    assert "the disk" not in str(other) and "whole" not in str(other) and other.exit_code == 3
    with pytest.raises(CvjError, match="no space left on the disk") as caught:
        unreadable("sources.log", [], duckdb.IOException("write: No space left on device"))
    assert caught.value.exit_code == 1


def test_bytes_are_text_and_refuse_their_row(one_source: Callable[..., Config]) -> None:
    frame = pd.DataFrame(
        {
            "customer_id": ["Zoë".encode(), b"b", b"c", b"\xff", b""],
            "occurred_at": [b"2024-03-01"] * 5,
            "event": [b"visit", b"\xfe", b"visit", b"visit", b"visit"],
            "rating": [b"good", b"", b"\xfd", b"", b""],
        }
    )
    config = one_source(frame, {"columns": {"rating": "rating"}}, refused_share=1)
    store = ingest(config)
    assert store.counts["log"].refused == {
        "unreadable customer_id": 1, "unreadable event": 1, "unreadable rating": 1, "no customer_id": 1,
    }  # fmt: skip
    assert list(touchpoints(store)["customer_id"]) == ["Zoë"]
    assert list(touchpoints(store)["property_rating"]) == ["good"]
