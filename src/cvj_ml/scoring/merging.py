"""All blocks' rows in the order of customer_id, written to Parquet piece by piece.

Memory holds the ids, their order, and one piece of the result: each part is sorted, so the rows that a piece takes
from it stand side by side. Row groups have a fixed size, so the bytes do not depend on how the rows were spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.scoring.parts import read_rows

ROW_GROUP = 100_000
KEY = "customer_id"


def merge(parts: Sequence[Path], files: Mapping[Path, pa.Schema]) -> int:
    """Write the rows of all parts, sorted by customer_id, into Parquet files and return how many there are.

    Each part is an Arrow file that is sorted already, with the key as its first column. Each file gets the columns of
    its schema.
    """
    ids = pa.chunked_array([_keys(path) for path in parts], pa.string())
    order = pc.sort_indices(ids).to_numpy().astype(np.int64)
    begins = np.cumsum([0] + [len(chunk) for chunk in ids.chunks])
    del ids
    last: str | None = None
    with ExitStack() as stack:
        writers = {path: stack.enter_context(_writer(path, schema)) for path, schema in files.items()}
        for start in range(0, len(order), ROW_GROUP):
            piece = _take(parts, begins, order[start : start + ROW_GROUP])
            last = _require_ascending(piece[KEY].combine_chunks(), last)
            for path, writer in writers.items():
                writer.write_table(piece.select(files[path].names), row_group_size=ROW_GROUP)
    return len(order)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Probabilities hardly repeat: a dictionary of them would be made in vain.
    texts = [field.name for field in schema if not pa.types.is_floating(field.type) and field.name != KEY]
    return pq.ParquetWriter(path, schema, use_dictionary=texts)


def _keys(path: Path) -> pa.Array:
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=[0])).read_all()
    return table[KEY].combine_chunks()


def _take(parts: Sequence[Path], begins: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> pa.Table:
    """Return rows by their numbers over all parts; those of one part have to be neighbours in it."""
    part = np.searchsorted(begins, rows, side="right") - 1
    low, high = np.full(len(parts), np.iinfo(np.int64).max), np.full(len(parts), -1)
    np.minimum.at(low, part, rows)
    np.maximum.at(high, part, rows)
    slices, placed, size = [], np.zeros(len(parts), dtype=np.int64), 0
    for i in np.flatnonzero(high >= 0).tolist():
        slices.append(read_rows(parts[i], int(low[i] - begins[i]), int(high[i] - begins[i]) + 1))
        placed[i], size = size - low[i], size + len(slices[-1])
    if size != len(rows):
        raise AssertionError(f"a part is not sorted by {KEY}")
    return pa.concat_tables(slices).combine_chunks().take(pa.array(placed[part] + rows))


def _require_ascending(ids: pa.Array, last: str | None) -> str:
    """Raise AssertionError unless each id is greater than the one before; return the last one."""
    ascending = pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py() is not False
    first = ids[0].as_py()
    if not ascending or (last is not None and last >= first):
        raise AssertionError(f"a {KEY} occurs in two rows")
    return str(ids[-1].as_py())
