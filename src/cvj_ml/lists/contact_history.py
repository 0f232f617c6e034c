"""What a customer's own history says about contacting them: recent contacts, answers by channel, last sign of life.

And whether they are unhappy with us, and which plays are meant for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.config import DAY, Config, JourneySpec, Play, play_channels
from cvj_ml.histories import Block, TouchpointColumns
from cvj_ml.lists.recent_past import RecentPast
from cvj_ml.snapshots import eligible
from cvj_ml.windows import Instants, happened_within, in_window

ANSWERED_WITHIN = 3 * DAY
"""A send counts as answered when the customer's next own touchpoint follows within this time."""

_NONE = np.iinfo(np.int64).min
_Ints = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


def conditional_plays(journey: JourneySpec) -> tuple[Play, ...]:
    """Return the plays that are not meant for everybody, in the journey's order."""
    return tuple(play for play in journey.all_plays if play.conditions)


@dataclass(frozen=True, slots=True)
class ContactHistory:
    """Of some rows of SCORES: contacts within each cap's window, and per channel of the plays what came of them.

    ``contacts`` is (customers, caps); ``sent``, ``answered`` and ``own`` (touchpoints of the customer's own) are
    (customers, channels); ``meant`` is (customers, conditional plays): whether a play is meant for them; ``last_own``
    is the instant of the last touchpoint of their own, the smallest integer for none; ``recent`` is whether we
    contacted them lately, ``unhappy`` whether something went wrong.
    """

    contacts: _Ints
    sent: _Ints
    answered: _Ints
    own: _Ints
    meant: _Mask
    last_own: Instants
    recent: _Mask
    unhappy: _Mask

    def __len__(self) -> int:
        return len(self.last_own)

    def awake(self, as_of: int, window: int) -> _Mask:
        """Return who did something within the window before ``as_of``."""
        awake: _Mask = in_window(self.last_own, as_of, window)
        return awake

    def take(self, rows: npt.NDArray[np.int64]) -> ContactHistory:
        """Return some of the customers."""
        return ContactHistory(*(getattr(self, one.name)[rows] for one in fields(self)))

    def columns(self, config: Config) -> Mapping[str, pa.Array]:
        """Return the numbers as columns, named as ``contact_history_schema`` names them."""
        tables = (self.contacts, self.sent, self.answered, self.own, self.meant)
        numbers = [table[:, i] for table in tables for i in range(table.shape[1])]
        return {
            field.name: pa.array(column).cast(field.type)
            for field, column in zip(
                contact_history_schema(config), [*numbers, self.last_own, self.recent, self.unhappy], strict=True
            )
        }

    @classmethod
    def of(cls, table: pa.Table, config: Config) -> ContactHistory:
        """Return what ``columns`` wrote down; 0 where columns were not read."""
        there, sizes = set(table.column_names), _sizes(config)

        def read(name: str) -> npt.NDArray[np.int64]:
            # By column, so that those that nobody reads take no memory.
            found = np.zeros((len(table), sizes[name]), dtype=np.int64, order="F")
            for i in range(sizes[name]):
                if f"{name}_{i}" in there:
                    found[:, i] = table[f"{name}_{i}"].to_numpy()
            return found

        contacts, sent, answered, own, meant = (read(name) for name in sizes)
        last_own, recent, unhappy = (table[name].to_numpy() for name in ("last_own", "recent", "unhappy"))
        return cls(contacts, sent, answered, own, meant.astype(np.bool_), last_own, recent, unhappy)


_BY_CHANNEL = ("sent", "answered", "own")


def _sizes(config: Config) -> dict[str, int]:
    """Return how many columns there are of each kind."""
    channels, caps = len(play_channels(config.journey)), len(config.eligibility.contact_caps)
    return {"contacts": caps, **dict.fromkeys(_BY_CHANNEL, channels), "meant": len(conditional_plays(config.journey))}


def contact_history_schema(config: Config) -> pa.Schema:
    """Return the columns in which the history of customers is kept beside SCORES: by cap, channel or play in order."""
    plain = {"last_own": pa.int64(), "recent": pa.bool_(), "unhappy": pa.bool_()}
    kinds = {"meant": pa.bool_()}
    several = [(f"{name}_{i}", kinds.get(name, pa.int32())) for name, n in _sizes(config).items() for i in range(n)]
    return pa.schema([*several, *plain.items()])


def contact_history_columns(config: Config, channels: Sequence[int], plays: Sequence[int]) -> list[str]:
    """Return the names of the columns of some channels and plays, by position, and of everything else."""
    others = set(range(len(play_channels(config.journey)))) - set(channels)
    unread = {f"{name}_{i}" for name in _BY_CHANNEL for i in others}
    unread |= {f"meant_{i}" for i in set(range(len(conditional_plays(config.journey)))) - set(plays)}
    return [name for name in contact_history_schema(config).names if name not in unread]


def no_contact_history(size: int, config: Config, as_of: int) -> ContactHistory:
    """Return the history of customers of whom only their scores are known: awake, not contacted, open to every play."""
    contacts, sent, answered, own, meant = (np.zeros((size, n), dtype=np.int64) for n in _sizes(config).values())
    recent, unhappy = np.zeros((2, size), dtype=np.bool_)
    last_own = np.full(size, as_of - 1, dtype=np.int64)
    return ContactHistory(contacts, sent, answered, own, meant == 0, last_own, recent, unhappy)


def contact_history(block: Block, as_of: int, config: Config) -> ContactHistory:
    """Look back from ``as_of`` over what was visible by then, for everybody who is scored."""
    points, channels = block.touchpoints, play_channels(config.journey)
    caps, plays = config.eligibility.contact_caps, conditional_plays(config.journey)
    size = len(block.customers)
    past = RecentPast(block, as_of, config)
    owner, known = past.owner, past.known
    sent, own = known & points.sent, known & points.inbound
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

    def by_channel(rows: _Mask) -> _Ints:
        rows = rows & (place >= 0)
        cells = np.bincount(owner[rows] * len(channels) + place[rows], minlength=size * len(channels))
        return cells.reshape(size, len(channels))

    meant = np.array([past.meant_for(play) for play in plays], dtype=np.bool_).reshape(len(plays), size).T
    asked = eligible(points, np.array([as_of], dtype=np.int64)).customer
    everybody = ContactHistory(
        contacts,
        by_channel(sent),
        by_channel(answered),
        by_channel(own),
        meant,
        last_own,
        past.contacted_lately(),
        past.unhappy(),
    )
    return everybody.take(asked)


def _answered(points: TouchpointColumns, owner: _Ints, own: _Mask) -> _Mask:
    """Return whether the customer's next own touchpoint comes within ``ANSWERED_WITHIN`` of each row."""
    rows = len(points)
    following = np.minimum.accumulate(np.where(own, np.arange(rows), rows)[::-1])[::-1]
    there = following < rows
    following = np.where(there, following, 0) if rows else following
    there &= owner[following] == owner
    return there & happened_within(points.occurred_at[following] - points.occurred_at, ANSWERED_WITHIN)
