"""The story of ``cvj-ml train --tune``: settings are searched for on earlier folds, and every trial is logged."""

from __future__ import annotations

from cvj_ml import tracking
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.tuning import Search, Trial, search
from cvj_ml.models.fitting import Settings
from cvj_ml.pipeline.opening import Histories, Watcher
from cvj_ml.windows import to_datetime


def choose_settings(histories: Histories, reported: Fold, trials: int, watcher: Watcher) -> Settings | None:
    """Return the settings to train with, None for the package's own; the reported fold is not looked at."""
    config = histories.config
    with watcher.step(f"Trying {trials} settings on earlier folds") as progress:
        found = search(
            config,
            histories.engine(),
            histories.visible.unobserved,
            reported,
            histories.store.arrival_delay,
            trials,
            histories.threads,
            progress,
        )
    watcher.say(found.sentence)
    cut = to_datetime(reported.cut, config.zone).isoformat()
    tracking.log_search(config, _record(histories, found, cut), [_trial(one, cut) for one in found.trials])
    return found.settings


def _record(histories: Histories, found: Search, cut: str) -> tracking.Record:
    zone = histories.config.zone
    return tracking.Record(
        parameters={
            **(_named(found.settings) if found.settings else {}),
            "folds": " ".join(to_datetime(fold.cut, zone).date().isoformat() for fold in found.folds) or "none",
            "verdict": found.sentence,
        },
        cut=cut,
        inputs=histories.store.fingerprints,
        metrics={},
    )


def _trial(one: Trial, cut: str) -> tracking.Record:
    above = {"": one.above.estimate, "_low": one.above.low, "_high": one.above.high}
    return tracking.Record(
        parameters=_named(one.settings),
        cut=cut,
        inputs={},
        metrics={
            "validation.log_loss": one.log_loss,
            **{f"validation.log_loss_above_own{bound}": value for bound, value in above.items()},
            "validation.p": one.p,
        },
    )


def _named(settings: Settings) -> dict[str, str | int | float]:
    return {f"trees_{name}": value for name, value in settings.as_dict().items()}
