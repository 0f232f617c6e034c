"""Simulated customers kept in a bundle, as tables: scoring them anew shows any change of the kernel or the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, STAGE_CHANGE
from cvj_ml.features import TEXTS
from cvj_ml.histories import Attributes, Block, Column, Text, TouchpointColumns, own_doing
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.schemas import CONTACT
from cvj_ml.simulate import random_block
from cvj_ml.windows import NEVER

CUSTOMERS = 200

_APART = 50

_WORDS = ("one", "two", "three")
"""Texts of properties that no rule tests: those of the data may be a customer's own."""


def canary_block(definition: ModelSpec, as_of: int, seed: int) -> Block:
    """Return random customers over the model's own vocabulary and the properties that its rules test."""
    vocabulary = definition.catalogue.vocabulary
    properties: dict[str, Sequence[str] | None] = {}
    events = set(vocabulary.events)
    for leaf in definition.journey.spec.leaves():
        events.update(leaf.event or ())
        for name, tests in leaf.where.items():
            operands = [item for test in tests.values() for item in (test if isinstance(test, list) else [test])]
            if name not in ("value", "channel"):
                properties[name] = [str(item) for item in operands] if isinstance(operands[0], str) else None
    for one in definition.catalogue.custom:
        for name in one.spec.properties:
            text = vocabulary.columns.get(name) == TEXTS
            properties.setdefault(name, _WORDS if text else None)
    if vocabulary.people:
        properties[CONTACT] = [f"person {number}" for number in range(1, 10)]
    block = random_block(
        customers=CUSTOMERS,
        seed=seed,
        events=sorted(events - {"*"}) or ["touchpoint"],
        channels=vocabulary.channels or ("none",),
        properties=properties,
        attributes={**dict.fromkeys(vocabulary.numbers), **vocabulary.categories, **dict.fromkeys(vocabulary.dates)},
        outbound=[*definition.outbound, *(name for name in events if name.startswith(STAGE_CHANGE))],
        until=as_of,
    )
    if block.attributes is None or not vocabulary.dates:
        return block
    # Dates lie on both sides of the day on which they became known, some far from it.
    columns = dict(block.attributes.columns)
    for name in vocabulary.dates:
        number = columns[name]
        if not isinstance(number, Text):
            columns[name] = block.attributes.day + _APART * (number - 3)
    return replace(block, attributes=replace(block.attributes, columns=columns, dates=frozenset(vocabulary.dates)))


def block_to_tables(block: Block) -> tuple[pa.Table, pa.Table]:
    """Return touchpoints and attributes; rows name their customer, instants are int64 microseconds."""
    points = block.touchpoints
    touchpoints = {
        "customer_id": _owners(block.customers, points.offsets),
        "occurred_at": points.occurred_at,
        "visible_at": points.visible_at,
        "superseded_at": points.superseded_at,
        "day": points.day,
        "date_only": points.date_only,
        "event": _texts(points.event),
        "channel": _texts(points.channel),
        "value": pa.array(points.value, mask=~points.has_value),
        **{f"property_{name}": _plain(column) for name, column in points.properties.items()},
    }
    table = block.attributes
    attributes = {} if table is None else {
        "customer_id": _owners(block.customers, table.offsets),
        "known_at": table.known_at,
        **{f"attribute_{name}": _plain(column) for name, column in table.columns.items()},
    }  # fmt: skip
    return pa.table(touchpoints), pa.table(attributes)


def block_from_tables(
    touchpoints: pa.Table, attributes: pa.Table, outbound: frozenset[str], dates: frozenset[str]
) -> Block:
    """Return the block of ``block_to_tables``."""
    customers, offsets = _runs(touchpoints["customer_id"].to_pylist())
    event = _codes(touchpoints["event"])
    points = TouchpointColumns(
        offsets,
        touchpoints["occurred_at"].to_numpy(),
        touchpoints["visible_at"].to_numpy(),
        touchpoints["superseded_at"].to_numpy(),
        touchpoints["day"].to_numpy(),
        touchpoints["date_only"].to_numpy(),
        event,
        _codes(touchpoints["channel"]),
        pc.fill_null(touchpoints["value"], 0).to_numpy(),
        pc.is_valid(touchpoints["value"]).to_numpy(),
        own_doing(event, outbound),
        _columns(touchpoints, "property_"),
        # Simulated customers have one id each.
        np.full(len(customers), NEVER, dtype=np.int64),
    )
    if not attributes.num_columns:
        return Block(customers, points)
    owners, ends = _runs(attributes["customer_id"].to_pylist())
    lengths = dict(zip(owners, np.diff(ends), strict=True))
    starts = np.concatenate(([0], np.cumsum([lengths.get(name, 0) for name in customers]))).astype(np.int64)
    known_at = attributes["known_at"].to_numpy()
    day = (known_at // DAY).astype(np.int32)  # as the days of the simulated touchpoints, of UTC
    return Block(customers, points, Attributes(starts, known_at, day, _columns(attributes, "attribute_"), dates))


def _owners(customers: Sequence[str], offsets: npt.NDArray[np.int64]) -> list[str]:
    return [name for name, size in zip(customers, np.diff(offsets), strict=True) for _ in range(size)]


def _runs(names: Sequence[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    customers = tuple(dict.fromkeys(names))
    position = {name: i for i, name in enumerate(customers)}
    counts = np.bincount([position[name] for name in names], minlength=len(customers))
    return customers, np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _texts(text: Text) -> pa.Array:
    return pa.array([None if code < 0 else text.values[code] for code in text.codes], type=pa.string())


def _plain(column: Column) -> pa.Array | npt.NDArray[np.float64]:
    return _texts(column) if isinstance(column, Text) else column


def _codes(column: pa.ChunkedArray) -> Text:
    values = tuple(sorted(set(column.drop_null().to_pylist())))
    codes = {value: i for i, value in enumerate(values)}
    return Text(np.array([codes.get(item, -1) for item in column.to_pylist()], dtype=np.int32), values)


def _columns(table: pa.Table, prefix: str) -> dict[str, Column]:
    return {
        name.removeprefix(prefix): _codes(table[name]) if table[name].type == pa.string() else table[name].to_numpy()
        for name in table.column_names
        if name.startswith(prefix)
    }
