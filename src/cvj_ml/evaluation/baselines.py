"""Three plain predictions that stand beside every model: stage, stage with recency, and a logistic regression.

Pure functions of arrays. n snapshots, J targets, H horizons: target 0 is ``return``, target j the stage with
index j - 1, so it lies ahead of a stage s where j - 1 > s. Train on snapshots whose outcome is known (matured).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cvj_ml.errors import DataError, raise_all

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MINIMUM_CONVERTED = 10
"""Distinct customers who must have moved before a regression is fitted."""

PRIOR_MOVED = 10.0
"""Expected number of moved customers at which a recency bin counts as much as its whole stage."""


@dataclass(frozen=True, slots=True)
class RFM:
    """What the baselines know of n snapshots: stage, recency, frequency and value, each of shape (n,).

    stage: index of the observed stage, -1 before any; recency_days: days since the last touchpoint that counts, NaN
    where there was none; frequency: number of them; value: their sum, negative where returns prevail.
    """

    stage: npt.NDArray[np.int8]
    recency_days: Floats
    frequency: Floats
    value: Floats

    def __post_init__(self) -> None:
        """Raise DataError where the arrays do not fit together."""
        faults = [
            f"{name} has the shape {values.shape}; it must be {(len(self.stage),)} like stage"
            for name, values in (
                ("recency_days", self.recency_days),
                ("frequency", self.frequency),
                ("value", self.value),
            )
            if values.shape != (len(self.stage),)
        ]
        for name, values in (("frequency", self.frequency), ("value", self.value)):
            if missing := int((~np.isfinite(values)).sum()):
                faults.append(f"{name} is missing in {missing} row(s); a customer without touchpoints has 0")
        for name, values in (("recency_days", self.recency_days), ("frequency", self.frequency)):
            if negative := int((values < 0).sum()):
                faults.append(f"{name} is negative in {negative} row(s)")
        raise_all(DataError, "The baselines cannot use these snapshots:", faults)

    def __len__(self) -> int:
        return len(self.stage)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Snapshots with what became of them.

    customers: (n,) integer codes, since evidence is counted in customers; moved: (n, J, H) whether target j was
    reached within horizon h; known: (n, J, H) whether that can be said (matured); moved is ignored where unknown.
    """

    rfm: RFM
    customers: npt.NDArray[np.int64]
    converted: Flags
    known: Flags

    def __post_init__(self) -> None:
        """Raise DataError where the arrays do not fit together."""
        n, faults = len(self.rfm), []
        if self.customers.shape != (n,):
            faults.append(f"customers has the shape {self.customers.shape}; it must be {(n,)}")
        if self.converted.ndim != 3 or len(self.converted) != n:
            faults.append(f"moved has the shape {self.converted.shape}; it must be ({n}, targets, horizons)")
        if self.known.shape != self.converted.shape:
            faults.append(f"known has the shape {self.known.shape}; it must be {self.converted.shape} like moved")
        if not faults and n and self.rfm.stage.max() > self.converted.shape[1] - 2:
            faults.append(
                f"the highest stage has the index {self.rfm.stage.max()}, but {self.converted.shape[1]} targets"
                f" (return and one a stage) leave room up to {self.converted.shape[1] - 2}"
            )
        if n and self.rfm.stage.min() < -1:
            faults.append(f"the lowest stage has the index {self.rfm.stage.min()}; before any stage it is -1")
        raise_all(DataError, "The baselines cannot use these outcomes:", faults)


class Baseline(Protocol):
    """A prediction that any model should beat."""

    name: ClassVar[str]

    def fit(self, history: Outcomes) -> Self:
        """Learn from matured snapshots and return itself."""

    def predict(self, rfm: RFM) -> Floats:
        """Return probabilities (n, J, H); NaN where the target is not ahead or its outcome was never known."""


def ahead(stage: npt.NDArray[np.int8], targets: int) -> Flags:
    """Return (n, J): whether each target lies ahead of the stage; return always does."""
    target = np.arange(targets) - 1
    lies_ahead: Flags = (target > stage[:, None]) | (target == -1)
    return lies_ahead


class StageRate:
    """The share of the stage's training snapshots that moved.

    A stage never seen before gets the rate over all stages that have the target ahead.
    """

    name: ClassVar[str] = "stage"

    def fit(self, history: Outcomes) -> Self:
        """Learn the rates, shape (stages + 1, J, H): before any stage comes first."""
        known = _usable(history)
        cells = known.shape[1]  # one target a stage and one for return: as many as stages and "before any stage"
        cell = history.rfm.stage.astype(np.int64) + 1
        rows, converted = _sums(cell, cells, known), _sums(cell, cells, history.converted & known)
        pooled = _share(converted.sum(axis=0), rows.sum(axis=0))
        self.rates = np.where(rows > 0, _share(converted, rows), pooled)
        return self

    def predict(self, rfm: RFM) -> Floats:
        """Return probabilities (n, J, H)."""
        return _masked(self.rates[rfm.stage.astype(np.int64) + 1], rfm)


class StageRecency:
    """The stage's rate within a bin of recency, shrunk to the rate of the stage.

    Bins are deciles of the training snapshots' recency, and one for customers without any. A bin in which e
    customers would move at the stage's rate has the weight e / (e + PRIOR_MOVED).
    """

    name: ClassVar[str] = "stage and recency"

    def fit(self, history: Outcomes) -> Self:
        """Learn the bins and the shrunk rates, shape (stages + 1, bins, J, H)."""
        known = _usable(history)
        recency = history.rfm.recency_days
        finite = recency[np.isfinite(recency)]
        # Observed values as inner edges, each once: equal recencies always share a bin.
        self.edges = np.unique(np.quantile(finite, np.arange(1, 10) / 10, method="lower")) if len(finite) else finite
        bins = len(self.edges) + 2
        self.stage = StageRate().fit(history)
        stages, targets, horizons = self.stage.rates.shape
        cell = (history.rfm.stage.astype(np.int64) + 1) * bins + self._bin(recency)
        rows, converted = _sums(cell, stages * bins, known), _sums(cell, stages * bins, history.converted & known)
        customers = _distinct(history.customers, cell, stages * bins, known)
        stage_rate = np.repeat(self.stage.rates, bins, axis=0)
        expected = customers * np.nan_to_num(stage_rate)
        weight = expected / (expected + PRIOR_MOVED)
        rate = np.where(rows > 0, _share(converted, rows), stage_rate)
        self.rates = (weight * rate + (1 - weight) * stage_rate).reshape(stages, bins, targets, horizons)
        return self

    def predict(self, rfm: RFM) -> Floats:
        """Return probabilities (n, J, H)."""
        return _masked(self.rates[rfm.stage.astype(np.int64) + 1, self._bin(rfm.recency_days)], rfm)

    def _bin(self, recency: Floats) -> npt.NDArray[np.int64]:
        inside = np.searchsorted(self.edges, recency, side="left")
        return np.where(np.isfinite(recency), inside, len(self.edges) + 1).astype(np.int64)


class LogisticRFM:
    """A logistic regression of each (stage, target, horizon) on the logarithms of recency, frequency and value.

    The stage's rate stands in where fewer than MINIMUM_MOVED customers moved, or every snapshot did.
    """

    name: ClassVar[str] = "logistic RFM"

    def fit(self, history: Outcomes) -> Self:
        """Fit one regression for each cell with evidence."""
        known = _usable(history)
        self.stage = StageRate().fit(history)
        recency = history.rfm.recency_days
        self.longest = float(np.max(recency, initial=0.0, where=np.isfinite(recency)))
        self.models: dict[tuple[int, int, int], Pipeline] = {}
        inputs = self._inputs(history.rfm)
        for stage in np.unique(history.rfm.stage):
            here = np.flatnonzero(history.rfm.stage == stage)
            for target, horizon in np.argwhere(known[here].any(axis=0)):
                rows = here[known[here, target, horizon]]
                converted = history.converted[rows, target, horizon]
                if converted.all() or len(np.unique(history.customers[rows[converted]])) < MINIMUM_CONVERTED:
                    continue
                # Newton with the Hessian: three inputs and many rows.
                model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
                self.models[int(stage), int(target), int(horizon)] = model.fit(inputs[rows], converted)
        return self

    def predict(self, rfm: RFM) -> Floats:
        """Return probabilities (n, J, H)."""
        predicted = self.stage.predict(rfm)
        inputs = self._inputs(rfm)
        for (stage, target, horizon), model in self.models.items():
            here = rfm.stage == stage
            if here.any():
                predicted[here, target, horizon] = model.predict_proba(inputs[here])[:, 1]
        return predicted

    def _inputs(self, rfm: RFM) -> Floats:
        # Customers without a touchpoint count as the longest silent ones seen in training.
        recency = np.where(np.isfinite(rfm.recency_days), rfm.recency_days, self.longest)
        value = np.sign(rfm.value) * np.log1p(np.abs(rfm.value))
        return np.column_stack([np.log1p(recency), np.log1p(rfm.frequency), value])


def baselines() -> tuple[Baseline, ...]:
    """Return the three baselines, unfitted, from the plainest to the strongest."""
    return StageRate(), StageRecency(), LogisticRFM()


def _usable(history: Outcomes) -> Flags:
    """Return (n, J, H): outcomes that are known and whose target lies ahead."""
    return history.known & ahead(history.rfm.stage, history.known.shape[1])[:, :, None]


def _masked(rates: Floats, rfm: RFM) -> Floats:
    return np.where(ahead(rfm.stage, rates.shape[1])[:, :, None], rates, np.nan)


def _share(part: Floats, whole: Floats) -> Floats:
    """Return (part + 1/2) / (whole + 1), NaN where there is nothing: a baseline that never says never."""
    share = np.full(part.shape, np.nan)
    np.divide(part + 0.5, whole + 1.0, out=share, where=whole > 0)
    return share


def _sums(cell: npt.NDArray[np.int64], cells: int, flags: Flags) -> Floats:
    """Return (cells, J, H): how many rows of each cell carry the flag."""
    sums = np.empty((cells, *flags.shape[1:]))
    for target, horizon in np.ndindex(*flags.shape[1:]):
        sums[:, target, horizon] = np.bincount(cell[flags[:, target, horizon]], minlength=cells)
    return sums


def _distinct(customers: npt.NDArray[np.int64], cell: npt.NDArray[np.int64], cells: int, flags: Flags) -> Floats:
    """Return (cells, J, H): how many customers of each cell have a row that carries the flag."""
    if len(cell) == 0:
        return np.zeros((cells, *flags.shape[1:]))
    order = np.lexsort((customers, cell))
    owner, place = customers[order], cell[order]
    starts = np.flatnonzero(np.r_[True, (owner[1:] != owner[:-1]) | (place[1:] != place[:-1])])
    return _sums(place[starts], cells, np.logical_or.reduceat(flags[order], starts, axis=0))
