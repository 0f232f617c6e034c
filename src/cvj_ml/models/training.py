"""The recipe of a fit: choose on customers held out, fit on everything, set the levels of the last year."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cvj_ml.config import YEAR
from cvj_ml.errors import ConfigError
from cvj_ml.journey import PURCHASE
from cvj_ml.models.explain.typical import learn_reference
from cvj_ml.models.hazard.calibration import Calibration, HazardOutcomes, helpful_slopes, identity, set_levels
from cvj_ml.models.hazard.fitting import BinnedRows, Settings, fit_trees, learnable, start_from
from cvj_ml.models.hazard.reach import OwnEstimator, Trees
from cvj_ml.models.hazard.tree_size import DEFAULT, Choice, choose
from cvj_ml.models.predictor import OutcomeModel, Predictor
from cvj_ml.models.value.value import fit_value
from cvj_ml.panel.panel import HazardRows, Panel, hazard_rows
from cvj_ml.windows import Instants, before, edges, observed_whole


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted reach model, and what had been chosen before; levels are always set, slopes only where they help."""

    trees: Trees
    calibration: Calibration
    choice: Choice


def fit_reach(
    panel: Panel,
    seed: int,
    threads: int,
    *,
    given: Choice | Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Fit trees and calibration on a panel.

    given: what an earlier fit has chosen; settings alone, for which the ridge's share and slopes are learned; or None,
    and all is chosen (`choose`) on rows ended by C', the panel's ``inner_cut``, and those that start at or after C'.

    Trees are fitted on all rows, the slopes shrunk towards 1 by the share of the events that the compared trees had
    seen (they tell of trees with less to learn from). Levels, with or without slopes, are those of the outcomes of the
    last year: a whole year has no season, and an older one may have another level.
    """
    rows = hazard_rows(panel.labels, panel.definition.horizons)
    usable = learnable(panel, rows)
    binned = BinnedRows.of(panel, usable) if 0 < usable.converted.sum() < len(usable) else None
    choice = given if isinstance(given, Choice) else Choice(given or replace(DEFAULT, **panel.definition.trees.given))
    if binned is not None and not isinstance(given, Choice):
        early, later = (np.flatnonzero(part) for part in _early_and_later(panel, usable))
        choice = choose(binned, early, later, seed, threads, settings=given, progress=progress)
    trees = fit_trees(
        panel,
        rows,
        choice.settings,
        seed,
        threads,
        ridge_share=choice.ridge_share,
        binned=binned,
        progress=progress,
    )
    slopes = choice.slopes
    if slopes is not None:
        slopes = slopes.shrunk(min(choice.events / max(float(rows.converted.sum()), 1.0), 1.0))
    return Fit(trees, _levels(trees, slopes, panel, rows, threads), choice)


def fit_outcomes(
    panel: Panel, seed: int, threads: int, given: Mapping[str, Choice] | Settings
) -> tuple[tuple[OutcomeModel, ...], dict[str, Choice]]:
    """Fit the hazard of each of the panel's own outcomes, and return what was chosen for each, by name.

    given: what an earlier fit has chosen for them; or the trees' settings, for which the rest is learned.
    """
    models, choices = [], {}
    for one in panel.definition.own_outcomes:
        own = given if isinstance(given, Settings) else given[one.name]
        fit = fit_reach(panel.asking(one), seed, threads, given=own)
        models.append(OutcomeModel(fit.trees, fit.calibration))
        choices[one.name] = fit.choice
    return tuple(models), choices


def fit_amounts(predictor: Predictor, panel: Panel, threads: int) -> Predictor:
    """Return the predictor with the amounts that customers buy for, where the panel knows any."""
    if panel.amounts is None:
        return predictor
    # The level of a year ago is that of the cut; snapshots of the past have lived through their own.
    chance = replace(predictor, year_ago=None).predict_outcomes(panel, threads)[PURCHASE]
    return replace(predictor, value=fit_value(panel, chance))


def fit_own(panel: Panel, estimator: Any, seed: int) -> tuple[Trees, Calibration]:
    """Fit a classifier of one's own in the place of line, ridge and trees, and calibrate it.

    It is asked once for each hazard row (snapshot, target, interval) whether the event falls into the interval; its
    inputs are a DataFrame of the features, which may be missing (NaN), and of EXTRA_COLUMNS. Targets and stages of
    which too little is known keep their base rates. Slopes are learned from rows later than those of a first fit.
    Settings of our trees, and weights, are not given to it.
    """
    rows = hazard_rows(panel.labels, panel.definition.horizons)

    def fit(some: HazardRows) -> Trees:
        start = start_from(panel, some)
        trees = start.with_trees(None)
        usable = some.take(trees.base.is_known(panel.stage, some) & ~start.low[some.target])
        if not 0 < usable.converted.sum() < len(usable):
            return trees
        return replace(
            trees, linear=None, calendar=None, ridge=None, estimator=OwnEstimator.fit(estimator, panel, usable)
        )

    early, later = (rows.take(part) for part in _early_and_later(panel, rows))
    slopes = None
    if early.converted.any() and later.converted.any():
        slopes = helpful_slopes(_outcomes(fit(early), panel, later, 1), *panel.definition.cells, seed)
        slopes = slopes and slopes.shrunk(float(early.converted.sum() / rows.converted.sum()))
    trees = fit(rows)
    return trees, _levels(trees, slopes, panel, rows, 1)


def _early_and_later(panel: Panel, rows: HazardRows) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which hazard rows were over at an earlier cut, and which start at it or later."""
    early = observed_whole(panel.inner_cut - _ends(panel, rows), 0)
    return early, ~before(panel.as_of, panel.inner_cut)[rows.snapshot]


def _ends(panel: Panel, rows: HazardRows) -> Instants:
    """Return when each row's interval was over, and what fell into it had arrived."""
    bounds = np.array(edges(panel.definition.horizons)[1:])
    ends: Instants = panel.as_of[rows.snapshot] + bounds[rows.interval] + panel.arrival_delay
    return ends


def _levels(trees: Trees, slopes: Calibration | None, panel: Panel, rows: HazardRows, threads: int) -> Calibration:
    """Return the slopes with the levels of the last year."""
    recent = rows.take(~before(_ends(panel, rows), panel.cut - YEAR))
    return set_levels(slopes or identity(*panel.definition.cells), _outcomes(trees, panel, recent, threads))


def _outcomes(trees: Trees, panel: Panel, rows: HazardRows, threads: int) -> HazardOutcomes:
    """Return predictions beside what happened, of what the trees' rows know something of."""
    rows = rows.take(trees.base.is_known(panel.stage, rows))
    logit = trees.logits(panel.x, panel.stage, rows, threads, panel.as_of)
    return HazardOutcomes(logit, rows.converted, rows.target, rows.interval, panel.customer[rows.snapshot])


def fit_panel(panel: Panel, seed: int, threads: int, estimator: Any = None) -> Predictor:
    """Fit the recipe, or an estimator of one's own in the place of its trees, on a panel alone: no fold is judged."""
    definition = panel.definition
    if estimator is not None:
        if definition.trees.given or definition.half_life:
            raise ConfigError("model.trees, model.weights: an estimator of your own takes neither. Leave them out.")
        own = [OutcomeModel(*fit_own(panel.asking(one), estimator, seed)) for one in definition.own_outcomes]
        return fit_amounts(Predictor(definition, *fit_own(panel, estimator, seed), outcomes=tuple(own)), panel, threads)
    fit = fit_reach(panel, seed, threads)
    outcomes, _ = fit_outcomes(panel, seed, threads, fit.choice.settings)
    reference = learn_reference(panel)
    predictor = Predictor(definition, fit.trees, fit.calibration, reference=reference, outcomes=outcomes)
    return fit_amounts(predictor, panel, threads)
