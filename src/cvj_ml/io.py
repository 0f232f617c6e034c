"""Files as they reach the disk: synced before they get their name; tables read back before anybody relies on them."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.errors import CvjError

if TYPE_CHECKING:
    from jinja2 import Environment

# What a spreadsheet takes for a formula, full-width forms included, and the apostrophe that this guard itself writes.
_STARTS_A_FORMULA = r"^[\s\p{Z}\p{C}]*[=+\-@＝＋－＠']|^[\t\r\n]"

_ROWS = 1 << 16


def html_environment(package: str) -> Environment:
    """Return what fills in a package's templates: data are escaped, and a missing name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # most commands write no page

    return Environment(
        autoescape=True,
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_values(document: Any) -> Any:
    """Return a document as JSON can hold it: what is no number there (NaN, infinity) is null."""
    if isinstance(document, dict):
        return {key: json_values(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [json_values(value) for value in document]
    value = document.item() if hasattr(document, "item") else document
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sorted_json(document: Any) -> str:
    """Return a document as text: the same content gives the same bytes."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_table(folder: Path, name: str, table: pa.Table) -> dict[str, int]:
    """Write a table as Parquet with its raw text, and as CSV; return the rows of each file.

    Both are read back, CSV by the reader that verifies nights; CvjError where anything is not what was written.
    """
    parquet = folder / f"{name}.parquet"
    pq.write_table(table, parquet)
    if not _same(pq.read_table(parquet, partitioning=None), table):
        raise _not_read_back(parquet)
    write_csv(folder / f"{name}.csv", table)
    return {f"{name}.{kind}": len(table) for kind in ("parquet", "csv")}


def write_csv(path: Path, table: pa.Table) -> None:
    """Write a table as CSV that no spreadsheet runs, and read it back; CvjError where a cell is another one then.

    Every text stands in quotation marks, so that no character of it can end its cell or its line; numbers stand bare,
    and what is missing is empty.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(csv_lines(table))
    if not _reads_back(path, table):
        raise _not_read_back(path)


def csv_lines(table: pa.Table) -> Iterator[str]:
    """Yield the lines of a table as CSV that no spreadsheet runs, the heading first."""
    safe = spreadsheet_safe(table)
    yield ",".join(map(_quoted, safe.column_names)) + "\n"
    for rows in _pieces(safe):
        cells = [list(map(_quoted if _is_text(one.type) else str, _words(one))) for one in rows.columns]
        yield from (f"{','.join(line)}\n" for line in zip(*cells, strict=True))


def read_csv(path: Path) -> Iterator[list[str]]:
    """Yield the cells of each line of a CSV file, the heading included; csv.Error where it is none."""
    # Python's own limit of a cell is 131,072 characters; a contact column may hold more.
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.reader(file, strict=True)


def spreadsheet_safe(table: pa.Table) -> pa.Table:
    """Return a table with an apostrophe before every text and heading that a spreadsheet would run as a formula.

    A text that begins with = + - @ or an apostrophe, spaces before it not counted, or with a tab or a line break, gets
    one; taking one leading apostrophe away gives the text back.
    """
    for place, field in enumerate(table.schema):
        if _is_text(field.type):
            table = table.set_column(place, field.name, _guarded(table.column(place).cast(pa.string())))
    return table.rename_columns(_guarded(pa.array(table.column_names, pa.string())).to_pylist())


def _guarded(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    risky = pc.match_substring_regex(texts, _STARTS_A_FORMULA)
    return pc.if_else(risky, pc.binary_join_element_wise("'", texts, ""), texts)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Yield some rows of a table at a time."""
    for start in range(0, len(table), _ROWS):
        yield table.slice(start, _ROWS)


def _words(column: pa.ChunkedArray) -> list[str]:
    """Return the values of a column as text from which each can be had back; what is missing is empty."""
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        return ["" if value is None or math.isnan(value) else repr(value) for value in values]
    return ["" if value is None else str(value) for value in values]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _reads_back(path: Path, table: pa.Table) -> bool:
    """Return whether a CSV file has these rows in this order, cell by cell."""
    try:
        found = read_csv(path)
        if [_unguarded(name) for name in next(found, [])] != table.column_names:
            return False
        for rows in _pieces(table):
            lines = list(islice(found, len(rows)))
            if len(lines) != len(rows) or any(len(line) != table.num_columns for line in lines):
                return False
            for place, column in enumerate(rows.columns):
                cells = [line[place] for line in lines]
                if (list(map(_unguarded, cells)) if _is_text(column.type) else cells) != _words(column):
                    return False
        return next(found, None) is None
    except (csv.Error, UnicodeDecodeError):
        return False


def _unguarded(cell: str) -> str:
    return cell.removeprefix("'")


def _same(one: pa.Table, other: pa.Table) -> bool:
    """Return whether two tables have the same columns and rows; floats are compared bit by bit, so NaN equals NaN."""
    if one.schema != other.schema or len(one) != len(other):
        return False

    def bits(column: pa.ChunkedArray) -> Any:
        whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        return whole.view(pa.int64()) if column.type == pa.float64() else whole

    return all(bits(a).equals(bits(b)) for a, b in zip(one.columns, other.columns, strict=True))


def _not_read_back(path: Path) -> CvjError:
    return CvjError(
        f"{path.name}: what was written does not read back as it was, so it is not published. Run again; if it comes"
        " again, the disk or the memory of this machine is at fault."
    )
