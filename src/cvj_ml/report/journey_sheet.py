"""The Value Journey worksheet as a sheet of the workbook: a column a stage, then opportunities and segments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cvj_ml.report import words
from cvj_ml.report.cells import write_cell, write_text
from cvj_ml.report.worksheet import Worksheet, told

WIDTHS = (24, 34)
"""The widths of the first column and of every stage's."""

_LINE_HEIGHT, _TALLEST = 15, 400  # in points; a spreadsheet refuses rows above 409


def write_worksheet(sheet: Any, found: Worksheet, forms: Mapping[str, Any]) -> None:
    """Write from the top; ``forms``: head, bold, wrap, percent, count, and amount."""
    names = dict.fromkeys(name for one in found.sheets for name, _ in told(one, found.map.period_days))
    stages = [dict(told(one, found.map.period_days)) for one in found.sheets]
    _row(sheet, 0, ["Stage", *(one.step.name for one in found.sheets)], forms["head"])
    row = 1
    for name in names:
        cells = ["\n".join(stage.get(name, ())) for stage in stages]
        sheet.set_row(row, _height(cells))
        write_text(sheet, row, 0, name, forms["bold"])
        for place, text in enumerate(cells, 1):
            write_text(sheet, row, place, text, forms["wrap"])
        row += 1
    # These stand beside the table and not in it, so they may run over the cells to their right.
    for text in (words.ASSOCIATION, words.ROOM):
        row += 1
        write_text(sheet, row, 0, text)
    for heading, kinds, lines in (_opportunities(found), _segments(found)):
        if not lines:
            continue
        row += 2
        _row(sheet, row, heading, forms["head"])
        for line in lines:
            row += 1
            for place, (kind, value) in enumerate(zip(kinds, line, strict=True)):
                write_cell(sheet, row, place, value, forms[kind])


def _opportunities(found: Worksheet) -> tuple[Sequence[str], Sequence[str], list[Sequence[Any]]]:
    heading = ("Where there is most to gain", "Customers", "Average", "Best quarter", "Gap", "Room for", "Worth")
    kinds = ("bold", "count", "percent", "percent", "percent", "count", "amount")
    return (
        heading,
        kinds,
        [
            (
                f"{one.origin} → {one.to}, {words.days(one.horizon_days)}",
                *(one.customers, one.probability, one.best, one.gap, one.moves, one.value),
            )
            for one in found.opportunities
        ],
    )


def _segments(found: Worksheet) -> tuple[Sequence[str], Sequence[str], list[Sequence[Any]]]:
    heading = (
        f"By {found.segment}",
        "Segment",
        "Customers",
        "Moved on ever",
        "From (95 %)",
        "To (95 %)",
        "Median days",
    )
    kinds = ("bold", "wrap", "count", "percent", "percent", "percent", "count")
    return (
        heading,
        kinds,
        [
            (
                *(one.step.name, one.segment, one.step.here, one.step.moved / one.step.entered),
                *(one.low, one.high, one.step.pace.median),
            )
            for one in found.segments
        ],
    )


def _row(sheet: Any, row: int, texts: Sequence[str], form: Any) -> None:
    for place, text in enumerate(texts):
        write_text(sheet, row, place, text, form)


def _height(cells: Sequence[str]) -> float:
    """Return the height that the fullest cell needs: spreadsheets do not fit rows that they did not write."""
    lines = max((sum(_lines(cell)) for cell in cells), default=1)
    return float(min(max(lines, 1) * _LINE_HEIGHT, _TALLEST))


def _lines(cell: str) -> Iterator[int]:
    for line in cell.split("\n"):
        yield max(1, math.ceil(len(line) / (WIDTHS[1] - 4)))
