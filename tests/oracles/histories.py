"""Histories as lists of plain rows, and what was live in them at an instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

Scalar = str | float | None


@dataclass(frozen=True)
class Touch:
    """One version of one touchpoint; instants in microseconds, ``value`` in minor units.

    One that is ``date_only`` happened some time on its ``day``, of which ``occurred`` is the beginning.
    """

    occurred: int
    visible: int
    superseded: int | None
    day: int
    event: str
    channel: str | None
    value: int | None
    inbound: bool
    properties: Mapping[str, Scalar]
    date_only: bool = False


@dataclass(frozen=True)
class Version:
    """What became known about a customer at an instant."""

    known: int
    values: Mapping[str, Scalar]


@dataclass(frozen=True)
class Customer:
    """A customer: touchpoints in the total order of occurrence, attributes in the order of becoming known."""

    name: str
    touches: tuple[Touch, ...]
    versions: tuple[Version, ...] = ()


def live(customer: Customer, instant: int) -> list[Touch]:
    """Touchpoints visible strictly before an instant, each in the newest version visible then."""
    return [
        touch
        for touch in customer.touches
        if touch.visible < instant and not (touch.superseded is not None and touch.superseded < instant)
    ]


def as_known(customer: Customer, instant: int) -> Customer:
    """The whole table as it stood just before an instant: nothing visible from then on has left a trace."""
    touches = tuple(
        replace(
            touch,
            superseded=touch.superseded if touch.superseded is not None and touch.superseded < instant else None,
        )
        for touch in customer.touches
        if touch.visible < instant
    )
    return Customer(customer.name, touches, tuple(one for one in customer.versions if one.known < instant))
