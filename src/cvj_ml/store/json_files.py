"""JSON as DuckDB reads it: objects by line, in one array or one after the other, with the shape that all of them have.

Nothing is guessed from text: dates and numbers in quotation marks stay text. What is of several kinds, or has too many
keys to be columns, is its JSON as text. Nothing of a file's content is part of a message, except names of keys.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from cvj_ml.config import Config
from cvj_ml.errors import DataError
from cvj_ml.store.formats import is_packed, open_text
from cvj_ml.store.sql import as_named, connect_duckdb, literal

Form = Literal["lines", "array", "objects"]

_LARGEST = 1 << 24
"""Bytes of the largest object that is read."""

_MOST_KEYS, _MOST_COLUMNS = 200, 5_000
"""Keys of an object within a row from which it is kept as its JSON, and keys of all rows that can be columns."""

_DEEPEST = 16
"""Levels of objects within objects that become structures; what is deeper is kept as its JSON."""

# A whole number below and above zero fits no type that Parquet has but this one.
_TYPES = {"JSON": "VARCHAR", "NULL": "VARCHAR", "HUGEINT": "DECIMAL(38,0)"}

_NO_DELIMITER = "\x01\x02\x03\x04"
"""What no line holds, so that each is one column."""

_MOST_OF_IT = 0.5
"""A file of one object, of which a list of objects is a larger share than this, is a wrapper of rows, not a row."""


@dataclass(frozen=True, slots=True)
class JsonLayout:
    """How a JSON file is laid out, and the shape (as ``json_transform`` takes it) of all files of its table."""

    form: Form
    shape: str = ""


def form_of(path: Path) -> Form:
    """Return how the objects of a JSON file stand: one a line, in an array, or one after the other over lines."""
    with open_text(path, "utf-8-sig", errors="replace") as text:
        first = ""
        while not first and (line := text.readline(_LARGEST)):
            first = line.strip("\ufeff \t\r\n")
        second = text.readline(_LARGEST).strip()
    if first.startswith("["):
        return "array"
    return "lines" if _is_object(first) or _is_object(second) else "objects"


def with_shape(label: str, files: Sequence[tuple[str, Path]], config: Config, spill: Path) -> list[JsonLayout]:
    """Return the layout of JSON files of one table, by name and path: every row of every file is looked at.

    Raises DataError where a file is broken, too deep or no table, and where keys could not be told apart as columns.
    """
    layouts = [JsonLayout(form_of(path)) for _, path in files]
    # A connection of its own: where objects are too deep, DuckDB cannot go on.
    with connect_duckdb(config, spill) as connection:
        shapes: list[Any] = []
        for (name, path), layout in zip(files, layouts, strict=True):
            rows = f"SELECT {_object('line')} AS object FROM {_lines(path, layout.form, 'ignore_errors=true')}"
            try:
                shape, number = _shape_of(rows, connection)
                alone = connection.execute(f"SELECT max(object) FROM ({rows})").fetchall()[0][0] if number == 1 else ""
            except (duckdb.OutOfMemoryException, duckdb.InterruptException):
                raise
            except duckdb.Error as error:
                raise DataError(f"{label}: {name} {_damage(error)}") from None
            if not number:
                raise DataError(
                    f"{label}: {name} holds no JSON object, so there are no columns; is the export complete?"
                )
            if alone and (key := _wrapped(json.loads(alone))):
                raise DataError(
                    f"{label}: {name} is one JSON object that holds its rows as a list, under {key!r}. Write them as"
                    f" JSON lines, one object a line: jq -c '.{key}[]' {Path(name).name} > rows.jsonl"
                )
            shapes.append(shape)
    whole = shapes[0]
    for one in shapes[1:]:
        whole = _joined(whole, one)
    named = files[0][0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    shape = json.dumps(_columns(f"{label}: {named}", whole), ensure_ascii=False)
    return [JsonLayout(one.form, shape) for one in layouts]


def _shape_of(rows: str, connection: duckdb.DuckDBPyConnection) -> tuple[Any, int]:
    """Return the shape that all objects have together, and how many there are.

    DuckDB's own aggregate of shapes holds every row in memory; this one holds each different shape once.
    """
    counted = f"SELECT json_structure(object), count(*) FROM ({rows}) WHERE object IS NOT NULL GROUP BY ALL"
    found, number, whole = connection.execute(counted), 0, "NULL"
    while batch := found.fetchmany(1_000):
        for shape, count in batch:
            whole, number = _joined(whole, _opened(json.loads(shape))), number + count
        if isinstance(whole, dict) and len(whole) > _MOST_COLUMNS:
            break  # which is told when the columns are made
    return whole, number


def _opened(shape: Any) -> Any:
    """Return the shape of one object with its empty objects as such, which DuckDB calls JSON like a mixed list's."""
    if isinstance(shape, dict):
        return {key: _opened(one) for key, one in shape.items()}
    return {} if shape == "JSON" else shape


def scan_json(path: Path, layout: JsonLayout, *, lenient: bool) -> str:
    """Return the SELECT that reads a JSON file; leniently without what is no object, else that is an error."""
    if lenient:
        rows = f"SELECT {_object('line')} AS object FROM {_lines(path, layout.form, _LENIENT)}"
        return f"SELECT unnest(json_transform(object, {literal(layout.shape)})) FROM ({rows}) WHERE object IS NOT NULL"
    rows = f"SELECT CAST(line AS JSON) AS object FROM {_lines(path, layout.form, '')}"
    strict = "CASE WHEN json_type(object) = 'OBJECT' THEN object ELSE error('a row is no JSON object') END"
    return f"SELECT unnest(json_transform({strict}, {literal(layout.shape)})) FROM ({rows})"


def broken_lines(path: Path, layout: JsonLayout) -> str:
    """Return the SELECT of what ``scan_json`` leaves out, but for lines that are no text: as ``csv_line``."""
    lines = _lines(path, layout.form, "ignore_errors=true")
    return f"SELECT line AS csv_line FROM {lines} WHERE {_object('line')} IS NULL"


_LENIENT = "ignore_errors=true, store_rejects=true, rejects_limit=0"


def require_small_lines(label: str, name: str, connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse a file with a line that is larger than what can be read, after a lenient scan of it."""
    over = "SELECT min(line) FROM reject_errors WHERE error_type = 'LINE SIZE OVER MAXIMUM'"
    ((line,),) = connection.execute(over).fetchall()
    if line is not None:
        raise DataError(f"{label}: {name}, line {line}: {_too_large()}")


def _lines(path: Path, form: Form, options: str) -> str:
    """Return SQL of the texts of objects, as ``line``; blank lines are none."""
    compression = f"compression='{'gzip' if is_packed(path) else 'none'}'"
    if form != "lines":
        how = f"format='{'array' if form == 'array' else 'unstructured'}', maximum_object_size={_LARGEST}"
        return f"(SELECT CAST(json AS VARCHAR) AS line FROM read_json_objects({as_named(path)}, {how}, {compression}))"
    settings = [
        f"delim='{_NO_DELIMITER}', columns={{'line': 'VARCHAR'}}, auto_detect=false, header=false, quote='', escape=''",
        f"comment='', strict_mode=false, hive_partitioning=false, max_line_size={_LARGEST}, buffer_size={2 * _LARGEST}",
        compression,
        *([options] if options else []),
    ]
    blank = r"regexp_full_match(line, '\s*')"
    return f"(SELECT line FROM read_csv({as_named(path)}, {', '.join(settings)}) WHERE NOT {blank})"


def _object(line: str) -> str:
    """Return SQL of a line as JSON, null where it is no object."""
    return rf"CASE WHEN regexp_matches({line}, '^\s*\{{') THEN TRY_CAST({line} AS JSON) END"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _damage(error: duckdb.Error) -> str:
    """Return what is wrong with a file, and where; DuckDB's own message could quote a value."""
    said = str(error)
    if "recursion depth" in said:
        return "has objects within objects or lists more than 128 levels deep; leave out what is that deep."
    if "maximum_object_size" in said or "Maximum object size" in said:
        return _too_large()
    at = re.search(r"at byte (\d+) in record/value (\d+): ([a-zA-Z -]+)", said)
    where = f", in its value {int(at[2]):,}, {int(at[1]):,} bytes into the part that was read ({at[3]})" if at else ""
    return f"is JSON that is broken or cut{where}; is the export complete?"


def _too_large() -> str:
    return (
        f'has an object of more than {_LARGEST >> 20} MB. If that holds the rows as a list, as in {{"data": […]}},'
        " write them as JSON lines: jq -c '.data[]' FILE > rows.jsonl"
    )


def _wrapped(value: Any) -> str | None:
    """Return the key under which a single object holds a list of objects, or of lists, that is most of it."""
    if not isinstance(value, dict):
        return None
    for key, rows in value.items():
        listed = isinstance(rows, list) and len(rows) > 1 and all(isinstance(one, dict | list) for one in rows)
        if listed and len(json.dumps(rows)) > _MOST_OF_IT * len(json.dumps(value)):
            return str(key)
    return None


def _joined(one: Any, other: Any) -> Any:
    """Return the shape of what has either: what is of two kinds is JSON."""
    if one == other or other == "NULL":
        return one
    if one == "NULL":
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _joined(one.get(key, "NULL"), other.get(key, "NULL")) for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return [_joined(one[0], other[0])]
    numbers = ("UBIGINT", "BIGINT", "HUGEINT", "DOUBLE")
    if isinstance(one, str) and isinstance(other, str) and one in numbers and other in numbers:
        return "DOUBLE" if "DOUBLE" in (one, other) else "HUGEINT"
    return "JSON"


def _columns(where: str, shape: Any) -> dict[str, Any]:
    """Return the shape of rows as columns; what has no name is none."""
    columns = {key: _typed(one) for key, one in shape.items() if key} if isinstance(shape, dict) else {}
    if not columns:
        raise DataError(f"{where}: its JSON objects have no keys, so there are no columns; is the export complete?")
    if len(columns) > _MOST_COLUMNS:
        raise DataError(
            f"{where}: its JSON objects have {len(columns):,} different keys, more than the {_MOST_COLUMNS:,} that can"
            " be columns; put what is keyed by an id or a date into one object within each row."
        )
    lower = Counter(key.lower() for key in columns)
    if twice := sorted(key for key in columns if lower[key.lower()] > 1):
        raise DataError(
            f"{where}: its JSON objects have the keys {' and '.join(map(repr, twice[:2]))} (upper and lower case are"
            " one); rename one."
        )
    return columns


def _typed(shape: Any, depth: int = 1) -> Any:
    if isinstance(shape, str):
        return _TYPES.get(shape, shape)
    if depth > _DEEPEST:
        return "VARCHAR"
    if isinstance(shape, list):
        return [_typed(shape[0], depth + 1)]
    apart = len({key.lower() for key in shape}) == len(shape) and "" not in shape
    if not shape or len(shape) > _MOST_KEYS or not apart:
        return "VARCHAR"
    return {key: _typed(one, depth + 1) for key, one in shape.items()}
