"""Features that are too good: one column alone nearly tells who moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from cvj_ml.config import DAY
from cvj_ml.features import PROGRESS
from cvj_ml.panel.panel import Panel
from cvj_ml.windows import happened_within, observed_whole

THRESHOLD = 0.95
"""The AUC from which one feature alone is suspect; docs/audit.md has what honest features reach."""

MOVERS = 30
"""So many customers must have moved: below, an AUC says little, and the model itself rests on base rates."""

_ATTRIBUTES = "attributes"

_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TargetLeak:
    """The target and horizon at which a feature alone separates best, among customers in the same stage."""

    feature: str
    group: str
    target: str
    horizon_days: int
    auc: float
    converters: int


def target_leaks(panel: Panel) -> list[TargetLeak]:
    """Return the features above the threshold, the best first; of each the target and horizon where it is best.

    The AUC is taken within stages and averaged over pairs of a mover and another in the same stage: the stage itself
    tells much about every later one by definition. So does the progress towards the target's own rule, which is
    known to be of the past: it is left out, and what is made of touchpoints (the 14th purchase, before a stage that
    the 15th enters) must be better than it. Missing counts as lowest; categories stand in the order of their rates.
    """
    best: dict[str, TargetLeak] = {}
    definition = panel.definition
    features = definition.catalogue.features
    names = ["return", *definition.journey.names]
    for horizon in definition.horizons:
        kept = observed_whole(panel.labels.follow_up, horizon)
        converted = happened_within(panel.labels.times, horizon) & panel.labels.at_risk
        auc, converters = _by_target(panel, kept, converted)
        own = definition.progress_columns
        for j, f in zip(*np.nonzero(auc > THRESHOLD), strict=True):
            feature = features[f]
            by_rule = auc[j, own[j]].max() if own[j].min() >= 0 and feature.group != _ATTRIBUTES else THRESHOLD
            if feature.group == PROGRESS or auc[j, f] <= by_rule:
                continue
            one = TargetLeak(
                feature.name, feature.group, names[j], horizon // DAY, float(auc[j, f]), int(converters[j])
            )
            if one.feature not in best or one.auc > best[one.feature].auc:
                best[one.feature] = one
    return sorted(best.values(), key=lambda one: (-one.auc, one.feature))


def _by_target(
    panel: Panel, kept: npt.NDArray[np.bool_], converted: npt.NDArray[np.bool_]
) -> tuple[_F64, npt.NDArray[np.int64]]:
    """Return the AUC (targets, features) within stages, NaN below MOVERS, and the customers who moved (targets)."""
    targets, features = converted.shape[1], panel.x.shape[1]
    won, pairs = np.zeros((targets, features)), np.zeros(targets)
    categories = _categories(panel)
    # A pair reached late is asked for some targets and not for others of its stage; ranks are of one set of rows.
    usual = kept & (panel.labels.at_risk == panel.definition.at_risk(panel.stage)).all(axis=1)
    for stage in np.unique(panel.stage[usual]):
        rows = usual & (panel.stage == stage)
        y = converted[rows].astype(np.float64)
        ahead = panel.definition.at_risk(np.array([stage], dtype=np.int8))[0]
        x = np.where(np.isnan(panel.x[rows]), -np.inf, panel.x[rows])
        ones = y.sum(axis=0)
        zeros = len(y) - ones
        ranks = rankdata(x, axis=0)
        above = y.T @ ranks - (ones * (ones + 1) / 2)[:, None]
        for f in categories:
            above[:, f] = _ordered_by_rate(x[:, f], y)
        won[ahead] += above[ahead]
        pairs += np.where(ahead, ones * zeros, 0)
    converters = np.array([len(np.unique(panel.customer[usual & converted[:, j]])) for j in range(targets)])
    evaluated = (converters >= MOVERS) & (pairs > 0)
    auc = np.full((targets, features), np.nan)
    auc[evaluated] = won[evaluated] / pairs[evaluated, None]
    return np.maximum(auc, 1 - auc), converters  # the lowest may be the likeliest, as with recency


def _categories(panel: Panel) -> list[int]:
    """Return the columns that are codes without an order."""
    catalogue = panel.definition.catalogue
    attributes = [i for i, feature in enumerate(catalogue.features) if feature.fact[0] == "category"]
    coded = {"last_channel", "last_event_1", "last_event_2", "last_event_3"}
    named = [i for i, feature in enumerate(catalogue.features) if feature.name in coded and feature.group == "last"]
    return named + attributes


def _ordered_by_rate(codes: npt.NDArray[Any], y: _F64) -> _F64:
    """Return, per target, the pairs won when categories stand in the order of their rates (ties count half)."""
    values, place = np.unique(codes, return_inverse=True)
    ones = np.stack([np.bincount(place, weights=column, minlength=len(values)) for column in y.T])
    zeros = np.bincount(place, minlength=len(values)) - ones
    order = np.argsort(ones / (ones + zeros), axis=1, kind="stable")
    ones, zeros = np.take_along_axis(ones, order, 1), np.take_along_axis(zeros, order, 1)
    below = np.cumsum(zeros, axis=1) - zeros
    won: _F64 = (ones * (below + zeros / 2)).sum(axis=1)
    return won
