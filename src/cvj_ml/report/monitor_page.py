"""The page of nights over time, as one HTML file that needs nothing else: alerts, stage mix, drift, matured quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from cvj_ml.gates.alerts import MonitoredNight
from cvj_ml.gates.verdicts import GateVerdict
from cvj_ml.io import html_environment
from cvj_ml.lists.kinds import title_of_row
from cvj_ml.report import wording
from cvj_ml.report.campaign_history import estimates, rows_of
from cvj_ml.report.charts import Chart, draw_chart, draw_line
from cvj_ml.report.page import asset, style_hash

DRIFT = "drift:"
"""What the names of the gates of drift begin with."""


@dataclass(frozen=True, slots=True)
class MonitorFacts:
    """Nights in order of time, the history of `measure`, and the alerts; ``stages`` are the journey's, the empty first.

    ``no_stage`` is what the journey calls those in no stage.
    """

    name: str
    stages: Sequence[str]
    no_stage: str
    nights: Sequence[MonitoredNight]
    measured: pd.DataFrame
    verdicts: Sequence[GateVerdict]

    @property
    def stages_shown(self) -> list[str]:
        """The stages in which somebody stood on some night."""
        return [one for one in self.stages if any(night.stages.get(one) for night in self.nights)]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its title, and in a sentence what it shows."""

    title: str
    told: str
    drawing: Chart


def monitor_page(facts: MonitorFacts) -> str:
    """Return the page; equal facts give equal text, since it holds no clock."""
    style = asset("page.css")
    environment = html_environment("cvj_ml.report")
    environment.filters |= {"percent": wording.percent, "count": wording.whole_number}
    return environment.get_template("monitor.html").render(
        facts=facts,
        alerts=sorted(facts.verdicts, key=lambda one: ("fail", "warn", "pass").index(one.level)),
        mix=stage_figures(facts),
        drift=drift_figures(facts.nights),
        quality=quality_figures(facts.measured),
        measured=_measured(facts.measured),
        style=Markup(style),
        policy=f"default-src 'none'; style-src '{style_hash(style)}'; base-uri 'none'; form-action 'none'",
    )


def stage_figures(facts: MonitorFacts) -> list[Figure]:
    """Draw the share of customers in each stage by night."""
    figures = []
    for stage in facts.stages_shown:
        points = [(night.day, night.share(stage)) for night in facts.nights]
        drawing = draw_line(points, [], wording.percent)
        told = f"from {wording.percent(points[0][1])} on {points[0][0]} to {wording.percent(points[-1][1])}"
        if drawing:
            figures.append(Figure(stage or facts.no_stage, f"{told} on {points[-1][0]}", drawing))
    return figures


def drift_figures(nights: Sequence[MonitoredNight]) -> list[Figure]:
    """Draw what each gate of drift found by night, beside the limit that it had: of the column nearest to its limit."""
    names = dict.fromkeys(gate.name for night in nights for gate in night.gates if gate.name.startswith(DRIFT))
    figures = []
    for name in names:
        found = [(night.day, gate) for night in nights for gate in night.gates if gate.name == name]
        points = [(day, max(one.value, 0.0)) for day, one in found if one.value is not None]
        limits = [(day, one.limit) for day, one in found if one.value is not None and one.limit is not None]
        drawing = draw_line(points, limits, lambda tick: f"{tick:.2f}")
        if drawing:
            told = f"population stability index {points[-1][1]:.2f} on {points[-1][0]}"
            figures.append(Figure(name.removeprefix(DRIFT), told, drawing))
    return figures


def quality_figures(measured: pd.DataFrame) -> list[Figure]:
    """Draw for each list how many did what was asked for each one expected, by night, with intervals of 95 %."""
    name, figures = "observed_over_expected", []
    for _, found in measured.groupby("list", sort=True) if len(measured) else ():
        rows = rows_of(found.sort_values("night", kind="stable"))
        drawing = draw_chart(estimates(rows, name), 1.0, math.log, lambda tick: f"× {tick:g}")
        if drawing:
            last = next(row for row in reversed(rows) if not math.isnan(row[name]))
            told = f"{last[name]:.2f} for each one expected on {last['night'][:10]}"
            figures.append(Figure(title_of_row(last), told, drawing))
    return figures


def _measured(measured: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table of quality: night, list, observed over expected, lift of the likeliest tenth."""
    return [
        (row["night"][:10], title_of_row(row), _interval(row, "observed_over_expected"), _interval(row, "lift_10pct"))
        for row in rows_of(measured)
    ]


def _interval(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})".replace("nan", "–")
