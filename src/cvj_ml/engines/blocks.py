"""What every engine does; the rest of the package knows no more of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from cvj_ml.histories import Block
from cvj_ml.sources import Store

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told the number of finished and of all blocks."""


class Blocks(Protocol):
    """Whole customers, block by block; an engine's view of a store."""

    def map(self, function: Callable[[Block], Result]) -> list[Result]:
        """Return the function's result for every block that has customers, in the order of the blocks.

        A function gives its answer as its result alone: it may run in another process, and more than once.
        """
        ...


class Engine(Blocks, Protocol):
    """The blocks of a store, and ways to leave some out."""

    @property
    def store(self) -> Store:
        """The store."""
        ...

    def only(self, customers: Iterable[str]) -> Blocks:
        """Return the blocks of these customers, and of nobody else."""
        ...

    def without(self, buckets: Iterable[int]) -> Blocks:
        """Return the blocks of the other buckets; these count as finished."""
        ...
