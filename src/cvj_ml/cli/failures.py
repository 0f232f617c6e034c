"""How a command ends otherwise than well: on a signal, on a failure that is handled, on one that nobody foresaw."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cvj_ml.errors import CvjError, Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANDLED = (CvjError, OSError, MemoryError, Stopped)
"""Failures that end a command with one message."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped where the main thread is when SIGINT or SIGTERM comes; a second signal does not disturb that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        came.append(number)
        raise Stopped(number)

    # Who was started with a signal ignored (nohup, a background job of a shell) keeps ignoring it.
    before = {one: signal.getsignal(one) for one in SIGNALS}
    try:
        for one, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(one, stop)
        with _queries_ended():
            yield
    except Stopped:
        raise
    except BaseException as error:
        # A library in which the signal came raises what it likes.
        if came:
            raise Stopped(came[0]) from error
        raise
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _queries_ended() -> Iterator[None]:
    """End the queries of this process when a signal comes: within one Python does not see it until it is over."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and (number := os.read(told, 1)):
            # More than once, since the next query may have begun before Python saw the signal.
            while number[0] in SIGNALS and "duckdb" in sys.modules:
                from cvj_ml.store.sql import interrupt_queries

                interrupt_queries()
                if over.wait(0.1):
                    break

    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        os.close(tell)  # ends the reading
        watcher.join()
        os.close(told)


def in_words(error: BaseException) -> str:
    """Return what a person is told about a failure that ends a command."""
    if isinstance(error, Stopped):
        return f"stopped by {error.signal}; what was half-done is removed."
    if isinstance(error, CvjError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "memory ran out; what was half-done is removed. Give the job more, or lower engine.threads (each works on a"
            " bucket of customers at a time) or raise engine.buckets."
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}. Check the path, its rights and the free space."
    # The text of an error that nobody foresaw may hold a customer's values, and a log is read by many.
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return (
        f"an unforeseen {type(error).__name__}, a fault of cvj_ml or of a library. Its text may hold data and is not"
        " shown here; the same command with --watched shows it, where the log is text. It was raised in:\n  "
        + "\n  ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    )
