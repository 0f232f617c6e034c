"""Which sources still hold customers that have to be forgotten, and removing what earlier readings left behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Set
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.ownership import remove
from cvj_ml.sources.keeping import GUARD
from cvj_ml.sources.refusals import QUARANTINE_FILE
from cvj_ml.sources.store import ATTRIBUTES_FILE, LABELS_FILE, TOUCHPOINTS_FILE, Store, bucket_of

_LEFT_BEHIND = (".audit-*", ".contact-*", ".suppression-*", ".consent-*")
"""Folders of runs that were killed while they read or checked."""


def rows_held(store: Store, customers: Set[str]) -> dict[str, int]:
    """Return how many rows of these customers each source and table still has, refused rows included."""
    held: Counter[str] = Counter()
    for bucket in sorted({bucket_of(customer, store.buckets) for customer in customers}):
        for file in (TOUCHPOINTS_FILE, ATTRIBUTES_FILE, LABELS_FILE):
            if (path := store.bucket_file(bucket, file)) is None:
                continue
            theirs = pc.field("customer_id").isin(sorted(customers))
            if file == TOUCHPOINTS_FILE:
                found = pq.read_table(path, columns=["source"], filters=theirs, partitioning=None)
                held.update(f"sources.{name}" for name in found["source"].to_pylist())
            else:
                found = pq.read_table(path, columns=["customer_id"], filters=theirs, partitioning=None)
                held[Path(file).stem] += len(found)
    for row in pq.read_table(store.checked(QUARANTINE_FILE)).to_pylist():
        if _names(row["row"], customers):
            held[f"{row['source']} (refused rows)"] += 1
    return {name: count for name, count in sorted(held.items()) if count}


def clear_leftovers(out: Path, keep: Store) -> dict[str, int]:
    """Remove all that was read from sources except one store; return how many folders or files went, by kind.

    All of it can be made anew from the sources, so nothing is searched: rows that were refused may hold an id in a
    form that no search finds. Stores go even where somebody still reads them.
    """
    kinds = {
        "stores": [path for path in (out / "store").glob("*") if path.name not in (keep.folder.name, GUARD)],
        "quarantined files": list((out / "quarantine").glob("*")),
        "unfinished blocks": list((out / "work").glob("*")),
        "leftovers of killed runs": [path for pattern in _LEFT_BEHIND for path in out.glob(pattern)],
    }
    for path in (path for paths in kinds.values() for path in paths):
        remove(path, strict=True)
    return {kind: len(paths) for kind, paths in kinds.items()}


def _names(row: str, customers: Set[str]) -> bool:
    """Return whether a refused row, JSON of its columns or a line as it was, has one of the ids in it."""
    try:
        values = json.loads(row)
    except ValueError:
        return any(customer in row for customer in customers)
    return isinstance(values, dict) and not customers.isdisjoint(str(value) for value in values.values())
