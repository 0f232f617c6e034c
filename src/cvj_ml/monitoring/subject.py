"""What an audit is about, and what it adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cvj_ml.config import Config
from cvj_ml.histories import Block
from cvj_ml.models.predictor import Predictor
from cvj_ml.monitoring.answers import Answers, Comparison, Name, ask
from cvj_ml.monitoring.sampling import Sample
from cvj_ml.panel import Definition

ROWS = ("touchpoint", "attribute")
"""The kinds of differences that are of rows as they were read, before anything is computed from them."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is audited: a configuration's customers, the features of its definition, perhaps a model's scores."""

    config: Config
    sample: Sample
    definition: Definition
    predictor: Predictor | None

    def ask(self, block: Block, cut_off: int) -> Answers:
        """Return all answers about a block at a cut-off."""
        return ask(self.definition, self.predictor, block, cut_off, self.sample.store.arrival_delay)


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

    def add(self, parts: Iterable[Comparison]) -> None:
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
