"""Folds: an instant D, what was known before it, and what came after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cvj_ml.config import DAY, Config, format_duration
from cvj_ml.errors import ConfigError, raise_all
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import midnight, observed_whole, to_datetime


@dataclass(frozen=True, slots=True)
class Fold:
    """Train on what was visible before ``cut``; judge snapshots at ``cut`` by what was visible at ``until``."""

    cut: int
    until: int


def last_matured(config: Config, until: int, arrival_delay: int) -> Fold:
    """Return the latest fold whose every horizon is over by ``until``."""
    latest = until - max(config.horizons) - arrival_delay
    return Fold(midnight(to_datetime(latest, config.zone).date(), config.zone), until)


def rolling(config: Config, until: int, arrival_delay: int, folds: int, spacing: int | None = None) -> list[Fold]:
    """Return up to ``folds`` matured folds, the oldest first.

    They stand ``spacing`` microseconds apart, whole days, by default the longest horizon. ConfigError for less: the
    same moves would be judged twice.
    """
    longest = max(config.horizons)
    apart = longest if spacing is None else spacing
    if apart < longest or apart % DAY:
        raise ConfigError(
            f"Folds stand whole days and at least the longest horizon ({format_duration(longest)}) apart, found"
            f" {format_duration(apart)}: nearer ones would judge the same moves twice. Choose a longer spacing."
        )
    found = [last_matured(config, until, arrival_delay)]
    while len(found) < folds:
        day = to_datetime(found[-1].cut, config.zone).date() - timedelta(days=apart // DAY)
        fold = Fold(midnight(day, config.zone), until)
        if unteachable(config, fold.cut, arrival_delay):
            break
        found.append(fold)
    return found[::-1]


def unteachable(config: Config, cut: int, arrival_delay: int) -> list[str]:
    """Return, by name, the horizons of which no training snapshot can see the end by the cut."""
    grid = training_grid(config, cut)
    if not len(grid):
        return [format_duration(horizon) for horizon in config.horizons]
    room = cut - int(grid.min()) - arrival_delay
    return [format_duration(horizon) for horizon in config.horizons if not observed_whole(room, horizon)]


def require_teachable(config: Config, cut: int, arrival_delay: int, what: str) -> None:
    """Raise ConfigError that names every horizon which the data before the cut cannot mature."""
    faults = [
        f"the horizon {name} is not over for any training snapshot; shorten it, or give more history"
        for name in unteachable(config, cut, arrival_delay)
    ]
    day = to_datetime(cut, config.zone).date()
    raise_all(
        ConfigError,
        f"{what} at {day} has too little history (from {config.history_from} and a burn-in of"
        f" {format_duration(config.burn_in)}):",
        faults,
    )
