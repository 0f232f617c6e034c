"""Stages, straight from the definitions: the rule is asked again, from nothing, at every instant."""

from __future__ import annotations

import math
import operator as op
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tests.oracles.histories import Customer, Scalar, Touch, Version, live

from cvj_ml.config import JourneySpec, Rule

COMPARE = {"eq": op.eq, "ne": op.ne, "gt": op.gt, "gte": op.ge, "lt": op.lt, "lte": op.le}
MICROSECONDS_A_DAY = 24 * 60 * 60 * 1_000_000


def entries(journey: JourneySpec, hidden: Collection[str], customer: Customer, minor_units: int) -> list[int | None]:
    """When each stage was entered: the first instant at which the rule fires on what was visible by then."""
    changes = {touch.visible for touch in customer.touches}
    changes |= {touch.superseded for touch in customer.touches if touch.superseded is not None}
    if any(asks_for_attributes(stage.enter) for stage in journey.stages):
        changes |= {version.known for version in customer.versions}
    found: list[int | None] = [None] * len(journey.stages)
    for instant in sorted(changes):
        versions = [one for one in customer.versions if one.known <= instant]
        fired = fire(journey, live(customer, instant + 1), minor_units, versions)
        for i, stage in enumerate(journey.stages):
            if found[i] is None and fired[stage.name] is not None and stage.name not in hidden:
                found[i] = instant
    return found


def occurrences(
    journey: JourneySpec, hidden: Collection[str], customer: Customer, minor_units: int, cut: int
) -> list[int | None]:
    """When the touchpoint that completed each stage's evidence happened, as known at the cut."""
    versions = [one for one in customer.versions if one.known < cut]
    fired = fire(journey, live(customer, cut), minor_units, versions)
    return [None if stage.name in hidden else fired[stage.name] for stage in journey.stages]


@dataclass(frozen=True)
class Stay:
    """A stay in a stage as it happened; ``leave`` is None where it has not ended, ``silent`` if silence ended it.

    ``left`` is what may still count after it.
    """

    enter: int
    leave: int | None
    silent: bool
    left: Fired | None


def stays_that_happened(
    journey: JourneySpec, customer: Customer, minor_units: int, cut: int
) -> dict[str, list[Stay]]:  # fmt: skip
    """All stays by what was known before the cut: entered, left, and entered again by what came later than that."""
    versions = [one for one in customer.versions if one.known < cut]
    return all_stays(journey, live(customer, cut), minor_units, versions)


def spans(
    journey: JourneySpec, hidden: Collection[str], customer: Customer, minor_units: int
) -> dict[str, list[tuple[int, int | None]]]:
    """When each stage was held, by what was known at each instant: asked anew at every instant that could matter."""
    changes = {touch.visible for touch in customer.touches}
    changes |= {touch.superseded for touch in customer.touches if touch.superseded is not None}
    if any(asks_for_attributes(rule) for stage in journey.stages for rule in stage.rules):
        changes |= {version.known for version in customer.versions}
    happened = {touch.occurred for touch in customer.touches} | {one.known for one in customer.versions}
    silences = {stage.leave.silence for stage in journey.stages if stage.leave is not None} - {None}
    changes |= {instant + silence for instant in happened for silence in silences if silence is not None}
    found: dict[str, list[tuple[int, int | None]]] = {name: [] for name in journey.names}
    for instant in sorted(changes):
        known = stays_that_happened(journey, customer, minor_units, instant + 1)
        for stage in journey.stages:
            there = [one for one in known[stage.name] if one.leave is None or one.leave > instant]
            spent = found[stage.name]
            is_there = bool(spent) and spent[-1][1] is None
            if stage.name in hidden or bool(there) == is_there or (is_there and stage.leave is None):
                continue
            if there:
                spent.append((instant, None))
            else:
                spent[-1] = (spent[-1][0], instant)
    # Nothing lasts no time at all.
    return {name: [one for one in spent if one[0] != one[1]] for name, spent in found.items()}


def held(spent: Sequence[tuple[int, int | None]], as_of: int) -> bool:
    """Whether one of the spans holds just before an instant."""
    return any(enter < as_of and (leave is None or leave >= as_of) for enter, leave in spent)


def stage_at(entered: Sequence[int | None], as_of: int) -> tuple[int, float | None]:
    """The running maximum of the stages entered before ``as_of`` (-1: none), and the days since it got there."""
    highest, since = -1, None
    for instant, stage in sorted((at, i) for i, at in enumerate(entered) if at is not None and at < as_of):
        if stage > highest:
            # Of stages entered at one instant the highest is what the maximum was then.
            highest, since = stage, instant
    return highest, None if since is None else (as_of - since) / MICROSECONDS_A_DAY


@dataclass(frozen=True)
class Fired:
    """When a rule came to hold, and what may still count for a rule that asks for something later.

    ``moment`` is the instant. ``bounds`` hold one entry for each touchpoint-like thing that has to be behind: the
    instant and the day on which it happened, and whether only the day is known. ``needed`` are touchpoints of those
    days without which the rule would not have held. ``silences`` are instants of silences that have to be behind.
    """

    moment: int
    bounds: tuple[tuple[int, int, bool], ...] = ()
    needed: frozenset[int] = frozenset()
    silences: tuple[int, ...] = ()


def fire(
    journey: JourneySpec, rows: Sequence[Touch], minor_units: int, versions: Sequence[Version] = ()
) -> dict[str, int | None]:
    """When each stage's own rule fires, on these rows and no others."""
    found = firings(journey, rows, minor_units, versions)
    return {name: None if one is None else one.moment for name, one in found.items()}


def firings(
    journey: JourneySpec, rows: Sequence[Touch], minor_units: int, versions: Sequence[Version] = ()
) -> dict[str, Fired | None]:
    """How each stage's own rule fires first, on these rows and no others."""
    first = asker(journey, rows, minor_units, versions)
    return {stage.name: first(stage.enter, Fired(-1), -(2**62)) for stage in journey.stages}


def all_stays(
    journey: JourneySpec, rows: Sequence[Touch], minor_units: int, versions: Sequence[Version] = ()
) -> dict[str, list[Stay]]:
    """How each stage is entered and left, on these rows and no others."""
    first = asker(journey, rows, minor_units, versions)
    found: dict[str, list[Stay]] = {}
    for stage in journey.stages:
        spent: list[Stay] = found.setdefault(stage.name, [])
        entered = first(stage.enter, Fired(-1), -(2**62))
        while entered is not None:
            left, silent = None, False
            if stage.leave is not None:
                left, silent = min(
                    ways_to_leave(first, stage.leave, rows, entered),
                    key=lambda way: (way[0].moment, way[1]),
                    default=(None, False),
                )
            spent.append(Stay(entered.moment, left and left.moment, silent, left))
            # What was needed once never counts again, however many stays ago.
            found_again = first(stage.enter, left, left.moment) if left is not None else None
            entered = together([found_again, left]) if found_again is not None and left is not None else None
    return found


def ways_to_leave(first: Asker, rule: Rule, rows: Sequence[Touch], entered: Fired) -> Iterator[tuple[Fired, bool]]:
    """How a stay could end, and whether that is silence."""
    if rule.any is not None:
        for child in rule.any:
            yield from ways_to_leave(first, child, rows, entered)
    elif rule.silent_for is not None:
        heard = sorted(
            [entered.moment, *(row.occurred for row in rows if row.inbound and row.occurred > entered.moment)]
        )
        silent = min(at for at, then in zip(heard, [*heard[1:], 2**62], strict=True) if then - at >= rule.silent_for)
        at = silent + rule.silent_for
        yield replace(together([entered, Fired(at)]), silences=(*entered.silences, at)), True
    elif (found := first(rule, entered, entered.moment)) is not None:
        yield together([found, entered]), False


Asker = Callable[[Rule, Fired, int], "Fired | None"]


def asker(
    journey: JourneySpec, rows: Sequence[Touch], minor_units: int, versions: Sequence[Version]
) -> Asker:  # fmt: skip
    """A question: how a rule fires by what is later than a firing, attributes holding later than an instant."""
    rules = {stage.name: stage.enter for stage in journey.stages}
    leaves = [
        found
        for stage in journey.stages
        for rule in stage.rules
        for found in all_leaves(rule, stage.leave is not None)
    ]  # fmt: skip
    known: dict[str, Fired | None] = {}
    since = -(2**62)

    def own(name: str) -> Fired | None:
        nonlocal since
        if name not in known:
            since, before = -(2**62), since
            known[name] = first(rules[name], Fired(-1))
            since = before
        return known[name]

    def by_state(rule: Rule, after: Fired) -> Fired | None:
        """The first moment at which the whole rule is true, with the attributes as known at that moment."""
        moments = {row.occurred for row in rows} | {one.known for one in versions if one.known > -(2**62)}
        for moment in sorted(one for one in moments if one > since):
            if is_true(rule, after, moment):
                return Fired(moment, ((moment, moment // MICROSECONDS_A_DAY, False),))
        return None

    def is_true(rule: Rule, after: Fired, moment: int) -> bool:
        if not asks_for_attributes(rule):
            found = first(rule, after)
            return found is not None and found.moment <= moment
        if rule.after is not None:
            other = own(rule.after)
            if other is None:
                return False
            after = together([after, other])
        if rule.attribute is not None:
            known = [one for one in versions if one.known <= moment]
            return after.moment <= moment and bool(known) and passes(rule, known[-1], minor_units)
        if rule.any is not None:
            return any(is_true(child, after, moment) for child in rule.any)
        return all(is_true(child, after, moment) for child in rule.all or ())

    def first(rule: Rule, after: Fired) -> Fired | None:
        if asks_for_attributes(rule):
            return by_state(rule, after)
        if rule.after is not None:
            other = own(rule.after)
            if other is None:
                return None
            after = together([after, other])
        if rule.any is not None:
            some = [found for child in rule.any if (found := first(child, after)) is not None]
            return min(some, key=lambda one: (one.moment, *strictness(journey, one))) if some else None
        if rule.all is not None:
            every = [first(child, after) for child in rule.all]
            return None if None in every else together([one for one in every if one is not None])
        usable = [
            i
            for i, row in enumerate(rows)
            if matches(rule, row, minor_units) and i not in after.needed and is_later(journey, row, after)
        ]
        for moment in sorted({rows[i].occurred for i in usable}):
            for by_day in (True, False):
                found = leaf(rule, [i for i in usable if rows[i].occurred <= moment], moment, by_day)
                if found is not None:
                    return together([found, after])
        return None

    def leaf(rule: Rule, so_far: Sequence[int], moment: int, by_day: bool) -> Fired | None:
        """The firing of a leaf at one moment, seen from its date-only rows or from its others."""
        present = [i for i in so_far if rows[i].occurred == moment]
        seen_from = next((rows[i] for i in present if rows[i].date_only == by_day), None)
        if seen_from is None or not holds(rule, [rows[i] for i in so_far], seen_from, minor_units):
            return None
        needed = {i for i in so_far if rows[i].day == seen_from.day and rows[i].occurred < moment}
        before = [i for i in so_far if rows[i].occurred < moment]
        simple = rule.distinct is None and rule.growth is None
        for n, i in enumerate(sorted(present, key=lambda i: turn(rows[i])), 1):
            taken = [*before, *sorted(present, key=lambda i: turn(rows[i]))[:n]]
            needed.add(i)
            if simple and holds(rule, [rows[k] for k in taken], seen_from, minor_units):
                break
        return Fired(moment, ((moment, seen_from.day, by_day),), frozenset(needed))

    def turn(row: Touch) -> tuple[object, ...]:
        """What no later stage could use is taken first; names decide nothing."""
        passes = [matches(rule, row, minor_units) for rule, _ in leaves]
        wanted = sum(found and follows for found, (_, follows) in zip(passes, leaves, strict=True))
        counted = [read(row, rule.distinct, minor_units) for rule, _ in leaves if rule.distinct]
        return (
            wanted,
            row.date_only,
            [*reversed(passes)],
            row.value or 0,
            [(one is not None, one or 0) for one in reversed(counted)],
        )

    def ask(rule: Rule, after: Fired, later_than: int) -> Fired | None:
        nonlocal since
        since = later_than
        return first(rule, after)

    return ask


def together(parts: Sequence[Fired]) -> Fired:
    """The firing of several rules that all have to hold."""
    return Fired(
        max(one.moment for one in parts),
        tuple(bound for one in parts for bound in one.bounds),
        frozenset().union(*(one.needed for one in parts)),
        tuple(at for one in parts for at in one.silences),
    )


def is_later(journey: JourneySpec, row: Touch, after: Fired) -> bool:
    """Whether a row lies later in time than all that a rule comes after."""
    for moment, day, by_day in after.bounds:
        if row.date_only or by_day:
            if row.day < day or (row.day == day and journey.same_day == "later"):
                return False
        elif row.occurred <= moment:
            return False
    # A day stands at the midnight that begins it: whatever happened on it came after that.
    return all(row.occurred > at or (row.date_only and row.occurred == at) for at in after.silences)


def strictness(journey: JourneySpec, one: Fired) -> tuple[float, float, float]:
    """How little a firing leaves later than itself: by the days of dates, the days of instants, and the instant."""
    lost = journey.same_day == "later"
    return (
        max(day + lost for _, day, _ in one.bounds),
        max((day + lost for _, day, by_day in one.bounds if by_day), default=-math.inf),
        max((moment for moment, _, by_day in one.bounds if not by_day), default=-math.inf),
    )


def all_leaves(rule: Rule, follows: bool) -> Iterator[tuple[Rule, bool]]:
    """The leaves of a rule, and whether an ``after`` stands above each."""
    follows = follows or rule.after is not None
    if rule.event is not None:
        yield rule, follows
    for child in (*(rule.any or ()), *(rule.all or ())):
        yield from all_leaves(child, follows)


def holds(rule: Rule, rows: Sequence[Touch], now: Touch, minor_units: int) -> bool:
    """Whether matching rows up to (and with) the moment of ``now`` satisfy a leaf there."""

    def ago(row: Touch) -> int:
        """How long before now: by the calendar where one of the two has no time."""
        if row.date_only or now.date_only:
            return (now.day - row.day) * MICROSECONDS_A_DAY
        return now.occurred - row.occurred

    window = [row for row in rows if rule.within is None or ago(row) < rule.within]
    if rule.distinct is None:
        number = len(window)
    else:
        number = len({value for row in window if (value := read(row, rule.distinct, minor_units)) is not None})
    enough = number >= rule.count
    if rule.value_at_least is not None:
        enough = enough and total(window) >= exact(rule.value_at_least) * minor_units
    if rule.growth is not None:
        width = rule.growth.window
        recent = total([row for row in rows if ago(row) < width])
        earlier = total([row for row in rows if width <= ago(row) < 2 * width])
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


def asks_for_attributes(rule: Rule) -> bool:
    """Whether a rule asks for attributes anywhere."""
    return rule.attribute is not None or any(map(asks_for_attributes, (*(rule.any or ()), *(rule.all or ()))))


def passes(rule: Rule, version: Version, minor_units: int) -> bool:
    """Whether a version of attributes passes each test of a condition."""
    row = Touch(0, 0, None, 0, "", None, None, False, version.values)
    return matches(Rule(event=("*",), where=rule.attribute or {}), row, minor_units)


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
