"""What a person should know, or has to answer, before a guessed configuration is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cvj_ml.setup.columns import ColumnProfile, spellings
from cvj_ml.setup.profile import Table
from cvj_ml.setup.roles import Candidate, Roles
from cvj_ml.setup.times import SPREADSHEET
from cvj_ml.store.sql import identifier, literal

SHOWN = 12
"""Names shown in a message."""

MANY = 0.02
"""Below this share of ids that are not what they seem, a doubt is a note."""


GOOD_RATING, BEST_RATING = 4, 5
"""The rating from which on the presets' rules take one for good, and the best one of their scale."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that was guessed, with what speaks against it.

    A blocking one changes who is a customer, what is a purchase or what it was worth, so nothing is written until a
    person has answered it by its name: its ``way_out`` is a question, with what to do if so, as `check` asks.
    ``query`` would read what a plain path cannot.
    """

    name: str
    about: str
    text: str
    blocking: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
    rivals: tuple[str, ...] = ()
    way_out: str = ""
    query: str | None = None

    def __str__(self) -> str:
        words = f"{self.about}: {self.text}" if self.about else self.text
        return f"{words} {self.way_out}".rstrip()

    def as_document(self) -> dict[str, Any]:
        """Return the doubt for a program."""
        return {
            "name": self.name,
            "about": self.about,
            "text": self.text,
            "blocking": self.blocking,
            "accept": f"--accept {self.name}" if self.blocking else None,
            "numbers": dict(self.numbers),
            "rivals": list(self.rivals),
            "way_out": self.way_out,
            "query": self.query,
        }


def first_of(names: list[str]) -> str:
    """Return names as one line, the first of many."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return " ".join(f"{', '.join(names[:SHOWN])}{more}".split())


def spelled_apart(apart: Mapping[str, int]) -> str:
    """Return in what spellings differ, with how many ids or people each is true of."""
    return first_of([f"{kind} ({number:,})" for kind, number in apart.items() if number])


def spelled_alike(apart: Mapping[str, int], own: str, *, of_log: bool) -> str:
    """Return the question of ids that differ in their spelling, with the setting or the query that mends it."""
    blanks, case, address, _ = apart
    kinds = [kind for kind, number in apart.items() if number]
    query = f"trim(lower({own}))" if set(kinds) & {case, address} else f"trim({own})"
    if address in kinds:
        query = f"regexp_replace({query}, '^.*<(.+)>$', '\\1')"
    if set(kinds) - {blanks, case, address}:
        query = f"regexp_replace({query}, '^0*([0-9]+?)([.]0+)?$', '\\1')"
    if kinds == [blanks]:
        setting = "ids: {match: trimmed}"
    elif set(kinds) <= {blanks, case} and not of_log:
        setting = "ids: {match: folded}"
    else:
        # A log of which ids are one only when folded is refused: they can be different people.
        folded = " (ids: {match: folded} reads such ids of other tables, and refuses them in a log)"
        setting = f"write them alike in a query, {query}" + (folded if case in kinds else "")
    return f"Are they the same people? If so: {setting}."


def alike_doubts(source: str, table: Table, column: ColumnProfile) -> list[Doubt]:
    """Return the doubt of ids of one column that are one but for their spelling."""
    text = table.text(column.name)
    counted = ", ".join(f"count(DISTINCT {spelled})" for spelled in (text, *spellings(text).values()))
    kinds = table.ask(counted)
    apart = dict(zip(spellings(text), (more - less for more, less in pairwise(kinds)), strict=True))
    if not (alike := sum(apart.values())):
        return []
    return [Doubt(
        f"{source}.ids-alike", table.file.name,
        f"{alike:,} {column.name} differ from another only in {spelled_apart(apart)}, and count as customers of their"
        " own.", 2 * column.emails > column.filled or alike > MANY * column.distinct, {"ids": alike},
        way_out=spelled_alike(apart, identifier(column.name), of_log=True),
    )]  # fmt: skip


def file_doubts(source: str, table: Table, versions: bool) -> list[Doubt]:
    """Return what is said about the rows as such: exact repeats within and across files, and lines that are no rows."""
    within, across = table.repeats
    found, file = [], table.file
    coarse = all(one.days_only for one in file.columns if one.kind == "time")
    way_out = "Are they the same rows? If so: drop_duplicates: true; if not, they stay, as in the files."
    if across and not versions:
        found.append(Doubt(
            f"{source}.files-overlap", file.name,
            f"{across:,} rows stand in several of the {len(file.paths)} files, as exports that overlap have them:"
            f" they count"
            " twice.", True, {"rows": across, "files": len(file.paths)}, way_out=way_out,
        ))  # fmt: skip
    if within and not versions:
        found.append(Doubt(
            f"{source}.repeats", file.name,
            f"{within:,} of {file.rows:,} rows repeat another one exactly"
            + (" (times are days only, so they may be true)." if coarse else "."),
            not coarse and within > MANY * file.rows, {"rows": within}, way_out=way_out,
        ))  # fmt: skip
    if file.unreadable:
        found.append(Doubt(
            f"{source}.broken-lines", file.name,
            f"{file.unreadable:,} lines have too few or too many fields and are"
            f" refused.", numbers={"rows": file.unreadable},
        ))  # fmt: skip
    return found


def time_doubts(source: str, table: Table, roles: Roles) -> list[Doubt]:
    """Return what is said about the time of a row: rivals, other formats, rows of the future."""
    if "occurred_at" not in roles.columns:
        return []
    file, when = table.file, table.file.column(roles.get("occurred_at"))
    found = []
    rivals = [one for one in roles.rivals.get("occurred_at", ()) if one.column.name != roles.columns.get("known_at")]
    if rivals and "occurred_at" not in roles.told:
        told = first_of([_time_in_words(one, file.rows) for one in rivals])
        found.append(Doubt(
            f"{source}.time-rivals", file.name,
            f"{when.name} is taken for when a row happened"
            + (f" and {roles.get('known_at')} for when it was known" if "known_at" in roles.columns else "")
            + f", and not {told}.", False, {"rows": when.filled}, tuple(one.column.name for one in rivals),
            f"Another one: --column {file.paths[0].name}:occurred_at=COLUMN.",
        ))  # fmt: skip
    if when.also:
        first, second = when.time_format or "ISO 8601", when.also[0] or "ISO 8601"
        found.append(Doubt(
            f"{source}.two-formats", file.name,
            f"{when.name} is written in two ways: {when.filled - when.unread - when.also[1]:,} rows as {first} and"
            f" {when.also[1]:,} as {second}. A query reads both, {first} first.", True,
            {"first": when.filled - when.unread - when.also[1], "second": when.also[1]}, (second,),
            "Could a day be taken for a month? If so: export the file in one format.",
        ))  # fmt: skip
    if 0 < when.offsets < when.filled:
        found.append(Doubt(
            f"{source}.some-offsets", file.name,
            f"{when.offsets:,} of {when.filled:,} {when.name} name their offset, the others are read in the zone that"
            f" times says.", numbers={"rows": when.filled, "offsets": when.offsets}, rivals=("utc",),
            way_out=f"Are those UTC? If so: times: utc under sources.{source}.",
        ))  # fmt: skip
    if when.monthly:
        found.append(Doubt(
            f"{source}.months", file.name,
            f"{when.name} names months ({when.time_format}); each row is read as of the last day of its month, when all"
            " that is told of the month can be known.", numbers={"rows": when.filled - when.unread},
            rivals=("the first day of the month",),
        ))  # fmt: skip
    if when.time_format == SPREADSHEET and when.name not in table.formats:
        found.append(Doubt(
            f"{source}.spreadsheet-days", file.name,
            f"{when.name} holds numbers and is read as a spreadsheet's days ({SPREADSHEET}): {_span(when)}.",
            numbers={"rows": when.filled}, rivals=("days since 1904-01-01",),
            way_out=f"Something else: --column {file.paths[0].name}:occurred_at=COLUMN, or --time-format.",
        ))  # fmt: skip
    if when.or_format:
        found.append(Doubt(
            f"{source}.day-or-month", file.name,
            f"every {when.name} can be read as {when.time_format} and as {when.or_format}; the first is taken.",
            True, {}, (when.or_format,),
            f'Is the second right? If so: --time-format "{file.paths[0].name}:{when.or_format}".',
        ))  # fmt: skip
    clock = _clock(table) if when.days_only else None
    if clock:
        found.append(Doubt(
            f"{source}.time-of-day", file.name,
            f"{when.name} holds days, and {clock} the times of day, which are not read: what a customer did on one day"
            " has no order.", rivals=(clock,),
            way_out=f"Does it matter? If so: make one column of both in a query, {when.name} || ' ' || {clock}.",
        ))  # fmt: skip
    for rows, said in (
        (when.ahead, "lie in the future"),
        (when.ancient, "lie before 1990, as an empty time does (1970)"),
    ):
        if rows:
            found.append(Doubt(
                f"{source}.{'future' if said[4] == 'i' else 'ancient'}-rows", file.name,
                f"{rows:,} of {when.filled:,} rows {said} by {when.name}.", False, {"rows": rows},
                way_out="They change no date that is proposed here; correct or remove them.",
            ))  # fmt: skip
    return found


def rating_doubts(source: str, table: Table, roles: Roles) -> list[Doubt]:
    """Return the doubt of ratings on another scale than that of the presets, whose stages ask for 4 and more of 5."""
    if "rating" not in roles.columns:
        return []
    name = roles.get("rating")
    least, most = table.ask(f"min(TRY_CAST({table.text(name)} AS DOUBLE)), max(TRY_CAST({table.text(name)} AS DOUBLE))")
    if most is None or most <= BEST_RATING:
        return []
    return [Doubt(
        f"{source}.rating-scale", table.file.name,
        f"{name} goes from {least:g} to {most:g}, and the preset takes a rating of {GOOD_RATING} and more for good: who"
        f" gave {GOOD_RATING} of {most:g} would be an advocate.", True, {"least": least, "most": most},
        way_out=f"Is {most:g} the best? If so: bring it to 1 to {BEST_RATING} in a query, or write stages of your own,"
        f" with report: {{rating_scale: [{least:g}, {most:g}]}} (docs/configuration.md).",
    )]  # fmt: skip


def _span(when: ColumnProfile) -> str:
    return f"{when.first:%Y-%m-%d} to {when.last:%Y-%m-%d}" if when.first and when.last else "no day that is over"


def _clock(table: Table) -> str | None:
    """Return the column of text that holds times of day in (nearly) every row; all are asked in one pass."""
    shape = literal(r"\d{1,2}:\d{2}(:\d{2})?( ?[AaPp][.]?[Mm][.]?)?")
    texts = [one for one in table.file.columns if one.kind == "text" and 2 * one.filled >= table.file.rows]
    if not texts:
        return None
    tests = (f"count(*) FILTER (WHERE regexp_full_match({table.text(one.name)}, {shape}))" for one in texts)
    clocks = zip(texts, table.ask(", ".join(tests)), strict=True)
    return next((one.name for one, rows in clocks if rows >= (1 - MANY) * one.filled > 0), None)


def _time_in_words(one: Candidate, rows: int) -> str:
    column = one.column
    facts = [f"{column.ahead:,} rows of the future"] if column.ahead else []
    facts += [f"{column.filled:,} of {rows:,} rows"] if column.filled < rows else []
    facts += ["days only"] if column.days_only else []
    return column.name + (f" ({', '.join(facts)})" if facts else "")
