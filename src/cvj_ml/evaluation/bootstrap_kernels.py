"""The compiled passes of the bootstrap: how often a customer counts in a draw, sums over all draws, lines of each draw.

Draws are counted side by side, row after row, so that a processor's vector units do the work; each draw's sums are
those of its rows in their order, to the bit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.evaluation.recalibration import PRIOR_PRECISION

_EXACT = 1e-10
"""Newton steps smaller than this change no digit that is shown."""

_TOGETHER = 128
"""Draws of a row that are counted side by side: their sums stay in the processor's nearest memory."""

# The inverse of Poisson(1)'s distribution at the middle of each 65,536th.
_CUMULATED = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
_POISSON = np.searchsorted(_CUMULATED, (np.arange(65_536) + 0.5) / 65_536).astype(np.uint8)
_STEP, _MIX, _MIX_AGAIN = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_27, _30, _48 = np.uint64(27), np.uint64(30), np.uint64(48)


@compiled
def _count(key: np.uint64, customer: np.int64) -> int:
    # The mixer of splitmix64 (Steele, Lea and Flood 2014); its upper 16 bits choose from the Poisson distribution.
    z = key + np.uint64(customer) * _STEP
    z = (z ^ (z >> _30)) * _MIX
    z = (z ^ (z >> _27)) * _MIX_AGAIN
    return int(_POISSON[z >> _48])


@compiled
def times_drawn(customer: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return how often each customer counts in each draw: (draws, customers)."""
    counts = np.empty((len(keys), len(customer)), dtype=np.int64)
    for d in range(len(keys)):
        for i in range(len(customer)):
            counts[d, i] = _count(keys[d], customer[i])
    return counts


@compiled
def _count_together(
    keys: npt.NDArray[np.uint64], customer: np.int64, chosen: npt.NDArray[np.uint16], counts: npt.NDArray[np.float64]
) -> None:
    """Write how often a customer counts in each of some draws; in steps that a processor vectorises."""
    place = np.uint64(customer) * _STEP
    for d in range(len(keys)):
        z = keys[d] + place
        z = (z ^ (z >> _30)) * _MIX
        z = (z ^ (z >> _27)) * _MIX_AGAIN
        chosen[d] = np.uint16(z >> _48)
    for d in range(len(keys)):
        counts[d] = _POISSON[chosen[d]]


@compiled
def grouped_sums(
    keys: npt.NDArray[np.uint64],
    customer: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    groups: int,
    contributions: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the sums of contributions over the rows of each group in each draw: (draws, groups, width)."""
    width = contributions.shape[1]
    sums = np.empty((len(keys), groups, width))
    for first in range(0, len(keys), _TOGETHER):
        here = keys[first : first + _TOGETHER]
        chosen, counts = np.empty(len(here), dtype=np.uint16), np.empty(len(here))
        total = np.zeros((groups, width, len(here)))
        for i in range(len(customer)):
            _count_together(here, customer[i], chosen, counts)
            for k in range(width):
                value, cell = contributions[i, k], total[group[i], k]
                for d in range(len(here)):
                    cell[d] += counts[d] * value
        for d in range(len(here)):
            sums[first + d] = total[:, :, d]
    return sums


@compiled
def binned(
    keys: npt.NDArray[np.uint64],
    customer: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    y: npt.NDArray[np.float64],
    p: npt.NDArray[np.float64],
    losses: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return rows, moves and expected moves of each draw and bin, and the summed losses of each contender and draw.

    ends: one past the last row of each bin.
    """
    contenders = losses.shape[1]
    sums, lost = np.empty((3, len(keys), len(ends))), np.zeros((contenders, len(keys)))
    for first in range(0, len(keys), _TOGETHER):
        here = keys[first : first + _TOGETHER]
        chosen, counts = np.empty(len(here), dtype=np.uint16), np.empty(len(here))
        start = 0
        for b in range(len(ends)):
            rows, moves, expected = np.zeros(len(here)), np.zeros(len(here)), np.zeros(len(here))
            for i in range(start, ends[b]):
                _count_together(here, customer[i], chosen, counts)
                probability = p[i]
                for d in range(len(here)):
                    rows[d] += counts[d]
                    expected[d] += counts[d] * probability
                if y[i] > 0:
                    for d in range(len(here)):
                        moves[d] += counts[d]
                for c in range(contenders):
                    value, cell = losses[i, c], lost[c, first : first + len(here)]
                    for d in range(len(here)):
                        cell[d] += counts[d] * value
            start = ends[b]
            for d in range(len(here)):
                sums[0, first + d, b], sums[1, first + d, b], sums[2, first + d, b] = rows[d], moves[d], expected[d]
    return sums, lost


@compiled
def _newton(
    rows: npt.NDArray[np.float64],
    conversions: npt.NDArray[np.float64],
    centred: npt.NDArray[np.float64],
    mean: float,
    shift: float,
    slope: float,
    steps: int,
    with_slope: bool,
) -> tuple[float, float]:
    """Return shift at the mean logit and slope of `calibration_slope_intercept` for one draw of binned predictions.

    At most so many Newton steps from a line near by; without slope that stays as it is.
    """
    for _ in range(steps):
        first, second = -PRIOR_PRECISION * shift, -PRIOR_PRECISION * (slope - 1)
        level, cross, steep = PRIOR_PRECISION, 0.0, PRIOR_PRECISION
        for b in range(len(rows)):
            fitted = 1 / (1 + math.exp(-(mean + shift + slope * centred[b])))
            residual, variance = conversions[b] - rows[b] * fitted, rows[b] * fitted * (1 - fitted)
            first += residual
            second += residual * centred[b]
            level += variance
            cross += variance * centred[b]
            steep += variance * centred[b] * centred[b]
        if with_slope:
            determinant = level * steep - cross * cross
            one, other = (steep * first - cross * second) / determinant, (level * second - cross * first) / determinant
        else:
            one, other = first / level, 0.0
        # A draw that nearly separates must not overshoot.
        shift += min(max(one, -2.0), 2.0)
        slope += min(max(other, -1.0), 1.0)
        if abs(one) + abs(other) < _EXACT:
            break
    return shift, slope


@compiled
def lines(
    rows: npt.NDArray[np.float64],
    conversions: npt.NDArray[np.float64],
    logit: npt.NDArray[np.float64],
    shift: float,
    slope: float,
    steps: int,
) -> npt.NDArray[np.float64]:
    """Return shift and slope of each draw (draws, 2), from the line of all rows; NaN with one class."""
    mean = logit.mean()
    centred = logit - mean
    found = np.full((len(rows), 2), np.nan)
    for d in range(len(rows)):
        if 0 < conversions[d].sum() < rows[d].sum():
            found[d] = _newton(rows[d], conversions[d], centred, mean, shift, slope, steps, True)
    return found


@compiled
def _binned_loss(
    rows: npt.NDArray[np.float64],
    conversions: npt.NDArray[np.float64],
    centred: npt.NDArray[np.float64],
    mean: float,
    shift: float,
    slope: float,
) -> float:
    loss = 0.0
    for b in range(len(rows)):
        margin = mean + shift + slope * centred[b]
        loss += rows[b] * (max(margin, 0.0) + math.log1p(math.exp(-abs(margin)))) - conversions[b] * margin
    return loss


@compiled
def binned_parts(
    rows: npt.NDArray[np.float64],
    conversions: npt.NDArray[np.float64],
    logit: npt.NDArray[np.float64],
    lines_of: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return level and slope of each draw's mean log loss (draws, 2), given its line of `lines`; NaN with one class."""
    mean = logit.mean()
    centred = logit - mean
    found = np.full((len(rows), 2), np.nan)
    for d in range(len(rows)):
        if not math.isnan(lines_of[d, 0]):
            total = rows[d].sum()
            level, _ = _newton(rows[d], conversions[d], centred, mean, 0.0, 1.0, 12, False)
            said = _binned_loss(rows[d], conversions[d], centred, mean, 0.0, 1.0)
            shifted = _binned_loss(rows[d], conversions[d], centred, mean, level, 1.0)
            best = _binned_loss(rows[d], conversions[d], centred, mean, lines_of[d, 0], lines_of[d, 1])
            found[d, 0], found[d, 1] = (said - shifted) / total, (shifted - best) / total
    return found
