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

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import norm, poisson

from cvj_ml.compiled import compiled
from cvj_ml.evaluation.metrics import (
    CLIP,
    PRIOR_PRECISION,
    Floats,
    Interval,
    auc,
    calibration_slope_intercept,
    log_loss_terms,
    reliability_bins,
)

DRAWS = 1000

_LEVEL = 0.95
_FINE = 20
"""Fine bins within each bin of the calibration error: slope and AUC of a draw are computed from these."""
# The inverse of Poisson(1)'s distribution at the middle of each 65,536th.
_POISSON = poisson.ppf((np.arange(65_536) + 0.5) / 65_536, 1).astype(np.uint8)
_STEP, _MIX, _MIX_AGAIN = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_27, _30, _48 = np.uint64(27), np.uint64(30), np.uint64(48)


@dataclass(frozen=True, slots=True)
class Resampled:
    """Statistics of a cell in each draw: ``log_loss`` is (contenders, draws), all others (draws,).

    ``rows`` counts the rows drawn, by which means over several cells are weighted.
    """

    rows: Floats
    log_loss: Floats
    auc: Floats
    observed_expected: Floats
    calibration_slope: Floats
    expected_calibration_error: Floats


def draw_keys(draws: int, seed: int) -> npt.NDArray[np.uint64]:
    """Return a key for each draw; the same seed draws the same customers for every figure."""
    return np.random.SeedSequence(seed).generate_state(draws, np.uint64).astype(np.uint64)


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
    The bins of the calibration error are those of all rows. How slope and AUC of a draw differ from those of all rows
    is computed from fine bins (at most 200), which is far more exact than the interval is.
    """
    losses = np.column_stack([log_loss_terms(y, one) for one in (p, *others)])
    converted, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    order = np.argsort(probability, kind="stable")
    converted, probability = converted[order], probability[order]
    coarse = _bins(reliability_bins(converted, probability).rows)
    fine = coarse * _FINE + _bins(reliability_bins(converted, probability, bins=10 * _FINE).rows) % _FINE
    # Both are functions of the probability and ascend, so together they number bins that ascend, too.
    fine = np.cumsum(np.diff(fine, prepend=fine[:1]) != 0)
    sums, lost = _binned(keys, customer[order], fine, converted, probability, losses[order])
    rows, conversions, expected = sums[:, :, 0], sums[:, :, 1], sums[:, :, 2]
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    size: Floats = np.bincount(fine).astype(np.float64)
    logit = np.bincount(fine, weights=np.log(clipped) - np.log1p(-clipped)) / size
    of_all: Floats = np.bincount(fine, weights=converted).astype(np.float64)
    inside = np.bincount(fine, weights=coarse).astype(np.int64) // size.astype(np.int64)
    starts = np.flatnonzero(np.diff(inside, prepend=-1))
    total = rows.sum(axis=1)
    line, ranking = calibration_slope_intercept(converted, probability), auc(converted, probability)
    both = (conversions.sum(axis=1) > 0) & (conversions.sum(axis=1) < total)
    start = _line(size, of_all, logit, np.array(0.0), np.array(1.0), steps=12)
    slopes = line.slope + _line(rows, conversions, logit, *start, steps=4)[1] - start[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.abs(np.add.reduceat(conversions - expected, starts, axis=1)).sum(axis=1)
        return Resampled(
            total,
            (lost / total[:, None]).T,
            ranking + _auc(rows, conversions) - _auc(size, of_all),
            conversions.sum(axis=1) / expected.sum(axis=1),
            np.where(both, slopes, np.nan),
            gap / total,
        )


def _bins(sizes: Floats) -> npt.NDArray[np.int64]:
    """Return the number of the bin for ascending rows, given how many rows each bin holds."""
    return np.repeat(np.arange(len(sizes)), sizes.astype(np.int64))


def _auc(rows: Floats, conversions: Floats) -> Floats:
    """Return the AUC of binned predictions (draws, bins), ties counting half; NaN with one class."""
    still = rows - conversions
    below = np.cumsum(still, axis=-1) - still / 2
    area: Floats = (conversions * below).sum(axis=-1) / (conversions.sum(axis=-1) * still.sum(axis=-1))
    return area


def _line(
    rows: Floats, conversions: Floats, logit: Floats, shift: Floats, slope: Floats, *, steps: int
) -> tuple[Floats, Floats]:
    """Return shift at the mean logit and slope of `calibration_slope_intercept` for binned predictions (draws, bins).

    A fixed number of Newton steps from a line near by, for all draws at once.
    """
    mean = logit.mean()
    centred = logit - mean
    for _ in range(steps):
        fitted = expit(mean + shift[..., None] + slope[..., None] * centred)
        residual, variance = conversions - rows * fitted, rows * fitted * (1 - fitted)
        first = residual.sum(axis=-1) - PRIOR_PRECISION * shift
        second = residual @ centred - PRIOR_PRECISION * (slope - 1)
        level, cross = variance.sum(axis=-1) + PRIOR_PRECISION, variance @ centred
        steep = variance @ (centred * centred) + PRIOR_PRECISION
        determinant = level * steep - cross * cross
        # A draw that nearly separates must not overshoot.
        shift = shift + np.clip((steep * first - cross * second) / determinant, -2, 2)
        slope = slope + np.clip((level * second - cross * first) / determinant, -1, 1)
    return shift, slope


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


def paired_difference(
    mine: Floats, other: Floats, customer: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]
) -> tuple[Interval, float]:
    """Return the mean of ``mine - other`` over rows (n,) of the same customers, with its interval and p-value."""
    terms = np.column_stack([np.ones(len(mine)), mine - other])
    drawn = grouped_sums(terms, np.zeros(len(mine), dtype=np.int64), 1, customer, keys)[:, 0]
    with np.errstate(invalid="ignore"):
        means = drawn[:, 1] / drawn[:, 0]
    estimate = float(terms[:, 1].mean())
    return interval(estimate, means), p_value(estimate, means)


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
    # The mixer of splitmix64 (Steele, Lea and Flood 2014); its upper 16 bits choose from the Poisson distribution.
    z = key + np.uint64(customer) * _STEP
    z = (z ^ (z >> _30)) * _MIX
    z = (z ^ (z >> _27)) * _MIX_AGAIN
    return int(_POISSON[z >> _48])


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
def _binned(
    keys: npt.NDArray[np.uint64],
    customer: npt.NDArray[np.int64],
    bins: npt.NDArray[np.int64],
    y: npt.NDArray[np.float64],
    p: npt.NDArray[np.float64],
    losses: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return rows, moves and expected moves of each draw and bin, and the summed losses of each draw."""
    contenders = losses.shape[1]
    sums, lost = np.zeros((len(keys), bins.max() + 1, 3)), np.zeros((len(keys), contenders))
    for d in range(len(keys)):
        for i in range(len(customer)):
            w = _count(keys[d], customer[i])
            if w:
                cell = sums[d, bins[i]]
                cell[0] += w
                cell[1] += w * y[i]
                cell[2] += w * p[i]
                for c in range(contenders):
                    lost[d, c] += w * losses[i, c]
    return sums, lost
