"""Folds: the latest that is judged whole, and earlier ones that share no outcome with it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tests.oracles.cases import Blocks

from cvj_ml.config import DAY, Config
from cvj_ml.errors import ConfigError
from cvj_ml.evaluation.folds import last_matured, require_teachable, rolling
from cvj_ml.journey import Journey
from cvj_ml.run import Run
from cvj_ml.windows import midnight, parse_as_of, to_datetime

HOUR = 3_600_000_000


def config(**settings: Any) -> Config:
    return Config.model_validate(
        {
            "name": "shop",
            "time_zone": "Europe/London",
            "history_from": "2022-01-01",
            "sources": {"log": {"path": "log.csv"}},
            "journey": {"name": "short", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]},
            "horizons": ["7d", "90d"],
            **settings,
        }
    )


@pytest.mark.parametrize("until", ["2024-04-01", "2024-07-01", "2024-11-15T13:45", "2025-01-01"])
@pytest.mark.parametrize("delay", [0, 1, 2 * DAY])
def test_the_last_fold_is_the_latest_midnight_whose_horizons_are_all_over(until: str, delay: int) -> None:
    """Silent error 2: the arrival delay counts."""
    one = config()
    end = parse_as_of(until, one.zone)
    fold = last_matured(Run(one, Journey(one.journey), Blocks([]), delay, 1), end)
    local = to_datetime(fold.cut, one.zone)
    assert fold.until == end
    assert fold.cut == midnight(local.date(), one.zone)
    assert fold.cut + 90 * DAY + delay <= end
    assert fold.cut + 90 * DAY + delay > end - DAY - HOUR, "a day (of up to 25 hours) later is too late"


def test_folds_stand_at_least_the_longest_horizon_apart() -> None:
    """Silent error 18: no outcome is judged in two folds, also over changes of the clock."""
    one = config()
    folds = rolling(Run(one, Journey(one.journey), Blocks([]), 2 * DAY, 1), parse_as_of("2025-01-01", one.zone), 8)
    assert len(folds) == 8
    cuts = [fold.cut for fold in folds]
    assert cuts == sorted(cuts)
    for earlier, later in itertools.pairwise(cuts):
        # In local days, of which one is an hour shorter in spring.
        assert later - earlier >= 90 * DAY - HOUR


def test_folds_end_where_nothing_could_be_learned_any_more() -> None:
    one = config(history_from="2024-01-01")
    end = parse_as_of("2025-01-01", one.zone)
    run = Run(one, Journey(one.journey), Blocks([]), 0, 1)
    folds = rolling(run, end, 8)
    assert 1 <= len(folds) < 4
    for fold in folds:
        require_teachable(run, fold.cut, "The backtest")
    with pytest.raises(ConfigError, match="the horizon 90d is not over for any training snapshot"):
        require_teachable(run, folds[0].cut - 90 * DAY, "The backtest")
