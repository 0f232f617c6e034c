"""How good forecasts of amounts are, and whether lists may be ranked by them.

Squared error asks for the right means, the normalised Gini for the right order. The absolute error is least at the
median, which is 0 where most buy nothing: it is told beside that of a forecast of zeros, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys, times_drawn
from cvj_ml.panel.panel import Panel

_F64 = npt.NDArray[np.float64]

FACTOR = 2.0
"""What was bought may be so many times more, or less, than expected for lists to be ranked by what is expected."""


def normalised_gini(bought: _F64, expected: _F64, weights: npt.NDArray[np.int64]) -> _F64:
    """Return, for each row of weights (draws, customers), how well the forecast orders customers by what they buy.

    The Gini of amounts in the order of the forecast over that in their own order: 1 is a perfect order, 0 none.
    Customers of equal forecasts share what they bought. NaN where nobody bought.
    """
    with np.errstate(invalid="ignore"):
        found: _F64 = _gini(bought, expected, weights) / _gini(bought, bought, weights)
    return found


def _gini(bought: _F64, by: _F64, weights: npt.NDArray[np.int64]) -> _F64:
    order = np.argsort(-by, kind="stable")
    ties = np.append(np.flatnonzero(np.diff(by[order])), len(by) - 1)
    money, found = bought[order], np.empty(len(weights))
    for k, row in enumerate(weights):
        drawn = row[order]
        people, spent = np.cumsum(drawn)[ties], np.cumsum(drawn * money)[ties]
        if spent[-1] <= 0:
            found[k] = np.nan
            continue
        found[k] = 2.0 * np.trapezoid(np.append(0.0, spent / spent[-1]), np.append(0.0, people / people[-1])) - 1.0
    return found


def mean_of_stage(history: Panel, test: Panel) -> _F64:
    """Return what customers of the same stage bought on average, in whole units: (snapshots of test, horizons).

    A stage of which nothing is known has the mean of all.
    """
    if history.amounts is None:
        raise ValueError("The journey does not say which events are purchases.")
    amounts, unit = history.amounts, 10.0**history.definition.catalogue.value_decimals
    found = np.zeros((len(test), amounts.gross.shape[1]))
    for h in range(found.shape[1]):
        whole = amounts.whole[:, h]
        if not whole.any():
            continue
        spent, stage = amounts.gross[whole, h] / unit, history.stage[whole].astype(np.int64) + 1
        people = np.bincount(stage, minlength=128)
        mean = np.where(people > 0, np.bincount(stage, spent, minlength=128) / np.maximum(people, 1), spent.mean())
        found[:, h] = mean[test.stage.astype(np.int64) + 1]
    return found


@dataclass(frozen=True, slots=True)
class AmountVerdict:
    """Whether lists `by: expected_value` may be ranked by the model's amounts, and why.

    ``gain`` is the model's normalised Gini less that of the mean of the stage at the longest horizon of the fold, with
    its 95 % interval over customers; ``ratio`` is what was bought over what was expected.
    """

    ranks: bool
    days: int
    gini: float
    gain: float
    low: float
    high: float
    ratio: float

    @property
    def sentence(self) -> str:
        """Say what decided."""
        word = "may" if self.ranks else "may not"
        return (
            f"What customers are expected to buy {word} rank lists by expected value: in the last matured fold its"
            f" order within {self.days} days has a normalised Gini of {self.gini:.3f}, {self.gain:+.3f}"
            f" ({self.low:+.3f} to {self.high:+.3f}) beside the mean of the stage, and {self.ratio:.2f} times what"
            " was expected was bought."
        )


def judge_amounts(test: Panel, expected: _F64, by_stage: _F64, seed: int) -> AmountVerdict | None:
    """Return whether the model's amounts may rank lists, by a fold that it has not seen; None where nobody bought.

    They may where they order customers better than the mean of the stage, the interval over customers above 0, and what
    was bought lies between half and twice what was expected. ``expected`` and ``by_stage`` are (snapshots, horizons).
    """
    if test.amounts is None or not len(test):
        return None
    last = len(test.definition.horizons) - 1
    bought = test.amounts.gross[:, last] / 10.0**test.definition.catalogue.value_decimals
    if not test.amounts.whole[:, last].all() or bought.sum() <= 0:
        return None
    weights = np.vstack([np.ones(len(test), dtype=np.int64), times_drawn(test.customer, draw_keys(DRAWS, seed))])
    model, plain = (normalised_gini(bought, one[:, last], weights) for one in (expected, by_stage))
    low, high = np.nanquantile((model - plain)[1:], [0.025, 0.975])
    ratio = float(bought.sum() / max(expected[:, last].sum(), 1e-9))
    return AmountVerdict(
        bool(low > 0 and 1 / FACTOR <= ratio <= FACTOR),
        test.definition.horizons[last] // DAY,
        float(model[0]),
        float(model[0] - plain[0]),
        float(low),
        float(high),
        ratio,
    )
