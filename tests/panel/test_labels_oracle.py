"""Labels, eligibility and hazard rows against the slow oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracles import examples, labels
from tests.oracles.blocks import in_order, to_block, to_customers
from tests.oracles.cases import HORIZONS, a_journey, labels_of, plain, random_customers
from tests.oracles.examples import DAY, HOUR, MINOR_UNITS, START, Setting
from tests.oracles.histories import Customer, Touch

from cvj_ml.panel.labels import RETURN
from cvj_ml.panel.panel import hazard_rows
from cvj_ml.windows import NEVER

delays = st.sampled_from((0, 0, 1, HOUR, 2 * DAY))
moments = st.lists(examples.instants(), min_size=1, max_size=3, unique=True).map(sorted)


def check(
    setting: Setting, customers: list[Customer], instants: list[int], cut: int, arrival_delay: int
) -> tuple[int, int]:
    snapshots, found = labels_of(setting.journey, setting.hidden, customers, instants, cut, arrival_delay)
    asked_about = [(i, at) for i, one in enumerate(customers) for at in instants if labels.is_eligible(one, at)]
    assert list(zip(snapshots.customer.tolist(), snapshots.as_of.tolist(), strict=True)) == asked_about
    expected = [
        labels.outlook(setting.journey, setting.hidden, customers[i], at, MINOR_UNITS, cut, arrival_delay)
        for i, at in asked_about
    ]
    assert plain(found.times) == [one.times for one in expected]
    assert found.at_risk.tolist() == [one.asked for one in expected]
    assert found.follow_up.tolist() == [one.observed for one in expected]
    assert found.late == sum(one.late for one in expected)
    rows = hazard_rows(found, HORIZONS)
    listed = list(
        zip(*(column.tolist() for column in (rows.snapshot, rows.target, rows.interval, rows.converted)), strict=True)
    )
    assert len(set(listed)) == len(listed)
    assert set(listed) == labels.hazard_rows(expected, HORIZONS)
    return found.late, int(rows.converted.sum())


@settings(max_examples=150)
@given(examples.customers(most=3), examples.settings_of_journey(), moments, examples.instants(), delays)
def test_labels_and_hazard_rows_are_those_of_the_oracle(
    customers: list[Customer], setting: Setting, instants: list[int], cut: int, arrival_delay: int
) -> None:
    """Silent errors 1, 2, 3, 5, 6, 9, 13 and 14, on every random history and journey."""
    check(setting, customers, [at for at in instants if at < cut] or [cut - DAY], cut, arrival_delay)


@pytest.mark.parametrize("cut_before_end", [0, 40])
def test_longer_histories_agree_with_the_oracle(cut_before_end: int) -> None:
    block = random_customers(40, 5, with_attributes=False)
    rules = a_journey(
        One={"event": "buy"},
        Two={"event": "buy", "count": 4, "within": "180d"},
        Three={"any": [{"event": "mail", "count": 3, "after": "One"}, {"event": "*", "value_at_least": 500}]},
    )
    # Instants between a purchase and the moment at which it could be known, for late evidence.
    points = block.touchpoints
    gone = np.flatnonzero((points.visible_at > points.occurred_at + DAY) & (points.occurred_at < START - 60 * DAY))
    instants = sorted({int(at) + HOUR for at in points.occurred_at[gone[:12]]})
    cut = START - cut_before_end * DAY
    late, converted = check(Setting(rules, frozenset()), to_customers(block), instants, cut, 2 * DAY)
    assert late > 0
    assert converted > 50


@settings(max_examples=60)
@given(examples.customers(most=2), examples.settings_of_journey(), moments, examples.instants())
def test_nobody_reaches_a_later_stage_before_returning(
    customers: list[Customer], setting: Setting, instants: list[int], cut: int
) -> None:
    """Silent error 14: a stage entered by an outbound touchpoint is a return, too; later stages come no sooner."""
    _, found = labels_of(setting.journey, setting.hidden, customers, instants, cut)
    previous = found.times[:, RETURN]
    assert (previous >= 0).all()
    for target in range(1, found.times.shape[1]):
        asked = found.at_risk[:, target]
        assert (found.times[asked, target] >= previous[asked]).all()
        previous = np.where(asked, found.times[:, target], previous)


@settings(max_examples=60)
@given(examples.customers(most=2), examples.customer("more"), moments, examples.instants())
def test_what_the_business_sends_makes_nobody_return(
    customers: list[Customer], more: Customer, instants: list[int], cut: int
) -> None:
    """Silent error 13: outbound touchpoints that no rule asks for change no label."""
    rules = a_journey(One={"event": "visit"}, Two={"event": ["buy", "review"], "count": 2})
    sent = tuple(replace(one, event="mail", inbound=False) for one in more.touches)
    assume(all(labels.is_eligible(one, instants[0]) for one in customers))
    mailed = [replace(one, touches=in_order((*one.touches, *sent))) for one in customers]
    _, without = labels_of(rules, frozenset(), customers, instants, cut)
    _, with_mail = labels_of(rules, frozenset(), mailed, instants, cut)
    assert np.array_equal(without.times, with_mail.times)
    assert np.array_equal(without.at_risk, with_mail.at_risk)


@settings(max_examples=60)
@given(examples.customers(most=2), examples.settings_of_journey(), moments, examples.instants())
def test_a_row_of_the_far_future_opens_no_horizon(
    customers: list[Customer], setting: Setting, instants: list[int], cut: int
) -> None:
    """Silent error 1: the end of observation is the cut, whatever date stands in a row."""
    far = START + 75 * 365 * DAY
    row = Touch(far, far, None, far // DAY, "buy", "web", 5_000, True, {})
    wrong = [replace(one, touches=(*one.touches, row)) for one in customers]
    snapshots, found = labels_of(setting.journey, setting.hidden, customers, instants, cut)
    _, with_row = labels_of(setting.journey, setting.hidden, wrong, instants, cut)
    assert np.array_equal(found.times, with_row.times)
    assert np.array_equal(with_row.follow_up, cut - snapshots.as_of)


def test_nothing_ahead_of_the_top_stage_but_the_return() -> None:
    rules = a_journey(One={"event": "visit"}, Two={"event": "buy"})
    customers = to_customers(to_block([Customer("c", in_order([_touch(1, "buy"), _touch(3, "visit")]))]))
    _, found = labels_of(rules, frozenset(), customers, [START + 2 * DAY], START + 9 * DAY)
    assert found.at_risk.tolist() == [[True, False, False]]
    assert found.times[0, RETURN] == DAY


def test_what_never_happens_has_no_time() -> None:
    rules = a_journey(One={"event": "visit"}, Two={"event": "buy"})
    _, found = labels_of(rules, frozenset(), [Customer("c", (_touch(1, "visit"),))], [START + 2 * DAY], START + 9 * DAY)
    assert found.times.tolist() == [[NEVER, -DAY, NEVER]]
    assert found.at_risk.tolist() == [[True, False, True]]


def _touch(day: int, event: str) -> Touch:
    at = START + day * DAY
    return Touch(at, at, None, at // DAY, event, None, None, True, {})
