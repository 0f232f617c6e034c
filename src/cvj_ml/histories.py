"""A block of whole customers, in time order: the unit of work.

Columns are flat arrays over all rows of the block; ``offsets`` marks where each customer's rows begin and end.
Text is held as dictionary codes. Nothing here knows about files or engines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.config import STAGE_CHANGE
from cvj_ml.windows import NEVER, Instants, before, is_customer

ALWAYS = np.iinfo(np.int64).min
"""``known_at`` of a static attribute."""

Rows = npt.NDArray[np.int64] | npt.NDArray[np.bool_]
"""Positions of rows, or a mask."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text column: ``codes`` index ``values``; -1 is null."""

    codes: npt.NDArray[np.int32]
    values: tuple[str, ...]

    def recode(self, vocabulary: Mapping[str, int], other: int) -> npt.NDArray[np.int32]:
        """Return codes of a frozen vocabulary; unknown text becomes ``other``, null -1."""
        table = np.array([vocabulary.get(value, other) for value in self.values] + [-1], dtype=np.int32)
        return table[self.codes]

    def isin(self, names: frozenset[str]) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows whose text is one of the names; null is none of them."""
        return np.array([value in names for value in self.values] + [False])[self.codes]

    def take(self, rows: Rows) -> Text:
        """Return these rows."""
        return Text(self.codes[rows], self.values)


Column = npt.NDArray[np.float64] | Text


def take(columns: Mapping[str, Column], rows: Rows) -> dict[str, Column]:
    """Return these rows of every column."""
    return {name: one.take(rows) if isinstance(one, Text) else one[rows] for name, one in columns.items()}


def rows_of(
    offsets: npt.NDArray[np.int64], customers: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the offsets of a table of these customers alone, and the rows that are theirs."""
    sizes = np.diff(offsets)[customers]
    ends = np.concatenate(([0], np.cumsum(sizes)))
    return ends, np.arange(ends[-1]) + np.repeat(offsets[customers] - ends[:-1], sizes)


def own_doing(event: Text, outbound: Collection[str]) -> npt.NDArray[np.bool_]:
    """Mark the touchpoints that customers made: neither what is sent to them nor a change of the CRM's stage field."""
    return ~event.isin(frozenset(outbound).union(name for name in event.values if name.startswith(STAGE_CHANGE)))


@dataclass(frozen=True, slots=True)
class TouchpointColumns:
    """Touchpoints of a block: customer by customer, each in the total order of occurrence.

    Equal instants are ordered by event, channel, value, touchpoint_id as text, never by input order. That makes bytes
    equal; it says nothing about what came first. A ``date_only`` row stands at its local midnight, its time unknown.
    ``superseded_at`` is when a newer version of the row became visible (NEVER for most rows). ``value`` is in
    minor units and valid where ``has_value``; ``day`` is the local calendar day since 1970. ``inbound`` is what the
    customer did. ``merged_at`` is when an id was known to be another one's person (by customer, NEVER for most):
    from then on it is no customer, and what follows in its history is the person's, under whatever id, so that
    outcomes of earlier snapshots are known.
    """

    offsets: npt.NDArray[np.int64]
    occurred_at: Instants
    visible_at: Instants
    superseded_at: Instants
    day: npt.NDArray[np.int32]
    date_only: npt.NDArray[np.bool_]
    event: Text
    channel: Text
    value: npt.NDArray[np.int64]
    has_value: npt.NDArray[np.bool_]
    inbound: npt.NDArray[np.bool_]
    properties: Mapping[str, Column]
    merged_at: Instants

    def __len__(self) -> int:
        return len(self.occurred_at)

    def owners(self) -> npt.NDArray[np.int64]:
        """Return each row's customer, as a position in the block."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def sent(self) -> npt.NDArray[np.bool_]:
        """Mark what the business sent or showed."""
        changes = frozenset(name for name in self.event.values if name.startswith(STAGE_CHANGE))
        return ~self.inbound & ~self.event.isin(changes) if changes else ~self.inbound

    def live(self, as_of: int) -> npt.NDArray[np.bool_]:
        """Mark the rows of customers of an instant that were visible before it and not yet replaced.

        ``visible_at`` is never before ``occurred_at``: what was visible had happened.
        """
        live = before(self.visible_at, as_of) & ~before(self.superseded_at, as_of)
        return live & self.are_customers(as_of)[self.owners()] if (self.merged_at < NEVER).any() else live

    def are_customers(self, as_of: Instants | int) -> npt.NDArray[np.bool_]:
        """Return who was seen before an instant, and not yet merged into another customer."""
        return is_customer(self.first_visible(), self.merged_at, as_of)

    def first_visible(self) -> Instants:
        """Return when each customer's first row became visible, NEVER for those without any."""
        first = np.full(len(self.offsets) - 1, NEVER, dtype=np.int64)
        np.minimum.at(first, self.owners(), self.visible_at)
        return first

    def take(self, customers: npt.NDArray[np.int64]) -> TouchpointColumns:
        """Return the touchpoints of the customers at these positions."""
        return replace(self._at(*rows_of(self.offsets, customers)), merged_at=self.merged_at[customers])

    def keep(self, rows: npt.NDArray[np.bool_]) -> TouchpointColumns:
        """Return the touchpoints marked by a mask; a customer may be left without any."""
        before = np.concatenate(([0], np.cumsum(rows)))
        return self._at(before[self.offsets].astype(np.int64), rows)

    def _at(self, offsets: npt.NDArray[np.int64], rows: Rows) -> TouchpointColumns:
        return TouchpointColumns(
            offsets,
            self.occurred_at[rows],
            self.visible_at[rows],
            self.superseded_at[rows],
            self.day[rows],
            self.date_only[rows],
            self.event.take(rows),
            self.channel.take(rows),
            self.value[rows],
            self.has_value[rows],
            self.inbound[rows],
            take(self.properties, rows),
            self.merged_at,
        )


@dataclass(frozen=True, slots=True)
class Attributes:
    """Versions of the customers' attributes, each customer's in the order in which they became known.

    ``day`` is the local calendar day of ``known_at``, since 1970; any of those that were known always. ``dates`` are
    columns of local days, too.
    """

    offsets: npt.NDArray[np.int64]
    known_at: Instants
    day: npt.NDArray[np.int32]
    columns: Mapping[str, Column]
    dates: frozenset[str] = frozenset()

    def take(self, customers: npt.NDArray[np.int64]) -> Attributes:
        """Return the attributes of the customers at these positions."""
        offsets, rows = rows_of(self.offsets, customers)
        return Attributes(offsets, self.known_at[rows], self.day[rows], take(self.columns, rows), self.dates)


@dataclass(frozen=True, slots=True)
class StageLabels:
    """What a CRM or a survey says: this customer was at ``stage`` at ``as_of``, and that was known at ``known_at``.

    Rows stand by customer, then as_of, known_at and stage.
    """

    offsets: npt.NDArray[np.int64]
    as_of: Instants
    known_at: Instants
    stage: Text

    def take(self, customers: npt.NDArray[np.int64]) -> StageLabels:
        """Return the labels of the customers at these positions."""
        offsets, rows = rows_of(self.offsets, customers)
        return StageLabels(offsets, self.as_of[rows], self.known_at[rows], self.stage.take(rows))


@dataclass(frozen=True, slots=True)
class Members:
    """Who belongs to which account, of touchpoints before ``until``: lines by account, contact and ``known_at``."""

    offsets: npt.NDArray[np.int64]
    known_at: Instants
    until: Instants
    contact: Text
    role: Text

    def take(self, customers: npt.NDArray[np.int64]) -> Members:
        """Return the members of the accounts at these positions."""
        offsets, rows = rows_of(self.offsets, customers)
        return Members(offsets, self.known_at[rows], self.until[rows], self.contact.take(rows), self.role.take(rows))

    @classmethod
    def none(cls, customers: int) -> Members:
        """Return the members of accounts of which none is known."""
        instants, text = np.empty(0, dtype=np.int64), Text(np.empty(0, dtype=np.int32), ())
        return cls(np.zeros(customers + 1, dtype=np.int64), instants, instants, text, text)


@dataclass(frozen=True, slots=True)
class Block:
    """Whole customers, sorted by id, with their tables; ``members`` where customers are accounts."""

    customers: tuple[str, ...]
    touchpoints: TouchpointColumns
    attributes: Attributes | None = None
    stage_labels: StageLabels | None = None
    members: Members | None = None

    def __len__(self) -> int:
        return len(self.customers)

    def only(self, names: frozenset[str]) -> Block:
        """Return the block of the named customers that are in this one."""
        kept = np.array([i for i, name in enumerate(self.customers) if name in names], dtype=np.int64)
        return Block(
            tuple(self.customers[i] for i in kept),
            self.touchpoints.take(kept),
            self.attributes.take(kept) if self.attributes else None,
            self.stage_labels.take(kept) if self.stage_labels else None,
            self.members.take(kept) if self.members else None,
        )
