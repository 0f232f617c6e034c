"""The current stage as a posterior, where the evidence of some stages may be hidden.

One classifier for each stage j whose coverage c is below 1, asked from the top of the journey down: given that the
true stage is j at most, and that j is not seen, is it j? With x the features without j's evidence and
q = P(true = j | true <= j, x), hiding being independent of x given the true stage,

    odds(j | not seen, x) = (1 - c) * q / (1 - q)                        labels, or complete customers thinned
    P(j | not seen, x)    = min(1, (1 - c) / c * p / (1 - p))            presence only: p = P(seen at j | true <= j, x)

(Bayes' rule; for the second, Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data").
With r_j the probability found so, 1 for the observed stage (the floor) and 0 for what lies below,

    P(true = j | seen) = r_j * product over k > j of (1 - r_k),

a continuation-ratio model (Tutz 1991): it sums to one, says nothing below the floor, and is the observed stage where
every coverage is 1. The classifier sees every customer at j, with j's evidence taken away, where plain thinning would
show it the hidden share only; on protocol D it beats a multiclass LightGBM with the same trees.

A classifier is a table of log-odds by observed stage; from 10 customers a logistic regression on it and on a few sums
(recency, frequency, tenure, active days, numeric attributes); from 30, trees that start from a strongly penalised one
on all features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from cvj_ml.stage_panel import BEFORE_ANY, COPIES, Seen, StageRows, Tracking, Truth

_F64 = npt.NDArray[np.float64]

LOW_EVIDENCE = 30
"""Customers at a stage, and below it, from which its classifier gets trees."""

LINEAR_FROM = 10
"""Customers at a stage, and below it, from which its classifier is more than a table."""

_SMOOTHING = 2.0
"""Customers that the overall share is worth in a cell of the table."""

_HINT = 4.0
"""By the number of customers: C of the line that trees start from. What it says too surely, they have to unlearn."""

_LINE_ROWS = 50_000  # that such a line is fitted on, evenly spaced
_FURTHEST_INPUT = 24.0  # standard deviations from the mean: one rare value must not decide alone
_FURTHEST = 5.0  # that the level of presence-only data is shifted, in log-odds

ROUNDS = 300
_TREES: dict[str, object] = {
    "objective": "binary",
    "num_leaves": 7,
    "min_data_in_leaf": 100,
    "learning_rate": 0.02,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A logistic regression on the table's log-odds and the signed logarithms of columns of x, standardised.

    mean, scale and coefficients have one entry for the table, then one a column; a missing value is the mean, and
    nothing is further than ``_FURTHEST_INPUT`` from it.
    """

    columns: npt.NDArray[np.int64]
    mean: _F64
    scale: _F64
    coefficients: _F64
    intercept: float

    def logits(self, table: _F64, x: npt.NDArray[np.float32]) -> _F64:
        """Return the log-odds of rows."""
        # Column by column, so that the sum is the same for any number of rows and threads.
        total = np.full(len(x), self.intercept)
        for k, weight in enumerate(self.coefficients):
            column = table if k == 0 else _signed_log(x[:, self.columns[k - 1]])
            total += weight * _standard(column, self.mean[k], self.scale[k])
        return total


def _signed_log(x: npt.NDArray[np.float32]) -> _F64:
    numbers = x.astype(np.float64)
    return np.copysign(np.log1p(np.abs(numbers)), numbers)


def _standard(inputs: _F64, mean: _F64 | np.float64, scale: _F64 | np.float64) -> _F64:
    return np.clip(np.where(np.isnan(inputs), 0.0, (inputs - mean) / scale), -_FURTHEST_INPUT, _FURTHEST_INPUT)


def _fit_line(
    table: _F64, x: npt.NDArray[np.float32], columns: npt.NDArray[np.int64], known: _F64, weight: _F64, c: float
) -> Line:
    """Fit the line on the table's log-odds and some columns of x; ``c`` is the inverse of the L2 penalty."""
    inputs = np.column_stack([table, _signed_log(x[:, columns])])
    there = ~np.isnan(inputs)
    mean = np.where(there, inputs, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    spread = np.sqrt((np.where(there, inputs - mean, 0.0) ** 2).mean(axis=0))
    scale = np.where(spread > 0, spread, 1.0)
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        model = LogisticRegression(C=c, max_iter=300).fit(_standard(inputs, mean, scale), known, weight)
    return Line(columns, mean, scale, model.coef_[0], float(model.intercept_[0]))


@dataclass(frozen=True, slots=True)
class HiddenStage:
    """The log-odds of one stage before its coverage is accounted for: a table, or a line, or a line and trees.

    ``table`` holds log-odds by observed stage (position + 1, so that 0 is before any); the line takes them as its first
    input; trees add to the line. ``shift`` is added to whatever there is.
    """

    table: _F64
    line: Line | None
    trees: lgb.Booster | None
    shift: float = 0.0

    def logits(self, x: npt.NDArray[np.float32], floor: npt.NDArray[np.int8], threads: int) -> _F64:
        """Return the log-odds of the stage against lower ones, shape (rows,)."""
        result: _F64 = self.table[floor.astype(np.int64) + 1] + self.shift
        if self.line is not None:
            result = self.line.logits(self.table[floor.astype(np.int64) + 1], x) + self.shift
        if self.trees is None or not len(x):
            return result
        result += np.asarray(self.trees.predict(x, raw_score=True, num_threads=threads, validate_features=False))
        return result


@dataclass(frozen=True, slots=True)
class StageModel:
    """The fitted posterior: ``stages`` has one entry a stage, None where the evidence is always seen."""

    tracking: Tracking
    source: Truth
    stages: tuple[HiddenStage | None, ...]

    def posterior(
        self,
        x: npt.NDArray[np.float32],
        floor: npt.NDArray[np.int8],
        complete: npt.NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> _F64:
        """Return P(true stage), shape (rows, stages), each row a pure function of its own features.

        floor: observed stage, -1 before any, where nothing is said (NaN); complete: rows whose evidence is known to
        be complete, so that the observed stage is the true one.
        """
        return assemble(floor, self.hidden_probabilities(x, floor, complete, threads))

    def hidden_probabilities(
        self,
        x: npt.NDArray[np.float32],
        floor: npt.NDArray[np.int8],
        complete: npt.NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> _F64:
        """Return r_j of the module's formula, shape (rows, stages), 0 up to the floor."""
        r = np.zeros((len(floor), len(self.stages)))
        for j, one in enumerate(self.stages):
            rows = (floor > BEFORE_ANY) & (floor < j)
            if complete is not None:
                rows &= ~complete
            if one is not None and rows.any():
                r[rows, j] = corrected(
                    one.logits(x[rows], floor[rows], threads), self.tracking.coverage[j], self.source
                )
        return r


def corrected(logits: _F64, coverage: float, source: Truth) -> _F64:
    """Return the probability of a stage that is not seen, from the log-odds of its classifier and its coverage."""
    if coverage >= 1:
        return np.zeros(len(logits))
    if source == "presence":
        return np.asarray(np.exp(np.minimum(logits + np.log((1 - coverage) / coverage), 0.0)))
    return np.asarray(expit(logits + np.log1p(-coverage)))


def assemble(floor: npt.NDArray[np.int8], hidden: _F64) -> _F64:
    """Return P(true stage) from the observed stage and r (rows, stages); NaN before any stage."""
    position = np.arange(hidden.shape[1])
    r = np.where(position > floor[:, None], hidden, (position == floor[:, None]).astype(np.float64))
    not_above = np.cumprod((1 - r)[:, :0:-1], axis=1)[:, ::-1]
    p = r * np.hstack([not_above, np.ones((len(r), 1))])
    p[floor == BEFORE_ANY] = np.nan
    # The floor's own probability is what is left, so that the sum is one to the last bit that matters.
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def fit_stages(rows: StageRows, tracking: Tracking, seed: int, threads: int) -> StageModel:
    """Fit one classifier for each stage that may be hidden, from the top down; the same for any number of threads.

    Where the truth is known, a stage's classifier sees the customers whose true stage is not above it. Presence only
    knows that in part: there each customer weighs as much as it is probable by the classifiers of the stages above.
    """
    found: list[HiddenStage | None] = [None] * len(tracking.coverage)
    weight = np.ones(len(rows.seen))
    for j in tracking.incomplete[::-1]:
        one = found[j] = _fit_stage(rows, weight, int(j), tracking, seed, threads)
        if rows.source == "presence":
            below = _usable(rows.seen, j)
            logits = one.logits(rows.seen.x[below], rows.seen.floor[below], threads)
            weight[below] *= 1 - corrected(logits, tracking.coverage[j], rows.source)
            weight[rows.seen.floor >= j] = 0.0
    return StageModel(tracking, rows.source, tuple(found))


def _fit_stage(rows: StageRows, weight: _F64, j: int, tracking: Tracking, seed: int, threads: int) -> HiddenStage:
    """Fit the classifier of one stage; ``weight`` is of ``rows.seen`` and used in presence-only data."""
    own = (rows.without.truth == j) & _usable(rows.without, j)
    lower = (rows.seen.truth < j) & _usable(rows.seen, j)
    at, below = rows.without.take(own), rows.seen.take(lower)
    if rows.source == "presence":
        # One row a customer, sorted by customer.
        of_at = weight[np.searchsorted(rows.seen.customer, at.customer)]
        of_below = weight[lower]
    else:
        of_at, of_below = (np.full(len(one), 1 / (COPIES if rows.source == "complete" else 1)) for one in (at, below))
    table = _table(at, of_at, below, of_below, len(tracking.coverage))
    found, customers = HiddenStage(table, None, None), min(_customers(at), _customers(below))
    if customers >= LINEAR_FROM:
        x = np.concatenate([at.x, below.x])
        floor = np.concatenate([at.floor, below.floor]).astype(np.int64)
        known = np.repeat([1.0, 0.0], [len(at), len(below)])
        weights = np.concatenate([of_at, of_below])
        if customers < LOW_EVIDENCE:
            line, trees = _fit_line(table[floor + 1], x, rows.columns, known, weights, 1.0), None
        else:
            some = slice(None, None, -(-len(x) // _LINE_ROWS))
            c = _HINT / float(weights[some].sum())
            line = _fit_line(table[floor + 1][some], x[some], _varying(x[some]), known[some], weights[some], c)
            train = lgb.Dataset(
                x,
                label=known,
                weight=weights if rows.source == "presence" else None,
                init_score=line.logits(table[floor + 1], x),
            )
            trees = lgb.train({**_TREES, "seed": seed, "num_threads": threads}, train, num_boost_round=ROUNDS)
        found = HiddenStage(table, line, trees)
    if rows.source == "presence":
        shift = _level(found.logits(below.x, below.floor, threads), of_below, of_at.sum(), tracking.coverage[j])
        found = replace(found, shift=shift)
    return found


def _level(logits: _F64, weight: _F64, seen: float, coverage: float) -> float:
    """Return the shift of the log-odds at which those who are hidden number (1 - c) / c times those who are seen.

    That holds for any classifier, since hiding is independent; amplified errors of one would break it.
    """

    def excess(shift: float) -> float:
        expected = (weight * corrected(logits + shift, coverage, "presence")).sum()
        return float(expected - (1 - coverage) / coverage * seen)

    if excess(-_FURTHEST) >= 0 or excess(_FURTHEST) <= 0:
        return 0.0
    return float(brentq(excess, -_FURTHEST, _FURTHEST))


def _varying(x: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the columns that are not the same for everybody."""
    return np.flatnonzero(np.fmax.reduce(x, axis=0) > np.fmin.reduce(x, axis=0))


def _usable(seen: Seen, j: int) -> npt.NDArray[np.bool_]:
    return (seen.floor > BEFORE_ANY) & (seen.floor < j)


def _customers(seen: Seen) -> int:
    return len(np.unique(seen.customer))


def _table(at: Seen, of_at: _F64, below: Seen, of_below: _F64, stages: int) -> _F64:
    """Return the log-odds by observed stage: (at j + s * share) against (below + s * (1 - share)), in customers."""
    there, under = (
        np.bincount(one.floor.astype(np.int64) + 1, weights=weight, minlength=stages + 1)
        for one, weight in ((at, of_at), (below, of_below))
    )
    share = (there.sum() + 0.5) / (there.sum() + under.sum() + 1.0)
    return np.asarray(logit((there + _SMOOTHING * share) / (there + under + _SMOOTHING)))


def low_stages(model: StageModel, names: Sequence[str]) -> list[str]:
    """Return the stages that may be hidden and of which too few customers were known for trees."""
    return [name for name, one in zip(names, model.stages, strict=True) if one is not None and one.trees is None]
