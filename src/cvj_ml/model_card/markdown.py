"""Plain Markdown: tables, escaped names, numbers with their intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

NOTHING = "–"


def escape(text: object) -> str:
    """Return a name as text that Markdown and HTML leave alone, on one line."""
    return re.sub(r"([\\|*`<\[\]])", r"\\\1", re.sub(r"\s+", " ", str(text)).strip())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Return a table whose last ``numbers`` columns stand on the right; cells are Markdown already."""
    marks = ["---"] * (len(columns) - numbers) + ["---:"] * numbers
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, marks, *rows))


def bullets(items: Iterable[str]) -> str:
    """Return a list of points."""
    return "\n".join(f"- {item}" for item in items)


def formatted(value: float, digits: int) -> str:
    """Return a number with its thousands apart and so many digits, a dash where there is none."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else NOTHING


def share(value: float) -> str:
    """Return a share as a percentage."""
    return f"{value:.1%}".replace("%", " %") if math.isfinite(value) else NOTHING


def with_interval(row: Mapping[Hashable, Any], name: str, digits: int) -> str:
    """Return a figure and its interval, from the columns that `assessment.bounds` makes."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = f" ({formatted(low, digits)} to {formatted(high, digits)})" if math.isfinite(low + high) else ""
    return formatted(row[name], digits) + interval


def sentence_list(names: Iterable[str]) -> str:
    """Return names in a sentence: ``a, b and c``."""
    *most, last = [*map(escape, names)] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def plural(count: int, one: str) -> str:
    """Return a count with its noun: ``1 customer``, ``2,000 customers``."""
    return f"{count:,} {one if count == 1 else f'{one}s'}"
