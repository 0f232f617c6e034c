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
from sklearn import metrics as sklearn_metrics

from cvj_ml.errors import DataError, raise_all
from cvj_ml.models.hazard.calibration import log_losses, recalibrate

Floats = npt.NDArray[np.float64]

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""

PRIOR_PRECISION = 0.01
"""Of the recalibration: a standard deviation of 10 around "no change"."""

SHARES = (0.01, 0.05, 0.10)
"""Shares of the customers for which a cell reports lift and gain."""

_Z95 = 1.959963984540054


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


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


class Bins(NamedTuple):
    """Rows grouped by predicted probability: rows, mean probability and observed share of each bin."""

    rows: Floats
    predicted: Floats
    observed: Floats


def _checked(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return both as float64, or raise DataError with every fault."""
    outcome, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    faults = []
    if outcome.ndim != 1 or outcome.shape != probability.shape:
        faults.append(f"y has the shape {outcome.shape} and p {probability.shape}; both must be (n,)")
    if wrong := int((~np.isin(outcome, (0.0, 1.0))).sum()):
        faults.append(f"{wrong} outcome(s) are neither 0 nor 1; leave out what is not yet known")
    if wrong := int((~((probability >= 0) & (probability <= 1))).sum()):
        faults.append(f"{wrong} probability(ies) are missing or outside [0, 1]; score only targets that lie ahead")
    raise_all(DataError, "These predictions cannot be judged:", faults)
    return outcome, probability


def _one_class(y: Floats) -> bool:
    return len(y) == 0 or bool((y == y[0]).all())


def log_loss(y: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the (weighted) mean log loss in nats, probabilities clipped to [CLIP, 1 - CLIP]."""
    outcome, probability = _checked(y, p)
    if len(outcome) == 0:
        return math.nan
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return float(sklearn_metrics.log_loss(outcome, clipped, labels=[0, 1], sample_weight=weight))


def log_loss_terms(y: npt.ArrayLike, p: npt.ArrayLike) -> Floats:
    """Return each row's log loss, shape (n,): what `bootstrap_interval` needs for a difference of two models."""
    outcome, probability = _checked(y, p)
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    terms: Floats = -np.where(outcome == 1, np.log(clipped), np.log1p(-clipped))
    return terms


def brier(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return the mean squared error of the probabilities."""
    outcome, probability = _checked(y, p)
    if len(outcome) == 0:
        return math.nan
    return float(sklearn_metrics.brier_score_loss(outcome, probability, labels=[0, 1], pos_label=1))


def auc(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return the probability that a mover ranks above a non-mover, ties counting half; NaN with one class."""
    outcome, probability = _checked(y, p)
    return math.nan if _one_class(outcome) else float(sklearn_metrics.roc_auc_score(outcome, probability))


def average_precision(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return the area under the precision-recall steps; NaN with one class."""
    outcome, probability = _checked(y, p)
    return math.nan if _one_class(outcome) else float(sklearn_metrics.average_precision_score(outcome, probability))


def gain_points(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return (share of customers taken from the top, share of movers among them), from (0, 0) to (1, 1).

    Customers with equal probability form one straight segment: the expectation over their random order. With no
    mover the second array is NaN.
    """
    outcome, probability = _checked(y, p)
    _, group = np.unique(-probability, return_inverse=True)
    taken = np.concatenate([[0.0], np.cumsum(np.bincount(group))])
    converted = np.concatenate([[0.0], np.cumsum(np.bincount(group, weights=outcome))])
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


def calibration_slope_intercept(y: npt.ArrayLike, p: npt.ArrayLike) -> Recalibration:
    """Return slope and intercept of the logistic regression of ``y`` on the log-odds of ``p``.

    A slope below 1 means predictions too extreme. A normal prior with standard deviation 10 around "no change" keeps
    separated outcomes finite and does not show otherwise. One class: both NaN. Equal predictions: no slope (NaN), the
    intercept is the shift of the log-odds.

    This evaluates; what a model is calibrated with, `models.hazard.calibration.recalibrate`, has no prior, since its
    maps are shrunk by their events.
    """
    outcome, probability = _checked(y, p)
    if _one_class(outcome):
        return Recalibration(math.nan, math.nan)
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped) - np.log1p(-clipped)
    # Centred, the two parameters hardly interact; they are the change against the prediction as it is.
    design = np.column_stack([np.ones_like(logit), logit - logit.mean()])
    change = np.zeros(2)
    loss = _penalised_loss(outcome, logit, design, change)
    for _ in range(100):
        fitted = 0.5 * (1 + np.tanh((logit + design @ change) / 2))
        gradient = design.T @ (fitted - outcome) + PRIOR_PRECISION * change
        curvature = (design.T * (fitted * (1 - fitted))) @ design + PRIOR_PRECISION * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # The loss is strictly convex, so halving a step that overshoots always ends at the minimum.
        scale = 1.0
        while (tried := _penalised_loss(outcome, logit, design, change - scale * step)) > loss and scale > 1e-8:
            scale /= 2
        change, loss = change - scale * step, tried
        if np.abs(step).max() < 1e-10:
            break
    if np.ptp(logit) < 1e-9:
        return Recalibration(math.nan, float(change[0]))
    return Recalibration(1 + float(change[1]), float(change[0] - change[1] * logit.mean()))


def _penalised_loss(y: Floats, logit: Floats, design: Floats, change: Floats) -> float:
    margin = logit + design @ change
    return float((np.logaddexp(0, margin) - y * margin).sum() + PRIOR_PRECISION / 2 * (change @ change))


def reliability_bins(y: npt.ArrayLike, p: npt.ArrayLike, bins: int = 10) -> Bins:
    """Return at most ``bins`` groups of nearly equal size by probability; equal probabilities stay together."""
    outcome, probability = _checked(y, p)
    if bins < 1:
        raise DataError(f"The number of bins is {bins}; it must be at least 1.")
    _, group, counts = np.unique(probability, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / max(len(probability), 1)
    _, chosen = np.unique((middle * bins).astype(np.int64), return_inverse=True)
    row_bin = chosen[group]
    rows = np.bincount(row_bin).astype(np.float64)
    return Bins(rows, np.bincount(row_bin, weights=probability) / rows, np.bincount(row_bin, weights=outcome) / rows)


def decompose_log_loss(y: npt.ArrayLike, p: npt.ArrayLike) -> Decomposition:
    """Return how much of the log loss is level, slope and ranking; all NaN with one class.

    The log-odds are refitted on the outcomes themselves: first an intercept, then an intercept and a slope (Cox 1958).
    So it tells afterwards what a forecast lacked, not what could have been known.
    """
    outcome, probability = _checked(y, p)
    if _one_class(outcome):
        return Decomposition(math.nan, math.nan, math.nan, math.nan)
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit, converted = np.log(clipped) - np.log1p(-clipped), outcome == 1
    shift, _ = recalibrate(logit, converted, with_slope=False)
    intercept, slope = recalibrate(logit, converted, with_slope=True)
    losses = [float(log_losses(one, converted).mean()) for one in (logit, shift + logit, intercept + slope * logit)]
    return Decomposition(losses[0], losses[0] - losses[1], losses[1] - losses[2], losses[2])


def expected_calibration_error(y: npt.ArrayLike, p: npt.ArrayLike, bins: int = 10) -> float:
    """Return the mean distance of observed share and mean probability over `reliability_bins`, weighted by rows."""
    grouped = reliability_bins(y, p, bins)
    if len(grouped.rows) == 0:
        return math.nan
    return float(np.average(np.abs(grouped.observed - grouped.predicted), weights=grouped.rows))


def observed_expected(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Return observed moves over the sum of the probabilities; NaN when none is expected."""
    outcome, probability = _checked(y, p)
    expected = float(probability.sum())
    return float(outcome.sum()) / expected if expected > 0 else math.nan


def wilson_interval(
    converted: npt.ArrayLike, rows: npt.ArrayLike, z: float = _Z95
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the bounds of Wilson's interval for shares ``moved / rows`` (arrays alike); NaN where rows is 0."""
    k, n = np.asarray(converted, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    n = np.where(n > 0, n, math.nan)
    share = k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and n the exact bounds are 0 and 1; rounding must not move them past the share itself.
    return np.where(k == 0, 0.0 * n, centre - half), np.where(k == n, 1.0 + 0.0 * n, centre + half)


def cell_metrics(y: npt.ArrayLike, p: npt.ArrayLike) -> dict[str, float]:
    """Return every metric of one cell (from, to, horizon), with its rows, movers and base rate."""
    outcome, probability = _checked(y, p)
    recalibration = calibration_slope_intercept(outcome, probability)
    found = {
        "n": float(len(outcome)),
        "converted": float(outcome.sum()),
        "base_rate": float(outcome.mean()) if len(outcome) else math.nan,
        "log_loss": log_loss(outcome, probability),
        "brier": brier(outcome, probability),
        "auc": auc(outcome, probability),
        "average_precision": average_precision(outcome, probability),
    }
    for share in SHARES:
        found[f"lift_{share * 100:g}"] = lift_at(outcome, probability, share)
        found[f"gain_{share * 100:g}"] = gain_at(outcome, probability, share)
    return found | {
        "calibration_slope": recalibration.slope,
        "calibration_intercept": recalibration.intercept,
        "expected_calibration_error": expected_calibration_error(outcome, probability),
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
