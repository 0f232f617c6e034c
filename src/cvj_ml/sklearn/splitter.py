"""Folds in time as a splitter of scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import BaseCrossValidator

from cvj_ml.config import DAY, format_duration
from cvj_ml.errors import ConfigError, DataError, raise_all
from cvj_ml.sklearn.frame_rows import AS_OF, columns_of, read_duration, read_instants
from cvj_ml.windows import Instants, before, follow_up, observed_whole, to_datetime, to_microseconds


class TimeFolds(BaseCrossValidator):  # type: ignore[misc]  # scikit-learn publishes no types
    """Folds in time for ``cross_validate``: train on what was over by an instant, judge the rows at that instant.

    n_splits: how many folds; the last stands at the latest ``as_of`` of X, the oldest is returned first.
    horizon: of y, whole days such as ``30d``; the longest, where y has several.
    arrival_delay: how late touchpoints become known, such as ``2d``; the outcome of a training row needs it, too.
    time_zone: of the business, for an ``as_of`` that names none.

    The test rows of a fold are those at its instant. Its training rows have ``as_of + horizon + arrival_delay`` not
    after that instant, so that every outcome was known whole. Folds stand at least the horizon apart, in local days, as
    in ``cvj-ml backtest``, so no move is judged twice. All other rows are in neither part.

    y is given as a whole, as it is known today: a touchpoint that came later than ``arrival_delay`` is in it already.

    ConfigError where X has no column ``as_of``, or too little history for so many folds.
    """

    def __init__(self, n_splits: int = 3, *, horizon: str, arrival_delay: str = "0d", time_zone: str = "UTC") -> None:
        self.n_splits = n_splits
        self.horizon = horizon
        self.arrival_delay = arrival_delay
        self.time_zone = time_zone

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return the number of folds; the arguments change nothing."""
        return self.n_splits

    def split(
        self, X: Any, y: object = None, groups: object = None
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield the positions of training and test rows of each fold, the oldest first; y and groups are not used."""
        horizon, delay, zone = self._checked()
        faults = list[str]()
        as_of = read_instants(columns_of(X, [AS_OF])[AS_OF], zone, faults)
        raise_all(DataError, "These rows cannot be split in time:", faults)
        for fold_as_of in self._folds(as_of, horizon, delay, zone):
            train = observed_whole(follow_up(as_of, fold_as_of, delay), horizon)
            yield np.flatnonzero(train), np.flatnonzero(as_of == fold_as_of)

    def _checked(self) -> tuple[int, int, ZoneInfo]:
        faults = list[str]()
        if not isinstance(self.n_splits, int | np.integer) or self.n_splits < 1:
            faults.append(f"n_splits is the number of folds, at least 1; found {self.n_splits!r}")
        horizon = read_duration("horizon", self.horizon, faults)
        # Unlike other durations, a delay may be none at all.
        none = isinstance(self.arrival_delay, str) and re.fullmatch(r"0+\s*(w|d|h|min|s)", self.arrival_delay.strip())
        delay = 0 if none else read_duration("arrival_delay", self.arrival_delay, faults)
        if horizon % DAY:
            faults.append(f"horizon is a number of whole days, such as 30d; found {self.horizon!r}")
        try:
            zone = ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError, TypeError, AttributeError):
            faults.append(f"time_zone: there is no {self.time_zone!r}; write it as Europe/London")
            zone = ZoneInfo("UTC")
        raise_all(ConfigError, "TimeFolds cannot be made:", faults)
        return horizon, delay, zone

    def _folds(self, as_of: Instants, horizon: int, delay: int, zone: ZoneInfo) -> list[int]:
        moments, found = np.unique(as_of), list[int]()
        candidates = moments
        while len(found) < self.n_splits:
            latest = int(candidates[-1]) if len(candidates) else None
            if latest is None or not observed_whole(follow_up(moments[:1], latest, delay), horizon).all():
                raise ConfigError(self._too_little(moments, found, latest, horizon, delay, zone))
            found.append(latest)
            # A day of the business has 23 hours once a year: folds at midnights stay at midnights.
            nearest_one = to_microseconds(to_datetime(latest, zone) - timedelta(microseconds=horizon))
            candidates = moments[before(moments, nearest_one + 1)]
        return found[::-1]

    def _too_little(
        self, moments: Instants, found: Sequence[int], latest: int | None, horizon: int, delay: int, zone: ZoneInfo
    ) -> str:
        words = f"TimeFolds: X has too little history for {self.n_splits} fold(s) of {format_duration(horizon)}."
        if not len(moments):
            return f"{words} It has no rows; check what chose them."
        span = f"{_day(moments[0], zone)} to {_day(moments[-1], zone)}"
        words += f" Its rows stand at {len(moments)} instant(s), {span}, enough for {len(found)} fold(s)."
        if latest is None:
            by = to_datetime(found[-1], zone) - timedelta(microseconds=horizon)
            words += f" The next one needs test rows at {by:%Y-%m-%d} or before."
        else:
            by = to_datetime(latest - horizon - delay, zone)
            words += (
                f" A fold at {_day(latest, zone)} has nothing to train on: the outcome of no row was over, so it needs"
                f" rows at {by:%Y-%m-%d} or before."
            )
        return f"{words} Add rows at earlier instants, or take fewer folds or a shorter horizon."


def _day(instant: int, zone: ZoneInfo) -> date:
    return to_datetime(int(instant), zone).date()
