"""Personas against plain loops: who is which one, where they stand, where they went, and what they are offered."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block
from tests.oracles.cases import a_journey, a_shop, moment, person, touch
from tests.oracles.examples import DAY, Setting, customers, instants, settings_of_journey
from tests.oracles.histories import Customer, Version, live

from cvj_ml.config import ValueSpec
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, stays
from cvj_ml.journey_analytics import personas as module
from cvj_ml.journey_analytics.dwell_times import (
    STILL_THERE,
    Question,
    count_dwell_times,
    dwell_times,
)
from cvj_ml.journey_analytics.personas import (
    LEAST,
    MOST,
    NO_PURCHASE,
    OTHERS,
    KnownCustomers,
    OfferedPlay,
    Personas,
    add_customers,
    known_customers,
    personas,
    rounded_up,
)

PERIOD = 4 * DAY
RULES: dict[str, object] = {"One": {"event": "visit"}, "Two": {"event": "buy"}}


def counted(question: Question, block: Block) -> KnownCustomers:
    held = stays(question.journey, block.touchpoints)
    return known_customers(question, block, dwell_times(block.touchpoints, held, question.as_of))


@settings(max_examples=30)
@given(customers(), settings_of_journey(), instants(), st.sampled_from([None, "plan"]))
def test_a_row_a_customer_is_that_of_a_plain_loop(
    people: list[Customer], setting: Setting, as_of: int, segment: str | None
) -> None:
    question = Question(Journey(setting.journey, setting.hidden), as_of, PERIOD, 0, segment, "rating", 0)
    parts = [counted(question, to_block([one])) for one in people]
    whole = counted(question, to_block(people))
    together = add_customers(parts)
    assert whole.rows.to_pylist() == together.rows.to_pylist()
    assert whole.moves.to_pylist() == together.moves.to_pylist()
    expected = []
    for one in people:
        rows = live(one, as_of)
        if min(row.visible for row in one.touches) >= as_of:
            continue
        spent = [row.value for row in rows if row.value is not None]
        expected.append((one.name, sum(spent), any(value > 0 for value in spent)))
    found = together.rows.select(["customer_id", "value", "bought"]).to_pylist()
    assert [tuple(row.values()) for row in found] == expected
    # The same people, arrivals and moves as the journey map has.
    block = to_block(people)
    held = stays(question.journey, block.touchpoints)
    spent = count_dwell_times(question, block, dwell_times(block.touchpoints, held, as_of))
    now = spent.dwell_times[spent.dwell_times["next"] == STILL_THERE].groupby("stage")["customers"].sum().to_dict()
    assert Counter(together.rows["stage"].to_pylist()) == now
    arrived = Counter(stage for stage in together.rows["arrived"].to_pylist() if stage > -2)
    assert arrived == spent.arrivals.groupby("stage")["customers"].sum().to_dict()
    recent = spent.dwell_times[spent.dwell_times["recent"]].groupby(["stage", "next"])["customers"].sum().to_dict()
    assert Counter((row["origin"], row["to"]) for row in together.moves.to_pylist()) == recent


def test_what_was_given_back_is_no_spending() -> None:
    """Silent error 141: whoever has a refund alone, written as a positive number, has not bought."""
    refunds = ValueSpec(events=("buy",), refunds=("review",))
    journey = Journey(a_journey(**RULES).model_copy(update={"value": refunds}), frozenset())
    people = [
        person(touch(1, 500), touch(2, 200, event="review"), name="a"),
        person(touch(2, 200, event="review"), name="b"),
    ]
    found = counted(Question(journey, moment(3), PERIOD, 0, None, "rating", 0), to_block(people)).rows
    assert found["value"].to_pylist() == [300, -200]
    assert found["bought"].to_pylist() == [True, False]


@given(st.integers(-(10**6), 10**9))
def test_thresholds_are_rounded_up_to_two_digits(amount: int) -> None:
    rounded = rounded_up(amount)
    assert rounded >= amount
    assert len(str(rounded).rstrip("0")) <= 2
    assert rounded <= max(amount * 1.1 + 1, 0)


def known(rows: list[tuple[str, int, int, bool]]) -> KnownCustomers:
    """Customers by group, value, stage, and whether they ever bought."""
    groups, values, stages, bought = (list(column) for column in zip(*rows, strict=True))
    table = pa.table(
        [
            pa.array([f"c{i:05}" for i in range(len(rows))]),
            pa.array(groups, pa.string()).dictionary_encode(),
            pa.array(values, pa.int64()),
            pa.array(bought),
            pa.array(stages, pa.int8()),
            pa.array([-2] * len(rows), pa.int8()),
        ],
        names=["customer_id", "group", "value", "bought", "stage", "arrived"],
    )
    moves = pa.table(
        {"row": pa.array([], pa.int64()), "origin": pa.array([], pa.int8()), "to": pa.array([], pa.int8())}
    )
    return KnownCustomers(table, moves)


CUSTOMER = st.tuples(
    st.sampled_from(("ads", "shop", "web", "(no channel)")),
    st.sampled_from((-500, 0, 100, 100, 250, 990, 1_010, 4_990, 100_000)),
    st.integers(-1, 1),
    st.sampled_from((True, True, False)),
)


@settings(max_examples=60)
@given(st.lists(CUSTOMER, min_size=1, max_size=60), st.integers(1, 6))
def test_a_named_persona_is_large_and_its_bounds_are_true(rows: list[tuple[str, int, int, bool]], least: int) -> None:
    rows = [(group, value if bought else min(value, 0), stage, bought) for group, value, stage, bought in rows]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "LEAST", least)
        found = personas(a_shop(RULES), known(rows))
    persona_of = found.of["persona"].to_pylist()
    assert found.of["customer_id"].to_pylist() == [f"c{i:05}" for i in range(len(rows))]
    groups: dict[str, list[tuple[str, int, int, bool]]] = defaultdict(list)
    for name, row in zip(persona_of, rows, strict=True):
        groups[name].append(row)
    assert [one.name for one in found.groups if one.name != OTHERS] == [
        one.name for one in found.groups[: len(groups) - (OTHERS in groups)]
    ]
    assert {one.name: one.people for one in found.groups} == {name: len(one) for name, one in groups.items()}
    named = [one for one in found.groups if one.name != OTHERS]
    assert len(named) <= MOST and [one.people for one in named] == sorted((one.people for one in named), reverse=True)
    for one in found.groups:
        mine = groups[one.name]
        assert one.value == pytest.approx(sum(value for _, value, _, _ in mine) / 100)
        assert [stage.here for stage in one.stages] == [sum(row[2] == k for row in mine) for k in (-1, 0, 1)]
        if one.name == OTHERS:
            continue
        assert one.people >= least
        assert len({row[0] for row in mine}) == 1 and len({row[3] for row in mine}) <= (
            1 if any(r[3] for r in rows) else 2
        )
        assert (NO_PURCHASE in one.name) == (not mine[0][3] and any(row[3] for row in rows))
        for _, value, _, _ in mine:
            assert one.above is None or value / 100 > one.above
            assert one.up_to is None or value / 100 <= one.up_to
    # Whoever is not in a named persona would be in one that is too small, or in none of the largest.
    kept = min((one.people for one in named), default=0)
    if len(named) < MOST:
        assert all(size < least for size in cells(rows, persona_of).values())
    else:
        assert all(size <= kept for size in cells(rows, persona_of).values())


def cells(rows: list[tuple[str, int, int, bool]], persona_of: list[str]) -> Counter[Any]:
    """The sizes of the others' groups, by a plain sort of what buyers spent."""
    spent = sorted(value for _, value, _, bought in rows if bought)
    edges = [rounded_up(spent[math.ceil(len(spent) * k / 3) - 1]) for k in (1, 2)] if spent else []
    found: Counter[Any] = Counter()
    for (group, value, _, bought), name in zip(rows, persona_of, strict=True):
        if name == OTHERS:
            found[group, sum(value > edge for edge in edges) if bought else -1] += 1
    return found


def shop_of(people: list[Customer], segment: str | None = None, lists: list[pa.Table] | None = None) -> Personas:
    config = a_shop(RULES, report={"segment": segment} if segment else {})
    question = Question(Journey(a_journey(**RULES)), moment(9), PERIOD, 0, segment, "rating", 0)
    return personas(config, counted(question, to_block(people)), lists or [])


def visitors(number: int, prefix: str, channel: str | None, *amounts: int, plan: str | None = None) -> list[Customer]:
    return [
        person(
            touch(1, event="visit", channel=channel),
            *(touch(6 + k, value) for k, value in enumerate(amounts)),
            name=f"{prefix}{i:03}",
            versions=[Version(moment(0), {"plan": plan})] if plan else (),
        )
        for i in range(number)
    ]


def test_names_say_how_people_came_and_what_they_spend() -> None:
    people = [
        *visitors(120, "a", "search"),
        *visitors(110, "b", "search", 9_000),
        *visitors(105, "c", "mail", 1_234),
        *visitors(60, "d", None, 100),
        *visitors(60, "e", "web", 100),
    ]
    found = shop_of(sorted(people, key=lambda one: one.name))
    assert [(one.name, one.people, one.above, one.up_to) for one in found.groups] == [
        ("came through search, no purchases yet", 120, None, None),
        ("came through search, spends most", 110, 13.0, None),
        ("came through mail, spends in between", 105, 1.0, 13.0),
        (OTHERS, 120, None, None),
    ]
    assert found.groups[1].value == 110 * 90
    first, second = found.groups[:2]
    assert [(one.stage, one.here, one.came) for one in first.stages] == [(-1, 0, 0), (0, 120, 0), (1, 0, 0)]
    assert [(one.stage, one.here, one.came, one.left) for one in second.stages][1:] == [
        (0, 0, 0, 110),
        (1, 110, 110, 0),
    ]
    assert [(one.origin, one.to, one.people) for one in second.moves] == [(0, 1, 110)]


def test_without_channels_and_values_everybody_is_one() -> None:
    assert [one.name for one in shop_of(visitors(LEAST, "a", None)).groups] == ["everybody"]
    assert [one.name for one in shop_of(visitors(LEAST - 1, "a", None)).groups] == [OTHERS]
    assert [one.name for one in shop_of(visitors(LEAST, "a", None, 500)).groups] == ["has bought"]


def test_a_segment_decides_where_there_is_one_and_unknown_is_no_persona() -> None:
    people = [*visitors(100, "a", "search", 500, plan="gold"), *visitors(300, "b", "search")]
    found = shop_of(people, "plan")
    assert [(one.name, one.people) for one in found.groups] == [("plan: gold", 100), (OTHERS, 300)]


def test_the_best_play_is_offered_to_most_and_never_to_control() -> None:
    people = [*visitors(100, "a", "search"), *visitors(100, "b", "mail")]
    rows = [
        *((f"a{i:03}", "Call", "phone", "target") for i in range(20)),
        *((f"a{i:03}", "Write", "mail" if i % 3 else "post", "target") for i in range(30, 60)),
        *((f"a{i:03}", "Call", "phone", "control") for i in range(60, 100)),
        *((f"b{i:03}", None, None, "target") for i in range(50)),
        ("somebody else", "Call", "phone", "target"),
    ]
    table = pa.table(
        {
            name: pa.array(list(column), pa.string())
            for name, column in zip(("customer_id", "play", "channel", "group"), zip(*rows, strict=True), strict=True)
        }
    )
    # On two lists with one play: one person.
    again = table.slice(30, 10)
    found = {one.name: one.play for one in shop_of(people, lists=[table, again]).groups}
    assert found == {"came through search": OfferedPlay("Write", "mail", 30), "came through mail": None}


def test_a_row_a_customer_takes_little_memory() -> None:
    """Some 40 bytes a customer beside the id, so that millions fit beside a night."""
    one = known([("ads", int(value), 0, True) for value in np.arange(10_000)])
    assert one.rows.nbytes / 10_000 < 40
