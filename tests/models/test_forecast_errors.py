"""Ranges of expected numbers of moves: against sums written out, and against levels that were drawn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cvj_ml.models.bundle.forecast_errors import (
    EVERYBODY,
    LEVELS,
    CountRange,
    Errors,
    ExpectedMoves,
    ForecastErrors,
    between_folds,
    expected_moves,
    ranges_of,
)

DRAWS = 40_000
BOUNDS = ("low_80", "high_80", "low_95", "high_95")


@given(st.integers(1, 300), st.floats(0.001, 0.999))
def test_without_a_spread_a_range_is_the_binomials_own(customers: int, p: float) -> None:
    found = ranges_of(customers * p, customers * p * (1 - p), customers, 0.0, 5)
    counts = np.arange(customers + 1)
    middle = binom.cdf(counts - 1, customers, p) + binom.pmf(counts, customers, p) / 2
    for level, (low, high) in zip(LEVELS, found, strict=True):
        tail = (1 - level / 100) / 2
        inside = counts[(middle >= tail - 1e-9) & (middle <= 1 - tail + 1e-9)]
        assert (low, high) == (inside.min(), inside.max())


@settings(max_examples=30)
@given(st.integers(40, 2000), st.floats(0.01, 0.9), st.floats(0, 0.6), st.integers(3, 8))
def test_a_range_holds_as_often_as_it_says(customers: int, p: float, spread: float, folds: int) -> None:
    """Levels are drawn from the t distribution, and moves given the level."""
    random = np.random.default_rng(customers)
    expected = customers * p
    found = ranges_of(expected, expected * (1 - p), customers, spread, folds)
    level = np.exp(spread * random.standard_t(folds - 1, DRAWS))
    trials = np.floor(np.minimum(customers * level, 1e7) + random.random(DRAWS)).astype(np.int64)
    moves = np.minimum(random.binomial(trials, p), customers)

    def middle(k: int) -> float:
        return float((moves < k).mean() + (moves == k).mean() / 2)

    for (low, high), percent in zip(found, LEVELS, strict=True):
        tail = (1 - percent / 100) / 2
        assert middle(low) >= tail - 0.02 and middle(high) <= 1 - tail + 0.02
        assert low == 0 or middle(low - 1) <= tail + 0.02
        assert high == customers or middle(high + 1) >= 1 - tail - 0.02


@given(st.floats(0, 5000), st.floats(0, 1), st.floats(0, 1), st.integers(3, 9))
def test_ranges_are_nested_and_grow_with_the_spread(expected: float, share: float, spread: float, folds: int) -> None:
    customers = math.ceil(expected / max(share, 0.01)) + 1
    inner, outer = ranges_of(expected, expected * (1 - share), customers, spread, folds)
    assert 0 <= outer.low <= inner.low <= inner.high <= outer.high <= customers
    wider = ranges_of(expected, expected * (1 - share), customers, spread + 0.3, folds)
    assert wider[1].low <= outer.low and outer.high <= wider[1].high


def test_the_spread_is_what_sampling_does_not_explain() -> None:
    expected, variance = [400.0] * 4, [360.0] * 4
    found = between_folds(expected, variance, [250, 650, 330, 480])
    assert found is not None
    error = np.log((np.array([250, 650, 330, 480]) + 0.5) / 400.5)
    assert np.sum(error**2 / (found**2 + 360 / 400.5**2)) == pytest.approx(4, rel=1e-4)
    assert between_folds(expected, variance, [400, 410, 391, 405]) == 0.0
    assert between_folds(expected[:2], variance[:2], [250, 650]) is None


def test_a_forecast_that_is_always_too_high_has_a_spread() -> None:
    """The range stands around the forecast, so a lasting error has to widen it."""
    found = between_folds([1000.0] * 5, [900.0] * 5, [500] * 5)
    assert found == pytest.approx(math.log(1000.5 / 500.5), rel=0.01)


def errors(number: int, folds: int, origin: str = "A") -> Errors:
    spread = 0.1 * folds if folds >= 3 else None
    return Errors(origin, "B", 30, number, (9.5,) * folds, (10,) * folds, spread)


RECORD = ForecastErrors(("2024-06-01T00:00:00+00:00",), (errors(50, 5), errors(200, 4), errors(1000, 2), errors(0, 3)))


@pytest.mark.parametrize(
    ("customers", "of", "number"),
    [(50, 900, 50), (99, 900, 50), (101, 900, 200), (800, 900, EVERYBODY), (900, 900, EVERYBODY), (1000, 9000, 200)],
)
def test_the_errors_are_of_about_as_many(customers: int, of: int, number: int) -> None:
    """Silent error 37: a list takes the errors of past tops of its own size, of those that have enough folds."""
    found = RECORD.find("A", "B", 30, customers, of)
    assert found is not None and found.number == number
    assert RECORD.find("A", "B", 7, customers, of) is None and RECORD.find("B", "A", 30, customers, of) is None


def test_too_few_folds_are_told() -> None:
    p = np.full(100, 0.1)
    few = ForecastErrors((), (errors(EVERYBODY, 2),)).forecast("A", "B", 30, p, 100)
    assert few.words == "10 expected (no interval: only 2 past folds)" and not few.ranges
    assert ForecastErrors((), ()).forecast("A", "B", 30, p, 100).words == "10 expected (no interval: no past folds)"
    assert expected_moves(np.full(10, 0.1), 1, None).words == "1.0 expected (no interval: only 1 past fold)"
    assert few.columns("x") == {"x": pytest.approx(10), **{f"x_{one}": None for one in BOUNDS}}


def test_a_number_is_told_with_its_range() -> None:
    found = ExpectedMoves(5000, 638.2, 6, 0.1, (CountRange(520, 1760), CountRange(450, 1860)))
    assert found.words == "638 expected, 520 to 1,760 (80 %)"
    columns = found.columns("moves")
    assert columns == {
        "moves": 638.2,
        **{"moves_low_80": 520, "moves_high_80": 1760, "moves_low_95": 450, "moves_high_95": 1860},
    }
    row = {**columns, "past_folds": 6, "moves_spread": 0.1}
    assert ExpectedMoves.from_columns(row, "moves", 5000) == found
    older = ExpectedMoves.from_columns({"moves": 638.2}, "moves", 5000)
    assert (older.expected, older.folds, older.spread, older.ranges) == (638.2, 0, None, ())


def test_errors_survive_json() -> None:
    assert ForecastErrors.from_dict(json.loads(json.dumps(RECORD.as_dict()))) == RECORD
