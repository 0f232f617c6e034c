"""The panel: the only place where X meets labels, under a budget of rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cvj_ml.config import Config, play_channels
from cvj_ml.engines import Blocks
from cvj_ml.features import PROGRESS, Catalogue, Sightings, Written, compile_catalogue, compute, learn, sight
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, entry_times, stage_at
from cvj_ml.panel.labels import Labels, label
from cvj_ml.snapshots import Snapshots, eligible, sampling_keys
from cvj_ml.windows import Instants, edges, midnight, observed_whole

_TOP_ATTRIBUTE_VALUES = 30
_TWO_YEARS = 730 * 86_400_000_000
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a prediction means: journey, features, horizons. Learned on the training slice, frozen in the model."""

    journey: Journey
    catalogue: Catalogue
    horizons: tuple[int, ...]
    next_stages: int | None
    observed_from: int
    time_zone: str
    outbound: tuple[str, ...]
    min_customers: int
    drop_duplicates: bool = False

    @property
    def zone(self) -> ZoneInfo:
        """The business's time zone."""
        return ZoneInfo(self.time_zone)

    def entries(self, block: Block) -> Instants:
        """Return the block's stage entries (customers, stages)."""
        return entry_times(self.journey, block.touchpoints)

    def features(self, block: Block, entries: Instants, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """Return X of the snapshots."""
        return compute(
            self.catalogue,
            self.journey,
            block,
            entries,
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

    def asked(self, stage: npt.NDArray[np.int8]) -> _Mask:
        """Return which targets (return, then each stage) are predicted for customers in these stages."""
        ahead = np.zeros((len(stage), 1 + len(self.journey.stages)), dtype=np.bool_)
        ahead[:, 0] = True
        for position in self.journey.observable:
            ahead[:, 1 + position] = position > stage
        if self.next_stages is not None:
            ahead[:, 1:] &= np.cumsum(ahead[:, 1:], axis=1) <= self.next_stages
        return ahead


def names_written(config: Config) -> Written:
    """Return the names of the data that the configuration holds itself."""
    leaves = [leaf for stage in config.journey.stages for leaf in stage.enter.leaves()]
    events = {name for leaf in leaves for name in leaf.event or ()}
    events |= {*config.outbound, *config.events, *(name for names in config.events.values() for name in names)}
    channels = {*play_channels(config.journey), *config.eligibility.channel_capacity}
    channels |= {cap.channel for cap in config.eligibility.contact_caps if cap.channel}
    for leaf in leaves:
        for test in leaf.where.get("channel", {}).values():
            channels.update(str(one) for one in (test if isinstance(test, list) else [test]))
    complete = config.complete_when
    return Written(
        frozenset(events),
        frozenset(channels),
        {complete.attribute: frozenset([str(complete.eq)])} if complete else {},
    )


def define(config: Config, journey: Journey, blocks: Blocks, cut: int) -> ModelSpec:
    """Learn the vocabulary from what was visible before the cut, and compile the features.

    Windows that the first training snapshots could not look back over whole (longer than the burn-in) are left out:
    missing in early snapshots and present in late ones, they would tell the model the era, not the customer.
    """

    def look(block: Block) -> Sightings:
        return sight(block, cut)

    observed_from = midnight(config.history_from, config.zone)
    outcomes = cut - observed_from - config.burn_in
    vocabulary = learn(
        blocks.map(look),
        config.features.top_events,
        config.features.top_channels,
        _TOP_ATTRIBUTE_VALUES,
        calendar=outcomes >= _TWO_YEARS,
        fewest=config.model.min_customers,
        written=names_written(config),
    )
    catalogue = compile_catalogue(
        vocabulary,
        [journey.names[i] for i in journey.observable],
        [window for window in config.features.windows if window <= config.burn_in],
        config.features.trend if 2 * config.features.trend <= config.burn_in else None,
        config.features.session_gap,
        config.value_decimals,
    )
    return ModelSpec(
        journey,
        catalogue,
        config.horizons,
        None if config.targets == "all" else config.targets.next,
        observed_from,
        config.time_zone,
        config.outbound,
        config.model.min_customers,
        config.drop_duplicates,
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """Snapshots with features and labels; every row stands for ``1 / share`` eligible snapshots.

    ``customer`` indexes ``names``, the ids of all customers. ``eligible`` counts the snapshots and ``movers`` the
    customers who moved to each target, both before sampling.
    """

    x: npt.NDArray[np.float32]
    customer: npt.NDArray[np.int64]
    as_of: Instants
    stage: npt.NDArray[np.int8]
    days_in_stage: npt.NDArray[np.float64]
    labels: Labels
    share: float
    eligible: int
    movers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    definition: ModelSpec

    def __len__(self) -> int:
        return len(self.x)

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """Return one feature of all rows."""
        return self.x[:, self.definition.catalogue.names.index(name)]


@dataclass(frozen=True, slots=True)
class HazardRows:
    """Rows (snapshot, target, interval) of the discrete-time hazard, with whether the event fell inside."""

    snapshot: npt.NDArray[np.int64]
    target: npt.NDArray[np.int8]
    interval: npt.NDArray[np.int8]
    moved: _Mask

    def __len__(self) -> int:
        return len(self.snapshot)

    def take(self, keep: _Mask | npt.NDArray[np.int64] | slice) -> HazardRows:
        """Return the rows marked by a mask, at these positions, or of a slice."""
        return HazardRows(self.snapshot[keep], self.target[keep], self.interval[keep], self.moved[keep])


def hazard_rows(labels: Labels, horizons: tuple[int, ...]) -> HazardRows:
    """Expand labels into hazard rows.

    A row exists iff the event had not happened before the interval and the *whole* interval was observed, whether
    or not the event is inside: keeping only the early events of unfinished intervals would bias rates upwards.
    """
    parts = []
    bounds = edges(horizons)
    for m, (low, high) in enumerate(itertools.pairwise(bounds)):
        at_risk = labels.asked & (labels.times >= low) & observed_whole(labels.follow_up, high)[:, None]
        snapshot, target = np.nonzero(at_risk)
        moved = labels.times[snapshot, target] < high
        parts.append((snapshot, target, np.full(len(snapshot), m), moved))
    snapshot, target, interval, moved = (np.concatenate(column) for column in zip(*parts, strict=True))
    return HazardRows(snapshot.astype(np.int64), target.astype(np.int8), interval.astype(np.int8), moved)


@dataclass(frozen=True, slots=True)
class _Part:
    x: npt.NDArray[np.float32]
    snapshots: Snapshots
    stage: npt.NDArray[np.int8]
    days_in_stage: npt.NDArray[np.float64]
    labels: Labels
    names: tuple[str, ...]
    eligible: int


def build_panel(
    definition: ModelSpec,
    blocks: Blocks,
    instants: Instants,
    cut: int,
    arrival_delay: int,
    *,
    max_rows: int | None = None,
    seed: int = 0,
) -> Panel:
    """Compute features and labels of the eligible snapshots at the instants, as known at the cut.

    Above ``max_rows`` hazard rows, snapshots are sampled by a hash of (customer_id, as_of, seed) *before* their
    features are computed; one share for all, so base rates stay.
    """
    counts = blocks.map(lambda block: _count(definition, block, instants, cut, arrival_delay))
    rows = sum(one.rows for one in counts)
    share = 1.0 if max_rows is None else min(1.0, max_rows / max(rows, 1))

    def part(block: Block) -> _Part:
        entries = definition.entries(block)
        snapshots = eligible(block.touchpoints, instants)
        asked = len(snapshots)
        if share < 1:
            snapshots = snapshots.take(sampling_keys(block.customers, snapshots, seed) < share)
        state = stage_at(entries[snapshots.customer], snapshots.as_of)
        labels = _label(definition, block, snapshots, state.stage, cut, arrival_delay)
        return _Part(
            definition.features(block, entries, snapshots),
            snapshots,
            state.stage,
            state.days_in_stage,
            labels,
            block.customers,
            asked,
        )

    parts = blocks.map(part)
    names = [name for one in parts for name in one.names]
    by_name = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    number = np.empty_like(by_name)
    number[by_name] = np.arange(len(names))
    first = np.cumsum([0] + [len(one.names) for one in parts])
    customers = [number[one.snapshots.customer + start] for one, start in zip(parts, first, strict=False)]
    # Rows stand by customer, whatever bucket they came from: what samples rows by position must draw the same.
    place = np.empty(sum(map(len, customers)), dtype=np.int64)
    place[np.argsort(np.concatenate(customers), kind="stable")] = np.arange(len(place))
    x = np.empty((len(place), len(definition.catalogue.features)), dtype=np.float32)
    begin = 0
    for one in parts:
        x[place[begin : begin + len(one.x)]] = one.x
        begin += len(one.x)

    def gather(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        joined = np.concatenate(columns)
        ordered = np.empty_like(joined)
        ordered[place] = joined
        return ordered

    return Panel(
        x,
        gather(customers),
        gather([one.snapshots.as_of for one in parts]),
        gather([one.stage for one in parts]),
        gather([one.days_in_stage for one in parts]),
        Labels(
            gather([one.labels.times for one in parts]),
            gather([one.labels.asked for one in parts]),
            gather([one.labels.follow_up for one in parts]),
            sum(one.labels.late for one in parts),
        ),
        share,
        sum(one.eligible for one in parts),
        np.sum([one.movers for one in counts], axis=0),
        tuple(names[i] for i in by_name),
        definition,
    )


def _label(
    definition: ModelSpec,
    block: Block,
    snapshots: Snapshots,
    stage: npt.NDArray[np.int8],
    cut: int,
    arrival_delay: int,
) -> Labels:
    labels = label(
        definition.journey,
        block.touchpoints,
        snapshots,
        stage,
        cut,
        arrival_delay,
    )
    return Labels(labels.times, labels.asked & definition.asked(stage), labels.follow_up, labels.late)


@dataclass(frozen=True, slots=True)
class _Count:
    rows: int
    movers: npt.NDArray[np.int64]


def _count(definition: ModelSpec, block: Block, instants: Instants, cut: int, arrival_delay: int) -> _Count:
    """Count a block's hazard rows, and the customers who moved to each target: rows of one customer count once."""
    snapshots = eligible(block.touchpoints, instants)
    stage = stage_at(definition.entries(block)[snapshots.customer], snapshots.as_of).stage
    rows = hazard_rows(_label(definition, block, snapshots, stage, cut, arrival_delay), definition.horizons)
    targets = 1 + len(definition.journey.stages)
    pairs = np.unique(snapshots.customer[rows.snapshot[rows.moved]] * targets + rows.target[rows.moved])
    return _Count(len(rows), np.bincount(pairs % targets, minlength=targets))
