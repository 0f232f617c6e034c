"""The story of ``cvj-ml backtest``: fit at rolling instants, evaluate with intervals, write tables and plots, log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvj_ml import tracking
from cvj_ml.config import Config
from cvj_ml.evaluation.ageing import loss_by_age
from cvj_ml.evaluation.backtesting import FoldResult, run_fold
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys
from cvj_ml.evaluation.folds import Fold, rolling
from cvj_ml.evaluation.mlflow_record import Evaluation, evaluation_of
from cvj_ml.evaluation.segments import gaps as gaps_of
from cvj_ml.evaluation.segments import segment
from cvj_ml.inputs import Histories, as_of_name, open_histories, require_customers
from cvj_ml.io import write_table
from cvj_ml.models.hazard.fitting import Settings
from cvj_ml.ownership import claim, owner_of, remove
from cvj_ml.run import Effort, Watcher
from cvj_ml.windows import to_datetime


@dataclass(frozen=True, slots=True)
class Backtested:
    """A backtest's report, the folder that holds it, and its run in MLflow."""

    report: Evaluation
    folder: Path
    run_id: str


def run_backtest(
    config: Config,
    until: int,
    watcher: Watcher,
    *,
    folds: int,
    spacing: int | None = None,
    segments: Sequence[str] = (),
    folder: Path | None = None,
) -> Backtested:
    """Refit at up to ``folds`` instants, evaluate each by what came after, and write and log what was found.

    spacing: between folds, in microseconds; segments: as in `segment`; folder: where tables and plots are written, by
    default ``<out>/backtest/until=<date>``.
    """
    effort = Effort()
    target = folder or Path(config.out, "backtest", f"until={as_of_name(config, until)}")
    if folder is not None and owner_of(folder / "tables") is None:
        claim(folder)  # told before minutes of training
    histories = open_histories(config, watcher)
    require_customers(histories, until)
    instants = _folds(histories, until, folds, spacing)
    fewest = config.model.min_customers
    for name in segments:  # a wrong one is told before minutes of training
        segment(name, histories.engine(), instants[-1].cut, np.zeros(0, dtype=np.int64), fewest)
    results = [backtest_fold(histories, fold) for fold in instants]
    keys = draw_keys(DRAWS, config.model.seed)
    with watcher.step("Judging older models at later folds"):
        model_age = loss_by_age(histories.run(), results, keys)
    last = results[-1]
    with watcher.step("Drawing customers for intervals"):
        by = [segment(name, histories.engine(), last.fold.cut, last.panel.customer, fewest) for name in segments]
        found = evaluation_of(results, keys, [gaps_of(last.evaluated, one, keys) for one in by], model_age)
    write_backtest(found, target)
    with watcher.step("Logging to MLflow"):
        record = replace(_record(histories, until, found, last.fold), effort=effort)
        run_id = tracking.log_backtest(config, record, list(_fold_records(record, found, results, config)))
    return Backtested(found, target, run_id)


def write_backtest(found: Evaluation, folder: Path) -> None:
    """Write every table as CSV and Parquet and every plot as SVG into a folder that is ours.

    An earlier backtest there is replaced.
    """
    from cvj_ml.evaluation.plots import save_figure  # matplotlib is slow to import, and a night draws nothing

    for kind in ("tables", "plots"):
        remove(folder / kind, strict=True)
        (folder / kind).mkdir(parents=True)
    for name, table in found.tables.items():
        write_table(folder / "tables", name, pa.Table.from_pandas(table, preserve_index=False))
    for name, figure in found.figures.items():
        save_figure(figure, folder / "plots" / f"{name}.svg")


def _fold_records(
    record: tracking.Record, found: Evaluation, results: Sequence[FoldResult], config: Config
) -> Iterator[tracking.Record]:
    """Yield what is logged of each fold: its own metrics, and the settings that were chosen in it."""
    for result, metrics in zip(results, found.by_fold, strict=True):
        cut = to_datetime(result.fold.cut, config.zone).isoformat()
        chosen = {f"trees_{name}": value for name, value in result.fit.choice.settings.as_dict().items()}
        yield replace(
            record, parameters=chosen, cut=cut, judged_at=cut, metrics=metrics, tables={}, figures={}, effort=None
        )


def _record(histories: Histories, until: int, found: Evaluation, last: Fold) -> tracking.Record:
    config = histories.config
    return tracking.Record(
        parameters={"folds": " ".join(found.folds), "draws": DRAWS, "seed": config.model.seed},
        cut=to_datetime(until, config.zone).isoformat(),
        inputs=histories.store.fingerprints,
        metrics=found.metrics,
        judged_at=to_datetime(last.cut, config.zone).isoformat(),
        tables=found.tables,
        figures=found.figures,
    )


def backtest_fold(
    histories: Histories, fold: Fold, settings: Settings | None = None, estimator: Any = None
) -> FoldResult:
    """Fit at a past instant and evaluate by what came after."""
    day = to_datetime(fold.cut, histories.config.zone).date()
    with histories.watcher.step(f"Backtest at {day}") as progress:
        return run_fold(histories.run(progress), fold, settings, estimator)


def backtest(
    histories: Histories, until: int, folds: int, *, spacing: int | None = None, estimator: Any = None
) -> list[FoldResult]:
    """Refit and evaluate at rolling instants up to ``until``, the oldest first; one's own estimator beside ours."""
    instants = _folds(histories, until, folds, spacing)
    return [backtest_fold(histories, fold, None, estimator) for fold in instants]


def _folds(histories: Histories, until: int, folds: int, spacing: int | None) -> list[Fold]:
    """Return the folds that the history has room for, the oldest first; fewer than were asked for are told."""
    found = rolling(histories.run(), until, folds, spacing)
    if len(found) < folds:
        histories.watcher.say(f"warning: the history has room for {len(found)} of {folds} folds.")
    return found
