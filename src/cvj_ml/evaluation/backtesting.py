"""Backtest: fit at past instants, evaluate by what came after, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.evaluation.amount_metrics import AmountVerdict, judge_amounts, mean_of_stage
from cvj_ml.evaluation.baselines import RFM, Outcomes, baselines
from cvj_ml.evaluation.folds import Fold, require_teachable
from cvj_ml.evaluation.metrics import cell_metrics
from cvj_ml.evaluation.year_ago import learn_year_ago
from cvj_ml.models.hazard.fitting import Settings
from cvj_ml.models.hazard.level_shift import YearAgoLevel
from cvj_ml.models.hazard.tree_size import Choice
from cvj_ml.models.predictor import OutcomeModel, Predictor
from cvj_ml.models.training import Fit, fit_amounts, fit_outcomes, fit_own, fit_reach
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.run import Run
from cvj_ml.snapshots import training_grid

_F64 = npt.NDArray[np.float64]

MODEL = "model"
MINIMUM_CONVERTED = 10
"""Customers who must have moved before a cell's metrics are shown."""


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold: the fit, the evaluated panel, every contender's final probabilities, and a row of metrics a cell.

    ``outcomes`` are the models of the definition's own outcomes, ``outcome_choices`` what was chosen for each, and
    ``outcome_probabilities`` what they and the baselines said, of the outcome in the place of the return. ``amounts``
    says whether what customers are expected to buy may rank lists.
    """

    fold: Fold
    fit: Fit
    panel: Panel
    probabilities: Mapping[str, _F64]
    rows: pd.DataFrame
    year_ago: YearAgoLevel | None = None
    outcomes: tuple[OutcomeModel, ...] = ()
    outcome_choices: Mapping[str, Choice] = field(default_factory=dict)
    outcome_probabilities: Mapping[str, Mapping[str, _F64]] = field(default_factory=dict)
    amounts: AmountVerdict | None = None

    @property
    def predictor(self) -> Predictor:
        """The model of this fold, which knows nothing from its cut on."""
        return Predictor(
            self.panel.definition,
            self.fit.trees,
            self.fit.calibration,
            year_ago=self.year_ago,
            outcomes=self.outcomes,
        )

    @property
    def evaluated(self) -> Evaluated:
        """The fold's snapshots with their outcomes and every contender's probabilities."""
        return evaluated(self.panel, self.probabilities)


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """The snapshots of one transition and horizon whose outcome is known.

    origin: a stage, ``none`` before any, or ``any`` for the return; target and horizon index the arrays of `Evaluated`.
    """

    origin: str
    name: str
    target: int
    horizon: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Snapshots, what became of them, and what every contender had said before.

    n snapshots, J targets (return, then each stage), H horizons: customer (codes) and stage are (n,); moved, known
    (matured and asked) and each of probabilities are (n, J, H).
    """

    stages: tuple[str, ...]
    horizons: tuple[int, ...]
    customer: npt.NDArray[np.int64]
    stage: npt.NDArray[np.int8]
    converted: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]
    probabilities: Mapping[str, _F64]

    def cells(self) -> Iterator[Cell]:
        """Yield the cells that have snapshots: the return over all of them, reach by the stage they come from."""
        names = ["none", *self.stages]
        for j, target in enumerate(["return", *self.stages]):
            for origin in [None] if j == 0 else range(-1, j - 1):
                here = self.known[:, j, :] if origin is None else self.known[:, j, :] & (self.stage == origin)[:, None]
                for h in range(len(self.horizons)):
                    if len(rows := np.flatnonzero(here[:, h])):
                        yield Cell("any" if origin is None else names[origin + 1], target, j, h, rows)

    def converted_in(self, cell: Cell) -> npt.NDArray[np.bool_]:
        """Return whether the cell's customers moved."""
        converted: npt.NDArray[np.bool_] = self.converted[cell.rows, cell.target, cell.horizon]
        return converted

    def predicted(self, contender: str, cell: Cell) -> _F64:
        """Return what a contender said of the cell's customers."""
        p: _F64 = self.probabilities[contender][cell.rows, cell.target, cell.horizon]
        return p

    def evaluable(self, cell: Cell) -> bool:
        """Return whether enough customers moved, and every contender said something."""
        enough = len(np.unique(self.customer[cell.rows[self.converted_in(cell)]])) >= MINIMUM_CONVERTED
        return enough and all(np.isfinite(self.predicted(name, cell)).all() for name in self.probabilities)


def evaluated(panel: Panel, probabilities: Mapping[str, _F64]) -> Evaluated:
    """Return a panel's snapshots with their outcomes beside what was said of them."""
    found, definition = matured_outcomes(panel), panel.definition
    return Evaluated(
        definition.journey.names,
        definition.horizons,
        panel.customer,
        panel.stage,
        found.converted,
        found.known,
        probabilities,
    )


@dataclass(frozen=True, slots=True)
class Panels:
    """What a fold is taught by, and what it is evaluated on."""

    history: Panel
    test: Panel


def build_panels(run: Run, fold: Fold, max_rows: int | None = None) -> Panels:
    """Build a fold's panels; nothing after the cut is used but the outcomes, and test snapshots are never sampled.

    max_rows: hazard rows to learn from, fewer than the configuration's where they are to be.
    """
    config, blocks, delay = run.config, run.blocks, run.arrival_delay
    require_teachable(run, fold.cut, "The backtest")
    definition = define(config, run.journey, blocks, fold.cut)
    history = build_panel(
        definition,
        blocks,
        training_grid(config, fold.cut),
        fold.cut,
        delay,
        max_rows=config.model.max_rows if max_rows is None else min(max_rows, config.model.max_rows),
        seed=run.seed,
    )
    return Panels(history, build_panel(definition, blocks, np.array([fold.cut], dtype=np.int64), fold.until, delay))


def run_fold(run: Run, fold: Fold, given: Choice | Settings | None = None, estimator: Any = None) -> FoldResult:
    """Train on what was visible before the fold's cut and evaluate all customers' snapshots at it.

    An ``estimator`` of one's own (`fit_own`) is evaluated beside the model, under the name of its class.
    """
    panels = build_panels(run, fold)
    history, test = panels.history, panels.test
    fit = fit_reach(history, run.seed, run.threads, given=given, progress=run.progress)
    year_ago = learn_year_ago(run, fold.cut, history.definition, fit)
    predictor = Predictor(history.definition, fit.trees, fit.calibration, year_ago=year_ago)
    probabilities = {MODEL: predictor.predict(test, run.threads)}
    if estimator is not None:
        own = Predictor(history.definition, *fit_own(history, estimator, run.seed))
        probabilities[type(estimator).__name__] = own.predict(test, run.threads)
    probabilities |= _baselines(history, test)
    outcomes, choices = fit_outcomes(history, run.seed, run.threads, fit.choice.settings)
    predictor = replace(predictor, outcomes=outcomes)
    said = {
        one.name: {
            MODEL: predictor.asking(one).predict(test.asking(one), run.threads),
            **_baselines(history.asking(one), test.asking(one)),
        }
        for one in predictor.definition.own_outcomes
    }
    rows = evaluate(test, probabilities)
    amounts = _judge_amounts(predictor, history, test, run)
    return FoldResult(fold, fit, test, probabilities, rows, year_ago, outcomes, choices, said, amounts)


def _judge_amounts(predictor: Predictor, history: Panel, test: Panel, run: Run) -> AmountVerdict | None:
    values = fit_amounts(predictor, history, run.threads).predict_values(test, run.threads)
    if values is None:
        return None
    return judge_amounts(test, values.gross, mean_of_stage(history, test), run.seed)


def _baselines(history: Panel, test: Panel) -> dict[str, _F64]:
    past = matured_outcomes(history)
    return {one.name: one.fit(past).predict(rfm(test)) for one in baselines()}


def rfm(panel: Panel) -> RFM:
    """Return recency, frequency and value of a panel's snapshots."""
    return RFM(
        panel.stage,
        panel.column("recency").astype(np.float64),
        panel.column("touchpoints_all").astype(np.float64),
        panel.column("value_sum_all").astype(np.float64),
    )


def matured_outcomes(panel: Panel) -> Outcomes:
    """Return what became of a panel's snapshots within each horizon, where that is known."""
    return Outcomes(rfm(panel), panel.customer, *panel.matured())


def evaluate(panel: Panel, probabilities: Mapping[str, _F64]) -> pd.DataFrame:
    """Return one row of metrics for each contender, transition and horizon.

    The target ``return`` is evaluated over all customers; reach of a stage for each stage that customers come from.
    Cells in which fewer than ten customers moved show their counts only.
    """
    found = evaluated(panel, probabilities)
    not_evaluated = dict.fromkeys(cell_metrics([0, 1], [0.5, 0.5]), np.nan)
    rows = []
    for cell in found.cells():
        converted = found.converted_in(cell)
        counts = {"n": float(len(converted)), "converted": float(converted.sum()), "base_rate": float(converted.mean())}
        for contender in probabilities:
            p = found.predicted(contender, cell)
            enough = converted.sum() >= MINIMUM_CONVERTED and np.isfinite(p).all()
            rows.append(
                {
                    "contender": contender,
                    "from": cell.origin,
                    "to": cell.name,
                    "horizon_days": found.horizons[cell.horizon] // DAY,
                    **(cell_metrics(converted, p) if enough else {**not_evaluated, **counts}),
                }
            )
    return pd.DataFrame(rows, columns=["contender", "from", "to", "horizon_days", *not_evaluated])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over the transitions of a horizon, weighted by the customers who stand in ``from``.

    ``return`` stands apart, since it is another question.
    """
    evaluated = rows[rows["log_loss"].notna()]
    kind = np.where(evaluated["to"] == "return", "return", "reach")
    figures = ["log_loss", "brier", "auc", "average_precision", "lift_10"]
    keys = ["target", "horizon_days", "contender"]
    weighted = evaluated.assign(target=kind, **{name: evaluated[name] * evaluated["n"] for name in figures})
    totals = weighted.groupby(keys, sort=True)[[*figures, "n"]].sum()
    return totals[figures].div(totals["n"], axis=0).reset_index()
