"""Outcomes: what customers do after a snapshot, beside returning and reaching stages.

``kept`` is a touchpoint by which somebody still is a customer, so silence within a horizon, which is one notion of
churn, is its opposite. ``purchase`` is a touchpoint by which they buy: not every return is one. ``leave_<stage>`` is
the other notion of churn: a stage that is held is left by what its rules name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.config import KEPT, LEAVE, PURCHASE, STAGE_CHANGE, JourneySpec, Rule
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.leaves import ANY_EVENT
from cvj_ml.journey.observability import Journey


@dataclass(frozen=True, slots=True)
class Outcome:
    """The next of a customer's own touchpoints with one of these ``events``; with ``but``, with any but these.

    ``same_as`` names what is the same question on this data (``return`` or another outcome): it has no model of its
    own, and its probabilities are those. With a ``stage`` it is its leave by other rules than silence, asked of those
    who hold it; ``events`` are what these rules name.
    """

    name: str
    events: frozenset[str]
    but: bool = False
    same_as: str | None = None
    stage: str | None = None

    def among(self, points: TouchpointColumns) -> npt.NDArray[np.bool_]:
        """Return which touchpoints count; what we send to customers, or a CRM notes of them, never does."""
        named = points.event.isin(self.events)
        found: npt.NDArray[np.bool_] = points.inbound & (~named if self.but else named)
        return found

    def of(self, events: Collection[str]) -> frozenset[str]:
        """Return which of some events count."""
        return frozenset(events) - self.events if self.but else self.events & frozenset(events)


def in_scores(outcome: str) -> str:
    """Return what SCORES call an outcome: of ``kept`` they tell the opposite."""
    return "churn" if outcome == KEPT else outcome


def asked_of(spec: JourneySpec) -> tuple[Outcome, ...]:
    """Return what a journey asks of its customers, whatever occurs."""
    named, kept = spec.kept_events
    asked = (Outcome(KEPT, kept, but=not named),)
    return asked if spec.value is None else (*asked, Outcome(PURCHASE, frozenset(spec.value.events)))


def outcomes_of(journey: Journey, events: Collection[str], outbound: Collection[str]) -> tuple[Outcome, ...]:
    """Return what a journey asks of its customers, given the events that occur: always ``kept``, then ``purchase``.

    An outcome that every own touchpoint fulfils is the return, unless a stage can be entered, which is a return too,
    by anything else. ``purchase`` is asked where the journey has a ``value`` whose events occur, and leaving a stage
    where something else than silence does.
    """
    own = frozenset(name for name in events if not name.startswith(STAGE_CHANGE)) - frozenset(outbound)
    found: list[Outcome] = []
    known = {own: "return"} if _entered_by_own_alone(journey, frozenset(events) - own) else {}
    for one in asked_of(journey.spec):
        counted = one.of(own)
        if counted:
            found.append(replace(one, same_as=known.get(counted)))
            known.setdefault(counted, one.name)
    for i in journey.observable:
        stage = journey.stages[i]
        rule = stage.leave.unless_silent if stage.leave else None
        if rule is not None:
            told = frozenset(name for leaf in rule.leaves() for name in leaf.event or ())
            found.append(Outcome(f"{LEAVE}{stage.slug}", told, stage=stage.name))
    return tuple(found)


def _entered_by_own_alone(journey: Journey, others: frozenset[str]) -> bool:
    """Return whether nobody who is asked can enter a stage but by a touchpoint of their own."""
    for stage in (journey.stages[i] for i in journey.observable):
        if stage.enter == Rule(event=(ANY_EVENT,)) and stage.leave is None:
            continue  # whoever is asked has a touchpoint, and is there
        for leaf in stage.enter.leaves():
            if not leaf.event or not others.isdisjoint(others if ANY_EVENT in leaf.event else leaf.event):
                return False
    return True


def net_values(spec: JourneySpec, points: TouchpointColumns) -> npt.NDArray[np.int64]:
    """Return the value of each touchpoint, in minor units, with that of a refund taken off, whichever sign it has."""
    refunds = spec.value.refunds if spec.value else ()
    given_back = points.event.isin(frozenset(refunds))
    return np.where(given_back, -np.abs(points.value), points.value)
