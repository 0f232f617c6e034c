"""Compiled trees against LightGBM itself: raw scores to the last bit, contributions to rounding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvj_ml.errors import ModelError
from cvj_ml.models.explain.shap import BoosterPaths, paths_of
from cvj_ml.models.hazard.forest import ZERO, parse

F32 = npt.NDArray[np.float32]
SHARED, OWN = 4, 3
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, ZERO, -ZERO, 3e-36, -3e-36, 2e-35, 1e-40)


@dataclass(frozen=True)
class Case:
    """A booster, and rows of it: what their owner has, what is their own, and whose they are."""

    booster: lgb.Booster
    shared: F32
    own: F32
    owner: npt.NDArray[np.int64]

    @property
    def rows(self) -> F32:
        return np.hstack([self.shared[self.owner], self.own])


def inputs(rng: np.random.Generator, rows: int, columns: int) -> F32:
    """Counts, continuous numbers, few values; NaN and numbers next to zero in between."""
    x = rng.normal(0, 3, (rows, columns))
    x[:, ::2] = rng.poisson(1.0, (rows, len(x.T[::2])))
    special = rng.random((rows, columns)) < 0.15
    x[special] = rng.choice([*SPECIAL, np.nan, np.nan, np.nan], int(special.sum()))
    return x.astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A small random booster with every way of treating what is missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = draw(st.sampled_from([40, 400]))
    train = inputs(rng, rows, SHARED + OWN)
    if draw(st.booleans()):
        train = np.nan_to_num(train, nan=1.0)  # a column without NaN learns no way for it
    finite = np.clip(np.nan_to_num(train[:, [0, 1, 4, 6]], nan=2.0), -9, 9)
    label = finite @ rng.normal(0, 1, 4) + rng.normal(0, 0.3, rows) > draw(st.sampled_from([-1.0, 0.0, 2.0]))
    booster = lgb.train(
        {
            "objective": draw(st.sampled_from(["binary", "regression"])),
            "num_leaves": draw(st.sampled_from([2, 7, 31])),
            "min_data_in_leaf": draw(st.sampled_from([1, 15])),
            "zero_as_missing": draw(st.booleans()),
            "use_missing": draw(st.booleans()),
            "path_smooth": draw(st.sampled_from([0.0, 10.0])),
            "feature_fraction": 0.7,
            "verbosity": -1,
            "num_threads": 1,
            "seed": draw(st.integers(0, 99)),
        },
        lgb.Dataset(train, label=label),
        num_boost_round=draw(st.sampled_from([1, 12])),
    )
    owners = draw(st.integers(1, 5))
    # From nobody's row to more rows of one owner than an integer has bits, in any order.
    owner = rng.permutation(np.repeat(np.arange(owners), draw(st.sampled_from([0, 1, 3, 30, 150]))))
    return Case(booster, inputs(rng, owners, SHARED), inputs(rng, len(owner), OWN), owner)


def by_lightgbm(case: Case, **options: Any) -> npt.NDArray[np.float64]:
    # LightGBM refuses a table without rows.
    rows = case.rows if len(case.owner) else np.zeros((1, SHARED + OWN), dtype=np.float32)
    found: npt.NDArray[np.float64] = case.booster.predict(rows, num_threads=1, **options)
    return found[: len(case.owner)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(cases())
def test_raw_scores_are_those_of_lightgbm_to_the_last_bit(case: Case) -> None:
    forest = parse(case.booster)
    assert forest is not None
    found = forest.margins(case.shared, case.own, case.owner)
    assert found.tobytes() == by_lightgbm(case, raw_score=True).tobytes()


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(cases(), st.integers(1, 40))
def test_a_row_has_the_same_score_in_any_company(case: Case, size: int) -> None:
    forest = parse(case.booster)
    assert forest is not None
    whole = forest.margins(case.shared, case.own, case.owner)
    parts = [
        forest.margins(case.shared, case.own[begin : begin + size], case.owner[begin : begin + size])
        for begin in range(0, len(case.owner), size)
    ]
    assert np.array_equal(np.concatenate([np.zeros(0), *parts]), whole)


def test_columns_may_be_all_shared_or_all_own() -> None:
    rng = np.random.default_rng(1)
    train = inputs(rng, 300, 5)
    booster = lgb.train({"verbosity": -1, "num_threads": 1}, lgb.Dataset(train, label=np.nan_to_num(train[:, 2])), 5)
    forest = parse(booster)
    assert forest is not None
    expected = booster.predict(train, raw_score=True, num_threads=1)
    none = np.empty((300, 0), dtype=np.float32)
    assert np.array_equal(forest.margins(train, none, np.arange(300)), expected)
    assert np.array_equal(forest.margins(none[:1], train, np.zeros(300, dtype=np.int64)), expected)


def train_small(parameters: dict[str, Any], **dataset: Any) -> lgb.Booster:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 4, (200, 2)).astype(np.float32)
    data = lgb.Dataset(x, label=(x[:, 0] == 2) * 1.0 + (x[:, 1] > 1), **dataset)
    plain = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, "min_data_per_group": 1, "cat_smooth": 0}
    return lgb.train({**plain, **parameters}, data, num_boost_round=3)


@pytest.mark.parametrize(
    ("parameters", "dataset"),
    [
        ({"max_cat_to_onehot": 1}, {"categorical_feature": [0]}),
        ({"linear_tree": True}, {}),
        ({"objective": "multiclass", "num_class": 3}, {}),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, {}),
    ],
    ids=["categories", "linear leaves", "classes", "random forest"],
)
def test_other_models_are_left_to_lightgbm(parameters: dict[str, Any], dataset: dict[str, Any]) -> None:
    assert parse(train_small({})) is not None
    assert parse(train_small(parameters, **dataset)) is None


def test_a_booster_without_a_split_is_a_constant() -> None:
    x = np.ones((50, 2), dtype=np.float32)
    booster = lgb.train({"verbosity": -1, "objective": "binary"}, lgb.Dataset(x, label=np.arange(50) < 9), 2)
    forest = parse(booster)
    assert forest is not None
    found = forest.margins(x[:, :1], x[:, 1:], np.arange(50))
    assert np.array_equal(found, booster.predict(x, raw_score=True))


# Contributions.

MIXED = SHARED + OWN - 1
VALUES = 3


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_contributions_are_those_of_lightgbm_and_add_up(case: Case, seed: int) -> None:
    """Silent error 29: contributions and what is expected give the raw score."""
    forest = parse(case.booster)
    assert forest is not None
    paths = paths_of(forest, MIXED, VALUES)
    assert paths is not None
    case.own[:, -1] = np.random.default_rng(seed).integers(VALUES, size=len(case.own))
    mixture = np.eye(VALUES)[case.own[:, -1].astype(np.int64)]
    found = paths.contributions(case.rows, mixture)
    expected = by_lightgbm(case, pred_contrib=True)
    assert found == pytest.approx(expected[:, :-1], rel=1e-9, abs=1e-9)
    if len(expected):
        assert paths.expected == pytest.approx(expected[0, -1], rel=1e-9, abs=1e-9)
    margins = forest.margins(case.shared, case.own, case.owner)
    assert found.sum(axis=1) + paths.expected == pytest.approx(margins, rel=1e-9, abs=1e-9)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(cases(), st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_a_mixture_over_a_column_is_the_mean_of_its_values(case: Case, seed: int, size: int) -> None:
    forest = parse(case.booster)
    assert forest is not None
    paths = paths_of(forest, MIXED, VALUES)
    assert paths is not None
    mixture = np.random.default_rng(seed).dirichlet(np.ones(VALUES), len(case.own))
    found = paths.contributions(case.rows, mixture)
    alone = [paths.contributions(case.rows, np.tile(one, (len(case.own), 1))) for one in np.eye(VALUES)]
    assert found == pytest.approx(np.einsum("rv,vrc->rc", mixture, np.stack(alone)), rel=1e-9, abs=1e-9)
    parts = [
        paths.contributions(case.rows[begin : begin + size], mixture[begin : begin + size])
        for begin in range(0, len(case.own), size)
    ]
    assert np.array_equal(np.vstack([np.zeros((0, SHARED + OWN)), *parts]), found), "in any company"


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_lightgbm_itself_takes_the_place_of_compiled_trees(case: Case, seed: int) -> None:
    forest = parse(case.booster)
    assert forest is not None
    paths, rng = paths_of(forest, MIXED, VALUES), np.random.default_rng(seed)
    assert paths is not None
    mixture = rng.dirichlet(np.ones(VALUES), len(case.own)) * (rng.random((len(case.own), VALUES)) < 0.6)
    rows = case.rows.copy()
    found = BoosterPaths(case.booster, MIXED).contributions(rows, mixture)
    assert np.array_equal(rows, case.rows, equal_nan=True), "what was handed over is left alone"
    alone = [paths.contributions(case.rows, np.tile(one, (len(case.own), 1))) for one in np.eye(VALUES)]
    assert found == pytest.approx(np.einsum("rv,vrc->rc", mixture, np.stack(alone)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("parameters", "dataset", "told"),
    [
        ({"max_cat_to_onehot": 1}, {"categorical_feature": [0]}, True),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, {}, True),
        ({"linear_tree": True}, {}, False),
        ({"objective": "multiclass", "num_class": 3}, {}, False),
    ],
    ids=["categories", "random forest", "linear leaves", "classes"],
)
def test_contributions_of_other_models_add_up_or_are_refused(
    parameters: dict[str, Any], dataset: dict[str, Any], told: bool
) -> None:
    booster = train_small(parameters, **dataset)
    x = np.random.default_rng(3).integers(0, VALUES, (20, 2)).astype(np.float32)
    paths, mixture = BoosterPaths(booster, 1), np.eye(VALUES)[x[:, 1].astype(np.int64)]
    if told:
        found, raw = paths.contributions(x, mixture), booster.predict(x, raw_score=True)
        assert np.ptp(raw - found.sum(axis=1)) < 1e-6 < np.ptp(raw)
    else:
        with pytest.raises(ModelError, match="Train anew"):
            paths.contributions(x, mixture)


def test_nothing_is_expected_of_a_node_that_saw_no_row() -> None:
    forest = parse(train_small({}))
    assert forest is not None and paths_of(forest, 1, VALUES) is not None
    assert paths_of(replace(forest, leaf_count=forest.leaf_count * 0), 1, VALUES) is None
