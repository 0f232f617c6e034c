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
from scipy.stats import norm

from cvj_ml.evaluation import bootstrap_kernels as kernels
from cvj_ml.evaluation.metrics import Interval, auc, log_loss_terms, reliability_bins
from cvj_ml.evaluation.recalibration import (
    Floats,
    calibration_slope_intercept,
    decompose_log_loss,
    log_odds,
)

DRAWS = 1000

_LEVEL = 0.95
_FINE = 20
"""Fine bins within each bin of the calibration error: slope and AUC of a draw are computed from these."""


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


@dataclass(frozen=True, slots=True)
class DrawnParts:
    """The parts of the model's log loss in each draw (`recalibration.Decomposition`), all (draws,)."""

    level: Floats
    slope: Floats
    ranking: Floats


@dataclass(frozen=True, slots=True)
class Draws:
    """A cell's rows, counted in fine bins of the prediction in each draw: what its statistics are computed from.

    converted and probability: (n,) sorted by probability; logit and coarse: (bins,) the mean log-odds and which bin of
    the calibration error a fine one lies in; size and of_all: (bins,) rows and moves as they were; rows, conversions
    and expected: (draws, bins); lost: (contenders, draws) summed log losses; line: (2,) shift and slope of all rows on
    these bins; lines: (draws, 2) those of each draw.
    """

    converted: Floats
    probability: Floats
    logit: Floats
    coarse: npt.NDArray[np.int64]
    size: Floats
    of_all: Floats
    rows: Floats
    conversions: Floats
    expected: Floats
    lost: Floats
    line: Floats
    lines: Floats

    def statistics(self) -> Resampled:
        """Return the statistics of each draw.

        How slope and AUC of a draw differ from those of all rows is computed from fine bins (at most 200), which is far
        more exact than the interval is.
        """
        total, moved = self.rows.sum(axis=1), self.conversions.sum(axis=1)
        exact = auc(self.converted, self.probability)
        starts = np.flatnonzero(np.diff(self.coarse, prepend=-1))
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(np.add.reduceat(self.conversions - self.expected, starts, axis=1)).sum(axis=1)
            return Resampled(
                total,
                self.lost / total,
                exact + _auc(self.rows, self.conversions) - _auc(self.size, self.of_all),
                moved / self.expected.sum(axis=1),
                calibration_slope_intercept(self.converted, self.probability).slope + self.lines[:, 1] - self.line[1],
                gap / total,
            )

    def parts(self) -> DrawnParts:
        """Return level, slope and ranking of each draw, as far from those of all rows as fine bins say."""
        of_all = decompose_log_loss(self.converted, self.probability)
        (found,) = kernels.binned_parts(self.size[None], self.of_all[None], self.logit, self.line[None])
        drawn = kernels.binned_parts(self.rows, self.conversions, self.logit, self.lines)
        level, slope = of_all.level + drawn[:, 0] - found[0], of_all.slope + drawn[:, 1] - found[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return DrawnParts(level, slope, self.lost[0] / self.rows.sum(axis=1) - level - slope)


def draw_keys(draws: int, seed: int) -> npt.NDArray[np.uint64]:
    """Return a key for each draw; the same seed draws the same customers for every figure."""
    return np.random.SeedSequence(seed).generate_state(draws, np.uint64).astype(np.uint64)


def times_drawn(customer: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return how often each customer counts in each draw: (draws, customers)."""
    counts: npt.NDArray[np.int64] = kernels.times_drawn(customer, keys)
    return counts


def draw_cell(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    customer: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    others: Sequence[npt.ArrayLike] = (),
) -> Draws:
    """Count a prediction ``p`` in each draw, with the log losses of others beside it.

    y, p and each of others: (n,) as in `metrics`; customer: (n,) codes that mean the same customer in every call.
    """
    losses = np.column_stack([log_loss_terms(y, one) for one in (p, *others)])
    converted, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    order = np.argsort(probability, kind="stable")
    converted, probability = converted[order], probability[order]
    coarse = _bins(reliability_bins(converted, probability).rows)
    fine = coarse * _FINE + _bins(reliability_bins(converted, probability, bins=10 * _FINE).rows) % _FINE
    # Both are functions of the probability and ascend, so together they number bins that ascend, too.
    starts = np.flatnonzero(np.diff(fine, prepend=-1))
    ends = np.append(starts[1:], len(fine))
    sums, lost = kernels.binned(keys, customer[order], ends, converted, probability, losses[order])
    size = (ends - starts).astype(np.float64)
    logit = np.add.reduceat(log_odds(probability), starts) / size
    of_all = np.add.reduceat(converted, starts)
    (line,) = kernels.lines(size[None], of_all[None], logit, 0.0, 1.0, 12)
    lines = kernels.lines(sums[0], sums[1], logit, line[0], line[1], 4)
    return Draws(
        converted, probability, logit, coarse[starts], size, of_all, sums[0], sums[1], sums[2], lost, line, lines
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


def grouped_sums(
    contributions: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    groups: int,
    customer: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
) -> Floats:
    """Return the sums of contributions (n, k) over the rows of each group in each draw: (draws, groups, k)."""
    sums: Floats = kernels.grouped_sums(
        keys, customer, group, groups, np.ascontiguousarray(contributions, dtype=np.float64)
    )
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
