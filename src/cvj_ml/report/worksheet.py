"""The Value Journey worksheet of a business, filled in from its data: as plain rows, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter

from cvj_ml.config import Config, ListSpec
from cvj_ml.config.plays import Play
from cvj_ml.evaluation.metrics import wilson_interval
from cvj_ml.journey_analytics.counts import JourneyCounts
from cvj_ml.journey_analytics.dwell_times import AFTER, BEFORE_ANY, STILL_THERE
from cvj_ml.journey_analytics.experience import Mood, Moods, PainPoints, moods, pain_points
from cvj_ml.journey_analytics.journey_map import (
    JourneyMap,
    Opportunity,
    Step,
    journey_map,
    of_segment,
    opportunities,
    top_segments,
    weighted_percentile,
)
from cvj_ml.journey_analytics.personas import Persona, PersonaStage, personas
from cvj_ml.journey_analytics.precursors import NO_CHANNEL, Precursor, precursors
from cvj_ml.report import blueprint_words, wording
from cvj_ml.scoring.scores_table import StoredTable

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
class Sheet:
    """One stage of the worksheet.

    ``value``, ``next_step``, ``owner`` and the plays are the journey file's. ``channels``: first channels with their
    share of all who ever entered; ``mood``: of the ratings given here in the last period, None without any;
    ``so_far``: days by which half of those here had come, None where nobody is.
    """

    step: Step
    value: str
    next_step: str
    owner: str
    plays: tuple[Play, ...]
    plays_here: tuple[Play, ...]
    habits: tuple[Habit, ...]
    channels: tuple[tuple[str, float], ...]
    moving: tuple[Precursor, ...]
    staying: tuple[Precursor, ...]
    mood: Mood | None
    pains: PainPoints
    so_far: float | None


@dataclass(frozen=True, slots=True)
class SegmentStep:
    """One stage within one segment; ``low`` and ``high`` bound the share (Wilson), which is of all stays."""

    segment: str
    step: Step
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Worksheet:
    """The whole worksheet: the map, a sheet a stage, personas, opportunities, and steps by segment.

    ``moods`` has the scale of the ratings, and those that no sheet counts; without segments there are no steps by them.
    ``currency`` is that of worths, None where none is configured.
    """

    map: JourneyMap
    sheets: tuple[Sheet, ...]
    moods: Moods
    personas: tuple[Persona, ...]
    opportunities: tuple[Opportunity, ...]
    segment: str | None
    segments: tuple[SegmentStep, ...]
    currency: str | None

    @property
    def stages(self) -> dict[int, str]:
        """The names of the stages that have a sheet."""
        return {sheet.step.stage: sheet.step.name for sheet in self.sheets}


@dataclass(frozen=True, slots=True)
class PersonaRow:
    """A persona's people in a stage as a ``share`` of all of them, beside the share that ``everybody`` has there."""

    stage: PersonaStage
    share: float
    everybody: float

    @property
    def height(self) -> float:
        """The share as the height of a bar, 40 for all of them."""
        return round(40 * self.share, 1)


def persona_rows(found: Worksheet, one: Persona) -> list[PersonaRow]:
    """Return a persona's journey through the stages that have a sheet and can be observed."""
    all_here = {step.stage: step.here for step in found.map.steps if step.observed}
    everybody = max(sum(all_here.values()), 1)
    return [
        PersonaRow(stage, stage.here / one.people, all_here[stage.stage] / everybody)
        for stage in one.stages
        if stage.stage in all_here
    ]


def worksheet(
    config: Config,
    found: JourneyCounts,
    scores: StoredTable,
    specs: Sequence[ListSpec],
    lists: Sequence[pa.Table] = (),
) -> Worksheet:
    """Fill in the worksheet from the counts of all blocks, one night's SCORES, and the rows of its lists."""
    question = found.question
    drawn = journey_map(config, question.journey, found.dwell_times, scores, question.period)
    mood = moods(found.experience, config.report.rating_scale)
    sheets = tuple(_sheet(config, found, step, mood) for step in drawn.steps)
    by_segment = []
    for name in top_segments(found.dwell_times) if question.segment else []:
        part = journey_map(config, question.journey, of_segment(found.dwell_times, name), None, question.period)
        for step in part.steps:
            if step.observed and step.entered and step.stage != BEFORE_ANY:
                low, high = wilson_interval(step.converted, step.stays)
                by_segment.append(SegmentStep(name, step, float(low), float(high)))
    by_segment.sort(key=lambda one: one.step.stage)
    return Worksheet(
        drawn,
        sheets,
        mood,
        personas(config, found.customers, lists).groups,
        tuple(opportunities(config, scores, specs)),
        question.segment,
        tuple(by_segment),
        config.report.currency,
    )


def _sheet(config: Config, found: JourneyCounts, step: Step, mood: Moods) -> Sheet:
    counts = found.touchpoints
    habits = counts.habits[counts.habits["stage"] == step.stage]
    habits = habits.sort_values(["customers", "event"], ascending=[False, True]).head(TOP)
    origins = counts.origins[counts.origins["stage"] == step.stage]
    origins = origins.sort_values(["customers", "channel"], ascending=[False, True])
    if origins["channel"].eq(NO_CHANNEL).all():
        origins = origins.head(0)
    told = precursors(counts.precursors, step.stage)
    stays = found.dwell_times.dwell_times
    here = stays[(stays["stage"] == step.stage) & (stays["next"] == STILL_THERE)]
    stage = config.journey.stages[step.stage] if step.stage >= 0 else None
    return Sheet(
        step,
        stage.value if stage else "",
        stage.next_step if stage else "",
        stage.owner if stage else "",
        stage.plays if stage else (),
        stage.plays_here if stage else (),
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
        mood.of.get(step.stage),
        pain_points(found.experience, step.stage, step.dormant),
        weighted_percentile(here["days"].to_numpy(), here["customers"].to_numpy(), 0.5) if len(here) else None,
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
                "value": sheet.value,
                "observed": step.observed,
                "customers": step.here,
                "silent": step.dormant,
                "stalled": step.pace.stalled,
                "entered_ever": step.entered,
                "arrived_in_period": step.arrived,
                "moved_on_in_period": step.left,
                **{
                    f"moved_on_within_{days}_days": share for days, share in zip(AFTER, step.pace.moved_by, strict=True)
                },
                "median_days": None if step.pace.median is None else round(step.pace.median, 1),
                "median_days_so_far": None if sheet.so_far is None else round(sheet.so_far, 1),
                "touchpoints": "; ".join(wording.habit(one) for one in sheet.habits),
                "first_channels": "; ".join(f"{name} {wording.percent(share)}" for name, share in sheet.channels),
                "goes_with_moving_on": "; ".join(map(wording.precursor_in_words, sheet.moving)),
                "goes_with_staying": "; ".join(map(wording.precursor_in_words, sheet.staying)),
                "rating_mean": sheet.mood.mean if sheet.mood else None,
                "ratings": sheet.mood.given if sheet.mood else None,
                "bad_ratings": sheet.mood.bad if sheet.mood else None,
                "had_a_ticket": sheet.pains.tickets,
                "had_a_setback": sheet.pains.setbacks,
                "opportunities": "; ".join(wording.opportunity(one, found.currency) for one in best),
                "next_step": sheet.next_step,
                "plays": "; ".join(map(wording.play, sheet.plays)),
                "plays_here": "; ".join(map(wording.play, sheet.plays_here)),
                "owner": sheet.owner,
            }
        )
    return pd.DataFrame(rows)


Cells = tuple[str, ...]
"""What a stage's sheet says of one topic, a text a statement."""


def topics(found: Worksheet) -> list[tuple[str, list[Cells]]]:
    """Return what all sheets say: a row a topic with a cell for each stage; rows without a word are absent."""
    sheets = [_topics(found, sheet) for sheet in found.sheets]
    rows = [(name, [sheet[name] for sheet in sheets]) for name in sheets[0]] if sheets else []
    return [(name, cells) for name, cells in rows if any(cells)]


def told(found: Worksheet, sheet: Sheet) -> list[tuple[str, Cells]]:
    """Return what a stage's sheet says, topic by topic; topics about which nothing is known are absent."""
    return [(name, cells) for name, cells in _topics(found, sheet).items() if cells]


def _topics(found: Worksheet, sheet: Sheet) -> dict[str, Cells]:
    step, period = sheet.step, f"last {found.map.period_days} days"
    seen = step.observed
    topics: dict[str, Sequence[str]] = {
        "Goal": [step.goal],
        "Value to the customer": [sheet.value],
        "Customers": [wording.standing(step) if seen else wording.UNOBSERVED],
        f"Flow ({period})": [wording.movement(step)] if seen else [],
        f"What they do ({period})": [wording.habit(one) for one in sheet.habits],
        "First channel": [f"{name} {wording.percent(share)}" for name, share in sheet.channels],
        f"Mood ({period})": [blueprint_words.mood(sheet.mood, found.moods.scale)] if sheet.mood else [],
        f"Pain points ({period})": blueprint_words.pains(sheet.pains, step.here),
        "Time here": [blueprint_words.time_here(step, sheet.so_far)],
        "Moving on": [wording.speed(step)],
        "Stalling": [wording.stalling(step)],
        "Goes with moving on": [wording.precursor_in_words(one) for one in sheet.moving],
        "Goes with staying": [wording.precursor_in_words(one) for one in sheet.staying],
        "Next step": [sheet.next_step],
        "Plays that lead here": [wording.play(one) for one in sheet.plays],
        "Plays for those who stay": [wording.play(one) for one in sheet.plays_here],
        "Owner": [sheet.owner],
    }
    return {name: tuple(text for text in texts if text) for name, texts in topics.items()}


_VALUES = TypeAdapter(Worksheet)


def worksheet_json(found: Worksheet) -> str:
    """Return the worksheet as one JSON object, from which `worksheet_of_json` reads the same worksheet."""
    # What a play leaves unsaid stays unsaid: some of it may not stand beside what it says.
    return _VALUES.dump_json(found, exclude_unset=True).decode()


def worksheet_of_json(text: str) -> Worksheet:
    """Read a worksheet; ValueError where the text is none, or that of another version."""
    return _VALUES.validate_json(text)


def worksheet_markdown(found: Worksheet, title: str) -> str:
    """Return the worksheet as Markdown; names from the data stay text, whatever characters they hold."""
    lines = [f"# {_plain(title)}", "", wording.ASSOCIATION, ""]
    if found.opportunities:
        lines += ["## Where there is most to gain", "", wording.ROOM, ""]
        lines += [
            f"{i}. {_plain(f'{one.origin} → {one.to}')}: {wording.opportunity(one, found.currency)}"
            for i, one in enumerate(found.opportunities, start=1)
        ]
        lines.append("")
    for sheet in found.sheets:
        lines += [f"## {_plain(sheet.step.name)}", ""]
        lines += [f"- **{name}:** {_plain('; '.join(texts))}" for name, texts in told(found, sheet)]
        lines.append("")
    for note in blueprint_words.rating_notes(found.moods, found.stages):
        lines += [note, ""]
    lines += _personas(found)
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


def _personas(found: Worksheet) -> list[str]:
    names, everybody = found.stages, sum(one.people for one in found.personas)
    lines = ["## Personas", "", blueprint_words.PERSONAS, ""] if found.personas else []
    for one in found.personas:
        lines += [
            f"### {_plain(blueprint_words.persona(one))}",
            "",
            _plain(blueprint_words.persona_size(one, everybody, found.currency)) + ".",
            "",
        ]
        lines += ["| stage | people | share | of everybody | new | came | moved on |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {_plain(names[row.stage.stage])} | {row.stage.here:,} | {wording.percent(row.share)} |"
            f" {wording.percent(row.everybody)} | {row.stage.new:,} | {row.stage.came:,} | {row.stage.left:,} |"
            for row in persona_rows(found, one)
        ]
        lines += ["", f"- **Last {found.map.period_days} days:** {_plain(blueprint_words.persona_moves(one, names))}"]
        lines += [f"- **Offered most:** {_plain(blueprint_words.offered(one))}", ""]
    return lines


def _plain(text: str) -> str:
    """Escape what Markdown and HTML would read as more than text, and keep it on one line."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
