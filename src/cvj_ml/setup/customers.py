"""Which column is the customer, and what speaks against it: rivals, ids that are nobody's or not one person's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cvj_ml.setup.columns import ColumnProfile, may_be_somebody, words
from cvj_ml.setup.doubts import Doubt, alike_doubts, first_of
from cvj_ml.setup.events import COMMITTED, meaning
from cvj_ml.setup.profile import Table, source_name
from cvj_ml.setup.queries import Draft
from cvj_ml.setup.roles import (
    COOKIE_WORDS,
    ENTITY_WORDS,
    EVERYBODY,
    GROUP_WORDS,
    ID_WORDS,
    NOT_WORDS,
    PEOPLE_WORDS,
    PERSON_WORDS,
    STAFF_WORDS,
    VISITOR_WORDS,
    Candidate,
    Roles,
    names_orders,
    order_of_each_row,
)

_HEAVY, _TIMES_OTHERS = 0.1, 10
"""One id is suspected to be nobody's from this share of the rows on, if it has so many times the rows of others."""
_LIGHT, _TIMES_MEAN, _TIMES_SECOND = 0.05, 50, 5
"""So it is from this share on, if it has ten times the next one's rows, or so many times the others' and the next's."""
_NEARLY = 0.98
"""In so many rows an id stands (nearly) everywhere."""
COMES_BACK = 0.9
"""An id with more different values than this share of its rows is that of a row, not of somebody who comes back."""
_ONE_LOGIN = 0.95
"""From this share of devices with one login on, both are taken for ids of one person, and others for shared."""
_FEW_ORDERS = 20
"""So few orders may well be of as many customers."""
CERTAIN, NAMED, LIKELY, POSSIBLE = 4, 3, 2, 1
"""How much the name of a column speaks for the customer: a person and nothing else, a person beside other words, an
address or a group or a case, an id of something unknown."""


def find_customers(table: Table) -> list[Candidate]:
    """Return the columns that could be the customer, the best first."""
    file = table.file
    people = bool(set(words(file.paths[0].stem)) & PEOPLE_WORDS)
    found = []
    for one in file.columns:
        tier = _tier(one, people)
        usable = one.kind == "text" or (one.kind == "number" and (one.whole or tier >= NAMED or one.type == "VARCHAR"))
        if tier and usable and one.somebody > 0 and one.ids > (file.rows > 2):
            found.append(Candidate(one, tier))
    most = max((one.column.distinct for one in found), default=0)
    judged = [Candidate(one.column, one.tier, _is_plausible(one.column, file.rows, most)) for one in found]
    return sorted(
        judged,
        key=lambda one: (
            not one.plausible,
            one.tier < LIKELY,
            _is_name(one.column),  # two people can have one name, and one person be written in two ways
            2 * one.column.somebody < file.rows,  # nearly empty
            -one.tier,
            -one.column.filled,
            one.column.emails > 0,
            len(words(one.column.name)),
            one.column.name,
        ),
    )


_NUMBER = ("id", "nr", "no", "number", "nummer", "kennung", "code")
"""Ends of words that say of whom or what a number is: ``userid``, ``Kundennummer``."""


def _tier(column: ColumnProfile, people: bool) -> int:
    parts = set(words(column.name))
    joined = {part: part.removesuffix(end) for part in parts for end in _NUMBER if part.endswith(end)}
    compound = {part for part, stem in joined.items() if stem in PERSON_WORDS}
    human = parts & PERSON_WORDS or {part.removesuffix("s") for part in parts} & PERSON_WORDS or compound
    if 2 * column.emails > column.filled and not parts & STAFF_WORDS:
        return LIKELY
    if parts & NOT_WORDS or not parts or (parts & ENTITY_WORDS and "name" in parts):
        return 0
    if parts & COOKIE_WORDS:
        return LIKELY
    if human:
        rest = parts - PERSON_WORDS - ID_WORDS - compound - {*joined.values()}
        if _is_name(column) or column.emails > column.filled / 2 or rest & {"mail", "email"}:
            return LIKELY
        return NAMED if rest - {"s"} else CERTAIN
    if {*parts, *joined.values()} & (GROUP_WORDS | ENTITY_WORDS) or (people and parts == {"id"}):
        return LIKELY
    if (parts & ID_WORDS and parts != {"id"}) or any(part.endswith("id") and len(part) > 3 for part in parts):
        return POSSIBLE
    return 0


def _is_name(column: ColumnProfile) -> bool:
    """Return whether a column holds what people are called, and not an id that each has alone."""
    return 2 * column.people > column.filled or bool({"name", "nom", "nombre", "nome"} & set(words(column.name)))


def _is_plausible(column: ColumnProfile, rows: int, most: int) -> bool:
    """Return whether a column can tell people apart: not a handful of values where another has many times as many."""
    if column.distinct <= 1 and rows > 20:
        return False
    return not (column.distinct <= 12 and rows >= 20 * column.distinct and most >= 10 * column.distinct)


def choose_customer(table: Table, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the customer's column: the first candidate, unless another id stands for the same people more fully."""
    if not candidates or not candidates[0].plausible:
        return None
    best = candidates[0]
    rows = table.file.rows
    if rows >= _FEW_ORDERS and best.column.ids >= _NEARLY * rows and order_of_each_row(table, {best.column.name}):
        # A number that each order has alone, such as an attendee's, is nobody who comes back; an address may be.
        for one in candidates[1:]:
            person = one.tier >= NAMED or 2 * one.column.emails > one.column.filled
            if one.plausible and person and one.column.somebody >= EVERYBODY * rows and one.column.ids < _NEARLY * rows:
                return one
    if not set(words(best.column.name)) & COOKIE_WORDS:
        return best
    # Everybody who was seen without a name and later logs in is known by the name.
    for one in candidates:
        if one.tier >= NAMED and one.plausible and not set(words(one.column.name)) & COOKIE_WORDS:
            known = table.distinct(best.column.name, where=f"{table.text(one.column.name)} IS NOT NULL")
            if known >= EVERYBODY * table.distinct(best.column.name):
                return one
    return best


def tells_more_apart(table: Table, candidate: Candidate, own: str | None) -> bool:
    """Return whether another number that comes back stands for many times as many, as a card's does beside a till's."""
    one = candidate.column
    if own is None or names_orders(one.name) or 2 * one.somebody < table.file.rows:
        return False
    return _TIMES_OTHERS * table.file.column(own).ids <= one.ids <= COMES_BACK * one.somebody


def is_device(name: str) -> bool:
    """Return whether a column's name says that it knows a visitor, not a person."""
    return bool(set(words(name)) & VISITOR_WORDS)


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
        found += [replace(one, name=f"{one.name}-{'-'.join(words(name))}") for one in doubts]
    return found


def once_each(made: Draft) -> list[Doubt]:
    """Return the doubt of orders of which no customer has a second, as where each order has an id of its own."""
    table, column = made.table, made.table.file.column(made.roles.get("customer_id"))
    orders = sum(made.events.values()) if made.event and meaning(made.event) in COMMITTED else 0
    if orders < _FEW_ORDERS or column.ids < _NEARLY * orders or "customer_id" in made.roles.told:
        return []
    return [Doubt(
        f"{made.source}.once-each", table.file.name,
        f"{orders:,} orders are of {column.ids:,} different {column.name}, so (nearly) nobody ever came back, as where"
        " each order has an id of its own and the person is told elsewhere.", True,
        {"orders": orders, "ids": column.ids},
        way_out=f"Is the person another column? If so: --column {table.file.paths[0].name}:customer_id=COLUMN; of"
        " another file: join it in a query.",
    )]  # fmt: skip


def shared_customers(tables: Sequence[Table], roles: Sequence[Roles]) -> tuple[list[Roles], list[Doubt]]:
    """Compare ids between tables: that of which the largest log knows most wins; tables that share nobody are a doubt.

    The share of a column's own ids counts: numbers from 1 on, of whatever they are, have many in common.
    """
    logs = [i for i, one in enumerate(roles) if not one.missing]
    if not logs:
        return list(roles), []
    main = max(logs, key=lambda i: ("event" in roles[i].columns, tables[i].file.rows))
    own, found, doubts = roles[main].get("customer_id"), list(roles), list[Doubt]()
    for i, (table, one) in enumerate(zip(tables, roles, strict=True)):
        if i == main:
            continue
        plain = [item.name for item in table.file.columns if item.kind in ("text", "number")]
        ids = {name for name in plain if {*words(name)} == {"id"} or name == own}
        ids |= {item.column.name for item in find_customers(table)} | {one.columns.get("customer_id", "")} - {""}
        shared = {name: table.in_common(name, tables[main], own) for name in sorted(ids)}
        mine = one.columns.get("customer_id")
        known = {name: shared[name] / max(table.file.column(name).ids, 1) for name in shared}
        best = max(known, key=lambda name: (known[name], name == own, name == mine, shared[name]), default=None)
        source, log = source_name(table, []), tables[main].file.name
        free = "customer_id" not in one.told and not (mine == own and shared[own])
        if best is not None and best != mine and free and known[best] > known.get(mine or "", 0):
            columns = {role: name for role, name in one.columns.items() if name != best} | {"customer_id": best}
            found[i] = replace(one, columns=columns, certain=True, rivals={**one.rivals, "customer_id": ()})
            if mine is not None:
                doubts.append(Doubt(
                    f"{source}.shared-id", table.file.name,
                    f"{best} is taken for the customer: it shares {shared[best]:,} ids with {own} of {log}, and {mine}"
                    f" {shared[mine]:,}.", shared[mine] > 0, shared, (mine,),
                    f"{f'Is it {mine}? If so' if shared[mine] else 'Another one'}: --column"
                    f" {table.file.paths[0].name}:customer_id={mine if shared[mine] else 'COLUMN'}.",
                ))  # fmt: skip
        elif mine is not None and not shared[mine]:
            doubts.append(Doubt(
                f"{source}.shares-nobody", table.file.name,
                f"its customers ({mine}, {table.file.column(mine).distinct:,} ids) and those of {log} ({own},"
                f" {tables[main].file.column(own).distinct:,} ids) are all different: not one id stands in both.",
                True, shared,
                way_out="Has another column the same ids? If so: --column FILE:customer_id=COLUMN.",
            ))  # fmt: skip
    return found, doubts


def several_ids(source: str, table: Table, customer: str) -> list[Doubt]:
    """Return the doubt of a table with a row a customer in which another column says which of them are one person."""
    own = table.file.column(customer)
    for one in find_customers(table):
        column = one.column
        an_id = (one.tier >= NAMED and set(words(column.name)) & ID_WORDS) or 2 * column.emails > column.filled
        if column.name == customer or not an_id or not one.plausible or column.ids < own.ids / _TIMES_OTHERS:
            continue
        if column.somebody >= _NEARLY * table.file.rows and column.ids < _NEARLY * own.ids:
            return [Doubt(
                f"{source}.several-ids", table.file.name,
                f"{own.ids:,} {customer} are of {column.ids:,} {column.name} alone, so some people would be several"
                " customers.", True, {"ids": own.ids, "people": column.ids},
                (column.name,),
                f"Is {column.name} the person? If so: write it into the log as customer_id, in a query that joins this"
                " file.",
            )]  # fmt: skip
    return []


def _id_doubts(source: str, table: Table, column: ColumnProfile) -> list[Doubt]:
    """Return what speaks against a column of ids: those that are nobody's, or not one person's."""
    file, found = table.file, _nobody(source, table, column)
    rows, ids = column.filled, column.distinct
    others = (rows - column.most) / max(1, ids - 1)
    if ids > 10 and _is_heavy(table, column, others):
        found.append(Doubt(
            f"{source}.one-id", file.name,
            f"one {column.name} stands in {column.most:,} of {rows:,} rows, {column.most / max(others, 1):,.0f} times"
            " as many as another.", True, {"rows": column.most},
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
        ids_beside = [one.column.name for one in find_customers(table) if one.plausible and one.column != column]
        told = f", as {first_of(ids_beside)} may be" if ids_beside else ""
        found.append(Doubt(
            f"{source}.names-as-ids", file.name,
            f"{column.name} holds what look like people's names ({column.people:,} of {rows:,} rows): two people of one"
            " name would be one customer.", True, {"rows": column.people},
            rivals=tuple(ids_beside),
            way_out=f"Has each person an id{told}? If so: --column {file.paths[0].name}:customer_id=COLUMN.",
        ))  # fmt: skip
    elif column.kind == "text" or column.type == "VARCHAR":
        found += alike_doubts(source, table, column)
    if column.pointed and column.type == "VARCHAR" and table.file.is_text:
        found.append(Doubt(
            f"{source}.pointed-ids", file.name,
            f"every {column.name} is written as 12.0, as whole numbers are that were saved beside empty cells. A"
            f" file that"
            " says 12 means somebody else:", way_out="save them as whole numbers.",
        ))  # fmt: skip
    return found


def _is_heavy(table: Table, column: ColumnProfile, others: float) -> bool:
    """Return whether one id has far more rows than any other; few people in a file have a large share of it anyway."""
    most, rows = column.most, column.filled
    if most < _LIGHT * rows or most < _TIMES_OTHERS * others or most in (column.placeholders or {}).values():
        return False
    if most >= _HEAVY * rows:
        return True
    text = table.text(column.name)
    counted = f"SELECT count(*) AS n FROM {table.sql} WHERE {text} IS NOT NULL GROUP BY {text}"
    ((second,),) = table.connection.execute(f"SELECT n FROM ({counted}) ORDER BY n DESC LIMIT 1 OFFSET 1").fetchall()
    return bool(most >= (_TIMES_SECOND if most >= _TIMES_MEAN * others else _TIMES_OTHERS) * second)


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
        told = first_of([f"{one.column.name} ({one.column.ids:,} different in"
                       f" {one.column.somebody:,} rows)" for one in rivals])  # fmt: skip
        text, numbers, joined = _one_person(table, [column, *(one.column for one in rivals)])
        found.append(Doubt(
            f"{source}.customer-rivals", file.name,
            f"several columns could be the customer: {column.name} ({column.ids:,} different in"
            f" {column.somebody:,} of {file.rows:,} rows) is taken, and not {told}.{text}", True,
            {"ids": column.ids, **{one.column.name: one.column.distinct for one in rivals}, **numbers},
            tuple(one.column.name for one in rivals),
            joined + way_out + _as_account([column, *(one.column for one in rivals)]),
        ))  # fmt: skip
    return found


def _one_person(table: Table, ids: Sequence[ColumnProfile]) -> tuple[str, dict[str, float], str]:
    """Return what says that a device's id and that of a login are one person's, with numbers and how to join them.

    Nothing where no device is known in (nearly) every row, and none whose devices have almost always one login.
    """
    rows = table.file.rows
    for device in (one for one in ids if is_device(one.name) and one.somebody >= _NEARLY * rows):
        for login in (one for one in ids if not is_device(one.name) and one.somebody < _NEARLY * rows):
            each = f"SELECT count(DISTINCT {table.text(login.name)}) AS logins FROM {table.sql}"
            seen, alone = table.connection.execute(
                "SELECT count(*) FILTER (WHERE logins > 0), count(*) FILTER (WHERE logins = 1) FROM"
                f" ({each} WHERE {table.text(device.name)} IS NOT NULL GROUP BY {table.text(device.name)})"
            ).fetchall()[0]
            if not seen or alone < _ONE_LOGIN * seen:
                continue
            text = (
                f" {device.name} stands in (nearly) every row and {login.name} in {login.somebody:,}, as"
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
    companies = [one for one in columns if _COMPANY & {*words(one.name)}]
    people = [one for one in columns if one not in companies]
    if len(companies) != 1 or not people:
        return ""
    company, person = companies[0].name, max(people, key=lambda one: one.distinct).name
    return (
        f" If customers are companies and {person} says who of {company} it was: unit: account, with columns:"
        f" {{customer_id: {company}, contact: {person}}} (docs/accounts.md)."
    )


def nobody_values(column: ColumnProfile) -> dict[str, int]:
    """Return the ids that mean nobody; 0, 000000 and -1 only where they stand far oftener than any id should."""
    usual = column.somebody / max(1, column.ids)
    return {
        value: rows
        for value, rows in (column.placeholders or {}).items()
        if not may_be_somebody(value) or (rows > 5 * usual and rows > 0.01 * column.filled)
    }


def _nobody(source: str, table: Table, column: ColumnProfile) -> list[Doubt]:
    values = nobody_values(column)
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
