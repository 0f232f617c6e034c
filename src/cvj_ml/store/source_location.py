"""Where a table comes from: its files, what columns they have, and one relation to select from."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config, TableSpec
from cvj_ml.config.base import is_object
from cvj_ml.config.places import lies_below
from cvj_ml.errors import ConfigError, DataError, nearest
from cvj_ml.io import sha256_of
from cvj_ml.store.damage import UNREADABLE_ROWS, split_unreadable, unreadable
from cvj_ml.store.formats import UNREADABLE_GZIP, is_text, require_table
from cvj_ml.store.headers import TextLayout
from cvj_ml.store.scanning import Plain, plain_files, scan
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
    is shown; without it, all.
    """

    label: str
    spec: TableSpec
    files: Mapping[str, tuple[Path, ...]]
    types: Mapping[str, str]
    untyped: bool
    told: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)

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
    """Return every input file of a table once, sorted; none of what lies elsewhere. DataError where one is missing."""
    patterns = {label: spec.path or (), **{f"{label}.files.{name}": paths for name, paths in spec.files.items()}}
    here = {place: tuple(path for path in paths if not is_object(path)) for place, paths in patterns.items()}
    return sorted({path for place, paths in here.items() for path in _find(place, paths, spec)})


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows to select from in SQL; ``unreadable`` lines were left out, and ``rejects`` selects them.

    ``files`` are Parquet files that are read as they are, so that what is wrong with a row shows only then.
    ``file_rows`` counts the rows of each text file, ``layouts`` says how they are laid out.
    """

    sql: str
    unreadable: int = 0
    rejects: str | None = None
    files: tuple[Path, ...] = ()
    file_rows: tuple[int, ...] = ()
    layouts: tuple[TextLayout, ...] = ()

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
        with connect_duckdb(config, spill) as connection:
            try:
                types = _types(connection.sql(f"SELECT * FROM {scan(plain_files(label, paths, spec, spill))}"))
            except _UNREADABLE as error:
                raise DataError(
                    f"{label}: DuckDB cannot read the columns of {_name(paths)} ({type(error).__name__})."
                ) from None
        untyped = is_text(paths[0])
        return SourceLocation(label, spec, {"": paths}, types, untyped, {} if untyped else _told(paths))
    files = {name: _find(f"{label}.files.{name}", paths, spec) for name, paths in spec.files.items()}
    for name, paths in files.items():
        _require_apart(f"{label}.files.{name}", paths, config, spill)
    with _locked(label, spec, files, config, spill) as connection:
        return SourceLocation(label, spec, files, _types(_select(label, spec.query, connection)), untyped=False)


def land(location: SourceLocation, connection: duckdb.DuckDBPyConnection, config: Config, folder: Path) -> Relation:
    """Return the rows of a table as a relation; CSV and queries are read once, into Parquet in ``folder``."""
    if location.spec.query is None and not location.untyped:
        files = location.files[""]
        return Relation(scan([Plain(path) for path in files]), files=files)
    folder.mkdir(parents=True)
    try:
        if location.spec.query is None:
            return _land_csv(
                location, connection, folder, plain_files(location.label, location.files[""], location.spec, folder)
            )
        target = folder / "rows.parquet"
        with _locked(location.label, location.spec, location.files, config, folder, location.kept) as locked:
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


def _land_csv(
    location: SourceLocation, connection: duckdb.DuckDBPyConnection, folder: Path, readable: tuple[Plain, ...]
) -> Relation:
    """Write each file as Parquet; DuckDB sets lines with too few or too many fields aside only file by file."""
    landed, rejects = list[Plain](), list[Plain]()
    lenient = "ignore_errors=true, store_rejects=true, rejects_limit=0"
    for index, file in enumerate(readable):
        landed.append(Plain(folder / f"{index}.parquet"))
        rejects.append(Plain(folder / f"rejects-{index}.parquet"))
        rows = f"SELECT * FROM {scan([file], lenient)}"
        connection.execute(f"COPY ({rows}) TO {literal(landed[-1].path)} (FORMAT parquet)")
        _require_closed_quotes(location.label, location.files[""][index], connection)
        # A line can have several errors; it is one row. A quote that is closed too late takes further lines with it.
        lost = "string_split(rtrim(csv_line, chr(13) || chr(10)), chr(10))"
        one_each = f"CASE WHEN bool_or(error_type = 'UNQUOTED VALUE') THEN {lost} ELSE [csv_line] END"
        lines = (
            f"SELECT unnest({one_each}) AS csv_line, line, {index} AS file FROM reject_errors GROUP BY line, csv_line"
        )
        connection.execute(f"COPY ({lines}) TO {literal(rejects[-1].path)} (FORMAT parquet)")
        connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    unreadable = sum(pq.read_metadata(one.path).num_rows for one in rejects)
    counts = tuple(pq.read_metadata(one.path).num_rows for one in landed)
    layouts = tuple(one.layout for one in readable if one.layout is not None)
    return Relation(scan(landed), unreadable, scan(rejects), file_rows=counts, layouts=layouts)


def _require_closed_quotes(label: str, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse a file in which a quote swallows so much that nobody can say how many rows: DuckDB counts them as one."""
    swallowed = f"error_type = 'UNQUOTED VALUE' AND strlen(csv_line) >= {_MOST_SHOWN}"
    (line,) = connection.execute(f"SELECT min(line) FROM reject_errors WHERE {swallowed}").fetchall()[0]
    if line is not None:
        raise DataError(
            f"{label}: {path}, line {line}: a quotation mark opens a field that nothing closes, so the rows after it"
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
    texts = [path for path in found if is_text(path)]
    if texts and len(texts) < len(found):
        raise DataError(f"{label}: path mixes text and Parquet files; make them two sources.")
    if not texts:
        _check_types(label, tuple(found))
    return tuple(found)


def _name(paths: tuple[Path, ...]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"the {len(paths)} files beginning with {paths[0]}"


def _types(relation: duckdb.DuckDBPyRelation) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _check_types(label: str, paths: tuple[Path, ...]) -> None:
    """Refuse a column that is a number in one file and text in another: reading them as one would guess."""
    seen: dict[str, tuple[str, Path]] = {}
    faults = []
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            raise DataError(f"{label}: {path} is a Parquet file whose end is damaged; copy it again.") from None
        for column in schema:
            family = _family(column.type)
            first, before = seen.setdefault(column.name, (family, path))
            if family == "null" or first == family:
                continue
            if first == "null":
                seen[column.name] = (family, path)
            else:
                faults.append(
                    f"{label}: the column {column.name!r} is {first} in {before.name} and {family} in {path.name}"
                )
    if faults:
        raise DataError("\n  - ".join(faults) + "; write the files with one type, or cast in a query.")


def _told(paths: tuple[Path, ...]) -> dict[str, str]:
    """Return the columns that are more than the numbers that they are kept as."""
    columns = [column for path in paths for column in pq.read_schema(path)]
    told = {column.name: "DURATION" for column in columns if pa.types.is_duration(column.type)}
    return told | {column.name: "HALF" for column in columns if pa.types.is_float16(column.type)}


def _family(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for name, test in (
        ("null", pa.types.is_null),
        ("a number", lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)),
        ("text", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)),
        ("bytes", lambda t: "binary" in str(t)),
        ("a date", pa.types.is_date),
        ("a time with zone", lambda t: pa.types.is_timestamp(t) and t.tz is not None),
        ("a time without zone", pa.types.is_timestamp),
    ):
        if test(kind):
            return name
    return str(kind)


def _locked(
    label: str,
    spec: TableSpec,
    files: Mapping[str, tuple[Path, ...]],
    config: Config,
    spill: Path,
    kept: Mapping[str, str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a connection in which a query can read the named files and nothing else, and change nothing."""
    readable = {name: plain_files(f"{label}.files.{name}", paths, spec, spill) for name, paths in files.items()}
    connection = connect_duckdb(config, spill)
    try:
        for name, plain in readable.items():
            condition = (kept or {}).get(name, "TRUE")
            connection.execute(f"CREATE VIEW {identifier(name)} AS SELECT * FROM {scan(plain)} WHERE {condition}")
    except _UNREADABLE as error:
        connection.close()
        raise DataError(
            f"{label}.files.{name}: DuckDB cannot read the columns of {_name(files[name])} ({type(error).__name__})."
        ) from None
    allowed = sorted({str(one.path) for plain in readable.values() for one in plain})
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
