"""Whether tonight's customers are like those that the model was trained for, and whether it tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvj_ml.config import GatesSpec, Levels
from cvj_ml.errors import GateError
from cvj_ml.models.distributions import DriftCounts, score_columns
from cvj_ml.models.drift_reference import DriftReference
from cvj_ml.models.predictor import Predictor
from cvj_ml.monitoring.drift_words import VALUES, Compared, comparisons, describe, question_names
from cvj_ml.monitoring.gates import Earlier, Verdict, passed
from cvj_ml.monitoring.preflight import cohort

CHANCE = 0.001
"""How often a night without drift may go over a limit by sampling alone, over all columns together."""

WARN_MOVEMENT, FAIL_MOVEMENT = 1.5, 2.0
"""How many times what a column moved by itself in the year before the training it may move without a word, at all."""

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
    areas = ("features", "scores", "stages")
    reference = predictor.drift
    if reference is None or not reference.sizes.any():
        message = "nothing to compare with: the model was trained on fewer than 200 customers"
        return [*verdicts, *(passed(f"drift:{area}", message, _QUALITY) for area in areas)]
    asked = comparisons(predictor.definition)
    psi, noise = reference.shift(counts.bins, CHANCE / len(asked))
    found = _Found(psi, noise, _less(reference, counts), reference, counts)
    return verdicts + [_moved(spec.drift, [one for one in asked if one.area == area], found) for area in areas]


@dataclass(frozen=True, slots=True)
class _Found:
    """PSI and noise of each comparison (columns, parts), and of which columns fewer customers have any."""

    psi: _F64
    noise: _F64
    less: npt.NDArray[np.bool_]
    reference: DriftReference
    counts: DriftCounts


def _less(reference: DriftReference, counts: DriftCounts) -> npt.NDArray[np.bool_]:
    """Return which columns a smaller share of customers has some of than at the training."""
    some, none = reference.bins.split(counts.bins)[0].T
    less: npt.NDArray[np.bool_] = some / np.maximum(some + none, 1) < np.nan_to_num(reference.presence[:, 0])
    return less


def _moved(levels: Levels, asked: Sequence[Compared], found: _Found) -> Verdict:
    """Judge the comparisons of an area by the one furthest beyond its limit, or nearest to it.

    What comes to be there (a campaign, a season) was never seen before and only warns. What was there at the training
    can only vanish by more than it ever moved: that fails.
    """
    name = f"drift:{asked[0].area}"
    place = tuple(np.array([(one.position, one.part) for one in asked]).T)
    psi, noise, movement = found.psi[place], found.noise[place], found.reference.movement[place]
    may_fail = np.array([one.fails and (one.part == VALUES or found.less[one.position]) for one in asked])
    nearest: tuple[float, float] | None = None
    grades: list[tuple[Literal["fail", "warn"], float | None, float]] = [
        ("fail", levels.fail, FAIL_MOVEMENT),
        ("warn", levels.warn, WARN_MOVEMENT),
    ]
    for level, least, factor in grades:
        if least is None:
            continue
        limit = np.maximum(least, factor * movement) + noise
        ratio = np.where(may_fail | (level == "warn"), psi / limit, -np.inf)
        order = [int(i) for i in np.argsort(-ratio, kind="stable")]
        nearest = float(psi[order[0]]), float(limit[order[0]])
        over = [i for i in order if ratio[i] > 1]
        if over:
            told = _different(over, asked)[:_TOLD]
            words = [
                f"{describe(asked[i], found.reference, found.counts)} (PSI {psi[i]:.2f}, limit {limit[i]:.2f})"
                for i in told
            ]
            rest = f"; and {len(over) - len(told)} more" if len(over) > len(told) else ""
            return Verdict(name, level, *nearest, f"{'; '.join(words)}{rest}. {_next(asked, told)}", _QUALITY)
    if nearest is None:
        return passed(name, "not asked for", _QUALITY)
    return Verdict(name, "pass", *nearest, f"{len(asked)} comparisons, none beyond its limit", _QUALITY)


def _different(over: Sequence[int], asked: Sequence[Compared]) -> list[int]:
    """Return the comparisons, one for each fact: the windows of one event tell the same."""
    first: dict[tuple[str, ...], int] = {}
    for i in over:
        first.setdefault(asked[i].fact, i)
    return list(first.values())


def _next(asked: Sequence[Compared], told: Sequence[int]) -> str:
    named = [repr(asked[i].fact[1]) for i in told if asked[i].fact[0] in ("event", "channel", "number", "category")]
    come = "comes" if len(named) == 1 else "come"
    where = f"Look first where {' and '.join(named)} {come} from" if named else "Look at the sources first"
    return f"{where} (renamed, other units, rows missing?). If the business itself has changed, train anew"


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
    target, horizon = np.array(which).T
    learned = np.logical_or.reduce(predictor.learned, axis=0)[target, horizon]
    equal = [names[i] for i in np.flatnonzero(learned & (asked >= FEW) & (counts.lowest == counts.highest))]
    if not equal:
        return Verdict("equal_scores", "pass", 0.0, 0.0, "customers are told apart", _QUALITY)
    message = (
        f"every customer has the same probability of: {', '.join(equal[:_TOLD])}"
        f"{f' and {len(equal) - _TOLD} more' if len(equal) > _TOLD else ''}. Lists of them would be drawn by chance."
        " Check that the sources still hold whole histories, and the card of the model"
    )
    return Verdict("equal_scores", "fail", float(len(equal)), 0.0, message, _QUALITY)
