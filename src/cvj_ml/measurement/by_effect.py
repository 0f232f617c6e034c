"""Target against control by what nights had said that a contact changes, to see whether it came so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cvj_ml.engines import Blocks
from cvj_ml.measurement.outcomes import Observation, PastList, effect_of_arms, first_listings, list_outcomes

MOST_GROUPS = 10
ROWS_A_GROUP = 100
"""Listed people that each group by predicted effect has at least."""


def measure_by_effect(lists: Sequence[PastList], observation: Observation, blocks: Blocks) -> list[dict[str, object]]:
    """Return one row for each list whose horizon is over and each group of its people, nights of the epoch together.

    As where effects are learned: a person counts by the first listing on any list of the epoch, and by outcomes that
    both arms can have. Nothing where nights said nothing of contacts, or to too few.
    """
    ordered = sorted(lists, key=lambda past: past.as_of)
    told = [
        replace(past, scored=first.reset_index(drop=True))
        for past, first in zip(ordered, first_listings(ordered, observation.persons), strict=True)
        if observation.is_over(past) and "incremental_probability" in first and len(first)
    ]
    if not told:
        return []
    outcomes = list_outcomes(told, replace(observation, arm_neutral=True), blocks)
    rows: list[dict[str, object]] = []
    for end, last in enumerate(told, 1):
        seen = [
            outcome
            for past, outcome in zip(told[:end], outcomes[:end], strict=True)
            if (past.name, past.epoch) == (last.name, last.epoch)
        ]
        key = {"list": last.name, "epoch": last.epoch, "as_of": last.as_of}
        rows += [{**key, **one} for one in _groups(pd.concat(seen))]
    return rows


def _groups(listed: pd.DataFrame) -> list[dict[str, object]]:
    """Return target against control in groups of equal size, the smallest predicted effect first."""
    told = listed[listed["known"] & listed["incremental_probability"].notna()]
    told = told.sort_values(["incremental_probability", "customer_id"], kind="stable")
    groups = min(MOST_GROUPS, len(told) // ROWS_A_GROUP)
    parts = [told.iloc[rows] for rows in np.array_split(np.arange(len(told)), max(groups, 1))] if groups else []
    return [
        {
            "group": k + 1,
            "groups": groups,
            "predicted": float(part["incremental_probability"].mean()),
            **{name: one for name, one in effect_of_arms(part).items() if not name.endswith(("contacted", "judged"))},
        }
        for k, part in enumerate(parts)
    ]
