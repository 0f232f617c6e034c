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

from cvj_ml.errors import DataError, raise_all
from cvj_ml.models.uplift.arm_outcomes import predicted, reproducible
from cvj_ml.models.uplift.effect_model import Experiment, customer_folds

LOWEST, HIGHEST = 0.05, 0.95
"""Propensities outside leave hardly anybody to compare with. Crump, Hotz, Imbens and Mitnik (2009), *Dealing with
limited overlap in estimation of average treatment effects*, cut at 0.1, which would leave out rarer arms."""

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
            "Nobody drew lots here: effects rest on propensities that were estimated from what is known of the"
            " customers, and whatever else decided who was contacted is not accounted for."
        ]
        if self.outside > 0:
            found.append(
                f"{self.outside:.1%} of the rows have a propensity outside {LOWEST:g} to {HIGHEST:g}; nothing is said"
                " of customers like these."
            )
        if self.unbalanced:
            found.append(
                f"{self.unbalanced} of {len(self.after)} features differ between arms by more than {BALANCED:g}"
                " standard deviations even after weighting."
            )
        return tuple(found)


def estimate_propensity(features: _F32, arm: _I64, customer: _I64, seed: int, threads: int) -> _F64:
    """Return P(arm | features) of each row from trees that saw none of its customer's rows: (rows, arms with control).

    DataError where an arm is absent from the rows.
    """
    arms = int(arm.max(initial=0)) + 1
    if arms < 2 or (np.bincount(arm, minlength=arms) == 0).any():
        raise DataError(
            f"Propensities need rows of control and of each arm; found arms {sorted(set(arm.tolist()))[:5]}. Number"
            " arms from 0, which is control, without a gap."
        )
    fold = customer_folds(customer, _FOLDS, seed)
    propensity = np.empty((len(arm), arms))
    for k in range(_FOLDS):
        taught, held = fold != k, fold == k
        data = lgb.Dataset(features[taught], arm[taught], params={"verbosity": -1})
        booster = lgb.train(_parameters(arms, int(taught.sum()), seed, threads), data, num_boost_round=_ROUNDS)
        propensity[held] = predicted(booster, features[held])
    return propensity


def overlap(experiment: Experiment) -> Overlap:
    """Return how far the arms hold comparable customers, by the experiment's propensities."""
    propensity, arm = experiment.propensity, experiment.arm
    arms = propensity.shape[1]
    weight = 1 / propensity[np.arange(len(arm)), arm]
    worth = np.zeros(arms)
    for a in range(arms):
        own = weight[arm == a]
        worth[a] = own.sum() ** 2 / (own @ own) if len(own) else 0.0
    alike = [np.ones(len(arm)), weight]
    before, after = (
        np.fmax.reduce([_differences(experiment.features, arm == 0, arm == a, one) for a in range(1, arms)])
        for one in alike
    )
    outside = float((~inside(propensity)).mean()) if len(arm) else math.nan
    return Overlap(outside, worth, before, after, np.bincount(arm, minlength=arms))


def trim(experiment: Experiment) -> tuple[Experiment, Overlap]:
    """Return the rows of whom each arm has a propensity inside [0.05, 0.95], and the overlap before they were taken.

    OverlapError where more than half of the rows are outside, or what is left of an arm is worth fewer than 50 rows.
    """
    found = overlap(experiment)
    kept = experiment.take(inside(experiment.propensity))
    left = overlap(kept)
    faults = []
    if not found.outside <= MOST_OUTSIDE:
        faults.append(
            f"{found.outside:.0%} of {len(experiment):,} rows have a propensity outside {LOWEST:g} to {HIGHEST:g}, at"
            f" most {MOST_OUTSIDE:.0%} may."
        )
    faults += [
        f"what is left of {'control' if a == 0 else f'arm {a}'} is worth {worth:,.0f} rows, at least"
        f" {FEWEST_EFFECTIVE:g} are needed."
        for a, worth in enumerate(left.effective)
        if worth < FEWEST_EFFECTIVE
    ]
    raise_all(
        OverlapError,
        "Who was contacted and who was not cannot be compared; leave a random share of the eligible without a contact:",
        faults,
    )
    return kept, found


def inside(propensity: _F64) -> npt.NDArray[np.bool_]:
    """Mark rows that could have been in any arm; with several arms each of them is rarer, so no upper bound holds."""
    found: npt.NDArray[np.bool_] = (propensity.min(axis=1) >= LOWEST) & (propensity.max(axis=1) <= HIGHEST)
    return found


def _differences(features: _F32, control: npt.NDArray[np.bool_], arm: npt.NDArray[np.bool_], weight: _F64) -> _F64:
    """Return |mean of the arm - mean of control| / sqrt((var + var) / 2) of each feature, (features,).

    The variances are the unweighted ones, so that before and after are in one unit (Austin and Stuart 2015).
    """
    found = np.full(features.shape[1], np.nan)
    for c in range(features.shape[1]):
        column = features[:, c].astype(np.float64)
        known = np.isfinite(column)
        groups = [known & control, known & arm]
        if min(int(one.sum()) for one in groups) < 2:
            continue
        spread = math.sqrt(sum(float(column[one].var(ddof=1)) for one in groups) / 2)
        if spread > 0:
            one, other = (float(np.average(column[g], weights=weight[g])) for g in groups)
            found[c] = abs(other - one) / spread
    return found


def _parameters(arms: int, rows: int, seed: int, threads: int) -> dict[str, object]:
    return {
        "objective": "multiclass",
        "num_class": arms,
        "num_leaves": 4,
        "min_data_in_leaf": min(max(rows // 50, 20), 500),
        "learning_rate": 0.1,
        "lambda_l2": 10.0,
        **reproducible(seed, threads),
    }
