"""What rules look at: touchpoints and, where a rule asks for attributes, the moments at which those became known.

A condition on attributes is a state, not an event: it holds at a moment if the newest version known by then passes. So
a rule that joins such conditions is taken apart into alternatives, each of rules that stay true once they are, and of
conditions that have to hold together at one moment, then or later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import Rule
from cvj_ml.histories import ALWAYS, Attributes, Block, Column, Text, TouchpointColumns
from cvj_ml.journey.leaves import column_passes
from cvj_ml.journey.observability import Journey
from cvj_ml.windows import NEVER, Instants, is_live, rows_before, rows_until

_AS_KNOWN = "attribute: "
_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


def evidence(journey: Journey, block: Block) -> TouchpointColumns:
    """Return the rows that the journey's rules see: the touchpoints themselves, unless a rule asks for attributes.

    Then a version of attributes known from some instant on is a row of its own there, without an event and nobody's
    doing, and every row has the attributes as known at its instant among its properties.
    """
    names = {name for leaf in journey.spec.leaves() for name in leaf.attribute or ()}
    points, table = block.touchpoints, block.attributes
    if not names or table is None or not len(table.known_at):
        return points
    owner = np.repeat(np.arange(len(block)), np.diff(table.offsets))
    added = np.flatnonzero(table.known_at != ALWAYS)
    owners = np.concatenate([owner[added], points.owners()])
    instants = np.concatenate([table.known_at[added], points.occurred_at])
    # A stable sort leaves the versions of one instant in their order, and touchpoints in theirs.
    order = np.lexsort((instants, owners))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(block)))]).astype(np.int64)
    none, never = np.zeros(len(added), dtype=np.bool_), np.full(len(added), NEVER)

    def text(column: Text) -> Text:
        return Text(np.concatenate([np.full(len(added), -1, dtype=np.int32), column.codes])[order], column.values)

    def number(column: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.concatenate([np.full(len(added), np.nan), column])[order]

    occurred = instants[order]
    version = _newest(table.offsets, table.known_at, offsets, occurred)
    properties: dict[str, Column] = {
        name: text(column) if isinstance(column, Text) else number(column) for name, column in points.properties.items()
    }
    properties |= {_AS_KNOWN + name: _at(table, name, version) for name in sorted(names)}
    return TouchpointColumns(
        offsets=offsets,
        occurred_at=occurred,
        visible_at=np.concatenate([table.known_at[added], points.visible_at])[order],
        superseded_at=np.concatenate([never, points.superseded_at])[order],
        day=np.concatenate([table.day[added], points.day])[order],
        date_only=np.concatenate([none, points.date_only])[order],
        event=text(points.event),
        channel=text(points.channel),
        value=np.concatenate([none.astype(np.int64), points.value])[order],
        has_value=np.concatenate([none, points.has_value])[order],
        inbound=np.concatenate([none, points.inbound])[order],
        properties=properties,
        merged_at=points.merged_at,
    )


def _at(table: Attributes, name: str, version: _Rows) -> Column:
    column = table.columns.get(name)
    there = version >= 0
    if isinstance(column, Text):
        return Text(np.where(there, column.codes[version], -1).astype(np.int32), column.values)
    return np.where(there, column[version], np.nan) if column is not None else np.full(len(version), np.nan)


@compiled
def _newest(table_offsets: _Rows, known_at: Instants, offsets: _Rows, occurred_at: Instants) -> _Rows:
    """Return the row of the newest attributes known at each row's instant, that instant included; -1 for none."""
    found = np.full(len(occurred_at), -1, dtype=np.int64)
    for c in range(len(offsets) - 1):
        first, last = table_offsets[c], table_offsets[c + 1]
        for row in range(offsets[c], offsets[c + 1]):
            until = rows_until(known_at, first, last, occurred_at[row])
            if until > first:
                found[row] = until - 1
    return found


def state_mask(points: TouchpointColumns, rule: Rule) -> _Mask:
    """Return at which rows of `evidence` a condition on attributes holds; what is missing passes no test."""
    mask = np.ones(len(points), dtype=np.bool_)
    for name, tests in (rule.attribute or {}).items():
        column = points.properties.get(_AS_KNOWN + name)
        for operator, operand in tests.items():
            mask &= False if column is None else column_passes(column, name, operator, operand)
    return mask


@dataclass(frozen=True, slots=True)
class Alternative:
    """Rules that stay true once they are, conditions that have to hold at one moment, and stages that come before.

    Each of the ``rules`` stands with the stages that it comes after beyond its own.
    """

    rules: tuple[tuple[Rule, frozenset[str]], ...]
    states: tuple[Rule, ...]
    after: frozenset[str]


def alternatives(rule: Rule) -> list[Alternative]:
    """Take a rule apart at its conditions on attributes: it holds as soon as one of the alternatives does."""
    return list(_apart(rule, frozenset()))


def _apart(rule: Rule, after: frozenset[str]) -> Iterator[Alternative]:
    if not asks_for_attributes(rule):
        yield Alternative(((rule, after),), (), frozenset())
        return
    after = after | ({rule.after} if rule.after else set())
    if rule.attribute is not None:
        yield Alternative((), (rule,), after)
    for child in rule.any or ():
        yield from _apart(child, after)
    if rule.all:
        for parts in product(*([*_apart(child, after)] for child in rule.all)):
            yield Alternative(
                tuple(one for part in parts for one in part.rules),
                tuple(one for part in parts for one in part.states),
                frozenset().union(*(part.after for part in parts)),
            )


def asks_for_attributes(rule: Rule) -> bool:
    """Return whether a rule has a condition on attributes anywhere."""
    return any(leaf.attribute is not None for leaf in rule.leaves())


@compiled
def first_holding(
    mask: _Mask,
    visible_at: Instants,
    superseded_at: Instants,
    starts: _Rows,
    stops: _Rows,
    limits: Instants,
    since: _Rows,
) -> _Rows:
    """Return the first live row of each question, ``since`` or one after it, at which the states hold; else NEVER.

    All rows of a moment know the same attributes, so ``since`` answers for its own.
    """
    found = np.full(len(starts), NEVER, dtype=np.int64)
    for q in range(len(starts)):
        if since[q] == NEVER:
            continue
        for row in range(max(since[q], starts[q]), stops[q]):
            if mask[row] and is_live(visible_at[row], superseded_at[row], limits[q]):
                found[q] = row
                break
    return found


@compiled
def first_rows_after(occurred_at: Instants, starts: _Rows, stops: _Rows, instants: Instants) -> _Rows:
    """Return the first row of each question that lies after an instant, else the end of its rows."""
    found = np.empty(len(starts), dtype=np.int64)
    for q in range(len(starts)):
        found[q] = rows_until(occurred_at, starts[q], stops[q], instants[q])
    return found


@compiled
def holds_now(mask: _Mask, offsets: _Rows, occurred_at: Instants, customer: _Rows, as_of: Instants) -> _Mask:
    """Return whether the states hold at the last row of each snapshot's customer: what came after it changed none."""
    held = np.zeros(len(customer), dtype=np.bool_)
    for i in range(len(customer)):
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        row = rows_before(occurred_at, start, stop, as_of[i]) - 1
        held[i] = row >= start and mask[row]
    return held
