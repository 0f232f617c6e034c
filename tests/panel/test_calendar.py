"""The known calendar: each interval is told of itself, by what was known when it was asked about."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.config import DAY, PUBLIC_HOLIDAY, CalendarSpec
from cvj_ml.config.calendar_spec import PeriodSpec
from cvj_ml.features import Vocabulary, compile_catalogue
from cvj_ml.panel.calendar import (
    ALWAYS_KNOWN,
    FAR,
    Calendar,
    Groups,
    Period,
    changed_periods,
    groups_of,
    interval_inputs,
    known_calendar,
    merged,
)
from cvj_ml.windows import midnight, parse_as_of

LONDON = ZoneInfo("Europe/London")
HOUR = DAY // 24


def asked_at(*instants: int, audiences: tuple[tuple[str, str], ...] = (), belongs: Any = None) -> Groups:
    """Snapshots of these instants, a group each."""
    members = np.zeros((len(instants), len(audiences)), dtype=np.bool_) if belongs is None else np.array(belongs)
    return Groups(np.arange(len(instants)), np.array(instants, dtype=np.int64), members, audiences)


def told(calendar: Calendar, groups: Groups, *days: int) -> tuple[Any, Any]:
    """The shares, and the days to the next period that the nearness stands for: (groups, intervals) each."""
    found = interval_inputs(calendar, calendar.kinds, groups, [0, *(day * DAY for day in days)])
    return found[:, :, 0], np.expm1((1 - found[:, :, 1]) * np.log1p(FAR))


def test_each_interval_has_its_own_share_and_its_own_days_to_the_next() -> None:
    """Silent error 36, by hand: a sale on the days 10 to 13 of horizons of 7, 14 and 30 days, not its share of 30."""
    sale = Calendar((Period("sale", 10 * DAY, 14 * DAY, -1),))
    shares, next_one = told(sale, asked_at(0), 7, 14, 30)
    assert shares.tolist() == [[0.0, 4 / 7, 0.0]]
    assert np.allclose(next_one, [[10.0, 3.0, FAR]])
    shares, next_one = told(sale, asked_at(11 * DAY), 7, 14, 30)
    assert shares.tolist() == [[3 / 7, 0.0, 0.0]]
    assert np.allclose(next_one, [[0.0, FAR, FAR]])


def test_overlapping_periods_of_a_kind_count_once() -> None:
    twice = Calendar((Period("sale", 0, 4 * DAY, -1), Period("sale", 2 * DAY, 5 * DAY, -1)))
    assert told(twice, asked_at(0), 10)[0].tolist() == [[0.5]]


@given(st.integers(-20, 20), st.integers(1, 10), st.integers(-40, 40), st.integers(-40, 40))
def test_what_was_not_known_yet_changes_nothing(start: int, days: int, known: int, asked: int) -> None:
    """Silent error 36: a period counts for whoever asks after it became known, and for nobody before, nor at it."""
    unknown = Calendar((Period("sale", 60 * DAY, 61 * DAY, ALWAYS_KNOWN),))
    more = Calendar((*unknown.periods, Period("sale", start * DAY, (start + days) * DAY, known * DAY)))
    groups = asked_at(asked * DAY)
    same = [np.array_equal(a, b) for a, b in zip(told(unknown, groups, 30), told(more, groups, 30), strict=True)]
    if known >= asked:
        assert all(same)
    elif start - asked >= 0 and start + days - asked <= 30:
        assert not any(same)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), min_size=1, max_size=6),
    st.integers(-100, 300),
    st.lists(st.integers(1, 90), min_size=1, max_size=4, unique=True).map(sorted),
)
def test_shares_are_those_of_counted_hours(spans: list[tuple[int, int]], asked: int, ends: list[int]) -> None:
    """Against a slow count: which hours of the interval lie in any period."""
    calendar = Calendar(tuple(Period("sale", a * HOUR, (a + n) * HOUR, ALWAYS_KNOWN) for a, n in spans))
    inside = {hour for a, n in spans for hour in range(a, a + n)}
    shares, next_one = told(calendar, asked_at(asked * HOUR), *ends)
    for m, (low, high) in enumerate(zip([0, *ends], ends, strict=False)):
        hours = range(asked + 24 * low, asked + 24 * high)
        assert np.isclose(shares[0, m], sum(hour in inside for hour in hours) / len(hours))
        ahead = [max(a - hours[0], 0) / 24 for a, _ in merged((a, a + n) for a, n in spans if a + n > hours[0])]
        assert np.isclose(next_one[0, m], min([*ahead, FAR]))


def test_days_are_local_and_as_long_as_they_are() -> None:
    """A Sunday of 23 hours is a whole day; a period is known when the day on which it became known is over."""
    spec = CalendarSpec.model_validate(
        {"periods": [{"kind": "sale", "start": "2024-03-31", "end": "2024-03-31", "known_at": "2024-03-01"}]}
    )
    cut = midnight(date(2024, 6, 1), LONDON)
    calendar = known_calendar(spec, 0, cut, LONDON)
    (one,) = calendar.periods
    assert one.end - one.start == 23 * HOUR
    morning_after = midnight(date(2024, 3, 2), LONDON)
    shares, _ = told(calendar, asked_at(morning_after, morning_after - 1), 90)
    assert shares[0, 0] > 0 == shares[1, 0]


def test_a_calendar_of_a_cut_holds_nothing_that_became_known_later() -> None:
    days = [date(2024, 1, 1) + timedelta(days=30 * k) for k in range(6)]
    listed = [{"kind": "sale", "start": "2025-01-01", "end": "2025-01-05", "known_at": str(day)} for day in days]
    spec = CalendarSpec.model_validate({"periods": listed})
    for k, day in enumerate(days):
        cut = midnight(day, LONDON)
        assert len(known_calendar(spec, 0, cut, LONDON).periods) == k
        assert len(known_calendar(spec, 0, cut + DAY, LONDON).periods) == k + 1


def test_public_holidays_are_one_kind_and_what_was_proclaimed_once_is_left_out() -> None:
    """The wedding of 29 April 2011 is not known in 2010; as a period with known_at it can be named."""
    pytest.importorskip("holidays")
    wedding = {"kind": PUBLIC_HOLIDAY, "start": "2011-04-29", "end": "2011-04-29", "known_at": "2010-11-23"}
    spec = CalendarSpec.model_validate({"holidays": {"country": "GB", "subdivision": "ENG"}})
    first, cut = midnight(date(2010, 6, 1), LONDON), midnight(date(2011, 1, 1), LONDON)
    calendar = known_calendar(spec, first, cut, LONDON)
    assert calendar.kinds == (PUBLIC_HOLIDAY,)
    starts = {one.start for one in calendar.periods}
    assert midnight(date(2010, 12, 25), LONDON) in starts
    assert midnight(date(2011, 4, 22), LONDON) in starts
    assert midnight(date(2011, 4, 29), LONDON) not in starts
    assert {one.known_at for one in calendar.periods} == {ALWAYS_KNOWN}
    with_it = known_calendar(spec.model_validate({**spec.model_dump(), "periods": [wedding]}), first, cut, LONDON)
    assert midnight(date(2011, 4, 29), LONDON) in {one.start for one in with_it.periods}


def test_a_period_concerns_its_audience_as_it_was_known_then() -> None:
    vocabulary = Vocabulary(("buy",), ("web",), ("age",), {"plan": ("basic", "gold")})
    catalogue = compile_catalogue(vocabulary, ["One"], (7 * DAY,), None, HOUR, 2)
    calendar = Calendar(
        (
            Period("birthday", 0, DAY, ALWAYS_KNOWN, ("age", "40")),
            Period("sale", 0, DAY, ALWAYS_KNOWN, ("plan", "gold")),
        )
    )
    x = np.full((4, len(catalogue.features)), np.nan, dtype=np.float32)
    x[:, catalogue.names.index("attribute_plan")] = [0, 1, 2, np.nan]
    x[:, catalogue.names.index("attribute_age")] = [40, 39, 40, np.nan]
    groups = groups_of(calendar, catalogue, x, np.zeros(4, dtype=np.int64))
    found = interval_inputs(calendar, calendar.kinds, groups, [0, DAY])[groups.of, 0]
    assert found[:, [0, 2]].tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]
    # What is true or false is stored as a number.
    x[:, catalogue.names.index("attribute_age")] = [1, 0, 1, np.nan]
    for value, expected in (("True", [1, 0, 1, 0]), ("False", [0, 1, 0, 0])):
        of_truth = Calendar((replace(calendar.periods[0], audience=("age", value)),))
        groups = groups_of(of_truth, catalogue, x, np.zeros(4, dtype=np.int64))
        assert interval_inputs(of_truth, of_truth.kinds, groups, [0, DAY])[groups.of, 0, 0].tolist() == expected
    # A value that nobody has, and an attribute that the model does not have, concern nobody.
    other = Calendar(tuple(replace(calendar.periods[0], audience=one) for one in [("plan", "x"), ("none", "1")]))
    groups = groups_of(other, catalogue, x, np.zeros(4, dtype=np.int64))
    assert not interval_inputs(other, other.kinds, groups, [0, DAY]).any()


def test_what_came_into_a_calendar_and_what_was_taken_out_is_told() -> None:
    """A sale that was cancelled still counts in a model that knew it; public holidays are no change."""
    zone = ZoneInfo("UTC")
    sale = {"kind": "sale", "known_at": "2024-01-01"}
    july, august, past = (
        PeriodSpec.model_validate({**sale, "start": day, "end": day})
        for day in ("2024-07-01", "2024-08-01", "2024-02-01")
    )
    as_of, first = (parse_as_of(day, zone) for day in ("2024-06-01", "2023-01-01"))
    frozen = known_calendar(CalendarSpec(periods=(past, july)), first, as_of, zone)
    holiday = Period(PUBLIC_HOLIDAY, as_of + DAY, as_of + 2 * DAY, ALWAYS_KNOWN)
    frozen = replace(frozen, periods=(*frozen.periods, holiday))
    added, removed = changed_periods(CalendarSpec(periods=(august,)), frozen, as_of, zone)
    assert [one.start for one in added] == [parse_as_of("2024-08-01", zone)]
    assert [one.start for one in removed] == [parse_as_of("2024-07-01", zone)], "what is over is no matter"
    assert changed_periods(None, frozen, as_of, zone) == ((), removed)
    assert changed_periods(CalendarSpec(periods=(past, july)), frozen, as_of, zone) == ((), ())
