"""The rows of each source: days and weeks without any, lateness, thin weeks, seasons, purchases and their worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config
from cvj_ml.gates.preflight import FEW_A_WEEK, USUAL_WEEKS
from cvj_ml.store import Store, row_times
from cvj_ml.windows import before, to_datetime

CROWDED = 20
"""Rows a day with rows, at least, where days without any are a rhythm and not chance."""

SEASON = 1.5
"""How many times as many rows as the days before, or as few, make of the next days a season."""

SEASON_ROWS = 50
"""Rows, at least, of the days before and after a day of a past year that can tell a season."""

LATELY = 28
"""The days before an instant whose purchases are compared with all others."""

EPOCH = date(1970, 1, 1)
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Gap:
    """Days without a row between two with rows: the first and the last of them."""

    first: date
    last: date

    @property
    def days(self) -> int:
        """How many days it is long."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True, slots=True)
class Purchases:
    """How many purchases there are, how many of them have a value, of nought, below nought, and what all are worth."""

    rows: int = 0
    valued: int = 0
    of_nothing: int = 0
    negative: int = 0
    worth: float = 0.0

    @classmethod
    def of(cls, value: npt.NDArray[np.float64]) -> Self:
        """Return the purchases with these values, NaN where there is none."""
        valued = int(np.count_nonzero(~np.isnan(value)))
        return cls(len(value), valued, int((value == 0).sum()), int((value < 0).sum()), float(np.nansum(value)))

    @property
    def share(self) -> float:
        """The share of them that has a value."""
        return self.valued / self.rows if self.rows else 0.0

    def __add__(self, other: Purchases) -> Purchases:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Purchases(*(one + two for one, two in pairs))


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The rows of a source that are used at an instant; days are local, weeks begin on Mondays.

    ``months`` has every month of the span. ``gaps`` are the longest, the longest first; ``days_without`` and
    ``weeks_without`` count all days and whole weeks between the first row and the last that have none. ``late`` are
    the rows that were known after they had happened, ``late_days`` how long after (median, 90 %, 99 %, the latest).
    ``thin_weeks`` are the last weeks before the instant with less than half of the rows of a usual one each, of which
    they have ``thin_rows`` together, and usually ``usual_rows``. ``bought`` are its purchases, ``lately`` those of the
    last `LATELY` days.
    """

    name: str
    rows_in: int
    stored: int
    refused: int
    duplicates: int
    repeats: int
    used: int
    first: date | None = None
    last: date | None = None
    months: tuple[tuple[str, int], ...] = ()
    days_with: int = 0
    days_without: int = 0
    weeks_without: int = 0
    gaps: tuple[Gap, ...] = ()
    late: int = 0
    late_days: tuple[float, ...] = ()
    thin_weeks: int = 0
    thin_rows: int = 0
    usual_rows: float = 0.0
    bought: Purchases = Purchases()
    lately: Purchases = Purchases()


@dataclass(slots=True)
class RowsInTime:
    """The rows of a source that are used: how many on each local day, and how late those were that were late.

    ``bought`` and ``lately`` are as of `SourceFacts`.
    """

    days: Counter[int] = field(default_factory=Counter)
    delays: list[_Counts] = field(default_factory=list)
    bought: Purchases = Purchases()
    lately: Purchases = Purchases()


def rows_in_time(config: Config, store: Store, as_of: int, purchases: Collection[str] = ()) -> dict[str, RowsInTime]:
    """Count the rows of each source that are used at an instant by the local day on which they happened.

    purchases: the events that are purchases, of which the values are added up.
    """
    today = (to_datetime(as_of, config.zone).date() - EPOCH).days
    found = {label.removeprefix("sources."): RowsInTime() for label in config.touchpoint_tables}
    for bucket, number in enumerate(store.bucket_customers):
        if not number:
            continue
        rows = row_times(store, bucket)
        column = rows["source"].combine_chunks().dictionary_encode()
        of_source, names = column.indices.to_numpy(), column.dictionary.to_pylist()
        day, occurred, visible, superseded = (rows[name].to_numpy() for name in rows.column_names[3:])
        live = before(visible, as_of) & ~before(superseded, as_of)
        sold = live & pc.is_in(rows["event"].cast(pa.string()), pa.array([*purchases], pa.string())).to_numpy()
        value = rows["value"].cast(pa.float64()).to_numpy() / 10**config.value_decimals
        for i, name in enumerate(names):
            own = live & (of_source == i)
            for one, count in zip(*np.unique(day[own], return_counts=True), strict=True):
                found[name].days[int(one)] += int(count)
            delays = (visible - occurred)[own]
            found[name].delays.append(delays[delays > 0])
            found[name].bought += Purchases.of(value[own & sold])
            found[name].lately += Purchases.of(value[own & sold & (day >= today - LATELY)])
    return found


def source_facts(store: Store, rows: Mapping[str, RowsInTime], today: int) -> Iterator[SourceFacts]:
    """Yield what there is of each source; today: days since 1970 of the day that is asked about."""
    for name, one in rows.items():
        counts = store.counts[name]
        delays = np.concatenate([np.zeros(0, dtype=np.int64), *one.delays])
        found = SourceFacts(
            name,
            counts.rows_in,
            counts.stored,
            sum(counts.refused.values()),
            counts.duplicates,
            counts.repeats,
            one.days.total(),
        )
        found = replace(found, bought=one.bought, lately=one.lately)
        yield replace(found, **_in_time(one.days), **_lateness(delays), **thin_weeks(one.days, today))


def thin_weeks(days: Mapping[int, int], today: int) -> dict[str, Any]:
    """Return how many of the last weeks before a day have less than half of the rows of a usual one before them, each.

    days: rows by day; as fields of `SourceFacts`, none where the last week is no thin one.
    """
    weeks = [sum(days.get(today - 7 * week - one, 0) for one in range(1, 8)) for week in range(2 * USUAL_WEEKS)]
    thin: dict[str, Any] = {}
    for many in range(1, USUAL_WEEKS):
        usual = float(np.median(weeks[many : many + USUAL_WEEKS]))
        if usual < FEW_A_WEEK or 2 * max(weeks[:many]) >= usual:
            break
        thin = {"thin_weeks": many, "thin_rows": sum(weeks[:many]), "usual_rows": many * usual}
    return thin


def days_apart_of(rows: Mapping[str, RowsInTime]) -> int:
    """Return how many days usually lie between two days with rows of any source; 1 where such days have few rows."""
    total: Counter[int] = sum((one.days for one in rows.values()), Counter())
    there = sorted(total)
    if len(there) < 3 or total.total() < CROWDED * len(there):
        return 1
    return int(np.median(np.diff(there)))


def seasons_of(rows: Mapping[str, RowsInTime], today: int, within: int) -> tuple[float, ...]:
    """Return for each past year, the last first, the rows of the days after this day of the year over those before."""
    total: Counter[int] = sum((one.days for one in rows.values()), Counter())
    found: list[float] = []
    while total:
        then = today - 365 * (len(found) + 1)
        after, ahead = (sum(total[first + one] for one in range(within)) for first in (then, then - within))
        if min(total) > then - within or min(after, ahead) < SEASON_ROWS:
            break
        found.append(round(after / ahead, 3))
    return tuple(found)


def _in_time(days: Mapping[int, int]) -> dict[str, Any]:
    if not days:
        return {}
    there = sorted(days)
    months: dict[str, int] = {}
    for one in range(there[0], there[-1] + 1):
        month = f"{EPOCH + timedelta(one):%Y-%m}"
        months[month] = months.get(month, 0) + days.get(one, 0)
    gaps = [
        Gap(EPOCH + timedelta(one + 1), EPOCH + timedelta(two - 1)) for one, two in pairwise(there) if two > one + 1
    ]
    weeks = {(one + 3) // 7 for one in there}  # 1970-01-01 was a Thursday
    return {
        "first": EPOCH + timedelta(there[0]),
        "last": EPOCH + timedelta(there[-1]),
        "months": tuple(months.items()),
        "days_with": len(there),
        "days_without": there[-1] - there[0] + 1 - len(there),
        "weeks_without": max(weeks) - min(weeks) + 1 - len(weeks),
        "gaps": tuple(sorted(gaps, key=lambda one: (-one.days, one.first))[:3]),
    }


def _lateness(delays: _Counts) -> dict[str, Any]:
    if not len(delays):
        return {}
    # The smallest delay that so many rows do not exceed: one that a row really had.
    quantiles = np.quantile(delays, [0.5, 0.9, 0.99, 1], method="inverted_cdf")
    return {"late": len(delays), "late_days": tuple(round(float(one) / DAY, 2) for one in quantiles)}


def season_at(config: Config, store: Store, as_of: int) -> str | None:
    """Say what `season_in_words` says of a store at an instant, for the horizon of lists."""
    today, within = (to_datetime(as_of, config.zone).date() - EPOCH).days, config.default_list_horizon // DAY
    return season_in_words(seasons_of(rows_in_time(config, store, as_of), today, within), within)


def season_in_words(seasons: Sequence[float], within: int) -> str | None:
    """Say that all past years had more rows in the days after this day of the year, or fewer; None where not."""
    low, high = min(seasons, default=1.0), max(seasons, default=1.0)
    if low < SEASON and high > 1 / SEASON:
        return None
    years = "a year ago" if len(seasons) == 1 else f"in each of the last {len(seasons)} years"
    times = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
    return (
        f"Season: {years} the {within} days after this day of the year brought {times} times the rows of the {within}"
        " days before, and forecasts follow the level of the last months. Does the season come again? If so: model:"
        " {year_ago_level: true} carries half of it over (docs/method.md), or name its days under calendar."
    )
