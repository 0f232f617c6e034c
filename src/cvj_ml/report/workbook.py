"""The workbook: the plan, one sheet a list, apart from them whom not to contact, then all that explains the lists.

The order is the page's, and so are the words: who works from the one finds everything in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import xlsxwriter
from xlsxwriter.exceptions import FileCreateError

from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.ranked_list import NOT_LISTED, RankedList
from cvj_ml.lists.reasons import sentence
from cvj_ml.models.bundle.forecast_errors import LEVELS
from cvj_ml.report import wording
from cvj_ml.report.contact_words import RESPONSES
from cvj_ml.report.journey_sheet import FIRST, STAGE, write_worksheet
from cvj_ml.report.plan import Plan, Queue
from cvj_ml.report.what_changed import WhatChanged
from cvj_ml.report.worksheet import Worksheet
from cvj_ml.report.xlsx import Formats, width, write_heading, write_line, write_row, write_text
from cvj_ml.schemas import TARGETS

MAX_ROWS = 200_000
"""Customers on a sheet; a longer list is cut there, and its sheet's last row says so."""

PLAN, JOURNEY, CHANGED = "Plan", "Value Journey", "What changed"
EXPECTED = "Expected to move, going on as before"

DONE = ("done", "not reached", "declined")
"""What can be chosen in the column `Done`."""

_QUEUES = {
    "List": 31,
    "What to offer": 44,
    "Through": 15,
    "To contact": 11,
    "Control": 9,
    "Ranked": 9,
    "Move on": 18,
    "Held back, and why": 34,
    "Why it ends there": 36,
    "What contacts add": 34,
}
"""The columns of the plan, with their widths."""

HOW_TO_READ = (
    (
        PLAN,
        "All that is to be done tonight, a line a list: what to offer, through which channels, to how many, who is held"
        " back and why, and why the list ends where it does. What is called people counts everybody once.",
    ),
    (
        "The numbered sheets",
        "One sheet a list, in the order of the plan. Each names customers of one stage, the likeliest to move on"
        " first. 'At risk' names customers who are active and may fall silent, the likeliest to be lost first; 'At risk"
        " of leaving' those who may leave the stage that they hold, such as a subscription; 'Win back' those"
        " who have been silent for long, the likeliest to buy, or to come back, first.",
    ),
    (
        "Whom to contact",
        "Everybody on the numbered sheets, from the top. Ranks that are missing there belong to the control group.",
    ),
    (
        "Whom not to contact",
        "The sheet 'DO NOT CONTACT' names customers whom chance has chosen to be left alone, the same ones all"
        " through the epoch. Only by comparing with them can anybody say later what the contacts have brought about."
        " Leave them out of this campaign in every channel.",
    ),
    (
        "Done",
        f"For you, on the screen or on paper: {', '.join(DONE)}. Nothing reads it; contacts are known from your log.",
    ),
    (
        "Why",
        "What speaks for a move, then what speaks against it, the weightiest first. A description, not a cause. The CSV"
        " files have the whole reasons.",
    ),
    (
        "What to do, Through",
        "A play for the stage that the list leads to, and the permitted channel that this customer answers to best, or"
        " uses most.",
    ),
    (
        "Probability",
        "How likely the customer reaches the list's stage, or a later one, within the list's days. At risk: is lost;"
        " at risk of leaving: leaves the stage; win back: buys, or comes back.",
    ),
    (
        "Expected value",
        "The worth of the list's stage and of each later one, times the probability of reaching it within the list's"
        " days. Worths come from the configuration. At risk: what is lost with them, on average.",
    ),
    (
        "Of customers scored like this",
        "What happened before: how many of past customers with such a probability moved, and the range in which their"
        " true share lies with 95 % confidence. A probability outside it is not confirmed, and no range is shown;"
        " by chance alone that is so for 1 row in 20.",
    ),
    ("Times the average", "The probability, divided by the average of everybody in the stage tonight."),
    (
        "Summary",
        "Where everybody in a list's stage went: left out, with the reason; eligible but not listed; to contact;"
        " control. The numbers add up.",
    ),
    (
        EXPECTED,
        "Of all who are listed, in control or not: the sum of their probabilities. If you go on as before, the number"
        " that moves lies between the bounds in 80 or 95 of 100 cases. They come from how far earlier forecasts for as"
        " many customers missed.",
    ),
    (
        JOURNEY,
        "The worksheet of the business, filled in from its data: per stage its goal, who is there, what they do, how"
        " fast they move on, what goes with it, and what can be done.",
    ),
)


@dataclass(frozen=True, slots=True)
class BookFacts:
    """What the workbook tells beside the lists.

    ``night`` is the date in words; ``changed`` is None where nothing is known of earlier nights; ``exports`` are their
    counts, a row each, as in the manifest.
    """

    night: str
    plan: Plan
    worksheet: Worksheet
    changed: WhatChanged | None = None
    exports: Sequence[Mapping[str, Any]] = ()


def write_workbook(
    path: Path, lists: Sequence[RankedList], tables: Sequence[pa.Table], summary: pa.Table, facts: BookFacts
) -> None:
    """Write lists as one XLSX file; the same lists give the same bytes.

    tables: each list's rows with contact columns; summary: of the same lists. Every text is written as text, whatever
    it looks like: nothing in the file is a formula or a link.
    """
    try:
        with xlsxwriter.Workbook(str(path), {"constant_memory": True}) as book:
            # The time of writing would make two files of one night differ.
            book.set_properties({"title": f"Whom to contact, {facts.night}", "created": datetime(2000, 1, 1)})
            sheets = _Sheets(book, facts)
            names = [_sheet_name(number, one) for number, one in enumerate(lists, 1)]
            sheets.plan(names)
            for name, table in zip(names, tables, strict=True):
                sheets.customers(name, table.filter(pc.equal(table["group"], "target")))
            sheets.control(names, lists)
            sheets.summary(lists, names, summary)
            sheets.read_me()
            if facts.changed is not None:
                sheets.changed(facts.changed)
            sheets.journey()
    except FileCreateError as error:
        # What the disk refused, which the library wraps.
        raise error.args[0] from None


def _sheet_name(number: int, one: RankedList) -> str:
    """Return a name within Excel's rules: 31 characters, no brackets, colons, stars, slashes, apostrophes."""
    title = "".join("-" if letter in "[]:*?/\\'" or ord(letter) < 32 else letter for letter in one.title)
    return f"{number} {title}"[:31].rstrip()


class _Column(NamedTuple):
    """A column of a list's sheet."""

    heading: str
    values: Sequence[Any]
    form: Any
    widest: float = 32


class _Sheets:
    """Writes the sheets of one workbook, row by row from the top."""

    def __init__(self, book: Any, facts: BookFacts) -> None:
        self._book, self._facts = book, facts
        self._formats = Formats(book, facts.worksheet.currency)

    def plan(self, names: Sequence[str]) -> None:
        """Write the plan: the headline's numbers, then a row a queue, then what was written for other tools."""
        formats, plan, widths = self._formats, self._facts.plan, tuple(_QUEUES.values())
        sheet = self._sheet(PLAN, widths)
        write_text(sheet, 0, 0, plan.headline, formats.title)
        write_text(sheet, 1, 0, plan.warning, formats.warning)
        row = 2
        for tile in plan.tiles(self._facts.changed):
            row += 1
            kinds = (formats.tile, formats.label, formats.wrap)
            write_line(sheet, row, (tile.number, tile.name), kinds, tile.text, widths)
        row += 2
        numbers = (3, 4, 5)
        write_heading(sheet, row, tuple(_QUEUES), widths, formats, numbers)
        forms = [formats.count if place in numbers else formats.wrap for place in range(len(widths))]
        for name, queue in zip(names, plan.queues, strict=True):
            row += 1
            write_row(sheet, row, _queue(name, queue), forms, widths)
        if self._facts.exports:
            row += 2
            heads = (formats.head, formats.head)
            write_line(sheet, row, ["Files for other tools"], heads, "People, and who is not in it", widths)
        for counts in self._facts.exports:
            row += 1
            write_line(
                sheet,
                row,
                [wording.export_file(counts["export"])],
                (formats.wrap, formats.wrap),
                wording.export(counts),
                widths,
            )

    def customers(self, name: str, table: pa.Table) -> None:
        """Write everybody to contact on a list, with a box to tick."""
        formats, rows = self._formats, table.slice(0, MAX_ROWS)
        reasons = zip(*(rows[f"reason_{i}"].to_pylist() for i in (1, 2, 3)), strict=True)
        why = [sentence([one for one in row if one]) or None for row in reasons]
        kinds = rows["response_type"].to_pylist()
        first = [
            _Column("Done", [None] * len(rows), formats.box),
            _Column("Rank", rows["rank"].to_pylist(), formats.count),
            _Column("Customer", rows["customer_id"].to_pylist(), formats.wrap),
        ]
        then = [
            *(
                _Column(one, rows[one].to_pylist(), formats.wrap)
                for one in rows.column_names
                if one not in TARGETS.columns
            ),
            _Column("Why", why, formats.wrap, 46),
            _Column("What to do", rows["play"].to_pylist(), formats.wrap, 36),
            _Column("Because", rows["because"].to_pylist(), formats.wrap, 24),
            _Column("Through", rows["channel"].to_pylist(), formats.wrap),
            _Column("Probability", rows["probability"].to_pylist(), formats.percent),
            _Column("Expected value", rows["expected_value"].to_pylist(), formats.amount),
            _Column("A contact changes it by", rows["incremental_probability"].to_pylist(), formats.percent),
            _Column("Answer to a contact", [RESPONSES.get(one or "") for one in kinds], formats.wrap, 24),
            _Column("Of customers scored like this", wording.track_records(rows), formats.wrap, 28),
            _Column("Times the average", rows["lift"].to_pylist(), formats.times),
        ]
        # A column that this night leaves empty, such as the worth where none is set, would only puzzle.
        kept = [*first, *(one for one in then if any(value is not None for value in one.values))]
        widths = [width(one.heading, DONE if one is first[0] else one.values, one.widest) for one in kept]
        sheet = self._sheet(name, widths)
        numbers = [place for place, one in enumerate(kept) if one.form not in (formats.box, formats.wrap)]
        write_heading(sheet, 0, [one.heading for one in kept], widths, formats, numbers)
        sheet.freeze_panes(1, len(first))
        sheet.autofilter(0, 0, max(len(rows), 1), len(kept) - 1)
        forms = [one.form for one in kept]
        for row, values in enumerate(zip(*(one.values for one in kept), strict=True), 1):
            write_row(sheet, row, values, forms, widths)
        if len(rows):
            choice = {"validate": "list", "source": list(DONE), "error_type": "warning"}
            sheet.data_validation(1, 0, len(rows), 0, choice)
        else:
            write_text(sheet, 1, 2, "Nobody tonight; the summary says why.")
        if len(table) > MAX_ROWS:
            write_text(
                sheet, MAX_ROWS + 1, 2, f"Cut after {MAX_ROWS:,} of {len(table):,}; the CSV file has all of them."
            )

    def control(self, names: Sequence[str], lists: Sequence[RankedList]) -> None:
        """Name the control group with nothing that would help to contact it."""
        widths = (40, 32)
        sheet = self._sheet("DO NOT CONTACT", widths)
        sheet.set_tab_color("#A61B1B")
        heading = ("Do not contact these customers (control group)", "They are listed on")
        write_row(sheet, 0, heading, self._formats.stop, widths)
        sheet.freeze_panes(1, 0)
        row = 1
        for name, one in zip(names, lists, strict=True):
            for customer in one.of_group("control")["customer_id"].to_pylist():
                if row <= MAX_ROWS:
                    write_row(sheet, row, (customer, name), self._formats.wrap, widths)
                row += 1
        if row > MAX_ROWS + 1:
            write_text(
                sheet, MAX_ROWS + 1, 0, f"Cut after {MAX_ROWS:,} of {row - 1:,}; the CSV files have all of them."
            )
        sheet.autofilter(0, 0, max(min(row - 1, MAX_ROWS), 1), 1)

    def summary(self, lists: Sequence[RankedList], names: Sequence[str], summary: pa.Table) -> None:
        """Write where everybody of each list's stage went."""
        formats, why = self._formats, {**REASONS, **NOT_LISTED}
        counted = [name for name in why if pc.sum(summary[name]).as_py()]
        columns = ["in_stage", *(name for name in REASONS if name in counted), "eligible"]
        columns += [*(name for name in NOT_LISTED if name in counted), "target", "control"]
        headings = {"in_stage": "In the stage", "eligible": "Eligible", "target": "To contact", "control": "Control"}
        shown = ["Sheet", "List", *(headings.get(name, f"Left: {why.get(name)}") for name in columns)]
        shown += [EXPECTED, *(f"In {level} of 100 cases" for level in LEVELS), "Epoch of the control group", "Model"]
        widths = (32, 36, *[14] * (len(columns) + 1), *[16] * len(LEVELS), 16, 15)
        sheet = self._sheet("Summary", widths)
        numbers = range(2, 3 + len(columns))
        forms = [formats.count if place in numbers else formats.wrap for place in range(len(widths))]
        forms[numbers[-1]] = formats.moves
        write_heading(sheet, 0, shown, widths, formats, numbers)
        sheet.freeze_panes(1, 2)
        for row, (one, name) in enumerate(zip(lists, names, strict=True), 1):
            counts = [summary[column][row - 1].as_py() for column in columns]
            told = [f"{low:,} to {high:,}" for low, high in one.moves.ranges]
            told = told or [one.moves.why_no_range] * len(LEVELS)
            model = ", ".join(one.rows["model_version"].unique().to_pylist())
            line = [name, one.title, *counts, one.moves.expected, *told, one.epoch, model]
            write_row(sheet, row, line, forms, widths)
        write_text(sheet, len(lists) + 2, 0, f"Night of {self._facts.night}")

    def read_me(self) -> None:
        """Say what everything means."""
        widths = (30, 100)
        sheet = self._sheet("How to read this", widths)
        write_text(sheet, 0, 0, f"Whom to contact, {self._facts.night}", self._formats.title)
        for row, (title, words) in enumerate(HOW_TO_READ, 2):
            write_row(sheet, row, (title, words), (self._formats.label, self._formats.wrap), widths)

    def changed(self, found: WhatChanged) -> None:
        """Write what changed since earlier nights: sentences a base, then the customers by stage."""
        formats = self._formats
        shown = [(place, one) for place, one in enumerate(found.since) if one.brief]
        nights = max((len(one.trend) for one in found.stages), default=0)
        heading = ["Stage", "Tonight"]
        for _, one in shown:
            heading += [f"Came since {one.words}", f"Left since {one.words}"]
        heading += [f"The last {nights} nights", *[""] * (nights - 1)] if nights > 1 else []
        widths = (26, 12, *[16] * (2 * len(shown)), *[9] * (nights if nights > 1 else 0))
        sheet = self._sheet(CHANGED, widths)
        row = 0
        for one in found.since:
            write_text(sheet, row, 0, f"Since {one.words}{f', {one.day}' if one.day else ''}", formats.bold)
            for text in one.sentences:
                row += 1
                # Nothing stands to its right, where it may run on.
                write_text(sheet, row, 0, text, formats.beside)
            row += 2
        write_heading(sheet, row, heading, widths, formats, range(1, len(widths)))
        forms = [formats.label, *[formats.count] * (len(widths) - 1)]
        for stage in found.stages:
            row += 1
            numbers: list[int | None] = [stage.now]
            for place, _ in shown:
                balance = stage.since[place]
                numbers += [balance.entered, balance.left] if balance else [None, None]
            cells = [stage.stage, *numbers, *(stage.trend if nights > 1 else ())]
            write_row(sheet, row, cells, forms, widths)

    def journey(self) -> None:
        """Write the worksheet of the business."""
        worksheet = self._facts.worksheet
        sheet = self._sheet(JOURNEY, [FIRST, *[STAGE] * max(len(worksheet.sheets), 6)])
        sheet.freeze_panes(1, 1)
        write_worksheet(sheet, worksheet, self._formats)

    def _sheet(self, name: str, widths: Sequence[float]) -> Any:
        sheet = self._book.add_worksheet(name)
        for place, wide in enumerate(widths):
            sheet.set_column(place, place, wide)
        sheet.set_landscape()
        sheet.set_paper(9)
        sheet.set_margins(left=0.4, right=0.4, top=0.5, bottom=0.5)
        sheet.set_footer("&L&A&RPage &P of &N")
        sheet.fit_to_pages(1, 0)
        sheet.repeat_rows(0)
        return sheet


def _queue(name: str, queue: Queue) -> list[str | int]:
    """Return a queue's line."""
    offers = [f"{number:,} × {play}" for play, number, _ in queue.plays]
    channels = dict.fromkeys(one for _, _, through in queue.plays for one in through.split(", ") if one)
    return [
        *(name, "\n".join(offers), ", ".join(channels)),
        *(queue.targets, queue.controls, queue.eligible),
        *(queue.pace, queue.held, queue.size, queue.effect),
    ]
