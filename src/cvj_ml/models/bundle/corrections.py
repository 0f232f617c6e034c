"""What corrects the line, in a bundle: the calendar's frozen periods and effect, the ridge, the level of a year ago."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvj_ml.models.hazard.calendar_effect import CalendarEffect
from cvj_ml.models.hazard.level_shift import YearAgoError, YearAgoLevel
from cvj_ml.models.hazard.ridge import RidgeHazard
from cvj_ml.panel.calendar import Calendar, Period
from cvj_ml.panel.model_spec import ModelSpec


def calendar_as_json(calendar: Calendar, effect: CalendarEffect | None) -> dict[str, Any]:
    """Return the periods, each as a list of its five facts, and the effect of their kinds ({} where there is none)."""
    return {
        "periods": [[one.kind, one.start, one.end, one.known_at, one.audience] for one in calendar.periods],
        "effect": {
            "kinds": effect.kinds,
            "occurrences": effect.occurrences,
            "coefficients": effect.coefficients.tolist(),
            "mean": effect.mean.tolist(),
        }
        if effect
        else {},
    }


def calendar_from_json(document: dict[str, Any]) -> Calendar:
    """Return the periods of `calendar_as_json`."""
    return Calendar(
        tuple(
            Period(kind, int(start), int(end), int(known_at), (audience[0], audience[1]) if audience else None)
            for kind, start, end, known_at, audience in document["periods"]
        )
    )


def effect_from_json(document: dict[str, Any], definition: ModelSpec) -> CalendarEffect | None:
    """Return the effect of `calendar_as_json`, for a definition with the same periods."""
    found = document["effect"]
    if not found:
        return None
    return CalendarEffect(
        definition,
        tuple(found["kinds"]),
        tuple(int(one) for one in found["occurrences"]),
        np.array(found["coefficients"], dtype=np.float64),
        np.array(found["mean"], dtype=np.float64),
    )


def year_ago_as_json(level: YearAgoLevel | None) -> list[dict[str, Any]]:
    """Return the errors of the years before; none where no level is carried over."""
    return [
        {"cut": one.cut, "intercept": one.intercept.tolist(), "moved": one.moved.tolist()}
        for one in (level.errors if level else ())
    ]


def year_ago_from_json(document: list[dict[str, Any]]) -> YearAgoLevel | None:
    """Return the level of `year_ago_as_json`."""
    errors = tuple(
        YearAgoError(one["cut"], np.array(one["intercept"], dtype=np.float64), np.array(one["moved"], dtype=np.int64))
        for one in document
    )
    return YearAgoLevel(errors) if errors else None


def ridge_as_json(ridge: RidgeHazard | None) -> dict[str, Any]:
    """Return the ridge ({} where there is none)."""
    if ridge is None:
        return {}
    # What has no slope has an infinite scale, which JSON has no word for.
    scale = [None if np.isinf(one) else one for one in ridge.scale.tolist()]
    return {"scale": scale, **{name: getattr(ridge, name).tolist() for name in ("mean", "slopes", "intercept")}}


def ridge_from_json(document: dict[str, Any]) -> RidgeHazard | None:
    """Return the ridge of `ridge_as_json`."""
    if "scale" not in document:
        return None
    scale = np.array([np.inf if one is None else one for one in document["scale"]], dtype=np.float64)
    numbers = (np.array(document[name], dtype=np.float64) for name in ("mean", "slopes", "intercept"))
    mean, slopes, intercept = numbers
    return RidgeHazard(mean, scale, slopes, intercept)
