"""Rows in any order to blocks of whole customers in their total order, in memory and without a store.

One pass over the rows deals them, packed into four integers each, to parts by a hash of the customer. A part is small
enough for the processor's cache, and what is left happens there: number its customers, put their rows together, sort
them. Customers of a part become a block, as those of a bucket do in the package's store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY
from cvj_ml.errors import DataError
from cvj_ml.histories import Block, Text, TouchpointColumns
from cvj_ml.windows import NEVER, Instants

_I32 = npt.NDArray[np.int32]
_I64 = npt.NDArray[np.int64]
_U8 = npt.NDArray[np.uint8]

_Number = TypeVar("_Number", bound=np.generic)

COLUMNS = ["customer_id", "occurred_at", "known_at", "event", "channel", "value"]

_PARTS = 256
"""Ten million touchpoints make parts of 1.2 megabytes; a part's number is a byte."""


def blocks(batches: Iterable[pa.RecordBatch], outbound: frozenset[str] = frozenset()) -> Iterator[Block]:
    """Return all customers as blocks of whole customers, sorted by id within a block.

    ``batches`` have COLUMNS: customer_id (text or integers), occurred_at, known_at (timestamps in UTC, which is also
    the zone of days), event, channel (dictionaries of text), value (minor units). Raises DataError for rows without
    customer, instant or event.
    """
    events, channels = _Names(), _Names()
    dealt = [_dealt(batch, events, channels) for batch in batches]
    for part in range(_PARTS):
        slices = [(ids, records, *starts[part : part + 2].tolist()) for ids, records, starts in dealt]
        if rows := sum(stop - start for _, _, start, stop in slices):
            ids, offsets, own = _by_customer(
                pa.concat_arrays([ids.slice(start, stop - start) for ids, _, start, stop in slices]),
                [records[start:stop] for _, records, start, stop in slices],
                rows,
            )
            yield _block(ids, offsets, own, events, channels, outbound)


def _dealt(batch: pa.RecordBatch, events: _Names, channels: _Names) -> tuple[pa.Array, _I64, _I64]:
    """Return a batch's ids and records, those of a part side by side, and where each part starts."""
    ids, occurred_at, known_at, event, channel, value = batch.columns
    if ids.null_count:
        raise DataError(f"customer_id: {ids.null_count} row(s) have none; leave them out.")
    part = np.empty(len(ids), dtype=np.uint8)
    if pa.types.is_integer(ids.type):
        _part_of_integers(_numbers(ids.cast(pa.int64()), np.int64), part)
    else:
        _, ends, text = ids.cast(pa.string()).buffers()
        offsets = np.frombuffer(ends, dtype=np.int32)[ids.offset : ids.offset + len(ids) + 1]
        _part_of_texts(offsets, np.frombuffer(text, dtype=np.uint8), part)
    order = np.empty(len(ids), dtype=np.int32)
    starts = np.zeros(_PARTS + 1, dtype=np.int64)
    records = np.empty((len(ids), 4), dtype=np.int64)
    _deal(
        part,
        _instants(occurred_at, "occurred_at"),
        _instants(known_at, "known_at"),
        events.codes(event, "event"),
        channels.codes(channel),
        _numbers(value, np.int64),
        _numbers(value.is_valid().cast(pa.uint8()), np.uint8).view(np.bool_),
        starts,
        order,
        records,
    )
    taken = ids.take(pa.Array.from_buffers(pa.int32(), len(order), [None, pa.py_buffer(order)]))
    return taken, records, starts


def _by_customer(ids: pa.Array, slices: list[_I64], rows: int) -> tuple[pa.Array, _I64, _I64]:
    """Return the distinct ids in their order, where each one's records start, and the records."""
    encoded = ids.dictionary_encode()
    names, owner = encoded.dictionary.cast(pa.string()), _numbers(encoded.indices, np.int32)
    sorted_names = pc.sort_indices(names)
    order = _numbers(sorted_names, np.uint64)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=len(names))[order])))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = offsets[:-1]
    own = np.empty((rows, 4), dtype=np.int64)
    ends = np.cumsum([0, *map(len, slices)])
    for records, (first, last) in zip(slices, pairwise(ends.tolist()), strict=True):
        _put(owner[first:last], records, place, own)
    return names.take(sorted_names), offsets, own


def _block(
    ids: pa.Array, offsets: _I64, records: _I64, events: _Names, channels: _Names, outbound: frozenset[str]
) -> Block:
    """Sort the records of some customers and unpack them."""
    rows = len(records)
    occurred_at, visible_at, value = (np.empty(rows, dtype=np.int64) for _ in range(3))
    event, channel, has_value = np.empty(rows, np.int32), np.empty(rows, np.int32), np.empty(rows, np.bool_)
    _sort(offsets, records, events.rank(), channels.rank())
    _unpack(records, occurred_at, visible_at, event, channel, value, has_value)
    text = Text(event, events.in_order())
    return Block(
        tuple(ids.to_pylist()),
        TouchpointColumns(
            offsets=offsets,
            occurred_at=occurred_at,
            visible_at=visible_at,
            superseded_at=np.full(rows, NEVER, dtype=np.int64),
            day=(occurred_at // DAY).astype(np.int32),
            date_only=np.zeros(rows, dtype=np.bool_),
            event=text,
            channel=Text(channel, channels.in_order()),
            value=value,
            has_value=has_value,
            inbound=~text.isin(outbound) if outbound else np.ones(rows, dtype=np.bool_),
            properties={},
            merged_at=np.full(len(offsets) - 1, NEVER, dtype=np.int64),
        ),
    )


class _Names:
    """The distinct texts of a column that has few of them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def codes(self, column: pa.DictionaryArray, required: str | None = None) -> _I32:
        """Return the numbers of the texts, -1 for null."""
        if required and column.null_count:
            raise DataError(f"{required}: {column.null_count} row(s) have none; leave them out.")
        table = [self._numbers.setdefault(name, len(self._numbers)) for name in column.dictionary.to_pylist()]
        indices = column.indices if not column.null_count else pc.fill_null(column.indices, len(table))
        codes: _I32 = np.array([*table, -1], dtype=np.int32)[_numbers(indices, np.int32)]
        return codes

    def in_order(self) -> tuple[str, ...]:
        """Return the texts in their order."""
        return tuple(sorted(self._numbers))

    def rank(self) -> _I64:
        """Return the position of each number's text in that order; null, at index -1, is -1."""
        order = {name: rank for rank, name in enumerate(self.in_order())}
        return np.array([*(order[name] for name in self._numbers), -1], dtype=np.int64)


def _instants(column: pa.Array, name: str) -> Instants:
    if column.null_count:
        raise DataError(f"{name}: {column.null_count} row(s) have none; leave them out.")
    return _numbers(column.cast(pa.timestamp("us", tz="UTC")).view(pa.int64()), np.int64)


def _numbers(array: pa.Array, kind: type[_Number]) -> npt.NDArray[_Number]:
    """Return an array as it lies in memory, with anything where it is null."""
    # ``to_numpy`` would import pandas first, and so would ``pa.array`` of numbers.
    return np.frombuffer(array.buffers()[1], dtype=kind)[array.offset : array.offset + len(array)]


@compiled
def _part_of_integers(ids: _I64, part: _U8) -> None:
    for row in range(len(ids)):
        part[row] = (np.uint64(ids[row]) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)


@compiled
def _part_of_texts(offsets: _I32, text: _U8, part: _U8) -> None:
    """Hash texts by FNV-1a, its two upper bytes folded."""
    for row in range(len(part)):
        found = np.uint32(2166136261)
        for at in range(offsets[row], offsets[row + 1]):
            found = np.uint32((found ^ text[at]) * np.uint32(16777619))
        part[row] = (found >> np.uint32(24)) ^ (found >> np.uint32(16) & np.uint32(255))


@compiled
def _names(event: int, channel: int, has_value: bool) -> np.int64:
    """Pack event, channel and whether there is a value such that packed numbers are in the order of their parts."""
    return np.int64(event + 1) << 32 | np.int64(channel + 1) << 1 | np.int64(has_value)


@compiled
def _deal(
    part: _U8,
    occurred_at: Instants,
    known_at: Instants,
    event: _I32,
    channel: _I32,
    value: _I64,
    has_value: npt.NDArray[np.bool_],
    starts: _I64,
    order: _I32,
    records: _I64,
) -> None:
    """Pack rows into (occurred, visible, value, names), those of a part side by side."""
    for row in range(len(part)):
        starts[part[row] + 1] += 1
    for one in range(1, len(starts)):
        starts[one] += starts[one - 1]
    place = starts.copy()
    for row in range(len(part)):
        at = place[part[row]]
        place[part[row]] += 1
        order[at] = row
        records[at, 0] = occurred_at[row]
        records[at, 1] = max(occurred_at[row], known_at[row])
        records[at, 2] = value[row] if has_value[row] else 0
        records[at, 3] = _names(event[row], channel[row], has_value[row])


@compiled
def _put(owner: _I32, records: _I64, place: _I64, own: _I64) -> None:
    """Put records at their customers' next places."""
    for row in range(len(owner)):
        at = place[owner[row]]
        place[owner[row]] += 1
        for word in range(4):
            own[at, word] = records[row, word]


@compiled
def _event(names: int) -> int:
    return (names >> 32) - 1


@compiled
def _channel(names: int) -> int:
    return ((names >> 1) & 0x7FFFFFFF) - 1


@compiled
def _follows(record: _I64, at: int, visible: int, value: int, names: int) -> bool:
    """Return whether a record comes strictly after another one, given by its words."""
    if record[0] != at:
        return bool(record[0] > at)
    if record[3] != names:
        return bool(record[3] > names)
    if record[2] != value:
        return bool(record[2] > value)
    return bool(record[1] > visible)


@compiled
def _sort(offsets: _I64, records: _I64, event_rank: _I64, channel_rank: _I64) -> None:
    """Sort each customer's records by instant, event, channel, value (none first) and visibility, names by text."""
    longest = 0
    for customer in range(len(offsets) - 1):
        longest = max(longest, offsets[customer + 1] - offsets[customer])
    copy = np.empty((longest, 4), dtype=np.int64)
    for row in range(len(records)):
        names = records[row, 3]
        records[row, 3] = _names(event_rank[_event(names)], channel_rank[_channel(names)], names & 1)
    for customer in range(len(offsets) - 1):
        start, stop = offsets[customer], offsets[customer + 1]
        if stop - start > 24:
            # Roughly in order first; insertion alone is quadratic.
            order = np.argsort(records[start:stop, 0])
            for i in range(stop - start):
                for word in range(4):
                    copy[i, word] = records[start + order[i], word]
            for i in range(stop - start):
                for word in range(4):
                    records[start + i, word] = copy[i, word]
        for row in range(start + 1, stop):
            at, visible, value, names = records[row, 0], records[row, 1], records[row, 2], records[row, 3]
            hole = row
            while hole > start and _follows(records[hole - 1], at, visible, value, names):
                for word in range(4):
                    records[hole, word] = records[hole - 1, word]
                hole -= 1
            records[hole, 0], records[hole, 1], records[hole, 2], records[hole, 3] = at, visible, value, names


@compiled
def _unpack(
    records: _I64,
    occurred_at: Instants,
    visible_at: Instants,
    event: _I32,
    channel: _I32,
    value: _I64,
    has_value: npt.NDArray[np.bool_],
) -> None:
    for row in range(len(records)):
        names = records[row, 3]
        occurred_at[row] = records[row, 0]
        visible_at[row] = records[row, 1]
        value[row] = records[row, 2]
        event[row], channel[row], has_value[row] = _event(names), _channel(names), names & 1 == 1
