"""Stages that can be left and entered again, against the oracle, which asks all rules anew at every instant."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracles import examples, features, journey, labels
from tests.oracles.blocks import in_order, to_block
from tests.oracles.cases import a_definition, a_shop, answers, labels_of, person, touch
from tests.oracles.cases import plain as plain_times
from tests.oracles.examples import DAY, MINOR_UNITS, START, Setting
from tests.oracles.histories import Customer, Touch, as_known, live
from tests.test_time_travel import with_another_future

from cvj_ml.config import JourneySpec
from cvj_ml.errors import ConfigError
from cvj_ml.journey import Journey, Stays, evidence, observability, outcomes_of, stays, stays_that_happened
from cvj_ml.journey.words import rule_in_words
from cvj_ml.panel.labels import label_leaves
from cvj_ml.snapshots import eligible
from cvj_ml.windows import NEVER

Span = tuple[int, int | None]


def plain(found: Stays, customer: int, names: tuple[str, ...]) -> dict[str, list[Span]]:
    """The stays of a customer by stage; of one that cannot be left from its first entry on."""
    spent: dict[str, list[Span]] = {name: [] for name in names}
    for i, name in enumerate(names):
        if not found.leavable[i] and found.first[customer, i] != NEVER:
            spent[name].append((int(found.first[customer, i]), None))
    for k in range(found.offsets[customer], found.offsets[customer + 1]):
        leave = int(found.leave[k])
        spent[names[found.stage[k]]].append((int(found.enter[k]), None if leave == NEVER else leave))
    return spent


def known(setting: Setting, customers: list[Customer]) -> Stays:
    seen = Journey(setting.journey, setting.hidden)
    return stays(seen, evidence(seen, to_block(customers)))


@pytest.mark.slow
@settings(max_examples=200)
@given(examples.lives())
def test_stays_are_those_of_the_oracle(lives: tuple[list[Customer], Setting]) -> None:
    """Every stay is a longest span of instants at which the stage was held by what was visible then."""
    customers, setting = lives
    found = known(setting, customers)
    for i, one in enumerate(customers):
        expected = journey.spans(setting.journey, setting.hidden, one, MINOR_UNITS)
        assert plain(found, i, setting.journey.names) == expected, one


@settings(max_examples=100)
@given(examples.lives(), examples.instants())
def test_stays_that_happened_are_those_of_the_oracle(lives: tuple[list[Customer], Setting], cut: int) -> None:
    customers, setting = lives
    seen = Journey(setting.journey, setting.hidden)
    found = stays_that_happened(seen, evidence(seen, to_block(customers)), cut)
    for i, one in enumerate(customers):
        expected = journey.stays_that_happened(setting.journey, one, MINOR_UNITS, cut)
        spent = plain(found, i, setting.journey.names)
        for stage in setting.journey.stages:
            wanted = [] if stage.name in setting.hidden else [(at.enter, at.leave) for at in expected[stage.name]]
            assert spent[stage.name] == wanted, (stage.name, one)


MANY_STAYS = (
    {"enter": {"event": "buy"}, "leave": {"any": [{"event": "review"}, {"silent_for": "1d"}]}},
    {"enter": {"event": "*", "count": 2}, "leave": {"event": ["mail", "visit"], "count": 2, "within": "1d"}},
    {"enter": {"event": ["buy", "visit"], "after": "One"}, "leave": {"event": "*", "value_at_least": 10}},
    {"enter": {"event": "visit"}, "leave": {"all": [{"event": "mail"}, {"event": "buy"}]}},
)


@pytest.mark.parametrize("same_day", ["counts", "later"])
def test_many_stays_in_few_days_are_those_of_the_oracle(same_day: str) -> None:
    """Full windows, equal instants, days of which nobody knows the hours, late rows and corrections, back and forth."""
    stages = [{"name": name, **rules} for name, rules in zip(examples.STAGES, MANY_STAYS, strict=True)]
    spec = JourneySpec.model_validate({"name": "many", "same_day": same_day, "stages": stages})
    customers = [*examples.close_histories(5, 120), *examples.crowded_days(7, 120)]
    customers = [replace(one, name=f"c{i:03}") for i, one in enumerate(customers)]
    found, again = known(Setting(spec, frozenset()), customers), 0
    for i, one in enumerate(customers):
        spent = plain(found, i, spec.names)
        assert spent == journey.spans(spec, (), one, MINOR_UNITS), one
        again += sum(len(several) > 1 for several in spent.values())
    assert again > 100


moments = st.lists(examples.instants(), min_size=1, max_size=3, unique=True).map(sorted)


@settings(max_examples=100)
@given(examples.lives(), moments, examples.instants(), st.sampled_from((0, DAY)))
def test_a_stage_is_reached_when_it_is_entered_next(
    lives: tuple[list[Customer], Setting], instants: list[int], cut: int, delay: int
) -> None:
    customers, setting = lives
    instants = [at for at in instants if at < cut] or [cut - DAY]
    snapshots, found = labels_of(setting.journey, setting.hidden, customers, instants, cut, delay)
    expected = [
        labels.outlook(setting.journey, setting.hidden, customers[i], at, MINOR_UNITS, cut, delay)
        for i, at in zip(snapshots.customer, snapshots.as_of.tolist(), strict=True)
    ]
    assert plain_times(found.times) == [one.times for one in expected]
    assert found.at_risk.tolist() == [one.asked for one in expected]
    assert found.late == sum(one.late for one in expected)


@settings(max_examples=100)
@given(examples.lives(), moments, examples.instants())
def test_a_leave_is_labelled_for_those_who_hold_the_stage(
    lives: tuple[list[Customer], Setting], instants: list[int], cut: int
) -> None:
    """By rules and as it happened; silence is no leave of this model, and who had left already is not asked."""
    customers, setting = lives
    instants = [at for at in instants if at < cut] or [cut - DAY]
    seen, block = Journey(setting.journey, setting.hidden), to_block(customers)
    snapshots = eligible(block.touchpoints, np.array(instants, dtype=np.int64))
    found = label_leaves(seen, evidence(seen, block), stays(seen, evidence(seen, block)), snapshots, cut)
    leavable = [one.name for one in setting.journey.stages if one.leave is not None]
    assert [*found] == leavable
    for row, (i, at) in enumerate(zip(snapshots.customer, snapshots.as_of.tolist(), strict=True)):
        spent = journey.spans(setting.journey, setting.hidden, customers[i], MINOR_UNITS)
        happened = journey.stays_that_happened(setting.journey, customers[i], MINOR_UNITS, cut)
        for name in leavable:
            (now,) = [one for one in happened[name] if one.enter < at and (one.leave is None or one.leave >= at)] or [
                None
            ]
            asked = now is not None and journey.held(spent[name], at)
            assert found[name].asked[row] == asked
            if asked:
                ends = now.leave is not None and not now.silent
                assert found[name].until[row] == (now.leave - at if ends else NEVER)


@pytest.mark.slow
@settings(max_examples=100)
@given(examples.lives(), examples.instants())
def test_features_tell_the_stay_that_was_known(lives: tuple[list[Customer], Setting], as_of: int) -> None:
    customers, setting = lives
    found = answers(a_definition(setting.journey, setting.hidden), customers, as_of)
    there = [one for one in customers if as_known(one, as_of).touches]
    assert found.names == [one.name for one in there]
    for row, one in zip(found.x, there, strict=True):
        told = dict(zip(found.columns, row.tolist(), strict=True))
        spent = journey.spans(setting.journey, setting.hidden, one, MINOR_UNITS)
        begun = {name: [span for span in spans if span[0] < as_of] for name, spans in spent.items()}
        seen = [name for name in setting.journey.names if name not in setting.hidden]
        here = max((name for name in seen if journey.held(spent[name], as_of)), key=seen.index, default=None)
        assert told["stage"] == (-1 if here is None else seen.index(here))
        days = np.nan if here is None else (as_of - begun[here][-1][0]) / DAY
        assert told["days_in_stage"] == pytest.approx(days, nan_ok=True)
        assert told["stages_visited"] == sum(bool(begun[name]) for name in seen)
        known = journey.stays_that_happened(setting.journey, one, MINOR_UNITS, as_of)
        for stage in (stage for stage in setting.journey.stages if stage.name in seen):
            spans = begun[stage.name]
            days = (as_of - spans[-1][0]) / DAY if spans else np.nan
            assert told[f"days_since_{stage.name}"] == pytest.approx(days, nan_ok=True)
            if stage.leave is not None:
                left = spans[-1][1] if spans else None
                days = np.nan if left is None or left >= as_of else (as_of - left) / DAY
                assert told[f"days_since_leaving_{stage.name}"] == pytest.approx(days, nan_ok=True)
            if any(journey.asks_for_attributes(other.enter) for other in setting.journey.stages):
                continue
            rows = [touch for touch in live(one, as_of) if touch.occurred < as_of]
            past = [stay.left for stay in known[stage.name] if stay.leave is not None and stay.leave < as_of]
            done, missing = features.progress(
                setting.journey, stage.enter, rows, as_of, MINOR_UNITS, past[-1] if past else None
            )
            assert told[f"fulfilled_{stage.name}"] == pytest.approx(float(done))
            assert told[f"remaining_{stage.name}"] == missing


@settings(max_examples=100)
@given(with_another_future(), examples.leaving())
def test_nothing_known_of_a_stay_comes_from_the_future(
    histories: tuple[list[Customer], list[Customer], int], setting: Setting
) -> None:
    customers, changed, as_of = histories
    one, other = (answers(a_definition(setting.journey, setting.hidden), each, as_of) for each in (customers, changed))
    assert one.names == other.names
    assert np.array_equal(one.state.stage, other.state.stage)
    assert np.array_equal(one.state.days_in_stage, other.state.days_in_stage, equal_nan=True)
    assert np.array_equal(one.x, other.x, equal_nan=True)


@settings(max_examples=60)
@given(examples.lives(most=2), st.data())
def test_a_late_row_rewrites_no_stay(lives: tuple[list[Customer], Setting], data: st.DataObject) -> None:
    """Rows that arrive at an instant leave what was known of every stay before as it was."""
    customers, setting = lives
    arrival = START + data.draw(st.integers(1, examples.SPAN)) * DAY
    late = data.draw(examples.customer("late"))
    rows = [replace(one, visible=max(one.visible, arrival)) for one in late.touches if one.superseded is None]
    more = [replace(one, touches=in_order([*one.touches, *rows])) for one in customers]
    before, after = (known(setting, each) for each in (customers, more))
    for i in range(len(customers)):
        told = [
            {
                name: [(enter, min(leave or NEVER, arrival)) for enter, leave in spent if enter < arrival]
                for name, spent in plain(each, i, setting.journey.names).items()
            }
            for each in (before, after)
        ]
        assert told[0] == told[1]


@settings(max_examples=60)
@given(examples.lives(most=2), st.integers(1, 12).map(lambda days: days * DAY))
def test_labels_of_a_cut_know_nothing_from_then_on(lives: tuple[list[Customer], Setting], ago: int) -> None:
    customers, setting = lives
    cut = START + examples.SPAN * DAY // 2
    stood = [one for customer in customers if (one := as_known(customer, cut)).touches]
    assume(stood)
    (snapshots, whole), (others, then) = (
        labels_of(setting.journey, setting.hidden, each, [cut - ago], cut) for each in (customers, stood)
    )
    names = [[each[i].name for i in one.customer] for each, one in ((customers, snapshots), (stood, others))]
    assert names[0] == names[1]
    assert np.array_equal(whole.times, then.times) and np.array_equal(whole.at_risk, then.at_risk)


# By hand, in days


def of_days(found: Stays, journey: JourneySpec) -> dict[str, list[tuple[float, float | None]]]:
    """The stays of the first customer in days from the start."""
    return {
        name: [((enter - START) / DAY, None if leave is None else (leave - START) / DAY) for enter, leave in spent]
        for name, spent in plain(found, 0, journey.names).items()
    }


def one_stage(enter: object, leave: object) -> JourneySpec:
    return JourneySpec.model_validate({"name": "one", "stages": [{"name": "One", "enter": enter, "leave": leave}]})


@pytest.mark.parametrize(
    ("enter", "leave", "touches", "expected"),
    [
        pytest.param(
            {"event": "buy", "count": 2},
            {"event": "review"},
            [touch(1), touch(2), touch(3, event="review"), touch(4), touch(6)],
            [(2, 3), (6, None)],
            id="counts restart after leaving",
        ),
        pytest.param(
            {"event": "buy"},
            {"event": "review"},
            [touch(1), touch(1, event="review"), touch(3, event="review"), touch(3)],
            [(1, 3)],
            id="of one moment at most one of both happens, and the leave comes first",
        ),
        pytest.param(
            {"event": "buy"},
            {"silent_for": "2d"},
            [touch(1), touch(2, event="visit"), touch(3, event="mail"), touch(7)],
            [(1, 4), (7, 9)],
            id="what is sent breaks no silence",
        ),
        pytest.param(
            {"event": "buy"},
            {"silent_for": "2d"},
            [touch(1), touch(2.5, visible=5)],
            [(1, 3)],
            id="a row that arrives after its own silence changes nothing",
        ),
        pytest.param(
            {"event": "buy"},
            {"silent_for": "2d"},
            [touch(1), touch(2.5, visible=4)],
            [(1, 3), (4, 4.5)],
            id="a late row enters again when it is visible and rewrites no stay",
        ),
        pytest.param(
            {"event": "mail"},
            {"silent_for": "2d"},
            [touch(0, event="visit"), touch(5, event="mail")],
            [(5, 7)],
            id="without a touchpoint of their own silence counts from the entry",
        ),
        pytest.param(
            {"event": "buy"},
            {"event": "review"},
            [touch(1), touch(2, event="review", visible=5), touch(3)],
            [(1, None)],
            id="a leave that is told late, of somebody who has come back since, ends nothing",
        ),
        pytest.param(
            {"event": "buy"},
            {"event": "review"},
            [touch(1, superseded=4), touch(1, visible=4, event="visit")],
            [(1, 4)],
            id="a correction that takes the entry back ends the stay",
        ),
        pytest.param(
            {"event": "buy"},
            {"event": "review"},
            [touch(1, date_only=True), touch(1, event="review", date_only=True), touch(3, date_only=True)],
            [(3, None)],
            id="of dates the same day counts: bought and reviewed on one day",
        ),
        pytest.param(
            {"event": "buy"},
            {"silent_for": "2d"},
            [touch(1, date_only=True), touch(3, date_only=True)],
            [(1, 5)],
            id="a day on which the silence would be over begins a new stay at once",
        ),
    ],
)
def test_stays_by_hand(
    enter: object, leave: object, touches: list[Touch], expected: list[tuple[float, float | None]]
) -> None:
    spec = one_stage(enter, leave)
    found = stays(Journey(spec), to_block([person(*touches)]).touchpoints)
    assert of_days(found, spec) == {"One": expected}


def test_after_means_after_the_first_entry_whether_it_was_left_or_not() -> None:
    spec = JourneySpec.model_validate(
        {
            "name": "after",
            "stages": [
                {"name": "One", "enter": {"event": "buy"}, "leave": {"event": "mail"}},
                {"name": "Two", "enter": {"event": "review", "after": "One"}, "leave": {"event": "visit"}},
            ],
        }
    )
    rows = [touch(0, event="review"), touch(1), touch(2, event="mail"), touch(3, event="review")]
    rows += [touch(4, event="visit"), touch(5, event="review")]
    found = stays(Journey(spec), to_block([person(*rows)]).touchpoints)
    assert of_days(found, spec) == {"One": [(1, 2)], "Two": [(3, 4), (5, None)]}


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"enter": {"silent_for": "9d"}}, "enter: nobody enters a stage by silence; silent_for belongs to leave"),
        (
            {"leave": {"event": "mail", "after": "Two"}},
            "leave: what leaves a stage counts from its own entry on, so it has no after",
        ),
        (
            {"leave": {"all": [{"event": "mail"}, {"any": [{"silent_for": "9d"}]}]}},
            "leave: silent_for stands alone or in any; beside it in all nothing can happen",
        ),
        ({"leave": {"silent_for": "0d"}}, "'0d' is not a duration"),
        ({"leave": {"silent_for": "9d", "event": "mail"}}, "found event and silent_for"),
        ({"leave": {"silent_for": "9d", "count": 2}}, "count belong to a rule with event, not beside silent_for"),
    ],
)
def test_what_cannot_be_meant_is_refused(stage: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Journey({"One": {"enter": {"event": "buy"}, **stage}, "Two": {"event": "review"}})


def test_where_evidence_may_be_hidden_no_stage_can_be_left() -> None:
    stages = [{"name": "One", "enter": {"event": "buy"}, "leave": {"event": "mail"}}]
    with pytest.raises(ValueError, match=r"coverage: One can be left, and where evidence may be hidden nobody knows"):
        a_shop({}, journey={"name": "shop", "stages": stages}, coverage={"One": 0.5})


def test_leave_rules_are_fitted_to_the_data_like_others() -> None:
    stages = [{"name": "One", "enter": {"event": "buy"}, "leave": {"any": [{"event": "mial"}, {"silent_for": "9d"}]}}]
    shop = a_shop({}, journey={"name": "shop", "stages": stages})
    with pytest.raises(ConfigError, match=r"stage 'One', leave: the event 'mial' never occurs. Did you mean 'mail'"):
        observability(shop, {"buy", "mail"}, ())
    seen = observability(a_shop({}, journey="subscription5"), {"trial_started", "subscription_started"}, ())
    assert "nobody leaves Active: none of cancellation, subscription_ended, payment_failed occurs" in " ".join(
        seen.warnings
    )
    assert rule_in_words(shop.journey.stages[0].leave) == "mial; or no touchpoint of their own for 9 days"
    shop = a_shop({}, journey={"name": "shop", "stages": stages}, events={"mial": ["letter", "mail"]})
    assert shop.journey.stages[0].leave.any[0].event == ("letter", "mail")
    assert shop.journey.kept_events == (False, frozenset({"letter", "mail"}))


def test_only_a_stage_that_more_than_silence_leaves_has_a_model_of_leaving() -> None:
    stages = [
        {"name": "One", "enter": {"event": "buy"}, "leave": {"silent_for": "9d"}},
        {"name": "Two", "enter": {"event": "buy"}, "leave": {"any": [{"silent_for": "9d"}, {"event": "mail"}]}},
        {"name": "Three", "enter": {"event": "review"}},
    ]
    journey = Journey(JourneySpec.model_validate({"name": "test", "stages": stages}))
    found = outcomes_of(journey, {"buy", "mail", "review"}, ["mail"])
    assert [(one.name, one.stage) for one in found] == [("kept", None), ("leave_two", "Two")]
    assert found[1].events == {"mail"}


@given(examples.settings_of_journey())
def test_a_journey_without_leave_is_written_and_asked_as_before(setting: Setting) -> None:
    text = setting.journey.model_dump_json()
    assert "leave" not in text and "silent_for" not in text
    definition = a_definition(setting.journey, setting.hidden)
    assert not [name for name in definition.catalogue.names if "leaving" in name]
    assert not [one for one in outcomes_of(definition.journey, examples.EVENTS, ["mail"]) if one.stage is not None]
    found = known(setting, examples.close_histories(3, 20))
    assert not len(found.enter) and not found.leavable.any()
