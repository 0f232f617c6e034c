"""Rules that ask for attributes: as known at each moment, in any combination, and nothing else changes for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from tests.oracles import examples, journey
from tests.oracles.blocks import to_block
from tests.oracles.cases import a_journey, moment, person, plain, touch
from tests.oracles.examples import DAY, MINOR_UNITS, START
from tests.oracles.histories import Customer, Version, as_known

from cvj_ml.config import Config, JourneySpec
from cvj_ml.errors import ConfigError
from cvj_ml.histories import ALWAYS
from cvj_ml.journey import Journey, entry_times, evidence, followed, occurrence_times, progress
from cvj_ml.journey.words import rule_in_words
from cvj_ml.windows import NEVER


def version(day: float, plan: str | None = None, rating: float | None = None) -> Version:
    return Version(moment(day), {"plan": plan, "rating": rating})


def entered(rules: dict[str, object], who: Customer, same_day: str = "counts") -> list[float | None]:
    """The days on which the stages are entered, by the package."""
    spec = a_journey(**rules).model_copy(update={"same_day": same_day})
    (times,) = entry_times(Journey(spec), evidence(Journey(spec), to_block([who])))
    return [None if at == NEVER else (int(at) - START) / DAY for at in times]


@pytest.mark.slow
@settings(max_examples=400)
@given(examples.customers(), examples.by_attributes())
def test_entries_are_those_of_the_oracle(customers: list[Customer], one: JourneySpec) -> None:
    """The first instant at which the rule was true, asked anew with what was known at every instant."""
    customers, known = [examples.with_hours(who) for who in customers], Journey(one)
    found = plain(entry_times(known, evidence(known, to_block(customers))))
    for who, entries in zip(customers, found, strict=True):
        assert entries == journey.entries(one, (), who, MINOR_UNITS), who


@settings(max_examples=100)
@given(examples.customers(), examples.by_attributes(), examples.instants())
def test_static_attributes_hold_from_the_start(customers: list[Customer], one: JourneySpec, cut: int) -> None:
    always = [
        replace(who, versions=tuple(Version(ALWAYS, one.values) for one in who.versions[:1]))
        for who in map(examples.with_hours, customers)
    ]
    known = Journey(one)
    rows = evidence(known, to_block(always))
    assert plain(entry_times(known, rows)) == [journey.entries(one, (), who, MINOR_UNITS) for who in always]
    expected = [journey.occurrences(one, (), who, MINOR_UNITS, cut) for who in always]
    assert plain(occurrence_times(known, rows, cut)) == expected


@settings(max_examples=100)
@given(examples.customers(), examples.by_attributes(), examples.instants())
def test_what_was_known_earlier_is_answered_alike(customers: list[Customer], one: JourneySpec, as_of: int) -> None:
    """Silent error 4: entries before an instant are those of the table as it stood then."""
    known = Journey(one)
    whole = entry_times(known, evidence(known, to_block(customers)))
    then = entry_times(known, evidence(known, to_block([as_known(who, as_of) for who in customers])))
    np.testing.assert_array_equal(np.where(whole < as_of, whole, NEVER), np.where(then < as_of, then, NEVER))
    assert not ((then >= as_of) & (then < NEVER)).any()


PRO = {"attribute": {"plan": "pro"}}


def test_a_change_of_an_attribute_enters_without_a_touchpoint() -> None:
    who = person(touch(1), versions=[version(0, "free"), version(5, "pro"), version(7, "free")])
    assert entered({"Pro": PRO}, who) == [5]


@pytest.mark.parametrize(
    ("rule", "day"),
    [
        ({"all": [{"event": "buy"}, PRO]}, 9),  # not pro when they bought, nor until the 9th
        ({"all": [{"event": "visit"}, PRO]}, 3),
        ({"any": [{"event": "buy"}, PRO]}, 2),
        ({"all": [PRO, {"attribute": {"rating": {"gte": 4}}}]}, 9),
        ({"all": [{"any": [PRO, {"event": "buy"}]}, {"attribute": {"rating": {"gte": 4}}}]}, 6),
        ({"all": [{"event": "buy"}, {"all": [PRO, {"event": "visit"}]}]}, 9),
        ({"attribute": {"plan": {"in": ["pro", "team"]}, "rating": {"lt": 3}}}, 2),
    ],
)
def test_an_attribute_is_asked_as_it_was_known_at_the_moment(rule: dict[str, object], day: int) -> None:
    who = person(
        touch(3, event="visit"),
        touch(5, event="buy"),
        versions=[version(2, "pro", 1), version(4, "free", 1), version(6, "free", 5), version(9, "pro", 5)],
    )
    assert entered({"One": rule}, who) == [day]


def test_after_a_stage_an_attribute_may_have_held_already() -> None:
    who = person(touch(3), touch(8, event="visit"), versions=[version(1, "pro")])
    assert entered({"Buyer": {"event": "buy"}, "Pro": PRO | {"after": "Buyer"}}, who) == [3, 3]
    assert entered({"Pro": PRO, "Next": {"event": "visit", "after": "Pro"}}, who) == [1, 8]


@pytest.mark.parametrize(("same_day", "day"), [("counts", 5), ("later", 6)])
def test_a_date_after_a_change_of_that_day(same_day: str, day: int) -> None:
    """Of a date nobody knows whether it came after the change; `same_day` says what that means."""
    who = person(touch(5, date_only=True), touch(6, date_only=True), versions=[version(5.4, "pro")])
    found = entered({"Pro": PRO, "Buyer": {"event": "buy", "after": "Pro"}}, who, same_day)
    assert found[0] == pytest.approx(5.4)
    assert found[1] is not None
    assert found[1] == pytest.approx(max(day, 5.4) if same_day == "counts" else day)


def test_a_late_row_is_judged_by_the_attributes_of_its_own_time() -> None:
    who = person(touch(3, visible=10), versions=[version(2, "pro"), version(5, "free")])
    assert entered({"One": {"all": [{"event": "buy"}, PRO]}}, who) == [10]


def test_progress_is_whether_it_holds_now() -> None:
    known = Journey({"One": {"all": [{"event": "buy", "count": 2}, PRO]}, "Two": PRO | {"after": "One"}})
    who = person(touch(3), touch(4), versions=[version(2, "pro"), version(5, "free")])
    rows = evidence(known, to_block([who]))
    as_of = np.array([moment(one) for one in (3.5, 4.5, 6)])
    customer = np.zeros(3, dtype=np.int64)
    before = followed(known, rows, customer, as_of)
    assert progress(known, 0, rows, customer, as_of, before).fulfilled.tolist() == [0.5, 1.0, 0.0]
    assert progress(known, 1, rows, customer, as_of, before).fulfilled.tolist() == [0.0, 1.0, 0.0]


def test_journeys_without_attributes_see_the_touchpoints_themselves() -> None:
    block = to_block([person(touch(1), versions=[version(1, "pro")])])
    assert evidence(Journey({"One": {"event": "buy"}}), block) is block.touchpoints


def test_what_attributes_are_asked_for_in_words_and_faults() -> None:
    rule = a_journey(One={"all": [{"event": "buy"}, {"attribute": {"plan": "pro"}}]}).stages[0].enter
    assert rule_in_words(rule) == "buy; and plan = pro"
    with pytest.raises(ConfigError, match="exactly one of event, attribute, silent_for, any, all"):
        Journey({"One": {"event": "buy", "attribute": {"plan": "pro"}}})
    with pytest.raises(ConfigError, match="count belong to a rule with event, not beside attribute"):
        Journey({"One": {"attribute": {"plan": "pro"}, "count": 2}})
    settings = {"name": "a", "time_zone": "UTC", "history_from": "2024-01-01", "sources": {"log": {"path": "log.csv"}}}
    with pytest.raises(ValueError, match=r"journey: One, enter: there is no attribute 'plann'"):
        Config.model_validate(settings | {"journey": a_journey(One={"attribute": {"plann": "pro"}})})
    held = {"path": "plans.csv", "columns": {"plan": "plan"}, "static": True}
    with pytest.raises(ValueError, match="coverage: One asks for attributes, which are features and cannot be hidden"):
        Config.model_validate(settings | {"journey": a_journey(One=PRO), "attributes": held, "coverage": {"One": 0.5}})
