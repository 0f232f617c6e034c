"""Stage entries, and the stage of a customer at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.entry_rules import Firings, Questions, fire
from cvj_ml.journey.observability import Journey
from cvj_ml.windows import NEVER, Instants, before, rows_before

_Rows = npt.NDArray[np.int64]


def entry_times(journey: Journey, points: TouchpointColumns) -> Instants:
    """Return when each stage was entered: (customers, stages), the first visible instant at which its rule held.

    The rule is asked anew of what was visible at every instant, so rows that arrive late or replace others change
    later answers only; NEVER where a stage was not entered or is unobserved.
    """
    if not len(points):
        return np.full((len(points.offsets) - 1, len(journey.stages)), NEVER, dtype=np.int64)
    questions, customer, begins = _histories_as_known(points)
    fired = fire(journey, points, questions)
    became_true = np.maximum(_at(points.visible_at, _in_order(journey, fired)), begins[:, None])
    entries = np.full((len(points.offsets) - 1, len(journey.stages)), NEVER, dtype=np.int64)
    np.minimum.at(entries, customer, became_true)
    return _hide(entries, journey)


def occurrence_times(journey: Journey, points: TouchpointColumns, cut: int) -> Instants:
    """Return when the evidence of each stage happened, evaluated once on what was visible at the cut."""
    customers = len(points.offsets) - 1
    questions = Questions(points.offsets[:-1], points.offsets[1:], np.full(customers, cut, dtype=np.int64))
    fired = fire(journey, points, questions)
    return _hide(_at(points.occurred_at, _in_order(journey, fired)), journey)


def _in_order(journey: Journey, fired: Mapping[str, Firings]) -> list[Firings]:
    return [fired[name] for name in journey.names]


def _at(instants: Instants, fired: Sequence[Firings]) -> Instants:
    """Return an instant of each rule's moment, (questions, stages); NEVER where it did not fire."""
    rows = np.stack([one.row for one in fired], axis=1)
    return np.where(rows == NEVER, NEVER, instants[rows % len(instants)]) if len(instants) else rows


@dataclass(frozen=True, slots=True)
class Followed:
    """Where the rules of stages that others come after fired, as known at snapshots: ``question`` is each one's.

    A firing was known from the instant on at which its row was visible, and no earlier than the question ``begins``.
    """

    fired: Mapping[str, Firings]
    question: _Rows
    begins: Instants


def followed(journey: Journey, points: TouchpointColumns, customer: _Rows, as_of: Instants) -> Followed:
    """Return where the rules of stages that others come after fired, as known before each snapshot."""
    if not len(points) or not any(stage.enter.follows() for stage in journey.stages):
        none = np.zeros(len(customer), dtype=np.int64)
        return Followed({}, none, none)
    questions, owner, begins = _histories_as_known(points)
    fired = fire(journey, points, questions, followed_only=True)
    return Followed(fired, _latest_before(owner, begins, customer, as_of), begins)


@compiled
def _latest_before(owner: _Rows, begins: Instants, customer: _Rows, as_of: Instants) -> _Rows:
    """Return the last question of each snapshot's customer that begins before it; one that has not, where none has."""
    first = np.searchsorted(owner, customer)
    last = np.searchsorted(owner, customer + 1)
    found = np.empty(len(customer), dtype=np.int64)
    for i in range(len(customer)):
        found[i] = max(first[i], rows_before(begins, first[i], last[i], as_of[i]) - 1)
    return found


def _hide(times: Instants, journey: Journey) -> Instants:
    for i, name in enumerate(journey.names):
        if name in journey.unobserved:
            times[:, i] = NEVER
    return times


def _histories_as_known(points: TouchpointColumns) -> tuple[Questions, _Rows, Instants]:
    """Return the questions that give every entry exactly, with each one's customer and first instant.

    While moments arrive in the order in which they occurred, a longer history only extends a shorter one, and one
    question about the longest answers for all of them. A new question begins where a row arrives out of order, joins a
    moment that was known already, or replaces another row.
    """
    start, stop, limit, customer, begins = _chains(
        points.offsets, points.occurred_at, points.visible_at, points.superseded_at
    )
    return Questions(start, stop, limit), customer, begins


@compiled
def _chains(
    offsets: _Rows, occurred_at: Instants, visible_at: Instants, superseded_at: Instants
) -> tuple[_Rows, _Rows, Instants, _Rows, Instants]:
    customers = len(offsets) - 1
    starts, stops, limits, owners, begins = [0][:0], [0][:0], [0][:0], [0][:0], [0][:0]
    for c in range(customers):
        start, stop = offsets[c], offsets[c + 1]
        in_order = True
        for row in range(start, stop):
            late = row > start and visible_at[row] < visible_at[row - 1]
            joins = row > start and occurred_at[row] == occurred_at[row - 1] and visible_at[row] != visible_at[row - 1]
            if superseded_at[row] != NEVER or late or joins:
                in_order = False
                break
        if in_order:
            starts.append(start)
            stops.append(stop)
            limits.append(NEVER)
            owners.append(c)
            begins.append(-NEVER)
            continue
        order = start + np.argsort(visible_at[start:stop], kind="mergesort")
        replaced = np.sort(superseded_at[start:stop])
        latest = start - 1
        next_replaced = 0
        i = 0
        while i < len(order):
            now = visible_at[order[i]]
            earliest_row, latest_row = order[i], order[i]
            while i < len(order) and visible_at[order[i]] == now:
                earliest_row, latest_row = min(earliest_row, order[i]), max(latest_row, order[i])
                i += 1
            replaces = False
            while next_replaced < len(replaced) and replaced[next_replaced] <= now:
                # A version that went to another customer leaves this history without anything arriving in it.
                if replaced[next_replaced] < now and latest >= start:
                    starts.append(start)
                    stops.append(stop)
                    limits.append(replaced[next_replaced] + 1)
                    owners.append(c)
                    begins.append(replaced[next_replaced])
                replaces = True
                next_replaced += 1
            if latest < start or occurred_at[earliest_row] <= occurred_at[latest] or replaces:
                starts.append(start)
                stops.append(stop)
                limits.append(now + 1)
                owners.append(c)
                begins.append(now)
            else:
                limits[-1] = now + 1
            latest = max(latest, latest_row)
        while next_replaced < len(replaced) and replaced[next_replaced] < NEVER:
            starts.append(start)
            stops.append(stop)
            limits.append(replaced[next_replaced] + 1)
            owners.append(c)
            begins.append(replaced[next_replaced])
            next_replaced += 1
    return np.array(starts), np.array(stops), np.array(limits), np.array(owners), np.array(begins)


@dataclass(frozen=True, slots=True)
class StageState:
    """Where customers stand: ``stage`` is -1 before any stage; ``days_in_stage`` is NaN there."""

    stage: npt.NDArray[np.int8]
    days_in_stage: npt.NDArray[np.float64]


def stage_at(entries: Instants, as_of: Instants | int) -> StageState:
    """Return the highest stage entered before ``as_of``, row by row, and the days spent in it.

    The highest stage's own entry is the instant at which the running maximum first reached it.
    """
    moments = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(entries))
    entered = before(entries, moments[:, None])
    stages = entries.shape[1]
    stage = np.where(entered.any(axis=1), stages - 1 - np.argmax(entered[:, ::-1], axis=1), -1)
    since = entries[np.arange(len(entries)), np.maximum(stage, 0)]
    days = np.where(stage < 0, np.nan, (moments - np.where(stage < 0, 0, since)) / DAY)
    return StageState(stage.astype(np.int8), days)


def reached(times: Instants) -> Instants:
    """Return when each stage *or a higher one* was first reached: minima over the stages from each one up."""
    return np.minimum.accumulate(times[:, ::-1], axis=1)[:, ::-1]
