"""Standard streams that never fail: what a run does must not hang on whether anybody can be told of it.

A disk that is full, a reader that has gone, one that has stopped reading, a stream that was closed before the command
began: the line is lost, the run goes on, and its exit code says what it has done.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

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
