"""Outcomes: what customers do after a snapshot, beside returning and reaching stages.

``kept`` is a touchpoint by which somebody still is a customer, so silence within a horizon, which is one notion of
churn, is its opposite. ``purchase`` is a touchpoint by which they buy: not every return is one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.config import STAGE_CHANGE
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.observability import Journey

KEPT, PURCHASE = "kept", "purchase"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The next of a customer's own touchpoints with one of these ``events``; with ``but``, with any but these.

    ``same_as`` names what is the same question on this data (``return`` or another outcome): it has no model of its
    own, and its probabilities are those.
    """

    name: str
    events: frozenset[str]
    but: bool = False
    same_as: str | None = None

    def among(self, points: TouchpointColumns) -> npt.NDArray[np.bool_]:
        """Return which touchpoints count; what we send to customers, or a CRM notes of them, never does."""
        named = points.event.isin(self.events)
        found: npt.NDArray[np.bool_] = points.inbound & (~named if self.but else named)
        return found

    def of(self, events: Collection[str]) -> frozenset[str]:
        """Return which of some events count."""
        return frozenset(events) - self.events if self.but else self.events & frozenset(events)


def outcomes_of(journey: Journey, events: Collection[str], outbound: Collection[str]) -> tuple[Outcome, ...]:
    """Return what a journey asks of its customers, given the events that occur: always ``kept``, then ``purchase``.

    An outcome that every own touchpoint fulfils is the return. ``purchase`` is asked where the journey has a ``value``
    whose events occur.
    """
    named, kept = journey.spec.kept_events
    asked = [Outcome(KEPT, kept, but=not named)]
    if journey.spec.value is not None:
        asked.append(Outcome(PURCHASE, frozenset(journey.spec.value.events)))
    own = frozenset(name for name in events if not name.startswith(STAGE_CHANGE)) - frozenset(outbound)
    found: list[Outcome] = []
    known = {own: "return"}
    for one in asked:
        counted = one.of(own)
        if counted:
            found.append(replace(one, same_as=known.get(counted)))
            known.setdefault(counted, one.name)
    return tuple(found)
