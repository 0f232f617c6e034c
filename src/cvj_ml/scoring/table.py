"""A block's customers as rows of SCORES."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml import contracts
from cvj_ml.config import DAY
from cvj_ml.histories import Block
from cvj_ml.models.predictor import Answers, Predictor
from cvj_ml.panel import Definition


def scores_contract(definition: Definition) -> contracts.Contract:
    """Return the contract of the SCORES that a model of this definition gives."""
    days = [horizon // DAY for horizon in definition.horizons]
    slugs = [stage.slug for stage in definition.journey.stages]
    return contracts.scores(slugs, {slugs[i]: days for i in definition.observable[1:]}, days)


def score_block(predictor: Predictor, block: Block, as_of: int, model_version: str) -> pa.Table:
    """Score a block's customers at one instant; rows sorted by customer."""
    return as_table(predictor, block, predictor.answer(block, as_of), as_of, model_version)


def as_table(predictor: Predictor, block: Block, answers: Answers, as_of: int, model_version: str) -> pa.Table:
    """Return a model's answers as rows of SCORES."""
    definition = predictor.definition
    customers = [block.customers[i] for i in answers.snapshots.customer]
    stages = definition.journey.stages
    names = pa.array([*definition.journey.names, None], pa.string())
    predicted = np.where(answers.stage < 0, -1, np.argmax(np.nan_to_num(answers.true_stage), axis=1))
    days = [horizon // DAY for horizon in definition.horizons]
    columns: dict[str, object] = {
        "customer_id": customers,
        "as_of": np.full(len(customers), as_of).astype("datetime64[us]"),
        "stage": names.take(pa.array(answers.stage.astype(np.int64) % len(names))),
        "days_in_stage": answers.days_in_stage,
        "dormant": answers.dormant,
        "stage_predicted": names.take(pa.array(predicted % len(names))),
        "stage_probability": answers.true_stage.max(axis=1),
    }
    for i, stage in enumerate(stages):
        columns[f"p_stage_{stage.slug}"] = answers.true_stage[:, i]
    for h, day in enumerate(days):
        columns[f"p_return_{day}d"] = answers.probability[:, 0, h]
    advance = _advance(definition, answers)
    for h, day in enumerate(days):
        columns[f"p_advance_{day}d"] = advance[:, h]
    for i in definition.observable[1:]:
        for h, day in enumerate(days):
            columns[f"p_reach_{stages[i].slug}_{day}d"] = answers.probability[:, 1 + i, h]
    columns["low_evidence"] = _low_evidence(predictor, answers)
    columns["model_version"] = pa.repeat(model_version, len(customers))
    schema = scores_contract(definition).schema
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values, schema.field(name).type, from_pandas=True)
        for name, values in columns.items()
    }
    return pa.table(arrays, schema)


def _advance(definition: Definition, answers: Answers) -> npt.NDArray[np.float64]:
    """Return reach of the next observable stage; NaN at the top."""
    following = np.array(
        [
            next((1 + i for i in definition.observable if i > stage), 0)
            for stage in range(-1, len(definition.journey.stages))
        ]
    )[answers.stage.astype(np.int64) + 1]
    chosen = answers.probability[np.arange(len(following)), following]
    return np.where(following[:, None] == 0, np.nan, chosen)


def _low_evidence(predictor: Predictor, answers: Answers) -> pa.Array:
    """Name, per customer, the asked targets that rest on base rates, at some horizon at least."""
    names = ["return", *predictor.definition.journey.names]
    # Who stands in the same stage is asked about the same targets, with the same evidence.
    texts = [[names[j] for j in np.flatnonzero(weak)] for weak in np.logical_or.reduce(predictor.low_evidence, axis=2)]
    return pa.array(texts, pa.list_(pa.string())).take(pa.array(answers.stage.astype(np.int64) + 1))
