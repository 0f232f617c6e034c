"""The first proof: another future must leave every answer about the past as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvj_ml.config import DAY
from cvj_ml.histories import Block
from cvj_ml.monitoring.answers import Comparison, ask, compare
from cvj_ml.monitoring.perturbation import Change, another_future
from cvj_ml.monitoring.sampling import Report
from cvj_ml.monitoring.subject import Subject, Tally

_LATER = 31 * DAY
"""How long after the cut-off the control asks: by then every added row is there to be seen."""


@dataclass(frozen=True, slots=True)
class Power:
    """What was tested at one cut-off, so that a pass means something.

    ``noticed`` is how many of ``compared`` customers' answers changed with the future when asked about a later
    instant, as they must.
    """

    cut_off: int
    customers: int
    change: Change
    noticed: int
    compared: int


def perturb(subject: Subject, instants: Sequence[int], seed: int, progress: Report) -> tuple[Tally, list[Power]]:
    """Compare answers under another future; and ask about a later instant, where they have to differ."""
    tally, power = Tally(), list[Power]()
    for number, cut_off in enumerate(instants):

        def work(block: Block, cut_off: int = cut_off) -> tuple[Comparison, Comparison, Change]:
            draw = np.random.default_rng([seed, 3, abs(cut_off), len(block), len(block.touchpoints)])
            other, change = another_future(block, cut_off, subject.config.time_zone, draw)
            same = compare(*(subject.ask(one, cut_off) for one in (block, other)))
            later = compare(*(ask(subject.definition, None, one, cut_off + _LATER) for one in (block, other)))
            return same, later, change

        parts = subject.sample.engine().map(work)
        tally.add(same for same, _, _ in parts)
        noticed, compared = (sum(numbers) for numbers in zip(*(_noticed(later) for _, later, _ in parts), strict=True))
        asked = sum(same.customers for same, _, _ in parts)
        power.append(Power(cut_off, asked, sum((one for _, _, one in parts), Change()), noticed, compared))
        if 2 * noticed < compared:
            raise AssertionError(f"another future changed {noticed} of {compared} later answers: nothing was tested")
        progress(number + 1, len(instants))
    return tally, power


def _noticed(later: Comparison) -> tuple[int, int]:
    """Return at least how many customers' answers differ, and of how many."""
    alone = later.different.get(("customer", "asked about"), 0)
    of_features = (number for (kind, _), number in later.different.items() if kind == "feature")
    return alone + max(of_features, default=0), alone + later.customers
