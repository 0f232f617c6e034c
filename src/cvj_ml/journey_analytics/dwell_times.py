"""Stays of customers in stages, as known at an instant: the counts behind the journey map, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.errors import ConfigError, nearest
from cvj_ml.features.compute import latest_known
from cvj_ml.histories import Block, Text, TouchpointColumns
from cvj_ml.journey import Journey, Stays, reached
from cvj_ml.windows import NEVER, Instants, before, follow_up, is_customer, observed_whole

STILL_THERE = -2
"""The ``next`` of a stay that has not ended."""

BEFORE_ANY = -1
"""The stage of customers who have touchpoints and no stage yet."""

UNKNOWN = "(unknown)"
"""The segment of customers whose attribute is not known."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every block: the journey and its observed stages, at which instant, over which last period.

    ``delay`` is how long touchpoints may take to arrive, ``segment`` a text attribute that tells groups of customers
    apart, ``rating`` the property of touchpoints that holds ratings. What was before ``observed_from`` was not
    recorded. Times are in microseconds.
    """

    journey: Journey
    as_of: int
    period: int
    delay: int
    segment: str | None
    rating: str
    observed_from: int


@dataclass(frozen=True, slots=True)
class DwellTimes:
    """One row a stay: ``customer`` in the block, ``stage``, when it began and ended, and the stage it led to.

    ``end`` is NEVER and ``next`` is STILL_THERE where the customer is still there. ``first`` marks the customer's first
    stay, ``again`` a stay in a stage where they had been before. A stage that was stepped over has no row.
    """

    customer: npt.NDArray[np.int64]
    stage: npt.NDArray[np.int64]
    start: Instants
    end: Instants
    next: npt.NDArray[np.int64]
    first: npt.NDArray[np.bool_]
    again: npt.NDArray[np.bool_]


def dwell_times(points: TouchpointColumns, stays: Stays, as_of: int) -> DwellTimes:
    """Return every stay that began before ``as_of``, on the clock of what the business could know.

    The stage is the highest one held, so a stay lasts from the instant at which the highest became this stage to the
    instant at which it became another one: a higher one, unless a stage can be left.
    """
    seen, entries = points.first_visible(), stays.first
    counted = is_customer(seen, points.merged_at, as_of)
    if stays.leavable.any():
        return _back_and_forth(np.where(counted, seen, NEVER), stays, as_of)
    bounds = np.column_stack([seen, reached(entries), np.full(len(seen), NEVER, dtype=np.int64)])
    bounds = np.where(before(bounds, as_of) & counted[:, None], bounds, NEVER)
    # Evidence may be replaced: a stage can be entered no earlier than the customer's first row.
    start, end = bounds[:, :-1], bounds[:, 1:]
    customer, column = np.nonzero(start < end)
    ends = end[customer, column]
    following = np.full(len(customer), STILL_THERE, dtype=np.int64)
    for stage in range(entries.shape[1]):
        following[(ends != NEVER) & (bounds[customer, stage + 1] == ends)] = stage
    first = _begins(customer)
    return DwellTimes(
        customer, column - 1, start[customer, column], ends, following, first, np.zeros(len(first), dtype=np.bool_)
    )


def _begins(customer: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.append(True, customer[1:] != customer[:-1])[: len(customer)]


def highest_held(
    seen: Instants, stays: Stays, as_of: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Instants]:
    """Return every change of the highest stage held, before ``as_of``: of whom, to which stage (-1: none), and when.

    seen: since when each customer is known, which is the first change.
    """
    owner = np.repeat(np.arange(len(seen)), np.diff(stays.offsets))
    whole = [stays.first[:, i] for i in np.flatnonzero(~stays.leavable)]
    instants = np.concatenate([seen, *whole, stays.enter, stays.leave])
    owners = np.concatenate([np.tile(np.arange(len(seen)), 1 + len(whole)), owner, owner])
    told = before(instants, as_of) & before(seen, as_of)[owners]
    customer, start = np.unique(np.stack([owners[told], instants[told]]), axis=1)
    stage = stays.at(customer, start + 1).stage.astype(np.int64)
    other = _begins(customer) | (np.append(-2, stage[:-1])[: len(stage)] != stage)
    return customer[other], stage[other], start[other]


def _back_and_forth(seen: Instants, stays: Stays, as_of: int) -> DwellTimes:
    customer, stage, start = highest_held(seen, stays, as_of)
    first = _begins(customer)
    last = np.append(first[1:], True)[: len(first)]
    end = np.where(last, NEVER, np.append(start[1:], NEVER)[: len(start)])
    following = np.where(last, STILL_THERE, np.append(stage[1:], STILL_THERE)[: len(stage)])
    again = np.ones(len(stage), dtype=np.bool_)
    again[np.unique(np.stack([customer, stage]), axis=1, return_index=True)[1]] = False
    return DwellTimes(customer, stage, start, end, following, first, again)


AFTER = (30, 90)
"""The days after which the share that moved on is told."""

_HOUR = DAY // 24

COUNTED = ["segment", "stage", "next", "days", "followed", "recent", "again"]
ARRIVED = ["segment", "stage"]


@dataclass(frozen=True, slots=True)
class DwellTimeCounts:
    """Numbers of stays, which are those of customers unless they come ``again``, of any number of blocks.

    ``dwell_times``: by segment, stage, next, days of the stay (so far; up to whole hours), how many of AFTER have
    passed since it began, whether customers are still there or not, whether it ended in the last period, and whether
    they had been there before;
    ``arrivals``: customers whose first stay began in the last period, by segment and stage.
    """

    dwell_times: pd.DataFrame
    arrivals: pd.DataFrame


def count_dwell_times(question: Question, block: Block, found: DwellTimes) -> DwellTimeCounts:
    """Count a block's stays."""
    as_of = question.as_of
    segments = segments_of(block, question.segment, as_of)
    since = as_of - question.period
    seen = follow_up(found.start, as_of, 0)
    lasted = np.where(found.end == NEVER, as_of, found.end) - found.start
    frame = pd.DataFrame(
        {
            # Of nobody pandas would not know that these are texts.
            "segment": pd.Series(segments[found.customer], dtype="str"),
            "stage": found.stage,
            "next": found.next,
            # Whole days would take almost one off every stay; hours keep the rows few.
            "days": -(-lasted // _HOUR) / 24,
            "followed": np.sum([observed_whole(seen, after * DAY) for after in AFTER], axis=0),
            "recent": (found.end != NEVER) & ~before(found.end, since),
            "again": found.again,
        }
    )
    new = frame[found.first & ~before(found.start, since)]
    return DwellTimeCounts(_counted(frame, COUNTED), _counted(new, ARRIVED))


def add_dwell_times(parts: Iterable[DwellTimeCounts]) -> DwellTimeCounts:
    """Add the counts of all blocks; the order of the blocks does not matter."""
    gathered = list(parts)
    return DwellTimeCounts(
        add([one.dwell_times for one in gathered], COUNTED),
        add([one.arrivals for one in gathered], ARRIVED),
    )


def add(frames: Sequence[pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    """Add frames of counts: one row for each combination of the keys, in their order."""
    return pd.concat(frames, ignore_index=True).groupby(keys, sort=True, as_index=False).sum()


def _counted(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return frame[keys].groupby(keys, sort=True).size().rename("customers").reset_index()


def segments_of(block: Block, attribute: str | None, as_of: int) -> npt.NDArray[np.object_]:
    """Return each customer's value of a text attribute, as known before ``as_of``; one empty segment without one."""
    names = np.full(len(block), "" if attribute is None else UNKNOWN, dtype=object)
    table = block.attributes
    if attribute is None or table is None or not len(table.known_at):
        return names
    column = table.columns[attribute]
    assert isinstance(column, Text)
    row = latest_known(table.offsets, table.known_at, np.arange(len(block)), np.full(len(block), as_of, dtype=np.int64))
    values = np.array([*column.values, UNKNOWN], dtype=object)[column.codes]
    names[row >= 0] = values[row[row >= 0]]
    return names


def require_segment(attribute: str | None, kinds: Mapping[str, str]) -> None:
    """Raise ConfigError where customers cannot be told apart by the attribute."""
    if attribute is None or kinds.get(attribute) == "string":
        return
    if attribute in kinds:
        raise ConfigError(
            f"report.segment: {attribute!r} is a number; segments need a text attribute. A query of attributes: can"
            " make groups of it."
        )
    known = ", ".join(sorted(name for name, kind in kinds.items() if kind == "string")) or "none"
    raise ConfigError(
        f"report.segment: there is no attribute {attribute!r}.{nearest(attribute, kinds)} Text attributes: {known}."
    )
