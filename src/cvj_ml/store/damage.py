"""Why DuckDB cannot read the rows of files, and the rows that can be read all the same.

Asked only where reading has failed. Text that is not UTF-8, or a time that no calendar has, is a fault of its row;
a page or a compressed block that cannot be unpacked is one of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.errors import DataError
from cvj_ml.store.formats import UNREADABLE_GZIP, is_packed, kind_of_file, open_text
from cvj_ml.store.sql import require_room

_ROWS = 1 << 16
_LARGEST = np.iinfo(np.int64).max
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

REJECTS = pa.schema([("csv_line", pa.string())])
"""Rows that were set aside, as text."""

UNREADABLE_ROWS = (duckdb.InvalidInputException, duckdb.ConversionException)
"""What DuckDB raises for a fault of a single row, besides faults of a file."""


def unreadable(label: str, paths: Sequence[Path], error: Exception, query: bool = False) -> DataError:
    """Return the error to raise where DuckDB failed on rows of files, or of a query over them.

    DuckDB quotes the offending value in its message, so the message is not passed on. Raises where the disk is full.
    """
    require_room(error, label)
    for path in paths:
        if told := _damage(path):
            return DataError(f"{label}: {path} {told}")
    if query:
        return DataError(
            f"{label}: the query fails on its rows ({type(error).__name__}); try it in DuckDB to see the row."
        )
    name = str(paths[0]) if len(paths) == 1 else f"the {len(paths)} files beginning with {paths[0]}"
    return DataError(f"{label}: DuckDB cannot read the rows of {name} ({type(error).__name__}).")


def split_unreadable(path: Path, columns: Sequence[str], good: Path, rejects: Path) -> None:
    """Write the readable rows of a Parquet file, with these columns, and apart those that cannot be read, as JSON."""
    with pq.ParquetFile(path) as file:
        held = [field for field in file.schema_arrow if field.name in set(columns)]
        schema = pa.schema([field.with_type(_dense(field.type)) for field in held])
        with pq.ParquetWriter(good, schema) as kept, pq.ParquetWriter(rejects, REJECTS) as left:
            for encoded in file.iter_batches(_ROWS, columns=schema.names):
                dense = [one.dictionary_decode() if _is_encoded(one.type) else one for one in encoded.columns]
                batch = pa.RecordBatch.from_arrays(dense, schema=schema)
                bad = np.zeros(len(batch), dtype=np.bool_)
                for column in batch.columns:
                    bad |= _unreadable_in(column)
                kept.write_table(pa.Table.from_batches([batch], schema).filter(pa.array(~bad)))
                if bad.any():
                    left.write_table(pa.table([pa.array(_as_text(batch.filter(pa.array(bad))))], schema=REJECTS))


def _unreadable_in(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which values of a column DuckDB would fail on."""
    bad = np.zeros(len(column), dtype=np.bool_)
    if _is_encoded(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            bad[:] = [value is not None and not _is_utf8(value) for value in _bytes_of(column)]
    elif pa.types.is_timestamp(column.type):
        per_second = _PER_SECOND[column.type.unit]
        limit = _LARGEST // max(1, 1_000_000 // per_second)
        units = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        bad = (units > limit) | (units < -limit)
    return bad


def _as_text(batch: pa.RecordBatch) -> Iterator[str]:
    columns = []
    for column in batch.columns:
        if _is_text(column.type):
            columns.append([value and value.decode("utf-8", errors="replace") for value in _bytes_of(column)])
        elif pa.types.is_timestamp(column.type):
            columns.append(column.cast(pa.int64()).to_pylist())
        else:
            columns.append(column.to_pylist())
    for values in zip(*columns, strict=True):
        yield json.dumps(dict(zip(batch.schema.names, values, strict=True)), ensure_ascii=False, default=str)


def _is_encoded(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))


def _dense(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_encoded(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _bytes_of(column: pa.Array) -> list[bytes | None]:
    kind = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    found: list[bytes | None] = column.view(kind[column.type]).to_pylist()
    return found


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _damage(path: Path) -> str | None:
    """Return what is wrong with a file that can be opened; None where it can be read whole."""
    if kind_of_file(path) == "parquet":
        return _parquet_damage(path)
    if is_packed(path):
        try:
            with open_text(path, "latin-1") as text:
                while text.read(1 << 20):
                    pass
        except UNREADABLE_GZIP:
            return "is a gzip file that is cut or damaged; copy it again."
    return None


def _parquet_damage(path: Path) -> str | None:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if not _unreadable_in(column).any():
                        continue
                    if _is_text(_dense(column.type)):
                        return f"holds text in the column {name!r} that is not UTF-8; write it anew as UTF-8."
                    return f"holds times in the column {name!r} that no calendar has; leave those rows out."
    except (pa.ArrowException, OSError, ValueError) as error:
        if "UTF8" in str(error):  # in the words of a dictionary
            return "holds text that is not UTF-8; write it anew as UTF-8."
        return "is damaged: not all of it can be read; copy it again."
    return None
