"""The order of amounts, and whether they may rank lists."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.buyers import CUT, a_buying_definition, a_shop_of_buyers

from cvj_ml.config import DAY
from cvj_ml.evaluation.amount_metrics import judge_amounts, mean_of_stage, normalised_gini
from cvj_ml.panel.panel import Panel, build_panel

_F64 = npt.NDArray[np.float64]


def gini_by_hand(bought: list[int], said: list[int]) -> float:
    """Twice the area, up to a factor: of each pair, what the one who is forecast to buy more buys more."""
    total = 0.0
    for mine, here in zip(bought, said, strict=True):
        for other, there in zip(bought, said, strict=True):
            total += (mine - other) * ((here > there) - (here < there)) / 2
    return total


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=8), st.integers(1, 3))
def test_the_normalised_gini_is_that_of_pairs(rows: list[tuple[int, int]], times: int) -> None:
    """Silent error 149: ties share, and a customer who is drawn twice counts twice."""
    bought, said = [one for one, _ in rows], [one for _, one in rows]
    weights = np.array([[1] * len(rows), [times] + [1] * (len(rows) - 1)])
    found = normalised_gini(np.array(bought, dtype=np.float64), np.array(said, dtype=np.float64), weights)
    for k, drawn in enumerate(([1] * len(rows), [times] + [1] * (len(rows) - 1))):
        money = [one for one, n in zip(bought, drawn, strict=True) for _ in range(n)]
        by = [one for one, n in zip(said, drawn, strict=True) for _ in range(n)]
        perfect = gini_by_hand(money, money)
        if perfect > 0:
            assert found[k] == pytest.approx(gini_by_hand(money, by) / perfect)


@cache
def a_fold() -> tuple[Panel, Panel]:
    blocks, _ = a_shop_of_buyers(400, seed=7)
    definition = a_buying_definition()
    history = build_panel(definition, blocks, np.array([CUT - 100 * DAY, CUT - 70 * DAY]), CUT, 0)
    return history, build_panel(definition, blocks, np.array([CUT]), CUT + 80 * DAY, 0)


def test_what_orders_customers_ranks_and_noise_or_a_wrong_size_does_not() -> None:
    history, test = a_fold()
    by_stage = mean_of_stage(history, test)
    assert test.amounts is not None and history.amounts is not None
    known = history.amounts.gross[:, 2][history.amounts.whole[:, 2] & (history.stage == 0)]
    assert by_stage[:, 2] == pytest.approx(np.full(len(test), known.mean() / 100))
    truth = test.amounts.gross / 100.0
    noise = np.random.default_rng(2).random(truth.shape) * truth.mean() * 2

    def verdict(expected: _F64) -> bool:
        found = judge_amounts(test, expected, by_stage, seed=1)
        assert found is not None and found.low <= found.gain <= found.high
        return found.ranks

    assert verdict(truth + noise / 4)
    assert not verdict(noise)
    assert not verdict(truth * 3) and not verdict(truth / 3)


def test_a_fold_that_is_not_over_decides_nothing() -> None:
    _, test = a_fold()
    assert test.amounts is not None
    half = replace(test, amounts=replace(test.amounts, whole=np.zeros_like(test.amounts.whole)))
    expected = test.amounts.gross / 100.0
    assert judge_amounts(half, expected, expected, seed=1) is None
    assert judge_amounts(replace(test, amounts=None), expected, expected, seed=1) is None
