"""Ways into nested columns, and JSON: what stands there is read as it is written, and what is no JSON is told.

The oracle of a way is Python's own walk through the same document.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.test_formats import touchpoints

from cvj_ml.config import Config, SourceSpec
from cvj_ml.errors import DataError
from cvj_ml.store import Store, ingest
from cvj_ml.store.source_location import land, locate
from cvj_ml.store.sql import connect_duckdb

AT = [datetime(2024, 3, day) for day in (1, 2, 3)]
BASE = {"customer_id": "a", "occurred_at": "2024-03-01 10:00:00", "event": "purchase"}


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
            "items": [[{"sku": "x"}, {"sku": "y"}], [], None],
            "extra": pa.array([[("plan", "pro"), ("a.b", "c")], [], None], pa.map_(pa.string(), pa.string())),
            "raw": ['{"a": {"b c": 1}, "n": "x", "deep": [1, {"k": 2}]}', '{"n": "y"}', None],
            "shop.revenue": [1, 2, 3],
            "seg": [{"other": 1}, {"other": 2}, {"other": 3}],
        }
    )


WAYS: dict[str, tuple[str, list[Any]]] = {
    "a structure": ("shop.place.city", ["Köln", None, None]),
    "a column of that name wins": ("shop.revenue", [1, 2, 3]),
    "a list of key and value": ("params.page", ["/", "/", "/"]),
    "the one field that is filled": ("params.it's", [7.0, None, 2.5]),
    "one of its fields by name": ("params.it's.number", [7.0, None, 2.5]),
    "a map": ("extra.plan", ["pro", None, None]),
    "a key with a point": ("extra.a.b", ["c", None, None]),
    "a place of a list": ("items.1.sku", ["y", None, None]),
    "JSON in text": ("raw.a.b c", [1, None, None]),
    "a text in JSON": ("raw.n", ["x", "y", None]),
    "a list in JSON": ("raw.deep", ['[1,{"k":2}]', None, None]),
}


@pytest.mark.parametrize("case", WAYS)
def test_a_way_leads_to_what_stands_there(tmp_path: Path, configure: Callable[..., Config], case: str) -> None:
    way, found = WAYS[case]
    pq.write_table(table(), tmp_path / "log.parquet")
    rows = touchpoints(ingest(configure(sources={"log": {"path": "log.parquet", "columns": {"x": way}}})))
    read = rows.sort_values("customer_id")["property_x"]
    assert [None if pd.isna(one) else one for one in read] == found


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("shop.revenu", r"there is no field 'revenu' in 'shop'\. Did you mean 'revenue'"),
        ("shop.place.town", r"there is no field 'town' in 'shop.place'"),
        ("items.sku", r"'items' is a list; say which of it, as in items\.0"),
        ("shop.revenue.x.y", r"'shop.revenue' is BIGINT, so there is no 'x' in it"),
        ("shup.revenue", r"there is no column 'shup.revenue'\. Did you mean 'shop.revenue'"),
    ],
)
def test_a_way_that_leads_nowhere_is_told(
    tmp_path: Path, configure: Callable[..., Config], way: str, words: str
) -> None:
    pq.write_table(table(), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=words):
        ingest(configure(sources={"log": {"path": "log.parquet", "columns": {"x": way}}}))


def test_roles_are_read_by_ways(tmp_path: Path, configure: Callable[..., Config]) -> None:
    rows = [
        {
            "name": "purchase",
            "user": {"id": 9007199254740993},
            "at": {"us": "1710003907000000"},
            "money": {"total": 53},
        },
        {
            "name": "purchase",
            "user": {"id": 9007199254740995},
            "at": {"us": "1710003908000000"},
            "money": {"total": 0.1},
        },
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"customer_id": "user.id", "occurred_at": "at.us", "event": "name", "value": "money.total"}
    source = {"path": "log.jsonl", "columns": columns, "time_format": "epoch us"}
    found = touchpoints(ingest(configure(sources={"log": source}))).sort_values("customer_id")
    assert list(found["customer_id"]) == ["9007199254740993", "9007199254740995"]
    assert list(found["value"]) == [5300, 10]
    assert str(found["occurred_at"].iloc[0]) == "2024-03-09 17:05:07+00:00"


def test_text_that_is_no_json_refuses_its_row(one_source: Callable[..., Config]) -> None:
    rows = pd.DataFrame(
        {"customer_id": ["a", "b", "c"], "occurred_at": AT, "event": "purchase", "raw": ['{"v": 2}', "{v: 3}", ""]}
    )
    store = ingest(one_source(rows, {"columns": {"value": "raw.v"}}, refused_share=0.9))
    assert store.counts["log"].refused == {"unreadable value": 1}
    assert sorted(touchpoints(store)["value"].fillna(-1)) == [-1, 200]


def log(path: Path, *rows: Any) -> None:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows))


def test_a_broken_line_is_counted_and_kept(tmp_path: Path, configure: Callable[..., Config]) -> None:
    broken = ['{"customer_id": "z", "occ', "[1]", "null", '"text"', '{"customer_id": "y"} {"customer_id": "x"}']
    log(tmp_path / "log.jsonl", BASE, *broken, "", "  ", BASE | {"customer_id": "b"})
    with (tmp_path / "log.jsonl").open("ab") as stream:
        stream.write(b'\n{"customer_id": "\xff"}')
    store = ingest(configure(sources={"log": {"path": "log.jsonl"}}, refused_share=0.9))
    counts = store.counts["log"]
    assert (counts.rows_in, counts.stored, counts.refused) == (8, 2, {"unreadable line": 6})
    kept = pq.read_table(store.folder / "quarantine.parquet", partitioning=None).to_pylist()
    assert {one["row"] for one in kept} >= set(broken)
    assert any("z" in one["customer_ids"] for one in kept)


def test_every_row_of_every_file_gives_the_shape(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(tmp_path / "1.jsonl", *[BASE | {"v": 1, "o": {"x": 1}} for _ in range(3000)])
    log(tmp_path / "2.jsonl", BASE | {"v": -1.5, "o": "scalar", "late": {"k": True}})
    source = {"path": "*.jsonl", "columns": {"value": "v", "o": "o", "late": "late.k"}}
    rows = touchpoints(ingest(configure(sources={"log": source})))
    assert rows["value"].sum() == 300_000 - 150
    assert set(rows["property_o"]) == {'{"x":1}', "scalar"}
    assert rows["property_late"].count() == 1


def test_nothing_is_guessed_from_text(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(
        tmp_path / "log.jsonl", BASE | {"occurred_at": "2024-03-01T10:00:00+09:00", "zip": "01234", "day": "2024-03-01"}
    )
    source = {"path": "log.jsonl", "columns": {"zip": "zip", "day": "day"}}
    (row,) = touchpoints(ingest(configure(sources={"log": source}))).to_dict("records")
    assert (str(row["occurred_at"]), row["property_zip"]) == ("2024-03-01 01:00:00+00:00", "01234")
    assert row["property_day"] == "2024-03-01"


def test_a_store_of_json_grows_as_if_made_anew(tmp_path: Path, configure: Callable[..., Config]) -> None:
    for name in "abcd":
        log(tmp_path / f"{name}.jsonl", BASE | {"customer_id": name, "o": {"x": 1}}, "{broken")
    config = configure(sources={"log": {"path": str(tmp_path / "*.jsonl"), "columns": {"x": "o.x"}}}, refused_share=0.9)
    ingest(config)
    log(tmp_path / "e.jsonl", BASE | {"customer_id": "e"}, "{broken")
    grown, anew = ingest(config), ingest(config.model_copy(update={"out": str(tmp_path / "anew")}))
    assert grown.counts == anew.counts and grown.counts["log"].stored == 5
    for file in sorted(anew.folder.glob("**/*.parquet")):
        assert file.read_bytes() == (grown.folder / file.relative_to(anew.folder)).read_bytes()


def test_a_query_reads_json(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(tmp_path / "log.jsonl", BASE, BASE | {"customer_id": "b"})
    source = {"query": "SELECT * FROM log WHERE customer_id = 'b'", "files": {"log": "log.jsonl"}}
    assert list(touchpoints(ingest(configure(sources={"log": source})))["customer_id"]) == ["b"]
    log(tmp_path / "log.jsonl", BASE, "{broken")
    with pytest.raises(DataError, match="the query fails on its rows"):
        ingest(configure(sources={"log": source}))


def test_an_object_that_is_too_large_is_told(tmp_path: Path, configure: Callable[..., Config]) -> None:
    log(tmp_path / "log.jsonl", BASE, BASE | {"note": "x" * (17 << 20)})
    with pytest.raises(DataError, match=r"log\.jsonl, line 2: has an object of more than 16 MB"):
        ingest(configure(sources={"log": {"path": "log.jsonl"}}))


KEYS = st.sampled_from(["a", "b", "it's", 'q"uote', "sp ace", "ü", "select", "$x"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**17), 10**17), st.text(max_size=5), st.floats(-1e6, 1e6, width=32)
)
DOCUMENTS = st.dictionaries(KEYS, st.one_of(SCALARS, st.dictionaries(KEYS, SCALARS, max_size=3)), max_size=4)


def walked(document: Any, way: list[str]) -> Any:
    for key in way:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@settings(max_examples=25, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=6), st.lists(KEYS, min_size=1, max_size=2), st.booleans())
def test_json_is_what_python_reads(tmp_path_factory: Any, documents: list[Any], way: list[str], lines: bool) -> None:
    folder = tmp_path_factory.mktemp("json")
    rows = [{"n": number, "o": document} for number, document in enumerate(documents)]
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, indent=1)
    (folder / "log.json.gz").write_bytes(gzip.compress(text.encode()))
    spec = SourceSpec(path=(str(folder / "log.json.gz"),))
    config = Config.model_validate(
        {"name": "t", "time_zone": "UTC", "history_from": "2024-01-01", "journey": "cvj8",
         "sources": {"log": {"path": "x"}}}
    )  # fmt: skip
    from cvj_ml.store.fields import Field, find_field

    location = locate("sources.log", spec, config, folder / "spill")
    found = find_field(location, ".".join(["o", *way]))
    expected = [as_text(walked(document, way)) for document in documents]
    if not isinstance(found, Field):
        assert expected == [None] * len(documents)
        return
    with connect_duckdb(config, folder / "spill") as connection:
        relation = land(location, connection, config, folder / "landed")
        text = f"CAST(to_json({found.raw}) AS VARCHAR)" if found.nested else found.text
        read = connection.execute(f"SELECT {text} FROM {relation.sql} ORDER BY n").fetchall()
    for (value,), right in zip(read, expected, strict=True):
        if found.nested or (right or "")[:1] == "{":
            # A structure has every key that any row has.
            filled = {key: one for key, one in json.loads(value or "{}").items() if one is not None}
            whole = json.loads(right) if right else {}
            assert filled.keys() == {key for key, one in whole.items() if one is not None}
        elif found.family in ("float", "decimal") and right is not None:
            assert float(value) == float(right)
        else:
            assert value == right
    assert isinstance(relation.unreadable, int) and relation.unreadable == 0


def test_stores_of_the_same_rows_are_the_same(tmp_path: Path, configure: Callable[..., Config]) -> None:
    rows = [BASE | {"customer_id": f"c{i}", "value": i / 4} for i in range(20)]
    log(tmp_path / "log.jsonl", *rows)
    pd.DataFrame(rows).to_parquet(tmp_path / "log.parquet")
    stores: list[Store] = [
        ingest(configure(sources={"log": {"path": name}}, out=str(tmp_path / name.replace(".", "-"))))
        for name in ("log.jsonl", "log.parquet")
    ]
    assert stores[0].counts == stores[1].counts
    pd.testing.assert_frame_equal(touchpoints(stores[0]), touchpoints(stores[1]))


def test_an_empty_object_is_one_of_no_keys(tmp_path: Path, configure: Callable[..., Config]) -> None:
    rows = [{"o": {}}, {"o": {"x": 1}}, {"o": None}, {"o": {"y": {}}}, {"o": {"l": [1, "a"], "m": []}}, {}]
    log(tmp_path / "log.jsonl", *[BASE | one for one in rows])
    columns = {"x": "o.x", "y": "o.y", "l": "o.l"}
    found = touchpoints(ingest(configure(sources={"log": {"path": "log.jsonl", "columns": columns}})))
    assert found["property_x"].sum() == 1 and set(found["property_l"].dropna()) == {'["1","a"]'}


@pytest.mark.parametrize("more", [[], [{"p": "none"}], [{"p": {f"k{i}": i}} for i in range(210)]])
def test_a_way_means_the_same_where_rows_have_several_shapes(
    tmp_path: Path, configure: Callable[..., Config], more: list[dict[str, Any]]
) -> None:
    """Silent error 87: one row of another shape, or very many keys, once emptied the ways of all others."""
    of_pairs = {
        "pairs": [{"key": "page", "value": {"text": "", "number": 7}}, {"key": "ref", "value": {"text": "mail"}}]
    }
    rows = [{"p": {"items": [{"price": 3}, {"price": 4}], "a.b": "point", **of_pairs}}, *more]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({**BASE, **one}) + "\n" for one in rows))
    ways = {"price": "p.items.1.price", "point": "p.a.b", "page": "p.pairs.page", "ref": "p.pairs.ref"}
    # Text that is no JSON has no ways, and refuses its own row alone.
    store = ingest(configure(sources={"log": {"path": str(path), "columns": ways}}, refused_share=0.5))
    table = touchpoints(store)
    found = {name: {str(one) for one in table[f"property_{name}"] if one is not None and one == one} for name in ways}
    assert found == {"price": {"4.0"}, "point": {"point"}, "page": {"7.0"}, "ref": {"mail"}} or found == {
        "price": {"4"}, "point": {"point"}, "page": {"7"}, "ref": {"mail"},
    }  # fmt: skip


# --- a way that finds nothing -----------------------------------------------------------------------------------------


def told(config: Config) -> list[str]:
    """What is told while the sources are read."""
    found: list[str] = []
    ingest(config, found.append)
    return found


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"value": "raw.amonut"}, ["raw.amonut (there are raw.a.b c, raw.deep, raw.n)"]),
        ({"t": "shop.place.town"}, ["shop.place.town (there are shop.place.city, shop.place.town, shop.revenue)"]),
        ({"page": "params.pgae"}, ["params.pgae (there are params.it's, params.page)"]),
        ({"plan": "extra.paln"}, ["extra.paln (there are extra.a.b, extra.plan)"]),
        ({"value": "shop.revenue", "city": "shop.place.city", "n": "raw.n"}, []),
    ],
)
def test_a_way_that_finds_nothing_in_any_row_is_told_with_those_that_there_are(
    tmp_path: Path, configure: Callable[..., Config], columns: dict[str, str], said: list[str]
) -> None:
    rows = table().to_pylist()
    for row in rows:
        if row["shop"] and row["shop"]["place"]:
            row["shop"]["place"]["town"] = None
    schema = table().schema
    place = pa.struct([("city", pa.string()), ("town", pa.string())])
    index = schema.get_field_index("shop")
    shop = pa.field("shop", pa.struct([("revenue", pa.float64()), ("place", place)]))
    for row in rows:
        row["extra"] = list(row["extra"]) if row["extra"] is not None else None
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.set(index, shop)), tmp_path / "log.parquet")
    config = configure(sources={"log": {"path": "log.parquet", "columns": columns}})
    for _ in range(2):  # made, and used again
        found = told(config)
        assert [one.split(" stands anything in ")[1].split(". Correct")[0] for one in found] == said
        assert all(one.startswith("sources.log: in no row stands anything in ") for one in found)


def test_a_date_of_melt_that_is_filled_nowhere_is_told(one_source: Callable[..., Config]) -> None:
    rows = "customer_id,lead,customer\na,2024-03-01,\nb,2024-03-02,\n"
    (found,) = told(one_source(rows, {"melt": {"lead": "lead", "purchase": "customer"}}))
    assert found.startswith("sources.log: in no row stands anything in customer. Correct the configuration")


def test_a_way_is_told_until_a_file_fills_it(tmp_path: Path, configure: Callable[..., Config]) -> None:
    def write(day: int, raw: str) -> None:
        rows = {"customer_id": ["a", "b"], "occurred_at": AT[day : day + 1] * 2, "event": ["x"] * 2, "raw": [raw] * 2}
        pq.write_table(pa.table(rows), tmp_path / f"log-{day}.parquet")

    config = configure(sources={"log": {"path": "log-*.parquet", "columns": {"n": "raw.n"}}}, engine={"buckets": 1})
    write(0, '{"m": 1}')
    assert len(told(config)) == 1
    write(1, '{"k": 1}')
    assert "raw.n (there are raw.k, raw.m)" in told(config)[0]
    write(2, '{"n": 1}')
    assert told(config) == []


def test_a_condition_on_a_way_that_finds_nothing_ends_with_the_ways_there_are(
    tmp_path: Path, configure: Callable[..., Config]
) -> None:
    log(tmp_path / "log.jsonl", {**BASE, "p": '{"type": "track"}'}, {**BASE, "p": '{"type": "page"}'})
    config = configure(sources={"log": {"path": "log.jsonl", "where": {"p.typ": "track"}}})
    with pytest.raises(DataError, match=r"none is left \(2 by where or melt\); in no row stands anything in p\.typ"):
        ingest(config)


def test_a_table_of_which_nothing_is_left_says_why(one_source: Callable[..., Config]) -> None:
    rows = "customer_id,occurred_at,event\na,01.02.2024,x\n,2024-02-01,x\n"
    with pytest.raises(DataError) as error:
        ingest(one_source(rows, refused_share=1.0))
    assert "2 rows came in and none is left (no customer_id: 1, unreadable occurred_at: 1); if times" in str(
        error.value
    )


# --- numbers that are exact -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.decimal128(12, 2), pa.decimal128(38, 0), pa.decimal128(20, 4)])
def test_whole_decimals_are_asked_for_as_they_are_written(
    tmp_path: Path, configure: Callable[..., Config], kind: pa.DataType
) -> None:
    flags = pa.array([Decimal(1), Decimal(0), Decimal(10)], kind)
    rows = {"customer_id": ["a", "b", "c"], "occurred_at": AT, "event": ["x"] * 3, "ok": flags}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    for wanted, found in (([1], ["a"]), ([10, 0], ["b", "c"]), (["1"], ["a"])):
        config = configure(sources={"log": {"path": "log.parquet", "where": {"ok": wanted}}})
        assert sorted(touchpoints(ingest(config))["customer_id"]) == found


def test_decimals_that_are_no_whole_numbers_are_asked_for_without_zeros_behind(
    tmp_path: Path, configure: Callable[..., Config]
) -> None:
    flags = pa.array([Decimal("1.50"), Decimal("0.25"), None], pa.decimal128(12, 4))
    rows = {"customer_id": ["a", "b", "c"], "occurred_at": AT, "event": ["x"] * 3, "ok": flags}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    config = configure(sources={"log": {"path": "log.parquet", "where": {"ok": [1.5, 0.25]}}})
    assert sorted(touchpoints(ingest(config))["customer_id"]) == ["a", "b"]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(2**53 - 3, 2**70), min_size=1, max_size=5, unique=True), st.sampled_from(["", "1.5", '"a"'])
)
def test_ids_of_json_keep_their_digits_or_are_refused(tmp_path_factory: Any, ids: list[int], beside: str) -> None:
    folder = tmp_path_factory.mktemp("ids")
    written = [*map(str, ids), *([beside] if beside else [])]
    role = {"occurred_at": "2024-03-01 10:00:00", "event": "x"}
    lines = [json.dumps(role)[:-1] + f', "id": {one}, "p": {{"id": {one}}}}}' for one in written]
    (folder / "log.jsonl").write_text("\n".join(lines))
    for own in ("id", "p.id"):
        source = {"path": "log.jsonl", "columns": {"customer_id": own}}
        document = {"name": "t", "time_zone": "UTC", "history_from": "2024-01-01", "refused_share": 1.0, "out": own}
        journey = {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]}
        config = Config.model_validate(
            {**document, "journey": journey, "sources": {"log": source}}, context={"folder": folder}
        )
        try:
            store = ingest(config)
        except DataError as error:
            assert "none is left" in str(error) and "unreadable customer_id" in str(error)
            continue
        found = set(touchpoints(store)["customer_id"])
        assert found <= {*map(str, ids), "a"}, "no digit is another one"
        assert len(found) + sum(store.counts["log"].refused.values()) == len(written)
