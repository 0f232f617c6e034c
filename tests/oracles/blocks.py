"""Plain rows to the package's Block and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from tests.oracles.histories import Customer, Scalar, Touch, Version

from cvj_ml.config import DAY
from cvj_ml.histories import Attributes, Block, Column, Text, TouchpointColumns
from cvj_ml.windows import NEVER

TEXTS = ("plan",)
"""Properties and attributes that are text; the others are numbers."""

NUMBERS = ("rating",)


def to_block(customers: Sequence[Customer], spell: Callable[[list[str]], list[str]] = sorted) -> Block:
    """Build a block; ``spell`` decides in which order names get their codes, which must not matter."""
    touches = [touch for customer in customers for touch in customer.touches]
    versions = [version for customer in customers for version in customer.versions]
    return Block(
        tuple(customer.name for customer in customers),
        TouchpointColumns(
            offsets=_offsets(customer.touches for customer in customers),
            occurred_at=_integers(touch.occurred for touch in touches),
            visible_at=_integers(touch.visible for touch in touches),
            superseded_at=_integers(NEVER if touch.superseded is None else touch.superseded for touch in touches),
            day=np.array([touch.day for touch in touches], dtype=np.int32),
            date_only=np.array([touch.date_only for touch in touches], dtype=np.bool_),
            event=_text([touch.event for touch in touches], spell),
            channel=_text([touch.channel for touch in touches], spell),
            value=_integers(touch.value or 0 for touch in touches),
            has_value=np.array([touch.value is not None for touch in touches], dtype=np.bool_),
            inbound=np.array([touch.inbound for touch in touches], dtype=np.bool_),
            properties={name: _column(name, [one.properties.get(name) for one in touches], spell) for name in _NAMES},
            merged_at=np.full(len(customers), NEVER, dtype=np.int64),
        ),
        Attributes(
            _offsets(customer.versions for customer in customers),
            _integers(version.known for version in versions),
            np.array([max(version.known, 0) // DAY for version in versions], dtype=np.int32),
            {name: _column(name, [one.values.get(name) for one in versions], spell) for name in _NAMES},
        ),
    )


_NAMES = (*TEXTS, *NUMBERS)


def to_customers(block: Block) -> list[Customer]:
    """Read a block back as plain rows."""
    points, table = block.touchpoints, block.attributes
    event, channel = _scalars(points.event), _scalars(points.channel)
    properties = {name: _scalars(column) for name, column in points.properties.items()}
    columns = {name: _scalars(column) for name, column in table.columns.items()} if table else {}
    customers = []
    for i, name in enumerate(block.customers):
        touches = [
            Touch(
                occurred=int(points.occurred_at[row]),
                visible=int(points.visible_at[row]),
                superseded=None if points.superseded_at[row] == NEVER else int(points.superseded_at[row]),
                day=int(points.day[row]),
                date_only=bool(points.date_only[row]),
                event=str(event[row]),
                channel=None if channel[row] is None else str(channel[row]),
                value=int(points.value[row]) if points.has_value[row] else None,
                inbound=bool(points.inbound[row]),
                properties={key: values[row] for key, values in properties.items()},
            )
            for row in range(points.offsets[i], points.offsets[i + 1])
        ]
        held = range(table.offsets[i], table.offsets[i + 1]) if table else ()
        versions = [
            Version(int(table.known_at[row]), {key: values[row] for key, values in columns.items()})
            for row in held
            if table
        ]
        customers.append(Customer(name, tuple(touches), tuple(versions)))
    return customers


def in_order(touches: Iterable[Touch]) -> tuple[Touch, ...]:
    """The total order of occurrence: equal instants by content as text, nothing before something."""
    return tuple(
        sorted(
            touches,
            key=lambda one: (
                one.occurred,
                one.event,
                one.channel or "",
                "" if one.value is None else str(one.value),
                one.visible,
                sorted((name, str(value)) for name, value in one.properties.items()),
                math.inf if one.superseded is None else one.superseded,
            ),
        )
    )


def _column(name: str, values: Sequence[Scalar], spell: Callable[[list[str]], list[str]]) -> Column:
    if name in TEXTS:
        return _text([None if value is None else str(value) for value in values], spell)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _text(values: Sequence[str | None], spell: Callable[[list[str]], list[str]]) -> Text:
    names = spell(sorted({value for value in values if value is not None}))
    codes = {name: i for i, name in enumerate(names)}
    return Text(np.array([-1 if value is None else codes[value] for value in values], dtype=np.int32), tuple(names))


def _scalars(column: Column) -> list[Scalar]:
    if isinstance(column, Text):
        return [column.values[code] if code >= 0 else None for code in column.codes]
    return [None if math.isnan(value) else float(value) for value in column]


def _integers(values: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(list(values), dtype=np.int64)


def _offsets(tables: Iterable[Sequence[object]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.concatenate([[0], np.cumsum([len(table) for table in tables])]).astype(np.int64)
