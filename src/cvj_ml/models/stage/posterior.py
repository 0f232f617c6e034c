"""The current stage as a posterior, where the evidence of some stages may be hidden.

One classifier for each stage j whose coverage c is below 1, asked from the top of the journey down: given that the
true stage is j at most, and that j is not seen, is it j? With x the features without j's evidence and
q = P(true = j | true <= j, x), hiding being independent of x given the true stage,

    odds(j | not seen, x) = (1 - c) * q / (1 - q)                        labels, or complete customers thinned
    P(j | not seen, x)    = min(1, (1 - c) / c * p / (1 - p))            presence only: p = P(seen at j | true <= j, x)

(Bayes' rule; for the second, Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data").
With r_j the probability found so, 1 for the observed stage (the floor) and 0 for what lies below,

    P(true = j | seen) = r_j * product over k > j of (1 - r_k),

a continuation-ratio model (Tutz 1991): it sums to one, says nothing below the floor, and is the observed stage where
every coverage is 1. The classifier sees every customer at j, with j's evidence taken away, where plain thinning would
show it the hidden share only; on protocol D it beats a multiclass LightGBM with the same trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy.special import expit

from cvj_ml.panel.stage_panel import BEFORE_ANY, Tracking, Truth

_F64 = npt.NDArray[np.float64]

FURTHEST_INPUT = 24.0
"""Standard deviations from the mean that an input of a line may be: one rare value must not decide alone."""


@dataclass(frozen=True, slots=True)
class Line:
    """A logistic regression on the table's log-odds and the signed logarithms of columns of x, standardised.

    mean, scale and coefficients have one entry for the table, then one a column; a missing value is the mean, and
    nothing is further than ``FURTHEST_INPUT`` from it.
    """

    columns: npt.NDArray[np.int64]
    mean: _F64
    scale: _F64
    coefficients: _F64
    intercept: float

    def logits(self, table: _F64, x: npt.NDArray[np.float32]) -> _F64:
        """Return the log-odds of rows."""
        # Column by column, so that the sum is the same for any number of rows and threads.
        total = np.full(len(x), self.intercept)
        for k, weight in enumerate(self.coefficients):
            column = table if k == 0 else signed_log(x[:, self.columns[k - 1]])
            total += weight * standardised(column, self.mean[k], self.scale[k])
        return total


def signed_log(x: npt.NDArray[np.float32]) -> _F64:
    """Return sign(x) log(1 + |x|), which tames sums and counts and keeps what is missing."""
    numbers = x.astype(np.float64)
    return np.copysign(np.log1p(np.abs(numbers)), numbers)


def standardised(inputs: _F64, mean: _F64 | np.float64, scale: _F64 | np.float64) -> _F64:
    """Return inputs in standard deviations from their mean; what is missing is the mean."""
    return np.clip(np.where(np.isnan(inputs), 0.0, (inputs - mean) / scale), -FURTHEST_INPUT, FURTHEST_INPUT)


@dataclass(frozen=True, slots=True)
class HiddenStage:
    """The log-odds of one stage before its coverage is accounted for: a table, or a line, or a line and trees.

    ``table`` holds log-odds by observed stage (position + 1, so that 0 is before any); the line takes them as its first
    input; trees add to the line. ``shift`` is added to whatever there is.
    """

    table: _F64
    line: Line | None
    trees: lgb.Booster | None
    shift: float = 0.0

    def logits(self, x: npt.NDArray[np.float32], floor: npt.NDArray[np.int8], threads: int) -> _F64:
        """Return the log-odds of the stage against lower ones, shape (rows,)."""
        result: _F64 = self.table[floor.astype(np.int64) + 1] + self.shift
        if self.line is not None:
            result = self.line.logits(self.table[floor.astype(np.int64) + 1], x) + self.shift
        if self.trees is None or not len(x):
            return result
        result += np.asarray(self.trees.predict(x, raw_score=True, num_threads=threads, validate_features=False))
        return result


@dataclass(frozen=True, slots=True)
class StageModel:
    """The fitted posterior: ``stages`` has one entry a stage, None where the evidence is always seen."""

    tracking: Tracking
    source: Truth
    stages: tuple[HiddenStage | None, ...]

    def posterior(
        self,
        x: npt.NDArray[np.float32],
        floor: npt.NDArray[np.int8],
        complete: npt.NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> _F64:
        """Return P(true stage), shape (rows, stages), each row a pure function of its own features.

        floor: observed stage, -1 before any, where nothing is said (NaN); complete: rows whose evidence is known to
        be complete, so that the observed stage is the true one.
        """
        return assemble(floor, self.hidden_probabilities(x, floor, complete, threads))

    def hidden_probabilities(
        self,
        x: npt.NDArray[np.float32],
        floor: npt.NDArray[np.int8],
        complete: npt.NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> _F64:
        """Return r_j of the module's formula, shape (rows, stages), 0 up to the floor."""
        r = np.zeros((len(floor), len(self.stages)))
        for j, one in enumerate(self.stages):
            rows = (floor > BEFORE_ANY) & (floor < j)
            if complete is not None:
                rows &= ~complete
            if one is not None and rows.any():
                r[rows, j] = corrected(
                    one.logits(x[rows], floor[rows], threads), self.tracking.coverage[j], self.source
                )
        return r


def corrected(logits: _F64, coverage: float, source: Truth) -> _F64:
    """Return the probability of a stage that is not seen, from the log-odds of its classifier and its coverage."""
    if coverage >= 1:
        return np.zeros(len(logits))
    if source == "presence":
        return np.asarray(np.exp(np.minimum(logits + np.log((1 - coverage) / coverage), 0.0)))
    return np.asarray(expit(logits + np.log1p(-coverage)))


def assemble(floor: npt.NDArray[np.int8], hidden: _F64) -> _F64:
    """Return P(true stage) from the observed stage and r (rows, stages); NaN before any stage."""
    position = np.arange(hidden.shape[1])
    r = np.where(position > floor[:, None], hidden, (position == floor[:, None]).astype(np.float64))
    not_above = np.cumprod((1 - r)[:, :0:-1], axis=1)[:, ::-1]
    p = r * np.hstack([not_above, np.ones((len(r), 1))])
    p[floor == BEFORE_ANY] = np.nan
    # The floor's own probability is what is left, so that the sum is one to the last bit that matters.
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def low_stages(model: StageModel, names: Sequence[str]) -> list[str]:
    """Return the stages that may be hidden and of which too few customers were known for trees."""
    return [name for name, one in zip(names, model.stages, strict=True) if one is not None and one.trees is None]
