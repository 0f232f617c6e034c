"""Features of the people of accounts against plain loops over their touchpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cvj_ml.config import DAY
from cvj_ml.features.catalogue import compile_catalogue
from cvj_ml.features.people import people_columns
from cvj_ml.features.vocabulary import Vocabulary
from cvj_ml.histories import Block, Members, Text, TouchpointColumns
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import NEVER

ROLES, PEOPLE = ("buyer", "user"), ("p", "q", "r")
WINDOWS = (3 * DAY, 10 * DAY)
BEGINS = 4


@dataclass(frozen=True)
class Touch:
    """A touchpoint in days; ``replaced`` is how long after it became visible a newer version did."""

    person: str | None
    occurred: int
    late: int
    replaced: int | None
    inbound: bool


@dataclass(frozen=True)
class Line:
    """A line of the table of members, in days."""

    person: str
    known: int
    role: str | None


accounts = st.tuples(
    st.lists(
        st.builds(
            Touch,
            st.sampled_from([*PEOPLE, None]),
            st.integers(0, 20),
            st.sampled_from([0, 0, 2]),
            st.sampled_from([None, None, 1, 4]),
            st.sampled_from([True, True, False]),
        ),
        max_size=12,
    ),
    st.lists(
        st.builds(Line, st.sampled_from([*PEOPLE, "s"]), st.integers(0, 20), st.sampled_from([None, *ROLES, "x"]))
    ),
)


def text(values: list[str | None]) -> Text:
    names = tuple(sorted({one for one in values if one is not None}))
    return Text(np.array([-1 if one is None else names.index(one) for one in values], dtype=np.int32), names)


def block_of(found: list[tuple[list[Touch], list[Line]]]) -> Block:
    rows = [one for touches, _ in found for one in sorted(touches, key=lambda t: t.occurred)]
    lines = [one for _, lines in found for one in sorted(lines, key=lambda m: (m.person, m.known, m.role or ""))]
    at = np.array([one.occurred * DAY for one in rows], dtype=np.int64)
    visible = at + np.array([one.late * DAY for one in rows], dtype=np.int64)
    replaced = [NEVER if t.replaced is None else int(v) + t.replaced * DAY for t, v in zip(rows, visible, strict=True)]
    nothing, no = text([None] * len(rows)), np.zeros(len(rows), dtype=np.bool_)
    points = TouchpointColumns(
        np.cumsum([0, *(len(touches) for touches, _ in found)]),
        at,
        visible,
        np.array(replaced, dtype=np.int64),
        (at // DAY).astype(np.int32),
        no,
        nothing,
        nothing,
        np.zeros(len(rows), dtype=np.int64),
        no,
        np.array([one.inbound for one in rows], dtype=np.bool_),
        {"contact": text([one.person for one in rows])},
        np.full(len(found), NEVER, dtype=np.int64),
    )
    members = Members(
        np.cumsum([0, *(len(lines) for _, lines in found)]),
        np.array([one.known * DAY for one in lines], dtype=np.int64),
        np.full(len(lines), NEVER, dtype=np.int64),
        text([one.person for one in lines]),
        text([one.role for one in lines]),
    )
    return Block(tuple(f"{i}" for i in range(len(found))), points, members=members)


def expected(touches: list[Touch], lines: list[Line], as_of: int) -> dict[str, float]:
    mine = [
        one
        for one in touches
        if one.person
        and one.inbound
        and one.occurred + one.late < as_of
        and (one.replaced is None or one.occurred + one.late + one.replaced >= as_of)
    ]
    times = {name: [one.occurred for one in mine if one.person == name] for name in PEOPLE}
    times = {name: days for name, days in times.items() if days}
    role = {
        one.person: one.role
        for one in sorted(lines, key=lambda m: (m.known, m.role or ""))
        if one.known < as_of and one.role
    }

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
    """Silent error 91: who was active, who is new, and in which role, as known at each instant."""
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
