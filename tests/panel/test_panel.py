"""The panel: who is asked about, when, in which sample; and that training sees what scoring sees."""

from __future__ import annotations

import itertools
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import (
    HORIZONS,
    Blocks,
    a_definition,
    a_journey,
    a_predictor,
    answers,
    moment,
    person,
    random_customers,
    touch,
)
from tests.oracles.examples import DAY, HOUR, START
from tests.oracles.histories import Customer

from cvj_ml.config import Config
from cvj_ml.journey import Journey
from cvj_ml.panel.labels import RETURN, Labels
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import Panel, build_panel, hazard_rows
from cvj_ml.simulate import random_block
from cvj_ml.snapshots import Snapshots, sampling_keys, training_grid
from cvj_ml.windows import midnight, parse_as_of

JOURNEY = a_journey(
    One={"event": "visit"},
    Two={"event": "buy", "count": 2},
    Three={"event": "review", "after": "Two"},
    Four={"event": "mail"},
)
INSTANTS = np.array([START - day * DAY for day in (90, 60, 45, 30)], dtype=np.int64)


@pytest.fixture(scope="module")
def customers() -> list[Customer]:
    block = random_customers(150, 8)
    return to_customers(block)


def bucketed(customers: list[Customer], buckets: int, *, turn: int = 0) -> Blocks:
    """The customers over so many blocks, in another assignment for each turn."""
    parts: list[list[Customer]] = [[] for _ in range(buckets)]
    for number, one in enumerate(customers):
        parts[(number * (1 + 2 * turn) + turn) % buckets].append(one)
    return Blocks([to_block(part) for part in parts])


def by_snapshot(panel: Panel) -> dict[tuple[str, int], tuple[Any, ...]]:
    rows = {}
    for i in range(len(panel)):
        content = (
            panel.x[i].tobytes(),
            int(panel.stage[i]),
            panel.days_in_stage[i].tobytes(),
            panel.labels.times[i].tolist(),
            panel.labels.at_risk[i].tolist(),
            int(panel.labels.follow_up[i]),
        )
        rows[panel.names[panel.customer[i]], int(panel.as_of[i])] = content
    assert len(rows) == len(panel)
    return rows


@pytest.mark.parametrize("max_rows", [None, 1_500])
def test_buckets_and_their_order_change_no_row(customers: list[Customer], max_rows: int | None) -> None:
    """Silent error 12: a snapshot is in the sample or not, whatever it is stored or asked about with."""
    definition = a_definition(JOURNEY)
    one, other, whole = (
        build_panel(definition, blocks, INSTANTS, START, DAY, max_rows=max_rows, seed=3)
        for blocks in (bucketed(customers, 3), bucketed(customers, 7, turn=2), bucketed(customers, 1))
    )
    assert by_snapshot(one) == by_snapshot(other) == by_snapshot(whole)
    assert one.share == other.share == whole.share
    assert one.eligible == other.eligible == whole.eligible
    assert one.labels.late == other.labels.late


def test_the_sample_keeps_to_its_budget_and_to_the_rates(customers: list[Customer]) -> None:
    """Silent error 12: one share for all, so that what moved is not drawn more often than what did not."""
    definition = a_definition(JOURNEY)
    everything = build_panel(definition, bucketed(customers, 2), INSTANTS, START, DAY)
    assert everything.share == 1
    assert len(everything) == everything.eligible
    rows = len(hazard_rows(everything.labels, HORIZONS))
    half = build_panel(definition, bucketed(customers, 2), INSTANTS, START, DAY, max_rows=rows // 2)
    assert half.share == pytest.approx(0.5, abs=0.001)
    assert half.eligible == everything.eligible
    assert len(half) == pytest.approx(half.share * half.eligible, rel=0.15)
    assert by_snapshot(half).items() <= by_snapshot(everything).items()
    rate, sampled = (hazard_rows(one.labels, HORIZONS).converted.mean() for one in (everything, half))
    assert sampled == pytest.approx(rate, rel=0.25)
    roomy = build_panel(definition, bucketed(customers, 2), INSTANTS, START, DAY, max_rows=rows)
    assert by_snapshot(roomy) == by_snapshot(everything)


def test_sampling_depends_on_customer_instant_and_seed_and_is_even() -> None:
    """Silent error 12: neither neighbours in time nor neighbours in name are drawn together."""
    names = [f"c{number}" for number in range(400)]
    instants = START + 14 * DAY * np.arange(50, dtype=np.int64)
    snapshots = Snapshots(np.repeat(np.arange(400), 50), np.tile(instants, 400))
    keys = sampling_keys(names, snapshots, seed=1)
    assert ((keys >= 0) & (keys < 1)).all()
    assert len(np.unique(keys)) == len(keys)
    for share in (0.1, 0.5, 0.9):
        drawn = (keys < share).reshape(400, 50)
        assert drawn.mean() == pytest.approx(share, abs=0.02)
        # As even over customers and over instants as independent draws are: within five standard deviations.
        spread = 5 * (share * (1 - share)) ** 0.5
        assert np.abs(drawn.mean(axis=0) - share).max() < spread / 400**0.5
        assert np.abs(drawn.mean(axis=1) - share).max() < spread / 50**0.5
        assert np.mean(drawn[:, 1:] & drawn[:, :-1]) == pytest.approx(share**2, abs=0.03)
    other = sampling_keys(names, snapshots, seed=2)
    assert abs(np.corrcoef(keys, other)[0, 1]) < 0.05

    backwards = np.arange(len(snapshots))[::-1]
    some = Snapshots(snapshots.customer[backwards][::3], snapshots.as_of[backwards][::3])
    assert np.array_equal(sampling_keys(names, some, seed=1), keys[backwards][::3])
    renamed = Snapshots(np.zeros(50, dtype=np.int64), instants)
    assert np.array_equal(sampling_keys(["c7"], renamed, seed=1), keys[7 * 50 : 8 * 50])


def test_training_asks_about_whom_scoring_asks_about(customers: list[Customer]) -> None:
    """Silent error 9: at the same instant the same customers, features, stages and probabilities."""
    definition = a_definition(JOURNEY)
    blocks = bucketed(customers, 3)
    panel = build_panel(definition, blocks, INSTANTS, START, DAY)
    predictor = a_predictor(definition, blocks, INSTANTS, START)
    trained = predictor.predict(panel, threads=1)
    for as_of in INSTANTS.tolist():
        at = np.flatnonzero(panel.as_of == as_of)
        at = at[np.argsort([panel.names[i] for i in panel.customer[at]], kind="stable")]
        scored = predictor.answer(to_block(customers), as_of)
        found = answers(definition, customers, as_of)
        assert found.names == [panel.names[i] for i in panel.customer[at]]
        assert [customers[i].name for i in scored.snapshots.customer] == found.names
        assert np.array_equal(found.x, panel.x[at], equal_nan=True)
        assert np.array_equal(scored.stage, panel.stage[at])
        assert np.array_equal(scored.days_in_stage, panel.days_in_stage[at], equal_nan=True)
        assert np.array_equal(scored.probability, trained[at], equal_nan=True)


def test_customers_who_never_move_again_are_in_the_panel() -> None:
    """Silent error 9: silence is an answer, and training must hear it."""
    quiet = [person(touch(1), name="a"), person(touch(1), touch(30), name="b")]
    panel = build_panel(a_definition(JOURNEY), Blocks([to_block(quiet)]), np.array([moment(20)]), moment(60), 0)
    assert [panel.names[i] for i in panel.customer] == ["a", "b"]
    converted = hazard_rows(panel.labels, HORIZONS)
    assert set(converted.snapshot.tolist()) == {0, 1}


def test_a_customer_who_asks_for_only_the_next_stages_still_returns_with_any() -> None:
    """Silent error 14: how many stages are predicted does not change what a return is."""
    jump = a_journey(One={"event": "visit"}, Two={"event": "buy"}, Three={"event": "mail"})
    rows = [person(touch(1, event="visit"), touch(7, event="mail"))]
    for next_stages, asked in ((None, [True, False, True, True]), (1, [True, False, True, False])):
        definition = a_definition(jump, next_stages=next_stages)
        panel = build_panel(definition, Blocks([to_block(rows)]), np.array([moment(5)]), moment(60), 0)
        assert panel.labels.at_risk.tolist() == [asked]
        assert panel.labels.times[0, RETURN] == 2 * DAY
        assert definition.at_risk(panel.stage).tolist() == [asked]


def test_next_stages_are_counted_among_the_observable_ones() -> None:
    hidden = a_definition(JOURNEY, frozenset({"Three"}), next_stages=2)
    assert hidden.at_risk(np.array([-1, 0, 1, 3], dtype=np.int8)).tolist() == [
        [True, True, True, False, False],
        [True, False, True, False, True],
        [True, False, False, False, True],
        [True, False, False, False, False],
    ]


def test_late_pairs_are_counted_over_all_blocks() -> None:
    """Silent error 5: what is left out is told."""
    late = [person(touch(1, event="visit"), touch(2), touch(3, visible=9), name=f"c{i}") for i in range(3)]
    for blocks in (Blocks([to_block(late)]), Blocks([to_block(late[:1]), to_block(late[1:])])):
        panel = build_panel(a_definition(JOURNEY), blocks, np.array([moment(5), moment(20)]), moment(60), 0)
        assert panel.labels.late == 3
        on_day_five = panel.as_of == moment(5)
        assert not panel.labels.at_risk[on_day_five, 2].any()


@pytest.mark.parametrize("max_rows", [None, 20])
def test_movers_are_customers_however_often_they_moved_and_wherever_they_are_stored(max_rows: int | None) -> None:
    """Silent error 10: three customers who moved, seen from ten instants each and sampled, are three."""
    rows = [touch(1, event="visit"), touch(20), touch(21), touch(22), touch(22.5)]
    moving = [person(*rows, name=f"c{i}") for i in range(3)]
    quiet = [person(touch(1, event="visit"), name=f"q{i}") for i in range(4)]
    instants = np.array([moment(10 + day) for day in range(10)], dtype=np.int64)
    everyone = to_block([*moving, *quiet])
    for blocks in (Blocks([everyone]), Blocks([to_block(quiet[:1]), to_block([*moving, *quiet[1:]])])):
        panel = build_panel(a_definition(JOURNEY), blocks, instants, moment(60), 0, max_rows=max_rows)
        assert panel.converters.tolist() == [3, 0, 3, 0, 0]


times = st.one_of(st.none(), st.integers(0, 12).map(lambda day: day * DAY), st.integers(0, 12 * DAY))


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(times, times, st.booleans(), st.integers(0, 12), st.sampled_from((-1, 0, 1))), min_size=1, max_size=5
    )
)
def test_a_row_exists_iff_at_risk_and_observed_to_the_end(
    snapshots: list[tuple[int | None, int | None, bool, int, int]],
) -> None:
    """Silent error 6: the follow-up test does not look at the event, nor the risk test at the follow-up."""
    never = np.iinfo(np.int64).max
    labels = Labels(
        np.array([[never if t is None else t for t in (first, second)] for first, second, *_ in snapshots]),
        np.array([[True, asked] for _, _, asked, _, _ in snapshots]),
        np.array([days * DAY + micro for *_, days, micro in snapshots], dtype=np.int64),
        0,
    )
    rows = hazard_rows(labels, HORIZONS)
    found = set(zip(*(c.tolist() for c in (rows.snapshot, rows.target, rows.interval, rows.converted)), strict=True))
    expected = set()
    for i, (first, second, asked, days, micro) in enumerate(snapshots):
        for target, time in enumerate((first, second)):
            for m, (low, high) in enumerate(((0, 2 * DAY), (2 * DAY, 5 * DAY), (5 * DAY, 9 * DAY))):
                still = time is None or time >= low
                if (target == 0 or asked) and still and days * DAY + micro >= high:
                    expected.add((i, target, m, time is not None and low <= time < high))
    assert found == expected
    assert len(rows) == len(expected)


def test_the_hazards_multiply_to_the_share_that_moved() -> None:
    """Silent error 6: over snapshots observed to the end, 1 - prod(1 - hazard) is the plain share, exactly."""
    block = random_block(
        customers=120,
        seed=2,
        events=("a", "b"),
        channels=("c",),
        properties={},
        attributes={},
        outbound=(),
        until=START,
    )
    definition = a_definition(a_journey(One={"event": "b", "count": 3}))
    instants = START - DAY * np.arange(20, 200, 10)
    labels = build_panel(definition, Blocks([block]), instants, START + 99 * DAY, 0).labels
    rows = hazard_rows(labels, HORIZONS)
    for target in (0, 1):
        survived = 1.0
        for interval, horizon in enumerate(HORIZONS):
            here = (rows.target == target) & (rows.interval == interval)
            survived *= 1 - rows.converted[here].mean()
            share = (labels.times[labels.at_risk[:, target], target] < horizon).mean()
            assert 1 - survived == pytest.approx(share, abs=1e-12)
        assert share > 0


def config(tmp_path: Path, **other: Any) -> Config:
    return Config.model_validate(
        {
            "name": "test",
            "time_zone": "Europe/London",
            "history_from": "2022-01-10",
            "burn_in": "90d",
            "sources": {"log": {"path": "log.csv"}},
            "journey": {"name": "test", "stages": [{"name": "One", "enter": {"event": "buy"}}]},
            **other,
        },
        context={"folder": tmp_path},
    )


def test_the_grid_starts_after_the_burn_in_and_ends_before_the_cut(tmp_path: Path) -> None:
    """Silent error 8: no snapshot before history_from + burn_in, as short windows look like new customers."""
    one = config(tmp_path, snapshots={"every": "7d", "back": "3650d"})
    zone = one.zone
    cut = parse_as_of("2023-02-01", zone)
    instants = training_grid(one, cut)
    assert instants[0] >= midnight(date(2022, 1, 10), zone) + 90 * DAY
    assert instants[0] < midnight(date(2022, 1, 10), zone) + 91 * DAY + HOUR
    assert instants[-1] < cut
    assert cut - instants[-1] <= 7 * DAY + HOUR
    days = [np.datetime64(int(at), "us").astype("datetime64[h]").astype(int) % 24 for at in instants]
    assert set(days) == {0, 23}  # local midnights, in winter and in summer
    assert {round((b - a) / DAY) for a, b in itertools.pairwise(instants)} == {7}


def test_the_grid_reaches_back_as_far_as_asked(tmp_path: Path) -> None:
    one = config(tmp_path, snapshots={"every": "14d", "back": "100d"})
    cut = parse_as_of("2024-02-01", one.zone)
    instants = training_grid(one, cut)
    assert (instants >= cut - 100 * DAY).all()
    assert 6 <= len(instants) <= 8
    assert not len(training_grid(one, parse_as_of("2022-03-01", one.zone)))


def test_a_longer_grid_repeats_the_instants_of_a_shorter_one(tmp_path: Path) -> None:
    """Folds ask about the same instants, so their snapshots (and their samples) are comparable."""
    one = config(tmp_path, snapshots={"every": "14d", "back": "3650d"})
    short, long = (training_grid(one, parse_as_of(day, one.zone)) for day in ("2023-05-03", "2023-09-08"))
    assert np.array_equal(short, long[: len(short)])


def test_a_definition_knows_no_name_from_after_the_cut(tmp_path: Path) -> None:
    """Silent error 3: the vocabulary, too, is learned on what was visible at the cut."""
    touches = touch(1), touch(2, event="visit", visible=9), touch(9, event="new", channel="web")
    block = to_block([person(*touches, name="a"), person(*touches, name="b")])
    definition = define(
        config(tmp_path, model={"min_customers": 2}), Journey(config(tmp_path).journey), Blocks([block]), moment(9)
    )
    assert definition.catalogue.vocabulary.events == ("buy",)
    assert definition.catalogue.vocabulary.channels == ()
    assert definition.observed_from == midnight(date(2022, 1, 10), definition.zone)
