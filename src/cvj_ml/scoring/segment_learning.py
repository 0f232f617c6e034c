"""How a model comes to know the thresholds of the ready segments: from the scores of its own customers at the cut."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, SegmentsSpec
from cvj_ml.engines import Blocks
from cvj_ml.histories import Block
from cvj_ml.models.drift_profile.learning import SAMPLE, sample_of
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.segment_levels import LEVELS, QUIET_AFTER, Rhythm, SegmentLevels, level_column
from cvj_ml.scoring.scores_table import as_table, rhythm_of

LEAST_RISK = 0.05
"""Nobody is at risk who is surer than this to come back, even if others are surer still."""

_DIGITS = 3
_F64 = npt.NDArray[np.float64]


def learn_segments(predictor: Predictor, blocks: Blocks, customers: int, spec: SegmentsSpec, cut: int) -> SegmentLevels:
    """Learn the usual gap between active days by stage, and the level at which each segment begins.

    ``customers`` is how many the blocks hold; a sample of them is looked at. A stage with fewer than `min_customers`
    who have a rhythm has the usual gap of everybody, or, where that is not known either, the one whose triple is
    ``dormant_after``. Levels have three digits; one that fewer customers than that would tell, or reach, is not kept.
    """
    definition, share = predictor.definition, min(1.0, SAMPLE / max(customers, 1))
    horizons = {name: spec.horizon(name, definition.horizons) // DAY for name in LEVELS}

    def look(block: Block) -> _F64:
        some = sample_of(block, share)
        answers = predictor.answer(some, cut)
        table = as_table(predictor, some, answers, cut, "")
        columns = {name: table[name].to_numpy() for name in table.column_names if name.startswith(("p_", "value_"))}
        levels = [level_column(name, horizons[name], columns) for name in LEVELS]
        rhythm = rhythm_of(definition, some, answers.snapshots)
        return np.stack([answers.stage.astype(np.float64), rhythm.silence, rhythm.usual_gap, *levels], axis=1)

    found = np.concatenate([np.zeros((0, 3 + len(LEVELS))), *blocks.map(look)])
    stage, rhythm = found[:, 0].astype(np.int64), Rhythm(found[:, 1], found[:, 2])
    fewest = definition.min_customers
    usual = definition.journey.spec.dormant_after / QUIET_AFTER / DAY
    gaps = np.full(1 + len(definition.journey.stages), _median(rhythm.usual_gap, fewest, usual))
    for i in range(len(gaps)):
        gaps[i] = _median(rhythm.usual_gap[stage == i - 1], fewest, gaps[i])
    levels = {}
    for k, name in enumerate(LEVELS, 3):
        asked = rhythm.active(gaps[stage + 1]) if name == "at_risk" else True
        known = np.sort(found[~np.isnan(found[:, k]) & asked, k])[::-1]
        one = getattr(spec, name)
        reached = len(known) if one.top is None else math.ceil(one.top * len(known))
        level = one.at_least if one.top is None else _rounded(known[reached - 1 :][:1])
        if name == "at_risk" and one.top is not None and level < LEAST_RISK:
            level, reached = LEAST_RISK, int(np.count_nonzero(known >= LEAST_RISK))
        if reached >= max(fewest, 1) and level > 0:
            levels[name] = level
    return SegmentLevels(spec, horizons, gaps, levels)


def _median(gaps: _F64, fewest: int, otherwise: float) -> float:
    known = gaps[~np.isnan(gaps)]
    return _rounded(np.median(known, keepdims=True)) if len(known) >= max(fewest, 1) else otherwise


def _rounded(value: _F64) -> float:
    """Return the only number of an array with few digits, 0 of an empty one."""
    return float(f"{value[0]:.{_DIGITS}g}") if len(value) else 0.0
