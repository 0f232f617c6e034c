"""What counts as a purchase and what it was worth: amounts, currencies, signs, states that came to nothing."""

from __future__ import annotations

from dataclasses import replace

from cvj_ml.setup.columns import ColumnProfile
from cvj_ml.setup.doubts import Doubt, first_of
from cvj_ml.setup.events import COMMITTED, is_done, is_undone, meaning
from cvj_ml.setup.profile import Table
from cvj_ml.setup.queries import Draft, number_sql
from cvj_ml.setup.roles import Roles, find_quantity, is_currency, is_price, is_state
from cvj_ml.store.sql import literal


def with_money(made: Draft) -> Draft:
    """Return the draft with what speaks against its amounts: currencies, signs, rivals."""
    value, file, found = made.column("value"), made.table.file, list(made.doubts)
    if value is None:
        return made
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
    below, of = _below_zero(made, value)
    if below:
        found.append(Doubt(
            f"{made.source}.negative", file.name,
            f"{value.name} is below zero in {below:,} of {of:,} rows that mean a purchase, as refunds and"
            f" cancellations are:"
            " each would count as a purchase. A query gives them the event 'refund' instead, which does not undo the"
            " purchase before it.", True,
            {"rows": below, "of": of}, way_out="Are they something else? If so: correct the query.",
        ))  # fmt: skip
    if "event" in made.roles.columns:
        mapped = [name for name in made.events if meaning(name) in COMMITTED]
        text = made.table.text(made.roles.get("event"))
        named = ", ".join(map(literal, mapped)) or "''"
        elsewhere = made.table.ask(f"count({made.table.text(value.name)})", f"{text} NOT IN ({named})")[0]
        if mapped and elsewhere > 0.05 * value.filled and below == 0:
            found.append(Doubt(
                f"{made.source}.value-elsewhere", file.name,
                f"{value.name} also stands in {elsewhere:,} rows of events that are no purchase; it is their value,"
                f" too.",
                numbers={"rows": elsewhere},
            ))  # fmt: skip
    return replace(made, doubts=tuple(found))


def _below_zero(made: Draft, value: ColumnProfile) -> tuple[int, int]:
    """Return how many rows that mean a purchase have an amount below zero (or a quantity), and how many there are."""
    table, columns = made.table, made.roles.columns
    where = "TRUE"
    if "event" in columns:
        mapped = [name for name in made.events if meaning(name) in COMMITTED]
        where = f"{table.text(columns['event'])} IN ({', '.join(map(literal, mapped))})" if mapped else "FALSE"
    elif meaning(made.event or "") not in COMMITTED:
        return 0, 0
    amounts = [value.name]
    if made.shape == "lines" and is_price(value.name) and (quantity := find_quantity(table, columns.values())):
        amounts.append(quantity)
    tests = " OR ".join(f"{number_sql(table, one, strict=False)} < 0" for one in amounts)
    below, of = table.ask(f"count(*) FILTER (WHERE {tests}), count(*)", where)
    return int(below), int(of)


def with_states(made: Draft) -> Draft:
    """Return the draft with orders that came to nothing set apart, where a column says in which state each is."""
    if made.event is None or meaning(made.event) not in COMMITTED:
        return made
    file = made.table.file
    states = [
        one
        for one in file.columns
        if one.names and one.kind == "text" and one.name not in made.roles.columns.values()
        and (any(map(is_undone, one.names)) or (is_state(one.name) and not all(map(is_done, one.names))))
    ]  # fmt: skip
    state = min(states, key=lambda one: not is_state(one.name), default=None)
    if state is None or state.names is None:
        return made
    undone = {name: rows for name, rows in state.names.items() if is_undone(name)}
    others = {name: rows for name, rows in state.names.items() if name not in undone}
    text = (
        f"{state.name} says in which state each is: "
        + first_of([f"{name} ({rows:,} rows)" for name, rows in state.names.items()])
        + "."
    )
    if made.shape == "versions":
        undone = {}  # which row counts depends on the day that is asked about
    text += f" {first_of(list(undone))} came to nothing and get the event {made.event + '_undone'!r}." if undone else ""
    text += f" {first_of(list(others))} count as {made.event!r}." if others else ""
    doubt = Doubt(
        f"{made.source}.states", file.name, text,
        not all(map(is_done, state.names)),
        dict(state.names), tuple(state.names), "Are others no purchases? If so: say so in a query.",
    )  # fmt: skip
    made = replace(made, doubts=(*made.doubts, doubt), properties=(*made.properties, state.name))
    if not undone:
        return made
    events = {
        made.event or "": sum(made.events.values()) - sum(undone.values()),
        f"{made.event}_undone": sum(undone.values()),
    }
    return replace(made, events=events, undone=(state.name, tuple(undone)))


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
