"""Propensities of a targeted log: who would have been contacted, and whether anybody like them was not.

Where nobody drew lots, P(arm | features) is estimated, and only what is known of the customers can be accounted for.
An effect is claimed only of customers of whom some were contacted and some were not (positivity): the others are
trimmed, and a log in which hardly anybody is left is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cvj_ml.errors import DataError
from cvj_ml.models.uplift.effect_model import Experiment, customer_folds

LOWEST, HIGHEST = 0.05, 0.95
"""Propensities outside leave hardly anybody to compare with; near the best cut of Crump, Hotz, Imbens and Mitnik (2009),
*Dealing with limited overlap in estimation of average treatment effects*, which is 0.1."""

BALANCED = 0.1
"""Standardised differences of a feature's means below this count as balanced (Austin 2009)."""

MOST_OUTSIDE = 0.5
"""Share of rows outside [LOWEST, HIGHEST] above which an effect of the others would be one of a remainder."""

FEWEST_EFFECTIVE = 50.0
"""Rows that the weights of an arm have to be worth."""

_FOLDS = 5
_ROUNDS = 60

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


class OverlapError(DataError):
    """In a targeted log there is nobody to compare the contacted with."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far the arms hold comparable customers.

    outside: the share of rows of whom the propensity of any arm is outside [0.05, 0.95]. effective: (arms with control)
    what the inverse-propensity weights of each arm are worth in rows, (sum w)^2 / sum w^2 (Kish 1965). before and
    after: (features,) the largest standardised difference of means between an arm and control, unweighted and weighted;
    NaN where a feature is missing or the same everywhere. rows: (arms with control) how many there are.
    """

    outside: float
    effective: _F64
    before: _F64
    after: _F64
    rows: _I64

    @property
    def unbalanced(self) -> int:
        """How many features differ between arms after weighting."""
        return int((self.after > BALANCED).sum())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of effects from this log has to know, in sentences."""
        found = [
            "Nobody drew lots here: effects rest on propensities that were estimated from what is known of the customers,"
            " and whatever else decided who was contacted is not accounted for."
        ]
        if self.outside > 0:
            found.append(
                f"{self.outside:.1%} of the rows have a propensity outside {LOWEST:g} to {HIGHEST:g}; nothing is said of"
                " customers like these."
            )
        if self.unbalanced:
            found.append(
                f"{self.unbalanced} of {len(self.after)} features differ between arms by more than {BALANCED:g} standard"
                " deviations even after weighting."
            )
        return tuple(found)


def estimate_propensity(features: _F32, arm: _I64, customer: _I64, seed: int, threads: int) -> _F64:
    """Return P(arm | features) of each row from trees that saw none of its customer's rows: (rows, arms with control).

    DataError where an arm is absent from the rows.
    """
    arms = int(arm.max(initial=0)) + 1
    if arms < 2 or (np.bincount(arm, minlength=arms) == 0).any():
        raise DataError(
            f"Propensities need rows of control and of each arm; found arms {sorted(set(arm.tolist()))[:5]}. Number arms"
            " from 0, which is control, without a gap."
        )
    fold = customer_folds(customer, _FOLDS, seed)
    propensity = np.empty((len(arm), arms))
    for k in range(_FOLDS):
        taught, held = fold != k, fold == k
        data = lgb.Dataset(features[taught], arm[taught], params={"verbosity": -1})
        booster = lgb.train(_parameters(arms, int(taught.sum()), seed, threads), data, num_boost_round=_ROUNDS)
        propensity[held] = np.asarray(booster.predict(features[held], num_threads=1), dtype=np.float64)
    return propensity


def overlap(experiment: Experiment) -> Overlap:
    """Return how far the arms hold comparable customers, by the experiment's propensities."""
    raise NotImplementedError


def _parameters(arms: int, rows: int, seed: int, threads: int) -> dict[str, object]:
    return {
        "objective": "multiclass",
        "num_class": arms,
        "num_leaves": 4,
        "min_data_in_leaf": min(max(rows // 50, 20), 500),
        "learning_rate": 0.1,
        "lambda_l2": 10.0,
        "metric": "None",
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "verbosity": -1,
    }
