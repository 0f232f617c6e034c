"""The columns of the store's files as the arrays of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.histories import Column, Text
from cvj_ml.windows import Instants


def load(path: Path, columns: Sequence[str], texts: Sequence[str]) -> pa.Table:
    """Return some columns of a file; texts as the codes that the file holds, which need not be made anew."""
    # Blocks are read by worker threads already; a second layer of threads would only add memory.
    return pq.read_table(
        path, columns=[*texts, *columns], use_threads=False, partitioning=None, read_dictionary=list(texts)
    )


def runs(column: pa.ChunkedArray) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the distinct values of a sorted column and the offsets of their runs."""
    encoded = _encoded(column)
    codes = encoded.indices.to_numpy()
    begins = np.flatnonzero(np.diff(codes, prepend=-1))
    values = encoded.dictionary.take(pa.array(codes[begins]))
    return tuple(values.to_pylist()), np.append(begins, len(codes)).astype(np.int64)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.unify_dictionaries().combine_chunks() if column.num_chunks else pa.array([], column.type)


def numbers(column: pa.ChunkedArray, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Return a column without nulls as an array."""
    return np.ascontiguousarray(column.to_numpy(), dtype=kind)


def instants(column: pa.ChunkedArray, missing: int | None = None) -> Instants:
    """Return instants as microseconds; ``missing`` stands for null."""
    found = column.cast(pa.int64())
    plain: Instants = numbers(found if missing is None else pc.fill_null(found, missing), np.int64)
    return plain


def text(column: pa.ChunkedArray) -> Text:
    """Return codes into the sorted distinct values; -1 is null."""
    encoded = _encoded(column)
    values = encoded.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = np.full(len(values) + 1, -1, dtype=np.int32)
    rank[order] = np.arange(len(values), dtype=np.int32)
    codes = pc.fill_null(encoded.indices.cast(pa.int32()), len(values)).to_numpy(zero_copy_only=False)
    return Text(rank[codes], tuple(values[i] for i in order))


def columns(table: pa.Table, prefix: str, kinds: Mapping[str, str]) -> dict[str, Column]:
    """Return the properties or attributes of a table; a number that is missing is NaN."""
    found: dict[str, Column] = {}
    for name, kind in kinds.items():
        column = table[prefix + name]
        found[name] = text(column) if kind == "string" else numbers(pc.fill_null(column, np.nan), np.float64)
    return found


def offsets(owner_column: pa.ChunkedArray, customers: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return where each customer's rows of a table begin and end."""
    owners, ends = runs(owner_column)
    # Every owner is a customer of the block and both are sorted, so one pass places them.
    position = np.searchsorted(np.array(customers, dtype=object), np.array(owners, dtype=object))
    lengths = np.zeros(len(customers), dtype=np.int64)
    lengths[position] = np.diff(ends)
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
