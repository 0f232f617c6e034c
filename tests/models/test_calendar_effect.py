"""What known periods do: learned from past ones, told of days to come, frozen in the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scipy.special import expit
from tests.oracles.cases import Blocks, a_definition, a_journey, a_plain_block, a_predictor, a_shop
from tests.oracles.examples import START

from cvj_ml.config import DAY, Config
from cvj_ml.evaluation.backtesting import MODEL, FoldResult, run_fold
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.metrics import log_loss
from cvj_ml.histories import Block
from cvj_ml.io import sorted_json
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.bundle import load, save
from cvj_ml.models.bundle.corrections import calendar_as_json, calendar_from_json, effect_from_json
from cvj_ml.models.explain.explanation import Explainer
from cvj_ml.models.hazard.calendar_effect import CalendarEffect, fit_calendar
from cvj_ml.models.hazard.reach import prediction_rows
from cvj_ml.models.hazard.tree_size import DEFAULT, Choice
from cvj_ml.panel.calendar import ALWAYS_KNOWN, Calendar, Period
from cvj_ml.panel.panel import HazardRows, Panel
from cvj_ml.run import Run
from cvj_ml.scoring.opening import make_canary
from cvj_ml.simulate import random_block
from cvj_ml.windows import parse_as_of

DEFINITION = a_definition(a_journey(One={"event": "visit"}, Two={"event": "buy"}))
INTERVALS, EVERY, SNAPSHOTS, CUSTOMERS = len(DEFINITION.horizons), 4, 180, 60
BASE = -1.5


def years(n: int, *, known_days_before: int = 30, length: int = 8, first: int = 100) -> Calendar:
    """A sale each 200 days."""
    starts = [first + 200 * k for k in range(n)]
    return Calendar(tuple(Period("sale", s * DAY, (s + length) * DAY, (s - known_days_before) * DAY) for s in starts))


def history(known: Calendar, real: Calendar, effect: float, trend: float = 0.0) -> tuple[Panel, HazardRows]:
    """Hazard rows of 60 customers asked every four days, whose hazard rises while a sale is on, known or not."""
    rng = np.random.default_rng(1)
    as_of = np.repeat(np.arange(SNAPSHOTS) * EVERY * DAY, CUSTOMERS)
    size = len(as_of)
    snapshot = np.repeat(np.arange(size), 2 * INTERVALS)
    interval = np.tile(np.arange(INTERVALS, dtype=np.int8), 2 * size)
    target = np.tile(np.repeat(np.array([0, 1], dtype=np.int8), INTERVALS), size)
    bounds = np.array([0, *DEFINITION.horizons])
    low, high = as_of[snapshot] + bounds[interval], as_of[snapshot] + bounds[interval + 1]
    share = np.zeros(len(snapshot))
    for one in real.periods:
        share += np.clip(np.minimum(high, one.end) - np.maximum(low, one.start), 0, None) / (high - low)
    chance = expit(BASE + effect * share * (target == 1) + trend * as_of[snapshot] / (365 * DAY))
    rows = HazardRows(snapshot, target, interval, rng.random(len(snapshot)) < chance)
    panel = SimpleNamespace(
        definition=replace(DEFINITION, calendar=known, min_customers=20),
        x=np.full((size, len(DEFINITION.catalogue.features)), np.nan, dtype=np.float32),
        as_of=as_of,
        customer=np.tile(np.arange(CUSTOMERS), SNAPSHOTS),
    )
    return cast(Panel, panel), rows


def fitted(panel: Panel, rows: HazardRows) -> CalendarEffect:
    found = fit_calendar(panel, rows, np.full(len(rows), BASE))
    assert found is not None
    return found


@pytest.mark.parametrize("n", [1, 3])
def test_n_past_periods_count_n_of_n_plus_one(n: int) -> None:
    """A sale that doubles the log odds by 0.8 is found, and one is believed by half, three by three quarters."""
    found = fitted(*history(years(n), years(n), 0.8))
    assert found.occurrences == (n,)
    of_return, of_reach = found.coefficients[:, 0] * (n + 1) / n
    assert of_reach == pytest.approx(0.8, abs=0.15)
    assert of_return == pytest.approx(0.0, abs=0.15)


def test_a_trend_is_not_taken_for_a_period() -> None:
    """Silent error 7: the only sale lies late in a history that grows."""
    late = years(1, first=600)
    found = fitted(*history(late, Calendar(), 0.0, trend=0.8))
    assert np.abs(found.coefficients).max() < 0.15


def test_sales_that_nobody_knew_teach_nothing() -> None:
    """Silent error 36: known only when they are over, they are in no row, so the kind takes no part."""
    panel, rows = history(years(3, known_days_before=-60), years(3), 0.8)
    assert fit_calendar(panel, rows, np.full(len(rows), BASE)) is None


def test_a_kind_needs_a_past_and_enough_customers() -> None:
    ahead = Calendar((Period("sale", 2_000 * DAY, 2_010 * DAY, -1),))
    panel, rows = history(ahead, ahead, 0.0)
    assert fit_calendar(panel, rows, np.full(len(rows), BASE)) is None
    panel, rows = history(years(1), years(1), 0.8)
    few = cast(Any, panel)
    few.definition = replace(few.definition, min_customers=CUSTOMERS + 1)
    assert fit_calendar(panel, rows, np.full(len(rows), BASE)) is None


def test_what_is_not_known_of_adds_the_same_everywhere_and_rows_do_not_matter_to_each_other() -> None:
    """Far from every sale only the mean is taken back; one row alone is told what it is told among all."""
    panel, rows = history(years(2), years(2), 0.8)
    found = fitted(panel, rows)
    whole = found.logits(panel.x, panel.as_of, rows)
    some = np.arange(0, len(rows), 997)
    assert np.array_equal(found.logits(panel.x, panel.as_of, rows.take(some)), whole[some])
    one = int(rows.snapshot[some[3]])
    here = rows.snapshot == one
    part = rows.take(here)
    alone = replace(part, snapshot=np.zeros(len(part), dtype=np.int64))
    assert np.array_equal(found.logits(panel.x[[one]], panel.as_of[[one]], alone), whole[here])
    far = (panel.as_of[rows.snapshot] == 0) & (rows.target == 1)
    assert np.allclose(whole[far], -(found.coefficients[1] * found.mean[1])[rows.interval[far]].sum(axis=1)), (
        "day 0 is 70 days before the first sale became known"
    )


def test_what_chance_gives_is_mostly_nothing() -> None:
    """A placebo: periods with nothing to them, of which chance alone made something."""
    found = [
        np.abs(fitted(*history(years(n, first=first), Calendar(), 0.0)).coefficients).max()
        for n in (1, 3)
        for first in (60, 140)
    ]
    assert max(found) < 0.15


def test_a_bundle_holds_the_periods_and_the_effect_as_they_were() -> None:
    """Silent error 36: through JSON nothing changes, audiences and what was always known included."""
    calendar = Calendar(
        (
            Period("public holiday", 0, DAY, ALWAYS_KNOWN),
            Period("sale", 0, DAY, -1, ("plan", "gold")),
        )
    )
    effect = CalendarEffect(
        replace(DEFINITION, calendar=calendar),
        ("sale",),
        (2,),
        np.array([[0.1, 1 / 3], [-2.0, 1e-17]]),
        np.ones((2, 3, 2)),
    )
    document = json.loads(sorted_json(calendar_as_json(calendar, effect)))
    assert calendar_from_json(document) == calendar
    found = effect_from_json(document, effect.definition)
    assert found is not None
    assert (found.kinds, found.occurrences) == (effect.kinds, effect.occurrences)
    assert np.array_equal(found.coefficients, effect.coefficients)
    assert np.array_equal(found.mean, effect.mean)
    nothing = json.loads(sorted_json(calendar_as_json(Calendar(), None)))
    assert effect_from_json(nothing, DEFINITION) is None


def test_what_a_calendar_adds_is_in_every_answer_and_no_customers_reason() -> None:
    """Parts still add up to the margin; the calendar's stands in the base, of all who share an audience alike."""
    block = random_block(
        customers=400, seed=2, events=("visit", "buy"), channels=("web",), outbound=(), properties={}, attributes={},
        until=START,
    )  # fmt: skip
    journey = a_journey(One={"event": "*"}, Two={"event": "buy", "count": 4})
    definition = replace(
        a_definition(journey), calendar=Calendar((Period("sale", START, START + 3 * DAY, ALWAYS_KNOWN),))
    )
    instants = np.array([START - day * DAY for day in (60, 50, 40, 30, 20)], dtype=np.int64)
    bare = a_predictor(definition, Blocks([block]), instants, START)
    # However few movers taught them, line and trees are to answer.
    bare = replace(bare, trees=replace(bare.trees, low=np.zeros_like(bare.trees.low)))
    mean = np.zeros((2, INTERVALS, 2))
    effect = CalendarEffect(definition, ("sale",), (1,), np.array([[0.5, 0.2], [0.9, 0.1]]), mean)
    predictor = replace(bare, trees=replace(bare.trees, calendar=effect))
    answers, without = predictor.answer(block, START), bare.answer(block, START)
    target = 2
    rows = np.flatnonzero(answers.stage == 0)
    assert len(rows) > 5
    assert (answers.probability[rows, target] > without.probability[rows, target]).all()
    typical = np.nan_to_num(answers.x[rows[0]])
    found, plain = (Explainer(one).explain(answers.x[rows], 0, target, 2, typical, START) for one in (predictor, bare))
    assert np.allclose(found.margin, found.base + found.contributions.sum(axis=1))
    assert (found.base > plain.base).all()
    with pytest.raises(ValueError, match="without as_of"):
        predictor.trees.logits(answers.x, answers.stage, prediction_rows(definition.at_risk(answers.stage), INTERVALS))


SALES = ("2024-03-01", "2024-06-01", "2024-09-01", "2024-12-01")
RULES = {"Visitor": {"event": "visit"}, "Buyer": {"event": "purchase"}}
SETTINGS: dict[str, object] = {"snapshots": {"every": "7d"}, "horizons": ["7d", "14d"]}
SHOP = a_shop(RULES, **SETTINGS)
BEGUN, ASKED, OVER = (parse_as_of(day, SHOP.zone) for day in ("2024-01-01", "2024-11-28", "2024-12-12"))


def sales_shop(customers: int, seed: int) -> Block:
    """Visitors who come five times as often in the ten days of each sale."""
    random = np.random.default_rng(seed)
    days = (OVER - BEGUN) // DAY
    sale = np.zeros(days, dtype=np.bool_)
    for one in SALES:
        start = (parse_as_of(one, SHOP.zone) - BEGUN) // DAY
        sale[start : start + 10] = True
    instants, offsets = [], [0]
    for _ in range(customers):
        rate = 0.01 * random.gamma(2.0) * np.where(sale, 5.0, 1.0)
        at = BEGUN + (np.flatnonzero(random.random(days) < rate) + random.random()) * DAY
        at = np.sort(np.concatenate([[BEGUN + random.uniform(0, 20) * DAY], at]))
        instants.append(at.astype(np.int64))
        offsets.append(offsets[-1] + len(at))
    occurred = np.concatenate(instants)
    return a_plain_block(offsets, occurred, np.zeros(len(occurred), dtype=np.int32), ("visit", "purchase"))


@pytest.mark.slow
def test_a_sale_that_is_known_is_foreseen_and_saved(tmp_path: Path) -> None:
    """The fourth sale of a year stands in the calendar: more are expected, as came; the bundle answers as before."""
    periods = [
        {"kind": "sale", "start": one, "end": str(np.datetime64(one) + 9), "known_at": "2023-12-01"} for one in SALES
    ]
    config = a_shop(RULES, **SETTINGS, calendar={"periods": periods})
    blocks, fold, given = Blocks([sales_shop(500, 3)]), Fold(ASKED, OVER), Choice(replace(DEFAULT, rounds=40))

    def found(with_config: Config) -> tuple[FoldResult, float, float]:
        result = run_fold(Run(with_config, Journey(with_config.journey), blocks, 0, 1), fold, given)
        moved, known = result.panel.matured()
        here = known[:, 0]
        p = result.probabilities[MODEL][:, 0][here]
        return result, log_loss(moved[:, 0][here], p), float(moved[:, 0][here].sum() / p.sum())

    (_, without, too_few), (result, loss, ratio) = found(SHOP), found(config)
    assert loss < without - 0.02
    assert too_few > 1.5 and abs(np.log(ratio)) < 0.6 * np.log(too_few)
    predictor = result.predictor
    assert predictor.trees.calendar is not None
    save(predictor, make_canary(predictor, ASKED, 1), tmp_path / "bundle")
    loaded = load(tmp_path / "bundle").predictor
    assert (np.nan_to_num(loaded.predict(result.panel, 1)) == np.nan_to_num(result.probabilities[MODEL])).all()
    (block,) = blocks.blocks
    by_block = loaded.answer(block, ASKED).probability
    assert (np.nan_to_num(by_block) == np.nan_to_num(loaded.predict(result.panel, 1))).all()
