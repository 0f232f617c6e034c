"""The mean of something that is never negative: a line on the log scale, by Poisson's likelihood.

``mean = P(buys) * exp(start + line + level)``. Poisson's quasi-likelihood gives the right mean whatever the
distribution is (Gourieroux, Monfort and Trognon 1984), where exp(mean of logs) would be too low, and it weighs large
means enough for their sum to be right. It is fitted on all snapshots, those who bought nothing too, so it is the
product with P(buys) that is right. Trees on top of it were worse: docs/decisions/0042-amounts.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]

FURTHEST = 3.0
"""Standard deviations from the mean beyond which an input says no more: lines do not know where data ends."""

_PENALTY = 0.1  # of the squared slopes of standardised inputs, for each row
_STEPS = 60


@dataclass(frozen=True, slots=True)
class MeanModel:
    """A line on standardised inputs, and a level for each horizon.

    ``bound`` is how far from the mean each input tells more, in standard deviations.
    """

    mean: _F64
    scale: _F64
    bound: _F64
    slopes: _F64
    intercept: float
    level: _F64

    def logs(self, inputs: Sequence[_F64], horizon: _I64) -> _F64:
        """Return what line and level add to the log of each row's start.

        Inputs are added up one by one, so the sum is the same for any number of rows.
        """
        found = self.intercept + self.level[horizon]
        for c, column in enumerate(inputs):
            found += self.slopes[c] * np.clip((column - self.mean[c]) / self.scale[c], -self.bound[c], self.bound[c])
        return found


@dataclass(frozen=True, slots=True)
class MeanRows:
    """Rows (snapshot, horizon) to learn a mean from: the inputs, the log that they start from, and what happened.

    ``start`` includes the log of P(buys).
    """

    horizon: _I64
    inputs: list[_F64]
    start: _F64
    y: _F64

    def take(self, keep: npt.NDArray[np.bool_]) -> MeanRows:
        """Return the rows marked by a mask."""
        inputs = [one[keep] for one in self.inputs]
        return MeanRows(self.horizon[keep], inputs, self.start[keep], self.y[keep])


def fit_mean(rows: MeanRows, horizons: int, unbounded: Sequence[int]) -> MeanModel:
    """Fit the line; the levels are 0 (`with_levels`). Inputs at the positions ``unbounded`` always tell more."""
    table = np.column_stack(rows.inputs)
    mean, spread = table.mean(axis=0), table.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    bound = np.full(table.shape[1], FURTHEST)
    bound[list(unbounded)] = 1e6
    slopes, intercept = _newton(np.clip((table - mean) / scale, -bound, bound), rows.start, rows.y)
    return MeanModel(mean, scale, bound, slopes, intercept, np.zeros(horizons))


def with_levels(model: MeanModel, rows: MeanRows, bought: npt.NDArray[np.bool_], shrinkage: float) -> MeanModel:
    """Return the model with levels under which it expects, at each horizon, what the rows hold.

    Levels of horizons at which few customers bought are shrunk towards that of the line.
    """
    expected = expected_of(model, rows)
    level = model.level.copy()
    for h in range(len(level)):
        here = rows.horizon == h
        happened, buyers = float(rows.y[here].sum()), int(bought[here].sum())
        if happened > 0 and buyers:
            level[h] += np.log(happened / float(expected[here].sum())) * buyers / (buyers + shrinkage)
    return replace(model, level=level)


def expected_of(model: MeanModel, rows: MeanRows) -> _F64:
    """Return the mean of each row."""
    found: _F64 = np.exp(rows.start + model.logs(rows.inputs, rows.horizon))
    return found


def _newton(inputs: _F64, start: _F64, y: _F64) -> tuple[_F64, float]:
    """Return slopes and intercept of the penalised quasi-likelihood; rows count as if their mean were one."""
    design = np.column_stack([np.ones(len(inputs)), inputs])
    found, weight = np.zeros(design.shape[1]), 1.0 / y.mean()
    found[0] = np.log(y.sum() / np.exp(start).sum())
    penalty = np.full(len(found), _PENALTY * len(y))
    penalty[0] = 0.0
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        for _ in range(_STEPS):
            mean = np.exp(np.clip(start + design @ found, -30.0, 30.0))
            gradient = weight * (design.T @ (y - mean)) - penalty * found
            hessian = weight * (design.T * mean) @ design + np.diag(penalty + 1e-9)
            step = np.clip(np.linalg.solve(hessian, gradient), -1.0, 1.0)
            found += step
            if np.abs(step).max() < 1e-7:
                break
    return found[1:], float(found[0])
