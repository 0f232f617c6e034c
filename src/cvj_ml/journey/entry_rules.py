"""Rules that enter or leave stages, evaluated on sets of touchpoints.

A rule looks at a set of touchpoints moment by moment (all of one instant together) and *fires* at the first moment at
which what lies up to it satisfies the rule. A *question* is one customer and one instant: "where does the rule fire on
what was live then?". Leaves become boolean masks once per block; the compiled pass sees masks and codes only.

The order of rows decides nothing: what follows an ``after`` stage is later in time. Of a date-only row nobody knows the
time, so wherever one is compared, local days are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cvj_ml.config import Rule
from cvj_ml.histories import TouchpointColumns
from cvj_ml.journey.attribute_rules import (
    Alternative,
    alternatives,
    asks_for_attributes,
    first_holding,
    first_rows_after,
    state_mask,
)
from cvj_ml.journey.leaves import distinct_codes, distinct_column, exact, first_firing, leaf_mask, minor, ranks
from cvj_ml.journey.observability import Journey
from cvj_ml.windows import NEVER, Instants

_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows ``[start, stop)`` of one customer, as live just before ``limit``; arrays of one length."""

    start: _Rows
    stop: _Rows
    limit: Instants

    def __len__(self) -> int:
        return len(self.start)

    def take(self, positions: _Rows) -> Questions:
        """Return some questions."""
        return Questions(self.start[positions], self.stop[positions], self.limit[positions])


class UsedRows(NamedTuple):
    """Rows that a rule needed on the day on which it fired, each with its question; two arrays of one length."""

    question: _Rows
    row: _Rows

    def of(self, chosen: _Mask) -> UsedRows:
        """Return those of some questions."""
        kept = chosen[self.question]
        return UsedRows(self.question[kept], self.row[kept])

    def and_those(self, others: UsedRows) -> UsedRows:
        """Return these and others."""
        if not len(others.question):
            return self
        return UsedRows(np.concatenate([self.question, others.question]), np.concatenate([self.row, others.row]))


@dataclass(frozen=True, slots=True)
class Firings:
    """Where a rule fired, question by question, and what is later than that.

    ``row`` is the last row of the moment (NEVER: it did not fire). Later is a row that lies after ``instant`` and on
    ``day`` or a later one, or, if it is date-only, on ``date`` or a later one; and in neither case one of the ``used``
    rows.
    """

    row: _Rows
    instant: Instants
    day: _Rows
    date: _Rows
    used: UsedRows

    def happened(self) -> _Mask:
        """Return for which questions the rule fired."""
        return np.not_equal(self.row, NEVER)

    def take(self, positions: _Rows) -> Firings:
        """Return the firings of some questions, of one several times if its position is there several times."""
        begins, rows = self.used_by_question()
        numbers = begins[positions + 1] - begins[positions]
        first = np.repeat(begins[positions] - (np.cumsum(numbers) - numbers), numbers)
        used = UsedRows(np.repeat(np.arange(len(positions)), numbers), rows[first + np.arange(len(first))])
        return Firings(
            self.row[positions], self.instant[positions], self.day[positions], self.date[positions], used
        )  # fmt: skip

    def used_by_question(self) -> tuple[_Rows, _Rows]:
        """Return where the used rows of each question begin, one more than there are questions, and the rows."""
        order = np.argsort(self.used.question, kind="stable")
        begins = np.searchsorted(self.used.question[order], np.arange(len(self.row) + 1))
        return begins, self.used.row[order]


_NONE = UsedRows(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def fire(
    journey: Journey, points: TouchpointColumns, questions: Questions, *, followed_only: bool = False
) -> RuleEvaluation:
    """Return where each stage's own rule fires first; with ``followed_only``, of stages that others come after.

    Stages that can be left count among the latter: what enters them again comes after a leave.
    """
    dated = bool(points.date_only.any())
    followed = {name for stage in journey.stages for name in stage.enter.follows()}
    followed |= {stage.name for stage in journey.stages if stage.leave is not None}
    takes = dated and bool(followed) and journey.spec.same_day == "counts"
    value = np.where(points.has_value, points.value, 0)
    turns = _turns(journey, points, value) if takes else _NONE.row
    evaluate = RuleEvaluation(journey, points, questions, value, dated, takes, turns, {})
    for i in journey.spec.in_order_of_rules():
        stage = journey.stages[i]
        if stage.name in followed or not followed_only:
            evaluate.fired[stage.name] = evaluate.rule(stage.enter, start_of_history(len(questions)))
    return evaluate


def start_of_history(questions: int) -> Firings:
    """Return what everything is later than."""
    rows, always = np.full(questions, -1, dtype=np.int64), np.full(questions, -NEVER, dtype=np.int64)
    return Firings(rows, always, always, always, _NONE)


@dataclass(frozen=True, slots=True)
class RuleEvaluation:
    """Rules asked of all questions: ``fired`` is where stages' own rules fire first, by name.

    Conditions on attributes may hold from the rows ``since`` on, question by question; None: from the first. ``masks``
    keeps which rows match a leaf, with the leaf itself: its id alone might become another's.
    """

    journey: Journey
    points: TouchpointColumns
    questions: Questions
    value: _Rows
    dated: bool
    takes: bool
    turns: _Rows
    fired: dict[str, Firings]
    since: _Rows | None = None
    masks: dict[int, tuple[Rule, _Mask]] = field(default_factory=dict)

    def later(self, positions: _Rows, instants: Instants, names: Collection[str]) -> RuleEvaluation:
        """Return the evaluation of some questions, in which attributes have to hold after an instant of each.

        ``names`` are the stages whose firings are needed.
        """
        questions = self.questions.take(positions)
        since = first_rows_after(self.points.occurred_at, questions.start, questions.stop, instants)
        fired = {name: self.fired[name].take(positions) for name in sorted(names)}
        return replace(self, questions=questions, fired=fired, since=since)

    def rule(self, rule: Rule, after: Firings) -> Firings:
        """Return where a rule fires that may use only rows later than ``after``."""
        if asks_for_attributes(rule):
            return reduce(self._earlier, [self._together(one, after) for one in alternatives(rule)])
        if rule.after:
            after = both(after, self.fired[rule.after])
        if rule.any:
            return reduce(self._earlier, [self.rule(child, after) for child in rule.any])
        if rule.all:
            return reduce(both, [self.rule(child, after) for child in rule.all])
        return self._leaf(rule, after)

    def _together(self, one: Alternative, after: Firings) -> Firings:
        """Return where the rules of an alternative have fired and, then or later, its states hold at one moment."""
        parts = [self.rule(rule, self._behind(stages, after)) for rule, stages in one.rules]
        fired = reduce(both, parts, self._behind(one.after, after))
        points, questions = self.points, self.questions
        mask = np.ones(len(points), dtype=np.bool_)
        for state in one.states:
            mask &= self._mask(state)
        row = first_holding(
            mask,
            points.visible_at,
            points.superseded_at,
            questions.start,
            questions.stop,
            questions.limit,
            fired.row if self.since is None else np.maximum(fired.row, self.since),
        )
        if not len(points) or not one.states:
            return replace(fired, row=row) if one.states else fired
        there = row % len(points)
        instant, date_only = points.occurred_at[there], points.date_only[there]
        never = np.full(len(row), -NEVER, dtype=np.int64)
        date = points.day[there] + np.int64(self.journey.spec.same_day == "later")
        waited = np.not_equal(row, fired.row)
        moment = np.where(waited & ~date_only, instant, never) if self.dated else np.where(waited, instant, never)
        own = Firings(row, moment, np.where(waited & date_only, date, never), np.where(waited, date, never), _NONE)
        return both(own, fired) if self.dated else both(replace(own, day=fired.day, date=fired.date), fired)

    def _behind(self, stages: Collection[str], after: Firings) -> Firings:
        return reduce(both, [self.fired[name] for name in sorted(stages)], after)

    def _earlier(self, one: Firings, other: Firings) -> Firings:
        """Return for each question the firing that came first; of two at one instant, what leaves more later."""
        pairs = [(self._instant(one), self._instant(other))]
        pairs += [(getattr(one, name), getattr(other, name)) for name in ("date", "day", "instant")]
        better = np.zeros(len(self.questions), dtype=np.bool_)
        for mine, its in reversed(pairs):
            better = np.where(its == mine, better, its < mine)
        return either(one, other, better)

    def _mask(self, leaf: Rule) -> _Mask:
        """Return at which rows a leaf matches, worked out once however many stays ask for it."""
        if id(leaf) not in self.masks:
            asks = leaf.attribute is not None
            units = self.journey.minor_units
            self.masks[id(leaf)] = leaf, state_mask(self.points, leaf) if asks else leaf_mask(self.points, leaf, units)
        return self.masks[id(leaf)][1]

    def _instant(self, firings: Firings) -> Instants:
        if not len(self.points):
            return firings.row
        return np.where(firings.happened(), self.points.occurred_at[firings.row % len(self.points)], NEVER)

    def _leaf(self, rule: Rule, after: Firings) -> Firings:
        points, questions = self.points, self.questions
        distinct, size = distinct_codes(points, rule)
        enough = rule.value_at_least
        ratio = exact(rule.growth.ratio if rule.growth else 0)
        used_from, used_row = after.used_by_question()
        row, by_day, *used = first_firing(
            self._mask(rule),
            points.occurred_at,
            points.day,
            points.date_only,
            points.visible_at,
            points.superseded_at,
            self.value,
            distinct,
            np.zeros(size, dtype=np.int64),
            self.dated,
            self.takes,
            self.turns,
            questions.start,
            questions.stop,
            questions.limit,
            after.row,
            after.instant,
            after.day,
            after.date,
            used_from,
            used_row,
            rule.count,
            enough is not None,
            0 if enough is None else math.ceil(minor(enough, self.journey.minor_units)),
            rule.within or NEVER,
            rule.growth.window if rule.growth else 0,
            ratio.numerator,
            ratio.denominator,
        )
        if not len(points):
            return replace(after, row=row)
        there = row % len(points)
        instant = points.occurred_at[there]
        if not self.dated:
            return both(Firings(row, instant, after.day, after.date, after.used), after)
        never = np.full(len(row), -NEVER, dtype=np.int64)
        date = points.day[there] + np.int64(self.journey.spec.same_day == "later")
        own = Firings(row, np.where(by_day, never, instant), np.where(by_day, date, never), date, UsedRows(*used))
        return both(own, after)


def either(one: Firings, other: Firings, better: _Mask) -> Firings:
    """Return for each question the one firing, or the other where that is marked as better."""
    return Firings(
        np.where(better, other.row, one.row),
        np.where(better, other.instant, one.instant),
        np.where(better, other.day, one.day),
        np.where(better, other.date, one.date),
        one.used.of(~better).and_those(other.used.of(better)),
    )


def both(one: Firings, other: Firings) -> Firings:
    """Return the firing of two rules that both have to hold: what is later is later than either."""
    return Firings(
        np.maximum(one.row, other.row),
        np.maximum(one.instant, other.instant),
        # Where no day decides there is but one array of them.
        one.day if one.day is other.day else np.maximum(one.day, other.day),
        one.date if one.date is other.date else np.maximum(one.date, other.date),
        one.used.and_those(other.used),
    )


def _turns(journey: Journey, points: TouchpointColumns, value: _Rows) -> _Rows:
    """Return the rows, those of one instant in the order in which a rule takes them.

    What the rules of later stages could use comes last, so that a day on which they can hold is not spoilt by a choice
    that nobody made. Names of events and the order of the log decide nothing: rows left equal are alike to all rules.
    """
    rows = np.arange(len(points))
    owner = points.owners()
    new = np.append(True, (owner[1:] != owner[:-1]) | (points.occurred_at[1:] != points.occurred_at[:-1]))
    tied = np.flatnonzero(~(new & np.append(new[1:], True)))
    leaves = [
        leaf for stage in journey.stages for rule in stage.rules for leaf in _leaves(rule, stage.leave is not None)
    ]
    masks = [leaf_mask(points, leaf, journey.minor_units)[tied] for leaf, _ in leaves]
    wanted = np.zeros(len(tied), dtype=np.int64)
    for mask, (_, follows) in zip(masks, leaves, strict=True):
        wanted += mask & follows
    counted = [ranks(distinct_column(points, leaf.distinct))[tied] for leaf, _ in leaves if leaf.distinct]
    keys = [*counted, value[tied], *masks, points.date_only[tied], wanted, np.cumsum(new)[tied]]
    rows[tied] = tied[np.lexsort(keys)]
    return rows


def _leaves(rule: Rule, follows: bool) -> Iterator[tuple[Rule, bool]]:
    """Yield the leaves of a rule, and whether an ``after`` stands above each."""
    follows = follows or rule.after is not None
    if rule.event:
        yield rule, follows
    for child in (rule.any or ()) + (rule.all or ()):
        yield from _leaves(child, follows)
