"""Nested columns are found by what they hold, and every way that is offered leads to what stands there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.store.test_formats import touchpoints
from tests.store.test_ways import table

from cvj_ml.config import Config, TableSpec
from cvj_ml.store import ingest
from cvj_ml.store.nesting import Nested, find_nested
from cvj_ml.store.source_location import land, locate
from cvj_ml.store.sql import connect_duckdb

Configure = Callable[..., Config]


def found_in(rows: pa.Table, folder: Path, configure: Configure) -> Nested:
    pq.write_table(rows, folder / "log.parquet")
    config = configure(sources={"log": {"path": "log.parquet"}})
    location = locate("log", TableSpec(path=(str(folder / "log.parquet"),)), config, folder / "spill")
    with connect_duckdb(config, folder / "spill") as connection:
        return find_nested(location, land(location, connection, config, folder / "landed").sql, connection)


def test_what_is_nested_is_found_with_its_ways(tmp_path: Path, configure: Configure) -> None:
    found = found_in(table(), tmp_path, configure)
    assert found.columns == {
        "shop": "a structure", "params": "a list", "items": "a list", "extra": "a map", "raw": "JSON in text",
        "seg": "a structure",
    }  # fmt: skip
    # shop.revenue is a column of its own; which item is meant nobody says.
    assert set(found.ways) == {
        "shop.place.city", "params.it's", "params.page", "extra.a.b", "extra.plan", "raw.a.b c", "raw.deep", "raw.n",
        "seg.other",
    }  # fmt: skip


def test_plain_tables_have_none(tmp_path: Path, configure: Configure) -> None:
    rows = table().select(["customer_id", "occurred_at"]).append_column("note", pa.array(["{no json", "x", None]))
    assert found_in(rows, tmp_path, configure) == Nested({}, {})


def test_every_way_is_read(tmp_path: Path, configure: Configure) -> None:
    ways = found_in(table(), tmp_path, configure).ways
    columns = {f"x{place}": way for place, way in enumerate(ways)}
    rows = touchpoints(ingest(configure(sources={"log": {"path": "log.parquet", "columns": columns}})))
    assert all(rows[f"property_{name}"].notna().any() for name in columns)


@pytest.mark.parametrize("name", ["with space", 'quo"te', "Ünï", "select"])
def test_names_are_quoted(tmp_path: Path, configure: Configure, name: str) -> None:
    rows = table().select(["customer_id", "occurred_at", "event"]).append_column(name, pa.array([{name: 1}] * 3))
    assert list(found_in(rows, tmp_path, configure).ways) == [f"{name}.{name}"]
    source = {"path": "log.parquet", "columns": {"x": f"{name}.{name}"}}
    assert list(touchpoints(ingest(configure(sources={"log": source})))["property_x"]) == [1.0] * 3
