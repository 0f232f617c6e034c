"""The bootstrap over customers, against plain resampling, and the correction for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.evaluation import metrics
from cvj_ml.evaluation.bootstrap import (
    DRAWS,
    Resampled,
    draw_cell,
    draw_keys,
    grouped_sums,
    holm,
    interval,
    p_value,
    paired_difference,
    reflected_interval,
    times_drawn,
)
from cvj_ml.evaluation.recalibration import calibration_slope_intercept, decompose_log_loss

F64 = npt.NDArray[np.float64]


def sample(
    customers: int = 300, seed: int = 1, rows: int = 2
) -> tuple[npt.NDArray[np.bool_], F64, F64, npt.NDArray[np.int64]]:
    """Outcomes, a prediction that is too extreme, a flat one, and owners of two alike rows each."""
    random = np.random.default_rng(seed)
    logit = np.repeat(random.normal(-1, 1.2, customers), rows)
    y = np.repeat(random.random(customers), rows) < 1 / (1 + np.exp(-logit))
    p = 1 / (1 + np.exp(-(1.5 * logit + 0.4)))
    return y, np.round(p, 2).clip(0.01, 0.99), np.full(len(y), y.mean()), np.repeat(np.arange(customers) * 7, rows)


def resample(y: Any, p: F64, customer: Any, keys: Any, others: Sequence[F64] = ()) -> Resampled:
    return draw_cell(y, p, customer, keys, others).statistics()


def test_customers_are_drawn_poisson_and_independently() -> None:
    counts = times_drawn(np.arange(2000), draw_keys(DRAWS, 3)).astype(np.float64)
    size = counts.size
    assert abs(counts.mean() - 1) < 5 / np.sqrt(size) + 1e-4, "exact to a 65,536th"
    assert abs(counts.var() - 1) < 5 * np.sqrt(3 / size)
    for k, share in enumerate([0.3679, 0.3679, 0.1839, 0.0613, 0.0153]):
        assert abs((counts == k).mean() - share) < 5 * np.sqrt(share / size) + 1e-4
    neighbours = ((counts[:, 1:] - 1) * (counts[:, :-1] - 1)).mean()
    draws = ((counts[1:] - 1) * (counts[:-1] - 1)).mean()
    assert abs(neighbours) < 5 / np.sqrt(size) and abs(draws) < 5 / np.sqrt(size)


def test_a_customer_is_drawn_alike_wherever_the_rows_stand() -> None:
    keys = draw_keys(20, 5)
    assert np.array_equal(times_drawn(np.array([9, 4, 9]), keys)[:, [0, 1]], times_drawn(np.array([9, 4]), keys))
    assert not np.array_equal(times_drawn(np.arange(50), keys), times_drawn(np.arange(50), draw_keys(20, 6)))


@pytest.mark.parametrize("seed", [1, 2])
def test_every_statistic_is_that_of_the_rows_drawn(seed: int) -> None:
    """The oracle writes every draw out, row by row, and computes each statistic anew."""
    y, p, flat, customer = sample(seed=seed)
    keys = draw_keys(12, seed)
    found = resample(y, p, customer, keys, [flat])
    bins = np.cumsum(metrics.reliability_bins(y, p).rows)
    group = np.searchsorted(bins, np.argsort(np.argsort(p, kind="stable"), kind="stable"), side="right")
    for d, counts in enumerate(times_drawn(customer, keys)):
        rows = np.repeat(np.arange(len(y)), counts)
        assert found.log_loss[:, d] == pytest.approx(
            [metrics.log_loss(y[rows], p[rows]), metrics.log_loss(y[rows], flat[rows])]
        )
        assert found.rows[d] == len(rows)
        assert found.auc[d] == pytest.approx(metrics.auc(y[rows], p[rows]), abs=0.002), "from 200 bins"
        assert found.observed_expected[d] == pytest.approx(metrics.observed_expected(y[rows], p[rows]))
        error = sum(abs((y[rows] - p[rows].astype(float))[group[rows] == b].sum()) for b in range(len(bins)))
        assert found.expected_calibration_error[d] == pytest.approx(error / len(rows))
        anew = calibration_slope_intercept(y[rows], p[rows]).slope
        assert found.calibration_slope[d] == pytest.approx(anew, abs=0.005), "from 200 bins"


def test_parts_of_the_loss_are_those_of_the_rows_drawn() -> None:
    """The oracle refits level and slope on the rows of every draw, written out."""
    y, p, _, customer = sample(customers=500, seed=3)
    keys = draw_keys(20, 3)
    found = draw_cell(y, p, customer, keys).parts()
    for d, counts in enumerate(times_drawn(customer, keys)):
        rows = np.repeat(np.arange(len(y)), counts)
        anew = decompose_log_loss(y[rows], p[rows])
        assert (found.level[d], found.slope[d], found.ranking[d]) == pytest.approx(anew[1:], abs=1e-3), "from 200 bins"
        assert found.level[d] + found.slope[d] + found.ranking[d] == pytest.approx(anew.log_loss, abs=1e-12)
    assert np.std(found.ranking) > 0.01, "what bins lose is small beside what another draw changes"


def test_draws_are_counted_the_same_however_many_stand_side_by_side() -> None:
    """A draw's sums do not depend on the draws beside it, to the bit."""
    y, p, flat, customer = sample()
    keys = draw_keys(300, 8)
    together, alone = resample(y, p, customer, keys, [flat]), resample(y, p, customer, keys[200:203], [flat])
    assert np.array_equal(together.log_loss[:, 200:203], alone.log_loss)
    assert np.array_equal(together.observed_expected[200:203], alone.observed_expected)
    assert np.array_equal(together.calibration_slope[200:203], alone.calibration_slope)


def test_intervals_are_those_of_plain_resampling() -> None:
    """Ordinary draws with replacement of whole customers give the same bounds, up to the noise of 1,000 draws."""
    y, p, _, customer = sample(customers=800)
    found = resample(y, p, customer, draw_keys(DRAWS, 1))
    random = np.random.default_rng(0)
    slots = np.arange(len(y)).reshape(-1, 2)
    plain: dict[str, list[float]] = {"log_loss": [], "auc": [], "slope": [], "ratio": []}
    for _ in range(400):
        rows = slots[random.integers(len(slots), size=len(slots))].ravel()
        plain["log_loss"].append(metrics.log_loss(y[rows], p[rows]))
        plain["auc"].append(metrics.auc(y[rows], p[rows]))
        plain["slope"].append(calibration_slope_intercept(y[rows], p[rows]).slope)
        plain["ratio"].append(metrics.observed_expected(y[rows], p[rows]))
    for name, draws in {
        "log_loss": found.log_loss[0],
        "auc": found.auc,
        "slope": found.calibration_slope,
        "ratio": found.observed_expected,
    }.items():
        spread = np.std(plain[name])
        assert np.quantile(draws, [0.025, 0.5, 0.975]) == pytest.approx(
            np.quantile(plain[name], [0.025, 0.5, 0.975]), abs=0.45 * spread
        ), name
        assert np.std(draws) == pytest.approx(spread, rel=0.15), name


def test_rows_of_a_customer_are_no_new_evidence() -> None:
    """Silent error 10: thirteen copies of everybody leave the interval as it was."""
    y, p, _, customer = sample(rows=1)
    keys = draw_keys(200, 1)
    once = resample(y, p, customer, keys)
    often = resample(np.tile(y, 13), np.tile(p, 13), np.tile(customer, 13), keys)
    assert often.log_loss == pytest.approx(once.log_loss)
    assert often.observed_expected == pytest.approx(once.observed_expected)


def test_without_movers_there_is_a_loss_but_no_ranking() -> None:
    found = resample(np.zeros(9), np.linspace(0.1, 0.3, 9), np.arange(9), draw_keys(50, 1))
    assert np.isnan(found.auc).all() and np.isnan(found.calibration_slope).all()
    assert np.isfinite(found.log_loss).all() and (found.observed_expected == 0).all()
    assert np.isnan(interval(float("nan"), found.auc)).all()


def test_equal_predictions_have_no_slope() -> None:
    y, _, flat, customer = sample()
    assert np.isnan(resample(y, flat, customer, draw_keys(10, 1)).calibration_slope).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.floats(-3, 3)), min_size=1, max_size=30))
def test_grouped_sums_are_sums(rows: list[tuple[int, int, float]]) -> None:
    customer, group, value = (np.array(column) for column in zip(*rows, strict=True))
    keys = draw_keys(5, 2)
    found = grouped_sums(np.column_stack([value, np.ones(len(rows))]), group, 3, customer, keys)
    counts = times_drawn(customer, keys)
    for d in range(5):
        for g in range(3):
            here = counts[d] * (group == g)
            assert found[d, g] == pytest.approx([(here * value).sum(), here.sum()], abs=1e-12)


def test_a_paired_difference_is_that_of_the_rows_drawn() -> None:
    y, p, flat, customer = sample()
    keys = draw_keys(50, 4)
    mine, other = metrics.log_loss_terms(y, p), metrics.log_loss_terms(y, flat)
    found, chance = paired_difference(mine, other, customer, keys)
    drawn = [np.repeat(mine - other, counts).mean() for counts in times_drawn(customer, keys)]
    assert found == pytest.approx((np.mean(mine - other), *np.quantile(drawn, [0.025, 0.975])))
    assert chance == pytest.approx(p_value(found.estimate, np.array(drawn)))
    assert paired_difference(mine, mine, customer, keys) == ((0.0, 0.0, 0.0), 1.0)
    both = resample(y, p, customer, keys, [flat]).log_loss
    assert both[0] - both[1] == pytest.approx(np.array(drawn)), "the draws of `draw_cell` are the same"


def test_intervals_and_p_values_by_hand() -> None:
    draws = np.linspace(0, 1, 1001)
    assert interval(0.5, draws) == pytest.approx((0.5, 0.025, 0.975))
    assert reflected_interval(0.4, draws) == pytest.approx((0.4, 0.0, 0.775))
    assert interval(0.5, np.append(draws, np.nan)) == interval(0.5, draws)
    spread = np.std([-1.0, 1.0], ddof=1)
    assert p_value(1.959963985 * spread, np.array([-1.0, 1.0])) == pytest.approx(0.05)
    assert p_value(3.0, np.array([3.0, 3.0]), null=3.0) == 1.0
    assert np.isnan(p_value(float("nan"), draws))


def test_holm_by_hand() -> None:
    """Holm (1979): 0.01 x 4, 0.03 x 3, then 0.03 x 2 and 0.04 x 1 may not fall below 0.09."""
    assert holm([0.03, 0.01, 0.04, 0.03]).tolist() == pytest.approx([0.09, 0.04, 0.09, 0.09])
    assert holm([0.5, np.nan, 0.6]).tolist() == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert holm([]).tolist() == [] and np.isnan(holm([np.nan])).all()


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for a, b in zip(p, adjusted, strict=True):
        assert a <= b <= min(1.0, a * len(p)) + 1e-15
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
