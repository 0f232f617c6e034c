"""Calibration of hazards: slopes learned out of time, levels set on the outcomes of the last year.

``logit' = intercept + slope * logit`` by (target, interval). Trees that overfit spread their logits too far, which
shows on rows later than their training; the slope takes that back. The level of those later rows is mostly their
season, so it is not carried over: docs/decisions/0001-calibration-levels.md and 0007 have the figures.

From hazards to coherent probabilities: cumulated over intervals, then ordered over targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from cvj_ml.compiled import compiled

_F64 = npt.NDArray[np.float64]

_SHRINKAGE = 50.0
"""Events at which a cell's own slope weighs as much as the pooled one."""

_FOLDS = 5

_SLOPE_FROM = 200
"""Moved customers from which a cell gets a slope of its own."""


@dataclass(frozen=True, slots=True)
class HazardOutcomes:
    """Hazard rows with their predicted logits and whether the customer moved, all of shape (rows,)."""

    logit: _F64
    converted: npt.NDArray[np.bool_]
    target: npt.NDArray[np.int8]
    interval: npt.NDArray[np.int8]
    customer: npt.NDArray[np.int64]

    def take(self, keep: npt.NDArray[np.bool_]) -> HazardOutcomes:
        """Return the rows marked by a mask."""
        return HazardOutcomes(
            self.logit[keep], self.converted[keep], self.target[keep], self.interval[keep], self.customer[keep]
        )

    def cell(self, target: int, interval: int) -> HazardOutcomes:
        """Return the rows of one (target, interval)."""
        return self.take((self.target == target) & (self.interval == interval))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Intercepts and slopes of the logits, both (targets, intervals)."""

    intercept: _F64
    slope: _F64

    def apply(self, logit: _F64, target: npt.NDArray[np.int8], interval: npt.NDArray[np.int8]) -> _F64:
        """Return calibrated logits of hazards."""
        return self.intercept[target, interval] + self.slope[target, interval] * logit

    def shrunk(self, weight: float) -> Calibration:
        """Return the map between this one (weight 1) and the one that changes nothing (weight 0)."""
        return Calibration(weight * self.intercept, 1 + weight * (self.slope - 1))


def identity(targets: int, intervals: int) -> Calibration:
    """Return the map that changes nothing."""
    return Calibration(np.zeros((targets, intervals)), np.ones((targets, intervals)))


def fit_slopes(later: HazardOutcomes, targets: int, intervals: int) -> Calibration:
    """Fit maps on rows later than the training, each cell's shrunk towards the pooled one by its events.

    A cell has a slope of its own from 200 moved customers on; below, it shifts the pooled map.
    """
    result = identity(targets, intervals)
    if not later.converted.any() or later.converted.all():
        return result
    enough = len(np.unique(later.customer[later.converted])) >= _SLOPE_FROM
    intercept, slope = recalibrate(later.logit, later.converted, with_slope=enough)
    result.intercept[:], result.slope[:] = intercept, slope
    for j in range(targets):
        for m in range(intervals):
            cell = later.cell(j, m)
            events = int(cell.converted.sum())
            if not 0 < events < len(cell.converted):
                continue
            enough = len(np.unique(cell.customer[cell.converted])) >= _SLOPE_FROM
            scaled = cell.logit if enough else slope * cell.logit
            own_intercept, own_slope = recalibrate(scaled, cell.converted, with_slope=enough)
            weight = events / (events + _SHRINKAGE)
            result.intercept[j, m] = weight * own_intercept + (1 - weight) * intercept
            result.slope[j, m] = weight * (own_slope if enough else slope) + (1 - weight) * slope
    return result


def helpful_slopes(later: HazardOutcomes, targets: int, intervals: int, seed: int) -> Calibration | None:
    """Return slopes fitted on all later rows; None where customers left out are better off without.

    Five folds of customers compare them with maps that only shift the level.
    """
    if not later.converted.any():
        return None
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(later.customer.max()) + 1)[later.customer]
    mapped, shifted = np.empty_like(later.logit), np.empty_like(later.logit)
    for k in range(_FOLDS):
        held = later.take(fold == k)
        found = fit_slopes(later.take(fold != k), targets, intervals)
        only_level = set_levels(identity(targets, intervals), later.take(fold != k))
        mapped[fold == k] = found.apply(held.logit, held.target, held.interval)
        shifted[fold == k] = only_level.apply(held.logit, held.target, held.interval)
    helps = bool(log_losses(mapped, later.converted).mean() < log_losses(shifted, later.converted).mean())
    return fit_slopes(later, targets, intervals) if helps else None


def set_levels(slopes: Calibration, rows: HazardOutcomes) -> Calibration:
    """Return the slopes with intercepts under which each cell expects as many events as the rows hold.

    Cells with few events keep the level of the trees: the intercept is shrunk towards 0 by 50 events.
    """
    result = Calibration(np.zeros_like(slopes.intercept), slopes.slope)
    for j, m in np.ndindex(*slopes.slope.shape):
        cell = rows.cell(j, m)
        events = int(cell.converted.sum())
        if 0 < events < len(cell.converted):
            intercept, _ = recalibrate(slopes.slope[j, m] * cell.logit, cell.converted, with_slope=False)
            result.intercept[j, m] = intercept * events / (events + _SHRINKAGE)
    return result


def log_losses(logit: _F64, converted: npt.NDArray[np.bool_]) -> _F64:
    """Return the log loss of each row."""
    return np.logaddexp(0.0, np.where(converted, -logit, logit))


def recalibrate(logit: _F64, converted: npt.NDArray[np.bool_], *, with_slope: bool) -> tuple[float, float]:
    """Return the maximum-likelihood intercept (and slope) of a logistic recalibration, by damped Newton steps."""
    a, b = 0.0, 1.0
    y = converted.astype(np.float64)
    for _ in range(50):
        p = expit(a + b * logit)
        w = np.maximum(p * (1 - p), 1e-12)
        gradient = np.array([(y - p).sum(), ((y - p) * logit).sum() if with_slope else 0.0])
        cross = (w * logit).sum() if with_slope else 0.0
        # A tiny ridge keeps the step finite when a cell separates perfectly.
        information = np.array([[w.sum() + 1e-6, cross], [cross, (w * logit * logit).sum() + 1e-6]])
        step = np.clip(np.linalg.solve(information, gradient), -1.0, 1.0)
        a, b = a + float(step[0]), b + (float(step[1]) if with_slope else 0.0)
        if np.abs(step).max() < 1e-9:
            break
    return a, b


def cumulate(hazards: _F64) -> _F64:
    """Return P(T <= h) = 1 - prod(1 - hazard) over the last axis (intervals)."""
    survival = np.cumprod(1.0 - hazards, axis=-1, dtype=np.float64)
    return 1.0 - survival


def make_coherent(probabilities: _F64) -> _F64:
    """Return probabilities (rows, targets, horizons) that do not increase from one target to the next.

    Equal-weight isotonic regression over the targets at each horizon (pool adjacent violators; Barlow et al. 1972):
    it keeps the sum over targets, where a running maximum would push it up. NaN marks targets that are not asked.
    Being the projection onto ordered vectors it is monotone in its input, so what grew with the horizon still does.
    """
    result = probabilities.copy()
    _pool_adjacent_violators(result)
    return result


def make_rising(probabilities: _F64) -> _F64:
    """Return probabilities (rows, targets, horizons) that do not fall with the horizon, by the same regression."""
    return -make_coherent(-probabilities.transpose(0, 2, 1)).transpose(0, 2, 1)


@compiled
def _pool_adjacent_violators(values: _F64) -> None:
    rows, targets, horizons = values.shape
    mean, size = np.empty(targets), np.empty(targets, dtype=np.int64)
    for i in range(rows):
        for h in range(horizons):
            blocks = 0
            for j in range(targets):
                if np.isnan(values[i, j, h]):
                    continue
                mean[blocks], size[blocks] = values[i, j, h], 1
                blocks += 1
                while blocks > 1 and mean[blocks - 2] < mean[blocks - 1]:
                    total = size[blocks - 2] + size[blocks - 1]
                    mean[blocks - 2] = (
                        mean[blocks - 2] * size[blocks - 2] + mean[blocks - 1] * size[blocks - 1]
                    ) / total
                    size[blocks - 2] = total
                    blocks -= 1
            block, left = 0, size[0]
            for j in range(targets):
                if np.isnan(values[i, j, h]):
                    continue
                if left == 0:
                    block += 1
                    left = size[block]
                values[i, j, h] = mean[block]
                left -= 1
