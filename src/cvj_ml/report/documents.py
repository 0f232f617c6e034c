"""The report of a night: counted in one pass over the blocks, then written as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cvj_ml.config import Config
from cvj_ml.engines import Blocks
from cvj_ml.lists import RankedList, list_specs
from cvj_ml.models.predictor import Unlived
from cvj_ml.report.page import Night, Source, page
from cvj_ml.report.quality import Training
from cvj_ml.report.survey import ask, survey
from cvj_ml.report.worksheet import Worksheet, worksheet, worksheet_markdown
from cvj_ml.scoring import StoredTable
from cvj_ml.sources import Naming, Store, Usage
from cvj_ml.windows import to_datetime

PAGE = "report/index.html"
WORKSHEET = "report/worksheet.md"


@dataclass(frozen=True, slots=True)
class Report:
    """The page, the worksheet as Markdown and as values, and how many rows of lists there are."""

    page: str
    markdown: str
    worksheet: Worksheet
    listed: int


def make_report(
    config: Config,
    store: Store,
    unobserved: frozenset[str],
    blocks: Blocks,
    as_of: int,
    scores: StoredTable,
    lists: Sequence[RankedList],
    naming: Mapping[str, Naming],
    usage: Usage,
    model_version: str,
    training: Training | None,
    history: pd.DataFrame,
    unlived: Sequence[Unlived] = (),
) -> Report:
    """Make the report of one night's SCORES and lists."""
    found = survey(ask(config, unobserved, as_of, store.arrival_delay), blocks)
    sheet = worksheet(config, found, scores, list_specs(config, unobserved))
    sources = [
        Source(name, counts.rows_in, counts.stored, sum(counts.refused.values()), counts.duplicates)
        for name, counts in store.counts.items()
    ]
    night = Night(
        config,
        as_of,
        model_version,
        scores,
        lists,
        sheet,
        found.touchpoints,
        sources,
        naming,
        usage.used,
        usage.not_yet_visible,
        training,
        history,
        unlived,
    )
    day = to_datetime(as_of, config.zone).date().isoformat()
    markdown = worksheet_markdown(sheet, f"Value Journey worksheet: {config.name}, {day}")
    return Report(page(night), markdown, sheet, sum(len(one.rows) for one in lists))


def write_report(report: Report, folder: Path) -> Mapping[str, int]:
    """Write page and worksheet into a night's folder and return the rows of each file."""
    (folder / PAGE).parent.mkdir()
    (folder / PAGE).write_text(report.page, encoding="utf-8")
    (folder / WORKSHEET).write_text(report.markdown, encoding="utf-8")
    return {PAGE: report.listed, WORKSHEET: len(report.worksheet.sheets)}
