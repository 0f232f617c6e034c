"""The page about the data: what there is to learn from, as one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from cvj_ml.io import html_environment
from cvj_ml.journey_analytics.data_facts import DataFacts, KnownTransition
from cvj_ml.journey_analytics.source_facts import SourceFacts
from cvj_ml.report import wording
from cvj_ml.report.page import asset, style_hash

WIDTH, HEIGHT = 440, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 436, 8, 126
_MOST_DATES = 4


@dataclass(frozen=True, slots=True)
class Bars:
    """Rows by month as a drawing: bars are (x, y, width, height, what it says), ticks (y, text), dates (x, text)."""

    bars: tuple[tuple[float, float, float, float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    dates: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class NextStep:
    """A row of the table of transitions: from where to where, and a cell a horizon."""

    origin: str
    target: str
    cells: tuple[KnownTransition, ...]


def data_page(facts: DataFacts) -> str:
    """Return the page; equal facts give equal text."""
    style = asset("page.css")
    environment = html_environment("cvj_ml.report")
    environment.filters |= {"percent": wording.percent, "count": wording.whole_number, "days": wording.days}
    return environment.get_template("data.html").render(
        facts=facts,
        steps=steps(facts),
        horizons=sorted({one.days for one in facts.next_steps}),
        charts=[(one, draw_months(one)) for one in facts.sources if one.months],
        style=Markup(style),
        policy=f"default-src 'none'; style-src '{style_hash(style)}'; base-uri 'none'; form-action 'none'",
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        baseline=_BOTTOM,
    )


def steps(facts: DataFacts) -> list[NextStep]:
    """Return the next step of every stage with its horizons side by side."""
    found: dict[tuple[str, str], list[KnownTransition]] = {}
    for one in facts.next_steps:
        found.setdefault((one.origin, one.target), []).append(one)
    return [NextStep(*ends, tuple(cells)) for ends, cells in found.items()]


def draw_months(source: SourceFacts) -> Bars:
    """Lay the rows of a source out by month, time to the right; needs at least one month."""
    highest = max(count for _, count in source.months)
    step = (_RIGHT - _LEFT) / len(source.months)
    gap = min(2.0, step / 4)
    bars = []
    for i, (month, count) in enumerate(source.months):
        height = round((_BOTTOM - _TOP) * count / highest, 1)
        said = f"{month}: {count:,} rows"
        bars.append((round(_LEFT + i * step, 1), round(_BOTTOM - height, 1), round(step - gap, 1), height, said))
    every = -(-len(source.months) // _MOST_DATES)
    dates = [(round(_LEFT + i * step, 1), source.months[i][0]) for i in range(0, len(source.months), every)]
    ticks = ((_TOP, wording.whole_number(highest)), (_BOTTOM, "0"))
    return Bars(tuple(bars), ticks, tuple(dates))
