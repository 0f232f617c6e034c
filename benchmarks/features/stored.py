"""The package's nightly way: sources into the store once, then features from its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.features import package
from benchmarks.features.emission import Emission
from cvj_ml.config import Config
from cvj_ml.store import Store, ingest


def ingested(file: Path, out: Path) -> Store:
    """Return the store of a file; an existing one is opened."""
    document = {
        "name": "benchmark",
        "time_zone": "UTC",
        "history_from": "2022-12-31",
        "value_decimals": 0,
        "sources": {"log": {"path": str(file)}},
        "journey": "cvj8",
        "out": str(out),
    }
    return ingest(Config.model_validate(document))


def compute(store: Store, instants: Sequence[int], emission: Emission) -> None:
    """Compute the features block by block."""
    filled = [bucket for bucket, customers in enumerate(store.bucket_customers) if customers]
    package.compute((store.read(bucket) for bucket in filled), instants, emission)
