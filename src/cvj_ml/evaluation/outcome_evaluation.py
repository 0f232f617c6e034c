"""How good the outcomes' probabilities are: churn and purchase, over all customers who are asked.

An outcome is evaluated as the return is, beside the same baselines, fitted for it in the same fold; the one by stage
and recency is the rule of thumb that most teams use ("silent for so long: at risk"). Of ``kept`` the opposite is shown:
churn by silence, so that the top of the ranking are those who leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.evaluation.assessment import assess
from cvj_ml.evaluation.backtesting import Evaluated, FoldResult, evaluated
from cvj_ml.evaluation.metrics import lift_at
from cvj_ml.journey import KEPT, in_scores

LIFT_SHARES = (0.05, 0.1, 0.2)
"""Shares of the customers at the top of a ranking, for which lift is told."""

_SHOWN = ("n", "converted", "log_loss", "log_loss_low", "log_loss_high", "auc")
_ABOVE = ("log_loss_above_model", "log_loss_above_model_low", "log_loss_above_model_high")
_LEVEL = ("observed_expected", "observed_expected_low", "observed_expected_high", "calibration_slope")


def evaluated_outcomes(result: FoldResult) -> dict[str, Evaluated]:
    """Return a fold's customers with what became of them, for each outcome that has a model of its own.

    Names are those of the columns of SCORES.
    """
    found = {}
    for one in result.panel.definition.own_outcomes:
        of_outcome = evaluated(result.panel.asking(one), result.outcome_probabilities[one.name])
        found[in_scores(one.name)] = _opposite(of_outcome) if one.name == KEPT else of_outcome
    return found


def _opposite(of_outcome: Evaluated) -> Evaluated:
    """Return the same customers, asked whether the event does not happen."""
    return replace(
        of_outcome,
        converted=~of_outcome.converted,
        probabilities={name: 1 - p for name, p in of_outcome.probabilities.items()},
    )


def outcome_table(outcomes: Mapping[str, Evaluated], keys: npt.NDArray[np.uint64]) -> pd.DataFrame:
    """Return a row for each outcome, horizon and contender; ``keys`` are those of the draws (`draw_keys`).

    ``lift_<percent>`` is how much more often it happened to the likeliest than to all. Horizons within which fewer than
    ten customers moved, or fewer than ten did not, have no row.
    """
    rows = []
    for name, of_outcome in outcomes.items():
        cells = {cell.horizon: cell for cell in of_outcome.cells() if cell.target == 0}
        assessed = assess(of_outcome, keys)
        days = [horizon // DAY for horizon in of_outcome.horizons]
        for row in assessed.cells.to_dict("records"):
            cell = cells[days.index(row["horizon_days"])]
            happened = of_outcome.converted_in(cell)
            p = of_outcome.predicted(str(row["contender"]), cell)
            rows.append(
                {
                    "outcome": name,
                    "horizon_days": row["horizon_days"],
                    "contender": row["contender"],
                    **{figure: row[figure] for figure in (*_SHOWN, *_ABOVE, *_LEVEL)},
                    **{f"lift_{share * 100:g}": lift_at(happened, p, share) for share in LIFT_SHARES},
                }
            )
    lifts = [f"lift_{share * 100:g}" for share in LIFT_SHARES]
    return pd.DataFrame(rows, columns=["outcome", "horizon_days", "contender", *_SHOWN, *_ABOVE, *_LEVEL, *lifts])
