"""For whom a play is meant tonight, and who is unhappy: held against plain loops over what was visible."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.lists.test_lists import AS_OF, config

from cvj_ml.config import DAY, Condition, Play
from cvj_ml.journey import observability
from cvj_ml.lists.last_events import ago, did
from cvj_ml.lists.recent_past import RecentPast
from cvj_ml.simulate import random_block

EVENTS = ("x", "y", "send", "ticket", "fixed", "refund")
SCALE = {"rating_scale": [1, 4]}
DAYS = {"3d": 3, "20d": 20, "90d": 90}


def leaves() -> st.SearchStrategy[dict[str, Any]]:
    event = st.fixed_dictionaries(
        {"event": st.sampled_from(EVENTS)},
        optional={
            "count": st.integers(1, 3),
            "within": st.sampled_from(list(DAYS)),
            "since": st.sampled_from(EVENTS),
            "where": st.just({"rating": {"gte": 3}}),
            "value_at_least": st.sampled_from([0.5, 20]),
        },
    )
    attribute = st.sampled_from([{"plan": "pro"}, {"plan": ["pro", "free"]}, {"age": {"gt": 3}}])
    rating = st.sampled_from(["good", "bad", "none", ["good", "none"], ["middle"]])
    return event | attribute.map(lambda one: {"attribute": one}) | rating.map(lambda one: {"last_rating": one})


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    def combined(one: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        return st.dictionaries(
            st.sampled_from(["any", "all"]), st.lists(one, min_size=1, max_size=3), min_size=1, max_size=1
        )

    return st.recursive(leaves(), combined, max_leaves=4)


def blocks(seed: int) -> Any:
    return random_block(
        customers=25, seed=seed, events=list(EVENTS), channels=["a", "b"],
        properties={"rating": None},
        attributes={"plan": ["pro", "free", "none"], "age": None}, outbound=["send"], until=AS_OF,
    )  # fmt: skip


class Plain:
    """One customer's visible past, row by row."""

    def __init__(self, block: Any, customer: int, as_of: int) -> None:
        points = block.touchpoints
        rows = range(points.offsets[customer], points.offsets[customer + 1])
        self.rows = [
            {
                "event": points.event.values[points.event.codes[i]],
                "at": int(points.occurred_at[i]),
                "rating": float(points.properties["rating"][i]),
                "value": int(points.value[i]) if points.has_value[i] else None,
            }
            for i in rows
            if points.visible_at[i] < as_of <= points.superseded_at[i]
        ]
        self.as_of, self.attributes = as_of, dict[str, Any]()
        table = block.attributes
        known = [k for k in range(table.offsets[customer], table.offsets[customer + 1]) if table.known_at[k] < as_of]
        for name, column in table.columns.items() if known else ():
            is_text = hasattr(column, "codes")
            code = column.codes[known[-1]] if is_text else column[known[-1]]
            self.attributes[name] = (column.values[code] if code >= 0 else None) if is_text else float(code)

    def last(self, names: list[str]) -> float:
        return max((row["at"] for row in self.rows if row["event"] in names), default=-np.inf)

    def rating(self) -> float:
        rated = [row["rating"] for row in self.rows if 1 <= row["rating"] <= 4]  # 5 is outside the scale
        return rated[-1] if rated else np.nan

    def holds(self, one: dict[str, Any]) -> bool:
        if "any" in one or "all" in one:
            ((key, parts),) = one.items()
            return {"any": any, "all": all}[key](self.holds(part) for part in parts)
        if "last_rating" in one:
            rating = self.rating()
            kind = "none" if rating != rating else "bad" if rating <= 2.2 else "good" if rating >= 2.8 else "middle"
            return kind in one["last_rating"]
        if "attribute" in one:
            ((name, test),) = one["attribute"].items()
            value = self.attributes.get(name)
            if value is None or value != value:
                return False
            return (
                value > test["gt"] if isinstance(test, dict) else value in ([test] if isinstance(test, str) else test)
            )
        after = self.last([one["since"]]) if "since" in one else -np.inf
        start = self.as_of - DAYS[one["within"]] * DAY if "within" in one else -np.inf
        rows = [row for row in self.rows if row["event"] == one["event"] and row["at"] > after and row["at"] >= start]
        rows = [row for row in rows if "where" not in one or row["rating"] >= 3]
        total = sum(row["value"] or 0 for row in rows)
        return len(rows) >= one.get("count", 1) and total >= 100 * one.get("value_at_least", -np.inf)


@settings(max_examples=60)
@given(st.integers(0, 5), conditions(), st.none() | conditions(), st.integers(0, 60))
def test_a_play_is_meant_for_whom_plain_loops_say(
    seed: int, when: dict[str, Any], not_when: dict[str, Any] | None, back: int
) -> None:
    block, as_of = blocks(seed), AS_OF - back * DAY
    play = Play.model_validate({"text": "Do", "when": when, "not_when": not_when})
    found = RecentPast(block, as_of, config(report=SCALE)).meant_for(play)
    plain = [Plain(block, i, as_of) for i in range(len(block.customers))]
    assert found.tolist() == [one.holds(when) and not (not_when and one.holds(not_when)) for one in plain]


@settings(max_examples=60)
@given(st.integers(0, 5), leaves(), st.integers(0, 60))
def test_what_brought_a_play_is_what_plain_loops_find(seed: int, when: dict[str, Any], back: int) -> None:
    """The last touchpoint that the condition looks at, the attribute, or the rating, of everybody whom it holds for."""
    block, as_of = blocks(seed), AS_OF - back * DAY
    play, past = Play.model_validate({"text": "Do", "when": when}), RecentPast(block, as_of, config(report=SCALE))
    for i in np.flatnonzero(past.meant_for(play)):
        found, plain = past.because(play, int(i)), Plain(block, int(i), as_of)
        assert found is not None
        if "attribute" in when:
            ((name, _),) = when["attribute"].items()
            value = plain.attributes[name]
            assert found == f"{name} is {value if isinstance(value, str) else format(value, 'g')}"
        elif "last_rating" in when:
            rating = plain.rating()
            rated = [row["at"] for row in plain.rows if 1 <= row["rating"] <= 4]
            told = f"last rating {rating:g} of 4, {ago(as_of // DAY - rated[-1] // DAY)}" if rated else "never rated us"
            assert found == told
        else:
            rows = [row for row in plain.rows if row["event"] == when["event"]]
            rows = [row for row in rows if "where" not in when or row["rating"] >= 3]
            last = f"{did(when['event'])} {ago(as_of // DAY - rows[-1]['at'] // DAY)}"
            several = re.fullmatch(r"(.+) (\d+) times, last (.+)", found)
            assert found == last or (several and f"{several[1]} {several[3]}" == last)
            assert (several is not None) == (when.get("count", 1) > 1)
            assert several is None or int(several[2]) >= when["count"]


def test_of_several_conditions_what_holds_is_told() -> None:
    block, shop = blocks(1), config(report=SCALE)
    past = RecentPast(block, AS_OF, shop)
    leaf = {"event": "ticket"}
    either = Play.model_validate({"text": "Help", "when": {"any": [{"event": "nothing"}, leaf]}})
    both = Play.model_validate({"text": "Help", "when": {"all": [leaf, {"event": "x"}, leaf]}})
    one, other = (Play.model_validate({"text": "Help", "when": {"event": event}}) for event in ("ticket", "x"))
    assert past.because(Play(text="For all"), 0) is None
    for i in np.flatnonzero(past.meant_for(both)).tolist():
        assert past.because(either, i) == past.because(one, i)
        assert past.because(both, i) == f"{past.because(one, i)} and {past.because(other, i)}"
    assert past.meant_for(both).any()


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_unhappy_are_those_of_plain_loops(closed: bool, share: float) -> None:
    """A bad last rating, an open ticket, a ticket or a setback lately; a rating outside the scale says nothing."""
    unhappy = {"tickets": "ticket", "setbacks": ["refund"], **({"closed": "fixed"} if closed else {})}
    stage = {"name": "A", "enter": {"event": "x"}}
    settings_of = config(
        journey={"name": "j", "stages": [stage], "unhappy": unhappy},
        report=SCALE,
        eligibility={"unhappy": {"within": "14d", "rating": share}},
    )
    held = 0
    for seed in range(6):
        block, as_of = blocks(seed), AS_OF - 30 * DAY
        found = RecentPast(block, as_of, settings_of).unhappy()
        plain = [Plain(block, i, as_of) for i in range(len(block.customers))]
        expected = [
            (share > 0 and one.rating() <= 1 + share * 3)
            or one.last(["ticket", "refund"]) >= as_of - 14 * DAY
            or (closed and one.last(["ticket"]) > one.last(["fixed"]))
            for one in plain
        ]
        assert found.tolist() == expected
        held += sum(expected)
    assert held > 10


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ({}, "a condition has exactly one of event, attribute, date, last_rating, any, all; found none of them"),
        ({"event": "x", "last_rating": "bad"}, "found event and last_rating"),
        ({"last_rating": "bad", "within": "7d"}, "within belong to a condition with event, not beside last_rating"),
        ({"attribute": {"plan": {"in": "pro"}}}, "attribute plan: in takes a list"),
        ({"event": "x", "whithin": "7d"}, "unknown key 'whithin'. Did you mean 'within'?"),
    ],
)
def test_a_condition_that_says_nothing_clear_is_refused(condition: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Condition.model_validate(condition)
    assert told in str(caught.value)


def test_an_attribute_that_no_table_has_is_refused() -> None:
    play = {"text": "Do", "channels": ["email"], "when": {"attribute": {"plna": "pro"}}}
    stages = [{"name": "A", "enter": {"event": "a"}, "plays": [play]}]
    with pytest.raises(ValidationError, match=r"journey: A, plays\[0\]: there is no attribute 'plna'"):
        config(journey={"name": "j", "stages": stages})


def test_what_a_play_names_in_vain_is_told() -> None:
    """A misspelt event would keep a play from everybody for ever; in a preset, events may be missing."""
    play = {"text": "Remind", "channels": ["email"], "when": {"event": "bascket", "where": {"colour": "red"}}}
    own = {
        "name": "own",
        "unhappy": {"setbacks": "refnd"},
        "win_back": {"plays": [{"text": "Return", "when": {"event": "by"}}]},
        "stages": [{"name": "A", "enter": {"event": "a"}}, {"name": "B", "enter": {"event": "b"}, "plays": [play]}],
    }
    told = observability(config(journey=own), {"a", "b", "basket", "refund"}, {"rating"}).warnings
    assert told == (
        "B, play 'Remind': the event 'bascket' never occurs. Did you mean 'basket'?",
        "B, play 'Remind': no source provides the property 'colour'. Known: value, channel, rating",
        "win_back, play 'Return': the event 'by' never occurs. Did you mean 'b'?",
        "unhappy: the event 'refnd' never occurs, so it holds nobody back. Did you mean 'refund'?",
    )
    preset = config(journey="loyalty5")
    assert not [one for one in observability(preset, {"visit", "purchase"}, {"rating"}).warnings if "play" in one]
