"""The journey as a service blueprint: a column a stage, and rows of what happens there, as texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cvj_ml.journey_analytics.journey_map import JourneyMap
from cvj_ml.report import blueprint_words, wording
from cvj_ml.report.worksheet import Sheet, Worksheet


@dataclass(frozen=True, slots=True)
class Column:
    """A stage: its name, who stands there in words, and its bar in per cent of the fullest stage's."""

    name: str
    here: str
    share: float


@dataclass(frozen=True, slots=True)
class BlueprintRow:
    """One row: its heading, the kind that decides its colour, and a cell of texts for each column."""

    heading: str
    kind: str
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Columns are the stages that the data show, in order; every row has a cell for each.

    ``notes`` name the other stages and say what rows rest on.
    """

    columns: tuple[Column, ...]
    rows: tuple[BlueprintRow, ...]
    notes: tuple[str, ...]


def blueprint(found: Worksheet) -> Blueprint:
    """Lay the journey out; a row of which no stage has anything is left out."""
    map_, sheets = found.map, [sheet for sheet in found.sheets if sheet.step.observed]
    unseen = [sheet.step.name for sheet in found.sheets if not sheet.step.observed]
    most = max((sheet.step.here for sheet in sheets), default=0) or 1
    columns = tuple(
        Column(
            sheet.step.name,
            f"{sheet.step.here:,} now",
            round(100 * sheet.step.here / most, 1),
        )
        for sheet in sheets
    )
    told: list[tuple[str, str, Callable[[Sheet], list[str]]]] = [
        ("Flow", "flow", lambda sheet: _flow(map_, sheet)),
        ("What they do", "", lambda sheet: [wording.habit(one) for one in sheet.habits if one.inbound][:3]),
        ("First channel", "", lambda sheet: [f"{name} {wording.percent(share)}" for name, share in sheet.channels[:2]]),
        ("Mood", "", lambda sheet: _mood(found, sheet)),
        ("Pain points", "pain", _pain),
        ("Time here", "", _time),
        ("Value to them", "", lambda sheet: _given(sheet.value)),
        ("Their next step", "", lambda sheet: _given(sheet.next_step)),
        ("What we can do", "", lambda sheet: _what_we_can_do(sheets, sheet)),
        ("Owner", "", lambda sheet: _given(sheet.owner)),
    ]
    rows = [BlueprintRow(heading, kind, tuple(tuple(say(one)) for one in sheets)) for heading, kind, say in told]
    notes = [f"The data show nothing of {', '.join(unseen)}."] if unseen else []
    notes += blueprint_words.rating_notes(found.moods, found.stages)
    return Blueprint(columns, tuple(row for row in rows if any(row.cells)), tuple(notes))


def _flow(map_: JourneyMap, sheet: Sheet) -> list[str]:
    step = sheet.step
    onward = [flow for flow in map_.flows if flow.origin == step.stage]
    onward.sort(key=lambda flow: (-flow.customers, flow.to))
    return [
        f"+{step.arrived:,} in",
        *(f"→ {flow.customers:,} {map_.name(flow.to)}" for flow in onward[:3]),
    ]


def _mood(found: Worksheet, sheet: Sheet) -> list[str]:
    return [blueprint_words.mood(sheet.mood, found.moods.scale)] if sheet.mood else []


def _pain(sheet: Sheet) -> list[str]:
    return list(blueprint_words.pains(sheet.pains, sheet.step.here))


def _time(sheet: Sheet) -> list[str]:
    return _given(blueprint_words.time_here(sheet.step, sheet.so_far))


def _given(text: str) -> list[str]:
    return [text] if text else []


def _what_we_can_do(sheets: Sequence[Sheet], sheet: Sheet) -> list[str]:
    """Return what is for those who stay, else what leads to the next stage; at first, also what brings people there."""
    here = sheet.plays_here if sheet.step.stage else (*sheet.plays, *sheet.plays_here)
    onward = next((one for one in sheets if one.step.stage > sheet.step.stage and one.step.observed), None)
    told = [wording.play(one) for one in here]
    if onward is not None and onward.plays and sheet.step.stage >= 0 and not sheet.plays_here:
        told.append(f"Towards {onward.step.name}: {wording.play(onward.plays[0])}")
    return told
