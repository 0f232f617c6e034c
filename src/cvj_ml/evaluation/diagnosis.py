"""Which part of a forecast was wrong, in a sentence that a marketer understands: its ranking, its level or its spread.

A part is called wrong where its 95 % interval over customers says so, and never by a threshold of ours: the level held
where the interval of observed/expected holds 1, the spread where that of the slope does, and the ranking held where the
interval of the AUC holds the mean AUC of the folds before.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from datetime import date, timedelta
from typing import Any

import pandas as pd

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_ASKED = {"reach": "Reach of a later stage", "return": "Return"}
_HAPPENED = {"reach": "moves happened", "return": "came back"}


def months(first: date, days: int) -> str:
    """Return the months that a horizon of so many days touches from a day on: ``March and April 2025``."""
    last = first + timedelta(days=days - 1)
    start, end = _MONTHS[first.month - 1], f"{_MONTHS[last.month - 1]} {last.year}"
    if (first.year, first.month) == (last.year, last.month):
        return end
    if first.year != last.year:
        return f"{start} {first.year} to {end}"
    return f"{start} {'and' if last.month == first.month + 1 else 'to'} {end}"


def diagnosis(row: Mapping[Hashable, Any], first: date, before: float = math.nan) -> str:
    """Return what a row of `Assessment.decomposition` says of the model.

    first: the day of the fold; before: the mean AUC of earlier folds, NaN where there are none.
    """
    days = int(row["horizon_days"])
    told = [_ranking(row, before), _level(row), _spread(row)]
    return f"{_ASKED[row['question']]} within {days} days, {months(first, days)}: {'; '.join(filter(None, told))}."


def diagnoses(decomposition: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the sentences of a model for every fold, question and horizon, each beside the folds before it.

    decomposition: of all folds, the oldest first, with the column ``fold`` (ISO dates).
    """
    mine = decomposition[decomposition["contender"] == model]
    rows = []
    for (question, days), here in mine.groupby(["question", "horizon_days"], sort=False):
        before: list[float] = []
        for row in here.to_dict("records"):
            finding = diagnosis(row, date.fromisoformat(row["fold"]), _mean(before))
            rows.append({"fold": row["fold"], "question": question, "horizon_days": days, "finding": finding})
            before.append(row["auc"])
    return pd.DataFrame(rows, columns=["fold", "question", "horizon_days", "finding"])


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan


def level_in_words(ratio: float, low: float, high: float) -> str:
    """Return whether the level held, by observed/expected and its interval; nothing where that is not known.

    The percentage is a share of what was expected: 24 % too low where 124 moved for 100 expected.
    """
    side = _side(low, high, 1.0)
    if side is None or not math.isfinite(ratio):
        return ""
    if side == 0:
        return "the level held"
    off = 100 * abs(ratio - 1)
    return f"the level was {f'{off:.0f}' if off >= 0.5 else 'less than 1'} % too {'low' if side > 0 else 'high'}"


def _level(row: Mapping[Hashable, Any]) -> str:
    words = level_in_words(*_bounded(row, "observed_expected"))
    happened = _HAPPENED[row["question"]]
    return f"{words}: {row['converted']:,.0f} {happened}, {row['expected']:,.0f} were expected" if words else ""


def _ranking(row: Mapping[Hashable, Any], before: float) -> str:
    area, low, high = _bounded(row, "auc")
    if not math.isfinite(area):
        return ""
    side = _side(low, high, before)
    if side is None:
        return f"it ranked the mover higher in {area:.0%} of all pairs (AUC {area:.2f})".replace("%", " %")
    words = {0: "held", 1: "became better", -1: "became worse"}[side]
    return f"the ranking {words} (AUC {area:.2f}, before {before:.2f})"


def _spread(row: Mapping[Hashable, Any]) -> str:
    slope, low, high = _bounded(row, "calibration_slope")
    side = _side(low, high, 1.0)
    if not side:
        return ""
    return f"probabilities were too {'alike' if side > 0 else 'extreme'} (slope {slope:.2f})"


def _bounded(row: Mapping[Hashable, Any], figure: str) -> tuple[float, float, float]:
    return float(row[figure]), float(row[f"{figure}_low"]), float(row[f"{figure}_high"])


def _side(low: float, high: float, reference: float) -> int | None:
    """Return 1 where an interval lies above a reference, -1 below, 0 around it; None where one of them is unknown."""
    if not math.isfinite(low + high + reference):
        return None
    return int(low > reference) - int(high < reference)
