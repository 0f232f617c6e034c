"""The Value Journey worksheet of a business, filled in from its data: as plain rows, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cvj_ml.config import Config, ListSpec
from cvj_ml.config.plays import Play
from cvj_ml.evaluation.metrics import wilson_interval
from cvj_ml.journey_analytics.counts import JourneyCounts
from cvj_ml.journey_analytics.dwell_times import AFTER, BEFORE_ANY
from cvj_ml.journey_analytics.journey_map import (
    JourneyMap,
    Opportunity,
    Step,
    journey_map,
    of_segment,
    opportunities,
    top_segments,
)
from cvj_ml.journey_analytics.precursors import NO_CHANNEL, Precursor, precursors
from cvj_ml.report import wording
from cvj_ml.scoring import StoredTable

TOP = 6
"""Touchpoints, channels and signs told of a stage."""


@dataclass(frozen=True, slots=True)
class Habit:
    """A touchpoint that customers of a stage have: their share, and how often each of them had it."""

    event: str
    inbound: bool
    share: float
    each: float


@dataclass(frozen=True, slots=True)
class Rating:
    """The latest ratings of customers who stand in a stage."""

    mean: float
    customers: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """One stage of the worksheet. ``channels``: first channels with their share of all who ever entered."""

    step: Step
    plays: tuple[Play, ...]
    habits: tuple[Habit, ...]
    channels: tuple[tuple[str, float], ...]
    moving: tuple[Precursor, ...]
    staying: tuple[Precursor, ...]
    rating: Rating | None


@dataclass(frozen=True, slots=True)
class SegmentStep:
    """One stage within one segment; ``low`` and ``high`` bound the share (Wilson), which is of those ever entered."""

    segment: str
    step: Step
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Worksheet:
    """The whole worksheet: the map, a sheet a stage, opportunities, and steps by segment (empty without segments).

    ``currency`` is that of worths, None where none is configured.
    """

    map: JourneyMap
    sheets: tuple[Sheet, ...]
    opportunities: tuple[Opportunity, ...]
    segment: str | None
    segments: tuple[SegmentStep, ...]
    currency: str | None


def worksheet(config: Config, found: JourneyCounts, scores: StoredTable, specs: Sequence[ListSpec]) -> Worksheet:
    """Fill in the worksheet from the counts of all blocks and one night's SCORES."""
    question = found.question
    drawn = journey_map(config, question.journey, found.dwell_times, scores, question.period)
    sheets = tuple(_sheet(config, found, step) for step in drawn.steps)
    by_segment = []
    for name in top_segments(found.dwell_times) if question.segment else []:
        part = journey_map(config, question.journey, of_segment(found.dwell_times, name), None, question.period)
        for step in part.steps:
            if step.observed and step.entered and step.stage != BEFORE_ANY:
                low, high = wilson_interval(step.converted, step.entered)
                by_segment.append(SegmentStep(name, step, float(low), float(high)))
    by_segment.sort(key=lambda one: one.step.stage)
    room = tuple(opportunities(config, scores, specs))
    return Worksheet(drawn, sheets, room, question.segment, tuple(by_segment), config.report.currency)


def _sheet(config: Config, found: JourneyCounts, step: Step) -> Sheet:
    counts = found.touchpoints
    habits = counts.habits[counts.habits["stage"] == step.stage]
    habits = habits.sort_values(["customers", "event"], ascending=[False, True]).head(TOP)
    origins = counts.origins[counts.origins["stage"] == step.stage]
    origins = origins.sort_values(["customers", "channel"], ascending=[False, True])
    if origins["channel"].eq(NO_CHANNEL).all():
        origins = origins.head(0)
    ratings = counts.ratings[counts.ratings["stage"] == step.stage]
    rated = int(ratings["customers"].sum())
    told = precursors(counts.precursors, step.stage)
    return Sheet(
        step,
        config.journey.stages[step.stage].plays if step.stage >= 0 else (),
        tuple(
            Habit(str(event), bool(inbound), customers / step.here, touchpoints / customers)
            for event, inbound, customers, touchpoints in habits[
                ["event", "inbound", "customers", "touchpoints"]
            ].itertuples(index=False)
        ),
        tuple(
            (str(channel), customers / step.entered)
            for channel, customers in origins[["channel", "customers"]].head(TOP).itertuples(index=False)
        ),
        tuple(one for one in told if one.moving)[:TOP],
        tuple(one for one in reversed(told) if one.staying)[:TOP],
        Rating(float((ratings["rating"] * ratings["customers"]).sum() / rated), rated) if rated else None,
    )


def worksheet_rows(found: Worksheet) -> pd.DataFrame:
    """Return the worksheet as one row a stage: plain text and numbers, fit for a sheet of a workbook.

    Shares are fractions of one; what the data do not tell is missing.
    """
    rows = []
    for sheet in found.sheets:
        step = sheet.step
        best = [one for one in found.opportunities if one.origin == step.name]
        rows.append(
            {
                "stage": step.name,
                "goal": step.goal,
                "observed": step.observed,
                "customers": step.here,
                "silent": step.dormant,
                "stalled": step.pace.stalled,
                "entered_ever": step.entered,
                "arrived_in_period": step.new + step.came,
                "moved_on_in_period": step.left,
                **{
                    f"moved_on_within_{days}_days": share for days, share in zip(AFTER, step.pace.moved_by, strict=True)
                },
                "median_days": None if step.pace.median is None else round(step.pace.median, 1),
                "touchpoints": "; ".join(wording.habit(one) for one in sheet.habits),
                "first_channels": "; ".join(f"{name} {wording.percent(share)}" for name, share in sheet.channels),
                "goes_with_moving_on": "; ".join(map(wording.precursor_in_words, sheet.moving)),
                "goes_with_staying": "; ".join(map(wording.precursor_in_words, sheet.staying)),
                "rating_mean": sheet.rating.mean if sheet.rating else None,
                "rated_customers": sheet.rating.customers if sheet.rating else None,
                "opportunities": "; ".join(wording.opportunity(one, found.currency) for one in best),
                "plays": "; ".join(map(wording.play, sheet.plays)),
            }
        )
    return pd.DataFrame(rows)


def told(sheet: Sheet, period: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return what a stage's sheet says, topic by topic in words; topics about which the data say nothing are absent."""
    step = sheet.step
    goal = ("Goal", (step.goal,) if step.goal else ())
    if not step.observed:
        return [one for one in (goal, ("Customers", (wording.UNOBSERVED,))) if one[1]]
    speed, stalling = wording.speed(step), wording.stalling(step)
    topics = [
        goal,
        ("Customers", (wording.standing(step),)),
        (f"Last {period} days", (wording.movement(step),)),
        ("Moving on", (speed,) if speed else ()),
        ("Stalling", (stalling,) if stalling else ()),
        (f"What they do (last {period} days)", tuple(map(wording.habit, sheet.habits))),
        ("First channel", tuple(f"{name} {wording.percent(share)}" for name, share in sheet.channels)),
        ("Goes with moving on", tuple(map(wording.precursor_in_words, sheet.moving))),
        ("Goes with staying", tuple(map(wording.precursor_in_words, sheet.staying))),
        ("Satisfaction", (wording.rating(sheet.rating.mean, sheet.rating.customers),) if sheet.rating else ()),
        ("Plays", tuple(map(wording.play, sheet.plays))),
    ]
    return [one for one in topics if one[1]]


def worksheet_markdown(found: Worksheet, title: str) -> str:
    """Return the worksheet as Markdown; names from the data stay text, whatever characters they hold."""
    period = found.map.period_days
    lines = [f"# {_plain(title)}", "", wording.ASSOCIATION, ""]
    if found.opportunities:
        lines += ["## Where there is most to gain", "", wording.ROOM, ""]
        lines += [
            f"{i}. {_plain(f'{one.origin} → {one.to}')}: {wording.opportunity(one, found.currency)}"
            for i, one in enumerate(found.opportunities, start=1)
        ]
        lines.append("")
    for sheet in found.sheets:
        step = sheet.step
        lines += [f"## {_plain(step.name)}", ""]
        lines += [_plain(step.goal), ""] if step.goal else []
        if not step.observed:
            lines += [wording.UNOBSERVED, ""]
            continue
        lines += [f"- **{name}:** {_plain('; '.join(texts))}" for name, texts in told(sheet, period) if name != "Goal"]
        lines.append("")
    if found.segments:
        lines += [f"## By {_plain(found.segment or '')}", ""]
        lines += ["| stage | segment | customers | moved on ever | median days |", "| --- | --- | ---: | ---: | ---: |"]
        lines += [
            f"| {_plain(one.step.name)} | {_plain(one.segment)} | {one.step.here:,} | {wording.segment_share(one)}"
            f" | {'' if one.step.pace.median is None else f'{one.step.pace.median:.1f}'} |"
            for one in found.segments
        ]
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape what Markdown and HTML would read as more than text, and keep it on one line."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
