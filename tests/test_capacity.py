"""How much the trees may learn: cautious unless customers who are held out bear bolder ones out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.oracles.cases import Blocks
from tests.test_small_data import CONFIG, CUT, FROM, shop

from cvj_ml.config import DAY
from cvj_ml.models import capacity
from cvj_ml.models.capacity import BOLD, CAUTIOUS, ERRORS, Comparison, compare
from cvj_ml.models.fitting import Start
from cvj_ml.models.training import fit_reach
from cvj_ml.panel import HazardRows, Panel, build_panel, define

CUSTOMERS = 1500


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Many customers with few snapshots each, and features that say nothing yet."""
    blocks = Blocks([shop(CUSTOMERS, 300, seed=1)])
    definition = define(CONFIG, frozenset(), blocks, CUT)
    found = build_panel(definition, blocks, np.array([CUT - 200 * DAY, CUT - 100 * DAY]), CUT, 0)
    x = np.random.default_rng(5).normal(size=found.x.shape).astype(np.float32)
    x[:, definition.catalogue.names.index("recency")] = found.column("recency")
    assert (found.as_of > FROM).all()
    return replace(found, x=x)


def rows_of(panel: Panel, chance: npt.NDArray[np.float64], seed: int = 2) -> HazardRows:
    """One hazard row a snapshot, moved with the chance given."""
    n = len(panel)
    moved = np.random.default_rng(seed).random(n) < chance
    return HazardRows(np.arange(n), np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.int8), moved)


def patterned(panel: Panel) -> HazardRows:
    """Who moves depends on two features together: nothing that a line can say."""
    hidden = [i for i, name in enumerate(panel.definition.catalogue.names) if name.startswith("touchpoints_30")]
    other = [i for i, name in enumerate(panel.definition.catalogue.names) if name.startswith("active_days_30")]
    return rows_of(panel, np.where(panel.x[:, hidden[0]] * panel.x[:, other[0]] > 0, 0.8, 0.1))


def test_a_pattern_that_holds_for_other_customers_is_learned_boldly(panel: Panel) -> None:
    found = compare(panel, patterned(panel), 1, 1)
    assert found is not None and found.bold
    assert found.difference < -ERRORS * found.error < 0
    assert found.settings == replace(BOLD, rounds=found.rounds) and 1 < found.rounds < BOLD.rounds


def test_noise_is_not(panel: Panel) -> None:
    """Bold trees would learn it by heart: the customers who are held out say so."""
    found = compare(panel, rows_of(panel, np.full(len(panel), 0.3)), 1, 1)
    assert found is not None and not found.bold and found.settings == CAUTIOUS


def test_beyond_doubt_is_three_standard_errors() -> None:
    assert Comparison(-0.0301, 0.01, 80).bold
    assert not Comparison(-0.0299, 0.01, 80).bold
    assert not Comparison(0.05, 0.01, 80).bold


def test_too_few_who_moved_compare_nothing(panel: Panel) -> None:
    rows = rows_of(panel, np.full(len(panel), 0.05))
    assert 0 < rows.moved.sum() < 200
    assert compare(panel, rows, 1, 1) is None


def test_nobody_is_judged_by_trees_that_have_seen_them(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer's snapshots are taught or held out together, and each customer is held out once."""
    held_out: list[set[int]] = []
    boost = Start.boost

    def watched(self: Start, rows: HazardRows, *arguments: Any, held: HazardRows | None = None) -> Any:
        if held is not None:
            taught, kept = ({*self.panel.customer[one.snapshot].tolist()} for one in (rows, held))
            assert not taught & kept
            held_out.append(kept)
        return boost(self, rows, *arguments, held=held)

    monkeypatch.setattr(Start, "boost", watched)
    compare(panel, patterned(panel), 1, 1)
    everybody = set(panel.customer.tolist())
    assert set.union(*held_out) == everybody and sum(map(len, held_out)) == len(everybody)


def test_the_comparison_does_not_depend_on_threads_and_is_bounded(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = patterned(panel)
    assert compare(panel, rows, 1, 1) == compare(panel, rows, 1, 2)
    monkeypatch.setattr(capacity, "MOST_ROWS", len(rows) // 2)
    seen: list[int] = []
    boost = Start.boost

    def counted(self: Start, taught: HazardRows, *arguments: Any, **named: Any) -> Any:
        seen.append(len(taught))
        return boost(self, taught, *arguments, **named)

    monkeypatch.setattr(Start, "boost", counted)
    assert compare(panel, rows, 1, 1) is not None
    assert max(seen) < len(rows) // 2


def test_given_settings_are_taken_and_nothing_is_compared(panel: Panel) -> None:
    asked = replace(CAUTIOUS, rounds=3)
    fit = fit_reach(panel, CUT, 0, 1, 1, settings=asked)
    assert fit.settings == asked and fit.comparison is None
    own = fit_reach(panel, CUT, 0, 1, 1)
    assert own.comparison is not None and own.settings == own.comparison.settings
