"""What a person should know, or has to answer, before a guessed configuration is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cvj_ml.setup.columns import ColumnProfile
from cvj_ml.setup.columns import words as words_of
from cvj_ml.setup.events import COMMITTED, meaning
from cvj_ml.setup.profile import Table
from cvj_ml.setup.roles import Candidate, Roles, is_device

SHOWN = 12
"""Names shown in a message."""

_HEAVY, _TIMES_OTHERS = 0.1, 10
"""One id is suspected to be nobody's from this share of the rows on, if it has so many times the rows of others."""
_NEARLY = 0.98
"""In so many rows an id stands (nearly) everywhere."""
_ONE_LOGIN = 0.95
"""From this share of devices with one login on, both are taken for ids of one person, and others for shared."""
_MANY = 0.02
"""Below this share of ids that are not what they seem, a doubt is a note."""


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


def customer_doubts(source: str, table: Table, roles: Roles) -> list[Doubt]:
    """Return what speaks against the customer's column: rivals, and ids that are nobody's or not one person's."""
    if "customer_id" not in roles.columns:
        return []
    column = table.file.column(roles.get("customer_id"))
    found = [] if "customer_id" in roles.told else _customer_rivals(source, table, column, roles)
    found += _id_doubts(source, table, column)
    for name in roles.also:
        # Each answer is to the ids of one column.
        doubts = _id_doubts(source, table, table.file.column(name))
        found += [replace(one, name=f"{one.name}-{'-'.join(words_of(name))}") for one in doubts]
    return found


def _id_doubts(source: str, table: Table, column: ColumnProfile) -> list[Doubt]:
    """Return what speaks against a column of ids: those that are nobody's, or not one person's."""
    file, found = table.file, _nobody(source, table, column)
    rows, ids = column.filled, column.distinct
    others = (rows - column.most) / max(1, ids - 1)
    if ids > 10 and column.most >= _HEAVY * rows and column.most >= _TIMES_OTHERS * others and not column.nobody:
        found.append(Doubt(
            f"{source}.one-id", file.name,
            f"one {column.name} stands in {column.most:,} of {rows:,} rows, {column.most / max(others, 1):,.0f}"
            f" times as many"
            " as another.", True, {"rows": column.most},
            way_out=f"Is it nobody: a house account, a till? If so: null_values: [that id] under sources.{source}.",
        ))  # fmt: skip
    if column.scientific:
        found.append(Doubt(
            f"{source}.scientific-ids", file.name,
            f"{column.scientific:,} rows have a {column.name} in scientific notation (1.2E+15), as spreadsheets"
            f" write long"
            " numbers: digits are lost, and several customers became one.", True, {"rows": column.scientific},
            way_out="Was the file opened in one? If so: export it again, and leave it closed.",
        ))  # fmt: skip
    if column.people > rows / 2:
        found.append(Doubt(
            f"{source}.names-as-ids", file.name,
            f"{column.name} holds what look like people's names ({column.people:,} of {rows:,} rows): two people of one"
            " name would be one customer.", True, {"rows": column.people},
            way_out=f"Has each person an id? If so: --column {file.paths[0].name}:customer_id=COLUMN.",
        ))  # fmt: skip
    elif column.kind == "text":
        text = table.text(column.name)
        ((folded,),) = (table.ask(f"count(DISTINCT lower(trim({text})))"),)
        alike = table.distinct(column.name, where=f"{text} IS NOT NULL") - folded
        if alike:
            mail = 2 * column.emails > rows
            found.append(Doubt(
                f"{source}.ids-alike", file.name,
                f"{alike:,} {column.name} differ from another only in upper and lower case or blanks, and count as"
                " customers of their own.", mail or alike > _MANY * ids, {"ids": alike},
                way_out="Are they the same people? If so: write them alike in a query, lower(trim(…)).",
            ))  # fmt: skip
    if column.pointed and column.type == "VARCHAR" and table.file.is_text:
        found.append(Doubt(
            f"{source}.pointed-ids", file.name,
            f"every {column.name} is written as 12.0, as whole numbers are that were saved beside empty cells. A"
            f" file that"
            " says 12 means somebody else:", way_out="save them as whole numbers.",
        ))  # fmt: skip
    return found


def _customer_rivals(source: str, table: Table, column: ColumnProfile, roles: Roles) -> list[Doubt]:
    file, found = table.file, []
    way_out = f"Is the customer another column? If so: --column {file.paths[0].name}:customer_id=COLUMN."
    if not roles.certain:
        found.append(Doubt(
            f"{source}.customer", file.name,
            f"no column says that it is the customer; {column.name} is taken, with {column.distinct:,} different"
            f" values in"
            f" {column.filled:,} of {file.rows:,} rows.", True, {"ids": column.distinct, "rows": column.filled},
            way_out=way_out,
        ))  # fmt: skip
    rivals, unlike = [], 0
    for one in roles.rivals.get("customer_id", ()):
        known = f"{table.text(one.column.name)} IS NOT NULL AND {table.text(column.name)} IS NOT NULL"
        pairs = table.distinct(column.name, one.column.name, where=known)
        own = table.distinct(column.name, where=known)
        theirs = table.distinct(one.column.name, where=known)
        if pairs == own == theirs and min(one.column.filled, column.filled) == max(one.column.filled, column.filled):
            continue  # the same people by another name
        rivals.append(one)
        unlike = max(unlike, pairs - own, pairs - theirs)
    if rivals:
        told = first_of([f"{one.column.name} ({one.column.distinct - len(one.column.placeholders or ()):,} different in"
                       f" {one.column.filled - one.column.nobody:,} rows)" for one in rivals])  # fmt: skip
        own_ids = column.distinct - len(column.placeholders or ())
        text, numbers, joined = _one_person(table, [column, *(one.column for one in rivals)])
        found.append(Doubt(
            f"{source}.customer-rivals", file.name,
            f"several columns could be the customer: {column.name} ({own_ids:,} different in"
            f" {column.filled - column.nobody:,} of {file.rows:,} rows) is taken, and not {told}.{text}", True,
            {"ids": own_ids, **{one.column.name: one.column.distinct for one in rivals}, **numbers},
            tuple(one.column.name for one in rivals),
            joined + way_out + _as_account([column, *(one.column for one in rivals)]),
        ))  # fmt: skip
    return found


def _one_person(table: Table, ids: Sequence[ColumnProfile]) -> tuple[str, dict[str, float], str]:
    """Return what says that a device's id and that of a login are one person's, with numbers and how to join them.

    Nothing where no device is known in (nearly) every row, and none whose devices have almost always one login.
    """
    rows = table.file.rows
    for device in (one for one in ids if is_device(one.name) and one.filled - one.nobody >= _NEARLY * rows):
        for login in (one for one in ids if not is_device(one.name) and one.filled - one.nobody < _NEARLY * rows):
            each = f"SELECT count(DISTINCT {table.text(login.name)}) AS logins FROM {table.sql}"
            seen, alone = table.connection.execute(
                "SELECT count(*) FILTER (WHERE logins > 0), count(*) FILTER (WHERE logins = 1) FROM"
                f" ({each} WHERE {table.text(device.name)} IS NOT NULL GROUP BY {table.text(device.name)})"
            ).fetchall()[0]
            if not seen or alone < _ONE_LOGIN * seen:
                continue
            text = (
                f" {device.name} stands in (nearly) every row and {login.name} in {login.filled - login.nobody:,}, as"
                f" after a login; {alone:,} of {seen:,} {device.name} with a {login.name} have one alone."
            )
            joined = (
                f"Are both one person's? If so: --column {table.file.paths[0].name}:customer_id="
                f"{login.name},{device.name} (the first that is filled counts, and the ids are joined from when a row"
                " had both). "
            )
            return text, {"devices": seen, "of_one_person": alone}, joined
    return "", {}, ""


_COMPANY = {"account", "company", "organization", "organisation", "org", "firm", "workspace", "tenant", "konto"}


def _as_account(columns: Sequence[ColumnProfile]) -> str:
    """Return how a company with its people is written, where one column is named like a company and another not."""
    companies = [one for one in columns if _COMPANY & {*words_of(one.name)}]
    people = [one for one in columns if one not in companies]
    if len(companies) != 1 or not people:
        return ""
    company, person = companies[0].name, max(people, key=lambda one: one.distinct).name
    return (
        f" If customers are companies and {person} says who of {company} it was: unit: account, with columns:"
        f" {{customer_id: {company}, contact: {person}}} (docs/accounts.md)."
    )


def nobody_values(table: Table, column: ColumnProfile) -> dict[str, int]:
    """Return the ids that mean nobody; 0 and -1 only where they stand far oftener than any id should."""
    known = column.placeholders or {}
    ids = max(1, column.distinct - len(known))
    usual = (column.filled - column.nobody) / ids
    return {
        value: rows
        for value, rows in known.items()
        if value not in ("0", "-1") or (rows > 5 * usual and rows > 0.01 * column.filled)
    }


def _nobody(source: str, table: Table, column: ColumnProfile) -> list[Doubt]:
    values = nobody_values(table, column)
    if not values:
        return []
    rows = sum(values.values())
    return [Doubt(
        f"{source}.nobody", table.file.name,
        f"{column.name} says {first_of(list(values))} in {rows:,} of {table.file.rows:,} rows: rows of nobody, which"
        f" would be"
        " your best customers. They are refused and counted (null_values).", True, {"rows": rows},
        way_out="Are they somebody's? If so: put the id in, or take what is a real id out of null_values.",
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
            not coarse and within > _MANY * file.rows, {"rows": within}, way_out=way_out,
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
    if when.or_format:
        found.append(Doubt(
            f"{source}.day-or-month", file.name,
            f"every {when.name} can be read as {when.time_format} and as {when.or_format}; the first is taken.",
            False, {}, (when.or_format,), "If that is wrong, change time_format.",
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


def _time_in_words(one: Candidate, rows: int) -> str:
    column = one.column
    facts = [f"{column.ahead:,} rows of the future"] if column.ahead else []
    facts += [f"{column.filled:,} of {rows:,} rows"] if column.filled < rows else []
    facts += ["days only"] if column.days_only else []
    return column.name + (f" ({', '.join(facts)})" if facts else "")


def payment_doubts(source: str, table: Table, roles: Roles, key: str | None) -> tuple[list[Doubt], list[str]]:
    """Return the doubt of orders in several events that all mean a purchase, and the events not to count."""
    if key is None or "event" not in roles.columns:
        return [], []
    events = [name for name in table.tally(roles.get("event")) if meaning(name) in COMMITTED]
    if len(events) < 2:
        return [], []
    text = table.text(roles.get("event"))
    orders = {
        name: table.distinct(
            key, where=f"{text} = '{name.replace(chr(39), chr(39) * 2)}' AND {table.text(key)} IS NOT NULL"
        )
        for name in events
    }
    named = ", ".join("'" + name.replace("'", "''") + "'" for name in events)
    together = sum(orders.values()) - table.distinct(
        key, where=f"{text} IN ({named}) AND {table.text(key)} IS NOT NULL"
    )
    if not together:
        return [], []
    first = max(orders, key=lambda name: (orders[name], name))
    return [Doubt(
        f"{source}.one-payment", table.file.name,
        f"{first_of(events)} all mean a purchase and share {together:,} {key}: one payment would count several times."
        f" Only {first} is counted.", True, {"orders": together}, tuple(events),
        f"Is another one right? If so: put it under events: {{purchase: [{first}]}}.",
    )], [name for name in events if name != first]  # fmt: skip
