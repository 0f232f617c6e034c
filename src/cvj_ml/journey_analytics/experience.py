"""What customers live through in each stage: ratings by the stage in which they were given, tickets and setbacks.

Counts, block by block, and what they say of a stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import outer_rating
from cvj_ml.histories import Text, TouchpointColumns
from cvj_ml.journey import Stays
from cvj_ml.journey_analytics.dwell_times import DwellTimes, Question, add
from cvj_ml.journey_analytics.precursors import present
from cvj_ml.windows import before

TICKET, SETBACK = "ticket", "setback"
"""What speaks of trouble: the events that the journey names under ``unhappy``."""

_RATINGS = ["stage", "rating"]
_TROUBLES = ["stage", "trouble"]


@dataclass(frozen=True, slots=True)
class ExperienceCounts:
    """What happened in the last period, of any number of blocks.

    ``ratings``: (stage, rating) how many ratings were ``given`` by customers who stood in the stage when they gave
    them, whatever the scale; ``troubles``: (stage, trouble) distinct ``customers`` who stand there now and had it;
    ``recorded``: the troubles that the log shows at all, at any time: of the others nobody can say that there were
    none.
    """

    ratings: pd.DataFrame
    troubles: pd.DataFrame
    recorded: frozenset[str]


def count_experience(
    question: Question, points: TouchpointColumns, stays: Stays, found: DwellTimes
) -> ExperienceCounts:
    """Count a block whose stages were held at ``stays``, the highest of them at ``found``.

    The touchpoint that leads into a stage belongs to the stage before, with its rating.
    """
    owner, known = points.owners(), points.live(question.as_of)
    recent = known & ~before(points.occurred_at, question.as_of - question.period)
    stage, _ = present(found, len(points.offsets) - 1)
    unhappy, troubles, recorded = question.journey.spec.unhappy, [], set()
    for name, events in ((TICKET, unhappy.tickets), (SETBACK, unhappy.setbacks)):
        rows = known & points.event.isin(frozenset(events))
        recorded |= {name} if rows.any() else set()
        troubles.append(pd.DataFrame({"stage": stage[np.unique(owner[rows & recent])], "trouble": name}))
    return ExperienceCounts(
        _ratings(points, owner, recent, stays, question.rating),
        _counted(pd.concat(troubles), _TROUBLES, "customers"),
        frozenset(recorded),
    )


def add_experience(parts: Iterable[ExperienceCounts]) -> ExperienceCounts:
    """Add the counts of all blocks; the order of the blocks does not matter."""
    gathered = list(parts)
    return ExperienceCounts(
        add([one.ratings for one in gathered], _RATINGS),
        add([one.troubles for one in gathered], _TROUBLES),
        frozenset().union(*(one.recorded for one in gathered)),
    )


def _ratings(
    points: TouchpointColumns,
    owner: npt.NDArray[np.int64],
    recent: npt.NDArray[np.bool_],
    stays: Stays,
    rating: str,
) -> pd.DataFrame:
    column = points.properties.get(rating)
    if column is None or isinstance(column, Text):
        rows, given = np.zeros(0, dtype=np.int64), np.zeros(0)
    else:
        rows = np.flatnonzero(recent & ~np.isnan(column))
        given = column[rows]
    stage = stays.at(owner[rows], points.occurred_at[rows]).stage
    return _counted(pd.DataFrame({"stage": stage.astype(np.int64), "rating": given}), _RATINGS, "given")


def _counted(frame: pd.DataFrame, keys: list[str], name: str) -> pd.DataFrame:
    return frame.groupby(keys, sort=True).size().reset_index(name=name)


@dataclass(frozen=True, slots=True)
class Mood:
    """Ratings given in a stage in the last period: how many, their mean, and how many are bad or good.

    Bad lies in the lower 40 % of the scale, good in the upper; what lies between is neither.
    """

    given: int
    mean: float
    bad: int
    good: int


@dataclass(frozen=True, slots=True)
class Moods:
    """The mood of each stage in which a rating was given, and how many ratings lie ``outside`` the scale."""

    scale: tuple[float, float]
    of: dict[int, Mood]
    outside: int


def moods(counts: ExperienceCounts, scale: tuple[float, float]) -> Moods:
    """Return the mood by stage; a rating outside the scale is in no mood."""
    ratings, (bad_to, good_from) = counts.ratings, outer_rating(scale)
    inside = ratings["rating"].between(*scale)
    found = {}
    for stage, rows in ratings[inside].groupby("stage"):
        rating, given = rows["rating"].to_numpy(), rows["given"].to_numpy()
        found[int(str(stage))] = Mood(
            int(given.sum()),
            float((rating * given).sum() / given.sum()),
            int(given[rating <= bad_to].sum()),
            int(given[rating >= good_from].sum()),
        )
    return Moods(scale, found, int(ratings["given"][~inside].sum()))


@dataclass(frozen=True, slots=True)
class PainPoints:
    """Of the customers who stand in a stage tonight: who is silent, who had a ticket or a setback in the period.

    ``tickets`` and ``setbacks`` are None where the log shows none of these events at any time.
    """

    silent: int
    tickets: int | None
    setbacks: int | None


def pain_points(counts: ExperienceCounts, stage: int, silent: int) -> PainPoints:
    """Return the pain points of a stage in which so many customers are silent."""
    rows = counts.troubles[counts.troubles["stage"] == stage]
    had = dict(zip(rows["trouble"], rows["customers"], strict=True))
    tickets, setbacks = (int(had.get(one, 0)) if one in counts.recorded else None for one in (TICKET, SETBACK))
    return PainPoints(silent, tickets, setbacks)
