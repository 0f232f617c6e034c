"""Where there is most to gain: customers x probability gap x value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config, ListSpec
from cvj_ml.scoring import StoredTable

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
    for spec in specs:
        days = spec.horizon // DAY
        column = f"p_reach_{slugs[spec.to_stage]}_{days}d"
        here = pc.fill_null(pc.equal(stage, spec.from_stage), False).to_numpy()
        p = scores.read([column], here)[column].to_numpy()
        p = np.sort(p[~np.isnan(p)])[::-1]
        if not len(p):
            continue
        best = float(p[: max(1, round(BEST * len(p)))].mean())
        moves = max(0.0, len(p) * (best - float(p.mean())))
        worth = config.stage_value.get(spec.to_stage)
        value = None if worth is None else moves * worth
        found.append(Opportunity(spec.from_stage, spec.to_stage, days, len(p), float(p.mean()), best, moves, value))
    return sorted(found, key=lambda one: (one.value is None, -(one.value or 0.0), -one.moves, one.origin, one.to))
