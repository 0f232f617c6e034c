"""The sources as they stood: every input reduced to the rows known before a cut-off, then read like any other.

A mapped file keeps the rows whose own ``known_at`` (or ``occurred_at``) lies before it, and of a row with several dates
those that do. A query is run again over
files without the rows written from then on, so what it sums up cannot hold them either. Which column says when a
row of a file was written is told by ``row_times``, or is the only time that the file has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import duckdb

from cvj_ml.config import (
    DAY,
    STAGE_HISTORY,
    AttributesSpec,
    Config,
    IdentitiesSpec,
    MembersSpec,
    SourceSpec,
    StageHistorySpec,
    TableSpec,
)
from cvj_ml.errors import ConfigError, nearest, raise_all
from cvj_ml.store.customer_tables import map_attributes, map_stage_history
from cvj_ml.store.fields import Field, Reading, location_field
from cvj_ml.store.identities import IDENTITIES, map_identities
from cvj_ml.store.instants import read_instant, read_occurrence, tells_day_only, wall_column
from cvj_ml.store.members import MEMBERS, map_members
from cvj_ml.store.postgres_source import Databases
from cvj_ml.store.source_location import Relation, SourceLocation, land, locate, read_rows
from cvj_ml.store.sql import connect_duckdb, identifier, literal
from cvj_ml.store.staging import Mapped, map_source
from cvj_ml.windows import midnight, to_datetime

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
    """A described table, and SQL of the instant (microseconds) at which each row of its files was written.

    ``day_only`` is SQL, too: whether that instant is a day of which the hours are not known.
    """

    location: SourceLocation
    instants: Mapping[str, str]
    day_only: Mapping[str, str]
    files: tuple[FileTime, ...]
    known_after: int = 0
    dates: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of a melted file: SQL of the instant, and of whether it is a day, by column of dates."""


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
        with connect_duckdb(self._config, folder / "spill") as connection:
            for label, timed in self._tables.items():
                path, rows = _write(timed, cut_off, self._config, connection, folder / timed.location.slot)
                # Without a pair known by then, how many ids a person may have still holds for what rows tell.
                if rows or label == IDENTITIES:
                    read: dict[str, object] = {"path": (str(path),), "query": None, "files": {}, "row_times": {}}
                    read |= {"sheet": None, "member": None}
                    specs[label] = timed.location.spec.model_copy(update={**read, "encoding": "utf-8"})
        beside = {label: specs.pop(label, None) for label in ("attributes", IDENTITIES, MEMBERS)}
        if not specs:
            return None
        history = specs.pop(STAGE_HISTORY, None)
        sources = {label.removeprefix("sources."): spec for label, spec in specs.items()}
        # Rows that cannot be read are kept on both sides, and must not stop a small part of the file.
        changed: dict[str, object] = {"sources": sources, STAGE_HISTORY: history, **beside}
        changed |= {"out": str(folder / "out"), "refused_share": 1.0}
        return self._config.model_copy(update=changed)


def _timed(config: Config, folder: Path, faults: list[str]) -> Iterator[tuple[str, Timed]]:
    specs: dict[str, TableSpec] = {**config.touchpoint_tables}
    specs |= {"attributes": config.attributes} if config.attributes else {}
    specs |= {IDENTITIES: config.identities} if config.identities else {}
    specs |= {MEMBERS: config.members} if config.members else {}
    with Databases(config, folder) as databases:
        for label, spec in specs.items():
            location = locate(label, databases.landed(label, spec), config, folder / "spill")
            if spec.query is not None:
                yield label, _timed_query(location, config, folder, faults)
                continue
            ignored: list[str] = []  # ingest has told them
            if isinstance(spec, StageHistorySpec):
                mapped = map_stage_history(location, spec, config, ignored)
            elif isinstance(spec, SourceSpec):
                mapped = map_source(location, spec, config, ignored)
            elif isinstance(spec, AttributesSpec):
                mapped = map_attributes(location, spec, config, ignored)
            elif isinstance(spec, IdentitiesSpec):
                mapped = map_identities(location, spec, config, ignored)
            elif isinstance(spec, MembersSpec):
                mapped = map_members(location, spec, config, ignored)
            instant = _mapped_instant(mapped, melted=isinstance(spec, SourceSpec) and bool(spec.melt))
            instants = {"": instant} if instant else {}
            if isinstance(spec, SourceSpec):
                day_only = {} if spec.melt else {"": mapped.readings["date_only"].value}
                dates = _dates(location, spec, config)
                yield label, Timed(location, instants, day_only, (), spec.known_after or 0, dates)
            else:
                yield label, Timed(location, instants, {}, ())


def _dates(location: SourceLocation, spec: SourceSpec, config: Config) -> dict[str, tuple[str, str]]:
    found = {}
    for own in spec.melt.values():
        instant, day = read_occurrence(location.label, location_field(location, own), spec, config, [])
        found[own] = (_whole(instant, "occurred_at"), day.value)
    return found


def _mapped_instant(mapped: Mapped, *, melted: bool) -> str | None:
    """Return SQL of the latest time of a row of a mapped file; None where it has none of its own."""
    roles = [name for name in _ROLES if name in mapped.required and not (melted and name == "occurred_at")]
    found = [_whole(mapped.readings[name], name) for name in roles]
    if not found:
        return None
    return f"greatest({', '.join(found)})" if len(found) > 1 else found[0]


def _timed_query(location: SourceLocation, config: Config, folder: Path, faults: list[str]) -> Timed:
    spec, instants, files = location.spec, dict[str, str](), list[FileTime]()
    day_only = dict[str, str]()
    days = isinstance(spec, SourceSpec) and _gives_days(location, spec)
    for name, paths in location.files.items():
        # By their names, not as patterns: a real file name may look like one.
        one_table = TableSpec(path=tuple(map(str, paths)), encoding=spec.encoding, sheet=spec.sheet, member=spec.member)
        raw = locate(f"{location.label}.files.{name}", one_table, config, folder / "spill")
        one = _time_of(location.label, name, raw, spec.row_times.get(name), config, folder, faults)
        files.append(one)
        if one.column is not None:
            when = location_field(raw, one.column)
            reading = read_instant(f"{location.label}.row_times", name, when, spec, config, faults)
            instants[name] = _whole(reading, name)
            if isinstance(spec, SourceSpec):
                day_only[name] = "TRUE" if days else tells_day_only(when, spec)
    known_after = spec.known_after if isinstance(spec, SourceSpec) else None
    return Timed(location, instants, day_only, tuple(files), known_after or 0)


def _gives_days(location: SourceLocation, spec: SourceSpec) -> bool:
    """Return whether a query gives days, whatever hours the rows have from which it makes them."""
    source = spec.as_source() if isinstance(spec, StageHistorySpec) else spec
    own = source.single.get("occurred_at", "occurred_at")
    kind = location.types.get(own)
    return kind is not None and tells_day_only(Field(identifier(own), kind, False, own), spec) == "TRUE"


def _time_of(
    label: str, name: str, raw: SourceLocation, told: str | None, config: Config, folder: Path, faults: list[str]
) -> FileTime:
    if told is not None:
        if told not in raw.types:
            faults.append(f"{label}.row_times.{name}: there is no column {told!r}.{nearest(told, raw.types)}")
            return FileTime(label, name, None, "the column named does not exist")
        return FileTime(label, name, told)
    written = raw.untyped or raw.plain[""][0].kind == "json"  # neither has a type of times
    times = _text_times(raw, config, folder) if written else _typed_times(raw)
    named = [role for role in _ROLES if role in times]
    if len(times) == 1 or named:
        return FileTime(label, name, named[0] if named else times[0])
    if not times:
        return FileTime(label, name, None, "it has no time, so it is taken as it is today")
    several = f"it has several times ({', '.join(times)}); name the one at which a row was written under row_times"
    return FileTime(label, name, None, several, undecided=True)


def _typed_times(raw: SourceLocation) -> list[str]:
    return [name for name, kind in raw.types.items() if kind.upper().startswith(("TIMESTAMP", "DATE"))]


def _text_times(raw: SourceLocation, config: Config, folder: Path) -> list[str]:
    """Return the columns of a file of text or JSON all of whose values are dates or instants."""
    texts = [name for name, kind in raw.types.items() if kind == "VARCHAR"]
    if not texts:
        return []
    with connect_duckdb(config, folder / "spill") as connection:
        relation = land(raw, connection, config, folder / raw.slot)
        shown = "CASE WHEN regexp_matches({0}, '^\\d{{4}}-\\d\\d-\\d\\d') THEN TRY_CAST({0} AS TIMESTAMPTZ) END"
        tests = [
            f"count(nullif({one}, '')) > 0 AND count(nullif({one}, '')) = count({shown.format(one)})"
            for one in map(identifier, texts)
        ]
        (found,) = connection.execute(f"SELECT {', '.join(tests)} FROM {relation.sql}").fetchall()
    return [name for name, is_time in zip(texts, found, strict=True) if is_time]


def _whole(reading: Reading, name: str) -> str:
    """Return a reading as one expression over the file's own columns."""
    return f"({reading.value})".replace(wall_column(name), f"({reading.wall})")


def _limit(timed: Timed, day_only: str, cut_off: int, config: Config) -> str:
    """Return SQL of the instant from which a row, or a date in it, is not known before the cut-off."""
    limit = cut_off - timed.known_after
    if day_only == "FALSE" or not timed.known_after or timed.known_after % DAY:
        return str(limit)
    # A day is known once so many days have passed: by the cut-off, those that lie so many days before its own.
    days = timedelta(days=1 - timed.known_after // DAY)
    by_day = midnight(to_datetime(cut_off, config.zone).date() + days, config.zone)
    return f"CASE WHEN {day_only} THEN {by_day} ELSE {limit} END"


def _write(
    timed: Timed, cut_off: int | None, config: Config, connection: duckdb.DuckDBPyConnection, folder: Path
) -> tuple[Path, int]:
    """Write the rows of a table known before the cut-off; return the file and how many there are."""
    folder.mkdir()
    # A row without a readable time stays: nothing says that it came later.
    kept = {} if cut_off is None else {
        name: f"NOT coalesce({at} >= {_limit(timed, timed.day_only.get(name, 'FALSE'), cut_off, config)}, FALSE)"
        for name, at in timed.instants.items()
    }  # fmt: skip
    location, of_path = timed.location, timed.location.spec.query is None
    relation = land(location if of_path else replace(location, kept=kept), connection, config, folder / "landed")
    target = folder / ("rows.csv" if location.untyped else "rows.parquet")
    condition, columns = f" WHERE {kept['']}" if of_path and kept else "", "*"
    if cut_off is not None and timed.dates:
        late = {
            identifier(own): f"coalesce({at} >= {_limit(timed, day, cut_off, config)}, FALSE)"
            for own, (at, day) in timed.dates.items()
        }
        cut = ", ".join(f"CASE WHEN NOT {is_late} THEN {own} END AS {own}" for own, is_late in late.items())
        columns = f"* REPLACE ({cut})"
        # A row of which every date came later did not exist.
        all_late = " AND ".join(f"({is_late} OR {own} IS NULL)" for own, is_late in late.items())
        condition += f"{' AND' if condition else ' WHERE'} NOT ({all_late} AND ({' OR '.join(late.values())}))"
    how = "FORMAT csv, HEADER, DELIMITER ',', QUOTE '\"', ESCAPE '\"'" if location.untyped else "FORMAT parquet"

    def write(rows: Relation) -> int:
        copy = f"COPY (SELECT {columns} FROM {rows.sql}{condition}) TO {literal(target)} ({how})"
        ((number,),) = connection.execute(copy).fetchall()
        return int(number)

    return target, read_rows(location, relation, [*location.types], folder / "apart", write)
