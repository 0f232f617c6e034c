"""What a training leaves for MLflow: parameters, metrics, tables, plots, signature; never a customer's data."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from cvj_ml.config import DAY, format_duration
from cvj_ml.evaluation import plots
from cvj_ml.evaluation.backtest import MODEL, FoldResult, outcomes, summary
from cvj_ml.evaluation.stages import POSTERIOR, FitOfStages, StageEvidence
from cvj_ml.models.fitting import feature_names
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.reach import hazards
from cvj_ml.models.training import Fit
from cvj_ml.panel import HazardRows, Panel, hazard_rows
from cvj_ml.windows import edges, to_datetime

_METRICS = (
    "log_loss",
    "brier",
    "auc",
    "average_precision",
    "lift_1",
    "lift_5",
    "lift_10",
    "gain_10",
    "calibration_slope",
    "expected_calibration_error",
    "observed_expected",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Parameters, metrics, tables and figures of one training."""

    parameters: Mapping[str, str | int | float]
    metrics: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure]


def evidence(
    predictor: Predictor, panel: Panel, result: FoldResult, fit: Fit, stages: FitOfStages | None = None
) -> Evidence:
    """Gather what is shown of a training; all metrics are those of the fold, none of the refitted model."""
    zone = panel.definition.zone
    parameters: dict[str, str | int | float] = {
        **{f"trees_{name}": value for name, value in fit.settings.as_dict().items()},
        "calibrated": str(fit.calibrated),
        "features": len(panel.definition.catalogue.features),
        "snapshots_eligible": panel.eligible,
        "snapshots_used": len(panel),
        "sampled_share": panel.share,
        "late_evidence_dropped": panel.labels.late,
        "fold_cut": to_datetime(result.fold.cut, zone).isoformat(),
        "horizons": " ".join(format_duration(horizon) for horizon in panel.definition.horizons),
        "low_evidence": " ".join(low_targets(predictor)) or "none",
    }
    metrics = dict(_metrics(result.rows))
    tables = {"metrics_per_transition": result.rows, "summary": summary(result.rows)}
    if stages:
        parameters["stage_truth"] = stages.model.source
        tables["stage_mix_if_coverage_is_wrong"] = stages.misstated
        if stages.evidence:
            parameters["stage_customers_judged"] = stages.evidence.customers
            metrics |= dict(_stage_metrics(stages.evidence))
            tables |= {"stage_metrics": stages.evidence.metrics, "stage_mix": stages.evidence.mix}
    return Evidence(
        parameters,
        metrics,
        tables,
        dict(_figures(predictor, panel, result)),
    )


def low_targets(predictor: Predictor) -> list[str]:
    """Return the observable targets that rest on base rates."""
    journey = predictor.definition.journey
    asked = [0, *(1 + i for i in predictor.definition.observable)]
    names = ["return", *journey.names]
    return [names[j] for j in asked if predictor.trees.low[j]]


def _metrics(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    for row in rows.to_dict("records"):
        contender = "test" if row["contender"] == MODEL else f"baseline.{_slug(str(row['contender']))}"
        cell = cell_name(str(row["from"]), str(row["to"]), int(row["horizon_days"]))
        for name in _METRICS if row["contender"] == MODEL else ("log_loss", "auc"):
            value = float(row.get(name, np.nan))
            if np.isfinite(value):
                yield f"{contender}.{name}.{cell}", value


def _stage_metrics(found: StageEvidence) -> Iterator[tuple[str, float]]:
    """Yield the metrics of the current stage, and the mix as ``stage.mix.<stage>``: expected over true customers."""
    for prefix, table in (("", found.metrics), ("mix.", found.mix)):
        for row in table.to_dict("records"):
            contender = "stage" if row["contender"] == POSTERIOR else f"baseline.stage_{_slug(str(row['contender']))}"
            for name, value in row.items():
                if name != "contender" and np.isfinite(value):
                    yield f"{contender}.{prefix}{_slug(str(name))}", float(value)


def cell_name(origin: str, to: str, days: int) -> str:
    """Return how metrics name a transition and horizon, such as ``convert__ascend.30d``."""
    return f"{_slug(origin)}__{_slug(to)}.{days}d"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _figures(predictor: Predictor, panel: Panel, result: FoldResult) -> Iterator[tuple[str, Figure]]:
    test, found = result.panel, outcomes(result.panel)
    for h, horizon in enumerate(panel.definition.horizons):
        known = found.known[:, 1:, h] & np.isfinite(result.probabilities[MODEL][:, 1:, h])
        moved = found.moved[:, 1:, h][known]
        name = f"{horizon // DAY}d"
        if moved.any() and not moved.all():
            title = f"Reach of later stages within {horizon // DAY} days"
            yield f"calibration_{name}", plots.reliability(moved, result.probabilities[MODEL][:, 1:, h][known], title)
            contenders = {kind: p[:, 1:, h][known] for kind, p in result.probabilities.items()}
            if all(np.isfinite(p).all() for p in contenders.values()):
                yield f"gain_{name}", plots.gain_curve(moved, contenders, title)
    if predictor.trees.booster is not None:
        gain = predictor.trees.booster.feature_importance("gain")
        yield "importance", plots.importance(feature_names(panel), gain, "What the trees split on (gain)")
    rows = hazard_rows(test.labels, test.definition.horizons)
    if len(rows):
        expected = _hazards(result, rows)
        bounds = [bound // DAY for bound in edges(test.definition.horizons)]
        counted = range(len(bounds) - 1)
        yield (
            "hazard_calibration",
            plots.hazard_calibration(
                [float(expected[rows.interval == m].sum()) for m in counted],
                [float(rows.moved[rows.interval == m].sum()) for m in counted],
                [f"{low}-{high}" for low, high in itertools.pairwise(bounds)],
                "Expected and observed events by interval",
            ),
        )


def _hazards(result: FoldResult, rows: HazardRows) -> npt.NDArray[np.float64]:
    """Return the fold model's calibrated hazards on its own test rows."""
    test, fit = result.panel, result.fit
    return hazards(fit.trees, fit.calibration, test.x, test.stage, rows)
