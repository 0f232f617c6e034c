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

# The numbers of a row: the logs of FACTS; how much of the tenure the silence lasts, which is recency less tenure; the
# log of the interval's middle; the logit of the stage's base hazard; and one.
_RECENCY, _FREQUENCY, _TENURE, _ACTIVE, _NEEDED, _SILENCE, _MIDDLE, _BASE, _ONE = range(9)
_NUMBERS = 9

# Silence weighs more the more active a customer was, and the less the longer the tenure: the two sufficient statistics
# of buy-till-you-die models (Fader, Hardie and Lee 2005) meet in the last two.
_HABITS = (
    (_RECENCY, _ONE),
    (_FREQUENCY, _ONE),
    (_TENURE, _ONE),
    (_ACTIVE, _ONE),
    (_RECENCY, _FREQUENCY),
    (_SILENCE, _ONE),
)
# A target that needs many more touchpoints depends otherwise on habits, and on the length of the interval.
_AHEAD = (
    *((_NEEDED, other) for other in (_ONE, _NEEDED, _RECENCY, _FREQUENCY, _TENURE)),
    *((_MIDDLE, other) for other in (_NEEDED, _RECENCY, _FREQUENCY, _TENURE)),
)

INPUTS = (
    ("both", _BASE, _ONE),
    *(("return", *product) for product in _HABITS),
    *(("reach", *product) for product in (*_HABITS, *_AHEAD)),
)
"""The line's inputs: which question has each (it is zero for the other one), and the two numbers that it multiplies."""

_LEFT, _RIGHT = (np.array([column[k] for column in INPUTS]) for k in (1, 2))
_OF_RETURN, _OF_REACH = (
    np.array([one in ("both", question) for one, _, _ in INPUTS]) for question in ("return", "reach")
)


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
        one = HazardRows(np.zeros_like(rows.snapshot), rows.target, rows.interval, rows.converted)
        mine, theirs = (_numbers(at, columns, self.missing, of) for at, of in ((x, rows), (typical[None], one)))
        both, slopes = mine + theirs, np.zeros(mine.shape)
        for left, right, slope in zip(_LEFT, _RIGHT, (_asked(rows) * (self.coefficients / self.scale)).T, strict=True):
            slopes[left] += slope / 2 * both[right]
            slopes[right] += slope / 2 * both[left]
        slopes[_RECENCY] += slopes[_SILENCE]
        slopes[_TENURE] -= slopes[_SILENCE]
        facts = slice(len(FACTS))
        result: _F64 = ((mine[facts] - theirs[facts]) * slopes[facts]).T
        return result


def fit_linear(
    x: npt.NDArray[np.float32],
    columns: Columns,
    base: BaseRates,
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
    customer: npt.NDArray[np.int64],
    fewest: int,
    weight: _F64 | None = None,
) -> LinearHazard:
    """Fit the linear hazard on (at most 300,000 evenly spaced) hazard rows; ``weight`` is how much each counts.

    What a customer does not have is as long, or as much, as ``fewest`` customers have at least: ``customer`` is that of
    each snapshot.
    """
    some = np.zeros(len(rows), dtype=np.bool_)
    some[:: -(-len(rows) // _ROWS)] = True
    if not 0 < rows.converted[some].sum() < some.sum():
        some[:] = True
    known = np.array([max(upper_bound(x[:, column], customer, fewest), 0.0) for column in columns.history])
    part = rows.take(some)
    inputs = _inputs(x, columns, known, base, stage, part)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        model = LogisticRegression(C=1.0, max_iter=500).fit(
            (inputs - mean) / scale, part.converted, None if weight is None else weight[some]
        )
    return LinearHazard(known, mean, scale, model.coef_[0], float(model.intercept_[0]))


def _inputs(
    x: npt.NDArray[np.float32],
    columns: Columns,
    missing: _F64,
    base: BaseRates,
    stage: npt.NDArray[np.int8],
    rows: HazardRows,
) -> _F64:
    """Return INPUTS of each row, (rows, inputs)."""
    numbers = _numbers(x, columns, missing, rows)
    numbers[_BASE] = logit(base.of_stage(stage[rows.snapshot], rows.target, rows.interval))
    own = _asked(rows)
    return np.column_stack([numbers[i] * numbers[j] * own[:, c] for c, (_, i, j) in enumerate(INPUTS)])


def _asked(rows: HazardRows) -> npt.NDArray[np.bool_]:
    """Return which of INPUTS the question of each row has, (rows, inputs)."""
    return np.where((rows.target == 0)[:, None], _OF_RETURN, _OF_REACH)


def _numbers(x: npt.NDArray[np.float32], columns: Columns, missing: _F64, rows: HazardRows) -> _F64:
    """Return the numbers of each row, (numbers, rows); the base hazard, which is no fact of a customer, is 0."""
    result = np.zeros((_NUMBERS, len(rows)))
    result[: len(HISTORY)] = _logs(x[rows.snapshot[:, None], columns.history], missing).T
    result[_NEEDED] = _needed(x, rows.snapshot, columns.progress[rows.target, 1])
    result[_SILENCE] = result[_RECENCY] - result[_TENURE]
    result[_MIDDLE] = columns.middle[rows.interval]
    result[_ONE] = 1.0
    return result


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
    """Add the standardised INPUTS, each times its weight, one by one, without a table of them."""
    numbers, nothing = np.empty(_NUMBERS), weight * ((0.0 - mean) / scale)
    numbers[_ONE] = 1.0
    for r in range(len(snapshot)):
        i, j, m = snapshot[r], target[r], interval[r]
        for k in range(logs.shape[1]):
            numbers[k] = logs[i, k]
        numbers[_NEEDED] = needed[i, j]
        numbers[_SILENCE] = numbers[_RECENCY] - numbers[_TENURE]
        numbers[_MIDDLE] = middle[m]
        numbers[_BASE] = hazard[stage[i] + 1, j, m]
        total = intercept
        for c in range(len(_LEFT)):
            if _OF_RETURN[c] if j == 0 else _OF_REACH[c]:
                total += weight[c] * ((numbers[_LEFT[c]] * numbers[_RIGHT[c]] - mean[c]) / scale[c])
            else:
                total += nothing[c]
        out[r] = total
