"""Histories and journeys written by hand, in days from the start of the examples, and the package's answers to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tests.oracles.blocks import in_order, to_block
from tests.oracles.examples import CHANNELS, DAY, EVENTS, MINUTE, OUTBOUND, PLANS, START
from tests.oracles.histories import Customer, Touch, Version

from cvj_ml.config import Config, JourneySpec
from cvj_ml.features import Vocabulary, compile_catalogue
from cvj_ml.histories import Block, Text, TouchpointColumns
from cvj_ml.journey import Journey, StageState, evidence, stays
from cvj_ml.models.hazard.calibration import identity
from cvj_ml.models.hazard.fitting import Settings, fit_trees
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.labels import Labels, label
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import build_panel, hazard_rows
from cvj_ml.simulate import random_block
from cvj_ml.snapshots import Snapshots, eligible
from cvj_ml.windows import NEVER

Result = TypeVar("Result")

VOCABULARY = Vocabulary(("buy", "visit"), ("shop", "web"), ("rating",), {"plan": ("gold",)})
WINDOWS = {"1d": DAY, "2d": 2 * DAY, "7d": 7 * DAY}
TREND = 2 * DAY
SESSION_GAP = 30 * MINUTE
LONG_AGO = START - 1_000 * DAY
HORIZONS = (2 * DAY, 5 * DAY, 9 * DAY)


def moment(day: float) -> int:
    """An instant, in days from the start."""
    return START + round(day * DAY)


def touch(
    day: float,
    value: int | None = None,
    *,
    event: str = "buy",
    visible: float | None = None,
    superseded: float | None = None,
    channel: str | None = None,
    plan: str | None = None,
    rating: float | None = None,
    date_only: bool = False,
) -> Touch:
    """One touchpoint; seen when it happens unless said otherwise."""
    return Touch(
        moment(day),
        moment(day if visible is None else visible),
        None if superseded is None else moment(superseded),
        moment(day) // DAY,
        event,
        channel,
        value,
        event not in OUTBOUND,
        {"plan": plan, "rating": rating},
        date_only,
    )


def person(*touches: Touch, name: str = "c", versions: Sequence[Version] = ()) -> Customer:
    """A customer with these touchpoints, put in order."""
    return Customer(name, in_order(touches), tuple(versions))


def a_journey(**rules: object) -> JourneySpec:
    """A journey of these stages and rules."""
    stages = [{"name": name, "enter": rule} for name, rule in rules.items()]
    return JourneySpec.model_validate({"name": "test", "stages": stages})


def a_shop(rules: Mapping[str, object], **settings: object) -> Config:
    """The configuration of a small shop with these stages and rules; settings as in a configuration file."""
    return Config.model_validate(
        {
            "name": "shop",
            "time_zone": "UTC",
            "history_from": "2024-01-01",
            "burn_in": "30d",
            "sources": {"log": {"path": "log.csv"}},
            "journey": {"name": "shop", "stages": [{"name": name, "enter": rule} for name, rule in rules.items()]},
            "horizons": ["7d", "30d"],
            "features": {"windows": ["30d"]},
            **settings,
        }
    )


def a_plain_block(
    offsets: Sequence[int], occurred: npt.NDArray[np.int64], event: npt.NDArray[np.int32], names: tuple[str, ...]
) -> Block:
    """Customers c0000 and on whose touchpoints were known at once and have an event of these names, and no more."""
    return Block(
        tuple(f"c{i:04d}" for i in range(len(offsets) - 1)),
        TouchpointColumns(
            offsets=np.array(offsets, dtype=np.int64),
            occurred_at=occurred,
            visible_at=occurred,
            superseded_at=np.full(len(occurred), NEVER),
            day=(occurred // DAY).astype(np.int32),
            date_only=np.zeros(len(occurred), dtype=np.bool_),
            event=Text(event, names),
            channel=Text(np.full(len(occurred), -1, dtype=np.int32), ()),
            value=np.zeros(len(occurred), dtype=np.int64),
            has_value=np.zeros(len(occurred), dtype=np.bool_),
            inbound=np.ones(len(occurred), dtype=np.bool_),
            properties={},
            merged_at=np.full(len(offsets) - 1, NEVER),
        ),
    )


def random_customers(customers: int, seed: int, *, with_attributes: bool = True) -> Block:
    """Random customers with the names of the examples, until their start."""
    known = {"plan": PLANS, "rating": None}
    return random_block(
        customers=customers,
        seed=seed,
        events=EVENTS,
        channels=CHANNELS,
        properties=known,
        attributes=known if with_attributes else {},
        outbound=OUTBOUND,
        until=START,
    )


def under_other_names(
    journey: JourneySpec, customers: Sequence[Customer], names: Sequence[str], random: Random
) -> tuple[JourneySpec, list[Customer]]:
    """The same journey and log with other names of events, and equal instants in any order: nothing that means time."""
    renamed = dict(zip(EVENTS, names, strict=True))
    mapping = {old: (new,) for old, new in renamed.items()}
    stages = [stage.model_copy(update={"enter": stage.enter.with_events(mapping)}) for stage in journey.stages]
    found = []
    for one in customers:
        rows = [replace(row, event=renamed[row.event]) for row in one.touches]
        random.shuffle(rows)
        found.append(replace(one, touches=tuple(sorted(rows, key=lambda row: row.occurred))))
    return journey.model_copy(update={"stages": tuple(stages)}), found


def a_definition(
    journey: JourneySpec,
    hidden: frozenset[str] = frozenset(),
    *,
    vocabulary: Vocabulary = VOCABULARY,
    observed_from: int = LONG_AGO,
    next_stages: int | None = None,
    zone: str = "UTC",
) -> ModelSpec:
    """A small definition: windows of 1, 2 and 7 days, a trend of 2 days, horizons of 2, 5 and 9 days."""
    observable = [name for name in journey.names if name not in hidden]
    catalogue = compile_catalogue(
        vocabulary,
        observable,
        tuple(WINDOWS.values()),
        TREND,
        SESSION_GAP,
        2,
        [journey.names[i] for i in Journey(journey, hidden).leavable],
    )
    return ModelSpec(
        Journey(journey, hidden), catalogue, HORIZONS, next_stages, observed_from, zone, tuple(OUTBOUND), 2
    )


@dataclass(frozen=True)
class Blocks:
    """Blocks in memory, as an engine would hand them out."""

    blocks: Sequence[Block]

    def map(self, function: Callable[[Block], Result]) -> list[Result]:
        """Apply a function to each block."""
        return [function(block) for block in self.blocks]


@dataclass(frozen=True)
class Answers:
    """What the package says of the eligible customers at one instant."""

    names: list[str]
    state: StageState
    x: npt.NDArray[np.float32]
    columns: list[str]

    def feature(self, name: str) -> float:
        """One feature of the first customer."""
        return float(self.x[0, self.columns.index(name)])


def answers(definition: ModelSpec, customers: Sequence[Customer], as_of: int) -> Answers:
    """Ask the package for eligibility, stage, days in stage and features."""
    block = to_block(customers)
    stays = definition.stays(block)
    snapshots = eligible(block.touchpoints, np.array([as_of], dtype=np.int64))
    return Answers(
        [block.customers[i] for i in snapshots.customer],
        stays.at(snapshots.customer, snapshots.as_of),
        definition.features(block, stays, snapshots),
        definition.catalogue.names,
    )


def a_predictor(definition: ModelSpec, blocks: Blocks, instants: npt.NDArray[np.int64], cut: int) -> Predictor:
    """A small model fitted on the panel of these blocks."""
    panel = build_panel(definition, blocks, instants, cut, 0)
    settings = Settings(leaves=4, rows_a_leaf=10, lambda_l2=1.0, path_smooth=0.0, rounds=5)
    trees = fit_trees(panel, hazard_rows(panel.labels, definition.horizons), settings, seed=1, threads=1)
    return Predictor(definition, trees, identity(1 + len(definition.journey.stages), len(definition.horizons)))


def labels_of(
    journey: JourneySpec,
    hidden: frozenset[str],
    customers: Sequence[Customer],
    instants: Sequence[int],
    cut: int,
    arrival_delay: int = 0,
) -> tuple[Snapshots, Labels]:
    """Ask the package for the snapshots at some instants and their labels."""
    block = to_block(customers)
    points = evidence(Journey(journey, hidden), block)
    snapshots = eligible(block.touchpoints, np.array(instants, dtype=np.int64))
    stage = stays(Journey(journey, hidden), points).at(snapshots.customer, snapshots.as_of).stage
    return snapshots, label(Journey(journey, hidden), points, snapshots, stage, cut, arrival_delay)


def plain(instants: npt.NDArray[np.int64]) -> list[list[int | None]]:
    """A table of instants or times, None for never."""
    return [[None if at == NEVER else int(at) for at in row] for row in instants]
