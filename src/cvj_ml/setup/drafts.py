"""What the rows of a table are (touchpoints, lines or versions of orders, dates side by side), and how to read them."""

from __future__ import annotations

from dataclasses import replace

from cvj_ml.errors import ConfigError
from cvj_ml.setup.columns import words
from cvj_ml.setup.customers import nobody_values
from cvj_ml.setup.doubts import Doubt, first_of
from cvj_ml.setup.events import meanings
from cvj_ml.setup.money import amount_doubts, with_money
from cvj_ml.setup.profile import Table
from cvj_ml.setup.purchases import kind_doubts, with_states
from cvj_ml.setup.queries import (
    DEBITS,
    FILLED,
    Draft,
    Shape,
    contradiction_of,
    dates_of,
    event_of_date,
    groups_of,
    melt_of,
    needs_query,
    query_of,
)
from cvj_ml.setup.roles import (
    Roles,
    find_change,
    find_keys,
    is_currency,
    is_item,
    is_modification,
    is_price,
    names_events,
    order_of_each_row,
)
from cvj_ml.store.sql import literal

_NEARLY = 0.98
_LINES = 1.5
"""Rows a customer and instant from which rows are taken for lines of orders, not for touchpoints."""
_PAID = 0.9
_SEVERAL = 0.02
"""Share of ids that repeat from which they are those of orders with several rows."""


def find_shape(table: Table, roles: Roles) -> tuple[Shape, str | None, str | None]:
    """Return what the rows of a log are, the column that tells orders apart, and the one that dates their versions."""
    customer, at, taken = roles.get("customer_id"), roles.get("occurred_at"), set(roles.columns.values())
    if "event" not in roles.columns and find_change(table, taken):
        return "changes", None, None
    if {"touchpoint_id", "known_at"} <= roles.told:
        return "versions", roles.get("touchpoint_id"), roles.get("known_at")
    one_each = table.file.column(customer).distinct >= _NEARLY * table.file.column(customer).filled
    side_by_side = one_each and len(dates_of(table)) > 1 and not order_of_each_row(table, taken)
    if "event" not in roles.columns and side_by_side and "occurred_at" not in roles.told:
        return "dates", None, None
    keys = find_keys(
        table, {customer, at} | {name for role, name in roles.columns.items() if role in ("value", "event")}
    )
    if "touchpoint_id" in roles.told:
        return "rows", roles.get("touchpoint_id"), None
    event = [roles.get("event")] if "event" in roles.columns else []
    repeating = []
    for one in keys:
        filled = one.somebody
        if one.distinct >= (1 - _SEVERAL) * filled or is_item(one.name):
            continue
        one_customer, one_time, keys_found = _within(table, one.name, customer, at)
        if one_customer < _NEARLY * keys_found:
            continue
        apart = table.distinct(one.name, *event, where=f"{table.text(one.name)} IS NOT NULL") if event else 0
        if apart >= _NEARLY * filled:
            continue  # each event of an order has its row
        if one_time >= _NEARLY * keys_found:
            if not event and (known := _versioned(table, one.name, at)):
                return "versions", one.name, known
            return "lines", one.name, None
        repeating.append(one.name)
    unique = next((one.name for one in keys if one.distinct == one.filled == table.file.rows), None)
    if not event and not repeating and table.file.rows > _LINES * table.distinct(customer, at):
        return "lines", None, None
    half = next((one.name for one in keys if one.filled > table.file.rows / 2), None)
    return "rows", unique or (repeating[0] if repeating else half), None


def _within(table: Table, key: str, customer: str, at: str) -> tuple[int, int, int]:
    one_customer, one_time, keys = table.connection.execute(
        f"SELECT count(*) FILTER (WHERE c <= 1), count(*) FILTER (WHERE t <= 1), count(*) FROM"
        f" (SELECT count(DISTINCT {table.text(customer)}) AS c, count(DISTINCT {table.text(at)}) AS t"
        f" FROM {table.sql} WHERE {table.text(key)} IS NOT NULL GROUP BY {table.text(key)})"
    ).fetchall()[0]
    return int(one_customer), int(one_time), int(keys)


def _versioned(table: Table, key: str, at: str) -> str | None:
    """Return the time that tells the versions of an order apart, if its rows are such."""
    for one in table.file.columns:
        if one.kind == "time" and one.name != at and is_modification(one.name) and one.filled == table.file.rows:
            several, same, _ = table.within([key], one.name)
            if several and same <= 0.1 * several:
                return one.name
    return None


def draft(source: str, table: Table, roles: Roles) -> Draft:
    """Return how a log is read, with the doubts about it."""
    shape, key, known = find_shape(table, roles)
    columns = dict(roles.columns)
    if shape == "versions" and key and known:
        columns |= {"touchpoint_id": key, "known_at": known}
    elif shape == "rows" and key and "touchpoint_id" not in columns:
        column = table.file.column(key)
        if column.distinct == column.filled == table.file.rows:
            columns["touchpoint_id"] = key
    made = Draft(source, table, replace(roles, columns=columns), shape, key)
    ids = (columns["customer_id"], *roles.also)
    nobody = dict.fromkeys(value for own in ids for value in nobody_values(table.file.column(own)))
    made = replace(made, null_values=tuple(nobody))
    made = with_states(with_money(_with_events(made)))
    made = replace(made, doubts=(*made.doubts, *kind_doubts(made), *amount_doubts(made)))
    made = _first_lines(made)
    if not needs_query(made):
        return made
    if roles.also and made.shape != "rows":
        raise ConfigError(
            f"{table.file.name}: its rows are no touchpoints ({made.shape}), and the query that makes some of them"
            f" knows one column of customers, not {first_of(list(ids))}. Name one: --column"
            f" {table.file.paths[0].name}:customer_id={ids[0]}"
        )
    return replace(made, query=query_of(made))


def _first_lines(made: Draft) -> Draft:
    """Return lines of orders as rows where one line of each says all: the amount stands there, and on no other."""
    if made.shape != "lines" or made.undone or made.unvalued or "value" not in made.roles.columns:
        return made
    value, at = made.roles.get("value"), made.column("occurred_at")
    by = [made.key] if made.key else groups_of(made)
    several, _, once = made.table.within(by, value)
    orders = made.table.distinct(*by)
    counts = ", ".join(f"count({made.table.text(name)})" for name in (made.roles.get("customer_id"), *by))
    with_all = made.table.ask(f"count(*), {counts}", f"{made.table.text(value)} IS NOT NULL")
    plain = not (made.has_doubt("negative") or made.has_doubt(DEBITS)) and (at is None or at.is_written_plainly)
    if is_price(value) or once < several or set(with_all) != {orders} or not plain:
        return made
    left = made.rows - orders
    doubts = [
        replace(
            one,
            text=f"several rows stand for one order: {made.rows:,} rows are {orders:,} orders by {first_of(by)}, each"
            f" with {value} in one row alone. Only those are read (where); {left:,} rows are left out and counted.",
        )
        if one.name.endswith(".order-lines")
        else one
        for one in made.doubts
    ]
    key = {"touchpoint_id": made.key} if made.key else {}
    roles = replace(made.roles, columns={**made.roles.columns, **key})
    return replace(made, shape="rows", roles=roles, where={value: FILLED}, doubts=tuple(doubts))


def _with_events(made: Draft) -> Draft:
    """Return the draft with its events and how often they occur."""
    file, columns = made.table.file, made.roles.columns
    at = made.column("occurred_at")
    made = replace(made, first=at.first if at else None, last=at.last if at else None)
    if made.shape == "dates":
        return _with_dates(made)
    if made.shape == "changes":
        return _with_changes(made)
    said = next((value for key, value in file.folders if names_events(key)), None)
    if said is not None and "event" not in made.roles.told:
        roles = replace(made.roles, columns={role: own for role, own in columns.items() if role != "event"})
        return replace(made, roles=roles, event=said, events={said: file.rows})
    if "event" in columns:
        made = replace(made, events=made.table.tally(columns["event"]))
        return _with_lines_of_events(made) if made.shape == "lines" and made.key else made
    stem = "_".join(one for one in words(file.paths[0].name.split(".")[0]) if not one.isdigit()) or "row"
    said = next(iter(meanings([stem, stem.removesuffix("s")])), None)
    customer = file.column(columns["customer_id"])
    order = order_of_each_row(made.table, {*columns.values()} - {columns.get("touchpoint_id")})
    if order is not None and not said:
        event, why = "purchase", f"a row an order, by {order}"
    elif order is None and customer.ids >= _NEARLY * customer.somebody and "value" not in columns:
        event, why = "signup", "a row a customer, with a time: when they came"
    else:
        event, why = said or ("purchase" if "value" in columns else stem), "by the file's name" if said else ""
    texts = [
        one.name
        for one in file.columns
        if one.kind == "text" and one.filled == file.rows and one.names and 1 < len(one.names) <= 50
        and one.name not in columns.values() and not is_currency(one)
    ]  # fmt: skip
    value = made.column("value")
    paid = value is not None and (made.shape != "rows" or value.filled >= _PAID * file.rows)
    plain = event == "signup" or (paid and event == "purchase")
    doubt = Doubt(
        f"{made.source}.event", file.name,
        f"no column names the events, so every row is taken for {event!r}" + (f" ({why})" if why else "") + "."
        + (f" {first_of(texts)} would be properties." if texts else ""),
        not plain, {"rows": file.rows}, tuple(texts),
        f"Is one of the columns the event? If so: --column {file.paths[0].name}:event=COLUMN.",
    )  # fmt: skip
    made = replace(made, event=event, events={event: file.rows}, doubts=(*made.doubts, doubt))
    if made.shape == "lines":
        orders = made.table.distinct(*groups_of(made))
        made = replace(made, events={event: orders}, doubts=(*made.doubts, Doubt(
            f"{made.source}.order-lines", file.name,
            f"several rows of a customer stand at one instant, as lines of an order do: {file.rows:,} rows are"
            f" {orders:,}"
            f" orders by {first_of(groups_of(made))}. A query makes one touchpoint of them.", made.key is None,
            {"rows": file.rows, "orders": orders}, way_out="Are they something else? If so: correct the query.",
        )))  # fmt: skip
    elif made.shape == "versions":
        orders = made.table.distinct(columns["touchpoint_id"])
        made = replace(made, events={event: orders}, doubts=(*made.doubts, Doubt(
            f"{made.source}.versions", file.name,
            f"{columns['touchpoint_id']} stands in several rows, one for each time that it changed: {file.rows:,}"
            f" rows are"
            f" {orders:,} orders, of which the newest row known counts ({columns['known_at']}).",
            not {"touchpoint_id", "known_at"} <= made.roles.told, {"rows": file.rows, "orders": orders},
            way_out="Is each row a touchpoint of its own? If so: take touchpoint_id and known_at out of columns.",
        )))  # fmt: skip
    return made


def _with_lines_of_events(made: Draft) -> Draft:
    """Return a log of which some events have an order's number and a row for each of its lines."""
    table, key, event = made.table, made.table.text(made.key or ""), made.table.text(made.roles.get("event"))
    counted = table.connection.execute(
        f"SELECT {event}, count(*) FILTER ({key} IS NULL) + count(DISTINCT {key}), count({key}), count(DISTINCT {key})"
        f" FROM {table.sql} WHERE {event} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    lines, orders = sum(row[2] for row in counted), sum(row[3] for row in counted)
    doubt = Doubt(
        f"{made.source}.order-lines", table.file.name,
        f"{made.key} stands in several rows of one event, as lines of an order do: {lines:,} rows are {orders:,} orders"
        f" ({first_of([str(row[0]) for row in counted if row[2]])}). A query makes one touchpoint of each.", False,
        {"rows": lines, "orders": orders}, way_out="Are they something else? If so: correct the query.",
    )  # fmt: skip
    return replace(made, events={name: number for name, number, *_ in counted}, doubts=(*made.doubts, doubt))


def _with_dates(made: Draft) -> Draft:
    dates, file = dates_of(made.table), made.table.file
    events = {event_of_date(one.name): one.filled for one in dates}
    left = [one.name for one in file.columns if one.kind == "time" and one not in dates]
    made = replace(
        made,
        events=events,
        melt=melt_of(made),
        first=min(one.first for one in dates if one.first),
        last=max(one.last for one in dates if one.last),
    )
    total = sum(events.values())
    disagree = contradiction_of(made)
    return replace(made, doubts=(*made.doubts, Doubt(
        f"{made.source}.several-dates", file.name,
        f"several date columns stand side by side in one row a customer ({made.roles.get('customer_id')}, {file.rows:,}"
        f" rows): {first_of([one.name for one in dates])}. Each is a touchpoint, {total:,} in all, with"
        " the"
        f" events {first_of(list(events))}." + (f" {first_of(left)} is left out." if left else "") + disagree, True,
        {"dates": len(dates), "touchpoints": total}, tuple(one.name for one in dates),
        f"Is one of them alone meant? If so: --column {file.paths[0].name}:occurred_at=COLUMN.",
        None if made.melt else query_of(made),
    )))  # fmt: skip


def _with_changes(made: Draft) -> Draft:
    change = find_change(made.table, made.roles.columns.values())
    assert change is not None, "the shape says that there is a change"
    file, new = made.table.file, change[1]
    fields = next(
        (
            one
            for one in file.columns
            if one.names and set(words(one.name)) & {"field", "attribute", "property", "feld", "campo", "champ"}
        ),
        None,
    )
    columns = {**made.roles.columns, "event": new}
    where = None
    made = replace(made, roles=replace(made.roles, columns=columns))
    told = ""
    if fields is not None and fields.names and len(fields.names) > 1:
        texts = {
            name: made.table.ask(
                f"count(*) FILTER (WHERE TRY_CAST({made.table.text(new)} AS DOUBLE) IS NULL)",
                f"{made.table.text(fields.name)} = {literal(name)}",
            )[0]
            for name in fields.names
        }
        where = max(texts, key=lambda name: (texts[name], name))
        rows_of = first_of([f"{name} ({rows:,} rows)" for name, rows in fields.names.items()])
        told = f" {fields.name} says what changed: {rows_of}; only {where} is read."
    condition = f"{made.table.text(fields.name)} = {literal(where)}" if fields is not None and where else "TRUE"
    text = made.table.text(new)
    counted = made.table.connection.execute(
        f"SELECT {text}, count(*) FROM {made.table.sql} WHERE {condition} AND {text} IS NOT NULL GROUP BY 1 ORDER BY"
        f" 2 DESC, 1"
    ).fetchall()
    kept = {fields.name: where} if fields is not None and where else {}
    made = replace(made, events=dict(counted), where=kept)
    return replace(made, doubts=(*made.doubts, Doubt(
        f"{made.source}.changes", file.name,
        f"each row is a change from {change[0]} to {new}, so {new} is taken for the event"
        f" ({first_of(list(dict(counted)))})."
        + told + " The state before the first change has no row, and a state can be left for a lower one.", True,
        {"rows": sum(dict(counted).values())}, (change[0],),
        f"Is the event another column? If so: --column {file.paths[0].name}:event=COLUMN.",
    )))  # fmt: skip
