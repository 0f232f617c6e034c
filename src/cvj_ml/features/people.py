"""What the people of an account do: how many are active, who is new, by role; one row of numbers a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY
from cvj_ml.features.vocabulary import Vocabulary
from cvj_ml.histories import Block, Members, Text
from cvj_ml.schemas import CONTACT
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import NEVER, Instants, in_window, is_covered, is_live, rows_before

_I64 = npt.NDArray[np.int64]


def people_columns(
    vocabulary: Vocabulary, windows: Sequence[int], block: Block, snapshots: Snapshots, observed_from: int
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the columns of the catalogue's group ``people``, in its order.

    A person is active with an inbound touchpoint of their own that was live at the instant; the role is the newest
    that was known then.
    """
    points, members = block.touchpoints, block.members or Members.none(len(block))
    column = points.properties.get(CONTACT)
    contact = column if isinstance(column, Text) else Text(np.full(len(points), -1, dtype=np.int32), ())
    known = {name: i for i, name in enumerate(contact.values)}
    roles = {name: i for i, name in enumerate(vocabulary.roles)}
    out = np.full((len(snapshots), column_count(vocabulary, windows)), np.nan)
    _run(
        points.offsets,
        points.occurred_at,
        points.visible_at,
        points.superseded_at,
        points.inbound,
        contact.codes,
        len(contact.values),
        members.offsets,
        members.known_at,
        members.contact.recode(known, -1),
        members.role.recode(roles, len(roles)),
        len(roles),
        snapshots.customer,
        snapshots.as_of,
        np.array([*windows, NEVER], dtype=np.int64),
        observed_from,
        out,
    )
    yield from out.T


def column_count(vocabulary: Vocabulary, windows: Sequence[int]) -> int:
    """Return how many columns there are: active and new people by window, the newest, the share, those by role."""
    return 3 + 2 * len(windows) + (1 + bool(windows)) * len(vocabulary.roles)


@compiled
def _run(
    offsets: _I64,
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    inbound: npt.NDArray[np.bool_],
    contact: npt.NDArray[np.int32],
    contacts: int,
    member_offsets: _I64,
    member_known_at: Instants,
    member_contact: npt.NDArray[np.int32],
    member_role: npt.NDArray[np.int32],
    roles: int,
    customer: _I64,
    as_of: Instants,
    windows: _I64,
    observed_from: int,
    out: npt.NDArray[np.float64],
) -> None:
    """Fill ``out``: active people by window (the last is all time), new ones by window, days since the newest, share.

    Then active people by role, in the widest window and ever. One walk back through an account's live rows a snapshot.
    """
    last, first = np.zeros(contacts, dtype=np.int64), np.zeros(contacts, dtype=np.int64)
    rows, role = np.zeros(contacts, dtype=np.int64), np.zeros(contacts, dtype=np.int64)
    seen_at = np.full(contacts, -1, dtype=np.int64)
    seen = np.zeros(contacts, dtype=np.int64)
    ranges = len(windows)
    widest = max(ranges - 2, 0)
    for i in range(len(customer)):
        now, number, total = as_of[i], 0, 0
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        row = rows_before(occurred_at, start, stop, now) - 1
        while row >= start:
            who = contact[row]
            if who >= 0 and inbound[row] and is_live(visible_at[row], superseded_at[row], now):
                at = occurred_at[row]
                if seen_at[who] != i:
                    seen_at[who] = i
                    seen[number] = who
                    number += 1
                    last[who] = at
                    rows[who] = 0
                    role[who] = -1
                first[who] = at
                if windows[widest] == NEVER or in_window(at, now, windows[widest]):
                    rows[who] += 1
                    total += 1
            row -= 1
        for line in range(member_offsets[customer[i]], member_offsets[customer[i] + 1]):
            who = member_contact[line]
            # Lines stand by person, then by when they were known: the newest that tells a role counts.
            if who >= 0 and seen_at[who] == i and is_live(member_known_at[line], NEVER, now) and member_role[line] >= 0:
                role[who] = member_role[line]
        newest, most = -NEVER, 0
        for k in range(number):
            newest = max(newest, first[seen[k]])
            most = max(most, rows[seen[k]])
        for w in range(ranges):
            ever = windows[w] == NEVER
            if not ever and not is_covered(now, windows[w], observed_from):
                continue
            active, new = 0, 0
            for k in range(number):
                active += 1 if ever or in_window(last[seen[k]], now, windows[w]) else 0
                new += 1 if not ever and in_window(first[seen[k]], now, windows[w]) else 0
            out[i, w] = active
            if not ever:
                out[i, ranges + w] = new
            if ever or w == widest:
                base = 2 * ranges + 1 + (roles if ever and ranges > 1 else 0)
                for r in range(roles):
                    of_role = 0
                    for k in range(number):
                        inside = ever or in_window(last[seen[k]], now, windows[w])
                        of_role += 1 if inside and role[seen[k]] == r else 0
                    out[i, base + r] = of_role
        if number > 0:
            out[i, 2 * ranges - 1] = (now - newest) / DAY
        covered = windows[widest] == NEVER or is_covered(now, windows[widest], observed_from)
        if covered and total > 0:
            out[i, 2 * ranges] = most / total
