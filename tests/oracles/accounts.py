"""Random accounts: touchpoints of their people and lines of the table of members, as a block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from cvj_ml.config import DAY
from cvj_ml.histories import Block, Members, Text, TouchpointColumns
from cvj_ml.windows import NEVER

ROLES, PEOPLE = ("buyer", "user"), ("p", "q", "r")


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
    until: int | None = None


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


def order_of(line: Line) -> tuple[str, int, float, str]:
    """The order of lines in the store; without an end stands first, as a null does."""
    return line.person, line.known, -1 if line.until is None else line.until, line.role or ""


def live(touches: list[Touch], as_of: int) -> list[Touch]:
    """What people did themselves by a day, as it was known then."""
    return [
        one
        for one in touches
        if one.person
        and one.inbound
        and one.occurred + one.late < as_of
        and (one.replaced is None or one.occurred + one.late + one.replaced >= as_of)
    ]


def block_of(found: list[tuple[list[Touch], list[Line]]]) -> Block:
    rows = [one for touches, _ in found for one in sorted(touches, key=lambda t: t.occurred)]
    lines = [one for _, lines in found for one in sorted(lines, key=order_of)]
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
        np.array([NEVER if one.until is None else one.until * DAY for one in lines], dtype=np.int64),
        text([one.person for one in lines]),
        text([one.role for one in lines]),
    )
    return Block(tuple(f"{i}" for i in range(len(found))), points, members=members)
