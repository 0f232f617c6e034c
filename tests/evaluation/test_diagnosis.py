"""Which part of a forecast was wrong, in words, and what several folds say together."""

from __future__ import annotations

import math
from collections.abc import Hashable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.evaluation.diagnosis import diagnoses, diagnosis, level_in_words, months
from cvj_ml.evaluation.over_folds import FAULTS, over_folds

ROW: dict[Hashable, Any] = {
    "question": "return",
    "horizon_days": 30,
    "contender": "model",
    "converted": 1240,
    "expected": 1000.4,
    **{"observed_expected": 1.24, "observed_expected_low": 1.18, "observed_expected_high": 1.30},
    **{"auc": 0.81, "auc_low": 0.80, "auc_high": 0.82},
    **{"calibration_slope": 1.02, "calibration_slope_low": 0.95, "calibration_slope_high": 1.09},
}
DAY = date(2024, 9, 20)


def test_a_wrong_level_is_told_from_a_ranking_that_held() -> None:
    assert diagnosis(ROW, DAY, 0.805) == (
        "Return within 30 days, September and October 2024: the ranking held (AUC 0.81, before 0.81); the level was"
        " 24 % too low: 1,240 came back, 1,000 were expected."
    )
    alone = "it ranked the mover higher in 81 % of all pairs (AUC 0.81); the level was 24 % too low"
    assert alone in diagnosis(ROW, DAY), "without earlier folds there is nothing that the ranking could have held to"


def test_every_word_rests_on_an_interval() -> None:
    held = ROW | {"observed_expected_low": 0.99, "question": "reach"}
    assert "the level held: 1,240 moves happened, 1,000 were expected" in diagnosis(held, DAY), "however far from 1"
    assert "the ranking became worse (AUC 0.81, before 0.83)" in diagnosis(ROW, DAY, 0.83)
    assert "the ranking became better (AUC 0.81, before 0.79)" in diagnosis(ROW, DAY, 0.79)
    assert "slope" not in diagnosis(ROW, DAY)
    extreme = ROW | {"calibration_slope": 0.8, "calibration_slope_low": 0.7, "calibration_slope_high": 0.9}
    assert diagnosis(extreme, DAY).endswith("; probabilities were too extreme (slope 0.80).")
    alike = ROW | {"calibration_slope": 1.2, "calibration_slope_low": 1.1, "calibration_slope_high": 1.3}
    assert diagnosis(alike, DAY).endswith("; probabilities were too alike (slope 1.20).")


@given(st.floats(0.01, 5), st.floats(0.001, 2))
def test_the_level_held_exactly_where_the_interval_holds_one(ratio: float, width: float) -> None:
    low, high = ratio - width, ratio + width
    words = level_in_words(ratio, low, high)
    assert (words == "the level held") == (low <= 1 <= high)
    if low > 1 or high < 1:
        assert words.endswith("too low" if ratio > 1 else "too high")


def test_what_is_not_known_is_not_told() -> None:
    assert level_in_words(1.2, math.nan, math.nan) == ""
    assert level_in_words(1.004, 1.001, 1.007) == "the level was less than 1 % too low"
    unknown = ROW | {name: math.nan for name in ROW if str(name).startswith(("auc", "calibration_slope"))}
    assert diagnosis(unknown, DAY).startswith("Return within 30 days, September and October 2024: the level was 24 %")


@given(st.dates(date(2000, 1, 1), date(2030, 1, 1)), st.integers(1, 800))
def test_months_are_those_of_the_window(first: date, days: int) -> None:
    """The first and the last day's month and year are named, and no season."""
    last = first + timedelta(days=days - 1)
    said = months(first, days)
    assert said.startswith(f"{first:%B}") and said.endswith(f"{last:%B} {last.year}")
    assert (str(first.year) in said) and (" to " in said or " and " in said) == (f"{first:%Y%m}" != f"{last:%Y%m}")


def test_months_by_hand() -> None:
    assert months(date(2025, 3, 1), 31) == "March 2025" and months(date(2025, 3, 1), 32) == "March and April 2025"
    assert months(date(2025, 3, 1), 90) == "March to May 2025"
    assert months(date(2024, 12, 24), 30) == "December 2024 to January 2025"


def folds(**figures: list[float]) -> pd.DataFrame:
    """Rows of three folds for a model and a rival, whose figures stand in turn."""
    rows = [
        ROW | {"fold": f"2024-0{k + 1}-01", "contender": name, **dict.fromkeys(FAULTS, 0.5)}
        for k in range(3)
        for name in ("model", "rival")
    ]
    return pd.DataFrame(rows).assign(**figures)


def test_folds_are_told_beside_those_before_them() -> None:
    table = folds(auc=[0.70, 0.9, 0.81, 0.9, 0.81, 0.9])
    found = diagnoses(table, "model")
    assert found["fold"].tolist() == ["2024-01-01", "2024-02-01", "2024-03-01"]
    first, second, third = found["finding"]
    assert "before" not in first and "became better (AUC 0.81, before 0.70)" in second
    assert f"before {(0.70 + 0.81) / 2:.2f}" in third
    assert [month in text for month, text in zip(("January", "February", "March"), found["finding"], strict=True)]


def test_folds_together_by_hand() -> None:
    """Lower losses win, higher AUCs, and the ratio nearer to 1 on the logarithm; equal ones win both."""
    table = folds(
        log_loss=[0.2, 0.3, 0.4, 0.3, 0.3, 0.3],
        auc=[0.8, 0.7, 0.6, 0.7, 0.7, 0.7],
        observed_expected=[2.0, 0.4, 1.1, 1.0, 0.6, 1.5],
    )
    found = over_folds(table).set_index(["contender", "figure"])
    loss = found.loc[("model", "log_loss")]
    assert (loss["folds"], loss["won"], loss["worst"], loss["worst_fold"]) == (3, 2, 0.4, "2024-02-01")
    assert loss["mean"] == pytest.approx(0.3)
    assert loss["standard_error"] == pytest.approx(np.std([0.2, 0.4, 0.3], ddof=1) / math.sqrt(3))
    assert found.loc[("rival", "log_loss"), "won"] == 2
    area = found.loc[("model", "auc")]
    assert (area["won"], area["worst"], area["worst_fold"]) == (2, 0.6, "2024-02-01")
    ratio = found.loc[("model", "observed_expected")]
    assert (ratio["won"], ratio["worst"], ratio["worst_fold"]) == (1, 2.0, "2024-01-01")
    assert found.loc[("rival", "observed_expected"), "won"] == 2
    alone = over_folds(table[table["fold"] == "2024-01-01"])
    assert alone["standard_error"].isna().all() and (alone["folds"] == 1).all()


def test_a_fold_that_lacks_a_figure_does_not_count() -> None:
    table = folds(log_loss=[0.2, 0.3, math.nan, 0.3, 0.3, 0.2])
    found = over_folds(table).set_index(["contender", "figure"])
    assert found.loc[("rival", "log_loss"), ["folds", "won"]].tolist() == [2, 1]
    assert over_folds(table.head(0)).empty and diagnoses(table.head(0), "model").empty
