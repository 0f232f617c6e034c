"""Words of reasons: one feature of a customer beside a typical one, and what somebody did last."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.trained import Trained

from cvj_ml.inputs import open_histories
from cvj_ml.lists.fact_words import beside_typical, say
from cvj_ml.lists.last_events import LastEvents, Occurrence, Unhappy, ago, did, last_events, name
from cvj_ml.run import Silent
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.windows import NEVER

pytest_plugins = ["tests.fixtures"]

NAN = float("nan")
NOTHING = LastEvents(None, None, None, {}, None, {}, frozenset(), (), np.array([], dtype=np.int64), 0, frozenset())


def occurrence(event: str, days: int, value: float = NAN, rating: float = NAN, bad: bool = False) -> Occurrence:
    return Occurrence(event, days, value, rating, 5.0, bad, 2)


@pytest.fixture(scope="module")
def words(trained: Trained) -> Any:
    """Compare two values of one feature, or of several columns, all others being unknown."""
    definition = open_bundle(trained.bundle).predictor.definition
    names = definition.catalogue.names

    def tell(
        column: str,
        mine: dict[str, float],
        typical: dict[str, float],
        stage: str | None = "Convert",
        known: LastEvents | None = None,
    ) -> str | None:
        rows = []
        for given in (mine, typical):
            row = [NAN] * len(names)
            for one, value in given.items():
                row[names.index(one)] = value
            rows.append(row)
        said = beside_typical(definition, names.index(column), rows[0], rows[1], stage, known)
        return said.whole if said else None

    return tell


@pytest.mark.parametrize(
    ("column", "mine", "typical", "own", "usual"),
    [
        ("count_event_purchase_30d", 1, 0, "bought once in the last 30 days", "most: none"),
        ("count_event_purchase_all", 1234, 2, "bought 1,234 times so far", "typical of: 2"),
        ("count_event_purchase_7d", 0, 2, "no “purchase” in the last 7 days", "typical of: 2"),
        ("count_channel_email_30d", 2, 0, "through email twice in the last 30 days", "most: nothing"),
        ("recency_event_purchase", 1.2, NAN, "bought 1 day ago", "most: none so far"),
        ("recency_event_purchase", NAN, 0.4, "no “purchase” so far", "typical of: last less than a day ago"),
        ("recency_channel_email", 12, NAN, "last through email 12 days ago", "most: nothing so far"),
        (
            "trend_event_purchase", 2, 0,
            "“purchase” up by 2 in the last 30 days against the time before", "most: no change",
        ),
        (
            "trend__touchpoints", -3, 0,
            "interactions down by 3 in the last 30 days against the time before", "most: no change",
        ),
        ("active_days_30d", 1, 4, "1 active day in the last 30 days", "typical of: 4"),
        ("sessions_all", 3, 4, "3 sessions so far", "typical of: 4"),
        ("touchpoints_all", 3, 5, "3 interactions so far", "typical of: 5"),
        ("value_sum_all", 1234.5, 40, "total value 1,234 so far", "typical of: 40"),
        ("value_sum_all", 12.5, 0, "total value 12.50 so far", "most: none"),
        ("value_max_90d", NAN, 40, "no value in the last 90 days", "typical of: highest value 40"),
        ("gap_mean_all", 4.54, 12.3, "back every 4.5 days on average so far", "typical of: every 12 days"),
        ("gap_mean_all", NAN, 12.3, "fewer than two interactions so far", "typical of: back every 12 days"),
        ("gap_sd_all", 4, 12, None, None),
        ("recency", 3, 30, "last seen 3 days ago", "typical of: 30 days ago"),
        ("tenure", 40, 200, "first seen 40 days ago", "typical of: 200 days ago"),
        ("days_in_stage", 1, 30, "in this stage for 1 day", "typical of: 30 days"),
        ("days_since_Subscribe", NAN, 30, "Subscribe not entered", "typical of: 30 days ago"),
        ("days_from_Aware_to_Engage", -2, 5, "entered Engage 2 days before Aware", "typical of: 5 days"),
        ("attribute_age", 45, NAN, "age is 45", "most: not known"),
        ("attribute_age", 45, 40, "age is 45", "typical of: 40"),
        ("stage", 1, 2, None, None),
        ("trend_event_purchase", 1, 0, None, None),
        ("recency", 3.1, 2.9, None, None),
        ("active_days_all", 19, 22, None, None),
    ],
)  # fmt: skip
def test_features_in_words(
    words: Any, column: str, mine: float, typical: float, own: str | None, usual: str | None
) -> None:
    told = usual and f"{own}; {usual.replace(':', ' Convert customers:')}"
    assert words(column, {column: mine}, {column: typical}) == told


@pytest.mark.parametrize(
    ("column", "mine", "typical", "known", "own"),
    [
        ("recency", 0.4, 30, {"last": occurrence("purchase", 1, 1060), "last_days": 1},
         "last seen yesterday (bought for 1,060)"),
        ("recency", 2.4, 30, {"last": occurrence("pricing visits", 3), "last_days": 3},
         "last seen 3 days ago (“pricing visits”)"),
        ("recency", 2.4, 30, {"last_days": 3}, "last seen 3 days ago"),
        ("recency_event_review", 2, NAN, {"events": {"review": occurrence("review", 2, NAN, 1, bad=True)}},
         "reviewed us with 1 of 5, 2 days ago"),
        ("count_event_visit_7d", 3, 0, {"events": {"visit": occurrence("visit", 1)}},
         "visited us 3 times in the last 7 days, last yesterday"),
        ("count_event_visit_7d", 1, 0, {"events": {"visit": occurrence("visit", 1)}},
         "visited us yesterday, once in the last 7 days"),
        ("recency", 20, 90, {"first_days": 20, "last_days": 20, "last": occurrence("visit", 20)},
         "seen on one day only, 20 days ago (visited us)"),
        ("count_event_purchase_all", 1, 0, {"events": {"purchase": occurrence("purchase", 0, 17.5)}},
         "bought for 17.50 today"),
        ("recency", 4, 20, {"last": occurrence("refund", 4, -39.9, bad=True)},
         "last seen 4 days ago (got a refund of 39.90)"),
        ("value_sum_all", 941, 210, {"single_value": occurrence("purchase", 37, 941)}, "bought for 941, 37 days ago"),
        ("recency_channel_email", 4, 20, {"channels": {"email": 5}, "chosen_channels": frozenset({"email"})},
         "last came through email 5 days ago"),
        ("count_channel_ads_all", 4, 1, {}, "reached through ads 4 times so far"),
        ("tenure", 40, 200, {"first_days": 41}, "first seen 41 days ago"),
        ("trend_event_visit", 5, 0, {"first_days": 20}, None),
        ("last_event_1", 0, 1, {"last": occurrence("purchase", 1, 20)}, "most recently bought for 20 yesterday"),
        ("last_event_2", 0, 1, {}, None),
    ],
)  # fmt: skip
def test_what_somebody_did_last_is_told(
    words: Any, column: str, mine: float, typical: float, known: dict[str, Any], own: str | None
) -> None:
    told = words(column, {column: mine}, {column: typical}, known=replace(NOTHING, **known))
    assert (told and told.split("; ")[0]) == own


def test_two_sentences_of_another_form_are_both_whole(words: Any) -> None:
    single = replace(NOTHING, single_value=occurrence("purchase", 37, 941))
    told = words("value_mean_all", {"value_mean_all": 941}, {"value_mean_all": 210}, known=single)
    assert told == "bought for 941, 37 days ago; typical of Convert customers: average value 210"
    known = replace(NOTHING, events={"purchase": occurrence("purchase", 37, 941)})
    told = words(
        "count_event_purchase_all", {"count_event_purchase_all": 1}, {"count_event_purchase_all": 3}, known=known
    )
    assert told == "bought for 941, 37 days ago; typical of Convert customers: 3 times so far"
    once = replace(NOTHING, first_days=20, last_days=20)
    told = words("tenure", {"tenure": 19.5}, {"tenure": 90}, known=once)
    assert told == "seen on one day only, 20 days ago; typical of Convert customers: first seen 90 days ago"


def test_progress_in_words(words: Any) -> None:
    done = {"fulfilled_Ascend": 2 / 3, "remaining_Ascend": 1.0}
    rounded = {"fulfilled_Ascend": 0.333, "remaining_Ascend": 2.0}
    nothing = {"fulfilled_Ascend": 0.0, "remaining_Ascend": 1.0}
    text = "bought 2 of 3 times towards Ascend; typical of Convert customers: 1 of 3"
    assert words("fulfilled_Ascend", done, rounded) == words("remaining_Ascend", done, rounded) == text
    told = words("remaining_Ascend", nothing, done)
    assert told == "nothing done yet towards Ascend; typical of Convert customers: 2 of 3"
    assert words("remaining_Ascend", done, done) is None


def test_a_count_is_never_compared_with_a_share(words: Any) -> None:
    """Share and remaining of a typical row are two medians: they need not fit one rule."""
    third = {"fulfilled_Ascend": 1 / 3, "remaining_Ascend": 2.0}
    for typical in (0.333, 0.35, 0.5, 0.667, 0.9):
        for remaining in (0.0, 1.0, 2.0, 3.0):
            told = words("fulfilled_Ascend", third, {"fulfilled_Ascend": typical, "remaining_Ascend": remaining})
            assert told is None or ("1 of 3" in told and told.endswith("2 of 3")), told
    share = {"fulfilled_Ascend": 0.4, "remaining_Ascend": 1.0}
    told = words("fulfilled_Ascend", share, {"fulfilled_Ascend": 0.8, "remaining_Ascend": 1.0})
    assert told == "40% of the way towards Ascend; typical of Convert customers: 80% of the way"


def test_nobody_is_told_to_be_behind_customers_of_other_stages(words: Any) -> None:
    """Where too few customers are in a stage, all are the measure, but not of how far one has come."""
    mine, typical = (
        {"fulfilled_Ascend": 0.0, "remaining_Ascend": 1.0},
        {"fulfilled_Ascend": 1.0, "remaining_Ascend": 0.0},
    )
    assert words("fulfilled_Ascend", mine, typical, None) is None
    assert words("days_in_stage", {"days_in_stage": 3}, {"days_in_stage": 90}, None) is None
    assert words("recency", {"recency": 3}, {"recency": 90}, None) == (
        "last seen 3 days ago; typical of all customers: 90 days ago"
    )


def test_every_column_can_be_said_and_labels_are_words(trained: Trained) -> None:
    definition = open_bundle(trained.bundle).predictor.definition
    for value in (0.0, 1.0, 2.0, NAN):
        row = [value] * len(definition.catalogue.features)
        for column, feature in enumerate(definition.catalogue.features):
            said = say(definition, column, row)
            never = feature.fact[0] == "stage" or feature.name.startswith(
                ("gap_sd", "last_event_2", "last_event_3", "trend")
            )
            assert said is not None or never or np.isnan(value)
            assert said is None or ("_" not in said.whole and "nan" not in said.whole.split())
            assert said is None or "touchpoint" not in said.whole


def test_names_and_days_are_fit_for_a_sentence() -> None:
    assert name("pricing_page\n\tvisit") == "pricing page visit"
    assert len(name("x" * 10_000)) == 40 and name("x" * 10_000).endswith("…")
    assert did("E-mail_sent".replace("E-mail", "email")) == did("email sent") == "was sent an e-mail"
    assert did("wish_list") == "“wish list”"
    assert occurrence("cancellation", 1, -1060).told() == "cancelled an order of 1,060 yesterday"
    assert occurrence("refund", 4, -39.9).told() == "got a refund of 39.90, 4 days ago"
    assert [ago(days) for days in (0, 1, 2, 1000)] == ["today", "yesterday", "2 days ago", "1,000 days ago"]


@pytest.mark.parametrize(("scale", "bad"), [((1, 5), {1, 2}), ((0, 10), {0, 1, 2, 3, 4}), ((1, 3), {1})])
def test_ratings_in_the_lower_part_of_the_scale_are_bad(scale: tuple[float, float], bad: set[int]) -> None:
    unhappy = Unhappy(rating_scale=scale)
    assert {one for one in range(int(scale[0]), int(scale[1]) + 1) if unhappy.is_bad_rating(one)} == bad
    assert not unhappy.is_bad_rating(NAN)


def test_what_is_known_of_a_customer_is_what_the_log_says(trained: Trained) -> None:
    """Silent error 78: only rows that were visible before as_of, each once; names are those of the vocabulary."""
    histories = open_histories(trained.config(), Silent())
    predictor = open_bundle(trained.bundle).predictor
    definition, unhappy = predictor.definition, Unhappy(frozenset({"refund"}))
    few = replace(
        definition,
        catalogue=replace(definition.catalogue, vocabulary=replace(definition.catalogue.vocabulary, events=())),
    )
    checked = bad = 0
    as_of, block = trained.as_of, histories.store.read(1)
    points, today = block.touchpoints, as_of // 86_400_000_000
    for customer in range(len(block)):
        rows = [
            row
            for row in range(*points.offsets[customer : customer + 2])
            if points.occurred_at[row] < as_of and points.visible_at[row] < as_of <= points.superseded_at[row]
        ]
        events = [points.event.values[points.event.codes[row]] for row in rows]
        known = last_events(definition, block, customer, as_of, unhappy)
        assert {event: one.days for event, one in known.events.items()} == {
            event: today - int(points.day[row]) for event, row in zip(events, rows, strict=True)
        }
        own = [(event, row) for event, row in zip(events, rows, strict=True) if points.inbound[row]]
        assert known.own == tuple(event for event, _ in own)
        assert known.first_days == (today - int(points.day[rows[0]]) if rows else None)
        at_once = {event for event, row in own if points.occurred_at[row] == points.occurred_at[own[-1][1]]}
        assert known.last is None if not own else known.last is not None and known.last.event in at_once
        refunds = [row for event, row in zip(events, rows, strict=True) if event == "refund"]
        if refunds:
            assert known.events["refund"].bad and known.events["refund"].value == points.value[refunds[-1]] / 100
        for event, one in known.events.items():
            rating = points.properties["rating"][[row for e, row in zip(events, rows, strict=True) if e == event][-1]]
            assert one.bad == (event in ("refund", "support_ticket") or rating <= 2.6)
            bad += bool(rating <= 2.6)
        most = Counter(known.own).most_common(1)
        mostly = known.mostly(NEVER)
        assert mostly is None or (most[0][1] == known.own.count(mostly) and 2 * most[0][1] >= len(known.own))
        assert set(last_events(few, block, customer, as_of, unhappy).events) <= {"refund"}
        checked += len(rows)
    assert checked > 100 and bad
