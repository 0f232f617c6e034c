"""A ridge regression of the hazard on all features: what it adds to the line is mixed with what the trees add.

Trees are flat between their splits and know interactions; a straight line with many small slopes is smooth and knows
none. Their errors differ, so a mixture is better than either; docs/decisions/0034-two-corrections.md has the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from threadpoolctl import threadpool_limits

from cvj_ml.compiled import compiled
from cvj_ml.panel.panel import HazardRows

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]

HEADS = 2
"""The return, and the reach of stages: each has slopes of its own."""

RIDGE_SHARE = (0.2, 0.2)
"""The ridge's share of what is added to the line, by head, where no customers are held out who choose another."""

_PENALTY = 0.05
"""Of the squared slopes, for each hazard row of the head."""

_FURTHEST = 4.0
"""Standard deviations from the mean beyond which a feature says no more: lines do not know where data ends."""

_STEPS = 30


def head_of(target: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return which head a row's target belongs to."""
    return (target > 0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class RidgeHazard:
    """Slopes of the standardised features, (heads, features), and an intercept for each head.

    Features are taken as sign(x) log(1 + |x|). ``scale`` is infinite for what is no number but a code, and for what is
    the same everywhere.
    """

    mean: _F64
    scale: _F64
    slopes: _F64
    intercept: _F64

    def margins(self, x: _F32, rows: HazardRows) -> _F64:
        """Return what the ridge adds to the logit of each row's hazard; the same for any number of rows."""
        used, place = np.unique(rows.snapshot, return_inverse=True)
        added = np.empty((len(used), HEADS))
        _add_up(x[used], self.mean, self.scale, self.slopes, self.intercept, added)
        found: _F64 = added[place, head_of(rows.target)]
        return found

    def contributions(self, x: _F32, typical: _F32, head: int) -> _F64:
        """Return what each feature adds to the logit compared with a typical customer's: (rows, features)."""
        mine, theirs = (_standardised(one, self.mean, self.scale) for one in (x, typical[None]))
        found: _F64 = (mine - theirs) * self.slopes[head]
        return found


def fit_ridge(
    x: _F32,
    numbers: npt.NDArray[np.bool_],
    rows: HazardRows,
    offset: _F64,
    customer: npt.NDArray[np.int64],
    fewest: int,
    weight: _F64 | None = None,
) -> RidgeHazard:
    """Fit both heads on hazard rows, ``offset`` the logit that they start from; ``numbers`` marks what is no code.

    ``weight`` is how much each row counts (None: all the same).

    The penalised maximum of the likelihood, by Newton's method. Rows of one snapshot share its features, so sums are
    over snapshots. A head in which nobody, or everybody, moved adds nothing, nor does a feature that fewer than
    ``fewest`` customers have something of: its mean would be theirs. ``customer`` is that of each snapshot.
    """
    used = np.unique(rows.snapshot)
    there = np.sign(x[used]) * np.log1p(np.abs(x[used], dtype=np.float64))
    known = ~np.isnan(there)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, there, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, there - mean, 0.0) ** 2).sum(axis=0) / count)
    whose = customer[used]
    enough = np.array([len(np.unique(whose[column])) >= fewest for column in (known & (there != 0)).T])
    usable = numbers & enough & (spread > 0)
    mean, scale = np.where(usable, mean, 0.0), np.where(usable, spread, np.inf)
    inputs = _standardised(x[used], mean, scale)
    place = np.searchsorted(used, rows.snapshot)
    slopes, intercept, heads = np.zeros((HEADS, x.shape[1])), np.zeros(HEADS), head_of(rows.target)
    for head in range(HEADS):
        here = heads == head
        converted = rows.converted[here].astype(np.float64)
        if 0 < converted.sum() < len(converted):
            counts = np.ones(len(converted)) if weight is None else weight[here]
            slopes[head], intercept[head] = _newton(inputs, place[here], converted, offset[here], counts)
    return RidgeHazard(mean, scale, slopes, intercept)


def _newton(
    inputs: _F64, place: npt.NDArray[np.int64], converted: _F64, offset: _F64, counts: _F64
) -> tuple[_F64, float]:
    design = np.column_stack([inputs, np.ones(len(inputs))])
    penalty = np.full(design.shape[1], _PENALTY * len(place))
    penalty[-1] = 0.0
    found, loss = np.zeros(design.shape[1]), np.inf
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        for _ in range(_STEPS):
            logit = offset + (design @ found)[place]
            before, loss = loss, float((counts * np.logaddexp(0.0, np.where(converted > 0, -logit, logit))).mean())
            p = expit(logit)
            residual = np.bincount(place, counts * (converted - p), minlength=len(design))
            weight = np.bincount(place, counts * (p * (1 - p)), minlength=len(design))
            hessian = (design.T * weight) @ design + np.diag(penalty + 1e-9)
            step = np.linalg.solve(hessian, design.T @ residual - penalty * found)
            found = found + np.clip(step, -1.0, 1.0)
            if np.abs(step).max() < 1e-6 or abs(before - loss) < 1e-10:
                break
    return found[:-1], float(found[-1])


def _standardised(x: _F32, mean: _F64, scale: _F64) -> _F64:
    logs = np.sign(x) * np.log1p(np.abs(x, dtype=np.float64))
    found: _F64 = np.clip(np.nan_to_num((logs - mean) / scale), -_FURTHEST, _FURTHEST)
    return found


@compiled
def _add_up(x: _F32, mean: _F64, scale: _F64, slopes: _F64, intercept: _F64, out: _F64) -> None:
    """Add slope times standardised feature, one by one, without a table of them."""
    for r in range(len(x)):
        for head in range(len(slopes)):
            out[r, head] = intercept[head]
        for c in range(x.shape[1]):
            value = np.float64(x[r, c])
            if math.isnan(value) or math.isinf(scale[c]):
                continue
            logarithm = math.log1p(abs(value))
            standardised = ((-logarithm if value < 0 else logarithm) - mean[c]) / scale[c]
            standardised = min(max(standardised, -_FURTHEST), _FURTHEST)
            for head in range(len(slopes)):
                out[r, head] += slopes[head, c] * standardised
