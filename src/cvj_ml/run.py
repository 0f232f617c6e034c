"""What everything in one run shares, and who is told what it does."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from cvj_ml.config import Config
from cvj_ml.engines import Blocks, Progress
from cvj_ml.journey import Journey


class Watcher(Protocol):
    """Who is told what a command does."""

    def say(self, message: str, **numbers: float | None) -> None:
        """Show a line; a log gets the numbers in it by their names, too."""

    def step(self, title: str) -> AbstractContextManager[Progress]:
        """Show a step that takes a while; the callable is told (done, of)."""


class Silent:
    """Tells nobody."""

    def say(self, message: str, **numbers: float | None) -> None:
        """Show nothing."""

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show nothing."""
        yield lambda done, of: None


class PythonWarnings(Silent):
    """Turns what a command would warn of into Python's warnings."""

    def say(self, message: str, **numbers: float | None) -> None:
        """Warn, where it is a warning."""
        if message.startswith("warning: "):
            warnings.warn(message.removeprefix("warning: "), UserWarning, stacklevel=4)


@dataclass(frozen=True, slots=True)
class Effort:
    """What a piece of work takes, from the making of this on."""

    began: float = field(default_factory=time.time)
    _cpu: float = field(default_factory=lambda: _cpu_seconds())

    def so_far(self) -> dict[str, float]:
        """Return the wall-clock and CPU seconds since then, and the most memory that the process has ever held."""
        return {
            "wall_seconds": time.time() - self.began,
            "cpu_seconds": _cpu_seconds() - self._cpu,
            "peak_memory_megabytes": peak_memory() / 1e6,
        }


def _cpu_seconds() -> float:
    """Return what this process and its ended children have used, in all threads."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_memory() -> int:
    """Return the most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True, slots=True)
class Run:
    """What every fit and evaluation of one run shares.

    The configuration, the journey as the data shows it, the customers block by block, how long touchpoints may take to
    arrive (microseconds), how many threads may work, and who is told how far a fit is (rounds done, of).
    """

    config: Config
    journey: Journey
    blocks: Blocks
    arrival_delay: int
    threads: int
    progress: Progress | None = None

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.config.model.seed
