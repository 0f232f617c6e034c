"""Rows in any order to blocks of whole customers in their total order, in memory and without a store.

Two passes over the rows, batch by batch: the first numbers the customers and counts their rows, so that the second
can put each row, packed into four integers, straight into its customer's place. What is left is to sort within
customers, which happens in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY
from cvj_ml.errors import DataError
from cvj_ml.histories import Block, Text, Touchpoints
from cvj_ml.windows import NEVER, Instants

_I32 = npt.NDArray[np.int32]
_I64 = npt.NDArray[np.int64]

_Number = TypeVar("_Number", bound=np.generic)

Batches = Iterator[pa.RecordBatch]

ROWS = 1 << 18
"""About as many touchpoints are in a block: small enough for the cache."""


def blocks(read: Callable[[list[str]], Batches], outbound: frozenset[str] = frozenset()) -> Iterator[Block]:
    """Return all customers, sorted by id, as blocks of whole customers.

    ``read`` returns the named columns of all rows, always in the same order: customer_id (text or integers),
    occurred_at, known_at (timestamps in UTC, which is also the zone of days), event, channel (text), value (minor
    units). Raises DataError for rows without customer, instant or event.
    """
    owners = pa.chunked_array(batch.column(0) for batch in read(["customer_id"])).dictionary_encode()
    if owners.null_count:
        raise DataError(f"customer_id: {owners.null_count} row(s) have none; leave them out.")
    ids = owners.chunk(0).dictionary.cast(pa.string()) if owners.num_chunks else pa.array([], pa.string())
    numbers = [_numbers(chunk.indices, np.int32) for chunk in owners.chunks]
    lengths = sum((np.bincount(owner, minlength=len(ids)) for owner in numbers), np.zeros(len(ids), dtype=np.int64))
    sorted_ids = pc.sort_indices(ids)
    order, ids = _numbers(sorted_ids, np.uint64), ids.take(sorted_ids)
    offsets = np.concatenate(([0], np.cumsum(lengths[order])))
    place = np.empty(len(ids), dtype=np.int64)
    place[order] = offsets[:-1]

    # Arrow's pool gives back the pages that the ids have just left; fresh ones would have to be cleared first.
    records = np.frombuffer(pa.allocate_buffer(32 * int(offsets[-1])), dtype=np.int64).reshape(-1, 4)
    events, channels = _Names(), _Names()
    batches = read(["occurred_at", "known_at", "event", "channel", "value"])
    for owner, batch in zip(numbers, batches, strict=True):
        occurred_at, known_at, event, channel, value = batch.columns
        _put(
            owner,
            place,
            _instants(occurred_at, "occurred_at"),
            _instants(known_at, "known_at"),
            events.codes(event, "event"),
            channels.codes(channel),
            _numbers(pc.fill_null(value, 0), np.int64),
            _numbers(value.is_valid().cast(pa.uint8()), np.uint8).view(np.bool_),
            records,
        )
    del owners, numbers
    ends = np.unique(np.searchsorted(offsets, np.arange(ROWS, offsets[-1] + ROWS, ROWS), side="left").clip(1, len(ids)))
    for first, last in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        yield _block(ids[first:last], offsets[first : last + 1], records, events, channels, outbound)


def _block(
    ids: pa.Array,
    offsets: _I64,
    records: _I64,
    events: _Names,
    channels: _Names,
    outbound: frozenset[str],
) -> Block:
    """Sort the records of some customers and unpack them."""
    own, rows = records[offsets[0] : offsets[-1]], int(offsets[-1] - offsets[0])
    offsets = offsets - offsets[0]
    occurred_at, visible_at, value = (np.empty(rows, dtype=np.int64) for _ in range(3))
    event, channel, has_value = np.empty(rows, np.int32), np.empty(rows, np.int32), np.empty(rows, np.bool_)
    _sort(offsets, own, events.rank(), channels.rank())
    _unpack(own, occurred_at, visible_at, event, channel, value, has_value)
    text = Text(event, events.in_order())
    return Block(
        tuple(ids.to_pylist()),
        Touchpoints(
            offsets=offsets,
            occurred_at=occurred_at,
            visible_at=visible_at,
            superseded_at=np.full(rows, NEVER, dtype=np.int64),
            day=(occurred_at // DAY).astype(np.int32),
            event=text,
            channel=Text(channel, channels.in_order()),
            value=value,
            has_value=has_value,
            inbound=~text.isin(outbound) if outbound else np.ones(rows, dtype=np.bool_),
            properties={},
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
    """Return an array without nulls as it lies in memory; ``to_numpy`` would import pandas first."""
    return np.frombuffer(array.buffers()[1], dtype=kind)[array.offset : array.offset + len(array)]


@compiled
def _put(
    owner: _I32,
    place: _I64,
    occurred_at: Instants,
    known_at: Instants,
    event: _I32,
    channel: _I32,
    value: _I64,
    has_value: npt.NDArray[np.bool_],
    records: _I64,
) -> None:
    """Pack rows into (occurred, visible, value, names) at their customers' next places."""
    for row in range(len(owner)):
        record = records[place[owner[row]]]
        place[owner[row]] += 1
        record[0] = occurred_at[row]
        record[1] = max(occurred_at[row], known_at[row])
        record[2] = value[row]
        record[3] = _names(event[row], channel[row], has_value[row])


@compiled
def _names(event: int, channel: int, has_value: bool) -> np.int64:
    """Pack event, channel and whether there is a value such that packed numbers are in the order of their parts."""
    return np.int64(event + 1) << 32 | np.int64(channel + 1) << 1 | np.int64(has_value)


@compiled
def _event(names: int) -> int:
    return (names >> 32) - 1


@compiled
def _channel(names: int) -> int:
    return ((names >> 1) & 0x7FFFFFFF) - 1


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
        if stop - start > 64:
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
