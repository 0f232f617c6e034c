"""What every engine does, and the local one: blocks are read and worked on by threads of this process.

The rest of the package knows no more of them than `Engine` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from joblib import Parallel, cpu_count, delayed

from cvj_ml.histories import Block
from cvj_ml.store import Store

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


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """The blocks of a store, worked on by threads of this process (default: every core).

    ``progress`` is called with the number of finished and of all blocks. ``customers`` are those to work on
    (None: all), ``done`` are buckets that need no work any more.
    """

    store: Store
    threads: int | None = None
    progress: Progress | None = None
    customers: frozenset[str] | None = None
    done: frozenset[int] = frozenset()

    def only(self, customers: Iterable[str]) -> LocalEngine:
        """Return an engine that reads the buckets of these customers, and sees nobody else."""
        return replace(self, customers=frozenset(customers))

    def without(self, buckets: Iterable[int]) -> LocalEngine:
        """Return an engine that leaves these buckets out and counts them as finished."""
        return replace(self, done=frozenset(buckets))

    def map(self, function: Callable[[Block], Result]) -> list[Result]:
        """Apply a function to every block that has customers; results are in the order of the buckets.

        A block is read inside its worker, so at most ``threads`` blocks are in memory, and all results: a function
        whose results are large writes them down and returns what is small. The first error of a block is raised.
        """
        wanted, every = self.customers, self.store.buckets_of(self.customers)
        buckets = [bucket for bucket in every if bucket not in self.done]
        finished = len(every) - len(buckets)
        if self.progress:
            self.progress(finished, len(every))

        def work(bucket: int) -> Result:
            block = self.store.read(bucket)
            return function(block if wanted is None else block.only(wanted))

        workers = max(1, min(self.threads or cpu_count(), len(buckets)))
        results: list[Result] = []
        for result in Parallel(n_jobs=workers, backend="threading", return_as="generator")(map(delayed(work), buckets)):
            results.append(result)
            if self.progress:
                self.progress(finished + len(results), len(every))
        return results
