"""A table on disk that may be larger than memory: read by column and by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table whose columns and rows are read when they are asked for; rows keep their order."""

    source: ds.Dataset

    @classmethod
    def at(cls, file: Path) -> StoredTable:
        """Return the table of a Parquet file."""
        return cls(ds.dataset(file, format="parquet"))

    @classmethod
    def of(cls, table: pa.Table) -> StoredTable:
        """Return a table that is in memory already."""
        return cls(ds.dataset(table))

    def __len__(self) -> int:
        return int(self.source.count_rows())

    @property
    def column_names(self) -> list[str]:
        """The names of all columns, in order."""
        return list(self.source.schema.names)

    def first(self, column: str) -> object:
        """Return a column's value in the first row."""
        return self.source.head(1, columns=[column])[column][0].as_py()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Return some columns of all rows, piece by piece."""
        # One piece ahead is enough, and more would be memory.
        yield from self.source.to_batches(
            columns=list(columns), use_threads=False, batch_readahead=1, fragment_readahead=1
        )

    def read(self, columns: Sequence[str] | None = None, rows: npt.NDArray[np.bool_] | None = None) -> pa.Table:
        """Return some columns (default: all) of the rows that a mask marks (default: all)."""
        names = self.column_names if columns is None else list(columns)
        schema = pa.schema([self.source.schema.field(name) for name in names])
        parts, begin = [], 0
        for batch in self.batches(names):
            marked = None if rows is None else rows[begin : begin + len(batch)]
            begin += len(batch)
            parts.append(batch if marked is None else batch.filter(pa.array(marked)))
        return pa.Table.from_batches(parts, schema).combine_chunks()
