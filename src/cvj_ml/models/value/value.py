"""What customers will buy: a hurdle of P(buys), how many purchases, and how much, with intervals; what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import YEAR
from cvj_ml.models.hazard.calibration import make_rising
from cvj_ml.models.hazard.fitting import LOW_EVIDENCE
from cvj_ml.models.value.mean import (
    MeanModel,
    MeanRows,
    expected_of,
    fit_mean,
    with_levels,
)
from cvj_ml.models.value.purchase_history import (
    ALIVE,
    LEAST,
    AverageBuyer,
    History,
    Inputs,
    PurchaseColumns,
    inputs_of,
)
from cvj_ml.models.value.spread import EXPONENTIAL, Spread, fit_spread
from cvj_ml.panel.panel import Panel
from cvj_ml.windows import NEVER, Instants, before, edges, observed_whole

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]

SHRINKAGE = 50.0
"""Buyers at a horizon at which its own level counts as much as that of the line."""

_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Values:
    """What customers are expected to buy within each horizon, all (customers, horizons), amounts in whole units.

    ``gross`` is the mean and ``low`` to ``high`` its 80 % interval, ``number`` that of purchases: at least P(buys).
    None of them falls with the horizon, nor do the ``refunds`` (None without any in the journey). What is left after
    refunds is ``gross - refunds``, which may fall.
    """

    gross: _F64
    low: _F64
    high: _F64
    number: _F64
    refunds: _F64 | None


@dataclass(frozen=True, slots=True)
class ValueModel:
    """The number of purchases, the amount, how it spreads, and what is given back (None where nobody does).

    ``ranks`` says whether lists by expected value are ranked by the amount: decided in a fold that a model of the same
    recipe had not seen.
    """

    population: AverageBuyer
    number: MeanModel
    gross: MeanModel
    spread: Spread
    refunds: MeanModel | None
    ranks: bool = False

    def predict(
        self, x: _F32, columns: PurchaseColumns, p: _F64, horizons: tuple[int, ...], level: _F64 | None = None
    ) -> Values:
        """Return what customers with these features will buy; ``p`` is P(buys), (customers, horizons).

        level: P(buys) at the level of a season, where it is another than the one that the amounts were learned at. The
        number of purchases and the amount follow it as the rate of purchases does, log(1 - level) / log(1 - p).
        """
        customer, horizon = (one.ravel() for one in np.indices(p.shape))
        told = inputs_of(x, columns, self.population, p, customer, horizon, horizons)
        if_buys, amount = self._if_buys(told, horizon)
        chance = p.ravel()
        if level is not None:
            more = np.maximum(_rate_if_buys(level.ravel()) / _rate_if_buys(chance), 1 / if_buys)
            if_buys, amount, chance, p = if_buys * more, amount * more, level.ravel(), level
        low, high = self.spread.interval(chance, amount, if_buys)
        refunds = None
        if self.refunds is not None:
            rows = _rows_of_refunds(told, horizon, chance, if_buys, amount)
            refunds = _rising(expected_of(self.refunds, rows), p)
        return Values(
            _rising(chance * amount, p), _rising(low, p), _rising(high, p), _rising(chance * if_buys, p), refunds
        )

    def below(
        self, x: _F32, columns: PurchaseColumns, p: _F64, horizons: tuple[int, ...], h: int, amount: _F64
    ) -> _F64:
        """Return P(a customer's gross amount within horizon number ``h`` is at most this)."""
        customer = np.arange(len(x))
        horizon = np.full(len(x), h)
        told = inputs_of(x, columns, self.population, p, customer, horizon, horizons)
        if_buys, expected = self._if_buys(told, horizon)
        return self.spread.below(p[:, h], expected, if_buys, amount)

    def _if_buys(self, told: Inputs, horizon: _I64) -> tuple[_F64, _F64]:
        """Return the number of purchases and the amount of who buys, for each row."""
        logs = told.number + self.number.logs(told.habits, horizon)
        number = np.exp(np.maximum(logs, 0.0))
        inputs = _inputs_of_amount(told, number)
        logs = np.log(number) + told.amount + self.gross.logs(inputs, horizon)
        return number, np.exp(logs)


def _rate_if_buys(p: _F64) -> _F64:
    """Return the rate of purchases that P(buys) stands for, over P(buys): 1 where hardly anybody buys."""
    some = np.clip(p, 1e-9, 1 - 1e-9)
    rate: _F64 = -np.log1p(-some) / some
    return rate


def fit_value(panel: Panel, p: _F64) -> ValueModel | None:
    """Fit the amounts of a panel whose journey has a ``value``; None where fewer than 30 customers bought for anything.

    ``p`` is P(buys within each horizon) of its snapshots. How buyers spread is learned on rows that start at or after
    the panel's ``inner_cut``, from a fit on what was over then. Levels are those of the
    outcomes of the last year.
    """
    data = _Data.of(panel, p)
    if data is None:
        return None
    everything = np.ones(len(data.later), dtype=np.bool_)
    means = _fit_means(data, everything)
    # Without later buyers, those whom the model has seen have to do.
    apart = data.enough(data.early) and data.enough(data.later)
    judged, seen = (_fit_means(data, data.early), data.later) if apart else (means, everything)
    buyers = seen & data.bought
    number, amount = ValueModel(data.population, judged.number, judged.gross, EXPONENTIAL, None)._if_buys(
        data.told, data.horizon
    )
    spread = fit_spread(
        data.gross[buyers], amount[buyers], number[buyers], data.customer[buyers], panel.definition.min_customers
    )
    return ValueModel(data.population, means.number, means.gross, spread, means.refunds)


def amount_if_bought(expected: _F64, chance: _F64) -> _F64:
    """Return what customers would buy for if they bought; NaN where they surely do not, or nothing is known."""
    found: _F64 = np.divide(expected, chance, out=np.full(len(chance), np.nan), where=chance > 0)
    return found


def median_time(p: _F64, horizons: tuple[int, ...]) -> Instants:
    """Return the time by which half of such customers have bought; NEVER where that lies beyond the last horizon.

    ``p`` is P(buys within each horizon), (customers, horizons). Inside an interval the hazard is even.
    """
    bounds = np.array(edges(horizons), dtype=np.float64)
    surviving = np.column_stack([np.ones(len(p)), np.clip(1.0 - p, 1e-12, 1.0)])
    beyond = surviving[:, -1] > 0.5
    last = np.argmax(surviving <= 0.5, axis=1)
    last[beyond] = len(horizons)
    rows = np.arange(len(p))
    at_start, at_end = surviving[rows, last - 1], surviving[rows, last]
    passed = np.log(at_start / 0.5) / np.log(at_start / np.where(beyond, at_start / 2, at_end))
    found = np.rint(bounds[last - 1] + passed * (bounds[last] - bounds[last - 1])).astype(np.int64)
    return np.where(beyond, NEVER, found)


@dataclass(frozen=True, slots=True)
class _Means:
    number: MeanModel
    gross: MeanModel
    refunds: MeanModel | None


@dataclass(frozen=True, slots=True)
class _Data:
    """Rows (snapshot, horizon) whose window was observed whole: inputs, what happened, and when it was over."""

    horizons: int
    population: AverageBuyer
    horizon: _I64
    customer: _I64
    told: Inputs
    p: _F64
    purchases: _F64
    gross: _F64
    refunds: _F64
    early: _Mask
    later: _Mask
    recent: _Mask

    @classmethod
    def of(cls, panel: Panel, p: _F64) -> _Data | None:
        """Return at most 100,000 rows of evenly spaced snapshots; None where too few customers bought for anything."""
        amounts, definition = panel.amounts, panel.definition
        if amounts is None:
            return None
        whole = amounts.whole.copy()
        whole[np.arange(len(whole)) % max(-(-int(whole.sum()) // _ROWS), 1) > 0] = False
        snapshot, horizon = np.nonzero(whole)
        customer = panel.customer[snapshot]
        spent = amounts.gross[snapshot, horizon] > 0
        if len(np.unique(customer[spent])) < max(LOW_EVIDENCE, definition.min_customers):
            return None
        columns = PurchaseColumns.of(definition)
        population = population_of(panel.x, columns)
        horizons = definition.horizons
        ends = panel.as_of[snapshot] + np.array(horizons)[horizon] + panel.arrival_delay
        unit = 10.0**definition.catalogue.value_decimals
        return cls(
            len(horizons),
            population,
            horizon,
            customer,
            inputs_of(panel.x, columns, population, p, snapshot, horizon, horizons),
            np.maximum(p[snapshot, horizon], LEAST),
            amounts.purchases[snapshot, horizon].astype(np.float64),
            amounts.gross[snapshot, horizon] / unit,
            amounts.refunds[snapshot, horizon] / unit,
            observed_whole(panel.inner_cut - ends, 0),
            ~before(panel.as_of[snapshot], panel.inner_cut),
            ~before(ends, panel.cut - YEAR),
        )

    @property
    def bought(self) -> _Mask:
        """Which rows have a purchase."""
        return self.purchases > 0

    def enough(self, part: _Mask) -> bool:
        """Return whether something can be learned from, or judged on, a part of the rows."""
        return len(np.unique(self.customer[part & (self.gross > 0)])) >= LOW_EVIDENCE


def population_of(x: _F32, columns: PurchaseColumns) -> AverageBuyer:
    """Return the rate and mean amount of all customers together."""
    one = AverageBuyer(1.0, 1.0)
    past = History.of(x, columns, one)
    repeats, days = np.maximum(past.purchases - 1.0, 0.0).sum(), past.tenure[past.purchases > 0].sum()
    spent = (past.amount * (1.0 + past.purchases) - one.amount).sum()
    return AverageBuyer(
        float(max(repeats, 1.0) / max(days, 1.0)), float(max(spent / max(past.purchases.sum(), 1.0), LEAST))
    )


def _fit_means(data: _Data, part: _Mask) -> _Means:
    """Fit number, amount and, where enough customers gave something back, refunds on a part of the rows."""
    told, chance = data.told, np.log(data.p)
    number = _fit_one(data, MeanRows(data.horizon, told.habits, chance + told.number, data.purchases), part)
    if_buys = np.exp(np.maximum(told.number + number.logs(told.habits, data.horizon), 0.0))
    start = chance + np.log(if_buys) + told.amount
    rows = MeanRows(data.horizon, _inputs_of_amount(told, if_buys), start, data.gross)
    gross, refunds = _fit_one(data, rows, part), None
    if len(np.unique(data.customer[part & (data.refunds > 0)])) >= LOW_EVIDENCE:
        amount = expected_of(gross, rows) / data.p
        back = _rows_of_refunds(told, data.horizon, data.p, if_buys, amount, data.refunds)
        refunds = _fit_one(data, back, part)
    return _Means(number, gross, refunds)


def _fit_one(data: _Data, rows: MeanRows, part: _Mask) -> MeanModel:
    model, recent = fit_mean(rows.take(part), data.horizons, (ALIVE,)), part & data.recent
    return with_levels(model, rows.take(recent), data.bought[recent], SHRINKAGE)


def _inputs_of_amount(told: Inputs, number: _F64) -> list[_F64]:
    return [*told.habits, *told.amounts, np.log(number)]


def _rows_of_refunds(
    told: Inputs, horizon: _I64, p: _F64, number: _F64, amount: _F64, y: _F64 | None = None
) -> MeanRows:
    """Return the rows of the refunds' model, which starts from the gross amount that is expected."""
    start = np.log(np.maximum(p, LEAST) * amount)
    nothing = np.zeros(len(start)) if y is None else y
    return MeanRows(horizon, _inputs_of_amount(told, number), start, nothing)


def _rising(values: _F64, like: _F64) -> _F64:
    """Return values of all rows as (customers, horizons) that do not fall with the horizon."""
    found: _F64 = make_rising(values.reshape(like.shape)[:, None, :])[:, 0]
    return found
