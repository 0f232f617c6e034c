"""Estimates and numbers over time as a drawing: coordinates for a static SVG; the template writes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

WIDTH, HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 428, 12, 162

_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Estimates:
    """Nights of one epoch in order of time: ISO date, value, and the ends of its interval."""

    nights: tuple[tuple[str, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One epoch: the band of its intervals (closed path, if any), the line of its values, and their dots (x, y)."""

    band: str
    line: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Ticks are (y, text), ``reference`` is the y of "no effect", dates are (x, anchor, text), ``limit`` is a path."""

    width: int
    height: int
    left: int
    right: int
    ticks: tuple[tuple[float, str], ...]
    reference: float | None
    series: tuple[Series, ...]
    dates: tuple[tuple[float, str, str], ...]
    baseline: int
    limit: str = ""


def draw_line(
    nights: Sequence[tuple[str, float]], limits: Sequence[tuple[str, float]], say: Callable[[float], str]
) -> Chart | None:
    """Lay a number of each night (ISO date, value) out from nought up, beside its limit; None without any."""
    if not nights:
        return None
    ticks = _steps([(night, value, 0.0, value) for night, value in (*nights, *limits)])
    x, dates = _along([night for night, _ in nights])

    def y(value: float) -> float:
        return round(_BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_BOTTOM - _TOP), 1)

    dots = tuple((x(night), y(value)) for night, value in nights)
    limit = tuple((x(night), y(value)) for night, value in limits)
    if len(limit) == 1:
        limit = ((_LEFT, limit[0][1]), (_RIGHT, limit[0][1]))
    shown = tuple((y(tick), say(tick)) for tick in ticks)
    series = (Series("", _path(dots), dots),)
    return Chart(WIDTH, HEIGHT, _LEFT, _RIGHT, shown, None, series, dates, _BOTTOM, _path(limit) if limit else "")


def draw_chart(
    epochs: Sequence[Estimates], reference: float, scale: Callable[[float], float], say: Callable[[float], str]
) -> Chart | None:
    """Lay estimates out, time to the right; None without any.

    scale: identity, or a logarithm for ratios, which are shown between a tenth and ten; say: a tick in words.
    """
    nights = [night for epoch in epochs for night in epoch.nights]
    if not nights:
        return None
    ratio = reference > 0
    ticks = _factors(nights) if ratio else _steps(nights)
    lowest, highest = scale(ticks[0]), scale(ticks[-1])
    x, dates = _along([night[0] for night in nights])

    def y(value: float) -> float:
        inside = min(max(scale(value) if value > 0 or not ratio else lowest, lowest), highest)
        return round(_BOTTOM - (inside - lowest) / (highest - lowest) * (_BOTTOM - _TOP), 1)

    series = []
    for epoch in epochs:
        # A band of one night has no width of its own.
        wide = 5 if len(epoch.nights) == 1 else 0
        upper = [(x(night), y(high)) for night, _, _, high in epoch.nights]
        lower = [(x(night), y(low)) for night, _, low, _ in epoch.nights]
        around = [(upper[0][0] - wide, upper[0][1]), *upper, (upper[-1][0] + wide, upper[-1][1])]
        back = [(lower[-1][0] + wide, lower[-1][1]), *reversed(lower), (lower[0][0] - wide, lower[0][1])]
        dots = tuple((x(night), y(value)) for night, value, _, _ in epoch.nights)
        series.append(Series(_path([*around, *back]) + "z", _path(dots), dots))
    shown = tuple((y(tick), say(tick)) for tick in ticks)
    return Chart(WIDTH, HEIGHT, _LEFT, _RIGHT, shown, y(reference), tuple(series), dates, _BOTTOM)


def _along(nights: Sequence[str]) -> tuple[Callable[[str], float], tuple[tuple[float, str, str], ...]]:
    """Return where each night lies, time to the right, and the dates that stand below: the first and the last."""
    days = [date.fromisoformat(night).toordinal() for night in nights]
    first, last = min(days), max(days)

    def x(day: str) -> float:
        if first == last:
            return (_LEFT + _RIGHT) / 2
        share = (date.fromisoformat(day).toordinal() - first) / (last - first)
        return round(_LEFT + 14 + share * (_RIGHT - _LEFT - 28), 1)

    ends = [(x(nights[0]), "start", nights[0]), (x(nights[-1]), "end", nights[-1])]
    return x, tuple(ends) if first != last else ((ends[0][0], "middle", ends[0][2]),)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _steps(nights: Sequence[tuple[str, float, float, float]]) -> list[float]:
    """Return three to seven round ticks around nought and all intervals."""
    lowest = min(0.0, *(low for _, _, low, _ in nights))
    highest = max(0.0, lowest + 1e-4, *(high for _, _, _, high in nights))
    rough = (highest - lowest) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [step * k for k in range(math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9) + 1)]


def _factors(nights: Sequence[tuple[str, float, float, float]]) -> list[float]:
    """Return ticks around one and all intervals, as far as a tenth and ten."""
    lowest = min(0.5, *(low for _, _, low, _ in nights))
    highest = max(2.0, *(high for _, _, _, high in nights))
    below = [factor for factor in _FACTORS if factor <= lowest] or [_FACTORS[0]]
    above = [factor for factor in _FACTORS if factor >= highest] or [_FACTORS[-1]]
    return [factor for factor in _FACTORS if below[-1] <= factor <= above[0]]
