"""Every feature against the slow oracle; the frozen vocabulary."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import cases, examples, features
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import (
    VOCABULARY,
    a_definition,
    a_journey,
    answers,
    moment,
    person,
    random_customers,
    touch,
    under_other_names,
)
from tests.oracles.examples import DAY, EVENTS, MINOR_UNITS, START, Setting
from tests.oracles.histories import Customer, Touch, Version

from cvj_ml.config import JourneySpec, ValueSpec
from cvj_ml.features import Written, learn, sight
from cvj_ml.snapshots import eligible

JOURNEY = a_journey(
    One={"event": ["visit", "review"]},
    Two={"event": "buy", "count": 2},
    Three={"any": [{"event": "*", "value_at_least": 100, "after": "One"}, {"event": "review"}]},
)


def check(customers: list[Customer], setting: Setting, instants: list[int], observed_from: int) -> int:
    vocabulary, zone = VOCABULARY, "America/New_York"
    definition = a_definition(
        setting.journey, setting.hidden, vocabulary=vocabulary, observed_from=observed_from, zone=zone
    )
    block = to_block(customers)
    snapshots = eligible(block.touchpoints, np.array(instants, dtype=np.int64))
    x = definition.features(block, definition.stays(block), snapshots)
    names = [re.sub("__+", "_", name) for name in definition.catalogue.names]
    assert x.dtype == np.float32
    compared = 0
    for row, i, as_of in zip(x, snapshots.customer, snapshots.as_of, strict=True):
        expected = features.features(
            setting.journey,
            setting.hidden,
            customers[i],
            int(as_of),
            events=vocabulary.events,
            channels=vocabulary.channels,
            windows=cases.WINDOWS,
            trend=cases.TREND,
            session_gap=cases.SESSION_GAP,
            minor_units=MINOR_UNITS,
            observed_from=observed_from,
            numbers=vocabulary.numbers,
            categories=vocabulary.categories,
        )
        assert sorted(names) == sorted(expected)
        wanted = np.array([expected[name] for name in names])
        # A spread of nearly equal gaps loses digits; a hundredth of a second is near enough.
        near = np.isclose(row, wanted, rtol=1e-6, atol=1e-7, equal_nan=True)
        wrong = {
            name: (float(got), float(want))
            for name, got, want, ok in zip(names, row, wanted, near, strict=True)
            if not ok
        }
        assert not wrong
        compared += int((~np.isnan(wanted)).sum())
    return compared


@settings(max_examples=120)
@given(
    examples.customers(most=3),
    st.lists(examples.instants(), min_size=1, max_size=2, unique=True).map(sorted),
    st.sampled_from((-1_000, -1_000, 0, 3, 8)),
)
def test_features_are_those_of_the_oracle(customers: list[Customer], instants: list[int], observed_from: int) -> None:
    """Silent errors 8, 13, 21, 25 and 30: every column, on every random history."""
    check(customers, Setting(JOURNEY, frozenset()), instants, START + observed_from * DAY)


@settings(max_examples=60)
@given(examples.customers(most=2), examples.settings_of_journey(), examples.instants())
def test_features_of_any_journey_are_those_of_the_oracle(
    customers: list[Customer], setting: Setting, as_of: int
) -> None:
    """Silent error 26: the columns of the journey follow the observable stages only."""
    check(customers, setting, [as_of], cases.LONG_AGO)


@settings(max_examples=30)
@given(st.integers(0, 2**32), examples.windowed(), st.integers(1, 8))
def test_features_of_close_touchpoints_are_those_of_the_oracle(seed: int, journey: JourneySpec, day: int) -> None:
    """The progress towards rules with windows and distinct values, where windows are full and their edges met."""
    setting = Setting(journey, frozenset())
    check(examples.close_histories(seed, 4), setting, [moment(day), moment(day + 1)], cases.LONG_AGO)


def test_longer_histories_agree_with_the_oracle() -> None:
    block = random_customers(30, 3)
    instants = [START - day * DAY for day in (90, 30, 7, 1, 0)]
    compared = check(to_customers(block), Setting(JOURNEY, frozenset()), instants, START - 40 * DAY)
    assert compared > 5_000


@settings(max_examples=60)
@given(examples.customers(most=2), examples.instants(), st.randoms(use_true_random=False))
def test_the_codes_of_names_do_not_matter(customers: list[Customer], as_of: int, random: st.DataObject) -> None:
    """Silent error 25: no vocabulary code, only content, decides."""

    def shuffled(names: list[str]) -> list[str]:
        random.shuffle(names)
        return names

    definition, found = a_definition(JOURNEY), []
    for spell in (sorted, shuffled):
        block = to_block(customers, spell)
        snapshots = eligible(block.touchpoints, np.array([as_of], dtype=np.int64))
        found.append(definition.features(block, definition.stays(block), snapshots))
    assert np.array_equal(*found, equal_nan=True)


@settings(max_examples=60)
@given(
    examples.customers(most=2),
    examples.settings_of_journey(),
    examples.instants(),
    st.permutations(EVENTS),
    st.randoms(use_true_random=False),
)
def test_names_and_the_order_of_rows_decide_nothing(
    customers: list[Customer], setting: Setting, as_of: int, names: list[str], random: Random
) -> None:
    """Silent errors 66 to 68: what a customer did last, and how far a rule has come, is a matter of time."""
    found = []
    events = tuple(names[EVENTS.index(name)] for name in VOCABULARY.events)
    for (journey, people), known in (
        ((setting.journey, customers), VOCABULARY),
        (under_other_names(setting.journey, customers, names, random), replace(VOCABULARY, events=events)),
    ):
        definition, block = a_definition(journey, setting.hidden, vocabulary=known), to_block(people)
        snapshots = eligible(block.touchpoints, np.array([as_of], dtype=np.int64))
        found.append(definition.features(block, definition.stays(block), snapshots))
    assert np.array_equal(*found, equal_nan=True)


def test_of_several_touchpoints_at_once_none_is_the_last() -> None:
    """Silent error 68: they have a code of their own, since which came last is not known."""
    asked = a_definition(JOURNEY)
    several_events, several_channels = 3, 3
    found = answers(asked, [person(touch(1), touch(2, channel="web"), touch(2, event="visit"))], moment(3))
    assert [found.feature(f"last_event_{nth}") for nth in (1, 2, 3)] == [several_events, several_events, 0]
    assert found.feature("last_channel") == several_channels
    found = answers(asked, [person(touch(1), touch(2, channel="web"), touch(2, channel="web"))], moment(3))
    assert [found.feature(f"last_event_{nth}") for nth in (1, 2, 3)] == [0, 0, 0]
    assert found.feature("last_channel") == 1


def test_a_refund_is_taken_off_whichever_sign_it_is_written_with() -> None:
    """Silent error 141: shops write refunds as positive numbers, too, and what was given back was not spent."""
    refunds = ValueSpec(events=("buy",), refunds=("review",))
    asked = a_definition(JOURNEY.model_copy(update={"value": refunds}))
    signs = [
        answers(asked, [person(touch(1, 500), touch(2, sign * 200, event="review"))], moment(3)) for sign in (1, -1)
    ]
    assert np.array_equal(signs[0].x, signs[1].x, equal_nan=True)
    assert signs[0].feature("value_sum_all") == 300 / MINOR_UNITS
    assert signs[0].feature("value_max_all") == 500 / MINOR_UNITS


def test_progress_counts_what_the_rule_would_count() -> None:
    """Silent error 67: the purchase that entered the stage before is no progress, a review of the same date is."""
    rules = a_journey(One={"event": "buy"}, Two={"event": "*", "count": 2, "after": "One"})
    bought, told = touch(1, date_only=True), touch(1, event="review", date_only=True)

    def missing(journey: JourneySpec, *touches: Touch) -> float:
        found = answers(a_definition(journey), [person(*touches)], moment(5))
        return found.feature(next(name for name in found.columns if name.startswith("remaining") and "Two" in name))

    later = rules.model_copy(update={"same_day": "later"})
    assert [missing(rules, bought), missing(rules, bought, told)] == [2, 1]
    assert [missing(later, bought, told), missing(later, bought, touch(2, date_only=True))] == [2, 1]
    # Known on day 4 only: what happened since then counts, though it was known before.
    assert missing(rules, touch(1, visible=4), touch(2, event="visit")) == 1


@settings(max_examples=40)
@given(examples.customers(most=3), examples.instants())
def test_customers_do_not_touch_each_other(customers: list[Customer], as_of: int) -> None:
    definition = a_definition(JOURNEY)
    together = answers(definition, customers, as_of)
    alone = [answers(definition, [one], as_of) for one in customers]
    assert together.names == [name for one in alone for name in one.names]
    assert np.array_equal(together.x, np.concatenate([one.x for one in alone]), equal_nan=True)


def test_an_event_never_seen_in_training_is_other() -> None:
    """Silent error 30: drift of the vocabulary is no failure."""
    found = answers(
        a_definition(JOURNEY), [person(touch(1, event="hologram", channel="telepathy"), touch(1.5))], moment(2)
    )
    assert found.feature("count_event_other_7d") == 1
    assert found.feature("count_channel_other_7d") == 1
    assert found.feature("count_event_buy_7d") == 1
    assert found.feature("recency_event_other") == 1
    assert found.feature("last_event_2") == 2  # the code behind buy and visit


def test_an_attribute_value_never_seen_in_training_is_other_and_a_missing_one_is_missing() -> None:
    """Silent error 30, for attributes."""
    for plan, code in (("gold", 0.0), ("platinum", 1.0), (None, np.nan)):
        customer = person(touch(1), versions=[Version(moment(1), {"plan": plan})])
        found = answers(a_definition(JOURNEY), [customer], moment(2)).feature("attribute_plan")
        assert np.array_equal(found, code, equal_nan=True)


def test_a_missing_channel_is_no_channel() -> None:
    found = answers(a_definition(JOURNEY), [person(touch(1))], moment(2))
    assert found.feature("count_channel_other_7d") == 0
    assert np.isnan(found.feature("last_channel"))


def test_the_vocabulary_counts_customers_seen_before_the_cut() -> None:
    """Silent error 10: nine purchases of one customer are one; and what comes after the cut names no feature."""
    customers = [
        person(*(touch(1 + k / 10, event="rare", channel="fax") for k in range(9)), touch(9, event="new"), name="a"),
        person(touch(1, event="common", channel="web"), touch(2, event="late", visible=5), name="b"),
        person(touch(1, event="common", channel="web"), touch(2, event="also"), name="c"),
    ]
    found = learn([sight(to_block(customers), moment(5))], 3, 1, 5, 1, Written())
    assert found.events == ("common", "also", "rare")
    assert found.channels == ("web",)


def test_a_name_that_few_customers_have_is_other_unless_the_configuration_holds_it() -> None:
    """Silent error 74: one customer's channel stood in the model, in MLflow and in every copy of it."""
    people = [person(touch(1, event="visit", channel="web"), name=f"c{i:02}") for i in range(19)]
    people.append(person(*(touch(k, event="mine", channel="fax") for k in range(1, 9)), name="z"))
    seen = [sight(to_block(people), moment(20))]
    assert learn(seen, 9, 9, 9, 19, Written()).events == ("visit",)
    assert learn(seen, 9, 9, 9, 20, Written()).events == ()
    exempt = learn(seen, 9, 9, 9, 19, Written(frozenset(["mine", "never seen"]), frozenset(["fax"])))
    assert (exempt.events, exempt.channels) == (("visit", "mine"), ("web", "fax"))
    assert learn(seen, 9, 9, 9, 21, Written(frozenset(["mine"]))).events == (), "fewer customers than that in all"


@pytest.mark.parametrize("cut", [0, 1])
def test_the_vocabulary_of_blocks_is_that_of_the_whole(cut: int) -> None:
    customers = [person(touch(1, event=event), name=f"c{i}") for i, event in enumerate(("a", "b", "b", "c", "c", "c"))]
    whole = learn([sight(to_block(customers), moment(2))], 2, 1, 5, 1, Written())
    parts = [sight(to_block(part), moment(2)) for part in (customers[: 3 + cut], customers[3 + cut :])]
    assert learn(parts, 2, 1, 5, 1, Written()) == whole
    assert whole.events == ("c", "b")
