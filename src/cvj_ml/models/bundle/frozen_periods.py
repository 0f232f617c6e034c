"""The known calendar in a bundle: its periods, frozen, and what each kind of them does."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvj_ml.models.hazard.calendar_effect import CalendarEffect
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
