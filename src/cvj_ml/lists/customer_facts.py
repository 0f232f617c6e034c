"""Everything that speaks for and against the later stages of one customer, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.lists.reasons import by_fact, fact_in_words
from cvj_ml.models.explain.explanation import Explainer
from cvj_ml.models.explain.typical import Reference
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.panel.labels import RETURN


def facts_of_customer(predictor: Predictor, reference: Reference, answers: Predictions, row: int) -> pd.DataFrame:
    """Return a row a later stage, horizon and fact of one customer, the weightiest fact first.

    ``row`` is the customer's in the answers. Facts of a stage and horizon add up to ``margin - base`` (log odds of the
    hazard); ``reason`` tells one in words, None where the customer is as typical ones are.
    """
    definition, explainer, stage = predictor.definition, Explainer(predictor), int(answers.stage[row])
    names, x, typical = definition.journey.names, answers.x[row : row + 1], reference.typical[stage + 1]
    here = names[stage] if stage >= 0 else ""
    whom = here if stage >= 0 and reference.own[stage + 1] else None
    mine, usual = x[0].tolist(), typical.tolist()
    as_of = int(answers.snapshots.as_of[row])
    rows: list[dict[str, object]] = []
    for target, h in np.argwhere(~np.isnan(answers.probability[row])).tolist():
        if target == RETURN:
            continue
        found = explainer.explain(x, stage, target, h + 1, typical, as_of)
        facts = by_fact(definition, found, here)
        sums, by_column = facts.contributions[0], found.contributions[0]
        asked = {
            "to": names[target - 1],
            "horizon_days": definition.horizons[h] // DAY,
            "probability": float(answers.probability[row, target, h]),
            "margin": float(facts.margin[0]),
            "base": float(facts.base[0]),
        }
        for k in (k for k in np.argsort(-np.abs(sums), kind="stable") if sums[k]):
            told = {
                "fact": " ".join(facts.names[k]).replace("_", " "),
                "contribution": float(sums[k]),
                "reason": fact_in_words(definition, facts.columns[k], sums[k], by_column, mine, usual, whom),
            }
            rows.append({**asked, **told})
    columns = ["to", "horizon_days", "probability", "margin", "base", "fact", "contribution", "reason"]
    return pd.DataFrame(rows, columns=columns)
