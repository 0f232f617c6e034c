"""Fitting the reach model: base rates and a line that rows start from, then trees with given settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cvj_ml.models.hazard.base_rates import BaseRates, fit_base_rates
from cvj_ml.models.hazard.binning import MOST_BINS, Grid, joined, learn_grid, plain_grid
from cvj_ml.models.hazard.calendar_effect import CalendarEffect, fit_calendar
from cvj_ml.models.hazard.linear import Columns, LinearHazard, fit_linear, linear_columns
from cvj_ml.models.hazard.reach import EXTRA_COLUMNS, Trees, own_x
from cvj_ml.panel.panel import HazardRows, Panel

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
            "max_bin": MOST_BINS,
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
    """What trees start from: base rates, a line (None where nothing can be learned), targets with too few events.

    ``calendar`` is added to the line; None where no kind of period has a past.
    """

    panel: Panel
    base: BaseRates
    linear: LinearHazard | None
    low: npt.NDArray[np.bool_]
    columns: Columns
    grid: Grid
    calendar: CalendarEffect | None = None

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
        bins = self.grid.part(0, self.panel.x.shape[1]).bins(self.panel.x)
        train, watched, patience = self._dataset(rows, bins), None, list[Callable[..., object]]()
        if held is not None:
            watched = [self._dataset(held, bins, like=train)]
            patience.append(lgb.early_stopping(_PATIENCE, verbose=False))
        constraints = monotone(self.panel.x.shape[1])
        trees = lgb.train(
            {**settings.parameters(seed), "monotone_constraints": constraints, "num_threads": threads},
            train,
            num_boost_round=settings.rounds,
            valid_sets=watched,
            # LightGBM's own metric adds up in an order that depends on the number of threads.
            feval=_mean_log_loss,
            callbacks=[*callbacks, *patience],
        )
        return self.grid.in_place_of_bins(trees)

    def with_trees(self, booster: lgb.Booster | None) -> Trees:
        """Return what was fitted, with the trees that started from here."""
        return Trees(booster, self.linear, self.base, self.low, self.columns, calendar=self.calendar)

    def _dataset(self, rows: HazardRows, bins: npt.NDArray[np.float32], like: lgb.Dataset | None = None) -> lgb.Dataset:
        """Return what trees are fitted on; ``bins`` are those of the panel's X."""
        if self.linear is None:
            raise ValueError("Nothing can be learned, so there is no line to start from.")
        panel = self.panel
        inputs = np.empty((len(rows), panel.x.shape[1] + len(EXTRA_COLUMNS)), dtype=np.float32)
        np.take(bins, rows.snapshot, axis=0, out=inputs[:, : panel.x.shape[1]])
        own = own_x(panel.x, panel.stage, rows, self.columns.progress)
        inputs[:, panel.x.shape[1] :] = self.grid.part(panel.x.shape[1], inputs.shape[1]).bins(own)
        offset = self.linear.logits(panel.x, self.columns, self.base, panel.stage, rows)
        if self.calendar is not None:
            offset += self.calendar.logits(panel.x, panel.as_of, rows)
        return lgb.Dataset(
            inputs,
            label=rows.converted.astype(np.float32),
            init_score=offset,
            feature_name=feature_names(panel),
            reference=like,
        )


def _mean_log_loss(p: npt.NDArray[np.float64], data: lgb.Dataset) -> tuple[str, float, bool]:
    converted = np.asarray(data.get_label()) > 0
    return "log loss", float(-np.log(np.where(converted, p, 1 - p)).mean()), False


def start_from(panel: Panel, rows: HazardRows) -> Start:
    """Fit base rates and the line on hazard rows of the panel."""
    definition = panel.definition
    columns = linear_columns(definition)
    recency = panel.x[:, columns.history[0]]
    base = fit_base_rates(
        rows,
        panel.customer,
        panel.stage,
        recency,
        len(definition.journey.stages),
        len(definition.horizons),
        definition.min_customers,
    )
    low = panel.converters < LOW_EVIDENCE
    usable = rows.take(~low[rows.target])
    linear, calendar, grid = None, None, plain_grid([1] * (panel.x.shape[1] + len(EXTRA_COLUMNS)))
    if 0 < usable.converted.sum() < len(usable):
        linear = fit_linear(panel.x, columns, base, panel.stage, usable, panel.customer, definition.min_customers)
        calendar = fit_calendar(panel, usable, linear.logits(panel.x, columns, base, panel.stage, usable))
        grid = _grid(panel, usable, columns)
    return Start(panel, base, linear, low, columns, grid, calendar)


def _grid(panel: Panel, rows: HazardRows, columns: Columns) -> Grid:
    """Return where the model's inputs may be split, by the snapshots that the rows are of."""
    snapshots, fewest = np.unique(rows.snapshot), panel.definition.min_customers
    of_x = learn_grid(panel.x[snapshots], panel.customer[snapshots], fewest)
    own = own_x(panel.x, panel.stage, rows, columns.progress)
    progress = learn_grid(own[:, :2], panel.customer[rows.snapshot], fewest)
    targets = len(columns.progress)
    # Target, steps ahead and interval are numbered by the journey; before any stage the last one is a step further.
    return joined(of_x, progress, plain_grid([targets, targets + 1, len(columns.middle)]))


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
