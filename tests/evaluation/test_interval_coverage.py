"""Do ranges hold as often as they say: of levels that were drawn they do, of levels that moved more they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from cvj_ml.evaluation.interval_coverage import clustered_share, coverage_of_ranges, judged_ranges
from cvj_ml.evaluation.past_forecasts import PastForecast

FOLDS = 6
ORIGINS = ("A", "B")


def a_history(seed: int, spread: float, *, last: float = 1.0) -> list[PastForecast]:
    """Folds with a level of the moment that all transitions share; the last fold's moves ``last`` times as far."""
    random = np.random.default_rng(seed)
    found = []
    for fold in range(FOLDS):
        level = np.exp(spread * random.standard_normal() * (last if fold == FOLDS - 1 else 1))
        for origin in ORIGINS:
            p = random.beta(1, 12, 800)
            moves = int((random.random(800) < np.minimum(p * level, 1)).sum())
            instant = 100 * seed + fold
            found.append(
                PastForecast(instant, origin, "C", 30, 800, 800, float(p.sum()), float((p * (1 - p)).sum()), moves)
            )
    return found


def judged_of(spread: float, histories: int, **more: float) -> pd.DataFrame:
    """The forecasts of independent histories that have three folds or more before them."""
    parts = [judged_ranges(a_history(seed, spread, **more)) for seed in range(histories)]
    judged = pd.concat(parts, ignore_index=True)
    return judged[judged["folds"] >= 3]


def last_of(judged: pd.DataFrame) -> pd.DataFrame:
    """The last forecasts of histories."""
    return judged[judged["folds"] == FOLDS - 1]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.1, 0.4])
def test_ranges_hold_as_often_as_they_say(spread: float) -> None:
    (row,) = coverage_of_ranges(judged_of(spread, 70)).to_dict("records")
    assert row["verdict"] == "holds", row
    assert row["coverage_80_low"] <= 0.8 <= row["coverage_80_high"]
    assert row["coverage_95_low"] <= 0.95 <= row["coverage_95_high"]
    assert (row["forecasts"], row["instants"], row["without"]) == (420, 210, 0)
    assert row["median_width_80"] < row["median_width_95"]


def test_without_any_spread_ranges_hold_a_little_oftener() -> None:
    """A spread that is estimated is never below nought, so chance alone makes ranges somewhat too wide."""
    (row,) = coverage_of_ranges(judged_of(0.0, 30)).to_dict("records")
    assert 0.79 < row["coverage_80"] < 0.9 and row["coverage_95"] > 0.93


def test_the_check_fails_where_levels_move_more_than_they_did() -> None:
    (row,) = coverage_of_ranges(last_of(judged_of(0.3, 30, last=3.0))).to_dict("records")
    assert row["verdict"] == "too narrow at 80 %; too narrow at 95 %", row


def test_the_check_fails_where_levels_have_become_calm() -> None:
    (row,) = coverage_of_ranges(last_of(judged_of(0.5, 30, last=0.1))).to_dict("records")
    assert row["verdict"].startswith("too wide at 80 %"), row


def test_earlier_folds_alone_teach_unless_all_others_may() -> None:
    history = a_history(1, 0.2)
    expanding, others = judged_ranges(history), judged_ranges(history, "leave one out")
    assert expanding.groupby("instant")["folds"].first().tolist() == [0, 1, 2, 3, 4, 5]
    assert expanding["inside_80"].isna().tolist() == (expanding["folds"] < 3).tolist()
    assert set(others["folds"]) == {FOLDS - 1} and others["inside_95"].notna().all()
    (row,) = coverage_of_ranges(expanding).to_dict("records")
    assert (row["forecasts"], row["without"], row["instants"]) == (6, 6, 3)
    by = coverage_of_ranges(expanding, ["from", "horizon_days"])
    assert by["from"].tolist() == list(ORIGINS) and by["forecasts"].tolist() == [3, 3]
    (few,) = coverage_of_ranges(expanding[expanding["instant"] < 104]).to_dict("records")
    assert few["verdict"] == "too few instants to judge by: 1, of at least 3"
    assert np.isnan(few["coverage_80_low"])


def test_forecasts_of_one_instant_are_no_independent_ones() -> None:
    """Ten copies of each value say no more than one of each."""
    values = (np.arange(12) % 4 > 0).astype(np.float64)
    one = clustered_share(values, np.arange(12))
    copied = clustered_share(np.repeat(values, 10), np.repeat(np.arange(12), 10))
    apart = clustered_share(np.repeat(values, 10), np.arange(120))
    assert copied.estimate == one.estimate == apart.estimate == 0.75
    assert copied.high - copied.low > 2 * (apart.high - apart.low)
    assert copied == pytest.approx(one, abs=0.06)
    # Of values that are independent it is Clopper's and Pearson's own.
    assert apart.low == pytest.approx(beta.ppf(0.025, 90, 31), abs=0.003)
    same = clustered_share(np.ones(50), np.repeat(np.arange(5), 10))
    assert same.estimate == same.high == 1.0 and same.low < 0.7
    assert np.isnan(clustered_share(np.ones(5), np.zeros(5)).low)
