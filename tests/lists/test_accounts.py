"""Whom lists name of an account, and what permissions of its people mean for it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.accounts import PEOPLE, Line, Touch, accounts, block_of, live, order_of

from cvj_ml.config import DAY, PermissionSpec
from cvj_ml.customers import People, persons_of, under_accounts
from cvj_ml.customers.id_tables import CustomerTable, Places
from cvj_ml.features import Vocabulary, compile_catalogue
from cvj_ml.lists.fact_words import say
from cvj_ml.night.forgetting import _unnamed
from cvj_ml.store import CustomerIds

SOMEBODY = [*PEOPLE, "s"]


def table_of(label: str, ids: list[str]) -> CustomerTable:
    nowhere = Places((), "row", *[pa.array([], pa.int64()).to_numpy()] * 2)
    rows = pa.table({"customer_id": pa.array(ids, pa.string()), "channel": pa.nulls(len(ids), pa.string())})
    return CustomerTable(label, rows, nowhere, {}, PermissionSpec(path="p.csv", contact="person"), [], ([], []))


def there(touches: list[Touch], lines: list[Line], as_of: int) -> dict[str, tuple[int, int]]:
    """The people of an account: their touchpoints of 90 days, and when the last of all was."""
    mine = live(touches, as_of)
    names = {one.person for one in mine}
    if any(one.occurred + one.late < as_of for one in touches):  # an account that nobody has seen is no customer
        for one in sorted(lines, key=order_of):
            if one.known < as_of:
                names = names | {one.person} if one.until is None or one.until >= as_of else names - {one.person}
    days = {name: [one.occurred for one in mine if one.person == name] for name in names if name}
    return {name: (len(found), max(found, default=0)) for name, found in days.items()}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(accounts, min_size=1, max_size=3),
    st.integers(1, 24),
    st.none() | st.lists(st.sampled_from(SOMEBODY), unique=True),
    st.none() | st.lists(st.sampled_from(SOMEBODY), unique=True),
)
def test_the_most_engaged_who_may_be_contacted_are_named(found, as_of, suppressed, consenting) -> None:
    """Silent error 95: by plain loops over what each account's people did, and who of them may be contacted."""
    named = {"suppression": suppressed, "consent": consenting}
    tables = {name: table_of(name, ids) for name, ids in named.items() if ids is not None}
    persons = persons_of(block_of(found), as_of * DAY)
    people = under_accounts(People(tables), persons)
    rows = {row["customer_id"]: row for row in people.contact.to_pylist()}
    held = people.permissions.suppression
    granted = people.permissions.consent
    for number, (touches, lines) in enumerate(found):
        everybody = there(touches, lines, as_of)
        free = [one for one in everybody if one not in (suppressed or ())]
        may = [one for one in free if consenting is None or one in consenting]
        order = sorted(may, key=lambda one: (-everybody[one][0], -everybody[one][1], one))
        row = rows.get(f"{number}", {})
        assert [row.get(f"contact_{place}") for place in (1, 2, 3)] == [*order[:3], None, None, None][:3]
        if held is not None:
            assert (f"{number}" in held["customer_id"].to_pylist()) == (bool(everybody) and not free)
        if granted is not None:
            assert (f"{number}" in granted["customer_id"].to_pylist()) == any(one in consenting for one in everybody)


def test_details_stand_beside_the_person_that_they_are_of() -> None:
    persons = persons_of(block_of([([Touch("p", 3, 0, None, True), Touch("q", 4, 0, None, True)], [])]), 9 * DAY)
    details = table_of("contact", [])
    rows = pa.table({"customer_id": ["p", "q"], "email": ["p@example.com", "q@example.com"]})
    table = CustomerTable("contact", rows, details.places, {}, details.spec, [], ([], []))
    people = under_accounts(People({"contact": table}), persons)
    assert people.contact.to_pylist() == [
        {
            "customer_id": "0",
            "contact_1": "q",
            "contact_1_email": "q@example.com",
            "contact_2": "p",
            "contact_2_email": "p@example.com",
            "contact_3": None,
            "contact_3_email": None,
        }
    ]


def test_a_forgotten_person_is_not_named_any_more() -> None:
    """Silent error 96: the account stays on the list, with nothing of the person."""
    table = pa.table({"customer_id": ["p", "A"], "contact_1": ["q", "p"], "contact_1_email": ["q@x", "p@x"]})
    left = _unnamed(table, CustomerIds.of(["p"], "exact"))
    assert left.to_pylist() == [
        {"customer_id": "p", "contact_1": "q", "contact_1_email": "q@x"},
        {"customer_id": "A", "contact_1": None, "contact_1_email": None},
    ]


def test_what_people_do_is_said_of_their_company() -> None:
    vocabulary = Vocabulary((), (), people=True, roles=("buyer",))
    catalogue = compile_catalogue(vocabulary, [], (30 * DAY,), None, DAY, 2)
    definition = SimpleNamespace(catalogue=catalogue)
    names = catalogue.names
    row = [math.nan] * len(names)

    def said(name: str, value: float) -> str | None:
        column = names.index(name)
        told = say(definition, column, [*row[:column], value, *row[column + 1 :]])
        return told.whole if told else None

    assert said("people_30d", 3) == "3 people of this company were active in the last 30 days"
    assert said("people_all", 1) == "1 person of this company was active so far"
    assert said("people_role_buyer_30d", 0) == "nobody of this company was active as “buyer” in the last 30 days"
    assert said("people_new_30d", 2) == "2 new people of this company in the last 30 days"
    assert said("people_newest", 4.2) == "a new person of this company was seen 4 days ago"
    assert said("people_most_active", 0.8) == "80% of what its people did in the last 30 days was done by one of them"
    assert said("people_30d", math.nan) is None
