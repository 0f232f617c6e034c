"""Thinning: whose evidence of a stage is hidden, and what is left to see of a customer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import a_journey, person, touch

from cvj_ml.journey import Journey, coverage_of, draw_hidden, entry_times, hide, stays_when_hidden
from cvj_ml.windows import NEVER

JOURNEY = a_journey(
    Seen={"event": "*"},
    Convert={"event": "buy"},
    Ascend={"event": "buy", "count": 3},
    Advocate={"any": [{"event": "review", "where": {"rating": {"gte": 4}}}, {"event": "praise"}], "after": "Convert"},
)
SEEN, CONVERT, ASCEND, ADVOCATE = range(4)

EVENTS = ("buy", "review", "praise", "visit")
HISTORIES = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(EVENTS), st.sampled_from([1.0, 5.0])), min_size=1, max_size=10
)


def left(touches, *stages: int) -> tuple[list[tuple[str, float | None]], list[int]]:
    """What is left of one customer when stages are hidden, and the stages entered on it."""
    block = to_block([person(*touches)])
    entries = entry_times(Journey(JOURNEY), block.touchpoints)
    hidden = np.isin(np.arange(4), stages)[None, :]
    points = hide(Journey(JOURNEY), block.touchpoints, hidden, entries)
    seen = stays_when_hidden(Journey(JOURNEY), points, hidden)
    (customer,) = to_customers(type(block)(block.customers, points))
    rows = [(one.event, one.properties["rating"]) for one in customer.touches]
    return rows, np.flatnonzero(seen.first[0] < NEVER).tolist()


def test_the_evidence_of_a_hidden_stage_goes_and_other_touchpoints_stay() -> None:
    touches = [
        touch(1, event="visit"),
        touch(2),
        touch(3, event="review", rating=5.0),
        touch(4, event="review", rating=1.0),
        touch(5, event="praise"),
    ]
    rows, entered = left(touches, ADVOCATE)
    assert [event for event, _ in rows] == ["visit", "buy", "review"]
    assert rows[-1][1] == 1.0, "a bad review is no evidence of Advocate"
    assert entered == [SEEN, CONVERT]
    assert left(touches)[1] == [SEEN, CONVERT, ADVOCATE]


def test_what_a_visible_stage_needs_stays() -> None:
    """The first purchase enters Convert; those after it are evidence of Ascend alone."""
    rows, entered = left([touch(1), touch(2), touch(3), touch(4)], ASCEND)
    assert len(rows) == 1
    assert entered == [SEEN, CONVERT]


def test_with_both_stages_hidden_nothing_of_either_is_left() -> None:
    rows, entered = left([touch(1, event="visit"), touch(2), touch(3), touch(4)], CONVERT, ASCEND)
    assert [event for event, _ in rows] == ["visit"]
    assert entered == [SEEN]


def test_what_follows_a_hidden_stage_is_not_entered_either() -> None:
    """Rules run on what is left: Advocate comes after Convert, whose evidence nobody saw."""
    rows, entered = left([touch(1), touch(2, event="praise")], CONVERT)
    assert [event for event, _ in rows] == ["praise"]
    assert entered == [SEEN]


def test_a_hidden_stage_is_not_entered_whatever_still_matches_its_rule() -> None:
    journey = a_journey(Convert={"event": "buy"}, Fan={"event": "buy"})
    block = to_block([person(touch(1), touch(2))])
    entries = entry_times(Journey(journey), block.touchpoints)
    hidden = np.array([[False, True]])
    points = hide(Journey(journey), block.touchpoints, hidden, entries)
    assert len(points) == 1, "Convert needs the first purchase"
    seen = stays_when_hidden(Journey(journey), points, hidden)
    assert (seen.first < NEVER).tolist() == [[True, False]]


def test_a_customer_may_be_left_without_any_touchpoint() -> None:
    journey = a_journey(Convert={"event": "buy"})
    block = to_block([person(touch(1), name="a"), person(touch(1, event="visit"), name="b")])
    entries = entry_times(Journey(journey), block.touchpoints)
    hidden = np.array([[True], [True]])
    points = hide(Journey(journey), block.touchpoints, hidden, entries)
    assert points.offsets.tolist() == [0, 0, 1]
    assert (stays_when_hidden(Journey(journey), points, hidden).first == NEVER).all()


@given(HISTORIES, st.sets(st.sampled_from([CONVERT, ASCEND, ADVOCATE])))
def test_hiding_only_takes_away(history, stages) -> None:
    """Stages that are not hidden, nor come after a hidden one, stay entered; hidden ones never are."""
    touches = [touch(day, event=event, rating=rating) for day, event, rating in history]
    whole, before = left(touches)
    rows, after = left(touches, *stages)
    assert all(rows.count(row) <= whole.count(row) for row in rows)
    assert set(after) <= set(before) - stages
    stays = {CONVERT, ASCEND} - stages
    assert set(before) & stays <= set(after)
    if ADVOCATE not in stages and CONVERT not in stages:
        assert (ADVOCATE in after) == (ADVOCATE in before)
    if not stages:
        assert rows == whole


def test_a_draw_is_of_the_customer_and_the_stage_alone() -> None:
    coverage = coverage_of(JOURNEY.names, {"Ascend": 0.7, "Advocate": 0.5})
    assert coverage.tolist() == [1.0, 1.0, 0.7, 0.5]
    names = [f"c{i}" for i in range(4000)]
    hidden = draw_hidden(names, Journey(JOURNEY), coverage, seed=1)
    assert not hidden[:, :ASCEND].any(), "what is always seen is never hidden"
    some = [17, 3, 2999]
    assert (draw_hidden([names[i] for i in some], Journey(JOURNEY), coverage, seed=1) == hidden[some]).all()
    only = draw_hidden(names, Journey(JOURNEY), coverage_of(JOURNEY.names, {"Advocate": 0.5}), seed=1)
    assert (only[:, ADVOCATE] == hidden[:, ADVOCATE]).all()
    assert (draw_hidden(names, Journey(JOURNEY), coverage, seed=2) != hidden).any()
    assert hidden.mean(axis=0)[ASCEND:] == pytest.approx([0.3, 0.5], abs=0.03)
    assert np.corrcoef(hidden[:, ASCEND], hidden[:, ADVOCATE])[0, 1] == pytest.approx(0, abs=0.05)


def test_less_coverage_hides_more_of_the_same() -> None:
    names = [f"c{i}" for i in range(500)]
    some, more = (
        draw_hidden(names, Journey(JOURNEY), coverage_of(JOURNEY.names, {"Ascend": c}), 1) for c in (0.8, 0.4)
    )
    assert (more >= some).all() and more.sum() > some.sum()
