"""The files of one hazard model in a bundle: trees, line, ridge, base rates, the calendar's effect, calibration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from cvj_ml.io import sorted_json
from cvj_ml.models.bundle.corrections import (
    calendar_as_json,
    calendar_from_json,
    effect_from_json,
    ridge_as_json,
    ridge_from_json,
)
from cvj_ml.models.hazard.base_rates import BaseRates
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.hazard.linear import LinearHazard, linear_columns
from cvj_ml.models.hazard.reach import Trees
from cvj_ml.panel.calendar import Calendar
from cvj_ml.panel.model_spec import ModelSpec

CALENDAR = "calendar.json"
RIDGE = "ridge.json"
TREES = "reach.txt"
HAZARD_FILES = (TREES, RIDGE, CALENDAR, "linear.json", "calibration.json", "base_rates.json")

_LINE = ("missing", "mean", "scale", "coefficients")


def save_hazard(trees: Trees, calibration: Calibration, calendar: Calendar, folder: Path) -> None:
    """Write a hazard model into a folder; ``calendar`` are the periods that its own file tells."""
    (folder / TREES).write_text(text_of(trees.booster) if trees.booster else "", encoding="utf-8")
    write_json(
        folder / "calibration.json",
        {"intercept": calibration.intercept.tolist(), "slope": calibration.slope.tolist()},
    )
    line = trees.linear
    write_json(
        folder / "linear.json",
        {**{name: getattr(line, name).tolist() for name in _LINE}, "intercept": line.intercept} if line else {},
    )
    write_json(folder / RIDGE, {"share": trees.ridge_share, **ridge_as_json(trees.ridge)})
    write_json(
        folder / "base_rates.json",
        {
            "recency_cuts": trees.base.cuts.tolist(),
            "by_stage": trees.base.by_stage.tolist(),
            "rates": trees.base.rates.tolist(),
            "known": trees.base.known.tolist(),
            # Of a stage of which nothing is known it is infinite, which JSON has no word for.
            "spread": [[None if np.isinf(one) else one for one in row] for row in trees.base.spread.tolist()],
            "low_evidence": trees.low.tolist(),
        },
    )
    write_json(folder / CALENDAR, calendar_as_json(calendar, trees.calendar))


def load_calendar(folder: Path) -> Calendar:
    """Return the periods of a bundle."""
    return calendar_from_json(read_json(folder / CALENDAR))


def load_hazard(folder: Path, definition: ModelSpec) -> tuple[Trees, Calibration]:
    """Return the hazard model of `save_hazard`."""
    calibration, base = read_json(folder / "calibration.json"), read_json(folder / "base_rates.json")
    maps = Calibration(np.array(calibration["intercept"]), np.array(calibration["slope"]))
    spread = [[np.inf if one is None else one for one in row] for row in base["spread"]]
    numbers = (np.array(base[name], dtype=np.float64) for name in ("recency_cuts", "by_stage", "rates"))
    cuts, by_stage, by_recency = numbers
    rates = BaseRates(
        cuts,
        by_stage,
        by_recency,
        np.array(base["known"], dtype=np.bool_),
        np.array(spread, dtype=np.float64),
    )
    line = read_json(folder / "linear.json")
    linear = (
        LinearHazard(intercept=line.pop("intercept"), **{k: np.array(v) for k, v in line.items()}) if line else None
    )
    ridge = read_json(folder / RIDGE)
    of_return, of_reach = ridge["share"]
    text = (folder / TREES).read_text(encoding="utf-8")
    trees = Trees(
        lgb.Booster(model_str=text) if text else None,
        linear,
        rates,
        np.array(base["low_evidence"], dtype=np.bool_),
        linear_columns(definition),
        ridge_from_json(ridge),
        (of_return, of_reach),
        calendar=effect_from_json(read_json(folder / CALENDAR), definition),
    )
    return trees, maps


def text_of(booster: lgb.Booster) -> str:
    """Return the model's text without the number of threads that trained it: it is no part of the model."""
    return re.sub(r"^\[num_threads: \d+\]\n", "", booster.model_to_string(), flags=re.MULTILINE)


def write_json(path: Path, document: Any) -> None:
    """Write a document with sorted keys."""
    path.write_text(sorted_json(document), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return a document."""
    return json.loads(path.read_text(encoding="utf-8"))
