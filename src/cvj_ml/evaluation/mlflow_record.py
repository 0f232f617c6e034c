"""What a training leaves for MLflow: parameters, metrics, tables, plots, signature; never a customer's data.

A backtest as tables, plots and metrics: the last fold apart, since earlier ones are for choices.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY, format_duration
from cvj_ml.evaluation.assessment import Assessment, assess, outcomes_of, questions, stacked
from cvj_ml.evaluation.backtesting import MODEL, Evaluated, FoldResult, matured_outcomes, summary
from cvj_ml.evaluation.diagnosis import diagnoses
from cvj_ml.evaluation.outcome_evaluation import evaluated_outcomes, outcome_table
from cvj_ml.evaluation.over_folds import over_folds
from cvj_ml.evaluation.stage_evaluation import POSTERIOR, FitOfStages, StageEvidence
from cvj_ml.models.hazard.fitting import feature_names
from cvj_ml.models.hazard.reach import hazards
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import Fit
from cvj_ml.panel.panel import HazardRows, Panel, hazard_rows
from cvj_ml.windows import edges, to_datetime

# Plots are imported where they are drawn: matplotlib takes most of a second, which a night would wait for as well.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


MOST_HEADLINES = 60
"""Metrics of a run that MLflow shows and compares; all of them stand in its file of metrics."""

_QUESTION = r"\.(?:return|reach)\.\d+d$"
_HEADLINES = (
    rf"(?:test|backtest)\.log_loss{_QUESTION}",
    rf"(?:test|backtest)\.decomposition\.(?:observed_expected|auc){_QUESTION}",
    rf"(?:test|backtest)\.calibration_slope{_QUESTION}",
    rf"backtest\.over_folds\.log_loss_(?:mean|won){_QUESTION}",
    r"stage\.(?!mix\.)",
    r"(?:test|backtest)\.auc\.(?!\w+__)\w+\.\d+d$",
)


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the few metrics that stand for a run: all of them where they are few, else those of whole questions.

    Of a transition, a bound or a baseline none is among them; log loss comes first.
    """
    if len(metrics) <= MOST_HEADLINES:
        return dict(metrics)
    found = [name for pattern in _HEADLINES for name in metrics if re.match(pattern, name)]
    return {name: metrics[name] for name in found[:MOST_HEADLINES]}


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
        **{f"trees_{name}": value for name, value in fit.choice.settings.as_dict().items()},
        "calibrated": str(fit.choice.slopes is not None),
        "ridge_share_return": fit.choice.ridge_share[0],
        "ridge_share_reach": fit.choice.ridge_share[1],
        "year_ago_years": len(predictor.year_ago.errors) if predictor.year_ago else 0,
        "calendar_kinds": " ".join(predictor.trees.calendar.kinds) if predictor.trees.calendar else "none",
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
    """Return the observable targets, and the outcomes, that rest on base rates."""
    journey = predictor.definition.journey
    asked = [0, *(1 + i for i in predictor.definition.journey.observable)]
    names = ["return", *journey.names]
    low = [names[j] for j in asked if predictor.trees.low[j]]
    # A model that is only measured has no outcomes.
    own = zip(predictor.definition.own_outcomes, predictor.outcomes, strict=False)
    return [*low, *(one.name for one, model in own if model.trees.low[0])]


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
    from cvj_ml.evaluation import plots

    test, found = result.panel, matured_outcomes(result.panel)
    for h, horizon in enumerate(panel.definition.horizons):
        known = found.known[:, 1:, h] & np.isfinite(result.probabilities[MODEL][:, 1:, h])
        converted = found.converted[:, 1:, h][known]
        name = f"{horizon // DAY}d"
        if converted.any() and not converted.all():
            title = f"Reach of later stages within {horizon // DAY} days"
            yield (
                f"calibration_{name}",
                plots.reliability(converted, result.probabilities[MODEL][:, 1:, h][known], title),
            )
            contenders = {kind: p[:, 1:, h][known] for kind, p in result.probabilities.items()}
            if all(np.isfinite(p).all() for p in contenders.values()):
                yield f"gain_{name}", plots.gain_curve(converted, contenders, title)
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
                [float(rows.converted[rows.interval == m].sum()) for m in counted],
                [f"{low}-{high}" for low, high in itertools.pairwise(bounds)],
                "Expected and observed events by interval",
            ),
        )


def _hazards(result: FoldResult, rows: HazardRows) -> npt.NDArray[np.float64]:
    """Return the fold model's calibrated hazards on its own test rows."""
    test, fit = result.panel, result.fit
    return hazards(fit.trees, fit.calibration, test.x, test.stage, rows, as_of=test.as_of)


_EVERY_FOLD = ("cells", "means", "calibration", "decomposition")
QUESTIONS = {"reach": "reach a later stage", "return": "return"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Tables over all folds, with the column ``fold`` first, and plots and metrics of the last one.

    tables: cells, means, calibration and decomposition of every fold (`Assessment`), with what it says in words
    (diagnosis) and over all folds (over_folds, without the column); outcomes of every fold (`outcome_table`); then
    failing and baseline_wins of the last one,
    then subgroup_gaps of the last one and model_age, where they were asked for. by_fold: the headline of each fold.
    """

    folds: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure]
    metrics: Mapping[str, float]
    by_fold: tuple[Mapping[str, float], ...]

    def last(self, table: str) -> pd.DataFrame:
        """Return the rows of the last fold, without the column ``fold``."""
        frame = self.tables[table]
        return frame.loc[frame["fold"] == self.folds[-1]].drop(columns="fold").reset_index(drop=True)


def evaluation_of(
    results: Sequence[FoldResult],
    keys: npt.NDArray[np.uint64],
    gaps: Sequence[pd.DataFrame] = (),
    model_age: pd.DataFrame | None = None,
) -> Evaluation:
    """Assess every fold, the oldest first; ``gaps`` are those of the last fold, one table a segment."""
    zone = results[-1].panel.definition.zone
    folds = tuple(to_datetime(result.fold.cut, zone).date().isoformat() for result in results)
    assessed = [assess(result.evaluated, keys) for result in results]
    tables = {name: _over_folds(assessed, folds, name) for name in _EVERY_FOLD}
    tables["diagnosis"] = diagnoses(tables["decomposition"], MODEL)
    tables["over_folds"] = over_folds(tables["decomposition"])
    tables["outcomes"] = _fold_by_fold([outcome_table(evaluated_outcomes(one), keys) for one in results], folds)
    last = slice(len(folds) - 1, None)
    tables |= {name: _over_folds(assessed[last], folds[last], name) for name in ("failing", "baseline_wins")}
    if gaps:
        joined = pd.concat(gaps, ignore_index=True)
        joined.insert(0, "fold", folds[-1])
        tables["subgroup_gaps"] = joined
    if model_age is not None and len(model_age):
        tables["model_age"] = model_age
    figures = dict(_reliability(results[-1].evaluated))
    figures |= dict(_parts(tables["decomposition"])) if len(folds) > 1 else {}
    figures |= dict(_ageing(model_age)) if model_age is not None else {}
    by_fold = tuple(dict(headline_metrics(one, "backtest")) for one in assessed)
    metrics = {**by_fold[-1], **dict(_over_folds_metrics(tables["over_folds"]))}
    metrics |= dict(outcome_metrics(tables["outcomes"][tables["outcomes"]["fold"] == folds[-1]], "backtest"))
    return Evaluation(folds, tables, figures, metrics, by_fold)


def _over_folds(assessed: Sequence[Assessment], folds: Sequence[str], name: str) -> pd.DataFrame:
    return _fold_by_fold([getattr(one, name) for one in assessed], folds)


def _fold_by_fold(tables: Sequence[pd.DataFrame], folds: Sequence[str]) -> pd.DataFrame:
    """Return the tables of several folds as one, with the column ``fold`` first."""
    named = []
    for one, fold in zip(tables, folds, strict=True):
        table = one.copy()
        table.insert(0, "fold", pd.Series(fold, index=table.index, dtype="str"))
        named.append(table)
    return pd.concat(named, ignore_index=True)


def _reliability(evaluated: Evaluated) -> Iterator[tuple[str, Figure]]:
    from cvj_ml.evaluation import plots

    cells = [cell for cell in evaluated.cells() if evaluated.evaluable(cell)]
    for question, h, here in questions(evaluated, cells):
        days = evaluated.horizons[h] // DAY
        converted, _ = outcomes_of(evaluated, here)
        title = f"Predicted and observed: {QUESTIONS[question]} within {days} days"
        yield f"reliability_{question}_{days}d", plots.reliability(converted, stacked(evaluated, here, MODEL), title)


def _ageing(table: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    from cvj_ml.evaluation import plots

    for (question, days), rows in table.groupby(["question", "horizon_days"]):
        title = f"What an older model loses: {QUESTIONS[str(question)]} within {days} days"
        lost, low, high = (rows[f"lost_by_age{bound}"] for bound in ("", "_low", "_high"))
        yield f"model_age_{question}_{days}d", plots.ageing(rows["age_days"], lost, low, high, title)


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    from cvj_ml.evaluation import plots

    for (question, days), rows in table[table["contender"] == MODEL].groupby(["question", "horizon_days"]):
        title = f"Level and ranking, fold by fold: {QUESTIONS[str(question)]} within {days} days"
        yield f"level_and_ranking_{question}_{days}d", plots.level_and_ranking(rows, title)


def _over_folds_metrics(table: pd.DataFrame) -> Iterator[tuple[str, float]]:
    for row in table[table["contender"] == MODEL].to_dict("records"):
        for name in ("mean", "standard_error", "worst", "won"):
            if np.isfinite(value := float(row[name])):
                yield f"backtest.over_folds.{row['figure']}_{name}.{row['question']}.{row['horizon_days']}d", value


def outcome_metrics(found: pd.DataFrame, prefix: str) -> Iterator[tuple[str, float]]:
    """Yield the model's figures for each outcome, as `headline_metrics` does."""
    for row in found[found["contender"] == MODEL].to_dict("records"):
        for name in ("log_loss", "log_loss_low", "log_loss_high", "auc", "observed_expected", "lift_10"):
            if np.isfinite(value := float(row[name])):
                yield f"{prefix}.{name}.{row['outcome']}.{row['horizon_days']}d", value


def headline_metrics(assessment: Assessment, prefix: str) -> Iterator[tuple[str, float]]:
    """Yield a fold's means, pooled calibration and decomposition with their bounds, under names for MLflow."""
    means = assessment.means[assessment.means["contender"] == MODEL]
    figures = {"means": ("log_loss",), "calibration": ("observed_expected", "calibration_slope")}
    for table, names in ((means, figures["means"]), (assessment.calibration, figures["calibration"])):
        for row in table.to_dict("records"):
            for name in names:
                for bound in ("", "_low", "_high"):
                    if np.isfinite(value := float(row[f"{name}{bound}"])):
                        yield f"{prefix}.{name}{bound}.{row['question']}.{row['horizon_days']}d", value
    parts = assessment.decomposition
    for row in parts[parts["contender"] == MODEL].to_dict("records"):
        for name in parts.columns.drop(["question", "horizon_days", "contender", "transitions"]):
            if np.isfinite(value := float(row[name])):
                yield f"{prefix}.decomposition.{name}.{row['question']}.{row['horizon_days']}d", value
