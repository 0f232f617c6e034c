"""What a person or a program sees: lines, bars, tables on a screen; one JSON object.

What a program that collects logs is told: one JSON object a line on stderr.

Standard streams that never fail: what a run does must not hang on whether anybody can be told of it.

A disk that is full, a reader that has gone, one that has stopped reading, a stream that was closed before the command
began: the line is lost, the run goes on, and its exit code says what it has done.
"""

from __future__ import annotations

import errno
import io
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

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


def ask_person(question: str) -> bool:
    """Ask a person on a terminal whether to go on with what a doubt says."""
    err.print(f"\n{question}", soft_wrap=True)
    err.print("Go on with this? [y/N] ", end="")
    return input().strip().lower() in ("y", "yes")


def command(name: str) -> str:
    """Return how to call a command of this environment, wherever it was called from."""
    beside = Path(sys.executable).parent / name
    try:
        return os.path.relpath(beside) if beside.exists() else name
    except ValueError:
        return str(beside)


def print_json(document: Any) -> None:
    """Print one JSON object; what is no number there (NaN, infinity) is null."""
    from cvj_ml.io import json_values

    print(json.dumps(json_values(document), ensure_ascii=False, allow_nan=False), flush=True)


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


def with_interval(row: Any, name: str, digits: int = 3) -> str:
    """Return a figure of a row with its 95 % interval, ``name_low`` and ``name_high``, as `estimate` writes it."""
    return estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], digits)


def estimate(value: float, low: float | None, high: float | None, digits: int = 3) -> str:
    """Return ``0.123 (0.100, 0.150)``; without brackets where there is no interval, nothing where there is no value."""
    if value != value:
        return ""
    known = low is not None and high is not None and low == low and high == high
    return f"{value:.{digits}f} ({low:.{digits}f}, {high:.{digits}f})" if known else f"{value:.{digits}f}"


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


Level = Literal["info", "warning", "error"]


class JsonLines:
    """Tells a log: ``time``, ``level``, ``station``, ``message``, and numbers by their names."""

    def __init__(self) -> None:
        self._station = ""

    def say(self, message: str, **numbers: float | None) -> None:
        """Write a line; what is a warning for people is of that level."""
        said = message.removeprefix("warning: ")
        self.write("info" if said == message else "warning", said, **numbers)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Write a line when a step begins, and one with its seconds when it is done."""
        self._station, began = title, time.perf_counter()
        self.write("info", "begins")
        yield lambda done, of: None
        self.write("info", "done", seconds=round(time.perf_counter() - began, 3))
        self._station = ""

    def write(self, level: Level, message: str, **more: object) -> None:
        """Write one line."""
        line = {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "level": level,
            "station": self._station,
            "message": message,
            **more,
        }
        print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)


PATIENCE = 2.0
"""Seconds that a log may wait for a reader that has stopped reading, once; from then on its lines are lost."""

_NOBODY = (errno.EPIPE, errno.EBADF)


@contextmanager
def unfailing() -> Iterator[None]:
    """Let nothing that is written to stdout and stderr fail, within; say so on stderr where a disk lost results."""
    _occupy()
    before = sys.stdout, sys.stderr
    results, log = _Sink(1, None), _Sink(2, PATIENCE)
    # A stream that somebody put in the place of the process's own is left alone.
    if sys.stdout in (sys.__stdout__, None):
        sys.stdout = _text(results, sys.__stdout__)
    if sys.stderr in (sys.__stderr__, None):
        sys.stderr = _text(log, sys.__stderr__, line_buffering=True)
    try:
        yield
    finally:
        sys.stdout.flush()
        if results.lost is not None and results.lost.errno not in _NOBODY:
            print(
                f"warning: not all of what was to be printed could be written to stdout: {results.lost.strerror}. The"
                " exit code says what was done.",
                file=sys.stderr,
            )
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class _Sink(io.FileIO):
    """The file of a stream, which takes everything; ``lost`` says why something could not be passed on."""

    def __init__(self, number: int, patience: float | None) -> None:
        super().__init__(number, "w", closefd=False)
        self.lost: OSError | None = None
        self._patience = patience
        self._stuck = False

    def write(self, data: Any, /) -> int:
        """Pass bytes on as far as that is possible; say that all of them were taken."""
        content = memoryview(data).cast("B")
        rest = content
        try:
            while rest and self._is_ready():
                # So much never blocks once there is room; without patience waiting is what a pager expects.
                piece = rest if self._patience is None else rest[: select.PIPE_BUF]
                rest = rest[super().write(piece) or 0 :]
        except OSError as error:
            self.lost = error
        return len(content)

    def _is_ready(self) -> bool:
        asked = select.poll()
        asked.register(self.fileno(), select.POLLOUT)
        if self._patience is None:
            asked.poll()
        else:
            self._stuck = not asked.poll(0 if self._stuck else self._patience * 1000)
        return not self._stuck


def _text(sink: _Sink, stream: TextIO | None, *, line_buffering: bool = False) -> TextIO:
    """Return a text stream over a sink that is like another one; None is one that was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(sink),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",  # a letter that the terminal does not know fails nothing either
        line_buffering=line_buffering or bool(stream and stream.line_buffering),
        write_through=isinstance(stream, io.TextIOWrapper) and stream.write_through,
    )


def _occupy() -> None:
    """Open the null device where a standard stream is closed: the next file opened would get its number.

    Then a library that writes to number 2 would write into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
