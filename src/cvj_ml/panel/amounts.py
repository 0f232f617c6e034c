"""What customers bought after each snapshot, and gave back: sums and counts by horizon, as known at the cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY, ValueSpec
from cvj_ml.histories import TouchpointColumns
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import Instants, follow_up, is_ahead_within, is_live, observed_whole, rows_before

_I64 = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]

_PURCHASE, _REFUND = 1, 2
_KINDS = ("value", "refunds", "purchases")


@dataclass(frozen=True, slots=True)
class Amounts:
    """What was bought in ``[as_of, as_of + h)``, on the clock of occurrence; each (snapshots, horizons).

    ``gross`` and ``refunds`` are in minor units and never negative, so each grows with the horizon; ``purchases``
    counts touchpoints, also those without a value. Where a window is not ``whole`` at the cut, the numbers are what
    has been seen so far, and no labels.
    """

    gross: _I64
    refunds: _I64
    purchases: _I64
    whole: _Mask

    @classmethod
    def joined(
        cls, parts: Sequence[Amounts], gather: Callable[[Sequence[npt.NDArray[Any]]], npt.NDArray[Any]]
    ) -> Amounts | None:
        """Return the amounts of several blocks as one, in the order that ``gather`` gives rows; None for none."""
        if not parts:
            return None
        return cls(*(gather([getattr(one, name) for one in parts]) for name in cls.__slots__))

    def by_horizon(self, horizons: Sequence[int], minor_units: int) -> dict[str, npt.NDArray[np.float64]]:
        """Return `amount_columns`, amounts in whole units, NaN where a window was not observed whole."""
        tables = (self.gross / minor_units, self.refunds / minor_units, self.purchases.astype(np.float64))
        columns = [np.where(self.whole, one, np.nan)[:, h] for one in tables for h in range(len(horizons))]
        return dict(zip(amount_columns(horizons), columns, strict=True))

    @classmethod
    def of_horizons(cls, frame: pd.DataFrame, horizons: Sequence[int], minor_units: int) -> Amounts:
        """Return the amounts of `by_horizon`; what was seen so far of an unfinished window is not in them."""
        table = frame[amount_columns(horizons)].to_numpy(np.float64)
        gross, refunds, purchases = np.split(table, len(_KINDS), axis=1)
        whole = ~np.isnan(gross)

        def numbers(values: npt.NDArray[np.float64], unit: int) -> _I64:
            return np.rint(np.nan_to_num(values) * unit).astype(np.int64)

        return cls(numbers(gross, minor_units), numbers(refunds, minor_units), numbers(purchases, 1), whole)


def amount_columns(horizons: Sequence[int]) -> list[str]:
    """Return how a panel's frame calls amounts, refunds and numbers of purchases within each horizon."""
    return [f"{kind}_{horizon // DAY}d" for kind in _KINDS for horizon in horizons]


def future_amounts(
    points: TouchpointColumns,
    value: ValueSpec,
    snapshots: Snapshots,
    horizons: tuple[int, ...],
    cut: int,
    arrival_delay: int,
) -> Amounts:
    """Add up what each snapshot's customer bought and gave back within each (ascending) horizon, by what a cut shows.

    A purchase is a customer's own doing, as the outcome of that name has it. A negative value of one was given back; a
    refund counts by its size, whichever sign a shop writes it with.
    """
    kind = np.where(points.inbound & points.event.isin(frozenset(value.events)), _PURCHASE, 0).astype(np.int8)
    kind[points.event.isin(frozenset(value.refunds))] = _REFUND
    amount = np.where(points.has_value, points.value, 0)
    shape = (len(snapshots), len(horizons))
    gross, returned, purchases = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    _add_up(
        points.offsets,
        points.occurred_at,
        points.visible_at,
        points.superseded_at,
        kind,
        amount,
        snapshots.customer,
        snapshots.as_of,
        np.array(horizons, dtype=np.int64),
        cut,
        gross,
        returned,
        purchases,
    )
    complete = follow_up(snapshots.as_of, cut, arrival_delay)
    whole = np.stack([observed_whole(complete, horizon) for horizon in horizons], axis=1)
    return Amounts(gross, returned, purchases, whole)


@compiled
def _add_up(
    offsets: _I64,
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    kind: npt.NDArray[np.int8],
    value: _I64,
    customer: _I64,
    as_of: Instants,
    horizons: _I64,
    cut: int,
    gross: _I64,
    refunds: _I64,
    purchases: _I64,
) -> None:
    """Add each row to the first horizon that it lies within, then every horizon to the longer ones."""
    for i in range(len(customer)):
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        row, h = rows_before(occurred_at, start, stop, as_of[i]), 0
        while row < stop:
            while h < len(horizons) and not is_ahead_within(occurred_at[row], as_of[i], horizons[h]):
                h += 1
            if h == len(horizons):
                break
            if kind[row] != 0 and is_live(visible_at[row], superseded_at[row], cut):
                if kind[row] == _PURCHASE:
                    purchases[i, h] += 1
                if kind[row] == _REFUND or value[row] < 0:
                    refunds[i, h] += abs(value[row])
                else:
                    gross[i, h] += value[row]
            row += 1
        for later in range(1, len(horizons)):
            gross[i, later] += gross[i, later - 1]
            refunds[i, later] += refunds[i, later - 1]
            purchases[i, later] += purchases[i, later - 1]
