"""Attributes that hint at the traits: known from the arrival or a little later, some in several versions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.simulate.log import SECONDS
from cvj_ml.simulate.process import COUNTRIES, Floats, Ints, Population

PLANS = ("basic", "standard", "premium")
_CHANGED_SHARE = 0.15
_MISSING_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class AttributeVersions:
    """Versions in order of time: customer position, second from which known, country, age (NaN), plan."""

    customer: Ints
    known_second: Ints
    country: npt.NDArray[np.object_]
    age: Floats
    plan: npt.NDArray[np.object_]


def draw_attributes(people: Population, arrival: Ints, days: int, rng: np.random.Generator) -> AttributeVersions:
    """Draw attributes, given the second of each customer's first touchpoint; a new version may change the plan.

    The plan is a noisy sign of the spend trait and causes nothing, so a change of plan does not change the process.
    """
    size = len(people)
    known = arrival + np.where(rng.random(size) < 0.8, 0, rng.integers(0, 3 * SECONDS, size))
    age = (40 + 13 * people.age).round().clip(18, 90)
    age[rng.random(size) < _MISSING_SHARE] = np.nan
    country = np.array(COUNTRIES, dtype=object)[people.country]
    country[rng.random(size) < _MISSING_SHARE] = None
    end = days * SECONDS
    again = np.flatnonzero((rng.random(size) < _CHANGED_SHARE) & (known + SECONDS < end))
    later = known[again] + SECONDS + (rng.random(len(again)) * (end - SECONDS - known[again])).astype(np.int64)
    customer = np.concatenate([np.arange(size), again])
    second = np.concatenate([known, later])
    level = people.spend[customer] + 0.8 * rng.normal(size=len(customer))
    plan = np.array(PLANS, dtype=object)[np.digitize(level, [0.0, 1.1])]
    order = np.lexsort((customer, second))
    who = customer[order]
    return AttributeVersions(who, second[order], country[who], age[who], plan[order])
