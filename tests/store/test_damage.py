"""Damage to the store is seen by whoever reads it, and mended from the sources."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cvj_ml.config import Config
from cvj_ml.customers import rows_held
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import StoreError
from cvj_ml.store import CustomerIds, Store, arrivals, attribute_rows, ingest, touchpoint_rows, usage
from cvj_ml.store.store import MANIFEST, open_store, read_manifest

DAYS = pd.date_range("2024-01-01", periods=200, tz="UTC")


def rows(days: Any, seed: int) -> pd.DataFrame:
    draw = random.Random(seed)
    return pd.DataFrame(
        {
            "customer_id": [f"k{draw.randrange(30):02d}" for _ in days],
            "occurred_at": [*days[:-1], None],  # the last one is refused
            "event": [draw.choice(["visit", "purchase"]) for _ in days],
            "word": [draw.choice(["a", "b", None]) for _ in days],
        }
    )


@pytest.fixture
def config(configure: Callable[..., Config], tmp_path: Path) -> Config:
    """A source of two files (the second yet to come), attributes and stage labels, in a store of two buckets."""
    rows(DAYS, 1).to_parquet(tmp_path / "log-1.parquet")
    people = [f"k{number:02d}" for number in range(30)]
    pd.DataFrame({"customer_id": people, "age": range(30)}).to_parquet(tmp_path / "people.parquet")
    labels = {"customer_id": people, "as_of": DAYS[0], "known_at": DAYS[1], "stage": "Buyer"}
    pd.DataFrame(labels).to_parquet(tmp_path / "labels.parquet")
    return configure(
        sources={"log": {"path": "log-*.parquet", "columns": {"word": "word"}}},
        attributes={"path": "people.parquet", "static": True, "columns": {"age": "age"}},
        stage_labels={"path": "labels.parquet"},
        coverage={"Buyer": 0.6},
        engine={"buckets": 2},
        refused_share=0.1,
    )


@contextmanager
def flipped(path: Path, draw: random.Random) -> Iterator[None]:
    """Change one bit of a file for a while, as a bad disk does: its length and its times stay."""
    whole, times = path.read_bytes(), path.stat()
    changed = bytearray(whole)
    changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(changed))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(whole)


def everything(store: Store) -> dict[str, bytes]:
    files = sorted(path for path in store.folder.rglob("*") if path.is_file())
    return {path.relative_to(store.folder).as_posix(): path.read_bytes() for path in files}


def test_of_two_hundred_flipped_bits_all_are_seen(config: Config) -> None:
    """Silent error 53."""
    store, draw = ingest(config), random.Random(12)
    names = sorted(everything(store))
    assert len(names) == 8 and {MANIFEST, "quarantine.parquet"} < {*names}
    struck = set()
    for number in range(200):
        name = names[number % len(names)]
        with flipped(store.folder / name, draw):
            if name == MANIFEST:
                with pytest.raises(StoreError, match=r"store\.json: it is not what was written"):
                    open_store(store.folder, store.key, config)
            else:
                assert store.faults() == [
                    f"{name}: it is not what was written (its sha256 differs from the one in store.json)"
                ]
                with pytest.raises(StoreError, match=r"What it holds is not used\. Run the same command again"):
                    store.checked(name)
        struck.add(name)
    assert struck == {*names}
    assert open_store(store.folder, store.key, config) is not None and store.faults() == []


def people_of(numbers: Iterable[int]) -> CustomerIds:
    return CustomerIds.of([f"k{number:02d}" for number in numbers], "exact")


READERS: dict[str, tuple[str, Callable[[Store, Config], Any]]] = {
    "an engine": ("touchpoints", lambda store, config: LocalEngine(store, 1).map(len)),
    "an engine, attributes": ("attributes", lambda store, config: LocalEngine(store, 1).map(len)),
    "an engine, labels": ("stage_labels", lambda store, config: LocalEngine(store, 1).map(len)),
    "the accounts": ("touchpoints", lambda store, config: usage(store, 0)),
    "the gates": ("touchpoints", lambda store, config: arrivals(store, 1)),
    "the audit": ("touchpoints", lambda store, config: touchpoint_rows(store, 1)),
    "the audit, attributes": ("attributes", lambda store, config: attribute_rows(store, 1)),
    "forget": ("touchpoints", lambda store, config: rows_held(config, store, people_of(range(30)))),
    "forget, refused rows": ("quarantine", lambda store, config: rows_held(config, store, people_of([1]))),
}


@pytest.mark.parametrize("gone", [False, True], ids=["flipped", "gone"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_what_was_not_written(config: Config, reader: str, gone: bool) -> None:
    """Silent error 53; a copy of the store in another process, as workers have one, refuses too."""
    name, read = READERS[reader]
    store = ingest(config)
    read(store, config)
    path = store.folder / ("quarantine.parquet" if name == "quarantine" else f"bucket-0001/{name}.parquet")
    for one in (store, pickle.loads(pickle.dumps(store))):
        with flipped(path, random.Random(3)):
            if gone:
                path.unlink()
            with pytest.raises(StoreError) as caught:
                read(one, config)
        assert str(caught.value).startswith(f"{path}: it is {'missing' if gone else 'not what was written'}")
        assert caught.value.exit_code == 1
        read(one, config)


@pytest.mark.parametrize("name", [MANIFEST, "quarantine.parquet", "bucket-0000/touchpoints.parquet"])
def test_a_damaged_store_is_told_and_made_anew(config: Config, name: str) -> None:
    store, told = ingest(config), list[str]()
    before = everything(store)
    with flipped(store.folder / name, random.Random(5)):
        again = ingest(config, told.append)
        assert everything(again) == before
    (words,) = told
    assert words.startswith(f"the store {store.folder} is damaged and is made anew from the sources: ")
    assert name in words and again.folder == store.folder
    with pytest.warns(UserWarning, match="is damaged and is made anew"):
        (store.folder / name).unlink()
        assert everything(ingest(config)) == before


@pytest.mark.parametrize("name", [MANIFEST, "quarantine.parquet", "bucket-0001/touchpoints.parquet"])
def test_nothing_grows_from_a_damaged_store(config: Config, tmp_path: Path, name: str) -> None:
    """And the damaged one goes, so that it is told once."""
    store, told = ingest(config), list[str]()
    folder, path = store.folder, store.folder / name
    del store  # nobody holds it
    path.write_bytes(path.read_bytes()[:-3] + b"\x00\x00\x00")
    rows(DAYS + pd.Timedelta("200D"), 2).to_parquet(tmp_path / "log-2.parquet")
    grown = ingest(config, told.append)
    assert len(told) == 1 and str(folder) in told[0]
    assert not folder.exists()
    fresh = ingest(config.model_copy(update={"out": str(tmp_path / "fresh")}))
    assert everything(grown) == everything(fresh)
    assert everything(ingest(config, told.append)) == everything(fresh) and len(told) == 1


def test_a_store_of_an_earlier_version_is_left_alone(config: Config, tmp_path: Path) -> None:
    """It has no digests, so nothing is read from it, and nobody is told of damage."""
    store, told = ingest(config), list[str]()
    old = store.folder.with_name("0123456789ab")
    shutil.copytree(store.folder, old)
    document = json.loads((old / MANIFEST).read_text(encoding="utf-8"))
    del document["sha256"]
    (old / MANIFEST).write_text(json.dumps({**document, "format": 4}), encoding="utf-8")
    rows(DAYS + pd.Timedelta("200D"), 2).to_parquet(tmp_path / "log-2.parquet")
    ingest(config, told.append)
    assert told == []


def test_what_store_json_says_is_sealed(config: Config) -> None:
    """The same document in other words is not what was written, either."""
    store = ingest(config)
    path = store.folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    for changed in (text + " ", text.replace("\n ", "\n  ", 1), text.replace('"buckets": 2', '"buckets": 4'), "[]", ""):
        path.write_text(changed, encoding="utf-8")
        with pytest.raises(StoreError):
            read_manifest(store.folder)
    path.write_text(text, encoding="utf-8")
    assert read_manifest(store.folder)["key"] == store.key
