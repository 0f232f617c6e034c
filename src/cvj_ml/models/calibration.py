"""Calibration of hazards per target and interval, on predictions out of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

_F64 = npt.NDArray[np.float64]

_SHRINKAGE = 50.0
"""Events at which a target's own map weighs as much as the pooled one."""

_SLOPE_FROM = 200
"""Moved customers from which a cell gets a slope of its own."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps ``logit' = intercept + slope * logit`` by (target, interval)."""

    intercept: _F64
    slope: _F64

    def apply(self, logit: _F64, target: npt.NDArray[np.int8], interval: npt.NDArray[np.int8]) -> _F64:
        """Return calibrated logits of hazards."""
        return self.intercept[target, interval] + self.slope[target, interval] * logit


def identity(targets: int, intervals: int) -> Calibration:
    """Return the map that changes nothing."""
    return Calibration(np.zeros((targets, intervals)), np.ones((targets, intervals)))


def fit_calibration(
    logit: _F64,
    moved: npt.NDArray[np.bool_],
    target: npt.NDArray[np.int8],
    interval: npt.NDArray[np.int8],
    customer: npt.NDArray[np.int64],
    targets: int,
    intervals: int,
) -> Calibration:
    """Fit a map per cell, shrunk towards the pooled one by the number of events."""
    result = identity(targets, intervals)
    if not moved.any() or moved.all():
        return result
    intercept, slope = _recalibrate(logit, moved, with_slope=len(np.unique(customer[moved])) >= _SLOPE_FROM)
    result.intercept[:], result.slope[:] = intercept, slope
    for j, m in {(int(j), int(m)) for j, m in zip(target, interval, strict=True)}:
        cell = (target == j) & (interval == m)
        events = int(moved[cell].sum())
        if not 0 < events < cell.sum():
            continue
        enough = len(np.unique(customer[cell & moved])) >= _SLOPE_FROM
        # Where a cell has no slope of its own, it shifts the pooled map.
        start = logit[cell] if enough else slope * logit[cell]
        own_intercept, own_slope = _recalibrate(start, moved[cell], with_slope=enough)
        own_slope = own_slope if enough else slope
        weight = events / (events + _SHRINKAGE)
        result.intercept[j, m] = weight * own_intercept + (1 - weight) * intercept
        result.slope[j, m] = weight * own_slope + (1 - weight) * slope
    return result


def _recalibrate(logit: _F64, moved: npt.NDArray[np.bool_], *, with_slope: bool) -> tuple[float, float]:
    """Return the maximum-likelihood intercept (and slope) of a logistic recalibration, by damped Newton steps."""
    a, b = 0.0, 1.0
    y = moved.astype(np.float64)
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
