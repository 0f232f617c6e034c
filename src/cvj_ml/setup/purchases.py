"""What counts as a purchase: the state an order is in, and events or files that all tell the same payment."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cvj_ml.setup.columns import NAMES, ColumnProfile, is_one_of, words
from cvj_ml.setup.doubts import Doubt, first_of
from cvj_ml.setup.events import COMMITTED, is_done, is_undone, meaning
from cvj_ml.setup.profile import Table
from cvj_ml.setup.queries import Draft, groups_of, needs_query, number_sql, query_of
from cvj_ml.setup.roles import ID_WORDS, Roles, find_keys, is_item, is_state
from cvj_ml.store.sql import identifier, literal

_FEW = 12
"""A column of so few values can be one of states in a file of any size."""
_PAID_BACK = frozenset(words("refunded rembourse erstattet reembolsado rimborsato"))
_OUTCOME = frozenset(words("result response outcome ergebnis resultat resultado esito decision approval"))
_ERROR = frozenset(words("error errors failure decline fehler erreur fallo errore"))
_NO_ERROR = frozenset(["0", "00", "000", "none", "ok", "no", "false", "success", "-", "n/a"])
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
        " geannuleerd churn churned"
    )
)
"""Words of columns with truth values: where they say no, or yes, the order came to nothing."""
_ENDED = (_BAD - frozenset(words("invalid expired fraud fraudulent test churn churned"))) | frozenset(
    words("refund chargeback dispute reversal stornierung stornodatum storniertes kundigung")
)
"""Words of columns that are filled where an order was taken back, with the day, the reason or a sign of it."""
_WHEN = frozenset(words("at on date time timestamp datetime utc day by reason code when datum am booking reservation"))
_KINDS = frozenset(words("type kind direction art typ class action tipo"))
_GERMAN_KIND = re.compile("(gs|tz|eg)(art|typ)$")
"""How German names a kind in one word: Buchungsart, Umsatzart, Belegart."""
_OF_SOMETHING = frozenset(
    words(
        "payment pay zahlungsart card product item article sku service plan subscription membership contract room"
        " device shipping ship versandart delivery lieferart address store shop channel source currency tax discount"
        " promo coupon price vehicle car property account campaign page browser email phone meal market segment"
        " company industry travel travelers seat cabin location region city country file mime user customer client"
        " member guest visitor household loyalty rate distribution"
    )
)
"""Words that say of what else than the row a column names the kind."""
_MANY_KINDS = 30
_CONTRARY = frozenset(
    words(
        "credit debit earn earned redeem redeemed redemption burn expire expired expiry adjustment correction transfer"
        " deposit withdrawal payout fee interest topup reversal haben soll gutschrift lastschrift abhebung zinsen"
    )
)
"""Words of kinds of which one is no purchase if another is one."""


def with_states(made: Draft) -> Draft:
    """Return the draft with orders that came to nothing set apart, where a column says in which state each is."""
    if made.event is None or meaning(made.event) not in COMMITTED:
        return made
    found = sorted(_states(made), key=lambda one: (not one.undone, one.coded, not one.is_named))
    if not found:
        return made
    # Which row of an order counts depends on the day that is asked about.
    apart = [one for one in found if one.undone] if made.shape != "versions" else []
    shown = apart or found[:1]
    others = [one.column for one in found if one not in shown]
    text = " ".join(_state_words(made, one, bool(apart)) for one in shown)
    text += f" Not looked at, though it may say the same: {first_of(others)}." if others else ""
    first = shown[0]
    said = next(iter(first.names))
    ended = [one.column for one in shown if one.is_filled]
    doubt = Doubt(
        f"{made.source}.states", made.table.file.name, text,
        any(one.coded or not all(map(is_done, one.names)) for one in shown),
        dict(first.names), (*first.names, *others),
        (f"Did those of {' and '.join(ended)} hold until then, as a contract does? If so: correct the query. "
         if apart and ended else "") + "Are others no purchases? If so: "
        + ("name them in the query, too." if apart else
           f"say which are in a query, as in WHERE {identifier(first.column)} IS NULL." if first.is_filled else
           f"say which are in the query, as in WHERE {identifier(first.column)} = {literal(said)}." if needs_query(made)
           else f"say which are under sources.{made.source}, as in where: {{{first.column}: [{said}]}}."),
    )  # fmt: skip
    made = replace(made, doubts=(*made.doubts, doubt), properties=(*made.properties, *(one.column for one in shown)))
    if not apart:
        return made
    undone = tuple((one.column, () if one.is_filled else one.undone) for one in apart)
    wrong = " OR ".join(is_one_of(made.table.text(own), names) for own, names in undone)
    (rows,) = made.table.ask("count(*)", wrong)
    events = {made.event or "": sum(made.events.values()) - rows, f"{made.event}_undone": rows}
    return replace(made, events=events, undone=undone)


def _state_words(made: Draft, state: _State, apart: bool) -> str:
    """Return what a column of states says, and what is made of it."""
    if state.is_filled:
        (filled,), of = state.names.values(), made.table.file.rows
        text = f"{state.column} is filled in {filled:,} of {of:,} rows, as where an order was taken back"
        return text + (
            f": they came to nothing, event {f'{made.event}_undone'!r}; the other {of - filled:,} rows count."
            if apart and state.undone
            else ". All of them count."
        )
    told = [f"{name} ({rows:,} rows)" for name, rows in state.names.items()]
    empty = made.table.file.rows - sum(state.names.values())
    told += [f"empty ({empty:,} rows)"] if empty else []
    text = f"{state.column} says in which state each is: {first_of(told)}."
    if state.coded and not apart:
        text = text.removesuffix(".") + ", in numbers that mean nothing to a stranger."
    undone = state.undone if apart else ()
    left = [name for name in state.names if name not in undone]
    text += f" {first_of(list(undone))} came to nothing: event {f'{made.event}_undone'!r}." if undone else ""
    counts = "counts" if len(left) == 1 else "count"
    return text + (f" {first_of(left)} {counts} as {made.event!r}." if left else "")


@dataclass(frozen=True, slots=True)
class _State:
    """A column that may say in which state an order is: its values with their rows, and those of what is none.

    ``coded`` says that the values are truth values or numbers, ``is_named`` that the column is called like a state,
    ``is_filled`` that whatever stands there says one thing, as the time of a cancellation does.
    """

    column: str
    names: Mapping[str, int]
    undone: tuple[str, ...]
    is_named: bool
    coded: bool = False
    is_filled: bool = False


def _states(made: Draft) -> Iterator[_State]:
    """Yield the columns that may say what became of each order: names of states, truth values, numbers of states."""
    table, taken = made.table, set(made.roles.columns.values())
    for one in table.file.columns:
        if one.name not in taken and (ended := _ended(one, table.file.rows)):
            yield ended
            continue
        if one.name in taken or not 0 < one.distinct <= NAMES:
            continue
        repeats = 2 * one.distinct <= one.filled or one.distinct <= _FEW
        if (off := _off(one.name)) is not None and one.distinct <= 2:
            names = table.values(one.name)
            undone = tuple(name for name in names if _truth(name) is off)
            if undone and all(_truth(name) is not None for name in names):
                yield _State(one.name, names, undone, is_named=True, coded=True)
                continue
        parts = set(words(one.name))
        if parts & _ERROR and one.names:
            wrong = tuple(name for name in one.names if name.strip().lower() not in _NO_ERROR)
            if wrong:
                yield _State(one.name, one.names, wrong, is_named=True)
            continue
        if one.kind == "text" and one.names:
            named = is_state(one.name) or bool(parts & _OUTCOME)
            undone = tuple(filter(is_undone, one.names))
            unsure = named and not all(is_done(name) and not set(words(name)) & _PAID_BACK for name in one.names)
            if (undone and repeats and (named or not parts & ID_WORDS)) or unsure:
                yield _State(one.name, one.names, undone, named)
        elif (
            one.kind == "number"
            and one.whole
            and one.distinct > 1
            and repeats
            and (is_state(one.name) or parts & _OUTCOME)
        ):
            yield _State(one.name, table.values(one.name), (), is_named=True, coded=True)


def _ended(one: ColumnProfile, rows: int) -> _State | None:
    """Return what a column says that by its name is filled where an order was taken back, and only there.

    Where it is filled in most rows, or with days that may stand for none, nothing is set apart unasked.
    """
    parts = set(words(one.name)) - _ABOUT - _WHEN
    filled = one.somebody - one.ancient - one.ahead
    if one.kind not in ("time", "text") or not parts or not parts <= _ENDED or not 0 < filled < rows:
        return None
    if one.kind == "text" and any(_truth(text) is False for text in one.names or ()):
        return None  # a flag, which says no as well
    plain = filled == one.filled and one.unread == 0 and 2 * filled < rows
    undone = ("filled",) if plain else ()
    return _State(one.name, {"filled": filled}, undone, is_named=True, coded=True, is_filled=True)


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


def kind_doubts(made: Draft) -> list[Doubt]:
    """Return the doubt of a column that names the kind of each row, where all rows are taken for one event."""
    if made.event is None or meaning(made.event) not in COMMITTED:
        return []
    file, taken = made.table.file, {*made.roles.columns.values(), *made.properties}
    # What says in which state each is was told already.
    taken |= {name for one in made.doubts if one.name == f"{made.source}.states" for name in one.rivals}
    found = [one for one in file.columns if one.name not in taken and _names_kinds(one)]
    if not found:
        return []
    told = [
        f"{one.name} says of which kind each row is: "
        + first_of([f"{name} ({rows:,} rows)" for name, rows in (one.names or {}).items()])
        for one in found
    ]
    first = found[0]
    told_as = shlex.quote(f"{file.paths[0].name}:event={first.name}")
    return [Doubt(
        f"{made.source}.kinds", file.name,
        f"{'. '.join(told)}. All of them are taken for {made.event!r}.", any(map(_differs_in_kind, found)),
        dict(first.names or {}),
        tuple(one.name for one in found),
        f"Are some none? If so: --column {told_as}, or leave those out in a query, as in"
        f" WHERE {identifier(first.name)} = {literal(next(iter(first.names or {})))}.",
    )]  # fmt: skip


def _differs_in_kind(one: ColumnProfile) -> bool:
    """Return whether kinds say contrary things, as credit and debit, or one a part of another, as a pledge's payment.

    Cash and stock are both gifts.
    """
    said = [set(words(name)) for name in one.names or ()]
    return any(parts & _CONTRARY for parts in said) or any(one < other for one in said for other in said if one)


def _names_kinds(one: ColumnProfile) -> bool:
    """Return whether a column says by its name of which kind each row is, and has few values that come back."""
    parts = set(words(one.name))
    named = parts & _KINDS or any(map(_GERMAN_KIND.search, parts))
    few = one.kind == "text" and bool(one.names) and 2 <= one.distinct <= min(_MANY_KINDS, one.filled // 2)
    return bool(named) and few and not parts & (_OF_SOMETHING | ID_WORDS)


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


TOLD_TWICE = "_told_twice"
"""What follows the event of a purchase that another file tells as well, and that does not count."""
_AS_WELL = {"purchase": "order", "booking": "reservation", "demo": "demo_held", "trial_started": "trial"}
"""Another name that means the same, for a file whose rows have no event of their own."""
_MOST = 0.5
"""Of the smaller file's purchases more than this share stand in the other one as well, if both tell the same ones."""


def told_twice(drafts: Sequence[Draft]) -> tuple[list[Draft], list[Doubt], list[str]]:
    """Return the drafts with purchases that a second guessed file tells set apart, their doubts, and what not to count.

    Two files tell the same ones if they share orders of the same customers, or customers, days and amounts.
    """
    made, doubts, uncounted = list(drafts), list[Doubt](), list[str]()
    for canonical in COMMITTED:
        claims = [(i, names) for i, one in enumerate(made) if one.read is None and (names := _meant(one, canonical))]
        # The amounts of sales stand where the sales are kept: a row for each, at the time when it was made.
        claims.sort(key=lambda claim: (
            "value" not in made[claim[0]].roles.columns or made[claim[0]].unvalued,
            -sum(made[claim[0]].events[name] for name in claim[1]), made[claim[0]].shape == "lines",
            made[claim[0]].first or datetime.max,
        ))  # fmt: skip
        counted: list[int] = []
        for i, names in claims:
            pairs = ((j, shared) for j in counted if (shared := _told_by_both(made[i], made[j], canonical)))
            j, shared = next(pairs, (None, ""))
            if j is None:
                counted.append(i)
                continue
            one, best = made[i], made[j]
            if one.event in names:
                one = _renamed(one, f"{one.event}{TOLD_TWICE}")
            elif best.event in names:
                best = _renamed(best, _AS_WELL[canonical])
            made[i], made[j] = one, best
            same = sorted({*_meant(one, canonical)} & {*_meant(best, canonical)})
            left = [] if same else [one.event] if one.event else names
            doubts.append(Doubt(
                f"{one.source}.one-{canonical.replace('_', '-')}", one.table.file.name,
                f"it tells each {canonical} that {best.table.file.name} tells, too ({shared}): each would count twice."
                + (f" {first_of(same)} stands in both; leave one of the files out." if same
                   else f" Only those of {best.table.file.name} count."), True, {"rows": one.rows}, tuple(names),
                "Are they different? If so: "
                + (f"name their events apart, and write both under events: {{{canonical}: [...]}}." if same else
                   f"write  {canonical}: [{first_of([*_meant(best, canonical), *left])}]  under events."),
            ))  # fmt: skip
            uncounted += left
    return made, doubts, uncounted


def _meant(one: Draft, canonical: str) -> list[str]:
    return [name for name in one.events if meaning(name) == canonical]


def _renamed(made: Draft, event: str) -> Draft:
    """Return a draft whose rows all have one event with another one."""
    events = {event + name.removeprefix(made.event or ""): rows for name, rows in made.events.items()}
    made = replace(made, event=event, events=events)
    return replace(made, query=query_of(made)) if made.query else made


def _told_by_both(one: Draft, other: Draft, canonical: str) -> str:
    """Return what the purchases of two files have in common, in words; nothing where they are others."""
    if one.shape == "dates" or other.shape == "dates":
        return ""
    for own in _order_ids(one):
        for theirs in _order_ids(other):
            # Numbers from 1 on, of whatever they are, have many in common; not so with the customer of each.
            ids = [_purchases(made, canonical, [f"trim({made.table.text(name)})"])
                   for made, name in ((one, own), (other, theirs))]  # fmt: skip
            shared, few = _shared(one.table, *ids)
            if shared > _MOST * few:
                return f"{shared:,} of {few:,} {own if own == theirs else f'{own} and {theirs}'} stand in both"
    if any("value" not in made.roles.columns or made.unvalued for made in (one, other)):
        return ""
    shared, few = _shared(one.table, _amounts(one, canonical), _amounts(other, canonical))
    told = f"{shared:,} of {few:,} of a customer, day and amount stand in both"
    return told if shared > _MOST * few else ""


def _shared(table: Table, one: str, other: str) -> tuple[int, int]:
    """Return how many different rows two queries have in common, and how many the one has that has fewer."""
    asked = (f"({one}) INTERSECT ({other})", one, other)
    shared, *numbers = (
        int(table.connection.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0]) for query in asked
    )
    return shared, min(numbers)


def _order_ids(made: Draft) -> list[str]:
    """Return the columns of order numbers: those that tell rows apart first."""
    taken = {name for role, name in made.roles.columns.items() if role not in ("touchpoint_id", "rating")}
    keys = [made.key or "", made.roles.columns.get("touchpoint_id", "")]
    keys += [one.name for one in find_keys(made.table, taken) if not is_item(one.name)]
    return [name for name in dict.fromkeys(keys) if name and name not in taken][:3]


def _purchases(made: Draft, canonical: str, columns: Sequence[str]) -> str:
    """Return the different customers of a file's purchases, each with these columns (SQL)."""
    text = f"SELECT DISTINCT lower(trim({made.customer})) AS customer"
    named = [f"{column} AS c{number}" for number, column in enumerate(columns)]
    known = [f"{column} IS NOT NULL" for column in (made.customer, *columns)]
    if made.event is None:
        mapped = ", ".join(map(literal, _meant(made, canonical)))
        known.append(f"{made.table.text(made.roles.get('event'))} IN ({mapped})")
    return f"{', '.join([text, *named])} FROM {made.table.sql} WHERE {' AND '.join(known)}"


def _amounts(made: Draft, canonical: str) -> str:
    """Return the different customers, days and amounts of a file's purchases."""
    day = f"({made.table.file.column(made.roles.get('occurred_at')).moment}) // 86400000000"
    amount = f"CAST({number_sql(made.table, made.roles.get('value'), strict=False)} AS DOUBLE)"
    if made.shape != "lines":
        return _purchases(made, canonical, [day, f"round({amount}, 2)"])
    groups = ", ".join(map(made.table.text, groups_of(made)))
    whole = f"round(sum({amount}) OVER (PARTITION BY {made.customer}, {groups}), 2)"
    return _purchases(made, canonical, [day]).replace(" FROM ", f", {whole} AS c1 FROM ", 1)
