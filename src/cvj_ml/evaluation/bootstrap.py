"""Bootstrap over customers: how far a figure would move had other customers been there.

A Poisson bootstrap: in each draw a customer counts k times, k Poisson(1) distributed and a hash of (seed, draw,
customer). So all rows of a customer are drawn together, in every fold, transition and subgroup alike, which pairs any
two figures; and nothing is stored, so one pass over the rows serves all draws (Chamandy, Muralidharan, Najmi and Naidu
2012, *Estimating Uncertainty for Massive Data Streams*).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from cvj_ml.compiled import compiled
from cvj_ml.evaluation.metrics import (
    CLIP,
    Floats,
    Interval,
    calibration_slope_intercept,
    log_loss_terms,
    reliability_bins,
)

DRAWS = 1000

_LEVEL = 0.95
_STEPS = 2
_PRIOR_PRECISION = 0.01  # that of `calibration_slope_intercept`
_POISSON = np.array(list(accumulate(math.exp(-1) / math.factorial(k) for k in range(12))))
_STEP, _MIX, _MIX_AGAIN = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


@dataclass(frozen=True, slots=True)
class Resampled:
    """Statistics of a cell in each draw: ``log_loss`` is (contenders, draws), all others (draws,)."""

    log_loss: Floats
    auc: Floats
    observed_expected: Floats
    calibration_slope: Floats
    expected_calibration_error: Floats


def draw_keys(draws: int, seed: int) -> npt.NDArray[np.uint64]:
    """Return a key for each draw; the same seed draws the same customers for every figure."""
    return np.random.SeedSequence(seed).generate_state(draws, np.uint64)


def times_drawn(customer: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return how often each customer counts in each draw: (draws, customers)."""
    counts: npt.NDArray[np.int64] = _times_drawn(customer, keys)
    return counts


def resample(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    customer: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    others: Sequence[npt.ArrayLike] = (),
) -> Resampled:
    """Return the statistics of a prediction ``p`` in each draw, and the log losses of others beside it.

    y, p and each of others: (n,) as in `metrics`; customer: (n,) codes that mean the same customer in every call.
    The bins of the calibration error are those of all rows. The slope of a draw is two Newton steps from the line of
    all rows, which leaves less than the interval's own error (Moulton and Zeger 1991 take one).
    """
    losses = np.column_stack([log_loss_terms(y, one) for one in (p, *others)])
    moved, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    order = np.argsort(probability, kind="stable")
    probability, moved = probability[order], moved[order]
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped) - np.log1p(-clipped)
    centred = logit - logit.mean()
    line = calibration_slope_intercept(moved, probability)
    # What cannot be fitted to all rows has no slope in any draw either; the step's result is dropped below.
    fitted = math.isfinite(line.slope)
    slope, intercept = (line.slope, line.intercept) if fitted else (1.0, 0.0)
    # The line as a shift at the mean log-odds and a slope, which hardly interact.
    start = np.array([intercept + (slope - 1) * logit.mean(), slope])
    bins = np.cumsum(reliability_bins(moved, probability).rows).astype(np.int64)
    found = _resample(
        keys, customer[order], moved, probability, losses[order], centred, float(logit.mean()), bins, start
    )
    contenders = losses.shape[1]
    if not fitted:
        found[contenders + 2] = np.nan
    return Resampled(found[:contenders], *found[contenders:])


def grouped_sums(
    contributions: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    groups: int,
    customer: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
) -> Floats:
    """Return the sums of contributions (n, k) over the rows of each group in each draw: (draws, groups, k)."""
    sums: Floats = _grouped_sums(keys, customer, group, groups, np.ascontiguousarray(contributions, dtype=np.float64))
    return sums


def interval(estimate: float, draws: Floats) -> Interval:
    """Return an estimate with the 2.5 % and 97.5 % quantiles of its draws, NaN where there are none.

    Draws in which it is not defined (such as an AUC without movers) do not count.
    """
    defined = draws[np.isfinite(draws)]
    if not math.isfinite(estimate) or not len(defined):
        return Interval(estimate, math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(estimate, float(low), float(high))


def reflected_interval(estimate: float, draws: Floats) -> Interval:
    """Return the interval mirrored at the estimate, not below 0: for distances, which resampling only makes larger.

    Noise adds to a calibration error, and drawing anew adds the same noise once more; the basic bootstrap interval
    takes both away (Davison and Hinkley 1997, section 5.2).
    """
    _, low, high = interval(estimate, draws)
    return Interval(estimate, max(0.0, 2 * estimate - high), max(0.0, 2 * estimate - low))


def p_value(estimate: float, draws: Floats, null: float = 0.0) -> float:
    """Return the two-sided p-value of ``estimate = null``, normal with the draws' standard deviation.

    A thousand draws cannot show a probability below a thousandth, which corrections for many comparisons need.
    """
    defined = draws[np.isfinite(draws)]
    if not math.isfinite(estimate) or len(defined) < 2:
        return math.nan
    spread = float(defined.std(ddof=1))
    if spread == 0:
        return 1.0 if estimate == null else 0.0
    return float(2 * norm.sf(abs(estimate - null) / spread))


def holm(p_values: npt.ArrayLike) -> Floats:
    """Return p-values corrected for their number, any dependence allowed; NaN is no comparison and stays NaN.

    The k-th smallest of m is multiplied by m - k + 1, none becomes smaller than the one before (Holm 1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, math.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else 0.0
    return adjusted


@compiled
def _count(key: np.uint64, customer: np.int64) -> int:
    # splitmix64 (Steele, Lea and Flood 2014), then the inverse of the Poisson distribution.
    z = key + np.uint64(customer) * _STEP
    z = (z ^ (z >> _30)) * _MIX
    z = (z ^ (z >> _27)) * _MIX_AGAIN
    z = z ^ (z >> _31)
    u = np.float64(z >> _11) * 2.0**-53
    k = 0
    while k < len(_POISSON) and u >= _POISSON[k]:
        k += 1
    return k


@compiled
def _times_drawn(customer: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    counts = np.empty((len(keys), len(customer)), dtype=np.int64)
    for d in range(len(keys)):
        for i in range(len(customer)):
            counts[d, i] = _count(keys[d], customer[i])
    return counts


@compiled
def _grouped_sums(
    keys: npt.NDArray[np.uint64],
    customer: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    groups: int,
    contributions: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    width = contributions.shape[1]
    sums = np.zeros((len(keys), groups, width))
    for d in range(len(keys)):
        for i in range(len(customer)):
            w = _count(keys[d], customer[i])
            if w:
                for k in range(width):
                    sums[d, group[i], k] += w * contributions[i, k]
    return sums


@compiled
def _resample(
    keys: npt.NDArray[np.uint64],
    customer: npt.NDArray[np.int64],
    y: npt.NDArray[np.float64],
    p: npt.NDArray[np.float64],
    losses: npt.NDArray[np.float64],
    centred: npt.NDArray[np.float64],
    mean: float,
    bin_ends: npt.NDArray[np.int64],
    start: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Rows ascend by p; rows of the result: log losses, then AUC, O/E, slope and calibration error."""
    n, contenders = losses.shape
    result = np.full((contenders + 4, len(keys)), np.nan)
    total, times = np.empty(contenders), np.empty(n)
    for d in range(len(keys)):
        total[:] = 0.0
        weight = moved = expected = pairs = 0.0
        still = still_before = moved_here = 0.0
        error = bin_gap = 0.0
        b = 0
        for i in range(n):
            times[i] = w = _count(keys[d], customer[i])
            if w:
                for c in range(contenders):
                    total[c] += w * losses[i, c]
                weight += w
                moved += w * y[i]
                expected += w * p[i]
                moved_here += w * y[i]
                still += w * (1.0 - y[i])
                bin_gap += w * (y[i] - p[i])
            if i + 1 == n or p[i + 1] != p[i]:
                # Movers win against those who stayed with a lower probability, and half against equal ones.
                pairs += moved_here * (still_before + still) / 2
                still_before, moved_here = still, 0.0
            if i + 1 == bin_ends[b]:
                error += abs(bin_gap)
                bin_gap, b = 0.0, b + 1
        if weight == 0.0:
            continue
        for c in range(contenders):
            result[c, d] = total[c] / weight
        result[contenders + 3, d] = error / weight
        if expected > 0:
            result[contenders + 1, d] = moved / expected
        if moved > 0 and still > 0:
            result[contenders, d] = pairs / (moved * still)
            result[contenders + 2, d] = _slope(times, y, centred, mean, start)
    return result


@compiled
def _slope(
    times: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    centred: npt.NDArray[np.float64],
    mean: float,
    start: npt.NDArray[np.float64],
) -> float:
    """Newton steps of the recalibration with weights, under the prior of `calibration_slope_intercept`."""
    shift, slope = start[0], start[1]
    for _ in range(_STEPS):
        first, second = -_PRIOR_PRECISION * shift, -_PRIOR_PRECISION * (slope - 1)
        level = steep = _PRIOR_PRECISION
        cross = 0.0
        for i in range(len(y)):
            if times[i]:
                fitted = 1.0 / (1.0 + math.exp(-(mean + shift + slope * centred[i])))
                residual, variance = times[i] * (y[i] - fitted), times[i] * fitted * (1.0 - fitted)
                first += residual
                second += residual * centred[i]
                level += variance
                cross += variance * centred[i]
                steep += variance * centred[i] * centred[i]
        determinant = level * steep - cross * cross
        shift += (steep * first - cross * second) / determinant
        slope += (level * second - cross * first) / determinant
    return slope
