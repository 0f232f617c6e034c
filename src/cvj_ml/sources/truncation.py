"""The sources as they stood: every input reduced to the rows known before a cut-off, then read like any other.

A mapped file keeps the rows whose own ``known_at`` (or ``occurred_at``) lies before it. A query is run again over
files without the rows written from then on, so what it sums up cannot hold them either. Which column says when a
row of a file was written is told by ``row_times``, or is the only time that the file has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from cvj_ml.config import AttributesSpec, Config, SourceSpec, TableSpec
from cvj_ml.errors import ConfigError, DataError, nearest, raise_all
from cvj_ml.sources.mapping import Field, Reading, read_instant, wall_column
from cvj_ml.sources.origins import Origin, describe, land
from cvj_ml.sources.postgres import Databases
from cvj_ml.sources.sql import connect, identifier, literal
from cvj_ml.sources.staging import Mapped, map_attributes, map_source

_ROLES = ("known_at", "occurred_at")


@dataclass(frozen=True, slots=True)
class FileTime:
    """How the rows of one file of a query are told apart by time: ``column``, or None with the ``reason``.

    ``undecided`` marks a file whose times are several, so that nobody but its owner can choose.
    """

    table: str
    file: str
    column: str | None
    reason: str = ""
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    """A described table, and SQL of the instant (microseconds) at which each row of its files was written."""

    origin: Origin
    instants: Mapping[str, str]
    files: tuple[FileTime, ...]
    known_after: int = 0


class Truncation:
    """Reduces the inputs of a configuration, time and again; what is the same for every cut-off is found once."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._number = 0
        faults: list[str] = []
        self._tables = dict(_timed(config, folder, faults))
        raise_all(ConfigError, "The inputs cannot be told apart by time:", faults)

    @property
    def files(self) -> tuple[FileTime, ...]:
        """Every file that a query reads, with the time of its rows."""
        return tuple(one for timed in self._tables.values() for one in timed.files)

    def before(self, cut_off: int | None) -> Config | None:
        """Return the configuration that reads what was known before the cut-off; None where that is nothing.

        None as the cut-off keeps every row. Tables without a row are left out.
        """
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        specs: dict[str, TableSpec] = {}
        with connect(self._config, folder / "spill") as connection:
            for label, timed in self._tables.items():
                path = _write(timed, cut_off, self._config, connection, folder / label)
                if path is not None:
                    read: dict[str, object] = {"path": (str(path),), "query": None, "files": {}, "row_times": {}}
                    specs[label] = timed.origin.spec.model_copy(update={**read, "encoding": "utf-8"})
        attributes = specs.pop("attributes", None)
        if not specs:
            return None
        sources = {label.removeprefix("sources."): spec for label, spec in specs.items()}
        # Rows that cannot be read are kept on both sides, and must not stop a small part of the file.
        changed = {"sources": sources, "attributes": attributes, "out": str(folder / "out"), "refused_share": 1.0}
        return self._config.model_copy(update=changed)


def _timed(config: Config, folder: Path, faults: list[str]) -> Iterator[tuple[str, Timed]]:
    specs: dict[str, TableSpec] = {f"sources.{name}": spec for name, spec in config.sources.items()}
    specs |= {"attributes": config.attributes} if config.attributes else {}
    with Databases(config, folder) as databases:
        for label, spec in specs.items():
            origin = describe(label, databases.landed(label, spec), config, folder / "spill")
            if spec.query is not None:
                yield label, _timed_query(origin, config, folder, faults)
                continue
            ignored: list[str] = []  # ingest has told them
            if isinstance(spec, SourceSpec):
                mapped = map_source(origin, spec, config, ignored)
            elif isinstance(spec, AttributesSpec):
                mapped = map_attributes(origin, spec, config, ignored)
            instant = _mapped_instant(mapped, spec)
            yield label, Timed(origin, {"": instant} if instant else {}, ())


def _mapped_instant(mapped: Mapped, spec: TableSpec) -> str | None:
    """Return SQL of the instant from which a row of a mapped file is visible; None where it always was."""
    found = [_whole(mapped.readings[name], name) for name in _ROLES if name in mapped.required]
    if not found:
        return None
    latest = f"greatest({', '.join(found)})" if len(found) > 1 else found[0]
    return f"({latest} + {spec.known_after})" if isinstance(spec, SourceSpec) and spec.known_after else latest


def _timed_query(origin: Origin, config: Config, folder: Path, faults: list[str]) -> Timed:
    spec, instants, files = origin.spec, dict[str, str](), list[FileTime]()
    for name, paths in origin.files.items():
        # By their names, not as patterns: a real file name may look like one.
        one_table = TableSpec(path=tuple(map(str, paths)), encoding=spec.encoding)
        raw = describe(f"{origin.label}.files.{name}", one_table, config, folder / "spill")
        one = _time_of(origin.label, name, raw, spec.row_times.get(name), config, folder, faults)
        files.append(one)
        if one.column is not None:
            field = Field(identifier(one.column), raw.types[one.column], raw.untyped, one.column)
            reading = read_instant(f"{origin.label}.row_times", name, field, spec, config, faults)
            instants[name] = _whole(reading, name)
    known_after = spec.known_after if isinstance(spec, SourceSpec) else None
    return Timed(origin, instants, tuple(files), known_after or 0)


def _time_of(
    label: str, name: str, raw: Origin, told: str | None, config: Config, folder: Path, faults: list[str]
) -> FileTime:
    if told is not None:
        if told not in raw.types:
            faults.append(f"{label}.row_times.{name}: there is no column {told!r}.{nearest(told, raw.types)}")
            return FileTime(label, name, None, "the column named does not exist")
        return FileTime(label, name, told)
    times = _text_times(raw, config, folder) if raw.untyped else _typed_times(raw)
    named = [role for role in _ROLES if role in times]
    if len(times) == 1 or named:
        return FileTime(label, name, named[0] if named else times[0])
    if not times:
        return FileTime(label, name, None, "it has no time, so it is taken as it is today")
    several = f"it has several times ({', '.join(times)}); name the one at which a row was written under row_times"
    return FileTime(label, name, None, several, undecided=True)


def _typed_times(raw: Origin) -> list[str]:
    return [name for name, kind in raw.types.items() if kind.upper().startswith(("TIMESTAMP", "DATE"))]


def _text_times(raw: Origin, config: Config, folder: Path) -> list[str]:
    """Return the columns of a CSV file all of whose values are dates or instants."""
    with connect(config, folder / "spill") as connection:
        relation = land(raw, connection, config, folder / raw.label)
        shown = "CASE WHEN regexp_matches({0}, '^\\d{{4}}-\\d\\d-\\d\\d') THEN TRY_CAST({0} AS TIMESTAMPTZ) END"
        tests = [
            f"count(nullif({one}, '')) > 0 AND count(nullif({one}, '')) = count({shown.format(one)})"
            for one in map(identifier, raw.types)
        ]
        (found,) = connection.execute(f"SELECT {', '.join(tests)} FROM {relation.sql}").fetchall()
    return [name for name, is_time in zip(raw.types, found, strict=True) if is_time]


def _whole(reading: Reading, name: str) -> str:
    """Return a reading as one expression over the file's own columns."""
    return f"({reading.value})".replace(wall_column(name), f"({reading.wall})")


def _write(
    timed: Timed, cut_off: int | None, config: Config, connection: duckdb.DuckDBPyConnection, folder: Path
) -> Path | None:
    """Write the rows of a table known before the cut-off and return the file; None where there is no row."""
    folder.mkdir()
    # A row without a readable time stays: nothing says that it came later.
    limit = None if cut_off is None else cut_off - timed.known_after
    instants = {} if limit is None else timed.instants
    kept = {name: f"NOT coalesce({at} >= {limit}, FALSE)" for name, at in instants.items()}
    origin, of_path = timed.origin, timed.origin.spec.query is None
    relation = land(origin if of_path else replace(origin, kept=kept), connection, config, folder / "landed")
    target = folder / ("rows.csv" if origin.untyped else "rows.parquet")
    condition = f" WHERE {kept['']}" if of_path and kept else ""
    how = "FORMAT csv, HEADER, DELIMITER ',', QUOTE '\"', ESCAPE '\"'" if origin.untyped else "FORMAT parquet"
    copy = f"COPY (SELECT * FROM {relation.sql}{condition}) TO {literal(target)} ({how})"
    try:
        ((rows,),) = connection.execute(copy).fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise DataError(
            f"{origin.label}: its rows before a cut-off cannot be written ({type(error).__name__}); is there room on"
            " the disk?"
        ) from None
    return target if rows else None
