"""No answer about an instant depends on what could be known only from then on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.oracles import examples
from tests.oracles.blocks import in_order, to_block
from tests.oracles.cases import a_definition, a_journey, answers, labels_of, moment, person, plain, touch
from tests.oracles.examples import DAY, SPAN, START, Setting
from tests.oracles.histories import Customer, as_known

from cvj_ml.features import sight
from cvj_ml.journey import Journey, entry_times, occurrence_times
from cvj_ml.windows import NEVER

EARLY = Setting(a_journey(One={"event": "*"}, Two={"event": "buy", "count": 2}), frozenset())


@st.composite
def with_another_future(draw: st.DrawFn) -> tuple[list[Customer], list[Customer], int]:
    """Customers, the same with anything from an instant on removed, added or changed, and that instant.

    What becomes visible from the instant on may have happened long before it, and may replace what was known.
    """
    customers = draw(examples.customers(most=3))
    as_of = draw(examples.instants())
    changed = []
    for number, one in enumerate(customers):
        past = as_known(one, as_of)
        other = draw(examples.customer("other"))
        delay = draw(st.integers(0, 2)) * DAY
        kept = [
            # A newer version of something known: the old row ends in the future.
            replace(row, superseded=as_of + delay) if row.superseded is None and draw(st.integers(0, 3)) == 0 else row
            for row in past.touches
        ]
        added = [
            replace(
                row, visible=max(row.visible, as_of + delay), superseded=None if row.superseded is None else NEVER - 1
            )
            for row in other.touches
        ]
        learned = [version for version in other.versions if version.known >= as_of]
        if touches := in_order([*kept, *added]):
            changed.append(Customer(f"c{number}", touches, (*past.versions, *learned)))
    return customers, changed, as_of


@settings(max_examples=120)
@given(with_another_future(), examples.settings_of_journey())
@example(([person(touch(1), name="c0")], [person(touch(1, superseded=2), touch(2), name="c0")], moment(2)), EARLY)
@example(([person(touch(1), name="c0")], [person(touch(1), touch(1.5, visible=2), name="c0")], moment(2)), EARLY)
def test_no_stage_day_feature_or_eligibility_knows_the_future(
    histories: tuple[list[Customer], list[Customer], int], setting: Setting
) -> None:
    """Silent errors 4, 9, 21 and 26: another future, the same answers to the bit."""
    customers, changed, as_of = histories
    definition = a_definition(setting.journey, setting.hidden)
    one, other = (answers(definition, each, as_of) for each in (customers, changed))
    assert one.names == other.names
    assert np.array_equal(one.state.stage, other.state.stage)
    assert np.array_equal(one.state.days_in_stage, other.state.days_in_stage, equal_nan=True)
    assert np.array_equal(one.x, other.x, equal_nan=True)


@settings(max_examples=80)
@given(examples.customers(most=3), examples.settings_of_journey(), examples.instants())
def test_the_table_as_it_stood_gives_the_same_answers(customers: list[Customer], setting: Setting, as_of: int) -> None:
    """Silent errors 4 and 21: a backfill of the past equals what the past would have said."""
    stood = [one for customer in customers if (one := as_known(customer, as_of)).touches]
    assume(stood)
    definition = a_definition(setting.journey, setting.hidden)
    later, then = answers(definition, customers, as_of), answers(definition, stood, as_of)
    assert later.names == then.names == [one.name for one in stood]
    assert np.array_equal(later.state.stage, then.state.stage)
    assert np.array_equal(later.x, then.x, equal_nan=True)


@settings(max_examples=80)
@given(examples.customers(most=3), examples.settings_of_journey(), examples.instants())
def test_entries_are_one_array_of_which_each_instant_sees_a_part(
    customers: list[Customer], setting: Setting, instant: int
) -> None:
    """Silent error 4: entries of the history cut at an instant are those of the whole that came before it."""
    customers = [one for one in customers if as_known(one, instant).touches]
    assume(customers)
    whole = entry_times(Journey(setting.journey, setting.hidden), to_block(customers).touchpoints)
    stood = to_block([as_known(one, instant) for one in customers]).touchpoints
    cut = entry_times(Journey(setting.journey, setting.hidden), stood)
    assert np.array_equal(cut, np.where(whole < instant, whole, NEVER))


@settings(max_examples=80)
@given(examples.customers(most=2), examples.settings_of_journey(), st.data())
def test_late_rows_change_later_answers_only(customers: list[Customer], setting: Setting, data: st.DataObject) -> None:
    """Silent error 4: rows that arrive at an instant leave every earlier entry as it was."""
    arrival = START + data.draw(st.integers(1, SPAN)) * DAY
    late = data.draw(examples.customer("late"))
    rows = [replace(one, visible=max(one.visible, arrival)) for one in late.touches if one.superseded is None]
    more = [replace(one, touches=in_order([*one.touches, *rows])) for one in customers]
    before, after = (
        entry_times(Journey(setting.journey, setting.hidden), to_block(each).touchpoints) for each in (customers, more)
    )
    assert np.array_equal(np.minimum(before, arrival), np.minimum(after, arrival))


@settings(max_examples=80)
@given(with_another_future(), examples.settings_of_journey(), st.lists(st.integers(1, 12), min_size=1, max_size=2))
def test_labels_at_a_cut_know_nothing_from_then_on(
    histories: tuple[list[Customer], list[Customer], int], setting: Setting, days_before: list[int]
) -> None:
    """Silent error 3: what became visible after the cut is in no label of it."""
    customers, changed, cut = histories
    instants = sorted({cut - days * DAY for days in days_before})
    found = [labels_of(setting.journey, setting.hidden, each, instants, cut, DAY) for each in (customers, changed)]
    (snapshots, one), (others, other) = found
    assert np.array_equal(snapshots.as_of, others.as_of)
    for name in ("times", "at_risk", "follow_up", "late"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=60)
@given(with_another_future(), examples.settings_of_journey())
def test_evidence_at_a_cut_knows_nothing_from_then_on(
    histories: tuple[list[Customer], list[Customer], int], setting: Setting
) -> None:
    """Silent error 3, for the evidence alone."""
    customers, changed, cut = histories
    found = [
        {
            one.name: times
            for one, times in zip(
                each,
                plain(occurrence_times(Journey(setting.journey, setting.hidden), to_block(each).touchpoints, cut)),
                strict=True,
            )
            if as_known(one, cut).touches
        }
        for each in (customers, changed)
    ]
    assert found[0] == found[1]


@settings(max_examples=60)
@given(with_another_future())
def test_the_vocabulary_of_a_cut_knows_nothing_from_then_on(
    histories: tuple[list[Customer], list[Customer], int],
) -> None:
    """Silent error 3: no name and no count of it comes from what became visible after the cut."""
    customers, changed, cut = histories
    assert sight(to_block(customers), cut) == sight(to_block(changed), cut)
