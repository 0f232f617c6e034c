"""Each comparison of a time with ``as_of``, at the microsecond before, at, and after its boundary."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.errors import ConfigError
from cvj_ml.windows import (
    NEVER,
    before,
    edges,
    follow_up,
    grid,
    happened_within,
    in_window,
    is_covered,
    is_known,
    is_live,
    midnight,
    observed_whole,
    parse_as_of,
    rows_before,
    rows_before_window,
    rows_until,
    time_until,
    to_datetime,
    to_microseconds,
)

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3_600_000_000
DAY = 24 * HOUR


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_instants_are_exact_to_the_microsecond(instant: datetime) -> None:
    microseconds = to_microseconds(instant)
    assert to_datetime(microseconds, BERLIN) == instant
    assert to_datetime(microseconds, BERLIN).tzinfo is BERLIN
    assert to_microseconds(instant + timedelta(microseconds=1)) == microseconds + 1


def test_1970_is_nought_and_midnight_is_local() -> None:
    assert to_microseconds(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert midnight(date(1970, 1, 2), BERLIN) == DAY - HOUR
    assert midnight(date(2024, 4, 1), BERLIN) - midnight(date(2024, 3, 31), BERLIN) == 23 * HOUR


@pytest.mark.parametrize(
    "text, expected",
    [
        ("2024-06-01", datetime(2024, 5, 31, 22, tzinfo=UTC)),
        ("2024-06-01T06:00", datetime(2024, 6, 1, 4, tzinfo=UTC)),
        ("2024-06-01T06:00+00:00", datetime(2024, 6, 1, 6, tzinfo=UTC)),
    ],
)
def test_an_instant_is_local_unless_it_says_otherwise(text: str, expected: datetime) -> None:
    assert parse_as_of(text, BERLIN) == to_microseconds(expected)


@pytest.mark.parametrize("text", ["2024-13-01", "now", "2024-06-01T25:00"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--as-of '.*' is not a date; write it as 2024-12-31 or 2024"):
        parse_as_of(text, BERLIN)


def test_a_grid_holds_local_midnights_from_earliest_until_before_its_end() -> None:
    first, third, fifth = (midnight(date(2024, 3, day), BERLIN) for day in (29, 31, 29))
    days = [midnight(date(2024, 3, 29) + timedelta(2 * k), BERLIN) for k in range(4)]
    assert first == fifth == days[0] and third == days[1]
    whole = grid(date(2024, 3, 29), 2, BERLIN, earliest=days[0], until=days[3])
    assert whole.tolist() == days[:3] and whole.dtype == np.int64
    assert grid(date(2024, 3, 29), 2, BERLIN, earliest=days[0] + 1, until=days[2] + 1).tolist() == days[1:3]
    assert grid(date(2024, 3, 29), 2, BERLIN, earliest=days[0], until=days[0]).tolist() == []


AT = 10 * DAY
NEAR = [(-1, True), (0, False), (1, False)]


@pytest.mark.parametrize("shift, visible", NEAR)
def test_a_row_is_live_from_after_it_is_visible_until_it_is_replaced(shift: int, visible: bool) -> None:
    assert bool(is_live(AT + shift, NEVER, AT)) == visible
    assert bool(is_live(AT - 1, AT + shift, AT)) == (shift >= 0), "replaced at as_of is not replaced before it"
    assert before(np.array([AT + shift]), AT).tolist() == [visible]
    assert before(np.array([AT + shift]), np.array([AT])).tolist() == [visible]


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_windows_are_closed_at_their_start(shift: int) -> None:
    assert bool(in_window(AT - DAY + shift, AT, DAY)) == (shift >= 0)
    assert bool(is_covered(AT, DAY, AT - DAY + shift)) == (shift <= 0)


@given(
    times=st.lists(st.integers(0, 6), min_size=1, max_size=12).map(sorted),
    as_of=st.integers(-1, 7),
    data=st.data(),
)
def test_rows_before_an_instant_are_counted_among_their_own(times: list[int], as_of: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(times)))
    stop = data.draw(st.integers(start, len(times)))
    own = times[start:stop]
    window = data.draw(st.integers(0, 4))
    instants = np.array(times)
    assert rows_before(instants, start, stop, as_of) == start + sum(one < as_of for one in own)
    assert rows_until(instants, start, stop, as_of) == start + sum(one <= as_of for one in own)
    before_window = start + sum(one < as_of - window for one in own)
    assert rows_before_window(instants, start, stop, as_of, window) == before_window


@pytest.mark.parametrize("shift, known", NEAR)
def test_what_a_row_tells_is_known_if_it_is_visible_and_the_row_has_begun(shift: int, known: bool) -> None:
    assert bool(is_known(AT + shift, AT - DAY, AT)) == known
    assert bool(is_known(AT - DAY, AT + shift, AT)) == known
    assert not is_known(AT + shift + 1, AT + shift + 1, AT)


def test_times_until_are_signed_and_what_never_happens_stays_so() -> None:
    instants = np.array([AT - 5, AT, AT + 7, NEVER])
    assert time_until(instants, AT).tolist() == [-5, 0, 7, NEVER]
    assert time_until(instants, -AT).tolist() == [2 * AT - 5, 2 * AT, 2 * AT + 7, NEVER]
    assert time_until(instants, np.array([AT - 5, AT - 1, AT, AT])).tolist() == [0, 1, 7, NEVER]


@pytest.mark.parametrize("until, within", [(-1, False), (0, True), (DAY - 1, True), (DAY, False), (NEVER, False)])
def test_a_horizon_holds_as_of_and_not_its_end(until: int, within: bool) -> None:
    assert happened_within(np.array([until]), DAY).tolist() == [within]
    assert happened_within(np.array([until]), np.array([DAY])).tolist() == [within]


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_an_interval_is_observed_if_it_ends_no_later_than_the_data(shift: int) -> None:
    known = follow_up(AT, AT + DAY + HOUR + shift, HOUR)
    assert known == DAY + shift and known.dtype == np.int64
    assert bool(observed_whole(known, DAY)) == (shift >= 0)
    assert follow_up(np.array([AT, AT + 3]), AT + DAY, HOUR).tolist() == [DAY - HOUR, DAY - HOUR - 3]


def test_the_edges_begin_with_nought() -> None:
    assert edges([7 * DAY, 30 * DAY]) == (0, 7 * DAY, 30 * DAY)
