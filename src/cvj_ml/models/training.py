"""The recipe of a fit: calibrate out of time, refit on everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cvj_ml.config import DAY
from cvj_ml.models.hazard.calibration import Calibration, HazardOutcomes, fit_slopes, identity, log_losses, set_levels
from cvj_ml.models.hazard.fitting import Settings, fit_trees
from cvj_ml.models.hazard.reach import Trees
from cvj_ml.models.hazard.tree_size import TreeSizeComparison, choose_settings
from cvj_ml.panel.panel import HazardRows, Panel, hazard_rows
from cvj_ml.windows import before, edges, observed_whole

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
    cut: int,
    arrival_delay: int,
    seed: int,
    threads: int,
    *,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Fit trees and calibration on a panel labelled at the cut.

    Without settings the trees are default, unless customers who are held out bear others out (`choose_settings`).
    Trees are fitted on rows ended by C' = cut - max(90 days, a quarter of the outcome span). Rows that start at or
    after C' give the slopes of the calibration, kept only if they lower the log loss of customers they have not
    seen. Trees are then refitted on all rows with the same settings, the slopes shrunk towards 1 by the share of
    the events that the first trees had seen (they tell of trees with less to learn from). Levels, with or without
    slopes, are those of the outcomes of the last year: a whole year has no season, and an older one may have another
    level.
    """
    rows = hazard_rows(panel.labels, panel.definition.horizons)
    inner_cut = cut - max(90 * DAY, (cut - int(panel.as_of.min())) // 4)
    bounds = np.array(edges(panel.definition.horizons)[1:])
    ends = panel.as_of[rows.snapshot] + bounds[rows.interval] + arrival_delay
    early = rows.take(observed_whole(inner_cut - ends, 0))
    later = rows.take(~before(panel.as_of, inner_cut)[rows.snapshot])
    targets, intervals = 1 + len(panel.definition.journey.stages), len(bounds)
    comparisons: tuple[TreeSizeComparison, ...] = ()
    if settings is None:
        settings, comparisons = choose_settings(panel, rows, early, later, seed, threads, progress)
    slopes, helps = identity(targets, intervals), False
    if early.moved.any() and later.moved.any():
        first = fit_trees(panel, early, settings, seed, threads, progress=progress)
        outcomes = _outcomes(first, panel, later, threads)
        if outcomes.moved.any():
            slopes, helps = _slopes(outcomes, targets, intervals, seed)
            slopes = slopes.shrunk(float(early.moved.sum() / rows.moved.sum()))
    trees = fit_trees(panel, rows, settings, seed, threads, progress=progress)
    recent = rows.take(~before(ends, cut - _YEAR))
    levels = set_levels(slopes if helps else identity(targets, intervals), _outcomes(trees, panel, recent, threads))
    return Fit(trees, levels, settings, helps, comparisons)


def _outcomes(trees: Trees, panel: Panel, rows: HazardRows, threads: int) -> HazardOutcomes:
    """Return predictions beside what happened, of what the trees' rows know something of."""
    rows = rows.take(trees.base.is_known(panel.stage, rows))
    logit = trees.logits(panel.x, panel.stage, rows, threads)
    return HazardOutcomes(logit, rows.moved, rows.target, rows.interval, panel.customer[rows.snapshot])


def _slopes(later: HazardOutcomes, targets: int, intervals: int, seed: int) -> tuple[Calibration, bool]:
    """Fit slopes on all later rows; judge them by folds of customers against maps that only shift the level."""
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(later.customer.max()) + 1)[later.customer]
    mapped, shifted = np.empty_like(later.logit), np.empty_like(later.logit)
    for k in range(_FOLDS):
        held = later.take(fold == k)
        found = fit_slopes(later.take(fold != k), targets, intervals)
        only_level = set_levels(identity(targets, intervals), later.take(fold != k))
        mapped[fold == k] = found.apply(held.logit, held.target, held.interval)
        shifted[fold == k] = only_level.apply(held.logit, held.target, held.interval)
    helps = bool(log_losses(mapped, later.moved).mean() < log_losses(shifted, later.moved).mean())
    return fit_slopes(later, targets, intervals), helps
