"""Labels, eligibility and hazard rows, straight from the definitions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tests.oracles.histories import Customer, live
from tests.oracles.journey import held, spans, stays_that_happened

from cvj_ml.config import JourneySpec


@dataclass(frozen=True)
class Outlook:
    """What came after one snapshot.

    ``times`` holds the microseconds from ``as_of`` to the return, then to each stage or a higher one (None: it had
    not happened by the cut); ``asked`` says which of them are targets; ``late`` counts targets dropped because the
    stage had been reached before ``as_of`` already, though nobody could know it then.
    """

    times: list[int | None]
    asked: list[bool]
    late: int
    observed: int


def is_eligible(customer: Customer, as_of: int) -> bool:
    """Whether a customer is asked about: any touchpoint was visible."""
    return any(touch.visible < as_of for touch in customer.touches)


def outlook(
    journey: JourneySpec,
    hidden: Collection[str],
    customer: Customer,
    as_of: int,
    minor_units: int,
    cut: int,
    arrival_delay: int,
) -> Outlook:
    """Label one snapshot on the clock of occurrence, by what was known at the cut."""
    spent = spans(journey, hidden, customer, minor_units)
    stage = max((i for i, name in enumerate(journey.names) if held(spent[name], as_of)), default=-1)
    happened = [
        [] if name in hidden else stays
        for name, stays in stays_that_happened(journey, customer, minor_units, cut).items()
    ]
    reach: list[int | None] = []
    for j in range(len(journey.stages)):
        # What is held already was entered before; else the next entry counts.
        there = [
            one.enter - as_of
            for stays in happened[j:]
            for one in stays
            if one.enter >= as_of or one.leave is None or one.leave >= as_of
        ]
        reach.append(min(there) if there else None)
    ahead = [j > stage and name not in hidden for j, name in enumerate(journey.names)]
    late = [ahead[j] and (reach[j] or 0) < 0 for j in range(len(reach))]
    asked = [ahead[j] and not late[j] for j in range(len(reach))]
    back = [touch.occurred - as_of for touch in live(customer, cut) if touch.inbound and touch.occurred >= as_of]
    back += [at for j, at in enumerate(reach) if asked[j] and at is not None]
    return Outlook([min(back) if back else None, *reach], [True, *asked], sum(late), cut - arrival_delay - as_of)


def hazard_rows(outlooks: Sequence[Outlook], horizons: Sequence[int]) -> set[tuple[int, int, int, bool]]:
    """Rows (snapshot, target, interval, moved): at risk when the interval begins, and observed to its end."""
    rows = set()
    for i, one in enumerate(outlooks):
        for target, (time, asked) in enumerate(zip(one.times, one.asked, strict=True)):
            for m, high in enumerate(horizons):
                low = 0 if m == 0 else horizons[m - 1]
                at_risk = time is None or time >= low
                if asked and at_risk and high <= one.observed:
                    rows.add((i, target, m, time is not None and time < high))
    return rows
