"""Plays and channels that chance gives: as likely as TARGETS say, alike in both groups, and only what is open."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lists.test_eligibility import journey_of, two_stage_scores
from tests.lists.test_lists import AS_OF, config

from cvj_ml.config import DAY, Play
from cvj_ml.journey import Journey
from cvj_ml.lists.next_action import FULL, LISTED, NO_ROOM, Offer, serve
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.lists.ranking import rank
from cvj_ml.scoring.scores_table import StoredTable

PLAYS = [{"text": "Offer", "channels": ["email", "phone"]}, {"text": "Nudge", "channels": ["app"]}]


def listed(size: int, share: float, as_of: int = AS_OF, **settings: Any) -> RankedList:
    control = {"share": 0.5, "salt": "s", "explore_how": share}
    made = config(journey=journey_of(PLAYS), control=control, list_size={"least": 0}, **settings)
    (found,) = rank(made, StoredTable.of(two_stage_scores(size)), Journey(made.journey), as_of)
    return found


def test_a_share_of_the_listed_has_a_play_by_chance_and_its_probability_is_told() -> None:
    size, share = 6000, 0.3
    found, plain = listed(size, share).rows, listed(size, 0.0).rows
    assert {*zip(plain["play"].to_pylist(), plain["channel"].to_pylist(), strict=True)} == {("Offer", "email")}
    assert {*plain["play_probability"].to_pylist()} == {1.0}
    table = found.to_pandas()
    told = {("Offer", "email"): 0.7 + 0.1, ("Offer", "phone"): 0.1, ("Nudge", "app"): 0.1}
    for (play, channel), rows in table.groupby(["play", "channel"]):
        probability = told.pop((play, channel))
        assert rows["play_probability"].to_numpy() == pytest.approx(probability)
        for _, arm in rows.groupby("group"):
            of = (table["group"] == arm["group"].iloc[0]).sum()
            error = np.sqrt(probability * (1 - probability) / of)
            assert abs(len(arm) / of - probability) < 4 * error, "in control as in the target group"
    assert not told
    for name in ("customer_id", "rank", "group", "probability"):
        assert found[name].equals(plain[name]), "chance decides how, not who"
    again = listed(size, share, AS_OF + DAY).rows["play"]
    assert listed(size, share).rows["play"].equals(found["play"]) and not again.equals(found["play"])


@given(
    possible=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=8),
    channel=st.lists(st.integers(-1, 2), min_size=4, max_size=4),
    words=st.lists(st.sampled_from(["Ask", "Nudge"]), min_size=4, max_size=4),
    room=st.dictionaries(st.integers(0, 2), st.integers(0, 3)),
    capacity=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_who_is_served_has_the_first_offer_that_is_open(
    possible: list[list[bool]],
    channel: list[int],
    words: list[str],
    room: dict[int, int],
    capacity: int,
    seed: int,
) -> None:
    chance = np.random.default_rng(seed)
    orders: list[npt.NDArray[np.int64]] = [
        np.array([chance.permutation(4) for _ in possible], dtype=np.int64) for _ in range(2)
    ]
    for row in possible:  # whoever has no offer at all is no candidate
        row[0] |= not any(row)
    offers = [Offer(Play(text=words[k]), k, None, channel[k]) for k in range(4)]
    found = serve(*orders, np.array(possible), offers, room, capacity)
    left, served = dict(room), 0
    for i, mine in enumerate(possible):
        open_now = [k for k in range(4) if mine[k] and left.get(channel[k], 1) > 0]
        if served == capacity:
            assert (found.status[i:] == FULL).all()
            break
        if not open_now:
            assert found.status[i] == NO_ROOM
            continue
        first = [next(k for k in order[i].tolist() if k in open_now) for order in orders]
        assert (found.status[i], found.offer[i]) == (LISTED, first[0])
        # What stands in the row is words and a channel, which several plays may share.
        twins = [k for k in open_now if (words[k], channel[k]) == (words[first[0]], channel[first[0]])]
        probability = 0.6 * (first[1] in twins) + 0.4 * len(twins) / len(open_now)
        assert found.chance(0.4)[i] == pytest.approx(probability)
        served += 1
        if channel[first[0]] in left:
            left[channel[first[0]]] -= 1
    assert found.room == left


def test_a_full_channel_is_no_rival() -> None:
    """The chance of an offer is that among what still has room when the customer's turn comes."""
    found = listed(200, 1.0, eligibility={"channel_capacity": {"phone": 5, "app": 7}}, lists=[_wide(200)]).rows
    table = found.to_pandas()
    assert table["channel"].value_counts().to_dict() == {"email": 188, "phone": 5, "app": 7}
    last = max(table.index[table["channel"] != "email"])
    assert table["play_probability"][0] == pytest.approx(1 / 3)
    assert (table["play_probability"][last + 1 :] == 1).all()


def test_nothing_is_drawn_where_there_is_one_way_alone() -> None:
    made = config(journey=journey_of(PLAYS[1:]), control={"explore_how": 1.0, "salt": "s"}, list_size={"least": 0})
    (found,) = rank(made, StoredTable.of(two_stage_scores(50)), Journey(made.journey), AS_OF)
    assert found.rows["play_probability"].to_pylist() == [1.0] * len(found.rows)
    assert pc.all(pc.equal(found.rows["channel"], "app")).as_py()


def _wide(capacity: int) -> dict[str, Any]:
    return {"from": "A", "to": "B", "horizon": "30d", "capacity": capacity}
