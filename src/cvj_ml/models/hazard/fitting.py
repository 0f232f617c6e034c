"""Fitting the reach model: base rates and a line that rows start from, then trees and a ridge with given settings."""

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
from cvj_ml.models.hazard.ridge import RIDGE_SHARE, RidgeHazard, fit_ridge
from cvj_ml.panel.panel import HazardRows, Panel

LOW_EVIDENCE = 30
"""Customers who must have moved before a target gets trees; below, it keeps its base rates."""

_PATIENCE = 15

_Positions = npt.NDArray[np.int64]
_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the trees that are chosen on earlier folds."""

    leaves: int
    rows_a_leaf: int
    lambda_l2: float
    path_smooth: float
    rounds: int = 150
    learning_rate: float = 0.1
    columns: float = 0.6
    extra: bool = False
    """Whether each split is the best of one random threshold a column (extremely randomised trees, Geurts 2006)."""

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
            "extra_trees": self.extra,
            "max_bin": MOST_BINS,
            # Fits of other settings take the same binned rows.
            "feature_pre_filter": False,
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
    """What is fitted before trees: base rates, the line that they start from, and the ridge that they are mixed with.

    ``linear`` and ``ridge`` are None where nothing can be learned; ``low`` marks targets with too few events.
    ``calendar`` is added to the line; None where no kind of period has a past.
    """

    panel: Panel
    base: BaseRates
    linear: LinearHazard | None
    ridge: RidgeHazard | None
    calendar: CalendarEffect | None
    low: npt.NDArray[np.bool_]
    columns: Columns

    def with_trees(self, booster: lgb.Booster | None, ridge_share: tuple[float, float] = RIDGE_SHARE) -> Trees:
        """Return what was fitted, with the trees that started from here."""
        return Trees(
            booster, self.linear, self.base, self.low, self.columns, self.ridge, ridge_share, calendar=self.calendar
        )


@dataclass(frozen=True, slots=True)
class BinnedRows:
    """Hazard rows of a panel as LightGBM takes them, binned once: every fit at one cut takes a part of them.

    Targets with too few events have no rows here. Never shared between cuts, whose vocabularies and bins differ.
    """

    panel: Panel
    rows: HazardRows
    grid: Grid
    dataset: lgb.Dataset

    @classmethod
    def of(cls, panel: Panel, rows: HazardRows) -> BinnedRows:
        """Bin rows; their labels and what they start from come with each fit."""
        columns, width = linear_columns(panel.definition), panel.x.shape[1]
        grid = _grid(panel, rows, columns)
        inputs = np.empty((len(rows), width + len(EXTRA_COLUMNS)), dtype=np.float32)
        np.take(grid.part(0, width).bins(panel.x), rows.snapshot, axis=0, out=inputs[:, :width])
        own = own_x(panel.x, panel.stage, rows, columns.progress)
        inputs[:, width:] = grid.part(width, inputs.shape[1]).bins(own)
        parameters = {
            "max_bin": MOST_BINS,
            "feature_pre_filter": False,
            "verbosity": -1,
            "monotone_constraints": monotone(width),
        }
        dataset = lgb.Dataset(inputs, rows.converted.astype(np.float32), feature_name=feature_names(panel))
        dataset.params = parameters
        return cls(panel, rows, grid, dataset.construct())

    def boost(
        self,
        start: Start,
        taught: _Positions,
        settings: Settings,
        seed: int,
        threads: int,
        *,
        held: _Positions | None = None,
        callbacks: Sequence[Callable[..., object]] = (),
    ) -> lgb.Booster:
        """Fit trees on rows at some positions, to where ``held`` rows gain nothing more for 15 rounds."""
        watched, patience = None, list[Callable[..., object]]()
        if held is not None:
            watched = [self._part(start, held)]
            patience.append(lgb.early_stopping(_PATIENCE, verbose=False))
        constraints = monotone(self.panel.x.shape[1])
        trees = lgb.train(
            {**settings.parameters(seed), "monotone_constraints": constraints, "num_threads": threads},
            self._part(start, taught),
            num_boost_round=settings.rounds,
            valid_sets=watched,
            # LightGBM's own metric adds up in an order that depends on the number of threads.
            feval=_mean_log_loss,
            callbacks=[*callbacks, *patience],
        )
        return self.grid.in_place_of_bins(trees)

    def _part(self, start: Start, positions: _Positions) -> lgb.Dataset:
        """Return some of the rows, with what trees on them start from."""
        if start.linear is None:
            raise ValueError("Nothing can be learned, so there is no line to start from.")
        panel, rows = self.panel, self.rows.take(positions)
        everything = len(positions) == len(self.rows)
        part = self.dataset if everything else self.dataset.subset(positions.tolist()).construct()
        part.set_label(rows.converted.astype(np.float32))
        offset = start.linear.logits(panel.x, start.columns, start.base, panel.stage, rows)
        if start.calendar is not None:
            offset += start.calendar.logits(panel.x, panel.as_of, rows)
        part.set_init_score(offset)
        part.set_weight(weights_of(panel, rows))
        return part


def weights_of(panel: Panel, rows: HazardRows) -> _F64 | None:
    """Return how much each row counts in a fit, 1 on average; None where all count the same.

    A row counts 2^(-age / half-life), with the age of its snapshot at the cut. LightGBM's and scikit-learn's sample
    weights. Base rates, choices and calibration count every row alike.
    """
    if panel.definition.half_life is None or not len(rows):
        return None
    weight = np.exp2((panel.as_of[rows.snapshot] - panel.cut) / panel.definition.half_life)
    weights: _F64 = weight / weight.mean()
    return weights


def _mean_log_loss(p: npt.NDArray[np.float64], data: lgb.Dataset) -> tuple[str, float, bool]:
    converted = np.asarray(data.get_label()) > 0
    return "log loss", float(-np.log(np.where(converted, p, 1 - p)).mean()), False


def learnable(panel: Panel, rows: HazardRows) -> HazardRows:
    """Return the rows of targets that enough customers reached."""
    return rows.take(panel.converters[rows.target] >= LOW_EVIDENCE)


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
    usable = learnable(panel, rows)
    linear, ridge, calendar = None, None, None
    if 0 < usable.converted.sum() < len(usable):
        weight = weights_of(panel, usable)
        linear = fit_linear(
            panel.x, columns, base, panel.stage, usable, panel.customer, definition.min_customers, weight
        )
        offset = linear.logits(panel.x, columns, base, panel.stage, usable)
        if (calendar := fit_calendar(panel, usable, offset)) is not None:
            offset += calendar.logits(panel.x, panel.as_of, usable)
        ridge = fit_ridge(
            panel.x, ~definition.catalogue.coded, usable, offset, panel.customer, definition.min_customers, weight
        )
    return Start(panel, base, linear, ridge, calendar, panel.converters < LOW_EVIDENCE, columns)


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
    ridge_share: tuple[float, float] = RIDGE_SHARE,
    binned: BinnedRows | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trees:
    """Fit base rates, the linear hazard, the ridge and trees on hazard rows of the panel.

    ``binned`` are the learnable ones of these rows, where they have been binned before.
    """
    start, booster = start_from(panel, rows), None
    if start.linear is not None:
        callbacks: list[Callable[..., object]] = []
        if progress is not None:
            report = progress
            callbacks.append(lambda env: report(env.iteration + 1, env.end_iteration))
        binned = binned or BinnedRows.of(panel, learnable(panel, rows))
        booster = binned.boost(start, np.arange(len(binned.rows)), settings, seed, threads, callbacks=callbacks)
    return start.with_trees(booster, ridge_share)


def monotone(columns: int) -> list[int]:
    """Return the direction of each input: true by definition of the rules, and only for the target's own progress.

    More of the rule fulfilled never lowers the hazard, more still needed never raises it.
    """
    return [0] * columns + [{"fulfilled": 1, "remaining": -1}.get(name, 0) for name in EXTRA_COLUMNS]


def feature_names(panel: Panel) -> list[str]:
    """Return the names of the model's inputs, in order."""
    return [*panel.definition.catalogue.names, *EXTRA_COLUMNS]
