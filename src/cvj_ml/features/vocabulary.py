"""The vocabulary of features: learned on the training slice, frozen in the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cvj_ml.histories import ALWAYS, Block, Column, Text, TouchpointColumns
from cvj_ml.windows import before

OTHER = "other"

SEVERAL = "one of several at once"
"""The last touchpoint of a customer who had different ones at that instant."""

INSTANTS, NUMBERS, TEXTS = "instants", "numbers", "texts"
"""Kinds of columns."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Names that get features of their own; whatever else comes is ``other``.

    ``categories`` holds the values of each text attribute, most frequent first, ``dates`` are attributes that are
    local days. ``columns`` are the touchpoints'
    columns in which something was found, with their kinds, ``static`` is whether attributes held at any time: whoever
    asks the model without them would get another answer. ``people`` says that customers are accounts, ``roles`` are
    those of their people.
    """

    events: tuple[str, ...]
    channels: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    static: bool = False
    dates: tuple[str, ...] = ()
    people: bool = False
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sightings:
    """How many customers of a block were seen with each name before the cut; the columns in which something was."""

    events: Counter[str]
    channels: Counter[str]
    categories: Mapping[str, Counter[str]]
    numbers: frozenset[str]
    dates: frozenset[str]
    columns: Mapping[str, str]
    static: bool
    customers: int
    roles: Counter[str] | None = None


def sight(block: Block, cut: int) -> Sightings:
    """Count a block's customers per event, channel and attribute value visible before the cut."""
    points = block.touchpoints
    owner = points.owners()
    seen = before(points.visible_at, cut)
    categories: dict[str, Counter[str]] = {}
    numbers = set()
    static = False
    if block.attributes:
        holder = np.repeat(np.arange(len(block)), np.diff(block.attributes.offsets))
        # Who has not been seen yet has no place in the vocabulary, whatever a static table knows of them.
        present = np.bincount(owner[seen], minlength=len(block)) > 0
        known = before(block.attributes.known_at, cut) & present[holder]
        static = bool((block.attributes.known_at == ALWAYS).any())
        for name, column in block.attributes.columns.items():
            if isinstance(column, Text):
                categories[name] = _customers_per_name(column, holder, known)
            elif name not in block.attributes.dates:
                numbers.add(name)
    roles = None
    if block.members:
        account = np.repeat(np.arange(len(block)), np.diff(block.members.offsets))
        there = before(block.members.known_at, cut) & (np.bincount(owner[seen], minlength=len(block)) > 0)[account]
        roles = _customers_per_name(block.members.role, account, there)
    return Sightings(
        _customers_per_name(points.event, owner, seen),
        _customers_per_name(points.channel, owner, seen),
        categories,
        frozenset(numbers),
        block.attributes.dates if block.attributes else frozenset(),
        _columns_found(points, seen, cut),
        static,
        len(np.unique(owner[seen])),
        roles,
    )


def _columns_found(points: TouchpointColumns, seen: npt.NDArray[np.bool_], cut: int) -> dict[str, str]:
    """Return the columns beside customer_id, occurred_at and event that say something of these rows by the cut."""
    found = {
        "known_at": (INSTANTS, points.visible_at > points.occurred_at),
        "date_only": (INSTANTS, points.date_only),
        "touchpoint_id": (TEXTS, before(points.superseded_at, cut)),
        "channel": (TEXTS, points.channel.codes >= 0),
        "value": (NUMBERS, points.has_value),
    }
    for name, column in points.properties.items():
        found[name] = (TEXTS, column.codes >= 0) if isinstance(column, Text) else (NUMBERS, ~np.isnan(column))
    return {name: kind for name, (kind, there) in found.items() if (there & seen).any()}


def _customers_per_name(column: Column, owner: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]) -> Counter[str]:
    if not isinstance(column, Text) or not column.values:
        return Counter()
    rows = seen & (column.codes >= 0)
    pairs = np.unique(owner[rows] * len(column.values) + column.codes[rows])
    counts = np.bincount(pairs % len(column.values), minlength=len(column.values))
    return Counter({value: int(n) for value, n in zip(column.values, counts, strict=True) if n})


@dataclass(frozen=True, slots=True)
class Written:
    """Names that the configuration holds, so that no customer is told of by them."""

    events: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    categories: Mapping[str, frozenset[str]] = field(default_factory=dict)


def learn(
    sightings: Iterable[Sightings],
    top_events: int,
    top_channels: int,
    top_values: int,
    fewest: int,
    written: Written,
) -> Vocabulary:
    """Keep the names that most customers have; ties go to the alphabet.

    A name that fewer than ``fewest`` customers have is told of only where it is ``written`` in the configuration; where
    there are fewer customers in all, no name is.
    """
    customers = 0
    events: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    categories: dict[str, Counter[str]] = {}
    numbers: set[str] = set()
    dates: set[str] = set()
    columns: dict[str, str] = {}
    static = people = False
    roles: Counter[str] = Counter()
    for one in sightings:
        customers += one.customers
        events.update(one.events)
        channels.update(one.channels)
        numbers |= one.numbers
        dates |= one.dates
        columns |= one.columns
        static |= one.static
        people |= one.roles is not None
        roles.update(one.roles or {})
        for name, counts in one.categories.items():
            categories.setdefault(name, Counter()).update(counts)

    def most_common(counts: Counter[str], top: int, exempt: frozenset[str]) -> tuple[str, ...]:
        told = [name for name, number in counts.items() if number >= fewest or name in exempt]
        return tuple(sorted(told, key=lambda name: (-counts[name], name))[:top]) if customers >= fewest else ()

    return Vocabulary(
        most_common(events, top_events, written.events),
        most_common(channels, top_channels, written.channels),
        tuple(sorted(numbers)),
        {
            name: most_common(counts, top_values, written.categories.get(name, frozenset()))
            for name, counts in sorted(categories.items())
        },
        dict(sorted(columns.items())),
        static,
        tuple(sorted(dates)),
        people,
        most_common(roles, top_values, frozenset()),
    )
