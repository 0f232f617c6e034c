"""What a list ranks by, read from SCORES: the chances of moves, of losses and of purchases, and what they are worth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.config import DAY, Config, ListSpec
from cvj_ml.errors import ModelError
from cvj_ml.journey import KEPT, PURCHASE

REACH = "reach"
"""What the probability of a list of moves is of; that of the others is of an outcome."""

_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chances:
    """Reads the columns of SCORES that a configuration's lists rank by; ``there`` are those of tonight."""

    config: Config
    there: Collection[str]

    def outcome(self, spec: ListSpec) -> str:
        """Return what the probability of a list is of: ``reach``, ``purchase``, or ``kept`` (at risk: its contrary).

        Who is to be won back is asked whether they buy; where nothing tells of purchases, whether they come back.
        """
        if spec.kind == "win_back" and _column(PURCHASE, spec) in self.there:
            return PURCHASE
        return REACH if spec.kind == "move" else KEPT

    def evidence(self, spec: ListSpec) -> tuple[str, ...]:
        """Return the names in ``low_evidence`` by which the probability of a list rests on base rates.

        An outcome that is the same question as the return, or as another outcome, is named as that one.
        """
        named = {REACH: (spec.to_stage or "",), KEPT: ("return", KEPT), PURCHASE: ("return", KEPT, PURCHASE)}
        return named[self.outcome(spec)]

    def columns(self, spec: ListSpec) -> list[str]:
        """Return the columns that `probability` and `value` of a list read."""
        if spec.kind == "move":
            return [self.reach_column(name, spec.horizon) for name in (spec.target, *self._worths(spec))]
        told = [_column("churn", spec), _column(PURCHASE, spec), f"value_{spec.horizon // DAY}d"]
        return [name for name in told if name in self.there]

    def probability(self, spec: ListSpec, scores: pa.Table) -> _F64:
        """Return what the list shows: of a move, of a loss, of a purchase or a return; NaN where there is none."""
        outcome = self.outcome(spec)
        if outcome == REACH:
            return self.reach(spec.target, spec.horizon, scores)
        if outcome == PURCHASE:
            return _numbers(scores, _column(PURCHASE, spec))
        lost = _numbers(scores, _column("churn", spec))
        if spec.kind == "at_risk":
            return lost
        kept: _F64 = 1 - lost
        return kept

    def value(self, spec: ListSpec, scores: pa.Table) -> _F64:
        """Return what the list's move, or its contrary, is worth on average; NaN where nothing tells.

        A move: the worth of the list's stage and of the later ones, each times its probability. At risk: what they buy
        for if they buy, times the probability that they are lost. Win back: what they are expected to buy for.
        """
        if spec.kind == "move":
            worth = self._worths(spec)
            parts = [one * np.nan_to_num(self.reach(name, spec.horizon, scores)) for name, one in worth.items()]
            total: _F64 = np.sum(parts, axis=0) if parts else np.full(len(scores), np.nan)
            return total
        amount, bought = f"value_{spec.horizon // DAY}d", _column(PURCHASE, spec)
        if not {amount, bought} <= {*scores.column_names}:
            return np.full(len(scores), np.nan)
        expected = _numbers(scores, amount)
        if spec.kind == "win_back":
            return expected
        chance = _numbers(scores, bought)
        if_bought = np.divide(expected, chance, out=np.full(len(chance), np.nan), where=chance > 0)
        lost: _F64 = self.probability(spec, scores) * if_bought
        return lost

    def reach_column(self, stage: str, horizon: int) -> str:
        """Return the column of reaching a stage within a horizon."""
        slug = self.config.journey.stages[self.config.journey.index(stage)].slug
        return f"p_reach_{slug}_{horizon // DAY}d"

    def reach(self, stage: str, horizon: int, scores: pa.Table) -> _F64:
        """Return the probability of reaching a stage within a horizon, NaN where it is not predicted."""
        return _numbers(scores, self.reach_column(stage, horizon))

    def _worths(self, spec: ListSpec) -> dict[str, float]:
        """Return the worth of the list's stage and of the later ones, as far as they have one and are predicted."""
        worth, names = self.config.stage_value, self.config.journey.names
        later = [name for name in names[self.config.journey.index(spec.target) :] if name in worth]
        return {name: worth[name] for name in later if self.reach_column(name, spec.horizon) in self.there}


def _column(name: str, spec: ListSpec) -> str:
    return f"p_{name}_{spec.horizon // DAY}d"


def _numbers(scores: pa.Table, name: str) -> _F64:
    found: _F64 = scores[name].to_numpy()
    return found


def require_known(spec: ListSpec, scores: pa.Table) -> None:
    """Raise ModelError where a list asks for what the model of these scores does not know."""
    if spec.kind == "at_risk" and scores["active"].null_count:
        raise ModelError(
            f"{spec.words}: the model does not know who is active by their own rhythm, since it was fitted on a"
            " panel in memory. Fit or train it on touchpoints, or leave the list out."
        )
    if spec.by == "lost_value" and len(scores) and scores[f"value_{spec.horizon // DAY}d"].null_count == len(scores):
        raise ModelError(
            f"{spec.words}: the model learned no amounts, since too few customers bought again or their purchases"
            " have no value, so nothing tells what would be lost (`by: lost_value`). Rank `by: churn`."
        )
