"""A business with subscriptions from a known process: trials, payments that fail, cancellations, and people who return.

A customer's state at a UTC midnight is one of the stages of ``subscription5``, or none. At most once a day it changes,
with a probability that depends on the state and on the customer's satisfaction alone, so the time until a subscription
ends is geometric and its probability follows exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY, SECOND
from cvj_ml.errors import ConfigError
from cvj_ml.windows import midnight

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

NOBODY, VISITOR = -2, -1
CANCELLED, TRIAL, PAST_DUE, ACTIVE, WON_BACK = range(5)
_SECONDS = 86_400

# From a state: to another one, with a probability a day, and the event that tells it.
_CHANGES = {
    VISITOR: ((TRIAL, 0.02, "trial_started"), (ACTIVE, 0.002, "subscription_started")),
    TRIAL: ((ACTIVE, 0.035, "subscription_started"), (VISITOR, 0.03, "trial_ended")),
    ACTIVE: ((CANCELLED, 0.006, "cancellation"), (PAST_DUE, 0.005, "payment_failed")),
    PAST_DUE: ((ACTIVE, 0.12, "payment_recovered"), (CANCELLED, 0.02, "subscription_ended")),
    CANCELLED: ((WON_BACK, 0.008, "reactivated"),),
    WON_BACK: ((CANCELLED, 0.009, "cancellation"), (PAST_DUE, 0.006, "payment_failed")),
}
_LOST_BY_THE_UNSATISFIED = frozenset({"cancellation", "trial_ended"})
_USES_A_DAY = {VISITOR: 0.15, CANCELLED: 0.02, TRIAL: 0.7, PAST_DUE: 0.25, ACTIVE: 0.45, WON_BACK: 0.45}
_PRICE = 20.0


@dataclass(frozen=True)
class Subscriptions:
    """A simulated business: ``touchpoints`` in order of time, and the true states behind them."""

    touchpoints: pd.DataFrame
    start: date
    days: int
    _satisfaction: _Floats = field(repr=False)
    _states: _Ints = field(repr=False)

    def true_stage(self, as_of: int) -> _Ints:
        """Return each customer's stage (0 to 4; -1: none, -2: not there yet) at a UTC midnight, in order of the ids."""
        found: _Ints = self._states[self._day(as_of)]
        return found

    def true_leave(self, as_of: int, horizons: Sequence[int]) -> _Floats:
        """Return P(the subscription ends or a payment fails within each horizon) of who is Active or Won back.

        horizons: microseconds, whole days. Shape (customers, len(horizons)), NaN for everybody else.
        """
        state = self.true_stage(as_of)
        found = np.full((len(state), len(horizons)), np.nan)
        for stage in (ACTIVE, WON_BACK):
            rate = sum(_rate(p, event, self._satisfaction) for _, p, event in _CHANGES[stage])
            for h, horizon in enumerate(horizons):
                found[:, h] = np.where(state == stage, 1 - (1 - rate) ** (horizon // DAY), found[:, h])
        return found

    def _day(self, as_of: int) -> int:
        day, rest = divmod(as_of - midnight(self.start, ZoneInfo("UTC")), DAY)
        if rest or not 0 <= day <= self.days:
            raise ConfigError(f"the simulation knows its UTC midnights from {self.start} on, {self.days} days long.")
        return day


def simulate_subscriptions(
    customers: int = 2_000, seed: int = 1, start: date = date(2024, 1, 1), days: int = 540
) -> Subscriptions:
    """Simulate a business with subscriptions; ConfigError without a customer or a day."""
    if customers < 1 or days < 1:
        raise ConfigError(f"a simulation needs at least one customer and one day; found {customers} and {days}.")
    rng = np.random.default_rng(seed)
    satisfaction = rng.normal(size=customers)
    arrival = np.where(rng.random(customers) < 0.3, 0, (rng.random(customers) * days).astype(np.int64))
    states = np.full((days + 1, customers), NOBODY, dtype=np.int64)
    rows: list[tuple[_Ints, _Ints, str]] = []
    for day in range(days):
        state, after = states[day], states[day].copy()
        draw, second = rng.random(customers), day * _SECONDS + rng.integers(8 * 3600, 20 * 3600, customers)
        for origin, changes in _CHANGES.items():
            below = np.zeros(customers)
            for to, probability, event in changes:
                rate = _rate(probability, event, satisfaction)
                moves = (state == origin) & (draw >= below) & (draw < below + rate)
                after[moves] = to
                rows.append((np.flatnonzero(moves), second[moves], event))
                below = below + rate
        # Whoever uses it today does so before anything changes.
        uses = np.array([_USES_A_DAY.get(one, 0.0) for one in range(NOBODY, WON_BACK + 1)])[state - NOBODY]
        seen = rng.random(customers) < uses * np.exp(0.4 * satisfaction)
        visits = np.isin(state, (VISITOR, CANCELLED))
        for name, here in (("visit", visits), ("product_used", ~visits)):
            there = np.flatnonzero(seen & here)
            rows.append((there, second[there] - rng.integers(60, 7 * 3600, len(there)), name))
        arrives = arrival == day
        rows.append((np.flatnonzero(arrives), second[arrives], "visit"))
        states[day + 1] = np.where(arrives, VISITOR, after)
    return Subscriptions(_frame(rows, start, customers), start, days, satisfaction, states)


def _rate(probability: float, event: str, satisfaction: _Floats) -> _Floats:
    return probability * np.exp(-0.8 * satisfaction if event in _LOST_BY_THE_UNSATISFIED else 0.0 * satisfaction)


def _frame(rows: Sequence[tuple[_Ints, _Ints, str]], start: date, customers: int) -> pd.DataFrame:
    customer = np.concatenate([one for one, _, _ in rows])
    second = np.concatenate([one for _, one, _ in rows])
    event = np.concatenate([np.full(len(one), name, dtype=object) for one, _, name in rows])
    order = np.lexsort((customer, second))
    names = np.array([f"s{number:06d}" for number in range(customers)], dtype=object)
    occurred = midnight(start, ZoneInfo("UTC")) + second * SECOND
    paid = np.isin(event, ("subscription_started", "payment_recovered", "reactivated"))
    return pd.DataFrame(
        {
            "customer_id": pd.array(names[customer[order]], dtype="str"),
            "occurred_at": pd.DatetimeIndex(occurred[order].astype("M8[us]")).tz_localize("UTC"),
            "event": pd.array(event[order], dtype="str"),
            "value": np.where(paid, _PRICE, np.nan)[order],
        }
    )
