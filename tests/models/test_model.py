"""The model's parts: base rates, calibration; and training on whatever little there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.oracles.cases import Blocks, a_plain_block, a_shop

from cvj_ml.config import DAY
from cvj_ml.histories import Block
from cvj_ml.journey import Journey
from cvj_ml.models import training
from cvj_ml.models.hazard import calibration, tree_size
from cvj_ml.models.hazard.base_rates import BaseRates, fit_base_rates
from cvj_ml.models.hazard.calibration import (
    Calibration,
    HazardOutcomes,
    fit_slopes,
    identity,
    recalibrate,
    set_levels,
)
from cvj_ml.models.hazard.fitting import LOW_EVIDENCE, BinnedRows
from cvj_ml.models.hazard.tree_size import DEFAULT, Choice
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import Fit, fit_reach
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.panel.panel import HazardRows, Panel, build_panel, hazard_rows
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import edges, parse_as_of

F64 = npt.NDArray[np.float64]


# Base rates.


def rows_of(*rows: tuple[int, int, int, bool]) -> HazardRows:
    snapshot, target, interval, converted = zip(*rows, strict=True)
    return HazardRows(
        np.array(snapshot, dtype=np.int64),
        np.array(target, dtype=np.int8),
        np.array(interval, dtype=np.int8),
        np.array(converted, dtype=np.bool_),
    )


def test_base_rates_by_hand() -> None:
    """From target and interval over stage to recency, five events' worth of the coarser rate at each step."""
    # Snapshots 0 to 5: three in stage 0 and three in stage 1, alternately recent (day 1) and long ago (day 9).
    stage = np.array([0, 0, 0, 1, 1, 1], dtype=np.int8)
    recency = np.array([1, 9, 1, 9, 1, 9], dtype=np.float32)
    rows = rows_of((0, 0, 0, True), (1, 0, 0, False), (2, 0, 0, True), (3, 0, 0, False), (4, 0, 0, False))
    base = fit_base_rates(rows, np.arange(6), stage, recency, stages=2, intervals=1, fewest=1)
    overall = (2 + 0.5) / (5 + 1)
    in_stage_0 = (2 + 5) / (3 + 5 / overall)
    recent_in_stage_0 = (2 + 5) / (2 + 5 / in_stage_0)
    in_stage_1 = (0 + 5) / (2 + 5 / overall)
    late_in_stage_1 = (0 + 5) / (1 + 5 / in_stage_1)
    asked = base.hazards(
        np.array([0, 1], dtype=np.int8), np.array([1.0, 9.0]), np.zeros(2, dtype=np.int8), np.zeros(2, dtype=np.int8)
    )
    assert asked == pytest.approx([recent_in_stage_0, late_in_stage_1])


def test_a_cell_that_nobody_saw_has_its_parents_rate() -> None:
    stage, recency = np.array([0, 0], dtype=np.int8), np.array([1.0, 2.0])
    base = fit_base_rates(
        rows_of((0, 1, 0, True), (1, 1, 0, False)), np.arange(2), stage, recency, stages=3, intervals=2, fewest=1
    )
    unseen = base.hazards(
        np.array([2, 2], dtype=np.int8), np.array([1.0, np.nan]), np.ones(2, dtype=np.int8), np.zeros(2, dtype=np.int8)
    )
    assert unseen == pytest.approx([(1 + 0.5) / (2 + 1)] * 2)
    assert ((base.rates > 0) & (base.rates < 1)).all(), "a logit exists for every cell"


def test_recency_bins_are_fifths_and_the_last_is_for_no_recency() -> None:
    recency = np.arange(1, 101, dtype=np.float32)
    rows = rows_of((0, 0, 0, False))
    base = fit_base_rates(rows, np.arange(100), np.zeros(100, dtype=np.int8), recency, 1, 1, 1)
    counts = np.bincount(base.bins(recency))
    assert counts.tolist() == [20, 20, 20, 20, 20]
    assert base.bins(np.array([np.nan, 0.0, 1e9])).tolist() == [5, 0, 4]


def test_base_rates_without_any_recency() -> None:
    one, nobody = rows_of((0, 0, 0, True)), np.zeros(1, dtype=np.int64)
    base = fit_base_rates(one, nobody, nobody.astype(np.int8), np.array([np.nan]), 1, 1, 1)
    assert isinstance(base, BaseRates) and base.bins(np.array([np.nan, 3.0])).tolist() == [1, 0]


# Calibration.


def outcomes(logit: F64, probability: F64, cell: tuple[int, int] = (0, 0), rows_each: int = 1) -> HazardOutcomes:
    """Rows that moved with these probabilities; each customer has so many rows."""
    random = np.random.default_rng(5)
    size = len(logit)
    return HazardOutcomes(
        logit,
        random.random(size) < probability,
        np.full(size, cell[0], dtype=np.int8),
        np.full(size, cell[1], dtype=np.int8),
        np.arange(size, dtype=np.int64) // rows_each,
    )


def sigmoid(x: F64) -> F64:
    found: F64 = 1 / (1 + np.exp(-x))
    return found


LOGITS = np.random.default_rng(1).normal(-2.0, 1.5, 60_000)


@pytest.mark.parametrize(("shift", "slope"), [(0.0, 1.0), (0.7, 1.0), (-0.4, 0.6), (0.2, 1.5)])
def test_recalibration_recovers_a_known_shift_and_slope(shift: float, slope: float) -> None:
    rows = outcomes(LOGITS, sigmoid(shift + slope * LOGITS))
    a, b = recalibrate(rows.logit, rows.converted, with_slope=True)
    assert (a, b) == (pytest.approx(shift, abs=0.06), pytest.approx(slope, abs=0.03))
    fitted = fit_slopes(rows, targets=1, intervals=1)
    assert fitted.slope[0, 0] == pytest.approx(slope, abs=0.03)
    p = sigmoid(fitted.apply(rows.logit, rows.target, rows.interval))
    assert p.mean() == pytest.approx(rows.converted.mean(), abs=2e-3)


def test_without_a_slope_only_the_level_moves() -> None:
    rows = outcomes(LOGITS, sigmoid(0.7 + LOGITS))
    a, b = recalibrate(rows.logit, rows.converted, with_slope=False)
    assert (a, b) == (pytest.approx(0.7, abs=0.04), 1.0)
    assert sigmoid(a + rows.logit).sum() == pytest.approx(rows.converted.sum(), rel=1e-6)


def joined(*parts: HazardOutcomes) -> HazardOutcomes:
    shift = np.cumsum([0, *(int(part.customer.max()) + 1 for part in parts[:-1])])
    return HazardOutcomes(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("logit", "converted", "target", "interval")
        ),
        np.concatenate([part.customer + start for part, start in zip(parts, shift, strict=True)]),
    )


def test_a_rare_cell_leans_on_the_pooled_map_and_a_silent_one_rests_on_it() -> None:
    common = outcomes(LOGITS, sigmoid(0.6 * LOGITS), (0, 0))
    rare = outcomes(LOGITS[:60], np.full(60, 0.4), (1, 0))
    silent = outcomes(LOGITS[:60], np.zeros(60), (1, 1))
    fitted = fit_slopes(joined(common, rare, silent), targets=2, intervals=2)
    assert fitted.slope[0, 0] == pytest.approx(0.6, abs=0.03)
    assert fitted.slope[1, 0] == pytest.approx(0.6, abs=0.03), "too few for a slope of its own"
    assert fitted.slope[1, 1] == fitted.slope[0, 1]
    assert fitted.intercept[1, 1] == fitted.intercept[0, 1], "nobody moved: the pooled map"
    assert fitted.intercept[1, 0] > fitted.intercept[1, 1] + 0.2, "its own level counts in part"


def test_the_slope_of_a_cell_needs_customers_and_not_rows() -> None:
    """Silent error 10: hundreds of events of a few people give no slope of their own."""
    steep = sigmoid(2.0 * LOGITS[:6000])
    base = outcomes(LOGITS, sigmoid(LOGITS), (0, 0))
    people = fit_slopes(joined(base, outcomes(LOGITS[:6000], steep, (1, 0))), 2, 1)
    copies = fit_slopes(joined(base, outcomes(LOGITS[:6000], steep, (1, 0), rows_each=60)), 2, 1)
    assert outcomes(LOGITS[:6000], steep).converted.sum() > 500
    assert people.slope[1, 0] > 1.6
    assert copies.slope[1, 0] == pytest.approx(1.0, abs=0.1)


def test_levels_are_those_of_the_rows_and_shrunk_where_few_moved() -> None:
    slopes = Calibration(np.full((2, 1), 9.0), np.full((2, 1), 0.5))
    many = outcomes(LOGITS, sigmoid(-0.8 + 0.5 * LOGITS), (0, 0))
    few = outcomes(LOGITS[:30], np.full(30, 0.5), (1, 0))
    found = set_levels(slopes, joined(many, few))
    assert found.slope.tolist() == slopes.slope.tolist()
    assert found.intercept[0, 0] == pytest.approx(-0.8, abs=0.04)
    whole, _ = recalibrate(0.5 * few.logit, few.converted, with_slope=False)
    events = few.converted.sum()
    assert found.intercept[1, 0] == pytest.approx(whole * events / (events + 50))


@pytest.mark.parametrize("converted", [np.zeros(50), np.ones(50)], ids=["nobody moved", "everybody moved"])
def test_one_class_is_left_as_it_is(converted: F64) -> None:
    rows = outcomes(LOGITS[:50], converted)
    nothing = identity(1, 1)
    for found in (fit_slopes(rows, 1, 1), set_levels(nothing, rows)):
        assert (found.intercept.tolist(), found.slope.tolist()) == ([[0.0]], [[1.0]])


def test_perfect_separation_ends_in_finite_numbers() -> None:
    logit = np.concatenate([np.full(300, -3.0), np.full(300, 3.0)])
    a, b = recalibrate(logit, logit > 0, with_slope=True)
    assert np.isfinite([a, b]).all() and b > 1


# Training on little.


CONFIG = a_shop({"Visitor": {"event": "visit"}, "Buyer": {"event": "purchase"}})
CUT = parse_as_of("2024-12-01", CONFIG.zone)
FROM = parse_as_of("2024-01-01", CONFIG.zone)


def shop(customers: int, buyers: int) -> Block:
    """Customers who visit about every ten days; buyers purchase once, spread over the year."""
    random = np.random.default_rng(customers * 1000 + buyers)
    instants, events, offsets = [], [], [0]
    for i in range(customers):
        at = FROM + np.sort(random.choice(335 * 86_400, 30, replace=False)) * 1_000_000
        event = np.zeros(30, dtype=np.int32)
        if i < buyers:
            event[random.integers(10, 28)] = 1
        instants.append(at)
        events.append(event)
        offsets.append(offsets[-1] + 30)
    occurred = np.concatenate(instants)
    code = np.concatenate(events)
    return a_plain_block(offsets, occurred, code, ("visit", "purchase"))


def panel_of(block: Block) -> tuple[ModelSpec, Panel]:
    blocks = Blocks([block])
    definition = define(CONFIG, Journey(CONFIG.journey), blocks, CUT)
    return definition, build_panel(definition, blocks, training_grid(CONFIG, CUT), CUT, 0)


def check_answers(definition: ModelSpec, fit: Fit, block: Block) -> F64:
    """Predict, and check what must hold of every answer."""
    p = Predictor(definition, fit.trees, fit.calibration).answer(block, CUT).probability
    known = ~np.isnan(p)
    assert known[:, 0].all(), "return is asked of everybody"
    assert ((p[known] > 0) & (p[known] < 1)).all()
    assert (np.diff(p, axis=2)[known[:, :, 1:]] >= 0).all(), "silent error 15"
    both = known[:, 0] & known[:, 2]
    assert (p[:, 0][both] >= p[:, 2][both]).all()
    return p


@pytest.mark.parametrize(
    ("customers", "buyers"), [(1, 0), (1, 1), (3, 1), (50, 0), (50, 5), (50, 50), (120, 1), (120, 60)]
)
def test_training_copes_with_few_and_says_so(customers: int, buyers: int) -> None:
    block = shop(customers, buyers)
    definition, panel = panel_of(block)
    fit = fit_reach(panel, seed=1, threads=1)
    p = check_answers(definition, fit, block)
    assert fit.trees.low[2] == (buyers < LOW_EVIDENCE)
    assert fit.trees.low[0] == (customers < LOW_EVIDENCE)
    if 0 < buyers < customers:
        rate = np.nanmean(p[:, 2, 1])
        assert 0 < rate < 0.7


@pytest.mark.parametrize(("buyers", "low"), [(29, True), (30, False)])
def test_low_evidence_counts_customers_and_not_rows(buyers: int, low: bool) -> None:
    """Silent error 10: 29 customers with a dozen snapshots each are 29."""
    block = shop(60, buyers)
    definition, panel = panel_of(block)
    rows = hazard_rows(panel.labels, definition.horizons)
    assert (rows.converted & (rows.target == 2)).sum() > LOW_EVIDENCE == 30
    assert panel.converters.tolist() == [60, 0, buyers]
    assert fit_reach(panel, seed=1, threads=1).trees.low.tolist() == [False, True, low]


def test_training_is_a_function_of_its_seed() -> None:
    block = shop(80, 40)
    _, panel = panel_of(block)
    texts = [fit_reach(panel, seed=seed, threads=1).trees.booster for seed in (1, 1, 2)]
    assert all(texts)
    first, again, other = (text.model_to_string() if text else "" for text in texts)
    assert first == again != other


@pytest.mark.slow
def test_slopes_come_from_rows_after_those_that_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent errors 11 and 17: no row that ends after C' is in the trees that give slopes; then all rows are."""
    definition, panel = panel_of(shop(400, 300))
    taught: list[HazardRows] = []
    evaluated: list[HazardOutcomes] = []
    boost, slopes_there = BinnedRows.boost, tree_size.helpful_slopes

    def boosted(self: BinnedRows, start: Any, positions: Any, *arguments: Any, **named: Any) -> Any:
        taught.append(self.rows.take(positions))
        return boost(self, start, positions, *arguments, **named)

    def slopes(rows: HazardOutcomes, *arguments: Any) -> Calibration | None:
        evaluated.append(rows)
        return slopes_there(rows, *arguments)

    monkeypatch.setattr(BinnedRows, "boost", boosted)
    monkeypatch.setattr(tree_size, "helpful_slopes", slopes)
    fit = fit_reach(panel, seed=1, threads=1)
    inner = CUT - max(90 * DAY, (CUT - int(panel.as_of.min())) // 4)
    ends = np.array(edges(definition.horizons)[1:])
    *early, last = taught
    assert len(early) >= 4 and (fit.choice.slopes is None or fit.choice.events > 0)
    for rows in early:
        assert (panel.as_of[rows.snapshot] + ends[rows.interval] <= inner).all()
        assert len(last) > len(rows)
    (found,) = evaluated
    everything = hazard_rows(panel.labels, definition.horizons)
    starts_late = (panel.as_of[everything.snapshot] >= inner) & ~fit.trees.low[everything.target]
    assert len(found.converted) == starts_late.sum()
    assert found.converted.sum() == everything.converted[starts_late].sum()


def test_slopes_are_judged_by_customers_they_have_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent error 11: folds by customer, never by row."""
    calls: list[set[int]] = []
    original = calibration.fit_slopes

    def slopes(rows: HazardOutcomes, *arguments: Any) -> Calibration:
        calls.append(set(np.unique(rows.customer).tolist()))
        return original(rows, *arguments)

    monkeypatch.setattr(calibration, "fit_slopes", slopes)
    random = np.random.default_rng(4)
    customer = np.repeat(np.arange(300), 4)
    logit = random.normal(-1, 1, len(customer))
    converted = random.random(len(customer)) < 1 / (1 + np.exp(-0.5 * logit))
    nothing = np.zeros(len(customer), dtype=np.int8)
    found = calibration.helpful_slopes(HazardOutcomes(logit, converted, nothing, nothing, customer), 1, 1, seed=1)
    assert found is not None and found.slope[0, 0] == pytest.approx(0.5, abs=0.15)
    *parts, last = calls
    everybody = set(customer.tolist())
    assert last == everybody and len(parts) == 5
    held = [everybody - one for one in parts]
    assert set().union(*held) == everybody
    assert sum(map(len, held)) == len(everybody), "each customer is held out once, with all rows"


@pytest.mark.slow
@pytest.mark.parametrize("slopes_help", [True, False])
def test_levels_are_those_of_the_last_year(monkeypatch: pytest.MonkeyPatch, slopes_help: bool) -> None:
    """Silent error 7: an era long over must not set the level, and less than a year would carry a season."""
    year = 60 * DAY  # of a history of months
    monkeypatch.setattr(training, "YEAR", year)
    halves = Calibration(np.zeros((3, 2)), np.full((3, 2), 0.5)) if slopes_help else None
    used: list[HazardOutcomes] = []
    original = training.set_levels

    def levels(slopes: Calibration, rows: HazardOutcomes) -> Calibration:
        used.append(rows)
        return original(slopes, rows)

    monkeypatch.setattr(training, "set_levels", levels)
    definition, panel = panel_of(shop(200, 120))
    fit = fit_reach(panel, seed=1, threads=1, given=Choice(DEFAULT, slopes=halves, events=1e9))
    assert (fit.calibration.slope == 1).all() == (not slopes_help)
    assert fit.calibration.intercept.any(), "with slopes or without"
    rows = hazard_rows(panel.labels, definition.horizons)
    ends = panel.as_of[rows.snapshot] + np.array(edges(definition.horizons)[1:])[rows.interval]
    recent = ends >= CUT - year
    assert 0 < recent.sum() < len(rows)
    (found,) = used
    assert len(found.converted) == recent.sum()
    assert found.converted.sum() == rows.converted[recent].sum()
