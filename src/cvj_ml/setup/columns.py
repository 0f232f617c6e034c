"""What the columns of a table look like: enough to guess what each of them means, counted exactly."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import Literal

import duckdb
import numpy as np

from cvj_ml.config import EPOCHS, DecimalMark
from cvj_ml.schemas import TOUCHPOINT_ROLES
from cvj_ml.store.fields import Field
from cvj_ml.store.mapping import formatted_instant, instant_of, plain_number
from cvj_ml.store.sql import has_offset, identifier, literal, written_instant


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case, without accents: ``InvoiceDate`` is ``invoice date``."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", parted) if not unicodedata.combining(sign))
    return tuple(re.findall(r"[^\W\d_]+|\d+", plain.casefold()))


def property_names(columns: Iterable[str]) -> dict[str, str]:
    """Return column to its name as a property: its words, each once, and never a role's.

    A column ``value`` that was found to be no value is ``value_as_written``; a second ``plan type`` is ``plan_type_2``.
    """
    found: dict[str, str] = {}
    for one in columns:
        name = "_".join(words(one)) or "column"
        name = f"{name}_as_written" if name in TOUCHPOINT_ROLES else name
        taken = {*found.values()}
        copies = (f"{name}_{number}" for number in count(2))
        found.setdefault(one, name if name not in taken else next(copy for copy in copies if copy not in taken))
    return found


Kind = Literal["time", "number", "text", "other"]

NAMES = 200
"""A column of at most so many different texts has them counted."""

PLACEHOLDERS = frozenset(
    [
        "null", "(null)", "<null>", "undefined", "nan", "none", "(none)", "nil", "\\n", "na", "n/a", "#n/a", "#ref!",
        "#value!", "(not set)", "not set", "[object object]", "unknown", "(unknown)", "anonymous", "guest", "missing",
        "empty", "(empty)", "blank", "(blank)", "-", "--", "?", "false", "true", "test", "deleted", "[deleted]",
        "not available",         "(not provided)", "unbekannt", "inconnu", "desconocido", "onbekend",
        "00000000-0000-0000-0000-000000000000",
        "{{user_id}}", "${user_id}", "%user_id%", "0", "-1",
    ]
)  # fmt: skip
"""What systems write, in lower case, where they do not know who it was."""

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

_DATELIKE = (
    r"^\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{8}(\d{6})?$|\d{1,2}[ -][[:alpha:]]{3,9}\.?[ ,-]"
    r"|[[:alpha:]]{3,9}\.? \d{1,2},? )"
)

_SHAPES = {
    "%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{1,2}", "%d": r"\d{1,2}", "%b": r"[^\W\d]+", "%B": r"[^\W\d]+",
    "%H": r"\d{1,2}", "%I": r"\d{1,2}", "%M": r"\d{1,2}", "%S": r"\d{1,2}", "%f": r"\d+", "%p": "[AaPp][Mm]",
    "%z": r"(Z|[+-]\d\d:?(\d\d)?)",
}  # fmt: skip

_NAME = "[[:upper:]][[:alpha:]'’.-]*"
_PERSON = f"{_NAME}( {_NAME})+ ?[0-9]*"
"""Names of people and of firms, with a number behind where there are several: ``Anna Berg``, ``J. DUPONT``."""

_MARKS: tuple[DecimalMark | None, ...] = (None, ",", ".")
_SAMPLE = 500
"""Values by which formats are sorted out before all rows are asked."""
_MOSTLY = 0.95
"""Of the values of a column so many have to be times, or numbers, that the others are taken for faults."""

_TIMES = frozenset(
    words("time timestamp ts date datetime day at on when epoch unix created datum zeit fecha hora data heure jour")
)
"""Words in the names of columns whose whole numbers can be times."""

_SINCE, _COUNTED_SINCE, _UNTIL = (
    int(np.datetime64(day, "us").astype(np.int64)) for day in ("1900-01-01", "1990-01-01", "2100-01-01")
)
"""What a format reads is taken for a time from the first on, a mere number from the second, both until the last."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column: what it holds, in how many rows, and how many different values.

    ``names`` counts the values of a column of few different texts; ``most`` are the rows of the commonest value;
    ``negative`` are the rows below zero; ``unread`` are the rows that hold something else than the kind says.
    Between ``first`` and ``last``, in the file's own clock, lie the rows of a time that are neither of the future
    (``ahead``) nor from before 1990 (``ancient``). ``time_format`` and ``decimal_mark`` are what the configuration
    has to say of text that is a time, or a number; ``or_format`` fits all rows as well, and ``also`` reads rows that
    ``time_format`` does not. ``pointed`` are whole numbers that text writes as ``12.0``, ``scientific`` as
    ``1.2E+15``. ``placeholders`` are values that mean nobody, with their rows; ``emails`` and ``people`` are the
    values that look like an address, or like somebody's name.
    """

    name: str
    kind: Kind
    type: str
    filled: int
    distinct: int
    whole: bool = False
    negative: int = 0
    unread: int = 0
    most: int = 0
    names: Mapping[str, int] | None = None
    first: datetime | None = None
    last: datetime | None = None
    ahead: int = 0
    ancient: int = 0
    days_only: bool = False
    zoned: bool = False
    time_format: str | None = None
    or_format: str | None = None
    also: tuple[str | None, int] | None = None
    decimal_mark: DecimalMark | None = None
    pointed: bool = False
    scientific: int = 0
    placeholders: Mapping[str, int] | None = None
    emails: int = 0
    people: int = 0
    moment: str = ""
    """SQL of a time's microseconds."""
    way: str | None = None
    """SQL of what stands in a nested column, of which the name is the way into it."""

    @property
    def sql(self) -> str:
        """Return SQL of the column in a query over the file."""
        return self.way or identifier(self.name)

    @property
    def nobody(self) -> int:
        """Return the rows that hold a placeholder."""
        return sum((self.placeholders or {}).values())

    @property
    def somebody(self) -> int:
        """Return the rows that hold anything but a placeholder."""
        return self.filled - self.nobody

    @property
    def ids(self) -> int:
        """Return how many different values there are but for placeholders."""
        return self.distinct - len(self.placeholders or ())


def profile_columns(
    fields: Sequence[Field], rows: str, connection: duckdb.DuckDBPyConnection
) -> tuple[ColumnProfile, ...]:
    """Describe all columns of a relation; what can be counted for all is counted in one pass."""
    plain = [one for one in fields if one.family != "other"]
    asked = [test for one in plain for test in _tests(one)]
    counts = iter(connection.execute(f"SELECT {', '.join(asked)} FROM {rows}").fetchall()[0]) if asked else iter(())
    found = []
    for field in fields:
        if field.family == "other":
            found.append(_other(field, rows, connection))
        else:
            found.append(_column(field, [next(counts) for _ in _tests(field)], rows, connection))
    return tuple(found)


def _text(field: Field) -> str:
    return f"nullif({field.text}, '')"


def _tests(field: Field) -> list[str]:
    """Return the SQL of what is counted in every column of a kind."""
    text = _text(field)
    tests = [f"count({text})", f"count(DISTINCT {text})"]
    if field.family == "text":
        number = f"TRY_CAST({text} AS DOUBLE)"
        tests += [
            f"count({written_instant(text)})",
            f"count({number})",
            f"count(*) FILTER (WHERE regexp_matches({text}, {literal(_DATELIKE)}))",
            f"count(*) FILTER (WHERE {text} LIKE '%.0')",
            rf"count(*) FILTER (WHERE regexp_full_match({text}, '\d(\.\d+)?[eE]\+?\d+'))",
            f"count(*) FILTER (WHERE regexp_matches({text}, '^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$'))",
            f"count(*) FILTER (WHERE regexp_full_match({text}, {literal(_PERSON)}))",
        ]
    return tests


def _column(field: Field, counts: list[int], rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    family, text, name = field.family, _text(field), str(field.own)
    filled, distinct = counts[:2]
    found = ColumnProfile(name, "text" if family in ("text", "boolean") else "other", field.type, filled, distinct)
    if not filled:
        return found
    if family in ("date", "naive", "zoned"):
        found = replace(found, kind="time", zoned=family == "zoned")
        return _time(found, instant_of(field), rows, connection)
    likely = _placeholders(text, rows, connection) if family in ("text", "integer", "float", "decimal") else {}
    commonest = f"SELECT max(n) FROM (SELECT count(*) AS n FROM {rows} WHERE {text} IS NOT NULL GROUP BY {text})"
    ((most,),) = connection.execute(commonest).fetchall() if distinct < filled else [(1,)]
    found = replace(found, most=most)
    if family == "text":
        written, numbers, datelike, pointed, scientific, emails, people = counts[2:]
        found = replace(found, scientific=scientific, emails=emails, people=people)
        # A column of nothing but placeholders is neither.
        blank = sum(rows_of for value, rows_of in likely.items() if value not in ("0", "-1"))
        if (
            datelike
            and datelike >= _MOSTLY * (filled - blank)
            and (whole := _written(found, written, text, rows, connection))
        ):
            return whole
        if numbers and numbers >= _MOSTLY * (filled - blank):
            if timed := _counted(found, text, rows, connection):
                return timed
            pure = replace(found, kind="number", pointed=pointed == numbers, unread=filled - numbers)
            return _number(pure, None, likely, text, rows, connection)
        for mark in _MARKS[1:] if re.search(r"\d", _one(text, rows, connection)) else ():
            number = f"TRY_CAST({plain_number(text, mark)} AS DOUBLE)"
            ((numbers,),) = connection.execute(f"SELECT count({number}) FROM {rows}").fetchall()
            if numbers >= _MOSTLY * (filled - blank):
                pure = replace(found, kind="number", decimal_mark=mark, unread=filled - numbers)
                return _number(pure, mark, likely, text, rows, connection)
        found = replace(found, placeholders=likely)
        if distinct <= NAMES:
            found = replace(found, names=tally(text, rows, connection))
        return found
    if family in ("integer", "float", "decimal"):
        if timed := _counted(found, text, rows, connection):
            return timed
        return _number(replace(found, kind="number"), None, likely, text, rows, connection)
    return replace(found, names=tally(text, rows, connection)) if distinct <= NAMES else found


def tally(text: str, rows: str, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the values of a text with their rows, the commonest first."""
    counted = f"SELECT {text} AS text, count(*) FROM {rows} GROUP BY ALL HAVING text IS NOT NULL ORDER BY 2 DESC, 1"
    return dict(connection.execute(counted).fetchall())


def _one(text: str, rows: str, connection: duckdb.DuckDBPyConnection) -> str:
    return str(connection.execute(f"SELECT min({text}) FROM {rows}").fetchall()[0][0])


def _placeholders(text: str, rows: str, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    known = ", ".join(map(literal, sorted(PLACEHOLDERS)))
    where = f"lower(trim({text})) IN ({known})"
    counted = f"SELECT {text} AS text, count(*) FROM {rows} WHERE {where} GROUP BY 1 ORDER BY 1"
    return dict(connection.execute(counted).fetchall())


def _number(
    found: ColumnProfile,
    mark: DecimalMark | None,
    likely: Mapping[str, int],
    text: str,
    rows: str,
    connection: duckdb.DuckDBPyConnection,
) -> ColumnProfile:
    number = f"TRY_CAST({plain_number(text, mark)} AS DOUBLE)"
    whole, negative, numbers = connection.execute(
        f"SELECT count(*) FILTER (WHERE n = trunc(n)), count(*) FILTER (WHERE n < 0), count(n)"
        f" FROM (SELECT {number} AS n FROM {rows})"
    ).fetchall()[0]
    # 0 and -1 can be ids, and are amounts.
    return replace(found, whole=whole == numbers > 0, negative=negative, placeholders=dict(likely))


def _written(
    found: ColumnProfile, written: int, text: str, rows: str, connection: duckdb.DuckDBPyConnection
) -> ColumnProfile | None:
    """Return a text column as times: by ISO 8601, by one format, or by two; None where too few of its rows fit."""
    enough = _MOSTLY * found.filled
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
        found = replace(found, zoned=connection.execute(offsets).fetchall()[0][0] == found.filled)
    return _time(found, moment, rows, connection)


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
    candidates = [one for one in formats if one in EPOCHS or any(map(_shape(one).fullmatch, values))]
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


def _counted(found: ColumnProfile, text: str, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile | None:
    """Return a column of numbers as times since 1970 or as dates in digits, if its name says a time."""
    if not set(words(found.name)) & _TIMES:
        return None  # an id or an amount can lie anywhere
    for formats, since in ((EPOCHS, _COUNTED_SINCE), (("%Y%m%d", "%Y%m%d%H%M%S"), _SINCE)):
        fits = _fitting(text, formats, rows, connection, since)
        best = max(fits, key=lambda one: fits[one], default=None)
        if best and fits[best] == found.filled:
            others = [one for one in fits if one != best and fits[one] == fits[best]]
            timed = replace(found, kind="time", time_format=best, or_format=others[0] if others else None)
            return _time(timed, formatted_instant(text, best), rows, connection)
    return None


def _time(found: ColumnProfile, moment: str, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    now = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1_000_000)
    likely = f"us BETWEEN {_COUNTED_SINCE} AND {now}"
    first, last, ahead, ancient, days = connection.execute(
        f"SELECT make_timestamp(min(us) FILTER (WHERE {likely})), make_timestamp(max(us) FILTER (WHERE {likely})),"
        f" count(*) FILTER (WHERE us > {now}), count(*) FILTER (WHERE us < {_COUNTED_SINCE}),"
        f" bool_and(us % 86400000000 = 0) FROM (SELECT {moment} AS us FROM {rows})"
    ).fetchall()[0]
    return replace(found, first=first, last=last, ahead=ahead, ancient=ancient, days_only=bool(days), moment=moment)


def _other(field: Field, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    """Return a column of lists, structs or anything else that is no single value."""
    ((filled,),) = connection.execute(f"SELECT count({field.raw}) FROM {rows}").fetchall()
    return ColumnProfile(str(field.own), "other", field.type, filled, filled)
