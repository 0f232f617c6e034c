"""Stages that can be left: entered, left and entered again, on the clock of occurrence, question by question.

A rule that leaves a stage may use only what is later than the entry, and a rule that enters it again only what is later
than the leave; so of one moment at most one of both happens. Silence leaves at an instant at which nothing happens:
the last inbound touchpoint of the stay, its entry where there is none, and the duration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import Rule, Stage
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.entry_rules import Firings, Questions, RuleEvaluation, both, either
from cvj_ml.windows import NEVER, Instants, is_live

_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Round:
    """The n-th stay in a stage of the questions that have so many; arrays of one length.

    ``question`` is each one's position among all, ``at`` the instant of the leave (NEVER: none), ``silent`` whether it
    was silence that left.
    """

    question: _Rows
    entered: Firings
    left: Firings
    at: Instants
    silent: _Mask


def rounds(evaluate: RuleEvaluation, stage: Stage) -> Iterator[Round]:
    """Yield the first stays of all questions, then the second ones, and so on, as long as there are any."""
    question = np.arange(len(evaluate.questions))
    other, silence = (stage.leave.unless_silent, stage.leave.silence) if stage.leave else (None, None)
    entered, occurred_at = evaluate.fired[stage.name], evaluate.points.occurred_at
    while (there := np.flatnonzero(entered.happened())).size:
        question, entered = question[there], entered.take(there)
        stay = evaluate.later(question, occurred_at[entered.row], ())
        left, at, silent = _leave(stay, other, silence, entered)
        yield Round(question, entered, left, at, silent)
        gone = np.flatnonzero(at != NEVER)
        question = question[gone]
        entered = evaluate.later(question, at[gone], stage.enter.follows()).rule(stage.enter, left.take(gone))


def _leave(
    stay: RuleEvaluation, rule: Rule | None, silence: int | None, entered: Firings
) -> tuple[Firings, Instants, _Mask]:
    """Return how stays end, when, and whether by silence rather than by a rule; of one instant it is the rule."""
    occurred_at = stay.points.occurred_at
    never, none = np.full(len(stay.questions), NEVER, dtype=np.int64), np.zeros(len(stay.questions), dtype=np.bool_)
    if rule is None:
        left, at = Firings(never, entered.instant, entered.day, entered.date, entered.used), never
    else:
        left = stay.rule(rule, entered)
        at = np.where(left.happened(), occurred_at[left.row % len(occurred_at)], NEVER)
    if silence is None:
        return left, at, none
    fallen = falls_silent(stay.points, stay.questions, entered.row, silence)
    quiet = both(Firings(fallen.row, fallen.instant, entered.day, fallen.date, entered.used.of(none)), entered)
    silent = fallen.instant < at
    return either(left, quiet, silent), np.minimum(at, fallen.instant), silent


class Silence(NamedTuple):
    """The row that a silence follows, its instant, and the first day whose rows without hours are later than that."""

    row: _Rows
    instant: Instants
    date: _Rows


def falls_silent(points: TouchpointColumns, questions: Questions, since: _Rows, silence: int) -> Silence:
    """Return when each question's customer has been silent for so long for the first time since a row."""
    return Silence(
        *_falls_silent(
            points.occurred_at,
            points.visible_at,
            points.superseded_at,
            points.inbound,
            points.date_only,
            points.day,
            questions.stop,
            questions.limit,
            since,
            silence,
        )
    )


@compiled
def _falls_silent(
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    inbound: _Mask,
    date_only: _Mask,
    day: npt.NDArray[np.int32],
    stops: _Rows,
    limits: Instants,
    since: _Rows,
    silence: int,
) -> tuple[_Rows, Instants, _Rows]:
    last, instant = since.copy(), np.empty(len(since), dtype=np.int64)
    date = np.full(len(since), NEVER, dtype=np.int64)
    for q in range(len(since)):
        row = since[q] + 1
        while row < stops[q]:
            if inbound[row] and is_live(visible_at[row], superseded_at[row], limits[q]):
                if occurred_at[row] - occurred_at[last[q]] >= silence:
                    break
                last[q] = row
            row += 1
        instant[q] = occurred_at[last[q]] + silence
        row = last[q] + 1
        while row < stops[q]:
            if date_only[row] and occurred_at[row] >= instant[q]:
                date[q] = day[row]
                break
            row += 1
    return last, instant, date


@compiled
def spans_as_known(
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    inbound: _Mask,
    stops: _Rows,
    limits: Instants,
    owners: _Rows,
    begins: Instants,
    question: _Rows,
    entered: _Rows,
    left: _Rows,
    silence: int,
) -> tuple[_Rows, Instants, Instants]:
    """Return whose stage was held over which ``[enter, leave)`` on the clock of what was known; spans do not touch.

    ``question`` (ascending), the rows at which each stay was entered and left (NEVER: silence or nothing left it) and
    its ``silence`` (0: none leaves) are those of `rounds`, in order of the question and the stay. A question tells of
    the instants from its ``begins`` to that of the customer's next one. Meanwhile a row that happened in time but is
    not known yet leaves the customer silent, until it arrives.
    """
    found, enters, leaves = [0][:0], [0][:0], [0][:0]
    for i in range(len(question)):
        q = question[i]
        until = begins[q + 1] if q + 1 < len(owners) and owners[q + 1] == owners[q] else NEVER
        stop = stops[q]
        if left[i] != NEVER:
            until, stop = min(until, max(visible_at[left[i]], begins[q])), left[i]
        enter, row = max(visible_at[entered[i]], begins[q]), entered[i] + 1
        last = occurred_at[entered[i]]
        while enter < until:
            if silence > 0:
                while row < stop and not (inbound[row] and is_live(visible_at[row], superseded_at[row], limits[q])):
                    row += 1
                known = until if row >= stop else min(until, max(visible_at[row], begins[q]))
                leave = min(known, last + silence)
            else:
                row, known, leave = stop, until, until
            if enter < leave:
                if len(found) > 0 and found[-1] == owners[q] and leaves[-1] >= enter:
                    leaves[-1] = max(leaves[-1], leave)
                else:
                    found.append(owners[q])
                    enters.append(enter)
                    leaves.append(leave)
            if row >= stop or occurred_at[row] - last >= silence:
                break
            enter, last = max(enter, known), occurred_at[row]
            row += 1
    return np.array(found, dtype=np.int64), np.array(enters, dtype=np.int64), np.array(leaves, dtype=np.int64)
