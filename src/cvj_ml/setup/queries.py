"""How a drafted table is read: the roles and shape of its rows, and the query where a plain path cannot say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from cvj_ml.config import EPOCHS, counted_since
from cvj_ml.setup.columns import ColumnProfile, is_one_of, property_names, words
from cvj_ml.setup.doubts import Doubt
from cvj_ml.setup.events import COMMITTED, is_undone, meaning
from cvj_ml.setup.named_tools import Recognised
from cvj_ml.setup.profile import Table
from cvj_ml.setup.roles import Roles, find_quantity, is_modification, is_planned, is_price
from cvj_ml.setup.times import month_sql
from cvj_ml.store.mapping import plain_number
from cvj_ml.store.sql import identifier, literal, written_instant

_NO_EVENT = frozenset(words("became become a an date at on time timestamp datetime first when entered"))
"""Words of a date's column that do not say what happened then."""

PRICE_EACH = "price-each"
"""The doubt of a row whose amount is the price of one piece, beside how many there are."""

DEBITS = "debits"
"""The doubt of amounts that are below zero in most purchases, as in a statement of an account."""

Shape = Literal["rows", "lines", "versions", "dates", "changes"]

FILLED = "filled"
"""What a condition asks of a column that may hold anything, but something."""

LINES = "lines"
"""What a proposed query calls its file."""

PRICE_ELSEWHERE = "price-elsewhere"
"""The doubt of prices that stand beside views and carts, too."""


@dataclass(frozen=True, slots=True)
class Read:
    """A source of a recognised export, and what the store's own reader made of it.

    ``entry`` is the source as it stands in a configuration, but for the path. Of ``rows`` that came in and were not
    left out by ``where`` or ``melt``, some are ``refused`` by reason; ``touchpoints`` is SQL of what was stored and
    holds now, each row under the person, ``histories`` under every id of theirs; ``number`` how many these are.
    """

    recognised: Recognised
    entry: Mapping[str, Any]
    rows: int
    refused: Mapping[str, int]
    touchpoints: str
    histories: str
    number: int


@dataclass(frozen=True, slots=True)
class Draft:
    """How a table is going to be read: its shape, roles, the constant event or the query, and what is left out.

    ``key`` tells orders apart; ``where`` names columns and what rows must have there, ``melt`` events and the columns
    of their dates, where a plain path can read them; ``undone`` is a column with the states in which an order came to
    nothing (none: whatever it holds); ``unvalued``: amounts are not the value. With ``read``, no column was guessed.
    """

    source: str
    table: Table
    roles: Roles
    shape: Shape = "rows"
    key: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    melt: Mapping[str, str] = field(default_factory=dict)
    undone: tuple[tuple[str, tuple[str, ...]], ...] = ()
    event: str | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    query: str | None = None
    properties: tuple[str, ...] = ()
    null_values: tuple[str, ...] = ()
    unvalued: bool = False
    doubts: tuple[Doubt, ...] = ()
    read: Read | None = None

    def has_doubt(self, name: str) -> bool:
        """Return whether something of this name, without the source before it, was doubted."""
        return any(one.name == f"{self.source}.{name}" for one in self.doubts)

    @property
    def computes_value(self) -> bool:
        """Whether the query makes the value itself, as a number: a sum, a product, or with its sign turned."""
        return self.shape == "lines" or self.has_doubt(PRICE_EACH) or self.has_doubt(DEBITS)

    @property
    def rows(self) -> int:
        """Return how many rows the table has, or of a recognised export, how many touchpoints are among them."""
        return self.read.number if self.read else self.table.file.rows

    @property
    def customer(self) -> str:
        """Return SQL of a row's id: the first that is filled."""
        return f"coalesce({', '.join(map(self.table.text, (self.roles.get('customer_id'), *self.roles.also)))})"

    def column(self, role: str) -> ColumnProfile | None:
        """Return the column of a role."""
        return self.table.file.column(self.roles.get(role)) if role in self.roles.columns else None


def dates_of(table: Table) -> list[ColumnProfile]:
    """Return the columns that say when something happened to a customer; not what is planned, or when a row changed."""
    return [
        one
        for one in table.file.columns
        if one.kind == "time" and one.first and not is_modification(one.name) and not is_planned(one, table.file.rows)
    ]


def event_of_date(name: str) -> str:
    """Return the event that a column of dates is about: ``Became a Lead Date`` is ``lead``."""
    said = [one for one in words(name) if one not in _NO_EVENT]
    return {"create": "created"}.get(" ".join(said), "_".join(said)) or "happened"


def sold(made: Draft) -> list[str]:
    """Return the events of which a price is what was paid: purchases and the like, and what undid one."""
    return [name for name in made.events if meaning(name) in (*COMMITTED, "upgrade") or is_undone(name)]


def needs_query(made: Draft) -> bool:
    """Return whether a plain path with columns cannot read the table as it is meant."""
    at = made.column("occurred_at")
    return bool(
        made.shape == "lines"
        or (made.shape == "dates" and not made.melt)
        or any(map(made.has_doubt, ("negative", DEBITS, PRICE_ELSEWHERE, PRICE_EACH)))
        or made.undone
        or (at is not None and not at.is_written_plainly)
    )


def groups_of(made: Draft) -> list[str]:
    """Return the columns whose values the lines of one order have in common."""
    if made.key and made.shape == "lines":
        return [made.key]
    return [made.roles.get("customer_id"), made.roles.get("occurred_at")]


def query_of(made: Draft) -> str:
    """Return the query that reads a table: one row a touchpoint, under the names of the roles."""
    if made.shape != "lines" or "event" not in made.roles.columns or not made.key:
        return _select(made)
    column = made.table.file.column(made.key)
    if column.filled == made.rows:
        return _select(made)
    # Rows of the log that are of no order are touchpoints as they stand.
    number = f"nullif(trim(CAST({column.sql} AS VARCHAR)), '')"
    single = replace(made, shape="rows", key=None)
    return f"{_select(single, f'{number} IS NULL')} UNION ALL {_select(made, f'{number} IS NOT NULL')}"


def _select(made: Draft, *conditions: str) -> str:
    """Return a query for the rows of which the conditions hold, with amounts as numbers where there are any."""
    table, columns = made.table, made.roles.columns
    profile = table.file.column(columns["customer_id"])
    customer = profile.sql
    if profile.pointed and table.file.is_text:
        customer = f"TRY_CAST(TRY_CAST({customer} AS DOUBLE) AS BIGINT)"
    if made.shape == "dates":
        found = dates_of(table)
        # Of two types a query makes one: of a local time and one in a zone, the local time in whatever zone it runs in.
        cast = "CAST({} AS VARCHAR)" if len({one.type for one in found}) > 1 else "{}"
        return " UNION ALL ".join(
            f"SELECT {customer} AS customer_id, {cast.format(instant_sql(one))} AS occurred_at,"
            f" {literal(event_of_date(one.name))} AS event FROM {LINES} WHERE {one.sql} IS NOT NULL"
            for one in found
        )
    at = instant_sql(table.file.column(columns["occurred_at"]))
    amount, value = _amount(made), None
    amount = f"-({amount})" if amount and made.has_doubt(DEBITS) else amount
    if "value" in columns and not made.unvalued:
        own = table.file.column(columns["value"]).sql
        plain = number_sql(table, columns["value"], strict=True) if conditions else own
        value = amount if made.computes_value else plain
        if made.has_doubt(PRICE_ELSEWHERE) and made.shape != "lines":
            own = table.file.column(columns["event"]).sql
            value = f"CASE WHEN {own} IN ({', '.join(map(literal, sold(made)))}) THEN {value} END"
    event = literal(made.event) if made.event else table.file.column(columns["event"]).sql
    named = ("channel", "rating") if made.shape == "lines" or conditions else ("touchpoint_id", "channel", "rating")
    kept = {role: table.file.column(name).sql for role, name in columns.items() if role in named}
    if "known_at" in columns:
        kept["known_at"] = instant_sql(table.file.column(columns["known_at"]))
    kept |= {key: table.file.column(name).sql for name, key in property_names(made.properties).items()}
    kept |= {identifier(name): table.file.column(name).sql for name in made.roles.also}
    groups: list[str] = []
    if made.shape == "lines":
        groups, kept = _lines_groups(made, customer, at), {name: f"max({sql})" for name, sql in kept.items()}
        alone = _alone(made)
        customer, at = (f"max({customer})" if alone else customer), f"min({at})"
        event = event if made.event else f"max({event})"
    event = _apart(made, event, amount)
    selected = {"customer_id": customer, "occurred_at": at, "event": event, "value": value, **kept}
    listed_columns = ", ".join(
        sql if sql == identifier(name) else f"{sql} AS {_alias(name)}" for name, sql in selected.items() if sql
    )
    query = f"SELECT {listed_columns} FROM {LINES}"
    wanted = [*conditions, *(_condition(table, name, said) for name, said in made.where.items())]
    query += f" WHERE {' AND '.join(wanted)}" if wanted else ""
    return query + (f" GROUP BY {', '.join(groups)}" if groups else "")


def _condition(table: Table, name: str, wanted: str) -> str:
    own = table.file.column(name).sql
    return is_one_of(own, ()) if wanted == FILLED else f"{own} = {literal(wanted)}"


def melt_of(made: Draft) -> dict[str, str]:
    """Return event to column where the dates that stand side by side are read as they are, each event once."""
    dates = dates_of(made.table)
    customer = made.table.file.column(made.roles.get("customer_id"))
    found = {event_of_date(one.name): one.name for one in dates}
    plain = all(one.is_written_plainly and not one.way and one.type != "BLOB" for one in dates) and not customer.pointed
    return found if plain and len({one.time_format for one in dates}) == 1 and len(found) == len(dates) else {}


def contradiction_of(made: Draft) -> str:
    """Return words on how many rows have dates out of their columns' order, and how many a column of stages denies."""
    dates, table = dates_of(made.table), made.table
    wrong = " OR ".join(f"({a.moment}) > ({b.moment})" for a, b in pairwise(dates))
    (rows,) = table.ask(f"count(*) FILTER (WHERE {wrong})")
    told = f" In {rows:,} rows two neighbours are not in that order." if rows else ""
    events = {event_of_date(one.name): one for one in dates}
    cases = " ".join(
        f"WHEN ({one.moment}) IS NOT NULL THEN {literal(event)}" for event, one in reversed(events.items())
    )
    for one in table.file.columns:
        said = {name: event for name in one.names or () if (event := "_".join(words(name))) in events}
        if len(said) < 2 or sum((one.names or {})[name] for name in said) < 0.5 * one.filled:
            continue
        meant = " ".join(f"WHEN {literal(name)} THEN {literal(event)}" for name, event in said.items())
        (unlike,) = table.ask(
            f"count(*) FILTER (WHERE CASE {table.text(one.name)} {meant} END <> CASE {cases} ELSE '' END)"
        )
        if unlike:
            told += f" In {unlike:,} rows {one.name} names another stage than the last of the dates that is filled."
    return told


def _apart(made: Draft, event: str, amount: str | None) -> str:
    """Return SQL of the event with what is no purchase set apart: what came to nothing, and what was paid back."""
    cases = []
    for state, names in made.undone:
        own = made.table.file.column(state).sql
        column = f"max({own})" if made.shape == "lines" else own
        cases.append(f"WHEN {is_one_of(column, names)} THEN {literal(f'{made.event}_undone')}")
    if amount and (made.has_doubt("negative") or made.has_doubt(DEBITS)):
        of = ""
        if "event" in made.roles.columns:
            mapped = ", ".join(literal(name) for name in made.events if meaning(name) in COMMITTED)
            of = f"{made.table.file.column(made.roles.get('event')).sql} IN ({mapped}) AND "
        cases.append(f"WHEN {of}{amount} < 0 THEN 'refund'")
    return f"CASE {' '.join(cases)} ELSE {event} END" if cases else event


def _alone(made: Draft) -> bool:
    """Return whether lines may lack the customer, so that the order's number alone tells which belong together."""
    customer = made.table.file.column(made.roles.get("customer_id"))
    if made.key is None or customer.filled == made.rows:
        return False
    several, _, once = made.table.within([made.key], customer.name)
    return once >= 0.5 * several > 0


def _lines_groups(made: Draft, customer: str, at: str) -> list[str]:
    if made.key is None:
        return [customer, at]
    order = made.table.file.column(made.key).sql
    groups = [order] if _alone(made) else [customer, order]
    column = made.table.file.column(made.key)
    # Lines without an order's number would all become one order.
    some = column.filled < made.rows and "event" not in made.roles.columns
    groups += [f"CASE WHEN {order} IS NULL THEN {at} END"] if some else []
    return groups + ([made.table.file.column(made.roles.get("event")).sql] if "event" in made.roles.columns else [])


def _amount(made: Draft) -> str | None:
    """Return SQL of what a touchpoint was worth, as a number; None where no column says it.

    That of an order, where each line repeats it or one alone has it, else the sum of its lines; the price of a piece
    times how many.
    """
    if "value" not in made.roles.columns:
        return None
    name = made.roles.get("value")
    if made.shape != "lines":
        pieces = find_quantity(made.table, made.roles.columns.values()) if made.has_doubt(PRICE_EACH) else None
        return " * ".join(number_sql(made.table, one, strict=False) for one in (pieces, name) if one)
    key = [made.key] if made.key else [made.roles.get("customer_id"), made.roles.get("occurred_at")]
    several, same, once = made.table.within(key, name)
    strict = number_sql(made.table, name, strict=True)
    quantity = find_quantity(made.table, made.roles.columns.values()) if is_price(name) else None
    if several and same + once >= 0.95 * several and not is_price(name):
        return f"max({strict})"
    return f"sum({number_sql(made.table, quantity, strict=True)} * {strict})" if quantity else f"sum({strict})"


def instant_sql(when: ColumnProfile) -> str:
    """Return SQL for a time; one that cannot be read is empty, so that the row is refused and counted."""
    own = when.sql
    if when.type == "BLOB":
        own = f"TRY(decode({own}))"
    if when.also is not None:
        return f"make_timestamp({when.moment})"
    if when.time_format is None:
        return own
    if when.monthly:
        return month_sql(own, when.time_format)
    if when.time_format in EPOCHS or counted_since(when.time_format):
        instant = f"make_timestamp({when.moment})"
        return f"CAST({instant} AS DATE)" if when.days_only else instant
    return f"try_strptime({own}, {literal(when.time_format)})"


def number_sql(table: Table, name: str, *, strict: bool) -> str:
    """Return SQL for the number of a row, which in a CSV file is text.

    Strictly, one that cannot be read fails the query: left out of an order's sum, nobody would see that it is missing.
    """
    column = table.file.column(name)
    cast, own = "CAST" if strict else "TRY_CAST", column.sql
    if column.type != "VARCHAR":
        return own
    own = f"nullif({own}, '')"
    if column.decimal_mark is None:
        return f"{cast}({own} AS DOUBLE)"
    bare = f"regexp_replace({own}, '[^0-9{column.decimal_mark}+-]', '', 'g')"
    return f"{cast}(replace({bare}, '{column.decimal_mark}', '.') AS DOUBLE)"


def _alias(name: str) -> str:
    return name if (name.isascii() and name.isidentifier()) or name.startswith('"') else identifier(name)


def refusals_of(one: Draft) -> tuple[int, dict[str, int]]:
    """Return how many rows a source will have, and how many of them are refused, by reason."""
    if one.read is not None:
        return one.read.rows, dict(one.read.refused)
    file, value = one.table.file, one.column("value")
    if one.query is not None:
        empty = ", ".join(map(literal, one.null_values)) or "''"
        texts = [f"CAST({own} AS VARCHAR)" for own in ("customer_id", *map(identifier, one.roles.also))]
        found = ", ".join(f"CASE WHEN {text} NOT IN ({empty}) THEN {text} END" for text in texts)
        wrapped = f"SELECT * REPLACE (coalesce({found}) AS customer_id) FROM ({one.query})"
        at = written_instant("CAST(occurred_at AS VARCHAR)")
        faults = {"no customer": "customer_id IS NULL", "no time": f"{at} IS NULL"}
        if value is not None and not one.unvalued and one.shape != "dates":
            amount = "nullif(CAST(value AS VARCHAR), '')"
            number = plain_number(amount, None if one.computes_value else value.decimal_mark)
            faults["no number as value"] = f"{amount} IS NOT NULL AND TRY_CAST({number} AS DOUBLE) IS NULL"
        rows, *counted = one.table.read_by(wrapped, LINES, list(faults.values()))
        return rows, dict(zip(faults, counted, strict=True))
    customer, when = one.column("customer_id"), one.column("occurred_at")
    rows = file.rows + file.unreadable
    if customer is None or when is None:
        return rows, {}
    if one.melt:
        dates = dates_of(one.table)
        nobody_at = [f"count({one.table.text(own.name)})" for own in dates]
        missing = sum(one.table.ask(", ".join(nobody_at), f"{one.customer} IS NULL"))
        told = {"no customer": missing, "no time": sum(own.unread for own in dates), "broken line": file.unreadable}
        return sum(own.filled for own in dates) + file.unreadable, told
    if one.where:
        kept = " AND ".join(
            f"{one.table.text(name)} {'IS NOT NULL' if wanted == FILLED else f'= {literal(wanted)}'}"
            for name, wanted in one.where.items()
        )
        asked = f"count(*), count({one.customer}), count({one.table.text(when.name)})"
        whole, customers, times = one.table.ask(asked, kept)
        told = {"no customer": whole - customers, "no time": whole - times, "broken line": file.unreadable}
        return whole + file.unreadable, told
    values = (customer.placeholders or {}).items()
    nobody = file.rows - customer.filled + sum(number for value_, number in values if value_ in one.null_values)
    if one.roles.also:
        nobody = file.rows - one.table.ask(f"count({one.customer})")[0]
    no_number = (
        value.unread - sum((value.placeholders or {}).get(text, 0) for text in one.null_values)
        if value and not one.unvalued
        else 0
    )
    known = one.column("known_at")
    return rows, {
        "no customer": nobody,
        "no time": file.rows - when.filled + when.unread,
        "no time when it was known": file.rows - known.filled + known.unread if known else 0,
        "no number as value": max(0, no_number),
        "broken line": file.unreadable,
    }
