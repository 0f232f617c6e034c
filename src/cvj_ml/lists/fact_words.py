"""One fact about a customer in words, beside the same fact of a typical customer.

"“wish list” 5 times in the last 7 days, last yesterday; most Convert customers: none". Names of events, channels and
attribute values come from the business's data and are shortened; everything else is said here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cvj_ml.config import DAY, Rule
from cvj_ml.features import CUSTOM, OTHER, PROGRESS, SEVERAL, Feature, Statistic, window_words
from cvj_ml.lists.last_events import LastEvents, Occurrence, ago, amount, count_of, days_ago, did, in_days, name, times
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.windows import NEVER

Row = Sequence[float]

_ALIKE = 0.2
"""Numbers that differ by less than this share of the larger one are no difference worth a sentence."""

_ROUNDED = 0.02
"""A count that is told from a share is off by this much at most: typical shares have three digits."""

_NEWCOMER = 60
"""Of customers who were first seen so many days ago at most it is said what they have done since."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of a customer, and the same in short for comparison; ``common`` if most customers have it.

    ``alone`` takes the place of ``short`` beside a sentence of another form, which has no ``alone``. ``concrete``
    texts name an event, a channel, a value or progress; ``moment`` is the occurrence that a text tells.
    """

    whole: str
    short: str
    common: bool = False
    alone: str | None = None
    concrete: bool = False
    moment: Occurrence | None = None


def beside_typical(
    definition: ModelSpec, column: int, mine: Row, typical: Row, stage: str | None, known: LastEvents | None = None
) -> Said | None:
    """Say one feature of a customer and what is typical of the stage (None: of everybody).

    ``mine`` and ``typical`` are rows of X, ``known`` is what the customer did last. Returns None where both read the
    same, or where nothing can be said: how far somebody has come is not compared with customers of other stages.
    """
    feature = definition.catalogue.features[column]
    if stage is None and feature.group in ("journey", PROGRESS):
        return None
    if _alike(feature, float(mine[column]), float(typical[column])):
        return None
    currency = known.currency if known else None
    own = say(definition, column, mine, known, currency=currency)
    usual = say(definition, column, typical, counted_as=mine, currency=currency)
    if own is None or usual is None or own.short == usual.short:
        return None
    group = f"{name(stage)} customers" if stage else "customers" if usual.common else "all customers"
    whom = f"most {group}" if usual.common else f"typical of {group}"
    return replace(own, whole=f"{own.whole}; {whom}: {usual.alone if usual.alone and not own.alone else usual.short}")


def _alike(feature: Feature, mine: float, typical: float) -> bool:
    if feature.fact[0] in ("last", "last_channel", "category", "number") or feature.group == PROGRESS:
        return False
    return abs(mine - typical) < _ALIKE * max(abs(mine), abs(typical))


def say(
    definition: ModelSpec,
    column: int,
    row: Row,
    known: LastEvents | None = None,
    counted_as: Row | None = None,
    currency: str | None = None,
) -> Said | None:
    """Say one feature of a row of X; None where there is nothing to say.

    ``known`` is what the customer of that row did last. Progress is counted as that of the row ``counted_as``: what is
    told of two customers has one unit. ``currency`` is that of amounts.
    """
    feature, value = definition.catalogue.features[column], float(row[column])
    words = definition.catalogue.vocabulary
    if feature.group == PROGRESS:
        return _progress(definition, feature, column, row, counted_as)
    said: dict[str, Callable[[], Said | None]] = {
        "event": lambda: _event(feature, value, known),
        "channel": lambda: _channel(feature, value, known),
        "activity": lambda: _activity(feature, value, known),
        "gaps": lambda: _gaps(feature, value),
        "value": lambda: _amount(feature, value, definition.catalogue.value_decimals, currency, known),
        "recency": lambda: _last_seen(value, known),
        "tenure": lambda: _first_seen(value, known),
        "in_stage": lambda: None if math.isnan(value) else Said(f"in this stage for {in_days(value)}", in_days(value)),
        **dict.fromkeys(("entered", "left"), lambda: _entered(feature, value, known)),
        "between": lambda: _between(feature, value),
        "stages": lambda: (
            None if math.isnan(value) else Said(f"has been in {count_of(value, 'stage')}", f"{value:.0f}")
        ),
        "last": lambda: _last(feature, value, words.events, known),
        "last_channel": lambda: _last_channel(value, words.channels),
        **dict.fromkeys(("number", CUSTOM), lambda: _number(feature, value)),
        "date": lambda: _date(feature, value),
        "category": lambda: _category(feature, value, words.categories[feature.fact[1]]),
        "people": lambda: _people(feature, value, ""),
        "role": lambda: _people(feature, value, f" as “{name(feature.fact[1])}”"),
        "new_people": lambda: _new_people(feature, value),
        "most_active": lambda: _most_active(feature, value),
    }
    return said[feature.fact[0]]() if feature.fact[0] in said else None


def _event(feature: Feature, value: float, known: LastEvents | None) -> Said | None:
    """Say how often, when last, or how much more often than before a customer did something."""
    event = feature.fact[1]
    quoted = "other interaction" if event == OTHER else f"“{name(event)}”"
    last = known.events.get(event) if known else None
    if feature.statistic == Statistic.TREND:
        return _trend(feature, value, f"{quoted}s" if event == OTHER else quoted, known, concrete=event != OTHER)
    if feature.statistic == Statistic.RECENCY:
        if math.isnan(value):
            return Said(f"no {quoted} so far", "none so far", common=True, concrete=event != OTHER)
        when = ago(last.days) if last else days_ago(value)
        whole = f"last {quoted} {when}" if event == OTHER else last.told() if last else f"{did(event)} {when}"
        return Said(whole, when, alone=f"last {when}", concrete=event != OTHER, moment=last)
    if math.isnan(value):
        return None
    count, how_often = f"{round(value):,}", f"{times(value)} {_when(feature)}"
    if round(value) == 0:
        none = f"none {_when(feature)}"
        return Said(f"no {quoted} {_when(feature)}", "none", common=True, alone=none, concrete=event != OTHER)
    if event == OTHER:
        return Said(f"{count_of(value, quoted)} {_when(feature)}", count)
    if last is None:
        return Said(f"{did(event)} {how_often}", count, alone=how_often, concrete=True)
    if round(value) == 1:
        once = "" if feature.window == NEVER else f", {how_often}"
        return Said(f"{last.told()}{once}", count, alone=once or None, concrete=True, moment=last)
    # The sentence ends with the last occurrence, so a bad rating is not hidden behind a count.
    rated = "" if math.isnan(last.rating) else f" with {last.rating:g} of {last.highest_rating:g}"
    whole = f"{did(event)} {how_often}, last {ago(last.days)}{rated}"
    return Said(whole, count, alone=how_often, concrete=True, moment=last)


def _channel(feature: Feature, value: float, known: LastEvents | None) -> Said | None:
    channel = feature.fact[1]
    through = "through another channel" if channel == OTHER else f"through {name(channel)}"
    verb = "" if known is None else "came " if channel in known.chosen_channels or channel == OTHER else "reached "
    if feature.statistic == Statistic.TREND:
        return _trend(feature, value, f"visits {through}", known, concrete=True)
    if feature.statistic == Statistic.RECENCY:
        if math.isnan(value):
            return Said(f"nothing {through} so far", "nothing so far", common=True, concrete=True)
        days = known.channels.get(channel) if known else None
        if known and days is not None and days == known.last_days:
            return None  # "last seen" says when, and what
        when = days_ago(value) if days is None else ago(days)
        return Said(f"last {verb}{through} {when}", when, alone=f"last {when}", concrete=True)
    if math.isnan(value):
        return None
    if round(value) == 0:
        return Said(f"nothing {through} {_when(feature)}", "nothing", common=True, concrete=True)
    return Said(f"{verb}{through} {times(value)} {_when(feature)}", times(value), concrete=True)


def _trend(feature: Feature, value: float, what: str, known: LastEvents | None, *, concrete: bool) -> Said | None:
    # Who was not there before has changed nothing.
    new = known and known.first_days is not None and known.first_days * DAY < 2 * feature.window
    if math.isnan(value) or new or abs(round(value)) == 1:  # one more or less is chance
        return None
    before = f"{_when(feature)} against the time before"
    if round(value) == 0:
        return Said(f"as much {what} {_when(feature)} as in the time before", "no change", common=True)
    text = f"{'up' if value > 0 else 'down'} by {abs(round(value)):,}"
    return Said(f"{what} {text} {before}", text, concrete=concrete)


def _activity(feature: Feature, value: float, known: LastEvents | None) -> Said | None:
    if feature.name.startswith("trend"):
        what = "active days" if feature.name.endswith("active_days") else "interactions"
        return _trend(feature, value, what, known, concrete=False)
    if math.isnan(value):
        return None
    noun = next(one for one in ("active_day", "session", "touchpoint") if one in feature.name)
    noun = {"active_day": "active day", "touchpoint": "interaction"}.get(noun, noun)
    if round(value) == 0:
        return Said(f"no {noun} {_when(feature)}", "none", common=True)
    mostly = known.mostly(feature.window) if known else None
    return Said(
        f"{count_of(value, noun)} {_when(feature)}{f', mostly “{name(mostly)}”' if mostly else ''}",
        f"{round(value):,}",
        concrete=mostly is not None,
    )


def _gaps(feature: Feature, value: float) -> Said | None:
    """Say how often somebody comes; how much that varies tells a reader nothing."""
    if feature.statistic != Statistic.GAP_MEAN:
        return None
    if math.isnan(value):
        return Said(f"fewer than two interactions {_when(feature)}", "fewer than two interactions", common=True)
    days = in_days(value, 1) if value >= 1 else "few hours"
    return Said(f"back every {days} on average {_when(feature)}", f"every {days}", alone=f"back every {days}")


def _amount(feature: Feature, value: float, decimals: int, currency: str | None, known: LastEvents | None) -> Said:
    """Say a value; of a customer with a single one, the occurrence that it comes from."""
    if math.isnan(value):
        return Said(f"no value {_when(feature)}", "none", common=True, concrete=True)
    text, statistic = amount(value, decimals, currency), Statistic(feature.statistic)
    what = {Statistic.SUM: "total", Statistic.MEAN: "average", Statistic.MAX: "highest"}[statistic]
    whole, single = f"{what} value {text} {_when(feature)}", known.single_value if known else None
    if single and feature.window == NEVER:
        return Said(single.told(), text, concrete=True, moment=single)
    short = text if value else "none"
    return Said(whole, short, common=value == 0, alone=f"{what} value {short}", concrete=True, moment=single)


def _last_seen(value: float, known: LastEvents | None) -> Said:
    if known and known.one_day:
        return _seen_once(known)
    if math.isnan(value):
        return Said("has not done anything so far", "nothing so far", common=True)
    when = days_ago(value) if known is None or known.last_days is None else ago(known.last_days)
    last = known.last if known else None
    what = f" ({last.what()})" if last else ""
    return Said(f"last seen {when}{what}", when, alone=f"last seen {when}", concrete=last is not None, moment=last)


def _first_seen(value: float, known: LastEvents | None) -> Said:
    if known and known.one_day:
        return _seen_once(known)
    if math.isnan(value):
        return Said("not seen so far", "never", common=True)
    when = days_ago(value) if known is None or known.first_days is None else ago(known.first_days)
    new = known is not None and known.first_days is not None and known.first_days <= _NEWCOMER
    mostly = known.mostly(NEVER) if known and new else None
    since = f", since then mostly “{name(mostly)}”" if mostly else ""
    return Said(f"first seen {when}{since}", when, alone=f"first seen {when}", concrete=mostly is not None)


def _seen_once(known: LastEvents) -> Said:
    when, last = ago(known.first_days or 0), known.last
    what = f" ({last.what()})" if last else ""
    return Said(f"seen on one day only, {when}{what}", when, concrete=last is not None, moment=last)


def _entered(feature: Feature, value: float, known: LastEvents | None) -> Said:
    did_so, stage = feature.fact[0], name(feature.fact[1])
    if known and known.first_days is not None and known.first_days - value < 1:
        return _first_seen(value, known)
    if math.isnan(value):
        return Said(f"{stage} not {did_so}", f"not {did_so}", common=True)
    return Said(f"{did_so} {stage} {days_ago(value)}", days_ago(value))


def _between(feature: Feature, value: float) -> Said | None:
    earlier, later = (name(one) for one in feature.fact[1:])
    if math.isnan(value):
        return None
    if round(value) < 0:
        return Said(f"entered {later} {in_days(-value)} before {earlier}", f"{in_days(-value)} before it")
    return Said(f"took {in_days(value)} from {earlier} to {later}", in_days(value))


def _progress(definition: ModelSpec, feature: Feature, column: int, row: Row, counted_as: Row | None) -> Said | None:
    """Say "bought 2 of 3 times towards Ascend" where the rule counts, else the share that is done.

    The number asked for is that of the row ``counted_as``, if that has come part of the way.
    """
    first = column if feature.name.startswith("fulfilled") else column - 1
    stage, fulfilled = feature.fact[1], float(row[first])
    if math.isnan(fulfilled) or math.isnan(float(row[first + 1])):
        return None
    if fulfilled <= 0:
        return Said(f"nothing done yet towards {name(stage)}", "nothing", common=True, concrete=True)
    if fulfilled >= 1:
        # The customer is not there, so the rule asks for more than can be counted: a growth, a time within which.
        text = f"all that can be counted for {name(stage)} is done, the rest of its rule is not"
        return Said(text, "all", concrete=True)
    leaves = tuple(definition.journey.stages[definition.journey.index(stage)].enter.leaves())
    other = counted_as is not None and 0 < float(counted_as[first]) < 1
    rules = _counting(leaves, counted_as if counted_as is not None and other else row, first)
    if not rules:
        return Said(f"{fulfilled:.0%} of the way towards {name(stage)}", f"{fulfilled:.0%} of the way", concrete=True)
    count = rules[0].count
    done = f"{min(count - 1, round(fulfilled * count))} of {count}"
    event = _counted_event(rules)
    whole = f"{event} {done} times" if event else f"{done} done"
    return Said(f"{whole} towards {name(stage)}", done, concrete=True)


def _counting(leaves: Sequence[Rule], row: Row, first: int) -> list[Rule]:
    """Return the counting rules that a row's progress comes from: all of the same count.

    Of a typical row the share and what remains are two medians, and the share alone has to do.
    """
    fulfilled, remaining = float(row[first]), float(row[first + 1])
    counting = [one for one in leaves if one.count > 1]
    exact = [one for one in counting if abs(one.count * (1 - fulfilled) - remaining) < _ROUNDED]
    near = [one for one in counting if abs(one.count * fulfilled - round(one.count * fulfilled)) < _ROUNDED]
    found = exact or near
    return [one for one in found if one.count == found[0].count]


def _counted_event(rules: Sequence[Rule]) -> str:
    """Return what a customer did whom a counting rule counts, where that has one name."""
    events = {one for rule in rules for one in rule.event or ()}
    return did(*events) if len(events) == 1 and not rules[0].distinct else ""


def _last(feature: Feature, value: float, events: Sequence[str], known: LastEvents | None) -> Said | None:
    """Say what somebody did last; what they did before that says next to nothing."""
    if feature.cell:
        return None
    if math.isnan(value):
        return Said("has not done anything so far", "nothing so far", common=True)
    at_once = int(value) > len(events)
    named = int(value) < len(events)
    event = SEVERAL if at_once else did(events[int(value)]) if named else "something else"
    if known and known.last and not at_once:
        return Said(f"most recently {known.last.told()}", event, concrete=named, moment=known.last)
    return Said(f"most recently {event}", event, concrete=named)


def _last_channel(value: float, channels: Sequence[str]) -> Said:
    if math.isnan(value):
        return Said("last time through no known channel", "none known", common=True)
    channel = _value_of(value, channels)
    return Said(f"last time through {channel}", channel, concrete=int(value) < len(channels))


def _number(feature: Feature, value: float) -> Said:
    what = name(feature.fact[1])
    if math.isnan(value):
        return Said(f"{what} not known", "not known", common=True)
    text = f"{value:,.2f}".rstrip("0").rstrip(".")
    return Said(f"{what} is {text}", text)


def _date(feature: Feature, value: float) -> Said | None:
    """Say "renewal in 23 days"; of a date that has passed, how long ago that was."""
    what, ahead = name(feature.fact[1]), feature.name.startswith("days_until")
    if math.isnan(value):
        none = ("no {} ahead", "none ahead") if ahead else ("no {} has passed", "none passed")
        return Said(none[0].format(what), none[1], common=True)
    if ahead:
        when = {0: "today", 1: "tomorrow"}.get(round(value), f"in {in_days(value)}")
        return Said(f"{what} {when}", when)
    when = "yesterday" if round(value) == 1 else days_ago(value)
    return Said(f"{what} was {when}", when)


def _category(feature: Feature, value: float, values: Sequence[str]) -> Said:
    what = name(feature.fact[1])
    if math.isnan(value):
        return Said(f"{what} not known", "not known", common=True)
    text = _value_of(value, values)
    return Said(f"{what} is {text}", text)


def _people(feature: Feature, value: float, role: str) -> Said | None:
    if math.isnan(value):
        return None
    number = round(value)
    who = "nobody" if not number else "1 person" if number == 1 else f"{number:,} people"
    whole = f"{who} of this company {'was' if number < 2 else 'were'} active{role} {_when(feature)}"
    return Said(whole, who, common=not number, alone=f"{who}{role} {_when(feature)}", concrete=bool(role))


def _new_people(feature: Feature, value: float) -> Said | None:
    if math.isnan(value):
        return None
    if feature.name == "people_newest":
        return Said(f"a new person of this company was seen {days_ago(value)}", days_ago(value))
    number = round(value)
    who = "no new person" if not number else "1 new person" if number == 1 else f"{number:,} new people"
    return Said(f"{who} of this company {_when(feature)}", who, common=not number, alone=f"{who} {_when(feature)}")


def _most_active(feature: Feature, value: float) -> Said | None:
    whole = f"{value:.0%} of what its people did {_when(feature)} was done by one of them"
    return None if math.isnan(value) else Said(whole, f"{value:.0%} by one of them")


def _value_of(code: float, values: Sequence[str]) -> str:
    if int(code) > len(values):
        return SEVERAL
    return f"“{name(values[int(code)])}”" if int(code) < len(values) else "another one"


def _when(feature: Feature) -> str:
    return "so far" if feature.window == NEVER else window_words(feature.window)
