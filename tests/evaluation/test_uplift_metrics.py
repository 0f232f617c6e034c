"""Uplift metrics against slow plain-Python oracles that walk every row, and against known truths."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvj_ml.errors import DataError
from cvj_ml.evaluation.bootstrap import draw_keys, times_drawn
from cvj_ml.evaluation.uplift_metrics import (
    TOP_SHARES,
    Contrast,
    auuc,
    contrast,
    effect_calibration,
    policy_difference,
    policy_value,
    qini,
    ranking_difference,
    ranking_metrics,
    top_weights,
    uplift_at,
)
from cvj_ml.models.uplift.effect_model import Experiment

F64 = npt.NDArray[np.float64]
KEYS = draw_keys(40, 3)


@st.composite
def experiments(draw: Any) -> tuple[Experiment, F64]:
    """A few rows of two or three arms, scores of few values so that many are equal."""
    rows, arms = draw(st.integers(1, 25)), draw(st.integers(2, 3))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    propensity = random.dirichlet(np.full(arms, 4.0), rows)
    customer = random.integers(0, 12, rows)
    made = Experiment(
        random.normal(size=(rows, 1)).astype(np.float32),
        random.integers(arms, size=rows),
        random.integers(0, 3, rows).astype(np.float64),
        propensity,
        customer,
    )
    return made, random.integers(0, draw(st.sampled_from([1, 4, 100])), rows).astype(np.float64)


def gains(one: Experiment, arm: int) -> list[float]:
    """Y / e of the arm, -Y / e of control."""
    return [
        float(y / e[arm] if a == arm else -y / e[0] if a == 0 else 0.0)
        for a, y, e in zip(one.arm, one.outcome, one.propensity, strict=True)
    ]


def curve(score: list[float], gain: list[float]) -> list[tuple[float, float]]:
    """The points of the gain curve, per row; equal scores are one straight piece."""
    n, points = len(score), [(0.0, 0.0)]
    for level in sorted(set(score), reverse=True):
        above = [i for i in range(n) if score[i] >= level]
        points.append((len(above) / n, sum(gain[i] for i in above) / n))
    return points


def area(points: list[tuple[float, float]]) -> float:
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def top(score: list[float], share: float) -> list[float]:
    """How much of each row belongs to the top share."""
    n, left, inside = len(score), share * len(score), [0.0] * len(score)
    for level in sorted(set(score), reverse=True):
        here = [i for i in range(n) if score[i] == level]
        for i in here:
            inside[i] = min(left / len(here), 1.0)
        left = max(left - len(here), 0.0)
    return inside


def top_uplift(one: Experiment, arm: int, score: list[float], share: float) -> float:
    inside, means = top(score, share), []
    for which in (arm, 0):
        rows = [i for i in range(len(score)) if one.arm[i] == which and inside[i] > 1e-12]
        weights = [inside[i] / one.propensity[i, which] for i in rows]
        if not rows:
            return math.nan
        means.append(sum(w * one.outcome[i] for w, i in zip(weights, rows, strict=True)) / sum(weights))
    return float(means[0] - means[1])


@given(experiments())
def test_qini_auuc_and_uplift_are_their_definitions(drawn: tuple[Experiment, F64]) -> None:
    one, score = drawn
    for arm in range(1, one.arms + 1):
        rows = contrast(one, arm)
        points = curve(score.tolist(), gains(one, arm))
        assert auuc(rows, score) == pytest.approx(area(points), abs=1e-12)
        assert qini(rows, score) == pytest.approx(area(points) - points[-1][1] / 2, abs=1e-12)
        for share in TOP_SHARES:
            expected = top_uplift(one, arm, score.tolist(), share)
            assert uplift_at(rows, score, share) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(max_examples=25)
@given(experiments())
def test_equal_scores_count_as_in_the_mean_of_random_orders(drawn: tuple[Experiment, F64]) -> None:
    one, score = drawn
    rows, random = contrast(one, 1), np.random.default_rng(1)
    broken = [qini(rows, score + random.permutation(len(score)) * 1e-3) for _ in range(200)]
    spread = float(np.std(broken)) / math.sqrt(200)
    # Within equal scores each pair of rows is as often in one order as in the other, so the mean is the straight line.
    assert abs(np.mean(broken) - qini(rows, score)) <= 5 * spread + 1e-12


@given(experiments())
def test_no_order_of_the_rows_changes_anything(drawn: tuple[Experiment, F64]) -> None:
    one, score = drawn
    order = np.random.default_rng(2).permutation(len(score))
    here, there = contrast(one, 1), contrast(one.take(order), 1)
    assert qini(here, score) == pytest.approx(qini(there, score[order]), abs=1e-12)
    assert ranking_metrics(here, score, KEYS).auuc == pytest.approx(
        ranking_metrics(there, score[order], KEYS).auuc, abs=1e-9, nan_ok=True
    )


@given(experiments(), st.integers(0, 39))
def test_a_draw_is_rows_as_often_as_their_customer_counts(drawn: tuple[Experiment, F64], which: int) -> None:
    """One draw has an interval of no width, at the figure of the rows repeated as often."""
    one, score = drawn
    key = KEYS[which : which + 1]
    times = times_drawn(one.customer, key)[0]
    rows = np.repeat(np.arange(len(score)), times)
    found = ranking_metrics(contrast(one, 1), score, key)
    if not len(rows):
        assert math.isnan(found.qini.low)
        return
    again = contrast(one.take(rows), 1)
    assert found.qini.low == found.qini.high == pytest.approx(qini(again, score[rows]), abs=1e-12)
    expected = uplift_at(again, score[rows], TOP_SHARES[2])
    if math.isfinite(found.uplift[2].estimate):
        assert found.uplift[2].low == pytest.approx(expected, abs=1e-9, nan_ok=True)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.data())
def test_the_top_k_holds_k(values: list[int], data: st.DataObject) -> None:
    score = np.array(values, dtype=np.float64)
    k = data.draw(st.integers(1, len(values)))
    weights = top_weights(score, k)
    assert weights.sum() == pytest.approx(k)
    assert weights == pytest.approx(top(score.tolist(), k / len(values)))


def sample(customers: int = 4000, seed: int = 1) -> tuple[Experiment, F64]:
    """Two rows a customer; a contact adds the customer's own effect."""
    random = np.random.default_rng(seed)
    customer = np.repeat(np.arange(customers), 2)
    effect = np.where(random.random(customers) < 0.5, 0.3, 0.0)[customer]
    arm = (random.random(2 * customers) < 0.7).astype(np.int64)
    outcome = (random.random(2 * customers) < 0.2 + arm * effect).astype(np.float64)
    propensity = np.tile([0.3, 0.7], (2 * customers, 1))
    return Experiment(effect[:, None].astype(np.float32), arm, outcome, propensity, customer), effect


def test_a_ranking_by_the_truth_is_better_than_none() -> None:
    one, effect = sample()
    rows, noise = contrast(one), np.random.default_rng(5).random(len(effect))
    keys = draw_keys(300, 1)
    found = ranking_metrics(rows, effect, keys)
    # Half have 0.3, half none: the curve rises to 0.15 at the middle, and the random line is there at 0.075.
    assert found.qini.low < 0.0375 < found.qini.high
    assert found.uplift[0].low < 0.3 < found.uplift[0].high
    difference = ranking_difference(rows, effect, noise, keys)
    assert difference.metrics.qini.low > 0 and difference.p_qini < 1e-6 and difference.p_uplift[2] < 1e-6
    same = ranking_difference(rows, effect, effect, keys)
    assert same.metrics.qini == (0, 0, 0) and same.p_qini == 1


def test_effects_by_decile_are_observed_as_predicted() -> None:
    one, effect = sample()
    # With the true means for nuisances the scores are those of the truth, and noise.
    m = np.column_stack([np.full(len(effect), 0.2), 0.2 + effect])
    rows = np.arange(len(effect))
    corrected = m.copy()
    corrected[rows, one.arm] += (one.outcome - m[rows, one.arm]) / one.propensity[rows, one.arm]
    scores, keys = corrected[:, 1] - corrected[:, 0], draw_keys(300, 1)
    bins = effect_calibration(scores, effect, one.customer, keys)
    assert [one.predicted for one in bins] == pytest.approx([0, 0.3]), "equal effects stay together"
    assert sum(one.rows for one in bins) == len(effect)
    assert all(one.observed.low < one.predicted < one.observed.high for one in bins)
    assert len(effect_calibration(scores, np.random.default_rng(1).random(len(effect)), one.customer, keys)) == 10
    total = policy_value(scores, effect, 1000, one.customer, keys, value=20, cost=2)
    assert total.low < 1000 * (20 * 0.3 - 2) < total.high
    more = policy_difference(scores, effect, -effect, 1000, one.customer, keys, value=20)
    assert more.low < 1000 * 20 * 0.3 < more.high


def test_what_is_not_defined_is_said_so() -> None:
    one, effect = sample(20)
    with pytest.raises(DataError, match="share"):
        uplift_at(contrast(one), effect, 0.0)
    with pytest.raises(DataError, match="41"):
        policy_value(effect, effect, 41, one.customer, KEYS)
    nobody = Contrast(*(np.zeros(0),) * 3, np.zeros(0, dtype=np.int64))
    assert math.isnan(qini(nobody, np.zeros(0)))
    assert effect_calibration(np.zeros(0), np.zeros(0), nobody.customer, KEYS) == ()
    assert math.isnan(uplift_at(contrast(one.take(one.arm == 1)), effect[one.arm == 1], 0.5)), "no control"
