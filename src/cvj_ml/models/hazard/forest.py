"""A booster's trees as flat arrays, and a compiled pass that gives the same raw scores several times faster.

A customer is asked about many (target, interval) rows whose inputs differ in a few columns only. LightGBM walks every
tree anew for each row; here all rows of a customer walk together and part only where a tree splits on a column of
their own. Sums are added in the order of the trees, so that every score equals LightGBM's to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I32 = npt.NDArray[np.int32]
_I64 = npt.NDArray[np.int64]

ZERO = float(np.float32(1e-35))
"""LightGBM takes what is not farther from zero than this for zero (``kZeroThreshold``)."""

_CATEGORICAL, _DEFAULT_LEFT, _MISSING_ZERO, _MISSING_NAN = 1, 2, 4, 8
_NAN_LEFT, _ZERO_TURNS = 1, 2
_TOGETHER = 62
"""Rows that walk together are bits of one integer."""

# The position of a power of two's bit: multiplied by this sequence, each has other six highest bits (de Bruijn).
_DE_BRUIJN = 0x03F79D71B4CB0A89  # fits a signed integer
_POSITION = np.zeros(64, dtype=np.int64)
for _bit in range(64):
    _POSITION[((_DE_BRUIJN << _bit) & (2**64 - 1)) >> 58] = _bit


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees with numeric splits.

    Node ``i`` sends a row to ``child[i, 1]`` (left) or ``child[i, 0]``; a child below zero is the leaf ``~child``.
    ``flags`` say where NaN goes, and whether zero goes against the comparison. ``roots`` are nodes or leaves alike.
    ``*_count`` are the training rows that came by.
    """

    columns: int
    roots: _I32
    feature: _I32
    threshold: _F64
    flags: _I32
    child: _I32
    leaf_value: _F64
    node_count: _F64
    leaf_count: _F64

    def margins(self, shared: _F32, own: _F32, owner: _I64) -> _F64:
        """Return the raw score of each row: the bits of ``Booster.predict(raw_score=True)``.

        Row ``r`` has the inputs ``shared[owner[r]]`` followed by ``own[r]``. Rows of one owner are worked on together,
        in whatever order they come.
        """
        order = np.argsort(owner, kind="stable")
        first = np.flatnonzero(np.diff(owner[order], prepend=-1))
        sizes = np.diff(np.append(first, len(owner)))
        # A walk begins at each owner's first row, and again after as many rows as an integer has bits for.
        since = np.arange(len(owner)) - np.repeat(first, sizes)
        starts = np.flatnonzero(since % _TOGETHER == 0)
        split, splits = self._own_splits(shared.shape[1])
        result = np.zeros(len(owner))
        _walk(
            shared,
            own,
            owner,
            order,
            np.append(starts, len(owner)),
            self.roots,
            self.feature,
            self.threshold,
            self.flags,
            self.child,
            self.leaf_value,
            split,
            splits,
            shared.shape[1],
            _POSITION,
            result,
        )
        return result

    def _own_splits(self, shared: int) -> tuple[_I32, _I32]:
        """Return each node's number among the different splits on own columns (-1: shared), and a node of each."""
        split = np.full(len(self.feature), -1, dtype=np.int32)
        nodes = np.flatnonzero(self.feature >= shared)
        keys = np.column_stack([self.feature[nodes], self.threshold[nodes], self.flags[nodes]])
        _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        split[nodes] = which
        return split, nodes[first].astype(np.int32)


def parse(booster: lgb.Booster) -> Forest | None:
    """Return the trees of a booster; None for what is more than a sum of trees with numeric splits."""
    header, *sections = booster.model_to_string().split("\nTree=")
    if "num_tree_per_iteration=1\n" not in header + "\n" or "average_output" in header.split("\n"):
        return None
    trees = [_fields(section) for section in sections]
    if any(int(tree["num_cat"]) or int(tree["is_linear"]) for tree in trees):
        return None
    leaves = np.array([int(tree["num_leaves"]) for tree in trees], dtype=np.int64)
    first_node = np.cumsum(leaves - 1) - (leaves - 1)
    first_leaf = np.cumsum(leaves) - leaves

    def join(name: str) -> _F64:
        texts = [tree.get(name, "") for tree in trees]
        return np.array(" ".join(texts).split(), dtype=np.float64)

    def children(name: str) -> _I64:
        local = join(name).astype(np.int64)
        nodes, leaf = np.repeat(first_node, leaves - 1), np.repeat(first_leaf, leaves - 1)
        return np.where(local >= 0, local + nodes, local - leaf)

    threshold, kind = join("threshold"), join("decision_type").astype(np.int64)
    default_left = (kind & _DEFAULT_LEFT) > 0
    zero_left = threshold >= 0
    nan_left = np.where(kind & (_MISSING_NAN | _MISSING_ZERO), default_left, zero_left)
    turns = ((kind & _MISSING_ZERO) > 0) & (default_left != zero_left)
    values = [float(tree["leaf_value"].split()[0]) for tree in trees]
    if (kind & _CATEGORICAL).any() or len(join("leaf_value")) != leaves.sum() or len(values) != len(leaves):
        return None
    return Forest(
        booster.num_feature(),
        np.where(leaves > 1, first_node, ~first_leaf).astype(np.int32),
        join("split_feature").astype(np.int32),
        threshold,
        (_NAN_LEFT * nan_left + _ZERO_TURNS * turns).astype(np.int32),
        np.column_stack([children("right_child"), children("left_child")]).astype(np.int32),
        join("leaf_value"),
        join("internal_count"),
        _leaf_counts(trees),
    )


def _fields(section: str) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in section.split("\n\n")[0].split("\n") if "=" in line)


def _leaf_counts(trees: list[Mapping[str, str]]) -> _F64:
    """Return the training rows of each leaf; a tree without a split does not tell and needs none."""
    counts = [tree["leaf_count"].split() if int(tree["num_leaves"]) > 1 else ["1"] for tree in trees]
    return np.array([count for one in counts for count in one], dtype=np.float64)


@compiled
def goes_left(value: float, threshold: float, flags: int) -> bool:
    """Return LightGBM's decision at a numeric split; ``value`` as ``cleaned``."""
    left = (value <= threshold) | ((value != value) & ((flags & 1) != 0))
    return left ^ ((value == 0.0) & ((flags & 2) != 0))


@compiled
def cleaned(value: float) -> float:
    """Return an input as LightGBM sees it: next to zero is zero."""
    return 0.0 if abs(value) <= ZERO else value


@compiled
def _walk(
    shared: _F32,
    own: _F32,
    owner: _I64,
    order: _I64,
    starts: _I64,
    roots: _I32,
    feature: _I32,
    threshold: _F64,
    flags: _I32,
    child: _I32,
    leaf_value: _F64,
    split: _I32,
    splits: _I32,
    columns: int,
    position: _I64,
    out: _F64,
) -> None:
    """Add the leaves of every tree to ``out``; ``starts`` cut ``order`` into rows that walk together."""
    x = np.empty(columns)
    to_left = np.zeros(len(splits), dtype=np.int64)
    waiting = np.empty(64, dtype=np.int64)
    parted = np.empty(64, dtype=np.int64)
    total = np.empty(64)
    for run in range(len(starts) - 1):
        begin, rows = starts[run], starts[run + 1] - starts[run]
        who = owner[order[begin]]
        for f in range(columns):
            x[f] = cleaned(shared[who, f])
        for s in range(len(splits)):
            node = splits[s]
            mask = np.int64(0)
            for r in range(rows):
                value = cleaned(own[order[begin + r], feature[node] - columns])
                mask |= np.int64(goes_left(value, threshold[node], flags[node])) << r
            to_left[s] = mask
        everybody = (1 << rows) - 1
        total[:rows] = 0.0
        for tree in range(len(roots)):
            depth = 0
            node = np.int64(roots[tree])
            mask = everybody
            while True:
                while node >= 0:
                    which = split[node]
                    if which < 0:
                        side = np.int64(goes_left(x[feature[node]], threshold[node], flags[node]))
                        node = np.int64(child[node, side])
                    else:
                        left = mask & to_left[which]
                        right = mask ^ left
                        if left != 0 and right != 0:
                            waiting[depth] = child[node, 0]
                            parted[depth] = right
                            depth += 1
                            mask = left
                        node = np.int64(child[node, np.int64(left != 0)])
                value = leaf_value[~node]
                if mask == everybody:
                    for r in range(rows):
                        total[r] += value
                else:
                    while mask != 0:
                        low = mask & -mask
                        total[position[((low * _DE_BRUIJN) >> 58) & 63]] += value
                        mask ^= low
                if depth == 0:
                    break
                depth -= 1
                node = waiting[depth]
                mask = parted[depth]
        for r in range(rows):
            out[order[begin + r]] = total[r]
