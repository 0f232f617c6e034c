"""Metrics against slow plain-Python oracles, scikit-learn, and known answers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from cvj_ml.errors import DataError
from cvj_ml.evaluation import metrics, recalibration

Floats = npt.NDArray[np.float64]

# Few distinct probabilities make ties; 0 and 1 reach the clipping.
PROBABILITY = st.one_of(
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.floats(0, 1, allow_nan=False, allow_subnormal=False)
)
CELLS = st.lists(st.tuples(st.booleans(), PROBABILITY), min_size=1, max_size=25)


def columns(cells: list[tuple[bool, float]]) -> tuple[npt.NDArray[np.bool_], Floats]:
    return np.array([converted for converted, _ in cells]), np.array([probability for _, probability in cells])


def simulated(n: int, seed: int) -> tuple[npt.NDArray[np.bool_], Floats]:
    random = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-random.normal(-1.5, 1.2, n)))
    return random.random(n) < p, p


@given(CELLS)
@example([(True, 0.0), (False, 1.0)])
def test_log_loss_and_brier_are_the_means_written_out(cells: list[tuple[bool, float]]) -> None:
    y, p = columns(cells)
    terms = [-math.log(min(max(q if converted else 1 - q, 1e-6), 1 - 1e-6)) for converted, q in cells]
    assert metrics.log_loss(y, p) == pytest.approx(sum(terms) / len(terms), rel=1e-9)
    assert metrics.log_loss_terms(y, p) == pytest.approx(terms, rel=1e-9, abs=1e-12)
    assert metrics.brier(y, p) == pytest.approx(sum((q - converted) ** 2 for converted, q in cells) / len(cells))


def test_log_loss_weights_rows_like_repeats() -> None:
    y, p = np.array([1, 0, 1]), np.array([0.7, 0.2, 0.4])
    repeats = np.array([3, 1, 2])
    assert metrics.log_loss(y, p, repeats) == pytest.approx(metrics.log_loss(np.repeat(y, repeats), p.repeat(repeats)))
    assert metrics.log_loss(y, p, repeats) != pytest.approx(metrics.log_loss(y, p))


@given(CELLS)
def test_auc_counts_pairs_with_ties_as_half(cells: list[tuple[bool, float]]) -> None:
    y, p = columns(cells)
    pairs = [(a > b) + (a == b) / 2 for a in p[y] for b in p[~y]]
    if pairs:
        assert metrics.auc(y, p) == pytest.approx(sum(pairs) / len(pairs))
    else:
        assert math.isnan(metrics.auc(y, p))


@given(CELLS)
def test_average_precision_sums_precision_over_distinct_cuts(cells: list[tuple[bool, float]]) -> None:
    y, p = columns(cells)
    if y.all() or not y.any():
        assert math.isnan(metrics.average_precision(y, p))
        return
    expected, before = 0.0, 0
    for cut in sorted(set(p), reverse=True):
        found = sum(y[p >= cut])
        expected += (found - before) / sum(y) * found / sum(p >= cut)
        before = found
    assert metrics.average_precision(y, p) == pytest.approx(expected)


@given(CELLS, st.sampled_from([0.01, 0.05, 0.1, 0.3, 0.5, 1.0]))
def test_gain_is_the_expectation_over_the_order_of_ties(cells: list[tuple[bool, float]], share: float) -> None:
    y, p = columns(cells)
    left, found = Fraction(share) * len(y), Fraction(0)
    for probability in sorted(set(p), reverse=True):
        tied = y[p == probability]
        taken = min(left, Fraction(len(tied)))
        found += taken * int(tied.sum()) / len(tied)
        left -= taken
    if y.any():
        assert metrics.gain_at(y, p, share) == pytest.approx(float(found / int(y.sum())), abs=1e-12)
        lift = float(found / (Fraction(share) * len(y)) / Fraction(int(y.sum()), len(y)))
        assert metrics.lift_at(y, p, share) == pytest.approx(lift)
    else:
        assert math.isnan(metrics.gain_at(y, p, share))
        assert math.isnan(metrics.lift_at(y, p, share))


def test_equal_scores_have_lift_one_however_the_rows_are_ordered() -> None:
    movers_first = np.arange(1000) < 50
    for y in (movers_first, movers_first[::-1]):
        assert metrics.lift_at(y, np.full(1000, 0.05), 0.01) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(DataError, match=r"must lie in \(0, 1\]"):
        metrics.gain_at([1, 0], [0.5, 0.4], share)


@given(CELLS, st.integers(1, 12))
def test_calibration_error_keeps_ties_together(cells: list[tuple[bool, float]], bins: int) -> None:
    y, p = columns(cells)
    groups: dict[int, list[int]] = {}
    for i, q in enumerate(p):
        below, equal = sum(p < q), sum(p == q)
        groups.setdefault(int((below + equal / 2) / len(p) * bins), []).append(i)
    expected = sum(abs(y[rows].sum() - p[rows].sum()) for rows in groups.values()) / len(p)
    assert metrics.expected_calibration_error(y, p, bins) == pytest.approx(expected, abs=1e-12)
    found = metrics.reliability_bins(y, p, bins)
    assert found.rows.sum() == len(p) and len(found.rows) == len(groups)
    assert (np.diff(found.predicted) > 0).all()


def test_bins_of_distinct_probabilities_are_equally_large() -> None:
    y, p = simulated(1000, 1)
    assert (metrics.reliability_bins(y, p, 10).rows == 100).all()


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, -0.4), (1.7, 0.8)])
def test_recalibration_recovers_a_known_line(slope: float, intercept: float) -> None:
    random = np.random.default_rng(3)
    logit = random.normal(-1, 1.5, 200_000)
    y = random.random(len(logit)) < 1 / (1 + np.exp(-(intercept + slope * logit)))
    found = recalibration.calibration_slope_intercept(y, 1 / (1 + np.exp(-logit)))
    assert found.slope == pytest.approx(slope, abs=0.03)
    assert found.intercept == pytest.approx(intercept, abs=0.03)


def test_recalibration_agrees_with_an_unpenalised_regression() -> None:
    y, p = simulated(2000, 4)
    logit = np.log(p / (1 - p))
    reference = LogisticRegression(C=1e12, tol=1e-10).fit(logit[:, None], y)
    found = recalibration.calibration_slope_intercept(y, p)
    assert found.slope == pytest.approx(reference.coef_[0, 0], abs=1e-3)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=1e-3)


@given(CELLS)
@example([(True, 1.0), (False, 0.0)])
@example([(True, 0.0), (False, 1.0)])
@example([(True, 0.9), (True, 0.8), (False, 0.1), (False, 0.2)])
def test_recalibration_is_finite_and_optimal_even_when_separated(cells: list[tuple[bool, float]]) -> None:
    y, p = columns(cells)
    found = recalibration.calibration_slope_intercept(y, p)
    if y.all() or not y.any():
        assert math.isnan(found.slope) and math.isnan(found.intercept)
        return
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    logit = np.log(clipped) - np.log1p(-clipped)
    assert math.isfinite(found.intercept)
    if np.ptp(logit) < 1e-9:
        assert math.isnan(found.slope)
        return
    assert math.isfinite(found.slope)

    def loss(slope: float, intercept: float) -> float:
        margin = intercept + slope * logit
        shift = intercept + (slope - 1) * logit.mean()
        return float((np.logaddexp(0, margin) - y * margin).sum() + 0.005 * (shift**2 + (slope - 1) ** 2))

    best = loss(*found)
    for other in ((1.0, 0.0), (found.slope + 0.1, found.intercept), (found.slope, found.intercept - 0.1)):
        assert best <= loss(*other) + 1e-9


def test_recalibration_of_one_probability_is_a_shift() -> None:
    y = np.arange(10_000) < 4000
    found = recalibration.calibration_slope_intercept(y, np.full(10_000, 0.2))
    assert math.isnan(found.slope)
    assert found.intercept == pytest.approx(math.log(0.4 / 0.6) - math.log(0.2 / 0.8), abs=1e-3)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (-0.8, 1.0), (0.0, 1.5), (0.5, 0.7)])
def test_a_wrong_level_and_a_wrong_slope_are_told_from_the_ranking(shift: float, scale: float) -> None:
    random = np.random.default_rng(5)
    true = random.normal(-1, 1, 20_000)
    y = random.random(len(true)) < 1 / (1 + np.exp(-true))

    def loss(logit: npt.NDArray[np.float64]) -> float:
        return metrics.log_loss(y, 1 / (1 + np.exp(-logit)))

    said = shift - 1 + scale * (true + 1)
    found = recalibration.decompose_log_loss(y, 1 / (1 + np.exp(-said)))
    line = LogisticRegression(C=np.inf).fit(said[:, None], y)
    assert found.log_loss == pytest.approx(loss(said), abs=1e-9)
    assert found.level + found.slope + found.ranking == pytest.approx(found.log_loss, abs=1e-12)
    assert found.ranking == pytest.approx(loss(line.intercept_[0] + line.coef_[0, 0] * said), abs=1e-6)
    best_shift = min(loss(by + said) for by in np.linspace(-1.0, 1.0, 401))
    assert found.level == pytest.approx(loss(said) - best_shift, abs=2e-6)
    assert (found.level > 0.005) == (shift != 0)
    assert (found.slope > 0.002) == (scale != 1)


def test_observed_expected_by_hand() -> None:
    assert metrics.observed_expected([1, 0, 1, 0], [0.5, 0.25, 0.25, 0.25]) == pytest.approx(1.6)
    assert math.isnan(metrics.observed_expected([0, 0], [0.0, 0.0]))


def test_wilson_by_hand() -> None:
    low, high = metrics.wilson_interval([0, 5, 10, 0], [10, 10, 10, 0])
    assert low[:3] == pytest.approx([0.0, 0.2366, 0.7225], abs=1e-4)
    assert high[:3] == pytest.approx([0.2775, 0.7634, 1.0], abs=1e-4)
    assert math.isnan(low[3]) and math.isnan(high[3])


@settings(max_examples=40, deadline=None)
@given(CELLS, st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_rows(cells: list[tuple[bool, float]], random: object) -> None:
    shuffled = list(cells)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = metrics.cell_metrics(*columns(cells)), metrics.cell_metrics(*columns(shuffled))
    assert first == pytest.approx(second, rel=1e-6, abs=1e-9, nan_ok=True)


def test_a_cell_holds_every_metric_as_a_float() -> None:
    y, p = simulated(500, 5)
    found = metrics.cell_metrics(y, p)
    assert list(found) == [
        "n",
        "converted",
        "base_rate",
        "log_loss",
        "brier",
        "auc",
        "average_precision",
        "lift_1",
        "gain_1",
        "lift_5",
        "gain_5",
        "lift_10",
        "gain_10",
        "calibration_slope",
        "calibration_intercept",
        "expected_calibration_error",
        "observed_expected",
    ]
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert found["n"] == 500 and found["converted"] == y.sum()
    assert found["base_rate"] == pytest.approx(y.mean())
    assert found["lift_10"] == pytest.approx(10 * found["gain_10"])


def test_an_empty_cell_is_not_a_number_but_for_its_counts() -> None:
    found = metrics.cell_metrics([], [])
    assert found.pop("n") == 0 and found.pop("converted") == 0
    assert all(math.isnan(value) for value in found.values())


def test_every_fault_is_named_at_once_without_values() -> None:
    with pytest.raises(DataError) as caught:
        metrics.auc([0, 1, 2], [0.7, math.nan, 1.5])
    assert str(caught.value) == (
        "These predictions cannot be judged:\n"
        "  - 1 outcome(s) are neither 0 nor 1; leave out what is not yet known\n"
        "  - 2 probability(ies) are missing or outside [0, 1]; score only targets that lie ahead"
    )
    with pytest.raises(DataError, match=r"y has the shape \(2,\) and p \(1,\)"):
        metrics.brier([0, 1], [0.5])


def test_float32_probabilities_are_judged_in_float64() -> None:
    y, p = simulated(1000, 6)
    narrow = p.astype(np.float32)
    assert metrics.log_loss(y, narrow) == metrics.log_loss(y, narrow.astype(np.float64))


@pytest.mark.slow
def test_bootstrap_covers_the_truth_with_whole_customers_and_not_without() -> None:
    random = np.random.default_rng(7)
    covered = naive = 0
    runs = 200
    for run in range(runs):
        rows = random.integers(1, 8, 80)
        customers = np.repeat(np.arange(80), rows)
        values = 0.3 + random.normal(0, 1, 80)[customers] + random.normal(0, 0.3, len(customers))
        found = metrics.bootstrap_interval(values, customers, draws=300, seed=run)
        covered += found.low <= 0.3 <= found.high
        by_row = metrics.bootstrap_interval(values, np.arange(len(values)), draws=300, seed=run)
        naive += by_row.low <= 0.3 <= by_row.high
    assert covered / runs == pytest.approx(0.94, abs=0.045)
    assert naive / runs < 0.75


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(8).normal(1, 2, 4000)
    found = metrics.bootstrap_interval(values, np.arange(4000), seed=1)
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(4000), rel=0.1)
    narrower = metrics.bootstrap_interval(values, np.arange(4000), seed=1, level=0.5)
    assert narrower.high - narrower.low == pytest.approx(2 * 0.6745 * values.std() / math.sqrt(4000), rel=0.1)


def test_bootstrap_pairs_two_models_through_their_difference() -> None:
    y, p = simulated(3000, 9)
    worse = np.clip(p * 1.4, 0, 0.99)
    difference = metrics.log_loss_terms(y, p) - metrics.log_loss_terms(y, worse)
    found = metrics.bootstrap_interval(difference, np.arange(3000), seed=2)
    assert found.estimate == pytest.approx(metrics.log_loss(y, p) - metrics.log_loss(y, worse))
    assert found.low < found.estimate < found.high < 0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-4, 4)), min_size=2, max_size=15), st.integers(0, 5))
def test_bootstrap_is_a_function_of_seed_and_content(cells: list[tuple[str, int]], seed: int) -> None:
    names, values = [name for name, _ in cells], [value for _, value in cells]
    assume(len(set(names)) > 1)
    found = metrics.bootstrap_interval(values, names, draws=50, seed=seed)
    assert metrics.bootstrap_interval(values[::-1], names[::-1], draws=50, seed=seed) == found
    assert min(values) <= found.low <= found.high <= max(values)


def test_bootstrap_of_one_customer_has_no_interval() -> None:
    found = metrics.bootstrap_interval([0.1, 0.3], ["a", "a"], seed=0)
    assert found.estimate == pytest.approx(0.2)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert all(math.isnan(value) for value in metrics.bootstrap_interval([], [], seed=0))


def test_bootstrap_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(DataError) as caught:
        metrics.bootstrap_interval([math.nan, 1.0], [1], draws=0, seed=0)
    assert str(caught.value).count("\n  - ") == 3


def test_markdown_table_is_aligned_and_escaped() -> None:
    rows: list[dict[str, str | float | None]] = [
        {"from": "Convert", "n": 12345, "loss": 0.18234, "auc": math.nan},
        {"from": "a|b\nc", "n": 7, "loss": 1234.5, "auc": None, "hidden": 1},
    ]
    assert metrics.markdown_table(rows, {"from": "From", "n": "Customers", "loss": "Log loss", "auc": "AUC"}) == (
        "| From    | Customers |   Log loss | AUC |\n"
        "| ------- | --------: | ---------: | --: |\n"
        "| Convert |    12,345 |     0.1823 |   - |\n"
        "| a\\|b c  |         7 | 1,234.5000 |   - |\n"
    )


def test_markdown_table_without_rows_keeps_its_headings() -> None:
    assert metrics.markdown_table([], {"a": "A"}) == "| A   |\n| --- |\n"
