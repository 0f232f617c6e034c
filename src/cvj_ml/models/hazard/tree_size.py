"""How much the trees may learn: default ones, or others where customers who were held out bear them out.

A panel repeats each customer many times, so its rows say less than their number suggests, and default trees are safe
on any data. Where histories are rich they leave much unsaid, where they are poor they say too much;
docs/decisions/0018-capacity.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.models.hazard.calibration import HazardOutcomes, identity, log_losses, set_levels
from cvj_ml.models.hazard.fitting import LOW_EVIDENCE, Settings, Start, start_from
from cvj_ml.panel.panel import HazardRows, Panel

_F64 = npt.NDArray[np.float64]

DEFAULT = Settings(leaves=7, rows_a_leaf=500, lambda_l2=100.0, path_smooth=1000.0, rounds=300, learning_rate=0.05)
LARGE = Settings(leaves=31, rows_a_leaf=100, lambda_l2=5.0, path_smooth=20.0, rounds=120, learning_rate=0.05)
EARLY_STOPPED = replace(DEFAULT, rounds=150)

ERRORS = 3.0
"""Standard errors over customers that other trees' log loss has to lie below the default ones'."""

MOST_ROWS = 200_000
"""Hazard rows that the comparison is made on: fewer favour the default trees, never the large ones."""

_FOLDS = 4
_MOVED = 200
"""Customers who moved below whom nothing is compared: the default trees are used."""

_MOST_ROUNDS = 1000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TreeSizeComparison:
    """Mean log loss of trees with other settings minus the default ones', with its standard error over customers."""

    settings: Settings
    difference: float
    error: float

    @property
    def better(self) -> bool:
        """Return whether they are better beyond doubt."""
        return self.difference < -ERRORS * self.error


def choose_settings(
    panel: Panel,
    rows: HazardRows,
    early: HazardRows,
    later: HazardRows,
    seed: int,
    threads: int,
    progress: Progress | None = None,
) -> tuple[Settings, tuple[TreeSizeComparison, ...]]:
    """Return the settings for trees on ``rows``, and what they were compared by.

    All are fitted on ``early`` rows and evaluated by ``later`` ones, of other customers: what trees have learned has to
    hold for other people and at another time. A history too short for later rows evaluates by the same days. The large
    trees' rounds then end where held-out customers gain nothing more, on all rows.
    """
    if min(_movers(panel, early), _movers(panel, later)) < _MOVED:
        early = later = rows
    found = compare_tree_sizes(panel, early, later, seed, threads, progress)
    better = [one for one in found if one.better]
    if not better:
        return DEFAULT, found
    best = min(better, key=lambda one: one.difference).settings
    if best != LARGE:
        return best, found
    rounds = []
    some = _some(panel, rows)
    for start, taught, held in _folds(panel, some, some, seed):
        trees = start.boost(taught, replace(LARGE, rounds=_MOST_ROUNDS), seed, threads, held=some.take(held))
        rounds.append(trees.best_iteration)
        if progress is not None:
            progress(len(rounds), _FOLDS)
    return replace(LARGE, rounds=int(np.median(rounds))), found


def compare_tree_sizes(
    panel: Panel, early: HazardRows, later: HazardRows, seed: int, threads: int, progress: Progress | None = None
) -> tuple[TreeSizeComparison, ...]:
    """Fit all on early rows of three quarters of the customers, evaluate by later rows of the fourth, in turn.

    Levels are set before losses are taken, as they are in the end. Nothing is compared if there is too little to fit
    or to evaluate by.
    """
    early, later = _some(panel, early), _some(panel, later)
    if _movers(panel, later) < _MOVED:
        return ()
    logits = {settings: np.empty(len(later)) for settings in (DEFAULT, EARLY_STOPPED, LARGE)}
    for k, (start, taught, held) in enumerate(_folds(panel, early, later, seed)):
        if start.linear is None:
            return ()
        default, large = (start.with_trees(start.boost(taught, one, seed, threads)) for one in (DEFAULT, LARGE))
        # Early-stopped trees are the first of the default ones.
        for settings, trees in (
            (DEFAULT, default),
            (EARLY_STOPPED, default.first(EARLY_STOPPED.rounds)),
            (LARGE, large),
        ):
            logits[settings][held] = trees.logits(panel.x, panel.stage, later.take(held), threads, panel.as_of)
        if progress is not None:
            progress(k + 1, _FOLDS)
    losses = {settings: _losses(panel, later, said) for settings, said in logits.items()}
    found = []
    for settings in (EARLY_STOPPED, LARGE):
        above = losses[settings] - losses[DEFAULT]
        sums = np.bincount(panel.customer[later.snapshot], weights=above)
        error = float(np.sqrt((sums**2).sum()) / len(later))
        found.append(TreeSizeComparison(settings, float(above.mean()), error))
    return tuple(found)


def _movers(panel: Panel, rows: HazardRows) -> int:
    return len(np.unique(panel.customer[rows.snapshot[rows.converted]]))


def _some(panel: Panel, rows: HazardRows) -> HazardRows:
    """Return rows of targets that get trees, evenly spaced and at most so many."""
    rows = rows.take(panel.converters[rows.target] >= LOW_EVIDENCE)
    return rows.take(slice(None, None, max(-(-len(rows) // MOST_ROWS), 1)))


def _folds(
    panel: Panel, taught: HazardRows, evaluated: HazardRows, seed: int
) -> Iterator[tuple[Start, HazardRows, npt.NDArray[np.bool_]]]:
    """Hold each fold of customers out: what trees start from, the others' rows, which of ``evaluated`` are held."""
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(panel.customer.max()) + 1)
    of_taught, of_judged = (fold[panel.customer[rows.snapshot]] for rows in (taught, evaluated))
    for k in range(_FOLDS):
        others = taught.take(of_taught != k)
        yield start_from(panel, others), others, of_judged == k


def _losses(panel: Panel, rows: HazardRows, logit: _F64) -> _F64:
    nothing = identity(1 + len(panel.definition.journey.stages), len(panel.definition.horizons))
    outcomes = HazardOutcomes(logit, rows.converted, rows.target, rows.interval, panel.customer[rows.snapshot])
    levelled = set_levels(nothing, outcomes).apply(logit, rows.target, rows.interval)
    return log_losses(levelled, rows.converted)
