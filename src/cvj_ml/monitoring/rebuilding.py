"""The second proof: the sources, read as they stood at a cut-off, must give the same rows and answers as today."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cvj_ml.config import Config
from cvj_ml.histories import Block, Column, Text
from cvj_ml.monitoring.answers import Comparison, Name, compare
from cvj_ml.monitoring.rows import row_differences
from cvj_ml.monitoring.sampling import Report
from cvj_ml.monitoring.subject import ROWS, Subject, Tally
from cvj_ml.ownership import claim, remove, scratch
from cvj_ml.sources import FileTime, Store, Truncation, ingest


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Differences, what could not be vouched for, the cut-offs at which anything was there, and the files' times."""

    tally: Tally
    warnings: tuple[str, ...]
    cut_offs: tuple[int, ...]
    files: tuple[FileTime, ...]


def rebuild(subject: Subject, instants: Sequence[int], progress: Report) -> Rebuilt:
    """Read the sources as they stood at each cut-off, and compare rows and answers with those of today."""
    tally, read = Tally(), list[int]()
    unrepeatable: set[Name] = set()
    out = Path(subject.config.out)
    claim(out)
    with scratch(out, ".audit-") as folder:
        # Fewer rows would make fewer buckets, and blocks are compared one by one.
        engine = subject.config.engine.model_copy(update={"buckets": subject.sample.store.buckets})
        truncation = Truncation(subject.config.model_copy(update={"engine": engine}), folder)
        for number, cut_off in enumerate(instants):
            stood = _read(truncation, subject.config, cut_off)
            if stood is not None:
                read.append(cut_off)
                tally.add([_against(subject, stood, cut_off)])
                remove(stood.folder.parents[2])
            progress(number + 1, len(instants))
        if tally.different and (again := _read(truncation, subject.config, None)) is not None:
            # The latest cut-off has the most rows in which chance can show.
            unrepeatable = {one for one in _against(subject, again, max(read)).different if one[0] in ROWS}
    if unrepeatable:
        # What is computed from rows that chance chose differs for that reason; rows of other columns still count.
        tally.drop({one for one in tally.different if one[0] not in ROWS} | unrepeatable)
    warnings = [
        f"{label}: the same files give another {kind} when they are read again; order what the query picks from"
        " (any_value, LIMIT, row_number), or the audit cannot vouch for it"
        for kind, label in sorted(unrepeatable)
    ]
    return Rebuilt(tally, tuple(warnings), tuple(read), truncation.files)


def _read(truncation: Truncation, config: Config, cut_off: int | None) -> Store | None:
    reduced = truncation.before(cut_off)
    return None if reduced is None else ingest(reduced)


def _against(subject: Subject, stood: Store, cut_off: int) -> Comparison:
    """Compare the rows and the answers of today's store with those of another one."""
    today = subject.sample.store
    different: Counter[Name] = Counter()
    customers = 0
    for bucket in subject.sample.buckets:
        for row in row_differences(today, stood, [bucket], cut_off):
            different[row.kind, row.name] += row.customers
        here, there = today.read(bucket), _aligned(stood.read(bucket), today)
        one = compare(subject.ask(here, cut_off), subject.ask(there, cut_off))
        customers += one.customers
        different.update(one.different)
    return Comparison(customers, different)


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
