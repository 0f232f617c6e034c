"""Which people belong to which account, and from when on that was known.

A person is no customer. What a person does counts for an account: the one that the row itself names, or else the one
that has the person, visible from the instant at which that was known. Whose a row is, is decided once: by what is known
when the row becomes visible, or as soon as it is known; what is told later about the person concerns later rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import duckdb
import pyarrow as pa

from cvj_ml.config import Config, MembersSpec
from cvj_ml.histories import ALWAYS
from cvj_ml.schemas import CONTACT
from cvj_ml.store.customer_ids import origin_of
from cvj_ml.store.fields import Reading
from cvj_ml.store.identities import LINKS, Persons
from cvj_ml.store.mapping import read_label, read_roles
from cvj_ml.store.source_location import SourceLocation
from cvj_ml.store.sql import literal
from cvj_ml.store.staging import Mapped, Staged, id_family, owned_fields
from cvj_ml.windows import NEVER

MEMBERS = "members"

_ROLES = (CONTACT, "account", "known_at", "role", "until")


@dataclass(frozen=True, slots=True, order=True)
class Membership:
    """A contact is of an account: known at an instant, of touchpoints before ``until``."""

    contact: str
    known_at: int
    account: str
    until: int = NEVER


def map_members(location: SourceLocation, spec: MembersSpec, config: Config, faults: list[str]) -> Mapped:
    """Map the columns of the table of members, adding what is wrong to the faults."""
    label = location.label
    fields, readings = read_roles(
        location, spec, ("members", _ROLES, _ROLES[:3]), {"customer_id": "account", CONTACT: CONTACT},
        ("known_at", "until"), config, faults,
    )  # fmt: skip
    readings["role"] = Reading("CAST(NULL AS VARCHAR)")
    if "role" in fields:
        readings["role"] = read_label(label, "role", fields["role"], faults)
    family = id_family([fields["account"]] if "account" in fields else [], faults, label, config)
    ids = tuple(one for name, one in fields.items() if name in ("account", CONTACT))
    owned = owned_fields(fields.values())
    return Mapped(location, readings, ("customer_id", CONTACT, "known_at"), {}, owned, ids, family, True)


def find_members(staged: Staged | None, connection: duckdb.DuckDBPyConnection) -> Persons:
    """Return the accounts of contacts as links, of a staged table of members."""
    if staged is None or not staged.has_rows:
        return link_members([])
    rows = connection.execute(
        f"SELECT DISTINCT contact, known_at, customer_id, coalesce(until, {NEVER})"
        f" FROM read_parquet({literal(staged.pattern())}, hive_partitioning=false)"
    ).fetchall()
    return link_members(Membership(*row) for row in rows)


def link_members(members: Iterable[Membership]) -> Persons:
    """Return which touchpoints of each contact stand in the history of which account, and since when.

    At an instant a contact's touchpoint is of the account whose ``until`` is the next after its occurrence, by the
    newest line known of each account; where several have the same, as two without any, it is nobody's.
    """
    found: defaultdict[str, list[Membership]] = defaultdict(list)
    for one in sorted(members):
        found[one.contact].append(one)
    rows, last = [], dict[str, tuple[str, int]]()
    for contact, lines in sorted(found.items()):
        linked = list(_links(lines))
        rows += [(origin_of(contact), *one, True, ALWAYS) for one in linked]
        if linked:
            *_, account, since = linked[-1]
            last[origin_of(contact)] = account, since
    columns = zip(*rows, strict=True) if rows else [[] for _ in LINKS]
    arrays = [pa.array(one, kind.type) for one, kind in zip(columns, LINKS, strict=True)]
    links = pa.Table.from_arrays(arrays, schema=LINKS)
    return Persons(links, last, (), frozenset(map(origin_of, found)), {}, 0)


def _links(lines: list[Membership]) -> Iterator[tuple[int, int, int, int, str, int]]:
    """Return low, high, opened, closed, target and since, as LINKS says, of a contact's lines in order."""
    bounds = sorted({ALWAYS, NEVER, *(one.until for one in lines)})
    instants = sorted({one.known_at for one in lines})
    states: list[dict[str, int]] = []
    for at in instants:
        told: dict[str, int] = {}
        for one in (one for one in lines if one.known_at == at):
            told[one.account] = max(told.get(one.account, ALWAYS), one.until)
        states.append((states[-1] if states else {}) | told)
    for low, high in pairwise(bounds):
        opened = ALWAYS
        for number, (at, state) in enumerate(zip(instants, states, strict=True)):
            # What became visible before and had no account yet has one now.
            closed = instants[number + 1] if number + 1 < len(instants) else NEVER
            if (account := _account_at(state, low)) is not None:
                yield low, high, opened, closed, account, at
                opened = closed


def _account_at(state: Mapping[str, int], occurred: int) -> str | None:
    later = {account: until for account, until in state.items() if until > occurred}
    first = min(later.values(), default=NEVER)
    accounts = [account for account, until in later.items() if until == first]
    return accounts[0] if len(accounts) == 1 else None
