"""How delimited text is laid out: where its header stands, what parts its columns, and what they are called.

Nothing of a file's content is ever part of a message, except the names of columns.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cvj_ml.config import Encoding
from cvj_ml.errors import DataError
from cvj_ml.store.formats import open_text

_DELIMITERS = ",;\t|"
_SEP = re.compile(r'"?sep=([^\w"\s]|\t| )"?[\r\n]*', re.IGNORECASE)
_TITLES, _SAMPLE_LINES, _SAMPLE_SIZE = 20, 200, 1 << 22
_DATED = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{4}|\d{4}[./]\d\d?[./]\d\d?|\S@\S|\d{9,}")


@dataclass(frozen=True, slots=True)
class TextLayout:
    """How delimited text is laid out: its columns (the unnamed are empty), and the lines above the header."""

    delimiter: str
    columns: tuple[str, ...]
    above: int

    @property
    def lines_in_header(self) -> bool:
        """Whether a name in the header holds a line break."""
        return any("\n" in name or "\r" in name for name in self.columns)


def read_layout(label: str, path: Path, encoding: Encoding, called: str | None = None) -> TextLayout:
    """Return the layout of a text file; DataError where it has no header, or one that names no columns.

    ``called`` is the name of what a copy is of.
    """
    where = f"{label}: {called or path}"
    reading = ("utf-8-sig", "surrogateescape") if encoding == "utf-8" else (encoding, "replace")
    with open_text(path, *reading) as stream:
        lines = list(_first_lines(stream))
    told = _SEP.fullmatch(lines[0]) if lines else None
    delimiter, start, records = _header(lines[1:], told[1]) if told else _header(lines, None)
    if not records:
        raise DataError(f"{where} holds no header: only blank lines; is the export complete?")
    columns, rows = records[0][1], [cells for _, cells in records[1:] if any(cells)]
    try:
        "".join(columns).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: the header is not UTF-8 text; say what it is, as in encoding: windows-1252"
        ) from None
    if _is_data(columns, rows):
        raise DataError(
            f"{where} has no header: its first line holds data and not names. Add a first line that names its"
            f" {len(columns)} columns."
        )
    wider = sum(len(cells) == len(columns) + 1 for cells in rows)
    if wider > len(rows) / 2:
        raise DataError(
            f"{where}: the header names {len(columns)} columns and the rows have {len(columns) + 1} fields; give every"
            " column a name, or leave the row numbers out of the export."
        )
    while columns and not columns[-1].strip():
        columns = columns[:-1]
    unnamed = [number for number, name in enumerate(columns, 1) if not name.strip() and number > 1]
    if unnamed:
        raise DataError(
            f"{where}: the header names no column in place {unnamed[0]}; give every column a name, and of tables that"
            " stand side by side each a sheet or file of its own."
        )
    lower = Counter(name.lower() for name in columns if name.strip())
    if repeated := [name for name in columns if lower[name.lower()] > 1]:
        raise DataError(f"{where}: the header names {repeated[0]!r} twice (upper and lower case are one); rename one.")
    trailing = ("",) * (len(records[0][1]) - len(columns))
    named = tuple(name if name.strip() else "" for name in columns)
    return TextLayout(delimiter, (*named, *trailing), start + bool(told))


def _first_lines(stream: TextIO) -> Iterator[str]:
    size = 0
    for number, line in enumerate(stream):
        yield line
        size += len(line)
        if number >= _SAMPLE_LINES or size > _SAMPLE_SIZE:
            return


def _records(lines: Sequence[str], delimiter: str) -> list[tuple[int, list[str]]]:
    """Return records with the number of lines before each; what cannot be parted ends them."""
    reader, found, before = csv.reader(lines, delimiter=delimiter), [], 0
    try:
        for cells in reader:
            found.append((before, cells))
            before = reader.line_num
    except csv.Error:
        pass
    return found


def _header(lines: Sequence[str], told: str | None) -> tuple[str, int, list[tuple[int, list[str]]]]:
    """Return the delimiter, the lines above the header, and the records from the header on."""
    blank = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if blank == len(lines):
        return ",", 0, []
    first = told or max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", lines[blank]).count)
    records = [(number + blank, cells) for number, cells in _records(lines[blank:], first)]
    widths = [len(cells) for _, cells in records if any(cells)]
    if told or (2 * widths.count(widths[0]) > len(widths) and not _is_title(records[0][1], widths[0])):
        return first, blank, records
    candidates = {one: [record for record in _records(lines, one) if any(record[1])] for one in _DELIMITERS}
    delimiter = max(candidates, key=lambda one: _usual(candidates[one])[1])
    found, (width, _) = candidates[delimiter], _usual(candidates[delimiter])
    for place, (number, cells) in enumerate(found[: _TITLES + 1]):
        parted = len(found) > place + 1 and found[place + 1][0] > number + 1 and len(cells) < width
        if not parted and not _is_title(cells, width):
            if width > 2 or number > place:  # of two columns, only where a blank line parts them from the title
                return delimiter, number, found[place:]
            break
    return first, blank, records


def _usual(records: Sequence[tuple[int, list[str]]]) -> tuple[int, float]:
    """Return how many fields most records have that have several, and the share of those."""
    rows = [len(cells) for _, cells in records if any(cells)]
    several = Counter(width for width in rows if width > 1).most_common(1)
    if not several or several[0][1] < len(rows) / 2:
        return 1, 0.0
    return several[0][0], several[0][1] / len(rows)


def _is_title(cells: Sequence[str], width: int) -> bool:
    """Return whether a line says less than a header of so many columns would."""
    filled = sum(bool(cell.strip()) for cell in cells)
    return filled < max(2, width - 1) and filled <= 2 and width > 1


def _is_data(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a first line is a row like those below it: dates, addresses, ids of their shape."""
    filled = [place for place, cell in enumerate(columns) if cell.strip()]
    alike = 0
    for place in filled:
        cell, below = columns[place], [row[place] for row in rows if len(row) > place and row[place].strip()]
        if not any(sign.isdigit() or sign == "@" for sign in cell):
            continue
        if sum(_shape(cell) == _shape(one) for one in below) * 2 <= len(below):
            continue
        if _DATED.search(cell):
            return True
        alike += not re.fullmatch(r"\d{1,4}", cell.strip())  # years are names of columns
    return bool(filled) and (alike * 2 >= len(filled) or all(_is_number(columns[place]) for place in filled))


def _shape(cell: str) -> str:
    return "@" if "@" in cell else re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", cell.strip()))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
