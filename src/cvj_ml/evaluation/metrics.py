"""Metrics of probabilities for moves that did or did not happen, and intervals that respect customers.

Arguments are one-dimensional and of equal length: ``y`` is 0/1 or bool (did the customer move), ``p`` lies in
[0, 1]; anything else raises DataError. Everything is computed in float64 with the natural logarithm, and no result
depends on the order of the rows. What is not defined (no rows, one class, nobody moved) is NaN, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cvj_ml.errors import DataError, raise_all
from cvj_ml.evaluation.recalibration import Floats, Scores, by_score, checked, clipped, one_class, recalibration

SHARES = (0.01, 0.05, 0.10)
"""Shares of the customers for which a cell reports lift and gain."""

Z95 = 1.959963984540054
"""The quantile of the normal distribution that 95 % intervals reach to, on both sides."""


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


class Bins(NamedTuple):
    """Rows grouped by predicted probability: rows, mean probability and observed share of each bin."""

    rows: Floats
    predicted: Floats
    observed: Floats


def log_loss(y: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the (weighted) mean log loss in nats, probabilities clipped to [CLIP, 1 - CLIP]."""
    terms = log_loss_terms(y, p)
    weights = None if weight is None else np.asarray(weight, dtype=np.float64)
    return float(np.average(terms, weights=weights)) if len(terms) else math.nan


def log_loss_terms(y: npt.ArrayLike, p: npt.ArrayLike) -> Floats:
    """Return each row's log loss, shape (n,): what `bootstrap_interval` needs for a difference of two models."""
    outcome, probability = checked(y, p)
    kept = clipped(probability)
    terms: Floats = -np.log(np.where(outcome == 1, kept, 1 - kept))
    return terms


def brier(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return the mean squared error of the probabilities."""
    outcome, probability = checked(y, p)
    return float(((probability - outcome) ** 2).mean()) if len(outcome) else math.nan


def auc(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return the probability that a mover ranks above a non-mover, ties counting half; NaN with one class."""
    return _auc(by_score(*checked(y, p)))


def _auc(scores: Scores) -> float:
    if one_class(scores):
        return math.nan
    still = scores.rows - scores.converted
    below = np.cumsum(still) - still / 2
    return float((scores.converted * below).sum() / (scores.converted.sum() * still.sum()))


def average_precision(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return the area under the precision-recall steps; NaN with one class."""
    return _average_precision(by_score(*checked(y, p)))


def _average_precision(scores: Scores) -> float:
    if one_class(scores):
        return math.nan
    found, taken = np.cumsum(scores.converted[::-1]), np.cumsum(scores.rows[::-1])
    return float((scores.converted[::-1] * (found / taken)).sum() / found[-1])


def gain_points(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return (share of customers taken from the top, share of movers among them), from (0, 0) to (1, 1).

    Customers with equal probability form one straight segment: the expectation over their random order. With no
    mover the second array is NaN.
    """
    return _gain_points(by_score(*checked(y, p)))


def _gain_points(scores: Scores) -> tuple[Floats, Floats]:
    taken = np.concatenate([[0.0], np.cumsum(scores.rows[::-1])])
    converted = np.concatenate([[0.0], np.cumsum(scores.converted[::-1])])
    if converted[-1] == 0:
        return taken / max(taken[-1], 1.0), np.full(len(taken), math.nan)
    return taken / taken[-1], converted / converted[-1]


def gain_at(y: npt.ArrayLike, p: npt.ArrayLike, share: float) -> float:
    """Return the share of all movers found in the top ``share`` (0 to 1) of the customers; NaN when nobody moved."""
    if not 0 < share <= 1:
        raise DataError(f"The share of customers is {share}; it must lie in (0, 1], such as 0.05 for the top 5 %.")
    return float(np.interp(share, *gain_points(y, p)))


def lift_at(y: npt.ArrayLike, p: npt.ArrayLike, share: float) -> float:
    """Return how many times as often the top ``share`` of the customers moved as all did; NaN when nobody moved."""
    return gain_at(y, p, share) / share


def reliability_bins(y: npt.ArrayLike, p: npt.ArrayLike, bins: int = 10) -> Bins:
    """Return at most ``bins`` groups of nearly equal size by probability; equal probabilities stay together."""
    outcome, probability = checked(y, p)
    if bins < 1:
        raise DataError(f"The number of bins is {bins}; it must be at least 1.")
    return _reliability_bins(by_score(outcome, probability), bins)


def _reliability_bins(scores: Scores, bins: int) -> Bins:
    middle = (np.cumsum(scores.rows) - scores.rows / 2) / max(scores.rows.sum(), 1)
    _, chosen = np.unique((middle * bins).astype(np.int64), return_inverse=True)
    rows = np.bincount(chosen, weights=scores.rows).astype(np.float64)
    predicted = np.bincount(chosen, weights=scores.rows * scores.probability)
    return Bins(rows, predicted / rows, np.bincount(chosen, weights=scores.converted) / rows)


def expected_calibration_error(y: npt.ArrayLike, p: npt.ArrayLike, bins: int = 10) -> float:
    """Return the mean distance of observed share and mean probability over `reliability_bins`, weighted by rows."""
    return _calibration_error(reliability_bins(y, p, bins))


def _calibration_error(grouped: Bins) -> float:
    if len(grouped.rows) == 0:
        return math.nan
    return float(np.average(np.abs(grouped.observed - grouped.predicted), weights=grouped.rows))


def observed_expected(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return observed moves over the sum of the probabilities; NaN when none is expected."""
    outcome, probability = checked(y, p)
    expected = float(probability.sum())
    return float(outcome.sum()) / expected if expected > 0 else math.nan


def wilson_interval(converted: npt.ArrayLike, rows: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the bounds of Wilson's 95 % interval for shares ``moved / rows`` (arrays alike); NaN where rows is 0."""
    k, n = np.asarray(converted, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    n, z = np.where(n > 0, n, math.nan), Z95
    share = k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and n the exact bounds are 0 and 1; rounding must not move them past the share itself.
    return np.where(k == 0, 0.0 * n, centre - half), np.where(k == n, 1.0 + 0.0 * n, centre + half)


def cell_metrics(y: npt.ArrayLike, p: npt.ArrayLike) -> dict[str, float]:
    """Return every metric of one cell (from, to, horizon), with its rows, movers and base rate."""
    outcome, probability = checked(y, p)
    scores = by_score(outcome, probability)
    points, line = _gain_points(scores), recalibration(scores)
    found = {
        "n": float(len(outcome)),
        "converted": float(outcome.sum()),
        "base_rate": float(outcome.mean()) if len(outcome) else math.nan,
        "log_loss": log_loss(outcome, probability),
        "brier": brier(outcome, probability),
        "auc": _auc(scores),
        "average_precision": _average_precision(scores),
    }
    for share in SHARES:
        gain = float(np.interp(share, *points))
        found[f"lift_{share * 100:g}"] = gain / share
        found[f"gain_{share * 100:g}"] = gain
    return found | {
        "calibration_slope": line.slope,
        "calibration_intercept": line.intercept,
        "expected_calibration_error": _calibration_error(_reliability_bins(scores, 10)),
        "observed_expected": observed_expected(outcome, probability),
    }


def bootstrap_interval(
    contributions: npt.ArrayLike, customers: npt.ArrayLike, draws: int = 1000, *, seed: int, level: float = 0.95
) -> Interval:
    """Return the mean of per-row contributions with its percentile interval over draws of whole customers.

    contributions: (n,) finite, for two models the difference of their `log_loss_terms`, which pairs them;
    customers: (n,) codes or text, whose rows are drawn together. The bounds are NaN under two customers. Other than in
    `bootstrap` customers are drawn with replacement, by position and not by a hash of their codes, so that text will
    do: for one figure of benchmarks, not for many that have to share their draws.
    """
    values, owners = np.asarray(contributions, dtype=np.float64), np.asarray(customers)
    faults = []
    if values.ndim != 1 or values.shape != owners.shape:
        faults.append(f"contributions have the shape {values.shape} and customers {owners.shape}; both must be (n,)")
    if wrong := int((~np.isfinite(values)).sum()):
        faults.append(f"{wrong} contribution(s) are not finite")
    if draws < 1 or not 0 < level < 1:
        faults.append(f"draws is {draws} and level {level}; draws must be at least 1 and the level between 0 and 1")
    raise_all(DataError, "No bootstrap interval can be drawn:", faults)
    if len(values) == 0:
        return Interval(math.nan, math.nan, math.nan)
    _, owner = np.unique(owners, return_inverse=True)
    totals, rows = np.bincount(owner, weights=values), np.bincount(owner).astype(np.float64)
    estimate = float(totals.sum() / rows.sum())
    if len(totals) < 2:
        return Interval(estimate, math.nan, math.nan)
    random = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):
        times = np.bincount(random.integers(len(totals), size=len(totals)), minlength=len(totals))
        means[draw] = (times * totals).sum() / (times * rows).sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def markdown_table(
    rows: Sequence[Mapping[str, str | float | None]], columns: Mapping[str, str], digits: int = 4
) -> str:
    """Return rows as a Markdown table that also reads well as plain text, ending with a newline.

    columns: key of a row to its heading, in order. Whole numbers get thousands separators, other numbers ``digits``
    decimals, a missing or NaN value a dash. Columns without text are aligned to the right.
    """
    cells = [[_cell(row.get(key), digits) for key in columns] for row in rows]
    headings = [_cell(heading, digits) for heading in columns.values()]
    numeric = [bool(rows) and not any(isinstance(row.get(key), str) for row in rows) for key in columns]
    widths = [max(3, *(len(line[i]) for line in [headings, *cells])) for i in range(len(headings))]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        )
        return "| " + " | ".join(padded) + " |\n"

    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, numeric, strict=True)]
    return "".join(line(texts) for texts in [headings, rule, *cells])


def _cell(value: str | float | None, digits: int) -> str:
    if isinstance(value, str):
        return " ".join(value.replace("\\", "\\\\").replace("|", "\\|").split())
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:,.{digits}f}"
