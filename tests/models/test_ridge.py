"""The ridge regression beside the trees: its definition, its optimum, and whom it rests on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from cvj_ml.models.hazard.ridge import RidgeHazard, fit_ridge
from cvj_ml.panel.panel import HazardRows

_F32 = npt.NDArray[np.float32]


def drawn(seed: int, snapshots: int = 400, features: int = 6) -> tuple[_F32, HazardRows, npt.NDArray[np.float64]]:
    """Features with what is missing, three rows a snapshot (return, two stages), and the logit they start from."""
    random = np.random.default_rng(seed)
    x = random.gamma(1.0, 20.0, size=(snapshots, features)).astype(np.float32) * random.choice([-1, 1], size=features)
    x = x.astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    snapshot = np.repeat(np.arange(snapshots), 3)
    target = np.tile(np.arange(3, dtype=np.int8), snapshots)
    offset = random.normal(-1, 0.5, len(snapshot))
    signal = np.nan_to_num(np.log1p(np.abs(x[:, 0])) - 3)[snapshot] * np.where(target == 0, 0.8, -0.4)
    converted = random.random(len(snapshot)) < expit(offset + signal)
    return x, HazardRows(snapshot, target, np.zeros_like(target), converted), offset


def by_hand(ridge: RidgeHazard, x: _F32, head: int) -> npt.NDArray[np.float64]:
    """The definition, written out."""
    total = np.full(len(x), ridge.intercept[head])
    for c in range(x.shape[1]):
        logs = np.sign(x[:, c]) * np.log1p(np.abs(x[:, c].astype(np.float64)))
        z = np.clip((logs - ridge.mean[c]) / ridge.scale[c], -4, 4)
        total += ridge.slopes[head, c] * np.where(np.isnan(z), 0.0, z)
    return total


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_it_is_the_penalised_optimum_of_each_head(seed: int) -> None:
    """At the optimum the score of each slope equals its penalty's, and that of the intercept is 0."""
    x, rows, offset = drawn(seed)
    customer = np.arange(len(x))
    ridge = fit_ridge(x, np.ones(x.shape[1], dtype=np.bool_), rows, offset, customer, 2)
    for head in (0, 1):
        here = (rows.target > 0) == bool(head)
        where = rows.snapshot[here]
        p = expit(offset[here] + by_hand(ridge, x, head)[where])
        residual = rows.converted[here] - p
        logs = np.sign(x) * np.log1p(np.abs(x.astype(np.float64)))
        z = np.nan_to_num(np.clip((logs - ridge.mean) / ridge.scale, -4, 4))[where]
        assert residual.sum() == pytest.approx(0, abs=1e-3)
        assert z.T @ residual == pytest.approx(0.05 * here.sum() * ridge.slopes[head], abs=1e-2)
    assert ridge.slopes[0, 0] * np.sign(np.nanmean(x[:, 0])) > 0 > ridge.slopes[1, 0] * np.sign(np.nanmean(x[:, 0]))


def test_a_row_that_counts_twice_is_two_rows() -> None:
    x, rows, offset = drawn(7)
    numbers, customer = np.ones(x.shape[1], dtype=np.bool_), np.arange(len(x))
    counts = np.random.default_rng(1).integers(1, 4, len(rows))
    each = np.repeat(np.arange(len(rows)), counts)
    repeated = fit_ridge(x, numbers, rows.take(each), offset[each], customer, 2)
    # The penalty is by rows, so weights are 1 on average.
    weighted = fit_ridge(x, numbers, rows, offset, customer, 2, counts / counts.mean())
    for head in (0, 1):
        share = (counts[(rows.target > 0) == bool(head)].mean()) / counts.mean()
        assert share == pytest.approx(1, abs=0.1)
        assert weighted.slopes[head] == pytest.approx(repeated.slopes[head], abs=0.02)


def test_margins_are_the_definition_for_any_rows() -> None:
    x, rows, offset = drawn(3)
    ridge = fit_ridge(x, np.ones(x.shape[1], dtype=np.bool_), rows, offset, np.arange(len(x)), 2)
    x = np.vstack([x, [[np.nan] * 6], [[1e9] * 6]]).astype(np.float32)
    more = HazardRows(
        np.array([len(x) - 2, len(x) - 1, 0]), np.array([0, 1, 2], np.int8), np.zeros(3, np.int8), np.zeros(3, bool)
    )
    expected = [by_hand(ridge, x, 0)[-2], by_hand(ridge, x, 1)[-1], by_hand(ridge, x, 1)[0]]
    assert ridge.margins(x, more) == pytest.approx(expected, abs=1e-12)
    assert ridge.margins(x, more)[0] == ridge.intercept[0], "what is missing says nothing"
    alone = ridge.margins(x[:1], HazardRows(more.snapshot[2:], more.target[2:], more.interval[2:], more.converted[2:]))
    assert alone[0] == ridge.margins(x, more)[2]


def test_contributions_add_up_to_the_difference_from_the_typical_customer() -> None:
    x, rows, offset = drawn(4)
    ridge = fit_ridge(x, np.ones(x.shape[1], dtype=np.bool_), rows, offset, np.arange(len(x)), 2)
    for head in (0, 1):
        parts = ridge.contributions(x, x[7], head)
        assert parts.shape == x.shape and not parts[7].any()
        assert parts.sum(axis=1) == pytest.approx(by_hand(ridge, x, head) - by_hand(ridge, x, head)[7], abs=1e-9)


def test_codes_and_what_few_customers_have_say_nothing() -> None:
    """Silent error 75: a mean of one customer's values is that customer's."""
    x, rows, offset = drawn(5)
    customer = np.arange(len(x)) // 2
    x[:, 1] = 0
    x[:6, 1] = 1234.5  # three customers
    numbers = np.ones(x.shape[1], dtype=np.bool_)
    numbers[2] = False
    ridge = fit_ridge(x, numbers, rows, offset, customer, 4)
    assert np.isinf(ridge.scale[[1, 2]]).all() and not ridge.mean[[1, 2]].any() and not ridge.slopes[:, [1, 2]].any()
    assert np.isfinite(fit_ridge(x, numbers, rows, offset, customer, 3).scale[1])


def test_a_head_in_which_nobody_moved_adds_nothing() -> None:
    x, rows, offset = drawn(6)
    rows = HazardRows(rows.snapshot, rows.target, rows.interval, rows.converted & (rows.target == 0))
    ridge = fit_ridge(x, np.ones(x.shape[1], dtype=np.bool_), rows, offset, np.arange(len(x)), 2)
    assert ridge.slopes[0].any() and not ridge.slopes[1].any() and ridge.intercept[1] == 0
