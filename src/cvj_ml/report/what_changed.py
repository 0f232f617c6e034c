"""What changed since earlier nights, as the page tells it: sentences a base, and the numbers by stage with a trend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from cvj_ml.config import JourneySpec
from cvj_ml.lists import BASES
from cvj_ml.lists.changes import DROPPED, NOT_COMPARABLE, Balance, Changes, Comparison, NotComparable
from cvj_ml.report.wording import customers, whole_number
from cvj_ml.windows import to_datetime

_NO_NIGHT = {
    "last": "No night was published before this one.",
    "week": "No published night is at least 7 days older yet.",
}
_FIRST_NIGHT = (
    "This is the first night. From the next one on, this part tells who is new on the plan, who is not on it any more"
    " and why, and how many came to each stage and left it."
)

WIDTH, HEIGHT = 96, 20
"""Of a trend's line, in pixels."""


@dataclass(frozen=True, slots=True)
class Since:
    """One base in words: its day (None without any), what changed in ``brief``, and sentences that may say why not."""

    base: str
    day: str | None
    words: str
    brief: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StageOverTime:
    """A stage tonight: how its number came about since each base (None: not comparable), and its last nights.

    trend: the numbers, tonight's last; line: the same as points of an SVG polyline, empty with fewer than two.
    """

    stage: str
    now: int
    since: tuple[Balance | None, ...]
    trend: tuple[int, ...]
    line: str


@dataclass(frozen=True, slots=True)
class WhatChanged:
    """All of it, the bases in the order of `BASES`; ``segments`` has balances, None since a base that tells none."""

    since: tuple[Since, ...]
    stages: tuple[StageOverTime, ...]
    segments: Mapping[str, tuple[Balance | None, ...]] = field(default_factory=dict)

    @property
    def comparable(self) -> bool:
        """Whether there is a night to compare with."""
        return any(one.brief for one in self.since)

    @property
    def instead(self) -> tuple[str, ...]:
        """What is told where there is none."""
        if all(one.day is None for one in self.since):
            return (_FIRST_NIGHT,)
        known = [f"Since {one.words}, {one.day}: {' '.join(one.sentences)}" for one in self.since if one.day]
        return (*known, *(sentence for one in self.since if one.day is None for sentence in one.sentences))


def what_changed(
    changes: Changes, trend: Sequence[Mapping[str, Any]], journey: JourneySpec, zone: ZoneInfo
) -> WhatChanged:
    """Return what the page tells; trend: ``as_of`` and the numbers by stage of some nights, tonight's last."""
    since = []
    for one in changes.comparisons:
        day = None if one.as_of is None else to_datetime(one.as_of, zone).date().isoformat()
        since.append(Since(one.base, day, BASES[one.base], _brief(one), _sentences(one)))
    before = [("", journey.in_no_stage)] if any(night["stages"].get("") for night in trend) else []
    rows = []
    for name, words in [*before, *((stage, stage) for stage in journey.names)]:
        numbers = tuple(int(night["stages"].get(name, 0)) for night in trend)
        balances = tuple(
            one.stages[name or None] if isinstance(one, Comparison) else None for one in changes.comparisons
        )
        rows.append(StageOverTime(words, numbers[-1], balances, numbers, _line(numbers)))
    known = [one.segments if isinstance(one, Comparison) else {} for one in changes.comparisons]
    told = dict.fromkeys(name for one in known for name in one)
    segments = {name: tuple(one.get(name) for one in known) for name in told}
    return WhatChanged(tuple(since), tuple(rows), segments)


def _brief(one: Comparison | NotComparable) -> str:
    if isinstance(one, NotComparable):
        return ""
    return f"{one.plan.entered:,} new and {one.plan.left:,} dropped since {BASES[one.base]}, control included"


def _sentences(one: Comparison | NotComparable) -> tuple[str, ...]:
    if isinstance(one, NotComparable):
        return (_NO_NIGHT[one.base] if one.reason == "no_night" else f"No comparison: {NOT_COMPARABLE[one.reason]}.",)
    plan = f"On the plan, control included: {whole_number(one.plan.now)}, {whole_number(one.plan.entered)} of them new"
    if one.other_list:
        plan += f" and {whole_number(one.other_list)} on another list"
    found = [f"{plan}; {whole_number(one.plan.before)} then."]
    if one.plan.left:
        why = "; ".join(f"{whole_number(number)} {DROPPED[name]}" for name, number in one.dropped.items())
        found.append(f"Not on it any more: {whole_number(one.plan.left)} ({why}).")
    found.append(f"Moved to another stage: {customers(one.moved_stage)}.")
    people = f"New in the data: {customers(one.people.entered)}"
    people += f"; not in them any more: {whole_number(one.people.left)}" if one.people.left else ""
    people += f"; erased since: {whole_number(one.erased)}" if one.erased else ""
    return (*found, f"{people}.")


def _line(numbers: Sequence[int]) -> str:
    """Return a line from left to right whose height is the number, over the span of all of them."""
    if len(numbers) < 2:
        return ""
    low, high = min(numbers), max(numbers)
    step, span = (WIDTH - 4) / (len(numbers) - 1), (high - low) or 1
    heights = [0.5 if high == low else (number - low) / span for number in numbers]
    return " ".join(f"{2 + i * step:.1f},{HEIGHT - 3 - y * (HEIGHT - 6):.1f}" for i, y in enumerate(heights))
