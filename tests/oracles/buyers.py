"""A shop whose process is known: customers buy at rates of their own for amounts of their own, and give some back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from tests.oracles.cases import Blocks, a_plain_block

from cvj_ml.config import DAY, JourneySpec
from cvj_ml.features import Vocabulary, compile_catalogue
from cvj_ml.journey import PURCHASE, Journey, Outcome
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import Panel

HORIZONS = (10 * DAY, 30 * DAY, 60 * DAY)
START = 19_000 * DAY
CUT = START + 400 * DAY

_F64 = npt.NDArray[np.float64]


def a_shop_of_buyers(customers: int, seed: int) -> tuple[Blocks, _F64]:
    """Return customers with log-normal amounts, a tenth of which they give back, and the purchases a day of each.

    The number of purchases within a horizon is Poisson distributed.
    """
    rng = np.random.default_rng(seed)
    rate = rng.gamma(1.5, 1 / 60.0, customers)
    level = np.exp(rng.normal(3.0, 0.5, customers))
    offsets, occurred, event, value = [0], [], [], []
    for i in range(customers):
        days = np.sort(rng.uniform(0, 480, max(rng.poisson(rate[i] * 480), 1)))
        rows = [(0.0, 0, level[i])]
        for day in days:
            amount = level[i] * float(np.exp(rng.normal(0, 0.6)))
            rows.append((float(day), 0, amount))
            if rng.random() < 0.1:
                rows.append((float(day) + 2.0, 1, -amount))
        rows.sort()
        occurred += [START + round(day * DAY) for day, _, _ in rows]
        event += [one for _, one, _ in rows]
        value += [round(amount * 100) for _, _, amount in rows]
        offsets.append(len(occurred))
    block = a_plain_block(offsets, np.array(occurred), np.array(event, dtype=np.int32), ("buy", "back"))
    points = replace(block.touchpoints, value=np.array(value), has_value=np.ones(len(value), dtype=np.bool_))
    return Blocks([replace(block, touchpoints=points)]), rate


def a_buying_definition() -> ModelSpec:
    """One stage, purchases that are the return, refunds, windows of 30 and 90 days."""
    journey = JourneySpec.model_validate(
        {
            "name": "shop",
            "value": {"events": ["buy"], "refunds": ["back"]},
            "stages": [{"name": "Convert", "enter": {"event": "buy"}}],
        }
    )
    vocabulary = Vocabulary(("back", "buy"), (), (), {})
    catalogue = compile_catalogue(vocabulary, ["Convert"], (30 * DAY, 90 * DAY), None, DAY // 48, 2)
    bought = Outcome(PURCHASE, frozenset({"buy"}), same_as="return")
    return ModelSpec(
        Journey(journey, frozenset()), catalogue, HORIZONS, None, START - DAY, "UTC", (), 20, outcomes=(bought,)
    )


def true_chances(rate: _F64, panel: Panel) -> _F64:
    """Return the true P(buys within each horizon)."""
    return -np.expm1(-rate[panel.customer][:, None] * np.array(HORIZONS) / DAY)
