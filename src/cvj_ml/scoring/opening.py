"""A bundle is opened only if it scores its canary as it did when it was saved."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa

from cvj_ml.errors import ModelError, raise_all
from cvj_ml.features import require_functions
from cvj_ml.models.bundle.bundle import Bundle, Canary, load
from cvj_ml.models.bundle.canary import canary_block
from cvj_ml.models.hazard.reach import prediction_rows
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.scoring.scores_table import as_table, score_block

_TOLERANCE = 1e-9


def make_canary(predictor: Predictor, as_of: int, seed: int) -> Canary:
    """Return simulated customers over the model's vocabulary with the scores that the model gives them."""
    block = canary_block(predictor.definition, as_of, seed)
    return Canary(block, as_of, _without_version(score_block(predictor, block, as_of, "")))


def open_bundle(folder: Path, digest: str | None = None, functions: Collection[str] | None = ()) -> Bundle:
    """Verify and load a bundle, then score its canary: a changed kernel or library must not go unseen.

    The compiled trees have to give LightGBM's own raw scores, to the last bit. ``functions`` are those of features of
    one's own that may be imported for it, as the configuration names them; None: whatever the bundle names.
    """
    bundle = load(folder, digest)
    require_functions(bundle.predictor.definition.catalogue.custom, functions, str(folder))
    predictor, canary = bundle.predictor, bundle.canary
    answers = predictor.answer(canary.block, canary.as_of)
    if different := _unlike_lightgbm(predictor, answers):
        raise ModelError(
            f"{folder}: the compiled trees differ from LightGBM's predictions in {different} row(s) of the canary."
            f" Empty the folder of compiled code (CVJ_ML_CACHE, by default ~/.cache/cvj_ml) and try again; if it stays,"
            f" the installed numba or LightGBM is at fault."
        )
    found = _without_version(as_table(predictor, canary.block, answers, canary.as_of, ""))
    faults = _differences(canary.scores, found)
    raise_all(
        ModelError,
        f"{folder}: the model scores its canary differently from when it was saved; train anew with this version:",
        faults,
    )
    return bundle


def _unlike_lightgbm(predictor: Predictor, answers: Predictions) -> int:
    """Return how many rows of the canary the compiled trees score otherwise than LightGBM."""
    models = [predictor, *(predictor.asking(one) for one in predictor.definition.own_outcomes)]
    different = 0
    for one in models:
        rows = prediction_rows(one.definition.at_risk(answers.stage), len(one.definition.horizons))
        compiled = one.trees.margins(answers.x, answers.stage, rows)
        different += int((compiled != one.trees.margins_by_lightgbm(answers.x, answers.stage, rows)).sum())
    return different


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
