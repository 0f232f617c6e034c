"""The known calendar: which periods were known at an instant, and how much of each interval lies inside of them.

What is told of a hazard interval ``[as_of + lo, as_of + hi)`` is told of that interval alone. The share of the whole
horizon, or the season of ``as_of``, on all rows of a snapshot would tell the model which instant it is asked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, PUBLIC_HOLIDAY, CalendarSpec, public_holidays
from cvj_ml.features import Catalogue
from cvj_ml.windows import Instants, before, midnight, to_datetime

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

ALWAYS_KNOWN = np.iinfo(np.int64).min
"""When a public holiday became known: a rule gives it for every year."""

FAR = 90.0
"""Days from which on the next period is too far away to matter."""

_YEARS_AHEAD = 5
"""Years after a cut of which holidays are kept: far longer than any model is used."""

INPUTS = ("share", "nearness")
"""What is told of a kind and an interval; both lie between 0 and 1, and are 0 where no period is known or near.

``share``: the part of the interval inside periods of the kind. ``nearness``: 1 - log(1 + d) / log(1 + 90), with d the
days from the interval's start to the next known period's (0 inside of one), at most 90.
"""


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """``[start, end)`` of a kind, used by whoever asks after ``known_at``; ``audience`` is (attribute, value)."""

    kind: str
    start: int
    end: int
    known_at: int
    audience: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Calendar:
    """Periods in order of kind and time, all known by one cut."""

    periods: tuple[Period, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that occur, in alphabetical order."""
        return tuple(sorted({one.kind for one in self.periods}))

    def __bool__(self) -> bool:
        return bool(self.periods)

    def of_kind(self, kind: str) -> tuple[Period, ...]:
        """Return the periods of a kind."""
        return tuple(one for one in self.periods if one.kind == kind)


NO_CALENDAR = Calendar()


def known_calendar(spec: CalendarSpec | None, first: int, cut: int, zone: ZoneInfo) -> Calendar:
    """Return what was known before the cut: public holidays from the year of ``first`` on, and declared periods.

    Periods are whole local days, the last included, so a day of 23 or 25 hours counts with its own length. One that
    became known on a day was known when that day was over.
    """
    if spec is None:
        return NO_CALENDAR

    def ends(day: date) -> int:
        return midnight(day + timedelta(days=1), zone)

    found = [
        Period(
            one.kind,
            midnight(one.start, zone),
            ends(one.end),
            ends(one.known_at) - 1,
            (one.audience.attribute, str(one.audience.eq)) if one.audience else None,
        )
        for one in spec.periods
    ]
    if spec.holidays is not None:
        years = to_datetime(first, zone).year, to_datetime(cut, zone).year + _YEARS_AHEAD
        found += [
            Period(PUBLIC_HOLIDAY, midnight(day, zone), ends(day), ALWAYS_KNOWN)
            for day in public_holidays(spec.holidays, *years)
        ]
    known = before(np.array([one.known_at for one in found], dtype=np.int64), cut)
    return Calendar(tuple(sorted(itertools.compress(found, known), key=_order)))


def changed_periods(
    spec: CalendarSpec | None, frozen: Calendar, as_of: int, zone: ZoneInfo
) -> tuple[tuple[Period, ...], tuple[Period, ...]]:
    """Return the periods not over at ``as_of`` that a frozen calendar lacks, and those that are declared no more.

    Public holidays are not among them: they are frozen for years.
    """
    own = spec.model_copy(update={"holidays": None}) if spec else None
    declared = known_calendar(own, as_of, as_of, zone).periods
    named = tuple(one for one in frozen.periods if one.known_at != ALWAYS_KNOWN)
    added, removed = (
        tuple(one for one in itertools.compress(mine, _not_over(mine, as_of)) if one not in others)
        for mine, others in ((declared, named), (named, declared))
    )
    return added, removed


def _not_over(periods: tuple[Period, ...], as_of: int) -> _Mask:
    return ~before(np.array([one.end for one in periods], dtype=np.int64), as_of)


def _order(one: Period) -> tuple[object, ...]:
    return (one.kind, one.start, one.end, one.known_at, one.audience or ("", ""))


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that overlap or touch as one."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = result[-1][0], max(result[-1][1], end)
        else:
            result.append((start, end))
    return result


@dataclass(frozen=True, slots=True)
class Groups:
    """Snapshots that the calendar treats alike: ``of`` (snapshots,) numbers the group, whose instant and audiences.

    ``belongs`` is (groups, audiences); ``audiences`` are those that periods of the calendar name.
    """

    of: npt.NDArray[np.int64]
    as_of: Instants
    belongs: _Mask
    audiences: tuple[tuple[str, str], ...]


def groups_of(calendar: Calendar, catalogue: Catalogue, x: npt.NDArray[np.float32], as_of: Instants) -> Groups:
    """Group snapshots by instant and by the audiences they belong to, as features ``x`` knew their attributes."""
    audiences = tuple(sorted({one.audience for one in calendar.periods if one.audience is not None}))
    belongs = np.column_stack(
        [np.zeros((len(x), 0), dtype=np.bool_), *(_members(catalogue, one, x) for one in audiences)]
    )
    keys = np.column_stack([as_of, belongs.astype(np.int64)])
    found, of = np.unique(keys, axis=0, return_inverse=True)
    return Groups(of.reshape(-1).astype(np.int64), found[:, 0], found[:, 1:].astype(np.bool_), audiences)


def _members(catalogue: Catalogue, audience: tuple[str, str], x: npt.NDArray[np.float32]) -> _Mask:
    name, value = audience
    nobody = np.zeros(len(x), dtype=np.bool_)
    for column, feature in enumerate(catalogue.features):
        if feature.fact == ("category", name):
            values = catalogue.vocabulary.categories[name]
            return np.equal(x[:, column], values.index(value)) if value in values else nobody
        if feature.fact == ("number", name):
            # What is true or false is a number in X.
            number = {"True": "1", "False": "0"}.get(value, value)
            try:
                return np.equal(x[:, column], np.float32(number))
            except ValueError:
                return nobody  # the attribute is a number, which no text equals
    return nobody


def interval_inputs(calendar: Calendar, kinds: Sequence[str], groups: Groups, bounds: Sequence[int]) -> _F64:
    """Return INPUTS of each kind: (groups, intervals, 2 * kinds), as they were known at each group's instant.

    bounds: the intervals' edges, in microseconds after ``as_of``.
    """
    result = np.zeros((len(groups.as_of), len(bounds) - 1, len(INPUTS) * len(kinds)))
    for k, kind in enumerate(kinds):
        for g, spans in enumerate(known_spans(calendar.of_kind(kind), groups)):
            if not spans:
                continue
            starts, ends = np.array(spans, dtype=np.int64).T - groups.as_of[g]
            for m, (low, high) in enumerate(itertools.pairwise(bounds)):
                inside = np.clip(ends, low, high) - np.clip(starts, low, high)
                result[g, m, 2 * k] = inside.sum() / (high - low)
                ahead = np.maximum(starts - low, 0)[ends > low]
                days = min(float(ahead.min()) / DAY if len(ahead) else FAR, FAR)
                result[g, m, 2 * k + 1] = 1 - np.log1p(days) / np.log1p(FAR)
    return result


def known_spans(periods: Sequence[Period], groups: Groups) -> Iterator[list[tuple[int, int]]]:
    """Yield of each group the periods that it knew and that concern it, as spans that neither overlap nor touch."""
    known_at = np.array([one.known_at for one in periods], dtype=np.int64)
    everybody = np.array([one.audience is None for one in periods], dtype=np.bool_)
    place = [groups.audiences.index(one.audience) if one.audience else 0 for one in periods]
    for as_of, belongs in zip(groups.as_of, groups.belongs, strict=True):
        concerned = everybody | (belongs[place] if len(belongs) else False)
        used = before(known_at, int(as_of)) & concerned
        yield merged((one.start, one.end) for one in itertools.compress(periods, used))
