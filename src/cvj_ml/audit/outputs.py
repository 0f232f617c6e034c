"""Everything that is said about a block's customers at an instant, and where two sets of answers differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.features import sight
from cvj_ml.histories import Block
from cvj_ml.journey import Stays, evidence
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.amounts import future_amounts
from cvj_ml.panel.labels import label, label_leaves, label_outcomes
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.scoring.scores_table import score_block
from cvj_ml.snapshots import Snapshots, eligible
from cvj_ml.windows import NEVER

_TOLERANCE = 1e-9  # of probabilities; all else agrees to the bit

Name = tuple[str, str]
"""What may differ: its kind (feature, stage, label, vocabulary, score, customer), and its own name."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Answers by name: one value a customer, who stand in the block's order in ``customers``.

    ``vocabulary`` holds what the block adds to the vocabulary of features at the instant.
    """

    customers: Mapping[str, tuple[str, ...]]
    columns: Mapping[Name, npt.NDArray[np.generic]]
    vocabulary: object


def outputs_at(
    definition: ModelSpec, predictor: Predictor | None, block: Block, instant: int, arrival_delay: int = 0
) -> Outputs:
    """Return stages, entries, features and (of a model) scores at an instant, and labels of snapshots before it."""
    stays = definition.stays(block)
    now = eligible(block.touchpoints, np.array([instant], dtype=np.int64))
    state = stays.at(now.customer, instant)
    columns: dict[Name, npt.NDArray[np.generic]] = {
        ("stage", "present stage"): state.stage,
        ("stage", "days in stage"): state.days_in_stage,
    }
    entered, left = stays.last(now.customer, instant)
    columns |= {("stage", f"entry of {name}"): entered[:, i] for i, name in enumerate(definition.journey.names)}
    columns |= {
        ("stage", f"leave of {stage.name}"): left[:, i]
        for i, stage in enumerate(definition.journey.stages)
        if stage.leave is not None
    }
    x = definition.features(block, stays, now)
    columns |= {("feature", name): x[:, i] for i, name in enumerate(definition.catalogue.names)}
    earlier = eligible(block.touchpoints, np.array([instant - max(definition.horizons)], dtype=np.int64))
    columns |= _labels(definition, block, stays, earlier, instant, arrival_delay)
    if predictor is not None:
        columns |= _scores(predictor, block, instant)
    customers = {"now": now, "label": earlier}
    return Outputs(
        {kind: tuple(block.customers[i] for i in one.customer) for kind, one in customers.items()},
        columns,
        _vocabulary(block, instant),
    )


def _labels(
    definition: ModelSpec, block: Block, stays: Stays, earlier: Snapshots, cut: int, delay: int
) -> dict[Name, npt.NDArray[np.generic]]:
    points, rows = block.touchpoints, evidence(definition.journey, block)
    stage = stays.at(earlier.customer, earlier.as_of).stage
    leaves = label_leaves(definition.journey, rows, stays, earlier, cut)
    own = definition.own_outcomes
    columns: dict[Name, npt.NDArray[np.generic]] = {}
    for names, found in (
        (["return", *definition.journey.names], label(definition.journey, rows, earlier, stage, cut, delay)),
        ([one.name for one in own], label_outcomes(own, points, earlier, cut, delay, leaves)),
    ):
        # The hazard sees a time only where it lies before the end of observation.
        times = np.where(found.at_risk, found.times, NEVER)
        columns |= {("label", name): times[:, j] for j, name in enumerate(names)}
    if definition.purchases is not None:
        amounts = future_amounts(points, definition.purchases, earlier, definition.horizons, cut, delay)
        told = amounts.by_horizon(definition.horizons, definition.journey.minor_units)
        columns |= {("label", name): values for name, values in told.items()}
    return columns


def _vocabulary(block: Block, instant: int) -> object:
    """Return whom each name was seen with; that a table exists without a row says nothing."""
    seen = sight(block, instant)
    return seen.events, seen.channels, {name: counts for name, counts in seen.categories.items() if counts}


def _scores(predictor: Predictor, block: Block, instant: int) -> dict[Name, npt.NDArray[np.generic]]:
    table = score_block(predictor, block, instant, "")
    return {
        ("score", name): table[name].to_numpy(zero_copy_only=False)
        for name in table.column_names
        if pa.types.is_floating(table.schema.field(name).type)
    }


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """How many customers were compared, and how many answers of each name differ."""

    customers: int
    different: Mapping[Name, int]


def compare_outputs(one: Outputs, other: Outputs) -> OutputDifference:
    """Compare answers customer by customer; who is answered for in only one of the two differs as a customer."""
    different: dict[Name, int] = {}
    pairs = {kind: _common(one.customers[kind], other.customers[kind]) for kind in one.customers}
    for kind, what in (("now", "asked about"), ("label", "in the training panel")):
        alone = set(one.customers[kind]) ^ set(other.customers[kind])
        if alone:
            different["customer", what] = len(alone)
    for name in one.columns.keys() & other.columns.keys():
        here, there = pairs["label" if name[0] == "label" else "now"]
        number = unequal(one.columns[name][here], other.columns[name][there], exact=name[0] != "score")
        if number:
            different[name] = number
    if one.vocabulary != other.vocabulary:
        different["vocabulary", "names seen so far"] = 1
    return OutputDifference(len(pairs["now"][0]), different)


def _common(one: Iterable[str], other: Iterable[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    place = {name: i for i, name in enumerate(other)}
    pairs = [(i, place[name]) for i, name in enumerate(one) if name in place]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def unequal(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic], *, exact: bool) -> int:
    """Return how many answers differ; what is missing in both does not."""
    same = one == other
    if not exact:
        same = same | np.isclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)
    if one.dtype.kind == "f":
        same = same | (np.isnan(one) & np.isnan(other))
    return int((~same).sum())
