"""Learning the level of a year ago: a forecast made then, by what was known then, and what came of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from cvj_ml.config import DAY
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys, paired_difference
from cvj_ml.evaluation.folds import last_matured
from cvj_ml.evaluation.metrics import log_loss_terms
from cvj_ml.models.hazard.calibration import recalibrate
from cvj_ml.models.hazard.ridge import HEADS
from cvj_ml.models.hazard.tree_size import Choice
from cvj_ml.models.hazard.year_ago import YearAgoError, YearAgoLevel
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import observed_whole

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]
_Customers = npt.NDArray[np.int64]

YEAR = 365 * DAY

MOST_ROWS = 50_000
"""Hazard rows of a fit a year ago: its level is wanted, not its ranking."""

MOST_YEARS = 3

FEWEST_MOVED = 200
"""Customers who moved before the cut of a year ago, from which a fit there tells anything of the level."""

_LEAST = 1e-6


def learn_year_ago(run: Run, cut: int, spec: ModelSpec, choice: Choice) -> YearAgoLevel | None:
    """Return how far forecasts made exactly one to three years before the cut were off; None without any.

    Each is fitted on what was visible then, with a vocabulary, features and levels of its own, at most 50,000 hazard
    rows and the settings of ``choice``: nothing else comes from the later model. It is judged by what was visible at
    ``cut``, the arrival delay included. ``spec`` is the later model's: where it has other groups of features (a
    calendar that a year ago could not be learned), nothing is carried over, since a season would count twice.

    One year does not tell a season from an accident, so where the last matured fold has a year before it, too, it is
    asked first: a head whose forecast there would have been worse for the shift, beyond chance, is not shifted.
    """
    errors = _errors(run, cut, spec, choice) if run.config.model.year_ago_level else ()
    return YearAgoLevel(errors, _repeats(run, last_matured(run, cut).cut, cut, choice)) if errors else None


def _errors(run: Run, cut: int, spec: ModelSpec, choice: Choice) -> tuple[YearAgoError, ...]:
    found = list[YearAgoError]()
    for years in range(1, 1 + MOST_YEARS):
        then = cut - YEAR * years
        counted = _counted(run, then, cut)
        if not counted.any() or _groups(define(run.config, run.journey, run.blocks, then)) != _groups(spec):
            break
        if (forecast := _forecast(run, then, cut, choice)) is None:
            break
        said, converted, asked, customer, _ = forecast
        found.append(measured_error(said, converted, asked & counted, customer, then))
    return tuple(found)


def _repeats(run: Run, fold: int, cut: int, choice: Choice) -> tuple[bool, bool]:
    """Return of each head whether the level of a year before the fold would have helped there, or nobody knows."""
    if not _counted(run, fold - YEAR, fold).any():
        return True, True
    errors = _errors(run, fold, define(run.config, run.journey, run.blocks, fold), choice)
    if not errors or (forecast := _forecast(run, fold, cut, choice)) is None:
        return True, True
    said, converted, asked, customer, learned = forecast
    shifted = YearAgoLevel(errors).apply(said, learned)
    of_return, of_reach = (
        not _worse(shifted, said, converted, asked, customer, targets, run.seed)
        for targets in (slice(0, 1), slice(1, None))
    )
    return of_return, of_reach


def _worse(
    shifted: _F64, said: _F64, converted: _Mask, asked: _Mask, customer: _Customers, targets: slice, seed: int
) -> bool:
    """Return whether a head's log loss is higher for the shift, beyond chance over customers."""
    row, target, horizon = np.nonzero(asked[:, targets])
    if not len(row):
        return False
    at = (row, target, horizon)
    mine, own = (log_loss_terms(converted[:, targets][at], p[:, targets][at]) for p in (shifted, said))
    above, _ = paired_difference(mine, own, customer[row], draw_keys(DRAWS, seed))
    return above.low > 0


def _counted(run: Run, then: int, cut: int) -> _Mask:
    """Return which horizons some training snapshot had lived through, and of which the outcome is known at the cut."""
    grid, delay = training_grid(run.config, then), run.arrival_delay
    room = then - int(grid.min()) - delay if len(grid) else 0
    since = cut - then - delay
    return np.array([observed_whole(room, one) and observed_whole(since, one) for one in run.config.horizons])


def _forecast(run: Run, then: int, until: int, choice: Choice) -> tuple[_F64, _Mask, _Mask, _Customers, _Mask] | None:
    """Return what a fit at one instant said of everybody, what had happened by a later, what was asked, of whom.

    The last is what the fit had learned: all but the customers are (rows, targets, horizons). None where too few moved.
    """
    config, blocks, delay = run.config, run.blocks, run.arrival_delay
    definition = define(config, run.journey, blocks, then)
    grid = training_grid(config, then)
    history = build_panel(definition, blocks, grid, then, delay, max_rows=MOST_ROWS, seed=run.seed)
    if int(history.converters.max()) < FEWEST_MOVED:
        return None
    fit = fit_reach(history, run.seed, run.threads, given=Choice(choice.settings), progress=run.progress)
    test = build_panel(definition, blocks, np.array([then], dtype=np.int64), until, delay)
    predictor = Predictor(definition, fit.trees, fit.calibration)
    converted, known = test.matured()
    learned = predictor.learned[test.stage + 1]
    return predictor.predict(test, run.threads), converted, known & learned, test.customer, learned


def measured_error(
    said: npt.NDArray[np.float64],
    converted: npt.NDArray[np.bool_],
    asked: npt.NDArray[np.bool_],
    customer: npt.NDArray[np.int64],
    cut: int,
) -> YearAgoError:
    """Return the intercept of each head and horizon, pooled over the asked rows.

    ``said``, ``converted`` and ``asked`` are (rows, targets, horizons), ``customer`` is (rows,).
    """
    shape = (HEADS, said.shape[2])
    intercept, moved = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for head, targets in enumerate((slice(0, 1), slice(1, None))):
        for h in range(said.shape[2]):
            row, target = np.nonzero(asked[:, targets, h])
            y = converted[:, targets, h][row, target]
            if 0 < y.sum() < len(y):
                p = np.clip(said[:, targets, h][row, target], _LEAST, 1 - _LEAST)
                intercept[head, h], _ = recalibrate(logit(p), y, with_slope=False)
                moved[head, h] = len(np.unique(customer[row[y]]))
    return YearAgoError(cut, intercept, moved)


def _groups(spec: ModelSpec) -> set[str]:
    return {feature.group for feature in spec.catalogue.features}
