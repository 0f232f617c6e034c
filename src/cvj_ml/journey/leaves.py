"""A leaf of a rule: which touchpoints match it, and the first moment at which its conditions hold."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY, Rule
from cvj_ml.errors import ConfigError
from cvj_ml.histories import Column, Text, TouchpointColumns
from cvj_ml.windows import NEVER, Instants, is_live

ANY_EVENT = "*"

_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


def leaf_mask(points: TouchpointColumns, rule: Rule, minor_units: int) -> _Mask:
    """Return which rows have a leaf's event and pass its ``where``; what is missing passes no test."""
    names = frozenset(rule.event or ())
    mask = points.event.codes >= 0 if ANY_EVENT in names else points.event.isin(names)
    for name, tests in rule.where.items():
        for operator, operand in tests.items():
            if name == "value":
                bounds = [float(minor(x, minor_units)) for x in (operand if isinstance(operand, list) else [operand])]
                mask &= points.has_value & _holds(points.value, operator, bounds)
            else:
                mask &= column_passes(_column(points, name), name, operator, operand)
    return mask


def exact(number: object) -> Fraction:
    """Return the number as it was written: 1.1 is 11/10, which no float is."""
    try:
        return Fraction(str(number))
    except ValueError:
        raise ConfigError("journey: where value: value is a number, but the rule compares it with text.") from None


def minor(number: object, minor_units: int) -> Fraction:
    """Return a number of whole units in minor ones."""
    return exact(number) * minor_units


def _column(points: TouchpointColumns, name: str) -> Column:
    """Return a property; one that no source provides is missing everywhere (``observability`` has told the user)."""
    if name == "channel":
        return points.channel
    return points.properties.get(name, np.full(len(points), np.nan))


def column_passes(column: Column, name: str, operator: str, operand: object) -> _Mask:
    """Return which rows of a column pass a test; what is missing passes none."""
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


def distinct_codes(points: TouchpointColumns, rule: Rule) -> tuple[npt.NDArray[np.int32], int]:
    """Return codes of the property whose distinct values count (-1 is missing), and how many codes there are."""
    if rule.distinct is None:
        return np.zeros(0, dtype=np.int32), 0
    column = distinct_column(points, rule.distinct)
    if isinstance(column, Text):
        return column.codes, len(column.values)
    values, codes = np.unique(column, return_inverse=True)
    return np.where(np.isnan(column), -1, codes).astype(np.int32), len(values)


def distinct_column(points: TouchpointColumns, name: str) -> Column:
    """Return the property of which distinct values count; the value is one, too."""
    return np.where(points.has_value, points.value, np.nan) if name == "value" else _column(points, name)


def ranks(column: Column) -> npt.NDArray[np.float64] | _Rows:
    """Return a column as numbers in the order of its values, which codes need not be in."""
    if not isinstance(column, Text):
        return np.nan_to_num(column, nan=-np.inf)
    rank = np.full(len(column.values) + 1, -1, dtype=np.int64)
    rank[sorted(range(len(column.values)), key=column.values.__getitem__)] = np.arange(len(column.values))
    return rank[column.codes]


@compiled
def first_firing(
    mask: _Mask,
    occurred_at: Instants,
    day: npt.NDArray[np.int32],
    date_only: _Mask,
    visible_at: Instants,
    superseded_at: Instants,
    value: _Rows,
    distinct: npt.NDArray[np.int32],
    tally: _Rows,
    dated: bool,
    takes: bool,
    turns: _Rows,
    starts: _Rows,
    stops: _Rows,
    limits: Instants,
    after_row: _Rows,
    after_instant: Instants,
    after_day: _Rows,
    after_date: _Rows,
    used_from: _Rows,
    used_row: _Rows,
    count: int,
    needs_sum: bool,
    enough: int,
    within: int,
    growth_window: int,
    ratio_numerator: int,
    ratio_denominator: int,
) -> tuple[_Rows, _Mask, _Rows, _Rows]:
    """Return for each question the first moment at which count, sum and growth conditions hold together.

    That is: the last row of the moment, whether its rows are date-only, and the pairs (question, row) used up by it.
    A window ``(t - within, t]`` slides with the moment's ``t``. Where one of two rows is date-only, their distance is
    that of their days, so what a window holds depends on which kind of row it is seen from: such histories are walked
    twice, once for each kind (``by_day`` first, which wins a tie), and each kind leaves a window on its own.
    ``ends`` are, for each kind, the first rows of ``(t - within, t]``, ``(t - w, t]`` and ``(t - 2w, t - w]``.
    """
    fired = np.full(len(starts), NEVER, dtype=np.int64)
    fired_by_day = np.zeros(len(starts), dtype=np.bool_)
    taken_question, taken_row = [0][:0], [0][:0]
    counted = np.zeros(len(mask), dtype=np.bool_)
    used_by = np.full(len(mask) if dated else 0, -1, dtype=np.int64)
    ends = np.zeros((3, 2), dtype=np.int64)
    kinds = 2 if dated else 1
    slides = within < NEVER or growth_window > 0
    remembers = slides or takes
    for q in range(len(starts)):
        if after_row[q] == NEVER:
            continue
        start, stop = starts[q], stops[q]
        # Of dates the row itself does not tell what is later than the stage before.
        first = start if dated else max(start, after_row[q])
        if dated:
            for i in range(used_from[q], used_from[q + 1]):
                used_by[used_row[i]] = q
        else:
            while first < stop and occurred_at[first] <= after_instant[q]:
                first += 1
        found, found_number, found_total = NEVER, 0, 0
        for walk in range(kinds):
            by_day = dated and walk == 0
            number, total, recent, earlier = 0, 0, 0, 0
            if slides:
                ends[:] = first
            now, today = np.int64(0), np.int64(0)
            last, asked, came_number, came_total = -1, False, 0, 0
            row = first
            while True:
                if last < 0:
                    while row < stop and not (mask[row] and is_live(visible_at[row], superseded_at[row], limits[q])):
                        if remembers:
                            counted[row] = False
                        row += 1
                elif row == stop or occurred_at[row] != now:
                    # The moment is whole.
                    for kind in range(kinds if slides else 0):
                        days = by_day or kind == 1
                        if within < NEVER:
                            tail = ends[0, kind]
                            while tail < row:
                                if counted[tail] and (not dated or date_only[tail] == (kind == 1)):
                                    age = (today - day[tail]) * DAY if days else now - occurred_at[tail]
                                    if age < within:
                                        break
                                    total -= value[tail]
                                    if len(distinct) == 0:
                                        number -= 1
                                    elif distinct[tail] >= 0:
                                        tally[distinct[tail]] -= 1
                                        if tally[distinct[tail]] == 0:
                                            number -= 1
                                tail += 1
                            ends[0, kind] = tail
                        if growth_window > 0:
                            middle = ends[1, kind]
                            while middle < row:
                                if counted[middle] and (not dated or date_only[middle] == (kind == 1)):
                                    age = (today - day[middle]) * DAY if days else now - occurred_at[middle]
                                    if age < growth_window:
                                        break
                                    recent -= value[middle]
                                    earlier += value[middle]
                                middle += 1
                            ends[1, kind] = middle
                            back = ends[2, kind]
                            while back < row:
                                if counted[back] and (not dated or date_only[back] == (kind == 1)):
                                    age = (today - day[back]) * DAY if days else now - occurred_at[back]
                                    if age < 2 * growth_window:
                                        break
                                    earlier -= value[back]
                                back += 1
                            ends[2, kind] = back
                    holds = asked and number >= count and (not needs_sum or total >= enough)
                    if holds and growth_window > 0:
                        holds = earlier > 0 and recent * ratio_denominator >= ratio_numerator * earlier
                    if holds:
                        found, fired_by_day[q] = last, by_day
                        found_number, found_total = number - came_number, total - came_total
                        break
                    last, asked, came_number, came_total = -1, False, 0, 0
                if row == stop:
                    break
                if dated and found != NEVER and occurred_at[row] >= occurred_at[found]:
                    break
                counts = mask[row] and is_live(visible_at[row], superseded_at[row], limits[q])
                if counts and dated:
                    if used_by[row] == q:
                        counts = False
                    elif date_only[row]:
                        counts = day[row] >= after_date[q]
                    else:
                        counts = occurred_at[row] > after_instant[q] and day[row] >= after_day[q]
                if remembers:
                    counted[row] = counts
                if counts:
                    if last < 0:
                        now, today = occurred_at[row], np.int64(day[row])
                    last = row
                    asked = asked or not dated or date_only[row] == by_day
                    if len(distinct) == 0:
                        number += 1
                        came_number += 1
                    elif distinct[row] >= 0:
                        tally[distinct[row]] += 1
                        if tally[distinct[row]] == 1:
                            number += 1
                            came_number += 1
                    total += value[row]
                    recent += value[row]
                    came_total += value[row]
                row += 1
            if len(distinct) > 0:
                for seen in range(first, row):
                    if distinct[seen] >= 0:
                        tally[distinct[seen]] = 0
        fired[q] = found
        if takes and found != NEVER:
            begin, end = found, found + 1
            while begin > first and occurred_at[begin - 1] == occurred_at[found]:
                begin -= 1
            while end < stop and occurred_at[end] == occurred_at[found]:
                end += 1
            # What the rule already had on that day was needed; of the moment itself, as little as was still missing.
            earlier_row = begin - 1
            while earlier_row >= first and day[earlier_row] == day[found]:
                if counted[earlier_row]:
                    taken_question.append(q)
                    taken_row.append(earlier_row)
                earlier_row -= 1
            for i in range(begin, end):
                row = turns[i]
                if not counted[row]:
                    continue
                taken_question.append(q)
                taken_row.append(row)
                found_number += 1
                found_total += value[row]
                if (
                    len(distinct) == 0
                    and growth_window == 0
                    and found_number >= count
                    and (not needs_sum or found_total >= enough)
                ):
                    break
    return fired, fired_by_day, np.array(taken_question, dtype=np.int64), np.array(taken_row, dtype=np.int64)
