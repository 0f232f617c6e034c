"""Folds: an instant D, what was known before it, and what came after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cvj_ml.config import DAY, format_duration
from cvj_ml.errors import ConfigError, raise_all
from cvj_ml.run import Run
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import midnight, observed_whole, to_datetime


@dataclass(frozen=True, slots=True)
class Fold:
    """Train on what was visible before ``cut``; evaluate snapshots at ``cut`` by what was visible at ``until``."""

    cut: int
    until: int


def last_matured(run: Run, until: int) -> Fold:
    """Return the latest fold whose every horizon is over by ``until``."""
    latest = until - max(run.config.horizons) - run.arrival_delay
    return Fold(midnight(to_datetime(latest, run.config.zone).date(), run.config.zone), until)


def rolling(run: Run, until: int, folds: int, spacing: int | None = None) -> list[Fold]:
    """Return up to ``folds`` matured folds, the oldest first.

    They stand ``spacing`` microseconds apart, whole days, by default the longest horizon. ConfigError for less: the
    same moves would be evaluated twice.
    """
    config = run.config
    longest = max(config.horizons)
    apart = longest if spacing is None else spacing
    if apart < longest or apart % DAY:
        raise ConfigError(
            f"Folds stand whole days and at least the longest horizon ({format_duration(longest)}) apart, found"
            f" {format_duration(apart)}: nearer ones would judge the same moves twice. Choose a longer spacing."
        )
    found = [last_matured(run, until)]
    while len(found) < folds:
        day = to_datetime(found[-1].cut, config.zone).date() - timedelta(days=apart // DAY)
        fold = Fold(midnight(day, config.zone), until)
        if unteachable(run, fold.cut):
            break
        found.append(fold)
    return found[::-1]


def unteachable(run: Run, cut: int) -> list[str]:
    """Return, by name, the horizons of which no training snapshot can see the end by the cut."""
    config = run.config
    grid = training_grid(config, cut)
    if not len(grid):
        return [format_duration(horizon) for horizon in config.horizons]
    room = cut - int(grid.min()) - run.arrival_delay
    return [format_duration(horizon) for horizon in config.horizons if not observed_whole(room, horizon)]


def require_teachable(run: Run, cut: int, what: str) -> None:
    """Raise ConfigError that names every horizon which the data before the cut cannot mature."""
    faults = [
        f"the horizon {name} is not over for any training snapshot; shorten it, or give more history"
        for name in unteachable(run, cut)
    ]
    config = run.config
    day = to_datetime(cut, config.zone).date()
    raise_all(
        ConfigError,
        f"{what} at {day} has too little history (from {config.history_from} and a burn-in of"
        f" {format_duration(config.burn_in)}):",
        faults,
    )
