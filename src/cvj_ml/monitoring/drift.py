"""Whether tonight's customers are like those that the model was trained for, and whether it tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cvj_ml.config import GatesSpec
from cvj_ml.errors import GateError
from cvj_ml.models.distributions import DriftCounts, score_columns
from cvj_ml.models.drift_reference import DriftReference
from cvj_ml.models.predictor import Predictor
from cvj_ml.monitoring.drift_words import Column, columns, describe, question_names
from cvj_ml.monitoring.gates import Earlier, Verdict, passed
from cvj_ml.monitoring.preflight import cohort

CHANCE = 0.001
"""How often a night without drift may go over a limit by sampling alone, over all columns together."""

USUAL = 1.5
"""From so many times what it moved by itself during the training on, a column fails."""

FEW = 20
"""Customers from which on equal probabilities are no accident."""

_TOLD = 3
_QUALITY = GateError.exit_code
_F64 = npt.NDArray[np.float64]


def drift(spec: GatesSpec, predictor: Predictor, counts: DriftCounts, earlier: Earlier | None = None) -> list[Verdict]:
    """Judge how many customers were scored, their probabilities, and the drift of both since the training.

    counts: what `Predictor.count` says of each block, added up.
    """
    verdicts = [cohort(spec, counts.customers, earlier), _broken(predictor, counts), _equal(predictor, counts)]
    areas: dict[str, list[Column]] = {"features": [], "scores": [], "stages": []}
    for one in columns(predictor.definition):
        areas[one.area].append(one)
    if predictor.drift is None:
        message = "nothing to compare with: the model was trained on fewer than 200 customers"
        return [*verdicts, *(passed(f"drift:{name}", message, _QUALITY) for name in areas)]
    psi, noise = predictor.drift.shift(counts.bins, CHANCE / (2 * len(counts.bins)))
    return verdicts + [
        _moved(f"drift:{name}", spec, predictor.drift, counts, area, psi, noise) for name, area in areas.items()
    ]


def _moved(
    name: str,
    spec: GatesSpec,
    reference: DriftReference,
    counts: DriftCounts,
    area: Sequence[Column],
    psi: _F64,
    noise: _F64,
) -> Verdict:
    """Judge the columns of an area; the value is that of the column furthest beyond its limit, or nearest to it."""
    places = np.array([one.position for one in area])
    for level, lowest, factor in (("fail", spec.drift.fail, USUAL), ("warn", spec.drift.warn, 1.0)):
        if lowest is None:
            continue
        limit = np.maximum(lowest, factor * reference.movement) + noise
        ratio = (psi / limit)[places]
        worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        value, bound = float(psi[places][worst]), float(limit[places][worst])
        over = [area[i] for i in np.argsort(-ratio.max(axis=1), kind="stable") if ratio[i].max() > 1]
        if over:
            told = _different(over)[:_TOLD]
            parts = [int(ratio[area.index(one)].argmax()) for one in told]
            words = [
                f"{describe(one, reference, counts, part)} (PSI {psi[one.position, part]:.2f}, limit"
                f" {limit[one.position, part]:.2f})"
                for one, part in zip(told, parts, strict=True)
            ]
            rest = f"; and {len(over) - len(told)} more" if len(over) > len(told) else ""
            message = f"{'; '.join(words)}{rest}. {_NEXT}"
            return Verdict(name, "fail" if level == "fail" else "warn", value, bound, message, _QUALITY)
    if spec.drift.fail is None and spec.drift.warn is None:
        return passed(name, "not asked for", _QUALITY)
    return Verdict(name, "pass", value, bound, f"{len(area)} compared, none moved beyond its limit", _QUALITY)


_NEXT = (
    "If no source has changed by mistake (an event or channel renamed, other units, rows missing), the business has"
    " moved on: train anew"
)


def _different(over: Sequence[Column]) -> list[Column]:
    """Return the columns, one for each fact: the windows of one event tell the same."""
    return list({one.fact: one for one in reversed(over)}.values())[::-1]


def _broken(predictor: Predictor, counts: DriftCounts) -> Verdict:
    names = question_names(predictor.definition)
    bad = [f"{names[i]}: {counts.broken[i]}" for i in np.flatnonzero(counts.broken)]
    if not bad:
        return Verdict("probabilities", "pass", 0.0, 0.0, "all are numbers from 0 to 1", _QUALITY)
    message = (
        f"customers whose probability is no number from 0 to 1, by question: {', '.join(bad[:_TOLD])}"
        f"{f' and {len(bad) - _TOLD} more' if len(bad) > _TOLD else ''}. The model is at fault: go back to the one"
        " before (`cvj-ml models rollback`) or train anew"
    )
    return Verdict("probabilities", "fail", float(counts.broken.max()), 0.0, message, _QUALITY)


def _equal(predictor: Predictor, counts: DriftCounts) -> Verdict:
    """Judge whether a question has one and the same answer for everybody; base rates may have."""
    names, which = question_names(predictor.definition), score_columns(predictor.definition)
    asked = counts.bins[len(predictor.definition.catalogue.features) : -1, 1:].sum(axis=1)
    learned = ~predictor.trees.low[[target for target, _ in which]]
    equal = [names[i] for i in np.flatnonzero(learned & (asked >= FEW) & (counts.lowest == counts.highest))]
    if not equal:
        return Verdict("equal_scores", "pass", 0.0, 0.0, "customers are told apart", _QUALITY)
    message = (
        f"every customer has the same probability of: {', '.join(equal[:_TOLD])}"
        f"{f' and {len(equal) - _TOLD} more' if len(equal) > _TOLD else ''}. Lists of them would be drawn by chance."
        " Check that the sources still hold whole histories, and the card of the model"
    )
    return Verdict("equal_scores", "fail", float(len(equal)), 0.0, message, _QUALITY)
