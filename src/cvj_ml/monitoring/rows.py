"""The store as it would have been: rows of the whole store against those of one read before the cut-off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from cvj_ml.contracts import PROPERTY
from cvj_ml.sources import Store, attribute_rows, touchpoint_rows
from cvj_ml.windows import NEVER, before

_SHOWN = {"visible_at": "known_at", "superseded_at": "replaced by a newer version"}


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A column (or whole rows) of a source that differs: touchpoints or attribute rows, and their customers.

    ``name`` is ``<source>.<column>``; of whole rows it says on which side they are missing.
    """

    kind: str
    name: str
    rows: int
    customers: int


def row_differences(whole: Store, rebuilt: Store, buckets: Iterable[int], cut_off: int) -> list[RowDifference]:
    """Compare what both stores held before the cut-off, in these buckets, customer by customer.

    Rows of a customer are compared one by one where both stores have equally many from a source, else counted as
    missing. Days are not compared: they follow from the instant.
    """
    found: list[RowDifference] = []
    chosen = list(buckets)
    one, other = (
        _as_it_stood(pa.concat_tables([touchpoint_rows(store, bucket) for bucket in chosen]).to_pandas(), cut_off)
        for store in (whole, rebuilt)
    )
    sources = sorted({*one["source"].unique(), *other["source"].unique()})
    for source in sources:
        mine, theirs = (frame[frame["source"] == source] for frame in (one, other))
        found += _differences("touchpoint", source, mine.drop(columns="source"), theirs.drop(columns="source"))
    if whole.attribute_kinds:
        mine, theirs = (
            pa.concat_tables([attribute_rows(store, bucket) for bucket in chosen]).to_pandas()
            for store in (whole, rebuilt)
        )
        # Attributes of whom nobody had seen yet stand in one store and not in the other, and are used in neither.
        seen = set(one["customer_id"]) & set(other["customer_id"])
        mine, theirs = (_known(frame[frame["customer_id"].isin(seen)], cut_off) for frame in (mine, theirs))
        found += _differences("attribute", "attributes", mine, theirs)
    return found


def _as_it_stood(frame: pd.DataFrame, cut_off: int) -> pd.DataFrame:
    """Return the rows visible before the cut-off, with the versions that were known by then."""
    kept = frame[before(frame["visible_at"].to_numpy(dtype=np.int64), cut_off)].drop(columns="day")
    replaced = kept["superseded_at"].to_numpy(dtype=np.int64)
    return kept.assign(superseded_at=np.where(before(replaced, cut_off), replaced, NEVER))


def _known(frame: pd.DataFrame, cut_off: int) -> pd.DataFrame:
    return frame[before(frame["known_at"].to_numpy(dtype=np.int64), cut_off)]


def _differences(kind: str, label: str, one: pd.DataFrame, other: pd.DataFrame) -> list[RowDifference]:
    found = []
    numbers = pd.DataFrame({"one": one.groupby("customer_id").size(), "other": other.groupby("customer_id").size()})
    gap = (numbers["one"].fillna(0) - numbers["other"].fillna(0)).astype("int64")
    for name, missing in (("read only today", gap.clip(lower=0)), ("no longer there", (-gap).clip(lower=0))):
        if missing.any():
            found.append(RowDifference(kind, f"{label}: rows {name}", int(missing.sum()), int((missing > 0).sum())))
    even = gap.index[gap == 0]
    mine, theirs = (frame[frame["customer_id"].isin(even)].reset_index(drop=True) for frame in (one, other))
    for column in one.columns.intersection(other.columns):
        differs = _differs(mine[column], theirs[column])
        if differs.any():
            name = _SHOWN.get(column, column.removeprefix(PROPERTY))
            customers = int(mine["customer_id"][differs].nunique())
            found.append(RowDifference(kind, f"{label}.{name}", int(differs.sum()), customers))
    return found


def _differs(one: pd.Series, other: pd.Series) -> pd.Series:
    if (one.dtype.kind in "fiu") != (other.dtype.kind in "fiu") and one.notna().any() and other.notna().any():
        return one.notna()  # a number today, text then: no two values are the same
    return ~((one == other) | (one.isna() & other.isna()))
