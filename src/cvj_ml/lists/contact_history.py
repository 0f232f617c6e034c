"""What a customer's own history says about contacting them: recent contacts, answers by channel, last sign of life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.config import DAY, ContactCap
from cvj_ml.histories import Block, TouchpointColumns
from cvj_ml.snapshots import eligible
from cvj_ml.windows import Instants, before, happened_within, in_window

ANSWERED_WITHIN = 3 * DAY
"""A send counts as answered when the customer's next own touchpoint follows within this time."""

_NONE = np.iinfo(np.int64).min
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ContactHistory:
    """Of some rows of SCORES: contacts within each cap's window, and per channel of the plays what came of them.

    ``contacts`` is (customers, caps); ``sent``, ``answered`` and ``own`` (touchpoints of the customer's own) are
    (customers, channels); ``last_own`` is the instant of the last of the latter, the smallest integer for none.
    """

    channels: tuple[str, ...]
    contacts: _Ints
    sent: _Ints
    answered: _Ints
    own: _Ints
    last_own: Instants

    def __len__(self) -> int:
        return len(self.last_own)

    def awake(self, as_of: int, window: int) -> npt.NDArray[np.bool_]:
        """Return who did something within the window before ``as_of``."""
        awake: npt.NDArray[np.bool_] = in_window(self.last_own, as_of, window)
        return awake

    def take(self, rows: npt.NDArray[np.int64]) -> ContactHistory:
        """Return some of the customers."""
        return ContactHistory(
            self.channels, *(getattr(self, name)[rows] for name in ("contacts", "sent", "answered", "own", "last_own"))
        )

    def columns(self) -> Mapping[str, pa.Array]:
        """Return the numbers as columns, named as ``contact_history_schema`` names them."""
        tables = (self.contacts, self.sent, self.answered, self.own)
        numbers = [table[:, i] for table in tables for i in range(table.shape[1])]
        schema = contact_history_schema(len(self.channels), self.contacts.shape[1])
        return {
            field.name: pa.array(column, pa.int64()).cast(field.type)
            for field, column in zip(schema, [*numbers, self.last_own], strict=True)
        }

    @classmethod
    def of(cls, table: pa.Table, channels: Sequence[str], caps: int) -> ContactHistory:
        """Return what ``columns`` wrote down; 0 for channels whose columns were not read."""
        there = set(table.column_names)

        def read(name: str, size: int) -> _Ints:
            # By column, so that those that nobody reads take no memory.
            found = np.zeros((len(table), size), dtype=np.int64, order="F")
            for i in range(size):
                if f"{name}_{i}" in there:
                    found[:, i] = table[f"{name}_{i}"].to_numpy()
            return found

        sent, answered, own = (read(name, len(channels)) for name in _BY_CHANNEL)
        return cls(tuple(channels), read("contacts", caps), sent, answered, own, table["last_own"].to_numpy())


_BY_CHANNEL = ("sent", "answered", "own")


def contact_history_schema(channels: int, caps: int) -> pa.Schema:
    """Return the columns in which the history of customers is kept beside SCORES: by cap or channel, in their order."""
    names = contact_history_columns(range(channels), caps)
    return pa.schema([(name, pa.int64() if name == "last_own" else pa.int32()) for name in names])


def contact_history_columns(channels: Sequence[int], caps: int) -> list[str]:
    """Return the names of the columns that tell of some channels, by position, and of everything else."""
    by_channel = [f"{name}_{i}" for name in _BY_CHANNEL for i in channels]
    return [*(f"contacts_{i}" for i in range(caps)), *by_channel, "last_own"]


def no_contact_history(size: int, channels: Sequence[str], caps: Sequence[ContactCap]) -> ContactHistory:
    """Return the history of customers with whom nothing happened."""
    nothing = np.zeros((size, len(channels)), dtype=np.int64)
    contacts, last_own = np.zeros((size, len(caps)), dtype=np.int64), np.full(size, _NONE, dtype=np.int64)
    return ContactHistory(tuple(channels), contacts, nothing, nothing, nothing, last_own)


def contact_history(block: Block, as_of: int, channels: Sequence[str], caps: Sequence[ContactCap]) -> ContactHistory:
    """Look back from ``as_of`` over what was visible by then, for everybody who is scored."""
    points = block.touchpoints
    size = len(block.customers)
    owner = np.repeat(np.arange(size), np.diff(points.offsets))
    # visible_at is never before occurred_at: what was visible had happened.
    known = before(points.visible_at, as_of) & ~before(points.superseded_at, as_of)
    sent, own = known & ~points.inbound, known & points.inbound
    place = points.channel.recode({name: i for i, name in enumerate(channels)}, -1).astype(np.int64)
    answered = sent & _answered(points, owner, own)
    last_own = np.full(size, _NONE, dtype=np.int64)
    np.maximum.at(last_own, owner[own], points.occurred_at[own])
    contacts = np.zeros((size, len(caps)), dtype=np.int64)
    for i, cap in enumerate(caps):
        counted = sent & in_window(points.occurred_at, as_of, cap.within)
        if cap.channel is not None:
            counted &= points.channel.isin(frozenset({cap.channel}))
        contacts[:, i] = np.bincount(owner[counted], minlength=size)

    def by_channel(rows: npt.NDArray[np.bool_]) -> _Ints:
        rows = rows & (place >= 0)
        cells = np.bincount(owner[rows] * len(channels) + place[rows], minlength=size * len(channels))
        return cells.reshape(size, len(channels))

    asked = eligible(points, np.array([as_of], dtype=np.int64)).customer
    everybody = ContactHistory(
        tuple(channels), contacts, by_channel(sent), by_channel(answered), by_channel(own), last_own
    )
    return everybody.take(asked)


def _answered(points: TouchpointColumns, owner: _Ints, own: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return whether the customer's next own touchpoint comes within ``ANSWERED_WITHIN`` of each row."""
    rows = len(points)
    following = np.minimum.accumulate(np.where(own, np.arange(rows), rows)[::-1])[::-1]
    there = following < rows
    following = np.where(there, following, 0) if rows else following
    there &= owner[following] == owner
    return there & happened_within(points.occurred_at[following] - points.occurred_at, ANSWERED_WITHIN)
