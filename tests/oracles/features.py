"""Features of one snapshot, one at a time, as lists are read by eye. NaN stands for what is not known."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from math import nan

from tests.oracles.histories import Customer, Touch, live
from tests.oracles.journey import (
    MICROSECONDS_A_DAY,
    Fired,
    entries,
    exact,
    firings,
    is_later,
    matches,
    read,
    stage_at,
    together,
    total,
)

from cvj_ml.config import JourneySpec, Rule

SECONDS_A_DAY = 86_400


def features(
    journey: JourneySpec,
    hidden: Collection[str],
    customer: Customer,
    as_of: int,
    *,
    events: Sequence[str],
    channels: Sequence[str],
    windows: Mapping[str, int],
    trend: int,
    session_gap: int,
    minor_units: int,
    observed_from: int,
    numbers: Sequence[str] = (),
    categories: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """Every feature by name."""
    all_entered = dict(zip(journey.names, entries(journey, hidden, customer, minor_units), strict=True))
    entered = {name: at for name, at in all_entered.items() if name not in hidden}
    rows = [touch for touch in live(customer, as_of) if touch.occurred < as_of]
    result: dict[str, float] = {}
    named = [("event", name) for name in (*events, "other")] + [("channel", name) for name in (*channels, "other")]

    def kind(touch: Touch, what: str) -> str | None:
        found, known = (touch.event, events) if what == "event" else (touch.channel, channels)
        return None if found is None else found if found in known else "other"

    for suffix, width in (*windows.items(), ("all", None)):
        whole = width is None or as_of - width >= observed_from
        inside = [touch for touch in rows if width is None or touch.occurred >= as_of - width]
        own = {f"count_{what}_{name}": count(kind(touch, what) == name for touch in inside) for what, name in named}
        own |= rhythm(rows, inside, session_gap) | values(inside, minor_units)
        result |= {f"{name}_{suffix}": number if whole else nan for name, number in own.items()}

    for what, name in named:
        result[f"recency_{what}_{name}"] = days_since([one for one in rows if kind(one, what) == name], as_of)
    inbound = [touch for touch in rows if touch.inbound]
    result["recency"] = days_since(inbound, as_of)
    result["tenure"] = (as_of - rows[0].occurred) / MICROSECONDS_A_DAY if rows else nan

    recent = [touch for touch in rows if touch.occurred >= as_of - trend]
    before = [touch for touch in rows if as_of - 2 * trend <= touch.occurred < as_of - trend]
    change = {
        f"{what}_{name}": count(kind(one, what) == name for one in recent)
        - count(kind(one, what) == name for one in before)
        for what, name in named
    }
    change["touchpoints"] = count(one.inbound for one in recent) - count(one.inbound for one in before)
    late_days = {one.day for one in recent if one.inbound}
    # A day that straddles the boundary is active once, and recently.
    change["active_days"] = len(late_days) - len({one.day for one in before if one.inbound} - late_days)
    covered = as_of - 2 * trend >= observed_from
    result |= {f"trend_{name}": float(number) if covered else nan for name, number in change.items()}

    for nth in (1, 2, 3):
        found = at_once(inbound, nth, lambda touch: kind(touch, "event"))
        result[f"last_event_{nth}"] = nan if found is None else [*events, "other", "several"].index(found)
    last = at_once(inbound, 1, lambda touch: kind(touch, "channel"))
    result["last_channel"] = nan if last is None else [*channels, "other", "several"].index(last)

    result |= standing(entered, as_of)
    for stage in journey.stages:
        if stage.name not in hidden:
            done, missing = progress(journey, stage.enter, rows, as_of, minor_units)
            result |= {f"fulfilled_{stage.name}": float(done), f"remaining_{stage.name}": float(missing)}
    newest = [version for version in customer.versions if version.known < as_of][-1:]
    for name in numbers:
        found = newest[0].values.get(name) if newest else None
        result[f"attribute_{name}"] = nan if found is None else float(found)
    for name, known in (categories or {}).items():
        text = newest[0].values.get(name) if newest else None
        result[f"attribute_{name}"] = nan if text is None else [*known, text].index(text)
        if text is not None and text not in known:
            result[f"attribute_{name}"] = len(known)
    return result


def rhythm(rows: Sequence[Touch], inside: Sequence[Touch], session_gap: int) -> dict[str, float]:
    """Of what the customer did: touchpoints, active days, sessions that began, and the gaps between two."""
    inbound = [touch for touch in inside if touch.inbound]
    everything = [touch for touch in rows if touch.inbound]
    # A session begins where the gap before it, wherever that gap began, is long; or with the first touchpoint.
    starts = [
        one for i, one in enumerate(everything) if i == 0 or one.occurred - everything[i - 1].occurred > session_gap
    ]
    gaps = [(b.occurred - a.occurred) // 1_000_000 for a, b in itertools.pairwise(inbound)]
    return {
        "touchpoints": len(inbound),
        "active_days": len({touch.day for touch in inbound}),
        "sessions": count(any(one is touch for touch in inbound) for one in starts),
        "gap_mean": float(Fraction(sum(gaps), len(gaps)) / SECONDS_A_DAY) if gaps else nan,
        "gap_sd": statistics.pstdev(map(Fraction, gaps)) / SECONDS_A_DAY if gaps else nan,
    }


def values(inside: Sequence[Touch], minor_units: int) -> dict[str, float]:
    """Sum, mean and maximum of the values there are, in whole units."""
    some = [Fraction(touch.value, minor_units) for touch in inside if touch.value is not None]
    return {
        "value_sum": float(sum(some, Fraction(0))),
        "value_mean": float(sum(some, Fraction(0)) / len(some)) if some else nan,
        "value_max": float(max(some)) if some else nan,
    }


def at_once(rows: Sequence[Touch], nth: int, name: Callable[[Touch], str | None]) -> str | None:
    """What the touchpoints at the instant of the n-th last are called; several where they are not called the same."""
    if len(rows) < nth:
        return None
    found = {name(row) for row in rows if row.occurred == rows[-nth].occurred}
    return found.pop() if len(found) == 1 else "several"


def standing(entered: Mapping[str, int | None], as_of: int) -> dict[str, float]:
    """Where the customer stands, since when, and how long each step took."""
    stage, days = stage_at(list(entered.values()), as_of)
    since = {
        name: nan if at is None or at >= as_of else (as_of - at) / MICROSECONDS_A_DAY for name, at in entered.items()
    }
    result = {
        "stage": float(stage),
        "days_in_stage": nan if days is None else days,
        "stages_visited": float(count(at is not None and at < as_of for at in entered.values())),
    }
    result |= {f"days_since_{name}": since[name] for name in entered}
    names = list(entered)
    for a, b in itertools.pairwise(names):
        result[f"days_from_{a}_to_{b}"] = since[a] - since[b]
    return result


def progress(
    journey: JourneySpec, rule: Rule, rows: Sequence[Touch], as_of: int, minor_units: int, after: Fired | None = None
) -> tuple[Fraction, int]:
    """How much of a rule is fulfilled (0 to 1), and how many touchpoints (or distinct values) its count still needs.

    A leaf is as far as its least fulfilled condition, growth apart; ``any`` as its most advanced part (the first of
    equals), ``all`` as its least. Only what the rule would count after an ``after`` stage counts.
    """
    after = Fired(-1) if after is None else after
    if rule.after is not None:
        other = firings(journey, rows, minor_units)[rule.after]
        rows, after = ([], after) if other is None else (rows, together([after, other]))
    if parts := [
        progress(journey, child, rows, as_of, minor_units, after) for child in (*(rule.any or ()), *(rule.all or ()))
    ]:
        return (max if rule.any else min)(parts, key=lambda part: part[0])
    found = [
        row
        for i, row in enumerate(rows)
        if matches(rule, row, minor_units)
        and i not in after.needed
        and is_later(journey, row, after)
        and (rule.within is None or row.occurred >= as_of - rule.within)
    ]
    number = len(found)
    if rule.distinct is not None:
        number = len({value for row in found if (value := read(row, rule.distinct, minor_units)) is not None})
    done = min(Fraction(number, rule.count), Fraction(1))
    if rule.value_at_least is not None and rule.value_at_least > 0:
        done = max(Fraction(0), min(done, total(found) / (exact(rule.value_at_least) * minor_units)))
    return done, max(rule.count - number, 0)


def days_since(rows: Sequence[Touch], as_of: int) -> float:
    """Days since the latest of the rows."""
    return (as_of - rows[-1].occurred) / MICROSECONDS_A_DAY if rows else nan


def count(tests: object) -> int:
    """How many are true."""
    return sum(1 for one in tests if one)  # type: ignore[attr-defined]
