"""From the facts of a training to its card: the text, and the same numbers as metrics and tables for MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.engines import Blocks
from cvj_ml.evaluation.assessment import Assessment, assess
from cvj_ml.evaluation.backtesting import MODEL
from cvj_ml.evaluation.mlflow_record import cell_name, headline_metrics, outcome_metrics
from cvj_ml.evaluation.outcome_evaluation import evaluated_outcomes, outcome_table
from cvj_ml.evaluation.segments import gaps, segment
from cvj_ml.model_card import churn_and_purchases, contacts, decomposition, provenance, quality
from cvj_ml.model_card.facts import Training, card_segments

_BOUNDED = ("log_loss", "auc", "observed_expected", "calibration_slope", "expected_calibration_error")


@dataclass(frozen=True, slots=True)
class Card:
    """The card as Markdown, and its numbers: metrics with ``_low`` and ``_high``, and the tables of the assessment.

    What stands before the first ``##`` is the card in short.
    """

    text: str
    metrics: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame]


def write_card(training: Training, blocks: Blocks, keys: npt.NDArray[np.uint64]) -> Card:
    """Assess the fold of a training and write its card; the same training gives the same bytes.

    blocks: all customers, whose subgroups are read as they were known at the fold; keys: of the draws (`draw_keys`).
    """
    result = training.result
    assessment = assess(result.evaluated, keys)
    by = [
        segment(name, blocks, result.fold.cut, result.panel.customer, training.definition.min_customers)
        for name in card_segments(result)
    ]
    # Every further horizon would cost as much again, and hide what differs behind a stricter correction.
    shown = np.isin(result.evaluated.horizons, training.horizons)
    evaluated = replace(result.evaluated, known=result.evaluated.known & shown[None, None, :])
    compared = pd.concat([gaps(evaluated, one, keys) for one in by], ignore_index=True)
    of_outcomes = outcome_table(evaluated_outcomes(result), keys)
    sections = [
        _heading(training, assessment, compared),
        provenance.answered_questions(training),
        provenance.data(training),
        provenance.journey(training),
        provenance.features(training),
        quality.accuracy(training, assessment),
        decomposition.level_slope_ranking(training, assessment),
        quality.calibration(training, assessment),
        churn_and_purchases.churn_and_purchases(training, of_outcomes),
        contacts.what_contacts_change(training),
        quality.current_stage(training),
        quality.subgroups(compared, [one.name for one in by]),
        provenance.blind_spots(training, assessment),
        quality.verdict(training),
        provenance.recipe(training),
    ]
    tables = {
        **{f"fold_{name}": getattr(assessment, name) for name in Assessment.__dataclass_fields__},
        "fold_subgroup_gaps": compared,
        "fold_outcomes": of_outcomes,
    }
    if training.predictor.effects:
        tables["contact_effects"] = contacts.effects_table(training.predictor.effects)
    metrics = dict(_metrics(assessment)) | dict(outcome_metrics(of_outcomes, "test"))
    return Card("\n\n".join(one for one in sections if one) + "\n", metrics, tables)


def _heading(training: Training, assessment: Assessment, compared: pd.DataFrame) -> str:
    points = [
        *decomposition.diagnosis_in_short(training, assessment),
        *quality.quality_in_short(training, assessment, compared),
        *provenance.provenance_in_short(training),
        training.verdict.sentence,
    ]
    title = f"# Model card: {training.config.name}\n\n{provenance.purpose(training)}\n\n"
    return title + "\n".join(f"- {point}" for point in points)


def _metrics(assessment: Assessment) -> Iterator[tuple[str, float]]:
    """Yield the means, and the bounds of every transition, whose estimates `record.evidence` has."""
    yield from headline_metrics(assessment, "test")
    cells = assessment.cells
    for row in cells[cells["contender"] == MODEL].to_dict("records"):
        cell = cell_name(str(row["from"]), str(row["to"]), int(row["horizon_days"]))
        for name in _BOUNDED:
            for bound in ("low", "high"):
                if np.isfinite(value := float(row[f"{name}_{bound}"])):
                    yield f"test.{name}_{bound}.{cell}", value
