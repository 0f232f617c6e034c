"""Incomplete tracking: which customers' evidence of a stage is hidden, and what is left to see.

``coverage`` is the share of the customers truly having a stage's evidence for whom it is visible: all or nothing for
each customer and stage, independent given the true stage. Thinning repeats that loss on customers whose evidence is
complete, so that a model can learn the truth from what would have been seen of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.leaves import ANY_EVENT, leaf_mask
from cvj_ml.journey.observability import Journey
from cvj_ml.journey.stages import stays
from cvj_ml.journey.stays import Stays
from cvj_ml.windows import NEVER, Instants

_Mask = npt.NDArray[np.bool_]


def coverage_of(names: Sequence[str], coverage: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return each stage's coverage, shape (stages,); 1 where none is declared."""
    return np.array([coverage.get(name, 1.0) for name in names])


def draw_hidden(
    customers: Sequence[str], journey: Journey, coverage: npt.NDArray[np.float64], seed: int | str
) -> _Mask:
    """Draw which stages are hidden for whom, shape (customers, stages): each with probability 1 - coverage.

    One draw per customer and stage, a hash of (seed, customer, stage): whoever else is asked, the answer stays.
    """
    hidden = np.zeros((len(customers), len(journey.stages)), dtype=np.bool_)
    for i in np.flatnonzero(coverage < 1):
        key = hashlib.blake2b(f"{seed}\n{journey.names[i]}".encode(), digest_size=32).digest()
        digests = [hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in customers]
        draws = (np.frombuffer(b"".join(digests), dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
        hidden[:, i] = draws >= coverage[i]
    return hidden


def hide(journey: Journey, points: TouchpointColumns, hidden: _Mask, entries: Instants) -> TouchpointColumns:
    """Return the touchpoints that are left when stages are hidden.

    hidden: (customers, stages); entries: the stage entries on the whole history.
    Every touchpoint that matches a leaf of a hidden stage's rule goes, unless a stage that is not hidden needs it:
    one whose rule names its event, too, and that was entered, not before the touchpoint became visible. (Of
    purchases that enter Convert at the first and Ascend at the third, the later ones vanish with Ascend, the first
    stays.) A leaf that takes any event needs none in particular.
    """
    owner = points.owners()
    goes, needed = np.zeros(len(points), dtype=np.bool_), np.zeros(len(points), dtype=np.bool_)
    for i, stage in enumerate(journey.stages):
        named = [leaf for leaf in stage.enter.leaves() if ANY_EVENT not in (leaf.event or ())]
        matches = np.zeros(len(points), dtype=np.bool_)
        for leaf in named:
            matches |= leaf_mask(points, leaf, journey.minor_units)
        here = hidden[owner, i]
        goes |= matches & here
        entered = entries[owner, i]
        needed |= matches & ~here & (entered < NEVER) & (points.visible_at <= entered)
    return points.keep(~goes | needed)


def stays_when_hidden(journey: Journey, points: TouchpointColumns, hidden: _Mask) -> Stays:
    """Return the stays on what `hide` left: a hidden stage is not entered, whatever still matches its rule."""
    found = stays(journey, points)
    return replace(found, first=np.where(hidden, NEVER, found.first))
