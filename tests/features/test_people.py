"""Features of the people of accounts against plain loops over their touchpoints."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.accounts import PEOPLE, ROLES, Line, Touch, accounts, block_of, live, order_of

from cvj_ml.config import DAY
from cvj_ml.features.catalogue import compile_catalogue
from cvj_ml.features.people import people_columns
from cvj_ml.features.vocabulary import Vocabulary
from cvj_ml.snapshots import Snapshots

WINDOWS = (3 * DAY, 10 * DAY)
BEGINS = 4


def expected(touches: list[Touch], lines: list[Line], as_of: int) -> dict[str, float]:
    mine = live(touches, as_of)
    times = {name: [one.occurred for one in mine if one.person == name] for name in PEOPLE}
    times = {name: days for name, days in times.items() if days}
    role = {one.person: one.role for one in sorted(lines, key=order_of) if one.known < as_of and one.role}

    def inside(day: int, length: int | None) -> bool:
        return length is None or day >= as_of - length

    found = {}
    for name, length in (("3d", 3), ("10d", 10), ("all", None)):
        covered = length is None or as_of - length >= BEGINS
        active = [one for one, days in times.items() if inside(max(days), length)]
        found[f"people_{name}"] = len(active) if covered else np.nan
        if length:
            new = [one for one, days in times.items() if inside(min(days), length)]
            found[f"people_new_{name}"] = len(new) if covered else np.nan
        if length != 3:
            for one in ROLES:
                number = sum(role.get(person) == one for person in active)
                found[f"people_role_{one}_{name}"] = number if covered else np.nan
    found["people_newest"] = as_of - max(map(min, times.values())) if times else np.nan
    counts = [sum(inside(day, 10) for day in days) for days in times.values()]
    found["people_most_active"] = max(counts) / sum(counts) if sum(counts) and as_of - 10 >= BEGINS else np.nan
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(accounts, min_size=1, max_size=3))
def test_people_are_counted_as_plain_loops_count_them(found) -> None:
    """Silent error 94: who was active, who is new, and in which role, as known at each instant."""
    vocabulary = Vocabulary((), (), people=True, roles=ROLES)
    catalogue = compile_catalogue(vocabulary, [], WINDOWS, None, DAY, 2)
    names = [one.name for one in catalogue.features if one.group == "people"]
    days = range(1, 25)
    snapshots = Snapshots(np.repeat(np.arange(len(found)), len(days)), np.tile(np.array(days) * DAY, len(found)))
    columns = list(people_columns(vocabulary, WINDOWS, block_of(found), snapshots, BEGINS * DAY))
    assert len(columns) == len(names)
    x = np.array(columns).T
    for row, (customer, as_of) in enumerate(zip(snapshots.customer, snapshots.as_of, strict=True)):
        wanted = expected(*found[customer], int(as_of // DAY))
        np.testing.assert_array_equal(x[row], [wanted[name] for name in names])


def test_without_accounts_there_are_no_such_features() -> None:
    names = compile_catalogue(Vocabulary(("visit",), ()), [], WINDOWS, None, DAY, 2).names
    assert not [name for name in names if name.startswith("people")]
