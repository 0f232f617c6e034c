"""How much of a stage's entry rule a customer has fulfilled: "3 of 4 purchases" is 0.75, with 1 to go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import Rule
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.attribute_rules import holds_now, state_mask
from cvj_ml.journey.entry_rules import Firings, both, start_of_history
from cvj_ml.journey.leaves import distinct_codes, leaf_mask
from cvj_ml.journey.observability import Journey
from cvj_ml.journey.stages import Followed
from cvj_ml.windows import NEVER, Instants, before, is_known, is_live, rows_before, rows_before_window, rows_until

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
    points: TouchpointColumns,
    customer: _I64,
    as_of: Instants,
    known: Followed,
) -> Progress:
    """Return the progress of snapshots (customer, as_of) towards a stage's rule, from what is live at ``as_of``.

    A leaf is fulfilled as far as its least fulfilled condition (count, value_at_least); ``any`` takes its most
    advanced part, ``all`` its least. ``growth`` has no measure and is left out. After an ``after`` stage only what the
    rule would count counts, and after a leave of the stage itself only what came later than that; ``known`` says where
    those stages' rules fired, and where the leave's did.
    """
    asked, one = _Asked(journey, points, customer, as_of, known), journey.stages[stage]
    return _rule(asked, one.enter, known.left.get(one.name) or start_of_history(len(known.begins)))


@dataclass(frozen=True, slots=True)
class _Asked:
    journey: Journey
    points: TouchpointColumns
    customer: _I64
    as_of: Instants
    known: Followed


def _rule(asked: _Asked, rule: Rule, after: Firings) -> Progress:
    if rule.after and asked.known.fired:
        after = both(after, asked.known.fired[rule.after])
    children = rule.any or rule.all
    if children:
        parts = [_rule(asked, one, after) for one in children]
        fulfilled = np.stack([part.fulfilled for part in parts])
        best = fulfilled.argmax(axis=0) if rule.any else fulfilled.argmin(axis=0)
        rows = np.arange(len(asked.customer))
        return Progress(fulfilled[best, rows], np.stack([part.remaining for part in parts])[best, rows])
    points = asked.points
    if rule.attribute is not None:
        held = holds_now(
            state_mask(points, rule), points.offsets, points.occurred_at, asked.customer, asked.as_of
        ) & _behind(asked, after)
        return Progress(held.astype(np.float64), (~held).astype(np.float64))
    codes, size = distinct_codes(points, rule)
    used_from, used_row = after.used_by_question()
    number, total = _matched(
        leaf_mask(points, rule, asked.journey.minor_units),
        points.offsets,
        points.occurred_at,
        points.day,
        points.date_only,
        bool(points.date_only.any()),
        points.visible_at,
        points.superseded_at,
        np.where(points.has_value, points.value, 0),
        codes,
        np.zeros(size, dtype=np.int64),
        asked.customer,
        asked.as_of,
        asked.known.question,
        asked.known.begins,
        after.row,
        after.instant,
        after.day,
        after.date,
        used_from,
        used_row,
        rule.within or NEVER,
    )
    fulfilled = np.minimum(number / rule.count, 1.0)
    if rule.value_at_least is not None and rule.value_at_least > 0:
        fulfilled = np.minimum(fulfilled, np.clip(total / (rule.value_at_least * asked.journey.minor_units), 0.0, 1.0))
    return Progress(fulfilled, np.maximum(rule.count - number, 0).astype(np.float64))


def _behind(asked: _Asked, after: Firings) -> npt.NDArray[np.bool_]:
    """Return at which snapshots the stages that a condition comes after were known to be entered."""
    if not len(after.row):
        return np.ones(len(asked.customer), dtype=np.bool_)
    question = asked.known.question
    row, begins = after.row[question], asked.known.begins[question]
    there = (row >= 0) & (row != NEVER)
    visible = asked.points.visible_at[np.where(there, row, 0)]
    known: npt.NDArray[np.bool_] = there & before(visible, asked.as_of) & before(begins, asked.as_of)
    return known | (row < 0)


@compiled
def _matched(
    mask: npt.NDArray[np.bool_],
    offsets: _I64,
    occurred_at: Instants,
    day: npt.NDArray[np.int32],
    date_only: npt.NDArray[np.bool_],
    dated: bool,
    visible_at: Instants,
    superseded_at: Instants,
    value: _I64,
    distinct: npt.NDArray[np.int32],
    tally: _I64,
    customer: _I64,
    as_of: Instants,
    question: _I64,
    begins: Instants,
    after_row: _I64,
    after_instant: Instants,
    after_day: _I64,
    after_date: _I64,
    used_from: _I64,
    used_row: _I64,
    within: int,
) -> tuple[_I64, _I64]:
    """Return how many matching rows (or distinct values) are live in the window, and their sum of values."""
    number, total = np.zeros(len(customer), dtype=np.int64), np.zeros(len(customer), dtype=np.int64)
    used_by = np.full(len(mask) if dated else 0, -1, dtype=np.int64)
    for i in range(len(customer)):
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        instant, first_day, date = -NEVER, -NEVER, -NEVER
        if len(after_row) > 0:
            q = question[i]
            if after_row[q] == NEVER:
                continue
            if after_row[q] >= 0:
                if not is_known(visible_at[after_row[q]], begins[q], as_of[i]):
                    continue
                instant, first_day, date = after_instant[q], after_day[q], after_date[q]
                if dated:
                    for k in range(used_from[q], used_from[q + 1]):
                        used_by[used_row[k]] = i
        begin, end = start, rows_before(occurred_at, start, stop, as_of[i])
        if not dated and instant > -NEVER:
            begin = rows_until(occurred_at, begin, end, instant)
        if within < NEVER:
            begin = rows_before_window(occurred_at, begin, end, as_of[i], within)
        for row in range(begin, end):
            later = True
            if dated:
                by_instant = occurred_at[row] > instant and day[row] >= first_day
                later = day[row] >= date if date_only[row] else by_instant
                later = later and used_by[row] != i
            if later and mask[row] and is_live(visible_at[row], superseded_at[row], as_of[i]):
                if len(distinct) == 0:
                    number[i] += 1
                elif distinct[row] >= 0:
                    if tally[distinct[row]] == 0:
                        number[i] += 1
                    tally[distinct[row]] += 1
                total[i] += value[row]
        if len(distinct) > 0:
            for seen in range(begin, end):
                if distinct[seen] >= 0:
                    tally[distinct[seen]] = 0
    return number, total
