"""Customers whose true stage is known, as they would be seen with incomplete tracking: what the posterior learns from.

The true stage comes from the first of these that says anything: a table of stage labels; customers whose tracking is
complete, thinned; else nobody's truth is known, and the rows say who was *seen* at a stage (presence only).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cvj_ml.config import CompleteSpec, Config
from cvj_ml.engines import Blocks
from cvj_ml.features.compute import latest_known
from cvj_ml.histories import Block, Text
from cvj_ml.journey import Stays, coverage_of, draw_hidden, evidence, hide, stays_when_hidden
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.snapshots import Snapshots, are_eligible, eligible, sampling_keys
from cvj_ml.windows import before

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

Truth = Literal["labels", "complete", "presence"]
"""Where the true stage comes from: a table of labels, complete customers thinned, or nowhere (who was seen)."""

COPIES = 3
"""How often a complete customer is thinned: each copy hides other evidence."""

MOST_CUSTOMERS = 40_000
"""Customers that the posterior learns from; of more, a sample by hash."""

BEFORE_ANY = -1


@dataclass(frozen=True, slots=True)
class Tracking:
    """How complete the evidence is: each stage's coverage, and the attribute of those whose evidence is complete."""

    coverage: _F64
    complete_when: CompleteSpec | None
    labelled: bool = False

    @classmethod
    def of(cls, config: Config) -> Tracking:
        """Return what a configuration declares."""
        return cls(
            coverage_of(config.journey.names, config.coverage), config.complete_when, config.stage_labels is not None
        )

    @property
    def incomplete(self) -> npt.NDArray[np.int64]:
        """Positions of the stages whose evidence may be hidden."""
        return np.flatnonzero(self.coverage < 1)

    def complete(self, block: Block, snapshots: Snapshots) -> _Mask:
        """Return at which snapshots a customer's evidence is known to be complete."""
        spec, table = self.complete_when, block.attributes
        column = table.columns.get(spec.attribute) if spec and table else None
        if spec is None or table is None or column is None or not len(table.known_at):
            return np.zeros(len(snapshots), dtype=np.bool_)
        row = latest_known(table.offsets, table.known_at, snapshots.customer, snapshots.as_of)
        holds = column.isin(frozenset([str(spec.eq)])) if isinstance(column, Text) else column == _number(spec.eq)
        found: _Mask = (row >= 0) & holds[np.maximum(row, 0)]
        return found


def _number(value: object) -> float:
    try:
        return float(str(value)) if not isinstance(value, bool) else float(value)
    except ValueError:
        return np.nan  # the attribute is a number, which no text equals


@dataclass(frozen=True, slots=True)
class Seen:
    """Rows as seen: ``floor`` is the observed stage (-1 before any), ``truth`` the true one.

    ``customer`` indexes the names of all customers.
    """

    customer: npt.NDArray[np.int64]
    x: npt.NDArray[np.float32]
    floor: npt.NDArray[np.int8]
    truth: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, rows: npt.NDArray[Any]) -> Seen:
        """Return some rows, by mask or position."""
        return Seen(self.customer[rows], self.x[rows], self.floor[rows], self.truth[rows])


@dataclass(frozen=True, slots=True)
class StageRows:
    """What the posterior learns from, and is evaluated by.

    ``seen`` is what is left to see of each customer (each copy); ``without`` the same for those at a stage that may
    be hidden, with the evidence of their own true stage hidden in any case: a classifier that saw it would learn the
    rule and nothing else. ``columns`` of x change smoothly with what a customer does, so few customers can teach a
    line in them. A threshold rests on ``fewest`` customers at least. ``conflicts`` of ``labels`` contradict what is
    observed and are left out.
    """

    source: Truth
    seen: Seen
    without: Seen
    columns: npt.NDArray[np.int64]
    fewest: int
    labels: int = 0
    conflicts: int = 0

    def of(self, customers: npt.NDArray[np.int64]) -> StageRows:
        """Return the rows of some customers."""
        return StageRows(
            self.source,
            self.seen.take(np.isin(self.seen.customer, customers)),
            self.without.take(np.isin(self.without.customer, customers)),
            self.columns,
            self.fewest,
        )


_SMOOTH = ("recency", "touchpoints_all", "tenure", "active_days_all")


def smooth_columns(definition: ModelSpec) -> npt.NDArray[np.int64]:
    """Return where x holds recency, frequency, tenure, active days and the numeric attributes."""
    names = [*_SMOOTH, *(f"attribute_{name}" for name in definition.catalogue.vocabulary.numbers)]
    known = definition.catalogue.names
    return np.array([known.index(name) for name in names if name in known], dtype=np.int64)


def observe(
    definition: ModelSpec, block: Block, stays: Stays, hidden: _Mask, snapshots: Snapshots
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Return features and observed stage of snapshots as they would be with some stages' evidence hidden.

    stays: the block's on the whole history; hidden: (customers of the block, stages).
    """
    points = hide(definition.journey, block.touchpoints, hidden, stays.first)
    left = Block(block.customers, points, block.attributes, members=block.members)
    seen = stays_when_hidden(definition.journey, evidence(definition.journey, left), hidden)
    stage = seen.at(snapshots.customer, snapshots.as_of).stage
    return definition.features(left, seen, snapshots), stage


def stage_rows(
    definition: ModelSpec, tracking: Tracking, blocks: Blocks, cut: int, *, seed: int = 0, most: int = MOST_CUSTOMERS
) -> StageRows:
    """Gather the rows from what was visible at the cut, from the first source of the truth that has any customer.

    Stage labels count from when they were known, the newest of each customer, at its own instant. Data that is
    incomplete already is never thinned: that would understate the top stages.
    """
    found = StageRows("presence", *_nobody(definition), smooth_columns(definition), definition.min_customers)
    for source in _sources(tracking):
        found = _gather(definition, tracking, source, blocks, cut, seed, most)
        if len(found.seen):
            break
    return found


def _gather(
    definition: ModelSpec, tracking: Tracking, source: Truth, blocks: Blocks, cut: int, seed: int, most: int
) -> StageRows:
    def count(block: Block) -> int:
        return len(_asked(source, tracking, block, cut)[0])

    share = min(1.0, most / max(sum(blocks.map(count)), 1))

    def part(block: Block) -> _Part:
        return _part(definition, tracking, source, block, cut, seed, share)

    return _merge(source, blocks.map(part), definition)


def _sources(tracking: Tracking) -> Iterator[Truth]:
    if tracking.labelled:
        yield "labels"
    if tracking.complete_when is not None:
        yield "complete"
    yield "presence"


@dataclass(frozen=True, slots=True)
class _Part:
    names: tuple[str, ...]
    seen: Seen
    without: Seen
    labels: int
    conflicts: int


def _asked(source: Truth, tracking: Tracking, block: Block, cut: int) -> tuple[Snapshots, npt.NDArray[np.int8] | None]:
    """Return whom a source of the truth speaks of, and the position of the labelled stage's name where it names one."""
    if source == "labels" and block.stage_labels is not None:
        table = block.stage_labels
        owner = np.repeat(np.arange(len(block)), np.diff(table.offsets))
        known = np.flatnonzero(before(table.known_at, cut) & before(table.as_of, cut))
        last = known[np.append(owner[known][1:] != owner[known][:-1], True)] if len(known) else known
        snapshots = Snapshots(owner[last].astype(np.int64), table.as_of[last])
        there = are_eligible(block.touchpoints, snapshots)
        return snapshots.take(there), table.stage.codes[last][there].astype(np.int8)
    snapshots = eligible(block.touchpoints, np.array([cut], dtype=np.int64))
    if source == "complete":
        return snapshots.take(tracking.complete(block, snapshots)), None
    return snapshots, None


def _part(
    definition: ModelSpec, tracking: Tracking, source: Truth, block: Block, cut: int, seed: int, share: float
) -> _Part:
    snapshots, codes = _asked(source, tracking, block, cut)
    if share < 1:
        kept = sampling_keys(block.customers, snapshots, seed) < share
        snapshots, codes = snapshots.take(kept), None if codes is None else codes[kept]
    stays = definition.stays(block)
    observed = stays.at(snapshots.customer, snapshots.as_of).stage
    truth, asked, conflicts = observed, len(snapshots), 0
    if codes is not None and block.stage_labels is not None:
        position = np.array([definition.journey.index(name) for name in block.stage_labels.stage.values], dtype=np.int8)
        truth = position[codes]
        # Above the floor only what may be hidden can be true; a stage whose evidence is always seen contradicts it.
        fits = (truth == observed) | ((truth > observed) & (tracking.coverage[truth] < 1))
        conflicts = int((~fits).sum())
        snapshots, truth = snapshots.take(fits), truth[fits]
    seen, without = [], []
    for copy in range(COPIES if source == "complete" else 1):
        if source == "complete":
            hidden = draw_hidden(block.customers, definition.journey, tracking.coverage, f"{seed}/{copy}")
        else:
            hidden = np.zeros((len(block), len(definition.journey.stages)), dtype=np.bool_)
        seen.append(_seen(definition, block, stays, hidden, snapshots, truth))
        own = np.isin(truth, tracking.incomplete)
        hidden = hidden.copy()
        hidden[snapshots.customer[own], truth[own]] = True
        without.append(_seen(definition, block, stays, hidden, snapshots.take(own), truth[own]))
    return _Part(block.customers, _join(seen), _join(without), asked if codes is not None else 0, conflicts)


def _seen(
    definition: ModelSpec,
    block: Block,
    stays: Stays,
    hidden: _Mask,
    snapshots: Snapshots,
    truth: npt.NDArray[np.int8],
) -> Seen:
    x, floor = observe(definition, block, stays, hidden, snapshots)
    return Seen(snapshots.customer, x, floor, truth)


def _join(parts: Sequence[Seen]) -> Seen:
    return Seen(
        np.concatenate([one.customer for one in parts]),
        np.concatenate([one.x for one in parts]),
        np.concatenate([one.floor for one in parts]),
        np.concatenate([one.truth for one in parts]),
    )


def _merge(source: Truth, parts: Sequence[_Part], definition: ModelSpec) -> StageRows:
    """Join blocks; rows stand by customer, whatever block they came from, so that a fit cannot tell buckets apart."""
    names = [name for one in parts for name in one.names]
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    first = np.cumsum([0] + [len(one.names) for one in parts])

    def gather(which: Callable[[_Part], Seen]) -> Seen:
        if not parts:
            return _nobody(definition)[0]
        joined = _join([which(one) for one in parts])
        shift = np.repeat(first[:-1], [len(which(one)) for one in parts])
        customer = rank[joined.customer + shift]
        order = np.argsort(customer, kind="stable")
        return Seen(customer[order], joined.x[order], joined.floor[order], joined.truth[order])

    return StageRows(
        source,
        gather(lambda one: one.seen),
        gather(lambda one: one.without),
        smooth_columns(definition),
        definition.min_customers,
        sum(one.labels for one in parts),
        sum(one.conflicts for one in parts),
    )


def _nobody(definition: ModelSpec) -> tuple[Seen, Seen]:
    none = Seen(
        np.zeros(0, dtype=np.int64),
        np.zeros((0, len(definition.catalogue.features)), dtype=np.float32),
        np.zeros(0, dtype=np.int8),
        np.zeros(0, dtype=np.int8),
    )
    return none, none
