"""Lists ranked by what a contact changes, whom chance adds to them, and whom a contact would harm."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lists.test_lists import AS_OF, config, names, scores

from cvj_ml.journey import Journey
from cvj_ml.lists.eligibility import HELD_BACK
from cvj_ml.lists.ranked_list import RankedList, summarise
from cvj_ml.lists.ranking import rank
from cvj_ml.models.bundle.bundle import ModelEvidence
from cvj_ml.models.uplift.effect_model import EffectModel
from cvj_ml.models.uplift.list_effect import EffectGroups, ListEffect, column_of
from cvj_ml.report.list_view import list_view
from cvj_ml.report.plan import SHORT, plan_of
from cvj_ml.scoring.scores_table import StoredTable

LIST = "visitor__buyer__30d"
GROUPS = EffectGroups(
    np.array([-0.02, 0.02]), np.array([-0.05, 0.0, 0.06]), np.array([-0.08, -0.03, 0.02]), np.array([-0.02, 0.03, 0.1])
)
EFFECT = ListEffect(
    LIST,
    "reach",
    {"Visitor": "p_reach_buyer_30d"},
    EffectModel((), np.array([0.04]), np.array([0.01]), np.array([1.0]), 1000, 900),
    GROUPS,
    0.1,
    True,
    f"{LIST}: ranked by effect.",
    (0.04, 0.02, 0.06),
    (0.02, 0.01, 0.03),
    0,
)


def list_of(
    probability: list[float], change: list[float | None], effect: ListEffect = EFFECT, **settings: Any
) -> RankedList:
    capacity = settings.pop("capacity", None)
    spec = {"from": "Visitor", "to": "Buyer", "horizon": "30d", "capacity": capacity}
    table = scores(names(len(probability)), probability)
    table = table.append_column(column_of(LIST), pa.array(change, pa.float64()))
    made = config(lists=[spec], **settings)
    (found,) = rank(made, StoredTable.of(table), Journey(made.journey), AS_OF, ModelEvidence(effects=(effect,)))
    return found


def test_who_is_changed_most_comes_first_and_the_unsupported_come_last() -> None:
    """Silent error 47: of customers whose like was never listed nobody knows the change."""
    found = list_of([0.5, 0.2, 0.3, 0.05, 0.09], [0.03, 0.08, 0.08, 0.5, 0.6])
    rows = found.rows.to_pylist()
    assert [row["customer_id"] for row in rows] == ["c00002", "c00001", "c00000", "c00004", "c00003"]
    # What was found among people with as large an effect is told, and nothing of whom nobody knows.
    assert [row["incremental_probability"] for row in rows] == [0.06, 0.06, 0.06, None, None]
    assert [row["response_type"] for row in rows] == [*["persuadable"] * 3, None, None]
    assert (rows[0]["incremental_low"], rows[0]["incremental_high"]) == (0.02, 0.1)
    assert found.ranked_by == "incremental"


def test_an_effect_that_may_not_rank_is_told_and_changes_no_order() -> None:
    told = list_of([0.5, 0.2, 0.3], [-0.05, 0.08, None], replace(EFFECT, ranks=False))
    assert told.rows["customer_id"].to_pylist() == ["c00000", "c00002", "c00001"]
    assert told.rows["incremental_probability"].to_pylist() == [-0.05, None, 0.06]
    assert told.rows["incremental_low"].to_pylist() == [-0.08, None, 0.02]
    assert told.left_out["do_not_disturb"] == 0
    assert told.ranked_by == "probability"
    assert told.rows["response_type"].to_pylist() == ["do_not_disturb", None, "persuadable"]


def test_whom_a_contact_harms_is_held_back_and_counted() -> None:
    found = list_of([0.5, 0.2, 0.3, 0.05], [-0.05, 0.08, -0.021, -0.05])
    assert found.rows["customer_id"].to_pylist() == ["c00001", "c00003"], "of the last one nobody knows"
    assert found.left_out["do_not_disturb"] == 2
    (row,) = summarise([found]).to_pylist()
    assert (row["do_not_disturb"], row["eligible"], row["listed"], row["ranked_by"]) == (2, 2, 2, "incremental")
    assert row["incremental_moves"] == pytest.approx(
        sum(one["incremental_probability"] or 0.0 for one in found.of_group("target").to_pylist())
    )


def test_every_reason_to_hold_people_back_is_told_on_the_first_screen() -> None:
    assert {*HELD_BACK} == SHORT.keys()
    found = list_of([0.5, 0.2, 0.3, 0.05], [-0.05, 0.08, -0.021, -0.05])
    made = config(lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d"}])
    plan = plan_of(made, [found], AS_OF, 0, {})
    assert plan.held_back == 2 and plan.tiles(None)[-1].text == "2 harmed by a contact"


def test_a_list_ends_where_contacts_bring_too_little() -> None:
    """The size is recommended by what the list is ranked by: the likely whom nothing changes do not lengthen it."""
    change = [0.1, 0.1, 0.01, 0.01, 0.0]
    found = list_of([0.2, 0.2, 0.9, 0.9, 0.9], change, list_size={"step": 2, "least": 0.5})
    assert found.rows["customer_id"].to_pylist() == ["c00000", "c00001"]
    assert (found.size.first_moves, found.size.following_moves) == pytest.approx((0.2, 0.02))
    nobody = list_of([0.2, 0.3], [0.0, -0.01], list_size={"step": 1})
    assert (len(nobody.rows), nobody.not_listed["list_full"]) == (0, 2)


def test_chance_adds_the_harmed_where_there_is_room_for_all_others() -> None:
    """Ten harmed of forty and a capacity for everybody: a tenth of the places are drawn among the harmed."""
    control = {"explore_who": 0.1, "salt": "s", "share": 0.0}
    found = list_of([0.5] * 40, [-0.1] * 10 + [0.1] * 30, capacity=100, control=control)
    assert (len(found.rows), found.explored, found.left_out["do_not_disturb"]) == (34, 4, 6)
    assert {row["selection_probability"] for row in found.rows.to_pylist()} == {1.0, 0.4}


def test_a_list_by_worth_is_not_ranked_by_effect() -> None:
    """What was shown to find more was compared with ranking by probability."""
    worth = {"stage_value": {"Buyer": 100}}
    spec = {"from": "Visitor", "to": "Buyer", "horizon": "30d", "by": "expected_value"}
    made = config(lists=[spec], **worth)
    table = scores(names(2), [0.5, 0.2]).append_column(column_of(LIST), pa.array([0.01, 0.09]))
    (found,) = rank(made, StoredTable.of(table), Journey(made.journey), AS_OF, ModelEvidence(effects=(EFFECT,)))
    assert (found.ranked_by, found.rows["customer_id"].to_pylist()) == ("expected_value", names(2))


@pytest.mark.parametrize("happens, expected", [(0.7, "sure_thing"), (0.2, "lost_cause")])
def test_sure_things_and_lost_causes_need_an_interval_below_the_average(happens: float, expected: str) -> None:
    assert EFFECT.response_type(np.array([0.0]), np.array([happens])) == [expected]
    wide = replace(EFFECT, groups=replace(GROUPS, high=np.array([-0.02, 0.05, 0.1])))
    assert wide.response_type(np.array([0.0]), np.array([happens])) == [None]


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.one_of(st.none(), st.floats(-0.2, 0.2))), min_size=1, max_size=40),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.booleans(),
)
def test_chance_adds_to_a_list_what_plain_loops_draw(
    people: list[tuple[float, float | None]], capacity: int, share: float, ranks: bool
) -> None:
    effect = replace(EFFECT, ranks=ranks)
    probability, change = [one for one, _ in people], [two for _, two in people]
    control = {"explore_who": share, "salt": "s"}
    found = list_of(probability, change, effect, capacity=capacity, control=control)
    ids = names(len(people))

    def known(i: int) -> bool:
        return ranks and change[i] is not None and probability[i] >= effect.support

    def harmed(i: int) -> bool:
        return known(i) and (change[i] or 0.0) < GROUPS.edges[0]

    def place(i: int) -> tuple[float, float, str]:
        return (-(change[i] or 0.0) if known(i) else 1.0, -probability[i], ids[i])

    everybody = range(len(people))
    ranked = sorted((i for i in everybody if not harmed(i)), key=place)
    size = min(capacity, len(people))
    tried = int(share * size)
    first = min(size - tried, len(ranked))
    pool = [*ranked[first:], *sorted((i for i in everybody if harmed(i)), key=place)]
    drawn: list[int] = []
    if tried and len(pool) > tried:
        keys = {i: hashlib.sha256(f"s\x1fexplore\x1f2024-11-01\x1f{ids[i]}".encode()).digest() for i in pool}
        drawn = sorted(pool, key=keys.__getitem__)[:tried]
    following = [i for i in ranked[first:] if i not in drawn]
    # Whoever follows has the places that are left.
    expected = (
        {*ranked[:first], *drawn, *following[: max(capacity - first - len(drawn), 0)]} if drawn else {*ranked[:size]}
    )
    rows = found.rows.to_pylist()
    assert {row["customer_id"] for row in rows} == {ids[i] for i in expected}
    for row in rows:
        chosen = ids.index(row["customer_id"]) in drawn
        assert row["selection_probability"] == (tried / len(pool) if chosen else 1.0)
    assert found.explored == len(drawn)
    kept_back = sum(harmed(i) and i not in drawn for i in everybody)
    assert found.left_out["do_not_disturb"] == kept_back
    assert found.in_stage == len(people) == len(rows) + kept_back + found.not_listed["list_full"]


def test_a_column_of_a_long_list_fits_into_a_database() -> None:
    long = [f"at-risk-contractual__{'-'.join(['advocate'] * 6)}__{days}d" for days in (30, 60)]
    columns = {column_of(name) for name in long}
    assert len(columns) == 2 and all(len(column) == 63 for column in columns)
    assert column_of(LIST) == "incremental_visitor__buyer__30d"


def test_each_night_draws_others() -> None:
    people = [0.5 - i / 1000 for i in range(300)]
    made = config(
        lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d", "capacity": 40}], control={"explore_who": 0.5}
    )
    drawn = []
    for night in (AS_OF, AS_OF + 24 * 3600 * 10**6):
        table = StoredTable.of(scores(names(300), people))
        (found,) = rank(made, table, Journey(made.journey), night)
        rows = found.rows.to_pylist()
        drawn.append({row["customer_id"] for row in rows if row["selection_probability"] < 1})
        assert [row["customer_id"] for row in rows[:20]] == names(20)
    assert all(len(one) == 20 for one in drawn) and len(drawn[0] & drawn[1]) < 10


def test_the_page_says_what_contacts_change_and_what_each_play_brings() -> None:
    plays = [{"text": "write", "channels": ["email"], "cost": 2.0}]
    stages = [{"name": name, "enter": {"event": name.lower()}} for name in ("Visitor", "Buyer", "Fan")]
    stages[1]["plays"] = plays
    more = {"journey": {"name": "short", "stages": stages}, "stage_value": {"Buyer": 100}, "control": {"share": 0.0}}
    made = config(**more)
    found = list_of([0.5, 0.2, 0.3, 0.4], [0.08, 0.06, None, -0.05], **more)
    view = list_view(found, "", made)
    assert view.contacts == (
        "What a contact changes, as past control groups and experiments show: +4.0 points (+2.0 to +6.0) on average."
        " People are ranked by it, since that brings more than choosing the likeliest: +2.0 points (+1.0 to +3.0) a"
        " contact. Contacting tonight's 3 people is expected to bring +0 on top of those who do it anyway. Nothing is"
        " known of people whose chance is below 10%: hardly anybody like them was ever on this list."
    )
    assert view.plays == (
        "write through email: 3 people, +0.1 on top of those who do it anyway, worth 6.00 after costs of 6.00",
    )
    assert [row.change for row in view.rows] == [
        "contact: +6.0 points (+2.0 to +10.0), a contact helps",
        "contact: +6.0 points (+2.0 to +10.0), a contact helps",
        "",
    ]
    still = list_of([0.5, 0.2], [0.08, 0.06], replace(EFFECT, ranks=False, contacts_needed=1200), **more)
    assert (
        "That does not show yet who gains more than others; about 1,200 more contacts might, so"
        in list_view(still, "", made).contacts
    )
