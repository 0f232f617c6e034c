"""X, y and folds in time for scikit-learn: whom can be asked about, what became of them, and TimeFolds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import BaseCrossValidator

from cvj_ml.config import DAY, Config, format_duration
from cvj_ml.errors import ConfigError, DataError, nearest, raise_all
from cvj_ml.histories import Block
from cvj_ml.journey import evidence, stays
from cvj_ml.panel.labels import RETURN, label
from cvj_ml.sklearn.frame_rows import AS_OF, CUSTOMER, ask, duration_of, named_columns, read_instants, rows_of
from cvj_ml.sklearn.opened import Stages, open_to_learn
from cvj_ml.snapshots import Snapshots, eligible
from cvj_ml.touchpoints import Touchpoints
from cvj_ml.windows import Instants, before, follow_up, happened_within, observed_whole, to_datetime, to_microseconds


def snapshots(
    touchpoints: Touchpoints | Config,
    as_of: Any,
    journey: Stages = None,
    *,
    settings: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """Return X: the customers with a touchpoint visible before an instant, at every instant asked about.

    as_of: one instant or several, as text, dates or timestamps; the others are those of `JourneyFeatures`.
    Columns: ``customer_id`` (text), and ``as_of`` (timestamps in the business's time zone); sorted by both.
    """
    histories = open_to_learn(touchpoints, journey, settings)
    faults = list[str]()
    column = pd.Series([as_of] if isinstance(as_of, str | date) else list(as_of), dtype=object)
    instants = np.unique(read_instants(column, histories.config.zone, faults))
    raise_all(DataError, "snapshots:", faults)

    def look(block: Block) -> tuple[npt.NDArray[np.object_], Instants]:
        found = eligible(block.touchpoints, instants)
        return np.array(block.customers, dtype=object)[found.customer], found.as_of

    parts = [*histories.engine().map(look), (np.array([], dtype=object), np.array([], dtype=np.int64))]
    names, moments = (np.concatenate(column) for column in zip(*parts, strict=True))
    times = pd.to_datetime(moments, unit="us", utc=True).tz_convert(histories.config.zone)
    frame = pd.DataFrame({CUSTOMER: pd.array(names, dtype="str"), AS_OF: times})
    return frame.sort_values([CUSTOMER, AS_OF], ignore_index=True)


def outcomes(
    X: Any,
    touchpoints: Touchpoints | Config,
    journey: Stages = None,
    *,
    to: str,
    horizon: str,
    until: str | date,
    settings: Mapping[str, object] | None = None,
) -> npt.NDArray[np.float64]:
    """Return y, (rows,): 1 where the customer moved within ``[as_of, as_of + horizon)``, 0 where not, else NaN.

    to: a stage, which counts as reached in it or in a later one, or ``return``: the customer's own next touchpoint.
    horizon: such as ``30d``.
    until: what was visible before this instant is known. NaN where the horizon, and the sources' arrival delay, were
    not over by then, whatever had happened meanwhile; and where a customer had reached the stage before ``as_of``.

    The others are those of `JourneyFeatures`, and so are the errors. Train on rows that have a y:
    ``known = ~numpy.isnan(y)``.
    """
    histories = open_to_learn(touchpoints, journey, settings)
    known_journey, faults = histories.visible.journey, list[str]()
    length = duration_of("horizon", horizon, faults)
    targets = ["return", *(known_journey.names[i] for i in known_journey.observable)]
    if to in known_journey.unobserved:
        faults.append(f"to: {to} is unobserved in the data, so nobody is seen to reach it")
    elif to not in targets:
        faults.append(f"to: there is no stage {to!r}.{nearest(to, targets)} Choose one of {', '.join(targets)}")
    (cut,) = read_instants(pd.Series([until], dtype=object), histories.config.zone, faults, "until")
    raise_all(ConfigError, "These outcomes cannot be asked for:", faults)
    target = RETURN if to == "return" else 1 + known_journey.index(to)

    def answer(block: Block, asked: Snapshots) -> npt.NDArray[np.float64]:
        points = evidence(known_journey, block)
        stage = stays(known_journey, points).at(asked.customer, asked.as_of).stage
        found = label(known_journey, points, asked, stage, int(cut), histories.store.arrival_delay)
        known = found.at_risk[:, target] & observed_whole(found.follow_up, length)
        return np.where(known, happened_within(found.times[:, target], length).astype(np.float64), np.nan)

    rows = rows_of(X, histories.config)
    return ask(histories, rows, answer, np.full(len(rows.as_of), np.nan))


class TimeFolds(BaseCrossValidator):  # type: ignore[misc]  # scikit-learn publishes no types
    """Folds in time for ``cross_validate``: train on what was over by an instant, evaluate on the rows at that instant.

    n_splits: how many folds; the last stands at the latest ``as_of`` of X, the oldest is returned first.
    horizon: of y, whole days such as ``30d``; the longest, where y has several.
    arrival_delay: how late touchpoints become known, such as ``2d``; the outcome of a training row needs it, too.
    time_zone: of the business, for an ``as_of`` that names none.

    The test rows of a fold are those at its instant. Its training rows have ``as_of + horizon + arrival_delay`` not
    after that instant, so that every outcome was known whole. Folds stand at least the horizon apart, in local days, as
    in ``cvj-ml backtest``, so no move counts twice. All other rows are in neither part.

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
        as_of = read_instants(named_columns(X, [AS_OF])[AS_OF], zone, faults)
        raise_all(DataError, "These rows cannot be split in time:", faults)
        for fold_as_of in self._folds(as_of, horizon, delay, zone):
            train = observed_whole(follow_up(as_of, fold_as_of, delay), horizon)
            yield np.flatnonzero(train), np.flatnonzero(as_of == fold_as_of)

    def _checked(self) -> tuple[int, int, ZoneInfo]:
        faults = list[str]()
        if not isinstance(self.n_splits, int | np.integer) or self.n_splits < 1:
            faults.append(f"n_splits is the number of folds, at least 1; found {self.n_splits!r}")
        horizon = duration_of("horizon", self.horizon, faults)
        # Unlike other durations, a delay may be none at all.
        none = isinstance(self.arrival_delay, str) and re.fullmatch(r"0+\s*(w|d|h|min|s)", self.arrival_delay.strip())
        delay = 0 if none else duration_of("arrival_delay", self.arrival_delay, faults)
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
