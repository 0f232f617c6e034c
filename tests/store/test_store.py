"""The store: buckets, order, versions, repeats, reuse, attributes, and blocks read back."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvj_ml.config import DAY, SECOND
from cvj_ml.errors import DataError
from cvj_ml.histories import Text
from cvj_ml.schemas import PROPERTY, STORE_TOUCHPOINTS
from cvj_ml.store import Usage, bucket_of, ingest, usage
from cvj_ml.store.refusals import account
from cvj_ml.store.store import ALWAYS, bucket_sql
from cvj_ml.windows import NEVER, is_live

CONNECTION = duckdb.connect()
START = datetime(2024, 1, 1, tzinfo=UTC)


def blocks(store):
    return [store.read(bucket) for bucket in range(store.buckets)]


def text(column: Text):
    return [column.values[code] if code >= 0 else None for code in column.codes]


def log(number, seed=0, customers=40):
    """Return a log full of ties: few days, few events, versions and exact repeats."""
    draw = random.Random(seed)
    rows = [
        {
            "customer_id": f"k{draw.randrange(customers)}é",
            "occurred_at": START + timedelta(days=draw.randrange(5)),
            "known_at": START + timedelta(days=draw.randrange(8)),
            "event": draw.choice(["visit", "purchase", "Übung"]),
            "channel": draw.choice(["web", "store", None]),
            "value": draw.choice([None, 1.5, -1.5, 20.0]),
            "rating": draw.choice([None, 1.0, -0.0, 0.0]),
            "word": draw.choice([None, "a", "b", ""]),
        }
        for _ in range(number)
    ]
    frame = pd.DataFrame(rows)
    frame["touchpoint_id"] = [
        f"{row.customer_id}{draw.randrange(20)}" if draw.random() < 0.5 else None for row in frame.itertuples()
    ]
    return frame


PROPERTIES = {"columns": {"rating": "rating", "word": "word"}}


@given(st.lists(st.text(min_size=1), min_size=1), st.integers(1, 4096))
@settings(max_examples=50)
def test_bucket_of_agrees_with_sql_and_with_md5(ids, buckets):
    expected = [int(hashlib.md5(one.encode()).hexdigest()[:8], 16) % buckets for one in ids]
    assert [bucket_of(one, buckets) for one in ids] == expected
    table = pa.table({"position": range(len(ids)), "id": ids})
    rows = CONNECTION.from_arrow(table).order("position").project(bucket_sql("id", buckets)).fetchall()
    assert [row[0] for row in rows] == expected


def test_files_hold_the_contract_in_the_total_order(one_source):
    store = ingest(one_source(log(2000), PROPERTIES, engine={"buckets": 4}))
    expected = {**STORE_TOUCHPOINTS, f"{PROPERTY}rating": pa.float64(), f"{PROPERTY}word": pa.string()}
    paths = sorted(store.folder.glob("bucket-*/touchpoints.parquet"))
    assert [path.parent.name for path in paths] == [f"bucket-000{bucket}" for bucket in range(4)]
    for bucket, path in enumerate(paths):
        table = pq.read_table(path, partitioning=None)
        assert {field.name: field.type for field in table.schema} == expected
        rows = table.to_pylist()
        assert {bucket_of(row["customer_id"], 4) for row in rows} == {bucket}
        names = ("customer_id", "occurred_at", "event", "channel", "value", "touchpoint_id", "visible_at")
        keys = [tuple((row[name] is not None, row[name] or 0) for name in names) for row in rows]
        assert keys == sorted(keys)
        assert "" not in table[f"{PROPERTY}word"].to_pylist()


@pytest.mark.parametrize("drop", [False, True])
def test_shuffled_and_split_input_gives_the_same_bytes(tmp_path, configure, drop):
    rows = log(3000)
    digests = []
    for seed in (1, 2):
        shuffled = rows.sample(frac=1, random_state=seed)
        for part in (0, 1):
            shuffled.iloc[part::2].to_parquet(tmp_path / f"part{part}.parquet", row_group_size=100)
        config = configure(
            sources={"log": {"path": "part*.parquet"} | PROPERTIES},
            drop_duplicates=drop,
            out=f"out{seed}",
            engine={"threads": seed, "buckets": 3},
        )
        store = ingest(config)
        digests.append(
            [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(store.folder.rglob("*.parquet"))]
        )
    assert len(digests[0]) == 4
    assert digests[0] == digests[1]


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("buckets", [1, 5])
def test_versions_and_repeats_agree_with_a_slow_oracle(one_source, drop, buckets):
    rows = log(1500, seed=3, customers=10)
    rows = pd.concat([rows, rows.sample(150, random_state=1)], ignore_index=True)
    store = ingest(one_source(rows, PROPERTIES, drop_duplicates=drop, engine={"buckets": buckets}))
    found = []
    for path in sorted(store.folder.glob("bucket-*/touchpoints.parquet")):
        found += pq.read_table(path, partitioning=None).to_pylist()

    # The oracle: plain Python over the input, one row after the other.
    seen, expected = {}, []
    for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        one = {
            "customer_id": row["customer_id"],
            "occurred_at": row["occurred_at"],
            "event": row["event"],
            "channel": row["channel"],
            "value": None if row["value"] is None else round(row["value"] * 100),
            "touchpoint_id": row["touchpoint_id"],
            "visible_at": max(row["occurred_at"], row["known_at"]),
            "property_rating": None if row["rating"] is None else row["rating"] + 0.0,
            "property_word": row["word"] or None,
        }
        content = tuple(one.values())
        seen[content] = seen.get(content, 0) + 1
        if not (drop and seen[content] > 1):
            expected.append(one)
    repeats = sum(count - 1 for count in seen.values())

    def order(row):
        names = ("customer_id", "occurred_at", "event", "channel", "value", "touchpoint_id")
        names = ("visible_at", *names, "property_rating", "property_word")
        return tuple((row[name] is not None, row[name] if row[name] is not None else 0) for name in names)

    versions: dict = {}
    for row in expected:
        row["superseded_at"] = None
        if row["touchpoint_id"] is not None:
            versions.setdefault(row["touchpoint_id"], []).append(row)
    for same in versions.values():
        same.sort(key=order)
        for this, following in pairwise(same):
            this["superseded_at"] = following["visible_at"]

    def comparable(rows):
        names = [*expected[0]]
        return sorted((tuple((row[name] is not None, row[name] or 0) for name in names) for row in rows), key=repr)

    assert repeats > 20 and sum(len(same) > 2 for same in versions.values()) > 20
    assert comparable(found) == comparable(expected)
    counts = store.counts["log"]
    assert (counts.duplicates, counts.repeats) == ((repeats, 0) if drop else (0, repeats))


def test_a_newer_version_under_another_customer_replaces_the_older_one(one_source):
    ids = [f"c{k}" for k in range(300)]
    rows = pd.DataFrame({"customer_id": ids, "touchpoint_id": ids, "occurred_at": START, "event": "visit"})
    newer = pd.DataFrame({"customer_id": ["new"], "touchpoint_id": ["c7"], "occurred_at": START, "event": "visit"})
    newer["known_at"] = START + timedelta(days=3)
    rows["known_at"] = START
    for buckets in (1, 7):
        config = one_source(pd.concat([rows, newer]), engine={"buckets": buckets}, refused_share=0.01)
        store = ingest(config)
        superseded = {
            name: int(block.touchpoints.superseded_at[block.touchpoints.offsets[i]])
            for block in blocks(store)
            for i, name in enumerate(block.customers)
        }
        replaced = {name: at for name, at in superseded.items() if at != NEVER}
        assert replaced == {"c7": int((START + timedelta(days=3)).timestamp()) * SECOND}
        assert store.counts["log"].reassigned == 2


def test_an_id_that_only_numbers_the_touchpoints_of_each_customer_is_an_error(one_source):
    rows = pd.DataFrame({"customer_id": ["a", "a", "b", "b"], "touchpoint_id": [1, 2, 1, 2], "occurred_at": START})
    with pytest.raises(DataError, match="4 of 4 rows the touchpoint_id belongs to more than one customer"):
        ingest(one_source(rows.assign(event="visit")))


def test_the_same_touchpoint_id_in_two_sources_is_two_touchpoints(tmp_path, configure):
    row = pd.DataFrame({"customer_id": ["a"], "touchpoint_id": ["1"], "occurred_at": START, "event": ["visit"]})
    row.to_parquet(tmp_path / "log.parquet")
    store = ingest(configure(sources={"one": {"path": "log.parquet"}, "two": {"path": "log.parquet"}}))
    (block,) = [block for block in blocks(store) if len(block)]
    assert list(block.touchpoints.superseded_at) == [NEVER, NEVER]
    assert {name: counts.repeats for name, counts in store.counts.items()} == {"one": 0, "two": 0}


# --- reuse -----------------------------------------------------------------------------------------------------------


def written(store):
    return {path: path.stat().st_mtime_ns for path in store.folder.rglob("*") if path.is_file()}


def test_a_store_is_reused_until_its_input_or_meaning_changes(one_source, tmp_path):
    rows = log(50)
    store = ingest(one_source(rows))
    times = written(store)
    again = ingest(one_source(rows, {"arrival_delay": "3d"}, outbound=["visit"], engine={"threads": 1}))
    assert again.folder == store.folder and written(again) == times
    assert (again.arrival_delay, again.outbound) == (3 * DAY, frozenset({"visit"}))
    folders = {store.folder}
    for changed in (
        one_source(rows, time_zone="Asia/Tokyo"),
        one_source(rows, {"times": "Asia/Tokyo"}),
        one_source(rows, drop_duplicates=True),
        one_source(rows, value_decimals=3),
        one_source(rows, PROPERTIES),
        one_source(rows, engine={"buckets": 2}),
        one_source(rows.iloc[1:]),
    ):
        folders.add(ingest(changed).folder)
    assert len(folders) == 8


def test_a_damaged_store_is_written_again(one_source):
    config = one_source(log(50))
    store = ingest(config)
    good = {path.name: path.read_bytes() for path in store.folder.rglob("touchpoints.parquet")}
    victim = next(store.folder.rglob("touchpoints.parquet"))
    for damage in (lambda: victim.write_bytes(b""), victim.unlink, (store.folder / "store.json").unlink):
        damage()
        again = ingest(config)
        assert {path.name: path.read_bytes() for path in again.folder.rglob("touchpoints.parquet")} == good


def test_nothing_but_the_store_is_left_in_its_place(one_source):
    config = one_source(log(50))
    store = ingest(config)
    assert {path.name for path in (Path(config.out) / "store").iterdir()} == {store.folder.name, ".lock"}


def test_fingerprints_name_files_by_content(one_source, tmp_path):
    store = ingest(one_source(log(50)))
    content = (tmp_path / "log.parquet").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert store.fingerprints == {"log": [{"file": "log.parquet", "sha256": digest, "bytes": len(content)}]}


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_give_back_the_rows(one_source):
    rows = log(800).drop(columns="touchpoint_id")
    store = ingest(one_source(rows, PROPERTIES, outbound=["visit"], engine={"buckets": 4}))
    found = []
    for block in blocks(store):
        assert list(block.customers) == sorted(block.customers)
        points = block.touchpoints
        assert len(points.offsets) == len(block) + 1 and points.offsets[-1] == len(points)
        for column in (points.event, points.channel, points.properties["word"]):
            assert list(column.values) == sorted(set(column.values)) and column.codes.dtype == np.int32
        assert list(points.inbound) == [event != "visit" for event in text(points.event)]
        for i, customer in enumerate(block.customers):
            for k in range(points.offsets[i], points.offsets[i + 1]):
                found.append(
                    (
                        customer,
                        int(points.occurred_at[k]),
                        int(points.visible_at[k]),
                        int(points.day[k]),
                        text(points.event)[k],
                        text(points.channel)[k],
                        int(points.value[k]) if points.has_value[k] else None,
                        None if np.isnan(points.properties["rating"][k]) else float(points.properties["rating"][k]),
                        text(points.properties["word"])[k],
                    )
                )
    rows = rows.astype(object).where(rows.notna(), None)
    expected = []
    for row in rows.itertuples():
        occurred, known = (int(at.timestamp()) * SECOND for at in (row.occurred_at, row.known_at))
        value = None if row.value is None else round(row.value * 100)
        rating = None if row.rating is None else row.rating
        expected.append(
            (
                row.customer_id,
                occurred,
                max(occurred, known),
                occurred // DAY,
                row.event,
                row.channel,
                value,
                rating,
                row.word or None,
            )
        )
    assert sorted(found, key=repr) == sorted(
        [tuple(x + 0.0 if isinstance(x, float) else x for x in r) for r in expected], key=repr
    )
    assert store.customers == rows.customer_id.nunique()
    assert store.events == rows.event.value_counts().sort_index().to_dict()
    assert store.counts["log"].stored == len(rows)


def test_empty_buckets_read_as_empty_blocks(one_source, tmp_path):
    (tmp_path / "people.csv").write_text("customer_id,city\na,Rome\n")
    attributes = {"path": "people.csv", "static": True, "columns": {"city": "city"}}
    store = ingest(one_source(log(1), PROPERTIES, engine={"buckets": 5}, attributes=attributes))
    assert sorted(len(block) for block in blocks(store)) == [0, 0, 0, 0, 1]
    for block in blocks(store):
        assert set(block.touchpoints.properties) == {"rating", "word"}
        assert len(block.touchpoints.offsets) == len(block) + 1
        assert list(block.attributes.offsets) == [0] * (len(block) + 1)


@given(st.integers(-2 * DAY, 12 * DAY))
@settings(max_examples=20)
def test_account_agrees_with_is_live(shift):
    rows = [(0, NEVER), (DAY, 3 * DAY), (3 * DAY, NEVER), (5 * DAY, 5 * DAY), (5 * DAY, NEVER)]
    as_of = shift
    found = account(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)), as_of)
    assert found.used == sum(bool(is_live(visible, superseded, as_of)) for visible, superseded in rows)
    assert found.used + found.not_yet_visible + found.superseded == len(rows)
    assert found + Usage(1, 2, 3) == Usage(found.used + 1, found.not_yet_visible + 2, found.superseded + 3)


# --- attributes ------------------------------------------------------------------------------------------------------


def with_attributes(one_source, tmp_path, rows, **spec):
    (tmp_path / "people.csv").write_text(rows)
    log = "customer_id,occurred_at,event\n" + "".join(f"{name},2024-05-01,visit\n" for name in ("a", "b", "c"))
    return one_source(log, attributes={"path": "people.csv"} | spec, engine={"buckets": 1}, refused_share=0.5)


def test_attributes_are_versions_in_the_order_in_which_they_became_known(one_source, tmp_path):
    rows = "id,since,city,age\nc,2024-02-01,Rome,31\na,2024-03-01,Oslo,\na,2024-01-01,,30\n"
    rows += "z,2024-01-01,Bonn,1\n,2024-01-01,x,1\n"
    columns = {"customer_id": "id", "known_at": "since", "city": "city", "age": "age"}
    store = ingest(with_attributes(one_source, tmp_path, rows, columns=columns))
    attributes = store.read(0).attributes
    assert list(attributes.offsets) == [0, 2, 2, 3]
    days = [int(pd.Timestamp(day, tz="UTC").timestamp()) * SECOND for day in ("2024-01-01", "2024-03-01", "2024-02-01")]
    assert list(attributes.known_at) == days
    assert text(attributes.columns["city"]) == [None, "Oslo", "Rome"]
    np.testing.assert_array_equal(attributes.columns["age"], [30, np.nan, 31])
    counts = store.attribute_counts
    assert (counts.rows_in, counts.stored, counts.unmatched, counts.refused) == (5, 3, 1, {"no customer_id": 1})


def test_static_attributes_are_known_always(one_source, tmp_path):
    config = with_attributes(one_source, tmp_path, "customer_id,city\nb,Rome\n", static=True, columns={"city": "city"})
    attributes = ingest(config).read(0).attributes
    assert list(attributes.known_at) == [ALWAYS] and list(attributes.offsets) == [0, 0, 1, 1]


def test_attributes_without_a_time_are_an_error_that_explains_both_ways(one_source, tmp_path):
    config = with_attributes(one_source, tmp_path, "customer_id,city\nb,Rome\n", columns={"city": "city"})
    with pytest.raises(DataError, match=r"(?s)known_at: <its column>.*declare static: true") as caught:
        ingest(config)
    assert caught.value.exit_code == 3


def test_a_static_attribute_given_twice_is_an_error(one_source, tmp_path):
    rows = "customer_id,city\nb,Rome\nb,Oslo\n"
    config = with_attributes(one_source, tmp_path, rows, static=True, columns={"city": "city"})
    with pytest.raises(DataError, match=r"1 customer\(s\) have several rows although static"):
        ingest(config)


# --- real data -------------------------------------------------------------------------------------------------------


def test_cdnow_keeps_its_true_repeats(dataset, configure):
    columns = {"occurred_at": "date", "value": "amount", "quantity": "qty"}
    source = {"path": str(dataset("cdnow") / "cdnow_master.parquet"), "columns": columns, "known_after": "1d"}
    store = ingest(configure(sources={"orders": source | {"constants": {"event": "purchase"}}}))
    counts = store.counts["orders"]
    assert (counts.rows_in, counts.stored, counts.repeats, store.customers) == (69_659, 69_659, 255, 23_570)
    found = usage(store, 852_076_800 * SECOND + 60 * DAY)
    assert found.used + found.not_yet_visible + found.superseded + counts.duplicates == counts.rows_in
    assert found.used > 0 and found.not_yet_visible > 0


def test_online_retail_purchases_by_query(dataset, configure):
    query = """
        SELECT "Customer ID" AS customer_id, Invoice AS touchpoint_id, min(InvoiceDate) AS occurred_at,
               sum(Quantity * Price) AS value, count(DISTINCT StockCode) AS products
        FROM lines WHERE "Customer ID" IS NOT NULL AND Invoice NOT LIKE 'C%' GROUP BY ALL"""
    files = {"lines": str(dataset("online_retail") / "online_retail.parquet")}
    source = {"query": query, "files": files, "columns": {"products": "products"}, "constants": {"event": "purchase"}}
    store = ingest(configure(sources={"orders": source}, time_zone="Europe/London"))
    assert (store.counts["orders"].stored, store.customers) == (36_975, 5_881)
    assert replace(store, outbound=frozenset({"purchase"})).read(0).touchpoints.inbound.any() == np.False_
