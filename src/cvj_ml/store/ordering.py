"""The rows of a bucket in their total order, and which version of a touchpoint replaces which.

Added rows join a bucket that is in order already: only their customers are sorted anew, only their touchpoint_ids are
linked anew. A bucket that is built from nothing is the case in which all rows are added, so both ways to a store are
one, and give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.windows import NEVER, Instants

_I64 = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OrderedRows:
    """Rows in order with the instant at which each was replaced (NEVER for most); ``repeated`` equal the next row."""

    table: pa.Table
    superseded_at: Instants
    repeated: _Flags

    def without_repeats(self) -> OrderedRows:
        """Return the rows without exact repeats: of a run the last stays, which the next real version replaces."""
        kept = ~self.repeated
        table = self.table.filter(pa.array(kept))
        return OrderedRows(table, self.superseded_at[kept], np.zeros(len(table), dtype=np.bool_))


def order_rows(
    columns: Sequence[str],
    base: pa.Table,
    superseded_at: Instants,
    added: pa.Table,
    foreign: pa.Table,
    joined: tuple[pa.Table, Instants] | None = None,
) -> OrderedRows:
    """Put rows into the order of ``columns`` (nulls first, text by code points) and link the versions.

    ``base`` is in order and linked among itself, ``superseded_at`` says how. ``foreign`` are rows of other buckets
    whose touchpoint_id occurs here too; they are linked with, and left out of the result. ``joined`` are rows of
    customers of whom there are no others, linked already, with the instants at which they were replaced.
    """
    rows, replaced = joined or (added.slice(0, 0), np.empty(0, dtype=np.int64))
    held, own, linked = len(base), len(base) + len(added), len(base) + len(added) + len(foreign)
    parts = [base, added, foreign, rows]
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries().combine_chunks()
    superseded = np.concatenate((superseded_at, np.full(linked - held, NEVER), replaced))
    order = _order(table, columns, held, superseded)
    if (ids := table["touchpoint_id"]).slice(0, linked).null_count < linked:
        _link(table, ids.slice(0, linked), order, held, superseded)
    order = order[(order < own) | (order >= linked)] if linked > own else order
    table = table.take(pa.array(order))
    repeated = _repeated(table, columns)
    repeated[order >= linked] = False
    return OrderedRows(table, superseded[order], repeated)


def _order(table: pa.Table, columns: Sequence[str], held: int, superseded: Instants) -> _I64:
    """Return the permutation that sorts the rows; customers without an added row keep the order they have."""
    customer = _ranks(table[columns[0]])
    touched = np.zeros(int(customer.max(initial=-1)) + 1, dtype=np.bool_)
    touched[customer[held:]] = True
    order = _stable(customer)
    group = customer[order]
    tied = np.flatnonzero(touched[group])
    group = group[tied]
    # Column by column, and each time only where all columns before are equal.
    keys = (key for name in columns[1:] for key in _keys(table[name]))
    for key in _and_last(keys, superseded):
        if not len(tied):
            break
        rows = order[tied]
        own = key(rows)
        within = np.argsort(own)
        within = within[_stable(group[within])]
        order[tied], own = rows[within], own[within]
        new = np.append(True, (group[1:] != group[:-1]) | (own[1:] != own[:-1]))
        group = np.cumsum(new) - 1
        several = ~(new & np.append(new[1:], True))
        tied, group = tied[several], group[several]
        group = np.cumsum(np.append(True, group[1:] != group[:-1])[: len(group)]) - 1
    return order


class _Key:
    """A column as numbers in the order of its values, of some rows only."""

    def __init__(self, column: pa.ChunkedArray, valid: bool) -> None:
        self._column = column
        self._valid = valid

    def __call__(self, rows: _I64) -> npt.NDArray[Any]:
        """Return the numbers of these rows."""
        taken = self._column.take(pa.array(rows))
        if self._valid:
            return np.asarray(taken.is_valid().to_numpy(), dtype=np.int64)
        if pa.types.is_string(taken.type) or pa.types.is_dictionary(taken.type):
            return _ranks(taken)
        numbers: npt.NDArray[Any] = pc.fill_null(taken, 0).to_numpy()
        return numbers


def _keys(column: pa.ChunkedArray) -> Iterator[_Key]:
    if column.null_count and not (pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)):
        yield _Key(column, valid=True)
    if column.null_count < len(column):
        yield _Key(column, valid=False)


def _and_last(keys: Iterator[_Key], superseded: Instants) -> Iterator[Any]:
    yield from keys
    # Exact repeats that nothing new concerns: all but the last are replaced at once.
    yield lambda rows: superseded[rows]


def _ranks(column: pa.ChunkedArray) -> _I64:
    """Return the position of each text among the distinct ones in order; -1 for null."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], column.type)
    encoded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    rank = np.full(len(encoded.dictionary) + 1, -1, dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(encoded.dictionary))
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), len(encoded.dictionary)).to_numpy()
    ranks: _I64 = rank[codes]
    return ranks


def _stable(numbers: _I64) -> _I64:
    """Return the stable order of small whole numbers: numpy counts 16 bits at a time, and does not compare."""
    order: _I64 = np.argsort((numbers & 0xFFFF).astype(np.uint16), kind="stable")
    high = numbers >> 16
    return order[np.argsort(high[order].astype(np.uint16), kind="stable")] if high.any() else order


def _link(table: pa.Table, column: pa.ChunkedArray, order: _I64, held: int, superseded: Instants) -> None:
    """Write when each row is replaced by the next version, for every touchpoint_id (column) of an added row."""
    ids = column.combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    there = ids.is_valid()
    if held:
        there = pc.and_(there, pc.is_in(ids, value_set=ids.slice(held).drop_null().unique()))
    rows = np.flatnonzero(there.to_numpy(zero_copy_only=False))
    code = _codes(ids.take(pa.array(rows)))
    several = np.bincount(code)[code] > 1
    rows, code = rows[several], code[several]
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    source = _ranks(table["source"])[rows]
    visible = table["visible_at"].to_numpy()[rows]
    sorted_ = np.lexsort((position[rows], visible, source, code))
    rows, code, source, visible = rows[sorted_], code[sorted_], source[sorted_], visible[sorted_]
    same = (code[1:] == code[:-1]) & (source[1:] == source[:-1])
    version = np.cumsum(np.append(True, ~same)[: len(rows)]) - 1
    concerned = np.zeros(len(rows), dtype=np.bool_)
    concerned[version[rows >= held]] = True
    replaced = np.append(np.where(same, visible[1:], NEVER), NEVER)[: len(rows)]
    changed = concerned[version]
    superseded[rows[changed]] = replaced[changed]


def _codes(column: pa.Array) -> _I64:
    codes: _I64 = column.dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _repeated(table: pa.Table, columns: Sequence[str]) -> _Flags:
    """Return which rows equal the next one in every column; two nulls are equal."""
    repeated = np.zeros(len(table), dtype=np.bool_)
    if len(table) < 2:
        return repeated
    instants = table["occurred_at"].to_numpy()
    rows = np.flatnonzero(instants[1:] == instants[:-1])
    for name in columns:
        if not len(rows):
            break
        this, following = (table[name].take(pa.array(at)).combine_chunks() for at in (rows, rows + 1))
        both_null = pc.and_(this.is_null(), following.is_null())
        equal = pc.or_(pc.fill_null(pc.equal(this, following), False), both_null)
        rows = rows[equal.to_numpy(zero_copy_only=False)]
    repeated[rows] = True
    return repeated
