"""What is typical of customers in each stage: what one customer's numbers are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.panel.panel import Panel

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """Typical features by stage: ``typical`` is (1 + stages, features), the first row before any stage.

    A median, or the most frequent value of a code; NaN where most customers have none; rounded to three digits.
    ``own`` marks the stages with enough customers; the others show what is typical of everybody.
    """

    typical: npt.NDArray[np.float32]
    own: npt.NDArray[np.bool_]


def learn_reference(panel: Panel) -> Reference:
    """Learn what is typical from each customer's latest snapshot."""
    # Rows stand by customer; the last of the latest instants is the customer's newest.
    order = np.lexsort((panel.as_of, panel.customer))
    newest = order[np.append(panel.customer[order][1:] != panel.customer[order][:-1], True)]
    x, stage = panel.x[newest], panel.stage[newest]
    catalogue = panel.definition.catalogue
    # Of codes no median can be taken.
    codes = catalogue.coded
    fewest = panel.definition.min_customers
    everybody = _typical(x, codes, fewest)
    stages = 1 + len(panel.definition.journey.stages)
    typical, own = np.tile(everybody, (stages, 1)), np.zeros(stages, dtype=np.bool_)
    for i in range(stages):
        here = stage == i - 1
        if here.sum() >= fewest:
            typical[i], own[i] = _typical(x[here], codes, fewest), True
    return Reference(typical, own)


def _typical(x: npt.NDArray[np.float32], codes: npt.NDArray[np.bool_], fewest: int) -> npt.NDArray[np.float32]:
    result = np.full(x.shape[1], np.nan, dtype=np.float32)
    for f in range(x.shape[1]):
        known = x[~np.isnan(x[:, f]), f]
        if 2 * len(known) <= len(x) or len(known) < fewest:
            continue
        if codes[f]:
            values, counts = np.unique(known, return_counts=True)
            result[f] = values[counts.argmax()]
        else:
            # An observed value, not the middle of two: a typical count is a whole number.
            result[f] = float(f"{np.sort(known)[(len(known) - 1) // 2]:.{_DIGITS}g}")
    return result
