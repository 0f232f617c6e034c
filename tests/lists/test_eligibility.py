"""Who may be on a list, through which channel, and that everybody left out is counted: held against plain loops."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lists.test_lists import AS_OF, CONTRACT, config
from tests.trained import AS_OF as NIGHT
from tests.trained import SETTINGS, Trained, call

from cvj_ml.config import DAY, ContactCap, ExcludeSpec, load_config
from cvj_ml.customers import Permissions, read_people
from cvj_ml.errors import ConfigError, DataError
from cvj_ml.journey import Journey
from cvj_ml.lists import ranking
from cvj_ml.lists.contact_history import ANSWERED_WITHIN, ContactHistory, contact_history, no_contact_history
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.next_action import offers_of, preferred_offers
from cvj_ml.lists.ranked_list import RankedList, summarise
from cvj_ml.lists.ranking import rank
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.simulate import random_block

pytest_plugins = ["tests.fixtures"]

CHANNELS = ("email", "phone", "app")
JOURNEY = {
    "name": "short",
    "stages": [
        {"name": "Visitor", "enter": {"event": "visitor"}},
        {
            "name": "Buyer",
            "enter": {"event": "buyer"},
            "plays": [
                {"text": "Offer", "channels": ["email", "phone"]},
                {"text": "Nudge", "channels": ["app"], "not_when": {"event": "buyer", "within": "9d"}, "cost": 2},
            ],
        },
        {
            "name": "Fan",
            "enter": {"event": "fan"},
            "plays": [
                {"text": "Ask", "channels": ["phone", "app"], "when": {"event": "visitor"}, "cost": 5},
                {"text": "Thank", "channels": ["email", "app"], "when": {"event": "buyer"}, "priority": 1},
            ],
        },
    ],
}


def table_of(rows: list[tuple[str, str | None]]) -> pa.Table:
    kinds = {"customer_id": pa.string(), "channel": pa.string()}
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(kinds.items())})


def scores_of(stages: list[str | None], buyer: list[float], fan: list[float], weak: list[bool]) -> pa.Table:
    size = len(stages)
    known = {
        "customer_id": [f"c{i:02d}" for i in range(size)],
        "as_of": np.full(size, AS_OF).astype("datetime64[us]"),
        "stage": stages,
        "p_stage_fan": [0.3 * (i % 3) for i in range(size)],
        "p_reach_buyer_30d": [p if stage == "Visitor" else None for p, stage in zip(buyer, stages, strict=True)],
        "p_reach_fan_30d": [p if stage in ("Visitor", "Buyer") else None for p, stage in zip(fan, stages, strict=True)],
        "low_evidence": [["Fan"] if one else [] for one in weak],
        "model_version": ["0123456789ab"] * size,
    }
    return pa.table(
        {
            name: pa.array(known[name], kind) if name in known else pa.nulls(size, kind)
            for name, kind in CONTRACT.columns.items()
        }
    )


@st.composite
def nights(draw: st.DrawFn) -> dict[str, Any]:
    size = draw(st.integers(0, 14))
    people = [f"c{i:02d}" for i in range(size)]
    several = st.lists(st.tuples(st.sampled_from(people or ["x"]), st.sampled_from([None, *CHANNELS])), max_size=8)
    chance = st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.5, 0.9])
    numbers = st.integers(0, 3)

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    caps = draw(st.sampled_from([(), ({"max": 2, "within": "7d"},), ({"max": 1, "within": "3d", "channel": "email"},)]))
    lists = [
        {"from": "Visitor", "to": to, "horizon": "30d", "by": draw(st.sampled_from(["probability", "expected_value"]))}
        for to in ("Buyer", "Fan")
    ] + [{"from": "Buyer", "to": "Fan", "horizon": "30d"}]
    for one in lists:
        one["capacity"] = draw(st.none() | st.integers(1, 6))
    return {
        "stages": column(st.sampled_from(["Visitor", "Visitor", "Buyer", "Fan", None])),
        "buyer": column(chance),
        "fan": column(chance),
        "weak": column(st.booleans()),
        "contacts": column(st.lists(numbers, min_size=len(caps), max_size=len(caps))),
        "sent": column(st.lists(numbers, min_size=3, max_size=3)),
        "own": column(st.lists(numbers, min_size=3, max_size=3)),
        "meant": column(st.lists(st.sampled_from([True, True, False]), min_size=3, max_size=3)),
        "recent": column(st.sampled_from([False, False, False, True])),
        "unhappy": column(st.sampled_from([False, False, False, True])),
        "idle_days": column(st.sampled_from([1, 40, 400])),
        "suppression": draw(st.none() | several),
        "consent": draw(st.none() | several),
        "together": draw(st.sampled_from([1, 2, 100])),
        "settings": {
            "journey": JOURNEY,
            "outbound": ["send"],
            "lists": lists,
            "stage_value": draw(st.sampled_from([{"Buyer": 10, "Fan": 100}, {"Fan": 100}])),
            "list_size": {"step": draw(st.integers(1, 4)), "least": draw(st.sampled_from([0.0, 0.5, 0.9]))},
            "control": {"share": 0.4, "salt": "s"},
            "eligibility": {
                "contact_caps": list(caps),
                "channel_capacity": draw(st.sampled_from([{}, {"phone": 2}, {"phone": 1, "email": 2, "app": 1}])),
                "one_list": draw(st.booleans()),
                "min_probability": draw(st.sampled_from([0, 0.05, 0.1])),
                "exclude": draw(
                    st.sampled_from(
                        [
                            {},
                            {"dormant_for": "30d"},
                            {"low_evidence": True},
                            {"already_there": 0.5, "dormant_for": None},
                        ]
                    )
                ),
            },
        },
    }


def history_of(night: dict[str, Any], size: int) -> StoredTable:
    def column(name: str, width: int | None = None) -> np.ndarray[Any, Any]:
        kind = np.bool_ if name in ("meant", "recent", "unhappy") else np.int64
        return np.array(night[name], dtype=kind).reshape(size if width is None else (size, width))

    sent, made = column("sent", 3), config(**night["settings"])
    history = ContactHistory(
        contacts=column("contacts", len(night["settings"]["eligibility"]["contact_caps"])),
        sent=sent,
        answered=np.minimum(sent, 1),
        own=column("own", 3),
        meant=column("meant", 3),
        last_own=AS_OF - column("idle_days") * DAY,
        recent=column("recent"),
        unhappy=column("unhappy"),
    )
    return StoredTable.of(pa.table(dict(history.columns(made))))


PLAYS = {
    "Buyer": [("Offer", ["email", "phone"], None, 0), ("Nudge", ["app"], 0, 2)],
    "Fan": [("Thank", ["email", "app"], 2, 0), ("Ask", ["phone", "app"], 1, 5)],
}
"""By stage, the first to be tried first: text, channels, position of the condition, cost."""


def offers_of_customer(night: dict[str, Any], i: int, to: str) -> tuple[bool, list[tuple[str, str, int]]]:
    """Whether a play is meant for a customer; (play, channel, cost) of those that can reach them, the best first."""
    name, open_channels = f"c{i:02d}", set(CHANNELS)
    if night["suppression"] is not None:
        open_channels -= {channel for one, channel in night["suppression"] if one == name}
    if night["consent"] is not None:
        given = {channel for one, channel in night["consent"] if one == name}
        open_channels &= set(CHANNELS) if None in given else given
    for k, cap in enumerate(night["settings"]["eligibility"]["contact_caps"]):
        if night["contacts"][i][k] >= cap["max"]:
            open_channels.discard(cap.get("channel"))
    sent = dict(zip(CHANNELS, night["sent"][i], strict=True))
    own = dict(zip(CHANNELS, night["own"][i], strict=True))
    named = list(dict.fromkeys(channel for _, channels, _, _ in PLAYS[to] for channel in channels))
    found, meant = [], False
    for text, channels, condition, cost in PLAYS[to]:
        if condition is not None and not night["meant"][i][condition]:
            continue
        meant = True
        reached = [c for c in channels if c in open_channels]
        reached.sort(key=lambda c: (-(2 / (sent[c] + 2) if sent[c] else 0), -own[c], named.index(c)))
        found += [(text, channel, cost) for channel in reached]
    return meant, found


def left_out_for(night: dict[str, Any], i: int, spec: dict[str, Any]) -> str | None:
    """Why a customer may not be on a list, whatever the other lists."""
    rules, name, to = night["settings"]["eligibility"], f"c{i:02d}", spec["to"]
    chance = {"Buyer": night["buyer"][i], "Fan": night["fan"][i]}[to]
    silence = rules["exclude"].get("dormant_for", "180d")
    meant, offers = offers_of_customer(night, i, to)
    holds = {
        "already_there": 0.3 * (i % 3) >= rules["exclude"].get("already_there", 9),
        "suppressed": night["suppression"] is not None and (name, None) in night["suppression"],
        "no_consent": night["consent"] is not None and name not in {one for one, _ in night["consent"]},
        "contact_cap": any(
            night["contacts"][i][k] >= cap["max"] and "channel" not in cap
            for k, cap in enumerate(rules["contact_caps"])
        ),
        "recent_contact": night["recent"][i],
        "unhappy": night["unhappy"][i],
        "dormant": silence is not None and night["idle_days"][i] > int(silence[:-1]),
        "no_play": not meant,
        "no_channel": not offers,
        "low_evidence": "low_evidence" in rules["exclude"] and night["weak"][i] and to == "Fan",
        "improbable": chance < rules["min_probability"],
    }
    return next((reason for reason, held in holds.items() if held), None)


def list_of_customer(night: dict[str, Any], i: int) -> int | None:
    """On which list a customer belongs, by its position."""
    lists, worth = night["settings"]["lists"], night["settings"]["stage_value"]
    rivals = [
        k for k, one in enumerate(lists) if one["from"] == night["stages"][i] and left_out_for(night, i, one) is None
    ]
    if any(lists[k]["to"] not in worth for k in rivals):
        return rivals[0]
    chance = {"Buyer": night["buyer"][i], "Fan": night["fan"][i]}

    def order(k: int) -> tuple[float, float, int]:
        to = lists[k]["to"]
        return -(worth[to] * chance[to] - offers_of_customer(night, i, to)[1][0][2]), -chance[to], k

    return min(rivals, key=order, default=None)


def expected(night: dict[str, Any]) -> list[tuple[list[tuple[str, str, str]], Counter[str]]]:
    """The lists by plain loops: (customer, play, channel) in order, and how many fell to each reason."""
    rules, worth = night["settings"]["eligibility"], night["settings"]["stage_value"]
    room, size = dict(rules["channel_capacity"]), night["settings"]["list_size"]
    found = []
    for position, spec in enumerate(night["settings"]["lists"]):
        reasons: Counter[str] = Counter()
        eligible = []
        for i, stage in enumerate(night["stages"]):
            if stage != spec["from"]:
                continue
            reason = left_out_for(night, i, spec)
            if reason is None and rules["one_list"] and list_of_customer(night, i) != position:
                reason = "other_list"
            if reason is not None:
                reasons[reason] += 1
                continue
            chance = {"Buyer": night["buyer"][i], "Fan": night["fan"][i]}
            later = ("Buyer", "Fan") if spec["to"] == "Buyer" else ("Fan",)
            first, second = chance[spec["to"]], sum(worth.get(name, 0) * chance[name] for name in later)
            if spec.get("by") == "expected_value":
                first, second = second, first
            eligible.append((-first, -second, f"c{i:02d}", offers_of_customer(night, i, spec["to"])[1], chance))
        eligible.sort(key=lambda row: row[:3])
        p = [row[4][spec["to"]] for row in eligible]
        length, step = len(p), size["step"]
        for n in range(step, len(p), step):
            if sum(p[n : n + step]) < size["least"] * sum(p[:step]):
                length = n
                break
        rows = []
        for place, (*_, name, offers, _) in enumerate(eligible):
            through = next(((play, c) for play, c, _ in offers if room.get(c, 1) > 0), None)
            if len(rows) == (spec["capacity"] or 99) or (spec["capacity"] is None and place >= length):
                reasons["list_full"] += 1
            elif through is None:
                reasons["channel_full"] += 1
            else:
                room[through[1]] = room.get(through[1], 99) - 1
                rows.append((name, *through))
        found.append((rows, reasons))
    return found


def made(night: dict[str, Any]) -> tuple[RankedList, ...]:
    scores = scores_of(night["stages"], night["buyer"], night["fan"], night["weak"])
    named = {name: None if night[name] is None else table_of(night[name]) for name in ("suppression", "consent")}
    settings = config(**night["settings"])
    return rank(
        settings,
        StoredTable.of(scores),
        Journey(settings.journey),
        AS_OF,
        history=history_of(night, len(scores)),
        permissions=Permissions(**named),
        asked=scores["customer_id"].combine_chunks(),
    )


@pytest.mark.slow
@settings(max_examples=150)
@given(nights())
def test_lists_and_reasons_are_those_of_plain_loops(night: dict[str, Any]) -> None:
    """Nobody appears who is suppressed, without consent, above a cap, unhappy or without a play; all counts add up."""
    suppressed = night["suppression"] or []
    if suppressed and all(name == "x" for name, _ in suppressed) and night["stages"]:
        return  # names no customer: an error, in a test of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_TOGETHER", night["together"])
        lists = made(night)
    for found, (rows, reasons) in zip(lists, expected(night), strict=True):
        shown = found.rows.to_pylist()
        assert [(row["customer_id"], row["play"], row["channel"]) for row in shown] == rows
        counted = {**found.left_out, **found.not_listed}
        assert {name: count for name, count in counted.items() if count} == dict(reasons)
        # Of everybody it is told why, since it was asked of everybody.
        assert Counter(found.why["reason"].to_pylist()) == reasons
        assert not {row["customer_id"] for row in shown} & set(found.why["customer_id"].to_pylist())
        assert not {(row["customer_id"], row["channel"]) for row in shown} & set(suppressed)
        assert not {(row["customer_id"], None) for row in shown} & set(suppressed)


@settings(max_examples=40)
@given(nights())
def test_the_summary_adds_up(night: dict[str, Any]) -> None:
    if night["suppression"] and not night["stages"]:
        return
    for row in summarise(made(night)).to_pylist():
        assert row["in_stage"] == sum(row[name] for name in REASONS) + row["eligible"]
        assert row["in_stage"] == night["stages"].count(row["from_stage"])
        assert row["eligible"] == row["channel_full"] + row["list_full"] + row["listed"]
        assert row["listed"] == row["target"] + row["control"]
        assert row["epoch"] == "2024-quarter-4"


# What histories say.


def plain_contact_history(
    block: Any, customer: int, as_of: int, channels: tuple[str, ...], caps: list[ContactCap]
) -> Any:
    points = block.touchpoints
    rows = range(points.offsets[customer], points.offsets[customer + 1])
    live = [i for i in rows if points.visible_at[i] < as_of <= points.superseded_at[i]]
    name = {i: points.channel.values[points.channel.codes[i]] if points.channel.codes[i] >= 0 else None for i in live}
    at = points.occurred_at
    contacts = [
        sum(not points.inbound[i] and at[i] >= as_of - cap.within and cap.channel in (None, name[i]) for i in live)
        for cap in caps
    ]
    sent, answered, own = Counter(), Counter(), Counter()
    for k, i in enumerate(live):
        if points.inbound[i]:
            own[name[i]] += 1
            continue
        sent[name[i]] += 1
        following = next((j for j in live[k + 1 :] if points.inbound[j]), None)
        answered[name[i]] += following is not None and at[following] - at[i] < ANSWERED_WITHIN
    last = max((int(at[i]) for i in live if points.inbound[i]), default=np.iinfo(np.int64).min)
    return contacts, *([counts[c] for c in channels] for counts in (sent, answered, own)), last


def test_histories_are_those_of_plain_loops() -> None:
    """Only what was visible counts, in the version that held; sends are no sign of life (silent errors 4, 13)."""
    channels = ("a", "c", "never")
    caps = [ContactCap(max=1, within="30d"), ContactCap(max=1, within="90d", channel="a")]
    stage = {"name": "A", "enter": {"event": "x"}, "plays": [{"text": "Do", "channels": list(channels)}]}
    settings_of = config(
        journey={"name": "short", "stages": [stage]},
        outbound=["send"],
        eligibility={"contact_caps": [cap.model_dump(mode="json") for cap in caps]},
    )
    found = []
    for seed in range(3):
        block = random_block(
            customers=60, seed=seed, events=["x", "y", "send"], channels=["a", "b", "c"], properties={},
            attributes={}, outbound=["send"], until=AS_OF,
        )  # fmt: skip
        as_of = AS_OF - 40 * DAY
        part = contact_history(block, as_of, settings_of)
        found.append(part)
        visible = [name for i, name in enumerate(block.customers) if plain_visible(block, i, as_of)]
        assert len(part) == len(visible)
        for row, name in enumerate(visible):
            contacts, sent, answered, own, last = plain_contact_history(
                block, block.customers.index(name), as_of, channels, caps
            )
            assert part.contacts[row].tolist() == contacts
            assert [part.sent[row].tolist(), part.answered[row].tolist(), part.own[row].tolist()] == [
                sent, answered, own
            ]  # fmt: skip
            assert part.last_own[row] == last
    assert sum(part.answered.sum() for part in found) > 20
    for part in found:
        written = ContactHistory.of(pa.table(dict(part.columns(settings_of))), settings_of)
        for one in fields(ContactHistory):
            assert np.array_equal(getattr(written, one.name), getattr(part, one.name)), one.name


def plain_visible(block: Any, customer: int, as_of: int) -> bool:
    start, stop = block.touchpoints.offsets[customer : customer + 2]
    return bool((block.touchpoints.visible_at[start:stop] < as_of).any())


@pytest.mark.parametrize(
    ("sent", "answered", "own", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], [0, 0, 0], "email phone app"),  # nothing known: the order of the plays
        ([0, 0, 0], [0, 0, 0], [0, 1, 5], "app phone email"),  # their own habit
        ([9, 1, 0], [3, 1, 0], [0, 0, 7], "phone email app"),  # answers by share, before habits
        ([4, 4, 0], [0, 1, 0], [9, 0, 0], "phone email app"),  # sends without an answer do not count as answers
        ([9, 1, 0], [9, 1, 0], [0, 0, 0], "email phone app"),  # one answer of one is not more than nine of nine
    ],
)
def test_channels_are_ordered_by_answers_then_habit_then_plays(
    sent: list[int], answered: list[int], own: list[int], expected: str
) -> None:
    plays = [{"text": "Offer", "channels": ["email", "phone", "app"]}]
    made_config = config(journey=journey_of(plays))
    history = replace(
        no_contact_history(1, made_config, AS_OF),
        **{name: np.array([row]) for name, row in {"sent": sent, "answered": answered, "own": own}.items()},
    )
    offers = offers_of(made_config.journey, made_config.journey.stages[1].plays)
    order = preferred_offers(offers, history)[0]
    assert " ".join(offers[i].play.channels[offers[i].channel] for i in order) == expected


def journey_of(plays: list[dict[str, Any]]) -> dict[str, Any]:
    stages = [{"name": "A", "enter": {"event": "a"}}, {"name": "B", "enter": {"event": "b"}, "plays": plays}]
    return {"name": "two", "stages": stages}


def test_a_play_goes_first_by_its_priority_whatever_its_channel() -> None:
    """The play decides; only then the channel, by answers: a better answered channel does not change the play."""
    plays = [
        {"text": "Second", "channels": ["phone"]},
        {"text": "First", "channels": ["email", "app"], "priority": 1},
        {"text": "Third", "channels": []},
    ]
    made_config = config(journey=journey_of(plays))
    history = no_contact_history(1, made_config, AS_OF)
    history.sent[:] = history.answered[:] = [[5, 0, 1]]  # phone, email, app
    offers = offers_of(made_config.journey, made_config.journey.stages[1].plays)
    names = ("phone", "email", "app")
    found = [(offers[i].play.text, names[offers[i].channel]) for i in preferred_offers(offers, history)[0]]
    assert found[:3] == [("First", "app"), ("First", "email"), ("Second", "phone")]
    assert offers[preferred_offers(offers, history)[0][3]].play.text == "Third"


def test_a_stage_without_channels_still_has_its_play() -> None:
    made_config = config(journey=journey_of([{"text": "Call"}, {"text": "Write"}]))
    scores = StoredTable.of(two_stage_scores(2))
    (one,) = rank(made_config, scores, Journey(made_config.journey), AS_OF)
    assert one.rows["play"].to_pylist() == ["Call", "Call"]
    assert one.rows["channel"].to_pylist() == [None, None]
    without = config(journey=journey_of([]))
    assert rank(without, scores, Journey(without.journey), AS_OF)[0].rows["play"].to_pylist() == [None, None]


def two_stage_scores(size: int) -> pa.Table:
    return pa.table(
        {
            "customer_id": [f"c{i:04d}" for i in range(size)],
            "stage": ["A"] * size,
            "p_reach_b_30d": [0.5] * size,
            "model_version": ["0123456789ab"] * size,
        }
    )


# Ranking.


def test_expected_value_counts_later_stages_and_can_rank() -> None:
    scores = StoredTable.of(scores_of(["Visitor"] * 3, [0.5, 0.4, 0.4], [0.0, 0.1, 0.2], [False] * 3))
    listed = {
        by: rank(
            config(lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d", "by": by}],
                   stage_value={"Buyer": 10, "Fan": 100}),
            scores, Journey(config().journey), AS_OF,
        )[0].rows
        for by in ("probability", "expected_value")
    }  # fmt: skip
    assert listed["probability"]["customer_id"].to_pylist() == ["c00", "c02", "c01"]
    assert listed["expected_value"]["customer_id"].to_pylist() == ["c02", "c01", "c00"]
    assert listed["expected_value"]["expected_value"].to_pylist() == pytest.approx([24, 14, 5])


# The files.


def permissions(folder: Path, **settings: Any) -> Permissions:
    return read_people(config(out=str(folder / "out"), **settings)).permissions


def test_ids_are_text_and_channels_are_kept(tmp_path: Path) -> None:
    """Silent error 32."""
    (tmp_path / "stop.csv").write_text("id;how\n007;email\n7;\n")
    pq.write_table(pa.table({"customer_id": [7, 12]}), tmp_path / "yes.parquet")
    found = permissions(
        tmp_path,
        journey=JOURNEY,
        lists=[],
        suppression={"path": str(tmp_path / "stop.csv"), "customer_id": "id", "channel": "how"},
        consent={"path": str(tmp_path / "yes.parquet")},
    )
    assert found.suppression.to_pylist() == [
        {"customer_id": "007", "channel": "email"},
        {"customer_id": "7", "channel": None},
    ]
    assert found.consent["customer_id"].to_pylist() == ["12", "7"]
    assert permissions(tmp_path) == Permissions(None, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no such file"),
        ("", "is empty: 0 bytes, not even a header"),
        ("customer\n1\n", "there is no column 'customer_id'"),
        ('customer_id\n1\n""\n', r"1 row\(s\): no customer_id"),
        ("customer_id,x\n1,2\n1,2,3\n", r"1 row\(s\): unreadable line"),
    ],
)
def test_a_permission_file_that_may_have_lost_a_row_stops_everything(
    tmp_path: Path, text: str | None, told: str
) -> None:
    path = tmp_path / "stop.csv"
    if text is not None:
        path.write_text(text)
    for name in ("suppression", "consent"):
        with pytest.raises(DataError, match=told):
            permissions(tmp_path, **{name: {"path": str(path)}})


def test_a_suppression_of_a_channel_that_no_play_uses_is_an_error() -> None:
    scores = StoredTable.of(scores_of(["Visitor"], [0.5], [0.1], [False]))
    settings = config(journey=JOURNEY)
    with pytest.raises(DataError, match=r"no play of the journey goes through 'e-mail'\. Did you mean 'email'\?"):
        rank(settings, scores, Journey(settings.journey), AS_OF, permissions=Permissions(table_of([("c00", "e-mail")])))
    (listed, _) = rank(settings, scores, Journey(settings.journey), AS_OF, permissions=Permissions(table_of([])))
    assert len(listed.rows) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"eligibility": {"contact_caps": {"max": 2, "within": "7d"}}}, "name those events under outbound"),
        ({"eligibility": {"channel_capacity": {"emial": 2}}}, "through 'emial'. Did you mean 'email'? Channels of the"),
        ({"eligibility": {"exlude": {}}}, "eligibility: unknown key 'exlude'. Did you mean 'exclude'?"),
        ({"eligibility": {"min_probability": 2}}, "eligibility.min_probability: it should be less than or equal to 1"),
        (
            {"journey": JOURNEY, "lists": [{"from": "Buyer", "to": "Fan", "horizon": "30d", "by": "expected_value"}]},
            "needs the worth of Fan or a later stage in stage_value, or value: in the journey file",
        ),
        ({"lists": [{"from": "Convert", "to": "Ascend", "horizon": "30d", "by": "luck"}]}, "lists[0].by: it should be"),
    ],
)
def test_what_cannot_be_kept_is_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    base = {**SETTINGS, "outbound": [], "stage_value": {}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**base, **changes}))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert told in str(caught.value)


def test_channels_that_nobody_named_cannot_be_capped() -> None:
    stages = [{**stage, "plays": []} if stage["name"] == "Fan" else stage for stage in JOURNEY["stages"]]
    told = r"the list to Fan: no play of Fan names a channel, so eligibility.channel_capacity cannot be kept"
    with pytest.raises(ValueError, match=told):
        config(journey={"name": "short", "stages": stages}, eligibility={"channel_capacity": {"phone": 5}})


def test_a_lists_own_rules_take_the_place_of_those_of_all() -> None:
    made = config(
        journey=JOURNEY,
        lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d", "min_probability": 0, "exclude": {}}],
        eligibility={"min_probability": 0.3, "exclude": {"low_evidence": True}},
    )
    assert made.lists is not None
    assert made.eligibility.least(made.lists[0]) == 0
    assert made.eligibility.excluded(made.lists[0]) == ExcludeSpec()


# The whole job.


def test_without_the_suppression_file_nothing_is_published(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path / "out", suppression={"path": str(tmp_path / "stop.csv")})
    run = call("targets", file, "--as-of", NIGHT)
    assert run.code == 3
    assert "suppression: " in run.err and "there is no such file" in run.err
    assert not list((tmp_path / "out").glob("as_of=*"))


@pytest.mark.slow
def test_plays_change_without_a_new_model_and_suppression_makes_another_night(trained: Trained, tmp_path: Path) -> None:
    """Rules and permissions go through the command: what is listed follows them, and the night has another name."""

    def night(**settings: Any) -> tuple[Path, list[dict[str, Any]]]:
        run = call("targets", trained.variant(tmp_path / "out", **settings), "--as-of", NIGHT, "--json")
        assert run.code == 0, run.err
        folder = Path(json.loads(run.out)["night"])
        return folder, pq.read_table(folder / "targets" / "convert__ascend__30d.parquet", partitioning=None).to_pylist()

    plain, rows = night()
    journey = json.loads(trained.config().journey.model_dump_json(exclude_defaults=True))
    for stage in journey["stages"]:
        stage["plays"] = [{"text": f"Be kind on the way to {stage['name']}", "channels": ["email"]}]
    out = rows[0]["customer_id"]
    (tmp_path / "stop.csv").write_text(f"customer_id\n{out}\n")
    changed, fewer = night(journey=journey, suppression={"path": str(tmp_path / "stop.csv")})
    assert changed != plain
    assert [row["customer_id"] for row in fewer] == [row["customer_id"] for row in rows[1:]]
    assert {(row["play"], row["channel"]) for row in fewer} == {("Be kind on the way to Ascend", "email")}
    summary = json.loads((changed / "MANIFEST.json").read_text())["lists"][0]
    assert (summary["suppressed"], summary["listed"]) == (1, len(fewer))
    (tmp_path / "stop.csv").write_text(f"customer_id\n{rows[1]['customer_id']}\n")
    other, _ = night(journey=journey, suppression={"path": str(tmp_path / "stop.csv")})
    assert other not in (plain, changed)


# Promises that hold for any lists and rules.


@pytest.mark.slow
@settings(max_examples=100)
@given(nights(), st.randoms(use_true_random=False))
def test_nobody_suppressed_is_listed_and_arms_depend_on_no_score(night: dict[str, Any], random: Any) -> None:
    """Whatever the rules: the suppressed never appear, a rerun is the same, and other scores move nobody's arm."""
    if night["suppression"] and not night["stages"]:
        return
    suppressed = {name for name, channel in night["suppression"] or [] if channel is None}
    first, again = made(night), made(night)
    shuffled = {**night, "buyer": random.sample(night["buyer"], len(night["buyer"]))}
    shuffled["fan"] = random.sample(night["fan"], len(night["fan"]))
    arm: dict[str, str] = {}
    for one in (*first, *made(shuffled)):
        for row in one.rows.to_pylist():
            assert row["customer_id"] not in suppressed
            assert arm.setdefault(row["customer_id"], row["group"]) == row["group"]
    assert all(one.rows.equals(other.rows) for one, other in zip(first, again, strict=True))


@settings(max_examples=25)
@given(
    share=st.sampled_from([0.05, 0.1, 0.25, 0.5]),
    capacity=st.none() | st.integers(300, 1500),
    least=st.sampled_from([0.0, 0.3]),
    salt=st.text(max_size=4),
    seed=st.integers(0, 10_000),
)
def test_the_control_share_of_a_list_is_binomial_and_blind_to_scores(
    share: float, capacity: int | None, least: float, salt: str, seed: int
) -> None:
    size = 2000
    p = np.random.default_rng(seed).random(size)
    scores = scores_of(["Visitor"] * size, p.tolist(), [0.1] * size, [False] * size)
    scores = scores.set_column(0, "customer_id", pa.array([f"c{i:04d}" for i in range(size)]))
    made_config = config(
        journey=JOURNEY,
        lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d", "capacity": capacity, "min_probability": least}],
        control={"share": share, "salt": salt or "x"},
    )
    (one,) = rank(made_config, StoredTable.of(scores), Journey(made_config.journey), AS_OF)
    control = np.array([group == "control" for group in one.rows["group"].to_pylist()])
    # 4.5 standard deviations either way: about 7 in a million by chance.
    assert abs(control.mean() - share) < 4.5 * np.sqrt(share * (1 - share) / len(control))
    listed = one.rows["probability"].to_numpy()
    gap = listed[control].mean() - listed[~control].mean()
    spread = listed.std() * np.sqrt(1 / control.sum() + 1 / (~control).sum())
    assert abs(gap) < 4.5 * spread
