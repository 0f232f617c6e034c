"""When stages are entered and left, and what was known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.entry_rules import Firings, Questions, either, fire, start_of_history
from cvj_ml.journey.leaving import rounds, spans_as_known
from cvj_ml.journey.observability import Journey
from cvj_ml.journey.stays import Stays
from cvj_ml.windows import NEVER, Instants, before, rows_before

_Rows = npt.NDArray[np.int64]


def stays(journey: Journey, points: TouchpointColumns) -> Stays:
    """Return when each stage was held, on the clock of what the business could know.

    The rules are asked anew of what was visible at every instant, so rows that arrive late or replace others change
    later answers only. A stage that cannot be left is held from the first visible instant at which its rule held. One
    that can is held at an instant if, by what was visible then, it had been entered and not left since.
    """
    customers = len(points.offsets) - 1
    first = np.full((customers, len(journey.stages)), NEVER, dtype=np.int64)
    if not len(points):
        return _stays(journey, first, [])
    questions, customer, begins = _histories_as_known(points)
    evaluated = fire(journey, points, questions)
    became_true = np.maximum(_at(points.visible_at, _in_order(journey, evaluated.fired)), begins[:, None])
    np.minimum.at(first, customer, became_true)
    found = []
    for i in journey.leavable:
        stage = journey.stages[i]
        parts = list(rounds(evaluated, stage))
        question = _joined([part.question for part in parts])
        order = np.argsort(question, kind="stable")
        entered = _joined([part.entered.row for part in parts])
        left = _joined([np.where(part.silent, NEVER, part.left.row) for part in parts])
        spans = spans_as_known(
            points.occurred_at,
            points.visible_at,
            points.superseded_at,
            points.inbound,
            questions.stop,
            questions.limit,
            customer,
            begins,
            question[order],
            entered[order],
            left[order],
            (stage.leave and stage.leave.silence) or 0,
        )
        found.append((i, *spans, np.zeros(len(spans[0]), dtype=np.bool_)))
    return _stays(journey, first, found)


def stays_that_happened(journey: Journey, points: TouchpointColumns, cut: int) -> Stays:
    """Return when each stage was held by the evidence as it happened, evaluated once on what was visible at the cut.

    A silence that lies beyond the cut is told as it will come if nothing happens.
    """
    customers = len(points.offsets) - 1
    questions = Questions(points.offsets[:-1], points.offsets[1:], np.full(customers, cut, dtype=np.int64))
    evaluated = fire(journey, points, questions)
    found = []
    for i in journey.leavable:
        stage = journey.stages[i]
        parts = list(rounds(evaluated, stage))
        found.append(
            (
                i,
                _joined([part.question for part in parts]),
                _joined([points.occurred_at[part.entered.row] for part in parts]),
                _joined([part.at for part in parts]),
                np.concatenate([np.empty(0, dtype=np.bool_), *(part.silent for part in parts)]),
            )
        )
    return _stays(journey, _at(points.occurred_at, _in_order(journey, evaluated.fired)), found)


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _stays(
    journey: Journey, first: Instants, found: Sequence[tuple[int, _Rows, Instants, Instants, npt.NDArray[np.bool_]]]
) -> Stays:
    """Gather the stays of all stages by customer; ``found`` has a stage, and of its stays customers and instants."""
    leavable = np.array([stage.leave is not None for stage in journey.stages])
    customer = _joined([one[1] for one in found])
    stage = _joined([np.full(len(one[1]), one[0], dtype=np.int64) for one in found])
    enter, leave = _joined([one[2] for one in found]), _joined([one[3] for one in found])
    silent = np.concatenate([np.empty(0, dtype=np.bool_), *(one[4] for one in found)])
    order = np.lexsort((leave, enter, stage, customer))
    first[:, leavable] = NEVER
    np.minimum.at(first, (customer, stage), enter)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(customer, minlength=len(first)))]).astype(np.int64)
    return Stays(_hide(first, journey), offsets, stage[order], enter[order], leave[order], silent[order], leavable)


def entry_times(journey: Journey, points: TouchpointColumns) -> Instants:
    """Return when each stage was first entered: (customers, stages), on the clock of what the business could know."""
    return stays(journey, points).first


def occurrence_times(journey: Journey, points: TouchpointColumns, cut: int) -> Instants:
    """Return when the evidence of each stage first happened, evaluated once on what was visible at the cut."""
    return stays_that_happened(journey, points, cut).first


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
    ``left`` is how stages that can be left were left last.
    """

    fired: Mapping[str, Firings]
    question: _Rows
    begins: Instants
    left: Mapping[str, Firings] = field(default_factory=dict)


def followed(journey: Journey, points: TouchpointColumns, customer: _Rows, as_of: Instants) -> Followed:
    """Return where the rules of stages that others come after fired, as known before each snapshot."""
    if not len(points) or not (journey.leavable or any(stage.enter.follows() for stage in journey.stages)):
        none = np.zeros(len(customer), dtype=np.int64)
        return Followed({}, none, none)
    if journey.leavable:
        return _left_before(journey, points, customer, as_of)
    questions, owner, begins = _histories_as_known(points)
    fired = fire(journey, points, questions, followed_only=True).fired
    return Followed(fired, _latest_before(owner, begins, customer, as_of), begins)


def _left_before(journey: Journey, points: TouchpointColumns, customer: _Rows, as_of: Instants) -> Followed:
    """Ask of every snapshot for itself: silence may have left what a row that was not known yet would have kept."""
    questions = Questions(points.offsets[customer], points.offsets[customer + 1], as_of)
    evaluated, left = fire(journey, points, questions, followed_only=True), dict[str, Firings]()
    for stage in (journey.stages[i] for i in journey.leavable):
        found = start_of_history(len(customer))
        for part in rounds(evaluated, stage):
            past = np.flatnonzero(before(part.at, as_of[part.question]))
            later = np.full(len(customer), len(past), dtype=np.int64)
            later[part.question[past]] = np.arange(len(past))
            gone = later < len(past)
            if gone.any():
                found = either(found, part.left.take(past[np.where(gone, later, 0)]), gone)
        left[stage.name] = found
    never = np.full(len(customer), -NEVER, dtype=np.int64)
    return Followed(evaluated.fired, np.arange(len(customer)), never, left)


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
