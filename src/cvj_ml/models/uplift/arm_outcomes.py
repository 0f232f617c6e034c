"""The outcome expected in each arm, m(x, a) = E[Y | x, a], by trees: what doubly robust scores start from.

By themselves these are the two simplest learners of effects, m(x, a) - m(x, 0): the S-learner, one set of trees that
knows the arm as a feature, and the T-learner, trees of each arm's own (Kuenzel, Sekhon, Bickel and Yu 2019,
*Metalearners for estimating heterogeneous treatment effects*). Neither is aimed at the effect, so the first tends to
say that it is none, and the second takes the noise of both arms for it. They are the baselines of the effect model.
"""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

_ROUNDS = 60
_LEAVES = 8

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ArmOutcomes:
    """Trees of the outcome: one set with the arm as a feature, or one set an arm; ``level`` is each set's mean."""

    boosters: tuple[lgb.Booster, ...]
    level: _F64
    arms: int

    def predict(self, features: _F32) -> _F64:
        """Return the outcome expected of each row in each arm, (rows, arms with control)."""
        if len(self.boosters) > 1:
            told = [predicted(booster, features) for booster in self.boosters]
        else:
            every = (np.full(len(features), arm, dtype=np.int64) for arm in range(self.arms))
            told = [predicted(self.boosters[0], _with_arm(features, arm, self.arms)) for arm in every]
        found: _F64 = np.column_stack(told) + self.level
        return found

    def effects(self, features: _F32) -> _F64:
        """Return m(x, a) - m(x, 0) of each row, (rows, arms)."""
        by_arm = self.predict(features)
        found: _F64 = by_arm[:, 1:] - by_arm[:, :1]
        return found


def fit_s_learner(features: _F32, arm: _I64, outcome: _F64, arms: int, seed: int, threads: int) -> ArmOutcomes:
    """Fit one set of trees on all rows, with a column for each arm but control; ``arms`` counts control."""
    booster = boost(_with_arm(features, arm, arms), outcome, _LEAVES, _rows_a_leaf(arm), seed, threads)
    return ArmOutcomes((grow(booster, _ROUNDS),), np.array([outcome.mean()]), arms)


def fit_t_learner(features: _F32, arm: _I64, outcome: _F64, arms: int, seed: int, threads: int) -> ArmOutcomes:
    """Fit trees on the rows of each arm."""
    of_each = [arm == a for a in range(arms)]
    boosters = tuple(
        grow(boost(features[one], outcome[one], _LEAVES, _rows_a_leaf(arm[one]), seed, threads), _ROUNDS)
        for one in of_each
    )
    return ArmOutcomes(boosters, np.array([outcome[one].mean() for one in of_each]), arms)


def boost(
    x: _F32, y: _F64, leaves: int, rows_a_leaf: int, seed: int, threads: int, *, extra: bool = False
) -> lgb.Booster:
    """Return what `grow` adds trees to, of what y is above its mean; the same for any number of threads.

    ``extra``: each split is the best of one random threshold a column (extremely randomised trees, Geurts, Ernst and
    Wehenkel 2006).
    """
    parameters: dict[str, object] = {
        "objective": "regression",
        "boost_from_average": False,
        "num_leaves": leaves,
        "min_data_in_leaf": rows_a_leaf,
        "learning_rate": 0.05,
        "lambda_l2": 10.0,
        "feature_fraction": 0.8,
        "extra_trees": extra,
        **reproducible(seed, threads),
    }
    return lgb.Booster(parameters, lgb.Dataset(x, y - y.mean(), params={"verbosity": -1}))


def reproducible(seed: int, threads: int) -> dict[str, object]:
    """Return the parameters by which LightGBM fits the same for any number of threads, and says nothing."""
    return {
        "metric": "None",
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "verbosity": -1,
    }


def grow(booster: lgb.Booster, rounds: int) -> lgb.Booster:
    """Add trees until there are so many, or nothing can be split."""
    while booster.current_iteration() < rounds and not booster.update():
        pass
    return booster


def _rows_a_leaf(arm: _I64) -> int:
    return min(max(len(arm) // 50, 50), 500)


def predicted(booster: lgb.Booster, x: _F32, rounds: int | None = None) -> _F64:
    """Return what the first rounds, or all, add to the mean."""
    return np.asarray(booster.predict(x, num_iteration=rounds, num_threads=1), dtype=np.float64)


def _with_arm(features: _F32, arm: _I64, arms: int) -> _F32:
    """Return the features with a column for each arm but control."""
    chosen = (arm[:, None] == np.arange(1, arms)).astype(np.float32)
    return np.concatenate([features, chosen], axis=1)
