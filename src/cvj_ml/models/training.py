"""The recipe of a fit: choose settings out of time, calibrate out of time, refit on everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.models.calibration import Calibration, fit_calibration, identity
from cvj_ml.models.reach import Settings, Trees, fit_trees
from cvj_ml.panel import HazardRows, Panel, hazard_rows
from cvj_ml.windows import before, edges, observed_whole

CANDIDATES = (
    Settings(rounds=500, leaves=31, rows_a_leaf=100, learning_rate=0.05),
    Settings(rounds=500, leaves=7, rows_a_leaf=500, learning_rate=0.05),
)
"""Settings that compete on rows after the training slice; early stopping chooses their rounds."""

_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted reach model, the settings of its trees, and whether calibration helped out of time."""

    trees: Trees
    calibration: Calibration
    settings: Settings
    calibrated: bool


def fit_reach(
    panel: Panel,
    cut: int,
    arrival_delay: int,
    seed: int,
    threads: int,
    *,
    candidates: Sequence[Settings] = CANDIDATES,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Fit trees and calibration on a panel labelled at the cut.

    Trees are fitted on rows ended by C' = cut - max(90 days, a quarter of the outcome span); rows that start at or
    after C' choose among candidate settings and calibrate the hazards; trees are refitted on all rows with the
    same settings. One candidate is taken as it is (no choice, its rounds stand). The calibration is kept only if it
    lowers the log loss of customers it has not seen.
    """
    rows = hazard_rows(panel.labels, panel.definition.horizons)
    inner_cut = cut - max(90 * DAY, (cut - int(panel.as_of.min())) // 4)
    bounds = np.array(edges(panel.definition.horizons)[1:])
    ends = panel.as_of[rows.snapshot] + bounds[rows.interval] + arrival_delay
    early = rows.take(observed_whole(inner_cut - ends, 0))
    late = rows.take(~before(panel.as_of, inner_cut)[rows.snapshot])
    targets, intervals = 1 + len(panel.definition.journey.stages), len(bounds)
    if not early.moved.any() or not late.moved.any():
        # Too little history to choose or calibrate out of time: the smallest candidate, kept short.
        smallest = min(candidates, key=lambda one: one.leaves)
        settings = replace(smallest, rounds=min(smallest.rounds, 100))
        trees = fit_trees(panel, rows, settings, seed, threads, progress=progress)
        return Fit(trees, identity(targets, intervals), settings, calibrated=False)

    best: tuple[float, Settings, npt.NDArray[np.float64]] | None = None
    for settings in candidates:
        choose = len(candidates) > 1
        trees = fit_trees(panel, early, settings, seed, threads, validation=late if choose else None, progress=progress)
        if choose and trees.booster is not None:
            settings = replace(settings, rounds=max(trees.booster.best_iteration, 1))
        raw = trees.logits(panel.x, panel.stage, panel.column("recency"), late, threads)
        loss = float(_log_loss(raw, late.moved).mean())
        if best is None or loss < best[0]:
            best = (loss, settings, raw)
    if best is None:
        raise ValueError("at least one candidate is needed")
    _, settings, raw = best
    calibration, helps = _calibrate(panel, late, raw, seed)
    trees = fit_trees(panel, rows, settings, seed, threads, progress=progress)
    return Fit(trees, calibration if helps else identity(targets, intervals), settings, helps)


def _log_loss(logit: npt.NDArray[np.float64], moved: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.logaddexp(0.0, np.where(moved, -logit, logit))


def _calibrate(panel: Panel, late: HazardRows, raw: npt.NDArray[np.float64], seed: int) -> tuple[Calibration, bool]:
    """Fit the map on all later rows; judge it by folds of customers."""
    targets, intervals = 1 + len(panel.definition.journey.stages), len(panel.definition.horizons)
    customer = panel.customer[late.snapshot]
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(panel.customer.max()) + 1)[customer]
    mapped = np.empty_like(raw)
    for k in range(_FOLDS):
        seen, held = fold != k, fold == k
        part = fit_calibration(
            raw[seen], late.moved[seen], late.target[seen], late.interval[seen], customer[seen], targets, intervals
        )
        mapped[held] = part.apply(raw[held], late.target[held], late.interval[held])
    helps = bool(_log_loss(mapped, late.moved).mean() < _log_loss(raw, late.moved).mean())
    whole = fit_calibration(raw, late.moved, late.target, late.interval, customer, targets, intervals)
    return whole, helps
