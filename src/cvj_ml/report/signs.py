"""Touchpoints that go with moving on or with staying: ratios of shares with intervals, an association and no cause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from cvj_ml.report.touchpoints import ALL

MINIMUM_CUSTOMERS = 30
"""Customers with a touchpoint, and without it, before the two are compared."""

MINIMUM_MOVERS = 10
"""Customers of a stage who must have moved on, and who must not have, before anything is compared."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One touchpoint before one step: shares that moved on with and without it, and their ratio.

    ``low`` and ``high`` bound the ratio; the intervals of a stage hold together in 95 of 100 cases (Bonferroni).
    """

    event: str
    inbound: bool
    with_it: int
    share_with: float
    share_without: float
    lift: float
    low: float
    high: float

    @property
    def moving(self) -> bool:
        """Whether those with the touchpoint moved on more often, beyond chance."""
        return self.low > 1

    @property
    def staying(self) -> bool:
        """Whether those with the touchpoint moved on less often, beyond chance."""
        return self.high < 1


def signs(precursors: pd.DataFrame, stage: int) -> list[Sign]:
    """Return every touchpoint that can be compared, the highest ratio first.

    The ratio is ((a + 1/2) / (n + 1)) / ((b + 1/2) / (m + 1)) with the standard error of its logarithm
    sqrt(1/(a + 1/2) - 1/(n + 1) + 1/(b + 1/2) - 1/(m + 1)): a of n customers with the touchpoint and b of m without
    it moved on (Katz and others 1978; the halves keep small numbers from shouting).
    """
    rows = precursors[precursors["stage"] == stage]
    total = rows[rows["event"] == ALL]
    if total.empty:
        return []
    customers, moved = int(total["customers"].iloc[0]), int(total["moved"].iloc[0])
    if min(moved, customers - moved) < MINIMUM_MOVERS:
        return []
    compared = rows[
        (rows["event"] != ALL)
        & (rows["customers"] >= MINIMUM_CUSTOMERS)
        & (customers - rows["customers"] >= MINIMUM_CUSTOMERS)
    ]
    z = float(norm.ppf(1 - 0.025 / max(len(compared), 1)))
    found = []
    for row in compared.itertuples():
        n, a = int(row.customers), int(row.moved)  # type: ignore[arg-type]
        m, b = customers - n, moved - a
        lift = (a + 0.5) / (n + 1) / ((b + 0.5) / (m + 1))
        spread = np.exp(z * np.sqrt(1 / (a + 0.5) - 1 / (n + 1) + 1 / (b + 0.5) - 1 / (m + 1)))
        found.append(
            Sign(str(row.event), bool(row.inbound), n, a / n, b / m, lift, float(lift / spread), float(lift * spread))
        )
    return sorted(found, key=lambda one: (-one.lift, one.event))
