"""Moods and pain points by stage, against plain loops over the histories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block
from tests.oracles.cases import a_journey, moment, person, touch
from tests.oracles.examples import DAY, MINOR_UNITS, Setting, customers, instants, settings_of_journey
from tests.oracles.histories import Customer, live
from tests.oracles.journey import entries as oracle_entries
from tests.oracles.journey import stage_at as oracle_stage_at

from cvj_ml.config import JourneySpec, UnhappySpec
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, stays
from cvj_ml.journey_analytics.dwell_times import Question, dwell_times
from cvj_ml.journey_analytics.experience import (
    SETBACK,
    TICKET,
    ExperienceCounts,
    Mood,
    PainPoints,
    add_experience,
    count_experience,
    moods,
    pain_points,
)
from cvj_ml.report import blueprint_words

PERIOD = 4 * DAY
UNHAPPY = UnhappySpec(tickets=("mail", "review"), setbacks=("buy",))


def asked(journey: JourneySpec, hidden: Sequence[str], as_of: int) -> Question:
    spec = journey.model_copy(update={"unhappy": UNHAPPY})
    return Question(Journey(spec, frozenset(hidden)), as_of, PERIOD, 0, None, "rating", 0)


def counted(question: Question, block: Block) -> ExperienceCounts:
    held = stays(question.journey, block.touchpoints)
    found = dwell_times(block.touchpoints, held, question.as_of)
    return count_experience(question, block.touchpoints, held, found)


def dictionary(frame: pd.DataFrame) -> dict[tuple[object, ...], int]:
    return {tuple(row[:-1]): row[-1] for row in frame.itertuples(index=False)}


@settings(max_examples=40)
@given(customers(), settings_of_journey(), instants())
def test_ratings_and_troubles_are_those_of_a_plain_loop(people: list[Customer], setting: Setting, as_of: int) -> None:
    """Silent errors 3, 4, 10 and 84: what was visible, the stage of that moment, each customer once."""
    ratings: Counter[tuple[int, float]] = Counter()
    troubles: Counter[tuple[int, str]] = Counter()
    recorded = set()
    for one in people:
        entered = oracle_entries(setting.journey, setting.hidden, one, MINOR_UNITS)
        rows = live(one, as_of)
        stage, _ = oracle_stage_at(entered, as_of)
        recent = [row for row in rows if as_of - PERIOD <= row.occurred < as_of]
        for row in recent:
            if (rating := row.properties["rating"]) is not None:
                ratings[oracle_stage_at(entered, row.occurred)[0], float(rating)] += 1
        for name, events in ((TICKET, UNHAPPY.tickets), (SETBACK, UNHAPPY.setbacks)):
            troubles[stage, name] += any(row.event in events for row in recent)
            recorded |= {name for row in rows if row.event in events}
    question = asked(setting.journey, setting.hidden, as_of)
    parts = [counted(question, to_block([one])) for one in reversed(people)]
    for found in (counted(question, to_block(people)), add_experience(parts)):
        assert dictionary(found.ratings) == dict(ratings)
        assert dictionary(found.troubles) == dict(+troubles)
        assert found.recorded == recorded


ratings_given = st.dictionaries(
    st.tuples(st.integers(-1, 2), st.sampled_from((0.0, 1.0, 2.0, 2.6, 3.0, 3.4, 4.5, 5.0, 11.0))), st.integers(1, 9)
)


@given(ratings_given, st.sampled_from(((1.0, 5.0), (0.0, 10.0), (-1.0, 1.0))))
def test_every_rating_is_in_one_mood_or_outside(
    given_: dict[tuple[int, float], int], scale: tuple[float, float]
) -> None:
    rows = [(stage, rating, n) for (stage, rating), n in given_.items()]
    frame = pd.DataFrame(rows, columns=["stage", "rating", "given"])
    found = moods(ExperienceCounts(frame, pd.DataFrame(), frozenset()), scale)
    assert sum(one.given for one in found.of.values()) + found.outside == sum(given_.values())
    worst, best = scale
    for stage, one in found.of.items():
        mine = [rating for (where, rating), n in given_.items() if where == stage for _ in range(n)]
        inside = [rating for rating in mine if worst <= rating <= best]
        assert one.given == len(inside)
        assert one.mean == pytest.approx(sum(inside) / len(inside))
        assert one.bad == sum(rating <= worst + 0.4 * (best - worst) for rating in inside)
        assert one.good == sum(rating >= best - 0.4 * (best - worst) for rating in inside)


JOURNEY = a_journey(One={"event": "visit"}, Two={"event": "review"})


def test_a_rating_counts_where_it_was_given_and_not_where_its_giver_stands_now() -> None:
    """Silent error 84: a review that leads into a stage was counted as the mood of that stage."""
    people = [
        person(touch(0, event="visit"), touch(3, event="review", rating=2.0), touch(5, event="mail"), name="a"),
        person(touch(0, event="visit", rating=5.0), touch(3, event="visit", rating=4.0), name="b"),
        person(touch(3, event="review", rating=9.0), name="c"),
    ]
    question = asked(JOURNEY, (), moment(6))
    found = counted(question, to_block(people))
    # The first rating of b was given before the period.
    assert dictionary(found.ratings) == {(-1, 9.0): 1, (0, 2.0): 1, (0, 4.0): 1}
    mood = moods(found, (1, 5))
    assert (mood.of, mood.outside) == ({0: Mood(2, 3.0, 1, 1)}, 1)
    assert blueprint_words.rating_notes(mood, {0, 1}) == ["1 rating lies outside the scale 1 to 5 and is not counted."]
    assert blueprint_words.rating_notes(moods(found, (0, 10)), {0, 1}) == [
        "1 rating came before the customer stood in any stage, and no stage counts them."
    ]
    assert blueprint_words.mood(mood.of[0], (1, 5)) == "3.0 on the scale 1 to 5: 2 ratings, 50% bad"


def test_what_the_log_never_shows_is_not_told_as_none() -> None:
    people = [person(touch(0, event="visit"), touch(5, event="mail"), touch(5.5, event="mail"))]
    question = asked(JOURNEY, (), moment(6))
    found = counted(question, to_block(people))
    assert pain_points(found, 0, 1) == PainPoints(1, 1, None)
    assert blueprint_words.pains(pain_points(found, 0, 1), 1) == ("100% silent", "100% had a ticket")
    earlier = counted(replace(question, as_of=moment(10)), to_block(people))
    assert pain_points(earlier, 0, 0) == PainPoints(0, 0, None), "tickets are recorded, and nobody had one lately"
