"""One writer of an output folder at a time, and what killed ones left behind."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cvj_ml.errors import LockedError
from cvj_ml.night.layout import LOCK, STAGED
from cvj_ml.ownership import claim, open_lock, remove


@contextmanager
def hold(out: Path, command: str) -> Iterator[None]:
    """Hold the lock of an output folder while a command writes to it; LockedError, at once, where another one does.

    The operating system gives the lock back when its process ends, in whatever way, so there is no stale lock to
    remove. Whoever holds it is the only writer: what others left half-written is taken away first.
    """
    claim(out)
    handle = open_lock(out / LOCK)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{out}: {_holder(handle)}. One run at a time writes here, and nothing was changed; run again when"
                " that one has ended."
            ) from None
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"command": command, "pid": os.getpid(), "host": platform.node(), "since": since}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
        _sweep(out)
        yield
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    """Say who holds a lock, as far as that one has written it down."""
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
        return f"{holder['command']} (process {holder['pid']} on {holder['host']}) is running since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another run has just started"


def _sweep(out: Path) -> None:
    """Remove what was being written when its process was killed."""
    for path in out.glob(f"{STAGED}*"):
        remove(path)
