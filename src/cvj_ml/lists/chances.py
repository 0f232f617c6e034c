"""What a list ranks by, read from SCORES: the chances of moves, of losses and of purchases, and what they are worth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, LEAVE, Config, JourneySpec, ListSpec
from cvj_ml.errors import ModelError
from cvj_ml.journey import KEPT, PURCHASE, in_scores
from cvj_ml.lists.kinds import LEAVING, name_of
from cvj_ml.models.uplift.list_effect import ListEffect, column_of, effect_of
from cvj_ml.models.value.value import amount_if_bought

REACH = "reach"
"""What the probability of a list of moves is of; that of the others is of an outcome."""

_F64 = npt.NDArray[np.float64]


def asked_in(outcome: str, stage: str, journey: JourneySpec) -> str:
    """Return the outcome of a model that the probability of a list is of, of customers in one of its stages."""
    return f"{LEAVE}{journey.stages[journey.index(stage)].slug}" if outcome == LEAVING else outcome


def loss_columns(journey: JourneySpec, spec: ListSpec) -> list[str]:
    """Return the columns of SCORES that tell who is lost: one for each stage where stages are left, else one."""
    asked = [asked_in(LEAVING, stage, journey) for stage in spec.origins] if spec.contractual else [KEPT]
    return [_column(outcome, spec) for outcome in asked]


@dataclass(frozen=True, slots=True)
class Chances:
    """Reads the columns of SCORES that a configuration's lists rank by; ``there`` are those of tonight.

    ``amounts_rank`` is whether the model's amounts order customers well enough to rank them (`ValueModel.ranks`);
    ``effects`` are the model's, of lists whose control groups taught what a contact changes.
    """

    config: Config
    there: Collection[str]
    amounts_rank: bool = False
    effects: Sequence[ListEffect] = ()

    def outcome(self, spec: ListSpec) -> str:
        """Return what the probability of a list is of: ``reach``, ``purchase``, ``leave``, or ``kept``.

        At risk, ``kept`` stands for its contrary, and by contractual churn each is asked whether they ``leave`` the
        stage that is theirs. Who is to be won back is asked whether they buy; where nothing tells of purchases, whether
        they come back.
        """
        if spec.contractual:
            return LEAVING
        if spec.kind == "win_back" and _column(PURCHASE, spec) in self.there:
            return PURCHASE
        return REACH if spec.kind == "move" else KEPT

    def published(self, spec: ListSpec) -> dict[str, str]:
        """Return the column of SCORES that the probability of a list comes from, by the stage of its customers."""
        outcome = self.outcome(spec)
        if outcome == REACH:
            return dict.fromkeys(spec.origins, self.reach_column(spec.target, spec.horizon))
        return {stage: _column(asked_in(outcome, stage, self.config.journey), spec) for stage in spec.origins}

    def evidence(self, spec: ListSpec) -> tuple[str, ...]:
        """Return the names in ``low_evidence`` by which the probability of a list rests on base rates.

        An outcome that is the same question as the return, or as another outcome, is named as that one.
        """
        if spec.contractual:
            return tuple(asked_in(LEAVING, stage, self.config.journey) for stage in spec.origins)
        named = {REACH: (spec.to_stage or "",), KEPT: ("return", KEPT), PURCHASE: ("return", KEPT, PURCHASE)}
        return named[self.outcome(spec)]

    def columns(self, spec: ListSpec) -> list[str]:
        """Return the columns that `probability`, `value` and `change` of a list read."""
        change = [column_of(one.name)] if (one := self.effect(spec)) and column_of(one.name) in self.there else []
        if spec.kind == "move":
            amount = [_amount(spec)] if self._by_amounts(spec) and _amount(spec) in self.there else []
            reach = [self.reach_column(name, spec.horizon) for name in (spec.target, *self._worths(spec))]
            return [*reach, *amount, *change]
        told = [*loss_columns(self.config.journey, spec), _column(PURCHASE, spec), _amount(spec)]
        return [*(name for name in told if name in self.there), *change]

    def effect(self, spec: ListSpec) -> ListEffect | None:
        """Return what a contact changes for the customers of a list, None where nobody knows.

        It was compared with ranking by probability, so it ranks no list that is ranked by what customers are worth.
        """
        found = effect_of(self.effects, name_of(self.config.journey, spec))
        by_probability = spec.by in ("probability", "churn")
        return found if found is None or by_probability else replace(found, ranks=False)

    def change(self, spec: ListSpec, scores: pa.Table, probability: _F64) -> _F64:
        """Return by how much a contact changes the probability of what it is for.

        NaN where nobody knows, as of those whose like was never listed.
        """
        effect = self.effect(spec)
        if effect is None or column_of(effect.name) not in scores.column_names:
            return np.full(len(scores), np.nan)
        return np.where(probability >= effect.support, _numbers(scores, column_of(effect.name)), np.nan)

    def happens(self, spec: ListSpec, probability: _F64) -> _F64:
        """Return the probability of what a contact is for, from the one that the list shows."""
        stays: _F64 = 1 - probability
        return stays if spec.kind == "at_risk" else probability

    def probability(self, spec: ListSpec, scores: pa.Table) -> _F64:
        """Return what the list shows: of a move, of a loss, of a purchase or a return; NaN where there is none."""
        outcome = self.outcome(spec)
        if outcome == REACH:
            return self.reach(spec.target, spec.horizon, scores)
        if outcome == PURCHASE:
            return _numbers(scores, _column(PURCHASE, spec))
        if outcome == LEAVING:
            leaves = np.full(len(scores), np.nan)
            for stage, column in self.published(spec).items():
                theirs = pc.equal(scores["stage"], stage).to_numpy()
                leaves[theirs] = _numbers(scores, column)[theirs]
            return leaves
        lost = _numbers(scores, _column(KEPT, spec))
        if spec.kind == "at_risk":
            return lost
        kept: _F64 = 1 - lost
        return kept

    def value(self, spec: ListSpec, scores: pa.Table) -> _F64:
        """Return what the list's move, or its contrary, is worth on average; NaN where nothing tells.

        A move: the worth of the list's stage and of the later ones, each times its probability; where none is stated
        and the list is ranked by it, what they are expected to buy for. At risk: what they buy for if they buy, times
        the probability that they are lost. Win back: what they are expected to buy for.
        """
        if self._by_amounts(spec):
            return _numbers(scores, _amount(spec))
        if spec.kind == "move":
            worth = self._worths(spec)
            parts = [one * np.nan_to_num(self.reach(name, spec.horizon, scores)) for name, one in worth.items()]
            total: _F64 = np.sum(parts, axis=0) if parts else np.full(len(scores), np.nan)
            return total
        amount, bought = _amount(spec), _column(PURCHASE, spec)
        if not {amount, bought} <= {*scores.column_names}:
            return np.full(len(scores), np.nan)
        expected = _numbers(scores, amount)
        if spec.kind == "win_back":
            return expected
        chance = _numbers(scores, bought)
        lost: _F64 = self.probability(spec, scores) * amount_if_bought(expected, chance)
        return lost

    def reach_column(self, stage: str, horizon: int) -> str:
        """Return the column of reaching a stage within a horizon."""
        slug = self.config.journey.stages[self.config.journey.index(stage)].slug
        return f"p_reach_{slug}_{horizon // DAY}d"

    def reach(self, stage: str, horizon: int, scores: pa.Table) -> _F64:
        """Return the probability of reaching a stage within a horizon, NaN where it is not predicted."""
        return _numbers(scores, self.reach_column(stage, horizon))

    def require_known(self, spec: ListSpec, scores: pa.Table) -> None:
        """Raise ModelError where a list ranks by what the model of these scores does not know."""
        if spec.audience == "active" and scores["active"].null_count:
            raise ModelError(
                f"{spec.words}: the model does not know who is active by their own rhythm, since it was fitted on a"
                " panel in memory. Fit or train it on touchpoints, or leave the list out."
            )
        by_amounts, amount = self._by_amounts(spec), _amount(spec)
        if not by_amounts and spec.by != "lost_value":
            return
        if amount not in self.there or 0 < len(scores) == scores[amount].null_count:
            raise ModelError(
                f"{spec.words}: the model learned no amounts ({amount}), since too few customers bought again or their"
                f" purchases have no value, and `by: {spec.by}` ranks by them. "
                + ("State stage_value, or rank `by: probability`." if by_amounts else "Rank `by: churn`.")
            )
        if by_amounts and not self.amounts_rank:
            raise ModelError(
                f"{spec.words}: `by: expected_value` without stage_value ranks by what customers are expected to buy"
                " for, and in the fold that judged this model that did not order them better than their stage does, or"
                " was far from what they bought for. State stage_value, or rank `by: probability`."
            )

    def _by_amounts(self, spec: ListSpec) -> bool:
        """Return whether a list of moves is ranked by what customers are expected to buy for: no worth is stated."""
        return spec.kind == "move" and spec.by == "expected_value" and not self._worths(spec)

    def _worths(self, spec: ListSpec) -> dict[str, float]:
        """Return the worth of the list's stage and of the later ones, as far as they have one and are predicted."""
        worth, names = self.config.stage_value, self.config.journey.names
        later = [name for name in names[self.config.journey.index(spec.target) :] if name in worth]
        return {name: worth[name] for name in later if self.reach_column(name, spec.horizon) in self.there}


def _column(outcome: str, spec: ListSpec) -> str:
    return f"p_{in_scores(outcome)}_{spec.horizon // DAY}d"


def _amount(spec: ListSpec) -> str:
    return f"value_{spec.horizon // DAY}d"


def _numbers(scores: pa.Table, name: str) -> _F64:
    found: _F64 = scores[name].to_numpy()
    return found
