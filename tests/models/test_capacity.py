"""What customers who are held out decide: the trees' size and splits, the ridge's share, slopes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit
from tests.models.test_small_data import CONFIG, CUT, FROM, shop
from tests.oracles.cases import Blocks

import cvj_ml
from cvj_ml.config import DAY
from cvj_ml.config.model import TreesSpec
from cvj_ml.errors import ConfigError
from cvj_ml.journey import Journey
from cvj_ml.models.hazard import tree_size
from cvj_ml.models.hazard.calibration import HazardOutcomes, identity, set_levels
from cvj_ml.models.hazard.fitting import BinnedRows, Settings, fit_trees, start_from, weights_of
from cvj_ml.models.hazard.reach import Trees
from cvj_ml.models.hazard.tree_size import (
    DEFAULT,
    EARLY_STOPPED,
    ERRORS,
    LARGE,
    RIDGE_SHARES,
    Choice,
    TreeSizeComparison,
    choose,
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


def column(panel: Panel, start: str) -> npt.NDArray[np.float32]:
    """The first of the panel's columns whose name starts like this."""
    name = next(one for one in panel.definition.catalogue.names if one.startswith(start))
    return panel.column(name)


def patterned(panel: Panel) -> npt.NDArray[np.float64]:
    """Who moves depends on two features together: nothing that a line can say."""
    return np.where(column(panel, "touchpoints_30") * column(panel, "active_days_30") > 0, 0.8, 0.1)


def straight(panel: Panel) -> npt.NDArray[np.float64]:
    """Who moves depends on many features, a little on each: nothing that small trees can say."""
    signal = sum(np.sign(panel.x[:, i]) * np.log1p(np.abs(panel.x[:, i])) for i in range(0, panel.x.shape[1], 3))
    return 1 / (1 + np.exp(-np.nan_to_num(np.asarray(signal, dtype=np.float64)) / 3 + 1))


def chosen(panel: Panel, rows: HazardRows, *, same_days: bool = False, **named: Any) -> Choice:
    """The choice by rows of the first instant, judged by those of the second, or by all where days are the same."""
    first = panel.as_of[rows.snapshot] == panel.as_of.min()
    early, later = np.flatnonzero(first), np.flatnonzero(~first)
    if same_days:
        early = later = np.arange(len(rows))
    return choose(BinnedRows.of(panel, rows), early, later, 1, named.pop("threads", 1), **named)


def test_a_pattern_that_holds_later_and_for_other_customers_is_learned_boldly(panel: Panel) -> None:
    choice = chosen(panel, rows_of(panel, patterned(panel)))
    _, large, _ = choice.comparisons
    assert large.settings == LARGE and large.than == DEFAULT and large.better
    assert large.difference < -ERRORS * large.error < 0
    assert choice.settings.leaves == LARGE.leaves and choice.settings.rounds > 1


def test_a_pattern_that_is_over_is_not(panel: Panel) -> None:
    """The customers held out in the same days would bear it out; those of later days do not."""
    first = panel.as_of == panel.as_of.min()
    then = np.where(first, patterned(panel), 0.4)
    choice = chosen(panel, rows_of(panel, then))
    assert choice.comparisons[1].difference > 0 and choice.settings.leaves == DEFAULT.leaves
    early = rows_of(panel, then).take(first)
    assert chosen(panel, early, same_days=True).comparisons[1].better


@pytest.mark.slow
def test_a_short_history_judges_by_the_same_days_and_learns_no_slopes(panel: Panel) -> None:
    rows = rows_of(panel, patterned(panel))
    binned, everything = BinnedRows.of(panel, rows), np.arange(len(rows))
    short = choose(binned, everything[:0], everything, 1, 1)
    assert short.comparisons == chosen(panel, rows, same_days=True).comparisons != ()
    assert short.slopes is None


def test_noise_is_not_learned(panel: Panel) -> None:
    """Large trees would learn it by heart: the customers who are held out say so."""
    choice = chosen(panel, rows_of(panel, np.full(len(panel), 0.3)), same_days=True)
    assert choice.comparisons[1].difference > 0
    assert choice.settings.leaves == DEFAULT.leaves


def test_fewer_rounds_are_the_first_of_the_default_trees(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What half the rounds lose in the comparison is what a fit of half the rounds would lose."""
    rows = rows_of(panel, patterned(panel))
    early_stopped, *_ = chosen(panel, rows).comparisons
    longer = replace(EARLY_STOPPED, rows_a_leaf=EARLY_STOPPED.rows_a_leaf)
    monkeypatch.setattr(tree_size, "DEFAULT", replace(DEFAULT, rounds=DEFAULT.rounds + 1))
    monkeypatch.setattr(tree_size, "LARGE", longer)
    _, fitted, _ = chosen(panel, rows).comparisons
    assert early_stopped.settings == fitted.settings
    assert early_stopped.difference == pytest.approx(fitted.difference, abs=5e-4)


def test_no_trees_are_fitted_twice(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rounds come with the default trees; what lies behind after half of the folds is not asked further."""
    fitted: list[Settings] = []
    boost = BinnedRows.boost

    def counted(self: BinnedRows, start: Any, positions: Any, settings: Settings, *more: Any, **named: Any) -> Any:
        fitted.append(settings)
        return boost(self, start, positions, settings, *more, **named)

    monkeypatch.setattr(BinnedRows, "boost", counted)
    choice = chosen(panel, rows_of(panel, np.full(len(panel), 0.3)))
    assert EARLY_STOPPED not in fitted and fitted.count(LARGE) == 2
    kept = replace(choice.settings, rounds=DEFAULT.rounds)
    assert fitted.count(kept) == 4 and len(fitted) == 8


def test_beyond_doubt_is_three_standard_errors() -> None:
    assert TreeSizeComparison(LARGE, DEFAULT, -0.0301, 0.01).better
    assert not TreeSizeComparison(LARGE, DEFAULT, -0.0299, 0.01).better
    assert not TreeSizeComparison(LARGE, DEFAULT, 0.05, 0.01).better


def test_too_few_who_moved_compare_nothing(panel: Panel) -> None:
    rows = rows_of(panel, np.full(len(panel), 0.05))
    assert 0 < rows.converted.sum() < 200
    assert chosen(panel, rows) == Choice(DEFAULT)


def test_the_ridge_weighs_what_customers_held_out_want(panel: Panel) -> None:
    """A sum of many small effects is the ridge's to tell, two features together the trees'."""
    assert chosen(panel, rows_of(panel, straight(panel))).ridge_share[0] >= 0.3
    assert chosen(panel, rows_of(panel, patterned(panel))).ridge_share[0] == min(RIDGE_SHARES)


def test_nobody_is_judged_by_trees_that_have_seen_them(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer's snapshots are taught or held out together, and each customer is held out once."""
    taught: list[set[int]] = []
    held_out: list[set[int]] = []
    boost = BinnedRows.boost

    def customers(binned: BinnedRows, positions: npt.NDArray[np.int64]) -> set[int]:
        return {*panel.customer[binned.rows.snapshot[positions]].tolist()}

    def watched(self: BinnedRows, start: Any, positions: Any, *arguments: Any, held: Any = None) -> Any:
        taught.append(customers(self, positions))
        if held is not None:
            held_out.append(customers(self, held))
            assert not taught[-1] & held_out[-1]
        return boost(self, start, positions, *arguments, held=held)

    logits = Trees.logits

    def judging(self: Trees, x: Any, stage: Any, held: HazardRows, *more: Any) -> Any:
        assert not taught[-1] & {*panel.customer[held.snapshot].tolist()}
        return logits(self, x, stage, held, *more)

    monkeypatch.setattr(BinnedRows, "boost", watched)
    monkeypatch.setattr(Trees, "logits", judging)
    chosen(panel, rows_of(panel, patterned(panel)))
    everybody = set(panel.customer.tolist())
    assert set.union(*held_out) == everybody and sum(map(len, held_out)) == len(everybody)


@pytest.mark.slow
def test_the_choice_does_not_depend_on_threads_and_is_bounded(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(panel, patterned(panel))
    one, two = chosen(panel, rows), chosen(panel, rows, threads=2)
    assert (one.settings, one.ridge_share, one.comparisons) == (two.settings, two.ridge_share, two.comparisons)
    monkeypatch.setattr(tree_size, "MOST_ROWS", len(rows) // 4)
    seen: list[int] = []
    boost = BinnedRows.boost

    def counted(self: BinnedRows, start: Any, positions: Any, *arguments: Any, **named: Any) -> Any:
        seen.append(len(positions))
        return boost(self, start, positions, *arguments, **named)

    monkeypatch.setattr(BinnedRows, "boost", counted)
    chosen(panel, rows)
    assert max(seen) < len(rows) // 4


@pytest.mark.slow
def test_what_is_given_is_taken(panel: Panel) -> None:
    asked = replace(DEFAULT, rounds=3)
    fit = fit_reach(panel, 1, 1, given=asked)
    assert fit.choice.settings == asked and fit.choice.comparisons == ()
    own = fit_reach(panel, 1, 1)
    assert len(own.choice.comparisons) == 3
    again = fit_reach(panel, 1, 1, given=own.choice)
    assert again.choice is own.choice
    assert own.trees.booster and again.trees.booster
    assert own.trees.booster.model_to_string() == again.trees.booster.model_to_string()
    assert (own.calibration.slope == again.calibration.slope).all()


def test_what_the_configuration_gives_is_not_chosen(panel: Panel) -> None:
    given = TreesSpec(leaves=5, rows_a_leaf=40, extra=True, rounds=4)
    asked = replace(panel, definition=replace(panel.definition, trees=given))
    choice = chosen(asked, rows_of(panel, patterned(panel)))
    assert (choice.settings.leaves, choice.settings.rows_a_leaf, choice.settings.rounds) == (5, 40, 4)
    assert choice.settings.extra
    # Half the rounds are the same now; what is left to choose are the penalties of the large trees.
    (compared,) = choice.comparisons
    assert compared.settings == replace(LARGE, **given.given)
    assert choice.settings.lambda_l2 in (DEFAULT.lambda_l2, LARGE.lambda_l2)
    everything = {name: getattr(DEFAULT, name) for name in TreesSpec.model_fields}
    whole = replace(panel, definition=replace(panel.definition, trees=TreesSpec(**{**everything, "rounds": 3})))
    none = chosen(whole, rows_of(panel, patterned(panel)))
    assert none.settings == replace(DEFAULT, rounds=3) and none.comparisons == ()


def test_what_an_estimator_of_ones_own_would_not_be_given_is_refused(panel: Panel) -> None:
    asked = replace(panel, definition=replace(panel.definition, trees=TreesSpec(rounds=4), half_life=DAY))
    with pytest.raises(ConfigError, match="an estimator of your own takes neither"):
        cvj_ml.Model().fit(asked, estimator=object())


def test_the_settings_of_the_configuration_are_those_of_the_trees() -> None:
    assert [one.name for one in fields(Settings)] == list(TreesSpec.model_fields)


def test_a_half_life_weights_what_is_learned_and_leaves_levels_honest(panel: Panel) -> None:
    """Twice as old is half the weight; rows of the last year still happen as often as is said."""
    weighted = replace(panel, definition=replace(panel.definition, half_life=100 * DAY))
    rows = rows_of(panel, patterned(panel))
    weight = weights_of(weighted, rows)
    assert weight is not None and weight.mean() == pytest.approx(1)
    old = panel.as_of[rows.snapshot] == panel.as_of.min()
    assert weight[~old][0] / weight[old][0] == pytest.approx(2)
    assert weights_of(panel, rows) is None
    # The older rows moved three times as often.
    chance = np.where(panel.as_of == panel.as_of.min(), 0.6, 0.2)
    rows = rows_of(panel, chance)
    said = []
    for one in (panel, weighted):
        start = start_from(one, rows)
        trees = fit_trees(one, rows, replace(DEFAULT, rounds=10, rows_a_leaf=20), 1, 1)
        raw = trees.logits(one.x, one.stage, rows, 1, one.as_of)
        levels = set_levels(
            identity(*one.definition.cells),
            HazardOutcomes(raw, rows.converted, rows.target, rows.interval, one.customer[rows.snapshot]),
        )
        p = expit(levels.apply(raw, rows.target, rows.interval))
        assert p.mean() == pytest.approx(rows.converted.mean(), abs=0.01)
        assert start.linear is not None
        said.append(raw.mean())
    assert said[1] < said[0], "the newer rows, of which fewer moved, count more"


def test_rows_that_all_moved_compare_nothing(panel: Panel) -> None:
    assert chosen(panel, rows_of(panel, np.ones(len(panel)))) == Choice(DEFAULT)


def test_fits_on_shared_bins_are_those_on_bins_of_their_own(panel: Panel) -> None:
    """A part of the binned rows teaches what these rows teach alone, whatever was fitted before."""
    rows = rows_of(panel, patterned(panel))
    binned, some = BinnedRows.of(panel, rows), np.arange(0, len(rows), 2)
    start = tree_size.start_from(panel, rows.take(some))
    settings = Settings(7, 50, 10.0, 10.0, rounds=10)
    first = binned.boost(start, some, settings, 1, 1).model_to_string()
    binned.boost(start, np.arange(len(rows)), LARGE, 1, 1)
    assert binned.boost(start, some, settings, 1, 1).model_to_string() == first
    everything = np.arange(len(rows))
    whole = binned.boost(start, everything, settings, 1, 1).model_to_string()
    assert BinnedRows.of(panel, rows).boost(start, everything, settings, 1, 1).model_to_string() == whole
