"""Fitting the reach model: base rates and a line that rows start from, then trees with given settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cvj_ml.models.base_rates import BaseRates, fit_base_rates
from cvj_ml.models.linear import Columns, LinearHazard, columns_of, fit_linear
from cvj_ml.models.reach import EXTRA_COLUMNS, Trees, stacked_x
from cvj_ml.panel import HazardRows, Panel

LOW_EVIDENCE = 30
"""Customers who must have moved before a target gets trees; below, it keeps its base rates."""

_PATIENCE = 30


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the trees that are chosen on earlier folds."""

    leaves: int
    rows_a_leaf: int
    lambda_l2: float
    path_smooth: float
    rounds: int = 300
    learning_rate: float = 0.05
    columns: float = 0.6

    def parameters(self, seed: int) -> dict[str, object]:
        """Return LightGBM's parameters; deterministic for any number of threads."""
        return {
            "objective": "binary",
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.rows_a_leaf,
            "learning_rate": self.learning_rate,
            "feature_fraction": self.columns,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": self.lambda_l2,
            "path_smooth": self.path_smooth,
            "max_bin": 127,
            "metric": "None",
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }

    def as_dict(self) -> dict[str, float]:
        """Return the settings by name."""
        return dict(asdict(self))


@dataclass(frozen=True, slots=True)
class Start:
    """What trees start from: base rates, a line (None where nothing can be learned), targets with too few events."""

    panel: Panel
    base: BaseRates
    linear: LinearHazard | None
    low: npt.NDArray[np.bool_]
    columns: Columns

    def boost(
        self,
        rows: HazardRows,
        settings: Settings,
        seed: int,
        threads: int,
        *,
        held: HazardRows | None = None,
        callbacks: Sequence[Callable[..., object]] = (),
    ) -> lgb.Booster:
        """Fit trees on rows of targets that get some, to where ``held`` rows gain nothing more for 30 rounds."""
        train, watched, patience = self._dataset(rows), None, list[Callable[..., object]]()
        if held is not None:
            watched = [self._dataset(held, like=train)]
            patience.append(lgb.early_stopping(_PATIENCE, verbose=False))
        constraints = monotone(self.panel.x.shape[1])
        return lgb.train(
            {**settings.parameters(seed), "monotone_constraints": constraints, "num_threads": threads},
            train,
            num_boost_round=settings.rounds,
            valid_sets=watched,
            # LightGBM's own metric adds up in an order that depends on the number of threads.
            feval=_mean_log_loss,
            callbacks=[*callbacks, *patience],
        )

    def with_trees(self, booster: lgb.Booster | None) -> Trees:
        """Return what was fitted, with the trees that started from here."""
        return Trees(booster, self.linear, self.base, self.low, self.columns)

    def _dataset(self, rows: HazardRows, like: lgb.Dataset | None = None) -> lgb.Dataset:
        if self.linear is None:
            raise ValueError("Nothing can be learned, so there is no line to start from.")
        panel = self.panel
        return lgb.Dataset(
            stacked_x(panel.x, panel.stage, rows, self.columns.progress),
            label=rows.moved.astype(np.float32),
            init_score=self.linear.logits(panel.x, self.columns, self.base, panel.stage, rows),
            feature_name=feature_names(panel),
            reference=like,
        )


def _mean_log_loss(p: npt.NDArray[np.float64], data: lgb.Dataset) -> tuple[str, float, bool]:
    moved = np.asarray(data.get_label()) > 0
    return "log loss", float(-np.log(np.where(moved, p, 1 - p)).mean()), False


def start_from(panel: Panel, rows: HazardRows) -> Start:
    """Fit base rates and the line on hazard rows of the panel."""
    definition = panel.definition
    columns = columns_of(definition)
    recency = panel.x[:, columns.history[0]]
    base = fit_base_rates(rows, panel.stage, recency, len(definition.journey.stages), len(definition.horizons))
    low = panel.movers < LOW_EVIDENCE
    usable = rows.take(~low[rows.target])
    linear = None
    if 0 < usable.moved.sum() < len(usable):
        linear = fit_linear(panel.x, columns, base, panel.stage, usable)
    return Start(panel, base, linear, low, columns)


def fit_trees(
    panel: Panel,
    rows: HazardRows,
    settings: Settings,
    seed: int,
    threads: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Trees:
    """Fit base rates, the linear hazard and trees on hazard rows of the panel."""
    start, booster = start_from(panel, rows), None
    if start.linear is not None:
        callbacks: list[Callable[..., object]] = []
        if progress is not None:
            report = progress
            callbacks.append(lambda env: report(env.iteration + 1, env.end_iteration))
        usable = rows.take(~start.low[rows.target])
        booster = start.boost(usable, settings, seed, threads, callbacks=callbacks)
    return start.with_trees(booster)


def monotone(columns: int) -> list[int]:
    """Return the direction of each input: true by definition of the rules, and only for the target's own progress.

    More of the rule fulfilled never lowers the hazard, more still needed never raises it.
    """
    return [0] * columns + [{"fulfilled": 1, "remaining": -1}.get(name, 0) for name in EXTRA_COLUMNS]


def feature_names(panel: Panel) -> list[str]:
    """Return the names of the model's inputs, in order."""
    return [*panel.definition.catalogue.names, *EXTRA_COLUMNS]
