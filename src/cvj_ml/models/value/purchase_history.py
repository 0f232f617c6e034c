"""What the amount models know of a customer: a start that buy-till-you-die models suggest, and what corrects it.

The start of the number of purchases is a customer's own rate, that of the amount their own mean, each shrunk towards
the population's by one purchase: the ideas of BG/NBD (Fader, Hardie and Lee 2005) and Gamma-Gamma (Fader and Hardie
2013). A line of few bounded inputs corrects both; a start that is proportional to what somebody did does not run away
from those who did most, as a power of it would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from cvj_ml.config import DAY
from cvj_ml.features import Statistic
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.windows import NEVER

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]

_SHAPE, _DROPOUT = 0.25, (0.8, 2.5)
"""Of the rates among customers (r of BG/NBD), and of their chances to leave after a purchase (a, b): what these models
find on most data. They shape one input, whose weight is learned; nothing else rests on them."""

_FLOOR = -8.0
"""The log of the smallest probability of being alive that tells anything more."""

LEAST = 1e-6
"""No customer's chance to buy, or what they are expected to do, is smaller."""


@dataclass(frozen=True, slots=True)
class AverageBuyer:
    """The purchases of a customer a day, and the amount of one (whole units): what a customer is shrunk towards."""

    rate: float
    amount: float


@dataclass(frozen=True, slots=True)
class PurchaseColumns:
    """Where X holds what is known of purchases, by position.

    ``windows`` are (days, counts, sum of values) of each look-back window. Where the events that count as purchases are
    too rare for columns of their own, all touchpoints stand in for them; ``refunds`` may be none.
    """

    purchases: tuple[int, ...]
    silence: tuple[int, ...]
    refunds: tuple[int, ...]
    windows: tuple[tuple[float, tuple[int, ...], int], ...]
    tenure: int
    value_sum: int
    value_max: int

    @classmethod
    def of(cls, definition: ModelSpec) -> PurchaseColumns:
        """Return the columns of a definition whose journey has a ``value``."""
        value, features = definition.journey.spec.value, definition.catalogue.features
        if value is None:
            raise ValueError("The journey does not say which events are purchases.")

        def find(statistic: Statistic, window: int, fact: str, names: tuple[str, ...] = ()) -> tuple[int, ...]:
            facts = [(fact, name) for name in names] if names else [(fact,)]
            return tuple(
                i
                for i, one in enumerate(features)
                if one.statistic == statistic and one.window == window and one.fact in facts
            )

        def counts(window: int) -> tuple[int, ...]:
            of_events = find(Statistic.COUNT, window, "event", value.events)
            return of_events or find(Statistic.COUNT, window, "activity")[:1]

        return cls(
            counts(NEVER),
            find(Statistic.RECENCY, NEVER, "event", value.events) or find(Statistic.RECENCY, NEVER, "recency"),
            find(Statistic.COUNT, NEVER, "event", value.refunds) if value.refunds else (),
            tuple(
                (window / DAY, counts(window), find(Statistic.SUM, window, "value")[0])
                for window in definition.catalogue.windows
            ),
            find(Statistic.TENURE, NEVER, "tenure")[0],
            find(Statistic.SUM, NEVER, "value")[0],
            find(Statistic.MAX, NEVER, "value")[0],
        )


@dataclass(frozen=True, slots=True)
class History:
    """What is known of the purchases of n snapshots, each (n,): number, days since the last and the first, amounts.

    Who never bought has been silent for the whole tenure. ``amount`` is the own mean, shrunk; ``windows`` are (days,
    purchases, sum of values).
    """

    purchases: _F64
    silence: _F64
    tenure: _F64
    amount: _F64
    highest: _F64
    refunds: _F64
    windows: tuple[tuple[float, _F64, _F64], ...]

    @classmethod
    def of(cls, x: _F32, columns: PurchaseColumns, population: AverageBuyer) -> History:
        """Return the history of the rows of X."""
        purchases, tenure = total(x, columns.purchases), total(x, (columns.tenure,))
        # Of several events the last one counts, and NaN is none.
        ages = np.where(np.isnan(x[:, columns.silence]), np.inf, x[:, columns.silence]).min(axis=1)
        silence = np.minimum(ages.astype(np.float64), tenure)
        amount = (population.amount + np.maximum(total(x, (columns.value_sum,)), 0.0)) / (1.0 + purchases)
        windows = []
        for days, counts, value in columns.windows:
            # A window that was not recorded whole knows what all history knows.
            unknown = np.isnan(x[:, counts[0]])
            bought = np.where(unknown, purchases, total(x, counts))
            spent = np.where(unknown, total(x, (columns.value_sum,)), total(x, (value,)))
            windows.append((days, bought, np.maximum(spent, 0.0)))
        highest = np.maximum(total(x, (columns.value_max,)), 0.0)
        return cls(purchases, silence, tenure, amount, highest, total(x, columns.refunds), tuple(windows))

    def rate(self, population: AverageBuyer) -> _F64:
        """Return the own purchases a day after the first one, shrunk towards the population's."""
        rate: _F64 = np.maximum(self.purchases, 1.0) / (self.tenure + 1.0 / population.rate)
        return rate

    def alive(self, population: AverageBuyer) -> _F64:
        """Return the log of P(still a customer) as BG/NBD has it: silence says more the more somebody bought."""
        repeats, (leaves, stays) = np.maximum(self.purchases - 1.0, 0.0), _DROPOUT
        slow = _SHAPE / population.rate
        silent = (_SHAPE + repeats) * np.log((slow + self.tenure) / (slow + self.tenure - self.silence))
        odds = np.log(leaves / (stays + np.maximum(repeats, 1.0) - 1.0)) + silent
        return np.maximum(np.where(repeats > 0, -np.logaddexp(0.0, odds), 0.0), _FLOOR)


def total(x: _F32, columns: tuple[int, ...]) -> _F64:
    """Return the sum of some columns, one by one; what is missing adds nothing."""
    found = np.zeros(len(x))
    for column in columns:
        found += np.nan_to_num(x[:, column].astype(np.float64))
    return found


@dataclass(frozen=True, slots=True)
class Inputs:
    """Of rows (snapshot, horizon): the logs that the models start from, and what their lines correct them by.

    ``number`` is the log of E[N | buys] of a Poisson process with the own rate, ``amount`` the log of the own mean
    amount. ``habits`` correct the number; the amount and refunds know ``amounts``, too. Both are lists of columns.
    """

    number: _F64
    amount: _F64
    habits: list[_F64]
    amounts: list[_F64]


ALIVE = 7
"""Which of the habits is not bounded: it is bounded by what it means."""


def inputs_of(
    x: _F32,
    columns: PurchaseColumns,
    population: AverageBuyer,
    p: _F64,
    snapshot: _I64,
    horizon: _I64,
    horizons: tuple[int, ...],
) -> Inputs:
    """Return the inputs of rows; ``p`` is P(buys within each horizon), (snapshots, horizons)."""
    past = History.of(x, columns, population)
    days = (np.array(horizons) / DAY)[horizon]
    rate, bought = past.rate(population), past.purchases
    expected = rate[snapshot] * days
    of_customer = (
        np.log(rate),
        np.log1p(past.silence * rate),
        np.log1p(past.silence),
        np.log1p(past.tenure),
        (bought < 1.0).astype(np.float64),
    )
    trends = [
        np.log((count + 1.0) / (np.minimum(window, past.tenure) * rate + 1.0)) for window, count, _ in past.windows
    ]
    means = [np.log((spent + past.amount) / (count + 1.0) / past.amount) for _, count, spent in past.windows]
    of_amounts = (
        np.log(past.amount / population.amount),
        np.log1p(bought),
        np.log((past.highest + past.amount) / past.amount),
        np.log((past.refunds + 0.5) / (bought + 1.0)),
    )
    odds = logit(np.clip(p[snapshot, horizon], LEAST, 1.0 - LEAST))
    alive = past.alive(population)[snapshot]
    return Inputs(
        np.log(np.maximum(expected, LEAST) / -np.expm1(-np.maximum(expected, LEAST))),
        np.log(past.amount)[snapshot],
        [odds, np.log(days), *(one[snapshot] for one in of_customer), alive, *(one[snapshot] for one in trends)],
        [one[snapshot] for one in (*of_amounts, *means)],
    )
