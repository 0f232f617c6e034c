"""A search for the settings of the trees, on folds whose outcomes are over before the fold that is reported.

A setting replaces the package's own only if its log loss is lower beyond chance, over customers and after Holm's
correction for the number that were tried: the best of many is the luckiest, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cvj_ml.errors import CvjError
from cvj_ml.evaluation.assessment import SIGNIFICANT, outcomes_of, stacked
from cvj_ml.evaluation.backtesting import MODEL, Panels, build_panels, evaluated
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys, holm, paired_difference
from cvj_ml.evaluation.folds import Fold, rolling, unteachable
from cvj_ml.evaluation.metrics import Interval, log_loss_terms
from cvj_ml.evaluation.promotion import deciding_cells
from cvj_ml.models.hazard.fitting import Settings
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.run import Run

if TYPE_CHECKING:
    from optuna import Trial as OptunaTrial

_F64 = npt.NDArray[np.float64]

FOLDS = 2
"""Earlier folds that a setting is evaluated on, where the history has room for them."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings that were tried: their log loss, and how far it lies above that of the package's own."""

    settings: Settings
    log_loss: float
    above: Interval
    p: float


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found: the settings to train with (None: the package's own), why, every trial, and the folds."""

    settings: Settings | None
    sentence: str
    trials: tuple[Trial, ...]
    folds: tuple[Fold, ...]


def search(
    run: Run,
    reported: Fold,
    trials: int,
) -> Search:
    """Try settings on up to two folds whose outcomes were visible before the reported fold's cut."""
    optuna = _optuna()
    folds = tuple(fold for fold in rolling(run, reported.cut, FOLDS) if not unteachable(run, fold.cut))
    if not folds:
        return Search(None, "Kept the package's settings: the history has no earlier fold to choose on.", (), ())
    panels = [build_panels(run, fold) for fold in folds]

    def losses(settings: Settings | None) -> tuple[_F64, npt.NDArray[np.int64]]:
        parts = [_losses(run, one, settings) for one in panels]
        return np.concatenate([terms for terms, _ in parts]), np.concatenate([customer for _, customer in parts])

    own, customer = losses(None)
    if not len(own):
        return Search(None, "Kept the package's settings: too few customers moved to choose by.", (), folds)
    keys, found = draw_keys(DRAWS, run.seed), list[Trial]()

    def objective(trial: OptunaTrial) -> float:
        settings = replace(_suggest(trial), **run.config.model.trees.given)
        terms, _ = losses(settings)
        found.append(Trial(settings, float(terms.mean()), *paired_difference(terms, own, customer, keys)))
        if run.progress is not None:
            run.progress(len(found), trials)
        return found[-1].log_loss

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(sampler=optuna.samplers.TPESampler(seed=run.seed)).optimize(objective, trials)
    return _choose(found, folds)


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise CvjError(
            "A search for settings needs optuna, which is not installed. Install it: pip install 'cvj_ml[tune]'."
        ) from None
    return optuna


def _suggest(trial: OptunaTrial) -> Settings:
    return Settings(
        leaves=trial.suggest_int("leaves", 3, 31, log=True),
        rows_a_leaf=trial.suggest_int("rows_a_leaf", 50, 2000, log=True),
        lambda_l2=trial.suggest_float("lambda_l2", 1.0, 300.0, log=True),
        path_smooth=trial.suggest_float("path_smooth", 1.0, 1000.0, log=True),
        rounds=trial.suggest_int("rounds", 50, 600, log=True),
        learning_rate=trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
    )


def _losses(run: Run, panels: Panels, settings: Settings | None) -> tuple[_F64, npt.NDArray[np.int64]]:
    """Return the log loss of every row that counts, and whose row it is."""
    fit = fit_reach(panels.history, run.seed, run.threads, given=settings)
    predictor = Predictor(panels.history.definition, fit.trees, fit.calibration)
    found = evaluated(panels.test, {MODEL: predictor.predict(panels.test, run.threads)})
    cells = deciding_cells(found)
    if not cells:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    converted, customer = outcomes_of(found, cells)
    return log_loss_terms(converted, stacked(found, cells, MODEL)), customer


def _choose(found: Sequence[Trial], folds: tuple[Fold, ...]) -> Search:
    best = min(range(len(found)), key=lambda i: found[i].log_loss)
    one, p = found[best], holm([trial.p for trial in found])[best]
    numbers = (
        f"the best of {len(found)} trials changes log loss by {one.above.estimate:+.4f} (95 % interval"
        f" {one.above.low:+.4f} to {one.above.high:+.4f}; p = {p:.2g} after Holm's correction)"
    )
    if one.above.estimate < 0 and p < SIGNIFICANT:
        return Search(one.settings, f"Chose other settings: {numbers}.", tuple(found), folds)
    return Search(None, f"Kept the package's settings: {numbers}.", tuple(found), folds)
