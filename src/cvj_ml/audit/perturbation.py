"""The first proof: another future must leave every answer about the past as it was.

Another future: a block in which all that was known before a cut-off stays, and everything else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.audit.outputs import OutputDifference, compare_outputs, outputs_at
from cvj_ml.audit.sample import AuditScope, Report, Tally
from cvj_ml.config import DAY
from cvj_ml.histories import Attributes, Block, TouchpointColumns, take
from cvj_ml.store.sql import to_wall
from cvj_ml.windows import NEVER, before

_LATER = 31 * DAY
"""How long after the cut-off the control asks: by then every added row is there to be seen."""


@dataclass(frozen=True, slots=True)
class Power:
    """What was tested at one cut-off, so that a pass means something.

    ``noticed`` is how many of ``compared`` customers' answers changed with the future when asked about a later
    instant, as they must.
    """

    cut_off: int
    customers: int
    change: Change
    noticed: int
    compared: int


def perturb(scope: AuditScope, instants: Sequence[int], seed: int, progress: Report) -> tuple[Tally, list[Power]]:
    """Compare answers under another future; and ask about a later instant, where they have to differ."""
    tally, power = Tally(), list[Power]()
    for number, cut_off in enumerate(instants):

        def work(block: Block, cut_off: int = cut_off) -> tuple[OutputDifference, OutputDifference, Change]:
            draw = np.random.default_rng([seed, 3, abs(cut_off), len(block), len(block.touchpoints)])
            other, change = another_future(block, cut_off, scope.config.time_zone, draw)
            same = compare_outputs(*(scope.ask(one, cut_off) for one in (block, other)))
            later = compare_outputs(
                *(outputs_at(scope.definition, None, one, cut_off + _LATER) for one in (block, other))
            )
            return same, later, change

        parts = scope.sample.engine().map(work)
        tally.add(same for same, _, _ in parts)
        noticed, compared = (sum(numbers) for numbers in zip(*(_noticed(later) for _, later, _ in parts), strict=True))
        asked = sum(same.customers for same, _, _ in parts)
        power.append(Power(cut_off, asked, sum((one for _, _, one in parts), Change()), noticed, compared))
        if 2 * noticed < compared:
            raise AssertionError(f"another future changed {noticed} of {compared} later answers: nothing was tested")
        progress(number + 1, len(instants))
    return tally, power


def _noticed(later: OutputDifference) -> tuple[int, int]:
    """Return at least how many customers' answers differ, and of how many."""
    alone = later.different.get(("customer", "asked about"), 0)
    of_features = (number for (kind, _), number in later.different.items() if kind == "feature")
    return alone + max(of_features, default=0), alone + later.customers


_REACH = 30 * DAY
"""How far from the cut-off rows are added, on both sides."""

_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Change:
    """How many rows another future deleted, altered and added, and how many it let a newer version replace."""

    deleted: int = 0
    altered: int = 0
    added: int = 0
    replaced: int = 0
    attributes: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.deleted + self.altered + self.added + self.replaced + self.attributes

    def __add__(self, other: Change) -> Change:
        return Change(
            self.deleted + other.deleted,
            self.altered + other.altered,
            self.added + other.added,
            self.replaced + other.replaced,
            self.attributes + other.attributes,
        )


def another_future(block: Block, cut_off: int, time_zone: str, rng: np.random.Generator) -> tuple[Block, Change]:
    """Return the block with another future from the cut-off on, and what was changed.

    Of the rows visible from the cut-off on a third is deleted and half of the rest gets other contents. Every
    customer gets three rows more: one exactly at the cut-off, one after it, and one that happened before it and
    became visible only then. One past row in ten is replaced by a newer version at the cut-off or after it; attribute
    versions known from then on are redrawn. What was known before the cut-off is not touched.
    """
    points, change = _touchpoints(block.touchpoints, cut_off, time_zone, rng)
    if block.attributes is None:
        return replace(block, touchpoints=points), change
    attributes, number = _attributes(block.attributes, cut_off, time_zone, rng)
    return replace(block, touchpoints=points, attributes=attributes), change + Change(attributes=number)


def _touchpoints(
    points: TouchpointColumns, cut_off: int, time_zone: str, rng: np.random.Generator
) -> tuple[TouchpointColumns, Change]:
    rows, customers = len(points), len(points.offsets) - 1
    owner = points.owners()
    known = before(points.visible_at, cut_off)
    kept = known | (rng.random(rows) >= 1 / 3)
    altered = kept & ~known & (rng.random(rows) < 0.5)
    open_end = known & ~before(points.superseded_at, cut_off)
    replaced = open_end & (rng.random(rows) < 0.1)
    ends = np.where(points.superseded_at == NEVER, cut_off + rng.integers(0, 2, rows) * DAY, NEVER)

    template = rng.integers(0, max(rows, 1), 3 * customers)
    added_owner = np.tile(np.arange(customers), 3)
    kind = np.repeat(np.arange(3), customers)
    distance = rng.integers(1, _REACH, 3 * customers)
    occurred = cut_off + np.choose(kind, [np.zeros_like(distance), distance, -distance])
    visible = np.where(kind == 2, cut_off + rng.integers(0, 2, 3 * customers) * distance, occurred)

    # Contents come from other rows, so that every text and number is one that the data knows.
    source = np.arange(rows)
    source[altered] = rng.integers(0, max(rows, 1), int(altered.sum()))
    chosen = np.concatenate([source[kept], template])
    owners = np.concatenate([owner[kept], added_owner])
    occurred_at = np.concatenate([points.occurred_at[kept], occurred])
    order = np.lexsort(
        (
            np.arange(len(chosen)),
            points.value[chosen],
            points.has_value[chosen],
            points.channel.codes[chosen],
            points.event.codes[chosen],
            occurred_at,
            owners,
        )
    )
    chosen = chosen[order]
    changed = TouchpointColumns(
        offsets=_offsets(owners, customers),
        occurred_at=occurred_at[order],
        visible_at=np.concatenate([points.visible_at[kept], visible])[order],
        superseded_at=np.concatenate(
            [np.where(replaced, ends, points.superseded_at)[kept], np.full(3 * customers, NEVER)]
        )[order],
        day=np.concatenate([points.day[kept], (to_wall(occurred, time_zone) // DAY).astype(np.int32)])[order],
        date_only=np.concatenate([points.date_only[kept], np.zeros(3 * customers, dtype=np.bool_)])[order],
        event=points.event.take(chosen),
        channel=points.channel.take(chosen),
        value=points.value[chosen],
        has_value=points.has_value[chosen],
        inbound=points.inbound[chosen],
        properties=take(points.properties, chosen),
        merged_at=points.merged_at,
    )
    return changed, Change(int((~kept).sum()), int(altered.sum()), 3 * customers, int(replaced.sum()))


def _attributes(table: Attributes, cut_off: int, time_zone: str, rng: np.random.Generator) -> tuple[Attributes, int]:
    rows, customers = len(table.known_at), len(table.offsets) - 1
    if not rows:
        return table, 0
    owner = np.repeat(np.arange(customers), np.diff(table.offsets))
    kept = before(table.known_at, cut_off)
    owners = np.concatenate([owner[kept], np.tile(np.arange(customers), 2)])
    later = cut_off + np.repeat([0, 1], customers) * rng.integers(1, _REACH, 2 * customers)
    known_at = np.concatenate([table.known_at[kept], later])
    chosen = np.concatenate([np.flatnonzero(kept), rng.integers(0, rows, 2 * customers)])
    order = np.lexsort((np.arange(len(owners)), known_at, owners))
    columns = take(table.columns, chosen[order])
    day = np.concatenate([table.day[kept], (to_wall(later, time_zone) // DAY).astype(np.int32)])[order]
    changed = Attributes(_offsets(owners, customers), known_at[order], day, columns, table.dates)
    return changed, int((~kept).sum()) + 2 * customers


def _offsets(owners: _I64, customers: int) -> _I64:
    return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=customers))]).astype(np.int64)
