"""Backtest: fit at past instants, judge by what came after, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY, Config
from cvj_ml.evaluation.baselines import RFM, Outcomes, baselines
from cvj_ml.evaluation.folds import Fold, require_teachable
from cvj_ml.evaluation.metrics import cell_metrics
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import Fit, fit_reach
from cvj_ml.panel import Blocks, Panel, build_panel, define
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import happened_within, observed_whole

_F64 = npt.NDArray[np.float64]

MODEL = "model"
_UNJUDGED = dict.fromkeys(cell_metrics([0, 1], [0.5, 0.5]), np.nan)
MINIMUM_MOVED = 10
"""Customers who must have moved before a cell's metrics are shown."""


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold: the fit, the judged panel, every contender's final probabilities, and a row of metrics a cell."""

    fold: Fold
    fit: Fit
    panel: Panel
    probabilities: Mapping[str, _F64]
    rows: pd.DataFrame


def run_fold(
    config: Config,
    blocks: Blocks,
    unobserved: frozenset[str],
    fold: Fold,
    arrival_delay: int,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> FoldResult:
    """Train on what was visible before the fold's cut and judge all customers' snapshots at it.

    Nothing after the cut is used but the outcomes. Test snapshots are never sampled.
    """
    require_teachable(config, fold.cut, arrival_delay, "The backtest")
    definition = define(config, unobserved, blocks, fold.cut)
    history = build_panel(
        definition,
        blocks,
        training_grid(config, fold.cut),
        fold.cut,
        arrival_delay,
        max_rows=config.model.max_rows,
        seed=config.model.seed,
    )
    fit = fit_reach(history, fold.cut, arrival_delay, config.model.seed, threads, progress=progress)
    test = build_panel(definition, blocks, np.array([fold.cut], dtype=np.int64), fold.until, arrival_delay)
    predictor = Predictor(definition, fit.trees, fit.calibration)
    probabilities = {MODEL: predictor.predict(test, threads)}
    past = outcomes(history)
    for baseline in baselines():
        probabilities[baseline.name] = baseline.fit(past).predict(rfm(test))
    return FoldResult(fold, fit, test, probabilities, judge(test, probabilities))


def rfm(panel: Panel) -> RFM:
    """Return recency, frequency and value of a panel's snapshots."""
    return RFM(
        panel.stage,
        panel.column("recency").astype(np.float64),
        panel.column("touchpoints_all").astype(np.float64),
        panel.column("value_sum_all").astype(np.float64),
    )


def outcomes(panel: Panel) -> Outcomes:
    """Return what became of a panel's snapshots within each horizon, where that is known."""
    labels, horizons = panel.labels, panel.definition.horizons
    moved = np.stack([happened_within(labels.times, horizon) for horizon in horizons], axis=2)
    matured = np.stack([observed_whole(labels.follow_up, horizon) for horizon in horizons], axis=1)
    return Outcomes(rfm(panel), panel.customer, moved, labels.asked[:, :, None] & matured[:, None, :])


def judge(panel: Panel, probabilities: Mapping[str, _F64]) -> pd.DataFrame:
    """Return one row of metrics for each contender, transition and horizon.

    The target ``return`` is judged over all customers; reach of a stage for each stage that customers come from.
    Cells in which fewer than ten customers moved show their counts only.
    """
    definition, found = panel.definition, outcomes(panel)
    names = ["", *definition.journey.names]
    rows = []
    for j, target in enumerate(["return", *definition.journey.names]):
        origins = [None] if j == 0 else list(range(-1, j - 1))
        for origin in origins:
            here = found.known[:, j, :].any(axis=1) & (True if origin is None else panel.stage == origin)
            for h, horizon in enumerate(definition.horizons):
                cell = here & found.known[:, j, h]
                if not cell.any():
                    continue
                moved = found.moved[cell, j, h]
                for name, probability in probabilities.items():
                    p = probability[cell, j, h]
                    enough = moved.sum() >= MINIMUM_MOVED and np.isfinite(p).all()
                    counts = {"n": float(len(moved)), "moved": float(moved.sum()), "base_rate": float(moved.mean())}
                    rows.append(
                        {
                            "contender": name,
                            "from": "any" if origin is None else names[origin + 1] or "none",
                            "to": target,
                            "horizon_days": horizon // DAY,
                            **(cell_metrics(moved, p) if enough else {**_UNJUDGED, **counts}),
                        }
                    )
    return pd.DataFrame(rows, columns=["contender", "from", "to", "horizon_days", *_UNJUDGED])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over the transitions of a horizon, weighted by the customers who stand in ``from``.

    ``return`` stands apart, since it is another question.
    """
    judged = rows[rows["log_loss"].notna()]
    kind = np.where(judged["to"] == "return", "return", "reach")
    figures = ["log_loss", "brier", "auc", "average_precision", "lift_10"]
    keys = ["target", "horizon_days", "contender"]
    weighted = judged.assign(target=kind, **{name: judged[name] * judged["n"] for name in figures})
    totals = weighted.groupby(keys, sort=True)[[*figures, "n"]].sum()
    return totals[figures].div(totals["n"], axis=0).reset_index()
