"""The page of a night: one HTML file that needs nothing else, made of a dict of plain values and a template.

The report of a night: counted in one pass over the blocks, then written as a page and as Markdown.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from cvj_ml.config import DAY, Config
from cvj_ml.customers import Naming
from cvj_ml.engines import Blocks
from cvj_ml.io import html_environment
from cvj_ml.journey import Journey
from cvj_ml.journey_analytics.counts import count_journey, question_of
from cvj_ml.journey_analytics.journey_map import JourneyMap
from cvj_ml.journey_analytics.precursors import TouchpointCounts
from cvj_ml.lists.ranked_list import RankedList, list_specs
from cvj_ml.models.predictor import Unlived
from cvj_ml.report import blueprint_words, wording
from cvj_ml.report.blueprint import blueprint
from cvj_ml.report.campaign_history import list_histories
from cvj_ml.report.list_view import fitting, list_files, list_view
from cvj_ml.report.plan import Plan, plan_of
from cvj_ml.report.segment_table import ready_segments
from cvj_ml.report.what_changed import WhatChanged
from cvj_ml.report.wording import TrainedModel, judgements, parts_in_words
from cvj_ml.report.worksheet import Worksheet, persona_rows, worksheet, worksheet_json, worksheet_markdown
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.store import Store, Usage
from cvj_ml.windows import to_datetime

_ROOM_TO_SPARE = 20_000
"""Bytes for buttons in the place of file names."""

MOST_UNLIVED = 3
"""Stages whose customers nobody has watched for long enough, as the page tells; the model's card has them all."""

MOST_BYTES = 1_900_000
"""The page holds whole lists for its export buttons as long as it stays below this, so that it fits into an e-mail."""


@dataclass(frozen=True, slots=True)
class Source:
    """What became of the rows of one source."""

    name: str
    rows: int
    stored: int
    refused: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the page tells of one night.

    ``used`` are rows; ``training`` may be unknown; ``history`` is what `measure` had found by then, empty at first;
    ``unlived`` is what the model's training knew too little of; ``changed`` is None for a night without lists.
    """

    config: Config
    as_of: int
    model_version: str
    scores: StoredTable
    lists: Sequence[RankedList]
    plan: Plan
    worksheet: Worksheet
    touchpoints: TouchpointCounts
    sources: Sequence[Source]
    naming: Mapping[str, Naming]
    used: int
    not_yet_visible: int
    training: TrainedModel | None
    history: pd.DataFrame
    unlived: Sequence[Unlived] = ()
    changed: WhatChanged | None = None
    exports: Sequence[Mapping[str, Any]] = ()


def page(night: PageFacts) -> str:
    """Return the page; equal nights give equal text, since it holds no clock and no random number."""
    values, files = context(night), list_files(night.lists)
    room = MOST_BYTES - len(render({**values, "files": fitting(files, 0)}).encode())
    return render({**values, "files": fitting(files, room - _ROOM_TO_SPARE)})


def context(night: PageFacts) -> dict[str, Any]:
    """Return everything that the template shows but the lists' files, as plain values."""
    config, sheet, plan = night.config, night.worksheet, night.plan
    effects = {queue.name: queue.effect for queue in plan.queues}
    return {
        "name": config.name,
        "day": plan.day.isoformat(),
        "zone": config.time_zone,
        "model_version": night.model_version,
        "customers": len(night.scores),
        "silent": sum(step.dormant for step in sheet.map.steps),
        "plan": plan,
        "tiles": plan.tiles(night.changed),
        "changed": night.changed,
        "segments": ready_segments(config, night.scores, night.lists, night.changed),
        "exports": [(wording.export_file(one["export"]), wording.export(one)) for one in night.exports],
        "tables": [list_view(one, effects[one.name], config) for one in night.lists],
        "map": sheet.map,
        "blueprint": blueprint(sheet),
        "worksheet": sheet,
        "personas": [(one, persona_rows(sheet, one)) for one in sheet.personas],
        "names": sheet.stages,
        "past": list_histories(night.history, [one.name for one in night.lists]),
        "past_folds": max((one.moves.folds for one in night.lists), default=0),
        "judgements": judgements(night.lists, night.training, config.journey),
        "forecast": parts_in_words(night.lists, night.training),
        "training": night.training,
        "low_evidence": _low_evidence(night.scores),
        "unlived": _unlived(night.unlived, sheet.map),
        "sources": night.sources,
        "people": {name: str(one) for name, one in night.naming.items()},
        "used": night.used,
        "not_yet_visible": night.not_yet_visible,
        "freshness": _freshness(night),
    }


def render(values: Mapping[str, Any]) -> str:
    """Fill the template in; whatever comes from data is escaped."""
    style, script = asset("page.css"), asset("page.js")
    environment = html_environment("cvj_ml.report")
    environment.filters |= {
        "percent": wording.percent,
        "count": wording.whole_number,
        "days": wording.days,
    }
    policy = (
        f"default-src 'none'; script-src '{style_hash(script)}'; style-src '{style_hash(style)}'; base-uri 'none';"
        " form-action 'none'"
    )
    return environment.get_template("page.html").render(
        {
            **values,
            "words": wording,
            "blueprint_words": blueprint_words,
            "style": Markup(style),
            "script": Markup(script),
            "policy": policy,
        }
    )


@lru_cache
def asset(name: str) -> str:
    """Return the text of a style or a script of the templates."""
    text = files("cvj_ml.report").joinpath("templates", name).read_text(encoding="utf-8")
    assert "</" not in text, "a style or script must not end its own element"
    return text


def style_hash(text: str) -> str:
    """Return what a page's policy calls a style or a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _low_evidence(scores: StoredTable) -> list[str]:
    """Return the targets that rest on base rates for somebody, in the order of the first customer who has them."""
    found: dict[str, None] = {}
    for batch in scores.batches(["low_evidence"]):
        found |= dict.fromkeys(batch["low_evidence"].flatten().unique().to_pylist())
    return list(found)


def _unlived(found: Sequence[Unlived], journey: JourneyMap) -> list[str]:
    """Say of the stages where somebody stands tonight what nobody has lived through, the return before all."""
    here = {step.stage: step.here for step in journey.steps}
    told = [one for one in found if here.get(one.origin, 0)]
    told.sort(key=lambda one: (one.target != "return", -here[one.origin]))
    return [f"{one.sentence}; {wording.customers(here[one.origin])} stand there now" for one in told[:MOST_UNLIVED]]


def _freshness(night: PageFacts) -> str:
    """Say how new the data are, and whether the last week looks like the weeks before."""
    counts, zone = night.touchpoints, night.config.zone
    newest = to_datetime(counts.newest, zone)
    age = (night.as_of - counts.newest) / DAY
    told = f"Data until {wording.day_in_words(newest.date())}, {newest:%H:%M}"
    told += f", {wording.days(age)} before this night" if age >= 1 else ""
    brought = f"{counts.lately:,} touchpoints in the last 7 days"
    if not counts.weeks:
        return f"{told}; {brought}, no whole week was recorded before (history_from: {night.config.history_from})."
    usual = counts.usually / counts.weeks
    if counts.lately < usual / 2:
        return f"{told}; only {brought}, {usual:,.0f} are usual: check that all data have arrived."
    if counts.lately > 2 * usual:
        return f"{told}; {brought}, {usual:,.0f} are usual: check that nothing came twice."
    return f"{told}; as busy as usual."


PAGE = "report/index.html"
WORKSHEET = "report/worksheet.md"
WORKSHEET_VALUES = "report/worksheet.json"


@dataclass(frozen=True, slots=True)
class Documents:
    """The page, the worksheet as Markdown and as values, the plan, and how many rows of lists there are."""

    page: str
    markdown: str
    plan: Plan
    worksheet: Worksheet
    listed: int


def make_report(
    config: Config,
    store: Store,
    journey: Journey,
    blocks: Blocks,
    as_of: int,
    scores: StoredTable,
    lists: Sequence[RankedList],
    naming: Mapping[str, Naming],
    usage: Usage,
    model_version: str,
    training: TrainedModel | None,
    history: pd.DataFrame,
    unlived: Sequence[Unlived] = (),
    first_listed: Mapping[str, int] | None = None,
    changed: WhatChanged | None = None,
    exports: Sequence[Mapping[str, Any]] = (),
) -> Documents:
    """Make the report of one night's SCORES and lists."""
    found = count_journey(question_of(config, journey, as_of, store.arrival_delay), blocks)
    sheet = worksheet(config, found, scores, list_specs(config, journey), [one.rows for one in lists])
    plan = plan_of(config, lists, as_of, store.arrival_delay, first_listed or {})
    sources = [
        Source(name, counts.rows_in, counts.stored, sum(counts.refused.values()), counts.duplicates)
        for name, counts in store.counts.items()
    ]
    night = PageFacts(
        config,
        as_of,
        model_version,
        scores,
        lists,
        plan,
        sheet,
        found.touchpoints,
        sources,
        naming,
        usage.used,
        usage.not_yet_visible,
        training,
        history,
        unlived,
        changed,
        exports,
    )
    markdown = worksheet_markdown(sheet, f"Value Journey worksheet: {config.name}, {plan.day.isoformat()}")
    return Documents(page(night), markdown, plan, sheet, sum(len(one.rows) for one in lists))


def write_report(report: Documents, folder: Path) -> Mapping[str, int]:
    """Write the page, and the worksheet in words and in values, into a night's folder; return the rows of each file."""
    (folder / PAGE).parent.mkdir()
    (folder / PAGE).write_text(report.page, encoding="utf-8")
    (folder / WORKSHEET).write_text(report.markdown, encoding="utf-8")
    (folder / WORKSHEET_VALUES).write_text(worksheet_json(report.worksheet), encoding="utf-8")
    return {PAGE: report.listed, **dict.fromkeys((WORKSHEET, WORKSHEET_VALUES), len(report.worksheet.sheets))}
