"""The workbook: how to read it, a summary, one sheet a list, apart from them whom not to contact, the worksheet.

Cells of a workbook: text stays text, whatever it looks like.

The Value Journey worksheet as a sheet of the workbook: a column a stage, then opportunities and segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xlsxwriter
from xlsxwriter.exceptions import FileCreateError

from cvj_ml.lists import NOT_LISTED, REASONS, RankedList
from cvj_ml.models.bundle.forecast_errors import LEVELS
from cvj_ml.report import blueprint_words, wording
from cvj_ml.report.worksheet import Worksheet, persona_rows, topics

MAX_ROWS = 200_000
"""Customers on a sheet; a longer list is cut there, and its sheet's last row says so."""

_WIDEST = 60

_HEADINGS = {
    "rank": "Rank",
    "customer_id": "Customer",
    "probability": "Probability",
    "track_record": "Of customers scored like this",
    "lift": "Times the average",
    "expected_value": "Expected value",
    "play": "What to do",
    "channel": "Through",
    "reason_1": "Why (1)",
    "reason_2": "Why (2)",
    "reason_3": "Why (3)",
}
_FORMATS = {"probability": "0.0%", "lift": '0.0"×"', "expected_value": "#,##0.00", "rank": "0"}
_FIRST = ("rank", "customer_id")
_THEN = (
    *("probability", "track_record", "lift", "expected_value"),
    *("play", "channel", "reason_1", "reason_2", "reason_3"),
)
JOURNEY = "Value Journey"
EXPECTED = "Expected to move without contact"
_NOT_SHOWN = {
    *("track_record_n", "track_record_k", "track_record_predicted", "track_record_low", "track_record_high"),
    *("from_stage", "to_stage", "horizon_days", "group", "control_share", "as_of", "model_version"),
}

HOW_TO_READ = (
    ("What this is", "One sheet a list. Each list names customers of one stage, the likeliest to move on first."),
    (
        "Whom to contact",
        "Everybody on the numbered sheets, from the top. Stop where your time or budget ends. Ranks that are missing"
        " there belong to the control group.",
    ),
    (
        "Whom not to contact",
        "The sheet 'DO NOT CONTACT' names customers whom chance has chosen to be left alone, the same ones all"
        " through the epoch. Only by comparing with them can anybody say later what the contacts have brought about."
        " Leave them out of this campaign in every channel.",
    ),
    ("Probability", "How likely the customer reaches the list's stage, or a later one, within the list's days."),
    (
        "Of customers scored like this",
        "What happened before: how many of past customers with such a probability moved, and the range in which their"
        " true share lies with 95 % confidence.",
    ),
    ("Times the average", "The probability, divided by the average of everybody in the stage tonight."),
    (
        "Expected value",
        "The worth of the list's stage and of each later one, times the probability of reaching it within the list's"
        " days. Worths come from the configuration.",
    ),
    ("Why (1) to (3)", "What speaks for or against a move, the weightiest first. A description, not a cause."),
    (
        "What to do, Through",
        "A play for the stage that the list leads to, and the permitted channel that this customer answers to best, or"
        " uses most.",
    ),
    (
        "Summary",
        "Where everybody in a list's stage went: left out, with the reason; eligible but not listed; to contact;"
        " control. The numbers add up.",
    ),
    (
        EXPECTED,
        "Of all who are listed, in control or not: the sum of their probabilities. If nobody is contacted, the number"
        " that moves lies between the bounds in 80 or 95 of 100 cases. They come from how far earlier forecasts for as"
        " many customers missed.",
    ),
    (
        JOURNEY,
        "The worksheet of the business, filled in from its data: per stage its goal, who is there, what they do, how"
        " fast they move on, what goes with it, and what can be done.",
    ),
)


def write_workbook(
    path: Path,
    lists: Sequence[RankedList],
    tables: Sequence[pa.Table],
    summary: pa.Table,
    worksheet: Worksheet,
    night: str,
) -> None:
    """Write lists as one XLSX file; the same lists give the same bytes.

    tables: each list's rows with contact columns; summary: of the same lists; worksheet: of the business, where it
    was filled in; night: the date in words. Every text is
    written as text, whatever it looks like: nothing in the file is a formula or a link.
    """
    try:
        with xlsxwriter.Workbook(str(path), {"constant_memory": True}) as book:
            # The time of writing would make two files of one night differ.
            book.set_properties({"title": f"Whom to contact, {night}", "created": datetime(2000, 1, 1)})
            sheets = _Sheets(book)
            names = [_sheet_name(number, one) for number, one in enumerate(lists, 1)]
            sheets.read_me(night)
            sheets.summary(lists, names, summary, night)
            for name, table in zip(names, tables, strict=True):
                sheets.customers(name, table.filter(pc.equal(table["group"], "target")))
            sheets.control(names, lists)
            sheets.journey(worksheet)
    except FileCreateError as error:
        # What the disk refused, which the library wraps.
        raise error.args[0] from None


def _sheet_name(number: int, one: RankedList) -> str:
    """Return a name within Excel's rules: 31 characters, no brackets, colons, stars, slashes, apostrophes."""
    title = "".join("-" if letter in "[]:*?/\\'" or ord(letter) < 32 else letter for letter in one.title)
    return f"{number} {title}"[:31].rstrip()


class _Sheets:
    """Writes the sheets of one workbook, row by row from the top."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._head = book.add_format(
            {"bold": True, "bg_color": "#1F3A5F", "font_color": "#FFFFFF", "text_wrap": True, "valign": "top"}
        )
        self._stop = book.add_format(
            {"bold": True, "bg_color": "#A61B1B", "font_color": "#FFFFFF", "text_wrap": True, "valign": "top"}
        )
        self._bold = book.add_format({"bold": True, "valign": "top"})
        self._wrap = book.add_format({"text_wrap": True, "valign": "top"})
        self._numbers = {name: book.add_format({"num_format": text}) for name, text in _FORMATS.items()}
        self._count = book.add_format({"num_format": "#,##0"})
        self._percent = book.add_format({"num_format": "0.0%"})
        self._amount = book.add_format({"num_format": "#,##0.00"})

    def read_me(self, night: str) -> None:
        sheet = self._sheet("How to read this", [26, 110])
        write_text(sheet, 0, 0, f"Whom to contact, {night}", self._bold)
        for row, (title, words) in enumerate(HOW_TO_READ, 2):
            write_text(sheet, row, 0, title, self._bold)
            write_text(sheet, row, 1, words, self._wrap)

    def summary(self, lists: Sequence[RankedList], names: Sequence[str], summary: pa.Table, night: str) -> None:
        why = {**REASONS, **NOT_LISTED}
        counted = [name for name in why if pc.sum(summary[name]).as_py()]
        columns = ["in_stage", *(name for name in REASONS if name in counted), "eligible"]
        columns += [*(name for name in NOT_LISTED if name in counted), "target", "control"]
        headings = {"in_stage": "In the stage", "eligible": "Eligible", "target": "To contact", "control": "Control"}
        shown = ["Sheet", "List", *(headings.get(name, f"Left: {why.get(name)}") for name in columns)]
        expected = [EXPECTED, *(f"In {level} of 100 cases" for level in LEVELS)]
        shown += [*expected, "Epoch of the control group", "Model"]
        sheet = self._sheet("Summary", [31, 44, *[15] * len(columns), 15, *[20] * len(LEVELS), 20, 15])
        for place, words in enumerate(shown):
            write_text(sheet, 0, place, words, self._head)
        sheet.freeze_panes(1, 2)
        for row, (one, name) in enumerate(zip(lists, names, strict=True), 1):
            write_text(sheet, row, 0, name)
            write_text(sheet, row, 1, one.title)
            for place, column in enumerate(columns, 2):
                write_cell(sheet, row, place, summary[column][row - 1].as_py(), self._count)
            place = 2 + len(columns)
            write_cell(sheet, row, place, round(one.moves.expected), self._count)
            told = [f"{low:,} to {high:,}" for low, high in one.moves.ranges]
            for beside, words in enumerate(told or [one.moves.why_no_range] * len(LEVELS), place + 1):
                write_text(sheet, row, beside, words)
            place += len(expected)
            write_text(sheet, row, place, one.epoch)
            versions = one.rows["model_version"].unique().to_pylist()
            write_text(sheet, row, place + 1, ", ".join(versions))
        write_text(sheet, len(lists) + 2, 0, f"Night of {night}")

    def customers(self, name: str, table: pa.Table) -> None:
        rows = table.slice(0, MAX_ROWS)
        contact = [column for column in rows.column_names if column not in {*_FIRST, *_THEN, *_NOT_SHOWN}]
        named = {column: rows[column].to_pylist() for column in (*_FIRST, *contact)}
        named |= {
            column: wording.track_records(rows) if column == "track_record" else rows[column].to_pylist()
            for column in _THEN
        }
        # A column that this night leaves empty, such as the worth where none is set, would only puzzle.
        kept = [column for column, values in named.items() if column in _FIRST or any(v is not None for v in values)]
        headings = [_HEADINGS.get(column, column) for column in kept]
        sheet = self._sheet(name, [_width(heading, named[c]) for heading, c in zip(headings, kept, strict=True)])
        for place, heading in enumerate(headings):
            write_text(sheet, 0, place, heading, self._head)
        sheet.freeze_panes(1, 2)
        sheet.autofilter(0, 0, max(len(rows), 1), len(kept) - 1)
        for row, values in enumerate(zip(*(named[column] for column in kept), strict=True), 1):
            for place, (column, value) in enumerate(zip(kept, values, strict=True)):
                write_cell(sheet, row, place, value, self._numbers.get(column))
        if not len(table):
            write_text(sheet, 1, 1, "Nobody tonight; the summary says why.")
        if len(table) > MAX_ROWS:
            write_text(
                sheet, MAX_ROWS + 1, 1, f"Cut after {MAX_ROWS:,} of {len(table):,}; the CSV file has all of them."
            )

    def control(self, names: Sequence[str], lists: Sequence[RankedList]) -> None:
        """Name the control group with nothing that would help to contact it."""
        sheet = self._sheet("DO NOT CONTACT", [40, 31])
        sheet.set_tab_color("#A61B1B")
        for place, words in enumerate(("Do not contact these customers (control group)", "They are listed on")):
            write_text(sheet, 0, place, words, self._stop)
        sheet.freeze_panes(1, 0)
        row = 1
        for name, one in zip(names, lists, strict=True):
            for customer in one.rows.filter(pc.equal(one.rows["group"], "control"))["customer_id"].to_pylist():
                if row <= MAX_ROWS:
                    write_text(sheet, row, 0, customer)
                    write_text(sheet, row, 1, name)
                row += 1
        if row > MAX_ROWS + 1:
            write_text(
                sheet, MAX_ROWS + 1, 0, f"Cut after {MAX_ROWS:,} of {row - 1:,}; the CSV files have all of them."
            )
        sheet.autofilter(0, 0, max(min(row - 1, MAX_ROWS), 1), 1)

    def journey(self, worksheet: Worksheet) -> None:
        sheet = self._sheet(JOURNEY, [WIDTHS[0], *[WIDTHS[1]] * max(len(worksheet.sheets), 6)])
        sheet.freeze_panes(1, 1)
        forms = {"head": self._head, "bold": self._bold, "wrap": self._wrap, "count": self._count}
        write_worksheet(sheet, worksheet, {**forms, "percent": self._percent, "amount": self._amount})

    def _sheet(self, name: str, widths: Sequence[float]) -> Any:
        sheet = self._book.add_worksheet(name)
        for place, width in enumerate(widths):
            sheet.set_column(place, place, width)
        sheet.set_landscape()
        sheet.set_paper(9)
        sheet.fit_to_pages(1, 0)
        sheet.repeat_rows(0)
        return sheet


def _width(heading: str, values: Sequence[Any]) -> float:
    shown: Iterator[int] = (len(value) for value in values if isinstance(value, str))
    return float(min(max(len(heading) // 2 + 4, 9, *shown, 0) + 2, _WIDEST))


_LONGEST = 32_767

# XML cannot hold these; the writer escapes the other control characters.
_NOT_IN_XML = dict.fromkeys((0xFFFE, 0xFFFF), "\ufffd")


def write_cell(sheet: Any, row: int, place: int, value: Any, form: Any = None) -> None:
    """Write a text or a number; what is missing leaves the cell empty."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return
    if isinstance(value, str):
        write_text(sheet, row, place, value, form)
    else:
        _written(sheet.write_number(row, place, value, form))


def write_text(sheet: Any, row: int, place: int, words: str, form: Any = None) -> None:
    """Write text as text: no formula, link or number is made of it; what Excel cannot hold ends with an ellipsis."""
    shown = words.translate(_NOT_IN_XML)
    if len(shown.encode("utf-16-le")) > 2 * _LONGEST:
        shown = shown.encode("utf-16-le")[: 2 * (_LONGEST - 1)].decode("utf-16-le", errors="ignore") + "…"
    _written(sheet.write_string(row, place, shown, form))


def _written(code: int) -> None:
    """Stop where the library has left a cell out or cut it: it says so by a number alone."""
    if code:
        raise AssertionError(f"a cell does not fit on its sheet (code {code})")


WIDTHS = (24, 34)
"""The widths of the first column and of every stage's."""

_LINE_HEIGHT, _TALLEST = 15, 400  # in points; a spreadsheet refuses rows above 409


def write_worksheet(sheet: Any, found: Worksheet, forms: Mapping[str, Any]) -> None:
    """Write from the top; ``forms``: head, bold, wrap, percent, count, and amount."""
    _row(sheet, 0, ["Stage", *(one.step.name for one in found.sheets)], forms["head"])
    row = 1
    for name, stages in topics(found):
        cells = ["\n".join(stage) for stage in stages]
        sheet.set_row(row, _height(cells))
        write_text(sheet, row, 0, name, forms["bold"])
        for place, text in enumerate(cells, 1):
            write_text(sheet, row, place, text, forms["wrap"])
        row += 1
    # These stand beside the table and not in it, so they may run over the cells to their right.
    for text in (*blueprint_words.rating_notes(found.moods, found.stages), wording.ASSOCIATION, wording.ROOM):
        row += 1
        write_text(sheet, row, 0, text)
    for heading, kinds, lines in (_personas(found), _opportunities(found), _segments(found)):
        if not lines:
            continue
        row += 2
        _row(sheet, row, heading, forms["head"])
        for line in lines:
            row += 1
            for place, (kind, value) in enumerate(zip(kinds, line, strict=True)):
                write_cell(sheet, row, place, value, forms[kind])


def _personas(found: Worksheet) -> tuple[Sequence[str], Sequence[str], list[Sequence[Any]]]:
    stages = [step.name for step in found.map.steps if step.observed]
    heading = ("Personas", "People", *stages, "Spent until tonight", "Offered most", "To how many")
    lines: list[Sequence[Any]] = []
    for one in found.personas:
        here = [row.stage.here for row in persona_rows(found, one)]
        play = (one.play.text, one.play.people) if one.play else (None, None)
        lines.append((blueprint_words.persona(one), one.people, *here, one.value, *play))
    return heading, ("bold", "count", *["count"] * len(stages), "amount", "wrap", "count"), lines


def _opportunities(found: Worksheet) -> tuple[Sequence[str], Sequence[str], list[Sequence[Any]]]:
    heading = ("Where there is most to gain", "Customers", "Average", "Best quarter", "Gap", "Room for", "Worth")
    kinds = ("bold", "count", "percent", "percent", "percent", "count", "amount")
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
                *(one.step.name, one.segment, one.step.here, one.step.converted / one.step.entered),
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
