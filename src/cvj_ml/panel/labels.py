"""What came after each snapshot: the time until return and until each later stage, and how far it was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey import Journey, Outcome, Stays, reached, stays_that_happened
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import NEVER, Instants, follow_up, is_live, rows_before, time_until

RETURN = 0
"""Target 0 is the return; target ``i + 1`` is reaching stage ``i`` or higher."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Times from ``as_of`` in microseconds, on the clock of occurrence, as known at the cut.

    ``times`` is (snapshots, 1 + stages), NEVER where nothing happened by the cut; ``at_risk`` marks the targets that
    lie ahead of the snapshot's stage. ``late`` counts pairs that were dropped because the stage had already been
    reached before ``as_of``, though nobody could know it then. ``follow_up`` is how far the data is complete.
    """

    times: Instants
    at_risk: npt.NDArray[np.bool_]
    follow_up: Instants
    late: int

    def of(self, target: int) -> Labels:
        """Return the labels of one target."""
        return Labels(self.times[:, [target]], self.at_risk[:, [target]], self.follow_up, 0)

    def take(self, keep: npt.NDArray[np.bool_]) -> Labels:
        """Return the rows marked by a mask (``late`` still counts the whole)."""
        return Labels(self.times[keep], self.at_risk[keep], self.follow_up[keep], self.late)


def label(
    journey: Journey,
    points: TouchpointColumns,
    snapshots: Snapshots,
    stage: npt.NDArray[np.int8],
    cut: int,
    arrival_delay: int,
) -> Labels:
    """Label snapshots by what was visible at the cut; ``stage`` is each snapshot's observed stage.

    A stage that can be left is reached when it is entered next, and had been before if it was held at ``as_of``.
    """
    happened = stays_that_happened(journey, points, cut)
    until_stage = time_until(reached(happened.coming(snapshots.customer, snapshots.as_of)), snapshots.as_of[:, None])
    ahead = stages_ahead(journey, stage)
    already = ahead & (until_stage < 0)
    until_next = np.where(ahead & ~already, until_stage, NEVER).min(axis=1)
    until_touchpoint = time_until(next_touchpoint(points, points.inbound, snapshots, cut), snapshots.as_of)
    times = np.column_stack([np.minimum(until_touchpoint, until_next), until_stage])
    asked = np.column_stack([np.ones(len(snapshots), dtype=np.bool_), ahead & ~already])
    return Labels(times, asked, follow_up(snapshots.as_of, cut, arrival_delay), int(already.sum()))


class Leaves(NamedTuple):
    """The time until the stay in a stage ends by its rules, of whom that is asked, and how many had left already."""

    until: Instants
    asked: npt.NDArray[np.bool_]
    late: int


def label_outcomes(
    outcomes: Sequence[Outcome],
    points: TouchpointColumns,
    snapshots: Snapshots,
    cut: int,
    arrival_delay: int,
    leaves: Mapping[str, Leaves] | None = None,
) -> Labels:
    """Label snapshots with the time until each outcome, (snapshots, outcomes), by what was visible at the cut.

    ``leaves`` are those of `label_leaves`, by stage, for the outcomes that leave one.
    """
    times, asked, late = (
        np.zeros((len(snapshots), len(outcomes)), dtype=np.int64),
        np.ones((len(snapshots), len(outcomes)), dtype=np.bool_),
        0,
    )
    for k, one in enumerate(outcomes):
        if one.stage is not None and leaves is not None:
            times[:, k], asked[:, k] = leaves[one.stage].until, leaves[one.stage].asked
            late += leaves[one.stage].late
        else:
            there = next_touchpoint(points, one.among(points), snapshots, cut)
            times[:, k] = time_until(there, snapshots.as_of)
    return Labels(times, asked, follow_up(snapshots.as_of, cut, arrival_delay), late)


def label_leaves(
    journey: Journey, points: TouchpointColumns, known: Stays, snapshots: Snapshots, cut: int
) -> dict[str, Leaves]:
    """Label snapshots with the time until each stage is left that can be, by the evidence as known at the cut.

    Asked is who was known to hold the stage at ``as_of`` (``known``) and did hold it, as it happened. The time is NEVER
    where nothing left the stay by the cut, or silence did: of that the kept events tell.
    """
    names = [name for i, name in enumerate(journey.names) if known.leavable[i]]
    if not names:
        return {}
    happened = stays_that_happened(journey, points, cut)
    until = time_until(happened.until(snapshots.customer, snapshots.as_of), snapshots.as_of[:, None])
    seen, held = (one.holds(snapshots.customer, snapshots.as_of) for one in (known, happened))
    return {
        name: Leaves(until[:, i], (seen & held)[:, i], int((seen & ~held)[:, i].sum()))
        for i, name in enumerate(journey.names)
        if name in names
    }


def stages_ahead(journey: Journey, stage: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Return which stages can be seen and are later than each snapshot's, (snapshots, stages)."""
    observable = np.array([name not in journey.unobserved for name in journey.names])
    return observable[None, :] & (np.arange(len(observable))[None, :] > stage[:, None])


def next_touchpoint(
    points: TouchpointColumns, among: npt.NDArray[np.bool_], snapshots: Snapshots, cut: int
) -> Instants:
    """Return the first touchpoint among those marked, at or after each snapshot, as known at the cut, or NEVER."""
    result: Instants = _first_at_or_after(
        points.offsets,
        points.occurred_at,
        points.visible_at,
        points.superseded_at,
        among,
        snapshots.customer,
        snapshots.as_of,
        cut,
    )
    return result


@compiled
def _first_at_or_after(
    offsets: npt.NDArray[np.int64],
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    among: npt.NDArray[np.bool_],
    customer: npt.NDArray[np.int64],
    as_of: Instants,
    cut: int,
) -> Instants:
    found = np.full(len(customer), NEVER, dtype=np.int64)
    for i in range(len(customer)):
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        row = rows_before(occurred_at, start, stop, as_of[i])
        while row < stop:
            if among[row] and is_live(visible_at[row], superseded_at[row], cut):
                found[i] = occurred_at[row]
                break
            row += 1
    return found
