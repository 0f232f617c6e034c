"""SCORES: one row a customer, for one instant."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml import contracts
from cvj_ml.config import DAY, Config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import ModelError, raise_all
from cvj_ml.histories import Block
from cvj_ml.models.bundle import Bundle, Canary, load
from cvj_ml.models.canary import canary_block
from cvj_ml.models.predictor import Answers, Predictor
from cvj_ml.models.reach import questions
from cvj_ml.panel import Definition
from cvj_ml.sources import ingest
from cvj_ml.windows import parse_as_of, to_datetime

_TOLERANCE = 1e-9


def scores_contract(definition: Definition) -> contracts.Contract:
    """Return the contract of the SCORES that a model of this definition gives."""
    days = [horizon // DAY for horizon in definition.horizons]
    slugs = [stage.slug for stage in definition.journey.stages]
    return contracts.scores(slugs, {slugs[i]: days for i in definition.observable[1:]}, days)


def score_block(predictor: Predictor, block: Block, as_of: int, model_version: str) -> pa.Table:
    """Score a block's customers at one instant; rows sorted by customer."""
    return _as_table(predictor, block, predictor.answer(block, as_of), as_of, model_version)


def _as_table(predictor: Predictor, block: Block, answers: Answers, as_of: int, model_version: str) -> pa.Table:
    definition = predictor.definition
    customers = [block.customers[i] for i in answers.snapshots.customer]
    stages = definition.journey.stages
    names = np.array([stage.name for stage in stages] + [None], dtype=object)
    predicted = np.where(answers.stage < 0, -1, np.argmax(np.nan_to_num(answers.true_stage), axis=1))
    days = [horizon // DAY for horizon in definition.horizons]
    columns: dict[str, object] = {
        "customer_id": customers,
        "as_of": np.full(len(customers), as_of).astype("datetime64[us]"),
        "stage": names[answers.stage],
        "days_in_stage": answers.days_in_stage,
        "dormant": answers.dormant,
        "stage_predicted": names[predicted],
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
    columns["low_evidence"] = _low_evidence(definition, predictor.trees.low, answers)
    columns["model_version"] = [model_version] * len(customers)
    schema = scores_contract(definition).columns
    return pa.table(
        {name: _array(values, schema[name]) for name, values in columns.items()}, schema=pa.schema(schema.items())
    )


def _array(values: object, kind: pa.DataType) -> pa.Array:
    return pa.array(values, type=kind, from_pandas=True)


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


def _low_evidence(definition: Definition, low: npt.NDArray[np.bool_], answers: Answers) -> list[list[str]]:
    """Name, per customer, the asked targets that rest on base rates."""
    names = ["return", *definition.journey.names]
    weak = definition.asked(answers.stage) & low
    kinds, which = np.unique(weak, axis=0, return_inverse=True) if len(weak) else (weak, np.zeros(0, dtype=np.int64))
    texts = [[names[j] for j in np.flatnonzero(kind)] for kind in kinds]
    return [texts[k] for k in which]


def merge_scores(parts: Sequence[pa.Table]) -> pa.Table:
    """Return all blocks' scores in one table, sorted by customer_id."""
    table = pa.concat_tables(parts)
    return table.take(pc.sort_indices(table, sort_keys=[("customer_id", "ascending")])).combine_chunks()


def make_canary(predictor: Predictor, as_of: int, seed: int) -> Canary:
    """Return simulated customers over the model's vocabulary with the scores that the model gives them."""
    block = canary_block(predictor.definition, as_of, seed)
    return Canary(block, as_of, _without_version(score_block(predictor, block, as_of, "")))


def open_bundle(folder: Path, digest: str | None = None) -> Bundle:
    """Verify and load a bundle, then score its canary: a changed kernel or library must not go unseen.

    The compiled trees have to give LightGBM's own raw scores, to the last bit.
    """
    bundle = load(folder, digest)
    predictor, canary = bundle.predictor, bundle.canary
    answers = predictor.answer(canary.block, canary.as_of)
    if different := _unlike_lightgbm(predictor, answers):
        raise ModelError(
            f"{folder}: the compiled trees differ from LightGBM's predictions in {different} row(s) of the canary."
            f" Empty the folder of compiled code (CVJ_ML_CACHE, by default ~/.cache/cvj_ml) and try again; if it stays,"
            f" the installed numba or LightGBM is at fault."
        )
    found = _without_version(_as_table(predictor, canary.block, answers, canary.as_of, ""))
    faults = _differences(canary.scores, found)
    raise_all(
        ModelError,
        f"{folder}: the model scores its canary differently from when it was saved; train anew with this version:",
        faults,
    )
    return bundle


def _unlike_lightgbm(predictor: Predictor, answers: Answers) -> int:
    """Return how many rows of the canary the compiled trees score otherwise than LightGBM."""
    rows = questions(predictor.definition.asked(answers.stage), len(predictor.definition.horizons))
    compiled = predictor.trees.margins(answers.x, answers.stage, rows)
    return int((compiled != predictor.trees.margins_by_lightgbm(answers.x, answers.stage, rows)).sum())


def _without_version(scores: pa.Table) -> pa.Table:
    return scores.drop_columns(["model_version"])


def _differences(expected: pa.Table, found: pa.Table) -> list[str]:
    if expected.column_names != found.column_names or len(expected) != len(found):
        return ["its tables have other columns or another number of customers"]
    faults = []
    for name in expected.column_names:
        if pa.types.is_floating(expected[name].type):
            a, b = (table[name].to_numpy(zero_copy_only=False) for table in (expected, found))
            same = np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
        else:
            same = expected[name].combine_chunks().equals(found[name].combine_chunks())
        if not same:
            faults.append(f"the column {name} differs")
    return faults


def score_touchpoints(bundle_folder: Path, touchpoints: pd.DataFrame, as_of: str) -> pd.DataFrame:
    """Score the customers of a table of canonical touchpoints: the entry point of other MLflow tools.

    The rows go through the same ingest as any source. Attributes are not part of this table, so a model that uses
    them sees none.
    """
    bundle = open_bundle(bundle_folder)
    definition = bundle.predictor.definition
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "touchpoints.parquet")
        touchpoints.to_parquet(source)
        config = Config.model_validate(
            {
                "name": "model",
                "time_zone": definition.time_zone,
                "history_from": to_datetime(definition.observed_from, definition.zone).date(),
                "sources": {
                    "touchpoints": {"path": str(source), "columns": {name: name for name in touchpoints.columns}}
                },
                "journey": definition.journey.model_dump(mode="json", exclude_defaults=True),
                "value_decimals": definition.catalogue.value_decimals,
                "outbound": definition.outbound,
                "out": folder,
            }
        )
        store = ingest(config)
        instant = parse_as_of(as_of, definition.zone)
        tables = LocalEngine(store).map(lambda block: score_block(bundle.predictor, block, instant, bundle.version))
    frame: pd.DataFrame = merge_scores(tables).to_pandas()
    return frame
