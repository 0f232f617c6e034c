"""What a prediction means: journey, features and horizons, learned on the training slice and frozen in the model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cvj_ml.config import AudienceSpec, CompleteSpec, Config, ValueSpec, play_channels
from cvj_ml.config.model import TreesSpec
from cvj_ml.engines import Blocks
from cvj_ml.features import (
    PROGRESS,
    Catalogue,
    CustomColumns,
    Selection,
    Sightings,
    Vocabulary,
    Written,
    compile_catalogue,
    compute,
    learn,
    sight,
)
from cvj_ml.histories import Block
from cvj_ml.journey import PURCHASE, Journey, Outcome, Stays, evidence, outcomes_of, stays
from cvj_ml.panel.calendar import NO_CALENDAR, Calendar, known_calendar
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import midnight

_TOP_ATTRIBUTE_VALUES = 30
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a prediction means: journey, features, horizons. Learned on the training slice, frozen in the model.

    ``outcomes`` are asked of customers beside the return and each stage. Of one that is ``asked`` (`asking`), it is the
    first target, in the place of the return, and no stage is asked for. ``trees`` and ``half_life`` (microseconds) are
    what the configuration says of a fit.
    """

    journey: Journey
    catalogue: Catalogue
    horizons: tuple[int, ...]
    next_stages: int | None
    observed_from: int
    time_zone: str
    outbound: tuple[str, ...]
    min_customers: int
    drop_duplicates: bool = False
    calendar: Calendar = NO_CALENDAR
    outcomes: tuple[Outcome, ...] = ()
    asked: Outcome | None = None
    trees: TreesSpec = field(default_factory=TreesSpec)
    half_life: int | None = None

    def asking(self, outcome: Outcome) -> ModelSpec:
        """Return the same with an outcome in the place of the return, and nothing else asked."""
        return replace(self, asked=outcome)

    def answering(self, name: str) -> Outcome | None:
        """Return the outcome whose model answers for one of a name; None where that of return and reach does."""
        outcomes = {one.name: one for one in self.outcomes}
        found = outcomes.get(name)
        while found is not None and found.same_as is not None:
            found = outcomes.get(found.same_as)
        return found

    @property
    def own_outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes that have a model of their own."""
        return tuple(one for one in self.outcomes if one.same_as is None)

    @property
    def purchases(self) -> ValueSpec | None:
        """The events by which customers buy and give back, where these occur."""
        return self.journey.spec.value if any(one.name == PURCHASE for one in self.outcomes) else None

    @property
    def zone(self) -> ZoneInfo:
        """The business's time zone."""
        return ZoneInfo(self.time_zone)

    @property
    def cells(self) -> tuple[int, int]:
        """How many targets (return, then each stage) and how many intervals of the hazard there are."""
        return 1 + len(self.journey.stages), len(self.horizons)

    @property
    def target_slugs(self) -> list[str]:
        """The targets as columns name them: the return, then each stage."""
        return ["return", *(f"reach_{stage.slug}" for stage in self.journey.stages)]

    def stays(self, block: Block) -> Stays:
        """Return when the block's customers held each stage."""
        return stays(self.journey, evidence(self.journey, block))

    def features(self, block: Block, stays: Stays, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """Return X of the snapshots."""
        return compute(
            self.catalogue,
            self.journey,
            block,
            stays,
            snapshots,
            self.observed_from,
            self.zone,
        )

    @property
    def progress_columns(self) -> npt.NDArray[np.int64]:
        """Return where X holds the progress towards each target: (1 + stages, 2), -1 where there is none."""
        columns = np.full((1 + len(self.journey.stages), 2), -1, dtype=np.int64)
        found = [i for i, feature in enumerate(self.catalogue.features) if feature.group == PROGRESS]
        columns[[1 + i for i in self.journey.observable]] = np.reshape(found, (-1, 2))
        return columns

    def at_risk(self, stage: npt.NDArray[np.int8]) -> _Mask:
        """Return which targets (return, then each stage) are predicted for customers in these stages."""
        ahead = np.zeros((len(stage), 1 + len(self.journey.stages)), dtype=np.bool_)
        ahead[:, 0] = True
        if self.asked is not None:
            # Whoever holds a stage stands in it or in a later one.
            ahead[:, 0] = stage >= (-1 if self.asked.stage is None else self.journey.index(self.asked.stage))
            return ahead
        for position in self.journey.observable:
            ahead[:, 1 + position] = position > stage
        if self.next_stages is not None:
            ahead[:, 1:] &= np.cumsum(ahead[:, 1:], axis=1) <= self.next_stages
        return ahead


def names_written(config: Config) -> Written:
    """Return the names of the data that the configuration holds itself."""
    leaves = list(config.journey.leaves())
    events = {name for leaf in leaves for name in leaf.event or ()}
    events |= {*config.outbound, *config.events, *(name for names in config.events.values() for name in names)}
    channels = {*play_channels(config.journey), *config.eligibility.channel_capacity}
    channels |= {cap.channel for cap in config.eligibility.contact_caps if cap.channel}
    for leaf in leaves:
        for test in leaf.where.get("channel", {}).values():
            channels.update(str(one) for one in (test if isinstance(test, list) else [test]))
    named: dict[str, set[str]] = {}
    periods = config.calendar.periods if config.calendar else ()
    tests: list[AudienceSpec | CompleteSpec | None] = [config.complete_when, *(one.audience for one in periods)]
    for leaf in leaves:
        for name, several in (leaf.attribute or {}).items():
            for test in several.values():
                named.setdefault(name, set()).update(str(one) for one in (test if isinstance(test, list) else [test]))
    for one in tests:
        if one is not None:
            named.setdefault(one.attribute, set()).add(str(one.eq))
    return Written(frozenset(events), frozenset(channels), {name: frozenset(values) for name, values in named.items()})


def selection_of(config: Config) -> Selection:
    """Return which features the configuration leaves out."""
    periods = config.calendar.periods if config.calendar else ()
    audiences = frozenset(one.audience.attribute for one in periods if one.audience)
    return Selection(config.features.exclude, config.journey.value, audiences)


def catalogue_of(config: Config, journey: Journey, vocabulary: Vocabulary) -> Catalogue:
    """Compile the features that the configuration asks for; ConfigError where a function of its own cannot be had."""
    return compile_catalogue(
        vocabulary,
        [journey.names[i] for i in journey.observable],
        [window for window in config.features.windows if window <= config.burn_in],
        config.features.trend if 2 * config.features.trend <= config.burn_in else None,
        config.features.session_gap,
        config.value_decimals,
        [journey.names[i] for i in journey.leavable],
        CustomColumns.of(config.features.custom),
        selection_of(config).excludes,
    )


def define(config: Config, journey: Journey, blocks: Blocks, cut: int) -> ModelSpec:
    """Learn the vocabulary from what was visible before the cut, and compile the features.

    Windows that the first training snapshots could not look back over whole (longer than the burn-in) are left out:
    missing in early snapshots and present in late ones, they would tell the model the era, not the customer.
    """

    def look(block: Block) -> Sightings:
        return sight(block, cut)

    seen = blocks.map(look)
    events = frozenset(name for one in seen for name in one.events)
    observed_from = midnight(config.history_from, config.zone)
    vocabulary = learn(
        seen,
        config.features.top_events,
        config.features.top_channels,
        _TOP_ATTRIBUTE_VALUES,
        fewest=config.model.min_customers,
        written=names_written(config),
    )
    return ModelSpec(
        journey,
        catalogue_of(config, journey, vocabulary),
        config.horizons,
        None if config.targets == "all" else config.targets.next,
        observed_from,
        config.time_zone,
        config.outbound,
        config.model.min_customers,
        config.drop_duplicates,
        known_calendar(config.calendar, observed_from, cut, config.zone),
        outcomes_of(journey, events, config.outbound),
        trees=config.model.trees,
        half_life=config.model.weights.half_life if config.model.weights else None,
    )
