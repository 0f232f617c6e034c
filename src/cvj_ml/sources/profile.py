"""What the columns of a file look like: enough to guess what each of them means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np

from cvj_ml.config import EPOCHS, Config, DecimalMark, Encoding, TableSpec
from cvj_ml.errors import DataError, raise_all
from cvj_ml.sources.formats import UNREADABLE_GZIP, encoding_of, is_text
from cvj_ml.sources.mapping import Field, formatted_instant, instant_of, origin_field, plain_number
from cvj_ml.sources.origins import Relation, describe, land, read_rows
from cvj_ml.sources.sql import connect, identifier

Kind = Literal["time", "number", "text", "other"]

NAMES = 200
"""A column of at most so many different texts is taken for names, and its values are counted."""

_DATED = "^\\d{4}-\\d\\d-\\d\\d"

_DATES = (
    "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y",
    "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S")
_FORMATS = tuple(date + clock for date in _DATES for clock in _CLOCKS)
"""Ways to write a time other than ISO 8601 that are looked for; where several fit, the first."""

_MARKS: tuple[DecimalMark | None, ...] = (None, ",", ".")

_SAMPLE = 500
"""Values by which formats are sorted out before all rows are asked."""

_TIMES = {"time", "timestamp", "ts", "date", "datetime", "day", "at", "on", "when", "epoch", "unix", "created"}
"""Words in the names of columns whose whole numbers can be times."""

_SINCE, _COUNTED_SINCE, _UNTIL = (
    int(np.datetime64(day, "us").astype(np.int64)) for day in ("1900-01-01", "1990-01-01", "2100-01-01")
)
"""What a format reads is taken for a time from the first on, a mere number from the second, both until the last."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column: what it holds, in how many rows, and about how many different values.

    ``names`` counts the values of a column of few different texts; ``negative`` are the rows below
    zero. Between ``first`` and ``last``, in the file's own clock, lie all but one in a thousand of the rows of a time.
    ``time_format`` and ``decimal_mark`` are what the configuration has to say of text that is a time, or a number;
    ``or_format`` fits all rows as well. ``pointed`` are whole numbers that text writes as ``12.0``.
    """

    name: str
    kind: Kind
    filled: int
    distinct: int
    whole: bool = False
    negative: int = 0
    names: Mapping[str, int] | None = None
    first: datetime | None = None
    last: datetime | None = None
    time_format: str | None = None
    or_format: str | None = None
    decimal_mark: DecimalMark | None = None
    pointed: bool = False


@dataclass(frozen=True, slots=True)
class FileProfile:
    """Files of one kind, read as one table: their paths, encoding, rows and columns."""

    paths: tuple[Path, ...]
    encoding: Encoding
    rows: int
    columns: tuple[ColumnProfile, ...]

    @property
    def name(self) -> str:
        """How to call the files in a message."""
        return self.paths[0].name + (f" and {len(self.paths) - 1} more like it" if len(self.paths) > 1 else "")

    @property
    def is_text(self) -> bool:
        """Whether every column is text, as in CSV files."""
        return is_text(self.paths[0])

    def column(self, name: str) -> ColumnProfile:
        """Return the column of this name."""
        return next(one for one in self.columns if one.name == name)

    def format_of(self, name: str | None) -> str | None:
        """Return the ``time_format`` of a column; None where it needs none or there is no such column."""
        return self.column(name).time_format if name is not None else None


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: ``InvoiceDate`` and ``invoice_date`` are ``invoice date``."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return tuple(re.findall(r"[a-z]+|\d+", parted.lower()))


def profile_files(paths: Sequence[Path], config: Config, spill: Path) -> list[FileProfile]:
    """Read Parquet and CSV files once and describe their columns; files with the same columns are one table.

    Raises DataError for files that cannot be read, with all of them at once.
    """
    faults: list[str] = []
    alike: dict[tuple[object, ...], tuple[Encoding, list[Path]]] = {}
    for path in paths:
        try:
            encoding = _encoding(path)
            origin = describe(path.name, TableSpec(path=(str(path),), encoding=encoding), config, spill)
        except DataError as error:
            faults.append(str(error))
            continue
        kind = (path.parent, origin.untyped, encoding, *origin.types.items())
        alike.setdefault(kind, (encoding, []))[1].append(path)
    raise_all(DataError, "These files cannot be read:", faults)
    found = [
        _profile(tuple(group), encoding, config, spill / str(number))
        for number, (encoding, group) in enumerate(alike.values())
    ]
    empty = [f"{file.name}: it holds no row; name a file with data" for file in found if not file.rows]
    raise_all(DataError, "These files cannot be used:", empty)
    return found


def count_moments(file: FileProfile, columns: Sequence[str], config: Config, spill: Path) -> int:
    """Return in how many different combinations of these columns the rows of a table stand."""
    spec = TableSpec(path=tuple(map(str, file.paths)), encoding=file.encoding)
    origin = describe(file.name, spec, config, spill)
    with connect(config, spill) as connection:
        relation = land(origin, connection, config, spill / "moments")
        grouped = f"SELECT 1 FROM {relation.sql} GROUP BY {', '.join(map(identifier, columns))}"
        ((moments,),) = connection.execute(f"SELECT count(*) FROM ({grouped})").fetchall()
    return int(moments)


def _encoding(path: Path) -> Encoding:
    """Return how the text of a file is encoded; it need not be a file that can be read."""
    if not path.is_file():
        return "utf-8"
    try:
        return encoding_of(path) if is_text(path) else "utf-8"
    except (OSError, *UNREADABLE_GZIP):
        return "utf-8"


def _profile(paths: tuple[Path, ...], encoding: Encoding, config: Config, spill: Path) -> FileProfile:
    origin = describe(paths[0].name, TableSpec(path=tuple(map(str, paths)), encoding=encoding), config, spill)
    with connect(config, spill) as connection:

        def read(relation: Relation) -> tuple[int, tuple[ColumnProfile, ...]]:
            ((rows,),) = connection.execute(f"SELECT count(*) FROM {relation.sql}").fetchall()
            columns = (_column(origin_field(origin, name), relation.sql, connection) for name in origin.types)
            return rows, tuple(columns)

        relation = land(origin, connection, config, spill / "landed")
        rows, columns = read_rows(origin, relation, [*origin.types], spill / "apart", read)
    return FileProfile(paths, encoding, rows, columns)


def _column(field: Field, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    family, text = field.family, f"nullif({field.text}, '')"
    filled, distinct, times = connection.execute(
        f"SELECT count(text), approx_count_distinct(text),"
        f" count(CASE WHEN regexp_matches(text, '{_DATED}') THEN TRY_CAST(text AS TIMESTAMPTZ) END)"
        f" FROM (SELECT {text} AS text FROM {rows})"
    ).fetchall()[0]
    name = str(field.own)
    written = family == "text" and filled and times == filled
    if family in ("date", "naive", "zoned") or written:
        moment = (
            f"CAST(CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)" if written else f"make_timestamp({instant_of(field)})"
        )
        return _time(ColumnProfile(name, "time", filled, distinct), moment, rows, connection)
    if filled and family in ("text", "integer", "float", "decimal"):
        formats = _formats(name, text, rows, connection)
        if formats:
            found = ColumnProfile(name, "time", filled, distinct, time_format=formats[0], or_format=formats[1])
            return _time(found, f"make_timestamp({formatted_instant(text, formats[0])})", rows, connection)
    for mark in _MARKS if field.untyped else (None,):
        number = f"TRY_CAST({plain_number('text', mark)} AS DOUBLE)"
        numbers, whole, negative, pointed = connection.execute(
            f"SELECT count({number}), count(CASE WHEN {number} = trunc({number}) THEN 1 END),"
            f" count(CASE WHEN {number} < 0 THEN 1 END), count(CASE WHEN text LIKE '%.0' THEN 1 END)"
            f" FROM (SELECT {text} AS text FROM {rows})"
        ).fetchall()[0]
        if family in ("integer", "float", "decimal") or (field.untyped and filled and numbers == filled):
            return ColumnProfile(
                name,
                "number",
                filled,
                distinct,
                whole=bool(filled) and whole == filled,
                negative=negative,
                decimal_mark=mark,
                pointed=field.untyped and bool(filled) and pointed == filled,
            )
    kind: Kind = "text" if family in ("text", "boolean") else "other"
    if kind == "text" and distinct <= NAMES:
        counted = connection.execute(
            f"SELECT {text} AS text, count(*) FROM {rows} GROUP BY ALL HAVING text IS NOT NULL ORDER BY 2 DESC, 1"
        ).fetchall()
        return ColumnProfile(name, kind, filled, len(counted), names=dict(counted))
    return ColumnProfile(name, kind, filled, distinct)


def _time(found: ColumnProfile, moment: str, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    if not found.filled:
        return found
    ends = f"quantile_disc({moment}, [0.001, 0.999])"
    (((first, last),),) = connection.execute(f"SELECT {ends} FROM {rows}").fetchall()
    return replace(found, first=first, last=last)


def _formats(name: str, text: str, rows: str, connection: duckdb.DuckDBPyConnection) -> tuple[str, str | None] | None:
    """Return the format by which every value of a column is a time, and another one that fits as well."""
    values = f"SELECT {text} AS text FROM {rows} WHERE {text} IS NOT NULL"
    sample = f"{values} LIMIT {_SAMPLE}"
    ((numeric,),) = connection.execute(
        f"SELECT bool_and(TRY_CAST(text AS DOUBLE) IS NOT NULL) FROM ({sample})"
    ).fetchall()
    if numeric and not set(words(name)) & _TIMES:
        return None  # an id or an amount can lie anywhere
    candidates = (*EPOCHS, "%Y%m%d", "%Y%m%d%H%M%S") if numeric else _FORMATS
    for relation in (sample, values):
        fits = ", ".join(
            f"bool_and(coalesce({formatted_instant('text', one)}"
            f" BETWEEN {_COUNTED_SINCE if one in EPOCHS else _SINCE} AND {_UNTIL}, FALSE))"
            for one in candidates
        )
        (found,) = connection.execute(f"SELECT {fits} FROM ({relation})").fetchall()
        candidates = tuple(one for one, fit in zip(candidates, found, strict=True) if fit)
        if not candidates:
            return None
    return candidates[0], candidates[1] if len(candidates) > 1 else None
