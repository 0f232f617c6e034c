"""The Value Journey worksheet as a sheet of the workbook: a column a stage, then opportunities and segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvj_ml.report import blueprint_words, wording
from cvj_ml.report.worksheet import Worksheet, persona_rows, topics
from cvj_ml.report.xlsx import Formats, write_heading, write_row, write_text

FIRST, STAGE = 24, 34
"""The widths of the first column and of every stage's."""

_Table = tuple[Sequence[str], Sequence[Any], list[Sequence[Any]]]
"""A heading, a format for each column, and the rows."""


def write_worksheet(sheet: Any, found: Worksheet, formats: Formats) -> None:
    """Write from the top."""
    told = topics(found)
    widths = (FIRST, *[STAGE] * len(found.sheets))
    write_heading(sheet, 0, ["Stage", *(one.step.name for one in found.sheets)], widths, formats)
    for row, (name, stages) in enumerate(told, 1):
        cells = [name, *("\n".join(stage) for stage in stages)]
        write_row(sheet, row, cells, [formats.label, *[formats.wrap] * len(found.sheets)], widths)
    row = len(told) + 1
    wide = (FIRST, *[STAGE] * max(6, len(found.sheets) + 4))
    # These stand beside the table and not in it, so they may run over the cells to their right.
    for text in (*blueprint_words.rating_notes(found.moods, found.stages), wording.ASSOCIATION, wording.ROOM):
        row += 1
        write_text(sheet, row, 0, text, formats.beside)
    for heading, kinds, lines in (
        _personas(found, formats),
        _opportunities(found, formats),
        _segments(found, formats),
    ):
        if not lines:
            continue
        row += 2
        texts = (formats.label, formats.wrap)
        write_heading(sheet, row, heading, wide, formats, [i for i, kind in enumerate(kinds) if kind not in texts])
        for line in lines:
            row += 1
            write_row(sheet, row, line, kinds, wide)


def _personas(found: Worksheet, formats: Formats) -> _Table:
    stages = [step.name for step in found.map.steps if step.observed]
    heading = ("Personas", "People", *stages, "Spent until tonight", "Offered most", "To how many")
    lines: list[Sequence[Any]] = []
    for one in found.personas:
        here = [row.stage.here for row in persona_rows(found, one)]
        play = (one.play.text, one.play.people) if one.play else (None, None)
        lines.append((blueprint_words.persona(one), one.people, *here, one.value, *play))
    count = formats.count
    return heading, (formats.label, count, *[count] * len(stages), formats.amount, formats.wrap, count), lines


def _opportunities(found: Worksheet, formats: Formats) -> _Table:
    heading = ("Where there is most to gain", "Customers", "Average", "Best quarter", "Gap", "Room for", "Worth")
    share, count = formats.share, formats.count
    kinds = (formats.label, count, share, share, share, formats.moves, formats.amount)
    return (
        heading,
        kinds,
        [
            (
                f"{one.origin} → {one.to}, {wording.days(one.horizon_days)}",
                *(one.customers, one.probability, one.best, one.gap, one.moves, one.value),
            )
            for one in found.opportunities
        ],
    )


def _segments(found: Worksheet, formats: Formats) -> _Table:
    heading = (
        f"By {found.segment}",
        "Segment",
        "Customers",
        "Moved on ever",
        "From (95 %)",
        "To (95 %)",
        "Median days",
    )
    share, count = formats.share, formats.count
    kinds = (formats.label, formats.wrap, count, share, share, share, count)
    return (
        heading,
        kinds,
        [
            (
                *(one.step.name, one.segment, one.step.here, one.step.converted / one.step.stays),
                *(one.low, one.high, one.step.pace.median),
            )
            for one in found.segments
        ],
    )
