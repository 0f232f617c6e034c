"""One example for each boundary and each silent error, to be read beside the definitions."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from tests.oracles.blocks import to_block
from tests.oracles.cases import (
    HORIZONS,
    LONG_AGO,
    Blocks,
    a_definition,
    a_journey,
    a_predictor,
    answers,
    labels_of,
    moment,
    person,
    touch,
)
from tests.oracles.examples import DAY, HOUR, START
from tests.oracles.histories import Touch, Version

from cvj_ml.config import parse_duration
from cvj_ml.panel.labels import RETURN, Labels
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import hazard_rows
from cvj_ml.windows import NEVER, follow_up, happened_within, midnight, observed_whole, parse_as_of, time_until

BUY = a_journey(One={"event": "buy"})
TWO = a_journey(One={"event": "visit"}, Two={"event": "buy"})
US = 1 / DAY
"""A microsecond, in days."""


def asked_on(day: float, *touches: Touch, definition: ModelSpec | None = None):  # type: ignore[no-untyped-def]
    return answers(definition or a_definition(BUY), [person(*touches)], moment(day))


def labelled(journey, touches, as_of: float, cut: float, arrival_delay: int = 0) -> Labels:  # type: ignore[no-untyped-def]
    return labels_of(journey, frozenset(), [person(*touches)], [moment(as_of)], moment(cut), arrival_delay)[1]


def rows_of(labels: Labels) -> list[tuple[int, int, bool]]:
    rows = hazard_rows(labels, HORIZONS)
    return sorted(zip(rows.target.tolist(), rows.interval.tolist(), rows.converted.tolist(), strict=True))


def test_a_touchpoint_exactly_at_as_of_belongs_to_the_future() -> None:
    rows = (touch(1, event="visit"), touch(5))
    found = asked_on(5, *rows)
    assert found.feature("touchpoints_all") == 1
    assert found.state.stage.tolist() == [-1]
    assert labelled(BUY, rows, 5, 9).times.tolist() == [[0, 0]]

    moment_later = asked_on(5 + US, *rows)
    assert moment_later.feature("touchpoints_all") == 2
    assert moment_later.state.stage.tolist() == [0]
    assert labelled(BUY, rows, 5 + US, 9).times[0, RETURN] == NEVER


def test_a_stage_entered_exactly_at_as_of_lies_ahead() -> None:
    """Silent error 5: what is reached at the instant itself is reached after 0, and neither lost nor late."""
    labels = labelled(TWO, (touch(1, event="visit"), touch(5)), 5, 30)
    assert labels.at_risk.tolist() == [[True, False, True]]
    assert labels.late == 0
    assert (2, 0, True) in rows_of(labels)


def test_a_customer_first_seen_exactly_at_as_of_is_not_asked_about() -> None:
    """Silent error 9: eligibility is strict as everything is."""
    assert asked_on(5, touch(5)).names == []
    assert asked_on(5, touch(3, visible=5)).names == []
    assert asked_on(5, touch(5 - US)).names == ["c"]


@pytest.mark.parametrize(("days", "window"), [(1, "1d"), (2, "2d"), (7, "7d")])
def test_a_window_holds_its_first_instant_and_not_its_last(days: int, window: str) -> None:
    for day, count in ((20 - days, 1), (20 - days - US, 0), (20 - US, 1), (20, 0)):
        found = asked_on(20, touch(1, event="visit"), touch(day))
        assert found.feature(f"count_event_buy_{window}") == count


def test_what_is_visible_exactly_at_as_of_is_not_known_yet() -> None:
    """Silent error 4, for features."""
    for day, count in ((5, 1), (5 - US, 2)):
        assert asked_on(5, touch(1), touch(3, visible=day)).feature("count_event_buy_7d") == count


def test_the_old_version_counts_until_the_new_one_is_known() -> None:
    """Silent error 4: at the very instant of the correction the old value stands, as nothing else is known yet."""
    for day, total in ((5, 1.0), (5 - US, 3.0)):
        found = asked_on(5, touch(3, 100, superseded=day), touch(3, 300, visible=day))
        assert found.feature("value_sum_7d") == total
        assert found.feature("count_event_buy_7d") == 1


def test_an_attribute_known_exactly_at_as_of_is_not_known_yet() -> None:
    """Silent error 21: an attribute says what was known then."""
    versions = [Version(moment(2), {"rating": 1.0}), Version(moment(5), {"rating": 2.0})]
    for day, rating in ((2, np.nan), (2 + US, 1.0), (5, 1.0), (5 + US, 2.0)):
        found = answers(a_definition(BUY), [person(touch(1), versions=versions)], moment(day))
        assert np.array_equal(found.feature("attribute_rating"), rating, equal_nan=True)


def test_a_horizon_ends_before_its_end() -> None:
    times = np.array([-1, 0, 2 * DAY - 1, 2 * DAY, NEVER], dtype=np.int64)
    assert happened_within(times, 2 * DAY).tolist() == [False, True, True, False, False]


def test_an_event_exactly_at_an_edge_falls_into_the_next_interval() -> None:
    """Silent error 6: half-open intervals leave no gap and no overlap."""
    labels = labelled(TWO, (touch(1, event="visit"), touch(12)), 10, 60)
    assert [row for row in rows_of(labels) if row[0] == 2] == [(2, 0, False), (2, 1, True)]
    labels = labelled(TWO, (touch(1, event="visit"), touch(12 - US)), 10, 60)
    assert [row for row in rows_of(labels) if row[0] == 2] == [(2, 0, True)]


@pytest.mark.parametrize("arrival_delay", [0, HOUR, 2 * DAY])
@pytest.mark.parametrize("interval", [0, 1, 2])
def test_an_interval_is_observed_from_the_microsecond_on_at_which_it_can_be(interval: int, arrival_delay: int) -> None:
    """Silent error 2: an interval counts once as_of + hi + arrival_delay has passed, not a microsecond before."""
    end = 10 + HORIZONS[interval] / DAY + arrival_delay / DAY
    for cut, seen in ((end - US, False), (end, True), (end + US, True)):
        labels = labelled(BUY, (touch(1, event="visit"),), 10, cut, arrival_delay)
        assert ((1, interval, False) in rows_of(labels)) == seen


def test_an_early_event_of_an_unfinished_interval_does_not_count_either() -> None:
    """Silent error 6: the follow-up test holds for those who moved as for those who did not."""
    converted = labelled(TWO, (touch(1, event="visit"), touch(10.5)), 10, 12 - US)
    stayed = labelled(TWO, (touch(1, event="visit"),), 10, 12 - US)
    assert rows_of(converted) == rows_of(stayed) == []


def test_no_row_follows_the_event() -> None:
    """Silent error 6: who has moved is at risk no longer."""
    labels = labelled(TWO, (touch(1, event="visit"), touch(13)), 10, 60)
    assert [row for row in rows_of(labels) if row[0] == 2] == [(2, 0, False), (2, 1, True)]
    assert rows_of(labelled(TWO, (touch(1, event="visit"),), 10, 60)) == [
        (target, interval, False) for target in (0, 2) for interval in (0, 1, 2)
    ]


def test_late_evidence_is_dropped_and_counted() -> None:
    """Silent error 5: reached on day 3, known on day 6; on day 5 neither an event at once nor one that never comes."""
    rows = (touch(1, event="visit"), touch(3, visible=6))
    labels = labelled(TWO, rows, 5, 60)
    assert labels.late == 1
    assert labels.at_risk.tolist() == [[True, False, False]]
    assert {target for target, _, _ in rows_of(labels)} == {RETURN}
    # By a cut before the row arrived there was nothing to see, and nothing to drop.
    early = labelled(TWO, rows, 5, 6)
    assert (early.late, early.at_risk.tolist()) == (0, [[True, False, True]])


def test_a_stage_below_one_reached_late_is_dropped_with_it() -> None:
    """Silent error 5: reaching a higher stage reaches those between; the stage above stays a target."""
    three = a_journey(One={"event": "visit"}, Two={"event": "review"}, Three={"event": "buy"}, Four={"event": "mail"})
    labels = labelled(three, (touch(1, event="visit"), touch(3, visible=6), touch(8, event="mail")), 5, 60)
    assert labels.late == 2
    assert labels.at_risk.tolist() == [[True, False, False, False, True]]
    assert labels.times[0, [RETURN, 4]].tolist() == [3 * DAY, 3 * DAY]


def test_sends_bring_nobody_back() -> None:
    """Silent error 13: return, recency, active days, sessions, gaps and the last events are of the customer."""
    rows = (touch(1), touch(3, event="mail"), touch(7, event="mail"))
    assert labelled(BUY, rows, 5, 60).times[0, RETURN] == NEVER
    assert labelled(BUY, (*rows, touch(8, event="visit")), 5, 60).times[0, RETURN] == 3 * DAY
    found = asked_on(5, *rows)
    expected = {"recency": 4, "touchpoints_7d": 1, "active_days_7d": 1, "sessions_7d": 1, "last_event_1": 0}
    assert {name: found.feature(name) for name in expected} == expected
    assert np.isnan(found.feature("gap_mean_7d"))
    assert found.feature("count_event_other_7d") == 1  # the send is a feature of its own


def test_sends_keep_nobody_awake() -> None:
    """Silent error 13: a customer who is only written to is dormant; and who was never active, too."""
    journey = BUY.model_copy(update={"dormant_after": 10 * DAY})
    definition = a_definition(journey)
    block = to_block(
        [
            person(touch(1), touch(18, event="mail"), name="a"),
            person(touch(10), name="b"),
            person(touch(10 - 0.01), name="c"),
            person(touch(18, event="mail"), name="d"),
        ]
    )
    predictor = a_predictor(definition, Blocks([block]), np.array([moment(11)], dtype=np.int64), moment(20))
    assert predictor.answer(block, moment(20)).dormant.tolist() == [True, False, True, True]


def test_a_stage_entered_by_a_send_is_a_return_too() -> None:
    """Silent error 14: reach without return would break the nesting of the probabilities."""
    journey = a_journey(One={"event": "visit"}, Two={"event": "mail"})
    labels = labelled(journey, (touch(1, event="visit"), touch(7, event="mail")), 5, 60)
    assert labels.times[0, [RETURN, 2]].tolist() == [2 * DAY, 2 * DAY]


def test_what_was_not_recorded_is_missing_and_not_zero() -> None:
    """Silent error 8: a window that begins before the sources record is unknown; at its very edge it is whole."""
    for observed_from, known in ((18, True), (18 + US, False)):
        definition = a_definition(BUY, observed_from=moment(observed_from))
        found = asked_on(20, touch(1), touch(19), definition=definition)
        for name in ("count_event_buy", "touchpoints", "active_days", "sessions", "value_sum", "count_channel_other"):
            assert np.isnan(found.feature(f"{name}_2d")) == (not known)
            assert np.isnan(found.feature(f"{name}_7d"))
        assert found.feature("count_event_buy_1d") == 1
        assert np.isnan(found.feature("trend_event_buy"))  # needs twice two days
        assert found.feature("count_event_buy_all") == 2
        assert np.isnan(found.feature("recency_event_visit"))


def test_days_in_stage_begin_when_the_running_maximum_got_there() -> None:
    """Silent error 26: a lower stage entered later restarts nothing."""
    found = asked_on(9, touch(2), touch(7, event="visit"), definition=a_definition(TWO))
    assert found.state.stage.tolist() == [1]
    assert found.state.days_in_stage.tolist() == [7.0]
    assert found.feature("days_in_stage") == 7
    assert found.feature("days_since_One") == 2
    assert found.feature("days_from_One_to_Two") == -5


def test_before_any_stage_no_day_is_counted_and_every_stage_lies_ahead() -> None:
    found = asked_on(9, touch(2, event="review"), definition=a_definition(TWO))
    assert found.feature("stage") == -1
    assert np.isnan(found.feature("days_in_stage"))
    assert labelled(TWO, (touch(2, event="review"),), 9, 60).at_risk.tolist() == [[True, True, True]]


def test_a_session_is_counted_in_the_window_of_its_first_touchpoint() -> None:
    """The gap before day 18 began outside the window, yet a session begins there; one across the edge does not."""
    found = asked_on(20, touch(17), touch(18), touch(18 + 20 / 1440), touch(18 + 51 / 1440))
    assert found.feature("sessions_2d") == 2
    found = asked_on(20, touch(18 - 10 / 1440), touch(18 + 10 / 1440))
    assert (found.feature("sessions_2d"), found.feature("sessions_7d")) == (0, 1)


def test_a_gap_as_long_as_the_session_gap_ends_no_session() -> None:
    assert asked_on(20, touch(19), touch(19 + 30 / 1440)).feature("sessions_2d") == 1
    assert asked_on(20, touch(19), touch(19 + 30 / 1440 + US)).feature("sessions_2d") == 2


def test_a_gap_lies_in_a_window_with_both_its_ends() -> None:
    found = asked_on(20, touch(17.5), touch(18.5), touch(19))
    assert found.feature("gap_mean_2d") == 0.5
    assert found.feature("gap_mean_7d") == 0.75


def test_an_active_day_is_a_local_day() -> None:
    """The day is the one carried by the touchpoint, not the instant's day in UTC."""
    late, early = touch(18.9), touch(19.1)
    same = Touch(**{**vars(early), "day": late.day})
    assert asked_on(20, late, early).feature("active_days_2d") == 2
    assert asked_on(20, late, same).feature("active_days_2d") == 1


def test_negative_values_count_and_their_highest_is_negative() -> None:
    found = asked_on(5, touch(3, -500), touch(4, -250), touch(4.5))
    assert found.feature("value_sum_7d") == -7.5
    assert found.feature("value_mean_7d") == -3.75
    assert found.feature("value_max_7d") == -2.5
    nothing = asked_on(5, touch(4.5))
    assert nothing.feature("value_sum_7d") == 0
    assert np.isnan(nothing.feature("value_max_7d"))


def test_a_date_is_its_local_midnight_and_thirty_days_are_so_many_seconds() -> None:
    """The night of 31 March 2024 lost an hour in London: 30 days before a local midnight is not a local midnight."""
    london = ZoneInfo("Europe/London")
    assert parse_as_of("2024-04-15", london) == parse_as_of("2024-04-14T23:00:00+00:00", london)
    assert parse_as_of("2024-04-15T06:00", london) == midnight(date(2024, 4, 15), london) + 6 * HOUR
    assert parse_duration("30d") == 30 * 86_400 * 1_000_000
    assert midnight(date(2024, 4, 15), london) - parse_duration("30d") == midnight(date(2024, 3, 16), london) - HOUR


def test_follow_up_and_time_until_are_exact_and_never_stays_never() -> None:
    assert follow_up(np.array([moment(5)]), moment(9), HOUR).tolist() == [4 * DAY - HOUR]
    assert observed_whole(np.array([4 * DAY - 1, 4 * DAY]), 4 * DAY).tolist() == [False, True]
    assert time_until(np.array([NEVER, START, LONG_AGO]), START).tolist() == [NEVER, 0, LONG_AGO - START]
    assert time_until(np.array([NEVER]), -START).tolist() == [NEVER]
