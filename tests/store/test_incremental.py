"""A store to which files were added is, byte for byte, the store that is built from all files at once."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvj_ml.config import Config
from cvj_ml.errors import DataError
from cvj_ml.store import build, cache_key, ingest

START = datetime(2024, 1, 1, tzinfo=UTC)
JOURNEY = {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]}


def log(number, draw, customers):
    """Return rows full of ties, versions within and across customers, exact repeats and rows that are refused."""
    rows = []
    for _ in range(number):
        if rows and draw.random() < 0.15:
            rows.append(dict(draw.choice(rows)))
            continue
        rows.append(
            {
                "customer_id": draw.choice([None, ""]) if draw.random() < 0.03 else f"k{draw.randrange(customers)}é",
                "occurred_at": START + timedelta(days=draw.randrange(4)),
                "known_at": START + timedelta(days=draw.randrange(8), milliseconds=draw.randrange(3000)),
                "event": draw.choice(["visit", "purchase", "Übung"]),
                "channel": draw.choice(["web", "store", None]),
                "value": draw.choice([None, 1.5, -1.5, 20.0]),
                "rating": draw.choice([None, 1.0, -0.0, 0.0]),
                "word": draw.choice([None, "a", "b", ""]),
                "touchpoint_id": draw.choice([None, f"t{draw.randrange(number)}"]),
            }
        )
    return pd.DataFrame(rows)


def make(folder: Path, out: str, **changes) -> Config:
    columns = {"columns": {"rating": "rating", "word": "word"}}
    document = {
        "name": "test",
        "time_zone": "Europe/London",
        "history_from": "2024-01-01",
        "journey": JOURNEY,
        "sources": {"log": {"path": "log-*.*"} | columns},
        "refused_share": 1.0,
        "engine": {"buckets": 3},
        "out": out,
    }
    return Config.model_validate(document | changes, context={"folder": folder})


def content(store):
    files = {
        str(path.relative_to(store.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.folder.rglob("*.parquet"))
    }
    return files, json.loads((store.folder / "store.json").read_text())


def assert_like_new(config: Config, folder: Path):
    """Assert that the store in its place is what a build from nothing gives."""
    grown = ingest(config)
    built = ingest(config.model_copy(update={"out": str(folder / "fresh")}))
    assert content(grown) == content(built)
    shutil.rmtree(folder / "fresh")
    return grown


@pytest.fixture
def landed(monkeypatch):
    """Return the lists of files that were read, by reading."""
    read = []
    land = build.land

    def spy(location, *rest):
        read.append((location.label, sorted(path.name for path in location.paths())))
        return land(location, *rest)

    monkeypatch.setattr(build, "land", spy)
    monkeypatch.setattr(cache_key, "LEAST_SHARE", 0.0)
    return read


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    customers=st.integers(1, 30),
    drop=st.booleans(),
    ending=st.sampled_from(["csv", "parquet"]),
    known=st.booleans(),
)
def test_arrival_in_batches_gives_the_bytes_of_one_reading(
    tmp_path_factory, landed, seed, sizes, customers, drop, ending, known
):
    folder = tmp_path_factory.mktemp("batches")
    draw = random.Random(seed)
    rows = log(sum(sizes), draw, customers).sample(frac=1, random_state=seed)
    rows = rows if known else rows.drop(columns="known_at")
    config = make(folder, "out", drop_duplicates=drop)
    names = [f"log-{draw.randrange(100)}-{place}" for place in range(len(sizes))]
    for place, size in enumerate(sizes):
        part, rows = rows.iloc[:size], rows.iloc[size:]
        file = folder / f"{names[place]}.{ending}"
        if ending == "csv":
            # Of every third row only the date is written.
            texts = part["occurred_at"].astype(str)
            texts = texts.where(np.arange(len(part)) % 3 > 0, texts.str.slice(0, 10))
            part.assign(occurred_at=texts).to_csv(file, index=False)
        else:
            part.to_parquet(file)
        try:
            ingest(config)
        except DataError as error:  # nothing left: so says the reading of the whole, too
            with pytest.raises(DataError, match="none is left"):
                ingest(config.model_copy(update={"out": str(folder / "fresh")}))
            assert "none is left" in str(error)
            continue
        landed.clear()
        assert_like_new(config, folder)
    shutil.rmtree(folder)


def write(folder: Path, name: str, rows: str) -> None:
    (folder / name).write_text("customer_id,occurred_at,event,rating,word\n" + rows, encoding="utf-8")


def test_only_what_is_new_is_read(tmp_path, landed):
    write(tmp_path, "log-1.csv", "a,2024-05-01,visit,1,x\nb,2024-05-01,visit,2,y\n")
    config = make(tmp_path, "out")
    ingest(config)
    write(tmp_path, "log-2.csv", "b,2024-04-01,visit,3,y\nc,2024-05-01,purchase,,\n")
    ingest(config)
    assert landed == [("sources.log", ["log-1.csv"]), ("sources.log", ["log-2.csv"])]
    ingest(config)
    assert len(landed) == 2
    assert_like_new(config, tmp_path)


def test_a_bucket_without_news_is_the_same_file(tmp_path, landed):
    write(tmp_path, "log-1.csv", "".join(f"c{k},2024-05-01,visit,1,x\n" for k in range(30)))
    config = make(tmp_path, "out")
    before = ingest(config)
    write(tmp_path, "log-2.csv", "c7,2024-04-01,visit,3,y\n")
    after = assert_like_new(config, tmp_path)
    inodes = [
        {path.parent.name: path.stat().st_ino for path in store.folder.glob("bucket-*/touchpoints.parquet")}
        for store in (before, after)
    ]
    assert sum(inodes[0][name] == inodes[1][name] for name in inodes[0]) == 2


@pytest.mark.parametrize("change", ["changed", "removed", "text", "mapping", "column"])
def test_what_is_more_than_new_files_is_read_anew(tmp_path, landed, change):
    write(tmp_path, "log-1.csv", "a,2024-05-01,visit,1,x\nb,2024-05-01,visit,2,y\n")
    write(tmp_path, "log-2.csv", "a,2024-05-02,visit,1,x\n")
    config = make(tmp_path, "out")
    ingest(config)
    landed.clear()
    write(tmp_path, "log-3.csv", "c,2024-05-02,visit,4,x\n")
    if change == "changed":
        write(tmp_path, "log-2.csv", "a,2024-05-03,visit,1,x\n")
    elif change == "removed":
        (tmp_path / "log-2.csv").unlink()
    elif change == "text":
        write(tmp_path, "log-3.csv", "c,2024-05-02,visit,four,x\n")
    elif change == "mapping":
        config = make(tmp_path, "out", sources={"log": {"path": "log-*.*", "columns": {"rating": "rating"}}})
    else:
        (tmp_path / "log-3.csv").write_text("customer_id,occurred_at,event,rating,word,channel\nc,2024-05-02,v,1,x,w\n")
    store = assert_like_new(config, tmp_path)
    # The last reading is that of the store to compare with.
    assert ("sources.log", sorted(path.name for path in tmp_path.glob("log-*"))) in landed[:-1]
    assert store.property_kinds["rating"] == ("string" if change == "text" else "double")


def test_files_without_an_unused_or_optional_column_are_still_only_added(tmp_path, landed):
    full = pd.DataFrame(
        {"customer_id": ["a"], "occurred_at": [START], "event": ["visit"], "channel": ["web"], "rating": [1.5]}
        | {"word": ["x"], "noise": [1]}
    )
    full.to_parquet(tmp_path / "log-1.parquet")
    config = make(tmp_path, "out")
    ingest(config)
    part = full.drop(columns=["noise", "channel"]).assign(rating=pd.array([2], "int32"), customer_id="b")
    part.to_parquet(tmp_path / "log-2.parquet")
    landed.clear()
    store = ingest(config)
    assert landed == [("sources.log", ["log-2.parquet"])]
    assert (store.customers, store.property_kinds["rating"]) == (2, "double")
    assert_like_new(config, tmp_path)


@pytest.mark.slow
def test_attributes_labels_and_a_query_beside_growing_files(tmp_path, landed):
    write(tmp_path, "log-1.csv", "a,2024-05-01,visit,1,x\nb,2024-05-01,visit,2,y\nd,2024-05-01,visit,2,y\n")
    (tmp_path / "orders.csv").write_text("who,at\na,2024-05-04\nz,2024-05-05\n")
    (tmp_path / "people.csv").write_text("customer_id,city\na,Rome\nc,Oslo\n")
    (tmp_path / "labels.csv").write_text("customer_id,as_of,stage,known_at\nc,2024-05-01,Buyer,2024-05-02\n")
    query = "SELECT who AS customer_id, o.at AS occurred_at, 'purchase' AS event FROM o"
    log = {"path": "log-*.csv", "columns": {"rating": "rating", "word": "word"}}
    config = make(
        tmp_path,
        "out",
        sources={"log": log, "orders": {"query": query, "files": {"o": "orders.csv"}}},
        attributes={"path": "people.csv", "static": True, "columns": {"city": "city"}},
        stage_labels={"path": "labels.csv"},
        coverage={"Buyer": 0.9},
    )
    assert ingest(config).attribute_counts.unmatched == 1
    landed.clear()
    write(tmp_path, "log-2.csv", "c,2024-05-02,visit,4,x\n")
    store = assert_like_new(config, tmp_path)
    assert landed[:3] == [
        ("sources.log", ["log-2.csv"]),
        ("attributes", ["people.csv"]),
        ("stage_labels", ["labels.csv"]),
    ]
    assert store.attribute_counts.unmatched == 0 and store.label_counts.stored == 1
    # A query whose files changed is read whole, and the files beside it are not.
    (tmp_path / "orders.csv").write_text("who,at\nb,2024-05-04\n")
    landed.clear()
    assert "z" not in {name for bucket in range(3) for name in assert_like_new(config, tmp_path).read(bucket).customers}
    assert landed[0] == ("sources.orders", ["orders.csv"])


def test_versions_across_customers_reach_back_into_the_store(tmp_path, landed):
    head = "customer_id,occurred_at,event,rating,word,touchpoint_id,known_at\n"
    rows = [f"c{k},2024-05-01,visit,,,t{k},2024-05-01\n" for k in range(40)]
    (tmp_path / "log-1.csv").write_text(head + "".join(rows))
    config = make(tmp_path, "out")
    ingest(config)
    (tmp_path / "log-2.csv").write_text(head + "new,2024-05-01,visit,,,t7,2024-05-03\n")
    assert assert_like_new(config, tmp_path).counts["log"].reassigned == 2
    (tmp_path / "log-3.csv").write_text(
        head + "c9,2024-05-01,visit,,,t7,2024-05-02\nc7,2024-05-01,visit,,,x,2024-05-02\n"
    )
    assert assert_like_new(config, tmp_path).counts["log"].reassigned == 3


def test_refusals_of_added_files_count_with_those_before(tmp_path, landed):
    write(tmp_path, "log-1.csv", "a,2024-05-01,visit,1,x\n" * 3)
    config = make(tmp_path, "out", refused_share=0.4)
    ingest(config)
    write(tmp_path, "log-2.csv", "b,nonsense,visit,1,x\nb\n")
    assert assert_like_new(config, tmp_path).counts["log"].refused == {
        "unreadable line": 1,
        "unreadable occurred_at": 1,
    }
    write(tmp_path, "log-3.csv", "b,nonsense,visit,1,x\n")
    with pytest.raises(DataError, match="3 of 6 rows refused"):
        ingest(config)
