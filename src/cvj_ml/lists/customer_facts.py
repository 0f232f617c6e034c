"""Everything that speaks for and against the later stages of one customer, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.errors import ModelError
from cvj_ml.lists.reasons import by_fact, fact_in_words
from cvj_ml.models.explain.explanation import Explainer
from cvj_ml.models.predictor import Predictions, Predictor


def facts_of_customer(predictor: Predictor, answers: Predictions, row: int) -> pd.DataFrame:
    """Return a row a later stage, horizon and fact of one customer, the weightiest fact first.

    ``row`` is the customer's in the answers. Facts of a stage and horizon add up to ``margin - base`` (log odds of the
    hazard); ``reason`` tells one in words, None where the customer is as typical ones are.
    """
    if predictor.reference is None:
        raise ModelError("This model does not know what is typical of its customers, so it gives no reasons.")
    definition, reference, explainer = predictor.definition, predictor.reference, Explainer(predictor)
    names, stage = definition.journey.names, int(answers.stage[row])
    x, typical = answers.x[row : row + 1], reference.typical[stage + 1]
    here = names[stage] if stage >= 0 else ""
    whom = here if stage >= 0 and reference.own[stage + 1] else None
    rows: list[dict[str, object]] = []
    for target in range(1, 1 + len(names)):
        for h, horizon in enumerate(definition.horizons):
            probability = float(answers.probability[row, target, h])
            if np.isnan(probability):
                continue
            found = explainer.explain(x, stage, target, h + 1, typical)
            facts = by_fact(definition, found, here)
            sums = facts.contributions[0]
            for k in np.argsort(-np.abs(sums), kind="stable"):
                if sums[k]:
                    words = fact_in_words(
                        definition,
                        facts.columns[k],
                        sums[k],
                        found.contributions[0],
                        x[0].tolist(),
                        typical.tolist(),
                        whom,
                    )
                    rows.append(
                        {
                            "to": names[target - 1],
                            "horizon_days": horizon // DAY,
                            "probability": probability,
                            "margin": float(facts.margin[0]),
                            "base": float(facts.base[0]),
                            "fact": " ".join(facts.names[k]).replace("_", " "),
                            "contribution": float(sums[k]),
                            "reason": words,
                        }
                    )
    columns = ["to", "horizon_days", "probability", "margin", "base", "fact", "contribution", "reason"]
    return pd.DataFrame(rows, columns=columns)
