"""What the posterior of the current stage is compared with: the observed stage, a table, an ordinal regression.

Each is fitted on customers as seen, whose true stage is known, and returns P(true stage) of others, (rows, stages):
nothing below the observed stage, each row summing to one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from cvj_ml.stage_panel import Seen

_F64 = npt.NDArray[np.float64]

_CELL = 0.5  # added to each cell of the table
_PENALTY = 1.0  # of the ordinal regression's coefficients, on standardised inputs


def respect_floor(p: _F64, floor: npt.NDArray[np.integer]) -> _F64:
    """Return probabilities with nothing below the observed stage, renormalised; all on it where nothing is left."""
    stages = p.shape[1]
    kept = np.where(np.arange(stages)[None, :] >= floor[:, None], p, 0.0)
    kept[kept.sum(axis=1) <= 0] = np.eye(stages)[floor[kept.sum(axis=1) <= 0]]
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


Contender = Callable[[Seen], _F64]


def floor_with_error(seen: Seen, stages: int) -> Contender:
    """Return the observed stage with probability 1 - e, else e / (stages - 1); e is the hidden share of ``seen``."""
    error = float((seen.floor != seen.truth).mean()) if len(seen) else 0.0

    def predict(judged: Seen) -> _F64:
        p = np.full((len(judged), stages), error / max(stages - 1, 1))
        p[np.arange(len(judged)), judged.floor] = 1 - error
        return respect_floor(p, judged.floor)

    return predict


def table_given_floor(seen: Seen, stages: int) -> Contender:
    """Return P(true | observed) as counted in ``seen``, with 0.5 added to each cell; its mode is the majority stage."""
    cells = np.full((stages, stages), _CELL)
    np.add.at(cells, (seen.floor.astype(np.int64), seen.truth.astype(np.int64)), 1.0)
    return lambda judged: respect_floor(
        cells[judged.floor] / cells[judged.floor].sum(axis=1, keepdims=True), judged.floor
    )


def ordinal_regression(seen: Seen, stages: int, columns: npt.NDArray[np.int64]) -> Contender:
    """Return the proportional-odds model P(true <= k) = expit(theta_k - x beta) (McCullagh 1980).

    Inputs are the observed stage (one column each) and the logarithms of the named columns, standardised; a missing
    value is the column's mean. Fitted by maximum likelihood with a ridge penalty.
    """

    def inputs(rows: Seen) -> _F64:
        numbers = rows.x[:, columns].astype(np.float64)
        return np.hstack([np.eye(stages)[rows.floor][:, 1:], np.sign(numbers) * np.log1p(np.abs(numbers))])

    raw = inputs(seen)
    known = ~np.isnan(raw)
    mean = np.where(known, raw, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, raw - mean, 0.0)
    scale = np.sqrt((centred**2).mean(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    x, truth = centred / scale, seen.truth.astype(np.int64)
    share = np.cumsum(np.bincount(truth, minlength=stages) + 0.5)
    start = np.log(share[:-1] / (share[-1] - share[:-1]))
    rows = np.arange(len(truth))

    def bounds(parameters: _F64, score: _F64) -> tuple[_F64, _F64]:
        """Return thresholds (increasing by construction) with infinity on both sides, and P(true <= k) there."""
        theta = np.concatenate([[parameters[0]], parameters[0] + np.cumsum(np.exp(parameters[1 : stages - 1]))])
        below = np.hstack([np.zeros((len(score), 1)), expit(theta - score[:, None]), np.ones((len(score), 1))])
        return theta, below

    def loss(parameters: _F64) -> tuple[float, _F64]:
        beta = parameters[stages - 1 :]
        _, below = bounds(parameters, x @ beta)
        p = np.maximum(below[rows, truth + 1] - below[rows, truth], 1e-12)
        slope = below * (1 - below)
        upper, lower = slope[rows, truth + 1] / p, slope[rows, truth] / p
        by_theta = np.zeros(stages - 1)
        np.add.at(by_theta, np.minimum(truth, stages - 2), np.where(truth < stages - 1, -upper, 0.0))
        np.add.at(by_theta, np.maximum(truth - 1, 0), np.where(truth > 0, lower, 0.0))
        steps = np.exp(parameters[1 : stages - 1])
        tail = np.cumsum(by_theta[::-1])[::-1]
        gradient = np.concatenate([[tail[0]], tail[1:] * steps, x.T @ (upper - lower) + _PENALTY * beta])
        return float(-np.log(p).sum() + _PENALTY / 2 * beta @ beta), gradient

    first = np.concatenate([[start[0]], np.log(np.maximum(np.diff(start), 1e-3)), np.zeros(x.shape[1])])
    fitted = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x

    def predict(judged: Seen) -> _F64:
        numbers = inputs(judged)
        standard = np.where(np.isnan(numbers), 0.0, (numbers - mean) / scale)
        _, below = bounds(fitted, standard @ fitted[stages - 1 :])
        return respect_floor(np.diff(below, axis=1), judged.floor)

    return predict
