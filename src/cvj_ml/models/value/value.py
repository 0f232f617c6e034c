"""What customers will buy: a hurdle of P(buys), how many purchases, and how much, with intervals; what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.models.hazard.calibration import make_rising
from cvj_ml.models.value.mean import (
    MeanModel,
    MeanRows,
    Sample,
    deviance,
    expected_of,
    fit_mean,
    with_levels,
)
from cvj_ml.models.value.purchase_history import (
    ALIVE,
    LEAST,
    Columns,
    History,
    Inputs,
    Population,
    inputs_of,
)
from cvj_ml.models.value.spread import EXPONENTIAL, Spread, fit_spread
from cvj_ml.panel.panel import Panel
from cvj_ml.windows import NEVER, Instants, before, edges, observed_whole

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]

LOW_EVIDENCE = 30
"""Customers who must have bought for something after a snapshot before amounts are learned."""

SHRINKAGE = 50.0
"""Buyers at a horizon at which its own level counts as much as that of line and trees."""

_ROWS = 100_000
_YEAR = 365 * DAY


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

    population: Population
    number: MeanModel
    gross: MeanModel
    spread: Spread
    refunds: MeanModel | None
    ranks: bool = False

    def predict(self, x: _F32, columns: Columns, p: _F64, horizons: tuple[int, ...]) -> Values:
        """Return what customers with these features will buy; ``p`` is P(buys), (customers, horizons)."""
        customer, horizon = (one.ravel() for one in np.indices(p.shape))
        told = inputs_of(x, columns, self.population, p, customer, horizon, horizons)
        if_buys, amount = self._if_buys(x, told, customer, horizon)
        chance = p.ravel()
        low, high = self.spread.interval(chance, amount, if_buys)
        refunds = None
        if self.refunds is not None:
            rows = _rows_of_refunds(told, customer, horizon, chance, if_buys, amount)
            refunds = _rising(expected_of(self.refunds, rows, x), p)
        return Values(
            _rising(chance * amount, p), _rising(low, p), _rising(high, p), _rising(chance * if_buys, p), refunds
        )

    def below(self, x: _F32, columns: Columns, p: _F64, horizons: tuple[int, ...], h: int, amount: _F64) -> _F64:
        """Return P(a customer's gross amount within horizon number ``h`` is at most this)."""
        customer = np.arange(len(x))
        horizon = np.full(len(x), h)
        told = inputs_of(x, columns, self.population, p, customer, horizon, horizons)
        if_buys, expected = self._if_buys(x, told, customer, horizon)
        return self.spread.below(p[:, h], expected, if_buys, amount)

    def unlike_lightgbm(self, x: _F32) -> int:
        """Return how many rows the compiled trees score otherwise than LightGBM, at every horizon."""
        means = [one for one in (self.number, self.gross, self.refunds) if one is not None]
        return sum(one.unlike_lightgbm(x, len(one.level)) for one in means)

    def _if_buys(self, x: _F32, told: Inputs, snapshot: _I64, horizon: _I64) -> tuple[_F64, _F64]:
        """Return the number of purchases and the amount of who buys, for each row."""
        logs = told.number + self.number.logs(x, told.habits, snapshot, horizon)
        number = np.exp(np.maximum(logs, 0.0))
        inputs = _inputs_of_amount(told, number)
        logs = np.log(number) + told.amount + self.gross.logs(x, inputs, snapshot, horizon)
        return number, np.exp(logs)


def fit_value(panel: Panel, p: _F64, seed: int, threads: int) -> ValueModel | None:
    """Fit the amounts of a panel whose journey has a ``value``; None where fewer than 30 customers paid.

    ``p`` is P(buys within each horizon) of its snapshots. Whether trees help the line is decided on rows that start at
    or after C' = cut - max(90 days, a quarter of the outcome span), by models of what was over then; so is how buyers
    spread. Levels are those of the outcomes of the last year.
    """
    data = _Data.of(panel, p, seed, threads)
    if data is None:
        return None
    later, of_early, trees = data.later, None, _NO_TREES
    if data.enough(data.early) and data.enough(later):
        of_early, trees = _fit_means(data, data.early, later)
    means, _ = _fit_means(data, np.ones(len(later), dtype=np.bool_), None, trees)
    # Without later buyers, those whom the model has seen have to do.
    judged, seen = (of_early, later) if of_early else (means, np.ones(len(later), dtype=np.bool_))
    buyers = seen & data.bought
    plain = ValueModel(data.population, judged.number, judged.gross, EXPONENTIAL, None)
    number, amount = plain._if_buys(panel.x, data.told, data.snapshot, data.horizon)
    spread = fit_spread(
        data.gross[buyers], amount[buyers], number[buyers], data.customer[buyers], panel.definition.min_customers
    )
    return ValueModel(data.population, means.number, means.gross, spread, means.refunds)


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


_NO_TREES = (False, False)
"""Whether gross amount and refunds have trees; the number of purchases has none (docs/decisions/0042-amounts.md)."""


@dataclass(frozen=True, slots=True)
class _Data:
    """Rows (snapshot, horizon) whose window was observed whole: inputs, what happened, and when it was over."""

    panel: Panel
    population: Population
    snapshot: _I64
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
    sample: Sample

    @classmethod
    def of(cls, panel: Panel, p: _F64, seed: int, threads: int) -> _Data | None:
        """Return at most 100,000 rows of evenly spaced snapshots; None where too few customers bought."""
        amounts, definition = panel.amounts, panel.definition
        if amounts is None:
            return None
        whole = amounts.whole.copy()
        whole[np.arange(len(whole)) % max(-(-int(whole.sum()) // _ROWS), 1) > 0] = False
        snapshot, horizon = np.nonzero(whole)
        customer = panel.customer[snapshot]
        paid = amounts.gross[snapshot, horizon] > 0  # purchases may be without a value, all of them, too
        if len(np.unique(customer[paid])) < max(LOW_EVIDENCE, definition.min_customers):
            return None
        columns = Columns.of(definition)
        population = population_of(panel.x, columns)
        horizons = definition.horizons
        ends = panel.as_of[snapshot] + np.array(horizons)[horizon] + panel.arrival_delay
        inner_cut = panel.cut - max(90 * DAY, (panel.cut - int(panel.as_of.min())) // 4)
        unit = 10.0**definition.catalogue.value_decimals
        return cls(
            panel,
            population,
            snapshot,
            horizon,
            customer,
            inputs_of(panel.x, columns, population, p, snapshot, horizon, horizons),
            np.maximum(p[snapshot, horizon], LEAST),
            amounts.purchases[snapshot, horizon].astype(np.float64),
            amounts.gross[snapshot, horizon] / unit,
            amounts.refunds[snapshot, horizon] / unit,
            observed_whole(inner_cut - ends, 0),
            ~before(panel.as_of[snapshot], inner_cut),
            ~before(ends, panel.cut - _YEAR),
            Sample(panel.x, panel.customer, definition.min_customers, tuple(definition.catalogue.names), seed, threads),
        )

    @property
    def bought(self) -> _Mask:
        """Which rows have a purchase."""
        return self.purchases > 0

    def enough(self, part: _Mask) -> bool:
        """Return whether something can be learned from, or judged on, a part of the rows."""
        return len(np.unique(self.customer[part & self.bought])) >= LOW_EVIDENCE and float(self.gross[part].sum()) > 0


def population_of(x: _F32, columns: Columns) -> Population:
    """Return the rate and mean amount of all customers together."""
    one = Population(1.0, 1.0)
    past = History.of(x, columns, one)
    repeats, days = np.maximum(past.purchases - 1.0, 0.0).sum(), past.tenure[past.purchases > 0].sum()
    spent = (past.amount * (1.0 + past.purchases) - one.amount).sum()
    return Population(
        float(max(repeats, 1.0) / max(days, 1.0)), float(max(spent / max(past.purchases.sum(), 1.0), LEAST))
    )


def _fit_means(
    data: _Data, part: _Mask, judged: _Mask | None, trees: tuple[bool, bool] = _NO_TREES
) -> tuple[_Means, tuple[bool, bool]]:
    """Fit number, amount and refunds on a part of the rows; where others judge, they decide who has trees."""
    told, x, chance = data.told, data.panel.x, np.log(data.p)
    rows = MeanRows(data.snapshot, data.horizon, told.habits, chance + told.number, data.purchases)
    number, _ = _fit_one(data, rows, part, None, trees=False)
    if_buys = np.exp(np.maximum(told.number + number.logs(x, told.habits, data.snapshot, data.horizon), 0.0))
    start = chance + np.log(if_buys) + told.amount
    rows = MeanRows(data.snapshot, data.horizon, _inputs_of_amount(told, if_buys), start, data.gross)
    gross, of_gross = _fit_one(data, rows, part, judged, trees[0])
    refunds, of_refunds = None, False
    if len(np.unique(data.customer[part & (data.refunds > 0)])) >= LOW_EVIDENCE:
        amount = expected_of(gross, rows, x) / data.p
        again = _rows_of_refunds(told, data.snapshot, data.horizon, data.p, if_buys, amount, data.refunds)
        refunds, of_refunds = _fit_one(data, again, part, judged, trees[1])
    return _Means(number, gross, refunds), (of_gross, of_refunds)


def _fit_one(data: _Data, rows: MeanRows, part: _Mask, judged: _Mask | None, trees: bool) -> tuple[MeanModel, bool]:
    """Fit one mean, with trees where asked for, or where those who judge are better off by both measures.

    Poisson's deviance weighs everybody, the squared error those who spend most: trees that are right of most customers
    can be far off for these.
    """
    horizons, x = len(data.panel.definition.horizons), data.panel.x
    taught = rows.take(part)
    model = fit_mean(taught, horizons, (ALIVE,), data.sample if trees else None)
    if judged is not None:
        grown, held = fit_mean(taught, horizons, (ALIVE,), data.sample), rows.take(judged)
        with_trees, without = expected_of(grown, held, x), expected_of(model, held, x)
        trees = bool(
            deviance(held.y, with_trees).mean() < deviance(held.y, without).mean()
            and ((held.y - with_trees) ** 2).mean() < ((held.y - without) ** 2).mean()
        )
        return (grown if trees else model), trees
    recent = part & data.recent
    return with_levels(model, rows.take(recent), x, data.bought[recent], SHRINKAGE), trees


def _inputs_of_amount(told: Inputs, number: _F64) -> list[_F64]:
    return [*told.habits, *told.amounts, np.log(number)]


def _rows_of_refunds(
    told: Inputs, snapshot: _I64, horizon: _I64, p: _F64, number: _F64, amount: _F64, y: _F64 | None = None
) -> MeanRows:
    """Return the rows of the refunds' model, which starts from the gross amount that is expected."""
    start = np.log(np.maximum(p, LEAST) * amount)
    nothing = np.zeros(len(start)) if y is None else y
    return MeanRows(snapshot, horizon, _inputs_of_amount(told, number), start, nothing)


def _rising(values: _F64, like: _F64) -> _F64:
    """Return values of all rows as (customers, horizons) that do not fall with the horizon."""
    found: _F64 = make_rising(values.reshape(like.shape)[:, None, :])[:, 0]
    return found
