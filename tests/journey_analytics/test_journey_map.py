"""The journey map's numbers: stays, moves, times with censoring, and signs, against plain definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block
from tests.oracles.cases import a_journey, a_shop, moment, person, touch
from tests.oracles.examples import DAY, MINOR_UNITS, Setting, customers, instants, lives, settings_of_journey
from tests.oracles.histories import Customer, live
from tests.oracles.journey import entries as oracle_entries
from tests.oracles.journey import held as held_at
from tests.oracles.journey import spans as oracle_spans
from tests.oracles.journey import stage_at as oracle_stage_at
from tests.oracles.labels import is_eligible, outlook

from cvj_ml.config import JourneySpec
from cvj_ml.errors import ConfigError
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, evidence, stays
from cvj_ml.journey_analytics.dwell_times import (
    AFTER,
    BEFORE_ANY,
    STILL_THERE,
    UNKNOWN,
    DwellTimeCounts,
    Question,
    add_dwell_times,
    count_dwell_times,
    dwell_times,
    require_segment,
    segments_of,
)
from cvj_ml.journey_analytics.journey_map import BackAndForth, journey_map, kaplan_meier, pace, weighted_percentile
from cvj_ml.journey_analytics.precursors import (
    ALL,
    MINIMUM_CUSTOMERS,
    MINIMUM_MOVERS,
    TouchpointCounts,
    add_touchpoints,
    count_touchpoints,
    precursors,
)
from cvj_ml.report import wording
from cvj_ml.windows import NEVER

PERIOD = 4 * DAY


def asked(
    journey: JourneySpec, hidden: Sequence[str], as_of: int, delay: int = 0, segment: str | None = None
) -> Question:
    return Question(Journey(journey, frozenset(hidden)), as_of, PERIOD, delay, segment, "rating", 0)


def counted(question: Question, block: Block) -> tuple[DwellTimeCounts, TouchpointCounts]:
    held = stays(question.journey, block.touchpoints)
    found = dwell_times(block.touchpoints, held, question.as_of)
    return count_dwell_times(question, block, found), count_touchpoints(question, block, held, found)


def oracle_stays(journey: JourneySpec, hidden: Sequence[str], customer: Customer, as_of: int) -> list[tuple[int, ...]]:
    """Walk through a customer's instants: (stage, start, end or NEVER, next) of every stay."""
    seen = min(one.visible for one in customer.touches)
    if seen >= as_of:
        return []
    entered = oracle_entries(journey, hidden, customer, MINOR_UNITS)
    moments = sorted({seen, *(at for at in entered if at is not None and at < as_of)})
    path: list[tuple[int, int]] = []
    for at in moments:
        stage, _ = oracle_stage_at(entered, at + 1)
        if not path or stage > path[-1][0]:
            path.append((stage, at))
    ends = [*(start for _, start in path[1:]), NEVER]
    following = [*(stage for stage, _ in path[1:]), STILL_THERE]
    return [(stage, start, end, then) for (stage, start), end, then in zip(path, ends, following, strict=True)]


@settings(max_examples=30)
@given(customers(), settings_of_journey(), instants())
def test_stays_are_those_of_a_walk_through_the_history(people: list[Customer], setting: Setting, as_of: int) -> None:
    """Silent errors 4 and 26: entries are one array, and a lower stage entered late begins no stay."""
    block = to_block(people)
    held = stays(Journey(setting.journey, frozenset(setting.hidden)), block.touchpoints)
    found = dwell_times(block.touchpoints, held, as_of)
    rows = list(zip(found.customer, found.stage, found.start, found.end, found.next, strict=True))
    expected = [
        (i, *stay) for i, one in enumerate(people) for stay in oracle_stays(setting.journey, setting.hidden, one, as_of)
    ]
    assert [tuple(map(int, row)) for row in rows] == expected
    firsts = Counter(int(customer) for customer, first in zip(found.customer, found.first, strict=True) if first)
    assert set(firsts.values()) <= {1}
    assert firsts.keys() == {row[0] for row in expected}


@settings(max_examples=60)
@given(lives(), instants())
def test_stays_go_back_and_forth_where_stages_can_be_left(
    people_and_journey: tuple[list[Customer], Setting], as_of: int
) -> None:
    """The highest stage held, asked anew at every instant at which a stage is entered or left."""
    people, setting = people_and_journey
    block, journey = to_block(people), Journey(setting.journey, setting.hidden)
    found = dwell_times(block.touchpoints, stays(journey, evidence(journey, block)), as_of)
    names, expected, again = setting.journey.names, [], []
    for i, one in enumerate(people):
        seen = min(touch.visible for touch in one.touches)
        spent = oracle_spans(setting.journey, setting.hidden, one, MINOR_UNITS)
        moments = {seen, *(at for several in spent.values() for span in several for at in span if at is not None)}
        path: list[tuple[int, int]] = []
        for at in sorted(at for at in moments if at < as_of and seen < as_of):
            stage = max((k for k, name in enumerate(names) if held_at(spent[name], at + 1)), default=-1)
            if not path or stage != path[-1][0]:
                again.append(stage in [before for before, _ in path])
                path.append((stage, at))
        ends = [*(start for _, start in path[1:]), NEVER]
        following = [*(stage for stage, _ in path[1:]), STILL_THERE]
        expected += [(i, stage, at, end, then) for (stage, at), end, then in zip(path, ends, following, strict=False)]
    rows = zip(found.customer, found.stage, found.start, found.end, found.next, strict=True)
    assert [tuple(map(int, row)) for row in rows] == expected
    assert found.again.tolist() == again


def test_who_falls_back_has_not_moved_on() -> None:
    """Of 40 stays in Two 20 end upwards and 20 downwards: these are seen until then, and moved nowhere."""
    journey = JourneySpec.model_validate(
        {
            "name": "back",
            "stages": [
                {"name": "One", "enter": {"event": "visit"}},
                {"name": "Two", "enter": {"event": "buy"}, "leave": {"event": "mail"}},
                {"name": "Three", "enter": {"event": "review"}},
            ],
        }
    )
    up = [person(touch(0, event="visit"), touch(1), touch(5, event="review"), name=f"u{i:02}") for i in range(20)]
    down = [
        person(touch(0, event="visit"), touch(1), touch(3, event="mail"), touch(20), name=f"d{i:02}") for i in range(20)
    ]
    question = asked(journey, (), moment(21))
    shop = a_shop({}, journey=journey.model_dump(mode="json", exclude_none=True))
    rows, _ = counted(question, to_block([*down, *up]))
    found = {step.name: step for step in journey_map(shop, question.journey, rows, None, PERIOD).steps}
    two = found["Two"]
    assert (two.entered, two.stays, two.here, two.converted, two.left) == (40, 60, 20, 20, 0)
    assert two.back_and_forth == BackAndForth(stays=60, back=0, lost=0)
    assert (found["One"].stays, found["One"].entered, found["One"].converted) == (60, 40, 60)
    assert (two.came, two.arrived) == (20, 20), "who came again comes from an earlier stage, too"
    # At risk on day 4 are the 20 who were not set back on day 2; before that, all 60 stays.
    assert two.pace.median == 4


@settings(max_examples=30)
@given(customers(), settings_of_journey(), instants())
def test_what_comes_later_changes_no_number(people: list[Customer], setting: Setting, as_of: int) -> None:
    question = asked(setting.journey, setting.hidden, as_of)
    past = [
        replace(one, touches=kept, versions=tuple(v for v in one.versions if v.known < as_of))
        for one in people
        if (kept := tuple(row for row in one.touches if row.visible < as_of))
    ]
    assume(past)
    whole, before = counted(question, to_block(people)), counted(question, to_block(past))
    for name in ("dwell_times", "arrivals"):
        pd.testing.assert_frame_equal(getattr(whole[0], name), getattr(before[0], name))
    for name in ("habits", "origins", "precursors"):
        pd.testing.assert_frame_equal(getattr(whole[1], name), getattr(before[1], name))
    assert (whole[1].newest, whole[1].lately, whole[1].usually) == (
        before[1].newest,
        before[1].lately,
        before[1].usually,
    )


@settings(max_examples=12)
@given(customers(), settings_of_journey(), instants(), st.sampled_from([None, "plan"]))
def test_blocks_may_be_cut_anywhere(people: list[Customer], setting: Setting, as_of: int, segment: str | None) -> None:
    question = asked(setting.journey, setting.hidden, as_of, segment=segment)
    whole = counted(question, to_block(people))
    parts = [counted(question, to_block([one])) for one in reversed(people)]
    together = add_dwell_times(part for part, _ in parts), add_touchpoints(part for _, part in parts)
    for name in ("dwell_times", "arrivals"):
        pd.testing.assert_frame_equal(getattr(add_dwell_times([whole[0]]), name), getattr(together[0], name))
    for name in ("habits", "origins", "precursors"):
        pd.testing.assert_frame_equal(getattr(add_touchpoints([whole[1]]), name), getattr(together[1], name))


@settings(max_examples=30)
@given(customers(most=6), settings_of_journey(), instants(), st.sampled_from([0, DAY]))
def test_signs_count_what_came_before_and_what_came_after(
    people: list[Customer], setting: Setting, as_of: int, delay: int
) -> None:
    """Silent errors 2, 3, 5 and 10: whole outcomes, known at the instant, late evidence dropped, each customer once."""
    journey, hidden = setting.journey, setting.hidden
    at = as_of - PERIOD - delay
    expected: Counter[tuple[int, str, bool]] = Counter()
    converted: Counter[tuple[int, str, bool]] = Counter()
    for one in people:
        if not is_eligible(one, at):
            continue
        stage, _ = oracle_stage_at(oracle_entries(journey, hidden, one, MINOR_UNITS), at)
        later = outlook(journey, hidden, one, at, MINOR_UNITS, as_of, delay)
        ahead = [j for j, name in enumerate(journey.names) if j > stage and name not in hidden]
        if not ahead or not all(later.asked[1 + j] for j in ahead):
            continue
        went = any((time := later.times[1 + j]) is not None and time < PERIOD for j in ahead)
        before = {(row.event, row.inbound) for row in live(one, at) if at - PERIOD <= row.occurred < at}
        if not any(inbound for _, inbound in before):
            continue
        for key in [*((stage, *pair) for pair in before), (stage, ALL, True)]:
            expected[key] += 1
            converted[key] += went
    rows = counted(asked(journey, hidden, as_of, delay), to_block(people))[1].precursors
    keys = list(zip(rows["stage"], rows["event"], rows["inbound"], strict=True))
    assert dict(zip(keys, rows["customers"], strict=True)) == dict(expected)
    assert {key: n for key, n in zip(keys, rows["converted"], strict=True) if n} == {
        k: n for k, n in converted.items() if n
    }


JOURNEY = a_journey(One={"event": "visit"}, Two={"event": "buy"})


def test_the_touchpoint_that_is_the_move_is_no_sign_of_it() -> None:
    people = [
        person(touch(0, event="visit"), touch(9, event="visit"), touch(12 + i / 100, event="buy"), name=f"c{i:02}")
        for i in range(20)
    ]
    rows = counted(asked(JOURNEY, (), moment(14)), to_block(people))[1].precursors
    assert rows[["event", "customers", "converted"]].to_numpy().tolist() == [["visit", 20, 20], [ALL, 20, 20]]
    late = replace(asked(JOURNEY, (), moment(14)), observed_from=moment(7))
    assert counted(late, to_block(people))[1].precursors.empty, "the period before was not recorded whole"


def test_habits_leave_out_what_led_into_the_stage() -> None:
    people = [person(touch(0, event="visit"), touch(5), touch(5.5, event="visit"), touch(5.6, event="visit"))]
    rows = counted(asked(JOURNEY, (), moment(6)), to_block(people))[1].habits
    assert rows[["stage", "event", "customers", "touchpoints"]].to_numpy().tolist() == [[1, "visit", 1, 2]]


def test_moves_of_the_last_period_begin_with_it() -> None:
    """The period is [as_of - p, as_of): a move exactly at its beginning counts, one at as_of is the future."""
    people = [
        person(touch(0, event="visit"), touch(2), name="at the beginning"),
        person(touch(0, event="visit"), touch(1.99), name="before it"),
        person(touch(0, event="visit"), touch(6), name="at as_of"),
        person(touch(5), name="new, and a stage passed over"),
    ]
    found = counted(asked(JOURNEY, (), moment(6)), to_block(people))[0]
    left = found.dwell_times[found.dwell_times["recent"]]
    assert left[["stage", "next", "customers"]].to_numpy().tolist() == [[0, 1, 1]]
    assert found.arrivals[["stage", "customers"]].to_numpy().tolist() == [[1, 1]]


def test_a_first_channel_is_that_of_the_first_touchpoint() -> None:
    people = [
        person(touch(0, event="visit", channel="ads"), touch(1, channel="shop"), name="a"),
        person(touch(0, event="visit"), name="b"),
    ]
    rows = counted(asked(JOURNEY, (), moment(3)), to_block(people))[1].origins
    assert rows.to_numpy().tolist() == [[0, "(no channel)", 1], [0, "ads", 1], [1, "ads", 1]]


@pytest.mark.parametrize("name", ["a", "z"])
def test_of_several_first_channels_no_name_decides(name: str) -> None:
    """Silent error 68: at one instant nothing is first."""
    rows = (touch(0, event="visit", channel="ads"), touch(0, event=name, channel="shop"))
    found = counted(asked(JOURNEY, (), moment(3)), to_block([person(*rows)]))[1]
    assert found.origins.to_numpy().tolist() == [[0, "(several channels)", 1]]


def test_segments_are_those_known_then() -> None:
    from tests.oracles.histories import Version

    versions = [Version(moment(0), {"plan": "free"}), Version(moment(5), {"plan": "gold"})]
    block = to_block([person(touch(0), versions=versions), person(touch(0), name="d")])
    assert segments_of(block, "plan", moment(5)).tolist() == ["free", UNKNOWN]
    assert segments_of(block, "plan", moment(5) + 1).tolist() == ["gold", UNKNOWN]


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("plam", "report.segment: there is no attribute 'plam'. Did you mean 'plan'? Text attributes: plan."),
        ("age", "report.segment: 'age' is a number; segments need a text attribute."),
    ],
)
def test_a_segment_must_be_a_text_attribute(attribute: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_segment(attribute, {"plan": "string", "age": "double"})
    assert str(caught.value).startswith(told)


def test_kaplan_meier_of_the_textbook() -> None:
    """The 6-MP arm of Freireich and others (1963): S(10) = 0.753, S(23) = 0.448."""
    days = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    converted = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    at, left = kaplan_meier(np.array(days), np.array(converted, dtype=bool), np.ones(len(days), dtype=np.int64))
    found = dict(zip(at.tolist(), left.tolist(), strict=True))
    assert found[10] == pytest.approx(0.7529, abs=1e-4)
    assert found[23] == pytest.approx(0.4482, abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=12))
def test_without_censoring_kaplan_meier_is_the_share_still_there(rows: list[tuple[int, int]]) -> None:
    days, weights = (np.array(column) for column in zip(*rows, strict=True))
    at, left = kaplan_meier(days, np.ones(len(days), dtype=bool), weights)
    for day, share in zip(at, left, strict=True):
        assert share == pytest.approx(weights[days > day].sum() / weights.sum(), abs=1e-12)


def times(moves: dict[int, int], waiting: dict[int, int]) -> pd.DataFrame:
    rows = [(1, days, n) for days, n in moves.items()] + [(STILL_THERE, days, n) for days, n in waiting.items()]
    followed = sum(max([*moves, *waiting]) >= after for after in AFTER)
    return pd.DataFrame(rows, columns=["next", "days", "customers"]).assign(followed=followed, stage=0)


def test_a_median_that_was_not_seen_is_not_told() -> None:
    """Most are still there: the movers' own median would say 3 days, and most customers stay."""
    found = pace(times({3: 25}, {50: 75}))
    assert (found.median, found.usual, found.stalled) == (None, 3, 75)
    assert found.moved_by == (pytest.approx(0.25), None)
    assert pace(times({3: 25, 10: 25}, {5: 10})).median == 10


def test_a_share_within_thirty_days_needs_customers_who_came_that_long_ago() -> None:
    """Silent error 76: on a week of history one stray row of last year made it "94 % within 30 days"."""
    week = times({3: 94}, {5: 6}).assign(followed=0)
    stray = times({}, {400: 1})
    found = pace(pd.concat([week, stray]))
    assert found.moved_by == (None, None) and found.median == 3
    months = pd.concat([times({3: 94}, {40: 20})])
    assert pace(months).moved_by == (pytest.approx(94 / 114), None)
    late = pace(times({3: 25, 50: 60}, {4: 70, 51: 1}))
    assert late.median is not None
    assert pace(times({3: 25, 50: 3}, {4: 70, 51: 1})).median is None, "four who are left say nothing of all"


def test_a_stay_of_nearly_two_days_is_not_one_day() -> None:
    """Silent error 76: whole days took almost one off every waiting time."""
    people = [person(touch(0, event="visit"), touch(1.9, event="buy"), name=f"c{i:02}") for i in range(25)]
    rows = counted(asked(JOURNEY, (), moment(9)), to_block(people))[0].dwell_times
    found = pace(rows[rows["stage"] == 0])
    assert found.median == pytest.approx(1.9, abs=1 / 24) and wording.days(found.median) == "2 days"
    assert [wording.days(one) for one in (0.4, 1.0, 1.4, 1.5, 30.2)] == [
        "under a day",
        "1 day",
        "1 day",
        "2 days",
        "30 days",
    ]


@pytest.mark.parametrize(("from_day", "weeks", "usually"), [(0, 4, 28), (28, 1, 7), (37, 0, 0)])
def test_a_week_before_the_records_is_not_a_week_without_touchpoints(from_day: int, weeks: int, usually: int) -> None:
    """Silent error 76: three empty weeks before history_from made any week look busy."""
    people = [person(*(touch(day + 0.5, event="visit") for day in range(from_day, 42)))]
    question = replace(asked(JOURNEY, (), moment(42)), observed_from=moment(from_day))
    found = counted(question, to_block(people))[1]
    assert (found.lately, found.weeks, found.usually) == (min(7, 42 - from_day), weeks, usually)


def test_few_movers_have_no_usual_time() -> None:
    found = pace(times({3: 19}, {50: 75}))
    assert (found.median, found.usual, found.stalled, found.moved_by) == (None, None, None, (None, None))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4)), min_size=1, max_size=15))
def test_a_weighted_percentile_is_one_of_the_repeated_values(rows: list[tuple[int, int]]) -> None:
    values, weights = (np.array(column) for column in zip(*rows, strict=True))
    expected = np.percentile(np.repeat(values, weights), 75, method="inverted_cdf")
    assert weighted_percentile(values, weights, 0.75) == expected


def of_events(total: tuple[int, int], **events: tuple[int, int]) -> pd.DataFrame:
    rows = [(0, ALL, True, *total), *((0, name, True, *numbers) for name, numbers in events.items())]
    return pd.DataFrame(rows, columns=["stage", "event", "inbound", "customers", "converted"])


def test_signs_tell_moving_from_staying_and_chance() -> None:
    found = precursors(of_events((1000, 300), good=(200, 120), bad=(300, 40), noise=(400, 121)), 0)
    assert [one.event for one in found] == ["good", "noise", "bad"]
    assert [(one.moving, one.staying) for one in found] == [(True, False), (False, False), (False, True)]
    good = found[0]
    assert (good.share_with, good.share_without) == (0.6, 180 / 800)
    assert good.lift == pytest.approx(0.6 / 0.225, rel=0.01)
    assert good.low < good.lift < good.high
    # One touchpoint alone needs no allowance for many: its interval is narrower.
    alone = precursors(of_events((1000, 300), good=(200, 120)), 0)[0]
    assert good.low < alone.low < alone.high < good.high
    spread = math.sqrt(1 / 120.5 - 1 / 201 + 1 / 180.5 - 1 / 801)
    assert alone.low == pytest.approx(alone.lift / math.exp(1.959964 * spread), rel=1e-6)


def test_few_customers_are_no_sign() -> None:
    few = MINIMUM_CUSTOMERS - 1
    assert precursors(of_events((500, 100), rare=(few, few), usual=(500 - few, 90)), 0) == []
    assert precursors(of_events((500, MINIMUM_MOVERS - 1), event=(100, 9)), 0) == []
    assert precursors(of_events((500, 100), event=(100, 50)), BEFORE_ANY) == []
