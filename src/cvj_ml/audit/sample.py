"""Which customers and which instants an audit looks at.

What an audit is about, and what it adds up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np

from cvj_ml.audit.outputs import Name, OutputDifference, Outputs, outputs_at
from cvj_ml.config import DAY, Config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import DataError
from cvj_ml.histories import Block
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.store import Store
from cvj_ml.windows import before, midnight, to_datetime

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """Some whole blocks of a store, and an engine over them."""

    store: Store
    buckets: tuple[int, ...]
    threads: int

    @property
    def customers(self) -> int:
        """How many customers the blocks hold."""
        return sum(self.store.bucket_customers[bucket] for bucket in self.buckets)

    def engine(self, progress: Report | None = None) -> LocalEngine:
        """Return an engine that sees these blocks only."""
        held = (n if bucket in self.buckets else 0 for bucket, n in enumerate(self.store.bucket_customers))
        return LocalEngine(replace(self.store, bucket_customers=tuple(held)), self.threads, progress)


def draw_blocks(store: Store, customers: int, threads: int, seed: int) -> Sample:
    """Draw blocks at random until they hold so many customers."""
    held = np.array(store.bucket_customers)
    order = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(held))
    enough = 1 + int(np.searchsorted(np.cumsum(held[order]), customers))
    return Sample(store, tuple(sorted(int(bucket) for bucket in order[:enough])), threads)


def draw_cut_offs(config: Config, sample: Sample, as_of: int, number: int, seed: int) -> list[int]:
    """Draw local days on which something became visible, at the time of day of ``as_of``, and before it.

    Raises DataError where nothing was visible between the burn-in and ``as_of``.
    """
    earliest = midnight(config.history_from, config.zone) + config.burn_in
    day_of = to_datetime(as_of, config.zone).date()
    time_of_day = as_of - midnight(day_of, config.zone)

    def moments(block: Block) -> set[int]:
        visible = block.touchpoints.visible_at
        return set(np.unique(visible[before(visible, as_of) & ~before(visible, earliest)] // DAY).tolist())

    days = sorted(set().union(*sample.engine().map(moments)))
    instants = {
        midnight(to_datetime(day * DAY, config.zone).date() + timedelta(days=1), config.zone) + time_of_day
        for day in days
    }
    usable = sorted(one for one in instants if bool(before(np.array(one), as_of)))
    if not usable:
        raise DataError(
            f"No cut-off can be drawn: nothing became visible between {config.history_from} with its burn-in and"
            f" {day_of}. Check --as-of, history_from and burn_in."
        )
    chosen = np.random.default_rng([seed, 2]).permutation(len(usable))[:number]
    return sorted(usable[i] for i in chosen)


ROWS = ("touchpoint", "attribute")
"""The kinds of differences that are of rows as they were read, before anything is computed from them."""


@dataclass(frozen=True, slots=True)
class AuditScope:
    """What is audited: a configuration's customers, the features of its definition, perhaps a model's scores."""

    config: Config
    sample: Sample
    definition: ModelSpec
    predictor: Predictor | None

    def ask(self, block: Block, cut_off: int) -> Outputs:
        """Return all answers about a block at a cut-off."""
        return outputs_at(self.definition, self.predictor, block, cut_off, self.sample.store.arrival_delay)


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that depends on its own future: which check saw it, what differs, and in how many answers.

    ``customers`` counts those that differ, over all cut-offs, of ``compared``.
    """

    check: str
    kind: str
    name: str
    customers: int
    compared: int
    cut_offs: int


@dataclass(slots=True)
class Tally:
    """Differences by name, gathered over blocks and cut-offs."""

    different: Counter[Name] = field(default_factory=Counter)
    cut_offs: Counter[Name] = field(default_factory=Counter)
    compared: int = 0

    def add(self, parts: Iterable[OutputDifference]) -> None:
        """Add the comparisons of one cut-off."""
        here: Counter[Name] = Counter()
        for one in parts:
            self.compared += one.customers
            here.update(one.different)
        self.different.update(here)
        self.cut_offs.update(here.keys())

    def drop(self, names: Iterable[Name]) -> None:
        """Forget what differs for another reason."""
        for name in names:
            self.different.pop(name, None)

    def leaks(self, check: str) -> Iterator[Leak]:
        """Yield what differs: rows of sources first, since they are the cause, then the most frequent."""
        order = sorted(self.different.items(), key=lambda item: (item[0][0] not in ROWS, -item[1], item[0]))
        for (kind, name), number in order:
            yield Leak(check, kind, name, number, self.compared, self.cut_offs[kind, name])
