"""How the customers of one instant are spread: counts in fixed bins that add up over blocks.

A column is a feature, a probability or the observed stage. Its bins are fixed when the model is trained: one for
missing, one for zero (most counts are zero), then ranges of the other values, or one for each code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.features import CUSTOM
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.windows import NEVER

MISSING, ZERO, OTHERS = 0, 1, 2
"""The positions of the bins: missing, zero (nothing), and the first of the others (some)."""

RANGES = 8
"""Into how many ranges of equal size the values of a number are cut at most."""

_DIGITS = 3
_I64 = npt.NDArray[np.int64]
_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ColumnKind:
    """How a column is read: ``names`` is how many names its codes stand for, 0 for a number.

    Where ``zero`` is a value like any other, it is not nothing. ``base`` is the column (position) that everybody has
    some of who has some of this one; None: everybody.
    """

    names: int = 0
    zero: bool = False
    base: int | None = None


@dataclass(frozen=True, slots=True)
class ColumnBins:
    """The bins of columns: ``edges`` is (columns, most edges), ascending, infinite where a column has fewer.

    A value belongs to the range that ends at the first edge not below it, or to the last.
    """

    edges: _F64
    zero: npt.NDArray[np.bool_]
    base: _I64

    @property
    def number(self) -> int:
        """How many bins a column has at most."""
        return OTHERS + int(self.edges.shape[1]) + 1

    def part(self, start: int, stop: int) -> ColumnBins:
        """Return the bins of the columns of a range."""
        return ColumnBins(self.edges[start:stop], self.zero[start:stop], self.base[start:stop])

    def tally(self, values: npt.NDArray[np.float32] | _F64) -> _I64:
        """Return how many rows of (rows, columns) fall into each bin: (columns, bins)."""
        counts = np.zeros((len(self.edges), self.number), dtype=np.int64)
        _tally(np.ascontiguousarray(values), self.edges, self.zero, counts)
        return counts

    def split(self, counts: _I64) -> tuple[_F64, _F64]:
        """Return customers with some of a column and those of its base with none, (columns, 2); and the ranges."""
        ranges = counts[:, OTHERS:].astype(np.float64)
        some = ranges.sum(axis=1)
        of = np.where(self.base < 0, counts.sum(axis=1), some[self.base])
        return np.stack([some, np.maximum(of - some, 0)], axis=1), ranges


@compiled
def _tally(values: _F64, edges: _F64, zero: npt.NDArray[np.bool_], counts: _I64) -> None:
    for i in range(values.shape[0]):
        for c in range(values.shape[1]):
            value = values[i, c]
            if np.isnan(value):
                counts[c, MISSING] += 1
            elif value == 0 and not zero[c]:
                counts[c, ZERO] += 1
            else:
                place = 0
                while place < edges.shape[1] and edges[c, place] < value:
                    place += 1
                counts[c, OTHERS + place] += 1


def learn_bins(values: npt.NDArray[np.float32] | _F64, columns: Sequence[ColumnKind], fewest: int) -> ColumnBins:
    """Cut each column of (rows, columns) into ranges that hold equally many of its values, or into its names.

    Each range holds so many customers at least, and edges are rounded to three digits: none is a customer's own number.
    """
    found: list[list[float]] = []
    for c, column in enumerate(columns):
        known = np.sort(values[~np.isnan(values[:, c]), c])
        if column.names:
            found.append([k + 0.5 for k in range(column.names - 1)])
            continue
        known = known if column.zero else known[known != 0]
        ranges = min(RANGES, len(known) // fewest)
        at = [known[len(known) * k // ranges] for k in range(1, ranges)]
        edges = sorted({float(f"{edge:.{_DIGITS}g}") for edge in at})
        # Rounding moves values over an edge.
        kept: list[float] = []
        for edge in edges:
            below = np.searchsorted(known, edge, side="right")
            if below - np.searchsorted(known, kept[-1] if kept else -np.inf, side="right") >= fewest:
                kept += [edge] if len(known) - below >= fewest else []
        found.append(kept)
    return bins_of(found, columns)


def bins_of(edges: Sequence[Sequence[float]], columns: Sequence[ColumnKind]) -> ColumnBins:
    """Return bins from the edges of each column."""
    padded = np.full((len(edges), max(map(len, edges), default=0)), np.inf)
    for c, one in enumerate(edges):
        padded[c, : len(one)] = one
    zero = np.array([one.zero or one.names > 0 for one in columns])
    return ColumnBins(padded, zero, np.array([-1 if one.base is None else one.base for one in columns]))


def score_columns(definition: ModelSpec) -> list[tuple[int, int]]:
    """Return target and horizon (positions) of each probability that a model of this definition gives."""
    targets = [0, *(1 + i for i in definition.journey.observable[1:])]
    return [(target, h) for target in targets for h in range(len(definition.horizons))]


def scores_of(definition: ModelSpec, probability: _F64) -> _F64:
    """Return the probabilities as columns, from (rows, targets, horizons)."""
    which = score_columns(definition)
    return probability[:, [target for target, _ in which], [h for _, h in which]]


def columns_of(definition: ModelSpec) -> list[ColumnKind]:
    """Return all columns: the features, the probabilities, the observed stage.

    Counts and amounts are seen among the customers who were active in the same window: when everybody buys less, an
    event is no rarer for that.
    """
    catalogue = definition.catalogue
    active = {one.window: i for i, one in enumerate(catalogue.features) if one.name.startswith("touchpoints_")}
    features = [
        ColumnKind(
            len(catalogue.names_of_codes(one)),
            zero=one.group in ("attributes", CUSTOM),
            base=active[one.window] if one.group in ("counts", "values") and one.window != NEVER else None,
        )
        for one in catalogue.features
    ]
    return [*features, *[ColumnKind()] * len(score_columns(definition)), ColumnKind(1 + len(definition.journey.names))]


@dataclass(frozen=True, slots=True)
class DriftCounts:
    """What drift is evaluated by: customers by column and bin, and the range of each probability.

    ``bins`` is (columns, bins). Of each probability: ``lowest``, ``highest``, and ``broken``, how many customers had
    none though it was asked, or one that is no probability. Counts of blocks add up to those of all.
    """

    customers: int
    bins: _I64
    lowest: _F64
    highest: _F64
    broken: _I64

    def __add__(self, other: DriftCounts) -> DriftCounts:
        return DriftCounts(
            self.customers + other.customers,
            self.bins + other.bins,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
            self.broken + other.broken,
        )

    def encode(self) -> bytes:
        """Return the counts as text, to lie beside a finished block."""
        # An empty range has infinite ends, which JSON has no word for.
        ends = [[None if np.isinf(one) else one for one in side] for side in (self.lowest, self.highest)]
        return json.dumps([self.customers, self.bins.tolist(), *ends, self.broken.tolist()]).encode()

    @classmethod
    def decode(cls, text: bytes) -> DriftCounts:
        """Return the counts that `encode` wrote."""
        customers, bins, lowest, highest, broken = json.loads(text)
        low = np.array([np.inf if one is None else one for one in lowest], dtype=np.float64)
        high = np.array([-np.inf if one is None else one for one in highest], dtype=np.float64)
        return cls(customers, np.array(bins, dtype=np.int64), low, high, np.array(broken, dtype=np.int64))


def count_bins(
    definition: ModelSpec, bins: ColumnBins, x: npt.NDArray[np.float32], stage: npt.NDArray[np.int8], probability: _F64
) -> DriftCounts:
    """Count customers by bin, from their features, observed stages and probabilities of a model."""
    which = score_columns(definition)
    scores = scores_of(definition, probability)
    asked = definition.at_risk(stage)[:, [target for target, _ in which]]
    with np.errstate(invalid="ignore"):
        good = (scores >= 0) & (scores <= 1)
    return DriftCounts(
        len(stage),
        tally_all(bins, x, scores, stage),
        np.min(np.where(good, scores, np.inf), axis=0, initial=np.inf),
        np.max(np.where(good, scores, -np.inf), axis=0, initial=-np.inf),
        np.sum(asked & ~good, axis=0, dtype=np.int64),
    )


def tally_all(bins: ColumnBins, x: npt.NDArray[np.float32], scores: _F64, stage: npt.NDArray[np.int8]) -> _I64:
    """Return the counts of features, probabilities and the observed stage, one column after the other."""
    features, total = x.shape[1], x.shape[1] + scores.shape[1]
    return np.concatenate(
        [
            bins.part(0, features).tally(x),
            bins.part(features, total).tally(scores),
            bins.part(total, total + 1).tally(stage_codes(stage)),
        ]
    )


def stage_codes(stage: npt.NDArray[np.int8]) -> _F64:
    """Return the observed stage as a column of codes: 0 is before any stage."""
    return stage[:, None].astype(np.float64) + 1
