"""How much of a stage's entry rule a customer has fulfilled: "3 of 4 purchases" is 0.75, with 1 to go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import Journey, Rule
from cvj_ml.histories import Touchpoints
from cvj_ml.journey.leaves import distinct_codes, leaf_mask
from cvj_ml.windows import NEVER, Instants, in_window, is_live, rows_before

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Progress:
    """Per snapshot: ``fulfilled`` in [0, 1], and how many more matching touchpoints its ``count`` needs."""

    fulfilled: _F64
    remaining: _F64


def progress(
    journey: Journey,
    stage: int,
    points: Touchpoints,
    customer: _I64,
    as_of: Instants,
    entries: Instants,
    minor_units: int,
) -> Progress:
    """Return the progress of snapshots (customer, as_of) towards a stage's rule, from what is live at ``as_of``.

    A leaf is fulfilled as far as its least fulfilled condition (count, value_at_least); ``any`` takes its most
    advanced part, ``all`` its least. ``growth`` has no measure and is left out. After an ``after`` stage only what
    follows its entry counts.
    """
    none = np.full(len(customer), -NEVER, dtype=np.int64)
    return _rule(journey, journey.stages[stage].enter, points, customer, as_of, entries, minor_units, none)


def _rule(
    journey: Journey,
    rule: Rule,
    points: Touchpoints,
    customer: _I64,
    as_of: Instants,
    entries: Instants,
    minor_units: int,
    since: Instants,
) -> Progress:
    if rule.after:
        since = np.maximum(since, entries[customer, journey.index(rule.after)])
    children = rule.any or rule.all
    if children:
        parts = [_rule(journey, one, points, customer, as_of, entries, minor_units, since) for one in children]
        fulfilled = np.stack([part.fulfilled for part in parts])
        best = fulfilled.argmax(axis=0) if rule.any else fulfilled.argmin(axis=0)
        rows = np.arange(len(customer))
        return Progress(fulfilled[best, rows], np.stack([part.remaining for part in parts])[best, rows])
    codes, size = distinct_codes(points, rule)
    number, total = _matched(
        leaf_mask(points, rule, minor_units),
        points.offsets,
        points.occurred_at,
        points.visible_at,
        points.superseded_at,
        np.where(points.has_value, points.value, 0),
        codes,
        np.zeros(size, dtype=np.int64),
        customer,
        as_of,
        since,
        rule.within or NEVER,
    )
    fulfilled = np.minimum(number / rule.count, 1.0)
    if rule.value_at_least is not None and rule.value_at_least > 0:
        fulfilled = np.minimum(fulfilled, np.clip(total / (rule.value_at_least * minor_units), 0.0, 1.0))
    return Progress(fulfilled, np.maximum(rule.count - number, 0).astype(np.float64))


@compiled
def _matched(
    mask: npt.NDArray[np.bool_],
    offsets: _I64,
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    value: _I64,
    distinct: npt.NDArray[np.int32],
    tally: _I64,
    customer: _I64,
    as_of: Instants,
    since: Instants,
    within: int,
) -> tuple[_I64, _I64]:
    """Return how many matching rows (or distinct values) are live in the window, and their sum of values."""
    number, total = np.zeros(len(customer), dtype=np.int64), np.zeros(len(customer), dtype=np.int64)
    for i in range(len(customer)):
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        end = rows_before(occurred_at, start, stop, as_of[i])
        row = end - 1
        while row >= start and occurred_at[row] > since[i] and in_window(occurred_at[row], as_of[i], within):
            if mask[row] and is_live(visible_at[row], superseded_at[row], as_of[i]):
                if len(distinct) == 0:
                    number[i] += 1
                elif distinct[row] >= 0:
                    if tally[distinct[row]] == 0:
                        number[i] += 1
                    tally[distinct[row]] += 1
                total[i] += value[row]
            row -= 1
        if len(distinct) > 0:
            for seen in range(row + 1, end):
                if distinct[seen] >= 0:
                    tally[distinct[seen]] = 0
    return number, total
