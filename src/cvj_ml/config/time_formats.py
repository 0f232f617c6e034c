"""How times are written that are text or numbers: patterns, counts since 1970, counts from any day."""

from __future__ import annotations

import re
from datetime import date

from cvj_ml.config.base import DAY

EPOCHS = ("epoch s", "epoch ms", "epoch us", "epoch ns")
"""Ways to write a time as a number: what has passed since 1970-01-01 UTC."""

_UNITS = {"seconds": 1, "minutes": 60, "hours": 3_600, "days": 86_400, "weeks": 604_800}
_COUNTED = re.compile(rf"({'|'.join(_UNITS)}) since (\d{{4}}-\d{{2}}-\d{{2}})")

_FORMAT_FIELDS = ("Y", "y", "m", "-m", "b", "B", "d", "-d", "j", "a", "A", "H", "I", "p", "M", "S", "f", "z", "%")


def counted_since(time_format: str) -> tuple[int, int] | None:
    """Return the microseconds of one and of nought by a format such as ``days since 1899-12-30``; None for others.

    So the CF conventions of netCDF write times that count from a day; nought is that day's midnight, 1970-01-01 is 0.
    A week is its last day: what is told of it can be known when it is over. ValueError for a day that no calendar has.
    """
    if (found := _COUNTED.fullmatch(time_format)) is None:
        return None
    origin = date.fromisoformat(found[2]) - date(1970, 1, 1)
    return _UNITS[found[1]] * 1_000_000, (origin.days + (6 if found[1] == "weeks" else 0)) * DAY


def is_absolute(time_format: str | None) -> bool:
    """Return whether what is written in a format names an instant, whatever the zone."""
    return time_format is not None and (time_format in EPOCHS or "%z" in time_format.replace("%%", ""))


def whole_format(pattern: str) -> str:
    """Return a format that gives a whole date; ValueError for any other."""
    if pattern in EPOCHS or counted_since(pattern):
        return pattern
    fields = re.findall("%(-?.?)", pattern)
    if unknown := sorted({one for one in fields if one not in _FORMAT_FIELDS}):
        raise ValueError(
            f"time_format: %{unknown[0]} is not understood; known are"
            f" {', '.join(f'%{one}' for one in _FORMAT_FIELDS)}, as in Python's strptime"
        )
    there = {one.removeprefix("-") for one in fields}
    if not (there & {"Y", "y"} and ("j" in there or (there & {"m", "b", "B"} and "d" in there))):
        raise ValueError(
            f"time_format has to give year, month and day, as %d.%m.%Y does, or be one of {', '.join(EPOCHS)}, or"
            f" count from a day, as in days since 1899-12-30 ({', '.join(_UNITS)}); found {pattern!r}"
        )
    return pattern
