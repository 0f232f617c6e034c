"""Recalibration is the maximum of its likelihood, shrunk by events of customers; coherence is a projection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from cvj_ml.models.hazard.calibration import (
    Calibration,
    HazardOutcomes,
    cumulate,
    fit_slopes,
    identity,
    log_losses,
    make_coherent,
    recalibrate,
    set_levels,
)

F64 = npt.NDArray[np.float64]
CELLS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def outcomes(sizes: dict[tuple[int, int], tuple[int, float, float]], seed: int, people: int = 10**6) -> HazardOutcomes:
    """Return rows by (target, interval): how many, and the true intercept and slope; of so many customers."""
    rng = np.random.default_rng(seed)
    logit, converted, target, interval = [], [], [], []
    for (j, m), (rows, a, b) in sizes.items():
        x = rng.normal(-1.5, 1.2, rows)
        logit.append(x)
        converted.append(rng.random(rows) < expit(a + b * x))
        target.append(np.full(rows, j, dtype=np.int8))
        interval.append(np.full(rows, m, dtype=np.int8))
    size = sum(rows for rows, _, _ in sizes.values())
    return HazardOutcomes(
        np.concatenate(logit),
        np.concatenate(converted),
        np.concatenate(target),
        np.concatenate(interval),
        np.arange(size) % people,
    )


def likeliest(logit: F64, converted: npt.NDArray[np.bool_], *, slope: float | None = None) -> tuple[float, float]:
    """Return intercept and slope by a general optimiser; with ``slope`` the intercept alone, under that slope."""

    def loss(parameters: F64) -> float:
        z = parameters[0] + (parameters[1] if slope is None else slope) * logit
        return float(np.logaddexp(0, np.where(converted, -z, z)).mean())

    found = minimize(loss, [0.0, 1.0] if slope is None else [0.0], method="BFGS", options={"gtol": 1e-9}).x
    return float(found[0]), float(found[1]) if slope is None else slope


@settings(max_examples=20)
@given(a=st.floats(-2, 2), b=st.floats(0.3, 2), seed=st.integers(0, 9))
def test_recalibration_is_the_maximum_of_the_likelihood(a: float, b: float, seed: int) -> None:
    rows = outcomes({(0, 0): (2_000, a, b)}, seed)
    assert recalibrate(rows.logit, rows.converted, with_slope=True) == pytest.approx(
        likeliest(rows.logit, rows.converted), abs=1e-4
    )
    assert recalibrate(rows.logit, rows.converted, with_slope=False) == pytest.approx(
        likeliest(rows.logit, rows.converted, slope=1.0), abs=1e-4
    )


def test_recalibration_takes_long_ways_and_survives_a_perfect_separation() -> None:
    """Each step is at most 1, so a level 20 away needs many of them; what separates perfectly stays finite."""
    x = np.full(4_000, -20.0)
    converted = np.arange(4_000) % 2 == 0
    assert recalibrate(x, converted, with_slope=False) == pytest.approx((20.0, 1.0), abs=1e-6)
    apart = np.array([-3.0, -2.0, 2.0, 3.0])
    a, b = recalibrate(apart, apart > 0, with_slope=True)
    assert np.isfinite([a, b]).all() and b > 1
    assert expit(a + b * apart[-1]) > 0.99


def test_slopes_of_cells_are_drawn_towards_the_pooled_one_by_their_events() -> None:
    """A cell of n events keeps n / (n + 50) of its own slope and intercept."""
    sizes = {
        (0, 0): (6_000, 0.4, 0.5),
        (0, 1): (4_000, -0.3, 1.4),
        (1, 0): (3_000, 0.0, 0.8),
        (1, 1): (2_500, 1.0, 1.1),
    }
    rows = outcomes(sizes, 3)
    found = fit_slopes(rows, 2, 2)
    pooled_a, pooled_b = likeliest(rows.logit, rows.converted)
    for j, m in CELLS:
        mine = (rows.target == j) & (rows.interval == m)
        events = int(rows.converted[mine].sum())
        assert events > 200
        own_a, own_b = likeliest(rows.logit[mine], rows.converted[mine])
        weight = events / (events + 50)
        assert found.slope[j, m] == pytest.approx(weight * own_b + (1 - weight) * pooled_b, abs=1e-4)
        assert found.intercept[j, m] == pytest.approx(weight * own_a + (1 - weight) * pooled_a, abs=1e-4)
        assert abs(own_b - pooled_b) * (1 - weight) > 1e-3, "else this shows no shrinkage"


def test_a_cell_of_few_events_shifts_the_pooled_map() -> None:
    rows = outcomes({(0, 0): (6_000, 0.4, 0.5), (1, 1): (150, -0.5, 2.0)}, 5)
    found = fit_slopes(rows, 2, 2)
    pooled_a, pooled_b = likeliest(rows.logit, rows.converted)
    mine = rows.target == 1
    events = int(rows.converted[mine].sum())
    assert 5 < events < 200
    own_a, _ = likeliest(rows.logit[mine], rows.converted[mine], slope=pooled_b)
    weight = events / (events + 50)
    assert found.slope[1, 1] == pytest.approx(pooled_b, abs=1e-4)
    assert found.intercept[1, 1] == pytest.approx(weight * own_a + (1 - weight) * pooled_a, abs=1e-4)
    for j, m in [(0, 1), (1, 0)]:  # cells without a row follow the pooled map
        assert (found.intercept[j, m], found.slope[j, m]) == pytest.approx((pooled_a, pooled_b), abs=1e-4)


@pytest.mark.parametrize("converters, sloped", [(199, False), (200, True)])
def test_a_slope_needs_two_hundred_customers_who_moved_however_many_rows(converters: int, sloped: bool) -> None:
    """Silent error 10: rows of one customer are no new evidence; neither for the pooled map nor for a cell."""
    rng = np.random.default_rng(1)
    converted = np.repeat([True, False], 4_000)
    logit = np.where(converted, rng.normal(-0.5, 1, 8_000), rng.normal(-1, 1, 8_000))
    customer = np.concatenate([np.arange(4_000) % converters, np.arange(4_000) + 10_000])
    nought = np.zeros(8_000, dtype=np.int8)
    found = fit_slopes(HazardOutcomes(logit, converted, nought, nought, customer), 1, 1)
    assert (found.slope[0, 0] != 1.0) == sloped
    assert found.intercept[0, 0] != 0.0


def test_a_cell_may_lack_a_slope_where_the_pool_has_one() -> None:
    rows = outcomes({(0, 0): (6_000, 0.4, 0.5), (1, 1): (6_000, -0.5, 2.0)}, 5)
    few = np.where((rows.target == 1) & rows.converted, rows.customer % 150, rows.customer + 1_000)
    found = fit_slopes(HazardOutcomes(rows.logit, rows.converted, rows.target, rows.interval, few), 2, 2)
    pooled = likeliest(rows.logit, rows.converted)[1]
    assert found.slope[1, 1] == pytest.approx(pooled, abs=1e-4)
    assert found.slope[0, 0] != pytest.approx(pooled, abs=0.01)


@pytest.mark.parametrize("converters, sloped", [(199, False), (200, True)])
def test_a_cell_needs_two_hundred_customers_who_moved(converters: int, sloped: bool) -> None:
    rows = outcomes({(0, 0): (6_000, 0.4, 0.5), (1, 1): (6_000, -0.5, 2.0)}, 5)
    events = np.flatnonzero((rows.target == 1) & rows.converted)
    assert len(events) > 200
    few = rows.customer + 1_000
    few[events] = np.arange(len(events)) % converters
    found = fit_slopes(HazardOutcomes(rows.logit, rows.converted, rows.target, rows.interval, few), 2, 2)
    assert (abs(found.slope[1, 1] - likeliest(rows.logit, rows.converted)[1]) > 0.01) == sloped


def test_one_event_moves_a_cell_a_little() -> None:
    rows = outcomes({(0, 0): (6_000, 0.4, 0.5), (1, 1): (30, 0.0, 1.0)}, 5)
    mine = np.flatnonzero(rows.target == 1)
    rows.converted[mine] = np.arange(30) == 7
    pooled_a, pooled_b = likeliest(rows.logit, rows.converted)
    own_a, _ = likeliest(rows.logit[mine], rows.converted[mine], slope=pooled_b)
    assert abs(own_a - pooled_a) > 0.1
    assert fit_slopes(rows, 2, 2).intercept[1, 1] == pytest.approx(own_a / 51 + pooled_a * 50 / 51, abs=1e-4)
    kept = Calibration(np.zeros((2, 2)), np.full((2, 2), pooled_b))
    assert set_levels(kept, rows).intercept[1, 1] == pytest.approx(own_a / 51, abs=1e-4)


@pytest.mark.parametrize("happened", [False, True])
def test_where_nobody_or_everybody_moved_nothing_is_learned(happened: bool) -> None:
    logit = np.array([-1.0, 0.0, 1.0])
    nought = np.zeros(3, dtype=np.int8)
    rows = HazardOutcomes(logit, np.full(3, happened), nought, nought, np.arange(3))
    assert_same(fit_slopes(rows, 1, 2), identity(1, 2))
    slopes = Calibration(np.full((1, 1), 9.0), np.full((1, 1), 0.7))
    assert_same(set_levels(slopes, rows), Calibration(np.zeros((1, 1)), slopes.slope))


def test_levels_expect_what_happened_and_small_cells_keep_that_of_the_trees() -> None:
    rows = outcomes({(0, 0): (20_000, 0.7, 1.0), (1, 1): (60, 0.7, 1.0)}, 8)
    slopes = Calibration(np.full((2, 2), 5.0), np.array([[0.8, 1.0], [1.0, 1.2]]))
    found = set_levels(slopes, rows)
    for j, m in [(0, 0), (1, 1)]:
        mine = (rows.target == j) & (rows.interval == m)
        events = int(rows.converted[mine].sum())
        level, _ = likeliest(slopes.slope[j, m] * rows.logit[mine], rows.converted[mine], slope=1.0)
        assert found.intercept[j, m] == pytest.approx(level * events / (events + 50), abs=1e-4)
    assert found.intercept[0, 1] == found.intercept[1, 0] == 0.0
    assert np.array_equal(found.slope, slopes.slope)


def test_rows_are_those_of_target_and_interval() -> None:
    rows = outcomes({(0, 0): (3, 0, 1), (0, 1): (5, 0, 1), (1, 0): (7, 0, 1)}, 1)
    for j, m in CELLS:
        own = rows.cell(j, m)
        assert len(own.logit) == {(0, 0): 3, (0, 1): 5, (1, 0): 7, (1, 1): 0}[j, m]
        assert (own.target == j).all() and (own.interval == m).all()
    assert np.array_equal(rows.cell(0, 1).customer, [3, 4, 5, 6, 7])


def test_maps_are_applied_by_cell_and_shrink_to_the_one_that_changes_nothing() -> None:
    maps = Calibration(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, 0.6], [0.7, 0.8]]))
    logit = np.array([1.0, 10.0, 100.0])
    target, interval = np.array([0, 1, 1], dtype=np.int8), np.array([1, 0, 1], dtype=np.int8)
    assert maps.apply(logit, target, interval).tolist() == pytest.approx([2.6, 10.0, 84.0])
    assert_same(maps.shrunk(1.0), maps)
    assert_same(maps.shrunk(0.0), identity(2, 2))
    quarter = maps.shrunk(0.25)
    assert quarter.intercept.tolist() == [[0.25, 0.5], [0.75, 1.0]]
    assert quarter.slope.tolist() == [pytest.approx([0.875, 0.9]), pytest.approx([0.925, 0.95])]
    assert identity(2, 3).apply(logit, target, interval).tolist() == logit.tolist()


def test_the_log_loss_of_a_row_is_that_of_its_probability() -> None:
    logit, converted = np.array([-2.0, 0.0, 3.0, -800.0, 800.0]), np.array([True, False, True, False, False])
    p = expit(logit[:3])
    expected = [-np.log(p[0]), -np.log(1 - p[1]), -np.log(p[2]), 0.0, 800.0]
    assert log_losses(logit, converted).tolist() == pytest.approx(expected)


def assert_same(one: Calibration, other: Calibration) -> None:
    assert one.intercept.tolist() == other.intercept.tolist()
    assert one.slope.tolist() == [pytest.approx(row) for row in other.slope.tolist()]


# Coherence.

PROBABILITIES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3)),
    elements=st.one_of(st.just(np.nan), st.floats(0, 1, width=32), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
)


@given(PROBABILITIES)
def test_coherence_is_equal_weight_isotonic_regression_over_the_targets(probabilities: F64) -> None:
    """Silent error 16: not a running maximum, which would push rare stages up."""
    before = probabilities.copy()
    found = make_coherent(probabilities)
    assert np.array_equal(probabilities, before, equal_nan=True), "the input stays as it was"
    assert np.array_equal(np.isnan(found), np.isnan(probabilities))
    regression = IsotonicRegression(increasing=False)
    for i, h in np.ndindex(probabilities.shape[0], probabilities.shape[2]):
        asked = ~np.isnan(probabilities[i, :, h])
        given_values = probabilities[i, asked, h]
        if len(given_values):
            expected = regression.fit_transform(np.arange(len(given_values)), given_values)
            assert found[i, asked, h] == pytest.approx(expected, abs=1e-9)
            assert found[i, asked, h].sum() == pytest.approx(given_values.sum(), abs=1e-9)


@given(PROBABILITIES)
def test_coherence_keeps_what_grows_with_the_horizon_growing(probabilities: F64) -> None:
    """Silent error 15: what is non-decreasing in h stays so, and an ordered vector stays as it is."""
    missing = np.isnan(probabilities).any(axis=2, keepdims=True)
    growing = np.where(missing, np.nan, np.sort(probabilities, axis=2))
    found = make_coherent(growing)
    steps = np.diff(found, axis=2)
    assert (steps[~np.isnan(steps)] >= -1e-12).all()
    assert make_coherent(found) == pytest.approx(found, abs=1e-12, nan_ok=True)


def test_a_violation_is_pooled_and_the_rest_left_alone() -> None:
    given_values = np.array([[[0.9], [0.3], [0.5], [np.nan], [0.1]]])
    assert make_coherent(given_values)[0, :, 0].tolist() == pytest.approx([0.9, 0.4, 0.4, np.nan, 0.1], nan_ok=True)


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(0, 1)))
def test_cumulated_hazards_are_one_minus_the_survival(hazards: F64) -> None:
    """Silent error 15: calibrated hazards, whatever they are, give probabilities that grow with h."""
    found = cumulate(hazards)
    for row, expected in zip(found, hazards, strict=True):
        survival = 1.0
        for value, hazard in zip(row, expected, strict=True):
            survival *= 1 - hazard
            assert value == pytest.approx(1 - survival, abs=1e-12)
    assert (np.diff(found, axis=1) >= 0).all() and (found >= 0).all() and (found <= 1).all()
