"""Local wall time to UTC (in SQL) and back, by the same time zone rules as the rest of the package.

DuckDB's own conversion takes the later of two equal wall times; Python (and so ``windows.midnight``) the earlier.
The offsets come from ``zoneinfo``, so both agree to the microsecond. Times are int64 microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from cvj_ml.windows import Instants

_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_utc(wall: str, zone: str) -> str:
    """Return SQL for the UTC instant of a local wall time.

    Of a wall time that happens twice it is the first; one that is skipped is read with the offset before the gap.
    """
    first, changes = _transitions(zone)
    offsets, starts = [first], []
    for instant, offset in changes:
        starts.append(instant + max(offsets[-1], offset))
        offsets.append(offset)
    return f"({wall} - {_choose(wall, starts, offsets)})"


def to_local(instant: str, zone: str) -> str:
    """Return SQL for the local wall time of a UTC instant, as ``to_wall`` has it."""
    first, changes = _transitions(zone)
    return f"({instant} + {_choose(instant, [at for at, _ in changes], [first, *(offset for _, offset in changes)])})"


def to_wall(instants: Instants, zone: str) -> Instants:
    """Return the local wall time of UTC instants."""
    first, changes = _transitions(zone)
    starts = np.array([at for at, _ in changes], dtype=np.int64)
    offsets = np.array([first, *(offset for _, offset in changes)], dtype=np.int64)
    return instants + offsets[np.searchsorted(starts, instants, side="right")]


def _choose(value: str, starts: Sequence[int], offsets: Sequence[int]) -> str:
    """Return a binary tree of CASE: few comparisons a row, and branches without rows cost nothing."""
    if not starts:
        return f"({offsets[0]})"
    middle = len(starts) // 2
    below = _choose(value, starts[:middle], offsets[: middle + 1])
    above = _choose(value, starts[middle + 1 :], offsets[middle + 1 :])
    return f"CASE WHEN {value} < {starts[middle]} THEN {below} ELSE {above} END"


@lru_cache(maxsize=16)
def _transitions(zone: str) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the first UTC offset and each (instant, new offset) from 1900 to 2100; rules are constant beyond."""
    rules = ZoneInfo(zone)

    def offset(instant: datetime) -> timedelta:
        return instant.astimezone(rules).utcoffset() or timedelta()

    found = []
    at, present = _FIRST, offset(_FIRST)
    while at < _LAST:
        following = at + timedelta(days=1)
        if (new := offset(following)) != present:
            low, high = at, following
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
                low, high = (middle, high) if offset(middle) == present else (low, middle)
            found.append(((high - _EPOCH) // _MICROSECOND, new // _MICROSECOND))
            present = new
        at = following
    return offset(_FIRST) // _MICROSECOND, tuple(found)


def written_instant(text: str) -> str:
    """Return SQL for the microseconds of ISO 8601 text, in UTC or on the wall of its zone; null for other text."""
    return f"CASE WHEN {has_offset(text)} THEN {with_offset(text)} ELSE {without_offset(text)} END"


def has_offset(text: str) -> str:
    """Return SQL for whether ISO 8601 text says its zone."""
    # A cast to TIMESTAMP drops an offset without a word, so text with one takes the other way.
    return f"regexp_matches(substr({text}, 11), '[^0-9:., Tt]')"


def with_offset(text: str) -> str:
    """Return SQL for the microseconds of ISO 8601 text that says its zone."""
    joined = rf"regexp_replace({text}, '\s+([+-]\d\d)(:?\d\d)?$', '\1\2')"  # the cast wants no blank before it
    return f"epoch_us(TRY_CAST({joined} AS TIMESTAMPTZ))"


def without_offset(text: str) -> str:
    """Return SQL for the microseconds of ISO 8601 text on the wall of its zone; it must not say one."""
    return f"CASE WHEN {text} SIMILAR TO '[0-9]{{4}}-.*' THEN epoch_us(TRY_CAST({text} AS TIMESTAMP)) END"
