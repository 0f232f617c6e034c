"""What moved, in words and shares of customers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cvj_ml.config import DAY
from cvj_ml.features import Feature
from cvj_ml.models.distributions import DriftCounts, names_of_codes, score_columns
from cvj_ml.models.drift_reference import DriftReference, together
from cvj_ml.panel import Definition

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


def comparisons(definition: Definition) -> list[Compared]:
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


def _of(definition: Definition, position: int, feature: Feature) -> Iterator[Compared]:
    """Yield the comparisons of a feature.

    Who has any of it fails for events, channels, amounts, attributes and stages that were entered; what the business
    itself sends, and how many are active, only warn. How much they have fails for amounts and attributes, which move
    when their units or names change; how often something is done moves with the season and only warns. Not compared
    are the calendar (the same for everybody), times since something (they grow by themselves), and what repeats the
    rest: trends, progress, stages as a number.
    """
    codes = names_of_codes(definition.catalogue, feature) or None
    sent = feature.fact[0] == "event" and feature.fact[1] in definition.outbound
    entered, active = feature.fact[0] == "entered", feature.name.startswith("touchpoints_")
    if entered or active or feature.group in ("counts", "values", "attributes"):
        yield Compared(position, PRESENCE, "features", feature.label, feature.fact, not (sent or active))
    if feature.group in ("counts", "values", "attributes", "rhythm", "last"):
        fails = feature.group in ("values", "attributes")
        yield Compared(position, VALUES, "features", feature.label, feature.fact, fails, codes)


def question_names(definition: Definition) -> list[str]:
    """Return what each probability is of: "return in 30 days", "reaching Ascend in 30 days"."""
    names = ["return", *(f"reaching {name}" for name in definition.journey.names)]
    return [f"{names[target]} in {definition.horizons[h] // DAY} days" for target, h in score_columns(definition)]


def describe(one: Compared, reference: DriftReference, counts: DriftCounts) -> str:
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
