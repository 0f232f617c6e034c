"""How a time of a source becomes an instant: SQL for its microseconds, its day, and when the row became visible."""

from __future__ import annotations

import re

from cvj_ml.config import DAY, EPOCHS, Config, SourceSpec, TableSpec, counted_since, is_absolute
from cvj_ml.store.fields import Field, Reading
from cvj_ml.store.sql import has_offset, literal, to_local, to_utc, with_offset, without_offset

_MICROSECONDS = {"epoch s": 1_000_000, "epoch ms": 1_000, "epoch us": 1}
"""By what a number of the configuration's EPOCHS becomes microseconds."""

# Instants outside the years 1 to 9999 are no dates that a business can mean, and overflow elsewhere.
_YEARS = "BETWEEN -62135596800000000 AND 253402300799999999"


def read_instant(label: str, name: str, field: Field, spec: TableSpec, config: Config, faults: list[str]) -> Reading:
    """Return an instant as microseconds; naive times are in the source's zone, a date is its midnight.

    ``time_format`` says how text and numbers are read; typed columns need none.
    """
    zone = {"local": config.time_zone, "utc": "UTC"}.get(spec.times, spec.times)
    raw = field.raw
    wall_name = wall_column(name)
    naive = f"CASE WHEN {wall_name} {_YEARS} THEN {to_utc(wall_name, zone)} END"
    utc = f"CASE WHEN {wall_name} {_YEARS} THEN {wall_name} END"
    if spec.time_format and field.family in ("text", "integer", "float", "decimal"):
        written = field.text if field.family == "text" else raw
        there = f"(nullif(trim(CAST({written} AS VARCHAR)), '') IS NOT NULL OR {field.undecodable})"
        wall = formatted_instant(written, spec.time_format)
        return Reading(utc if is_absolute(spec.time_format) else naive, there, wall)
    match field.family:
        case "zoned" | "naive" | "date":
            value = utc if field.family == "zoned" else naive
            return Reading(value, f"({raw} IS NOT NULL)", instant_of(field))
        case "text":
            text = f"nullif(trim({field.text}), '')"
            offset, zoned = has_offset(text), with_offset(text)
            wall = f"CASE WHEN NOT {offset} THEN {without_offset(text)} END"
            value = f"CASE WHEN {offset} THEN CASE WHEN {zoned} {_YEARS} THEN {zoned} END ELSE {naive} END"
            return Reading(value, f"({text} IS NOT NULL OR {field.undecodable})", wall)
        case "null":
            return Reading("CAST(NULL AS BIGINT)")
    faults.append(
        f"{label}: {name} is {field.type}; give a timestamp, a date or ISO 8601 text, or say how it is written:"
        " time_format: epoch s (or ms, us, ns), days since 2017-01-01 and the like, or a pattern such as %Y%m%d"
    )
    return Reading("CAST(NULL AS BIGINT)")


def tells_day_only(field: Field, spec: TableSpec) -> str:
    """Return SQL for whether a value of a time has no hours, by its type, its format or as it is written."""
    if (isinstance(spec, SourceSpec) and spec.resolution == "day") or field.family == "date":
        return "TRUE"
    if field.family in ("text", "integer", "float", "decimal") and spec.time_format:
        if counted := counted_since(spec.time_format):
            number = _exact(field.text if field.family == "text" else field.raw)
            return "FALSE" if counted[0] % DAY else f"coalesce({number} = floor({number}), FALSE)"
        hours = spec.time_format in EPOCHS or re.search("%[HI]", spec.time_format.replace("%%", ""))
        return "FALSE" if hours else "TRUE"
    return f"coalesce(strpos({field.text}, ':') = 0, FALSE)" if field.family == "text" else "FALSE"


def read_occurrence(
    label: str, field: Field, spec: SourceSpec, config: Config, faults: list[str]
) -> tuple[Reading, Reading]:
    """Return the readings of ``occurred_at`` and ``date_only``.

    ``times`` says in which zone hours are; a date that is written without any is a day of the business's own calendar.
    """
    day_only = tells_day_only(field, spec)
    instant = read_instant(label, "occurred_at", field, spec, config, faults)
    unwritten = tells_day_only(field, spec.model_copy(update={"resolution": None}))
    if unwritten != "FALSE" and spec.times not in ("local", config.time_zone):
        local = read_instant(label, "occurred_at", field, spec.model_copy(update={"times": "local"}), config, [])
        value = f"CASE WHEN {unwritten} THEN {local.value} ELSE {instant.value} END"
        instant = Reading(value, instant.there, instant.wall)
    return instant, Reading(day_only)


def local_day(instant: str, config: Config) -> str:
    """Return SQL for the wall time (microseconds) at which the local day of an instant begins."""
    wall = f"make_timestamp({to_local(instant, config.time_zone)})"
    return f"epoch_us(CAST(date_trunc('day', {wall}) AS TIMESTAMP))"


def visible_at(spec: SourceSpec, config: Config, *, known: bool) -> str:
    """Return SQL over the readings of a touchpoint (and ``local_day``) for the instant from which it is visible.

    What happened some time on a day and is known so many days later is known just before the midnight that ends the
    last of them: a question asked at that midnight, which sees what came before it, sees the row.
    """
    if known:
        return "greatest(occurred_at, known_at)"
    if spec.known_after is None:
        return "occurred_at"
    later = f"occurred_at + {spec.known_after}"
    if spec.known_after % DAY:
        return later
    end = to_utc(f"(local_day + {spec.known_after})", config.time_zone)
    return f"CASE WHEN date_only THEN {end} - 1 ELSE {later} END"


def instant_of(field: Field) -> str:
    """Return SQL for the microseconds of a typed time or date, null where it is beyond all calendars.

    Nanoseconds are cut off: to round them could carry an event over a midnight.
    """
    if "_NS" in field.type:
        return _cut(f"epoch_ns({field.raw})")
    kind = "TIMESTAMPTZ" if field.family == "zoned" else "TIMESTAMP"
    return f"epoch_us(TRY_CAST({field.raw} AS {kind}))"


def _cut(nanoseconds: str) -> str:
    return f"({nanoseconds} // 1000 - CAST({nanoseconds} % 1000 < 0 AS INTEGER))"


def formatted_instant(raw: str, time_format: str) -> str:
    """Return SQL for the microseconds that text or a number means by a ``time_format``, null where it does not fit."""
    number = _exact(raw)
    if counted := counted_since(time_format):
        one, nought = counted
        return f"TRY_CAST(TRY(round({number} * {one}) + {nought}) AS BIGINT)"
    if time_format in _MICROSECONDS:
        return f"TRY_CAST(TRY(round({number} * {_MICROSECONDS[time_format]})) AS BIGINT)"
    if time_format in EPOCHS:
        return f"TRY_CAST({_cut(f'CAST(floor({number}) AS HUGEINT)')} AS BIGINT)"
    return f"epoch_us(TRY_STRPTIME(trim(CAST({raw} AS VARCHAR)), {literal(time_format)}))"


def _exact(raw: str) -> str:
    return f"TRY_CAST({raw} AS DECIMAL(38, 9))"


def wall_column(name: str) -> str:
    """Return the name of the column that holds the wall time of an instant."""
    return f"__wall_{name}"
