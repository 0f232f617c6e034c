"""The facts of a model card: what training found, and what is derived from it for the card alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cvj_ml.config import DAY, Config
from cvj_ml.evaluation.backtesting import FoldResult
from cvj_ml.evaluation.promotion import Verdict
from cvj_ml.evaluation.segments import ATTRIBUTE, FIRST_CHANNEL
from cvj_ml.evaluation.stage_evaluation import FitOfStages
from cvj_ml.journey import Visible
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import Fit
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import Panel
from cvj_ml.store import Store, Usage
from cvj_ml.windows import follow_up, happened_within, midnight, observed_whole

_FEW_VALUES = 12


@dataclass(frozen=True, slots=True)
class Training:
    """One training: what went in, the fold by which its recipe is evaluated, the refit, the verdict.

    cut: instant of the refit; usage: of the rows at the cut; panel, fit and predictor: of the refit; stages: None where
    no coverage is declared; contact_notes: what past nights taught of contacts, a sentence a list.
    """

    config: Config
    store: Store
    visible: Visible
    usage: Usage
    cut: int
    result: FoldResult
    panel: Panel
    fit: Fit
    predictor: Predictor
    stages: FitOfStages | None
    verdict: Verdict
    contact_notes: tuple[str, ...] = ()

    @property
    def definition(self) -> ModelSpec:
        """What the refitted model's predictions mean."""
        return self.panel.definition

    @property
    def horizons(self) -> tuple[int, ...]:
        """The horizons that lists use, which the card shows transition by transition."""
        used = {one.horizon for one in self.config.lists or ()} or {self.config.default_list_horizon}
        return tuple(sorted(used))

    @property
    def outcome_days(self) -> int:
        """The days of outcomes that training could see: from the end of the burn-in to the cut."""
        first = midnight(self.config.history_from, self.config.zone) + self.config.burn_in
        return max(0, self.cut - first) // DAY

    def low(self) -> Iterator[tuple[str, int]]:
        """Yield the targets that rest on base rates, with the customers who moved there."""
        names = ["return", *self.definition.journey.names]
        for j in [0, *(1 + i for i in self.definition.journey.observable)]:
            if self.predictor.trees.low[j] and self.panel.labels.at_risk[:, j].any():
                yield names[j], int(self.panel.converters[j])

    def converted_before(self, origin: str, target: str, horizon_days: int) -> float:
        """Return the share of training snapshots at ``origin`` that moved, outcome known before the fold.

        NaN where there is none. What differs from the share in the fold's own window is drift, whatever the model.
        """
        panel, names = self.panel, self.definition.journey.names
        j = 0 if target == "return" else 1 + names.index(target)
        seen = follow_up(panel.as_of, self.result.fold.cut, self.store.arrival_delay)
        here = observed_whole(seen, horizon_days * DAY) & panel.labels.at_risk[:, j]
        if origin != "any":
            here &= panel.stage == (-1 if origin == "none" else names.index(origin))
        converted = happened_within(panel.labels.times[here, j], horizon_days * DAY)
        return float(converted.mean()) if len(converted) else math.nan

    def is_drift(self, failing: pd.Series) -> tuple[bool, float, float]:
        """Return whether drift explains a failing observed/expected, and the shares that moved before and in the fold.

        It does where the share changed the way the failure points, by at least half of it on the logarithm.
        """
        before = self.converted_before(failing["from"], failing["to"], int(failing["horizon_days"]))
        rows = self.result.rows
        same = (rows["from"] == failing["from"]) & (rows["to"] == failing["to"])
        during = float(rows.loc[same & (rows["horizon_days"] == failing["horizon_days"]), "base_rate"].iloc[0])
        if not (before > 0 and during > 0 and failing["estimate"] > 0):
            return False, before, during
        explained = math.log(during / before) / math.log(failing["estimate"])
        return bool(explained >= 0.5), before, during


def card_segments(result: FoldResult) -> list[str]:
    """Return the subgroups that every card compares: the first channel, and text attributes with few values."""
    categories = result.panel.definition.catalogue.vocabulary.categories
    few = [name for name, values in categories.items() if 2 <= len(values) <= _FEW_VALUES]
    return [FIRST_CHANNEL, *(f"{ATTRIBUTE}{name}" for name in few)]


def first_and_last(panel: Panel) -> tuple[int, int]:
    """Return the first and the last instant that a panel asks about."""
    return int(np.min(panel.as_of)), int(np.max(panel.as_of))


def given_settings(training: Training) -> str:
    """Return what the configuration gives of the fit, in sentences; nothing where it gives nothing."""
    definition = training.definition
    given = [f"{name} {value}" for name, value in definition.trees.given.items()]
    told = f" Given by the configuration and not chosen: {', '.join(given)}." if given else ""
    if definition.half_life is None:
        return told
    return (
        f"{told} In line, ridge and trees a snapshot counts half as much for every {definition.half_life // DAY} days"
        " of age; calibration and all figures count every row alike."
    )
