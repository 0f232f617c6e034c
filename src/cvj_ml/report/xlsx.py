"""Cells of a workbook: text stays text, numbers look as people write them, and columns and rows fit what is in them.

A spreadsheet does not fit columns or rows that another program wrote, so their sizes are told, from the lengths of the
texts.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from cvj_ml.lists.last_events import before_amount

NARROWEST = 9
"""Of a column, in digits of the workbook's font."""

_LINE_HEIGHT, _TALLEST = 15, 400  # in points; a spreadsheet refuses rows above 409

PERCENT = "[>=0.0995]0%;[>=0.00995]0.0%;0.00%"
"""The number format of `wording.percent`."""

COUNT = "#,##0"


def amount_format(currency: str | None) -> str:
    """Return the number format of `wording.amount`."""
    sign = f'"{before_amount(currency)}"' if currency else ""
    return f"[>=99.5]{sign}#,##0;[>=0]{sign}#,##0.00;-{sign}#,##0.00"


class Formats:
    """The formats of one workbook's cells."""

    def __init__(self, book: Any, currency: str | None) -> None:
        top = {"valign": "top", "bottom": 1, "bottom_color": "#D5D9E0"}
        # Without an alignment, spreadsheets indent no text that is wrapped.
        text = {"align": "left", "indent": 1}
        white = {"valign": "top", "bold": True, "font_color": "#FFFFFF", "text_wrap": True}
        self.head = book.add_format({**white, **text, "bg_color": "#1F3A5F"})
        self.head_of_numbers = book.add_format({**white, "bg_color": "#1F3A5F", "align": "right"})
        self.stop = book.add_format({**white, **text, "bg_color": "#A61B1B"})
        self.warning = book.add_format({**text, "bold": True, "font_color": "#A61B1B"})
        self.title = book.add_format({**text, "bold": True, "font_size": 14})
        self.bold = book.add_format({**text, "bold": True})
        self.beside = book.add_format(text)
        self.label = book.add_format({**top, **text, "bold": True, "text_wrap": True})
        self.wrap = book.add_format({**top, **text, "text_wrap": True})
        self.box = book.add_format({**top, "border": 1, "border_color": "#8A8F98"})
        self.count = book.add_format({**top, "num_format": COUNT})
        self.percent = book.add_format({**top, "num_format": PERCENT})
        self.share = book.add_format({**top, "num_format": "[>=0.0995]0%;[>0]0.0%;0%"})
        self.amount = book.add_format({**top, "num_format": amount_format(currency)})
        self.times = book.add_format({**top, "num_format": '0.0"×"'})
        self.moves = book.add_format({**top, "num_format": "[>=9.95]#,##0;0.0"})
        self.tile = book.add_format({**top, "num_format": "[>=9.95]#,##0;0.0", **text, "bold": True})


_LONGEST = 32_767

# XML cannot hold these; the writer escapes the other control characters.
_NOT_IN_XML = dict.fromkeys((0xFFFE, 0xFFFF), "\ufffd")


def write_cell(sheet: Any, row: int, place: int, value: Any, form: Any = None) -> None:
    """Write a text or a number; what is missing leaves the cell empty."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        _written(sheet.write_blank(row, place, None, form))
    elif isinstance(value, str):
        write_text(sheet, row, place, value, form)
    else:
        _written(sheet.write_number(row, place, value, form))


def write_text(sheet: Any, row: int, place: int, words: str, form: Any = None) -> None:
    """Write text as text: no formula, link or number is made of it; what Excel cannot hold ends with an ellipsis."""
    shown = words.translate(_NOT_IN_XML)
    if len(shown.encode("utf-16-le")) > 2 * _LONGEST:
        shown = shown.encode("utf-16-le")[: 2 * (_LONGEST - 1)].decode("utf-16-le", errors="ignore") + "…"
    _written(sheet.write_string(row, place, shown, form))


def write_heading(
    sheet: Any, row: int, names: Sequence[str], widths: Sequence[float], formats: Formats, numbers: Collection[int] = ()
) -> None:
    """Write the names of columns, those of ``numbers`` (places) above their right edge as the numbers are."""
    sheet.set_row(row, height(names, widths))
    for place, name in enumerate(names):
        write_text(sheet, row, place, name, formats.head_of_numbers if place in numbers else formats.head)


def write_row(sheet: Any, row: int, values: Sequence[Any], forms: Any, widths: Sequence[float]) -> None:
    """Write values from the left, as high as their texts need in columns of these widths.

    forms: a format for each column, or one for all.
    """
    sheet.set_row(row, height(values, widths))
    for place, value in enumerate(values):
        write_cell(sheet, row, place, value, forms[place] if isinstance(forms, Sequence) else forms)


def write_line(
    sheet: Any, row: int, before: Sequence[Any], forms: Sequence[Any], text: str, widths: Sequence[float]
) -> None:
    """Write values, and to their right a text over all other columns, wrapped at the last of them; last its format."""
    place = len(before)
    sheet.merge_range(row, place, row, len(widths) - 1, "", forms[place])
    write_row(sheet, row, [*before, text], forms, [*widths[:place], sum(widths[place:])])


def _written(code: int) -> None:
    """Stop where the library has left a cell out or cut it: it says so by a number alone."""
    if code:
        raise AssertionError(f"a cell does not fit on its sheet (code {code})")


def width(heading: str, values: Iterable[Any], widest: float) -> float:
    """Return the width of a column: its longest text fits, up to the widest, or is wrapped, as its heading is."""
    longest = max((_length(line) for one in values if isinstance(one, str) for line in one.split("\n")), default=0)
    word = max(map(len, heading.split()), default=0)
    return float(min(max(NARROWEST, longest + 2, word + 2, len(heading) // 3 + 4), widest))


def height(values: Sequence[Any], widths: Sequence[float]) -> float:
    """Return the height in points that the fullest of a row's cells needs, each as wide as its column."""
    lines = [
        sum(max(1, math.ceil(_length(line) / (1.05 * wide))) for line in one.split("\n"))
        for one, wide in zip(values, widths, strict=False)
        if isinstance(one, str)
    ]
    return float(min(max(lines, default=1) * _LINE_HEIGHT, _TALLEST))


def _length(text: str) -> int:
    """Return how wide a text is: ideographs and emoji take two places."""
    return len(text) if text.isascii() else len(text) + sum(unicodedata.east_asian_width(one) in "WF" for one in text)
