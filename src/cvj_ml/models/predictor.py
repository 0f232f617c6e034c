"""A model ready to answer: frozen definition, trees, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.histories import Block
from cvj_ml.journey import KEPT, PURCHASE, Outcome
from cvj_ml.models.drift_profile.distributions import ColumnBins, DriftCounts, bins_of, columns_of, count_bins
from cvj_ml.models.drift_profile.reference import DriftReference
from cvj_ml.models.explain.typical import Reference
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.hazard.level_shift import YearAgoLevel
from cvj_ml.models.hazard.reach import Trees, reach_probabilities
from cvj_ml.models.segment_levels import SegmentLevels
from cvj_ml.models.stage.posterior import StageModel, assemble
from cvj_ml.models.uplift.list_effect import ListEffect
from cvj_ml.models.value.purchase_history import PurchaseColumns
from cvj_ml.models.value.value import ValueModel, Values
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import Panel
from cvj_ml.snapshots import Snapshots, eligible
from cvj_ml.windows import Instants

_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says of a block's eligible customers at one instant.

    ``probability`` is (customers, 1 + stages, horizons): P(return), then P(reach each stage); NaN where not asked.
    ``outcomes`` is (customers, horizons) by the name of an outcome: P(it happens); NaN where not asked.
    ``values`` are what they are expected to buy; None where the model does not know amounts.
    ``true_stage`` is (customers, stages): P(the true stage is this one); NaN before any stage.
    ``x`` are the features that this was told from.
    """

    snapshots: Snapshots
    stage: npt.NDArray[np.int8]
    days_in_stage: _F64
    dormant: npt.NDArray[np.bool_]
    probability: _F64
    true_stage: _F64
    x: npt.NDArray[np.float32]
    outcomes: Mapping[str, _F64]
    values: Values | None = None


@dataclass(frozen=True, slots=True)
class Unlived:
    """A stage whose customers too few have watched for long enough: what is known of it, and how surely.

    ``origin`` is a position (-1: before any), ``lived_days`` the longest horizon that enough customers of the stage
    have lived through, 0 for none. ``probability`` of the target within ``horizon_days``, the longest, rests on the
    stage's own rate until then and lies between ``low`` and ``high``.
    """

    origin: int
    stage: str
    target: str
    lived_days: int
    horizon_days: int
    probability: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        """Say what is not known, and between which bounds the answer lies."""
        target = "returning" if self.target == "return" else f"reaching {self.target}"
        if not self.lived_days:
            return f"{self.stage}: nobody has been there for long enough to tell of {target}; it may be anything"
        bounds = f"{self.low:.1%} to {self.high:.1%}".replace("%", " %")
        return (
            f"{self.stage}: too few have been seen there for longer than {self.lived_days} days without it, so"
            f" {target} within {self.horizon_days} days rests on the stage's own rate until then ({bounds})"
        )


@dataclass(frozen=True, slots=True)
class OutcomeModel:
    """The hazard of one outcome, which stands in the place of the return; no stage is asked for."""

    trees: Trees
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Predictor:
    """Definition, trees and calibration: a pure function from histories to probabilities.

    ``stage`` is there where the configuration declares coverage; else the true stage is the observed one.
    ``reference`` is what reasons compare a customer with, ``drift`` what a night's customers are compared with, and
    ``segments`` where the ready segments begin; None in a model that is only measured. ``value`` is there where the
    journey says what is bought, and enough was. ``effects`` are of the lists whose control groups taught what a contact
    changes.
    """

    definition: ModelSpec
    trees: Trees
    calibration: Calibration
    stage: StageModel | None = None
    reference: Reference | None = None
    drift: DriftReference | None = None
    year_ago: YearAgoLevel | None = None
    outcomes: tuple[OutcomeModel, ...] = ()
    segments: SegmentLevels | None = None
    value: ValueModel | None = None
    effects: tuple[ListEffect, ...] = ()

    @property
    def amounts_rank(self) -> bool:
        """Whether amounts are there and may rank lists, by the rule of training."""
        return self.value is not None and self.value.ranks

    def asking(self, outcome: Outcome) -> Predictor:
        """Return the model of one of the definition's own outcomes, which takes the place of the return."""
        found = self.outcomes[self.definition.own_outcomes.index(outcome)]
        return Predictor(self.definition.asking(outcome), found.trees, found.calibration, reference=self.reference)

    @property
    def learned(self) -> npt.NDArray[np.bool_]:
        """Return what is asked and learned: (1 + stages, targets, horizons), those before any stage first."""
        # A probability rests on every interval up to its horizon.
        known = np.logical_and.accumulate(self.trees.base.known, axis=2)
        found: npt.NDArray[np.bool_] = known & ~self.trees.low[:, None] & self._at_risk_by_stage[:, :, None]
        return found

    @property
    def low_evidence(self) -> npt.NDArray[np.bool_]:
        """Return what is asked and rests on base rates, of the shape of `learned`."""
        found: npt.NDArray[np.bool_] = ~self.learned & self._at_risk_by_stage[:, :, None]
        return found

    def unlived(self) -> Iterator[Unlived]:
        """Yield the questions that too few customers of a stage have lived through, and that others have."""
        journey, days = self.definition.journey, [horizon // DAY for horizon in self.definition.horizons]
        known = np.logical_and.accumulate(self.trees.base.known, axis=2)
        ever = np.logical_or.reduce(known, axis=0)
        for stage in (-1, *self.definition.journey.observable):
            for target in np.flatnonzero(self._at_risk_by_stage[stage + 1]):
                lived = int(known[stage + 1, target].sum())
                if lived < int(ever[target].sum()) and not self.trees.low[target]:
                    yield Unlived(
                        stage,
                        journey.spec.in_no_stage.capitalize() if stage < 0 else journey.names[stage],
                        ["return", *journey.names][target],
                        days[lived - 1] if lived else 0,
                        days[-1],
                        *self.trees.base.bounds(stage, int(target), len(days)),
                    )

    @property
    def _at_risk_by_stage(self) -> npt.NDArray[np.bool_]:
        return self.definition.at_risk(np.arange(-1, len(self.definition.journey.stages), dtype=np.int8))

    def answer(self, block: Block, as_of: int) -> Predictions:
        """Predict for every customer of the block with a touchpoint visible before ``as_of``."""
        stays = self.definition.stays(block)
        snapshots = eligible(block.touchpoints, np.array([as_of], dtype=np.int64))
        state = stays.at(snapshots.customer, as_of)
        x = self.definition.features(block, stays, snapshots)
        recency = x[:, self.definition.catalogue.names.index("recency")]
        plain = self._learned(x, state.stage, snapshots.as_of, threads=1)
        probability = self._at_level(plain, state.stage)
        active = recency * DAY <= self.definition.journey.spec.dormant_after
        if self.stage is None:
            true_stage = assemble(state.stage, np.zeros((len(snapshots), len(self.definition.journey.stages))))
        else:
            true_stage = self.stage.posterior(x, state.stage, self.stage.tracking.complete(block, snapshots))
        outcomes = self._outcomes(x, state.stage, snapshots.as_of, probability[:, 0], threads=1)
        held = stays.holds(snapshots.customer, as_of)
        for one in self.definition.outcomes:
            if one.stage is not None and one.name in outcomes:
                outcomes[one.name][~held[:, self.definition.journey.index(one.stage)]] = np.nan
        values = self._values(x, outcomes, plain[:, 0])
        return Predictions(
            snapshots, state.stage, state.days_in_stage, ~active, probability, true_stage, x, outcomes, values
        )

    def count(self, answers: Predictions, bins: ColumnBins | None = None) -> DriftCounts:
        """Count the customers of `answer` in the reference's bins, or in others; counts of blocks add up."""
        columns = columns_of(self.definition)
        bins = bins or (self.drift.bins if self.drift else bins_of([[]] * len(columns), columns))
        return count_bins(self.definition, bins, answers.x, answers.stage, answers.probability)

    def predict(self, panel: Panel, threads: int) -> _F64:
        """Predict for the snapshots of a panel: (snapshots, 1 + stages, horizons)."""
        return self._probabilities(panel.x, panel.stage, panel.as_of, threads)

    def predict_outcomes(self, panel: Panel, threads: int) -> dict[str, _F64]:
        """Predict the outcomes of a panel's snapshots: (snapshots, horizons) by name."""
        return self._outcomes(panel.x, panel.stage, panel.as_of, self.predict(panel, threads)[:, 0], threads)

    def predict_values(self, panel: Panel, threads: int) -> Values | None:
        """Predict what the customers of a panel's snapshots buy; None where the model does not know amounts."""
        if self.value is None:
            return None
        plain = self._learned(panel.x, panel.stage, panel.as_of, threads)
        returns = self._at_level(plain, panel.stage)[:, 0]
        outcomes = self._outcomes(panel.x, panel.stage, panel.as_of, returns, threads)
        return self._values(panel.x, outcomes, plain[:, 0])

    def _values(self, x: npt.NDArray[np.float32], outcomes: Mapping[str, _F64], plain_return: _F64) -> Values | None:
        """Return what customers buy, at the level of the season where P(buys) is at it: ``plain_return`` is not."""
        if self.value is None:
            return None
        level, columns, horizons = outcomes[PURCHASE], PurchaseColumns.of(self.definition), self.definition.horizons
        asked = {one.name: one.same_as for one in self.definition.outcomes}
        same = asked.get(PURCHASE)
        while same in asked:
            same = asked[same]
        if self.year_ago is None or same != "return":
            return self.value.predict(x, columns, level, horizons)
        return self.value.predict(x, columns, plain_return, horizons, level)

    def _outcomes(
        self, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], as_of: Instants, p_return: _F64, threads: int
    ) -> dict[str, _F64]:
        """Return P(each outcome within each horizon), none likelier than what it is a case of.

        Whoever buys or stays returns; whoever buys stays, where each of the purchases counts as kept.
        """
        found = {"return": p_return}
        for one in self.definition.outcomes if self.outcomes or not self.definition.own_outcomes else ():
            if one.same_as is not None:
                found[one.name] = found[one.same_as]
            else:
                own = self.asking(one)._probabilities(x, stage, as_of, threads)[:, 0]
                found[one.name] = own if one.stage is not None else np.minimum(own, found[self._case_of(one)])
        return {name: p for name, p in found.items() if name != "return"}

    def _case_of(self, outcome: Outcome) -> str:
        """Return what happens whenever an outcome does."""
        kept = next((one for one in self.definition.outcomes if one.name == KEPT), outcome)
        return KEPT if kept != outcome and kept.of(outcome.events) == outcome.events else "return"

    def _probabilities(
        self, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], as_of: Instants, threads: int
    ) -> _F64:
        return self._at_level(self._learned(x, stage, as_of, threads), stage)

    def _at_level(self, learned: _F64, stage: npt.NDArray[np.int8]) -> _F64:
        """Return probabilities at the level of a year ago, where the model has one."""
        return learned if self.year_ago is None else self.year_ago.apply(learned, self.learned[stage + 1])

    def _learned(self, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], as_of: Instants, threads: int) -> _F64:
        return reach_probabilities(
            self.trees,
            self.calibration,
            self.definition.at_risk(stage),
            x,
            stage,
            self.definition.horizons,
            threads,
            as_of,
        )
