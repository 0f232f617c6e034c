"""Durations such as ``30d``: integer microseconds inside, text in YAML."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

SECOND = 1_000_000
DAY = 86_400 * SECOND
_UNITS = {"w": 7 * DAY, "d": DAY, "h": 3_600 * SECOND, "min": 60 * SECOND, "s": SECOND}

_LONGEST = 36_500 * DAY


def parse_duration(text: Any) -> int:
    """Read ``30d``, ``12h``, ``30min``, ``45s`` or ``2w`` as microseconds (``1d`` is 86,400 s)."""
    found = re.fullmatch(r"([0-9]{1,15})\s*(w|d|h|min|s)", text.strip()) if isinstance(text, str) else None
    if not found or int(found[1]) == 0:
        raise ValueError(
            f"{text!r} is not a duration; write a positive whole number and a unit: 30d, 12h, 30min, 45s, 2w"
        )
    if (length := int(found[1]) * _UNITS[found[2]]) > _LONGEST:
        raise ValueError(f"{text!r} is longer than any history; write at most 36500d")
    return length


def format_duration(microseconds: int) -> str:
    """Write microseconds in the largest unit, weeks apart, that divides them."""
    for unit in ("d", "h", "min", "s"):
        if microseconds % _UNITS[unit] == 0:
            return f"{microseconds // _UNITS[unit]}{unit}"
    raise ValueError(f"{microseconds} microseconds are not whole seconds")


Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
