"""Estimates over time as a drawing: coordinates for a static SVG; the template writes it.

The journey map as a drawing: coordinates and numbers for a static SVG; the template writes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from cvj_ml.journey_analytics.journey_map import Flow, JourneyMap
from cvj_ml.report.wording import whole_number

WIDTH, HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 428, 12, 162

_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Estimates:
    """Nights of one epoch in order of time: ISO date, value, and the ends of its interval."""

    nights: tuple[tuple[str, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One epoch: the band of its intervals (closed path), the line of its values, and their dots (x, y)."""

    band: str
    line: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Ticks are (y, text), ``reference`` is the y of "no effect", dates are (x, anchor, text)."""

    width: int
    height: int
    left: int
    right: int
    ticks: tuple[tuple[float, str], ...]
    reference: float
    series: tuple[Series, ...]
    dates: tuple[tuple[float, str, str], ...]
    baseline: int


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
    days = [date.fromisoformat(night[0]).toordinal() for night in nights]
    first, last = min(days), max(days)

    def x(day: str) -> float:
        if first == last:
            return (_LEFT + _RIGHT) / 2
        share = (date.fromisoformat(day).toordinal() - first) / (last - first)
        return round(_LEFT + 14 + share * (_RIGHT - _LEFT - 28), 1)

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
    ends = [(x(nights[0][0]), "start", nights[0][0]), (x(nights[-1][0]), "end", nights[-1][0])]
    dates = tuple(ends) if first != last else ((ends[0][0], "middle", ends[0][2]),)
    shown = tuple((y(tick), say(tick)) for tick in ticks)
    return Chart(WIDTH, HEIGHT, _LEFT, _RIGHT, shown, y(reference), tuple(series), dates, _BOTTOM)


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


WIDTH = 440
_BOX_WIDTH, _GAP, _TOP = 218, 34, 8
_BOX_HEIGHT, _UNSEEN_HEIGHT, _UNSEEN_GAP = 58, 32, 10
_MOST_SKIPS = 10
_NAME_LENGTH = 22


@dataclass(frozen=True, slots=True)
class Box:
    """A stage: its place, texts, and the widths of its bar (who stands there, and how many of them are stalled)."""

    y: int
    height: int
    name: str
    here: str
    note: str
    observed: bool
    bar: float
    stalled: float


@dataclass(frozen=True, slots=True)
class Arrow:
    """A flow: the path of its line and of its head, its width, and where its number stands."""

    path: str
    head: str
    width: float
    x: float
    y: float
    text: str
    skips: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes from the first stage down to the last; ``hidden`` small skips are left to the table."""

    width: int
    height: int
    box_width: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    hidden: int


def draw(found: JourneyMap) -> Drawing:
    """Lay the map out from top to bottom, narrow enough for a phone: steps straight down, skips around the right."""
    top, below = {}, _TOP
    for step in found.steps:
        top[step.stage] = below
        below += _BOX_HEIGHT + _GAP if step.observed else _UNSEEN_HEIGHT + _UNSEEN_GAP
    most = max((step.here for step in found.steps), default=0) or 1
    room = _BOX_WIDTH - 16
    boxes = []
    for step in found.steps:
        name = step.name if len(step.name) <= _NAME_LENGTH else f"{step.name[: _NAME_LENGTH - 1]}…"
        parts = [f"+{whole_number(step.new)} new"] if step.new else []
        parts += [f"{whole_number(step.pace.stalled)} stalled"] if step.pace.stalled else []
        boxes.append(
            Box(
                top[step.stage],
                _BOX_HEIGHT if step.observed else _UNSEEN_HEIGHT,
                name,
                whole_number(step.here) if step.observed else "",
                " · ".join(parts),
                step.observed,
                round(room * step.here / most, 1),
                round(room * (step.pace.stalled or 0) / most, 1),
            )
        )
    order = {step.stage: i for i, step in enumerate(found.steps)}
    skips = [flow for flow in found.flows if flow.skips]
    skips.sort(key=lambda flow: (-flow.customers, flow.origin, flow.to))
    shown = [flow for flow in found.flows if not flow.skips] + skips[:_MOST_SKIPS]
    largest = max((flow.customers for flow in shown), default=1)
    reach = {flow: order[flow.to] - order[flow.origin] for flow in shown}
    span = max(reach.values(), default=1)
    arrows = [
        _down(flow, top, largest) if reach[flow] == 1 else _around(flow, top, reach[flow], span, largest)
        for flow in shown
    ]
    width = WIDTH if any(arrow.skips for arrow in arrows) else _BOX_WIDTH + 16
    return Drawing(width, below, _BOX_WIDTH, tuple(boxes), tuple(arrows), len(skips[_MOST_SKIPS:]))


def _thickness(flow: Flow, largest: int) -> float:
    return round(1.5 + 10.5 * flow.customers / largest, 1)


def _down(flow: Flow, top: dict[int, int], largest: int) -> Arrow:
    """A step to the stage right below: straight down between the boxes."""
    x, start, end = 60, top[flow.origin] + _BOX_HEIGHT, top[flow.to]
    width = _thickness(flow, largest)
    tip = max(5.0, width * 0.9)
    head = f"M{x - tip:.1f} {end - 9}h{2 * tip:.1f}l{-tip:.1f} 8z"
    path = f"M{x} {start}V{end - 8}"
    return Arrow(path, head, width, x + tip + 6, (start + end) / 2 + 4, whole_number(flow.customers), False)


def _around(flow: Flow, top: dict[int, int], reach: int, span: int, largest: int) -> Arrow:
    """A skip: a curve around the right of the boxes; the farther it goes, the farther out it bends."""
    # Starts and ends are a little apart, so that curves of one box do not lie on each other.
    start = top[flow.origin] + _BOX_HEIGHT - 12 - 7 * (span - reach) / max(span, 1)
    end = top[flow.to] + 10 + 7 * reach / max(span, 1)
    edge = 8 + _BOX_WIDTH
    out = edge + 46 + (WIDTH - edge - 92) * (reach - 1) / max(span - 1, 1)
    bend = edge + (out - edge) * 4 / 3
    width = _thickness(flow, largest)
    tip = max(4.0, width * 0.9)
    path = f"M{edge} {start:.1f}C{bend:.1f} {start:.1f} {bend:.1f} {end:.1f} {edge + 8} {end:.1f}"
    head = f"M{edge + 9} {end - tip:.1f}v{2 * tip:.1f}l-8 {-tip:.1f}z"
    return Arrow(path, head, width, out, (start + end) / 2 + 4, whole_number(flow.customers), True)
