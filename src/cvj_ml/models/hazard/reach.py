"""The reach model: one LightGBM of the discrete-time hazard over targets and intervals.

A row is (snapshot, target, interval); the label is whether the event falls into the interval given that it has not
happened before (Allison 1982; Tutz and Schmid 2016, *Modeling Discrete Time-to-Event Data*). Target and interval are
inputs, so rare transitions borrow strength and every horizon comes from one fit. Trees and a ridge regression learn the
difference from a linear hazard, which enters as an offset; what they add is mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import expit, logit
from sklearn.base import clone

from cvj_ml.errors import ModelError
from cvj_ml.models.hazard.base_rates import BaseRates
from cvj_ml.models.hazard.calendar_effect import CalendarEffect
from cvj_ml.models.hazard.calibration import Calibration, cumulate, make_coherent
from cvj_ml.models.hazard.forest import Forest, parse
from cvj_ml.models.hazard.linear import Columns, LinearHazard
from cvj_ml.models.hazard.ridge import RIDGE_SHARE, RidgeHazard, head_of
from cvj_ml.panel.panel import HazardRows, Panel
from cvj_ml.windows import Instants

_F64 = npt.NDArray[np.float64]

EXTRA_COLUMNS = ("fulfilled", "remaining", "target", "steps_ahead", "interval")
_CHUNK = 100_000
_LEAST = 1e-9
"""No hazard is surely 0 or 1, whatever a classifier says."""


@dataclass(frozen=True, slots=True)
class OwnEstimator:
    """A classifier with ``predict_proba`` that was fitted on hazard rows.

    ``columns`` are its inputs, by position in the model's and by name; what is missing in every row tells it nothing,
    and some classifiers do not take it.
    """

    classifier: Any
    columns: dict[str, int]

    @classmethod
    def fit(cls, classifier: Any, panel: Panel, rows: HazardRows) -> OwnEstimator:
        """Fit a copy of the classifier on hazard rows of a panel; its inputs are a DataFrame."""
        inputs = stacked_x(panel.x, panel.stage, rows, panel.definition.progress_columns)
        known = np.isnan(inputs).sum(axis=0) < len(inputs)
        names = (*panel.definition.catalogue.names, *EXTRA_COLUMNS)
        own = cls(clone(classifier, safe=False), {name: i for i, name in enumerate(names) if known[i]})
        own.classifier.fit(own.frame(inputs), rows.converted.astype(np.int64))
        return own

    def frame(self, inputs: npt.NDArray[np.float32]) -> pd.DataFrame:
        """Return the model's inputs as the classifier gets them."""
        return pd.DataFrame(inputs[:, list(self.columns.values())], columns=list(self.columns))

    def logits(self, inputs: npt.NDArray[np.float32]) -> _F64:
        """Return the logit of each row's hazard; ModelError where the classifier gives no probabilities."""
        p = np.asarray(self.classifier.predict_proba(self.frame(inputs)), dtype=np.float64)
        if p.shape != (len(inputs), 2) or not ((p >= 0) & (p <= 1)).all():
            raise ModelError(
                f"predict_proba of {type(self.classifier).__name__} gave an array of shape {p.shape} or numbers outside"
                f" of 0 to 1; two columns of probabilities for {len(inputs)} rows are needed."
            )
        found: _F64 = logit(np.clip(p[:, 1], _LEAST, 1 - _LEAST))
        return found


@dataclass(frozen=True, slots=True)
class Trees:
    """Fitted trees with what they start from; ``low`` marks targets that rest on base rates for everybody.

    What nobody in a stage has lived through rests on base rates, too, whatever the target (`learned`).
    ``calendar`` is added to the line, None where no kind of period has a past; trees with it are asked with ``as_of``.
    ``estimator`` is one of the user's own in the place of line, calendar, ridge and trees; no bundle holds it.

    ``ridge_share`` is the ridge's of what is added to the line, for the return and for reach; the rest is the trees'.
    ``forest`` is the booster once more, compiled; None where that cannot be, and LightGBM predicts.
    """

    booster: lgb.Booster | None
    linear: LinearHazard | None
    base: BaseRates
    low: npt.NDArray[np.bool_]
    columns: Columns
    ridge: RidgeHazard | None = None
    ridge_share: tuple[float, float] = RIDGE_SHARE
    estimator: OwnEstimator | None = None
    calendar: CalendarEffect | None = None
    forest: Forest | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "forest", parse(self.booster) if self.booster else None)

    def first(self, rounds: int) -> Trees:
        """Return these trees after fewer rounds."""
        if self.booster is None:
            return self
        text = self.booster.model_to_string(num_iteration=rounds)
        return replace(self, booster=lgb.Booster(model_str=text))

    def learned(self, stage: npt.NDArray[np.int8], rows: HazardRows) -> npt.NDArray[np.bool_]:
        """Return which rows' hazards come from line and trees; those of the others are base rates."""
        if self.estimator is None and (self.linear is None or self.booster is None):
            return np.zeros(len(rows), dtype=np.bool_)
        found: npt.NDArray[np.bool_] = ~self.low[rows.target] & self.base.is_known(stage, rows)
        return found

    def logits(
        self,
        x: npt.NDArray[np.float32],
        stage: npt.NDArray[np.int8],
        rows: HazardRows,
        threads: int = 1,
        as_of: Instants | None = None,
    ) -> _F64:
        """Return the logit of each row's hazard, before calibration; ``as_of`` is that of each snapshot."""
        found = self.logits_without_calendar(x, stage, rows, threads)
        return found if self.calendar is None else found + self.of_calendar(x, stage, rows, as_of)

    def of_calendar(
        self, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], rows: HazardRows, as_of: Instants | None
    ) -> _F64:
        """Return what the calendar adds to the logit of each row: nothing where base rates answer."""
        if self.calendar is None:
            return np.zeros(len(rows))
        if as_of is None:
            raise ValueError("This model knows a calendar: it cannot answer without as_of.")
        return np.where(self.learned(stage, rows), self.calendar.logits(x, as_of, rows), 0.0)

    def logits_without_calendar(
        self, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], rows: HazardRows, threads: int = 1
    ) -> _F64:
        """Return the logit of each row's hazard but for what the calendar adds."""
        weak = ~self.learned(stage, rows)
        result = np.empty(len(rows))
        rest = rows.take(weak)
        where, recency = rest.snapshot, x[:, self.columns.history[0]]
        result[weak] = logit(self.base.hazards(stage[where], recency[where], rest.target, rest.interval))
        if weak.all():
            return result
        part = rows.take(~weak)
        if self.estimator is not None:
            chunks = [part.take(slice(begin, begin + _CHUNK)) for begin in range(0, len(part), _CHUNK)]
            inputs = (stacked_x(x, stage, chunk, self.columns.progress) for chunk in chunks)
            result[~weak] = np.concatenate([self.estimator.logits(one) for one in inputs])
        elif self.linear is not None:
            logits = self.linear.logits(x, self.columns, self.base, stage, part)
            share = np.array(self.ridge_share if self.ridge else (0.0, 0.0))[head_of(part.target)]
            if (share < 1).any():
                logits += (1 - share) * self.margins(x, stage, part, threads)
            if self.ridge is not None and (share > 0).any():
                logits += share * self.ridge.margins(x, part)
            result[~weak] = logits
        return result

    def margins(
        self, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], rows: HazardRows, threads: int = 1
    ) -> _F64:
        """Return what the trees add to the logit of each row's hazard."""
        forest = self.forest
        if forest is None:
            return self.margins_by_lightgbm(x, stage, rows, threads)

        def work(part: HazardRows) -> _F64:
            return forest.margins(x, own_x(x, stage, part, self.columns.progress), part.snapshot)

        chunks = [rows.take(slice(begin, begin + _CHUNK)) for begin in range(0, len(rows), _CHUNK)]
        parts = Parallel(n_jobs=min(threads, len(chunks)) or 1, backend="threading")(map(delayed(work), chunks))
        return np.concatenate([np.zeros(0), *parts])

    def margins_by_lightgbm(
        self, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], rows: HazardRows, threads: int = 1
    ) -> _F64:
        """Return the same numbers from LightGBM itself: the reference, and the way when there is no forest."""
        result = np.zeros(len(rows))
        if self.booster is None:
            return result
        for begin in range(0, len(rows), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            inputs = stacked_x(x, stage, rows.take(chunk), self.columns.progress)
            raw = self.booster.predict(inputs, raw_score=True, num_threads=threads, validate_features=False)
            result[chunk] = np.asarray(raw)
        return result


def stacked_x(
    x: npt.NDArray[np.float32],
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
    progress_columns: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Return the model's inputs: X of each row's snapshot, progress towards the target, target, steps, interval."""
    result = np.empty((len(rows), x.shape[1] + len(EXTRA_COLUMNS)), dtype=np.float32)
    np.take(x, rows.snapshot, axis=0, out=result[:, : x.shape[1]])
    result[:, x.shape[1] :] = own_x(x, stage, rows, progress_columns)
    return result


def own_x(
    x: npt.NDArray[np.float32],
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
    progress_columns: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Return the inputs in which the rows of one snapshot differ: EXTRA_COLUMNS."""
    result = np.empty((len(rows), len(EXTRA_COLUMNS)), dtype=np.float32)
    columns = progress_columns[rows.target]
    known = columns[:, 0] >= 0
    for k in (0, 1):
        result[:, k] = np.where(known, x[rows.snapshot, columns[:, k]], np.nan)
    result[:, 2] = rows.target
    result[:, 3] = np.where(rows.target == 0, 0, rows.target - 1 - stage[rows.snapshot])
    result[:, 4] = rows.interval
    return result


def prediction_rows(asked: npt.NDArray[np.bool_], intervals: int) -> HazardRows:
    """Return the rows to predict for every asked (snapshot, target): all intervals in order."""
    snapshot, target = np.nonzero(asked)
    return HazardRows(
        np.repeat(snapshot, intervals).astype(np.int64),
        np.repeat(target, intervals).astype(np.int8),
        np.tile(np.arange(intervals, dtype=np.int8), len(snapshot)),
        np.zeros(len(snapshot) * intervals, dtype=np.bool_),
    )


def reach_probabilities(
    trees: Trees,
    calibration: Calibration,
    asked: npt.NDArray[np.bool_],
    x: npt.NDArray[np.float32],
    stage: npt.NDArray[np.int8],
    horizons: Sequence[int],
    threads: int = 1,
    as_of: Instants | None = None,
) -> _F64:
    """Return P(T <= h), coherent: (snapshots, 1 + stages, horizons), NaN where a target is not asked."""
    rows = prediction_rows(asked, len(horizons))
    result = np.full((*asked.shape, len(horizons)), np.nan)
    result[asked] = cumulate(hazards(trees, calibration, x, stage, rows, threads, as_of).reshape(-1, len(horizons)))
    return make_coherent(result)


def hazards(
    trees: Trees,
    calibration: Calibration,
    x: npt.NDArray[np.float32],
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
    threads: int = 1,
    as_of: Instants | None = None,
) -> _F64:
    """Return each row's hazard; what nobody has lived through is not calibrated, since the maps know nothing of it."""
    raw = trees.logits(x, stage, rows, threads, as_of)
    mapped = calibration.apply(raw, rows.target, rows.interval)
    return np.asarray(expit(np.where(trees.base.is_known(stage, rows), mapped, raw)))
