"""Stages, straight from the definitions: the rule is asked again, from nothing, at every instant."""

from __future__ import annotations

import operator as op
from collections.abc import Collection, Sequence
from fractions import Fraction

from tests.oracles.histories import Customer, Scalar, Touch, live

from cvj_ml.config import Journey, Rule

COMPARE = {"eq": op.eq, "ne": op.ne, "gt": op.gt, "gte": op.ge, "lt": op.lt, "lte": op.le}
MICROSECONDS_A_DAY = 24 * 60 * 60 * 1_000_000


def entries(journey: Journey, hidden: Collection[str], customer: Customer, minor_units: int) -> list[int | None]:
    """When each stage was entered: the first instant at which the rule fires on what was visible by then."""
    changes = {touch.visible for touch in customer.touches}
    changes |= {touch.superseded for touch in customer.touches if touch.superseded is not None}
    found: list[int | None] = [None] * len(journey.stages)
    for instant in sorted(changes):
        fired = fire(journey, live(customer, instant + 1), minor_units)
        for i, stage in enumerate(journey.stages):
            if found[i] is None and fired[stage.name] is not None and stage.name not in hidden:
                found[i] = instant
    return found


def occurrences(
    journey: Journey, hidden: Collection[str], customer: Customer, minor_units: int, cut: int
) -> list[int | None]:
    """When the touchpoint that completed each stage's evidence happened, as known at the cut."""
    rows = live(customer, cut)
    fired = fire(journey, rows, minor_units)
    return [
        None if (at := fired[stage.name]) is None or stage.name in hidden else rows[at].occurred
        for stage in journey.stages
    ]


def stage_at(entered: Sequence[int | None], as_of: int) -> tuple[int, float | None]:
    """The running maximum of the stages entered before ``as_of`` (-1: none), and the days since it got there."""
    highest, since = -1, None
    for instant, stage in sorted((at, i) for i, at in enumerate(entered) if at is not None and at < as_of):
        if stage > highest:
            # Of stages entered at one instant the highest is what the maximum was then.
            highest, since = stage, instant
    return highest, None if since is None else (as_of - since) / MICROSECONDS_A_DAY


def fire(journey: Journey, rows: Sequence[Touch], minor_units: int) -> dict[str, int | None]:
    """The position among the rows (in total order) at which each stage's own rule fires."""
    rules = {stage.name: stage.enter for stage in journey.stages}
    known: dict[str, int | None] = {}

    def own(name: str) -> int | None:
        if name not in known:
            known[name] = first(rules[name], -1)
        return known[name]

    def first(rule: Rule, after: int) -> int | None:
        """The first position later than ``after`` at which a rule fires."""
        if rule.after is not None:
            other = own(rule.after)
            if other is None:
                return None
            after = max(after, other)
        if rule.any is not None:
            some = [at for child in rule.any if (at := first(child, after)) is not None]
            return min(some) if some else None
        if rule.all is not None:
            every = [first(child, after) for child in rule.all]
            return None if None in every else max(at for at in every if at is not None)
        candidates = [i for i in range(after + 1, len(rows)) if matches(rule, rows[i], minor_units)]
        for i in candidates:
            if holds(rule, [rows[k] for k in candidates if k <= i], minor_units):
                return i
        return None

    return {name: own(name) for name in rules}


def holds(rule: Rule, rows: Sequence[Touch], minor_units: int) -> bool:
    """Whether the matching rows up to (and with) the last one satisfy a leaf there."""
    now = rows[-1].occurred
    window = [row for row in rows if rule.within is None or row.occurred > now - rule.within]
    if rule.distinct is None:
        number = len(window)
    else:
        number = len({value for row in window if (value := read(row, rule.distinct, minor_units)) is not None})
    enough = number >= rule.count
    if rule.value_at_least is not None:
        enough = enough and total(window) >= exact(rule.value_at_least) * minor_units
    if rule.growth is not None:
        width = rule.growth.window
        recent = total([row for row in rows if now - width < row.occurred])
        earlier = total([row for row in rows if now - 2 * width < row.occurred <= now - width])
        enough = enough and earlier > 0 and recent >= exact(rule.growth.ratio) * earlier
    return enough


def matches(rule: Rule, row: Touch, minor_units: int) -> bool:
    """Whether a touchpoint has a leaf's event and passes each of its tests; what is missing passes none."""
    if rule.event is None or not ("*" in rule.event or row.event in rule.event):
        return False
    for name, tests in rule.where.items():
        found = read(row, name, minor_units)
        for operator, operand in tests.items():
            operands = operand if isinstance(operand, list) else [operand]
            if found is None:
                return False
            wanted = [str(one) if isinstance(found, str) else exact(one) for one in operands]
            if not (found in wanted if operator == "in" else COMPARE[operator](found, wanted[0])):
                return False
    return True


def read(row: Touch, name: str, minor_units: int) -> str | Fraction | None:
    """A property, the channel or the value (in whole units) of a touchpoint."""
    if name == "channel":
        return row.channel
    if name == "value":
        return None if row.value is None else Fraction(row.value, minor_units)
    found: Scalar = row.properties.get(name)
    return found if found is None or isinstance(found, str) else exact(found)


def total(rows: Sequence[Touch]) -> int:
    """The sum of the values there are, in minor units."""
    return sum(row.value for row in rows if row.value is not None)


def exact(number: object) -> Fraction:
    """A number as it is written: 1.1 is eleven tenths."""
    return Fraction(repr(float(number)))  # type: ignore[arg-type]
