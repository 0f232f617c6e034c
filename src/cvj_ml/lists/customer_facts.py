"""Everything that speaks for and against the later stages of one customer, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cvj_ml.config import DAY, Config
from cvj_ml.histories import Block
from cvj_ml.lists.last_events import Unhappy, last_events
from cvj_ml.lists.reasons import Customer, by_fact, events_wanted, facts_of_row, reason_of
from cvj_ml.models.explain.explanation import Explainer
from cvj_ml.models.explain.typical import Reference
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.panel.labels import RETURN


def facts_of_customer(
    predictor: Predictor, reference: Reference, block: Block, answers: Predictions, row: int, config: Config
) -> pd.DataFrame:
    """Return a row a later stage, horizon and fact of one customer, the weightiest fact first.

    ``row`` is the customer's in the answers of the block. Facts of a stage and horizon add up to ``margin - base`` (log
    odds of the hazard); ``reason`` tells one in words, None where it cannot be told (docs/reasons.md).
    """
    definition, explainer, stage = predictor.definition, Explainer(predictor), int(answers.stage[row])
    names, x, typical = definition.journey.names, answers.x[row : row + 1], reference.typical[stage + 1]
    as_of = int(answers.snapshots.as_of[row])
    customer = Customer(
        definition,
        x[0].tolist(),
        typical.tolist(),
        names[stage] if stage >= 0 and reference.own[stage + 1] else None,
        last_events(
            definition,
            block,
            int(answers.snapshots.customer[row]),
            as_of,
            Unhappy.of(config),
            config.report.currency,
        ),
        events_wanted(definition),
    )
    rows: list[dict[str, object]] = []
    for target, h in np.argwhere(~np.isnan(answers.probability[row])).tolist():
        if target == RETURN:
            continue
        found = explainer.explain(x, stage, target, h + 1, typical, as_of)
        facts = by_fact(definition, found)
        asked = {
            "to": names[target - 1],
            "horizon_days": definition.horizons[h] // DAY,
            "probability": float(answers.probability[row, target, h]),
            "margin": float(facts.margin[0]),
            "base": float(facts.base[0]),
        }
        for fact, members, contribution in facts_of_row(customer, facts, 0):
            if not contribution:
                break
            reason = reason_of(customer, members, contribution, found.contributions[0])
            told = {
                "fact": " ".join(fact).replace("_", " "),
                "contribution": contribution,
                "reason": reason.text if reason else None,
            }
            rows.append({**asked, **told})
    columns = ["to", "horizon_days", "probability", "margin", "base", "fact", "contribution", "reason"]
    return pd.DataFrame(rows, columns=columns)
