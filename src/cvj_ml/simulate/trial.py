"""A randomised trial with known effects: what an estimate of effects is measured against.

Nothing is a time or an event here: one row a contact, features and true effects side by side. The outcome is 0 or 1,
P(outcome) without a contact is a logistic line in two features and a curve in a third, and what a contact adds depends
on others, so whoever is likeliest is not whom a contact moves most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FEATURES = 10
"""Columns of a trial; the effect of each arm depends on three of them, and the outcome without a contact on others."""

Effects = Literal["none", "alike", "differ"]

_MISSING = 0.05
"""Share of the last feature that is missing."""

_ALIKE = 0.05

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SimulatedTrial:
    """Rows of a trial, and the truth about each.

    features: (rows, 10). arm: (rows,) 0 is control. outcome: (rows,) 0 or 1. propensity: (rows, arms with control) with
    which arms were drawn. customer: (rows,) codes. probability: (rows,) of the outcome without a contact. effect:
    (rows, arms) what each arm adds to it.
    """

    features: npt.NDArray[np.float32]
    arm: Ints
    outcome: Floats
    propensity: Floats
    customer: Ints
    probability: Floats
    effect: Floats


def simulate_trial(
    rows: int,
    seed: int,
    effects: Effects = "differ",
    *,
    arms: int = 1,
    control: float = 0.5,
    targeting: float = 0.0,
    rows_a_customer: int = 1,
) -> SimulatedTrial:
    """Draw a trial; a share of ``control`` is left alone, the arms share the rest evenly.

    effects: a contact changes nothing, adds 5 points for everybody, or different points for different people (about 5
    on average, spread by 4). targeting: how far the logit of being contacted rises with the first feature, so that 0 is
    a trial by lot. rows_a_customer: rows of one customer have the same features, and outcomes of their own.
    """
    random = np.random.default_rng([seed, rows, arms])
    customer = np.arange(rows) // rows_a_customer
    x = random.normal(size=(int(customer.max(initial=-1)) + 1, FEATURES))[customer]
    probability = _expit(-1.4 + 0.8 * x[:, 0] + 0.5 * x[:, 1] + 0.3 * (np.abs(x[:, 2]) - 0.8))
    effect = np.column_stack([_effect(x, effects, arm) for arm in range(arms)])
    effect = np.clip(probability[:, None] + effect, 0.0, 1.0) - probability[:, None]
    contacted = _expit(np.log((1 - control) / control) + targeting * x[:, 0])
    propensity = np.column_stack([1 - contacted, *[contacted / arms] * arms])
    arm = (random.random(rows)[:, None] > np.cumsum(propensity, axis=1)[:, :-1]).sum(axis=1)
    reached = probability + np.column_stack([np.zeros(rows), effect])[np.arange(rows), arm]
    outcome = (random.random(rows) < reached).astype(np.float64)
    features = x.astype(np.float32)
    features[random.random(rows) < _MISSING, -1] = np.nan
    return SimulatedTrial(features, arm.astype(np.int64), outcome, propensity, customer, probability, effect)


def _effect(x: Floats, effects: Effects, arm: int) -> Floats:
    """Return what an arm adds before probabilities end at 0 and 1; further arms depend on further features."""
    if effects == "none":
        return np.zeros(len(x))
    if effects == "alike":
        return np.full(len(x), _ALIKE)
    step, slope, also = x[:, 3 + arm % 3], x[:, 4 + arm % 3], x[:, 5 + arm % 3]
    found: Floats = 0.02 + 0.06 * (step > 0) + 0.04 * np.clip(slope, -1, 1) * (also > -1)
    return found


def _expit(logit: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-logit))
    return found
