"""Where a table comes from: its files, what columns they have, and one relation to select from."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config, TableSpec
from cvj_ml.config.places import lies_below
from cvj_ml.errors import ConfigError, DataError, nearest
from cvj_ml.io import sha256_of
from cvj_ml.store.damage import UNREADABLE_ROWS, split_unreadable, unreadable
from cvj_ml.store.formats import UNREADABLE_GZIP, require_table
from cvj_ml.store.headers import TextLayout
from cvj_ml.store.json_files import JsonLayout, broken_lines, require_small_lines
from cvj_ml.store.scanning import Plain, plain_files, scan, told_types
from cvj_ml.store.sql import connect_duckdb, identifier, literal

Read = TypeVar("Read")

_UNREADABLE = (duckdb.Error, OSError, ValueError, *UNREADABLE_GZIP)

# DuckDB cuts a line that it sets aside after so many bytes.
_MOST_SHOWN = 10_000


class Fingerprint(TypedDict):
    """An input file: its name, the sha256 of its content and its size."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A described table, not yet read: ``files`` by name (one unnamed entry for ``path``), ``types`` by column.

    ``untyped`` says that the columns are text only because the file has no types (CSV). ``told`` are the types of
    columns that Parquet keeps as mere numbers: DURATION, HALF. ``kept`` is SQL by file name of the rows that a query
    is shown; without it, all. ``plain`` are the files as they are read, by name; the copies among them last as long as
    the folder in which the table was located.
    """

    label: str
    spec: TableSpec
    files: Mapping[str, tuple[Path, ...]]
    types: Mapping[str, str]
    untyped: bool
    told: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, tuple[Plain, ...]] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        """A name for the table's folders, which its own may not be: a user's text is no path."""
        return hashlib.sha256(self.label.encode()).hexdigest()[:16]

    def fingerprints(self) -> list[Fingerprint]:
        """Return name, digest and size of every input file, in the order of ``paths``."""
        return fingerprints(self.paths())

    def paths(self) -> list[Path]:
        """Return every input file once, sorted."""
        return sorted({path for paths in self.files.values() for path in paths})

    def stamps(self) -> list[tuple[int, int]]:
        """Return size and time of change of every input file, by which a change while reading is noticed."""
        return [(status.st_size, status.st_mtime_ns) for status in (path.stat() for path in self.paths())]


def fingerprints(paths: Iterable[Path]) -> list[Fingerprint]:
    """Return name, digest and size of files; DataError where one cannot be read."""
    found: list[Fingerprint] = []
    for path in paths:
        try:
            found.append({"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size})
        except OSError as error:
            raise DataError(f"{path}: cannot read the file: {error.strerror}.") from None
    return found


def input_files(label: str, spec: TableSpec) -> list[Path]:
    """Return every input file of a table once, sorted; none of a server's. DataError where one is missing."""
    patterns = {label: spec.path or (), **{f"{label}.files.{name}": paths for name, paths in spec.files.items()}}
    return sorted({path for place, paths in patterns.items() for path in _find(place, paths, spec)})


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows to select from in SQL; ``unreadable`` lines were left out, and ``rejects`` selects them.

    ``files`` are Parquet files that are read as they are, so that what is wrong with a row shows only then.
    ``read`` are the files of text or JSON that were read, ``file_rows`` counts the rows of each.
    """

    sql: str
    unreadable: int = 0
    rejects: str | None = None
    files: tuple[Path, ...] = ()
    file_rows: tuple[int, ...] = ()
    read: tuple[Plain, ...] = ()

    def layout_of(self, line: Mapping[str, Any]) -> TextLayout | None:
        """Return how the file of one of the ``rejects`` is laid out; None where it is no delimited text."""
        layout = self.read[line["file"]].layout if self.read else None
        return layout if isinstance(layout, TextLayout) else None

    def rows(self, connection: duckdb.DuckDBPyConnection) -> int:
        """Return the number of rows, which Parquet files tell by their ends alone."""
        if self.files:  # what is wrong with a row is not asked yet
            return sum(pq.read_metadata(path).num_rows for path in self.files)
        ((number,),) = connection.execute(f"SELECT count(*) FROM {self.sql}").fetchall()
        return int(number) + self.unreadable


def typed(relation: Relation, types: Mapping[str, str]) -> Relation:
    """Return the relation with all of these columns, in these types."""
    columns = ", ".join(
        f"NULL AS {identifier(name)}" if kind.strip('"') == "NULL" else f"CAST(NULL AS {kind}) AS {identifier(name)}"
        for name, kind in types.items()
    )
    return replace(relation, sql=f"(SELECT * FROM {relation.sql} UNION ALL BY NAME SELECT {columns} WHERE FALSE)")


def locate(label: str, spec: TableSpec, config: Config, spill: Path) -> SourceLocation:
    """Find the files and columns of a table without reading its rows.

    Raises ConfigError for a query that is not one SELECT, DataError for what is wrong with the files.
    """
    if spec.query is None:
        paths = _find(label, spec.path or (), spec)
        _require_apart(label, paths, config, spill)
        plain = plain_files(label, paths, spec, config, spill)
        with connect_duckdb(config, spill) as connection:
            try:
                types = _types(connection.sql(f"SELECT * FROM {scan(plain)}"))
            except _UNREADABLE as error:
                raise DataError(
                    f"{label}: DuckDB cannot read the columns of {_name(paths)} ({type(error).__name__})."
                ) from None
        untyped = plain[0].kind == "text"
        return SourceLocation(label, spec, {"": paths}, types, untyped, told_types(plain), plain={"": plain})
    files = {name: _find(f"{label}.files.{name}", paths, spec) for name, paths in spec.files.items()}
    for name, paths in files.items():
        _require_apart(f"{label}.files.{name}", paths, config, spill)
    readable = {name: plain_files(f"{label}.files.{name}", paths, spec, config, spill) for name, paths in files.items()}
    location = SourceLocation(label, spec, files, {}, untyped=False, plain=readable)
    with _locked(location, config, spill) as connection:
        return replace(location, types=_types(_select(label, spec.query, connection)))


def land(location: SourceLocation, connection: duckdb.DuckDBPyConnection, config: Config, folder: Path) -> Relation:
    """Return the rows of a table as a relation; text, JSON and queries are read once, into Parquet in ``folder``."""
    read = set(location.paths())
    plain = [one for one in location.plain.get("", ()) if one.origin in read]
    if plain and plain[0].kind == "parquet":
        return Relation(scan(plain), files=tuple(one.path for one in plain))
    folder.mkdir(parents=True)
    try:
        if location.spec.query is None:
            return _land_files(location.label, connection, folder, plain)
        target = folder / "rows.parquet"
        with _locked(location, config, folder) as locked:
            reader = _select(location.label, location.spec.query, locked).to_arrow_reader()
            with pq.ParquetWriter(target, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        return Relation(scan([Plain(target)]))
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise unreadable(location.label, location.paths(), error, query=location.spec.query is not None) from None


def read_rows(
    location: SourceLocation, relation: Relation, columns: Sequence[str], folder: Path, read: Callable[[Relation], Read]
) -> Read:
    """Return what is made of the rows of a table; where some of a Parquet file cannot be read, of the others.

    These are then counted as the relation's ``unreadable`` lines. ``columns`` are those that ``read`` needs.
    Raises DataError with the cause where a file cannot be read at all.
    """
    try:
        return read(relation)
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except duckdb.Error as error:
        if not relation.files or not isinstance(error, UNREADABLE_ROWS):
            raise unreadable(location.label, location.paths(), error) from None
    folder.mkdir(parents=True)
    good, rejects = list[Plain](), list[Plain]()
    try:
        for index, path in enumerate(relation.files):
            good.append(Plain(folder / f"{index}.parquet"))
            rejects.append(Plain(folder / f"rejects-{index}.parquet"))
            split_unreadable(path, columns, good[-1].path, rejects[-1].path)
        number = sum(pq.read_metadata(one.path).num_rows for one in rejects)
        rest = Relation(scan(good), number, scan(rejects))
        return read(typed(rest, {name: kind for name, kind in location.types.items() if name in set(columns)}))
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise unreadable(location.label, location.paths(), error) from None


def _land_files(label: str, connection: duckdb.DuckDBPyConnection, folder: Path, readable: Sequence[Plain]) -> Relation:
    """Write each file as Parquet; DuckDB sets lines with too few or too many fields aside only file by file."""
    landed, rejects = list[Plain](), list[Plain]()
    for index, file in enumerate(readable):
        landed.append(Plain(folder / f"{index}.parquet"))
        rejects.append(Plain(folder / f"rejects-{index}.parquet"))
        rows = f"SELECT * FROM {scan([file], lenient=True)}"
        connection.execute(f"COPY ({rows}) TO {literal(landed[-1].path)} (FORMAT parquet)")
        lines, by_line = list[str](), True
        if isinstance(file.layout, JsonLayout):
            broken = broken_lines(file.path, file.layout)
            lines.append(f"SELECT csv_line, NULL AS line, {index} AS file FROM ({broken})")
            by_line = file.layout.form == "lines"
            if by_line:
                require_small_lines(label, file.name, connection)
        else:
            _require_closed_quotes(label, file.name, connection)
        # A line can have several errors; it is one row. A quote that is closed too late takes further lines with it.
        lost = "string_split(rtrim(csv_line, chr(13) || chr(10)), chr(10))"
        one_each = f"CASE WHEN bool_or(error_type = 'UNQUOTED VALUE') THEN {lost} ELSE [csv_line] END"
        aside = f"SELECT unnest({one_each}) AS csv_line, line, {index} AS file FROM reject_errors"
        lines += [f"{aside} GROUP BY line, csv_line"] if by_line else []
        connection.execute(f"COPY ({' UNION ALL '.join(lines)}) TO {literal(rejects[-1].path)} (FORMAT parquet)")
        connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    unreadable = sum(pq.read_metadata(one.path).num_rows for one in rejects)
    counts = tuple(pq.read_metadata(one.path).num_rows for one in landed)
    return Relation(scan(landed), unreadable, scan(rejects), file_rows=counts, read=tuple(readable))


def _require_closed_quotes(label: str, name: str, connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse a file in which a quote swallows so much that nobody can say how many rows: DuckDB counts them as one."""
    swallowed = f"error_type = 'UNQUOTED VALUE' AND strlen(csv_line) >= {_MOST_SHOWN}"
    (line,) = connection.execute(f"SELECT min(line) FROM reject_errors WHERE {swallowed}").fetchall()[0]
    if line is not None:
        raise DataError(
            f"{label}: {name}, line {line}: a quotation mark opens a field that nothing closes, so the rows after it"
            " are lost. Correct the export: a quotation mark inside a field is written twice."
        )


def _require_apart(label: str, paths: tuple[Path, ...], config: Config, spill: Path) -> None:
    """Raise ConfigError where links lead to files below out, but for what this reading itself has landed there."""
    for path in paths:
        if lies_below(str(path), config.out) and not lies_below(str(path), str(spill.parent)):
            raise ConfigError(
                f"{label}: {path} lies below out ({config.out}), where files are removed; put it elsewhere, or name"
                " another folder under out."
            )


def _find(label: str, patterns: tuple[str, ...], spec: TableSpec) -> tuple[Path, ...]:
    """Return the files that paths and patterns name, each of them whole and of one kind as far as its ends tell."""
    found: dict[Path, None] = {}
    faults = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():
            found[path] = None
        elif glob.has_magic(pattern):
            matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True)) if Path(match).is_file()]
            found |= dict.fromkeys(matches)
            if not matches:
                faults.append(f"{label}: no file matches {pattern}; check the folder and the pattern.")
        else:
            beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            found_instead = (
                "a folder is there; name its files, as in *.parquet" if path.is_dir() else "there is no such file"
            )
            faults.append(f"{label}: {pattern}: {found_instead}.{nearest(path.name, beside)}")
    for path in found:
        try:
            require_table(label, path, spec.encoding)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n  - ".join(faults))
    return tuple(found)


def _name(paths: tuple[Path, ...]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"the {len(paths)} files beginning with {paths[0]}"


def _types(relation: duckdb.DuckDBPyRelation) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _locked(location: SourceLocation, config: Config, spill: Path) -> duckdb.DuckDBPyConnection:
    """Open a connection in which a query can read the named files and nothing else, and change nothing."""
    connection = connect_duckdb(config, spill)
    try:
        for name, plain in location.plain.items():
            condition = location.kept.get(name, "TRUE")
            connection.execute(f"CREATE VIEW {identifier(name)} AS SELECT * FROM {scan(plain)} WHERE {condition}")
    except _UNREADABLE as error:
        connection.close()
        raise DataError(
            f"{location.label}.files.{name}: DuckDB cannot read the columns of {_name(location.files[name])}"
            f" ({type(error).__name__})."
        ) from None
    allowed = sorted({str(one.path) for plain in location.plain.values() for one in plain})
    allowed = sorted({*allowed, *map(glob.escape, allowed)})
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, allowed))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _select(label: str, query: str, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            found = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise ConfigError(f"{label}.query: expected exactly one SELECT, found {found}.")
        relation: duckdb.DuckDBPyRelation = connection.sql(query)
    except (
        duckdb.ParserException,
        duckdb.BinderException,
        duckdb.CatalogException,
        duckdb.PermissionException,
    ) as error:
        # These four speak of the query's text and names only, never of a row.
        raise ConfigError(f"{label}.query: {error}") from None
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise ConfigError(f"{label}.query: DuckDB refuses it ({type(error).__name__}).") from None
    return relation
