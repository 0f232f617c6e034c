"""Columns that equal something of the whole log, though they claim to have been known when half of it had happened.

A file that was exported today with ``known_at`` set back looks honest row by row: no truncation shows that its
``lifetime_orders`` counts orders to come. But then the column *is* that count, customer for customer. So every
number of an attribute or a touchpoint is compared with simple sums over the customer's whole log, among those rows
whose sum had still been another one when the number is said to have been known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.histories import Block, Text, TouchpointColumns
from cvj_ml.windows import Instants

SHARE = 0.95
"""So much of the rows must equal the sum; chance agreement of a column that changes is far below."""

CUSTOMERS = 30
"""So many customers must agree whose sum changed afterwards, and as many outside the most frequent value."""

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """A column equal to ``equals`` over the whole log for ``customers`` of ``of`` customers for whom that changed."""

    column: str
    equals: str
    customers: int
    of: int


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers by customer: who, from when known, and the number."""

    customer: _I64
    known_at: Instants
    number: _F64


def backfilled_columns(blocks: Iterable[Block], minor_units: int) -> list[Backfilled]:
    """Return the columns of these blocks that equal a sum over the whole log, for each the sum that fits best.

    Of every customer the first number is taken: what was known then differs most from the whole.
    """
    collected: dict[tuple[str, str], list[_F64]] = {}
    for block in blocks:
        owner = block.touchpoints.owners()
        sums = dict(_sums(block.touchpoints, owner, minor_units))
        for column, numbers in _columns(block, owner, minor_units):
            order, place = _places(block.touchpoints, owner, numbers)
            for name, terms in sums.items():
                running = np.concatenate([[0.0], np.cumsum(terms[order])])
                start = block.touchpoints.offsets[:-1][numbers.customer]
                whole = np.bincount(owner, weights=terms, minlength=len(block))[numbers.customer]
                rows = np.column_stack([numbers.number, running[place] - running[start], whole])
                collected.setdefault((column, name), []).append(rows)
    best: dict[str, Backfilled] = {}
    for (column, name), parts in collected.items():
        found = _judge(column, name, np.concatenate(parts))
        if found and (column not in best or found.of > best[column].of):
            best[column] = found
    return [best[column] for column in sorted(best)]


def _sums(points: TouchpointColumns, owner: _I64, minor_units: int) -> Iterator[tuple[str, _F64]]:
    """Yield what each touchpoint adds to a sum of its customer."""
    yield "number of touchpoints", np.ones(len(points))
    yield "sum of values", np.where(points.has_value, points.value, 0) / minor_units
    first_of_day = np.ones(len(points), dtype=np.bool_)
    first_of_day[1:] = (np.diff(points.day) != 0) | (np.diff(owner) != 0)
    yield "number of days", first_of_day.astype(np.float64)
    for code, event in enumerate(points.event.values):
        yield f"number of {event}", (points.event.codes == code).astype(np.float64)


def _columns(block: Block, owner: _I64, minor_units: int) -> Iterator[tuple[str, _Numbers]]:
    points, table = block.touchpoints, block.attributes
    value = np.where(points.has_value, points.value / minor_units, np.nan)
    yield "value", _first(owner, points.visible_at, value)
    for name, column in points.properties.items():
        if not isinstance(column, Text):
            yield f"property {name}", _first(owner, points.visible_at, column)
    if table is not None:
        holder = np.repeat(np.arange(len(block)), np.diff(table.offsets))
        for name, column in table.columns.items():
            if not isinstance(column, Text):
                yield f"attribute {name}", _first(holder, table.known_at, column)


def _first(customer: _I64, known_at: Instants, number: _F64) -> _Numbers:
    there = ~np.isnan(number)
    customer, known_at, number = customer[there], known_at[there], number[there]
    order = np.lexsort((number, known_at, customer))
    _, first = np.unique(customer[order], return_index=True)
    rows = order[first]
    return _Numbers(customer[rows], known_at[rows], number[rows])


def _places(points: TouchpointColumns, owner: _I64, numbers: _Numbers) -> tuple[_I64, _I64]:
    """Return the order in which touchpoints became visible, and where in it each number's own instant ends.

    Up to and with the instant: a count that includes its own touchpoint is honest.
    """
    moments, rank = np.unique(points.visible_at, return_inverse=True)
    key = owner * (len(moments) + 1) + rank
    order = np.argsort(key, kind="stable")
    limit = numbers.customer * (len(moments) + 1) + np.searchsorted(moments, numbers.known_at, side="right")
    return order, np.searchsorted(key[order], limit)


def _judge(column: str, name: str, rows: _F64) -> Backfilled | None:
    number, then, whole = rows.T
    equal = np.isclose(number, whole, rtol=1e-6, atol=1e-6)
    changed = ~np.isclose(then, whole, rtol=1e-6, atol=1e-6)
    if not changed.any() or equal.mean() < SHARE or equal[changed].mean() < SHARE:
        return None
    # A constant column equals a sum that is nearly always the same: what counts is agreement where it is another.
    _, place, frequency = np.unique(number, return_inverse=True, return_counts=True)
    rare = place != int(frequency.argmax())
    agreed = int((changed & equal).sum())
    if agreed < CUSTOMERS or int((rare & equal).sum()) < CUSTOMERS:
        return None
    return Backfilled(column, name, agreed, int(changed.sum()))
