"""What everything in one run shares, and who is told what it does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
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
