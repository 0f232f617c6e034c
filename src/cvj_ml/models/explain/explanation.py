"""Why a customer is more, or less, likely to reach a stage than a typical customer of the same present stage.

What is explained is one number, the margin of a (customer, target, horizon): the mean of the calibrated logits of the
hazards of all intervals up to the horizon, each weighted by what its interval adds to P(T <= horizon). Weights are
taken as given. A probability is no sum of parts; this margin is, and it rises and falls with the probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from cvj_ml.models.explain.shap import BoosterPaths, TreePaths, paths_of
from cvj_ml.models.hazard.reach import EXTRA_COLUMNS, stacked_x
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.panel import HazardRows

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Explanation:
    """``margin`` = ``base`` + the sum of ``contributions`` (rows, features of X), up to rounding.

    The base is the margin of the typical customer, with what target, steps and interval add.
    """

    margin: _F64
    base: _F64
    contributions: _F64

    @property
    def of_the_contrary(self) -> Explanation:
        """The same of that it does not happen."""
        return Explanation(-self.margin, -self.base, -self.contributions)


class Explainer:
    """Explains a predictor's margins; holds the paths of its trees."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._paths: TreePaths | BoosterPaths | None = None
        trees, catalogue = predictor.trees, predictor.definition.catalogue
        self._intervals = len(predictor.definition.horizons)
        self._recency = catalogue.names.index("recency")
        if trees.booster is None:
            return
        mixed = len(catalogue.features) + EXTRA_COLUMNS.index("interval")
        compiled = paths_of(trees.forest, mixed, self._intervals) if trees.forest else None
        self._paths = compiled or BoosterPaths(trees.booster, mixed)

    def explain(
        self, x: _F32, stage: int, target: int, intervals: int, typical: _F32, as_of: int | None = None
    ) -> Explanation:
        """Explain customers of one stage for one target, up to the end of so many intervals.

        ``x`` is (rows, features), ``typical`` one row of the same features. ``stage`` is a position (-1: before any),
        ``target`` 1 + a position. What the calendar adds at ``as_of`` belongs to the base: all of an audience share it.
        """
        trees, calibration = self._predictor.trees, self._predictor.calibration
        intercept, slope = calibration.intercept[target, :intervals], calibration.slope[target, :intervals]
        known = trees.base.known[stage + 1, target, :intervals]
        # As in `reach_probabilities`: what nobody has lived through is not calibrated, and the same for everybody.
        intercept, slope = np.where(known, intercept, 0.0), np.where(known, slope, 1.0)
        shared = self._of_calendar(x, stage, target, intervals, as_of)
        mine = intercept + slope * (self._logits(x, stage, target, intervals) + shared)
        theirs = intercept + slope * (self._logits(typical[None], stage, target, intervals) + shared)
        hazards = expit(mine)
        survived = np.cumprod(1 - hazards, axis=1)
        added = hazards * np.column_stack([np.ones(len(x)), survived[:, :-1]])
        weight = added / _over_intervals(added)[:, None]
        margin, base = _over_intervals(weight * mine), _over_intervals(weight * theirs)
        contributions = np.zeros(x.shape)
        if trees.low[target] or trees.linear is None or self._paths is None:
            contributions[:, self._recency] = margin - base
            return Explanation(margin, base, contributions)
        scale = weight * np.where(known, slope, 0.0)
        linear = trees.linear.contributions(x, typical, trees.columns, _rows(len(x), target, intervals))
        for m in range(intervals):
            part = scale[:, m, None] * linear[m::intervals]
            contributions[:, trees.columns.history] += part[:, :-1]
            contributions[:, trees.columns.progress[target, 1]] += part[:, -1]
        if trees.ridge is not None:
            head = int(target > 0)
            by_ridge = trees.ridge.contributions(x, typical, head)
            contributions += trees.ridge_share[head] * _over_intervals(scale)[:, None] * by_ridge
            scale = (1 - trees.ridge_share[head]) * scale
        by_tree = self._mixture(self._paths, self._inputs(x, stage, target), scale)
        alone = self._mixture(
            self._paths, np.repeat(self._inputs(typical[None], stage, target), intervals, axis=0), np.eye(intervals)
        )
        for m in range(intervals):
            by_tree -= scale[:, m, None] * alone[m]
        contributions += by_tree[:, : x.shape[1]]
        contributions[:, trees.columns.progress[target, 0]] += by_tree[:, x.shape[1]]
        contributions[:, trees.columns.progress[target, 1]] += by_tree[:, x.shape[1] + 1]
        for column in by_tree.T[x.shape[1] + 2 :]:
            base += column
        return Explanation(margin, base, contributions)

    def _logits(self, x: _F32, stage: int, target: int, intervals: int) -> _F64:
        stages = np.full(len(x), stage, dtype=np.int8)
        found = self._predictor.trees.logits_without_calendar(x, stages, _rows(len(x), target, intervals))
        return found.reshape(-1, intervals)

    def _of_calendar(self, x: _F32, stage: int, target: int, intervals: int, as_of: int | None) -> _F64:
        """Return what the calendar adds for each customer: (rows, intervals)."""
        stages = np.full(len(x), stage, dtype=np.int8)
        instants = None if as_of is None else np.full(len(x), as_of, dtype=np.int64)
        found = self._predictor.trees.of_calendar(x, stages, _rows(len(x), target, intervals), instants)
        return found.reshape(-1, intervals)

    def _inputs(self, x: _F32, stage: int, target: int) -> _F32:
        stages = np.full(len(x), stage, dtype=np.int8)
        return stacked_x(x, stages, _rows(len(x), target, 1), self._predictor.trees.columns.progress)

    def _mixture(self, paths: TreePaths | BoosterPaths, inputs: _F32, scale: _F64) -> _F64:
        """Return the sum over intervals of ``scale`` times the contributions; a slope may be below zero."""
        result = np.zeros(inputs.shape)
        for sign in (1.0, -1.0):
            part = np.maximum(sign * scale, 0.0)
            total = _over_intervals(part)
            if total.any():
                mixture = np.zeros((len(inputs), self._intervals))
                mixture[:, : part.shape[1]] = part / np.where(total > 0, total, 1.0)[:, None]
                result += sign * total[:, None] * paths.contributions(inputs, mixture)
        return result


def _rows(snapshots: int, target: int, intervals: int) -> HazardRows:
    """Return the rows of one target for snapshots 0, 1, …, all intervals of each in order."""
    size = snapshots * intervals
    return HazardRows(
        np.repeat(np.arange(snapshots), intervals),
        np.full(size, target, dtype=np.int8),
        np.tile(np.arange(intervals, dtype=np.int8), snapshots),
        np.zeros(size, dtype=np.bool_),
    )


def _over_intervals(values: _F64) -> _F64:
    """Return the sum over the second axis, added in order: the same for any number of rows."""
    total = np.zeros(len(values))
    for column in values.T:
        total += column
    return total
