"""Shrunk base rates of the hazard by stage and recency: all that rare targets get, and stages that nobody lived in.

A rate of a stage and interval is *known* where enough customers of the stage were at risk in the whole of it. Where
they were not (a batch has just moved everybody there), no other stage's customers can tell how the new ones will
behave. The stage's own rate of its known intervals goes on, with the shape over time that everybody has; without a
known interval it is everybody's rate, and nobody knows how far from it the stage is.
docs/decisions/0028-evidence-by-stage.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.models.hazard.binning import quantile_edges
from cvj_ml.panel.panel import HazardRows

_EVENTS = 5.0
"""How many events the coarser rate is worth when it meets a finer one."""

_Z95 = 1.959963984540054

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BaseRates:
    """Hazards by (stage + 1, recency bin, target, interval), and by stage alone, without the bin.

    Bins end with ``cuts`` days; the last one has no recency. ``known`` is (stages + 1, targets, intervals): whether
    enough customers were at risk for the whole interval. ``spread`` is (stages + 1, targets): the hazard of what is not
    known lies between its rate divided by it and times it; infinite where nothing is known of the stage.

    A known cell's rate is (events + 5) / (rows + 5 / parent): from (target, interval) over stage to recency. A bin
    with too few customers has the stage's rate. An interval that is not known has the overall rate times
    (events + 5) / (expected + 5) of the stage's known intervals.
    """

    cuts: _F64
    by_stage: _F64
    rates: _F64
    known: _Mask
    spread: _F64

    def of_stage(
        self, stage: npt.NDArray[np.int8], target: npt.NDArray[np.int8], interval: npt.NDArray[np.int8]
    ) -> _F64:
        """Return the base hazard of each row by stage alone."""
        return self.by_stage[stage.astype(np.int64) + 1, target, interval]

    def is_known(self, stage: npt.NDArray[np.int8], rows: HazardRows) -> _Mask:
        """Return of each row whether enough customers of its stage have lived through its interval."""
        found: _Mask = self.known[stage[rows.snapshot].astype(np.int64) + 1, rows.target, rows.interval]
        return found

    def bins(self, recency: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Return the recency bin of each snapshot."""
        binned = np.searchsorted(self.cuts, recency.astype(np.float64), side="left")
        return np.where(np.isnan(recency), len(self.cuts) + 1, binned)

    def hazards(
        self,
        stage: npt.NDArray[np.int8],
        recency: npt.NDArray[np.floating],
        target: npt.NDArray[np.int8],
        interval: npt.NDArray[np.int8],
    ) -> _F64:
        """Return the base hazard of each row."""
        return self.rates[stage.astype(np.int64) + 1, self.bins(recency), target, interval]

    def bounds(self, stage: int, target: int, intervals: int) -> tuple[float, float, float]:
        """Return P(T <= end of so many intervals) by the stage's rates, and what bounds it where they are not known.

        Known intervals count as they are, those of the others by ``spread``.
        """
        hazard, known = self.by_stage[stage + 1, target, :intervals], self.known[stage + 1, target, :intervals]
        spread = self.spread[stage + 1, target]
        factors = 1.0, 1 / spread, spread
        p = [1 - np.prod(1 - np.minimum(np.where(known, 1.0, factor) * hazard, 1.0)) for factor in factors]
        return float(p[0]), float(p[1]), float(p[2])


def fit_base_rates(
    rows: HazardRows,
    customer: npt.NDArray[np.int64],
    stage: npt.NDArray[np.int8],
    recency: npt.NDArray[np.floating],
    stages: int,
    intervals: int,
    fewest: int,
) -> BaseRates:
    """Fit base rates on hazard rows; ``customer``, ``stage`` and ``recency`` are those of the snapshots.

    fewest: distinct customers from which on a cell has a rate of its own.
    """
    cuts = quantile_edges(recency, customer, [0.2, 0.4, 0.6, 0.8], fewest)
    shape = (stages + 1, len(cuts) + 2, stages + 1, intervals)
    of_snapshot = stage.astype(np.int64) + 1
    binned = np.where(np.isnan(recency), len(cuts) + 1, np.searchsorted(cuts, recency.astype(np.float64)))
    exposed, converted, there = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64)
    in_stage, converters = (np.zeros(shape[:1] + shape[2:], dtype=np.int64) for _ in range(2))
    order = np.argsort(customer[rows.snapshot], kind="stable")
    _count(
        customer, of_snapshot, binned, rows.snapshot, rows.target, rows.interval, rows.converted, order,
        exposed, converted, there, in_stage, converters,
    )  # fmt: skip
    overall = (converted.sum(axis=(0, 1)) + 0.5) / (exposed.sum(axis=(0, 1)) + 1.0)
    own_exposed, own_moved = exposed.sum(axis=1), converted.sum(axis=1)
    known = in_stage >= fewest
    expected = np.where(known, own_exposed * overall, 0.0).sum(axis=2, keepdims=True)
    ratio = (np.where(known, own_moved, 0.0).sum(axis=2, keepdims=True) + _EVENTS) / (expected + _EVENTS)
    by_stage = np.where(
        known, (own_moved + _EVENTS) / (own_exposed + _EVENTS / overall), np.minimum(ratio * overall, 0.99)
    )
    own = (converted + _EVENTS) / (exposed + _EVENTS / by_stage[:, None])
    rates = np.where((there >= fewest) & known[:, None], own, by_stage[:, None])
    # The interval of a shrunk Poisson rate, by the customers who moved.
    spread = np.exp(_Z95 / np.sqrt(np.where(known, converters, 0).max(axis=2) + _EVENTS))
    return BaseRates(cuts, by_stage, rates, known, np.where(known.any(axis=2), spread, np.inf))


@compiled
def _count(
    customer: npt.NDArray[np.int64],
    stage: npt.NDArray[np.int64],
    binned: npt.NDArray[np.int64],
    snapshot: npt.NDArray[np.int64],
    target: npt.NDArray[np.int8],
    interval: npt.NDArray[np.int8],
    moves: _Mask,
    order: npt.NDArray[np.int64],
    exposed: _F64,
    converted: _F64,
    there: npt.NDArray[np.int64],
    in_stage: npt.NDArray[np.int64],
    converters: npt.NDArray[np.int64],
) -> None:
    """Add up rows and moves of each cell, and its distinct customers; ``order`` brings a customer's rows together."""
    last_there = np.full(there.shape, -1, dtype=np.int64)
    last_in_stage = np.full(in_stage.shape, -1, dtype=np.int64)
    last_mover = np.full(converters.shape, -1, dtype=np.int64)
    for row in order:
        i = snapshot[row]
        who, s, b, j, m = customer[i], stage[i], binned[i], target[row], interval[row]
        exposed[s, b, j, m] += 1.0
        if last_there[s, b, j, m] != who:
            last_there[s, b, j, m] = who
            there[s, b, j, m] += 1
        if last_in_stage[s, j, m] != who:
            last_in_stage[s, j, m] = who
            in_stage[s, j, m] += 1
        if moves[row]:
            converted[s, b, j, m] += 1.0
            if last_mover[s, j, m] != who:
                last_mover[s, j, m] = who
                converters[s, j, m] += 1
