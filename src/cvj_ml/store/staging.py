"""The first pass over a table: mapped rows, hashed into buckets, refused ones set apart with their reason."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from cvj_ml.config import Config, SourceSpec
from cvj_ml.schemas import CONTACT, TOUCHPOINT_ROLES
from cvj_ml.store.coming_dates import DateReading
from cvj_ml.store.currencies import Currency, map_currency, scale_of
from cvj_ml.store.fields import Field, Reading, map_fields, melt_sql, where_sql
from cvj_ml.store.instants import local_day, read_instant, read_occurrence, visible_at, wall_column
from cvj_ml.store.mapping import (
    SPELLING,
    casts_to_double,
    contact_field,
    kind_of,
    read_customer_id,
    read_id,
    read_ids,
    read_label,
    read_property,
    read_value,
    reason,
    roles_of_accounts,
)
from cvj_ml.store.nesting import first_ways, silent_ways
from cvj_ml.store.refusals import REFUSED, Counts, excess, nothing_left, told_silent
from cvj_ml.store.source_location import Relation, SourceLocation
from cvj_ml.store.sql import identifier, literal, to_utc
from cvj_ml.store.store import SourceColumn

_MELTED = '"__melted"'
"""The event and the date (``at``) that one row of a melted table is about."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A described table with its columns mapped: readings of the roles, fields of everything else.

    ``id_fields`` hold the customer ids, the first that is filled counts; ``id_family`` is what they are by type (text
    or a number); ``extras`` are properties or attributes; ``known`` says that a column tells when a row became known.
    Of touchpoints, ``occurred_at`` and ``visible_at`` are SQL over the readings and over ``local_day``, which is SQL
    over the readings; ``where`` is SQL of whether a row is one of the table, ``melted`` SQL of the list of events and
    dates that it holds, None where the row itself is one; ``dates`` are readings of those extras
    that are dates.
    """

    location: SourceLocation
    readings: Mapping[str, Reading]
    required: tuple[str, ...]
    extras: Mapping[str, Field]
    owns: tuple[Field, ...]
    id_fields: tuple[Field, ...]
    id_family: str | None
    known: bool
    local_day: str = "NULL"
    occurred_at: str | None = None
    visible_at: str | None = None
    where: str = "TRUE"
    melted: str | None = None
    currency: Currency | None = None
    every_day: str = "NULL"
    dates: Mapping[str, DateReading] = field(default_factory=dict)

    def rows(self, relation: Relation) -> str:
        """Return SQL to select the rows of the table from: without those left out, one for each date of a row."""
        rows = relation.sql if self.where == "TRUE" else f"(SELECT * FROM {relation.sql} WHERE {self.where})"
        return f"(SELECT *, unnest({self.melted}) AS {_MELTED} FROM {rows})" if self.melted else rows

    def read(self, relation: Relation, columns: Iterable[str] = (), walls: Iterable[str] = ()) -> str:
        """Return SQL of the rows' readings, ``<name>`` and ``<name>_there``, with more columns, over more walls."""
        times = [f"{one.wall} AS {wall_column(name)}" for name, one in self.readings.items() if one.wall is not None]
        values = [f"({one.value}) AS {name}" for name, one in self.readings.items()]
        values += [f"{one.there} AS {name}_there" for name, one in self.readings.items()]
        rows = f"SELECT {', '.join(['*', *times, *walls])} FROM {self.rows(relation)}"
        return f"SELECT {', '.join([*values, *columns])} FROM ({rows})"

    def left_out(self, relation: Relation, connection: duckdb.DuckDBPyConnection) -> int:
        """Return how many rows of the relation are none of the table."""
        if self.where == "TRUE" and self.melted is None:
            return 0
        kept = f"{self.where} AND {f'len({self.melted}) > 0' if self.melted else 'TRUE'}"
        ((number,),) = connection.execute(f"SELECT count(*) FROM {relation.sql} WHERE NOT ({kept})").fetchall()
        return int(number)

    def rows_in(self, relation: Relation, connection: duckdb.DuckDBPyConnection) -> int:
        """Return how many rows come in: of a melted table those that it becomes, and those that are left out."""
        if self.melted is None:
            return relation.rows(connection)
        ((number,),) = connection.execute(f"SELECT count(*) FROM {self.rows(relation)}").fetchall()
        return int(number) + self.left_out(relation, connection) + relation.unreadable

    def silent(self, relation: Relation, connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
        """Return the ways and the columns of ``melt`` in which nothing stands in any row, with the ways that exist."""
        spec = self.location.spec
        dates = set(spec.melt.values()) if isinstance(spec, SourceSpec) else set()
        asked = [one for one in self.owns if one.way or one.own in dates]
        rows = relation.sql if self.where == "TRUE" else f"(SELECT * FROM {relation.sql} WHERE {self.where})"
        return silent_ways(self.location, asked, rows, connection)

    def columns(self) -> dict[str, SourceColumn]:
        """Return every column of the table, what kind it is, and whether it is read."""
        read = {one.own for one in self.owns}
        kinds = {
            name: Field("", kind, self.location.untyped, name).family for name, kind in self.location.types.items()
        }
        numbers = ("integer", "float", "decimal")
        return {
            name: {"kind": "number" if kind in numbers else kind, "read": name in read} for name, kind in kinds.items()
        }


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged table: where its buckets are, and its counts so far, with those of files that were read before.

    ``silent`` are the ways and dates of ``melt`` that found nothing in any row, with the ways that there are.
    """

    folder: Path
    rows_in: int
    refused: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    silent: Mapping[str, list[str]] = field(default_factory=dict)

    def files(self, bucket: int) -> list[Path]:
        """Return the staged files of one bucket."""
        return sorted((self.folder / f"bucket={bucket}").glob("*.parquet"))

    def pattern(self) -> str:
        """Return a glob of all good rows' files."""
        return f"{glob.escape(str(self.folder))}/bucket=[0-9]*/*.parquet"

    @property
    def has_rows(self) -> bool:
        """Whether any good row was staged."""
        return any(self.folder.glob("bucket=[0-9]*"))

    def joined(self, counts: Counts, silent: Mapping[str, list[str]]) -> Staged:
        """Return the same rows, counted together with those of files that were read before."""
        refused = Counter(self.refused) + Counter(counts.refused)
        both = {way: first_ways([*there, *self.silent.get(way, ())]) for way, there in silent.items()}
        both = {way: there for way, there in both.items() if not self.rows_in or way in self.silent}
        rows, left_out = self.rows_in + counts.rows_in, self.left_out + counts.left_out
        return Staged(self.folder, rows, dict(refused), left_out, both)

    @property
    def accepted(self) -> int:
        """The number of rows neither refused nor left out."""
        return self.rows_in - sum(self.refused.values()) - self.left_out


def map_source(location: SourceLocation, spec: SourceSpec, config: Config, faults: list[str]) -> Mapped:
    """Map the columns of a touchpoint source, adding what is wrong to the faults."""
    needed = ("customer_id", "occurred_at", "event")
    label = location.label
    named, roles = dict(spec.single), tuple(TOUCHPOINT_ROLES)
    required = list(needed)
    if spec.melt:
        roles, required = ("customer_id", "channel", "known_at"), ["customer_id"]
    if config.unit == "account":
        roles, required = roles_of_accounts(label, spec.single, {*location.types}, roles, required, faults)
    several = [] if "customer_id" in spec.single else list(spec.ids)
    if several:
        roles, required = tuple({*roles} - {"customer_id"}), [one for one in required if one != "customer_id"]
    fields = map_fields(location, named, spec.constants, roles, required, faults)
    if several:
        mapped = map_fields(location, {f"customer_id: {own}": own for own in several}, {}, (), (), faults)
        ids = tuple(mapped.values())
    else:
        ids = tuple(one for name, one in fields.items() if name == "customer_id")
    contact = fields.get(CONTACT) if config.unit == "account" else None
    where, asked = where_sql(location, spec.where, faults)
    currency = map_currency(location, spec, faults)
    asked += [currency.field] if currency else []
    melted = None
    if spec.melt:
        melted, kind, dates = melt_sql(location, spec.melt, faults)
        asked += dates
        fields["event"] = Field(f"{_MELTED}.event", "VARCHAR", True, None)
        fields["occurred_at"] = Field(f"{_MELTED}.at", kind, location.untyped, None)
    readings: dict[str, Reading] = {}
    null, no_number = Reading("CAST(NULL AS VARCHAR)"), Reading("CAST(NULL AS BIGINT)")
    readings["touchpoint_id"] = null
    owned = owned_fields([*fields.values(), *ids])
    readings |= read_ids(label, ids, contact, config, faults)
    if "touchpoint_id" in fields:
        readings["touchpoint_id"] = read_id(label, "touchpoint_id", fields["touchpoint_id"], faults)
    if contact:
        fields[CONTACT] = contact_field(contact, read_customer_id(label, contact, config, []))
    for name in ("event", "channel"):
        readings[name] = read_label(label, name, fields[name], faults) if name in fields else null
    required = list(needed)
    readings["occurred_at"], readings["date_only"] = no_number, Reading("FALSE")
    if "occurred_at" in fields:
        times = read_occurrence(label, fields["occurred_at"], spec, config, faults)
        readings["occurred_at"], readings["date_only"] = times
    readings["known_at"] = no_number
    known = "known_at" in fields
    if known:
        readings["known_at"] = read_instant(label, "known_at", fields["known_at"], spec, config, faults)
        if spec.known_after is not None:
            faults.append(f"{label}: it has a column for known_at and known_after; keep one of them")
        # To read a missing known_at as "at once" would let late rows into the past.
        required.append("known_at")
    readings["value"] = no_number
    if "value" in fields:
        scale = scale_of(currency, spec, config.value_decimals)
        readings["value"] = read_value(label, fields["value"], spec, config.value_decimals, faults, scale)
    elif spec.currency is not None or spec.minor_units:
        faults.append(f"{label}: currency and minor_units say how values are written, and there is no column for value")
    extras = {name: fields[name] for name in fields if name not in TOUCHPOINT_ROLES}
    return Mapped(
        location,
        readings,
        tuple(required),
        extras,
        (*owned, *owned_fields(asked)),
        (*ids, contact) if contact else ids,
        id_family(ids, faults, label, config),
        known,
        # Hours that mean nothing do not make a row known earlier than they say.
        local_day("occurred_at", config) if readings["date_only"].value != "FALSE" else "NULL",
        to_utc("local_day", config.time_zone) if spec.resolution == "day" else "occurred_at",
        visible_at(spec, config, known=known),
        where,
        melted,
        currency,
        local_day("occurred_at", config),
    )


def kinds_of(mapped: Mapped, relation: Relation, connection: duckdb.DuckDBPyConnection) -> dict[str, str | None]:
    """Return double or string for every property or attribute of a table; None where it has no value at all."""
    kinds = {name: "double" if name in mapped.dates else kind_of(one) for name, one in mapped.extras.items()}
    asked = [name for name, one in mapped.extras.items() if kinds[name] is None and one.untyped]
    if asked:
        tests = ", ".join(casts_to_double(mapped.extras[name], mapped.location.spec) for name in asked)
        row = connection.execute(f"SELECT {tests} FROM {mapped.rows(relation)}").fetchall()[0]
        kinds |= {name: "double" if numeric else "string" for name, numeric in zip(asked, row, strict=True)}
    return kinds


def join_kinds(tables: Iterable[Mapping[str, str | None]]) -> dict[str, str]:
    """Return the kind of every property or attribute: text in one table makes it text in all."""
    found: dict[str, set[str | None]] = {}
    for kinds in tables:
        for name, kind in kinds.items():
            found.setdefault(name, set()).add(kind)
    return {name: "string" if "string" in kinds else "double" for name, kinds in sorted(found.items())}


def stage(
    mapped: Mapped,
    relation: Relation,
    kinds: Mapping[str, str],
    bucket: str,
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
) -> Staged:
    """Write mapped rows to ``folder``, one sub-folder a ``bucket`` (SQL); extras are columns x0, x1 … as in kinds.

    Instants are microseconds. Refused rows go to a bucket of their own, with ``reason`` and ``row`` as JSON text.
    """
    dated = [(f"date_{i}", one.instant.wall) for i, one in enumerate(mapped.dates.values())]
    walls = [f"{wall} AS {wall_column(name)}" for name, wall in dated if wall is not None]
    columns, unreadable = list[str](), dict[str, str]()
    for index, (name, kind) in enumerate(kinds.items()):
        value = Reading(f"CAST(NULL AS {'DOUBLE' if kind == 'double' else 'VARCHAR'})")
        if date := mapped.dates.get(name):
            value = date.instant
        elif extra := mapped.extras.get(name):
            value = read_property(extra, kind, mapped.location.spec)
        columns.append(f"{value.value} AS x{index}")
        if value.there != "FALSE":
            columns.append(f"{value.there} AS x{index}_there")
            unreadable[f"x{index}_there"] = name
    # The row is shown as it stands in the file, with what means an empty cell.
    plain = [replace(one, raw=identifier(one.own)) for one in mapped.owns if one.own is not None]
    owned = {str(one.own): f"coalesce({one.text}, CAST({one.raw} AS VARCHAR))" for one in plain}
    as_json = ", ".join(f"{literal(name)}: {text}" for name, text in owned.items())
    columns += [f"{{{as_json}}} AS raw"]
    days = {i: mapped.dates[name].day(f"x{i}") for i, name in enumerate(kinds) if name in mapped.dates}
    kept = [*mapped.readings, *(f"{days.get(i, f'x{i}')} AS x{i}" for i in range(len(kinds))), "reason"]
    if mapped.occurred_at is not None:
        kept = [name for name in kept if name not in ("occurred_at", "known_at")]
        kept += [f"{mapped.occurred_at} AS occurred_at", f"{mapped.visible_at} AS visible_at"]
    why = reason(mapped.readings, mapped.required, unreadable)
    columns += [f"{mapped.currency.code} AS code"] if mapped.currency else []
    read = mapped.read(relation, columns, walls)
    if mapped.currency:
        read, why = mapped.currency.converted(read, mapped.every_day, connection), f"coalesce(currency_fault, {why})"
    folder.mkdir(parents=True)
    connection.execute(
        f"COPY (SELECT {', '.join(kept)}, CASE WHEN reason IS NULL THEN {bucket} ELSE {REFUSED} END AS bucket,"
        f" CASE WHEN reason IS NOT NULL THEN CAST(to_json(raw) AS VARCHAR) END AS row"
        f" FROM (SELECT *, {why} AS reason, {mapped.local_day} AS local_day FROM ({read})))"
        f" TO {literal(folder)} (FORMAT parquet, PARTITION_BY (bucket), COMPRESSION lz4_raw)"
    )
    left_out = mapped.left_out(relation, connection)
    written = sum(pq.read_metadata(path).num_rows for path in folder.glob("bucket=*/*.parquet"))
    silent = mapped.silent(relation, connection)
    staged = Staged(folder, written + relation.unreadable + left_out, left_out=left_out, silent=silent)
    for path in staged.files(REFUSED):
        reasons = pq.read_table(path, columns=["reason"], partitioning=None)["reason"]
        for item in reasons.value_counts().to_pylist():
            staged.refused[item["values"]] = staged.refused.get(item["values"], 0) + item["counts"]
    if relation.unreadable:
        staged.refused["unreadable line"] = relation.unreadable
    return staged


def row_faults(config: Config, staged: Mapping[str, Staged], may_be_empty: Collection[str]) -> list[str]:
    """Return the tables of which too much was refused, or nothing is left."""
    faults: list[str] = []
    for label, one in staged.items():
        too_many = excess(label, one.rows_in - one.left_out, one.refused, config.refused_share)
        if too_many and one.refused.get("unreadable stage"):
            too_many = [f"{fault}; the journey's stages are {', '.join(config.journey.names)}" for fault in too_many]
        faults += too_many
        # That nobody has a second id, or an account, yet is no fault.
        if not one.accepted and not too_many and (one.rows_in or label not in may_be_empty):
            faults.append(nothing_left(label, one.rows_in, one.refused, one.left_out, told_silent(one.silent)))
    return faults


def folded_together(staged: Mapping[str, Staged], connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the fault of touchpoint sources in which different ids are read as one.

    Ids that differ by capital letters alone are one customer in one business and two in another.
    """
    parts = [
        f"SELECT DISTINCT {literal(label)} AS source, customer_id, {SPELLING}"
        f" FROM read_parquet({literal(one.pattern())}, hive_partitioning=false)"
        for label, one in staged.items()
        if one.has_rows
    ]
    if not parts:
        return []
    written = f"WITH written AS ({' UNION ALL '.join(parts)})"
    several = f"SELECT customer_id FROM written GROUP BY customer_id HAVING min({SPELLING}) <> max({SPELLING})"
    number, sources = connection.execute(
        f"{written} SELECT count(DISTINCT customer_id), list(DISTINCT source) FROM written"
        f" WHERE customer_id IN ({several})"
    ).fetchall()[0]
    if not number:
        return []
    return [
        f"{' and '.join(sorted(sources))}: {number} customer(s) would be made of several different ids by ids.match"
        " folded. Ids that differ by capital letters alone are often different people, as a CRM's of 15 characters"
        " are: say match: trimmed. If they are the same people, write them alike in the source (a query can)"
    ]


def mixed_ids(config: Config, families: Mapping[str, str | None]) -> list[str]:
    """Return the fault of customer ids that are a number in one table and text in another."""
    if config.ids.text or len(set(families.values()) - {None}) < 2:
        return []
    found = ", ".join(f"{family} in {label}" for label, family in families.items() if family)
    return [
        f"customer_id is {found}: 7 and 007 may or may not be one customer. If the ids agree when numbers are written"
        " in decimal, say ids: text; else convert them in a query"
    ]


def owned_fields(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Return the fields that come from a column of the table."""
    return tuple(one for one in fields if one.own is not None)


def id_family(ids: Sequence[Field], faults: list[str], label: str, config: Config) -> str | None:
    """Return what the customer ids are: text, a number, or None where none is there; add where they are both."""
    found = {one.name: "text" if one.family == "text" else "a number" for one in ids if one.family != "null"}
    faults += [f"{label}: {fault}" for fault in mixed_ids(config, {f"{name}": one for name, one in found.items()})]
    return next(iter(found.values()), None)
