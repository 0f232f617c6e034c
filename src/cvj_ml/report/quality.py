"""How good the probabilities were when they could be judged, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvj_ml.config import DAY
from cvj_ml.evaluation.record import cell_name
from cvj_ml.lists import RankedList

_STRENGTHS = ((0.85, "Ranks very well"), (0.75, "Ranks well"), (0.65, "Ranks fairly"), (0.55, "Ranks weakly"))


@dataclass(frozen=True, slots=True)
class Training:
    """What the registry knows of the model's training; instants are ISO text, metrics as they were logged."""

    cut: str
    judged_at: str
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, cut: str, parameters: Mapping[str, str], metrics: Mapping[str, float]) -> Training:
        """Return what a run logged; days are enough for people."""
        return cls(cut[:10], parameters.get("fold_cut", "")[:10], metrics)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One list's transition on the fold that the training was judged by: sentences, or why there are none."""

    title: str
    ranking: str
    level: str


def judgements(lists: Sequence[RankedList], training: Training | None) -> list[Judgement]:
    """Return a judgement a list, from metrics such as ``test.auc.convert__ascend.30d``."""
    return [_judge(one, training) for one in lists]


def _judge(one: RankedList, training: Training | None) -> Judgement:
    if training is None:
        return Judgement(one.title, "The registry has no metrics of this model.", "")
    cell = cell_name(one.spec.from_stage, one.spec.to_stage, one.spec.horizon // DAY)

    def metric(name: str) -> float:
        return training.metrics.get(f"test.{name}.{cell}", math.nan)

    auc, lift, level = metric("auc"), metric("lift_10"), metric("observed_expected")
    if math.isnan(auc):
        return Judgement(one.title, "Not judged: too few customers made this move in the test.", "")
    pairs = f"Of a customer who moved and one who did not, it ranked the mover higher in {auc:.0%} of all pairs"
    tenth = "" if math.isnan(lift) else f"; the tenth at the top held {lift:.1f} times the average share of movers"
    return Judgement(one.title, f"{_strength(auc)}. {pairs}{tenth}.", _level(level))


def _strength(auc: float) -> str:
    for least, told in _STRENGTHS:
        if auc >= least:
            return told
    return "Hardly better than chance"


def _level(ratio: float) -> str:
    if math.isnan(ratio):
        return ""
    moved = f"where 100 moves were expected, {100 * ratio:.0f} happened"
    if ratio < 0.9:
        return f"Probabilities were too high: {moved}."
    return f"Probabilities were too low: {moved}." if ratio > 1.1 else f"Probabilities were about right: {moved}."
