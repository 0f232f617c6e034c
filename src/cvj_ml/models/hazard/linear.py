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

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY
from cvj_ml.models.hazard.base_rates import BaseRates
from cvj_ml.models.hazard.binning import upper_bound
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import HazardRows
from cvj_ml.windows import edges

_F64 = npt.NDArray[np.float64]

HISTORY = ("recency", "touchpoints_all", "tenure", "active_days_all")
FACTS = (*HISTORY, "needed")
"""What a customer brings to the linear hazard: the history, and the touchpoints that the target's rule still needs."""

_ROWS = 300_000


@dataclass(frozen=True, slots=True)
class Columns:
    """Where X holds what the model looks up by name.

    ``progress`` is (1 + stages, 2), -1 where a target has none; ``history`` follows HISTORY. ``middle`` is not of X:
    the log of each interval's middle, in months of 30 days.
    """

    progress: npt.NDArray[np.int64]
    history: npt.NDArray[np.int64]
    middle: _F64


def linear_columns(definition: ModelSpec) -> Columns:
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
        """Return the logit of each row's hazard; the sum is the same for any number of rows and threads."""
        total = np.empty(len(rows))
        targets = np.arange(len(columns.progress))
        _add_up(
            logit(base.by_stage),
            _logs(x[:, columns.history], self.missing),
            _needed(x, np.arange(len(x))[:, None], columns.progress[targets, 1]),
            columns.middle,
            stage,
            rows.snapshot,
            rows.target,
            rows.interval,
            self.mean,
            self.scale,
            self.coefficients,
            self.intercept,
            total,
        )
        return total

    def contributions(
        self, x: npt.NDArray[np.float32], typical: npt.NDArray[np.float32], columns: Columns, rows: HazardRows
    ) -> _F64:
        """Return what each of FACTS adds to the logit, compared with a typical customer of the same stage: (rows, 5).

        ``typical`` is one row of X. The logit is a quadratic form of the facts' logs, l'v + v'Qv, so the Shapley value
        of each is (v - u) * (l + Q (v + u)) with ``u`` the typical customer's: products of two facts are halved.
        """
        v = np.column_stack(_facts(x, columns, self.missing, rows))
        one = HazardRows(np.zeros_like(rows.snapshot), rows.target, rows.interval, rows.moved)
        u = np.column_stack(_facts(typical[None], columns, self.missing, one))
        weight = self.coefficients / self.scale
        returns = rows.target == 0
        shared = np.where(returns[:, None], weight[1:7], weight[7:13])
        # In the order of _inputs: needed times (1, needed, recency, frequency, tenure), the middle times (needed, …).
        ahead = np.where(returns[:, None], 0.0, weight[13:18])
        middle = np.where(returns[:, None], 0.0, columns.middle[rows.interval][:, None] * weight[18:22])
        both = v + u
        recency, frequency, tenure, _, needed = both.T
        product, difference = shared[:, 4] / 2, shared[:, 5]
        slopes = np.column_stack(
            [
                shared[:, 0] + difference + middle[:, 1] + product * frequency + ahead[:, 2] / 2 * needed,
                shared[:, 1] + middle[:, 2] + product * recency + ahead[:, 3] / 2 * needed,
                shared[:, 2] - difference + middle[:, 3] + ahead[:, 4] / 2 * needed,
                shared[:, 3],
                ahead[:, 0]
                + middle[:, 0]
                + ahead[:, 1] * needed
                + (ahead[:, 2] * recency + ahead[:, 3] * frequency + ahead[:, 4] * tenure) / 2,
            ]
        )
        result: _F64 = (v - u) * slopes
        return result


def fit_linear(
    x: npt.NDArray[np.float32],
    columns: Columns,
    base: BaseRates,
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
    customer: npt.NDArray[np.int64],
    fewest: int,
) -> LinearHazard:
    """Fit the linear hazard on (at most 300,000 evenly spaced) hazard rows.

    What a customer does not have is as long, or as much, as ``fewest`` customers have at least: ``customer`` is that of
    each snapshot.
    """
    some = np.zeros(len(rows), dtype=np.bool_)
    some[:: -(-len(rows) // _ROWS)] = True
    if not 0 < rows.moved[some].sum() < some.sum():
        some[:] = True
    known = np.array([max(upper_bound(x[:, column], customer, fewest), 0.0) for column in columns.history])
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
    logs, needed = _facts(x, columns, missing, rows)
    recency, frequency, tenure = logs[:, 0], logs[:, 1], logs[:, 2]
    # How much of the tenure the silence lasts, and silence that weighs more the more active a customer was: the
    # two sufficient statistics of buy-till-you-die models (Fader, Hardie and Lee 2005) meet in these.
    shared = np.column_stack([logs, recency * frequency, recency - tenure])
    # A target that needs many more touchpoints depends otherwise on habits, and on the length of the interval.
    middle = columns.middle[rows.interval]
    ahead = [needed * each for each in (1.0, needed, recency, frequency, tenure)]
    ahead += [middle * each for each in (needed, recency, frequency, tenure)]
    returns = (rows.target == 0)[:, None]
    hazard = logit(base.of_stage(stage[rows.snapshot], rows.target, rows.interval))
    return np.column_stack([hazard, shared * returns, shared * ~returns, np.column_stack(ahead) * ~returns])


def _facts(x: npt.NDArray[np.float32], columns: Columns, missing: _F64, rows: HazardRows) -> tuple[_F64, _F64]:
    """Return the logs of HISTORY (rows, 4), and of the touchpoints that the target's rule still needs (rows,)."""
    history = x[rows.snapshot[:, None], columns.history]
    return _logs(history, missing), _needed(x, rows.snapshot, columns.progress[rows.target, 1])


def _logs(history: npt.NDArray[np.float32], missing: _F64) -> _F64:
    numbers = history.astype(np.float64)
    return np.log1p(np.maximum(np.where(np.isnan(numbers), missing, numbers), 0.0))


def _needed(x: npt.NDArray[np.float32], snapshot: npt.NDArray[np.int64], column: npt.NDArray[np.int64]) -> _F64:
    needed = np.where(column >= 0, x[snapshot, column], 0.0).astype(np.float64)
    return np.log1p(np.maximum(np.nan_to_num(needed), 0.0))


@compiled
def _add_up(
    hazard: _F64,
    logs: _F64,
    needed: _F64,
    middle: _F64,
    stage: npt.NDArray[np.int8],
    snapshot: npt.NDArray[np.int64],
    target: npt.NDArray[np.int8],
    interval: npt.NDArray[np.int8],
    mean: _F64,
    scale: _F64,
    weight: _F64,
    intercept: float,
    out: _F64,
) -> None:
    """Add the standardised inputs of ``_inputs``, each times its weight, column by column, without a table of them."""
    x = np.empty(len(weight))
    for r in range(len(snapshot)):
        i, j, m = snapshot[r], target[r], interval[r]
        recency, frequency, tenure, active = logs[i, 0], logs[i, 1], logs[i, 2], logs[i, 3]
        x[0] = hazard[stage[i] + 1, j, m]
        x[1:] = 0.0
        first = 1 if j == 0 else 7
        x[first], x[first + 1], x[first + 2], x[first + 3] = recency, frequency, tenure, active
        x[first + 4] = recency * frequency
        x[first + 5] = recency - tenure
        if j != 0:
            more, longer = needed[i, j], middle[m]
            x[13], x[14], x[15], x[16], x[17] = more, more * more, more * recency, more * frequency, more * tenure
            x[18], x[19], x[20], x[21] = longer * more, longer * recency, longer * frequency, longer * tenure
        total = intercept
        for c in range(len(weight)):
            total += weight[c] * ((x[c] - mean[c]) / scale[c])
        out[r] = total
