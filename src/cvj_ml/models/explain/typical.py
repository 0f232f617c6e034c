"""What is typical of customers in each stage: what one customer's numbers are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import Panel

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """Typical features by stage: ``typical`` is (1 + stages, features), the first row before any stage.

    A median, or the most frequent value of a code; NaN where most customers have none; rounded to three digits.
    ``own`` marks the stages with enough customers; the others show what is typical of everybody. ``silent`` is the same
    of the dormant alone, beside whom one of them is not just silent; where they are too few it shows the whole stage.
    """

    typical: npt.NDArray[np.float32]
    own: npt.NDArray[np.bool_]
    silent: Reference | None = None


def learn_reference(panel: Panel) -> Reference:
    """Learn what is typical from each customer's latest snapshot."""
    # Rows stand by customer; the last of the latest instants is the customer's newest.
    order = np.lexsort((panel.as_of, panel.customer))
    newest = order[np.append(panel.customer[order][1:] != panel.customer[order][:-1], True)]
    x, stage = panel.x[newest], panel.stage[newest]
    definition = panel.definition
    recency = x[:, definition.catalogue.names.index("recency")]
    dormant = ~(recency * DAY <= definition.journey.spec.dormant_after)
    everybody = np.tile(_typical(x, definition), (1 + len(definition.journey.stages), 1))
    found = Reference(*_by_stage(x, stage, definition, everybody))
    return replace(found, silent=Reference(*_by_stage(x[dormant], stage[dormant], definition, found.typical)))


def _by_stage(
    x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], definition: ModelSpec, otherwise: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return what is typical by stage, ``otherwise`` where customers are too few, and where they are enough."""
    typical, own = otherwise.copy(), np.zeros(len(otherwise), dtype=np.bool_)
    for i in range(len(otherwise)):
        here = stage == i - 1
        if here.sum() >= definition.min_customers:
            typical[i], own[i] = _typical(x[here], definition), True
    return typical, own


def _typical(x: npt.NDArray[np.float32], definition: ModelSpec) -> npt.NDArray[np.float32]:
    # Of codes no median can be taken.
    codes, fewest = definition.catalogue.coded, definition.min_customers
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
