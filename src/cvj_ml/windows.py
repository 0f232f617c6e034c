"""Instants, half-open windows and horizons: the only module that compares a time with ``as_of``.

Instants are int64 microseconds since 1970-01-01 UTC. Windows look back over ``[as_of - w, as_of)``, horizons
ahead over ``[as_of, as_of + h)``: what happens exactly at ``as_of`` belongs to the future.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.errors import ConfigError

Instants = npt.NDArray[np.int64]

NEVER = np.iinfo(np.int64).max
"""The instant of what has not happened."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(instant: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 (exact)."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def to_datetime(microseconds: int, zone: ZoneInfo) -> datetime:
    """Return an instant as local time."""
    return (_EPOCH + timedelta(microseconds=int(microseconds))).astimezone(zone)


def local_days(instants: Instants, zone: ZoneInfo) -> Instants:
    """Return the local calendar day, since 1970, of each instant."""
    moments, place = np.unique(instants, return_inverse=True)
    days = [(to_datetime(one, zone).date() - _EPOCH.date()).days for one in moments.tolist()]
    return np.array(days, dtype=np.int64)[place]


def midnight(day: date, zone: ZoneInfo) -> int:
    """Return the instant at which a local day begins."""
    return to_microseconds(datetime.combine(day, time(), tzinfo=zone))


def parse_as_of(text: str, zone: ZoneInfo, name: str = "--as-of") -> int:
    """Read a date (its local midnight) or an ISO 8601 instant (local where it names no offset)."""
    try:
        if len(text) == 10:
            return midnight(date.fromisoformat(text), zone)
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name} {text!r} is not a date; write it as 2024-12-31 or 2024-12-31T06:00.") from None
    return to_microseconds(instant if instant.tzinfo else instant.replace(tzinfo=zone))


def grid(first_day: date, every_days: int, zone: ZoneInfo, *, earliest: int, until: int) -> Instants:
    """Return local midnights ``first_day + k * every_days`` within ``[earliest, until)``."""
    instants = []
    day = first_day
    while (instant := midnight(day, zone)) < until:
        if instant >= earliest:
            instants.append(instant)
        day += timedelta(days=every_days)
    return np.array(instants, dtype=np.int64)


@compiled
def is_live(visible_at: Any, superseded_at: Any, as_of: Any) -> Any:
    """Return whether a row was visible strictly before ``as_of`` and not yet replaced by a newer version."""
    return visible_at < as_of and superseded_at >= as_of


@compiled
def is_known(visible_at: Any, begins: Any, as_of: Any) -> Any:
    """Return whether what a row tells in a history as it is since ``begins`` was known before ``as_of``."""
    return visible_at < as_of and begins < as_of


@compiled
def is_past(instant: Any, as_of: Any) -> Any:
    """Return whether an instant lies strictly before ``as_of``."""
    return instant < as_of


@compiled
def in_window(occurred_at: Any, as_of: Any, window: Any) -> Any:
    """Return whether a row that lies before ``as_of`` also lies in ``[as_of - window, as_of)``."""
    return occurred_at >= as_of - window


@compiled
def is_ahead_within(occurred_at: Any, as_of: Any, horizon: Any) -> Any:
    """Return whether a row that does not lie before ``as_of`` lies in ``[as_of, as_of + horizon)``."""
    return occurred_at < as_of + horizon


@compiled
def is_covered(as_of: Any, window: Any, observed_from: Any) -> Any:
    """Return whether a look-back window lies wholly in the time that the sources record."""
    return as_of - window >= observed_from


@compiled
def rows_before(instants: Any, start: Any, stop: Any, as_of: Any) -> Any:
    """Return the end of the rows of ``[start, stop)`` whose (ascending) instant lies before ``as_of``."""
    return start + np.searchsorted(instants[start:stop], as_of)


@compiled
def rows_until(instants: Any, start: Any, stop: Any, instant: Any) -> Any:
    """Return the end of the rows of ``[start, stop)`` that do not lie after an instant."""
    return start + np.searchsorted(instants[start:stop], instant, side="right")


@compiled
def rows_before_window(instants: Any, start: Any, stop: Any, as_of: Any, window: Any) -> Any:
    """Return the end of the rows of ``[start, stop)`` that lie before ``[as_of - window, as_of)``."""
    return start + np.searchsorted(instants[start:stop], as_of - window)


def before(instants: Instants, as_of: Instants | int) -> npt.NDArray[np.bool_]:
    """Return elementwise whether instants lie before ``as_of``."""
    return np.less(instants, as_of)


def is_customer(first_visible: Instants, merged_at: Instants, as_of: Instants | int) -> npt.NDArray[np.bool_]:
    """Return elementwise who was seen before ``as_of``, and not yet merged into another customer."""
    return before(first_visible, as_of) & ~before(merged_at, as_of)


def time_until(instants: Instants, as_of: Instants | int) -> Instants:
    """Return how long after ``as_of`` each instant lies; NEVER stays NEVER, the past is negative."""
    return np.where(instants == NEVER, NEVER, instants - np.where(instants == NEVER, 0, as_of))


def happened_within(time_until_event: Instants, horizon: Instants | int) -> npt.NDArray[np.bool_]:
    """Return whether events fall into ``[as_of, as_of + horizon)``, given their time from ``as_of``."""
    return (time_until_event >= 0) & (time_until_event < horizon)


def follow_up(as_of: Instants | int, cut: int, arrival_delay: int) -> Instants:
    """Return how far after ``as_of`` the data is complete at the cut."""
    return np.asarray(cut - arrival_delay - np.asarray(as_of), dtype=np.int64)


def observed_whole(follow_up_time: Instants | int, interval_end: int) -> npt.NDArray[np.bool_]:
    """Return whether an interval ending ``interval_end`` after ``as_of`` was observed to its end."""
    return np.greater_equal(follow_up_time, interval_end)


def edges(horizons: Sequence[int]) -> tuple[int, ...]:
    """Return the interval edges of the hazard: 0 and every horizon."""
    return (0, *horizons)
