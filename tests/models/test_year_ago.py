"""The level of a year ago: its formula, coherence, and that nothing later than its fold teaches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from tests.oracles.cases import Blocks, a_plain_block, a_shop

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, FoldResult, run_fold
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.year_ago import learn_year_ago, measured_error
from cvj_ml.histories import Block
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.bundle import load, save
from cvj_ml.models.hazard.level_shift import YearAgoError, YearAgoLevel
from cvj_ml.models.hazard.tree_size import DEFAULT, Choice
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.scoring.opening import make_canary
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import parse_as_of

RULES = {"Visitor": {"event": "visit"}, "Buyer": {"event": "purchase"}}
SETTINGS: dict[str, object] = {
    "history_from": "2022-01-01",
    "snapshots": {"every": "28d"},
    "horizons": ["30d", "60d"],
    "model": {"year_ago_level": True},
}
CONFIG = a_shop(RULES, **SETTINGS)
FROM, CUT = (parse_as_of(day, CONFIG.zone) for day in ("2022-01-01", "2024-01-01"))
CHOICE = Choice(replace(DEFAULT, rounds=10))


def error(intercept: float, moved: int, *, heads: int = 2, horizons: int = 2) -> YearAgoError:
    return YearAgoError(0, np.full((heads, horizons), intercept), np.full((heads, horizons), moved))


def test_the_shift_by_hand() -> None:
    assert YearAgoLevel((error(0.4, 150),)).shift == pytest.approx(np.full((2, 2), 0.5 * 0.4 * 150 / 200))
    two = YearAgoLevel((error(0.4, 150), error(-0.2, 50)))
    assert two.shift == pytest.approx(np.full((2, 2), 2 / 3 * (150 * 0.4 - 50 * 0.2) / 200 * 50 / 100))
    assert not YearAgoLevel((error(0.4, 0),)).shift.any(), "nobody moved, nothing is known"
    one_of_two = YearAgoLevel((error(0.4, 150), error(9.9, 0)))
    assert one_of_two.shift == pytest.approx(np.full((2, 2), 0.5 * 0.4 * 150 / 200))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_shifted_probabilities_stay_coherent(seed: int) -> None:
    random = np.random.default_rng(seed)
    p = np.sort(np.sort(random.random((20, 4, 3)), axis=2), axis=1)[:, ::-1]
    p[random.random((20, 4)) < 0.2] = np.nan
    learned = random.random((20, 4, 1)) < 0.8
    level = YearAgoLevel((YearAgoError(0, random.normal(0, 1, (2, 3)), random.integers(0, 400, (2, 3))),))
    found = level.apply(p, np.broadcast_to(learned, p.shape))
    assert (np.isnan(found) == np.isnan(p)).all()
    for row in found:
        asked = row[~np.isnan(row[:, 0])]
        assert (np.diff(asked, axis=1) >= -1e-12).all(), "it grows with the horizon"
        assert (np.diff(asked, axis=0) <= 1e-12).all(), "and falls along the journey"
        assert ((asked >= 0) & (asked <= 1)).all()


def test_only_what_was_asked_a_year_ago_is_shifted() -> None:
    p = np.array([[[0.3, 0.4], [0.1, 0.2]]])
    level = YearAgoLevel((error(1.0, 150),))
    by_hand = expit(logit(p) + 0.5 * 150 / 200)
    everything = np.ones(p.shape, dtype=np.bool_)
    assert level.apply(p, everything) == pytest.approx(by_hand)
    assert (level.apply(p, ~everything) == p).all()
    only_return = everything.copy()
    only_return[:, 1] = False
    assert level.apply(p, only_return) == pytest.approx(np.stack([by_hand[:, 0], p[:, 1]], axis=1))


def test_a_planted_level_is_found_for_each_head_and_horizon() -> None:
    random = np.random.default_rng(2)
    said = expit(random.normal(-1, 1, (20_000, 3, 2)))
    planted = np.array([[0.5, -0.3], [0.2, 0.0]])
    by_target = planted[[0, 1, 1]]
    converted = random.random(said.shape) < expit(logit(said) + by_target)
    asked = random.random(said.shape) < 0.9
    found = measured_error(said, converted, asked, np.arange(len(said)), 0, 20)
    assert found.intercept == pytest.approx(planted, abs=0.06)
    assert found.moved[0, 0] == (converted & asked)[:, 0, 0].sum()
    nobody = measured_error(said, np.zeros_like(converted), asked, np.arange(len(said)), 0, 20)
    assert not nobody.moved.any() and not nobody.intercept.any()


def seasonal(customers: int, seed: int, until: int, peak: tuple[int, int] = (0, 90)) -> Block:
    """Visitors who come at a rate of their own, four times as often in the first days of each year."""
    random = np.random.default_rng(seed)
    days = (until - FROM) // DAY
    instants, offsets = [], [0]
    for _ in range(customers):
        rate = 0.01 * random.gamma(2.0) * np.ones(days)
        rate[(np.arange(days) % 365 >= peak[0]) & (np.arange(days) % 365 < peak[1])] *= 4
        at = FROM + (np.flatnonzero(random.random(days) < rate) + random.random()) * DAY
        at = np.concatenate([[FROM + random.uniform(0, 30) * DAY], at])
        instants.append(np.sort(at).astype(np.int64))
        offsets.append(offsets[-1] + len(at))
    occurred = np.concatenate(instants)
    return a_plain_block(offsets, occurred, np.zeros(len(occurred), dtype=np.int32), ("visit", "purchase"))


def learned(block: Block, cut: int = CUT, calendar: object = None, **changes: object) -> YearAgoLevel | None:
    config = CONFIG.model_copy(update=changes)
    if calendar is not None:
        config = a_shop(RULES, **SETTINGS, calendar=calendar)
    blocks = Blocks([block])
    run = Run(config, Journey(config.journey), blocks, 0, 1)
    definition = define(config, run.journey, blocks, cut)
    panel = build_panel(definition, blocks, training_grid(config, cut), cut, 0)
    return learn_year_ago(run, cut, definition, fit_reach(panel, 1, 1, given=CHOICE))


@pytest.fixture(scope="module")
def block() -> Block:
    return seasonal(600, 1, CUT + 90 * DAY)


def test_a_season_of_a_year_ago_is_carried_over_in_part(block: Block) -> None:
    """Forecasts of the last days of a year do not know that many come in the first days of the next."""
    level = learned(block)
    assert level is not None and len(level.errors) == 1, "two years before, nothing could be taught"
    assert level.errors[0].cut == CUT - 365 * DAY
    shift = level.shift
    assert (shift[0] > 0.15).all() and (shift[0] < level.errors[0].intercept[0] / 2).all()
    assert not shift[1].any(), "nobody ever bought"


def test_nothing_after_the_cut_is_known(block: Block) -> None:
    """Silent error 4: what comes at the cut or later changes nothing, not even of a year ago."""
    points = block.touchpoints
    late = points.occurred_at >= CUT
    moved = replace(
        block, touchpoints=replace(points, occurred_at=np.where(late, points.occurred_at + DAY, points.occurred_at))
    )
    one, other = learned(block), learned(moved)
    assert one is not None and other is not None
    assert (one.errors[0].intercept == other.errors[0].intercept).all()


def test_without_a_year_before_there_is_none(block: Block) -> None:
    assert learned(block, CUT - 330 * DAY) is None, "a year before, nothing had been recorded"
    off = CONFIG.model.model_copy(update={"year_ago_level": False})
    assert learned(block, model=off) is None
    assert learned(seasonal(100, 1, CUT)) is None, "fewer than 200 could move"


def test_a_calendar_that_a_year_ago_could_not_be_learned_carries_nothing_over(block: Block) -> None:
    """Silent error 35: with the sales of both, and with a calendar of neither, a season is counted once."""
    sale = {"kind": "sale", "known_at": "2022-01-01"}
    late = [{**sale, "start": day, "end": day} for day in ("2023-06-01", "2023-09-01")]
    assert learned(block, calendar={"periods": late}) is None
    early = [{**sale, "start": day, "end": day} for day in ("2022-06-01", "2022-09-01")]
    assert learned(block, calendar={"periods": [*early, *late]}) is not None


def test_a_horizon_counts_once_it_was_taught_and_has_matured(block: Block) -> None:
    """From 2022-01-01 with a burn-in of 30 days, at 2022-03-20 only 30 days had been lived through."""
    level = learned(block, parse_as_of("2023-03-20", CONFIG.zone), burn_in=30 * DAY)
    assert level is not None
    moved: npt.NDArray[np.int64] = level.errors[0].moved
    assert moved[0, 0] > 0 and moved[0, 1] == 0


def test_a_fold_is_forecast_at_the_level_of_a_year_ago(block: Block, tmp_path: Path) -> None:
    """A season that repeats is foreseen, through the recipe of a fold; what is saved answers as before."""
    blocks, fold = Blocks([block]), Fold(CUT, CUT + 60 * DAY)
    run = Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1)
    result = run_fold(run, fold, CHOICE)
    assert result.year_ago is not None
    off = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"year_ago_level": False})})
    without = run_fold(replace(run, config=off), fold, CHOICE)
    assert without.year_ago is None

    def off_by(found: FoldResult) -> float:
        moved, known = found.panel.matured()
        return abs(float(np.log(moved[:, 0][known[:, 0]].sum() / found.probabilities[MODEL][:, 0][known[:, 0]].sum())))

    assert off_by(result) < 0.75 * off_by(without)

    predictor = result.predictor
    save(predictor, make_canary(predictor, CUT, 1), tmp_path / "bundle")
    loaded = load(tmp_path / "bundle").predictor
    assert loaded.year_ago is not None
    assert (loaded.year_ago.shift == result.year_ago.shift).all()
    assert (np.nan_to_num(loaded.predict(result.panel, 1)) == np.nan_to_num(result.probabilities[MODEL])).all()
