"""Exact Shapley values of trees: what each input adds to a raw score, as LightGBM's ``pred_contrib`` has it.

The value of a leaf with ``d`` different features on its path is shared out by the Shapley weights
``s! (d - s - 1)! / d!``, which are integrals of ``t^s (1 - t)^(d - s - 1)`` over [0, 1]. So with ``o`` (1 if the row
passes all splits on a feature, else 0) and ``z`` (the share of the training rows that passed them) a feature gets

    value * (o_i - z_i) * integral over t of the product over j != i of (t o_j + (1 - t) z_j)

The product is a polynomial of degree d - 1, so Gauss-Legendre quadrature with d / 2 points is exact, and all factors
lie in [0, 1], so it is stable. One pass down a tree carries the products at these points, one pass up collects the
leaves: O(leaves x depth) a tree, as in Yu et al. (2022), *Linear TreeSHAP*; the values are those of path-dependent
TreeSHAP (Lundberg et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.errors import ModelError
from cvj_ml.models.hazard.forest import Forest, cleaned, goes_left

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I32 = npt.NDArray[np.int32]

_LANES = 8
"""Rows worked on at once; the arithmetic of a row does not depend on its neighbours."""


@dataclass(frozen=True, slots=True)
class TreePaths:
    """The edges of every tree of a forest, parents before children; ``-1`` is the root.

    ``first`` cuts edges and ``points`` cuts quadrature into trees. An edge knows its parent edge and the nearest edge
    above that splits on the same feature, both counted within the tree, the node that it leaves and on which side,
    and ``share``: the training rows that passed all the path's splits on its feature. ``value`` is a leaf's,
    ``inner`` marks edges to nodes. ``passing`` says which values of the mixed column pass; edges on other features let
    all of them by.
    """

    columns: int
    expected: float
    first: _I32
    parent: _I32
    same: _I32
    node: _I32
    side: _I32
    share: _F64
    value: _F64
    inner: npt.NDArray[np.bool_]
    passing: npt.NDArray[np.bool_]
    points: _I32
    point: _F64
    weight: _F64
    forest: Forest
    mixed: int

    def contributions(self, x: _F32, mixture: _F64) -> _F64:
        """Return what each column adds to the mean raw score, (rows, columns).

        The mean is over values 0, 1, … of the mixed column with the weights ``mixture`` (rows, values), which sum to
        one: raw scores are linear in each column's splits, so a weighted mean costs one pass. Whatever ``x`` holds in
        the mixed column is not looked at.
        """
        result = np.zeros((len(x), self.columns))
        forest = self.forest
        _share_out(
            x,
            mixture,
            self.mixed,
            self.first,
            self.parent,
            self.same,
            self.node,
            self.side,
            self.share,
            self.value,
            self.inner,
            self.passing,
            self.points,
            self.point,
            self.weight,
            forest.feature,
            forest.threshold,
            forest.flags,
            result,
        )
        return result


@dataclass(frozen=True, slots=True)
class BoosterPaths:
    """The same contributions from LightGBM itself, one pass for each value of the mixed column.

    For trees that are not compiled, and as slow as LightGBM is.
    """

    booster: lgb.Booster
    mixed: int

    def contributions(self, x: _F32, mixture: _F64) -> _F64:
        """Return what each column adds to the mean raw score, as `TreePaths` does; ModelError if it does not add up."""
        result = np.zeros(x.shape)
        for value, weight in enumerate(mixture.T):
            rows = np.flatnonzero(weight)
            if len(rows):
                inputs = x[rows]
                inputs[:, self.mixed] = value
                result[rows] += weight[rows, None] * self._of(inputs)
        return result

    def _of(self, inputs: _F32) -> _F64:
        # Of several classes, linear leaves or a mean of trees LightGBM tells something else, or nothing.
        try:
            raw, found = (
                np.asarray(self.booster.predict(inputs, num_threads=1, validate_features=False, **how))
                for how in ({"raw_score": True}, {"pred_contrib": True})
            )
            adds_up = raw.ndim == 1 and np.allclose(found.sum(axis=1), raw, rtol=1e-6, atol=1e-6)
        except lgb.basic.LightGBMError:
            adds_up = False
        if not adds_up:
            raise ModelError("LightGBM cannot say what each feature adds to this model's trees. Train anew.")
        return np.asarray(found[:, :-1])


def paths_of(forest: Forest, mixed: int, values: int) -> TreePaths | None:
    """Return the paths of a forest; None where a node saw no training row, so that nothing is expected of it.

    ``mixed`` is a column with the values 0 … ``values`` - 1 over which raw scores may be averaged.
    """
    if (forest.leaf_count <= 0).any() or (forest.node_count <= 0).any():
        return None
    first, points = [0], [0]
    parent: list[int] = []
    same: list[int] = []
    node_of: list[int] = []
    side_of: list[int] = []
    share: list[float] = []
    value: list[float] = []
    inner: list[bool] = []
    passing: list[npt.NDArray[np.bool_]] = []
    point: list[_F64] = []
    weight: list[_F64] = []
    everything = np.ones(values, dtype=np.bool_)
    to_left = {
        int(node): np.array(
            [goes_left(float(v), float(forest.threshold[node]), int(forest.flags[node])) for v in range(values)]
        )
        for node in np.flatnonzero(forest.feature == mixed)
    }
    expected = 0.0
    for root in forest.roots:
        if root < 0:
            expected += float(forest.leaf_value[~root])
            first.append(len(parent))
            points.append(len(weight))
            continue
        start, longest = len(parent), 1
        # (node, edge that led here, edges by feature of the path)
        stack: list[tuple[int, int, dict[int, int]]] = [(int(root), -1, {})]
        while stack:
            node, came, above = stack.pop()
            feature, covered = int(forest.feature[node]), forest.node_count[node]
            for side in (0, 1):
                child = int(forest.child[node, side])
                count = forest.node_count[child] if child >= 0 else forest.leaf_count[~child]
                before = above.get(feature, -1)
                edge = len(parent) - start
                parent.append(came)
                same.append(before)
                node_of.append(node)
                side_of.append(side)
                share.append(count / covered * (share[start + before] if before >= 0 else 1.0))
                value.append(0.0 if child >= 0 else float(forest.leaf_value[~child]))
                inner.append(child >= 0)
                passes = everything
                if feature == mixed:
                    passes = to_left[node] if side else ~to_left[node]
                    passes = passes & passing[start + before] if before >= 0 else passes
                passing.append(passes)
                path = {**above, feature: edge}
                longest = max(longest, len(path))
                if child >= 0:
                    stack.append((child, edge, path))
                else:
                    expected += float(forest.leaf_value[~child]) * count / forest.node_count[root]
        nodes, weights = np.polynomial.legendre.leggauss(-(-longest // 2))
        point.append((nodes + 1) / 2)
        weight.append(weights / 2)
        first.append(len(parent))
        points.append(points[-1] + len(weights))
    return TreePaths(
        forest.columns,
        expected,
        np.array(first, dtype=np.int32),
        np.array(parent, dtype=np.int32),
        np.array(same, dtype=np.int32),
        np.array(node_of, dtype=np.int32),
        np.array(side_of, dtype=np.int32),
        np.array(share, dtype=np.float64),
        np.array(value, dtype=np.float64),
        np.array(inner, dtype=np.bool_),
        np.array(passing, dtype=np.bool_).reshape(-1, values),
        np.array(points, dtype=np.int32),
        np.concatenate([np.zeros(0), *point]),
        np.concatenate([np.zeros(0), *weight]),
        forest,
        mixed,
    )


@compiled
def _share_out(
    x: _F32,
    mixture: _F64,
    mixed: int,
    first: _I32,
    parent: _I32,
    same: _I32,
    node: _I32,
    side: _I32,
    share: _F64,
    value: _F64,
    inner: npt.NDArray[np.bool_],
    passing: npt.NDArray[np.bool_],
    points: _I32,
    point: _F64,
    weight: _F64,
    feature: _I32,
    threshold: _F64,
    flags: _I32,
    out: _F64,
) -> None:
    """Add every tree's Shapley values to ``out``, eight rows at a time."""
    largest, most = 0, 0
    for tree in range(len(first) - 1):
        largest = max(largest, first[tree + 1] - first[tree])
        most = max(most, points[tree + 1] - points[tree])
    columns = out.shape[1]
    passed = np.empty((largest, _LANES))
    product = np.empty((largest + 1, most, _LANES))
    inverse = np.empty((largest, most, _LANES))
    cells = np.empty((columns, _LANES))
    phi = np.empty((columns, _LANES))
    one, other = np.empty(_LANES), np.empty(_LANES)
    for begin in range(0, len(x), _LANES):
        rows = min(_LANES, len(x) - begin)
        for lane in range(_LANES):
            row = begin + min(lane, rows - 1)
            for f in range(columns):
                cells[f, lane] = cleaned(x[row, f])
        phi[:] = 0.0
        for tree in range(len(first) - 1):
            start, edges = first[tree], first[tree + 1] - first[tree]
            q, quadrature = points[tree], points[tree + 1] - points[tree]
            # Down: the product of all features of the path, at every point. The root stands behind the edges.
            product[largest, :quadrature] = 1.0
            for edge in range(edges):
                e = start + edge
                n, before = node[e], same[e]
                above = parent[e] if parent[e] >= 0 else largest
                if feature[n] == mixed:
                    for lane in range(_LANES):
                        row = begin + min(lane, rows - 1)
                        total = 0.0
                        for v in range(mixture.shape[1]):
                            if passing[e, v]:
                                total += mixture[row, v]
                        passed[edge, lane] = total
                else:
                    limit, kind, wanted = threshold[n], flags[n], side[e] == 1
                    for lane in range(_LANES):
                        passed[edge, lane] = 1.0 if goes_left(cells[feature[n], lane], limit, kind) == wanted else 0.0
                    if before >= 0:
                        for lane in range(_LANES):
                            passed[edge, lane] *= passed[before, lane]
                z = share[e]
                for k in range(quadrature):
                    t, rest = point[q + k], (1.0 - point[q + k]) * z
                    for lane in range(_LANES):
                        factor = t * passed[edge, lane] + rest
                        inverse[edge, k, lane] = 1.0 / factor
                        product[edge, k, lane] = product[above, k, lane] * factor
                    if before >= 0:
                        for lane in range(_LANES):
                            product[edge, k, lane] *= inverse[before, k, lane]
            for edge in range(edges):
                if inner[start + edge]:
                    product[edge, :quadrature] = 0.0
            # Up: an edge collects the leaves below it, and what an edge above on the same feature said of them is
            # taken back.
            for edge in range(edges - 1, -1, -1):
                e = start + edge
                f, before = feature[node[e]], same[e]
                one[:] = 0.0
                other[:] = 0.0
                for k in range(quadrature):
                    w = weight[q + k]
                    if not inner[e]:
                        for lane in range(_LANES):
                            product[edge, k, lane] *= value[e]
                    for lane in range(_LANES):
                        one[lane] += w * product[edge, k, lane] * inverse[edge, k, lane]
                    if before >= 0:
                        for lane in range(_LANES):
                            other[lane] += w * product[edge, k, lane] * inverse[before, k, lane]
                for lane in range(_LANES):
                    phi[f, lane] += (passed[edge, lane] - share[e]) * one[lane]
                if before >= 0:
                    for lane in range(_LANES):
                        phi[f, lane] -= (passed[before, lane] - share[start + before]) * other[lane]
                above = parent[e]
                if above >= 0:
                    for k in range(quadrature):
                        for lane in range(_LANES):
                            product[above, k, lane] += product[edge, k, lane]
        for lane in range(rows):
            for f in range(columns):
                out[begin + lane, f] = phi[f, lane]
