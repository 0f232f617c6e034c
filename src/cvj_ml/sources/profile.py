"""What the columns of a file look like: enough to guess what each of them means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import duckdb

from cvj_ml.config import Config, TableSpec
from cvj_ml.errors import DataError, raise_all
from cvj_ml.sources.mapping import Field
from cvj_ml.sources.origins import describe, land
from cvj_ml.sources.sql import connect, identifier

Kind = Literal["time", "number", "text", "other"]

NAMES = 200
"""A column of at most so many different texts is taken for names, and its values are counted."""

_DATED = "^\\d{4}-\\d\\d-\\d\\d"


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column: what it holds, in how many rows, and about how many different values.

    ``names`` counts the values of a column of few different texts; ``negative`` are the rows below
    zero. Between ``first`` and ``last``, in the file's own clock, lie all but one in a thousand of the rows of a time.
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


@dataclass(frozen=True, slots=True)
class FileProfile:
    """Files of one kind, read as one table: their paths, rows and columns."""

    paths: tuple[Path, ...]
    rows: int
    columns: tuple[ColumnProfile, ...]

    @property
    def name(self) -> str:
        """How to call the files in a message."""
        return self.paths[0].name + (f" and {len(self.paths) - 1} more like it" if len(self.paths) > 1 else "")

    def column(self, name: str) -> ColumnProfile:
        """Return the column of this name."""
        return next(one for one in self.columns if one.name == name)


def profile_files(paths: Sequence[Path], config: Config, spill: Path) -> list[FileProfile]:
    """Read Parquet and CSV files once and describe their columns; files with the same columns are one table.

    Raises DataError for files that cannot be read, with all of them at once.
    """
    faults: list[str] = []
    alike: dict[tuple[object, ...], list[Path]] = {}
    for path in paths:
        try:
            origin = describe(path.name, TableSpec(path=(str(path),)), config, spill)
        except DataError as error:
            faults.append(str(error))
            continue
        alike.setdefault((path.parent, origin.untyped, *origin.types.items()), []).append(path)
    raise_all(DataError, "These files cannot be read:", faults)
    found = [_profile(tuple(group), config, spill / str(number)) for number, group in enumerate(alike.values())]
    empty = [f"{file.name}: it holds no row; name a file with data" for file in found if not file.rows]
    raise_all(DataError, "These files cannot be used:", empty)
    return found


def count_moments(file: FileProfile, columns: Sequence[str], config: Config, spill: Path) -> int:
    """Return in how many different combinations of these columns the rows of a table stand."""
    origin = describe(file.name, TableSpec(path=tuple(map(str, file.paths))), config, spill)
    with connect(config, spill) as connection:
        relation = land(origin, connection, config, spill / "moments")
        grouped = f"SELECT 1 FROM {relation.sql} GROUP BY {', '.join(map(identifier, columns))}"
        ((moments,),) = connection.execute(f"SELECT count(*) FROM ({grouped})").fetchall()
    return int(moments)


def _profile(paths: tuple[Path, ...], config: Config, spill: Path) -> FileProfile:
    origin = describe(paths[0].name, TableSpec(path=tuple(map(str, paths))), config, spill)
    with connect(config, spill) as connection:
        relation = land(origin, connection, config, spill / "landed")
        try:
            ((rows,),) = connection.execute(f"SELECT count(*) FROM {relation.sql}").fetchall()
            columns = tuple(
                _column(Field(identifier(name), kind, origin.untyped, name), relation.sql, connection)
                for name, kind in origin.types.items()
            )
        except duckdb.Error as error:
            # Its message can quote a value.
            raise DataError(
                f"{paths[0]}: its rows cannot be read ({type(error).__name__}); is the file whole?"
            ) from None
    return FileProfile(paths, rows, columns)


def _column(field: Field, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    family, text = field.family, f"nullif(CAST({field.raw} AS VARCHAR), '')"
    filled, distinct, times, numbers, whole, negative = connection.execute(
        f"SELECT count(text), approx_count_distinct(text),"
        f" count(CASE WHEN regexp_matches(text, '{_DATED}') THEN TRY_CAST(text AS TIMESTAMPTZ) END),"
        f" count(TRY_CAST(text AS DOUBLE)),"
        f" count(CASE WHEN TRY_CAST(text AS DOUBLE) = trunc(TRY_CAST(text AS DOUBLE)) THEN 1 END),"
        f" count(CASE WHEN TRY_CAST(text AS DOUBLE) < 0 THEN 1 END)"
        f" FROM (SELECT {text} AS text FROM {rows})"
    ).fetchall()[0]
    name = str(field.own)
    kind: Kind = "other"
    if family in ("date", "naive", "zoned") or (field.untyped and filled and times == filled):
        kind = "time"
    elif family in ("integer", "float", "decimal") or (field.untyped and filled and numbers == filled):
        kind = "number"
    elif family in ("text", "boolean"):
        kind = "text"
    if kind == "time" and filled:
        moment = f"CAST({text} AS TIMESTAMPTZ)" if field.untyped else f"CAST({field.raw} AS TIMESTAMP)"
        moment = f"CAST({moment} AS TIMESTAMP)"
        ends = f"quantile_disc({moment}, [0.001, 0.999])"
        (((first, last),),) = connection.execute(f"SELECT {ends} FROM {rows}").fetchall()
        return ColumnProfile(name, kind, filled, distinct, first=first, last=last)
    if kind == "text" and distinct <= NAMES:
        counted = connection.execute(
            f"SELECT {text} AS text, count(*) FROM {rows} GROUP BY ALL HAVING text IS NOT NULL ORDER BY 2 DESC, 1"
        ).fetchall()
        return ColumnProfile(name, kind, filled, len(counted), names=dict(counted))
    return ColumnProfile(name, kind, filled, distinct, whole=bool(filled) and whole == filled, negative=negative)
