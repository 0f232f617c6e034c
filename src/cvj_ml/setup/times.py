"""How times are written in a column, and what they are as microseconds: text, numbers, months."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import duckdb
import numpy as np

from cvj_ml.config import EPOCHS, counted_since
from cvj_ml.setup.columns import MOSTLY, ColumnProfile, text_of, words
from cvj_ml.store.fields import Field
from cvj_ml.store.instants import formatted_instant
from cvj_ml.store.sql import has_offset, literal, written_instant

_DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
_CLOCKS = (
    "", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", "T%H:%M:%S.%f", ", %H:%M",
    ", %H:%M:%S", ", %I:%M %p", ", %I:%M:%S %p",
)  # fmt: skip
_FORMATS = tuple(
    date + clock + zone for date in _DATES for clock in _CLOCKS for zone in ("", " %z", "%z") if clock or not zone
)
"""Ways to write a time other than ISO 8601 that are looked for; where several fit, the first."""

_MONTH_FORMATS = ("%Y-%m", "%Y/%m", "%Y.%m", "%m/%Y", "%m-%Y", "%m.%Y", "%b-%Y", "%b %Y", "%B %Y", "%Y%m")
"""Ways to write a month without a day."""

SPREADSHEET = "days since 1899-12-30"
"""How spreadsheets count days."""

_SHAPES = {
    "%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{1,2}", "%d": r"\d{1,2}", "%b": r"[^\W\d]+", "%B": r"[^\W\d]+",
    "%H": r"\d{1,2}", "%I": r"\d{1,2}", "%M": r"\d{1,2}", "%S": r"\d{1,2}", "%f": r"\d+", "%p": "[AaPp][Mm]",
    "%z": r"(Z|[+-]\d\d:?(\d\d)?)",
}  # fmt: skip

_SAMPLE = 500
"""Values by which formats are sorted out before all rows are asked."""
_TIMES = frozenset(
    words(
        "time timestamp ts unixtime date datetime day at on when epoch unix created datum zeit fecha hora data heure"
        " jour"
    )
)
"""Words in the names of columns whose whole numbers can be times."""

_CLOCK = frozenset(words("hour minute second dow weekday of since prior duration"))
"""Words in the names of columns whose numbers are of one day, or of what went before, and count from no day."""

_MONTHS = frozenset(words("month yearmonth yyyymm ym period monat mes mois maand mese periode periodo"))
"""Words in the names of columns whose whole numbers can be months, as in 202401."""

_SINCE, _COUNTED_SINCE, _UNTIL = (
    int(np.datetime64(day, "us").astype(np.int64)) for day in ("1900-01-01", "1990-01-01", "2100-01-01")
)
"""What a format reads is taken for a time from the first on, a mere number from the second, both until the last."""


def written_time(
    found: ColumnProfile, written: int, text: str, rows: str, connection: duckdb.DuckDBPyConnection
) -> ColumnProfile | None:
    """Return a text column as times: by ISO 8601, by one format, or by two; None where too few of its rows fit."""
    enough = MOSTLY * found.filled
    fits: dict[str | None, int] = {None: written}
    if written < enough:
        fits |= _fitting(text, _FORMATS, rows, connection)
    best = max(fits, key=lambda one: (fits[one], one is None))
    read, moment = fits[best], _reads(text, best)
    if read < found.filled:
        left = f"(FROM {rows} WHERE {moment} IS NULL)"
        rest: dict[str | None, int] = dict(_fitting(text, [one for one in _FORMATS if one != best], left, connection))
        if best is not None:
            rest |= {None: connection.execute(f"SELECT count({written_instant(text)}) FROM {left}").fetchall()[0][0]}
        second = max(rest, key=lambda one: (rest[one], one is None), default=None)
        if rest.get(second):
            found = replace(found, also=(second, rest[second]))
            read, moment = read + rest[second], f"coalesce({moment}, {_reads(text, second)})"
    if read < enough:
        return None
    equal = [one for one in fits if one not in (best, None) and fits[one] == fits[best]]
    rival = next((one for one in equal if one and _differ(text, best, one, rows, connection)), None)
    found = replace(
        found, kind="time", time_format=best, or_format=rival, zoned="%z" in (best or ""), unread=found.filled - read
    )
    if best is None:
        offsets = f"SELECT count(*) FROM {rows} WHERE {has_offset(text)}"
        ((named,),) = connection.execute(offsets).fetchall()
        found = replace(found, zoned=named == found.filled, offsets=named)
    return with_span(found, moment, rows, connection)


def _reads(text: str, time_format: str | None) -> str:
    return written_instant(text) if time_format is None else formatted_instant(text, time_format)


def _differ(text: str, one: str | None, other: str, rows: str, connection: duckdb.DuckDBPyConnection) -> bool:
    unlike = f"SELECT bool_or({_reads(text, one)} <> {_reads(text, other)}) FROM {rows}"
    return bool(connection.execute(unlike).fetchall()[0][0])


def _fitting(
    text: str, formats: Sequence[str], rows: str, connection: duckdb.DuckDBPyConnection, since: int = _SINCE
) -> dict[str | None, int]:
    """Return the formats by which rows are times of a possible year, with how many; none that reads no row."""
    sample = f"SELECT DISTINCT {text} AS v FROM {rows} WHERE {text} IS NOT NULL ORDER BY hash(v) LIMIT {_SAMPLE}"
    values = [str(value) for (value,) in connection.execute(sample).fetchall()]
    counting = [one for one in formats if one in EPOCHS or counted_since(one)]
    candidates = [one for one in formats if one in counting or any(map(_shape(one).fullmatch, values))]
    if not candidates:
        return {}
    fits = ", ".join(
        f"count(*) FILTER (WHERE {formatted_instant(text, one)} BETWEEN {since} AND {_UNTIL})" for one in candidates
    )
    (counted,) = connection.execute(f"SELECT {fits} FROM {rows}").fetchall()
    return {one: read for one, read in zip(candidates, counted, strict=True) if read}


@cache
def _shape(time_format: str) -> re.Pattern[str]:
    """Return what text of a format can look like, to ask only about formats that a sample could have."""
    parts = re.split(r"(%.)", time_format)
    shape = "".join(_SHAPES[one] if one in _SHAPES else re.escape(one) for one in parts)
    return re.compile(rf"\s*{shape}\s*")


def counted_time(
    found: ColumnProfile, text: str, rows: str, connection: duckdb.DuckDBPyConnection
) -> ColumnProfile | None:
    """Return a column of numbers as times, if its name says one: since 1970, dates in digits, a spreadsheet's days."""
    named = set(words(found.name))
    if named & _MONTHS and (whole := months(found, text, rows, connection)):
        return whole
    if not named & _TIMES:
        return None  # an id or an amount can lie anywhere
    written = (EPOCHS, _COUNTED_SINCE), (("%Y%m%d", "%Y%m%d%H%M%S"), _SINCE), ((SPREADSHEET,), _COUNTED_SINCE)
    for formats, since in written:
        fits = _fitting(text, formats, rows, connection, since)
        best = max(fits, key=lambda one: fits[one], default=None)
        if best and fits[best] >= MOSTLY * found.filled:
            others = [one for one in fits if one != best and fits[one] == fits[best]]
            left = found.filled - fits[best] if best not in EPOCHS else 0  # a count has a time, however long ago
            timed = replace(found, kind="time", time_format=best, or_format=others[0] if others else None, unread=left)
            return with_span(timed, formatted_instant(text, best), rows, connection)
    return None


def months(found: ColumnProfile, text: str, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile | None:
    """Return a column of months as the times at which they end; None where too few of its rows are any."""
    digits = found.type != "VARCHAR" or bool({*words(found.name)} & _MONTHS)
    formats = [one for one in _MONTH_FORMATS if digits or one != "%Y%m"]
    fits = _fitting(text, formats, rows, connection, _COUNTED_SINCE)
    best = max(fits, key=lambda one: fits[one], default=None)
    if best is None or fits[best] < MOSTLY * found.filled:
        return None
    moment = f"epoch_us(CAST({month_sql(text, best)} AS TIMESTAMP))"
    timed = replace(found, kind="time", time_format=best, monthly=True, unread=found.filled - fits[best])
    return with_span(timed, moment, rows, connection)


def month_sql(text: str, time_format: str) -> str:
    """Return SQL for the last day of a month: what is told of a month is known when it is over."""
    return f"last_day(TRY_STRPTIME(trim(CAST({text} AS VARCHAR)), {literal(time_format)}))"


def may_count(column: ColumnProfile) -> bool:
    """Return whether a column of numbers could count days or hours from a day that no row tells, by its name."""
    said = {*words(column.name)}
    return (
        column.kind == "number" and column.whole and column.distinct > 2 and bool(said & _TIMES) and not said & _CLOCK
    )


def timed(
    found: ColumnProfile, field: Field, time_format: str, rows: str, connection: duckdb.DuckDBPyConnection
) -> ColumnProfile:
    """Return a column as times in the format that a person told; what does not fit is ``unread``."""
    text = text_of(field)
    moment = formatted_instant(text, time_format)
    ((read,),) = connection.execute(
        f"SELECT count(*) FILTER (WHERE {moment} BETWEEN {_SINCE} AND {_UNTIL}) FROM {rows}"
    ).fetchall()
    plain = ColumnProfile(found.name, "time", found.type, found.filled, found.distinct, most=found.most, way=found.way)
    told = replace(plain, time_format=time_format, zoned="%z" in time_format, unread=found.filled - read)
    return with_span(told, moment, rows, connection)


def with_span(found: ColumnProfile, moment: str, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    """Return a column of times with when they begin and end; moment: SQL of a row's microseconds."""
    now = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1_000_000)
    likely = f"us BETWEEN {_COUNTED_SINCE} AND {now}"
    first, last, ahead, ancient, days = connection.execute(
        f"SELECT make_timestamp(min(us) FILTER (WHERE {likely})), make_timestamp(max(us) FILTER (WHERE {likely})),"
        f" count(*) FILTER (WHERE us > {now}), count(*) FILTER (WHERE us < {_COUNTED_SINCE}),"
        f" bool_and(us % 86400000000 = 0) FROM (SELECT {moment} AS us FROM {rows})"
    ).fetchall()[0]
    return replace(found, first=first, last=last, ahead=ahead, ancient=ancient, days_only=bool(days), moment=moment)
