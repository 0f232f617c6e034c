"""Did it work? The history of `measure` as sentences, a table and a drawing for every list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cvj_ml.lists.kinds import Verb, heading_of_row, said_of_row
from cvj_ml.measurement.effects import contact_words, effect_words, forecast_words, score_words
from cvj_ml.report.charts import Chart, Estimates, draw_chart
from cvj_ml.report.wording import percent

NIGHTS = 60
"""The last nights of a list that the page shows; the history's file holds all."""


@dataclass(frozen=True, slots=True)
class PastNight:
    """One night of a list, as texts: who moved, and how good its scores were."""

    night: str
    epoch: str
    target: str
    control: str
    difference: str
    contacted: str
    expected: str
    lift: str


@dataclass(frozen=True, slots=True)
class ListHistory:
    """A list with what its last night says, its nights (the newest first), and charts of effect and of scores.

    ``scores`` is None where nobody was left alone, so that no score could be evaluated; ``hidden`` nights do not show.
    ``said`` is how what the list is of is said; ``plays`` what each of its plays brought, in sentences.
    """

    anchor: str
    said: Verb
    origin: str
    to: str
    horizon_days: int
    sentences: tuple[str, ...]
    plays: tuple[str, ...]
    nights: tuple[PastNight, ...]
    effect: Chart | None
    scores: Chart | None
    hidden: int


def list_histories(history: pd.DataFrame, order: Sequence[str]) -> tuple[ListHistory, ...]:
    """Return the measured lists: those named in ``order`` as there, then the others by name."""
    if history.empty:
        return ()
    place = {name: i for i, name in enumerate(order)}
    names = sorted(history["list"].unique(), key=lambda name: (place.get(name, len(place)), name))
    return tuple(_past(history[history["list"] == name].sort_values("night", kind="stable")) for name in names)


def _past(found: pd.DataFrame) -> ListHistory:
    rows = rows_of(found.tail(NIGHTS))
    last = rows[-1]
    sentences = (effect_words(last), contact_words(last), forecast_words(last), score_words(last))
    return ListHistory(
        f"past-{last['list']}",
        said_of_row(last),
        *heading_of_row(last),
        last["horizon_days"],
        tuple(one for one in sentences if one),
        tuple(last.get("plays", ())),
        tuple(map(_night, reversed(rows))),
        draw_chart(estimates(rows, "difference"), 0.0, lambda value: value, _points),
        draw_chart(estimates(rows, "observed_over_expected"), 1.0, math.log, lambda value: f"{value:g}×"),
        len(found) - len(rows),
    )


def _night(row: Mapping[str, Any]) -> PastNight:
    converted = {
        arm: f"{percent(row[f'{arm}_moved'] / row[f'{arm}_n'])} of {row[f'{arm}_n']:,}" if row[f"{arm}_n"] else "–"
        for arm in ("target", "control")
    }
    return PastNight(
        row["night"][:10],
        row["epoch"],
        converted["target"],
        converted["control"],
        _interval(row, "difference", lambda value: f"{100 * value:+.1f}"),
        " / ".join(percent(row[f"{arm}_contacted"]) for arm in ("target", "control")),
        _interval(row, "observed_over_expected", lambda value: f"{value:.2f}"),
        _interval(row, "lift_10pct", lambda value: f"{value:.1f}"),
    )


def _interval(row: Mapping[str, Any], name: str, say: Any) -> str:
    value = row[name]
    return "–" if math.isnan(value) else f"{say(value)} ({say(row[f'{name}_low'])} to {say(row[f'{name}_high'])})"


def rows_of(history: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a history by the names of their columns."""
    return [{str(name): value for name, value in row.items()} for row in history.to_dict("records")]


def estimates(rows: Sequence[Mapping[str, Any]], name: str) -> list[Estimates]:
    """Return the estimates of each epoch, in order of time; nights without one are left out."""
    epochs: dict[str, list[tuple[str, float, float, float]]] = {}
    for row in rows:
        if not math.isnan(row[name]):
            estimate = (row["night"][:10], row[name], row[f"{name}_low"], row[f"{name}_high"])
            epochs.setdefault(row["epoch"], []).append(estimate)
    return [Estimates(tuple(found)) for found in epochs.values()]


def _points(value: float) -> str:
    return f"{100 * value:+.3g}" if value else "0"
