"""The proof for functions of one's own: the same history gives the same number, whenever and beside whomever.

Such a function is handed nothing but the past. What it could still do is to remember: a cache outside of it, filled
when a customer was asked about later, would tell an earlier snapshot its future.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cvj_ml.audit.sample import AuditScope, Leak, Report
from cvj_ml.config import DAY
from cvj_ml.features import CUSTOM, custom_columns_of
from cvj_ml.histories import Block
from cvj_ml.snapshots import Snapshots, eligible

_LATER = 31 * DAY
"""How long after the last cut-off everybody is asked about, too, so that a cache has something to remember."""

_I64 = npt.NDArray[np.int64]


def dependent_columns(scope: AuditScope, cut_offs: Sequence[int], progress: Report) -> list[Leak]:
    """Return the columns of one's own that differ when they are asked for again: later, and beside fewer customers.

    Has to run before anything else asks for features: first, instants are asked about in order, as nights do, and in
    the end again, the latest first, every other customer alone.
    """
    names = [f"{CUSTOM}_{name}" for one in scope.definition.catalogue.custom for name in one.spec.feature_names]
    instants = [*cut_offs, cut_offs[-1] + _LATER]

    def work(block: Block) -> tuple[_I64, int]:
        first = [_ask(scope, block, eligible(block.touchpoints, np.array([one]))) for one in instants]
        different, asked = np.zeros((len(cut_offs), len(names)), dtype=np.int64), 0
        for k in reversed(range(len(cut_offs))):
            snapshots = eligible(block.touchpoints, np.array([cut_offs[k]]))
            again = np.empty_like(first[k])
            for part in (slice(0, None, 2), slice(1, None, 2)):
                some = np.zeros(len(snapshots), dtype=np.bool_)
                some[part] = True
                again[some] = _ask(scope, block, snapshots.take(some))
            same = (first[k] == again) | (np.isnan(first[k]) & np.isnan(again))
            different[k] = (~same).sum(axis=0)
            asked += len(snapshots)
        return different, asked

    parts = scope.sample.engine(progress).map(work)
    different = np.sum([one for one, _ in parts], axis=0)
    asked = sum(one for _, one in parts)
    return [
        Leak("repetition", "feature", name, int(different[:, i].sum()), asked, int((different[:, i] > 0).sum()))
        for i, name in enumerate(names)
        if different[:, i].any()
    ]


def _ask(scope: AuditScope, block: Block, snapshots: Snapshots) -> npt.NDArray[np.float64]:
    definition = scope.definition
    return custom_columns_of(definition.catalogue, definition.journey, block.touchpoints, snapshots)
