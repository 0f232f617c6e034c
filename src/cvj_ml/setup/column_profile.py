"""Columns of a table as profiles: what is asked of all is counted in one pass over the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import duckdb

from cvj_ml.config import DecimalMark
from cvj_ml.setup.columns import MOSTLY, NAMES, NO_NUMBER, PLACEHOLDERS, ColumnProfile, may_be_somebody, text_of
from cvj_ml.setup.times import counted_time, months, with_span, written_time
from cvj_ml.store.fields import Field
from cvj_ml.store.instants import instant_of
from cvj_ml.store.mapping import plain_number
from cvj_ml.store.sql import literal, written_instant

_DATELIKE = (
    r"^\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{8}(\d{6})?$|\d{1,2}[ -][[:alpha:]]{3,9}\.?[ ,-]"
    r"|[[:alpha:]]{3,9}\.? \d{1,2},? )"
)

_NAME = "[[:upper:]][[:alpha:]'’.-]*"
_PERSON = f"{_NAME}( {_NAME})+ ?[0-9]*"
"""Names of people and of firms, with a number behind where there are several: ``Anna Berg``, ``J. DUPONT``."""

_MARKS: tuple[DecimalMark, ...] = (",", ".")


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


def _tests(field: Field) -> list[str]:
    """Return the SQL of what is counted in every column of a kind."""
    text = text_of(field)
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
    family, text, name = field.family, text_of(field), str(field.own)
    filled, distinct = counts[:2]
    found = ColumnProfile(name, "text" if family in ("text", "boolean") else "other", field.type, filled, distinct)
    if not filled:
        return found
    if family in ("date", "naive", "zoned"):
        found = replace(found, kind="time", zoned=family == "zoned")
        return with_span(found, instant_of(field), rows, connection)
    likely = _placeholders(text, rows, connection) if family in ("text", "integer", "float", "decimal") else {}
    commonest = f"SELECT max(n) FROM (SELECT count(*) AS n FROM {rows} WHERE {text} IS NOT NULL GROUP BY {text})"
    ((most,),) = connection.execute(commonest).fetchall() if distinct < filled else [(1,)]
    found = replace(found, most=most)
    if family == "text":
        written, numbers, datelike, pointed, scientific, emails, people = counts[2:]
        found = replace(found, scientific=scientific, emails=emails, people=people)
        # A column of nothing but placeholders is neither.
        blank = sum(rows_of for value, rows_of in likely.items() if not may_be_somebody(value))
        if (
            datelike
            and datelike >= MOSTLY * (filled - blank)
            and (whole := written_time(found, written, text, rows, connection))
        ):
            return whole
        if timed := months(found, text, rows, connection):
            return timed
        if numbers and numbers >= MOSTLY * (filled - blank):
            if timed := counted_time(found, text, rows, connection):
                return timed
            pure = replace(found, kind="number", pointed=pointed == numbers, unread=filled - numbers)
            return _number(pure, None, likely, text, rows, connection)
        marks = _MARKS if re.search(r"\d", _one(text, rows, connection)) else ()
        tests = [f"count(TRY_CAST({plain_number(text, mark)} AS DOUBLE))" for mark in marks]
        read = connection.execute(f"SELECT {', '.join(tests)} FROM {rows}").fetchall()[0] if tests else ()
        # Of two marks the one by which more can be read: 1,234,567 has one of thousands.
        if read and max(read) >= MOSTLY * (filled - blank):
            mark = marks[read.index(max(read))]
            pure = replace(found, kind="number", decimal_mark=mark, unread=filled - max(read))
            return _number(pure, mark, likely, text, rows, connection)
        found = replace(found, placeholders=likely)
        if distinct <= NAMES:
            found = replace(found, names=tally(text, rows, connection))
        return found
    if family in ("integer", "float", "decimal"):
        if timed := counted_time(found, text, rows, connection):
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
    where = f"lower(trim({text})) IN ({known}) OR regexp_full_match(trim({text}), {literal(NO_NUMBER)})"
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


def _other(field: Field, rows: str, connection: duckdb.DuckDBPyConnection) -> ColumnProfile:
    """Return a column of lists, structs or anything else that is no single value."""
    ((filled,),) = connection.execute(f"SELECT count({field.raw}) FROM {rows}").fetchall()
    return ColumnProfile(str(field.own), "other", field.type, filled, filled)
