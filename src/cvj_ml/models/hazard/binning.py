"""Where a column may be split: thresholds that rest on customers, and never on one.

LightGBM splits between two values that it was shown, and writes each column's smallest and largest value into its
text: numbers of single customers. So trees are fitted on the bins of a grid whose edges are rounded and have enough
distinct customers on either side, and the edges are written in place of the bins' numbers afterwards. The trees then
split raw values: whoever lies beyond the last edge belongs to the last bin, in every engine alike, and nothing has to
be clipped. docs/decisions/0027-k-customers.md has what that costs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled

MOST_BINS = 127
"""Bins of a column at most; missing values have none."""

_ROWS = 100_000  # that edges are learned from at most, evenly spaced: fewer find fewer customers, never more
_DIGITS = 3
_BELOW_ZERO = -1e-6  # between zero, which is a bin of its own, and what is negative

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grid:
    """The edges of each column, ascending; a value belongs to the bin of the first edge not below it, or to the last.

    ``edges`` is (columns, most edges), infinite where a column has fewer. ``holes`` marks columns of which enough
    customers have a value, and enough have none; in the others what is missing counts as zero, as trees that have not
    seen a missing value take it.
    """

    edges: _F64
    holes: npt.NDArray[np.bool_]

    def part(self, start: int, stop: int) -> Grid:
        """Return the grid of some columns."""
        return Grid(self.edges[start:stop], self.holes[start:stop])

    def bins(self, x: _F32) -> _F32:
        """Return the number of each value's bin; what is missing stays missing where it may."""
        found = np.empty(x.shape, dtype=np.float32)
        _bins(np.ascontiguousarray(x), self.edges, self.holes, found)
        return found

    def in_place_of_bins(self, trees: lgb.Booster) -> lgb.Booster:
        """Return trees fitted on bins as trees of raw values."""
        text = trees.model_to_string()
        header, *sections = re.split(r"^(?=Tree=|end of trees)", text, flags=re.MULTILINE)
        if len(sections) < 2:
            return trees  # without a split there is no threshold
        sections[:-1] = [self._with_thresholds(section) for section in sections[:-1]]
        infos = " ".join(_range(row[np.isfinite(row)]) for row in self.edges)
        header = re.sub(r"^feature_infos=.*$", f"feature_infos={infos}", header, flags=re.MULTILINE)
        sizes = " ".join(str(len(section.encode())) for section in sections[:-1])
        header = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", header, flags=re.MULTILINE)
        result = lgb.Booster(model_str=header + "".join(sections))
        result.best_iteration = trees.best_iteration
        return result

    def _with_thresholds(self, section: str) -> str:
        fields = dict(line.split("=", 1) for line in section.split("\n") if "=" in line)
        if not fields.get("threshold"):
            return section
        columns = np.array(fields["split_feature"].split(), dtype=np.int64)
        split = np.array(fields["threshold"].split(), dtype=np.float64)
        # Beyond all bins LightGBM tells what is there from what is missing: no number of anybody's.
        bins = np.floor(np.minimum(split, self.edges.shape[1])).astype(np.int64)
        edges = np.append(self.edges, np.full((len(self.edges), 1), np.inf), axis=1)[columns, bins]
        thresholds = " ".join(repr(float(np.where(np.isfinite(a), a, b))) for a, b in zip(edges, split, strict=True))
        return re.sub(r"^threshold=.*$", f"threshold={thresholds}", section, flags=re.MULTILINE)


def learn_grid(x: _F32, customer: _I64, fewest: int) -> Grid:
    """Return a grid in each of whose bins lie values of so many distinct customers at least.

    ``customer`` is whose each row of x is.
    """
    some = np.arange(0, len(x), max(-(-len(x) // _ROWS), 1))
    part, whose = x[some], customer[some]
    order = np.argsort(whose, kind="stable")
    part, whose = np.ascontiguousarray(part[order]), whose[order]
    found = [_resting(part[:, c], whose, _candidates(part[:, c]), fewest) for c in range(x.shape[1])]
    missing = [_distinct(whose[np.isnan(part[:, c])]) for c in range(x.shape[1])]
    there = [_distinct(whose[~np.isnan(part[:, c])]) for c in range(x.shape[1])]
    return Grid(_padded(found), np.minimum(missing, there) >= fewest)


def _distinct(whose: _I64) -> int:
    return int(np.count_nonzero(np.diff(whose))) + 1 if len(whose) else 0


def plain_grid(values: Sequence[int]) -> Grid:
    """Return a grid of columns whose values are numbered by the journey, so many each: one bin a value."""
    return Grid(_padded([np.arange(number - 1) + 0.5 for number in values]), np.zeros(len(values), dtype=np.bool_))


def joined(*grids: Grid) -> Grid:
    """Return the grid of the columns of several, side by side."""
    edges = _padded([row[np.isfinite(row)] for one in grids for row in one.edges])
    return Grid(edges, np.concatenate([one.holes for one in grids]))


def quantile_edges(values: _F64 | _F32, customer: _I64, shares: Sequence[float], fewest: int) -> _F64:
    """Return rounded quantiles between which values of so many distinct customers lie at least."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(0)
    order = np.argsort(customer[known], kind="stable")
    some = np.ascontiguousarray(values[known][order], dtype=np.float32)
    return _resting(some, customer[known][order], _rounded(np.quantile(some, shares)), fewest)


def upper_bound(values: _F32, customer: _I64, fewest: int) -> float:
    """Return a number, rounded down, that so many distinct customers reach at least; 0 where fewer have any."""
    known = ~np.isnan(values)
    _, place = np.unique(customer[known], return_inverse=True)
    highest = np.full(int(place.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(highest, place, values[known])
    if len(highest) < fewest:
        return 0.0
    bound = float(np.sort(highest)[-fewest])
    rounded = float(f"{bound:.{_DIGITS}g}")
    if rounded > bound:
        rounded = float(f"{bound - 10.0 ** (np.floor(np.log10(abs(bound))) - _DIGITS + 1) / 2:.{_DIGITS}g}")
    return rounded


def _candidates(column: _F32) -> _F64:
    """Return edges that cut a column into values, or into ranges that hold equally many of its values."""
    known = np.sort(column[~np.isnan(column)]).astype(np.float64)
    parts = [known[known < 0], known[known > 0]]
    room = MOST_BINS - 5
    edges = [np.array([_BELOW_ZERO, 0.0])]
    for part in parts:
        own = max(int(room * len(part) / max(sum(map(len, parts)), 1)), 1)
        values = part[np.append(True, np.diff(part) > 0)] if len(part) else part
        if len(values) > own:
            values = np.unique(part[np.linspace(0, len(part) - 1, own + 1).astype(np.int64)])
        edges.append(_rounded(values))
    return np.unique(np.concatenate(edges))[: MOST_BINS - 1]


def _rounded(values: npt.NDArray[np.floating]) -> _F64:
    return np.unique(np.array([float(f"{value:.{_DIGITS}g}") for value in values], dtype=np.float64))


def _resting(column: _F32, customer: _I64, edges: _F64, fewest: int) -> _F64:
    """Leave out edges until each bin holds values of enough customers; ``customer`` is sorted."""
    while len(edges):
        counts = _customers(column, customer, edges)
        few = np.flatnonzero(counts < fewest)
        if not len(few):
            return edges
        # Of neighbours that are both too small only every other one joins the next, so no more is lost than need be.
        joins, last = [], -2
        for place in few:
            if place > last + 1:
                joins.append(min(int(place), len(edges) - 1))
                last = int(place)
        edges = np.delete(edges, joins)
    return edges


def _padded(edges: Sequence[npt.NDArray[np.floating]]) -> _F64:
    padded = np.full((len(edges), max(map(len, edges), default=0)), np.inf)
    for row, one in zip(padded, edges, strict=True):
        row[: len(one)] = one
    return padded


def _range(edges: _F64) -> str:
    return f"[{float(edges[0])!r}:{float(edges[-1])!r}]" if len(edges) else "none"


@compiled
def _bins(x: _F32, edges: _F64, holes: npt.NDArray[np.bool_], out: _F32) -> None:
    for c in range(x.shape[1]):
        last = 0
        while last < edges.shape[1] and edges[c, last] < np.inf:
            last += 1
        for i in range(x.shape[0]):
            value = x[i, c]
            if np.isnan(value):
                if holes[c]:
                    out[i, c] = np.nan
                    continue
                value = np.float32(0.0)
            low, high = 0, last
            while low < high:
                middle = (low + high) // 2
                if edges[c, middle] < value:
                    low = middle + 1
                else:
                    high = middle
            out[i, c] = low


@compiled
def _customers(column: _F32, customer: _I64, edges: _F64) -> _I64:
    """Count the distinct customers of each bin."""
    counts = np.zeros(len(edges) + 1, dtype=np.int64)
    seen = np.full(len(edges) + 1, -1, dtype=np.int64)
    for i in range(len(column)):
        value = column[i]
        if np.isnan(value):
            continue
        low, high = 0, len(edges)
        while low < high:
            middle = (low + high) // 2
            if edges[middle] < value:
                low = middle + 1
            else:
                high = middle
        if seen[low] != customer[i]:
            seen[low] = customer[i]
            counts[low] += 1
    return counts
