"""The package as a contender: rows to blocks of whole customers, then the compiled kernel over each block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.features import columns
from benchmarks.features.arrange import COLUMNS, blocks
from benchmarks.features.emission import Emission
from benchmarks.features.inputs import CHANNELS, EVENTS, START
from cvj_ml.features.catalogue import Catalogue, Cells, Feature, Statistic
from cvj_ml.features.compute import run_program
from cvj_ml.features.vocabulary import Vocabulary
from cvj_ml.histories import Block
from cvj_ml.snapshots import eligible
from cvj_ml.windows import NEVER

_BATCH = 1 << 17


def from_file(path: Path, instants: Sequence[int], emission: Emission, features: int | None = None) -> None:
    """Compute the features from a file in any order."""
    file = pq.ParquetFile(path, read_dictionary=["event", "channel"], pre_buffer=False, buffer_size=1 << 16)
    batches = file.iter_batches(_BATCH, columns=COLUMNS, use_threads=False)
    compute(blocks(batches), instants, emission, features)


def compute(parts: Iterable[Block], instants: Sequence[int], emission: Emission, features: int | None = None) -> None:
    """Run the kernel over blocks; ``features`` takes that many columns, evenly spread."""
    catalogue = _catalogue(features)
    program = catalogue.program()
    events, channels = ({name: i for i, name in enumerate(names)} for names in (EVENTS, CHANNELS))
    x = np.empty((0, len(catalogue.features)), dtype=np.float32)
    for block in parts:
        points = block.touchpoints
        snapshots = eligible(points, np.array(instants, dtype=np.int64))
        if len(snapshots) > len(x):
            x = np.empty((len(snapshots), len(catalogue.features)), dtype=np.float32)
        event, channel = points.event.recode(events, len(events)), points.channel.recode(channels, len(channels))
        rows = x[: len(snapshots)]
        if not emission.rows:
            # Loading compiled code is the process's time, not the kernel's.
            nobody = snapshots.take(np.zeros(len(snapshots), dtype=np.bool_))
            run_program(catalogue, program, points, points.value, event, channel, nobody, START, rows[:0])
        began = time.process_time()
        run_program(catalogue, program, points, points.value, event, channel, snapshots, START, rows)
        emission.kernel_seconds += time.process_time() - began
        emission.rows += len(rows)
        if emission.folder:
            emission.save(_table(block, snapshots.customer, snapshots.as_of, rows))


def _table(
    block: Block, customer: npt.NDArray[np.int64], as_of: npt.NDArray[np.int64], x: npt.NDArray[np.float32]
) -> pa.Table:
    named = {name: pa.array(np.ascontiguousarray(x[:, i])) for i, name in enumerate(columns.NAMES)}
    return pa.table({"customer_id": pa.array(block.customers).take(pa.array(customer)), "as_of": as_of, **named})


def _catalogue(features: int | None) -> Catalogue:
    found = list(_features())
    assert [one.name for one in found] == columns.NAMES
    if features is not None:
        found = [found[i * len(found) // features] for i in range(features)]
    windows = tuple(window for window in columns.WINDOWS.values() if window != columns.ALL)
    vocabulary = Vocabulary(EVENTS, CHANNELS)
    return Catalogue(tuple(found), vocabulary, windows, columns.TREND, columns.SESSION_GAP, value_decimals=2)


def _features() -> Iterator[Feature]:
    """Yield the columns of ``columns.NAMES`` as the kernel names them."""
    cells = Cells(len(EVENTS) + 1, len(CHANNELS) + 1)
    cell = {("event", name): i for i, name in enumerate(EVENTS)}
    cell |= {("channel", name): cells.events + i for i, name in enumerate(CHANNELS)}
    cell |= {(name, ""): cells.inbound + i for i, name in enumerate(("touchpoints", "days", "sessions"))}
    gap, value = cells.inbound + 3, cells.inbound + 6
    windows = {name: NEVER if window == columns.ALL else window for name, window in columns.WINDOWS.items()}

    def feature(name: str, statistic: Statistic, cell: int = 0, window: int = NEVER) -> Feature:
        return Feature(name, name, "", (name,), statistic, cell, window)

    for suffix, window in windows.items():
        for kind, name in columns.COUNTED:
            yield feature(f"{kind}_{name}_{suffix}", Statistic.COUNT, cell[kind, name], window)
    for suffix, window in windows.items():
        for statistic in (Statistic.SUM, Statistic.MEAN, Statistic.MAX):
            yield feature(f"value_{statistic.name.lower()}_{suffix}", statistic, value, window)
    for suffix in columns.GAP_WINDOWS:
        yield feature(f"gap_mean_{suffix}", Statistic.GAP_MEAN, gap, windows[suffix])
        yield feature(f"gap_sd_{suffix}", Statistic.GAP_SD, gap, windows[suffix])
    for name in EVENTS:
        yield feature(f"recency_{name}", Statistic.RECENCY, cell["event", name])
    yield feature("recency", Statistic.RECENCY, cells.inbound)
    yield feature("tenure", Statistic.TENURE)
    for kind, name in columns.TRENDS:
        yield feature(f"trend_{kind}_{name}", Statistic.TREND, cell[kind, name], columns.TREND)
    yield feature("last_event", Statistic.LAST_EVENT)
    yield feature("last_channel", Statistic.LAST_CHANNEL)
