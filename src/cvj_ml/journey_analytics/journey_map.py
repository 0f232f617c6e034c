"""The journey map in numbers: who stands where, who moved where, how long each step takes, where customers stall.

Where there is most to gain: customers x probability gap x value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc
from pydantic import Field

from cvj_ml.config import DAY, Config, ListSpec
from cvj_ml.journey import Journey
from cvj_ml.journey_analytics.dwell_times import AFTER, BEFORE_ANY, STILL_THERE, DwellTimeCounts, add
from cvj_ml.scoring.scores_table import StoredTable

MINIMUM_MOVERS = 20
"""Customers who must have moved on before a stage has a usual time of doing so."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast customers move on from a stage, in days; None where too few customers tell.

    ``moved_by`` is the share that has moved on after 30 and 90 days and ``median`` the time by which half have, both
    by Kaplan and Meier: customers who are still there, or left for an earlier stage, count as long as they were seen
    here. A share is told where as many
    as MINIMUM_MOVERS came so long ago, a median where half as many were still there until then. ``usual`` is the 75th
    percentile of the days that movers took, ``stalled`` are customers who have been here for longer.
    """

    moved_by: tuple[float | None, ...]
    median: float | None
    usual: float | None
    stalled: int | None


@dataclass(frozen=True, slots=True)
class BackAndForth:
    """Of a stage in a journey whose stages can be left: all ``stays``, of which somebody has several.

    ``back`` came back from a later stage in the last period, ``lost`` left for an earlier one.
    """

    stays: int
    back: int
    lost: int


@dataclass(frozen=True, slots=True)
class Step:
    """A stage and the step out of it.

    ``here`` stand in it now, ``dormant`` of them have been silent for the journey's ``dormant_after``; ``entered``
    ever did, ``new`` and ``came`` in the last period (for the first time in the data; from an earlier stage); ``left``
    moved on in the last period, ``converted`` ever. ``back_and_forth`` is None where no stage can be left.
    """

    stage: int
    name: str
    observed: bool
    goal: str
    here: int
    dormant: int
    entered: int
    new: int
    came: int
    left: int
    converted: int
    pace: Pace
    back_and_forth: Annotated[BackAndForth | None, Field(exclude_if=lambda one: one is None)] = None

    @property
    def stays(self) -> int:
        """How many stays there were; one a customer where no stage can be left."""
        return self.entered if self.back_and_forth is None else self.back_and_forth.stays

    @property
    def arrived(self) -> int:
        """How many came in the last period, from wherever."""
        return self.new + self.came + (self.back_and_forth.back if self.back_and_forth else 0)

    @property
    def dropped(self) -> float | None:
        """The share of all who ever entered who are here and silent."""
        return self.dormant / self.entered if self.entered else None


@dataclass(frozen=True, slots=True)
class Flow:
    """Customers who moved between two stages in the last period."""

    origin: int
    to: int
    customers: int
    skips: bool


@dataclass(frozen=True, slots=True)
class JourneyMap:
    """Every stage in order, and the moves of the last period.

    Those before any stage come first, where there are some or were in the last period.
    """

    steps: tuple[Step, ...]
    flows: tuple[Flow, ...]
    period_days: int

    def name(self, stage: int) -> str:
        """Return the name of a stage."""
        return next(step.name for step in self.steps if step.stage == stage)


def journey_map(
    config: Config, journey: Journey, counts: DwellTimeCounts, scores: StoredTable | None, period: int
) -> JourneyMap:
    """Make the map from the counts of all blocks; who is dormant is taken from SCORES."""
    silent = _dormant(config, scores) if scores is not None else {}
    steps, nowhere = [], config.journey.in_no_stage.capitalize()
    for stage in range(BEFORE_ANY, len(config.journey.stages)):
        rows = counts.dwell_times[counts.dwell_times["stage"] == stage]
        if stage == BEFORE_ANY and not (rows["recent"] | (rows["next"] == STILL_THERE)).any():
            continue
        arrivals = counts.arrivals[counts.arrivals["stage"] == stage]
        came = counts.dwell_times[(counts.dwell_times["next"] == stage) & counts.dwell_times["recent"]]
        name = nowhere if stage == BEFORE_ANY else config.journey.stages[stage].name
        yet = "" if journey.leavable else " yet"
        goal = f"They are known, and no stage's rule holds{yet}." if stage < 0 else config.journey.stages[stage].goal
        steps.append(
            Step(
                stage,
                name,
                name not in journey.unobserved,
                goal,
                here=_sum(rows[rows["next"] == STILL_THERE]),
                dormant=silent.get(stage, 0),
                entered=_sum(rows[~rows["again"]]),
                new=_sum(arrivals),
                came=_sum(came[came["stage"] < stage]),
                left=_sum(rows[rows["recent"] & (rows["next"] > stage)]),
                converted=_sum(rows[rows["next"] > stage]),
                pace=pace(rows),
                back_and_forth=BackAndForth(
                    stays=_sum(rows),
                    back=_sum(came[came["stage"] > stage]),
                    lost=_sum(rows[rows["recent"] & (rows["next"] < stage)]),
                )
                if journey.leavable
                else None,
            )
        )
    observable = [step.stage for step in steps if step.observed]
    moves = add([counts.dwell_times[counts.dwell_times["recent"]][["stage", "next", "customers"]]], ["stage", "next"])
    flows = []
    for origin, to, customers in moves.to_numpy(dtype=np.int64).tolist():
        flows.append(Flow(origin, to, customers, any(origin < stage < to for stage in observable)))
    return JourneyMap(tuple(steps), tuple(flows), period // DAY)


def pace(rows: pd.DataFrame) -> Pace:
    """Return how fast the stays in one stage ended."""
    onward = rows["next"] > rows["stage"]
    converters = rows[onward]
    if _sum(converters) < MINIMUM_MOVERS:
        return Pace((None,) * len(AFTER), None, None, None)
    days, left = kaplan_meier(rows["days"].to_numpy(), onward.to_numpy(), _weights(rows))
    there = np.concatenate([[1.0], left])
    shares = tuple(
        float(1 - there[np.searchsorted(days, after, side="right")])
        if _sum(rows[rows["followed"] > place]) >= MINIMUM_MOVERS
        else None
        for place, after in enumerate(AFTER)
    )
    half = days[left <= 0.5]
    if len(half) and _sum(rows[rows["days"] >= half[0]]) < MINIMUM_MOVERS // 2:
        half = half[:0]
    usual = weighted_percentile(converters["days"].to_numpy(), _weights(converters), 0.75)
    waiting = rows[(rows["next"] == STILL_THERE) & (rows["days"] > usual)]
    return Pace(shares, float(half[0]) if len(half) else None, usual, _sum(waiting))


def kaplan_meier(
    days: npt.NDArray[np.float64], converted: npt.NDArray[np.bool_], customers: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the times at which somebody moved or was last seen, and the share still there after each.

    S(d) = prod over t <= d of (1 - moved_t / at risk_t), Kaplan and Meier (1958). days: of each stay,
    customers: how many stays a row stands for; who was last seen on day t is at risk on it.
    """
    at, place = np.unique(days, return_inverse=True)
    ended = np.bincount(place, weights=customers * converted, minlength=len(at))
    gone = np.bincount(place, weights=customers, minlength=len(at))
    risk = gone[::-1].cumsum()[::-1]
    return at, np.cumprod(1 - ended / risk)


def weighted_percentile(values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64], share: float) -> float:
    """Return the smallest value that at least this share of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    heaped = weights[order].cumsum()
    return float(values[order][np.searchsorted(heaped, share * heaped[-1])])


def _dormant(config: Config, scores: StoredTable) -> dict[int, int]:
    table = scores.read(["dormant", "stage"])
    quiet = table.filter(table["dormant"])["stage"]
    positions = {name: i for i, name in enumerate(config.journey.names)}
    counted = pc.value_counts(quiet).to_pylist()
    return {positions.get(one["values"], BEFORE_ANY): one["counts"] for one in counted}


MOST_SEGMENTS = 8
"""Segments that a worksheet tells of."""


def top_segments(counts: DwellTimeCounts) -> list[str]:
    """Return the segments with most customers who are known now, largest first."""
    now = counts.dwell_times[counts.dwell_times["next"] == STILL_THERE].groupby("segment", sort=True)["customers"].sum()
    ranked = sorted(now.items(), key=lambda item: (-item[1], str(item[0])))
    return [str(name) for name, _ in ranked[:MOST_SEGMENTS] if name]


def of_segment(counts: DwellTimeCounts, name: str) -> DwellTimeCounts:
    """Return the counts of one segment's customers."""
    return DwellTimeCounts(
        counts.dwell_times[counts.dwell_times["segment"] == name], counts.arrivals[counts.arrivals["segment"] == name]
    )


def _weights(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    return rows["customers"].to_numpy(dtype=np.int64)


def _sum(rows: pd.DataFrame) -> int:
    return int(rows["customers"].sum())


BEST = 0.25
"""The share of a stage's customers who show what is within reach."""


@dataclass(frozen=True, slots=True)
class Opportunity:
    """One transition: if the others moved on as readily as the best quarter does, ``moves`` more would.

    ``gap`` is the mean probability of the best quarter minus the mean of all; ``value`` is ``moves`` times what
    reaching the stage is worth, None where the configuration does not say.
    """

    origin: str
    to: str
    horizon_days: int
    customers: int
    probability: float
    best: float
    moves: float
    value: float | None

    @property
    def gap(self) -> float:
        """How much more probable the step is for the best quarter."""
        return self.best - self.probability


def opportunities(config: Config, scores: StoredTable, specs: Sequence[ListSpec]) -> list[Opportunity]:
    """Return the transitions of the lists, the greatest room first: those with a value by it, then the others by moves.

    Room is what the probabilities of a night leave open, no forecast of what a campaign would bring.
    """
    slugs = {stage.name: stage.slug for stage in config.journey.stages}
    stage = scores.read(["stage"])["stage"]
    found = []
    for spec in (one for one in specs if one.kind == "move"):
        days, (origin,), to = spec.horizon // DAY, spec.origins, spec.target
        column = f"p_reach_{slugs[to]}_{days}d"
        here = pc.fill_null(pc.equal(stage, origin), False).to_numpy()
        p = scores.read([column], here)[column].to_numpy()
        p = np.sort(p[~np.isnan(p)])[::-1]
        if not len(p):
            continue
        best = float(p[: max(1, round(BEST * len(p)))].mean())
        moves = max(0.0, len(p) * (best - float(p.mean())))
        worth = config.stage_value.get(to)
        value = None if worth is None else moves * worth
        found.append(Opportunity(origin, to, days, len(p), float(p.mean()), best, moves, value))
    return sorted(found, key=lambda one: (one.value is None, -(one.value or 0.0), -one.moves, one.origin, one.to))
