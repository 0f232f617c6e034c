"""Entry rules evaluated on sets of touchpoints.

A rule looks at a set of touchpoints in the total order of occurrence and *fires* at the first touchpoint that,
together with those before it, satisfies the rule. A *question* is one customer and one instant: "where does the
rule fire on what was live then?". Leaves become boolean masks once per block; the compiled pass sees masks and
codes only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import Journey, Rule
from cvj_ml.errors import ConfigError
from cvj_ml.histories import Column, Text, Touchpoints
from cvj_ml.windows import NEVER, Instants, is_live

ANY_EVENT = "*"
NOT_FIRED = -1

_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows ``[start, stop)`` of one customer, as live just before ``limit``; arrays of one length."""

    start: _Rows
    stop: _Rows
    limit: Instants


def fire(journey: Journey, touchpoints: Touchpoints, questions: Questions, minor_units: int) -> _Rows:
    """Return the row at which each stage's own rule fires: (questions, stages), NOT_FIRED where it does not.

    ``minor_units`` is how many minor units make one unit of ``value`` in the rules.
    """
    fired = np.full((len(questions.start), len(journey.stages)), NOT_FIRED, dtype=np.int64)
    evaluate = _Evaluation(journey, touchpoints, questions, minor_units, fired)
    for i in journey.in_order_of_rules():
        fired[:, i] = evaluate.rule(journey.stages[i].enter, evaluate.start_of_history())
    return fired


@dataclass(frozen=True, slots=True)
class _Evaluation:
    journey: Journey
    touchpoints: Touchpoints
    questions: Questions
    minor_units: int
    fired: _Rows

    def start_of_history(self) -> _Rows:
        return np.full(len(self.questions.start), -1, dtype=np.int64)

    def rule(self, rule: Rule, after: _Rows) -> _Rows:
        """Return the firing rows of a rule that may use only rows later than ``after``."""
        if rule.after:
            other = self.fired[:, self.journey.index(rule.after)]
            # What follows something that never happened cannot happen: no row is later than NEVER.
            after = np.maximum(after, np.where(other == NOT_FIRED, NEVER, other))
        if rule.any:
            rows = np.stack([self.rule(child, after) for child in rule.any])
            first = np.where(rows == NOT_FIRED, NEVER, rows).min(axis=0)
            return np.where(first == NEVER, NOT_FIRED, first)
        if rule.all:
            rows = np.stack([self.rule(child, after) for child in rule.all])
            return np.where((rows == NOT_FIRED).any(axis=0), NOT_FIRED, rows.max(axis=0))
        return self._leaf(rule, after)

    def _leaf(self, rule: Rule, after: _Rows) -> _Rows:
        points, questions = self.touchpoints, self.questions
        distinct, size = distinct_codes(points, rule)
        enough = rule.value_at_least
        ratio = _exact(rule.growth.ratio if rule.growth else 0)
        out: _Rows = _first_firing(
            leaf_mask(points, rule, self.minor_units),
            points.occurred_at,
            points.visible_at,
            points.superseded_at,
            np.where(points.has_value, points.value, 0),
            distinct,
            np.zeros(size, dtype=np.int64),
            questions.start,
            questions.stop,
            questions.limit,
            after,
            rule.count,
            enough is not None,
            0 if enough is None else math.ceil(_minor(enough, self.minor_units)),
            rule.within or NEVER,
            rule.growth.window if rule.growth else 0,
            ratio.numerator,
            ratio.denominator,
        )
        return out


def leaf_mask(points: Touchpoints, rule: Rule, minor_units: int) -> _Mask:
    """Return which rows have a leaf's event and pass its ``where``; what is missing passes no test."""
    names = frozenset(rule.event or ())
    mask = np.ones(len(points), dtype=np.bool_) if ANY_EVENT in names else points.event.isin(names)
    for name, tests in rule.where.items():
        for operator, operand in tests.items():
            if name == "value":
                bounds = [float(_minor(x, minor_units)) for x in (operand if isinstance(operand, list) else [operand])]
                mask = mask & points.has_value & _holds(points.value, operator, bounds)
            else:
                mask = mask & _column_test(_column(points, name), name, operator, operand)
    return mask


def _exact(number: object) -> Fraction:
    """Return the number as it was written: 1.1 is 11/10, which no float is."""
    try:
        return Fraction(str(number))
    except ValueError:
        raise ConfigError("journey: where value: value is a number, but the rule compares it with text.") from None


def _minor(number: object, minor_units: int) -> Fraction:
    return _exact(number) * minor_units


def _column(points: Touchpoints, name: str) -> Column:
    """Return a property; one that no source provides is missing everywhere (``observability`` has told the user)."""
    if name == "channel":
        return points.channel
    return points.properties.get(name, np.full(len(points), np.nan))


def _column_test(column: Column, name: str, operator: str, operand: object) -> _Mask:
    operands: list[Any] = operand if isinstance(operand, list) else [operand]
    if isinstance(column, Text):
        if operator not in ("eq", "ne", "in"):
            raise ConfigError(
                f"journey: where {name}: {operator} compares numbers, but {name} is text; use eq, ne or in."
            )
        texts = frozenset(str(item) for item in operands)
        passes: _Mask = (column.codes >= 0) & (column.isin(texts) != (operator == "ne"))
        return passes
    try:
        numbers = [float(item) for item in operands]
    except (TypeError, ValueError):
        raise ConfigError(f"journey: where {name}: {name} is a number, but the rule compares it with text.") from None
    present: _Mask = ~np.isnan(column)
    return present & _holds(column, operator, numbers)


def _holds(
    values: npt.NDArray[np.float64] | npt.NDArray[np.int64], operator: str, operands: list[float] | list[int]
) -> _Mask:
    first = operands[0]
    held: _Mask
    match operator:
        case "eq":
            held = values == first
        case "ne":
            held = values != first
        case "gt":
            held = values > first
        case "gte":
            held = values >= first
        case "lt":
            held = values < first
        case "lte":
            held = values <= first
        case _:
            held = np.isin(values, operands)
    return held


def distinct_codes(points: Touchpoints, rule: Rule) -> tuple[npt.NDArray[np.int32], int]:
    """Return codes of the property whose distinct values count (-1 is missing), and how many codes there are."""
    if rule.distinct is None:
        return np.zeros(0, dtype=np.int32), 0
    if rule.distinct == "value":
        column: Column = np.where(points.has_value, points.value, np.nan)
    else:
        column = _column(points, rule.distinct)
    if isinstance(column, Text):
        return column.codes, len(column.values)
    values, codes = np.unique(column, return_inverse=True)
    return np.where(np.isnan(column), -1, codes).astype(np.int32), len(values)


@compiled
def _first_firing(
    mask: _Mask,
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    value: _Rows,
    distinct: npt.NDArray[np.int32],
    tally: _Rows,
    starts: _Rows,
    stops: _Rows,
    limits: Instants,
    after: _Rows,
    count: int,
    needs_sum: bool,
    enough: int,
    within: int,
    growth_window: int,
    ratio_numerator: int,
    ratio_denominator: int,
) -> _Rows:
    """Return for each question the first row at which count, sum and growth conditions hold together.

    The window ``(t - within, t]`` slides with the row's ``t``; ``tail`` is its first row. For growth,
    ``middle`` and ``back`` begin ``(t - w, t]`` and ``(t - 2w, t - w]``.
    """
    fired = np.full(len(starts), NOT_FIRED, dtype=np.int64)
    for q in range(len(starts)):
        first = max(starts[q], after[q] + 1) if after[q] < stops[q] else stops[q]
        tail, middle, back = first, first, first
        number, total, recent, earlier = 0, 0, 0, 0
        row = first
        while row < stops[q]:
            if mask[row] and is_live(visible_at[row], superseded_at[row], limits[q]):
                now = occurred_at[row]
                if len(distinct) == 0:
                    number += 1
                elif distinct[row] >= 0:
                    tally[distinct[row]] += 1
                    if tally[distinct[row]] == 1:
                        number += 1
                total += value[row]
                # Written so that a window as long as NEVER cannot overflow.
                while now - occurred_at[tail] >= within:
                    if mask[tail] and is_live(visible_at[tail], superseded_at[tail], limits[q]):
                        total -= value[tail]
                        if len(distinct) == 0:
                            number -= 1
                        elif distinct[tail] >= 0:
                            tally[distinct[tail]] -= 1
                            if tally[distinct[tail]] == 0:
                                number -= 1
                    tail += 1
                holds = number >= count and (not needs_sum or total >= enough)
                if growth_window > 0:
                    recent += value[row]
                    while now - occurred_at[middle] >= growth_window:
                        if mask[middle] and is_live(visible_at[middle], superseded_at[middle], limits[q]):
                            recent -= value[middle]
                            earlier += value[middle]
                        middle += 1
                    while now - occurred_at[back] >= 2 * growth_window:
                        if mask[back] and is_live(visible_at[back], superseded_at[back], limits[q]):
                            earlier -= value[back]
                        back += 1
                    holds = holds and earlier > 0 and recent * ratio_denominator >= ratio_numerator * earlier
                if holds:
                    fired[q] = row
                    break
            row += 1
        if len(distinct) > 0:
            for seen in range(first, min(row + 1, stops[q])):
                if distinct[seen] >= 0:
                    tally[distinct[seen]] = 0
    return fired
