"""Files as tables to ask about, before there is a configuration: their columns, and how their rows hang together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from cvj_ml.config import Config, Encoding, TableSpec
from cvj_ml.errors import DataError, raise_all
from cvj_ml.setup.column_profile import profile_columns, tally
from cvj_ml.setup.columns import ColumnProfile
from cvj_ml.setup.times import timed
from cvj_ml.store.fields import Field, location_field
from cvj_ml.store.formats import UNREADABLE_GZIP, encoding_of, is_text
from cvj_ml.store.nesting import Nested, find_nested
from cvj_ml.store.source_location import Relation, SourceLocation, land, locate, read_rows
from cvj_ml.store.sql import connect_duckdb, identifier, literal

_HELD = 2_000_000
"""Tables of at most so many rows are held in memory for all questions; larger ones are read anew for each."""

_FILE = '"__file"'

_KEYED = re.compile(r"([^\W\d]\w*)=(.+)")
"""The name of a folder that says something of the rows in it, as Hive and Spark write them."""


@dataclass(frozen=True, slots=True)
class FileProfile:
    """Files of one kind, read as one table: their paths, encoding, rows (and lines that are none) and columns."""

    paths: tuple[Path, ...]
    encoding: Encoding
    rows: int
    columns: tuple[ColumnProfile, ...]
    unreadable: int = 0
    is_text: bool = False
    """Whether every column is text, as in CSV files."""
    folders: tuple[tuple[str, str], ...] = ()
    """What the names of the files' folders say of every row (``event_type=Open``): a name and a value."""

    @property
    def name(self) -> str:
        """How to call the files in a message."""
        folder = "".join(f"{key}={value}/" for key, value in self.folders)
        return folder + self.paths[0].name + (f" and {len(self.paths) - 1} more like it" if len(self.paths) > 1 else "")

    def column(self, name: str) -> ColumnProfile:
        """Return the column of this name."""
        return next(one for one in self.columns if one.name == name)


@dataclass(frozen=True)
class Table:
    """A profiled table that answers questions about its rows; every count is exact."""

    file: FileProfile
    sql: str
    fields: Mapping[str, Field]
    nested: Nested
    connection: duckdb.DuckDBPyConnection
    location: SourceLocation
    formats: Mapping[str, str] = field(default_factory=dict)
    """How times of a column are written, where a person told."""

    def with_format(self, column: str, time_format: str) -> Table:
        """Return the table with a column read as times in a format that a person told."""
        told = timed(self.file.column(column), self.fields[column], time_format, self.sql, self.connection)
        columns = tuple(told if one.name == column else one for one in self.file.columns)
        formats = {**self.formats, column: time_format}
        return replace(self, file=replace(self.file, columns=columns), formats=formats)

    def ask(self, select: str, where: str = "TRUE") -> tuple[Any, ...]:
        """Return one row of aggregates over the rows."""
        return tuple(self.connection.execute(f"SELECT {select} FROM {self.sql} WHERE {where}").fetchall()[0])

    def text(self, column: str) -> str:
        """Return SQL for a column as text; the empty text, and what means nobody, is null."""
        text = f"nullif({self.fields[column].text}, '')"
        nobody = self.file.column(column).placeholders or {}
        return f"CASE WHEN {text} NOT IN ({', '.join(map(literal, nobody))}) THEN {text} END" if nobody else text

    def tally(self, column: str) -> dict[str, int]:
        """Return the values of a column with their rows, however many they are."""
        found = self.file.column(column).names
        return dict(found) if found is not None else tally(self.text(column), self.sql, self.connection)

    def values(self, column: str) -> dict[str, int]:
        """Return the values of a column of few of them with their rows, 0 and whatever else can mean nobody, too."""
        found = self.file.column(column).names
        text = f"nullif({self.fields[column].text}, '')"
        return dict(found) if found is not None else tally(text, self.sql, self.connection)

    def distinct(self, *columns: str, where: str = "TRUE") -> int:
        """Return in how many different combinations of these columns the rows stand."""
        listed = ", ".join(self.text(one) for one in columns)
        return int(
            self.connection.execute(
                f"SELECT count(*) FROM (SELECT DISTINCT {listed} FROM {self.sql} WHERE {where})"
            ).fetchall()[0][0]
        )

    def within(self, key: Sequence[str], column: str) -> tuple[int, int, int]:
        """Return of how many groups of several rows there are, in how many a column is one value throughout, or once.

        The last counts groups in which one row alone has a value.
        """
        keys, text = ", ".join(self.text(one) for one in key), self.text(column)
        known = " AND ".join(f"{self.text(one)} IS NOT NULL" for one in key)
        several, same, once = self.connection.execute(
            f"SELECT count(*), count(*) FILTER (WHERE filled = n AND kinds = 1), count(*) FILTER (WHERE filled <= 1)"
            f" FROM (SELECT count(*) AS n, count({text}) AS filled, count(DISTINCT {text}) AS kinds"
            f" FROM {self.sql} WHERE {known} GROUP BY {keys} HAVING count(*) > 1)"
        ).fetchall()[0]
        return int(several), int(same), int(once)

    def beside_numbers(self, column: str) -> dict[str, int]:
        """Return what stands beside the digits of a text column, such as a currency sign, with its rows."""
        beside = rf"upper(regexp_replace({self.text(column)}, '[\d\s.,''+()\x{{A0}}\x{{202F}}\x{{2212}}-]', '', 'g'))"
        counted = (
            f"SELECT {beside} AS beside, count(*) FROM {self.sql} GROUP BY 1 HAVING beside <> '' ORDER BY 2 DESC, 1"
        )
        return dict(self.connection.execute(counted).fetchall())

    @cached_property
    def repeats(self) -> tuple[int, int]:
        """Return how many rows repeat another one exactly, and how many rows stand in several files at once."""
        columns = ", ".join(identifier(one.name) for one in self.file.columns)
        within, across = self.connection.execute(
            f"SELECT coalesce(sum(n - files), 0), coalesce(sum(files - 1), 0)"
            f" FROM (SELECT count(*) AS n, count(DISTINCT {_FILE}) AS files FROM {self.sql} GROUP BY {columns})"
        ).fetchall()[0]
        return int(within), int(across)

    def in_common(self, own: str, other: Table, theirs: str) -> int:
        """Return how many different values a column shares with one of another table."""
        rows = (
            f"SELECT {self.text(own)} FROM {self.sql} WHERE {self.text(own)} IS NOT NULL"
            f" INTERSECT SELECT {other.text(theirs)} FROM {other.sql}"
        )
        return int(self.connection.execute(f"SELECT count(*) FROM ({rows})").fetchall()[0][0])

    def read_by(self, query: str, name: str, faults: Sequence[str]) -> list[int]:
        """Return how many rows a query over this table has, and how many have each fault (SQL) and none before it."""
        cases = " ".join(f"WHEN {fault} THEN {number}" for number, fault in enumerate(faults))
        counts = "".join(f", count(*) FILTER (WHERE fault = {number})" for number in range(len(faults)))
        counted = self.connection.execute(
            f"WITH {identifier(name)} AS (SELECT * EXCLUDE ({_FILE}) FROM {self.sql})"
            f" SELECT count(*){counts} FROM (SELECT CASE {cases} END AS fault FROM ({query}))"
        ).fetchall()[0]
        return [int(number) for number in counted]

    def part(self, paths: Sequence[Path]) -> Table:
        """Return the rows of some of the files alone."""
        chosen = ", ".join(str(self.file.paths.index(path)) for path in paths)
        sql = f"(SELECT * FROM {self.sql} WHERE {_FILE} IN ({chosen}))"
        file = replace(self.file, paths=tuple(paths))
        part = _profiled(file, sql, self.fields, self.nested, self.connection, self.location)
        for column, time_format in self.formats.items():
            part = part.with_format(column, time_format)
        return part


@contextlib.contextmanager
def open_tables(
    paths: Sequence[Path], config: Config, spill: Path, sort_of: Callable[[SourceLocation], Hashable] | None = None
) -> Iterator[list[Table]]:
    """Read files once, as tables to ask about; files of one folder with the same columns are one.

    Folders that differ by a day in their names (``date=2024-01-31``) are one, those that differ by anything else
    (``event_type=Open``) several. Files of which ``sort_of`` says the same are one, whichever of their columns they
    happen to have. Raises DataError for files that cannot be read, with all of them at once.
    """
    faults: list[str] = []
    alike: dict[tuple[object, ...], tuple[Encoding, list[Path], tuple[tuple[str, str], ...]]] = {}
    for path in dict.fromkeys(path.absolute() for path in paths):
        try:
            encoding = _encoding(path)
            location = locate(path.name, TableSpec(path=(str(path),), encoding=encoding), config, spill)
        except DataError as error:
            faults.append(str(error))
            continue
        sort = sort_of(location) if sort_of else None
        # Only Parquet has types of its own, which several files have to share.
        columns = location.types if sort is None or location.plain[""][0].kind == "parquet" else {}
        folder, said = _folders(path, location.types)
        # Columns are read by their names, so that their order in a file is none of its kind.
        kind = (folder, said, location.untyped, encoding, sort, *sorted(columns.items()))
        alike.setdefault(kind, (encoding, [], said))[1].append(path)
    raise_all(DataError, "These files cannot be read:", faults)
    with connect_duckdb(config, spill) as connection:
        found = [
            _table(tuple(group), said, encoding, config, spill / str(number), f"t{number}", connection)
            for number, (encoding, group, said) in enumerate(alike.values())
        ]
        empty = [f"{one.file.name}: it holds no row; name a file with data" for one in found if not one.file.rows]
        raise_all(DataError, "These files cannot be used:", empty)
        yield found


def _folders(path: Path, columns: Container[str]) -> tuple[Path, tuple[tuple[str, str], ...]]:
    """Return the folder above those that are named ``key=value``, and what these say that is no day and no column."""
    parts = path.parent.parts
    place = next((number for number, part in enumerate(parts) if _KEYED.fullmatch(part)), len(parts))
    pairs = [found.groups() for part in parts[place:] if (found := _KEYED.fullmatch(part))]
    said = tuple((key, value) for key, value in pairs if key not in columns and re.search(r"[^\W\d_]", value))
    return Path(*parts[:place]), said


def _table(
    paths: tuple[Path, ...],
    folders: tuple[tuple[str, str], ...],
    encoding: Encoding,
    config: Config,
    spill: Path,
    name: str,
    connection: duckdb.DuckDBPyConnection,
) -> Table:
    def read(rows: Relation) -> Relation:
        # Every column is read once, so that a row that cannot be is found here.
        connection.execute(f"SELECT count(COLUMNS(*)) FROM {rows.sql}").fetchall()
        return rows

    parts, unreadable = [], 0
    spec = TableSpec(path=tuple(map(str, paths)), encoding=encoding)
    whole = locate(paths[0].name, spec, config, spill)
    for number, path in enumerate(paths):
        location = replace(whole, files={"": (path,)})
        relation = land(location, connection, config, spill / f"landed-{number}")
        relation = read_rows(location, relation, list(location.types), spill / f"apart-{number}", read)
        parts.append(f"SELECT *, {number} AS {_FILE} FROM {relation.sql}")
        unreadable += relation.unreadable
    try:
        connection.execute(f"CREATE TEMP VIEW {name} AS {' UNION ALL BY NAME '.join(parts)}")
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        nested = find_nested(whole, f"(SELECT * EXCLUDE ({_FILE}) FROM {name})", connection)
        # What a way leads to is a column like any other, and stands for what it leads into.
        led = ", ".join(["*", *(f"{one.raw} AS {identifier(way)}" for way, one in nested.ways.items())])
        connection.execute(f"CREATE TEMP VIEW {name}_led AS SELECT {led} FROM {name}")
        name = f"{name}_led"
        if rows <= _HELD:
            connection.execute(f"CREATE TEMP TABLE {name}_held AS SELECT * FROM {name}")
            name = f"{name}_held"
        entered = {one.own for one in nested.ways.values()}
        fields = {own: location_field(whole, own) for own in whole.types if own not in entered}
        fields |= {way: Field(identifier(way), one.type, one.untyped, way) for way, one in nested.ways.items()}
        file = FileProfile(paths, encoding, rows, (), unreadable, whole.untyped, folders)
        return _profiled(file, name, fields, nested, connection, whole)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        # Its message can quote a value.
        raise DataError(f"{paths[0]}: its rows cannot be read ({type(error).__name__}); is the file whole?") from None


def _profiled(
    file: FileProfile,
    sql: str,
    fields: Mapping[str, Field],
    nested: Nested,
    connection: duckdb.DuckDBPyConnection,
    location: SourceLocation,
) -> Table:
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {sql}").fetchall()
    columns = profile_columns(list(fields.values()), sql, connection) if rows else ()
    columns = tuple(replace(one, way=nested.ways[one.name].raw) if one.name in nested.ways else one for one in columns)
    return Table(replace(file, rows=rows, columns=columns), sql, fields, nested, connection, location)


def _encoding(path: Path) -> Encoding:
    """Return how the text of a file is encoded; it need not be a file that can be read."""
    if not path.is_file():
        return "utf-8"
    try:
        return encoding_of(path) if is_text(path) else "utf-8"
    except (OSError, *UNREADABLE_GZIP):
        return "utf-8"


def source_name(table: Table, taken: Sequence[str]) -> str:
    """Return a name for a source, from its file's or folder's, each once."""
    first = table.file.paths[0]
    stem = first.name.split(".")[0]
    if table.file.folders:
        stem = "_".join(value for _, value in table.file.folders)
    elif len(table.file.paths) > 1:
        letters = re.sub(r"[\W\d_]+$", "", re.sub(r"\d.*$", "", stem))
        stem = letters if re.search("[a-zA-Z]", letters) else first.parent.name
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "source"
    name = name if name[0].isalpha() else f"source_{name}"
    while name in taken:
        name += "_2"
    return name
