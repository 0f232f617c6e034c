"""How well a ranking finds those whom a contact moves: Qini, uplift at the top, calibration, what a policy is worth.

Nobody's effect is seen, so everything is a difference of weighted means: rows weigh 1 / P(their arm), which makes
each arm stand for all rows (Horvitz and Thompson 1952). Intervals are the middle 95 % of draws of customers, all rows
of a customer together (`bootstrap`); two rankings are compared on the same draws. No result depends on the order of
rows, and rows of equal score count as in the mean of their random orders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.errors import DataError
from cvj_ml.evaluation.bootstrap import grouped_sums, interval, p_value, times_drawn
from cvj_ml.evaluation.metrics import Interval
from cvj_ml.models.uplift.effect_model import Experiment

TOP_SHARES = (0.1, 0.2, 0.3)
"""Shares of the rows, from the top, of which the uplift is told."""

_TOGETHER = 64  # draws whose counts are in memory at once

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]
_Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Contrast:
    """An arm beside control, (rows,) each: weights 1{A = arm} / e_arm and 1{A = 0} / e_0, outcome, customer."""

    treated: _F64
    control: _F64
    outcome: _F64
    customer: _I64

    def take(self, rows: npt.NDArray[np.bool_] | _I64) -> Contrast:
        """Return the rows marked by a mask or at these positions."""
        return Contrast(self.treated[rows], self.control[rows], self.outcome[rows], self.customer[rows])


@dataclass(frozen=True, slots=True)
class RankingMetrics:
    """Of one ranking, or a difference of two: Qini, AUUC, and the uplift at each of `TOP_SHARES`."""

    qini: Interval
    auuc: Interval
    uplift: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class RankingDifference:
    """One ranking minus another on the same draws, with the two-sided p-values of Qini and of the uplifts."""

    metrics: RankingMetrics
    p_qini: float
    p_uplift: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class EffectBin:
    """Rows of nearly equal effect: how many, their mean effect as predicted, and as observed."""

    rows: int
    predicted: float
    observed: Interval


def contrast(experiment: Experiment, arm: int | None = None) -> Contrast:
    """Return an arm beside control; without ``arm`` any contact beside none. Rows of other arms weigh nothing."""
    contacted = experiment.arm > 0 if arm is None else experiment.arm == arm
    chance = 1 - experiment.propensity[:, 0] if arm is None else experiment.propensity[:, arm]
    return Contrast(
        contacted / chance,
        (experiment.arm == 0) / experiment.propensity[:, 0],
        np.asarray(experiment.outcome, dtype=np.float64),
        experiment.customer,
    )


def qini(rows: Contrast, score: _F64) -> float:
    """Return the area between the gain curve and the random line, per row.

    G(s) = 1/n sum over the top share s of Y (1{A = arm} / e_arm - 1{A = 0} / e_0): what contacting them brings for each
    of all n rows. Qini = integral of G(s) - s G(1) over s from 0 to 1 (Radcliffe 2007, with weights for the arms).
    """
    return float(_statistics(rows, score)[0])


def auuc(rows: Contrast, score: _F64) -> float:
    """Return the area under the gain curve G of `qini`: the Qini and half of G(1), the average effect."""
    return float(_statistics(rows, score)[1])


def uplift_at(rows: Contrast, score: _F64, share: float) -> float:
    """Return the weighted mean outcome of the arm minus that of control among the top share of the rows.

    NaN where either has nobody there. The weights are normalised (Hajek 1971): with equal propensities it is the plain
    difference of means.
    """
    if not 0 < share <= 1:
        raise DataError(f"The share of customers is {share}; it must lie in (0, 1], such as 0.3 for the top 30 %.")
    return float(_statistics(rows, score, (share,))[2])


def ranking_metrics(rows: Contrast, score: _F64, keys: _Keys) -> RankingMetrics:
    """Return the figures of a ranking with intervals over customers; ``score`` (rows,) is highest for the first."""
    return _intervals(_statistics(rows, score), _drawn(rows, score, keys))


def ranking_difference(rows: Contrast, mine: _F64, other: _F64, keys: _Keys) -> RankingDifference:
    """Return figures of ranking by ``mine`` minus those of ranking by ``other``."""
    found = _statistics(rows, mine) - _statistics(rows, other)
    drawn = _drawn(rows, mine, keys) - _drawn(rows, other, keys)
    p = [p_value(float(one), draws) for one, draws in zip(found, drawn.T, strict=True)]
    return RankingDifference(_intervals(found, drawn), p[0], tuple(p[2:]))


def effect_calibration(
    pseudo_outcomes: _F64, effects: _F64, customer: _I64, keys: _Keys, bins: int = 10
) -> tuple[EffectBin, ...]:
    """Return at most ``bins`` groups of rows by predicted effect, the lowest first; equal effects stay together.

    Observed is the mean of the doubly robust scores (rows,), whose mean over any rows is their average effect.
    """
    if not len(effects):
        return ()
    _, value, size = np.unique(effects, return_inverse=True, return_counts=True)
    middle = (np.cumsum(size) - size / 2) / len(effects)
    _, group = np.unique((middle * bins).astype(np.int64)[value], return_inverse=True)
    groups = int(group.max()) + 1
    drawn = grouped_sums(
        np.column_stack([np.ones(len(effects)), pseudo_outcomes]), group.astype(np.int64), groups, customer, keys
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        means = drawn[..., 1] / drawn[..., 0]
    return tuple(
        EffectBin(
            int(here.sum()),
            float(effects[here].mean()),
            interval(float(pseudo_outcomes[here].mean()), means[:, g]),
        )
        for g, here in ((g, group == g) for g in range(groups))
    )


def top_weights(score: _F64, k: int) -> _F64:
    """Return for each row (rows,) the probability of being among the top k where equal scores are in random order."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    sizes = np.diff(np.append(starts, len(score)))
    inside = np.clip((k - starts) / sizes, 0.0, 1.0)
    weights = np.empty(len(score))
    weights[order] = np.repeat(inside, sizes)
    return weights


def policy_value(
    pseudo_outcomes: _F64, score: _F64, k: int, customer: _I64, keys: _Keys, *, value: float = 1.0, cost: float = 0.0
) -> Interval:
    """Return what contacting the top k by score brings more than contacting nobody, cost included, in total.

    k (value mean_top(psi) - cost): ``value`` of one unit of the outcome and ``cost`` of a contact are in one unit.
    """
    estimate, drawn = _top_mean(pseudo_outcomes, score, k, customer, keys)
    return interval(k * (value * estimate - cost), k * (value * drawn - cost))


def policy_difference(
    pseudo_outcomes: _F64, mine: _F64, other: _F64, k: int, customer: _I64, keys: _Keys, *, value: float = 1.0
) -> Interval:
    """Return the policy value of the top k by ``mine`` minus that by ``other``; as many contacts cost the same."""
    (one, of_one), (two, of_two) = (_top_mean(pseudo_outcomes, score, k, customer, keys) for score in (mine, other))
    return interval(k * value * (one - two), k * value * (of_one - of_two))


def _top_mean(pseudo_outcomes: _F64, score: _F64, k: int, customer: _I64, keys: _Keys) -> tuple[float, _F64]:
    if not 1 <= k <= len(score):
        raise DataError(f"k is {k:,} and there are {len(score):,} rows; give the number of rows that get a contact.")
    weight = top_weights(score, k)
    terms = np.column_stack([weight, weight * pseudo_outcomes])
    drawn = grouped_sums(terms, np.zeros(len(score), dtype=np.int64), 1, customer, keys)[:, 0]
    with np.errstate(invalid="ignore"):
        return float(terms[:, 1].sum() / k), drawn[:, 1] / drawn[:, 0]


def _intervals(found: _F64, drawn: _F64) -> RankingMetrics:
    one = [interval(float(estimate), draws) for estimate, draws in zip(found, drawn.T, strict=True)]
    return RankingMetrics(one[0], one[1], tuple(one[2:]))


def _statistics(rows: Contrast, score: _F64, shares: Sequence[float] = TOP_SHARES) -> _F64:
    """Return Qini, AUUC and the uplift at each share of the rows as they are."""
    found: _F64 = _curves(rows, score, iter([np.ones((1, len(score)), dtype=np.int64)]), shares)[0]
    return found


def _drawn(rows: Contrast, score: _F64, keys: _Keys) -> _F64:
    """Return the statistics of each draw, (draws, statistics)."""
    order = np.argsort(-score, kind="stable")
    counts = (
        times_drawn(rows.customer[order], keys[first : first + _TOGETHER]) for first in range(0, len(keys), _TOGETHER)
    )
    return _curves(rows, score, counts, TOP_SHARES)


def _curves(rows: Contrast, score: _F64, counts: Iterator[_I64], shares: Sequence[float]) -> _F64:
    """Return the statistics for each of the counts, whose rows are in descending order of the score."""
    if not len(score):
        return np.full((1, 2 + len(shares)), math.nan)
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    ends = np.append(starts[1:], len(score))
    one = rows.take(order)
    asked = np.array(shares, dtype=np.float64)
    found: _F64 = np.concatenate([_areas(part, one.treated, one.control, one.outcome, ends, asked) for part in counts])
    return found


@compiled
def _areas(counts: _I64, treated: _F64, control: _F64, outcome: _F64, ends: _I64, shares: _F64) -> _F64:
    found = np.full((len(counts), 2 + len(shares)), np.nan)
    for d in range(len(counts)):
        total = counts[d].sum()
        if total == 0:
            continue
        taken, gain, area = 0.0, 0.0, 0.0
        # Of what is above: weight and weighted outcome of the arm, and of control.
        above, start = np.zeros(4), 0
        for end in ends:
            here, width = np.zeros(4), 0.0
            for i in range(start, end):
                count = counts[d, i]
                width += count
                here[0] += count * treated[i]
                here[1] += count * treated[i] * outcome[i]
                here[2] += count * control[i]
                here[3] += count * control[i] * outcome[i]
            start = end
            brings = here[1] - here[3]
            area += width * (gain + brings / 2)
            gain += brings
            for s in range(len(shares)):
                wanted = shares[s] * total
                if taken < wanted <= taken + width:
                    top = above + here * ((wanted - taken) / width)
                    if top[0] > 0 and top[2] > 0:
                        found[d, 2 + s] = top[1] / top[0] - top[3] / top[2]
            above += here
            taken += width
        found[d, 1] = area / total / total
        found[d, 0] = found[d, 1] - gain / total / 2
    return found
