"""What moved, in words and shares of customers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvj_ml.config import DAY
from cvj_ml.models.distributions import MISSING, OTHERS, ZERO, DriftCounts, names_of_codes, score_columns
from cvj_ml.models.drift_reference import DriftReference, split, together
from cvj_ml.panel import Definition

PRESENCE, VALUES = 0, 1


@dataclass(frozen=True, slots=True)
class Column:
    """A compared column: where it stands, which gate asks about it, its name for people, and its codes' names."""

    position: int
    area: str
    label: str
    fact: tuple[str, ...]
    codes: tuple[str, ...] | None = None


def columns(definition: Definition) -> list[Column]:
    """Return the columns that are compared: all but the calendar, which is the same for everybody."""
    stages = ("no stage", *definition.journey.names)
    found = [
        Column(i, "features", one.label, one.fact, names_of_codes(definition.catalogue, one) or None)
        for i, one in enumerate(definition.catalogue.features)
        if one.group != "calendar" and one.fact != ("stage",)
    ]
    start, questions = len(definition.catalogue.features), question_names(definition)
    targets = [target for target, _ in score_columns(definition)]
    found += [
        Column(start + i, "scores", f"probability of {question}", ("score", str(target)))
        for i, (question, target) in enumerate(zip(questions, targets, strict=True))
    ]
    return [*found, Column(start + len(questions), "stages", "observed stage", ("stage",), stages)]


def question_names(definition: Definition) -> list[str]:
    """Return what each probability is of: "return in 30 days", "reaching Ascend in 30 days"."""
    names = ["return", *(f"reaching {name}" for name in definition.journey.names)]
    return [f"{names[target]} in {definition.horizons[h] // DAY} days" for target, h in score_columns(definition)]


def describe(column: Column, reference: DriftReference, counts: DriftCounts, part: int) -> str:
    """Return what moved most of a column's presence or values: the share of customers now and at the training."""
    shares = (reference.presence, reference.values)[part][[column.position]]
    known, now = together(shares, split(counts.bins)[part][[column.position]])
    then, tonight = known[0], now[0] / max(now[0].sum(), 1)
    group = int(np.argmax(np.abs(tonight - then)))
    what = _presence(group) if part == PRESENCE else _value(column, reference, group)
    whose = "customers" if part == PRESENCE else "those who have any"
    if column.codes is not None or column.area == "scores":
        whose = "customers"
    return f"{column.label}: {what} for {tonight[group]:.1%} of {whose}, {then[group]:.1%} at the training"


def _presence(group: int) -> str:
    return {MISSING: "unknown", ZERO: "none", OTHERS: "some"}.get(group, "a rare value")


def _value(column: Column, reference: DriftReference, group: int) -> str:
    edges = reference.bins.edges[column.position]
    edges = edges[np.isfinite(edges)]
    if group > len(edges):
        return "a rare value"
    if column.codes is not None:
        return column.codes[group]
    if not len(edges):
        return "any value"
    shown = [f"{edge:.3g}" if column.area == "features" else f"{edge:.1%}" for edge in edges]
    if group == 0:
        return f"at most {shown[0]}"
    return f"more than {shown[-1]}" if group == len(edges) else f"from {shown[group - 1]} to {shown[group]}"
