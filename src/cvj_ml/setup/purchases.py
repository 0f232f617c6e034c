"""What counts as a purchase and what it was worth: amounts, currencies, signs, states that came to nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cvj_ml.setup.columns import NAMES, ColumnProfile, words
from cvj_ml.setup.doubts import Doubt, first_of
from cvj_ml.setup.events import COMMITTED, is_done, is_undone, meaning
from cvj_ml.setup.profile import Table
from cvj_ml.setup.queries import PRICE_ELSEWHERE, Draft, number_sql, sold
from cvj_ml.setup.roles import ID_WORDS, Candidate, Roles, find_numbers, find_quantity, is_currency, is_price, is_state
from cvj_ml.store.sql import literal

_FEW = 12
"""A column of so few values can be one of states in a file of any size."""
_PAID_BACK = frozenset(words("refunded rembourse erstattet reembolsado rimborsato"))
_TRUE = frozenset(["1", "true", "t", "yes", "y", "oui", "ja", "si", "sí", "sim", "wahr", "vrai", "on", "x"])
_FALSE = frozenset(["0", "false", "f", "no", "n", "non", "nein", "nee", "não", "falsch", "faux", "off"])
_ABOUT = frozenset(
    words("is was has been order payment transaction sale invoice flag ind indicator yn bestellung commande")
)
_GOOD = frozenset(
    words(
        "valid paid confirmed complete completed success successful succeeded captured approved accepted settled"
        " livemode gultig bezahlt bestatigt valide valido paye payee pagado pagato"
    )
)
_BAD = frozenset(
    words(
        "cancel cancelled canceled cancellation void voided invalid failed deleted declined rejected reversed expired"
        " returned fraud fraudulent test refunded disputed storniert storno geloscht annule annulee anulado annullato"
        " geannuleerd"
    )
)
"""Words of columns with truth values: where they say no, or yes, the order came to nothing."""


def with_money(made: Draft) -> Draft:
    """Return the draft with what speaks against its amounts: currencies, signs, rivals."""
    value, file, found = made.column("value"), made.table.file, list(made.doubts)
    found += _without_amounts(made)
    if value is None:
        return replace(made, doubts=tuple(found))
    rivals = [one for one in made.roles.rivals.get("value", ()) if one.column.name != value.name]
    equal = [one for one in rivals if one.tier >= 2 or (one.tier == 1 and not made.roles.rivals["value"][0].tier >= 2)]
    if rivals and "value" not in made.roles.told:
        found.append(Doubt(
            f"{made.source}.value-rivals", file.name,
            f"{value.name} is taken for the value of a row, and not {first_of([str(one) for one in rivals])}.",
            bool(equal) and made.shape != "lines", {}, tuple(one.column.name for one in rivals),
            f"Is the value another column? If so: --column {file.paths[0].name}:value=COLUMN.",
        ))  # fmt: skip
    currency = next((one for one in file.columns if is_currency(one) and one.names), None)
    if currency is not None and currency.names and len(currency.names) > 1:
        shares = ", ".join(f"{name} in {rows:,} rows" for name, rows in currency.names.items())
        found.append(Doubt(
            f"{made.source}.currencies", file.name,
            f"{value.name} is in {len(currency.names)} currencies ({currency.name}: {shares}), and a sum over them"
            f" means"
            " nothing. It is not read as the value; both columns become properties.", True, dict(currency.names),
            tuple(currency.names), "Do you need a value? If so: convert it to one currency in a query.",
        ))  # fmt: skip
        made = replace(made, unvalued=True, properties=(*made.properties, value.name, currency.name))
    elif value.decimal_mark is not None and len(beside := made.table.beside_numbers(value.name)) > 1:
        shares = ", ".join(f"{sign} in {rows:,} rows" for sign, rows in list(beside.items())[:5])
        found.append(Doubt(
            f"{made.source}.currencies", file.name,
            f"{value.name} has {len(beside)} different signs beside its numbers ({shares}); a sum over currencies"
            " means nothing. It is not read as the value and becomes a property.", True, beside,
            tuple(beside), "Do you need a value? If so: convert it to one currency in a query.",
        ))  # fmt: skip
        made = replace(made, unvalued=True, properties=(*made.properties, value.name))
    amounts = _amounts(made, value)
    below, of = _below_zero(made, amounts)
    if below:
        found.append(Doubt(
            f"{made.source}.negative", file.name,
            f"{' or '.join(amounts)} is below zero in {below:,} of {of:,} rows that mean a purchase, as refunds and"
            f" cancellations are:"
            " each would count as a purchase. A query gives them the event 'refund' instead, which does not undo the"
            " purchase before it.", True,
            {"rows": below, "of": of}, way_out="Are they something else? If so: correct the query.",
        ))  # fmt: skip
    if "event" in made.roles.columns and (where := _committed(made)) != _NOTHING:
        elsewhere = made.table.ask(f"count({made.table.text(value.name)})", f"NOT ({where})")[0]
        if elsewhere > 0.05 * value.filled and below == 0:
            priced = is_price(value.name) and not made.unvalued
            found.append(Doubt(
                f"{made.source}.{PRICE_ELSEWHERE if priced else 'value-elsewhere'}", file.name,
                f"{value.name} also stands in {elsewhere:,} rows of events that are no purchase"
                + ("; it is their value, too." if not priced else
                   f", as the price of what was looked at does. A query takes it for the value of"
                   f" {first_of(sold(made))} alone; elsewhere it is a property."),
                priced, {"rows": elsewhere},
                way_out="Does every such row bring it in? If so: correct the query." if priced else "",
            ))  # fmt: skip
            made = replace(made, properties=(*made.properties, value.name)) if priced else made
    return replace(made, doubts=tuple(found))


_NOTHING = "FALSE"


def _committed(made: Draft) -> str | None:
    """Return in SQL which rows mean a purchase; None where the event that all of them have is none."""
    if "event" not in made.roles.columns:
        return "TRUE" if meaning(made.event or "") in COMMITTED else None
    mapped = [name for name in made.events if meaning(name) in COMMITTED]
    text = made.table.text(made.roles.get("event"))
    return f"{text} IN ({', '.join(map(literal, mapped))})" if mapped else _NOTHING


def _amounts(made: Draft, value: ColumnProfile) -> list[str]:
    """Return the columns that an amount is made of: the value, times the quantity where it is the price of a piece."""
    pieces = made.shape == "lines" and is_price(value.name)
    quantity = find_quantity(made.table, made.roles.columns.values()) if pieces else None
    return [value.name, quantity] if quantity else [value.name]


def _below_zero(made: Draft, amounts: Sequence[str]) -> tuple[int, int]:
    """Return how many rows that mean a purchase have an amount below zero (or a quantity), and how many there are."""
    where = _committed(made)
    if where is None:
        return 0, 0
    tests = " OR ".join(f"{number_sql(made.table, one, strict=False)} < 0" for one in amounts)
    below, of = made.table.ask(f"count(*) FILTER (WHERE {tests}), count(*)", where)
    return int(below), int(of)


def _without_amounts(made: Draft) -> list[Doubt]:
    """Return the doubt of purchases without any value, with the columns that could be their amounts."""
    table, columns, value = made.table, made.roles.columns, made.column("value")
    where = _committed(made)
    if where is None:
        return []
    amount = f"count({table.text(value.name)})" if value else "0"
    filled, rows = table.ask(f"{amount}, count(*)", where)
    if filled or not rows:
        return []
    rivals = [one for one in find_numbers(table, columns.values()) if value is None or one.name != value.name]
    told = first_of([str(Candidate(one, 0)) for one in rivals])
    text = f"{value.name} is empty in all of them" if value else "no column says by its name what they were worth"
    text = f"{rows:,} rows mean a purchase and have no value ({text}), so that nobody's purchases are worth anything."
    return [Doubt(
        f"{made.source}.no-value", table.file.name, text + (f" Numbers are in {told}." if rivals else ""),
        bool(rivals), {"rows": rows}, tuple(one.name for one in rivals),
        f"Is one of them the amount? If so: --column {table.file.paths[0].name}:value=COLUMN." if rivals
        else "If amounts stand elsewhere, add them to the export.",
    )]  # fmt: skip


def with_states(made: Draft) -> Draft:
    """Return the draft with orders that came to nothing set apart, where a column says in which state each is."""
    if made.event is None or meaning(made.event) not in COMMITTED:
        return made
    found = sorted(_states(made), key=lambda one: (not one.undone, one.coded, not one.is_named))
    if not found:
        return made
    state, *others = found
    # Which row of an order counts depends on the day that is asked about.
    undone = [name for name in state.undone if made.shape != "versions"]
    left = [name for name in state.names if name not in undone]
    told = [f"{name} ({rows:,} rows)" for name, rows in state.names.items()]
    empty = made.table.file.rows - sum(state.names.values())
    told += [f"empty ({empty:,} rows)"] if empty else []
    text = f"{state.column} says in which state each is: {first_of(told)}."
    if state.coded and not undone:
        text = text.removesuffix(".") + ", in numbers that mean nothing to a stranger."
    text += f" {first_of(undone)} came to nothing: event {made.event + '_undone'!r}." if undone else ""
    text += f" {first_of(left)} count as {made.event!r}." if left else ""
    if others:
        text += f" Not looked at, though it may say the same: {first_of([one.column for one in others])}."
    doubt = Doubt(
        f"{made.source}.states", made.table.file.name, text, state.coded or not all(map(is_done, state.names)),
        dict(state.names), (*state.names, *(one.column for one in others)),
        "Are others no purchases? If so: "
        + ("name them in the query, too." if undone else
           f"say which are under sources.{made.source}, as in where: {{{state.column}: [{left[0]}]}}."),
    )  # fmt: skip
    made = replace(made, doubts=(*made.doubts, doubt), properties=(*made.properties, state.column))
    if not undone:
        return made
    rows = sum(state.names[name] for name in undone)
    events = {made.event or "": sum(made.events.values()) - rows, f"{made.event}_undone": rows}
    return replace(made, events=events, undone=(state.column, tuple(undone)))


@dataclass(frozen=True, slots=True)
class _State:
    """A column that may say in which state an order is: its values with their rows, and those of what is none.

    ``coded`` says that the values are truth values or numbers, ``is_named`` that the column is called like a state.
    """

    column: str
    names: Mapping[str, int]
    undone: tuple[str, ...]
    is_named: bool
    coded: bool = False


def _states(made: Draft) -> Iterator[_State]:
    """Yield the columns that may say what became of each order: names of states, truth values, numbers of states."""
    table, taken = made.table, set(made.roles.columns.values())
    for one in table.file.columns:
        if one.name in taken or not 0 < one.distinct <= NAMES:
            continue
        repeats = 2 * one.distinct <= one.filled or one.distinct <= _FEW
        if (off := _off(one.name)) is not None and one.distinct <= 2:
            names = table.values(one.name)
            undone = tuple(name for name in names if _truth(name) is off)
            if undone and all(_truth(name) is not None for name in names):
                yield _State(one.name, names, undone, is_named=True, coded=True)
                continue
        if one.kind == "text" and one.names:
            named = is_state(one.name)
            undone = tuple(filter(is_undone, one.names))
            unsure = named and not all(is_done(name) and not set(words(name)) & _PAID_BACK for name in one.names)
            if (undone and repeats and not set(words(one.name)) & ID_WORDS) or unsure:
                yield _State(one.name, one.names, undone, named)
        elif one.kind == "number" and one.whole and one.distinct > 1 and repeats and is_state(one.name):
            yield _State(one.name, table.values(one.name), (), is_named=True, coded=True)


def _truth(text: str) -> bool | None:
    """Return the truth value that a text is, None for any other."""
    plain = re.sub(r"\.0+$", "", text.strip().lower())
    return True if plain in _TRUE else False if plain in _FALSE else None


def _off(column: str) -> bool | None:
    """Return which truth value of a column says that an order came to nothing; None where its name says neither."""
    parts = set(words(column)) - _ABOUT
    if not parts or not parts <= _GOOD | _BAD:
        return None
    return bool(parts & _BAD)


def payment_doubts(source: str, table: Table, roles: Roles, key: str | None) -> tuple[list[Doubt], list[str]]:
    """Return the doubt of orders in several events that all mean a purchase, and the events not to count."""
    if key is None or "event" not in roles.columns:
        return [], []
    events = [name for name in table.tally(roles.get("event")) if meaning(name) in COMMITTED]
    if len(events) < 2:
        return [], []
    text = table.text(roles.get("event"))
    known = f"{table.text(key)} IS NOT NULL"
    orders = {name: table.distinct(key, where=f"{text} = {literal(name)} AND {known}") for name in events}
    together = sum(orders.values()) - table.distinct(
        key, where=f"{text} IN ({', '.join(map(literal, events))}) AND {known}"
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
