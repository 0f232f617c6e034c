"""Learning the level of a year ago: a forecast made then, by what was known then, and what came of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from cvj_ml.config import YEAR
from cvj_ml.models.hazard.calibration import recalibrate
from cvj_ml.models.hazard.level_shift import YearAgoError, YearAgoLevel
from cvj_ml.models.hazard.ridge import HEADS
from cvj_ml.models.hazard.tree_size import Choice
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import Fit, fit_reach
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import observed_whole

MOST_ROWS = 50_000
"""Hazard rows of a fit a year ago: its level is wanted, not its ranking."""

MOST_YEARS = 3

FEWEST_MOVED = 200
"""Customers who moved before the cut of a year ago, from which a fit there tells anything of the level."""

_LEAST = 1e-6


def learn_year_ago(run: Run, cut: int, spec: ModelSpec, later: Fit) -> YearAgoLevel | None:
    """Return how far forecasts made exactly one to three years before the cut were off; None without any.

    Each is fitted on what was visible then, with a vocabulary, features and levels of its own, at most 50,000 hazard
    rows and the settings of the ``later`` fit, whose ``spec`` is given: nothing else comes from it. It is judged by
    what was visible at ``cut``, the arrival delay included. Where the later one has other groups of features, or its
    calendar learned of other kinds of periods, nothing is carried over: a season would count twice.
    """
    errors = list[YearAgoError]()
    for years in range(1, 1 + MOST_YEARS):
        if not run.config.model.year_ago_level or (found := _error(run, cut - YEAR * years, cut, spec, later)) is None:
            break
        errors.append(found)
    return YearAgoLevel(tuple(errors)) if errors else None


def _error(run: Run, then: int, cut: int, spec: ModelSpec, later: Fit) -> YearAgoError | None:
    config, blocks, delay = run.config, run.blocks, run.arrival_delay
    grid = training_grid(config, then)
    if not len(grid):
        return None
    room, since = then - int(grid.min()) - delay, cut - then - delay
    counted = np.array([observed_whole(room, one) and observed_whole(since, one) for one in config.horizons])
    if not counted.any():
        return None
    definition = define(config, run.journey, blocks, then)
    if _groups(definition) != _groups(spec):
        return None
    history = build_panel(definition, blocks, grid, then, delay, max_rows=MOST_ROWS, seed=run.seed)
    if int(history.converters.max()) < FEWEST_MOVED:
        return None
    fit = fit_reach(history, run.seed, run.threads, given=Choice(later.choice.settings))
    if _kinds(fit) != _kinds(later):
        return None
    test = build_panel(definition, blocks, np.array([then], dtype=np.int64), cut, delay)
    predictor = Predictor(definition, fit.trees, fit.calibration)
    converted, known = test.matured()
    asked = known & predictor.learned[test.stage + 1] & counted
    return measured_error(
        predictor.predict(test, run.threads), converted, asked, test.customer, then, definition.min_customers
    )


def measured_error(
    said: npt.NDArray[np.float64],
    converted: npt.NDArray[np.bool_],
    asked: npt.NDArray[np.bool_],
    customer: npt.NDArray[np.int64],
    cut: int,
    fewest: int,
) -> YearAgoError:
    """Return the intercept of each head and horizon in which so many customers moved, pooled over the asked rows.

    ``said``, ``converted`` and ``asked`` are (rows, targets, horizons), ``customer`` is (rows,).
    """
    shape = (HEADS, said.shape[2])
    intercept, moved = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for head, targets in enumerate((slice(0, 1), slice(1, None))):
        for h in range(said.shape[2]):
            row, target = np.nonzero(asked[:, targets, h])
            y = converted[:, targets, h][row, target]
            customers = len(np.unique(customer[row[y]]))
            if fewest <= customers and y.sum() < len(y):
                p = np.clip(said[:, targets, h][row, target], _LEAST, 1 - _LEAST)
                intercept[head, h], _ = recalibrate(logit(p), y, with_slope=False)
                moved[head, h] = customers
    return YearAgoError(cut, intercept, moved)


def _groups(spec: ModelSpec) -> set[str]:
    return {feature.group for feature in spec.catalogue.features}


def _kinds(fit: Fit) -> tuple[str, ...]:
    return fit.trees.calendar.kinds if fit.trees.calendar else ()
