"""Three reasons in plain words for every listed customer: what speaks for and against the move, most weighty first.

Of who is at risk only what points to leaving is told: what they do well is nobody's reason to leave.

A reason is one fact about the customer: contributions of all columns that tell of the same thing are added, and the
weightiest column that differs visibly from a typical customer, and does not read as the opposite, is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.config import DAY, Config, plays_of
from cvj_ml.engines import Engine
from cvj_ml.errors import ModelError
from cvj_ml.features import Statistic
from cvj_ml.histories import Block
from cvj_ml.journey import KEPT
from cvj_ml.lists.chances import REACH, asked_in
from cvj_ml.lists.fact_words import Row, Said, beside_typical
from cvj_ml.lists.kinds import LEAVING
from cvj_ml.lists.last_events import LastEvents, Unhappy, last_events, reads_well
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.lists.recent_past import RecentPast
from cvj_ml.models.explain.explanation import Explainer, Explanation
from cvj_ml.models.explain.typical import Reference
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.windows import NEVER

_F64 = npt.NDArray[np.float64]

COLUMNS = ("reason_1", "reason_2", "reason_3")
BECAUSE = "because"
SMALLEST = float(np.log(1.05))
"""A fact that changes the odds by less than 5 % is no reason."""

DETAILED = 30
"""Customers of a list, in control or not, of whom details are told."""

_NOT_THEIRS = ("stage",)
"""Facts that all customers of a list share; what they add belongs to the base."""

PRESENCE, LAST = ("presence",), ("last",)
_ONE_FACT = {
    **dict.fromkeys(("tenure", "gaps", "activity", "in_stage", "entered", "left", "between", "stages"), PRESENCE),
    **dict.fromkeys(("recency", "last", "last_channel"), LAST),
}
"""Kinds of columns that tell of one thing: how long and how often somebody has come and how far, and what they did
last. Of a newcomer all of the first say "new". (Drift is judged by the finer facts of the catalogue.)"""

_MORE_IS_BETTER = ("event", "channel", "activity", "value", "progress", "stages", "people", "role")
_LESS_IS_BETTER = ("recency", "gaps", "between")

_FOR, _AGAINST, _NOTE = "Speaks for: ", "Speaks against: ", "Note: "
_LEAVING = "Points to leaving: "
_TYPICAL = re.compile("; (?=typical of |most )")

_Fact = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """A margin by facts: ``margin`` = ``base`` + the sum of ``contributions`` (rows, facts), up to rounding."""

    names: tuple[_Fact, ...]
    columns: tuple[tuple[int, ...], ...]
    margin: _F64
    base: _F64
    contributions: _F64


@dataclass(frozen=True, slots=True)
class Reason:
    """One fact about a customer: what it adds to the margin, and how it is said.

    ``leaving``: what is asked is why they leave, which the margin of staying tells with the sign turned.
    """

    contribution: float
    said: Said
    neutral: bool = False
    leaving: bool = False

    @property
    def text(self) -> str:
        """The reason as a sentence; what is bad is never said to speak for somebody."""
        if self.neutral:
            return f"{_NOTE}{self.said.whole}"
        if self.leaving:
            return f"{_LEAVING}{self.said.whole}"
        return f"{_FOR if self.contribution > 0 else _AGAINST}{self.said.whole}"


def with_reasons(
    lists: Sequence[RankedList], predictor: Predictor, engine: Engine, as_of: int, config: Config
) -> tuple[RankedList, ...]:
    """Return the lists with their reasons, what brought each play, and with details of their first customers.

    Features of the listed customers are computed anew, in their buckets only. ModelError where the model has no
    reference; AssertionError where a probability comes out otherwise than on the list.
    """
    if predictor.reference is None:
        raise ModelError("The model does not know what is typical of its customers (reference.json). Train anew.")
    reference, explainers = predictor.reference, _explainers(predictor, lists)
    shown = [one.rows["probability"].to_numpy() for one in lists]
    listed, plays = ([one.rows[name].to_pylist() for one in lists] for name in ("customer_id", "play"))
    place = [{name: i for i, name in enumerate(names)} for names in listed]

    def work(block: Block) -> list[dict[int, _Told]]:
        answers, past = predictor.answer(block, as_of), RecentPast(block, as_of, config)
        names = [block.customers[i] for i in answers.snapshots.customer]
        found = []
        for one, places, probability, offered in zip(lists, place, shown, plays, strict=True):
            here = np.array([i for i, name in enumerate(names) if name in places], dtype=np.int64)
            told = dict[int, _Told]()
            for stage in map(config.journey.index, one.spec.origins):
                rows = here[answers.stage[here] == stage]
                where = [places[names[i]] for i in rows]
                asked = asked_in(one.outcome, config.journey.names[stage], config.journey)
                listing = _Listing(one, stage, asked, predictor.definition, explainers[asked], reference, config, as_of)
                texts = listing.reasons(block, answers, rows, probability[where], [offered[i] for i in where], past)
                told |= dict(zip(where, texts, strict=True))
            found.append(told)
        return found

    parts = engine.only(name for names in listed for name in names).map(work)
    result = []
    for k, one in enumerate(lists):
        by_place, table = {i: texts for part in parts for i, texts in part[k].items()}, one.rows
        for r, column in enumerate(COLUMNS):
            values = pa.array([by_place[i].reasons[r] for i in range(len(table))], type=pa.string())
            table = table.set_column(table.column_names.index(column), column, values)
        because = pa.array([by_place[i].because for i in range(len(table))], type=pa.string())
        table = table.set_column(table.column_names.index(BECAUSE), BECAUSE, because)
        details = {listed[k][i]: told.details for i, told in sorted(by_place.items()) if i < DETAILED}
        result.append(replace(one, rows=table, details=details))
    return tuple(result)


def _explainers(predictor: Predictor, lists: Sequence[RankedList]) -> dict[str, Explainer]:
    """Return the explainer of what each list asks in a stage; an outcome may be the return, or another outcome."""
    main, journey = Explainer(predictor), predictor.definition.journey.spec
    asked = {asked_in(one.outcome, stage, journey) for one in lists for stage in one.spec.origins}
    models = {name: predictor.definition.answering(name) for name in sorted(asked)}
    return {name: main if one is None else Explainer(predictor.asking(one)) for name, one in models.items()}


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told of one customer."""

    reasons: tuple[str | None, ...]
    because: str | None
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Listing:
    """What the reasons of one list have in common for the customers of one of its stages."""

    ranked: RankedList
    stage: int
    outcome: str
    definition: ModelSpec
    explainer: Explainer
    reference: Reference
    config: Config
    as_of: int

    def reasons(
        self,
        block: Block,
        answers: Predictions,
        rows: npt.NDArray[np.int64],
        probability: _F64,
        offered: Sequence[str | None],
        past: RecentPast,
    ) -> list[_Told]:
        """Return three reasons for each of these rows of the answers, None where there are fewer, and details.

        ``offered`` are the rows' plays, of which it is told what brought them.
        """
        one, definition, stage = self.ranked, self.definition, self.stage
        names, at_risk = definition.journey.names, one.spec.kind == "at_risk"
        target = 1 + names.index(one.spec.target) if one.spec.kind == "move" else 0
        horizon = definition.horizons.index(one.spec.horizon)
        if not np.array_equal(self._shown(answers, rows, target, horizon), probability):
            raise AssertionError(f"{one.title}: a listed score could not be computed again")
        reference, wanted = self.reference, events_wanted(definition)
        whom = names[stage] if reference.own[stage + 1] else None
        if one.spec.kind == "win_back" and reference.silent is not None and reference.silent.own[stage + 1]:
            # Beside the others of their stage all of them are nothing but silent.
            reference, whom = reference.silent, f"silent {whom}"
        x, typical = answers.x[rows], reference.typical[stage + 1]
        explanation = self.explainer.explain(x, stage, target, horizon + 1, typical, self.as_of)
        if one.outcome == LEAVING:
            explanation = explanation.of_the_contrary
            # What leads out of the stage may lead into another one, but here nobody wishes for it.
            wanted = wanted.difference(*(asked.events for asked in definition.outcomes if asked.name == self.outcome))
        facts, usual = by_fact(definition, explanation), typical.tolist()
        unhappy, currency = Unhappy.of(self.config), self.config.report.currency
        plays = sorted(plays_of(self.config.journey, one.spec), key=lambda play: play.priority)
        texts: list[_Told] = []
        for i, row in enumerate(rows):
            customer = int(answers.snapshots.customer[row])
            known = last_events(definition, block, customer, self.as_of, unhappy, currency)
            asked = Customer(definition, x[i].tolist(), usual, whom, known, wanted)
            told = [reason.text for reason in three(asked, facts, i, explanation.contributions[i], leaving=at_risk)]
            if at_risk and not told:
                told = [f"{_LEAVING}no fact of their own, beside a typical {names[stage]} customer"]
            reasons = (*told, *[None] * (len(COLUMNS) - len(told)))
            # Two plays may have the same words: what is told is that of the first which is meant for the customer.
            same = (play for play in plays if play.text == offered[i] and past.meant_for(play)[customer])
            because = next((past.because(play, customer) for play in same), None)
            texts.append(_Told(reasons, because, self._details(known, answers.probability[row, :, horizon])))
        return texts

    def _shown(self, answers: Predictions, rows: npt.NDArray[np.int64], target: int, horizon: int) -> _F64:
        """Return the probabilities that the list shows, as SCORES and the list compute them."""
        outcome = self.outcome
        p: _F64 = answers.probability[:, target, horizon] if outcome == REACH else answers.outcomes[outcome][:, horizon]
        if outcome == KEPT:
            p = 1 - p if self.ranked.spec.kind == "at_risk" else 1 - (1 - p)
        return p[rows]

    def _details(self, known: LastEvents, probability: _F64) -> tuple[str, ...]:
        """Return the last touchpoints and the chances for every stage, a sentence each."""
        newest = "; ".join(one.told() for one in known.newest)
        chances = [
            f"{name} {p:.0%}"
            for name, p in zip(self.definition.journey.names, probability[1:], strict=True)
            if not math.isnan(p)
        ]
        days = self.ranked.spec.horizon // DAY
        told = [f"Last: {newest}."] if newest else []
        told += [f"Chances within {days} day{'' if days == 1 else 's'}: {', '.join(chances)}."] if chances else []
        return tuple(told)


def by_fact(definition: ModelSpec, explanation: Explanation) -> Facts:
    """Add the contributions of columns up by fact."""
    columns: dict[_Fact, list[int]] = {}
    base = explanation.base.copy()
    for column, feature in enumerate(definition.catalogue.features):
        if feature.fact[0] in _NOT_THEIRS:
            base += explanation.contributions[:, column]
        else:
            columns.setdefault(_ONE_FACT.get(feature.fact[0], feature.fact), []).append(column)
    sums = np.zeros((len(base), len(columns)))
    for k, members in enumerate(columns.values()):
        for column in members:  # one by one: the same sum for any number of rows
            sums[:, k] += explanation.contributions[:, column]
    return Facts(tuple(columns), tuple(map(tuple, columns.values())), explanation.margin, base, sums)


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer of a list beside a typical one: their rows of X, and what they did last.

    ``stage`` is whose customers are typical, None for those of all stages. ``wanted`` are the events that read well.
    """

    definition: ModelSpec
    mine: Row
    typical: Row
    stage: str | None
    known: LastEvents
    wanted: frozenset[str]

    def told(self, column: int) -> Said | None:
        """Return what is said of one column, None where there is nothing to say."""
        return beside_typical(self.definition, column, self.mine, self.typical, self.stage, self.known)


def events_wanted(definition: ModelSpec) -> frozenset[str]:
    """Return the events that read well: those that some stage asks for, or that are known by a good verb."""
    asked = {event for leaf in definition.journey.spec.leaves() for event in leaf.event or ()}
    known = {event for event in definition.catalogue.vocabulary.events if reads_well(event)}
    return frozenset(asked | known) - frozenset(definition.outbound)


def three(customer: Customer, facts: Facts, row: int, by_column: _F64, *, leaving: bool = False) -> list[Reason]:
    """Return up to three reasons: the weightiest facts that can be told, and one of them that is concrete.

    If none of the three names an event, a channel, a value or progress, the weightiest that does takes the last place.
    ``leaving``: the margin is of staying, and only what speaks against it is told.
    """
    reasons: list[Reason] = []
    for _, columns, contribution in facts_of_row(customer, facts, row):
        concrete, full = any(one.said.concrete for one in reasons), len(reasons) == len(COLUMNS)
        if abs(contribution) < SMALLEST or (full and concrete):
            break
        if leaving and contribution > 0:
            continue
        found = reason_of(customer, columns, contribution, by_column, reasons)
        found = found and replace(found, leaving=leaving)
        if found and not full:
            reasons.append(found)
        elif found and found.said.concrete:
            reasons[-1] = found
    return reasons


def facts_of_row(customer: Customer, facts: Facts, row: int) -> list[tuple[_Fact, tuple[int, ...], float]]:
    """Return name, columns and contribution of each fact of one customer, the weightiest first.

    Of a customer of one day, how long they have come and what they did last is one fact.
    """
    sums = facts.contributions[row].tolist()
    found = {fact: (columns, one) for fact, columns, one in zip(facts.names, facts.columns, sums, strict=True)}
    if customer.known.one_day:
        (columns, contribution), (others, more) = found[PRESENCE], found.pop(LAST)
        found[PRESENCE] = (*columns, *others), contribution + more
    return sorted(((fact, *one) for fact, one in found.items()), key=lambda one: -abs(one[2]))


def reason_of(
    customer: Customer, columns: Sequence[int], contribution: float, by_column: _F64, told: Sequence[Reason] = ()
) -> Reason | None:
    """Return one fact in words, told by its weightiest column that can be; None where no column can.

    A column is not told where the customer is as typical ones are, where its sign would read as the opposite, or where
    it says again what was ``told`` before. Bad experiences are told as such: never as what speaks for somebody.
    """
    sign = 1 if contribution > 0 else -1
    seen = [one.said.moment.what_and_when for one in told if one.said.moment]
    for column in sorted(columns, key=lambda column: -sign * by_column[column]):
        if sign * by_column[column] <= 0:
            break
        if _misread(customer, column, sign):
            continue
        said = customer.told(column)
        if said and said.moment and said.moment.what_and_when in seen:
            # A value may be compared even so, but not as what happened then.
            feature = customer.definition.catalogue.features[column]
            compared = feature.fact[0] == "value" and feature.window == NEVER
            said = (
                replace(customer, known=replace(customer.known, single_value=None)).told(column) if compared else None
            )
        # That something never happened is nobody's merit.
        if said is None or (sign > 0 and said.common):
            continue
        bad = said.moment is not None and said.moment.bad
        return Reason(contribution, said, neutral=sign > 0 and bad)
    return None


def _misread(customer: Customer, column: int, sign: int) -> bool:
    """Return whether a column beside its sign would read as the opposite of what it says, or praise what is bad.

    More, sooner and more often read well, and the contrary badly. But more of what the business sends, of channels
    through which it alone writes, of events that ended with a bad rating or are known by no verb may speak against a
    customer, too. How long ago somebody first came, or who they are, reads neither way.
    """
    feature = customer.definition.catalogue.features[column]
    kind = feature.fact[0]
    if feature.name.startswith("remaining"):
        column -= 1  # the share that is done is what both columns are told as
    mine, typical = float(customer.mine[column]), float(customer.typical[column])
    if kind not in _MORE_IS_BETTER and kind not in _LESS_IS_BETTER:
        return False
    less = kind in _LESS_IS_BETTER or feature.statistic == Statistic.RECENCY
    missing = math.inf if less else 0.0  # never is longest ago
    mine, typical = (missing if math.isnan(one) else one for one in (mine, typical))
    more = mine < typical if less else mine > typical
    last = customer.known.events.get(feature.fact[1]) if kind == "event" else None
    if kind == "event" and feature.fact[1] in customer.known.unhappy:
        return sign > 0 or not more
    rated_badly = last is not None and last.bad
    if rated_badly and feature.statistic == Statistic.TREND:
        return True
    wanted = customer.wanted if kind == "event" else customer.known.chosen_channels
    loose = rated_badly or (kind in ("event", "channel") and feature.fact[1] not in wanted)
    return (sign > 0 and not more) if loose else (sign > 0) != more


def sentence(reasons: Sequence[str]) -> str:
    """Return reasons as one sentence: what speaks for a move first, or points to leaving, then what speaks against it.

    What is typical of others is left out; the reasons themselves say it.
    """
    bare = [_TYPICAL.split(one, maxsplit=1)[0] for one in reasons]
    parts = [
        one.removeprefix(_FOR).removeprefix(_LEAVING).removeprefix(_NOTE)
        for one in bare
        if not one.startswith(_AGAINST)
    ]
    against = [one.removeprefix(_AGAINST) for one in bare if one.startswith(_AGAINST)]
    text = "; ".join(parts)
    if against:
        text += f"{'; but ' if parts else 'against it: '}{'; '.join(against)}"
    return f"{text[:1].upper()}{text[1:]}." if text else ""
