"""What changed between two nights: every row as plain loops would tell it, and numbers that add up."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.config import DAY
from cvj_ml.lists.changes import CHANGES, DROPPED, Changes, Comparison, NotComparable, compare
from cvj_ml.lists.eligibility import REASONS, WHY
from cvj_ml.lists.standing import BETWEEN, Standing
from cvj_ml.scoring.scores_table import StoredTable

STAGES = ("Visitor", "Buyer", "Fan")
LISTS = {"visitor__buyer": "Visitor", "visitor__fan": "Visitor", "buyer__fan": "Buyer"}
BEFORE, TONIGHT = 20_000 * DAY, 20_001 * DAY
REASON = "contact_cap"


class Place(NamedTuple):
    """Where a customer stands in one night."""

    stage: str | None
    lists: tuple[str, ...]


Night = dict[str, Place]


@st.composite
def nights(draw: st.DrawFn) -> tuple[Night, tuple[str, ...]]:
    """Draw who stands where, and which lists are made."""
    made = tuple(draw(st.lists(st.sampled_from(list(LISTS)), unique=True)))
    night: Night = {}
    for customer in draw(st.lists(st.sampled_from("abcdefgh"), unique=True)):
        stage = draw(st.sampled_from([None, *STAGES]))
        night[customer] = Place(stage, tuple(name for name in made if LISTS[name] == stage and draw(st.booleans())))
    return dict(sorted(night.items())), made


def standing(night: Night, made: tuple[str, ...], as_of: int, erased: int = 0) -> Standing:
    scores = pa.table(
        {
            "customer_id": pa.array(night, pa.string()),
            "stage": pa.array([one.stage for one in night.values()], pa.string()),
        }
    )
    lists = {
        name: pa.table(
            {
                "customer_id": pa.array([who for who, one in night.items() if name in one.lists], pa.string()),
                "group": pa.array([group(who) for who, one in night.items() if name in one.lists], pa.string()),
            }
        )
        for name in made
    }
    return Standing.of(as_of, StoredTable.of(scores), lists, erased)


def group(customer: str) -> str:
    return "control" if customer < "c" else "target"


def reasons_of(before: Night, tonight: Night) -> pa.Table:
    """The same reason for everybody who was on the plan and is asked about."""
    asked = [who for who, one in before.items() if one.lists and who in tonight and not tonight[who].lists]
    return pa.table([pa.array(asked, pa.string()), pa.array([REASON] * len(asked), pa.string())], schema=WHY)


def expected_rows(before: Night, tonight: Night, made: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows in plain loops."""
    order = (None, *STAGES)
    rows = []
    for who, now in tonight.items():
        was = before.get(who, Place(None, ()))
        plan = stage = why = None
        if who not in before:
            stage = "new"
        elif was.stage != now.stage:
            stage = "moved"
        if now.lists and not was.lists:
            plan = "new"
        elif was.lists and not now.lists:
            plan = "dropped"
            later = order.index(now.stage) - order.index(was.stage)
            why = "moved_on" if later > 0 else "moved_back" if later < 0 else REASON
            if not later and not set(was.lists) & set(made):
                why = "no_list"
        elif set(was.lists) != set(now.lists):
            plan = "other_list"
        if plan or stage:
            rows.append(
                {
                    "customer_id": who,
                    "plan_change": plan,
                    "from_list": set(was.lists),
                    "to_list": set(now.lists),
                    "why": why,
                    "stage_change": stage,
                    "from_stage": was.stage,
                    "to_stage": now.stage,
                    "group": group(who) if now.lists else None,
                }
            )
    return rows


def told(row: dict[str, Any]) -> dict[str, Any]:
    sets = {name: set(row[name].split(BETWEEN)) if row[name] else set() for name in ("from_list", "to_list")}
    return {name: value for name, value in row.items() if not name.startswith("base")} | sets


@given(nights(), nights(), st.integers(0, 3))
def test_rows_are_those_of_plain_loops_and_every_number_adds_up(
    one: tuple[Night, tuple[str, ...]], other: tuple[Night, tuple[str, ...]], erased: int
) -> None:
    (before, old), (tonight, made) = one, other
    found = compare(
        "last",
        standing(before, old, BEFORE, erased),
        standing(tonight, made, TONIGHT),
        reasons_of(before, tonight),
        STAGES,
    )
    CHANGES.check(found.rows)
    assert [told(row) for row in found.rows.to_pylist()] == expected_rows(before, tonight, made)
    planned = {who for who, was in before.items() if was.lists}, {who for who, now in tonight.items() if now.lists}
    assert_flow(found.plan, *planned)
    assert_flow(found.people, set(before), set(tonight))
    assert found.erased == erased
    for stage in (None, *STAGES):
        assert_flow(
            found.stages[stage],
            *({who for who, place in night.items() if place.stage == stage} for night in (before, tonight)),
        )
    for name in {*old, *made}:
        assert_flow(
            found.lists[name],
            *({who for who, place in night.items() if name in place.lists} for night in (before, tonight)),
        )
    assert found.lists.keys() == {*old, *made}
    # Whoever is gone is counted and not named.
    assert found.dropped.get("gone", 0) == len(planned[0] - set(tonight))
    assert not set(found.rows["customer_id"].to_pylist()) - set(tonight)
    told_why = [row["why"] for row in found.rows.to_pylist() if row["why"]]
    assert {name: n for name, n in found.dropped.items() if name != "gone"} == {
        name: told_why.count(name) for name in DROPPED if name in told_why
    }
    assert found.other_list == sum(row["plan_change"] == "other_list" for row in found.rows.to_pylist())
    assert found.moved_stage == sum(row["stage_change"] == "moved" for row in found.rows.to_pylist())


def assert_flow(flow: Any, before: set[str], now: set[str]) -> None:
    assert (flow.before, flow.entered, flow.left, flow.now) == (
        len(before), len(now - before), len(before - now), len(now)
    )  # fmt: skip


def test_nobody_is_dropped_without_a_reason() -> None:
    before, tonight = {"a": Place("Visitor", ("visitor__buyer",))}, {"a": Place("Visitor", ())}
    made = ("visitor__buyer",)
    nights = standing(before, made, BEFORE), standing(tonight, made, TONIGHT)
    with pytest.raises(AssertionError, match="dropped from the plan without a reason"):
        compare("last", *nights, WHY.empty_table(), STAGES)


def test_rows_of_both_bases_stand_together() -> None:
    tonight = standing({"a": Place("Buyer", ()), "b": Place("Fan", ())}, (), TONIGHT)
    found = [
        compare(base, standing({"b": Place("Buyer", ())}, (), as_of), tonight, WHY.empty_table(), STAGES)
        for base, as_of in (("last", BEFORE), ("week", BEFORE - 7 * DAY))
    ]
    rows = Changes(tuple(found)).rows
    CHANGES.check(rows)
    assert [(row["customer_id"], row["base"]) for row in rows.to_pylist()] == [
        (who, base) for who in "ab" for base in ("last", "week")
    ]
    none = Changes((NotComparable("last", "no_night"), NotComparable("week", "journey", BEFORE)))
    assert len(none.rows) == 0 and none.rows.schema == CHANGES.schema


def test_every_reason_has_its_words() -> None:
    assert {*REASONS, "channel_full", "list_full", "gone"} < DROPPED.keys()
    assert Comparison.__doc__ and all(DROPPED.values())
