"""Where a table comes from: its files, what columns they have, and one relation to select from."""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import itertools
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO, TypedDict, cast

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config, TableSpec
from cvj_ml.errors import ConfigError, DataError, nearest
from cvj_ml.sources.sql import connect, identifier, literal, require_room

_UNREADABLE = (duckdb.Error, OSError, EOFError, ValueError, zlib.error, csv.Error)

_CSV = (".csv", ".csv.gz")

# Nothing is guessed from rows: everything is text, ids keep their zeros, `#` starts no comment.
_CSV_OPTIONS = (
    "auto_detect=false, header=true, quote='\"', escape='\"', comment='', strict_mode=true, hive_partitioning=false"
)
_DELIMITERS = ",;\t|"

# DuckDB cuts a line that it sets aside after so many bytes.
_MOST_SHOWN = 10_000


class Fingerprint(TypedDict):
    """An input file by its content."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Origin:
    """A described table, not yet read: ``files`` by name (one unnamed entry for ``path``), ``types`` by column.

    ``untyped`` says that the columns are text only because the file has no types (CSV). ``kept`` is SQL by file
    name of the rows that a query is shown; without it, all.
    """

    label: str
    spec: TableSpec
    files: Mapping[str, tuple[Path, ...]]
    types: Mapping[str, str]
    untyped: bool
    kept: Mapping[str, str] = field(default_factory=dict)

    def fingerprints(self) -> list[Fingerprint]:
        """Return name, digest and size of every input file, in the order of ``paths``."""
        found: list[Fingerprint] = []
        for path in self.paths():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            found.append({"file": path.name, "sha256": digest, "bytes": path.stat().st_size})
        return found

    def paths(self) -> list[Path]:
        """Return every input file once, sorted."""
        return sorted({path for paths in self.files.values() for path in paths})

    def stamps(self) -> list[tuple[int, int]]:
        """Return size and time of change of every input file, by which a change while reading is noticed."""
        return [(status.st_size, status.st_mtime_ns) for status in (path.stat() for path in self.paths())]


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows to select from in SQL; ``unreadable`` lines were left out, and ``rejects`` selects them."""

    sql: str
    unreadable: int = 0
    rejects: str | None = None

    def rows(self, connection: duckdb.DuckDBPyConnection) -> int:
        """Return the number of rows, which Parquet files tell by their ends alone."""
        ((number,),) = connection.execute(f"SELECT count(*) FROM {self.sql}").fetchall()
        return int(number) + self.unreadable


def typed(relation: Relation, types: Mapping[str, str]) -> Relation:
    """Return the relation with all of these columns, in these types."""
    columns = ", ".join(
        f"NULL AS {identifier(name)}" if kind.strip('"') == "NULL" else f"CAST(NULL AS {kind}) AS {identifier(name)}"
        for name, kind in types.items()
    )
    return replace(relation, sql=f"(SELECT * FROM {relation.sql} UNION ALL BY NAME SELECT {columns} WHERE FALSE)")


def describe(label: str, spec: TableSpec, config: Config, spill: Path) -> Origin:
    """Find the files and columns of a table without reading its rows.

    Raises ConfigError for a query that is not one SELECT, DataError for what is wrong with the files.
    """
    if spec.query is None:
        paths = _find(label, spec.path or ())
        kinds = {_kind(label, path) for path in paths}
        if len(kinds) > 1:
            raise DataError(f"{label}: path mixes CSV and Parquet files; make them two sources.")
        files = {"": paths}
        for path in paths if kinds == {"parquet"} else ():
            _check_parquet(label, path)
        _check_types(label, paths if kinds == {"parquet"} else ())
        with connect(config, spill) as connection:
            try:
                types = _types(connection.sql(f"SELECT * FROM {_scan(_in_utf8(label, paths, spec, spill))}"))
            except _UNREADABLE as error:
                raise DataError(
                    f"{label}: DuckDB cannot read the columns of {_name(paths)} ({type(error).__name__});"
                    " check that every file is whole, is text in the encoding that the configuration says (utf-8 if"
                    " none) if it is CSV, and has a header that names each column once."
                ) from None
        return Origin(label, spec, files, types, untyped=kinds == {"csv"})
    files = {name: _find(f"{label}.files.{name}", paths) for name, paths in spec.files.items()}
    for name, paths in files.items():
        for path in paths:
            if _kind(f"{label}.files.{name}", path) == "parquet":
                _check_parquet(f"{label}.files.{name}", path)
    with _locked(label, spec, files, config, spill) as connection:
        return Origin(label, spec, files, _types(_select(label, spec.query, connection)), untyped=False)


def land(origin: Origin, connection: duckdb.DuckDBPyConnection, config: Config, folder: Path) -> Relation:
    """Return the rows of a table as a relation; CSV and queries are read once, into Parquet in ``folder``."""
    if origin.spec.query is None and not origin.untyped:
        return Relation(_scan(origin.files[""]))
    folder.mkdir(parents=True)
    try:
        if origin.spec.query is None:
            return _land_csv(origin, connection, folder, _in_utf8(origin.label, origin.files[""], origin.spec, folder))
        target = folder / "rows.parquet"
        with _locked(origin.label, origin.spec, origin.files, config, folder, origin.kept) as locked:
            reader = _select(origin.label, origin.spec.query, locked).to_arrow_reader()
            with pq.ParquetWriter(target, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        return Relation(_scan((target,)))
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException) as error:
        require_room(error, origin.label)
        # DuckDB quotes the offending value in its message, so the message is not passed on.
        where = "the query fails on its rows" if origin.spec.query else f"cannot read {_name(origin.files[''])}"
        raise DataError(f"{origin.label}: {where} ({type(error).__name__}); try it in DuckDB to see the row.") from None


def _land_csv(
    origin: Origin, connection: duckdb.DuckDBPyConnection, folder: Path, readable: tuple[Path, ...]
) -> Relation:
    """Write each file as Parquet; DuckDB sets lines with too few or too many fields aside only file by file."""
    landed, rejects = [], []
    lenient = "ignore_errors=true, store_rejects=true, rejects_limit=0"
    for index, path in enumerate(readable):
        landed.append(folder / f"{index}.parquet")
        rejects.append(folder / f"rejects-{index}.parquet")
        rows = f"SELECT * FROM {_scan((path,), lenient)}"
        connection.execute(f"COPY ({rows}) TO {literal(landed[-1])} (FORMAT parquet)")
        _require_closed_quotes(origin.label, origin.files[""][index], connection)
        # A line can have several errors; it is one row. A quote that is closed too late takes further lines with it.
        lost = "string_split(rtrim(csv_line, chr(13) || chr(10)), chr(10))"
        one_each = f"CASE WHEN bool_or(error_type = 'UNQUOTED VALUE') THEN {lost} ELSE [csv_line] END"
        lines = f"SELECT unnest({one_each}) AS csv_line FROM reject_errors GROUP BY line, csv_line"
        connection.execute(f"COPY ({lines}) TO {literal(rejects[-1])} (FORMAT parquet)")
        connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    unreadable = sum(pq.read_metadata(path).num_rows for path in rejects)
    return Relation(_scan(tuple(landed)), unreadable, _scan(tuple(rejects)))


def _require_closed_quotes(label: str, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse a file in which a quote swallows so much that nobody can say how many rows: DuckDB counts them as one."""
    swallowed = f"error_type = 'UNQUOTED VALUE' AND strlen(csv_line) >= {_MOST_SHOWN}"
    (line,) = connection.execute(f"SELECT min(line) FROM reject_errors WHERE {swallowed}").fetchall()[0]
    if line is not None:
        raise DataError(
            f"{label}: {path}, line {line}: a quotation mark opens a field that nothing closes, so the rows after it"
            " are lost. Correct the export: a quotation mark inside a field is written twice."
        )


def _find(label: str, patterns: tuple[str, ...]) -> tuple[Path, ...]:
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
    if faults:
        raise DataError("\n  - ".join(faults))
    return tuple(found)


def is_csv(path: Path) -> bool:
    """Return whether a file is CSV, compressed or not, by its name."""
    return path.name.lower().endswith(_CSV)


def _kind(label: str, path: Path) -> str:
    if is_csv(path):
        return "csv"
    if path.name.lower().endswith(".parquet"):
        return "parquet"
    raise DataError(f"{label}: {path} is neither .csv, .csv.gz nor .parquet; convert or rename it.")


def _name(paths: tuple[Path, ...]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"the {len(paths)} files beginning with {paths[0]}"


def _in_utf8(label: str, paths: tuple[Path, ...], spec: TableSpec, spill: Path) -> tuple[Path, ...]:
    """Return the files with CSV in UTF-8, which DuckDB reads: copies beside the spill where it is encoded otherwise."""
    if spec.encoding == "utf-8":
        return paths
    folder, found = spill.with_name(f"{spill.name}-utf-8"), []
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in paths:
        if not is_csv(path):
            found.append(path)
            continue
        copy = folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.csv"
        if not copy.exists():
            try:
                with (
                    open_csv(path, spec.encoding) as text,
                    copy.open("w", encoding="utf-8", newline="") as beside,
                ):
                    shutil.copyfileobj(text, beside, 1 << 20)
            except UnicodeError:
                raise DataError(
                    f"{label}: {path} is not {spec.encoding} text; say under encoding what it is."
                ) from None
        found.append(copy)
    return tuple(found)


def _scan(paths: tuple[Path, ...], options: str = "") -> str:
    """Return the SQL that reads the files; names are escaped, for a real file name may look like a pattern."""
    names = [literal(glob.escape(str(path))) for path in paths]
    if _kind("", paths[0]) == "parquet":
        return f"read_parquet([{', '.join(names)}], union_by_name=true, hive_partitioning=false)"
    scans = []
    for name, path in zip(names, paths, strict=True):
        delimiter, columns = _header(path)
        typed = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
        settings = ", ".join(filter(None, (f"delim={literal(delimiter)}, columns={{{typed}}}", _CSV_OPTIONS, options)))
        scans.append(f"SELECT * FROM read_csv({name}, {settings})")
    return f"({' UNION ALL BY NAME '.join(scans)})"


def open_csv(path: Path, encoding: str, errors: str = "strict") -> TextIO:
    """Open a CSV file, compressed or not, as text with its line ends as they are."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return cast("TextIO", opener(path, "rt", encoding=encoding, errors=errors, newline=""))


def _header(path: Path) -> tuple[str, list[str]]:
    """Return the delimiter and the columns of a CSV file, by its header alone; raise ValueError for a bad one."""
    with open_csv(path, "utf-8-sig", errors="replace") as stream:
        start = stream.readline(1_000_000)
        delimiter = max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", start).count)
        columns = next(csv.reader(itertools.chain([start], stream), delimiter=delimiter), [])
    if not all(columns) or not columns or len(set(map(str.lower, columns))) < len(columns):
        raise ValueError("the header names no columns, or one twice")
    return delimiter, columns


def _types(relation: duckdb.DuckDBPyRelation) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _check_parquet(label: str, path: Path) -> None:
    try:
        pq.read_schema(path)
    except (pa.ArrowException, OSError):
        raise DataError(f"{label}: {path} is not a readable Parquet file; is the copy complete?") from None


def _check_types(label: str, paths: tuple[Path, ...]) -> None:
    """Refuse a column that is a number in one file and text in another: reading them as one would guess."""
    seen: dict[str, tuple[str, Path]] = {}
    faults = []
    for path in paths:
        for column in pq.read_schema(path):
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


def _family(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for name, test in (
        ("null", pa.types.is_null),
        ("a number", lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)),
        ("text", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)),
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
    files = {name: _in_utf8(f"{label}.files.{name}", paths, spec, spill) for name, paths in files.items()}
    connection = connect(config, spill)
    try:
        for name, paths in files.items():
            condition = (kept or {}).get(name, "TRUE")
            connection.execute(f"CREATE VIEW {identifier(name)} AS SELECT * FROM {_scan(paths)} WHERE {condition}")
    except _UNREADABLE as error:
        connection.close()
        raise DataError(
            f"{label}.files.{name}: DuckDB cannot read the columns of {_name(paths)} ({type(error).__name__})."
        ) from None
    allowed = sorted({str(path) for paths in files.values() for path in paths})
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
