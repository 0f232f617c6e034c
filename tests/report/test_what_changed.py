"""What the page says of changes: read aloud."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from tests.lists.test_changes import BEFORE, REASON, STAGES, TONIGHT, Place, reasons_of, standing
from tests.oracles.cases import a_journey
from tests.report.test_page import night, ranked

from cvj_ml.config import JourneySpec, Rule
from cvj_ml.lists.changes import Changes, NotComparable, compare
from cvj_ml.report.page import page
from cvj_ml.report.what_changed import HEIGHT, WIDTH, WhatChanged, what_changed

ZONE = ZoneInfo("UTC")
JOURNEY = a_journey(**{stage: {"event": "buy"} for stage in STAGES})
MADE = ("visitor__buyer", "visitor__fan", "buyer__fan")


def told(journey: JourneySpec = JOURNEY) -> WhatChanged:
    before = {
        "a": Place("Visitor", ("visitor__buyer",)),
        "b": Place("Visitor", ("visitor__buyer",)),
        "c": Place("Visitor", ("visitor__fan",)),
        "d": Place("Visitor", ("visitor__fan",)),
    }
    tonight = {
        "a": Place("Visitor", ()),
        "b": Place("Buyer", ("buyer__fan",)),
        "d": Place("Visitor", ("visitor__fan",)),
        "e": Place(None, ()),
        "f": Place("Visitor", ("visitor__buyer",)),
    }
    nights = standing(before, MADE, BEFORE, erased=2), standing(tonight, MADE, TONIGHT)
    found = compare("last", *nights, reasons_of(before, tonight), STAGES)
    trend = [
        {"as_of": "", "stages": {"Visitor": 4}},
        {"as_of": "", "stages": {"": 1, "Visitor": 3, "Buyer": 1}},
    ]
    return what_changed(Changes((found, NotComparable("week", "no_night"))), trend, journey, ZONE)


def test_the_sentences_name_who_came_who_went_and_why() -> None:
    assert REASON == "contact_cap"
    last, week = told().since
    assert (last.day, last.words, week.day) == ("2024-10-04", "the night before", None)
    assert last.sentences == (
        "On the plan, control included: 3, 1 of them new and 1 on another list; 4 then.",
        "Not on it any more: 2 (1 contacted often enough lately; 1 not in the data any more).",
        "Moved to another stage: 1 customer.",
        "New in the data: 2 customers; not in them any more: 1; erased since: 2.",
    )
    assert week.sentences == ("No published night is at least 7 days older yet.",)


def test_who_left_every_stage_is_not_before_any() -> None:
    """Of who holds no stage is said that they came to none yet only where no stage can be left."""
    left = [stage.model_copy(update={"leave": Rule(event=("resigned",))}) for stage in JOURNEY.stages]
    rows = told(JOURNEY.model_copy(update={"stages": tuple(left)})).stages
    assert [row.stage for row in rows] == ["in no stage", *STAGES]


def test_the_numbers_by_stage_end_with_tonight() -> None:
    rows = {row.stage: row for row in told().stages}
    assert list(rows) == ["before any stage", *STAGES]
    visitor = rows["Visitor"]
    assert (visitor.now, visitor.trend) == (3, (4, 3))
    balance, none = visitor.since
    assert balance is not None and none is None
    assert (balance.before, balance.entered, balance.left, balance.now) == (4, 1, 2, 3)
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in visitor.line.split())
    assert 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT, "fewer is lower"
    assert len({point.split(",")[1] for point in rows["Fan"].line.split()}) == 1


@pytest.mark.parametrize("known", [True, False])
def test_the_page_shows_it_where_there_are_lists(known: bool) -> None:
    text = page(replace(night(ranked(["a", "b"])), changed=told() if known else None))
    assert ("1 of them new and 1 on another list" in text) == known
    assert ('id="changed"' in text) == known
    assert ("1 new and" in text.split("</dl>")[0]) == known, "the first tile tells it, too"
    assert ("+1 −2" in text) == known
