"""Three reasons in plain words for every listed customer: what speaks for and against the move, most weighty first.

A reason is one fact about the customer: contributions of all columns that tell of the same thing (windows and
statistics of one event, say) are added, and the column that weighs most among them is said.

One fact about a customer in words, beside the same fact of a typical customer.

"5 “pricing visit” touchpoints in the last 7 days; most Convert customers: none". Names of events, channels and
attribute values come from the business's data and are shortened; everything else is said here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.config import DAY, Rule
from cvj_ml.engines import Engine
from cvj_ml.errors import ModelError
from cvj_ml.features import OTHER, PROGRESS, SEVERAL, Feature, Statistic, window_words
from cvj_ml.histories import Block
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.models.explain.explanation import Explainer, Explanation
from cvj_ml.models.explain.typical import Reference
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.windows import NEVER

_F64 = npt.NDArray[np.float64]

COLUMNS = ("reason_1", "reason_2", "reason_3")
SMALLEST = float(np.log(1.05))
"""A fact that changes the odds by less than 5 % is no reason."""

_NOT_THEIRS = ("stage",)
"""Facts that all customers of a list share; what they add belongs to the base."""

_Fact = tuple[str, ...]
_Row = Sequence[float]


@dataclass(frozen=True, slots=True)
class Facts:
    """A margin by facts: ``margin`` = ``base`` + the sum of ``contributions`` (rows, facts), up to rounding."""

    names: tuple[_Fact, ...]
    columns: tuple[tuple[int, ...], ...]
    margin: _F64
    base: _F64
    contributions: _F64


def with_reasons(
    lists: Sequence[RankedList], predictor: Predictor, engine: Engine, as_of: int
) -> tuple[RankedList, ...]:
    """Return the lists with their reasons.

    Features of the listed customers are computed anew, in their buckets only. ModelError where the model has no
    reference; AssertionError where a probability comes out otherwise than on the list.
    """
    if predictor.reference is None:
        raise ModelError("The model does not know what is typical of its customers (reference.json). Train anew.")
    reference, explainer = predictor.reference, Explainer(predictor)
    listed = [one.rows["customer_id"].to_pylist() for one in lists]
    shown = [one.rows["probability"].to_numpy() for one in lists]
    place = [{name: i for i, name in enumerate(names)} for names in listed]

    def work(block: Block) -> list[dict[int, list[str | None]]]:
        answers = predictor.answer(block, as_of)
        names = [block.customers[i] for i in answers.snapshots.customer]
        found = []
        for one, places, probability in zip(lists, place, shown, strict=True):
            rows = np.array([i for i, name in enumerate(names) if name in places], dtype=np.int64)
            where = [places[names[i]] for i in rows]
            texts = _reasons(one, predictor.definition, explainer, reference, answers, rows, probability[where], as_of)
            found.append(dict(zip(where, texts, strict=True)))
        return found

    parts = engine.only(name for names in listed for name in names).map(work)
    result = []
    for k, one in enumerate(lists):
        by_place = {i: texts for part in parts for i, texts in part[k].items()}
        table = one.rows
        for r, column in enumerate(COLUMNS):
            values = pa.array([by_place[i][r] for i in range(len(table))], type=pa.string())
            table = table.set_column(table.column_names.index(column), column, values)
        result.append(replace(one, rows=table))
    return tuple(result)


def _reasons(
    one: RankedList,
    definition: ModelSpec,
    explainer: Explainer,
    reference: Reference,
    answers: Predictions,
    rows: npt.NDArray[np.int64],
    probability: _F64,
    as_of: int,
) -> list[list[str | None]]:
    names = definition.journey.names
    stage, target = names.index(one.spec.from_stage), 1 + names.index(one.spec.to_stage)
    horizon = definition.horizons.index(one.spec.horizon)
    if not np.array_equal(answers.probability[rows, target, horizon], probability):
        raise AssertionError(f"{one.title}, {one.spec.horizon // DAY} days: a listed score could not be computed again")
    x, typical = answers.x[rows], reference.typical[stage + 1]
    explanation = explainer.explain(x, stage, target, horizon + 1, typical, as_of)
    facts = by_fact(definition, explanation, one.spec.from_stage)
    whom = one.spec.from_stage if reference.own[stage + 1] else None
    usual = typical.tolist()
    return [
        _three(definition, facts, facts.contributions[i], explanation.contributions[i], x[i].tolist(), usual, whom)
        for i in range(len(rows))
    ]


def by_fact(definition: ModelSpec, explanation: Explanation, stage: str) -> Facts:
    """Add the contributions of columns up by fact, for customers of one stage."""
    columns: dict[_Fact, list[int]] = {}
    base = explanation.base.copy()
    for column, feature in enumerate(definition.catalogue.features):
        # The days since the present stage was entered are the days in it, but for those who had been higher before.
        fact = ("in_stage",) if feature.fact == ("entered", stage) else feature.fact
        if fact[0] in _NOT_THEIRS:
            base += explanation.contributions[:, column]
        else:
            columns.setdefault(fact, []).append(column)
    sums = np.zeros((len(base), len(columns)))
    for k, members in enumerate(columns.values()):
        for column in members:  # one by one: the same sum for any number of rows
            sums[:, k] += explanation.contributions[:, column]
    return Facts(tuple(columns), tuple(map(tuple, columns.values())), explanation.margin, base, sums)


def _three(
    definition: ModelSpec,
    facts: Facts,
    by_fact: _F64,
    by_column: _F64,
    mine: Sequence[float],
    typical: Sequence[float],
    stage: str | None,
) -> list[str | None]:
    """Return three reasons for one customer, None where there are fewer: the weightiest facts that can be told."""
    reasons: list[str | None] = []
    for k in np.argsort(-np.abs(by_fact), kind="stable"):
        if abs(by_fact[k]) < SMALLEST or len(reasons) == len(COLUMNS):
            break
        if text := fact_in_words(definition, facts.columns[k], by_fact[k], by_column, mine, typical, stage):
            reasons.append(text)
    return reasons + [None] * (len(COLUMNS) - len(reasons))


def fact_in_words(
    definition: ModelSpec,
    columns: Sequence[int],
    contribution: float,
    by_column: _F64,
    mine: _Row,
    typical: _Row,
    stage: str | None,
) -> str | None:
    """Return one fact in words, told by its weightiest column; None where the customer is as typical ones are."""
    sign = np.sign(contribution)
    members = sorted(columns, key=lambda column: -sign * by_column[column])
    told = (
        beside_typical(definition, column, mine, typical, stage) for column in members if sign * by_column[column] > 0
    )
    text = next((one for one in told if one), None)
    return f"Speaks {'for' if sign > 0 else 'against'}: {text}" if text else None


_LONGEST = 40
_ROUNDED = 0.02
"""A count that is told from a share is off by this much at most: typical shares have three digits."""

_ORDER = ("last", "last but one", "last but two")


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of a customer, and the same in short for comparison; ``common`` if most customers have it.

    ``alone`` takes the place of ``short`` beside a customer of whom there is nothing of the kind to say.
    """

    whole: str
    short: str
    common: bool = False
    alone: str | None = None


def beside_typical(definition: ModelSpec, column: int, mine: _Row, typical: _Row, stage: str | None) -> str | None:
    """Say one feature of a customer and what is typical of the stage (None: of everybody).

    ``mine`` and ``typical`` are rows of X. Returns None where both read the same, or where nothing can be said: how
    far somebody has come is not compared with customers of other stages.
    """
    if stage is None and definition.catalogue.features[column].group in ("journey", PROGRESS):
        return None
    own, usual = say(definition, column, mine), say(definition, column, typical)
    if own is None or usual is None or own.short == usual.short:
        return None
    group = f"{name(stage)} customers" if stage else "customers" if usual.common else "all customers"
    whom = f"most {group}" if usual.common else f"typical of {group}"
    return f"{own.whole}; {whom}: {usual.alone if own.common and usual.alone else usual.short}"


def say(definition: ModelSpec, column: int, row: _Row) -> Said | None:
    """Say one feature of a row of X; None where there is nothing to say."""
    feature, value = definition.catalogue.features[column], float(row[column])
    kind = feature.fact[0]
    if feature.group == PROGRESS:
        return _progress(definition, feature, column, row)
    if kind in ("event", "channel"):
        return _named(feature, value)
    said: dict[str, Callable[[], Said | None]] = {
        "activity": lambda: _activity(feature, value),
        "gaps": lambda: _gaps(feature, value),
        "value": lambda: _amount(feature, value, definition.catalogue.value_decimals),
        "recency": lambda: _ago("last touchpoint", "no touchpoint of their own so far", value),
        "tenure": lambda: _ago("first touchpoint", "no touchpoint so far", value),
        "in_stage": lambda: None if math.isnan(value) else Said(f"in this stage for {_days(value)}", _days(value)),
        "entered": lambda: _ago(f"entered {name(feature.fact[1])}", f"{name(feature.fact[1])} not entered", value),
        "between": lambda: _between(feature, value),
        "stages": lambda: _stages(value),
        "last": lambda: _last(feature, value, definition.catalogue.vocabulary.events),
        "last_channel": lambda: _last_channel(value, definition.catalogue.vocabulary.channels),
        "number": lambda: _number(feature, value),
        "category": lambda: _category(feature, value, definition.catalogue.vocabulary.categories[feature.fact[1]]),
    }
    return said[kind]() if kind in said else None


def name(text: str) -> str:
    """Return a name of the data fit for a sentence: one line, underscores as spaces, not too long."""
    plain = " ".join(text.replace("_", " ").split())
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"


def _named(feature: Feature, value: float) -> Said | None:
    """Say a count, the time since the last, or the change in the touchpoints of one event or channel."""
    through = feature.fact[0] == "channel"
    what = name(feature.fact[1])
    if what == OTHER:
        before, after = ("", " through another channel") if through else ("other ", "")
    else:
        before, after = ("", f" through {what}") if through else (f"“{what}” ", "")
    if feature.statistic == Statistic.RECENCY:
        return _ago(f"last {before}touchpoint{after}", f"no {before}touchpoint{after} so far", value, "none so far")
    return _counted(feature, value, f"{before}touchpoint", after)


def _counted(feature: Feature, value: float, noun: str, after: str = "") -> Said | None:
    if math.isnan(value):
        return None
    number, when = round(value), _when(feature)
    if feature.statistic == Statistic.TREND:
        if number == 0:
            return Said(f"as many {noun}s{after} {when} as in the time before", "no change", common=True)
        more = f"{abs(number):,} {'more' if number > 0 else 'fewer'}"
        return Said(f"{more} {noun}{'' if abs(number) == 1 else 's'}{after} {when} than in the time before", more)
    if number == 0:
        return Said(f"no {noun}{after} {when}", "none", common=True)
    return Said(f"{_count(number, noun)}{after} {when}", f"{number:,}")


def _activity(feature: Feature, value: float) -> Said | None:
    noun = next(one for one in ("active day", "session", "touchpoint") if one.replace(" ", "_") in feature.name)
    return _counted(feature, value, noun)


def _gaps(feature: Feature, value: float) -> Said | None:
    if math.isnan(value):
        return Said(f"fewer than two touchpoints {_when(feature)}", "fewer than two", common=True)
    days = _days(value, 1)
    if feature.statistic == Statistic.GAP_MEAN:
        return Said(f"touchpoints {days} apart on average {_when(feature)}", f"{days} apart")
    return Said(
        f"time between touchpoints varies by {days} {_when(feature)}", days, alone=f"times between them vary by {days}"
    )


def _amount(feature: Feature, value: float, decimals: int) -> Said:
    if math.isnan(value):
        return Said(f"no value recorded {_when(feature)}", "none", common=True)
    what = {Statistic.SUM: "total", Statistic.MEAN: "average", Statistic.MAX: "highest"}[Statistic(feature.statistic)]
    text = f"{value:,.{decimals}f}" if value else "0"
    return Said(f"{what} value {text} {_when(feature)}", text, common=value == 0)


def _ago(event: str, never: str, value: float, short: str = "never") -> Said:
    if math.isnan(value):
        return Said(never, short, common=True)
    ago = f"{_days(value)} ago"
    return Said(f"{event} {ago}", ago, alone=f"the last one {ago}" if event.startswith("last ") else None)


def _between(feature: Feature, value: float) -> Said | None:
    earlier, later = (name(one) for one in feature.fact[1:])
    if math.isnan(value):
        return None
    if round(value) < 0:
        return Said(f"entered {later} {_days(-value)} before {earlier}", f"{_days(-value)} before it")
    return Said(f"took {_days(value)} from {earlier} to {later}", _days(value))


def _progress(definition: ModelSpec, feature: Feature, column: int, row: _Row) -> Said | None:
    """Say "2 of 3 “purchase” touchpoints towards Ascend" where the rule counts, else the share that is done."""
    first = column if feature.name.startswith("fulfilled") else column - 1
    fulfilled, remaining = float(row[first]), float(row[first + 1])
    if math.isnan(fulfilled) or math.isnan(remaining):
        return None
    stage = feature.fact[1]
    if fulfilled <= 0:
        return Said(f"nothing done yet towards {name(stage)}", "nothing", common=True)
    if fulfilled >= 1:
        return Said(f"all that {name(stage)} needs is done", "all")
    total = remaining / (1 - fulfilled)
    rules = [one for one in definition.journey.stages[definition.journey.index(stage)].enter.leaves() if one.count > 1]
    counting = [one for one in rules if abs(one.count - total) < _ROUNDED]
    if not counting:
        return Said(f"{fulfilled:.0%} done of what {name(stage)} needs", f"{fulfilled:.0%}")
    count = counting[0].count
    done = f"{count - round(remaining)} of {count}"
    return Said(f"{done}{_matching(counting)} done towards {name(stage)}", done)


def _matching(rules: Sequence[Rule]) -> str:
    """Return what a counting rule counts, where that has one name."""
    events = {one for rule in rules for one in rule.event or ()}
    return f" “{name(*events)}” touchpoints" if len(events) == 1 and not rules[0].distinct else ""


def _stages(value: float) -> Said | None:
    if math.isnan(value):
        return None
    return Said(f"{_count(value, 'stage')} entered so far", f"{round(value)}")


def _last(feature: Feature, value: float, events: Sequence[str]) -> Said:
    which = _ORDER[feature.cell]
    if math.isnan(value):
        return Said(f"no {which} touchpoint", "none", common=True)
    event = _value_of(value, events)
    return Said(f"{which} touchpoint was {event}", event)


def _last_channel(value: float, channels: Sequence[str]) -> Said:
    if math.isnan(value):
        return Said("last touchpoint through no known channel", "none known", common=True)
    channel = _value_of(value, channels)
    return Said(f"last touchpoint came through {channel}", channel)


def _number(feature: Feature, value: float) -> Said:
    what = name(feature.fact[1])
    if math.isnan(value):
        return Said(f"{what} not known", "not known", common=True)
    text = f"{value:,.2f}".rstrip("0").rstrip(".")
    return Said(f"{what} is {text}", text)


def _category(feature: Feature, value: float, values: Sequence[str]) -> Said:
    what = name(feature.fact[1])
    if math.isnan(value):
        return Said(f"{what} not known", "not known", common=True)
    text = _value_of(value, values)
    return Said(f"{what} is {text}", text)


def _value_of(code: float, values: Sequence[str]) -> str:
    if int(code) > len(values):
        return SEVERAL
    return f"“{name(values[int(code)])}”" if int(code) < len(values) else "another one"


def _when(feature: Feature) -> str:
    return "so far" if feature.window == NEVER else window_words(feature.window)


def _count(value: float, noun: str) -> str:
    return f"{round(value):,} {noun}{'' if round(value) == 1 else 's'}"


def _days(value: float, decimals: int = 0) -> str:
    """Return days, whole ones where they are many."""
    if 0 <= value < 1 and not decimals:
        return "less than a day"
    if decimals and value < 0.05:
        return "next to no time"
    text = f"{value:,.{decimals if value < 10 else 0}f}"
    return f"{text} {'day' if text == '1' else 'days'}"
