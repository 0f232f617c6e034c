"""The proof for functions of one's own: the same history gives the same number, whenever and beside whomever.

Such a function is handed nothing but the past. What it could still do is to remember: a cache outside of it, filled
when a customer was asked about later, would tell an earlier snapshot its future.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cvj_ml.audit.outputs import OutputDifference, unequal
from cvj_ml.audit.sample import AuditScope, Report, Tally
from cvj_ml.config import DAY
from cvj_ml.features import CUSTOM, custom_columns_of
from cvj_ml.histories import Block
from cvj_ml.snapshots import Snapshots, eligible

_LATER = 31 * DAY
"""How long after the last cut-off everybody is asked about, too, so that a cache has something to remember."""


def ask_again(scope: AuditScope, cut_offs: Sequence[int], progress: Report) -> Tally:
    """Compare the columns of one's own with what they are when asked for again: later, and beside fewer customers.

    Has to run before anything else asks for features: first, instants are asked about in order, as nights do, and in
    the end again, the latest first, every other customer alone.
    """
    names = [f"{CUSTOM}_{name}" for one in scope.definition.catalogue.custom for name in one.spec.feature_names]
    instants = [*cut_offs, cut_offs[-1] + _LATER]

    def work(block: Block) -> list[OutputDifference]:
        first = [_ask(scope, block, eligible(block.touchpoints, np.array([one]))) for one in instants]
        found = []
        for k in reversed(range(len(cut_offs))):
            snapshots = eligible(block.touchpoints, np.array([cut_offs[k]]))
            again = np.empty_like(first[k])
            for part in (slice(0, None, 2), slice(1, None, 2)):
                some = np.zeros(len(snapshots), dtype=np.bool_)
                some[part] = True
                again[some] = _ask(scope, block, snapshots.take(some))
            numbers = (unequal(one, other, exact=True) for one, other in zip(first[k].T, again.T, strict=True))
            different = {("feature", name): number for name, number in zip(names, numbers, strict=True) if number}
            found.append(OutputDifference(len(snapshots), different))
        return found

    tally = Tally()
    for of_cut_off in zip(*scope.sample.engine(progress).map(work), strict=True):
        tally.add(of_cut_off)
    return tally


def _ask(scope: AuditScope, block: Block, snapshots: Snapshots) -> npt.NDArray[np.float64]:
    definition = scope.definition
    return custom_columns_of(definition.catalogue, definition.journey, block.touchpoints, snapshots)
