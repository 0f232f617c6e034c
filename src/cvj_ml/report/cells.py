"""Cells of a workbook: text stays text, whatever it looks like."""

from __future__ import annotations

import math
from typing import Any

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
