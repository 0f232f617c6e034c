"""How a prediction would have to be shifted and stretched to fit the outcomes, and what that would save.

The logistic regression of the outcomes on the log-odds of the prediction (Cox 1958, *Biometrika* 45). Arguments are
those of `metrics`. Rows of equal probability are taken together first, which changes no sum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.errors import DataError, raise_all

Floats = npt.NDArray[np.float64]

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""

PRIOR_PRECISION = 0.01
"""Of the recalibration: a standard deviation of 10 around "no change"."""

_ROUNDING = 1e-12
"""By which share a sum of losses may be wrong."""


class Recalibration(NamedTuple):
    """Line that maps predicted to calibrated log-odds: 1 and 0 where nothing needs to change."""

    slope: float
    intercept: float


class Decomposition(NamedTuple):
    """A mean log loss in parts that add up to it: what another level would save, another slope, and what remains.

    level: how much lower the loss is after the best shift of the log-odds; slope: how much lower still after the best
    line; ranking: the loss that is left, which only another order of the customers lowers.
    """

    log_loss: float
    level: float
    slope: float
    ranking: float


class Scores(NamedTuple):
    """Rows with equal probability together, ascending: the probability, its rows, and how many of them moved."""

    probability: Floats
    rows: Floats
    converted: Floats


def checked(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return both as float64, or raise DataError with every fault."""
    outcome, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    faults = []
    if outcome.ndim != 1 or outcome.shape != probability.shape:
        faults.append(f"y has the shape {outcome.shape} and p {probability.shape}; both must be (n,)")
    if wrong := int((~((outcome == 0) | (outcome == 1))).sum()):
        faults.append(f"{wrong} outcome(s) are neither 0 nor 1; leave out what is not yet known")
    if wrong := int((~((probability >= 0) & (probability <= 1))).sum()):
        faults.append(f"{wrong} probability(ies) are missing or outside [0, 1]; score only targets that lie ahead")
    raise_all(DataError, "These predictions cannot be judged:", faults)
    return outcome, probability


def by_score(outcome: Floats, probability: Floats) -> Scores:
    """Return what every figure of ranking and calibration needs, in one sort."""
    order = np.argsort(probability, kind="stable")
    ordered = probability[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1.0))
    rows = np.diff(np.append(starts, len(ordered))).astype(np.float64)
    converted = np.add.reduceat(outcome[order], starts) if len(starts) else ordered
    return Scores(ordered[starts], rows, converted)


def one_class(scores: Scores) -> bool:
    """Return whether everybody moved, or nobody."""
    return float(scores.converted.sum()) in (0.0, float(scores.rows.sum()))


def clipped(probability: Floats) -> Floats:
    """Return probabilities of which a logarithm can be taken."""
    kept: Floats = np.clip(probability, CLIP, 1 - CLIP)
    return kept


def log_odds(probability: Floats) -> Floats:
    """Return the logarithms of the odds, clipped."""
    kept = clipped(probability)
    odds: Floats = np.log(kept) - np.log1p(-kept)
    return odds


def calibration_slope_intercept(y: npt.ArrayLike, p: npt.ArrayLike) -> Recalibration:
    """Return slope and intercept of the logistic regression of ``y`` on the log-odds of ``p``.

    A slope below 1 means predictions too extreme. A normal prior with standard deviation 10 around "no change" keeps
    separated outcomes finite and does not show otherwise. One class: both NaN. Equal predictions: no slope (NaN), the
    intercept is the shift of the log-odds.

    This evaluates; what a model is calibrated with, `models.hazard.calibration.recalibrate`, has no prior, since its
    maps are shrunk by their events.
    """
    return recalibration(by_score(*checked(y, p)))


def recalibration(scores: Scores) -> Recalibration:
    """Return `calibration_slope_intercept` of rows that are sorted already."""
    if one_class(scores):
        return Recalibration(math.nan, math.nan)
    logit = log_odds(scores.probability)
    mean = float((scores.rows * logit).sum() / scores.rows.sum())
    level, slope = _recalibrated(scores, logit, logit - mean, with_slope=True)
    if np.ptp(logit) < 1e-9:
        return Recalibration(math.nan, level)
    return Recalibration(1 + slope, level - slope * mean)


def _recalibrated(scores: Scores, logit: Floats, centred: Floats, *, with_slope: bool) -> tuple[float, float]:
    """Return the change of level at the mean log-odds, and of the slope (0 where it is not fitted)."""
    # Centred, the two parameters hardly interact; they are the change against the prediction as it is.
    change = np.zeros(2)
    loss, gradient, curvature = _penalised(scores, logit, centred, change)
    for _ in range(100):
        if not with_slope:
            gradient[1] = curvature[0, 1] = curvature[1, 0] = 0.0
        step = np.linalg.solve(curvature, gradient)
        # The loss is strictly convex, so halving a step that overshoots always ends at the minimum. Near it
        # losses differ by their rounding alone, which is no overshooting.
        allowed, scale = loss * (1 + _ROUNDING), 1.0
        while (found := _penalised(scores, logit, centred, change - scale * step))[0] > allowed and scale > 1e-8:
            scale /= 2
        change = change - scale * step
        loss, gradient, curvature = found
        if np.abs(step).max() < 1e-10:
            break
    return float(change[0]), float(change[1])


def _penalised(scores: Scores, logit: Floats, centred: Floats, change: Floats) -> tuple[float, Floats, Floats]:
    """Return the penalised loss of a changed line, its gradient (2,) and its curvature (2, 2)."""
    found = _line_sums(logit, centred, scores.rows, scores.converted, float(change[0]), float(change[1]))
    loss = found[0] + PRIOR_PRECISION / 2 * float(change @ change)
    gradient = np.array(found[1:3]) + PRIOR_PRECISION * change
    curvature = np.array([[found[3], found[4]], [found[4], found[5]]]) + PRIOR_PRECISION * np.eye(2)
    return loss, gradient, curvature


@compiled
def _line_sums(
    logit: Floats, centred: Floats, rows: Floats, converted: Floats, level: float, slope: float
) -> tuple[float, float, float, float, float, float]:
    """Return the summed log loss of ``logit + level + slope * centred``, its two first and three second derivatives."""
    loss = first = second = flat = cross = steep = 0.0
    for i in range(len(logit)):
        margin = logit[i] + level + slope * centred[i]
        small = math.exp(-abs(margin))
        fitted = 1 / (1 + small) if margin >= 0 else small / (1 + small)
        loss += rows[i] * (max(margin, 0.0) + math.log1p(small)) - converted[i] * margin
        residual, variance = rows[i] * fitted - converted[i], rows[i] * fitted * (1 - fitted)
        first += residual
        second += residual * centred[i]
        flat += variance
        cross += variance * centred[i]
        steep += variance * centred[i] * centred[i]
    return loss, first, second, flat, cross, steep


def decompose_log_loss(y: npt.ArrayLike, p: npt.ArrayLike) -> Decomposition:
    """Return how much of the log loss is level, slope and ranking; all NaN with one class.

    The log-odds are refitted on the outcomes themselves: first an intercept, then an intercept and a slope (Cox 1958).
    So it tells afterwards what a forecast lacked, not what could have been known. The prior is that of
    `calibration_slope_intercept`.
    """
    scores = by_score(*checked(y, p))
    if one_class(scores):
        return Decomposition(math.nan, math.nan, math.nan, math.nan)
    logit, total = log_odds(scores.probability), float(scores.rows.sum())
    centred = logit - float((scores.rows * logit).sum() / total)
    lines = [(0.0, 0.0), *(_recalibrated(scores, logit, centred, with_slope=one) for one in (False, True))]
    said, shifted, best = (
        _line_sums(logit, centred, scores.rows, scores.converted, *line)[0] / total for line in lines
    )
    return Decomposition(said, said - shifted, shifted - best, best)
