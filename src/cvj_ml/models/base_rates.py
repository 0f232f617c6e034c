"""Shrunk base rates of the hazard by stage and recency: all that rare targets get."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.panel import HazardRows

_EVENTS = 5.0
"""How many events the coarser rate is worth when it meets a finer one."""

_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BaseRates:
    """Hazards by (stage + 1, recency bin, target, interval), and by stage alone, without the bin.

    Bins end at ``cuts`` days; the last one has no recency.

    A cell's rate is (events + 5) / (rows + 5 / parent): from (target, interval) over stage to recency.
    """

    cuts: _F64
    by_stage: _F64
    rates: _F64

    def of_stage(
        self, stage: npt.NDArray[np.int8], target: npt.NDArray[np.int8], interval: npt.NDArray[np.int8]
    ) -> _F64:
        """Return the base hazard of each row by stage alone."""
        return self.by_stage[stage.astype(np.int64) + 1, target, interval]

    def bins(self, recency: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Return the recency bin of each snapshot."""
        binned = np.searchsorted(self.cuts, recency.astype(np.float64), side="right")
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


def fit_base_rates(
    rows: HazardRows, stage: npt.NDArray[np.int8], recency: npt.NDArray[np.floating], stages: int, intervals: int
) -> BaseRates:
    """Fit base rates on hazard rows; ``stage`` and ``recency`` are those of the snapshots."""
    known = recency[~np.isnan(recency)].astype(np.float64)
    cuts = np.unique(np.quantile(known, [0.2, 0.4, 0.6, 0.8])) if len(known) else np.zeros(0)
    shape = (stages + 1, len(cuts) + 2, stages + 1, intervals)
    empty = BaseRates(cuts, np.zeros(0), np.zeros(0))
    index = (
        stage[rows.snapshot].astype(np.int64) + 1,
        empty.bins(recency)[rows.snapshot],
        rows.target.astype(np.int64),
        rows.interval.astype(np.int64),
    )
    exposed, moved = np.zeros(shape), np.zeros(shape)
    np.add.at(exposed, index, 1.0)
    np.add.at(moved, index, rows.moved.astype(np.float64))
    overall = (moved.sum(axis=(0, 1)) + 0.5) / (exposed.sum(axis=(0, 1)) + 1.0)
    by_stage = (moved.sum(axis=1) + _EVENTS) / (exposed.sum(axis=1) + _EVENTS / overall)
    rates = (moved + _EVENTS) / (exposed + _EVENTS / by_stage[:, None])
    return BaseRates(cuts, by_stage, rates)
