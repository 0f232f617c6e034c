"""A backtest as tables, plots and metrics: the last fold apart, since earlier ones are for choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from cvj_ml.config import DAY
from cvj_ml.evaluation import plots
from cvj_ml.evaluation.assessment import Assessment, assess, moves_of, questions, stacked
from cvj_ml.evaluation.backtest import MODEL, FoldResult, Judged
from cvj_ml.windows import to_datetime

QUESTIONS = {"reach": "reach a later stage", "return": "return"}


@dataclass(frozen=True, slots=True)
class Report:
    """Tables over all folds, with the column ``fold`` first, and plots and metrics of the last one.

    tables: cells, means and calibration of every fold (`Assessment`), then failing and baseline_wins of the last one,
    then subgroup_gaps of the last one and model_age, where they were asked for.
    """

    folds: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure]
    metrics: Mapping[str, float]

    def last(self, table: str) -> pd.DataFrame:
        """Return the rows of the last fold, without the column ``fold``."""
        frame = self.tables[table]
        return frame.loc[frame["fold"] == self.folds[-1]].drop(columns="fold").reset_index(drop=True)


def report(
    results: Sequence[FoldResult],
    keys: npt.NDArray[np.uint64],
    gaps: Sequence[pd.DataFrame] = (),
    model_age: pd.DataFrame | None = None,
) -> Report:
    """Assess every fold, the oldest first; ``gaps`` are those of the last fold, one table a segment."""
    zone = results[-1].panel.definition.zone
    folds = tuple(to_datetime(result.fold.cut, zone).date().isoformat() for result in results)
    assessed = [assess(result.judged, keys) for result in results]
    tables = {name: _over_folds(assessed, folds, name) for name in ("cells", "means", "calibration")}
    last = slice(len(folds) - 1, None)
    tables |= {name: _over_folds(assessed[last], folds[last], name) for name in ("failing", "baseline_wins")}
    if gaps:
        joined = pd.concat(gaps, ignore_index=True)
        joined.insert(0, "fold", folds[-1])
        tables["subgroup_gaps"] = joined
    if model_age is not None and len(model_age):
        tables["model_age"] = model_age
    figures = dict(_reliability(results[-1].judged))
    figures |= dict(_ageing(model_age)) if model_age is not None else {}
    return Report(folds, tables, figures, dict(headline_metrics(assessed[-1], "backtest")))


def _over_folds(assessed: Sequence[Assessment], folds: Sequence[str], name: str) -> pd.DataFrame:
    tables = []
    for one, fold in zip(assessed, folds, strict=True):
        table: pd.DataFrame = getattr(one, name).copy()
        table.insert(0, "fold", pd.Series(fold, index=table.index, dtype="str"))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _reliability(judged: Judged) -> Iterator[tuple[str, Figure]]:
    cells = [cell for cell in judged.cells() if judged.judgeable(cell)]
    for question, h, here in questions(judged, cells):
        days = judged.horizons[h] // DAY
        moved, _ = moves_of(judged, here)
        title = f"Predicted and observed: {QUESTIONS[question]} within {days} days"
        yield f"reliability_{question}_{days}d", plots.reliability(moved, stacked(judged, here, MODEL), title)


def _ageing(table: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    for (question, days), rows in table.groupby(["question", "horizon_days"]):
        title = f"What an older model loses: {QUESTIONS[str(question)]} within {days} days"
        lost, low, high = (rows[f"lost_by_age{bound}"] for bound in ("", "_low", "_high"))
        yield f"model_age_{question}_{days}d", plots.ageing(rows["age_days"], lost, low, high, title)


def headline_metrics(assessment: Assessment, prefix: str) -> Iterator[tuple[str, float]]:
    """Yield a fold's means and pooled calibration with their bounds, under names for MLflow."""
    means = assessment.means[assessment.means["contender"] == MODEL]
    figures = {"means": ("log_loss",), "calibration": ("observed_expected", "calibration_slope")}
    for table, names in ((means, figures["means"]), (assessment.calibration, figures["calibration"])):
        for row in table.to_dict("records"):
            for name in names:
                for bound in ("", "_low", "_high"):
                    if np.isfinite(value := float(row[f"{name}{bound}"])):
                        yield f"{prefix}.{name}{bound}.{row['question']}.{row['horizon_days']}d", value
