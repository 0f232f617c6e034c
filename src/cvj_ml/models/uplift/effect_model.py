"""What a contact changes for each customer: a cross-fitted doubly robust learner, shrunk to what data support.

The effect of arm a on a customer with features x is tau_a(x) = E[Y | arm a, x] - E[Y | control, x]. It is learned in
three steps (Kennedy 2023, *Towards optimal doubly robust estimation of heterogeneous causal effects*):

1. Nuisances: m(x, a) = E[Y | x, a], by trees on the features and the arm.
2. Pseudo-outcomes, whose mean given x is tau_a(x) if either m or the propensities e are right (Robins, Rotnitzky and
   Zhao 1994): psi_a = m(x, a) - m(x, 0) + 1{A = a} (Y - m(x, a)) / e_a - 1{A = 0} (Y - m(x, 0)) / e_0.
3. Trees on the pseudo-outcomes, shrunk: tau_a(x) = average_a + w_a (mean of the trees - average_a).

Every step is fitted on other customers than it is used for (cross-fitting), all rows of a customer together. The trees
are a committee: one booster for each fold of customers left out. The rounds and the weight w_a in [0, 1] are those with
which customers left out have the smallest squared error to their pseudo-outcomes; w_a = 0 is "everybody gains alike".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cvj_ml.errors import DataError, raise_all
from cvj_ml.models.hazard.binning import learn_grid
from cvj_ml.models.uplift.arm_outcomes import boost, fit_s_learner, grow, predicted

FEWEST_ROWS = 100
"""Rows that each arm needs before anything is learned of it."""

MIN_CUSTOMERS = 20
"""Customers that each bin of a saved threshold rests on, unless told otherwise (`model.min_customers`)."""

_FOLDS = 5
_LEAVES = 4
_ROUNDS = (10, 20, 40, 80, 160, 320)
"""Rounds of the final trees among which customers left out choose; more are tried while they gain something..."""

_PATIENCE = 20
"""...and these always."""

_ROUNDING = 1e-9
"""Share of the squared error below which nothing was gained: trees that split nothing still add rounding errors."""

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Customers at contacts that some had and some had not: one row a customer and contact.

    features: (rows, features), NaN is missing; all strictly before the contact. arm: (rows,) 0 is control, 1 and up are
    arms. outcome: (rows,) 0/1 or an amount. propensity: (rows, arms with control) P(arm), known or estimated, each row
    sums to 1. customer: (rows,) codes; whatever is split is split by customer.
    """

    features: _F32
    arm: _I64
    outcome: _F64
    propensity: _F64
    customer: _I64

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def arms(self) -> int:
        """The arms without control."""
        return int(self.propensity.shape[1]) - 1

    def take(self, rows: _Mask | _I64 | slice) -> Experiment:
        """Return the rows marked by a mask, at these positions, or of a slice."""
        return Experiment(
            self.features[rows], self.arm[rows], self.outcome[rows], self.propensity[rows], self.customer[rows]
        )


@dataclass(frozen=True, slots=True)
class EffectModel:
    """The effect of each arm against control.

    boosters: a committee for each arm, arm after arm, each trained on what pseudo-outcomes are above their average.
    average and standard_error: (arms,) the average effect, its error over customers; weight: (arms,) the shrinkage.
    rows and customers: how many it rests on.
    """

    boosters: tuple[lgb.Booster, ...]
    average: _F64
    standard_error: _F64
    weight: _F64
    rows: int
    customers: int

    def predict(self, features: _F32) -> _F64:
        """Return each row's effects, (rows, arms): P(outcome | arm) - P(outcome | control), or of mean amounts."""
        return self.average + self.weight * self._above_average(features)

    def _above_average(self, features: _F32) -> _F64:
        members = len(self.boosters) // len(self.average)
        found = np.zeros((len(features), len(self.average)))
        for k, booster in enumerate(self.boosters):
            found[:, k // members] += predicted(booster, features)
        return found / members


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What is said of each customer by those models that saw none of the customer's rows.

    effects: (rows, arms) by nuisances, trees and shrinkage of other customers. above_average: (rows, arms) the same
    without the average effect of the model that told it; rows are ranked by this, since the averages of folds differ by
    chance. pseudo_outcomes: (rows, arms), by nuisances of other customers. fold: (rows,).
    """

    effects: _F64
    above_average: _F64
    pseudo_outcomes: _F64
    fold: _I64


def fit_effect_model(
    experiment: Experiment, seed: int, threads: int, *, min_customers: int = MIN_CUSTOMERS
) -> EffectModel:
    """Fit the effects of all arms on an experiment; DataError where it is none, or has too few rows of an arm."""
    check_experiment(experiment)
    fold = customer_folds(experiment.customer, _FOLDS, seed)
    outcome_by_arm = np.empty(experiment.propensity.shape)
    for k in range(_FOLDS):
        outcome_by_arm[fold == k] = _nuisance(experiment, fold != k, fold == k, seed, threads)
    scores = pseudo_outcomes(experiment, outcome_by_arm)
    return _final_stage(experiment, scores, fold, seed, threads, min_customers)


def out_of_fold_effects(
    experiment: Experiment, seed: int, threads: int, *, min_customers: int = MIN_CUSTOMERS
) -> OutOfFold:
    """Return for each row what models say that were fitted, nuisances and all, without any row of its customer."""
    check_experiment(experiment)
    fold = customer_folds(experiment.customer, _FOLDS, seed)
    # Nuisances without folds i and j tell pseudo-outcomes of i to the models that know nothing of j, and of j to those
    # that know nothing of i.
    without: dict[frozenset[int], _F64] = {}
    for pair in combinations(range(_FOLDS), 2):
        held = np.isin(fold, pair)
        told = np.full(experiment.propensity.shape, np.nan)
        told[held] = _nuisance(experiment, ~held, held, seed, threads)
        without[frozenset(pair)] = told
    effects = np.empty((len(experiment), experiment.arms))
    above, scores = np.empty_like(effects), np.empty_like(effects)
    for j in range(_FOLDS):
        others = [i for i in range(_FOLDS) if i != j]
        taught, held = fold != j, fold == j
        outcome_by_arm = np.empty(experiment.propensity.shape)
        for i in others:
            outcome_by_arm[fold == i] = without[frozenset((i, j))][fold == i]
        outcome_by_arm[held] = np.mean([without[frozenset((i, j))][held] for i in others], axis=0)
        told = pseudo_outcomes(experiment, outcome_by_arm)
        scores[held] = told[held]
        model = _final_stage(experiment.take(taught), told[taught], fold[taught], seed, threads, min_customers)
        effects[held] = model.predict(experiment.features[held])
        above[held] = effects[held] - model.average
    return OutOfFold(effects, above, scores, fold)


def pseudo_outcomes(experiment: Experiment, outcome_by_arm: _F64) -> _F64:
    """Return the doubly robust scores, (rows, arms): their mean is the average effect of each arm against control.

    psi_a = m_a - m_0 + 1{A = a} (Y - m_a) / e_a - 1{A = 0} (Y - m_0) / e_0, where ``outcome_by_arm`` is m, the outcome
    expected of each row in each arm: (rows, arms with control).
    """
    rows = np.arange(len(experiment))
    corrected = outcome_by_arm.copy()
    residual = experiment.outcome - outcome_by_arm[rows, experiment.arm]
    corrected[rows, experiment.arm] += residual / experiment.propensity[rows, experiment.arm]
    scores: _F64 = corrected[:, 1:] - corrected[:, :1]
    return scores


def customer_folds(customer: _I64, folds: int, seed: int) -> _I64:
    """Return a fold for each row: all rows of a customer in one, folds of nearly as many customers."""
    known, place = np.unique(customer, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(np.arange(len(known)) % folds)
    return drawn[place]


def check_experiment(experiment: Experiment) -> None:
    """Raise DataError with everything that makes this no experiment."""
    raise_all(DataError, "No effect can be learned from this experiment:", list(_faults(experiment)))


def _faults(experiment: Experiment) -> Iterator[str]:
    rows, arms = len(experiment), experiment.propensity.shape[1]
    lengths = {len(experiment.features), len(experiment.outcome), len(experiment.propensity), len(experiment.customer)}
    if lengths != {rows}:
        yield f"its columns have different lengths: {sorted(lengths | {rows})} rows."
        return
    if arms < 2 or (rows and not 0 <= experiment.arm.min() <= experiment.arm.max() < arms):
        yield (
            f"{arms} columns of propensities and arms {sorted(set(experiment.arm.tolist()))[:5]}: arms are numbered"
            " from 0, which is control, and each has a column."
        )
        return
    if not np.isfinite(experiment.outcome).all():
        yield f"{(~np.isfinite(experiment.outcome)).sum():,} outcomes are missing; leave out rows not wholly observed."
    if not (experiment.propensity > 0).all() or not np.allclose(experiment.propensity.sum(axis=1), 1, atol=1e-6):
        yield "the propensities of each row have to be above 0 and add up to 1; trim rows that had no choice."
    for arm, found in enumerate(np.bincount(experiment.arm, minlength=arms)):
        if found < FEWEST_ROWS:
            name = "control" if arm == 0 else f"arm {arm}"
            yield f"{name} has {found:,} rows, at least {FEWEST_ROWS} are needed; wait for more contacts."


def _nuisance(experiment: Experiment, taught: _Mask, told: _Mask, seed: int, threads: int) -> _F64:
    """Return m(x, a) of the rows to tell, (rows, arms with control), from trees on the rows that teach.

    One set of trees for all arms: what people do by themselves is most of m, and small arms have few rows of their own.
    """
    known = experiment.take(taught)
    arms = experiment.propensity.shape[1]
    model = fit_s_learner(known.features, known.arm, known.outcome, arms, seed, threads)
    return model.predict(experiment.features[told])


def _final_stage(
    experiment: Experiment, scores: _F64, fold: _I64, seed: int, threads: int, min_customers: int
) -> EffectModel:
    """Fit the committee of each arm on pseudo-outcomes, and its shrinkage on the customers that each left out."""
    grid = learn_grid(experiment.features, experiment.customer, min_customers)
    bins, folds = grid.bins(experiment.features), np.unique(fold)
    boosters: list[lgb.Booster] = []
    # One effect is far noisier than one outcome: few large leaves, and thresholds that are drawn (docs/decisions/0044).
    rows_a_leaf = min(max(len(scores) // 20, 50), 1000)
    average = scores.mean(axis=0)
    weight = np.empty(experiment.arms)
    for arm in range(experiment.arms):
        committee = [
            boost(bins[fold != k], scores[fold != k, arm], _LEAVES, rows_a_leaf, seed, threads, extra=True)
            for k in folds
        ]
        above, told = scores[:, arm] - average[arm], np.empty(len(scores))
        best, least = (_ROUNDS[0], 0.0), -_ROUNDING * float(above @ above)
        for rounds in _ROUNDS:
            for k, member in zip(folds, committee, strict=True):
                told[fold == k] = predicted(grow(member, rounds), bins[fold == k], rounds)
            shrinkage, error = _shrinkage(told, above)
            if error < least:
                best, least = (rounds, shrinkage), error
            elif rounds > _PATIENCE:
                break
        rounds, weight[arm] = best
        boosters += [grid.in_place_of_bins(_first(member, rounds)) for member in committee]
    customers = len(np.unique(experiment.customer))
    spread = clustered_error(scores, experiment.customer)
    return EffectModel(tuple(boosters), average, spread, weight, len(experiment), customers)


def _shrinkage(told: _F64, above: _F64) -> tuple[float, float]:
    """Return w = sum(told above) / sum(told^2) within [0, 1], and the squared error with it less that with 0."""
    size, product = float(told @ told), float(told @ above)
    weight = min(max(product / size, 0.0), 1.0) if size else 0.0
    return weight, weight**2 * size - 2 * weight * product


def clustered_error(scores: _F64, customer: _I64) -> _F64:
    """Return the standard error of the mean of scores (rows, arms), rows of a customer counted as one."""
    _, place = np.unique(customer, return_inverse=True)
    sums = np.zeros((int(place.max(initial=-1)) + 1, scores.shape[1]))
    np.add.at(sums, place, scores - scores.mean(axis=0))
    error: _F64 = np.sqrt((sums**2).sum(axis=0)) / len(scores)
    return error


def _first(booster: lgb.Booster, rounds: int) -> lgb.Booster:
    """Return the booster of the first rounds alone."""
    return lgb.Booster(model_str=booster.model_to_string(num_iteration=rounds))
