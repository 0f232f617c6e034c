"""The mean of something that is never negative: a line and trees on the log scale, both by Poisson's likelihood.

``mean = P(buys) * exp(start + line + trees)``. Poisson's quasi-likelihood gives the right mean whatever the
distribution is (Gourieroux, Monfort and Trognon 1984), where exp(mean of logs) would be too low, and it weighs large
means enough for their sum to be right. It is fitted on all snapshots, those who bought nothing too, so it is the
product with P(buys) that is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from cvj_ml.models.hazard.binning import MOST_BINS, Grid, joined, learn_grid, plain_grid
from cvj_ml.models.hazard.forest import Forest, parse

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]

FURTHEST = 3.0
"""Standard deviations from the mean beyond which an input says no more: lines do not know where data ends."""

_PENALTY = 0.1  # of the squared slopes of standardised inputs, for each row
_STEPS = 60
_ROUNDS = 60
_LEAST_ROWS_A_LEAF = 100


@dataclass(frozen=True, slots=True)
class MeanModel:
    """A line on standardised inputs, trees on all features and the horizon, and a level for each horizon.

    ``bound`` is how far from the mean each input tells more, in standard deviations. ``booster`` is None where trees
    did not help later rows.
    """

    mean: _F64
    scale: _F64
    bound: _F64
    slopes: _F64
    intercept: float
    level: _F64
    booster: lgb.Booster | None = None
    forest: Forest | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "forest", parse(self.booster) if self.booster else None)

    def line(self, inputs: Sequence[_F64]) -> _F64:
        """Return what the line adds to the log of each row; added up one by one, the same for any number of rows."""
        found = np.full(len(inputs[0]), self.intercept)
        for c, column in enumerate(inputs):
            found += self.slopes[c] * np.clip((column - self.mean[c]) / self.scale[c], -self.bound[c], self.bound[c])
        return found

    def logs(self, x: _F32, inputs: Sequence[_F64], snapshot: _I64, horizon: _I64) -> _F64:
        """Return what line, trees and level add to the log of each row's start."""
        found = self.line(inputs) + self.level[horizon]
        if self.booster is None:
            return found
        if self.forest is not None:
            return found + self.forest.margins(x, horizon.astype(np.float32)[:, None], snapshot)
        return found + self._by_lightgbm(x, snapshot, horizon)

    def unlike_lightgbm(self, x: _F32, horizons: int) -> int:
        """Return how many rows the compiled trees score otherwise than LightGBM."""
        if self.forest is None:
            return 0
        snapshot, horizon = (one.ravel() for one in np.indices((len(x), horizons)))
        compiled = self.forest.margins(x, horizon.astype(np.float32)[:, None], snapshot)
        return int((compiled != self._by_lightgbm(x, snapshot, horizon)).sum())

    def _by_lightgbm(self, x: _F32, snapshot: _I64, horizon: _I64) -> _F64:
        if self.booster is None:
            return np.zeros(len(snapshot))
        table = np.column_stack([x[snapshot], horizon.astype(np.float32)])
        return np.asarray(self.booster.predict(table, raw_score=True, validate_features=False), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class MeanRows:
    """Rows (snapshot, horizon) to learn a mean from: the inputs, the log that they start from, and what happened.

    ``start`` includes the log of P(buys).
    """

    snapshot: _I64
    horizon: _I64
    inputs: list[_F64]
    start: _F64
    y: _F64

    def take(self, keep: npt.NDArray[np.bool_]) -> MeanRows:
        """Return the rows marked by a mask."""
        inputs = [one[keep] for one in self.inputs]
        return MeanRows(self.snapshot[keep], self.horizon[keep], inputs, self.start[keep], self.y[keep])


@dataclass(frozen=True, slots=True)
class Sample:
    """The snapshots that rows are of: X, whose each is, and how many customers have to stand behind a split."""

    x: _F32
    customer: _I64
    fewest: int
    names: tuple[str, ...]
    seed: int
    threads: int


def fit_mean(rows: MeanRows, horizons: int, unbounded: Sequence[int], sample: Sample | None) -> MeanModel:
    """Fit the line, and trees on top of it where there is a sample; the levels are 0 (`with_levels`)."""
    table = np.column_stack(rows.inputs)
    mean, spread = table.mean(axis=0), table.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    bound = np.full(table.shape[1], FURTHEST)
    bound[list(unbounded)] = 1e6
    slopes, intercept = _newton(np.clip((table - mean) / scale, -bound, bound), rows.start, rows.y)
    model = MeanModel(mean, scale, bound, slopes, intercept, np.zeros(horizons))
    return model if sample is None else replace(model, booster=_boost(model, rows, horizons, sample))


def with_levels(
    model: MeanModel, rows: MeanRows, x: _F32, bought: npt.NDArray[np.bool_], shrinkage: float
) -> MeanModel:
    """Return the model with levels under which it expects, at each horizon, what the rows hold.

    Levels of horizons at which few customers bought are shrunk towards those of the line and trees.
    """
    expected = expected_of(model, rows, x)
    level = model.level.copy()
    for h in range(len(level)):
        here = rows.horizon == h
        happened, buyers = float(rows.y[here].sum()), int(bought[here].sum())
        if happened > 0 and buyers:
            level[h] += np.log(happened / float(expected[here].sum())) * buyers / (buyers + shrinkage)
    return replace(model, level=level)


def expected_of(model: MeanModel, rows: MeanRows, x: _F32) -> _F64:
    """Return the mean of each row."""
    found: _F64 = np.exp(rows.start + model.logs(x, rows.inputs, rows.snapshot, rows.horizon))
    return found


def deviance(y: _F64, mean: _F64) -> _F64:
    """Return each row's deviance of Poisson's quasi-likelihood: smaller is better, 0 where the mean is exact."""
    positive = y > 0
    logs = np.zeros(len(y))
    logs[positive] = y[positive] * np.log(y[positive] / mean[positive])
    found: _F64 = 2.0 * (logs - y + mean)
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


def _boost(model: MeanModel, rows: MeanRows, horizons: int, sample: Sample) -> lgb.Booster:
    """Fit trees on top of the line; they split where enough customers stand on either side."""
    used = np.unique(rows.snapshot)
    grid: Grid = joined(learn_grid(sample.x[used], sample.customer[used], sample.fewest), plain_grid([horizons]))
    width = sample.x.shape[1]
    table = np.empty((len(rows.y), width + 1), dtype=np.float32)
    np.take(grid.part(0, width).bins(sample.x), rows.snapshot, axis=0, out=table[:, :width])
    table[:, width] = grid.part(width, width + 1).bins(rows.horizon.astype(np.float32)[:, None])[:, 0]
    unit = rows.y.mean()  # amounts of any currency are one to the penalty of leaves
    data = lgb.Dataset(
        table,
        rows.y / unit,
        init_score=rows.start + model.line(rows.inputs) - np.log(unit),
        feature_name=[*sample.names, "horizon"],
    )
    settings = {
        "objective": "poisson",
        "num_leaves": 8,
        "min_data_in_leaf": max(_LEAST_ROWS_A_LEAF, len(rows.y) // 200),
        "learning_rate": 0.05,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "max_bin": MOST_BINS,
        "boost_from_average": False,
        "seed": sample.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": sample.threads,
        "verbosity": -1,
    }
    return grid.in_place_of_bins(lgb.train(settings, data, num_boost_round=_ROUNDS))
