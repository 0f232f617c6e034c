"""What a person or a program sees: lines, bars, tables on a screen; one JSON object."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

# Stage names, ids and paths are shown as they are: `[x]` is no markup and `:x:` no picture.
err = Console(stderr=True, highlight=False, markup=False, emoji=False)
out = Console(highlight=False, markup=False, emoji=False)


class Terminal:
    """Tells a person at a terminal; a log file gets plain lines and no bars."""

    def say(self, message: str, **numbers: float | None) -> None:
        """Show a line on stderr; the numbers are in its words."""
        err.print(message, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar while a person is watching, otherwise one line at the start."""
        # FORCE_COLOR makes rich take a log file for a terminal, so the stream itself is asked, too.
        if err.is_dumb_terminal or not (err.is_terminal and sys.stderr.isatty()):
            self.say(title)
            yield lambda done, of: None
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=err) as progress:
            task = progress.add_task(title, total=None)

            def report(done: int, of: int) -> None:
                progress.update(task, completed=done, total=of)

            yield report
            progress.update(task, completed=1, total=1)


def ask(question: str) -> bool:
    """Ask a person on a terminal whether to go on with what a doubt says."""
    err.print(f"\n{question}", soft_wrap=True)
    err.print("Go on with this? [y/N] ", end="")
    return input().strip().lower() in ("y", "yes")


def print_json(document: Any) -> None:
    """Print one JSON object; what is no number there (NaN, infinity) is null."""

    def plain(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [plain(value) for value in node]
        if hasattr(node, "item"):
            node = node.item()
        return None if isinstance(node, float) and not math.isfinite(node) else node

    print(json.dumps(plain(document), ensure_ascii=False, allow_nan=False), flush=True)


def show(frame: pd.DataFrame, title: str, columns: list[str] | None = None) -> None:
    """Print a table for a person."""
    frame = frame[columns] if columns else frame
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, header_style="bold")
    table.collapse_padding = True
    cells = [_cells(frame[name]) for name in frame.columns]
    headings = [str(name).replace("_", " ") for name in frame.columns]
    widths = [max(map(len, column), default=0) for column in cells]
    if sum(max(len(heading), width) + 2 for heading, width in zip(headings, widths, strict=True)) > out.width:
        headings = [heading.replace(" ", "\n") for heading in headings]
    for name, heading, width in zip(frame.columns, headings, widths, strict=True):
        if frame[name].dtype.kind in "OUT":
            table.add_column(heading, no_wrap=True)
        else:
            # A long name may be cut on a narrow screen, a figure never.
            table.add_column(heading, justify="right", min_width=width)
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    out.print(table)
    out.print()


def show_metrics(table: pd.DataFrame, title: str) -> None:
    """Print the summary of a fold, or why there is none."""
    if table.empty:
        out.print(f"{title}: too few customers moved in every transition, so nothing can be judged.\n", soft_wrap=True)
    else:
        show(table, f"{title}: means over transitions, weighted by customers")


def _cells(column: pd.Series[Any]) -> list[str]:
    """Return a column's values as text, fractions with the same number of digits."""
    found = column.tolist()
    digits = 1 if any(isinstance(value, float) and abs(value) >= 10 for value in found) else 4
    return [_cell(value, digits) for value in found]


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
