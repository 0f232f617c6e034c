"""The journey map as a drawing: coordinates and numbers for a static SVG; the template writes it."""

from __future__ import annotations

from dataclasses import dataclass

from cvj_ml.report.journey_map import Flow, JourneyMap
from cvj_ml.report.words import count

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
        parts = [f"+{count(step.new)} new"] if step.new else []
        parts += [f"{count(step.pace.stalled)} stalled"] if step.pace.stalled else []
        boxes.append(
            Box(
                top[step.stage],
                _BOX_HEIGHT if step.observed else _UNSEEN_HEIGHT,
                name,
                count(step.here) if step.observed else "",
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
    return Arrow(path, head, width, x + tip + 6, (start + end) / 2 + 4, count(flow.customers), False)


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
    return Arrow(path, head, width, out, (start + end) / 2 + 4, count(flow.customers), True)
