"""The people of accounts: whom to turn to, and what their permissions mean for the account."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY
from cvj_ml.customers.permissions import People, by_person
from cvj_ml.histories import Block, Text
from cvj_ml.schemas import CONTACT
from cvj_ml.windows import before, in_window

NAMED = 3
"""People of an account whom a list names."""

WINDOW = 90 * DAY
"""How far back what people did counts for whom to turn to."""

PERSONS = pa.schema(
    [("customer_id", pa.string()), ("contact", pa.string()), ("touchpoints", pa.int64()), ("last", pa.int64())]
)
"""The people of accounts at an instant: their own touchpoints in the last 90 days, and when the last of all was."""


def persons_of(block: Block, as_of: int) -> pa.Table:
    """Return the people of a block's accounts as PERSONS: who did something, or is a member, and has not left."""
    points, column = block.touchpoints, block.touchpoints.properties.get(CONTACT)
    found: dict[tuple[int, str], tuple[int, int]] = {}
    if isinstance(column, Text):
        rows = np.flatnonzero(points.live(as_of) & points.inbound & (column.codes >= 0))
        at, size = points.occurred_at[rows], max(len(column.values), 1)
        keys, person = np.unique(points.owners()[rows] * size + column.codes[rows], return_inverse=True)
        recent = np.bincount(person, in_window(at, as_of, WINDOW), minlength=len(keys)).astype(np.int64)
        last = np.zeros(len(keys), dtype=np.int64)
        np.maximum.at(last, person, at)
        for key, one in zip(keys.tolist(), zip(recent.tolist(), last.tolist(), strict=True), strict=True):
            found[key // size, column.values[key % size]] = one
    if block.members is not None:
        members, there = block.members, points.are_customers(as_of)
        account_of = np.repeat(np.arange(len(block)), np.diff(members.offsets))
        newest, left = dict[tuple[int, str], bool](), before(members.until, as_of)
        for line in np.flatnonzero(before(members.known_at, as_of) & there[account_of]).tolist():
            # Lines stand by person, then by when they were known: the newest says whether somebody has left.
            who = int(account_of[line]), members.contact.values[members.contact.codes[line]]
            newest[who] = bool(left[line])
        for who, has_left in newest.items():
            found.setdefault(who, (0, 0))
            if has_left:
                del found[who]
    columns = [
        [block.customers[account] for account, _ in found],
        [name for _, name in found],
        [one[0] for one in found.values()],
        [one[1] for one in found.values()],
    ]
    return pa.Table.from_arrays(
        [pa.array(one, kind.type) for one, kind in zip(columns, PERSONS, strict=True)], schema=PERSONS
    )


def under_accounts(people: People, persons: pa.Table) -> People:
    """Return the tables by account: permissions of people as the account's, and whom to turn to.

    An account is suppressed where all its people are, and permitted where one of them is. Nobody who must not be
    contacted is named.
    """
    tables = dict(people.tables)
    named = persons
    for name in ("suppression", "consent"):
        if (table := tables.get(name)) is None or not by_person(table):
            continue
        told = pc.is_in(persons["contact"], value_set=table.rows["customer_id"].combine_chunks())
        may = pc.invert(told) if name == "suppression" else told
        some = persons.filter(may)["customer_id"].unique()
        accounts = persons["customer_id"].unique()
        chosen = some if name == "consent" else accounts.filter(pc.invert(pc.is_in(accounts, value_set=some)))
        nothing = pa.nulls(len(chosen), pa.string())
        tables[name] = replace(table, rows=pa.table({"customer_id": chosen, "channel": nothing}))
        named = named.filter(pc.is_in(named["contact"], value_set=persons.filter(may)["contact"].unique()))
    details = tables.pop("contact").rows if "contact" in tables else None
    return replace(people, tables=tables, engaged=engaged(named, details))


def engaged(persons: pa.Table, details: pa.Table | None) -> pa.Table:
    """Return a row an account with its most engaged people: contact_1 and their details as contact_1_<column>, ….

    The most touchpoints of their own in the last 90 days come first, then the latest, then the id.
    """
    order = [
        ("customer_id", "ascending"),
        ("touchpoints", "descending"),
        ("last", "descending"),
        ("contact", "ascending"),
    ]
    ordered = persons.sort_by(order)
    accounts = ordered["customer_id"].to_numpy(zero_copy_only=False)
    begins = np.flatnonzero(np.append(True, accounts[1:] != accounts[:-1])[: len(accounts)])
    sizes = np.diff(np.append(begins, len(accounts)))
    found = {"customer_id": ordered["customer_id"].take(pa.array(begins))}
    for place in range(NAMED):
        at = pa.array(begins + place, mask=sizes <= place)
        who = ordered["contact"].take(at).combine_chunks()
        found[f"contact_{place + 1}"] = who
        if details is not None:
            rows = pc.index_in(who, value_set=details["customer_id"].combine_chunks(), skip_nulls=True)
            for name in details.column_names:
                if name != "customer_id":
                    found[f"contact_{place + 1}_{name}"] = details[name].take(rows)
    return pa.table(found)
