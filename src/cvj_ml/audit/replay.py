"""The second proof: the sources, read as they stood at a cut-off, must give the same rows and answers as today.

The store as it would have been: rows of the whole store against those of one read before the cut-off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cvj_ml.audit.outputs import Name, OutputDifference, compare_outputs
from cvj_ml.audit.sample import ROWS, AuditScope, Report, Tally
from cvj_ml.config import Config
from cvj_ml.histories import Block, Column, Text
from cvj_ml.ownership import claim, remove, scratch
from cvj_ml.schemas import PROPERTY
from cvj_ml.store import FileTime, Store, Truncation, attribute_rows, ingest, touchpoint_rows
from cvj_ml.windows import NEVER, before


@dataclass(frozen=True, slots=True)
class Replayed:
    """Differences, what could not be vouched for, the cut-offs at which anything was there, and the files' times."""

    tally: Tally
    warnings: tuple[str, ...]
    cut_offs: tuple[int, ...]
    files: tuple[FileTime, ...]


def replay(scope: AuditScope, instants: Sequence[int], progress: Report) -> Replayed:
    """Read the sources as they stood at each cut-off, and compare rows and answers with those of today."""
    tally, read = Tally(), list[int]()
    unrepeatable: set[Name] = set()
    out = Path(scope.config.out)
    claim(out)
    with scratch(out, ".audit-") as folder:
        # Fewer rows would make fewer buckets, and blocks are compared one by one.
        engine = scope.config.engine.model_copy(update={"buckets": scope.sample.store.buckets})
        truncation = Truncation(scope.config.model_copy(update={"engine": engine}), folder)
        for number, cut_off in enumerate(instants):
            stood = _read(truncation, scope.config, cut_off)
            if stood is not None:
                read.append(cut_off)
                tally.add([_against(scope, stood, cut_off)])
                remove(stood.folder.parents[2])
            progress(number + 1, len(instants))
        if tally.different and (again := _read(truncation, scope.config, None)) is not None:
            # The latest cut-off has the most rows in which chance can show.
            unrepeatable = {one for one in _against(scope, again, max(read)).different if one[0] in ROWS}
    if unrepeatable:
        # What is computed from rows that chance chose differs for that reason; rows of other columns still count.
        tally.drop({one for one in tally.different if one[0] not in ROWS} | unrepeatable)
    warnings = [
        f"{label}: the same files give another {kind} when they are read again; order what the query picks from"
        " (any_value, LIMIT, row_number), or the audit cannot vouch for it"
        for kind, label in sorted(unrepeatable)
    ]
    return Replayed(tally, tuple(warnings), tuple(read), truncation.files)


def _read(truncation: Truncation, config: Config, cut_off: int | None) -> Store | None:
    reduced = truncation.before(cut_off)
    return None if reduced is None else ingest(reduced)


def _against(scope: AuditScope, stood: Store, cut_off: int) -> OutputDifference:
    """Compare the rows and the answers of today's store with those of another one."""
    today = scope.sample.store
    different: Counter[Name] = Counter()
    customers = 0
    for bucket in scope.sample.buckets:
        for row in row_differences(today, stood, [bucket], cut_off):
            different[row.kind, row.name] += row.customers
        here, there = today.read(bucket), _aligned(stood.read(bucket), today)
        one = compare_outputs(scope.ask(here, cut_off), scope.ask(there, cut_off))
        customers += one.customers
        different.update(one.different)
    return OutputDifference(customers, different)


def _aligned(block: Block, store: Store) -> Block:
    """Return the block with every property that today's store has; what it has not, or as another kind, is missing."""
    columns: dict[str, Column] = {}
    for name, kind in store.property_kinds.items():
        column = block.touchpoints.properties.get(name)
        if column is None or isinstance(column, Text) != (kind == "string"):
            nothing = np.full(len(block.touchpoints), -1, dtype=np.int32)
            column = Text(nothing, ()) if kind == "string" else np.full(len(nothing), np.nan)
        columns[name] = column
    return replace(block, touchpoints=replace(block.touchpoints, properties=columns))


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


def row_differences(whole: Store, replayed: Store, buckets: Iterable[int], cut_off: int) -> list[RowDifference]:
    """Compare what both stores held before the cut-off, in these buckets, customer by customer.

    Rows of a customer are compared one by one where both stores have equally many from a source, else counted as
    missing. Days are not compared: they follow from the instant.
    """
    found: list[RowDifference] = []
    chosen = list(buckets)
    one, other = (
        _as_it_stood(pa.concat_tables([touchpoint_rows(store, bucket) for bucket in chosen]).to_pandas(), cut_off)
        for store in (whole, replayed)
    )
    sources = sorted({*one["source"].unique(), *other["source"].unique()})
    for source in sources:
        mine, theirs = (frame[frame["source"] == source] for frame in (one, other))
        found += _differences("touchpoint", source, mine.drop(columns="source"), theirs.drop(columns="source"))
    if whole.attribute_kinds:
        mine, theirs = (
            pa.concat_tables([attribute_rows(store, bucket) for bucket in chosen]).to_pandas()
            for store in (whole, replayed)
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
