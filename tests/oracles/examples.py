"""Small random histories and journeys for hypothesis: few names, few instants, so that things meet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import strategies as st
from tests.oracles.blocks import in_order
from tests.oracles.histories import Customer, Touch, Version

from cvj_ml.config import JourneySpec

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 19_700 * DAY
"""A midnight UTC, the first instant of the examples."""

SPAN = 16
MINOR_UNITS = 100
EVENTS = ("buy", "mail", "review", "visit")
OUTBOUND = frozenset({"mail"})
CHANNELS = ("ads", "shop", "web")
PLANS = ("free", "gold")
STAGES = ("One", "Two", "Three", "Four")

# Whole days, and a microsecond around them; the session gap, and around it.
_WITHIN_A_DAY = (0, 0, 0, 0, 1, DAY - 1, 30 * MINUTE, 30 * MINUTE + 1, HOUR, HOUR, 13 * HOUR)
_DELAYS = (0, 0, 0, 0, 0, 0, 1, HOUR, DAY, 3 * DAY, 5 * DAY)
_VALUES = (None, None, 0, 5, 1_000, 5_000, 5_000, 10_000, 20_000, 1, -1_000, -5_000)

# One number for a touchpoint is far cheaper to draw (and to shrink) than one for each of its columns.
# The day comes last: `close_histories` takes the low numbers, which are the early days.
_SIZES = (len(_WITHIN_A_DAY), len(_DELAYS), len(EVENTS), len(CHANNELS) + 1, len(_VALUES), 6, 3, 8, 3, SPAN)
_COMBINATIONS = 1
for _size in _SIZES:
    _COMBINATIONS *= _size


def instants() -> st.SearchStrategy[int]:
    """Instants at which a question may be asked, likely to meet touchpoints and window edges."""
    return st.builds(
        lambda day, moment: START + day * DAY + moment,
        st.integers(1, SPAN + 4),
        st.sampled_from((0, 0, 0, 1, -1, 30 * MINUTE, HOUR)),
    )


@st.composite
def customers(draw: st.DrawFn, most: int = 4, touchpoints: int = 15) -> list[Customer]:
    """One to ``most`` customers in order of their names, each with at least one touchpoint."""
    return [draw(customer(f"c{number}", touchpoints)) for number in range(draw(st.integers(1, most)))]


@st.composite
def customer(draw: st.DrawFn, name: str, touchpoints: int = 15) -> Customer:
    """One customer: clustered and equal instants, late rows, versions, negative values, nulls, outbound."""
    numbers = draw(st.lists(st.integers(0, _COMBINATIONS - 1), min_size=1, max_size=touchpoints))
    return _customer(name, numbers, sorted(draw(st.lists(instants(), max_size=3))))


def _customer(name: str, numbers: Sequence[int], known: Sequence[int]) -> Customer:
    touches: list[Touch] = []
    for number in numbers:
        touch, versions = _touch(number)
        # A version is seen anew, perhaps changed in everything, and replaces the one before it from then on.
        line = [touch, *(_correction(touch, number + k, k) for k in range(1, versions + 1))]
        line.sort(key=lambda one: one.visible)
        for this, following in itertools.pairwise(line):
            touches.append(replace(this, superseded=following.visible))
        touches.append(line[-1])
    learned = [
        Version(at, {"plan": (*PLANS, None)[(at // DAY + i) % 3], "rating": (1.0, None, 4.0)[(at // DAY + 2 * i) % 3]})
        for i, at in enumerate(known)
    ]
    return Customer(name, in_order(touches), tuple(learned))


def _touch(number: int) -> tuple[Touch, int]:
    parts = []
    for size in _SIZES:
        number, part = divmod(number, size)
        parts.append(part)
    moment, delay, event, channel, value, rating, plan, versions, kind, day = parts
    date_only = kind == 2
    occurred = START + day * DAY + (0 if date_only else _WITHIN_A_DAY[moment])
    return (
        Touch(
            occurred=occurred,
            visible=occurred + _DELAYS[delay],
            superseded=None,
            day=occurred // DAY,
            event=EVENTS[event],
            channel=(None, *CHANNELS)[channel],
            value=_VALUES[value],
            inbound=EVENTS[event] not in OUTBOUND,
            properties={"rating": (None, 1.0, 2.0, 3.0, 4.0, 5.0)[rating], "plan": (None, *PLANS)[plan]},
            date_only=date_only,
        ),
        max(0, versions - 5),
    )


def _correction(touch: Touch, number: int, k: int) -> Touch:
    other, _ = _touch(number * 7_919 % _COMBINATIONS)
    visible = max(touch.visible + (k * HOUR, k * DAY, 2 * k * DAY)[number % 3], other.occurred)
    if number % 2:
        return replace(touch, visible=visible, value=other.value)
    return replace(other, visible=visible)


@dataclass(frozen=True)
class Setting:
    """A journey with the stages that nobody can see."""

    journey: JourneySpec
    hidden: frozenset[str]


@st.composite
def settings_of_journey(draw: st.DrawFn) -> Setting:
    """A journey over the whole grammar; not all stages are hidden, and none that others follow."""
    names = STAGES[: draw(st.integers(1, len(STAGES)))]
    order = draw(st.permutations(names))
    stages = []
    for name in names:
        # Only what stands earlier in the order may be followed: no cycles, chains up to the length of the journey.
        free = order[: order.index(name)]
        stages.append({"name": name, "enter": draw(_rule(tuple(free), depth=2))})
    same_day = draw(st.sampled_from(("counts", "counts", "later")))
    journey = JourneySpec.model_validate({"name": "random", "same_day": same_day, "stages": stages})
    followed = set().union(*(stage.enter.follows() for stage in journey.stages))
    loose = [name for name in names if name not in followed][: len(names) - 1]
    hidden = draw(st.sets(st.sampled_from(loose))) if loose and draw(st.integers(0, 3)) == 0 else set()
    return Setting(journey, frozenset(hidden))


@st.composite
def leaving(draw: st.DrawFn) -> Setting:
    """A journey with stages that can be left: by the grammar, attributes and silence, alone and together."""
    setting = draw(settings_of_journey())
    stages = [stage.model_dump(mode="json", exclude_defaults=True) for stage in setting.journey.stages]
    for stage in stages[: draw(st.integers(1, len(stages)))]:
        if draw(st.integers(0, 3)) == 0:
            stage["enter"] = draw(_mixed((), depth=1))
        ways = draw(st.lists(_way_to_leave(), min_size=1, max_size=3))
        stage["leave"] = ways[0] if len(ways) == 1 else {"any": ways}
    journey = {"name": "random", "same_day": setting.journey.same_day, "stages": stages}
    return Setting(JourneySpec.model_validate(journey), setting.hidden)


@st.composite
def lives(draw: st.DrawFn, most: int = 3) -> tuple[list[Customer], Setting]:
    """Customers and a journey with stages that can be left; where that asks for attributes, every time is known.

    What dates mean beside attributes is tested by hand.
    """
    people, setting = draw(customers(most)), draw(leaving())
    if any(leaf.attribute is not None for leaf in setting.journey.leaves()):
        people = [with_hours(one) for one in people]
    return people, setting


def with_hours(one: Customer) -> Customer:
    """The same customer, of whom every time is known."""
    rows = tuple(replace(row, date_only=False, day=row.occurred // DAY) for row in one.touches)
    return replace(one, touches=rows)


@st.composite
def _way_to_leave(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.sampled_from(("plain", "plain", "leaf", "rule", "mixed", "silence")))
    if shape == "silence":
        return {"silent_for": draw(st.sampled_from(("1h", "1d", "2d", "5d")))}
    if shape == "mixed":
        return draw(_mixed((), depth=1))
    return draw({"plain": _plain_leaf(), "leaf": _leaf(), "rule": _rule((), depth=1)}[shape])


@st.composite
def by_attributes(draw: st.DrawFn) -> JourneySpec:
    """Up to three stages whose rules ask for attributes, alone and among other rules, before and after each other."""
    names = STAGES[: draw(st.integers(1, 3))]
    stages = [{"name": name, "enter": draw(_mixed(names[:i], depth=2))} for i, name in enumerate(names)]
    return JourneySpec.model_validate({"name": "random", "stages": stages})


@st.composite
def _mixed(draw: st.DrawFn, free: tuple[str, ...], depth: int) -> dict[str, Any]:
    shape = draw(st.sampled_from(("state", "leaf", "any", "all", "all"))) if depth else draw(_STATE_OR_LEAF)
    rule: dict[str, Any]
    if shape == "state":
        names = draw(st.lists(st.sampled_from(("plan", "rating")), min_size=1, max_size=2, unique=True))
        rule = {"attribute": {name: dict([draw({"plan": _TEXT, "rating": _NUMBER}[name])]) for name in names}}
    elif shape == "leaf":
        rule = draw(_plain_leaf())
    else:
        rule = {shape: draw(st.lists(_mixed(free, depth - 1), min_size=1, max_size=3))}
    if free and draw(st.integers(0, 2)) == 0:
        rule["after"] = draw(st.sampled_from(free))
    return rule


_STATE_OR_LEAF = st.sampled_from(("state", "leaf"))


@st.composite
def _rule(draw: st.DrawFn, free: tuple[str, ...], depth: int) -> dict[str, Any]:
    shape = draw(st.sampled_from(("leaf", "leaf", "leaf", "any", "all"))) if depth else "leaf"
    rule: dict[str, Any] = (
        draw(_leaf()) if shape == "leaf" else {shape: draw(st.lists(_rule(free, depth - 1), min_size=1, max_size=3))}
    )
    if free and draw(st.integers(0, 2)) == 0:
        rule["after"] = draw(st.sampled_from(free))
    return rule


_EVENT = st.one_of(
    st.just("*"), st.sampled_from(EVENTS), st.lists(st.sampled_from(EVENTS), min_size=1, max_size=3, unique=True)
)
_WIDTH = st.sampled_from(("1h", "1d", "2d", "3d", "1w"))
_COMPARISON = st.sampled_from(("eq", "ne", "gt", "gte", "lt", "lte"))
_TEXT = st.one_of(
    st.tuples(st.sampled_from(("eq", "ne")), st.sampled_from((*PLANS, "none"))),
    st.tuples(st.just("in"), st.lists(st.sampled_from((*PLANS, "none")), min_size=1, max_size=2)),
)
_CHANNEL = st.one_of(
    st.tuples(st.sampled_from(("eq", "ne")), st.sampled_from(CHANNELS)),
    st.tuples(st.just("in"), st.lists(st.sampled_from((*CHANNELS, "fax")), min_size=1, max_size=2)),
)
_NUMBER = st.one_of(
    st.tuples(_COMPARISON, st.sampled_from((1, 2.5, 3, 4.0, 5))),
    st.tuples(st.just("in"), st.lists(st.sampled_from((1, 2, 4.0)), min_size=1, max_size=2)),
)
_VALUE = st.one_of(
    st.tuples(_COMPARISON, st.sampled_from((0, 0.05, 0.01, 10, 50.0, -10))),
    st.tuples(st.just("in"), st.lists(st.sampled_from((0.05, 10, 50)), min_size=1, max_size=2)),
)
_TESTS = {"plan": _TEXT, "channel": _CHANNEL, "rating": _NUMBER, "value": _VALUE}


@st.composite
def windowed(draw: st.DrawFn) -> JourneySpec:
    """A journey of one stage, entered by one condition on a window of any touchpoints."""
    leaf: dict[str, Any] = {"event": "*"}
    condition = draw(st.sampled_from(("count", "sum", "count and sum", "growth", "distinct", "distinct and sum")))
    if condition == "growth":
        leaf["growth"] = {"window": draw(_WIDTH), "ratio": draw(st.sampled_from((0.5, 1, 2)))}
    else:
        leaf["within"] = draw(_WIDTH)
    if "count" in condition or "distinct" in condition:
        leaf["count"] = draw(st.integers(2, 5))
    if "sum" in condition:
        leaf["value_at_least"] = draw(st.sampled_from((50, 150, 300)))
    if "distinct" in condition:
        leaf["distinct"] = draw(st.sampled_from(("plan", "rating", "channel")))
    return JourneySpec.model_validate({"name": "random", "stages": [{"name": "One", "enter": leaf}]})


def close_histories(seed: int, number: int) -> list[Customer]:
    """Customers with many touchpoints in few days, so that windows are full and their edges met."""
    random = Random(seed)
    return [
        _customer(f"c{i:03}", [random.randrange(_COMBINATIONS // SPAN * 6) for _ in range(random.randint(5, 16))], ())
        for i in range(number)
    ]


@st.composite
def following(draw: st.DrawFn) -> JourneySpec:
    """A journey whose later stages come after earlier ones, by touchpoints that several of them could use."""
    first = draw(st.sampled_from(("leaf", "any", "any", "all")))
    one = draw(_plain_leaf()) if first == "leaf" else {first: draw(st.lists(_plain_leaf(), min_size=2, max_size=3))}
    two = {**draw(_plain_leaf()), "after": "One"}
    three = {
        "any": draw(st.lists(_plain_leaf(), min_size=1, max_size=2)),
        "after": draw(st.sampled_from(("One", "Two"))),
    }
    stages = [{"name": name, "enter": rule} for name, rule in (("One", one), ("Two", two), ("Three", three))]
    same_day = draw(st.sampled_from(("counts", "counts", "counts", "later")))
    return JourneySpec.model_validate({"name": "random", "same_day": same_day, "stages": stages})


@st.composite
def _plain_leaf(draw: st.DrawFn) -> dict[str, Any]:
    leaf: dict[str, Any] = {"event": draw(st.lists(st.sampled_from(EVENTS[:3]), min_size=1, max_size=2, unique=True))}
    condition = draw(st.sampled_from(("", "count", "sum", "sum", "distinct", "distinct")))
    if condition in ("count", "distinct"):
        leaf["count"] = draw(st.integers(1, 3))
    if condition == "sum":
        leaf["value_at_least"] = draw(st.sampled_from((10, 20, 30)))
    if condition == "distinct":
        leaf["distinct"] = draw(st.sampled_from(("plan", "rating", "value", "channel")))
    if draw(st.integers(0, 3)) == 0:
        leaf["where"] = draw(
            st.sampled_from(({"rating": {"gte": 3}}, {"value": {"gt": 0}}, {"channel": {"eq": "web"}}))
        )
    return leaf


def crowded_days(seed: int, number: int) -> list[Customer]:
    """Customers with several touchpoints on each of two days, most without hours: what counts there is a choice."""
    random = Random(seed)

    def one() -> Touch:
        day, date_only = random.randrange(2), random.random() < 0.7
        occurred = START + day * DAY + (0 if date_only else random.choice((0, HOUR, 5 * HOUR)))
        event = random.choice(EVENTS[:3])
        return Touch(
            occurred=occurred,
            visible=occurred + random.choice((0, 0, 0, HOUR, DAY)),
            superseded=None,
            day=occurred // DAY,
            event=event,
            channel=random.choice((None, *CHANNELS)),
            value=random.choice((None, -1_000, 1_000, 2_000)),
            inbound=event not in OUTBOUND,
            properties={"rating": random.choice((None, 1.0, 3.0, 5.0)), "plan": random.choice((None, *PLANS))},
            date_only=date_only,
        )

    return [
        Customer(f"c{i:03}", in_order([one() for _ in range(random.randint(1, 7))]), ()) for i in range(number)
    ]  # fmt: skip


@st.composite
def _leaf(draw: st.DrawFn) -> dict[str, Any]:
    leaf: dict[str, Any] = {"event": draw(_EVENT)}
    filtered = draw(st.integers(0, 2)) == 0
    where = draw(st.lists(st.sampled_from(sorted(_TESTS)), min_size=1, max_size=2, unique=True)) if filtered else []
    if where:
        leaf["where"] = {name: dict([draw(_TESTS[name])]) for name in where}
    condition = draw(st.sampled_from(("", "count", "sum", "count and sum", "growth", "distinct", "distinct and sum")))
    if "count" in condition or "distinct" in condition:
        leaf["count"] = draw(st.integers(1, 4))
    if "sum" in condition:
        leaf["value_at_least"] = draw(st.sampled_from((0, 0.05, 49.95, 50, 100.5, 150, -20)))
    if "distinct" in condition:
        leaf["distinct"] = draw(st.sampled_from(("plan", "rating", "channel")))
    if condition == "growth":
        leaf["growth"] = {"window": draw(_WIDTH), "ratio": draw(st.sampled_from((0.5, 1, 2)))}
        leaf["count"] = draw(st.integers(1, 2))
    if condition not in ("", "growth") and (leaf.get("count", 1) > 1 or "sum" in condition) and draw(st.booleans()):
        leaf["within"] = draw(_WIDTH)
    return leaf
