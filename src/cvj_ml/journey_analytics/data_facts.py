"""What there is to learn from: rows by source and time, stages, and transitions whose outcome is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cvj_ml.config import DAY, Config
from cvj_ml.customers import Identities
from cvj_ml.journey_analytics.source_facts import (
    EPOCH,
    LATELY,
    SourceFacts,
    days_apart_of,
    rows_in_time,
    season_in_words,
    seasons_of,
    source_facts,
)
from cvj_ml.journey_analytics.transition_counts import TransitionCounts
from cvj_ml.models.hazard.fitting import LOW_EVIDENCE
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.snapshots import training_grid
from cvj_ml.store import Store
from cvj_ml.windows import (
    NEVER,
    before,
    to_datetime,
)

FEWEST_BOUGHT = 20
"""Purchases, at least, of the last days and of those before, whose values are compared."""

WEEK = 7
"""Days without a row, at least, from which on a source that has rows on most days is asked about."""

NO_STAGE = "(before any)"


@dataclass(frozen=True, slots=True)
class IdentityFacts:
    """How many ids had a row and how many people they were, what became of the pairs, and rows that are nobody's.

    ``pairs`` and ``unassigned`` are those of everything that was read, whenever it was known.
    """

    ids: int
    people: int
    pairs: Mapping[str, int]
    unassigned: int


Enough = Literal["yes", "base rates", "no"]


@dataclass(frozen=True, slots=True)
class KnownTransition:
    """Of ``came`` customers who came to ``origin`` and whose next days were observed whole, ``moved`` reached a target.

    A later stage than the target counts, too. Each customer counts once: when the stage became that of the customer.
    """

    origin: str
    target: str
    days: int
    came: int
    moved: int
    enough: Enough


@dataclass(frozen=True, slots=True)
class StageFacts:
    """A stage: whether it can be observed, who ever entered it by its own rule, and who stands in it."""

    name: str
    observed: bool
    entered: int
    here: int


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a configuration finds in its data at an instant; nobody is named.

    ``transitions`` are all that are predicted, ``next_steps`` those to the next stage that can be observed, at every
    horizon; ``within`` is the one of lists, in days. ``instants`` is how many training asks about. ``days_apart``
    is how many days usually lie between two days with rows. ``seasons`` tells of
    past years, the last one first, how many times the rows of the ``within`` days before this day of the year the days
    after it brought; ``level_of_season`` whether forecasts follow it. ``identities`` is None where nothing says that
    several ids are one person.
    """

    name: str
    day: date
    customers: int
    used: int
    not_yet_visible: int
    superseded: int
    sources: tuple[SourceFacts, ...]
    stages: tuple[StageFacts, ...]
    next_steps: tuple[KnownTransition, ...]
    transitions: tuple[KnownTransition, ...]
    within: int
    min_customers: int
    instants: int
    days_apart: int = 1
    seasons: tuple[float, ...] = ()
    level_of_season: bool = False
    identities: IdentityFacts | None = None

    @property
    def first(self) -> date | None:
        """The day of the first row that is used."""
        return min((one.first for one in self.sources if one.first), default=None)

    @property
    def last(self) -> date | None:
        """The day of the last row that is used."""
        return max((one.last for one in self.sources if one.last), default=None)

    def rule(self) -> str:
        """Say when there is enough to learn a transition from, as training asks."""
        return (
            f"Enough is what training asks for: at least {self.min_customers} customers of the stage have lived through"
            f" every part of the days (model.min_customers), and at least {LOW_EVIDENCE} reached the target from"
            " anywhere. With fewer of the latter there are base rates alone, with fewer of the former nothing."
        )

    def questions(self) -> list[str]:
        """Return what may be wrong with the data, as questions with what to do if so."""
        told = [*_source_questions(self), *_identity_questions(self.identities), *_stage_questions(self)]
        season = None if self.level_of_season else season_in_words(self.seasons, self.within)
        return [*told, season] if season else told

    def as_document(self) -> dict[str, Any]:
        """Return plain values: days as ISO text."""
        document = asdict(self)
        for source, one in zip(document["sources"], self.sources, strict=True):
            source["months"] = dict(one.months)
            source["gaps"] = [{**gap, "days": own.days} for gap, own in zip(source["gaps"], one.gaps, strict=True)]
        plain: dict[str, Any] = _plain({**document, "questions": self.questions(), "rule": self.rule()})
        return plain


def data_facts(
    config: Config, definition: ModelSpec, store: Store, counts: TransitionCounts, as_of: int, others: tuple[int, int]
) -> DataFacts:
    """Put together what was counted; others: rows that are not visible yet, and replaced ones."""
    bought = definition.purchases.events if definition.purchases else ()
    days = rows_in_time(config, store, as_of, bought)
    today = (to_datetime(as_of, config.zone).date() - EPOCH).days
    sources = tuple(source_facts(store, days, today))
    journey, names = definition.journey, definition.journey.names
    transitions = tuple(_transitions(definition, counts))
    following = {
        origin: next((names[j] for j in journey.observable if j >= i), None)
        for i, origin in enumerate([NO_STAGE, *names])
    }
    shown = {NO_STAGE, *(names[j] for j in journey.observable)}
    steps = [one for one in transitions if one.origin in shown and following[one.origin] == one.target]
    return DataFacts(
        config.name,
        to_datetime(as_of, config.zone).date(),
        int(counts.here.sum()),
        sum(one.used for one in sources),
        *others,
        sources,
        tuple(
            StageFacts(name, name not in journey.unobserved, int(counts.entered[i]), int(counts.here[i + 1]))
            for i, name in enumerate(names)
        ),
        tuple(steps),
        transitions,
        config.default_list_horizon // DAY,
        config.model.min_customers,
        len(training_grid(config, as_of)),
        days_apart_of(days),
        seasons_of(days, today, config.default_list_horizon // DAY),
        config.model.year_ago_level,
        _identities(store, int(counts.here.sum()), as_of),
    )


def _identities(store: Store, people: int, as_of: int) -> IdentityFacts | None:
    table = store.identities()
    if table is None or store.pairs is None:
        return None
    known = before(table["first_known"].cast(pa.int64()).fill_null(NEVER).to_numpy(), as_of)
    seen = set(table["customer_id"].filter(pa.array(known)).to_pylist())
    person = Identities.at(store, as_of).person
    persons = {person.get(name, name) for name in seen}
    unassigned = sum(one.unassigned for one in store.counts.values())
    return IdentityFacts(people - len(persons) + len(seen), people, dict(store.pairs), unassigned)


def _transitions(definition: ModelSpec, counts: TransitionCounts) -> Iterator[KnownTransition]:
    names = definition.journey.names
    ahead = definition.at_risk(np.arange(-1, len(names), dtype=np.int8))[:, 1:]
    ahead[0] &= counts.here[0] > 0 or bool(counts.came[0].any())  # a stage that any event enters leaves nobody before
    known = np.logical_and.accumulate(counts.lived >= definition.min_customers, axis=2)
    for s, j in np.argwhere(ahead):
        few = counts.converters[j] < LOW_EVIDENCE
        for m, horizon in enumerate(definition.horizons):
            enough: Enough = "no" if not known[s, j, m] else "base rates" if few else "yes"
            came, moved = int(counts.came[s, j, m]), int(counts.moved[s, j, m])
            yield KnownTransition([NO_STAGE, *names][s], names[j], horizon // DAY, came, moved, enough)


def _source_questions(facts: DataFacts) -> Iterable[str]:
    for one in facts.sources:
        if one.first is None or one.last is None:
            yield f"{one.name}: no row is used before {facts.day}. Is --as-of right, and the time zone (times)?"
            continue
        daily = one.days_with > one.days_without
        for gap in one.gaps:
            if daily and gap.days >= WEEK:
                yield (
                    f"{one.name}: no row from {gap.first} to {gap.last} ({gap.days} days), and rows on most other days."
                    " Is an export missing? If so: add its file to path."
                )
        silent = (facts.day - one.last).days - 1
        if daily and silent >= WEEK:
            yield (
                f"{one.name}: no row after {one.last}, {silent} whole days before {facts.day}. Has the last export"
                " arrived? If so: ask about an earlier day with --as-of."
            )
        if one.thin_weeks and silent < WEEK:
            weeks = "week" if one.thin_weeks == 1 else f"{one.thin_weeks} weeks"
            yield (
                f"{one.name}: only {one.thin_rows:,} rows in the last {weeks}, {one.usual_rows:,.0f} are usual. Has"
                " everything arrived? If not: wait for the rest, or ask about an earlier day with --as-of."
            )
        earlier = one.bought.rows - one.lately.rows
        valued = one.bought.valued - one.lately.valued
        if min(earlier, one.lately.rows) >= FEWEST_BOUGHT and 2 * one.lately.share < valued / earlier:
            yield (
                f"{one.name}: of the {one.lately.rows:,} purchases of the last {LATELY} days {one.lately.share:.0%}"
                f" have a value, of those before {valued / earlier:.0%}. Has the column of amounts another name since,"
                " or another form? If so: name it under columns, or make both alike in a query."
            )
        if one.repeats:
            yield (
                f"{one.name}: {one.repeats:,} of {one.stored:,} rows repeat another one exactly, and each counts. Are"
                " they copies? If so: drop_duplicates: true."
            )
        if one.refused:
            yield (
                f"{one.name}: {one.refused:,} of {one.rows_in:,} rows are refused. Are they meant to count? If so:"
                " `cvj-ml check --json` has the reasons, quarantine.parquet in the store the rows."
            )


def _identity_questions(facts: IdentityFacts | None) -> Iterable[str]:
    if facts is not None and facts.unassigned:
        yield (
            f"identities: {facts.unassigned:,} rows are nobody's, since their id was known to be several people's."
            " Is it no person's id, as that of a till or a house account? If so: null_values: [that id]; if a"
            " column is full of such ids: leave it out of customer_id."
        )
    if facts is not None and (number := facts.pairs.get("too many")):
        yield (
            f"identities: {number:,} pairs would give somebody more ids than one person may have. Are they one person's"
            " all the same? If so: a higher identities.most_ids."
        )


def _stage_questions(facts: DataFacts) -> Iterable[str]:
    for stage in facts.stages:
        if stage.observed and not stage.entered:
            yield (
                f"{stage.name}: nobody has entered it by {facts.day}. Is its event named otherwise in your data? If so:"
                " events: {the journey's name: yours}; if nobody can be seen there: unobserved: [" + stage.name + "]."
            )
    short = sorted({one.days for one in facts.transitions if one.days < facts.days_apart})
    if short:
        listed = ", ".join(f"{one}d" for one in short)
        yield (
            f"Rows stand on few days, usually {facts.days_apart} apart, so horizons of {listed} hold all of these"
            " or none. Do rows stand for months? If so: horizons: [31d, 62d, 92d]; else: horizons of at least"
            f" {facts.days_apart}d."
        )
    if not facts.instants:
        yield (
            f"There is nothing to learn from yet at {facts.day}: training asks from history_from + burn_in on. Is the"
            " history longer than that? If so: an earlier history_from, or a shorter burn_in."
        )


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return node.isoformat() if isinstance(node, date) else node
