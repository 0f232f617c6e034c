"""Whether tonight's customers are like those that the model was trained for, and whether it tells them apart.

What moved, in words and shares of customers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, GatesSpec, Levels
from cvj_ml.errors import GateError
from cvj_ml.features import CUSTOM, Feature
from cvj_ml.gates.preflight import cohort
from cvj_ml.gates.verdicts import Earlier, GateVerdict, passed
from cvj_ml.models.drift_profile.distributions import DriftCounts, score_columns
from cvj_ml.models.drift_profile.reference import DriftReference, together
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.model_spec import ModelSpec

CHANCE = 0.001
"""How often a night without drift may go over a limit by sampling alone, over all columns together."""

WARN_MOVEMENT, FAIL_MOVEMENT = 1.5, 2.0
"""How many times what a column moved by itself in the year before the training it may move without a word, at all."""

FEW = 20
"""Customers from which on equal probabilities are no accident."""

_TOLD = 3
_QUALITY = GateError.exit_code
_F64 = npt.NDArray[np.float64]


def drift(
    spec: GatesSpec, predictor: Predictor, counts: DriftCounts, earlier: Earlier | None = None
) -> list[GateVerdict]:
    """Evaluate how many customers were scored, their probabilities, and the drift of both since the training.

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
    return verdicts + [_converted(spec.drift, [one for one in asked if one.area == area], found) for area in areas]


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


def _converted(levels: Levels, asked: Sequence[Compared], found: _Found) -> GateVerdict:
    """Evaluate the comparisons of an area by the one furthest beyond its limit, or nearest to it.

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
                f"{drift_in_words(asked[i], found.reference, found.counts)} (PSI {psi[i]:.2f}, limit {limit[i]:.2f})"
                for i in told
            ]
            rest = f"; and {len(over) - len(told)} more" if len(over) > len(told) else ""
            return GateVerdict(name, level, *nearest, f"{'; '.join(words)}{rest}. {_next(asked, told)}", _QUALITY)
    if nearest is None:
        return passed(name, "not asked for", _QUALITY)
    return GateVerdict(name, "pass", *nearest, f"{len(asked)} comparisons, none beyond its limit", _QUALITY)


def _different(over: Sequence[int], asked: Sequence[Compared]) -> list[int]:
    """Return the comparisons, one for each fact: the windows of one event tell the same."""
    first: dict[tuple[str, ...], int] = {}
    for i in over:
        first.setdefault(asked[i].fact, i)
    return list(first.values())


def _next(asked: Sequence[Compared], told: Sequence[int]) -> str:
    kinds = ("event", "channel", "number", "category", "role")
    named = [repr(asked[i].fact[1]) for i in told if asked[i].fact[0] in kinds]
    come = "comes" if len(named) == 1 else "come"
    where = f"Look first where {' and '.join(named)} {come} from" if named else "Look at the sources first"
    return f"{where} (renamed, other units, rows missing?). If the business itself has changed, train anew"


def _broken(predictor: Predictor, counts: DriftCounts) -> GateVerdict:
    names = question_names(predictor.definition)
    bad = [f"{names[i]}: {counts.broken[i]}" for i in np.flatnonzero(counts.broken)]
    if not bad:
        return GateVerdict("probabilities", "pass", 0.0, 0.0, "all are numbers from 0 to 1", _QUALITY)
    message = (
        f"customers whose probability is no number from 0 to 1, by question: {', '.join(bad[:_TOLD])}"
        f"{f' and {len(bad) - _TOLD} more' if len(bad) > _TOLD else ''}. The model is at fault: go back to the one"
        " before (`cvj-ml models rollback`) or train anew"
    )
    return GateVerdict("probabilities", "fail", float(counts.broken.max()), 0.0, message, _QUALITY)


def _equal(predictor: Predictor, counts: DriftCounts) -> GateVerdict:
    """Evaluate whether a question has one and the same answer for everybody; base rates may have."""
    names, which = question_names(predictor.definition), score_columns(predictor.definition)
    asked = counts.bins[len(predictor.definition.catalogue.features) : -1, 1:].sum(axis=1)
    target, horizon = np.array(which).T
    learned = np.logical_or.reduce(predictor.learned, axis=0)[target, horizon]
    equal = [names[i] for i in np.flatnonzero(learned & (asked >= FEW) & (counts.lowest == counts.highest))]
    if not equal:
        return GateVerdict("equal_scores", "pass", 0.0, 0.0, "customers are told apart", _QUALITY)
    message = (
        f"every customer has the same probability of: {', '.join(equal[:_TOLD])}"
        f"{f' and {len(equal) - _TOLD} more' if len(equal) > _TOLD else ''}. Lists of them would be drawn by chance."
        " Check that the sources still hold whole histories, and the card of the model"
    )
    return GateVerdict("equal_scores", "fail", float(len(equal)), 0.0, message, _QUALITY)


PRESENCE, VALUES = 0, 1


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison: a column, and whether of who has any of it (PRESENCE) or of how much (VALUES).

    ``area`` is the gate that asks, ``fact`` what it tells of (a reason may name a fact once), ``codes`` are the names
    that codes stand for. Without ``fails`` it only warns.
    """

    position: int
    part: int
    area: str
    label: str
    fact: tuple[str, ...]
    fails: bool
    codes: tuple[str, ...] | None = None


def comparisons(definition: ModelSpec) -> list[Compared]:
    """Return what is compared: features, probabilities, and the mix of observed stages."""
    found = [one for i, feature in enumerate(definition.catalogue.features) for one in _of(definition, i, feature)]
    start, questions = len(definition.catalogue.features), question_names(definition)
    targets = [target for target, _ in score_columns(definition)]
    found += [
        Compared(start + i, VALUES, "scores", f"probability of {question}", ("score", str(target)), True)
        for i, (question, target) in enumerate(zip(questions, targets, strict=True))
    ]
    stages = ("no stage", *definition.journey.names)
    return [*found, Compared(start + len(questions), VALUES, "stages", "observed stage", ("stage",), True, stages)]


def _of(definition: ModelSpec, position: int, feature: Feature) -> Iterator[Compared]:
    """Yield the comparisons of a feature.

    Who has any of it fails for events, channels, amounts, attributes and stages that were entered; what the business
    itself sends, and how many are active, only warn. How much they have fails for amounts and attributes, which move
    when their units or names change; how often something is done moves with the season and only warns. Not compared
    are times since something (they grow by themselves), and what repeats the rest: trends, progress, stages as a
    number. Who has a number of a function of one's own fails, too: that it found nothing is the source's fault. How
    much that is only warns, since nobody knows whether it grows by itself.
    """
    codes = definition.catalogue.names_of_codes(feature) or None
    sent = feature.fact[0] == "event" and feature.fact[1] in definition.outbound
    entered, active = feature.fact[0] in ("entered", "left"), feature.name.startswith("touchpoints_")
    if entered or active or feature.group in ("counts", "values", "attributes", CUSTOM):
        yield Compared(position, PRESENCE, "features", feature.label, feature.fact, not (sent or active))
    if feature.group in ("counts", "values", "attributes", "rhythm", "last", CUSTOM) or _counts_people(feature):
        fails = feature.group in ("values", "attributes")
        yield Compared(position, VALUES, "features", feature.label, feature.fact, fails, codes)


def _counts_people(feature: Feature) -> bool:
    return feature.group == "people" and feature.fact[0] in ("people", "role")


def question_names(definition: ModelSpec) -> list[str]:
    """Return what each probability is of: "return in 30 days", "reaching Ascend in 30 days"."""
    names = ["return", *(f"reaching {name}" for name in definition.journey.names)]
    return [f"{names[target]} in {definition.horizons[h] // DAY} days" for target, h in score_columns(definition)]


def drift_in_words(one: Compared, reference: DriftReference, counts: DriftCounts) -> str:
    """Return what moved most in a comparison: the share of customers tonight and at the training."""
    shares = (reference.presence, reference.values)[one.part][[one.position]]
    known, now = together(shares, reference.bins.split(counts.bins)[one.part][[one.position]])
    then, tonight = known[0], now[0] / max(now[0].sum(), 1)
    group = 0 if one.part == PRESENCE else int(np.argmax(np.abs(tonight - then)))
    if one.part == VALUES:
        what = f"{_value(one, reference, group)} for"
        whose = "customers" if one.codes or one.area == "scores" else "those who have any"
    else:
        what, whose = "", "customers" if reference.bins.base[one.position] < 0 else "the customers active then"
    return f"{one.label}: {what} {tonight[group]:.1%} of {whose}, {then[group]:.1%} at the training".replace(
        ":  ", ": "
    )


def _value(one: Compared, reference: DriftReference, group: int) -> str:
    edges = reference.bins.edges[one.position]
    edges = edges[np.isfinite(edges)]
    if group > len(edges):
        return "what was rare"
    if one.codes is not None:
        return one.codes[group]
    if not len(edges):
        return "any value"
    shown = [f"{edge:.3g}" if one.area == "features" else f"{edge:.1%}" for edge in edges]
    if group == 0:
        return f"at most {shown[0]}"
    return f"more than {shown[-1]}" if group == len(edges) else f"from {shown[group - 1]} to {shown[group]}"
