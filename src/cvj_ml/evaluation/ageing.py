"""What a model loses by standing still: each fold's model at later folds, too, beside the one refitted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.evaluation.assessment import bounds, outcomes_of, questions, stacked
from cvj_ml.evaluation.backtesting import MODEL, FoldResult
from cvj_ml.evaluation.bootstrap import paired_difference
from cvj_ml.evaluation.metrics import log_loss_terms
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.windows import to_datetime

OLDER = "older model"

_COLUMNS = [
    "model_of", "judged_at", "age_days", "question", "horizon_days", "n", "converted", "log_loss", "log_loss_refitted",
    "lost_by_age", "lost_by_age_low", "lost_by_age_high",
]  # fmt: skip


def loss_by_age(run: Run, results: Sequence[FoldResult], keys: npt.NDArray[np.uint64]) -> pd.DataFrame:
    """Return how much log loss each fold's model has lost at every later fold against the one refitted there.

    One row for each pair of folds, question and horizon; both models are evaluated on the same customers.
    """
    rows: list[dict[str, object]] = []
    for k, older in enumerate(results):
        for newer in results[k + 1 :]:
            instant = np.array([newer.fold.cut], dtype=np.int64)
            # The older model's own features: its vocabulary is that of its cut.
            panel = build_panel(older.predictor.definition, run.blocks, instant, newer.fold.until, run.arrival_delay)
            if not np.array_equal(panel.customer, newer.panel.customer):
                raise AssertionError("the same instant has other customers under another model")
            predicted = {MODEL: newer.probabilities[MODEL], OLDER: older.predictor.predict(panel, run.threads)}
            rows += _compare(older, newer, predicted, keys)
    return pd.DataFrame(rows, columns=_COLUMNS)


def _compare(
    older: FoldResult, newer: FoldResult, predicted: dict[str, npt.NDArray[np.float64]], keys: npt.NDArray[np.uint64]
) -> list[dict[str, object]]:
    evaluated, zone = replace(newer.evaluated, probabilities=predicted), newer.panel.definition.zone
    rows: list[dict[str, object]] = []
    for question, h, cells in questions(evaluated, [cell for cell in evaluated.cells() if evaluated.evaluable(cell)]):
        converted, customer = outcomes_of(evaluated, cells)
        refitted, aged = (log_loss_terms(converted, stacked(evaluated, cells, name)) for name in (MODEL, OLDER))
        lost, _ = paired_difference(aged, refitted, customer, keys)
        rows.append(
            {
                "model_of": to_datetime(older.fold.cut, zone).date().isoformat(),
                "judged_at": to_datetime(newer.fold.cut, zone).date().isoformat(),
                "age_days": round((newer.fold.cut - older.fold.cut) / DAY),
                "question": question,
                "horizon_days": evaluated.horizons[h] // DAY,
                "n": len(converted),
                "converted": int(converted.sum()),
                "log_loss": float(aged.mean()),
                "log_loss_refitted": float(refitted.mean()),
                **bounds("lost_by_age", lost),
            }
        )
    return rows
