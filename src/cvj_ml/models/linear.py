"""A linear hazard: a logistic regression on few, smooth inputs, from which the trees start.

Trees on short histories overfit and cannot extrapolate; a straight line in log recency, log frequency and log tenure
does neither. On CDNOW (protocol C at its choice instant) trees that start from it beat BG/NBD at every horizon, where
trees that start from base rates did not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from cvj_ml.models.base_rates import BaseRates
from cvj_ml.panel import HazardRows

_F64 = npt.NDArray[np.float64]

COLUMNS = ("recency", "touchpoints_all", "tenure", "active_days_all")
_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class LinearHazard:
    """Coefficients on standardised inputs; ``missing`` stands in for what a customer does not have."""

    missing: _F64
    mean: _F64
    scale: _F64
    coefficients: _F64
    intercept: float

    def logits(self, history: _F64, base: BaseRates, stage: npt.NDArray[np.int8], rows: HazardRows) -> _F64:
        """Return the logit of each row's hazard; ``history`` holds COLUMNS of the snapshots."""
        inputs = (_inputs(history, self.missing, base, stage, rows) - self.mean) / self.scale
        # Column by column, so that the sum is the same for any number of rows and threads.
        total = np.full(len(rows), self.intercept)
        for column, weight in zip(inputs.T, self.coefficients, strict=True):
            total += weight * column
        return total


def fit_linear(history: _F64, base: BaseRates, stage: npt.NDArray[np.int8], rows: HazardRows) -> LinearHazard:
    """Fit the linear hazard on (at most 200,000 evenly spaced) hazard rows."""
    some = np.zeros(len(rows), dtype=np.bool_)
    some[:: -(-len(rows) // _ROWS)] = True
    if not 0 < rows.moved[some].sum() < some.sum():
        some[:] = True
    known = np.where(np.isnan(history), -np.inf, history).max(axis=0, initial=0.0)
    part = rows.take(some)
    inputs = _inputs(history, known, base, stage, part)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        model = LogisticRegression(C=1.0, max_iter=300).fit((inputs - mean) / scale, part.moved)
    return LinearHazard(known, mean, scale, model.coef_[0], float(model.intercept_[0]))


def _inputs(history: _F64, missing: _F64, base: BaseRates, stage: npt.NDArray[np.int8], rows: HazardRows) -> _F64:
    """Return the logit of the stage's base hazard, then the history's logs, apart for return and for reach."""
    logs = np.log1p(np.maximum(np.where(np.isnan(history), missing, history), 0.0))
    recency, frequency, tenure = logs[:, 0], logs[:, 1], logs[:, 2]
    # How much of the tenure the silence lasts, and silence that weighs more the more active a customer was: the
    # two sufficient statistics of buy-till-you-die models (Fader, Hardie and Lee 2005) meet in these.
    columns = np.column_stack([logs, recency * frequency, recency - tenure])[rows.snapshot]
    returns = (rows.target == 0)[:, None]
    hazard = logit(base.of_stage(stage[rows.snapshot], rows.target, rows.interval))[:, None]
    return np.hstack([hazard, columns * returns, columns * ~returns])
