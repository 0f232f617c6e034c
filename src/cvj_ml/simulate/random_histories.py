"""Random plausible histories over any vocabulary: the canary of a model bundle, and material for tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cvj_ml.config import DAY, SECOND
from cvj_ml.errors import ConfigError
from cvj_ml.histories import Attributes, Block, Column, Text, TouchpointColumns
from cvj_ml.windows import NEVER, Instants

Vocabulary = Mapping[str, Sequence[str] | None]

_NULL_SHARE = 0.05
_VALUE_SHARE = 0.4
_NEGATIVE_SHARE = 0.05
_EQUAL_INSTANT_SHARE = 0.08
_WHOLE_DAY_SHARE = 0.05
_LATE_SHARE = 0.06
_VERSION_SHARE = 0.05


def random_block(
    *,
    customers: int,
    seed: int,
    events: Sequence[str],
    channels: Sequence[str],
    properties: Vocabulary,
    attributes: Vocabulary,
    outbound: Collection[str],
    until: int,
    days: int = 400,
    value_scale: int = 5000,
) -> Block:
    """Return random histories in ``[until - days, until)`` over a given vocabulary, each customer with a touchpoint.

    properties, attributes: name to its texts, or None for a number in 1 to 5; value_scale: a usual value in minor
    units. Days are UTC days. Among the rows are late ones (some visible only after ``until``), superseded versions,
    nulls, negative values, equal instants and instants a whole number of days before ``until``.
    Raises ConfigError when customers, days, events or channels are empty.
    """
    if min(customers, days, len(events), len(channels)) < 1:
        raise ConfigError(
            "random_block needs at least one customer, day, event and channel;"
            f" found {customers}, {days}, {len(events)} and {len(channels)}."
        )
    rng = np.random.default_rng(seed)
    width = max(4, len(str(customers)))
    return Block(
        customers=tuple(f"canary-{number:0{width}d}" for number in range(1, customers + 1)),
        touchpoints=_touchpoints(
            customers, tuple(events), tuple(channels), properties, frozenset(outbound), until, days, value_scale, rng
        ),
        attributes=_attributes(customers, attributes, until, days, rng) if attributes else None,
    )


def _touchpoints(
    customers: int,
    events: tuple[str, ...],
    channels: tuple[str, ...],
    properties: Vocabulary,
    outbound: frozenset[str],
    until: int,
    days: int,
    value_scale: int,
    rng: np.random.Generator,
) -> TouchpointColumns:
    # Few rows for most customers, many for some; everyone's activity ends at an instant of their own.
    sizes = 1 + np.floor(rng.lognormal(2.3, 1.0, customers)).astype(np.int64)
    customer = np.repeat(np.arange(customers), sizes)
    rows = len(customer)
    last = rng.random(customers) ** 3 * days * 0.9
    age = last[customer] + rng.random(rows) * (days - last[customer])
    occurred = until - (age * DAY / SECOND).astype(np.int64).clip(1, days * DAY // SECOND) * SECOND
    whole = rng.random(rows) < _WHOLE_DAY_SHARE
    occurred[whole] = until - np.clip((until - occurred[whole]) // DAY, 1, days) * DAY
    twin = np.flatnonzero((rng.random(rows) < _EQUAL_INSTANT_SHARE)[1:] & (customer[1:] == customer[:-1])) + 1
    occurred[twin] = occurred[twin - 1]
    # Often the same few events and channels, as in a real log.
    event = np.minimum(rng.geometric(min(0.9, 2.5 / (len(events) + 1)), rows) - 1, len(events) - 1)
    event = np.where(rng.random(rows) < 0.3, rng.integers(0, len(events), rows), event)
    channel = np.where(rng.random(rows) < _NULL_SHARE, -1, rng.integers(0, len(channels), rows))
    has_value = rng.random(rows) < _VALUE_SHARE
    sign = np.where(rng.random(rows) < _NEGATIVE_SHARE, -1, 1)
    amount = np.rint(value_scale * rng.lognormal(0, 0.8, rows)).astype(np.int64) * sign
    value = np.where(has_value, amount, 0)
    late = rng.random(rows) < _LATE_SHARE
    visible = occurred + np.where(late, rng.integers(60, 5 * 86_400, rows), 0) * SECOND

    # Every tenth customer has a row that becomes visible exactly at ``until``, which is not before it.
    edge = (np.cumsum(sizes) - 1)[(np.arange(customers) % 10 == 9) & (sizes > 1)]
    occurred[edge], visible[edge] = until - 3_600 * SECOND, until

    # A later version of a row repeats its id and replaces it once visible: corrected value, perhaps another event.
    old = np.flatnonzero(rng.random(rows) < _VERSION_SHARE)
    source = np.concatenate([np.arange(rows), old])
    newer = np.arange(rows, rows + len(old))
    touchpoint = source
    customer, occurred, event, channel = customer[source], occurred[source], event[source], channel[source]
    value, has_value, visible = value[source], has_value[source], visible[source]
    value[newer] += np.where(has_value[newer], rng.integers(1, value_scale + 2, len(old)), 0)
    event[newer] = np.where(rng.random(len(old)) < 0.3, rng.integers(0, len(events), len(old)), event[newer])
    visible[newer] += rng.integers(3_600, 20 * 86_400, len(old)) * SECOND
    superseded = np.full(len(source), NEVER, dtype=np.int64)
    superseded[old] = visible[newer]

    text = np.where(has_value, value.astype(str), "")
    by_event, by_channel = _text_rank(events)[event], _text_rank(channels)[channel]
    order = np.lexsort((visible, touchpoint, text, by_channel, by_event, occurred, customer))
    event = event[order]
    sent = np.array([name in outbound for name in events])
    return TouchpointColumns(
        offsets=_offsets(customer, customers),
        occurred_at=occurred[order],
        visible_at=visible[order],
        superseded_at=superseded[order],
        day=(occurred[order] // DAY).astype(np.int32),
        date_only=np.zeros(len(order), dtype=np.bool_),
        event=Text(event.astype(np.int32), events),
        channel=Text(channel[order].astype(np.int32), channels),
        value=value[order],
        has_value=has_value[order],
        inbound=~sent[event],
        properties={name: _column(values, len(order), rng) for name, values in properties.items()},
        merged_at=np.full(customers, NEVER, dtype=np.int64),
    )


def _attributes(customers: int, attributes: Vocabulary, until: int, days: int, rng: np.random.Generator) -> Attributes:
    # Some customers have no attributes, most one version, a few several; the newest may be known only after until.
    customer = np.repeat(np.arange(customers), rng.choice(4, customers, p=[0.1, 0.6, 0.2, 0.1]))
    known = until + (rng.integers(-days * 86_400, 5 * 86_400, len(customer))) * SECOND
    known = known[np.lexsort((known, customer))]
    return Attributes(
        offsets=_offsets(customer, customers),
        known_at=known,
        day=(known // DAY).astype(np.int32),
        columns={name: _column(values, len(customer), rng) for name, values in attributes.items()},
    )


def _column(values: Sequence[str] | None, rows: int, rng: np.random.Generator) -> Column:
    missing = rng.random(rows) < _NULL_SHARE
    if values is None:
        return np.where(missing, np.nan, rng.integers(1, 6, rows).astype(np.float64))
    codes = rng.integers(0, max(len(values), 1), rows)
    return Text(np.where(missing | (len(values) == 0), -1, codes).astype(np.int32), tuple(values))


def _text_rank(values: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the position of each code's text in text order; null, at index -1, comes first."""
    rank = np.full(len(values) + 1, -1, dtype=np.int64)
    rank[sorted(range(len(values)), key=values.__getitem__)] = np.arange(len(values))
    return rank


def _offsets(customer: np.ndarray[tuple[int], np.dtype[np.int64]], customers: int) -> Instants:
    return np.concatenate([[0], np.cumsum(np.bincount(customer, minlength=customers))]).astype(np.int64)
