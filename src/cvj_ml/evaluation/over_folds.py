"""What the instants of a backtest say together: means, their spread, the worst instant, and who won how often.

Intervals within a fold speak of other customers, the spread between folds of other seasons: both are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

_Values = npt.NDArray[np.float64]


def _off(ratio: _Values) -> _Values:
    """Return how far observed/expected lies from 1: twice too many are as bad as half too few."""
    with np.errstate(divide="ignore"):
        return np.abs(np.log(ratio))


FAULTS: Mapping[str, Callable[[_Values], _Values]] = {
    "log_loss": np.asarray,
    "level": np.asarray,
    "slope": np.asarray,
    "ranking": np.asarray,
    "auc": np.negative,
    "observed_expected": _off,
}
"""The figures of `Assessment.decomposition`, and what of each is the smaller the better."""

_COLUMNS = ["question", "horizon_days", "contender", "figure", "folds", "won", "mean", "standard_error"]
_WORST = ["worst", "worst_fold"]


def over_folds(decomposition: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each question, horizon, contender and figure, over the folds that have it.

    decomposition: of all folds, with the column ``fold``. standard_error: of the mean over folds, NaN with one fold;
    won: folds in which no contender has a better figure, so that equal ones all win.
    """
    rows = [
        row
        for (question, days), here in decomposition.groupby(["question", "horizon_days"], sort=False)
        for figure in FAULTS
        for row in _figure({"question": question, "horizon_days": days}, here, figure)
    ]
    return pd.DataFrame(rows, columns=[*_COLUMNS, *_WORST])


def _figure(asked: Mapping[str, object], here: pd.DataFrame, figure: str) -> Iterator[dict[str, object]]:
    values = here.pivot(index="fold", columns="contender", values=figure).dropna()
    if values.empty:
        return
    faults = FAULTS[figure](values.to_numpy(dtype=np.float64))
    won = (faults == faults.min(axis=1, keepdims=True)).sum(axis=0)
    for contender in dict.fromkeys(here["contender"]):
        k = values.columns.get_loc(contender)
        column, worst = values[contender].to_numpy(dtype=np.float64), int(np.argmax(faults[:, k]))
        yield {
            **asked,
            "contender": contender,
            "figure": figure,
            "folds": len(column),
            "won": int(won[k]),
            "mean": float(column.mean()),
            "standard_error": float(column.std(ddof=1)) / math.sqrt(len(column)) if len(column) > 1 else math.nan,
            "worst": float(column[worst]),
            "worst_fold": values.index[worst],
        }
