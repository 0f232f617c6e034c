"""The recipe of a fit: calibrate out of time, refit on everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cvj_ml.config import DAY
from cvj_ml.models.hazard.calibration import Calibration, HazardOutcomes, fit_slopes, identity, log_losses, set_levels
from cvj_ml.models.hazard.fitting import Settings, fit_trees, start_from
from cvj_ml.models.hazard.reach import OwnEstimator, Trees
from cvj_ml.models.hazard.tree_size import TreeSizeComparison, choose_settings
from cvj_ml.panel.panel import HazardRows, Panel, hazard_rows
from cvj_ml.windows import Instants, before, edges, observed_whole

_FOLDS = 5
_YEAR = 365 * DAY


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted reach model, the settings of its trees, and whether slopes helped; levels are always set.

    ``comparisons`` led to the settings; none where they were given, or too few customers moved to compare by.
    """

    trees: Trees
    calibration: Calibration
    settings: Settings
    calibrated: bool
    comparisons: tuple[TreeSizeComparison, ...] = ()


def fit_reach(
    panel: Panel,
    seed: int,
    threads: int,
    *,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Fit trees and calibration on a panel.

    Without settings the trees are default, unless customers who are held out bear others out (`choose_settings`).
    Trees are fitted on rows ended by C' = the panel's cut - max(90 days, a quarter of the outcome span). Rows that
    start at or after C' give the slopes of the calibration, kept only if they lower the log loss of customers they
    have not seen. Trees are then refitted on all rows with the same settings, the slopes shrunk towards 1 by the share
    of the events that the first trees had seen (they tell of trees with less to learn from). Levels, with or without
    slopes, are those of the outcomes of the last year: a whole year has no season, and an older one may have another
    level.
    """
    rows, early, later = _parts(panel)
    comparisons: tuple[TreeSizeComparison, ...] = ()
    if settings is None:
        settings, comparisons = choose_settings(panel, rows, early, later, seed, threads, progress)
    chosen = settings
    trees, levels, helps = _calibrated(
        panel,
        lambda some: fit_trees(panel, some, chosen, seed, threads, progress=progress),
        (rows, early, later),
        seed,
        threads,
    )
    return Fit(trees, levels, settings, helps, comparisons)


def fit_own(panel: Panel, estimator: Any, seed: int) -> tuple[Trees, Calibration]:
    """Fit a classifier of one's own in the place of line and trees, and calibrate it as they are.

    It is asked once for each hazard row (snapshot, target, interval) whether the event falls into the interval; its
    inputs are a DataFrame of the features, which may be missing (NaN), and of EXTRA_COLUMNS. Targets and stages of
    which too little is known keep their base rates.
    """
    rows, early, later = _parts(panel)

    def fit(some: HazardRows) -> Trees:
        start = start_from(panel, some)
        trees = start.with_trees(None)
        usable = some.take(trees.base.is_known(panel.stage, some) & ~start.low[some.target])
        if not 0 < usable.converted.sum() < len(usable):
            return trees
        return replace(trees, linear=None, calendar=None, estimator=OwnEstimator.fit(estimator, panel, usable))

    trees, levels, _ = _calibrated(panel, fit, (rows, early, later), seed, 1)
    return trees, levels


def _parts(panel: Panel) -> tuple[HazardRows, HazardRows, HazardRows]:
    """Return all hazard rows, those that were over at an earlier cut, and those that start at it or later."""
    rows = hazard_rows(panel.labels, panel.definition.horizons)
    inner_cut = panel.cut - max(90 * DAY, (panel.cut - int(panel.as_of.min())) // 4)
    early = rows.take(observed_whole(inner_cut - _ends(panel, rows), 0))
    return rows, early, rows.take(~before(panel.as_of, inner_cut)[rows.snapshot])


def _ends(panel: Panel, rows: HazardRows) -> Instants:
    """Return when each row's interval was over, and what fell into it had arrived."""
    bounds = np.array(edges(panel.definition.horizons)[1:])
    ends: Instants = panel.as_of[rows.snapshot] + bounds[rows.interval] + panel.arrival_delay
    return ends


def _calibrated(
    panel: Panel,
    fit: Callable[[HazardRows], Trees],
    parts: tuple[HazardRows, HazardRows, HazardRows],
    seed: int,
    threads: int,
) -> tuple[Trees, Calibration, bool]:
    """Fit on the early rows, learn slopes from the later ones, refit on all; return whether slopes help."""
    rows, early, later = parts
    targets, intervals = 1 + len(panel.definition.journey.stages), len(panel.definition.horizons)
    slopes, helps = identity(targets, intervals), False
    if early.converted.any() and later.converted.any():
        outcomes = _outcomes(fit(early), panel, later, threads)
        if outcomes.converted.any():
            slopes, helps = _slopes(outcomes, targets, intervals, seed)
            slopes = slopes.shrunk(float(early.converted.sum() / rows.converted.sum()))
    trees = fit(rows)
    recent = rows.take(~before(_ends(panel, rows), panel.cut - _YEAR))
    levels = set_levels(slopes if helps else identity(targets, intervals), _outcomes(trees, panel, recent, threads))
    return trees, levels, helps


def _outcomes(trees: Trees, panel: Panel, rows: HazardRows, threads: int) -> HazardOutcomes:
    """Return predictions beside what happened, of what the trees' rows know something of."""
    rows = rows.take(trees.base.is_known(panel.stage, rows))
    logit = trees.logits(panel.x, panel.stage, rows, threads, panel.as_of)
    return HazardOutcomes(logit, rows.converted, rows.target, rows.interval, panel.customer[rows.snapshot])


def _slopes(later: HazardOutcomes, targets: int, intervals: int, seed: int) -> tuple[Calibration, bool]:
    """Fit slopes on all later rows; evaluate them by folds of customers against maps that only shift the level."""
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(later.customer.max()) + 1)[later.customer]
    mapped, shifted = np.empty_like(later.logit), np.empty_like(later.logit)
    for k in range(_FOLDS):
        held = later.take(fold == k)
        found = fit_slopes(later.take(fold != k), targets, intervals)
        only_level = set_levels(identity(targets, intervals), later.take(fold != k))
        mapped[fold == k] = found.apply(held.logit, held.target, held.interval)
        shifted[fold == k] = only_level.apply(held.logit, held.target, held.interval)
    helps = bool(log_losses(mapped, later.converted).mean() < log_losses(shifted, later.converted).mean())
    return fit_slopes(later, targets, intervals), helps
