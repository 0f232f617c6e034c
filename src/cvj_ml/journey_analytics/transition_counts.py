"""Who came to each stage, who moved on within each horizon, and what training would ask about."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cvj_ml.config import Config
from cvj_ml.histories import Block
from cvj_ml.journey import Stays, evidence
from cvj_ml.journey_analytics.dwell_times import highest_held
from cvj_ml.panel.labels import label
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.snapshots import eligible, training_grid
from cvj_ml.windows import (
    NEVER,
    Instants,
    before,
    edges,
    follow_up,
    happened_within,
    observed_whole,
    time_until,
)

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TransitionCounts:
    """Distinct customers: by stage ``here`` (before any first) and ``entered``; the rest by origin, target and horizon.

    ``came`` and ``moved`` are those of a `KnownTransition`. ``lived`` had not moved before the horizon's last part and
    were observed to its end, ``converters`` reached each target within any horizon: what base rates and trees ask for.
    """

    here: _Counts
    entered: _Counts
    came: _Counts
    moved: _Counts
    lived: _Counts
    converters: _Counts

    def __add__(self, other: TransitionCounts) -> TransitionCounts:
        return TransitionCounts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def count_transitions(config: Config, definition: ModelSpec, block: Block, cut: int, delay: int) -> TransitionCounts:
    """Count a block's customers as known at the cut, and what training at the cut asks about."""
    points, stages = block.touchpoints, len(definition.journey.stages)
    held = definition.stays(block)
    now = eligible(points, np.array([cut], dtype=np.int64))
    here = np.bincount(held.at(now.customer, cut).stage.astype(np.int64) + 1, minlength=1 + stages)
    came, moved = _from_entry(definition, points.first_visible(), held, cut, delay)
    lived, converters = _for_training(definition, block, held, training_grid(config, cut), cut, delay)
    return TransitionCounts(here, before(held.first, cut).sum(axis=0), came, moved, lived, converters)


def _from_entry(
    definition: ModelSpec, seen: Instants, held: Stays, cut: int, delay: int
) -> tuple[_Counts, _Counts]:  # fmt: skip
    """Count who came to each stage for the first time, and who moved on from there; before any they are ``seen``."""
    origins, customers = 1 + held.first.shape[1], np.arange(len(seen))
    came, moved = (np.zeros((origins, origins - 1, len(definition.horizons)), dtype=np.int64) for _ in range(2))
    stood_at = np.full((len(seen), origins), NEVER, dtype=np.int64)
    customer, stage, start = highest_held(seen, held, cut)
    np.minimum.at(stood_at, (customer, stage + 1), start)
    for s in range(origins):
        begins = stood_at[:, s]
        stood = before(begins, cut)
        ahead = held.coming(customers, np.where(stood, begins, 0) + 1)
        for j in range(s, origins - 1):
            until = time_until(ahead[:, j:].min(axis=1), begins)
            for m, horizon in enumerate(definition.horizons):
                whole = stood & observed_whole(follow_up(begins, cut, delay), horizon)
                came[s, j, m] = whole.sum()
                moved[s, j, m] = (whole & happened_within(until, horizon)).sum()
    return came, moved


def _for_training(
    definition: ModelSpec, block: Block, held: Stays, instants: Instants, cut: int, delay: int
) -> tuple[_Counts, _Counts]:
    """Count the customers whom training has seen live through each part, and reach each target."""
    journey, points = definition.journey, block.touchpoints
    snapshots = eligible(points, instants)
    stage = held.at(snapshots.customer, snapshots.as_of).stage
    found = label(journey, evidence(journey, block), snapshots, stage, cut, delay)
    at_risk = found.at_risk & definition.at_risk(stage)
    lived = np.zeros((1 + len(journey.stages), len(journey.stages), len(definition.horizons)), dtype=np.int64)
    converted = np.zeros((len(block), len(journey.stages)), dtype=np.bool_)
    for m, (low, high) in enumerate(pairwise(edges(definition.horizons))):
        whole = observed_whole(found.follow_up, high)
        for j in journey.observable:
            times = found.times[:, 1 + j]
            rows = at_risk[:, 1 + j] & whole & ~happened_within(times, low)
            seen = np.zeros((len(block), 1 + len(journey.stages)), dtype=np.bool_)
            seen[snapshots.customer[rows], stage[rows].astype(np.int64) + 1] = True
            lived[:, j, m] = seen.sum(axis=0)
            converted[snapshots.customer[rows & happened_within(times, high)], j] = True
    return lived, converted.sum(axis=0)
