"""Baselines: rates by hand, slow oracles, and what they must not learn from."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from cvj_ml.errors import DataError
from cvj_ml.evaluation.baselines import RFM, LogisticRFM, Outcomes, StageRate, StageRecency, ahead, baselines

TARGETS, HORIZONS = 4, 2  # return and three stages


def rfm(stage: list[int], recency: list[float] | None = None) -> RFM:
    n = len(stage)
    return RFM(np.array(stage, np.int8), np.array(recency or [1.0] * n), np.ones(n), np.zeros(n))


def outcomes(
    found: RFM, customers: list[int], converted: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_] | None = None
) -> Outcomes:
    return Outcomes(
        found, np.array(customers, np.int64), converted, np.ones_like(converted) if known is None else known
    )


def random_history(n: int, seed: int, customers: int = 40) -> Outcomes:
    random = np.random.default_rng(seed)
    recency = np.round(random.exponential(30, n))
    recency[random.random(n) < 0.1] = math.nan
    found = RFM(
        random.integers(-1, 3, n).astype(np.int8),
        recency,
        random.integers(0, 9, n).astype(np.float64),
        np.round(random.normal(20, 40, n)),
    )
    chance = np.where(np.isnan(recency) | (recency > 20), 0.15, 0.5)
    converted = random.random((n, TARGETS, HORIZONS)) < chance[:, None, None]
    return Outcomes(found, random.integers(0, customers, n), converted, random.random(converted.shape) < 0.8)


def test_return_is_always_ahead_and_stages_only_above() -> None:
    assert ahead(np.array([-1, 0, 2], np.int8), 4).tolist() == [
        [True, True, True, True],
        [True, False, True, True],
        [True, False, False, False],
    ]


def smoothed(converted: float, rows: float) -> float:
    """A rate that is never 0 or 1."""
    return (converted + 0.5) / (rows + 1)


def test_stage_rates_by_hand() -> None:
    converted = np.zeros((5, 3, 1), bool)
    known = np.ones((5, 3, 1), bool)
    converted[[0, 3], 2, 0] = True  # stage 1 is reached by two of the four in stage 0 …
    converted[1, 2, 0], known[1, 2, 0] = True, False  # … of whom one is not matured, whatever it did
    converted[:, 1, 0] = True  # stage 0 lies behind everybody: never learnt
    converted[4, 0, 0] = True
    model = StageRate().fit(outcomes(rfm([0, 0, 0, 0, 1]), [0, 1, 2, 3, 4], converted, known))
    found = model.predict(rfm([0, 1]))[:, :, 0]
    assert found[0, 2] == pytest.approx(smoothed(2, 3))
    assert found[0, 0] == pytest.approx(smoothed(0, 4)) and found[1, 0] == pytest.approx(smoothed(1, 1))
    assert np.isnan(found[:, 1]).all() and np.isnan(found[1, 2])


def test_an_unseen_stage_gets_the_rate_over_all_stages_with_the_target_ahead() -> None:
    converted = np.zeros((4, 4, 1), bool)
    converted[0, 3, 0] = True
    model = StageRate().fit(outcomes(rfm([0, 0, 0, 2]), [0, 1, 2, 3], converted))
    assert model.predict(rfm([1]))[0, 3, 0] == pytest.approx(smoothed(1, 3))
    assert math.isnan(model.predict(rfm([1]))[0, 1, 0])


def test_recency_rates_by_hand() -> None:
    # 50 snapshots silent for 10 days, 40 of which move; 50 for 80 days, 10 of which do. All of different customers.
    recency = [10.0] * 50 + [80.0] * 50
    converted = np.zeros((100, 2, 1), bool)
    converted[:40, 0, 0] = True
    converted[50:60, 0, 0] = True
    model = StageRecency().fit(outcomes(rfm([0] * 100, recency), list(range(100)), converted))
    weight = 25 / 35  # 50 customers, of whom half move at the stage's rate, against a prior of 10
    found = model.predict(rfm([0, 0, 0, 0], [10.0, 80.0, 300.0, math.nan]))[:, 0, 0]
    assert found[0] == pytest.approx(weight * smoothed(40, 50) + (1 - weight) * 0.5)
    assert found[1] == pytest.approx(weight * smoothed(10, 50) + (1 - weight) * 0.5)
    assert found[2] in (found[1], 0.5)
    assert found[3] == 0.5  # nobody without any touchpoint was seen


def test_recency_counts_evidence_in_customers_not_rows() -> None:
    recency = [10.0] * 50 + [80.0] * 50
    converted = np.zeros((100, 2, 1), bool)
    converted[:50, 0, 0] = True
    history = rfm([0] * 100, recency)
    many = StageRecency().fit(outcomes(history, list(range(100)), converted)).predict(rfm([0], [10.0]))
    one = StageRecency().fit(outcomes(history, [0] * 50 + [1] * 50, converted)).predict(rfm([0], [10.0]))
    assert many[0, 0, 0] == pytest.approx(smoothed(50, 50) * 25 / 35 + 0.5 * 10 / 35)
    assert one[0, 0, 0] == pytest.approx(smoothed(50, 50) * 0.5 / 10.5 + 0.5 * 10 / 10.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 60]))
def test_rates_equal_a_plain_loop(seed: int, n: int) -> None:
    history, asked = random_history(n, seed), random_history(15, seed + 1).rfm
    stage_found = StageRate().fit(history).predict(asked)
    recency = StageRecency().fit(history)
    recency_found = recency.predict(asked)
    values = history.rfm.recency_days

    def bin_of(days: float) -> int:
        return -1 if math.isnan(days) else sum(days > edge for edge in recency.edges)

    for i, j, h in np.ndindex(15, TARGETS, HORIZONS):
        stage = asked.stage[i]
        if j > 0 and j - 1 <= stage:
            assert math.isnan(stage_found[i, j, h]) and math.isnan(recency_found[i, j, h])
            continue
        able = [r for r in range(n) if history.known[r, j, h] and (j == 0 or j - 1 > history.rfm.stage[r])]
        here = [r for r in able if history.rfm.stage[r] == stage]
        inside = [r for r in here if bin_of(float(values[r])) == bin_of(float(asked.recency_days[i]))]
        if not able:
            assert math.isnan(stage_found[i, j, h]) and math.isnan(recency_found[i, j, h])
            continue
        rate = smoothed(sum(history.converted[r, j, h] for r in here or able), len(here or able))
        assert stage_found[i, j, h] == pytest.approx(rate)
        expected = len({history.customers[r] for r in inside}) * rate
        narrow = smoothed(sum(history.converted[r, j, h] for r in inside), len(inside)) if inside else rate
        assert recency_found[i, j, h] == pytest.approx((expected * narrow + 10 * rate) / (expected + 10))


def test_logistic_equals_scikit_learn_on_standardised_logarithms() -> None:
    history = random_history(3000, 1, customers=3000)
    asked = random_history(50, 2).rfm
    found = LogisticRFM().fit(history).predict(asked)
    longest = np.nanmax(history.rfm.recency_days)

    def inputs(of: RFM) -> npt.NDArray[np.float64]:
        recency = np.where(np.isnan(of.recency_days), longest, of.recency_days)
        return np.column_stack(
            [np.log(1 + recency), np.log(1 + of.frequency), np.sign(of.value) * np.log(1 + abs(of.value))]
        )

    rows = (history.rfm.stage == 0) & history.known[:, 2, 1]
    x = inputs(history.rfm)[rows]
    reference = LogisticRegression(tol=1e-10).fit((x - x.mean(0)) / x.std(0), history.converted[rows, 2, 1])
    here = asked.stage == 0
    expected = reference.predict_proba((inputs(asked)[here] - x.mean(0)) / x.std(0))[:, 1]
    assert found[here, 2, 1] == pytest.approx(expected, abs=1e-4)
    assert np.ptp(expected) > 0.1


def test_logistic_falls_back_to_the_rate_under_ten_customers_who_moved() -> None:
    n = 200
    recency = list(np.linspace(1, 100, n))
    converted = np.zeros((n, 2, 1), bool)
    converted[:100, 0, 0] = True
    asked = rfm([0, 0], [1.0, 100.0])
    few = LogisticRFM().fit(outcomes(rfm([0] * n, recency), [r % 9 for r in range(n)], converted)).predict(asked)
    assert few[:, 0, 0].tolist() == [0.5, 0.5]
    enough = LogisticRFM().fit(outcomes(rfm([0] * n, recency), [r % 10 for r in range(n)], converted)).predict(asked)
    assert enough[0, 0, 0] > 0.9 and enough[1, 0, 0] < 0.1
    everybody = (
        LogisticRFM().fit(outcomes(rfm([0] * n, recency), list(range(n)), np.ones_like(converted))).predict(asked)
    )
    assert everybody[:, 0, 0].tolist() == [smoothed(n, n)] * 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_no_baseline_learns_from_what_is_unknown_or_behind(seed: int) -> None:
    history, asked = random_history(120, seed, customers=60), random_history(20, seed + 1).rfm
    usable = history.known & ahead(history.rfm.stage, TARGETS)[:, :, None]
    noise = np.random.default_rng(seed + 2).random(history.converted.shape) < 0.5
    other = Outcomes(history.rfm, history.customers, np.where(usable, history.converted, noise), history.known)
    for first, second in zip(baselines(), baselines(), strict=True):
        np.testing.assert_array_equal(first.fit(history).predict(asked), second.fit(other).predict(asked))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 3, 300]))
def test_predictions_are_probabilities_exactly_where_targets_lie_ahead(seed: int, n: int) -> None:
    history, asked = random_history(n, seed, customers=200), random_history(30, seed + 1).rfm
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in baselines():
            found = model.fit(history).predict(asked)
            assert found.shape == (30, TARGETS, HORIZONS) and found.dtype == np.float64
            finite = np.isfinite(found)
            assert ((found[finite] >= 0) & (found[finite] <= 1)).all()
            assert not finite[~ahead(asked.stage, TARGETS)].any()
            if n == 300:
                assert finite[ahead(asked.stage, TARGETS)].all()
            if n == 0:
                assert not finite.any()
            assert model.predict(rfm([])).shape == (0, TARGETS, HORIZONS)


def test_better_baselines_learn_more() -> None:
    history, later = random_history(4000, 3, 4000), random_history(4000, 4, 4000)
    usable = later.known & ahead(later.rfm.stage, TARGETS)[:, :, None]
    losses = []
    for model in baselines():
        found = model.fit(history).predict(later.rfm)
        losses.append(np.mean((found[usable] - later.converted[usable]) ** 2))
    assert losses[1] < losses[0] - 0.01 and losses[2] < losses[0] - 0.01
    assert [model.name for model in baselines()] == ["stage", "stage and recency", "logistic RFM"]


def test_arrays_that_do_not_fit_are_refused_with_every_fault() -> None:
    with pytest.raises(DataError) as caught:
        RFM(np.zeros(2, np.int8), np.array([-1.0, 2.0]), np.ones(3), np.array([math.nan, 0.0]))
    assert str(caught.value).count("\n  - ") == 3
    flags = np.zeros((2, 3, 1), bool)
    with pytest.raises(DataError, match="the highest stage has the index 2, but 3 targets"):
        outcomes(rfm([0, 2]), [0, 1], flags)
    with pytest.raises(DataError, match="the lowest stage has the index -2"):
        outcomes(rfm([0, -2]), [0, 1], flags)
    with pytest.raises(DataError, match=r"moved has the shape \(3, 3, 1\)"):
        outcomes(rfm([0, 0]), [0, 1], np.zeros((3, 3, 1), bool))
    with pytest.raises(DataError, match=r"known has the shape \(2, 3, 2\)"):
        outcomes(rfm([0, 0]), [0, 1], flags, np.ones((2, 3, 2), bool))
