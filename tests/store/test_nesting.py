"""Nested columns are found by what they hold, and the query that is offered reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.store.test_formats import touchpoints

from cvj_ml.config import Config
from cvj_ml.setup.nesting import find_nested
from cvj_ml.store import ingest

AT = [datetime(2024, 3, day) for day in (1, 2, 3)]


def parameters(*amounts: float | None) -> pa.Array:
    value = pa.struct([("text", pa.string()), ("number", pa.float64())])
    return pa.array(
        [
            [{"key": "page", "value": {"text": "/", "number": None}}]
            + ([{"key": "it's", "value": {"text": None, "number": one}}] if one is not None else [])
            for one in amounts
        ],
        pa.list_(pa.struct([("key", pa.string()), ("value", value)])),
    )


def table() -> pa.Table:
    return pa.table(
        {
            "customer_id": ["a", "b", "c"],
            "occurred_at": AT,
            "event": ["purchase"] * 3,
            "shop": [{"revenue": 12.5, "place": {"city": "Köln"}}, {"revenue": 3.0, "place": None}, None],
            "params": parameters(7, None, 2.5),
            "tags": [["x", "y"], [], None],
            "extra": pa.array([[("plan", "pro")], [], None], pa.map_(pa.string(), pa.string())),
            "raw": ['{"a": {"b c": 1}, "n": "x"}', '{"n": "y"}', None],
            "note": ["{no json", "x", None],
            "shop_revenue": [1, 2, 3],
        }
    )


def test_what_is_nested_is_found(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "log.parquet")
    found = find_nested(f"'{tmp_path / 'log.parquet'}'", duckdb.connect())
    assert found is not None
    assert found.columns == {
        "shop": "a structure", "params": "a list", "tags": "a list", "extra": "a map", "raw": "JSON in text",
    }  # fmt: skip


def test_plain_tables_have_none(tmp_path: Path) -> None:
    pq.write_table(table().select(["customer_id", "occurred_at", "note"]), tmp_path / "log.parquet")
    assert find_nested(f"'{tmp_path / 'log.parquet'}'", duckdb.connect()) is None


def test_the_query_makes_plain_columns(tmp_path: Path, configure: Callable[..., Config]) -> None:
    file = tmp_path / "log.parquet"
    pq.write_table(table(), file)
    found = find_nested(f"'{file}'", duckdb.connect())
    assert found is not None
    columns = {
        "value": "shop_revenue", "city": "shop_place_city", "amount": "params_it's", "page": "params_page",
        "plan": "extra_plan", "b": "raw_a_b c", "n": "raw_n", "tags": "tags", "own": "shop_revenue_2",
    }  # fmt: skip
    source = {"query": found.query, "files": {"log": str(file)}, "columns": columns}
    rows = touchpoints(ingest(configure(sources={"log": source}))).sort_values("customer_id")
    first: dict[str, Any] = rows.iloc[0].to_dict()
    assert list(rows["value"].fillna(-1)) == [1250, 300, -1]
    assert first["property_city"] == "Köln" and first["property_page"] == "/" and first["property_plan"] == "pro"
    assert first["property_amount"] == "7.0" and first["property_b"] == "1" and first["property_own"] == 1
    assert json.loads(first["property_tags"]) == ["x", "y"] and list(rows["property_n"])[:2] == ["x", "y"]


@pytest.mark.parametrize("name", ["with space", 'quo"te', "Ünï", "select"])
def test_names_are_quoted(tmp_path: Path, name: str) -> None:
    file = tmp_path / "log.parquet"
    pq.write_table(pa.table({name: [{name: 1}]}), file)
    found = find_nested(f"'{file}'", duckdb.connect(), "log")
    assert found is not None
    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW log AS SELECT * FROM '{file}'")
    assert connection.execute(found.query).fetchall() == [(1,)]
