"""How much the trees may learn: default unless customers who are held out bear larger ones out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.models.test_small_data import CONFIG, CUT, FROM, shop
from tests.oracles.cases import Blocks

from cvj_ml.config import DAY
from cvj_ml.journey import Journey
from cvj_ml.models.hazard import tree_size
from cvj_ml.models.hazard.fitting import Start
from cvj_ml.models.hazard.reach import Trees
from cvj_ml.models.hazard.tree_size import (
    DEFAULT,
    EARLY_STOPPED,
    ERRORS,
    LARGE,
    TreeSizeComparison,
    choose_settings,
    compare_tree_sizes,
)
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import HazardRows, Panel, build_panel

CUSTOMERS = 1500


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Many customers with few snapshots each, and features that say nothing yet."""
    blocks = Blocks([shop(CUSTOMERS, 300, seed=1)])
    definition = define(CONFIG, Journey(CONFIG.journey), blocks, CUT)
    found = build_panel(definition, blocks, np.array([CUT - 200 * DAY, CUT - 100 * DAY]), CUT, 0)
    x = np.random.default_rng(5).normal(size=found.x.shape).astype(np.float32)
    x[:, definition.catalogue.names.index("recency")] = found.column("recency")
    assert (found.as_of > FROM).all()
    return replace(found, x=x)


def rows_of(panel: Panel, chance: npt.NDArray[np.float64], seed: int = 2) -> HazardRows:
    """One hazard row a snapshot, moved with the chance given."""
    n = len(panel)
    converted = np.random.default_rng(seed).random(n) < chance
    return HazardRows(np.arange(n), np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.int8), converted)


def patterned(panel: Panel) -> HazardRows:
    """Who moves depends on two features together: nothing that a line can say."""
    hidden = [i for i, name in enumerate(panel.definition.catalogue.names) if name.startswith("touchpoints_30")]
    other = [i for i, name in enumerate(panel.definition.catalogue.names) if name.startswith("active_days_30")]
    return rows_of(panel, np.where(panel.x[:, hidden[0]] * panel.x[:, other[0]] > 0, 0.8, 0.1))


def halves(panel: Panel, rows: HazardRows) -> tuple[HazardRows, HazardRows]:
    """The rows of the first instant and those of the second."""
    first = panel.as_of[rows.snapshot] == panel.as_of.min()
    return rows.take(first), rows.take(~first)


def test_a_pattern_that_holds_later_and_for_other_customers_is_learned_boldly(panel: Panel) -> None:
    rows = patterned(panel)
    settings, (_, large) = choose_settings(panel, rows, *halves(panel, rows), 1, 1)
    assert large.settings == LARGE and large.better
    assert large.difference < -ERRORS * large.error < 0
    assert settings == replace(LARGE, rounds=settings.rounds) and settings.rounds > 1


def test_a_pattern_that_is_over_is_not(panel: Panel) -> None:
    """The customers held out in the same days would bear it out; those of later days do not."""
    rows = patterned(panel)
    later = rows_of(panel, np.full(len(panel), 0.4))
    early, (_, later) = halves(panel, rows)[0], halves(panel, later)
    assert compare_tree_sizes(panel, early, early, 1, 1)[1].better
    settings, (_, large) = choose_settings(panel, rows, early, later, 1, 1)
    assert large.difference > 0 and settings != LARGE


@pytest.mark.slow
def test_a_short_history_judges_by_the_same_days(panel: Panel) -> None:
    rows = patterned(panel)
    nothing = rows.take(np.zeros(len(rows), dtype=np.bool_))
    _, found = choose_settings(panel, rows, nothing, rows, 1, 1)
    assert found == compare_tree_sizes(panel, rows, rows, 1, 1) != ()


def test_noise_is_not_learned(panel: Panel) -> None:
    """Large trees would learn it by heart: the customers who are held out say so."""
    rows = rows_of(panel, np.full(len(panel), 0.3))
    settings, (_, large) = choose_settings(panel, rows, rows, rows, 1, 1)
    assert large.difference > 0 and settings in (DEFAULT, EARLY_STOPPED)


def test_the_timid_are_the_first_of_the_cautious_trees(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What half the rounds lose in the comparison is what a fit of half the rounds would lose."""
    rows = patterned(panel)
    (early_stopped, _) = compare_tree_sizes(panel, rows, rows, 1, 1)
    monkeypatch.setattr(tree_size, "LARGE", EARLY_STOPPED)
    (first, fitted) = compare_tree_sizes(panel, rows, rows, 1, 1)
    assert early_stopped == first == fitted


def test_beyond_doubt_is_three_standard_errors() -> None:
    assert TreeSizeComparison(LARGE, -0.0301, 0.01).better
    assert not TreeSizeComparison(LARGE, -0.0299, 0.01).better
    assert not TreeSizeComparison(LARGE, 0.05, 0.01).better


def test_too_few_who_moved_compare_nothing(panel: Panel) -> None:
    rows = rows_of(panel, np.full(len(panel), 0.05))
    assert 0 < rows.converted.sum() < 200
    assert compare_tree_sizes(panel, rows, rows, 1, 1) == ()


def test_nobody_is_judged_by_trees_that_have_seen_them(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer's snapshots are taught or held out together, and each customer is held out once."""
    taught: list[set[int]] = []
    held_out: list[set[int]] = []
    boost = Start.boost

    def watched(self: Start, rows: HazardRows, *arguments: Any, held: HazardRows | None = None) -> Any:
        taught.append({*self.panel.customer[rows.snapshot].tolist()})
        if held is not None:
            held_out.append({*self.panel.customer[held.snapshot].tolist()})
            assert not taught[-1] & held_out[-1]
        return boost(self, rows, *arguments, held=held)

    logits = Trees.logits

    def judging(self: Trees, x: Any, stage: Any, held: HazardRows, threads: int) -> Any:
        assert not taught[-1] & {*panel.customer[held.snapshot].tolist()}
        return logits(self, x, stage, held, threads)

    monkeypatch.setattr(Start, "boost", watched)
    monkeypatch.setattr(Trees, "logits", judging)
    rows = patterned(panel)
    choose_settings(panel, rows, rows, rows, 1, 1)
    everybody = set(panel.customer.tolist())
    assert set.union(*held_out) == everybody and sum(map(len, held_out)) == len(everybody)


@pytest.mark.slow
def test_the_comparison_does_not_depend_on_threads_and_is_bounded(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = patterned(panel)
    assert choose_settings(panel, rows, rows, rows, 1, 1) == choose_settings(panel, rows, rows, rows, 1, 2)
    monkeypatch.setattr(tree_size, "MOST_ROWS", len(rows) // 2)
    seen: list[int] = []
    boost = Start.boost

    def counted(self: Start, taught: HazardRows, *arguments: Any, **named: Any) -> Any:
        seen.append(len(taught))
        return boost(self, taught, *arguments, **named)

    monkeypatch.setattr(Start, "boost", counted)
    choose_settings(panel, rows, rows, rows, 1, 1)
    assert max(seen) < len(rows) // 2


@pytest.mark.slow
def test_given_settings_are_taken_and_nothing_is_compared(panel: Panel) -> None:
    asked = replace(DEFAULT, rounds=3)
    fit = fit_reach(panel, 1, 1, settings=asked)
    assert fit.settings == asked and fit.comparisons == ()
    own = fit_reach(panel, 1, 1)
    assert len(own.comparisons) == 2 and own.settings in (
        DEFAULT,
        EARLY_STOPPED,
        replace(LARGE, rounds=own.settings.rounds),
    )


def test_rows_that_all_moved_compare_nothing(panel: Panel) -> None:
    rows = rows_of(panel, np.ones(len(panel)))
    assert choose_settings(panel, rows, rows, rows, 1, 1) == (DEFAULT, ())
