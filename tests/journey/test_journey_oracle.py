"""Stage entries, the stage at any time and the occurrence of evidence, against the slow oracle."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.oracles import examples, journey
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import a_journey, person, plain, random_customers, touch, under_other_names
from tests.oracles.examples import DAY, EVENTS, HOUR, MINOR_UNITS, START, Setting
from tests.oracles.histories import Customer, Touch

from cvj_ml.config import JourneySpec
from cvj_ml.errors import ConfigError, CvjError
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, entry_times, occurrence_times, reached, stage_at
from cvj_ml.journey.entry_rules import Questions, fire
from cvj_ml.windows import NEVER


def entered(rule: object, *touches: Touch) -> float | None:
    """The day on which the one stage of a journey is entered by one customer, by the package."""
    block = to_block([person(*touches)])
    at = entry_times(Journey(a_journey(One=rule)), block.touchpoints)[0, 0]
    return None if at == NEVER else (int(at) - START) / DAY


@settings(max_examples=150)
@given(examples.customers(), examples.settings_of_journey())
def test_entries_are_those_of_the_oracle(customers: list[Customer], setting: Setting) -> None:
    """Silent errors 4 and 25: every instant is judged by what was visible then, in the order of content."""
    found = entry_times(Journey(setting.journey, setting.hidden), to_block(customers).touchpoints)
    assert plain(found) == [journey.entries(setting.journey, setting.hidden, one, MINOR_UNITS) for one in customers]


@settings(max_examples=60)
@given(st.integers(0, 2**32), examples.windowed())
def test_a_condition_on_close_touchpoints_holds_when_the_oracle_says(seed: int, one: JourneySpec) -> None:
    """Silent errors 4 and 25, where windows are full and their edges met."""
    customers = examples.close_histories(seed, 20)
    found = plain(entry_times(Journey(one), to_block(customers).touchpoints))
    for customer, entries in zip(customers, found, strict=True):
        assert entries == journey.entries(one, (), customer, MINOR_UNITS), customer


@settings(max_examples=200)
@given(st.integers(0, 2**32), examples.following())
def test_what_follows_on_crowded_days_is_that_of_the_oracle(seed: int, one: JourneySpec) -> None:
    """Silent errors 66 to 68: which touchpoints of a day an earlier stage needed, and which it leaves."""
    customers = examples.crowded_days(seed, 12)
    found = plain(entry_times(Journey(one), to_block(customers).touchpoints))
    for customer, entries in zip(customers, found, strict=True):
        assert entries == journey.entries(one, (), customer, MINOR_UNITS), customer


@settings(max_examples=100)
@given(examples.customers(), examples.settings_of_journey(), examples.instants())
def test_evidence_occurs_when_the_oracle_says(customers: list[Customer], setting: Setting, cut: int) -> None:
    """Silent error 3: the evidence, too, is judged by what was visible at the cut."""
    found = occurrence_times(Journey(setting.journey, setting.hidden), to_block(customers).touchpoints, cut)
    assert plain(found) == [
        journey.occurrences(setting.journey, setting.hidden, one, MINOR_UNITS, cut) for one in customers
    ]


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=4, max_size=4), min_size=1, max_size=4),
    st.integers(0, 7),
)
@example([[3, 1, None, 3]], 4)
def test_the_present_stage_and_its_days_are_those_of_the_oracle(entries: list[list[int | None]], day: int) -> None:
    """Silent error 26: days in stage count from the instant at which the running maximum got there."""
    shifted = [[None if at is None else START + at * DAY for at in row] for row in entries]
    array = np.array([[NEVER if at is None else at for at in row] for row in shifted], dtype=np.int64)
    as_of = START + day * DAY
    state = stage_at(array, as_of)
    expected = [journey.stage_at(row, as_of) for row in shifted]
    assert state.stage.tolist() == [stage for stage, _ in expected]
    assert [None if np.isnan(days) else days for days in state.days_in_stage] == [days for _, days in expected]


@given(st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=1, max_size=5))
def test_reached_is_the_first_of_a_stage_and_those_above(times: list[int | None]) -> None:
    array = np.array([[NEVER if at is None else at for at in times]], dtype=np.int64)
    expected = [min([at for at in times[i:] if at is not None], default=None) for i in range(len(times))]
    assert plain(reached(array)) == [expected]


RULES: tuple[dict[str, object], ...] = (
    {
        "One": {"event": "*"},
        "Two": {"event": "buy", "count": 2, "within": "30d"},
        "Three": {"event": "buy", "count": 4},
    },
    {
        "One": {"event": "buy", "value_at_least": 120.5},
        "Two": {"event": "*", "value_at_least": 80, "within": "60d"},
        "Three": {"event": ["visit", "review"], "count": 2, "after": "Two", "within": "90d"},
    },
    {
        "One": {"event": "review", "where": {"rating": {"gte": 4}, "plan": {"ne": "free"}}},
        "Two": {"any": [{"event": "buy", "growth": {"window": "60d", "ratio": 1.5}}, {"event": "visit", "count": 8}]},
        "Three": {"all": [{"event": "visit", "distinct": "rating", "count": 3, "within": "90d"}, {"event": "buy"}]},
    },
    {
        "One": {"event": "visit", "where": {"channel": {"in": ["web", "ads"]}, "value": {"gt": 20}}},
        "Two": {"event": "*", "count": 2, "after": "One"},
        "Three": {"all": [{"event": "buy", "after": "Two"}, {"any": [{"event": "mail"}, {"event": "review"}]}]},
    },
)


def big_block(seed: int) -> Block:
    return random_customers(60, seed)


@pytest.mark.parametrize("rules", RULES)
def test_longer_histories_agree_with_the_oracle(rules: dict[str, object]) -> None:
    """Silent error 4, on histories of up to a few hundred touchpoints."""
    one, block = a_journey(**rules), big_block(seed=11)
    found = entry_times(Journey(one), block.touchpoints)
    assert plain(found) == [journey.entries(one, (), each, MINOR_UNITS) for each in to_customers(block)]
    assert (found != NEVER).any()


@settings(max_examples=60)
@given(examples.customers(most=2), examples.settings_of_journey(), st.randoms(use_true_random=False))
def test_the_codes_of_names_do_not_matter(customers: list[Customer], setting: Setting, random: st.DataObject) -> None:
    """Silent error 25: no vocabulary code, only content, decides."""

    def shuffled(names: list[str]) -> list[str]:
        random.shuffle(names)
        return names

    sorted_codes, other_codes = (to_block(customers, spell).touchpoints for spell in (sorted, shuffled))
    seen = Journey(setting.journey, setting.hidden)
    assert np.array_equal(entry_times(seen, sorted_codes), entry_times(seen, other_codes))


@settings(max_examples=60)
@given(examples.customers(most=3), examples.settings_of_journey())
def test_customers_do_not_touch_each_other(customers: list[Customer], setting: Setting) -> None:
    together = entry_times(Journey(setting.journey, setting.hidden), to_block(customers).touchpoints)
    alone = [entry_times(Journey(setting.journey, setting.hidden), to_block([one]).touchpoints)[0] for one in customers]
    assert np.array_equal(together, np.array(alone))


def test_the_nth_touchpoint_enters() -> None:
    assert entered({"event": "buy", "count": 3}, touch(1), touch(2), touch(2, event="visit"), touch(5)) == 5
    assert entered({"event": "buy", "count": 3}, touch(1), touch(2), touch(2, event="visit")) is None


def test_a_late_row_changes_the_answer_from_then_on_only() -> None:
    """Silent error 4: the third purchase is known on day 9, though it happened on day 4."""
    rows = (touch(1), touch(2), touch(4, visible=9), touch(12))
    assert entered({"event": "buy", "count": 3}, *rows) == 9


def test_a_stage_once_entered_stays_entered() -> None:
    """Silent error 4: on day 2 the sum was 100; a late negative value on day 1 takes nothing back."""
    rule = {"event": "buy", "value_at_least": 100}
    assert entered(rule, touch(1, -5_000, visible=6), touch(2, 10_000)) == 2


def test_a_replaced_touchpoint_counts_in_its_newest_version_only() -> None:
    """Silent error 4: of two versions each counts in its time, never both."""
    rule = {"event": "buy", "count": 2}
    assert entered(rule, touch(1, 5, superseded=3), touch(1, 7, visible=3)) is None
    assert entered(rule, touch(1, 5, superseded=3), touch(1, 7, visible=3), touch(4)) == 4


def test_a_rule_window_is_open_behind_and_closed_at_the_touchpoint() -> None:
    rule = {"event": "buy", "count": 2, "within": "2d"}
    assert entered(rule, touch(1), touch(3)) is None
    assert entered(rule, touch(1 + 1 / DAY), touch(3)) == 3
    assert entered(rule, touch(3), touch(3)) == 3


def test_growth_compares_a_window_with_the_one_before_it() -> None:
    rule = {"event": "buy", "growth": {"window": "2d", "ratio": 2}}
    assert entered(rule, touch(1, 100), touch(3, 200)) == 3  # (1, 3] against (-1, 1]
    assert entered(rule, touch(1 + 1 / DAY, 100), touch(3, 200)) is None  # both in (1, 3]
    assert entered(rule, touch(1, 100), touch(5, 200)) is None  # day 1 left (1, 3] behind
    assert entered(rule, touch(1, 100), touch(3, 199)) is None
    assert entered(rule, touch(3, 200)) is None


def test_growth_by_a_ratio_that_no_float_holds() -> None:
    """110 is 1.1 times 100, though the float 1.1 * 100 is a little more."""
    assert entered({"event": "buy", "growth": {"window": "2d", "ratio": 1.1}}, touch(1, 100), touch(3, 110)) == 3


@pytest.mark.parametrize(
    ("operator", "operand", "value", "passes"),
    [
        ("gte", 0.125, 12, False),  # 0.12 is less than 0.125
        ("gte", 0.125, 13, True),
        ("lt", 0.005, 0, True),
        ("lte", 0.125, 13, False),
        ("gt", 0.125, 12, False),
        ("gt", 0.125, 13, True),
        ("eq", 0.125, 12, False),
        ("ne", 0.125, 12, True),
        ("gte", 19.99, 1_999, True),
        ("eq", 0.07, 7, True),
    ],
)
def test_a_bound_between_two_minor_units_is_not_rounded(
    operator: str, operand: float, value: int, passes: bool
) -> None:
    assert (entered({"event": "buy", "where": {"value": {operator: operand}}}, touch(1, value)) == 1) == passes


def test_a_sum_between_two_minor_units_is_not_rounded() -> None:
    assert entered({"event": "buy", "value_at_least": 0.125}, touch(1, 12)) is None
    assert entered({"event": "buy", "value_at_least": 0.125}, touch(1, 13)) == 1


def test_what_is_missing_passes_no_test() -> None:
    for name, operand in (("plan", "gold"), ("rating", 3), ("channel", "web"), ("value", 3)):
        assert entered({"event": "buy", "where": {name: {"ne": operand}}}, touch(1)) is None


def test_distinct_values_count_once_and_missing_ones_never() -> None:
    rule = {"event": "buy", "distinct": "plan", "count": 2}
    assert entered(rule, touch(1, plan="free"), touch(2, plan="free"), touch(3), touch(4, plan="gold")) == 4
    assert entered(rule, touch(1, plan="free"), touch(2), touch(3)) is None


def test_distinct_values_leave_the_window_when_their_last_touchpoint_does() -> None:
    rule = {"event": "buy", "distinct": "plan", "count": 2, "within": "2d"}
    rows = (touch(1, plan="free"), touch(2, plan="free"))
    assert entered(rule, *rows, touch(3.5, plan="gold")) == 3.5
    assert entered(rule, *rows, touch(4, plan="gold")) is None


def test_distinct_of_the_value_counts_or_is_refused() -> None:
    """A rule that can never fire, and says so nowhere, is a stage that silently stays empty."""
    try:
        at = entered({"event": "buy", "distinct": "value", "count": 2}, touch(1, 100), touch(2, 200))
    except CvjError:
        return
    assert at == 2


def second_stage(rules: JourneySpec, *touches: Touch) -> float | None:
    """The day on which the second stage is entered by one customer, by the package."""
    at = entry_times(Journey(rules), to_block([person(*touches)]).touchpoints)[0, 1]
    return None if at == NEVER else (int(at) - START) / DAY


def test_after_is_later_in_time_whatever_events_are_called() -> None:
    """Silent error 66: of two touchpoints at one instant none is later, though one stands behind the other."""
    for name in ("a", "visit"):
        rules = a_journey(One={"event": "buy"}, Two={"event": "*", "after": "One"})
        assert second_stage(rules, touch(1)) is None
        assert second_stage(rules, touch(1, event=name), touch(1)) is None
        assert second_stage(rules, touch(1, event=name), touch(1), touch(1 + 1 / DAY, event=name)) == 1 + 1 / DAY


@pytest.mark.parametrize("name", ["feedback", "review"])
def test_of_dates_the_same_day_counts_or_only_a_later_one(name: str) -> None:
    """Silent errors 66 and 67: a purchase and a review of one day, with dates only."""
    counts = a_journey(One={"event": "purchase"}, Two={"event": name, "after": "One"})
    later = counts.model_copy(update={"same_day": "later"})
    bought, told = touch(1, event="purchase", date_only=True), touch(1, event=name, date_only=True)
    assert second_stage(counts, bought, told) == 1
    assert second_stage(later, bought, told) is None
    assert second_stage(later, bought, told, touch(2, event=name, date_only=True)) == 2
    assert second_stage(counts, bought, touch(0, event=name, date_only=True)) is None
    # One of the two has no hours: days are compared.
    assert second_stage(counts, touch(1.9, event="purchase"), told) == 1.9
    assert second_stage(counts, bought, touch(1.1, event=name)) == 1.1
    assert second_stage(later, touch(1.1, event="purchase"), told) is None
    assert second_stage(later, bought, touch(1.1, event=name)) is None
    # Both have: instants are.
    assert second_stage(counts, touch(1.9, event="purchase"), touch(1.1, event=name)) is None


def test_what_the_earlier_stage_needed_never_counts_for_the_later_one() -> None:
    """Silent error 67: the same purchase is not its own successor, nor are two of them three."""
    rules = a_journey(One={"event": "buy"}, Two={"event": "buy", "after": "One"})
    rows = [touch(1, date_only=True), touch(1, date_only=True), touch(1, date_only=True)]
    assert second_stage(rules, *rows[:1]) is None
    assert second_stage(rules, *rows[:2]) == 1
    twice = a_journey(One={"event": "buy", "count": 2}, Two={"event": "buy", "after": "One"})
    assert second_stage(twice, *rows[:2]) is None
    assert second_stage(twice, *rows) == 1
    chain = a_journey(Top={"event": "buy"}, Two={"event": "buy", "after": "One"}, One={"event": "buy", "after": "Top"})
    assert second_stage(chain, *rows[:2]) is None
    assert second_stage(chain, *rows) == 1


def test_the_earlier_stage_leaves_what_the_later_one_could_use() -> None:
    """Silent error 67: an order or a call enters the first stage, only an order the second; both on one day."""
    for order, call in (("a", "b"), ("b", "a")):
        rules = a_journey(One={"event": [order, call]}, Two={"event": order, "after": "One"})
        assert second_stage(rules, touch(1, event=order, date_only=True), touch(1, event=call, date_only=True)) == 1
    dear = {"event": "buy", "value_at_least": 50, "after": "One"}
    rules = a_journey(One={"event": "buy"}, Two=dear)
    assert second_stage(rules, touch(1, 1_000, date_only=True), touch(1, 5_000, date_only=True)) == 1
    assert second_stage(rules, touch(1, 2_000, date_only=True), touch(1, 3_000, date_only=True)) is None


def test_all_of_one_instant_count_together() -> None:
    """Silent error 68: whether a sum was ever reached does not depend on which of two rows stands first."""
    for refund in ("a_refund", "z_refund"):
        rule = {"event": ["buy", refund], "value_at_least": 100}
        assert entered(rule, touch(1, 10_000), touch(1, -5_000, event=refund)) is None
        assert entered(rule, touch(1, 10_000), touch(1.1, -5_000, event=refund)) == 1
        assert entered(rule, touch(1, 10_000), touch(1, -5_000, event=refund, visible=3)) == 1


def test_a_window_of_days_counts_days_where_there_are_only_dates() -> None:
    """Silent error 69: days of 23 and of 25 hours are days."""
    rule = {"event": "buy", "count": 2, "within": "2d"}
    for hours in (23, 24, 25):
        dates = [replace(touch(0, date_only=True), occurred=START + n * hours * HOUR, day=START // DAY + n)
                 for n in range(3)]  # fmt: skip
        rows = [replace(one, visible=one.occurred) for one in dates]
        assert entered(rule, rows[0], rows[1]) == hours / 24
        assert entered(rule, rows[0], rows[2]) is None
        grows = {"event": "buy", "growth": {"window": "1d", "ratio": 1}}
        priced = [replace(one, value=100) for one in rows]
        assert entered(grows, priced[0], priced[1]) == hours / 24
        assert entered(grows, priced[0], priced[2]) is None


@settings(max_examples=100)
@given(examples.customers(most=2), examples.settings_of_journey(), st.permutations(EVENTS), st.randoms())
def test_names_and_the_order_of_rows_decide_nothing(
    customers: list[Customer], setting: Setting, names: list[str], random: Random
) -> None:
    """Silent errors 66 to 68: events under other names, in journey and log, and equal instants in any order."""
    other, shuffled = under_other_names(setting.journey, customers, names, random)
    before = entry_times(Journey(setting.journey, setting.hidden), to_block(customers).touchpoints)
    after = entry_times(Journey(other, setting.hidden), to_block(shuffled).touchpoints)
    assert np.array_equal(before, after)


def test_after_waits_for_the_rule_of_the_stage_itself_not_for_a_higher_one() -> None:
    rules = a_journey(
        One={"event": "visit"}, Two={"event": "buy", "after": "One"}, Three={"event": "review"}, Four={"event": "mail"}
    )
    one = person(touch(1, event="review"), touch(2), touch(3, event="visit"), touch(4))
    found = entry_times(Journey(rules), to_block([one]).touchpoints)
    assert plain(found) == [[START + 3 * DAY, START + 4 * DAY, START + DAY, None]]


def test_only_stages_that_others_follow_are_looked_at_where_only_they_are_asked_for() -> None:
    rules = a_journey(One={"event": "visit"}, Two={"event": "buy", "after": "One"}, Three={"event": "review"})
    points = to_block([person(touch(1, event="visit"), touch(2))]).touchpoints
    asked = Questions(np.array([0]), np.array([2]), np.array([START + 9 * DAY]))
    assert fire(Journey(rules), points, asked).fired.keys() == {"One", "Two", "Three"}
    (only,) = fire(Journey(rules), points, asked, followed_only=True).fired.items()
    assert only[0] == "One" and only[1].row.tolist() == [0]


def test_a_hidden_stage_is_never_entered() -> None:
    rules = a_journey(One={"event": "*"}, Two={"event": "buy"})
    points = to_block([person(touch(1))]).touchpoints
    assert plain(entry_times(Journey(rules, frozenset({"Two"})), points)) == [[START + DAY, None]]


def test_a_touchpoint_that_moves_to_another_customer_leaves_this_ones_history() -> None:
    """What is live from day 3 on fires the rule: a negative value left by a newer version of another customer."""
    rule = {"event": "buy", "value_at_least": 100}
    assert entered(rule, touch(1, 10_000, visible=2), touch(1, -5_000, superseded=3)) == 3


def test_a_block_without_touchpoints_has_no_entries() -> None:
    points = to_block([person()]).touchpoints
    rules = a_journey(One={"event": "*"})
    assert plain(occurrence_times(Journey(rules), points, START)) == [[None]]
    assert plain(entry_times(Journey(rules), points)) == [[None]]


@pytest.mark.parametrize(("name", "operator", "operand"), [("plan", "gt", 3), ("rating", "eq", "many")])
def test_a_test_that_does_not_fit_its_column_is_refused(name: str, operator: str, operand: object) -> None:
    with pytest.raises(ConfigError, match=f"where {name}"):
        entered({"event": "buy", "where": {name: {operator: operand}}}, touch(1, plan="free", rating=3))


ORDER = ("gt", "gte", "lt", "lte")
OPERANDS: dict[str, tuple[object, ...]] = {
    "plan": ("gold",),
    "channel": ("web",),
    "rating": (3, 2.5),
    "value": (50, 0.05, 0),
}


@pytest.mark.parametrize(
    ("column", "operator"),
    [(column, operator) for column in OPERANDS for operator in ("eq", "ne", "in")]
    + [(column, operator) for column in ("rating", "value") for operator in ORDER],
)
def test_every_operator_on_every_kind_of_column(column: str, operator: str) -> None:
    """Which of many touchpoints pass: each is asked about alone, as a customer of its own."""
    rows = [one for each in to_customers(big_block(seed=4)) for one in each.touches][:200]
    edges = [touch(1, value, plan="gold", rating=rating) for value in (0, 5, 4, 6, 5_000, -5) for rating in (3, 2.5, 2)]
    alone = [Customer(f"c{i}", (replace(one, superseded=None),)) for i, one in enumerate([*rows, *edges])]
    operands = OPERANDS[column]
    for operand in [list(operands)] if operator == "in" else operands:
        one = a_journey(One={"event": "*", "where": {column: {operator: operand}}})
        found = plain(entry_times(Journey(one), to_block(alone).touchpoints))
        assert found == [journey.entries(one, (), each, MINOR_UNITS) for each in alone]
        assert 0 < sum(at != [None] for at in found) < len(found)
