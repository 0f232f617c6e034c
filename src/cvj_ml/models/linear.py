"""A linear hazard: a logistic regression on few, smooth inputs, from which the trees start.

Trees on short histories overfit and cannot extrapolate; a straight line in the logs of recency, frequency, tenure and
what the target's rule still needs does neither. docs/decisions/0005-linear-start.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from cvj_ml.config import DAY
from cvj_ml.models.base_rates import BaseRates
from cvj_ml.panel import Definition, HazardRows
from cvj_ml.windows import edges

_F64 = npt.NDArray[np.float64]

HISTORY = ("recency", "touchpoints_all", "tenure", "active_days_all")
_ROWS = 300_000
_CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class Columns:
    """Where X holds what the model looks up by name.

    ``progress`` is (1 + stages, 2), -1 where a target has none; ``history`` follows HISTORY. ``middle`` is not of X:
    the log of each interval's middle, in months of 30 days.
    """

    progress: npt.NDArray[np.int64]
    history: npt.NDArray[np.int64]
    middle: _F64


def columns_of(definition: Definition) -> Columns:
    """Return the columns of a definition's X."""
    names = definition.catalogue.names
    ends = np.array(edges(definition.horizons), dtype=np.float64)
    return Columns(
        definition.progress_columns,
        np.array([names.index(name) for name in HISTORY], dtype=np.int64),
        np.log((ends[:-1] + ends[1:]) / 2 / (30 * DAY)),
    )


@dataclass(frozen=True, slots=True)
class LinearHazard:
    """Coefficients on standardised inputs; ``missing`` stands in for what a customer does not have."""

    missing: _F64
    mean: _F64
    scale: _F64
    coefficients: _F64
    intercept: float

    def logits(
        self,
        x: npt.NDArray[np.float32],
        columns: Columns,
        base: BaseRates,
        stage: npt.NDArray[np.int8],
        rows: HazardRows,
    ) -> _F64:
        """Return the logit of each row's hazard."""
        total = np.full(len(rows), self.intercept)
        for begin in range(0, len(rows), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            inputs = (_inputs(x, columns, self.missing, base, stage, rows.take(chunk)) - self.mean) / self.scale
            # Column by column, so that the sum is the same for any number of rows and threads.
            for column, weight in zip(inputs.T, self.coefficients, strict=True):
                total[chunk] += weight * column
        return total


def fit_linear(
    x: npt.NDArray[np.float32],
    columns: Columns,
    base: BaseRates,
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
) -> LinearHazard:
    """Fit the linear hazard on (at most 300,000 evenly spaced) hazard rows."""
    some = np.zeros(len(rows), dtype=np.bool_)
    some[:: -(-len(rows) // _ROWS)] = True
    if not 0 < rows.moved[some].sum() < some.sum():
        some[:] = True
    history = x[:, columns.history].astype(np.float64)
    known = np.where(np.isnan(history), -np.inf, history).max(axis=0, initial=0.0)
    part = rows.take(some)
    inputs = _inputs(x, columns, known, base, stage, part)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        model = LogisticRegression(C=1.0, max_iter=500).fit((inputs - mean) / scale, part.moved)
    return LinearHazard(known, mean, scale, model.coef_[0], float(model.intercept_[0]))


def _inputs(
    x: npt.NDArray[np.float32],
    columns: Columns,
    missing: _F64,
    base: BaseRates,
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
) -> _F64:
    """Return the logit of the stage's base hazard, then inputs of the return, then inputs of reach."""
    history = x[rows.snapshot[:, None], columns.history].astype(np.float64)
    logs = np.log1p(np.maximum(np.where(np.isnan(history), missing, history), 0.0))
    recency, frequency, tenure = logs[:, 0], logs[:, 1], logs[:, 2]
    # How much of the tenure the silence lasts, and silence that weighs more the more active a customer was: the
    # two sufficient statistics of buy-till-you-die models (Fader, Hardie and Lee 2005) meet in these.
    shared = np.column_stack([logs, recency * frequency, recency - tenure])
    # A target that needs many more touchpoints depends otherwise on habits, and on the length of the interval.
    where = columns.progress[rows.target, 1]
    needed = np.where(where >= 0, x[rows.snapshot, where], 0.0).astype(np.float64)
    needed = np.log1p(np.maximum(np.nan_to_num(needed), 0.0))
    middle = columns.middle[rows.interval]
    ahead = [needed * each for each in (1.0, needed, recency, frequency, tenure)]
    ahead += [middle * each for each in (needed, recency, frequency, tenure)]
    returns = (rows.target == 0)[:, None]
    hazard = logit(base.of_stage(stage[rows.snapshot], rows.target, rows.interval))
    return np.column_stack([hazard, shared * returns, shared * ~returns, np.column_stack(ahead) * ~returns])
