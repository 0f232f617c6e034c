"""Lists of those who are leaving and of those who left: who is on them, in which order, held against plain loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.lists.test_lists import AS_OF, config

from cvj_ml import schemas
from cvj_ml.config import DAY
from cvj_ml.customers import Permissions
from cvj_ml.errors import ConfigError, ModelError
from cvj_ml.journey import Journey
from cvj_ml.lists.changes import NOTHING_BEFORE, compare, reasons_tonight, with_changes
from cvj_ml.lists.contact_history import ContactHistory
from cvj_ml.lists.ranked_list import RankedList, held_back, summarise
from cvj_ml.lists.ranking import rank
from cvj_ml.lists.standing import Standing
from cvj_ml.models.bundle.bundle import ModelEvidence
from cvj_ml.models.segment_levels import SEGMENTS
from cvj_ml.scoring.scores_table import StoredTable

JOURNEY = {
    "name": "short",
    "value": {"events": ["buyer"]},
    "unhappy": {"tickets": ["ticket"], "setbacks": ["refund"]},
    "at_risk": {
        "plays": [
            {"text": "Keep", "channels": ["email"]},
            {"text": "Fix", "channels": ["phone"], "when": {"event": ["ticket", "refund"]}, "priority": 1},
        ]
    },
    "win_back": {
        "plays": [
            {"text": "Sorry", "channels": ["phone"], "when": {"all": [{"last_rating": "bad"}, {"event": "buyer"}]}},
            {"text": "Back", "channels": ["email"], "when": {"event": "buyer"}},
        ]
    },
    "stages": [
        {"name": "Visitor", "enter": {"event": "visitor"}},
        {"name": "Buyer", "enter": {"event": "buyer"}, "plays": [{"text": "Offer", "channels": ["email"]}]},
        {"name": "Fan", "enter": {"event": "fan"}, "plays": [{"text": "Ask", "channels": ["phone"]}]},
    ],
}
CONTRACT = schemas.scores(
    ["visitor", "buyer", "fan"], {"buyer": [7, 30], "fan": [7, 30]}, [7, 30], ["churn", "purchase"]
)
AT_RISK = {"at_risk": {"stages": ["Visitor", "Buyer"]}, "horizon": "30d"}
WIN_BACK = {"win_back": {"stages": ["Buyer", "Fan"]}, "horizon": "30d"}
MOVES = [{"from": "Visitor", "to": "Buyer", "horizon": "30d"}, {"from": "Buyer", "to": "Fan", "horizon": "30d"}]
PLAYS = {
    "at_risk": [("Fix", "phone", 0, True), ("Keep", "email", None, False)],
    "win_back": [("Sorry", "phone", 1, True), ("Back", "email", 2, False)],
    "Buyer": [("Offer", "email", None, False)],
    "Fan": [("Ask", "phone", None, False)],
}
"""By list, the first to be tried first: text, channel, position of the condition, whether it asks for trouble."""


def scores_of(people: list[dict[str, Any]], amounts: bool = False) -> pa.Table:
    size = len(people)
    known: dict[str, Any] = {
        "customer_id": [f"c{i:02d}" for i in range(size)],
        "as_of": np.full(size, AS_OF).astype("datetime64[us]"),
        "stage": [one["stage"] for one in people],
        "dormant": [one["dormant"] for one in people],
        "active": [one["active"] for one in people],
        "segment": [one.get("segment", "other") for one in people],
        "p_reach_buyer_30d": [one["p"] if one["stage"] == "Visitor" else None for one in people],
        "p_reach_fan_30d": [one["p"] if one["stage"] in ("Visitor", "Buyer") else None for one in people],
        "p_churn_30d": [one["churn"] for one in people],
        "p_purchase_30d": [one["bought"] for one in people],
        "low_evidence": [["kept"] if one["weak"] else [] for one in people],
        "model_version": ["0123456789ab"] * size,
    }
    table = pa.table(
        {
            name: pa.array(known[name], kind) if name in known else pa.nulls(size, kind)
            for name, kind in CONTRACT.columns.items()
        }
    )
    CONTRACT.check(table)
    return (
        table.append_column("value_30d", pa.array([one["amount"] for one in people], pa.float64()))
        if amounts
        else table
    )


def history_of(people: list[dict[str, Any]], settings: Any) -> StoredTable:
    size = len(people)
    nothing = np.zeros((size, 2), dtype=np.int64)
    history = ContactHistory(
        contacts=np.zeros((size, 0), dtype=np.int64),
        sent=nothing,
        answered=nothing,
        own=nothing,
        meant=np.array([one["meant"] for one in people], dtype=np.bool_).reshape(size, 3),
        last_own=np.array([AS_OF - (400 if one["dormant"] else 1) * DAY for one in people], dtype=np.int64),
        recent=np.array([one["recent"] for one in people], dtype=np.bool_),
        unhappy=np.array([one["unhappy"] for one in people], dtype=np.bool_),
    )
    return StoredTable.of(pa.table(dict(history.columns(settings))))


PERSON = st.fixed_dictionaries(
    {
        "stage": st.sampled_from(["Visitor", "Buyer", "Buyer", "Fan", None]),
        "dormant": st.booleans(),
        "active": st.sampled_from([True, True, False]),
        "p": st.sampled_from([0.1, 0.2]),
        "churn": st.sampled_from([None, 0.1, 0.3, 0.3, 0.9]),
        "bought": st.sampled_from([0.1, 0.2, 0.4]),
        "amount": st.sampled_from([0.0, 8.0, 30.0]),
        "weak": st.booleans(),
        "meant": st.lists(st.booleans(), min_size=3, max_size=3),
        "recent": st.sampled_from([False, False, True]),
        "unhappy": st.sampled_from([False, False, True]),
    }
)


@st.composite
def nights(draw: st.DrawFn) -> dict[str, Any]:
    people = draw(st.lists(PERSON, max_size=12))
    names = [f"c{i:02d}" for i in range(len(people))] or ["x"]
    lists = draw(st.permutations([AT_RISK, WIN_BACK, *MOVES]))
    made = []
    for one in lists:
        by = draw(st.sampled_from(["churn", "lost_value"])) if "at_risk" in one else None
        made.append({**one, "capacity": draw(st.none() | st.integers(1, 3)), **({"by": by} if by else {})})
    rules = {
        "one_list": draw(st.booleans()),
        "min_probability": draw(st.sampled_from([0, 0.2])),
        "exclude": draw(st.sampled_from([{}, {"low_evidence": True}])),
    }
    return {
        "people": people,
        "amounts": draw(st.booleans()) or any(one.get("by") == "lost_value" for one in made),
        "suppressed": draw(st.none() | st.lists(st.tuples(st.sampled_from(names), st.sampled_from([None, "phone"])))),
        "settings": {"journey": JOURNEY, "lists": made, "eligibility": rules, "control": {"share": 0.4, "salt": "s"}},
    }


def made(night: dict[str, Any]) -> tuple[RankedList, ...]:
    settings = config(**night["settings"])
    closed = night["suppressed"]
    table = pa.table(
        {
            "customer_id": pa.array([name for name, _ in closed or ()], pa.string()),
            "channel": pa.array([channel for _, channel in closed or ()], pa.string()),
        }
    )
    return rank(
        settings,
        StoredTable.of(scores_of(night["people"], night["amounts"])),
        Journey(settings.journey),
        AS_OF,
        history=history_of(night["people"], settings),
        permissions=Permissions(None if closed is None else table),
    )


def asked(spec: dict[str, Any]) -> tuple[str, list[str], list[tuple[str, str, int | None, bool]]]:
    """The kind of a list, its stages and its plays."""
    for kind in ("at_risk", "win_back"):
        if kind in spec:
            return kind, spec[kind]["stages"], PLAYS[kind]
    return "move", [spec["from"]], PLAYS[spec["to"]]


def chances(night: dict[str, Any], spec: dict[str, Any], one: dict[str, Any]) -> tuple[float | None, float]:
    """Probability and worth of a customer on a list."""
    kind, _, _ = asked(spec)
    if kind == "move":
        return one["p"], 0.0
    if kind == "win_back":
        return one["bought"], one["amount"] if night["amounts"] else 0.0
    if one["churn"] is None or not night["amounts"]:
        return one["churn"], 0.0
    return one["churn"], one["churn"] * (one["amount"] / one["bought"])


def offer(night: dict[str, Any], i: int, plays: list[Any], kind: str) -> tuple[bool, tuple[str, str] | None]:
    """Whether a play is meant for a customer, and the first that can reach them."""
    one, closed = night["people"][i], night["suppressed"] or ()
    meant = [
        (text, channel)
        for text, channel, condition, trouble in plays
        if (condition is None or one["meant"][condition]) and (kind == "move" or not one["unhappy"] or trouble)
    ]
    channels = {channel for name, channel in closed if name == f"c{i:02d}"}
    return bool(meant), next((pair for pair in meant if not channels & {None, pair[1]}), None)


def expected(night: dict[str, Any]) -> list[tuple[list[tuple[str, str]], Counter[str]]]:
    """The lists by plain loops: (customer, play) in order, and how many fell to each reason."""
    rules, taken, found = night["settings"]["eligibility"], set[str](), []
    for spec in night["settings"]["lists"]:
        kind, stages, plays = asked(spec)
        reasons, ranked = Counter[str](), []
        for i, one in enumerate(night["people"]):
            if one["stage"] not in stages:
                continue
            name, (p, worth) = f"c{i:02d}", chances(night, spec, one)
            meant, reached = offer(night, i, plays, kind)
            suppressed = (name, None) in (night["suppressed"] or ())
            holds = {
                "already_there": p is None,
                "awake": kind == "win_back" and not one["dormant"],
                "quiet": kind == "at_risk" and not one["active"],
                "suppressed": suppressed,
                "recent_contact": one["recent"],
                "unhappy": one["unhappy"] and (kind == "move" or not meant),
                "dormant": kind != "win_back" and one["dormant"],
                "no_play": not meant,
                "no_channel": reached is None,
                "low_evidence": "low_evidence" in rules["exclude"] and one["weak"] and kind != "move",
                "improbable": p is not None and p < rules["min_probability"],
                "other_list": rules["one_list"] and name in taken,
            }
            if reason := next((reason for reason, held in holds.items() if held), None):
                reasons[reason] += 1
                continue
            keys = (-worth, -(p or 0)) if spec.get("by") == "lost_value" else (-(p or 0), -worth)
            ranked.append((*keys, name, reached))
        ranked.sort(key=lambda row: row[:3])
        end = len(ranked) if spec["capacity"] is None else spec["capacity"]
        rows = [(name, play[0]) for *_, name, play in ranked[:end] if play]
        reasons["list_full"] += len(ranked) - len(rows)
        taken |= {name for name, _ in rows}
        found.append((rows, reasons))
    return found


@given(nights())
def test_the_lists_are_those_of_plain_loops(night: dict[str, Any]) -> None:
    """Silent error 150: who is on a list of the leaving or of those who left, and why everybody else is not."""
    lists = made(night)
    for one, (rows, reasons) in zip(lists, expected(night), strict=True):
        assert list(zip(one.rows["customer_id"].to_pylist(), one.rows["play"].to_pylist(), strict=True)) == rows
        assert Counter({**one.left_out, **one.not_listed}) == reasons
        assert one.in_stage == len(rows) + reasons.total()
        stages = {name: night["people"][int(name[1:])]["stage"] for name, _ in rows}
        assert one.rows["from_stage"].to_pylist() == [stages[name] for name, _ in rows]
    if night["settings"]["eligibility"]["one_list"]:
        names = [name for one in lists for name in one.rows["customer_id"].to_pylist()]
        assert len(names) == len(set(names))
    everywhere = {name for name, channel in night["suppressed"] or () if channel is None}
    assert not everywhere & {name for one in lists for name in one.rows["customer_id"].to_pylist()}
    table = summarise(lists)
    assert table["kind"].to_pylist() == [asked(spec)[0] for spec in night["settings"]["lists"]]


@given(nights())
def test_who_is_held_back_is_counted_once_and_by_lists_that_are_of_them(night: dict[str, Any]) -> None:
    """Silent error 151: a list that is not of somebody takes nobody's hold away, and makes none."""
    lists, of = made(night), Counter[str]()
    holding = ("suppressed", "recent_contact", "unhappy", "dormant", "no_play", "no_channel")
    names = [*lists[0].left_out]
    for i, one in enumerate(night["people"]):
        before = [f"c{k:02d}" for k, other in enumerate(night["people"]) if other["stage"] == one["stage"]]
        place = before.index(f"c{i:02d}")
        told = [
            names[each.reason[one["stage"]][place]] if each.reason[one["stage"]][place] >= 0 else None
            for each in lists
            if one["stage"] in each.reason
        ]
        asking = [reason for reason in told if reason not in ("awake", "quiet")]
        if asking and all(reason in holding for reason in asking):
            of[min(asking, key=names.index)] += 1
    assert {name: number for name, number in held_back(lists).items() if number} == dict(of)


def person(**known: Any) -> dict[str, Any]:
    plain = {"stage": "Buyer", "dormant": False, "active": True, "p": 0.1, "churn": 0.5, "bought": 0.2, "amount": 9.0}
    return {**plain, "weak": False, "meant": [False] * 3, "recent": False, "unhappy": False, **known}


def only(spec: dict[str, Any], people: list[dict[str, Any]], amounts: bool = False, **settings: Any) -> RankedList:
    night = {
        "people": people,
        "amounts": amounts,
        "suppressed": None,
        "settings": {"journey": JOURNEY, "lists": [spec], **settings},
    }
    return made(night)[0]


def test_a_list_says_what_its_probability_is_of() -> None:
    risk = only(AT_RISK, [person(churn=0.25), person(churn=0.75)])
    assert (risk.name, risk.title) == ("at-risk__visitor-buyer__30d", "At risk: Visitor, Buyer, 30 days")
    assert risk.rows["probability"].to_pylist() == [0.75, 0.25]
    assert risk.rows["lift"].to_pylist() == [1.5, 0.5]
    assert risk.moves.expected == 1.0 and risk.moves.ranges == ()
    assert (risk.outcome, risk.said.will) == ("kept", "be lost")
    assert risk.rows["to_stage"].to_pylist() == [None, None]
    back = only(WIN_BACK, [person(dormant=True, active=False, meant=[False, False, True])], amounts=True)
    assert (back.name, back.outcome, back.said.will) == ("win-back__buyer-fan__30d", "purchase", "buy again")
    assert back.rows["probability"].to_pylist() == [0.2] and back.rows["expected_value"].to_pylist() == [9.0]


def test_where_nothing_tells_of_purchases_who_left_is_asked_whether_they_come_back() -> None:
    journey = {name: value for name, value in JOURNEY.items() if name != "value"}
    settings = config(journey=journey, lists=[WIN_BACK])
    people = [person(dormant=True, churn=0.75, meant=[False, False, True])]
    table = scores_of(people).drop_columns(["p_purchase_7d", "p_purchase_30d"])
    history = history_of(people, settings)
    (back,) = rank(settings, StoredTable.of(table), Journey(settings.journey), AS_OF, history=history)
    assert (back.outcome, back.said.will) == ("kept", "come back")
    assert back.rows["probability"].to_pylist() == [0.25]


def test_the_average_is_that_of_those_whom_the_list_is_of() -> None:
    """Silent error 152: the dormant are lost with near certainty, and would make everybody at risk look safe."""
    found = only(AT_RISK, [person(churn=0.2), person(churn=0.4), person(churn=1.0, active=False)])
    assert found.rows["lift"].to_pylist() == pytest.approx([0.4 / 0.3, 0.2 / 0.3])
    assert found.stage_moves.expected == pytest.approx(0.6) and found.stage_moves.customers == 2


def test_the_unhappy_are_offered_help_and_nothing_else() -> None:
    """Silent error 153: a play whose `when` asks for trouble reaches them; a discount passes over it."""
    trouble, glad = person(unhappy=True, meant=[True, False, False]), person(meant=[True, False, False])
    passed_over = person(unhappy=True)
    found = only(AT_RISK, [trouble, glad, passed_over])
    assert found.rows["play"].to_pylist() == ["Fix", "Fix"]
    assert found.left_out["unhappy"] == 1
    settings = config(journey=JOURNEY)
    asks = [settings.journey.unhappy.asked_by(play.when) for play in settings.journey.all_plays if play.when]
    assert asks == [True, True, False]


def test_a_list_that_cannot_be_ranked_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ModelError, match="does not know who is active by their own rhythm"):
        only(AT_RISK, [person(), person(active=None)])
    with pytest.raises(ModelError, match=r"the model learned no amounts \(value_30d\), since too few customers"):
        only({**AT_RISK, "by": "lost_value"}, [person(amount=None)], amounts=True)
    with pytest.raises(ConfigError, match="the scores have no column value_30d, which `by: lost_value` ranks by"):
        only({**AT_RISK, "by": "lost_value"}, [person()])
    settings = config(journey=JOURNEY, lists=[AT_RISK])
    bare = scores_of([person()]).drop_columns(["p_churn_30d"])
    with pytest.raises(ConfigError, match="the scores have no column p_churn_30d"):
        rank(settings, StoredTable.of(bare), Journey(settings.journey), AS_OF)
    hidden = Journey(settings.journey, frozenset({"Buyer"}))
    with pytest.raises(ConfigError, match=r"lists\[0\] \(at_risk: Visitor, Buyer\): nothing in the data shows Buyer"):
        rank(settings, StoredTable.of(scores_of([person()])), hidden, AS_OF)


def test_moves_are_ranked_by_what_is_bought_where_no_worth_is_stated_and_the_model_may_rank() -> None:
    """Silent error 149: never by amounts that order no better than the stage does, nor instead of what is stated."""
    move = {"from": "Buyer", "to": "Fan", "horizon": "30d", "by": "expected_value"}
    people = [person(p=0.9, amount=1.0), person(p=0.1, amount=30.0), person(p=0.2, amount=8.0)]

    def ranked(table: pa.Table, may: bool, **settings: Any) -> RankedList:
        made_config = config(journey=JOURNEY, lists=[move], **settings)
        history, journey = history_of(people, made_config), Journey(made_config.journey)
        return rank(
            made_config, StoredTable.of(table), journey, AS_OF, ModelEvidence(amounts_rank=may), history=history
        )[0]

    table = scores_of(people, amounts=True)
    found = ranked(table, True)
    assert found.rows["customer_id"].to_pylist() == ["c01", "c02", "c00"]
    assert found.rows["expected_value"].to_pylist() == [30.0, 8.0, 1.0]
    stated = ranked(table, False, stage_value={"Fan": 100})
    assert stated.rows["customer_id"].to_pylist() == ["c00", "c02", "c01"]
    assert stated.rows["expected_value"].to_pylist() == pytest.approx([90.0, 20.0, 10.0])
    with pytest.raises(ModelError, match=r"did not order them better than their stage does.*State stage_value"):
        ranked(table, False)
    with pytest.raises(ModelError, match=r"the model learned no amounts \(value_30d\).*State stage_value"):
        ranked(scores_of(people), True)


def test_faults_of_the_settings_are_told_together() -> None:
    with pytest.raises(ValidationError) as found:
        config(
            lists=[
                {"from": "Visitor", "to": "Buyer", "at_risk": {"stages": ["Buyer"]}, "horizon": "30d"},
                {"at_risk": {"stages": ["Buyer", "Buyer"]}, "horizon": "30d", "by": "probability"},
                {"win_back": {"stages": ["Buyer"]}, "horizon": "30d", "exclude": {"dormant_for": "30d"}},
                {"horizon": "30d"},
            ]
        )
    told = str(found.value)
    for words in (
        "found from and to and at_risk",
        "by: probability is no order of such a list; it has churn or lost_value",
        "the stage 'Buyer' is given twice",
        "a win_back list is of the dormant; leave it out",
        "found none of them",
    ):
        assert words in told
    with pytest.raises(ValidationError) as found:
        config(
            unobserved=["Fan"],
            lists=[
                {"at_risk": {"stages": ["Byer"]}, "horizon": "30d", "by": "lost_value"},
                {"win_back": {"stages": ["Fan"]}, "horizon": "60d"},
                {"win_back": {"stages": ["Buyer"]}, "horizon": "7d"},
                {"win_back": {"stages": ["Buyer"]}, "horizon": "7d"},
            ],
            segments={"high_value": {"top": 0.5, "horizon": "8d"}, "ready_to_buy": {"at_least": 2}},
        )
    told = str(found.value)
    for words in (
        "lists[0].at_risk.stages: unknown stage 'Byer'. Did you mean 'Buyer'?",
        "lists[0] (at_risk: Byer): by: lost_value needs value: in the journey file",
        "lists[1] (win_back: Fan): horizon 60d is not among the horizons 7d, 30d",
        "lists[1] (win_back: Fan): Fan is unobserved",
        "lists: win_back: Buyer in 7d is given twice",
        "segments.high_value: horizon 8d is not among the horizons 7d, 30d",
        "segments.ready_to_buy: at_least is a probability, at most 1; found 2",
    ):
        assert words in told


def test_a_stage_that_silence_leaves_first_has_nobody_to_win_back() -> None:
    first, buyer, fan = JOURNEY["stages"]

    def asked(silence: str, outbound: tuple[str, ...] = ()) -> None:
        stages = [first, {**buyer, "leave": {"silent_for": silence}}, fan]
        journey = {**JOURNEY, "dormant_after": "90d", "stages": stages}
        config(journey=journey, outbound=outbound, lists=[WIN_BACK])

    for silence in ("60d", "90d"):
        with pytest.raises(ValidationError, match=f"Buyer is left after {silence} of silence, before anybody there is"):
            asked(silence)
    asked("91d")
    asked("60d", outbound=("buyer",))  # what we send enters the silent, too


@pytest.mark.slow
@given(st.lists(PERSON, min_size=6, max_size=6), st.lists(PERSON, min_size=6, max_size=6), st.data())
def test_what_changed_adds_up_for_lists_of_several_stages_and_for_segments(
    then: list[dict[str, Any]], now: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Silent error 154: who moves between two stages of one list leaves the one and enters the other."""
    for one in (*then, *now):
        one["segment"] = data.draw(st.sampled_from(SEGMENTS))
    nights = [{"people": people, "amounts": False, "suppressed": None} for people in (then, now)]
    settings = {"journey": JOURNEY, "lists": [AT_RISK, WIN_BACK], "eligibility": {"exclude": {}}}
    before, tonight = (made({**night, "settings": settings}) for night in nights)
    standings = [
        Standing.of(AS_OF + k, StoredTable.of(scores_of(people)), {one.name: one.rows for one in lists})
        for k, (people, lists) in enumerate(((then, before), (now, tonight)))
    ]
    why = pa.concat_tables([reasons_tonight(tonight)])
    names = standings[1].customers.to_pylist()
    told = {name: "quiet" for name in names} | dict(zip(*(why[c].to_pylist() for c in why.column_names), strict=True))
    why = pa.table({"customer_id": names, "reason": [told[name] for name in names]})
    found = compare("last", *standings, why, ["Visitor", "Buyer", "Fan"])
    for name in SEGMENTS:
        one = found.segments[name]
        assert (one.before, one.now) == tuple(sum(p["segment"] == name for p in people) for people in (then, now))
        pairs = [(a["segment"] == name, b["segment"] == name) for a, b in zip(then, now, strict=True)]
        assert (one.entered, one.left) == (pairs.count((False, True)), pairs.count((True, False)))
    table = with_changes(tonight, type(NOTHING_BEFORE)((found,)))
    for row, spec in zip(table.to_pylist(), (AT_RISK, WIN_BACK), strict=True):
        assert row["in_stage"] == row["in_stage_last"] + row["entered_last"] - row["left_last"]
        stages = asked(spec)[1]
        assert row["in_stage_last"] == sum(one["stage"] in stages for one in then)


def with_leaves(leave: dict[str, Any]) -> dict[str, Any]:
    """The journey, in which buyers and fans leave by these rules."""
    visitor, *others = JOURNEY["stages"]
    return {**JOURNEY, "stages": [visitor, *({**one, "leave": leave} for one in others)]}


CONTRACTUAL = {"at_risk": {"stages": ["Buyer", "Fan"], "churn": "contractual"}, "horizon": "30d"}


def by_leaving(people: list[dict[str, Any]], spec: dict[str, Any], amounts: bool = False, **rules: Any) -> RankedList:
    """The list of who is likely to leave; of a stage that is not theirs nobody has a probability."""
    settings = config(journey=with_leaves({"event": "refund"}), lists=[spec], eligibility=rules)
    table = scores_of(people, amounts)
    for slug, stage in (("buyer", "Buyer"), ("fan", "Fan")):
        p = [one["leave"] if one["stage"] == stage else None for one in people]
        table = table.append_column(f"p_leave_{slug}_30d", pa.array(p, pa.float64()))
    history = history_of(people, settings)
    return rank(settings, StoredTable.of(table), Journey(settings.journey), AS_OF, history=history)[0]


@given(st.lists(st.tuples(PERSON, st.sampled_from([None, 0.1, 0.3, 0.3, 0.8])), max_size=8), st.booleans())
def test_by_contractual_churn_each_is_ranked_by_leaving_the_stage_that_is_theirs(
    drawn: list[tuple[dict[str, Any], float | None]], lost_value: bool
) -> None:
    """The quiet hold their contracts, too, and of two stages each has the probability of its own."""
    people = [{**one, "leave": p} for one, p in drawn]
    found = by_leaving(people, {**CONTRACTUAL, **({"by": "lost_value"} if lost_value else {})}, amounts=True)
    reasons, ranked = Counter[str](), []
    for i, one in enumerate(people):
        if one["stage"] not in ("Buyer", "Fan"):
            continue
        trouble = one["meant"][0]
        holds = {
            "already_there": one["leave"] is None,
            "recent_contact": one["recent"],
            "unhappy": one["unhappy"] and not trouble,
            "dormant": one["dormant"],
        }
        if reason := next((reason for reason, held in holds.items() if held), None):
            reasons[reason] += 1
            continue
        worth = one["leave"] * (one["amount"] / one["bought"])
        keys = (-worth, -one["leave"]) if lost_value else (-one["leave"], -worth)
        ranked.append((*keys, f"c{i:02d}", one["leave"], worth, "Fix" if trouble else "Keep"))
    ranked.sort(key=lambda row: row[:3])
    told = zip(*(found.rows[name].to_pylist() for name in ("customer_id", "probability", "play")), strict=True)
    assert list(told) == [(name, p, play) for *_, name, p, _, play in ranked]
    assert found.rows["expected_value"].to_pylist() == [row[4] for row in ranked]
    assert Counter(found.left_out) == reasons
    assert (found.outcome, found.said.will, found.said.good) == ("leave", "leave", "stayed")


def test_a_list_by_contractual_churn_has_a_name_of_its_own_beside_one_by_silence() -> None:
    found = by_leaving([{**person(), "leave": 0.4}], CONTRACTUAL)
    assert (found.name, found.title) == (
        "at-risk-contractual__buyer-fan__30d",
        "At risk of leaving: Buyer, Fan, 30 days",
    )
    bare = config(journey=with_leaves({"event": "refund"}), lists=[CONTRACTUAL])
    with pytest.raises(ConfigError, match="the scores have no column p_leave_buyer_30d, which `by: churn` ranks by"):
        rank(bare, StoredTable.of(scores_of([person()])), Journey(bare.journey), AS_OF)
    both = config(journey=with_leaves({"event": "refund"}), lists=[CONTRACTUAL, {**AT_RISK, "horizon": "30d"}])
    assert [one.audience for one in both.lists or ()] == [None, "active"]


def test_contractual_churn_needs_a_stage_that_is_left_by_more_than_silence() -> None:
    with pytest.raises(ValidationError, match=r"lists\[0\] \(at_risk, contractual: Buyer, Fan\): Buyer cannot be left"):
        config(journey=JOURNEY, lists=[CONTRACTUAL])
    with pytest.raises(ValidationError, match="Fan is left by silence alone, and churn: contractual ranks by who leav"):
        config(journey=with_leaves({"silent_for": "400d"}), lists=[CONTRACTUAL])
    config(journey=with_leaves({"any": [{"silent_for": "400d"}, {"event": "refund"}]}), lists=[CONTRACTUAL])
    with pytest.raises(ValidationError, match="'silence' or 'contractual'"):
        config(lists=[{"at_risk": {"stages": ["Buyer"], "churn": "by_contract"}, "horizon": "30d"}])
