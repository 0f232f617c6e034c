"""When a history begins and ends, and which horizons it can teach."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from cvj_ml.errors import DataError
from cvj_ml.setup.doubts import Doubt, first_of
from cvj_ml.setup.queries import Draft

_HORIZONS = (7, 14, 30, 60, 90)
_MONTHS = (31, 62, 92)
"""Horizons that hold one, two and three firsts of a month from whatever day on."""
_SELDOM, _MONTHLY = 5, 28
"""Days between two days with rows from which on they are few, and one a month."""
_BURN_IN, _SPACING = 90, 14
_APART = timedelta(days=14)
"""How long after everything else ended a source has to begin to be one of what lies ahead."""
_LATE = 0.1
"""A source of fewer rows than this share of all is small: it does not decide where the history begins."""
_CROWDED = 20
"""Rows a day with rows, at least, where days without any are a rhythm."""


def span_of(drafts: Sequence[Draft]) -> tuple[datetime, datetime, list[Doubt]]:
    """Return when the history of all sources begins and ends, without what lies ahead and what is small and late."""
    dated = []
    for one in drafts:
        # What one file is read as several times begins and ends with the file.
        alike = [other for other in drafts if other.table is one.table and other.first and other.last]
        if alike:
            begins = min(other.first for other in alike if other.first)
            dated.append((one, begins, max(other.last for other in alike if other.last)))
    if not dated:
        raise DataError(
            f"No time in {first_of([one.table.file.name for one in drafts])} lies between 1990 and today, so there is"
            " nothing to learn from. Look at the column of the time, and at the day of the export."
        )
    found: list[Doubt] = []
    for one, begins, _ in list(dated):
        rest = [last for other, _, last in dated if other is not one]
        if rest and begins > max(rest) + _APART and len(dated) > 1:
            dated = [item for item in dated if item[0] is not one]
            found.append(Doubt(
                f"{one.source}.ahead", one.table.file.name,
                f"it begins on {begins:%Y-%m-%d}, {(begins - max(rest)).days:,} days after everything else ended:"
                f" planned rows,"
                " or a source that began when the others were no longer exported? It decides no date here.",
                numbers={"rows": one.rows},
                way_out="If it is right, export the other files up to the same day, or leave this one out.",
            ))  # fmt: skip
    rows = sum(one.rows for one, _, _ in dated)
    earliest = min(begins for _, begins, _ in dated)
    small = [item for item in dated if item[0].rows < _LATE * rows and item[1] > earliest + timedelta(days=30)]
    large = [item for item in dated if item not in small]
    first = max((begins for _, begins, _ in large), default=earliest)
    for one, begins, _ in small:
        if begins > first + timedelta(days=30):
            found.append(Doubt(
                f"{one.source}.late", one.table.file.name,
                f"it begins on {begins:%Y-%m-%d} and is small ({one.rows:,} of {rows:,} rows), so history_from"
                f" ({first:%Y-%m-%d}) does not wait for it: before that day its events are unknown, not absent.",
                numbers={"rows": one.rows}, way_out="If its events matter for a stage, set history_from to that day.",
            ))  # fmt: skip
    for one, begins, _ in large:
        cut = [other for other, start, _ in large if start < begins - timedelta(days=30)]
        if begins == first and cut:
            found.append(Doubt(
                f"{one.source}.begins", one.table.file.name,
                f"it begins on {begins:%Y-%m-%d}, later than {first_of([other.source for other in cut])}, so the"
                f" history of all"
                " begins there: what is before is not learned from.", numbers={"rows": one.rows},
                way_out="If it matters less than a longer history, set history_from to an earlier day.",
            ))  # fmt: skip
    return first, max(last for _, _, last in dated), found


def days_apart(drafts: Sequence[Draft]) -> int:
    """Return how many days usually lie between two days with rows, of the source that has them most often.

    1 where days have few rows each: then it is chance that leaves days without any.
    """
    apart = []
    for one in drafts:
        at = one.column("occurred_at")
        if one.read is not None or at is None or not at.moment or one.shape == "dates":
            return 1
        day = f"({at.moment}) // 86400000000"
        days = one.table.connection.execute(
            f"SELECT DISTINCT {day} FROM {one.table.sql} WHERE ({at.moment}) IS NOT NULL ORDER BY 1"
        ).fetchall()
        if one.rows < _CROWDED * len(days):
            return 1
        gaps = sorted(int(later) - int(earlier) for (earlier,), (later,) in pairwise(days))
        apart.append(gaps[len(gaps) // 2] if gaps else 1)
    return min(apart, default=1)


def horizons_of(days: int, apart: int, *, monthly: bool) -> tuple[int, list[int], list[Doubt]]:
    """Return burn-in and horizons that so many days of history can teach: a fold and the training before it.

    apart: days between two days with rows. Where these are months, so are the horizons: 31 days from any day on hold
    one first of a month, and 30 may hold none. monthly: rows name months, and are read as of their ends.
    """
    burn_in = min(_BURN_IN, max(1, days // 5))
    room = max(1, (days - burn_in - min(_SPACING, days // 10)) // 3)
    usual = _MONTHS if apart >= _MONTHLY else tuple(one for one in _HORIZONS if one >= apart) or _HORIZONS[-1:]
    horizons = [one for one in usual if one <= room] or [room]
    doubts = []
    if horizons[-1] < usual[-1]:
        text = f"The history of {days} days is short: the longest horizon is {horizons[-1]} days."
        doubts.append(Doubt("history.short", "", text, numbers={"days": days}))
    if apart >= _SELDOM:
        text = (
            f"Rows stand on few days, usually {apart} apart, as where a file has a row a month: a shorter horizon than"
            f" that holds none of them or all. Horizons are {', '.join(f'{one}d' for one in horizons)}."
        )
        known = (
            "A row that sums up what follows its date is known later: say so with known_after."
            if apart >= _MONTHLY and not monthly
            else ""
        )
        doubts.append(Doubt("history.seldom", "", text, numbers={"days_apart": apart}, way_out=known))
    return burn_in, horizons, doubts
