"""Fitting the posterior of the current stage: one classifier for each stage that may be hidden, from the top down.

A classifier is a table of log-odds by observed stage; from 10 customers a logistic regression on it and on a few sums
(recency, frequency, tenure, active days, numeric attributes); from 30, trees that start from a strongly penalised one
on all features. docs/decisions/0019-stage-line.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from cvj_ml.models.hazard.binning import learn_grid
from cvj_ml.models.stage.posterior import HiddenStage, Line, StageModel, corrected, signed_log, standardised
from cvj_ml.panel.stage_panel import BEFORE_ANY, COPIES, Seen, StageRows, Tracking

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
_LEVEL_FOLDS = 4  # of customers, held out to set the level of presence-only data
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

    def fit(there: npt.NDArray[np.bool_], under: npt.NDArray[np.bool_]) -> HiddenStage:
        part = _Weighed(at.take(there), of_at[there], below.take(under), of_below[under])
        return _classifier(part, rows, len(tracking.coverage), seed, threads)

    found = fit(np.ones(len(at), dtype=np.bool_), np.ones(len(below), dtype=np.bool_))
    if rows.source != "presence":
        return found
    if found.trees is None:
        logits = found.logits(below.x, below.floor, threads)
    else:
        logits = np.empty(len(below))
        # Trees know those they were taught by: a level set on these would be too high for everybody else.
        fold = np.random.default_rng(seed).integers(_LEVEL_FOLDS, size=int(rows.seen.customer.max()) + 1)
        for k in range(_LEVEL_FOLDS):
            there, under = fold[at.customer] != k, fold[below.customer] != k
            held = below.take(~under)
            logits[~under] = fit(there, under).logits(held.x, held.floor, threads)
    return replace(found, shift=_level(logits, of_below, of_at.sum(), tracking.coverage[j]))


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Customers at a stage and below it, with what each row weighs."""

    at: Seen
    of_at: _F64
    below: Seen
    of_below: _F64


def _classifier(part: _Weighed, rows: StageRows, stages: int, seed: int, threads: int) -> HiddenStage:
    """Fit a table, a line or a line and trees, by how many customers there are at the stage and below it."""
    at, below = part.at, part.below
    table = _table(at, part.of_at, below, part.of_below, stages)
    customers = min(_customers(at), _customers(below))
    if customers < LINEAR_FROM:
        return HiddenStage(table, None, None)
    x = np.concatenate([at.x, below.x])
    of_floor = table[np.concatenate([at.floor, below.floor]).astype(np.int64) + 1]
    known = np.repeat([1.0, 0.0], [len(at), len(below)])
    weights = np.concatenate([part.of_at, part.of_below])
    if customers < LOW_EVIDENCE:
        return HiddenStage(table, _fit_line(of_floor, x, rows.columns, known, weights, 1.0), None)
    some = slice(None, None, -(-len(x) // _LINE_ROWS))
    c = _HINT / float(weights[some].sum())
    line = _fit_line(of_floor[some], x[some], _varying(x[some]), known[some], weights[some], c)
    grid = learn_grid(x, np.concatenate([at.customer, below.customer]), rows.fewest)
    train = lgb.Dataset(
        grid.bins(x),
        label=known,
        weight=weights if rows.source == "presence" else None,
        init_score=line.logits(of_floor, x),
    )
    trees = lgb.train({**_TREES, "seed": seed, "num_threads": threads}, train, num_boost_round=ROUNDS)
    return HiddenStage(table, line, grid.in_place_of_bins(trees))


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


def _fit_line(
    table: _F64, x: npt.NDArray[np.float32], columns: npt.NDArray[np.int64], known: _F64, weight: _F64, c: float
) -> Line:
    """Fit the line on the table's log-odds and some columns of x; ``c`` is the inverse of the L2 penalty."""
    inputs = np.column_stack([table, signed_log(x[:, columns])])
    there = ~np.isnan(inputs)
    mean = np.where(there, inputs, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    spread = np.sqrt((np.where(there, inputs - mean, 0.0) ** 2).mean(axis=0))
    scale = np.where(spread > 0, spread, 1.0)
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        model = LogisticRegression(C=c, max_iter=300).fit(standardised(inputs, mean, scale), known, weight)
    return Line(columns, mean, scale, model.coef_[0], float(model.intercept_[0]))
