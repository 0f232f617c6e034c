"""Features of one's own as somebody would write them, honest and not, for tests to name in a configuration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvj_ml import PastTouchpoints

DAY = 86_400_000_000
CALLS: list[PastTouchpoints] = []
REMEMBERED: dict[tuple[int, str], int] = {}


def most_in_a_day(past: PastTouchpoints) -> npt.NDArray[np.float64]:
    """The most touchpoints of a customer in one local day."""
    most = np.zeros(len(past))
    days, number = np.unique(np.column_stack([past.owners(), past.day]), axis=0, return_counts=True)
    np.maximum.at(most, days[:, 0], number)
    return most


def ratings(past: PastTouchpoints) -> dict[str, npt.NDArray[np.float64]]:
    """The mean and the number of ratings given."""
    rating = past.properties["rating"]
    given = ~np.isnan(rating)
    number = np.bincount(past.owners()[given], minlength=len(past)).astype(np.float64)
    total = np.bincount(past.owners()[given], weights=rating[given], minlength=len(past))
    return {"mean": np.where(number > 0, total / np.maximum(number, 1), np.nan), "number": number}


def watched(past: PastTouchpoints) -> npt.NDArray[np.float64]:
    """Remember what was given, so that a test can look for the future in it."""
    CALLS.append(past)
    return np.diff(past.offsets).astype(np.float64)


def remembers(past: PastTouchpoints) -> npt.NDArray[np.float64]:
    """Cheat: the most touchpoints that were ever seen of whoever began with the same touchpoint."""
    answer = np.zeros(len(past))
    for i in range(len(past)):
        start, stop = past.offsets[i], past.offsets[i + 1]
        first = int(past.occurred_at[start]), str(past.event[start])
        REMEMBERED[first] = max(REMEMBERED.get(first, 0), int(stop - start))
        answer[i] = REMEMBERED[first]
    return answer


def above_average(past: PastTouchpoints) -> npt.NDArray[np.float64]:
    """Cheat: compares with whoever happens to be asked about at the same time."""
    rows = np.diff(past.offsets)
    return rows / max(rows.mean(), 1.0)


def too_short(past: PastTouchpoints) -> npt.NDArray[np.float64]:
    """Wrong: one number too few."""
    return np.zeros(len(past) - 1)


def fails(past: PastTouchpoints) -> npt.NDArray[np.float64]:
    """Wrong: quotes a customer in its error."""
    raise ValueError(f"{past.event[0]} at {past.occurred_at[0]}")


def endless(past: PastTouchpoints) -> npt.NDArray[np.float64]:
    """Wrong: infinite."""
    return np.full(len(past), np.inf)
