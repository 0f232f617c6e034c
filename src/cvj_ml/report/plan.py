"""The plan of a night as plain values: the headline's numbers, a queue a list, and whom the lists leave alone.

Every number that is called people counts people: who stands on two lists, or in a stage of two lists, counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config
from cvj_ml.lists.control import epoch_end
from cvj_ml.lists.eligibility import HELD_BACK, unasked
from cvj_ml.lists.kinds import kind_in_words
from cvj_ml.lists.ranked_list import RankedList, held_back, people_of_group
from cvj_ml.models.bundle.forecast_errors import moves_in_words
from cvj_ml.report import wording
from cvj_ml.report.what_changed import WhatChanged
from cvj_ml.windows import to_datetime

SHORT = {
    "suppressed": "asked not to be contacted",
    "no_consent": "no consent",
    "contact_cap": "contacted often enough",
    "recent_contact": "contacted (or spared) in the last days",
    "unhappy": "unhappy with us",
    "dormant": "silent",
    "no_play": "no play fits",
    "no_channel": "no open channel",
    "do_not_disturb": "harmed by a contact",
}
"""Reasons to hold people back, as briefly as a tile tells them."""


@dataclass(frozen=True, slots=True)
class Queue:
    """One list of the plan, as its line tells it.

    ``targets`` are to contact and ``controls`` left alone, of the ``eligible``; ``plays`` are what is offered, most
    often first, with how many of the targets and the channels; ``held`` tells who was held back; ``pace`` how readily
    they move, ``size`` why the list is no longer, ``effect`` when its effect can first be told.
    """

    name: str
    origin: str
    to: str
    horizon_days: int
    targets: int
    controls: int
    eligible: int
    plays: tuple[tuple[str, int, str], ...]
    held: str
    pace: str
    size: str
    effect: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One number of the headline: its ``key``, its name, the number, as it is ``shown``, and what it is made of."""

    key: str
    name: str
    number: float
    shown: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of the first screen, all of people.

    ``expected`` of the ``movers``, those to contact on lists of moves, move on, going on as before; ``others`` says
    what is expected of the other lists.
    """

    day: date
    people: int
    expected: float
    movers: int
    others: str
    control: int
    control_share: float
    control_until: date
    held: tuple[tuple[str, int], ...]
    queues: tuple[Queue, ...]
    unasked: str
    effect_from: str

    @property
    def held_back(self) -> int:
        """How many people are held back, for any reason."""
        return sum(number for _, number in self.held)

    @property
    def headline(self) -> str:
        """The day, and how many people to contact on it."""
        return f"{wording.day_in_words(self.day, weekday=True)}: {wording.people(self.people)} to contact"

    @property
    def warning(self) -> str:
        """What to do where permissions were not asked; empty where they were."""
        return f"{self.unasked[:1].upper()}{self.unasked[1:]}: check before you send." if self.unasked else ""

    def tiles(self, changed: WhatChanged | None) -> tuple[Tile, ...]:
        """Return the four numbers of the headline; changed: since earlier nights, where that is known."""
        brief = changed.since[0].brief if changed and changed.since else ""
        spared = (
            f"on a list, but spared by chance, the same people until {epoch_until(self.control_until)}; others in the"
            " control group are on no list"
        )
        held = ", ".join(f"{number:,} {reason}" for reason, number in self.held)
        told: list[tuple[str, str, float, str]] = [
            ("contact", "To contact today", self.people, f"each person once{f' · {brief}' if brief else ''}"),
            (
                *("expected", "Expected to move on, going on as before", self.expected),
                f"of {self.movers:,}. {self.others}{self.effect_from}",
            ),
            ("leave-alone", "Leave alone", self.control, spared if self.control_share else "there is no control group"),
            ("held-back", "Held back for a reason", self.held_back, held or "nobody"),
        ]
        return tuple(
            Tile(key, name, number, wording.moves(number) if key == "expected" else f"{number:,}", text)
            for key, name, number, text in told
        )


def plan_of(
    config: Config, lists: Sequence[RankedList], as_of: int, delay: int, first_listed: Mapping[str, int]
) -> Plan:
    """Return the plan of a night's lists.

    delay: within which touchpoints arrive; first_listed: the first night of this epoch, before this one, on which a
    list had somebody to contact, an instant by name.
    """
    until = epoch_end(config.control.epoch, as_of, config.zone)
    told = {
        one.name: _effect_from(config, first_listed.get(one.name, as_of) + one.spec.horizon + delay, until)
        for one in lists
        if config.control.share
    }
    days = [day for day in told.values() if day is not None]
    held = held_back(lists)
    return Plan(
        to_datetime(as_of, config.zone).date(),
        people_of_group(lists, "target"),
        _expected(lists),
        people_of_group([one for one in lists if one.spec.kind == "move"], "target"),
        "".join(map(_other, lists)),
        people_of_group(lists, "control"),
        config.control.share,
        until,
        tuple((SHORT[name], held[name]) for name in sorted(HELD_BACK, key=lambda name: -held[name]) if held[name]),
        tuple(_queue(one, told.get(one.name), until, config) for one in lists),
        unasked(config),
        _first_effect(config, min(days, default=None), bool(lists), until),
    )


def epoch_until(until: date) -> str:
    """Return the last day of an epoch in words, from the first day of the next one."""
    return wording.day_in_words(until - timedelta(days=1))


def _queue(one: RankedList, effect: date | None, until: date, config: Config) -> Queue:
    targets, controls = len(one.rows) - one.control, one.control
    left_out = one.left_out
    held = [(name, left_out[name]) for name in HELD_BACK if left_out.get(name)]
    held.sort(key=lambda pair: -pair[1])
    told = ", ".join(f"{number:,} {SHORT[name]}" for name, number in held)
    number = sum(number for _, number in held)
    mean = one.moves.expected / len(one.rows) if len(one.rows) else 0.0
    return Queue(
        one.name,
        *one.heading,
        one.spec.horizon // DAY,
        targets,
        controls,
        one.eligible,
        tuple(_plays(one)),
        f"{number:,} held back: {told}" if held else "nobody held back",
        wording.one_in(mean, one.said) if len(one.rows) else "",
        _size(one),
        _effect(effect, until) if config.control.share and targets else "",
    )


def _plays(one: RankedList) -> Iterator[tuple[str, int, str]]:
    rows = one.of_group("target")
    counts: dict[str, dict[str, int]] = {}
    pairs: list[dict[str, Any]] = rows.group_by(["play", "channel"]).aggregate([([], "count_all")]).to_pylist()
    for pair in pairs:
        if pair["play"] is not None:
            channels = counts.setdefault(pair["play"], {})
            channels[pair["channel"] or ""] = channels.get(pair["channel"] or "", 0) + pair["count_all"]
    for play in sorted(counts, key=lambda play: (-sum(counts[play].values()), play)):
        channels = counts[play]
        order = sorted((name for name in channels if name), key=lambda name: (-channels[name], name))
        yield play, sum(channels.values()), ", ".join(map(wording.spoken, order))


def _size(one: RankedList) -> str:
    """Say how many more would move on further down, and why the list ends where it does."""
    size = one.size
    if not one.eligible:
        elsewhere = one.left_out.get("other_list", 0)
        return f"All {elsewhere:,} are on another list tonight." if elsewhere else "Nobody may be contacted tonight."
    if not size.following:
        full = one.not_listed["channel_full"]
        return f"Everybody who may be contacted{f', but {full:,} whose channels are full' if full else ''}."
    if one.without_evidence:
        return f"Without evidence: next to nobody is expected to {one.said.will}, so their order says nothing."
    first = f"the first {min(size.step, one.eligible):,} hold {moves_in_words(size.first_moves)}"
    following = moves_in_words(size.following_moves)
    because = " because they are contacted" if one.ranked_by == "incremental" else ""
    more = f"The next {size.following:,} would hold {following} who {one.said.many}{because}; {first}."
    if size.following < size.step:  # fewer people hold fewer moves anyway
        share = size.following_moves / size.following, size.first_moves / min(size.step, one.eligible)
        more = f"{more[:-1]}: {wording.percent(share[0])} of them against {wording.percent(share[1])}."
    return f"{more} Stop here." if size.recommended else f"{more} The capacity ends it here."


def _expected(lists: Sequence[RankedList]) -> float:
    """Return how many of the people to contact are expected to move: one on several lists counts with the first."""
    seen, total = pa.array([], pa.string()), 0.0
    for one in (one for one in lists if one.spec.kind == "move"):
        rows = one.of_group("target")
        names = rows["customer_id"].combine_chunks()
        fresh = pc.invert(pc.is_in(names, value_set=seen))
        total += pc.sum(rows["probability"].filter(fresh)).as_py() or 0.0
        seen = pa.concat_arrays([seen, names.filter(fresh)])
    return total


def _other(one: RankedList) -> str:
    """Say what is expected of a list that is not of moves; nothing of any other, or where nobody is to contact."""
    rows = one.of_group("target")
    if one.spec.kind == "move" or not len(rows):
        return ""
    expected = moves_in_words(pc.sum(rows["probability"]).as_py() or 0.0)
    return f"{kind_in_words(one.spec.kind, one.outcome)}: {expected} of {len(rows):,} expected to {one.said.will}. "


def _effect_from(config: Config, whole: int, until: date) -> date | None:
    """Return the day from which the effect of a list can be told; None where the epoch ends before."""
    day = to_datetime(whole - 1, config.zone).date().toordinal() + 1
    return date.fromordinal(day) if day <= until.toordinal() else None


def _effect(day: date | None, until: date) -> str:
    if day is None:
        return (
            f"The control group changes on {wording.day_in_words(until)}, before the outcome of these contacts is"
            " whole: what they add cannot be told in this epoch."
        )
    return f"What contacts add can first be told on {wording.day_in_words(day)}."


def _first_effect(config: Config, day: date | None, listed: bool, until: date) -> str:
    if not config.control.share:
        return "Without a control group nobody can tell what contacts add."
    if not listed:
        return ""
    if day is None:
        return f"What contacts add: not to be told before the control group changes on {wording.day_in_words(until)}"
    return f"What contacts add: first told on {wording.day_in_words(day)}"
