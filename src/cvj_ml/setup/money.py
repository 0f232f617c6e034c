"""What a purchase was worth: which column says it, in which currency and unit, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cvj_ml.config import DecimalMark
from cvj_ml.setup.columns import ColumnProfile, is_one_of, words
from cvj_ml.setup.doubts import Doubt, first_of
from cvj_ml.setup.events import COMMITTED, meaning
from cvj_ml.setup.queries import DEBITS, PRICE_EACH, PRICE_ELSEWHERE, Draft, groups_of, number_sql, sold
from cvj_ml.setup.roles import ID_WORDS, Candidate, find_numbers, find_quantity, is_currency, is_price, says_money
from cvj_ml.store.mapping import plain_number
from cvj_ml.store.sql import literal

_FEW_AMOUNTS = 12
"""Of so few different amounts nothing is said about how they are written."""
_WITHOUT_CENTS = frozenset(words("bif clp djf gnf huf idr isk jpy kmf krw mga pyg rwf twd ugx vnd vuv xaf xof xpf"))
"""Currencies whose amounts are whole."""
_CENTS = frozenset(words("cent cents minor pence pennies centimes centavos"))
_GIVEN_BACK = frozenset(words("refund refunded refunds erstattung remboursement reembolso rimborso"))
_LIKE_PRICES = 0.95
_PRICE_IN_CENTS = 500
"""Whole amounts whose median is below are no cents: hardly anything costs so little."""
_NOTHING = "FALSE"
_SOLD = ("purchase", "booking")
"""What has a price; a demo and a trial often have none."""
_FREE = 0.05
"""From this share on, purchases of 0 are asked about."""
_SNAPSHOTS = 3
"""Rows a customer, and a day, from which they can be snapshots."""
_GROWING = 1 / 3
"""Customers whose total rises at least twice; those who came once and stayed away never do."""
_RUNNING = frozenset(words("running cumulative cumulated cum ytd lifetime kumuliert accumulated balance"))
_NEARLY_THE_SUM = 0.01


def with_money(made: Draft) -> Draft:
    """Return the draft with what speaks against its amounts: currencies, signs, rivals."""
    made = _with_thousands(made)
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
    found += [*_in_cents(made, value, currency), *_of_pieces(made, value)]
    found += [*_given_back(made, value), *_totals(made, value)]
    made = replace(made, doubts=tuple(found))
    amounts = _amounts(made, value)
    below, of = _below_zero(made, amounts)
    if 2 * below > of:
        found.append(Doubt(
            f"{made.source}.{DEBITS}", file.name,
            f"{' or '.join(amounts)} is below zero in {below:,} of {of:,} rows that mean a purchase, as what leaves an"
            " account is. A query turns the sign: those below zero are the purchases, and those above zero get the"
            " event 'refund'.", True,
            {"rows": below, "of": of},
            way_out="Is a purchase above zero? If so: turn the sign back in the query, and leave those below zero out.",
        ))  # fmt: skip
    elif below:
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


def amount_doubts(made: Draft) -> list[Doubt]:
    """Return what speaks against rows being purchases of what they are worth: amounts of 0, and running totals."""
    value, where = made.column("value"), _committed(made, _SOLD)
    if value is None or made.unvalued or where is None or made.shape not in ("rows", "lines"):
        return []
    undone = [f"({is_one_of(made.table.text(own), names)}) IS TRUE" for own, names in made.undone]
    # Rows of nobody, as corrections of a stock, are refused and make no customer.
    where = " AND NOT ".join([f"({where}) AND {made.customer} IS NOT NULL", *undone])
    return [*_zeros(made, value, where), *_running_total(made, value, where)]


def _zeros(made: Draft, value: ColumnProfile, where: str) -> list[Doubt]:
    """Return the doubt of purchases of exactly 0, as a trial or a sample is; of lines, of orders of nothing else."""
    amount = f"abs({number_sql(made.table, value.name, strict=False)})"
    rows = f"SELECT {amount} AS amount FROM {made.table.sql} WHERE {where}"
    if made.shape == "lines":
        by = ", ".join(map(made.table.text, groups_of(made)))
        rows = f"SELECT max({amount}) AS amount FROM {made.table.sql} WHERE {where} GROUP BY {by}"
    counted = f"SELECT count(*) FILTER (amount = 0), count(*) FROM ({rows})"
    zero, of = made.table.connection.execute(counted).fetchall()[0]
    if not max(1, _FREE * of) <= zero < of:
        return []
    return [Doubt(
        f"{made.source}.zeros", made.table.file.name,
        f"{value.name} is exactly 0 in {zero:,} of {of:,} purchases, as that of a free trial or a sample is. Each makes"
        " a customer, as one with an amount does.", True, {"zero": zero, "of": of},
        way_out="Are they no purchases? If so: leave them out in a query, as in WHERE"
        f" {number_sql(made.table, value.name, strict=False)} <> 0, or give them an event of their own there.",
    )]  # fmt: skip


def _running_total(made: Draft, value: ColumnProfile, where: str) -> list[Doubt]:
    """Return the doubt of amounts that never fall within a customer and rise again and again: a total until then.

    Amounts of orders may happen to rise; those of many customers on the same days are snapshots.
    """
    at = made.column("occurred_at")
    if at is None or not at.moment or made.shape != "rows":
        return []
    amount = number_sql(made.table, value.name, strict=False)
    customers, rising, falls, rows = made.table.connection.execute(
        f"SELECT count(*), count(*) FILTER (rises >= 2), coalesce(sum(falls), 0), coalesce(sum(n), 0) FROM ("
        f"SELECT count(*) AS n, count(*) FILTER (a > before) AS rises, count(*) FILTER (a < before) AS falls FROM ("
        f"SELECT c, a, lag(a) OVER (PARTITION BY c ORDER BY t, a) AS before FROM ("
        f"SELECT {made.customer} AS c, {amount} AS a, ({at.moment}) AS t FROM {made.table.sql} WHERE {where})"
        f" WHERE a IS NOT NULL) GROUP BY c HAVING count(*) >= {_SNAPSHOTS})"
    ).fetchall()[0]
    people, times, whole = made.table.ask(
        f"count(DISTINCT {made.customer}), count(DISTINCT {made.table.text(at.name)}), count(*)", where
    )
    named = bool(set(words(value.name)) & _RUNNING)
    shared = named or whole >= _SNAPSHOTS * times
    if falls or rising <= _GROWING * customers or not shared or whole < _SNAPSHOTS * people:
        return []
    return [Doubt(
        f"{made.source}.running-total", made.table.file.name,
        f"{value.name} never falls within a customer and rises again and again in {rising:,} of {customers:,} customers"
        f" with {_SNAPSHOTS} rows or more ({rows:,} rows), as a balance or a running total does. Each row counts as a"
        " purchase of all that stands there.", True, {"rising": rising, "customers": customers},
        way_out="Is it what came together until then? If so: name a file of orders instead, or take the difference to"
        " the customer's row before in a query (lag), without rows that add nothing.",
    )]  # fmt: skip


def _committed(made: Draft, meant: Sequence[str] = COMMITTED) -> str | None:
    """Return in SQL which rows mean a purchase; None where the event that all of them have is none."""
    if "event" not in made.roles.columns:
        return "TRUE" if meaning(made.event or "") in meant else None
    mapped = [name for name in made.events if meaning(name) in meant]
    text = made.table.text(made.roles.get("event"))
    return f"{text} IN ({', '.join(map(literal, mapped))})" if mapped else _NOTHING


def _amounts(made: Draft, value: ColumnProfile) -> list[str]:
    """Return the columns that an amount is made of: the value, times the quantity where it is the price of a piece."""
    pieces = made.computes_value and is_price(value.name)
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
    if value is None and (unread := _unread_amounts(made)):
        return unread
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


def _unread_amounts(made: Draft) -> list[Doubt]:
    """Return the doubt of a column that says money by its name, and holds numbers that are not written as such."""
    table = made.table
    for one in table.file.columns:
        if one.kind != "text" or not says_money(one.name):
            continue
        text = f"trim({table.text(one.name)})"
        plain = f"TRY_CAST({text} AS DOUBLE) IS NOT NULL"
        filled, digits, unread, shape = table.ask(
            f"count({text}), count(*) FILTER (regexp_matches({text}, '[0-9]')), count(*) FILTER (NOT {plain}),"
            f" mode(regexp_replace({text}, '[0-9]', '9', 'g')) FILTER (NOT {plain} AND regexp_matches({text}, '[0-9]'))"
        )
        if filled and 2 * digits > filled and shape:
            return [Doubt(
                f"{made.source}.unread-amounts", table.file.name,
                f"{one.name} says an amount, and {unread:,} of its {filled:,} cells are no plain numbers, most of them"
                f" written as {shape}: it is not read, so that nobody's purchases are worth anything.", True,
                {"unread": unread, "of": filled}, (one.name,),
                "Do you need a value? If so: make numbers of them in a query (docs/configuration.md), or export anew.",
            )]  # fmt: skip
    return []


def _in_cents(made: Draft, value: ColumnProfile, currency: ColumnProfile | None) -> list[Doubt]:
    """Return the doubt of whole amounts that look like cents: nearly all end as prices do, and few are small."""
    codes = set(currency.names or ()) if currency is not None else set()
    if not value.whole or value.distinct < 2 or (codes and {code.lower() for code in codes} <= _WITHOUT_CENTS):
        return []
    named = bool(set(words(value.name)) & _CENTS)
    amount = f"TRY_CAST({made.table.text(value.name)} AS DOUBLE)"
    rows, like, middle = made.table.ask(
        f"count(*), count(*) FILTER ({amount} % 100 IN (0, 50, 90, 95, 99)), median({amount})", f"{amount} <> 0"
    )
    if not rows or (not named and (like < _LIKE_PRICES * rows or middle < _PRICE_IN_CENTS)):
        return []
    # Programs write usd, people USD.
    coded = bool(codes) and all(code.islower() for code in codes)
    why = (
        f"{value.name} says by its name that it counts cents."
        if named
        else f"{value.name} holds whole numbers alone, of which {like / rows:.0%} end as prices in cents do (00, 50,"
        " 90, 95, 99)."
    )
    return [Doubt(
        f"{made.source}.cents", made.table.file.name,
        f"{why} The middle one is {middle:,.0f}, and counts as {middle:,.2f}, not as {middle / 100:,.2f}.",
        named or coded,
        {"rows": rows}, way_out=f"Are they cents? If so: write  minor_units: true  under sources.{made.source}.",
    )]  # fmt: skip


def _with_thousands(made: Draft) -> Draft:
    """Return the draft with its amounts read by the mark that their digits tell, and the doubt where they tell none.

    Where all have a mark with three digits behind it, it may be of thousands or of decimals. Where some have none, it
    is taken for one of thousands: who writes decimals writes 898.000 beside 1.234, or 1.23 somewhere. Two marks in one
    number are of thousands for certain.
    """
    value = made.column("value")
    if value is None or value.type != "VARCHAR" or value.kind != "number" or value.distinct < _FEW_AMOUNTS:
        return made
    bare = f"regexp_replace({made.table.text(value.name)}, '[^0-9.,]', '', 'g')"
    rows, marked, alike, sure, mark, other = made.table.ask(
        f"count({bare}), count(*) FILTER (regexp_matches({bare}, '[.,]')),"
        f" count(*) FILTER (regexp_full_match({bare}, '[1-9][0-9]{{0,2}}([.,][0-9]{{3}})+')),"
        f" count(*) FILTER (regexp_matches({bare}, '[.,].*[.,]')),"
        f" min(nullif(regexp_extract({bare}, '[.,]'), '')), max(nullif(regexp_extract({bare}, '[.,]'), ''))"
    )
    if not marked or alike < marked or mark != other:
        return made
    mixed = marked < rows
    if mixed or sure:
        decimal: DecimalMark = "." if mark == "," else ","
        (read,) = made.table.ask(f"count(TRY_CAST({plain_number(made.table.text(value.name), decimal)} AS DOUBLE))")
        columns = [
            replace(one, decimal_mark=decimal, unread=value.filled - read) if one.name == value.name else one
            for one in made.table.file.columns
        ]
        made = replace(made, table=replace(made.table, file=replace(made.table.file, columns=tuple(columns))))
    if sure:
        return made
    text = f"{marked:,} of {rows:,} {value.name} have a mark, each" if mixed else f"every {value.name} has its mark"
    text += f" with exactly three digits behind it (9{mark}999)"
    text += (
        ", and the others are whole: it is read as one of thousands, and may be a decimal mark."
        if mixed
        else ": it is read as a decimal mark, and may be one of thousands."
    )
    said = mark if mixed else "." if mark == "," else ","
    doubt = Doubt(
        f"{made.source}.thousands", made.table.file.name, text, True, {"rows": marked, "of": rows},
        way_out=f"Is it {'a decimal mark' if mixed else 'one of thousands'}? If so: write  decimal_mark: \"{said}\""
        f"  under sources.{made.source}; in a query, correct that.",
    )  # fmt: skip
    return replace(made, doubts=(*made.doubts, doubt))


def _of_pieces(made: Draft, value: ColumnProfile) -> list[Doubt]:
    """Return the doubt of a price beside a quantity, in rows that are orders of their own."""
    quantity = find_quantity(made.table, made.roles.columns.values()) if is_price(value.name) else None
    if made.shape != "rows" or quantity is None:
        return []
    (several,) = made.table.ask(f"count(*) FILTER ({number_sql(made.table, quantity, strict=False)} > 1)")
    if not several:
        return []
    return [Doubt(
        f"{made.source}.{PRICE_EACH}", made.table.file.name,
        f"{value.name} is by its name the price of one piece, and {quantity} is above 1 in {several:,} rows. A query"
        " multiplies them.", True, {"rows": several}, (quantity,),
        f"Is {value.name} the amount of the whole row? If so: correct the query.",
    )]  # fmt: skip


def _given_back(made: Draft, value: ColumnProfile) -> list[Doubt]:
    """Return the note on a column beside the value that says how much was paid back."""
    found = []
    for one in made.table.file.columns:
        if one.kind != "number" or not set(words(one.name)) & _GIVEN_BACK or set(words(one.name)) & ID_WORDS:
            continue
        amount = number_sql(made.table, one.name, strict=False)
        rows, total = made.table.ask(f"count(*) FILTER ({amount} > 0), sum({amount}) FILTER ({amount} > 0)")
        if rows:
            found.append(Doubt(
                f"{made.source}.given-back", made.table.file.name,
                f"{one.name} is above 0 in {rows:,} rows, {total:,.2f} in all, and {value.name} counts as it stands,"
                " gross.", False, {"rows": rows, "total": total},
                way_out="Do refunds matter? If so: make touchpoints 'refund' of them, each on its day.",
            ))  # fmt: skip
    return found


def _totals(made: Draft, value: ColumnProfile) -> list[Doubt]:
    """Return the doubt of one row whose amount is that of all others together, as the last line of a report has it."""
    amount = f"CAST({number_sql(made.table, value.name, strict=False)} AS DOUBLE)"
    rows, most, total = made.table.ask(f"count({amount}), max({amount}), sum({amount})", f"{made.customer} IS NOT NULL")
    if rows < _FEW_AMOUNTS or most <= 0 or abs(total - 2 * most) > _NEARLY_THE_SUM * most:
        return []
    return [Doubt(
        f"{made.source}.totals-row", made.table.file.name,
        f"one row has the {value.name} of the {rows - 1:,} others together, as a line of totals has: it would be your"
        " best customer.", True, {"rows": 1},
        way_out=f"Is it a total? If so: take it out of the file, or write  null_values: [its id]  under"
        f" sources.{made.source}.",
    )]  # fmt: skip
