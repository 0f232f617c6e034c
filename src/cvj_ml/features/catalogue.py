"""What is computed about a customer: groups x windows x statistics, each with a plain-English label.

The catalogue is compiled from the vocabulary and the journey, and drives the kernel: one row of ``Program`` says
where a column's number is found in the kernel's accumulators. No feature is written out by hand.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cvj_ml.config import format_duration
from cvj_ml.features.custom import CUSTOM, CustomColumns
from cvj_ml.features.vocabulary import OTHER, SEVERAL, Vocabulary
from cvj_ml.windows import NEVER

PROGRESS = "progress"
"""The group of two columns a stage, in order: the share of its rule fulfilled, and the touchpoints still needed."""


DATES = "dates"
"""The group of two columns a date, in order: the days until it, where it lies ahead, and those since it, where not."""


class Statistic(IntEnum):
    """How the kernel turns an accumulator into a column."""

    COUNT = 0
    SUM = 1
    MEAN = 2
    MAX = 3
    GAP_MEAN = 4
    GAP_SD = 5
    RECENCY = 6
    TREND = 7
    LAST_EVENT = 8
    LAST_CHANNEL = 9
    TENURE = 10


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the kernel accumulates: one cell for each event and channel, then the fixed ones."""

    events: int
    channels: int

    @property
    def inbound(self) -> int:
        """Inbound touchpoints; then active days, sessions, gaps (number, sum, squares), values (number, sum)."""
        return self.events + self.channels

    @property
    def total(self) -> int:
        """The number of cells."""
        return self.inbound + 8


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: its name, a label for people, and where the kernel finds it (-1: not by the kernel).

    ``window`` is in microseconds (NEVER: all history); ``cell`` is the position from the end for last touchpoints.
    Columns of the same ``fact`` (a kind, and what it is about) tell of the same thing, so a reason may name one.
    """

    name: str
    label: str
    group: str
    fact: tuple[str, ...]
    statistic: int = -1
    cell: int = 0
    window: int = NEVER


@dataclass(frozen=True, slots=True)
class Program:
    """The kernel's columns as arrays: statistic, cell, and the ring at which its window ends."""

    rings: npt.NDArray[np.int64]
    statistic: npt.NDArray[np.int64]
    cell: npt.NDArray[np.int64]
    ring: npt.NDArray[np.int64]
    other_ring: npt.NDArray[np.int64]
    cells: Cells


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All columns in order; those of the kernel come first. Without ``trend`` there are no trends.

    ``excluded`` are the names of those that are left out. ``beside_kernel`` says of each column that the kernel does
    not compute, in order, whether it is kept. ``custom`` are the functions of one's own.
    """

    features: tuple[Feature, ...]
    vocabulary: Vocabulary
    windows: tuple[int, ...]
    trend: int | None
    session_gap: int
    value_decimals: int
    excluded: tuple[str, ...] = ()
    beside_kernel: tuple[bool, ...] = ()
    custom: tuple[CustomColumns, ...] = ()

    @property
    def names(self) -> list[str]:
        """Column names."""
        return [feature.name for feature in self.features]

    def names_of_codes(self, feature: Feature) -> tuple[str, ...]:
        """Return what the codes of a feature stand for; nothing for a number."""
        words = self.vocabulary
        if feature.statistic == Statistic.LAST_EVENT:
            return (*words.events, OTHER, SEVERAL)
        if feature.statistic == Statistic.LAST_CHANNEL:
            return (*words.channels, OTHER, SEVERAL)
        return (*words.categories[feature.fact[1]], OTHER) if feature.fact[0] == "category" else ()

    @property
    def coded(self) -> npt.NDArray[np.bool_]:
        """Which columns hold codes and no numbers: (features,)."""
        return np.array([len(self.names_of_codes(one)) > 0 for one in self.features], dtype=np.bool_)

    def program(self) -> Program:
        """Compile the kernel's columns."""
        cells = Cells(len(self.vocabulary.events) + 1, len(self.vocabulary.channels) + 1)
        compiled = [feature for feature in self.features if feature.statistic >= 0]
        trend = {self.trend, 2 * self.trend} if self.trend else set()
        rings = sorted({*self.windows, *trend, NEVER})
        return Program(
            np.array(rings, dtype=np.int64),
            np.array([feature.statistic for feature in compiled], dtype=np.int64),
            np.array([feature.cell for feature in compiled], dtype=np.int64),
            np.array([rings.index(feature.window) for feature in compiled], dtype=np.int64),
            np.array(
                [
                    rings.index(2 * feature.window) if feature.statistic == Statistic.TREND else 0
                    for feature in compiled
                ],
                dtype=np.int64,
            ),
            cells,
        )


def compile_catalogue(
    vocabulary: Vocabulary,
    stages: Sequence[str],
    windows: Sequence[int],
    trend: int | None,
    session_gap: int,
    value_decimals: int,
    left: Sequence[str] = (),
    custom: tuple[CustomColumns, ...] = (),
    excluded: Callable[[Feature], bool] = lambda feature: False,
) -> Catalogue:
    """Compile every column from the vocabulary, the observable stages, and those of them that can be left.

    ``custom`` are functions of one's own, ``excluded`` says which columns are left out.
    """
    features = [*_touchpoint_features(vocabulary, windows, trend), *_journey_features(stages, left)]
    features += [Feature(f"attribute_{one}", one, "attributes", ("number", one)) for one in vocabulary.numbers]
    features += [Feature(f"attribute_{one}", one, "attributes", ("category", one)) for one in vocabulary.categories]
    for one in vocabulary.dates:
        features.append(Feature(f"days_until_{one}", f"days until {one}", DATES, ("date", one)))
        features.append(Feature(f"days_past_{one}", f"days since {one}", DATES, ("date", one)))
    if vocabulary.people:
        features += _people_features(vocabulary, windows)
    for name in (name for one in custom for name in one.spec.feature_names):
        features.append(Feature(f"{CUSTOM}_{name}", name.replace("_", " "), CUSTOM, (CUSTOM, name)))
    named = tuple(_with_safe_names(features))
    return Catalogue(
        tuple(one for one in named if not excluded(one)),
        vocabulary,
        tuple(windows),
        trend,
        session_gap,
        value_decimals,
        tuple(one.name for one in named if excluded(one)),
        tuple(not excluded(one) for one in named if one.statistic < 0),
        custom,
    )


def _touchpoint_features(vocabulary: Vocabulary, windows: Sequence[int], trend: int | None) -> Iterator[Feature]:
    cells = Cells(len(vocabulary.events) + 1, len(vocabulary.channels) + 1)
    named = [("event", name, i) for i, name in enumerate((*vocabulary.events, OTHER))]
    named += [("channel", name, cells.events + i) for i, name in enumerate((*vocabulary.channels, OTHER))]
    fixed = [
        (Statistic.COUNT, 0, "touchpoints", "touchpoints"),
        (Statistic.COUNT, 1, "active_days", "active days"),
        (Statistic.COUNT, 2, "sessions", "sessions"),
        (Statistic.GAP_MEAN, 3, "gap_mean", "average days between touchpoints"),
        (Statistic.GAP_SD, 3, "gap_sd", "spread of the days between touchpoints"),
        (Statistic.SUM, 6, "value_sum", "total value"),
        (Statistic.MEAN, 6, "value_mean", "average value"),
        (Statistic.MAX, 6, "value_max", "highest value"),
    ]
    for window in (*windows, NEVER):
        suffix, words = _suffix(window), window_words(window)
        for kind, name, cell in named:
            label = f"{name} {words}" if kind == "event" else f"touchpoints through {name} {words}"
            yield Feature(f"count_{kind}_{name}_{suffix}", label, "counts", (kind, name), Statistic.COUNT, cell, window)
        for statistic, offset, name, label in fixed:
            group = "values" if name.startswith("value") else "rhythm"
            kind = "value" if group == "values" else "gaps" if name.startswith("gap") else "activity"
            cell = cells.inbound + offset
            yield Feature(f"{name}_{suffix}", f"{label} {words}", group, (kind,), statistic, cell, window)
    for kind, name, cell in named:
        label = f"days since the last {name if kind == 'event' else f'touchpoint through {name}'}"
        yield Feature(f"recency_{kind}_{name}", label, "recency", (kind, name), Statistic.RECENCY, cell)
    label = "days since the last touchpoint"
    yield Feature("recency", label, "recency", ("recency",), Statistic.RECENCY, cells.inbound)
    yield Feature("tenure", "days since the first touchpoint", "recency", ("tenure",), Statistic.TENURE)
    if trend:
        for kind, name, cell in [*named, ("", "touchpoints", cells.inbound), ("", "active_days", cells.inbound + 1)]:
            what = f"touchpoints through {name}" if kind == "channel" else name.replace("_", " ")
            label = f"change in {what} {trend_words(trend)}"
            fact = (kind, name) if kind else ("activity",)
            yield Feature(f"trend_{kind}_{name}", label, "trends", fact, Statistic.TREND, cell, trend)
    for nth in range(3):
        which = ("last", "last but one", "last but two")[nth]
        yield Feature(f"last_event_{nth + 1}", f"{which} touchpoint", "last", ("last",), Statistic.LAST_EVENT, nth)
    label = "channel of the last touchpoint"
    yield Feature("last_channel", label, "last", ("last_channel",), Statistic.LAST_CHANNEL)


def _people_features(vocabulary: Vocabulary, windows: Sequence[int]) -> Iterator[Feature]:
    widest = windows[-1] if windows else NEVER
    for window in (*windows, NEVER):
        name = f"people_{_suffix(window)}"
        yield Feature(name, f"people active {window_words(window)}", "people", ("people",), window=window)
    for window in windows:
        name, label = f"people_new_{_suffix(window)}", f"people seen first {window_words(window)}"
        yield Feature(name, label, "people", ("new_people",), window=window)
    yield Feature("people_newest", "days since a person was seen first", "people", ("new_people",))
    label = f"share of the most active person {window_words(widest)}"
    yield Feature("people_most_active", label, "people", ("most_active",), window=widest)
    for window in dict.fromkeys((widest, NEVER)):
        for role in vocabulary.roles:
            name, label = f"people_role_{role}_{_suffix(window)}", f"people active as {role} {window_words(window)}"
            yield Feature(name, label, "people", ("role", role), window=window)


def _suffix(window: int) -> str:
    return "all" if window == NEVER else format_duration(window)


def window_words(window: int) -> str:
    """Return a window in words: "in the last 30 days", "ever"."""
    return "ever" if window == NEVER else f"in the last {_length(window)}"


def trend_words(window: int) -> str:
    """Return what a trend compares: "in the last 30 days against the 30 days before"."""
    return f"{window_words(window)} against the {_length(window)} before"


def _length(window: int) -> str:
    text = format_duration(window)
    if not text.endswith("d"):
        return text
    return "day" if text == "1d" else f"{text[:-1]} days"


def _journey_features(stages: Sequence[str], left: Sequence[str]) -> Iterator[Feature]:
    yield Feature("stage", "present stage", "journey", ("stage",))
    yield Feature("days_in_stage", "days in the present stage", "journey", ("in_stage",))
    yield Feature("stages_visited", "stages entered so far", "journey", ("stages",))
    for name in stages:
        yield Feature(f"days_since_{name}", f"days since entering {name}", "journey", ("entered", name))
    for name in left:
        yield Feature(f"days_since_leaving_{name}", f"days since leaving {name}", "journey", ("left", name))
    for name in stages:
        about = ("progress", name)
        yield Feature(f"fulfilled_{name}", f"share of what enters {name} already done", PROGRESS, about)
        yield Feature(f"remaining_{name}", f"touchpoints still needed to enter {name}", PROGRESS, about)
    for earlier, later in itertools.pairwise(stages):
        between = ("between", earlier, later)
        yield Feature(f"days_from_{earlier}_to_{later}", f"days from {earlier} to {later}", "journey", between)


def _with_safe_names(features: Sequence[Feature]) -> Iterator[Feature]:
    """Make names unique and free of what LightGBM refuses in them (white space and JSON's own characters)."""
    taken: set[str] = set()
    for feature in features:
        name = re.sub(r"[^\w.-]+", "_", feature.name).strip("_")
        unique, copy = name, 2
        while unique in taken:
            unique, copy = f"{name}.{copy}", copy + 1
        taken.add(unique)
        yield replace(feature, name=unique)
