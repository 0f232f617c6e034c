"""Amounts: order of the horizons, numbers of purchases, intervals on a known process, and what a bundle holds."""

from __future__ import annotations

from dataclasses import astuple, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.oracles.buyers import CUT, HORIZONS, START, a_buying_definition, a_shop_of_buyers, true_chances
from tests.oracles.cases import Blocks, a_predictor

from cvj_ml.config import DAY
from cvj_ml.journey import PURCHASE
from cvj_ml.models.bundle.value_files import load_value, save_value
from cvj_ml.models.value.purchase_history import PurchaseColumns
from cvj_ml.models.value.spread import EXPONENTIAL, Ratios, fit_spread
from cvj_ml.models.value.value import ValueModel, fit_value, median_time
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.scoring.scores_table import as_table, scores_contract
from cvj_ml.windows import NEVER

_F64 = npt.NDArray[np.float64]


@cache
def a_model() -> tuple[ValueModel, Panel, _F64]:
    """A model of 1,500 customers at the cut, and snapshots there with the true chances and what came afterwards."""
    blocks, rate = a_shop_of_buyers(1500, seed=3)
    definition = a_buying_definition()
    history = build_panel(definition, blocks, np.arange(START + 90 * DAY, CUT, 30 * DAY), CUT, 0)
    later = build_panel(definition, blocks, np.array([CUT]), CUT + 80 * DAY, 0)
    model = fit_value(history, true_chances(rate, history))
    assert model is not None
    return model, later, true_chances(rate, later)


def test_expected_numbers_and_amounts_are_those_that_happen() -> None:
    """Silent error 142: a mean of logs would be a sixth too low here."""
    model, later, p = a_model()
    found = model.predict(later.x, PurchaseColumns.of(later.definition), p, HORIZONS)
    amounts = later.amounts
    assert amounts is not None and amounts.whole.all() and found.refunds is not None
    for h in range(len(HORIZONS)):
        assert found.number[:, h].sum() == pytest.approx(amounts.purchases[:, h].sum(), rel=0.1)
        assert found.gross[:, h].sum() == pytest.approx(amounts.gross[:, h].sum() / 100, rel=0.1)
        assert found.refunds[:, h].sum() == pytest.approx(amounts.refunds[:, h].sum() / 100, rel=0.3)
    true = -np.log1p(-p[:, 2])
    assert np.corrcoef(found.number[:, 2], true)[0, 1] > 0.9


@pytest.mark.parametrize("factor", [0, -1])
def test_purchases_that_nobody_paid_for_have_no_amounts(factor: int) -> None:
    """Silent error 162: logs of events often have no values, and means of nothing would be no numbers."""
    blocks, rate = a_shop_of_buyers(300, seed=3)
    (block,) = blocks.blocks
    value = factor * np.abs(block.touchpoints.value)
    free = replace(block, touchpoints=replace(block.touchpoints, value=value, has_value=value < 0))
    history = build_panel(a_buying_definition(), Blocks([free]), np.array([CUT - 120 * DAY]), CUT, 0)
    assert history.amounts is not None and history.amounts.purchases.any() and not history.amounts.gross.any()
    assert fit_value(history, true_chances(rate, history)) is None


def test_the_randomised_pit_is_even_and_the_interval_holds_what_it_says() -> None:
    """Silent errors 143 and 144: with P(0) > 0.9 any interval from 0 covers, so buyers are asked alone, too."""
    model, later, p = a_model()
    assert later.amounts is not None
    h, columns = 2, PurchaseColumns.of(later.definition)
    amount = later.amounts.gross[:, h] / 100
    at_most = model.below(later.x, columns, p, HORIZONS, h, amount)
    before = np.where(amount > 0, at_most, 0.0)
    pit = before + np.random.default_rng(0).random(len(p)) * (at_most - before)
    shares = np.histogram(pit, 5, (0, 1))[0] / len(pit)
    assert np.abs(shares - 0.2).max() < 0.04
    buyers = amount > 0
    among = (at_most[buyers] - (1 - p[buyers, h])) / p[buyers, h]
    assert 0.74 < ((among >= 0.1) & (among <= 0.9)).mean() < 0.86
    found = model.predict(later.x, columns, p, HORIZONS)
    likely = p[:, h] > 0.9
    inside = (amount >= found.low[:, h]) & (amount <= found.high[:, h])
    assert likely.sum() > 100 and 0.72 < inside[likely].mean() < 0.88


_CHANCES = arrays(np.float64, (20, 3), elements=st.floats(0.0, 1.0))


@settings(max_examples=60, deadline=None)
@given(_CHANCES.map(lambda p: np.sort(p, axis=1)), st.integers(0, 1000))
def test_nothing_falls_with_the_horizon_and_no_number_is_below_its_chance(p: _F64, first: int) -> None:
    """Silent error 145, whatever the hazard says, 0 and 1 included."""
    model, later, _ = a_model()
    x = later.x[first : first + 20]
    found = model.predict(x, PurchaseColumns.of(later.definition), p, HORIZONS)
    assert found.refunds is not None
    for table in (found.gross, found.low, found.high, found.number, found.refunds):
        assert np.isfinite(table).all() and (table >= 0).all() and (np.diff(table, axis=1) >= -1e-9).all()
    assert (found.number >= p - 1e-9).all()
    assert (found.low <= found.high + 1e-9).all()
    alone = model.predict(x[:1], PurchaseColumns.of(later.definition), p[:1], HORIZONS)
    assert (alone.gross == found.gross[:1]).all() and (alone.high == found.high[:1]).all()


def test_amounts_follow_the_level_of_who_buys() -> None:
    """Silent error 177: where a season makes buyers more, purchases and amounts are more as their rate is."""
    model, later, p = a_model()
    columns, level = PurchaseColumns.of(later.definition), -np.expm1(2 * np.log1p(-p))
    plain = model.predict(later.x, columns, p, HORIZONS)
    found = model.predict(later.x, columns, p, HORIZONS, level)
    usual = (p > 0.01) & (p < 0.99)
    assert (found.number / plain.number)[usual] == pytest.approx(np.full(usual.sum(), 2.0), rel=1e-6)
    assert (found.gross / plain.gross)[usual] == pytest.approx(np.full(usual.sum(), 2.0), rel=1e-6)
    assert (found.number >= level - 1e-9).all() and (found.low <= found.high + 1e-9).all()
    same = model.predict(later.x, columns, p, HORIZONS, p)
    assert same.gross == pytest.approx(plain.gross) and same.number == pytest.approx(plain.number)


@pytest.mark.parametrize(
    ("p", "days"),
    [([0.5, 0.6, 0.7], 10.0), ([0.75, 0.8, 0.9], 5.0), ([0.1, 0.2, 0.49], None), ([0.0, 0.5, 0.5], 30.0)],
)
def test_the_median_is_interpolated_inside_its_interval(p: list[float], days: float | None) -> None:
    """Silent error 146: beyond the longest horizon nothing is known, so nothing is said."""
    (found,) = median_time(np.array([p]), HORIZONS)
    assert found == (NEVER if days is None else round(days * DAY))


def test_quantiles_and_distribution_are_each_other_s_inverse() -> None:
    ratios = Ratios(0.1, np.array([0.5, 1.0, 2.0]), np.array([0.3, 0.6, 0.9]))
    levels = np.array([0.15, 0.3, 0.5, 0.6, 0.89, 0.97])
    assert ratios.below(ratios.quantile(levels)) == pytest.approx(levels)
    assert ratios.quantile(np.array([-1.0, 0.0, 0.1])).tolist() == [0.0, 0.0, 0.0]
    low, high = EXPONENTIAL.interval(np.array([0.05, 1.0]), np.array([10.0, 10.0]), np.array([1.0, 1.0]))
    assert (low[0], high[0]) == (0.0, 0.0) and high[1] == pytest.approx(10 * -np.log(0.1))


def test_no_point_of_a_spread_rests_on_fewer_customers_than_it_must() -> None:
    """Silent error 147."""
    rng = np.random.default_rng(1)
    customer = np.repeat(np.arange(300), 3)
    amount, number = np.exp(rng.normal(0, 1, 900)), 1 + rng.gamma(1, 1, 900)
    found = fit_spread(amount, np.ones(900), number, customer, 20)
    band = found.band(number)
    for k, ratios in enumerate(found.bands):
        place = np.searchsorted(ratios.points, amount[band == k])
        for cell in range(len(ratios.points) + 1):
            assert len(np.unique(customer[band == k][place == cell])) >= 20
        assert all(float(f"{one:.3g}") == one for one in (*ratios.points, *found.cuts))
    assert fit_spread(amount[:30], np.ones(30), number[:30], customer[:30], 20) == EXPONENTIAL


def test_a_bundle_gives_back_the_same_amounts(tmp_path: Path) -> None:
    """Silent error 148: bits, not nearly the same numbers; and no number of a single customer is in the files."""
    model, later, p = a_model()
    assert later.amounts is not None
    columns = PurchaseColumns.of(later.definition)
    save_value(model, tmp_path)
    back = load_value(tmp_path)
    assert back is not None
    for found, kept in zip(
        astuple(back.predict(later.x, columns, p, HORIZONS)),
        astuple(model.predict(later.x, columns, p, HORIZONS)),
        strict=True,
    ):
        assert (found == kept).all()
    highest = later.x[:, columns.value_max].max()
    assert str(float(highest)) not in (tmp_path / "value.json").read_text(encoding="utf-8")
    (tmp_path / "none").mkdir()
    save_value(None, tmp_path / "none")
    assert load_value(tmp_path / "none") is None


def test_scores_tell_what_the_model_says_and_null_where_it_says_nothing() -> None:
    """Silent error 146, in the table that others read."""
    model, _, _ = a_model()
    blocks, _ = a_shop_of_buyers(300, seed=5)
    definition = a_buying_definition()
    plain = a_predictor(definition, blocks, np.array([CUT - 90 * DAY, CUT - 60 * DAY]), CUT)
    predictor = replace(plain, value=model)
    answers = predictor.answer(blocks.blocks[0], CUT)
    table = as_table(predictor, blocks.blocks[0], answers, CUT, "")
    scores_contract(definition).check(table)
    said = answers.values
    assert said is not None and said.refunds is not None
    for h, day in enumerate((10, 30, 60)):
        told = {"value_{}d": said.gross, "value_{}d_low": said.low, "value_{}d_high": said.high}
        for name, one in {**told, "purchases_{}d": said.number, "refunds_{}d": said.refunds}.items():
            assert (table[name.format(day)].to_numpy() == one[:, h]).all()
    chance = answers.outcomes[PURCHASE]
    due = median_time(chance, HORIZONS)
    expected = [None if at == NEVER else CUT + int(at) for at in due]
    assert table["next_purchase"].cast(pa.int64()).to_pylist() == expected
    assert 0 < table["next_purchase"].null_count < len(table)
    unknown = as_table(plain, blocks.blocks[0], plain.answer(blocks.blocks[0], CUT), CUT, "")
    assert unknown["value_30d"].null_count == len(unknown)
    assert unknown["next_purchase"].equals(table["next_purchase"])


def test_too_few_buyers_teach_nothing() -> None:
    blocks, rate = a_shop_of_buyers(25, seed=4)
    history = build_panel(a_buying_definition(), blocks, np.arange(START + 90 * DAY, CUT, 30 * DAY), CUT, 0)
    assert fit_value(history, true_chances(rate, history)) is None


def test_purchases_without_amounts_teach_none() -> None:
    """Silent error 142: events named under value whose rows have no value are no forecast of nothing."""
    blocks, rate = a_shop_of_buyers(200, seed=6)
    points = blocks.blocks[0].touchpoints
    bare = replace(points, has_value=np.zeros(len(points), dtype=np.bool_))
    without = Blocks([replace(blocks.blocks[0], touchpoints=bare)])
    history = build_panel(a_buying_definition(), without, np.array([CUT - 90 * DAY, CUT - 60 * DAY]), CUT, 0)
    assert history.amounts is not None and history.amounts.purchases.any() and not history.amounts.gross.any()
    assert fit_value(history, true_chances(rate, history)) is None
