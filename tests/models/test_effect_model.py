"""Effects of contacts: against plain formulas, against econml, and never by a model that saw the customer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from cvj_ml.errors import DataError
from cvj_ml.models.bundle.effect_files import load_effects, save_effects
from cvj_ml.models.uplift.effect_model import (
    EffectModel,
    Experiment,
    customer_folds,
    fit_effect_model,
    out_of_fold_effects,
    pseudo_outcomes,
)
from cvj_ml.simulate.trial import SimulatedTrial, simulate_trial

F64 = npt.NDArray[np.float64]


def experiment(trial: SimulatedTrial) -> Experiment:
    return Experiment(trial.features, trial.arm, trial.outcome, trial.propensity, trial.customer)


def some(rows: int, arms: int, seed: int) -> tuple[Experiment, F64]:
    """A small experiment with unequal propensities, and nuisances that are anything."""
    random = np.random.default_rng(seed)
    propensity = random.dirichlet(np.full(arms, 3.0), rows)
    arm = random.integers(arms, size=rows)
    features = random.normal(size=(rows, 2)).astype(np.float32)
    return (
        Experiment(features, arm, random.normal(size=rows), propensity, np.arange(rows)),
        random.normal(size=(rows, arms)),
    )


@given(st.integers(1, 20), st.integers(2, 4), st.integers(0, 1000))
def test_pseudo_outcomes_are_the_formula(rows: int, arms: int, seed: int) -> None:
    one, m = some(rows, arms, seed)
    found = pseudo_outcomes(one, m)
    for i in range(rows):
        y, chosen = one.outcome[i], one.arm[i]
        corrected = [m[i, a] + (y - m[i, a]) / one.propensity[i, a] if chosen == a else m[i, a] for a in range(arms)]
        assert found[i] == pytest.approx([corrected[a] - corrected[0] for a in range(1, arms)], abs=1e-9)


class ToldPropensity(ClassifierMixin, BaseEstimator):
    """A nuisance of econml that is told its answers as the first features."""

    def __init__(self, arms: int) -> None:
        self.arms = arms

    def fit(self, X: F64, y: F64) -> ToldPropensity:
        self.classes_ = np.arange(self.arms)
        return self

    def predict_proba(self, X: F64) -> F64:
        return X[:, : self.arms]

    def predict(self, X: F64) -> F64:
        return self.predict_proba(X).argmax(axis=1)


class ToldOutcome(RegressorMixin, BaseEstimator):
    """The same of outcomes by arm; econml appends the arm to the features, without control."""

    def __init__(self, arms: int) -> None:
        self.arms = arms

    def fit(self, X: F64, y: F64) -> ToldOutcome:
        return self

    def predict(self, X: F64) -> F64:
        chosen, m = X[:, -(self.arms - 1) :], X[:, self.arms : 2 * self.arms]
        arm = np.where(chosen.any(axis=1), chosen.argmax(axis=1) + 1, 0)
        return m[np.arange(len(X)), arm]


class Keeps(RegressorMixin, BaseEstimator):
    """A final stage that keeps what it is fitted to."""

    def fit(self, X: F64, y: F64) -> Keeps:
        self.fitted_ = np.asarray(y)
        return self

    def predict(self, X: F64) -> F64:
        return np.zeros((len(X), *self.fitted_.shape[1:]))


@pytest.mark.parametrize("arms", [2, 3])
def test_pseudo_outcomes_are_those_of_econml_given_the_nuisances(arms: int) -> None:
    dr = pytest.importorskip("econml.dr", reason="econml is a tool of development")
    one, m = some(600, arms, 7)
    learner = dr.DRLearner(
        model_propensity=ToldPropensity(arms),
        model_regression=ToldOutcome(arms),
        model_final=Keeps(),
        multitask_model_final=True,
        cv=2,
        random_state=1,
    )
    learner.fit(one.outcome, one.arm, X=np.column_stack([one.propensity, m]))
    theirs = learner.multitask_model_cate.fitted_.reshape(600, arms - 1)
    assert np.abs(pseudo_outcomes(one, m) - theirs).max() < 1e-9


@pytest.mark.slow
def test_effects_are_as_near_to_the_truth_as_those_of_econml() -> None:
    dr = pytest.importorskip("econml.dr", reason="econml is a tool of development")
    from lightgbm import LGBMClassifier, LGBMRegressor

    taught, asked = simulate_trial(8000, 3), simulate_trial(4000, 4)
    trees = {"num_leaves": 8, "learning_rate": 0.05, "reg_lambda": 10.0, "min_child_samples": 160, "random_state": 1}
    trees |= {"n_estimators": 60, "n_jobs": 1, "verbosity": -1}
    learner = dr.DRLearner(
        model_propensity=LGBMClassifier(**trees),
        model_regression=LGBMRegressor(**trees),
        model_final=LGBMRegressor(**{**trees, "num_leaves": 4}),
        cv=5,
        random_state=1,
    )
    whole, new = (np.nan_to_num(one.features) for one in (taught, asked))  # econml refuses missing values
    learner.fit(taught.outcome, taught.arm, X=whole)
    theirs = np.sqrt(np.mean((learner.effect(new) - asked.effect[:, 0]) ** 2))
    effects = fit_effect_model(experiment(taught), 1, 1).predict(asked.features)
    ours = np.sqrt(np.mean((effects - asked.effect) ** 2))
    assert ours <= 1.1 * theirs
    assert np.corrcoef(effects[:, 0], asked.effect[:, 0])[0, 1] > 0.3


def test_whom_a_contact_moves_is_found_for_each_arm() -> None:
    trial = simulate_trial(5000, 1, arms=2, control=0.4)
    model = fit_effect_model(experiment(trial), 1, 1)
    asked = simulate_trial(3000, 2, arms=2)
    assert model.weight.max() > 0
    told = model.predict(asked.features)
    assert told.shape == (3000, 2) and (model.rows, model.customers) == (5000, 5000)
    for arm in range(2):
        if model.weight[arm] > 0:
            assert np.corrcoef(told[:, arm], asked.effect[:, arm])[0, 1] > 0.2
        truth = trial.effect[:, arm].mean()
        assert abs(model.average[arm] - truth) < 3 * model.standard_error[arm]


@pytest.fixture(scope="module")
def repeated() -> Experiment:
    """Customers with three rows each."""
    return experiment(simulate_trial(1500, 5, control=0.4, rows_a_customer=3))


def test_nothing_of_a_customer_is_in_what_is_said_of_the_customer(repeated: Experiment) -> None:
    before = out_of_fold_effects(repeated, 1, 1)
    mine = repeated.customer == repeated.customer[700]
    assert mine.sum() == 3
    outcome = np.where(mine, 1000.0, repeated.outcome)
    after = out_of_fold_effects(replace(repeated, outcome=outcome), 1, 1)
    assert np.array_equal(after.effects[mine], before.effects[mine])
    assert np.array_equal(after.above_average[mine], before.above_average[mine])
    # Only their own outcome enters their scores: divided by the propensity, and no nuisance moved.
    there = np.flatnonzero(mine)
    sign = np.where(repeated.arm[there] == 1, 1.0, -1.0) / repeated.propensity[there, repeated.arm[there]]
    moved = after.pseudo_outcomes[there, 0] - before.pseudo_outcomes[there, 0]
    assert moved == pytest.approx(sign * (1000.0 - repeated.outcome[there]))
    others = before.fold != before.fold[700]
    assert not np.array_equal(after.effects[others], before.effects[others]), "the change would have been seen"


def test_all_rows_of_a_customer_are_in_one_fold(repeated: Experiment) -> None:
    fold = customer_folds(repeated.customer, 5, 1)
    assert all(len(set(fold[repeated.customer == one])) == 1 for one in np.unique(repeated.customer)[:50])
    assert set(np.bincount(fold)) == {300}, "folds of as many customers"


def written(model: EffectModel, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    save_effects(model, folder)
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_files_are_the_same_for_any_threads_and_tell_the_same(repeated: Experiment, tmp_path: Path) -> None:
    one, three = (fit_effect_model(repeated, 1, threads) for threads in (1, 3))
    files = written(one, tmp_path / "one")
    assert files == written(three, tmp_path / "three")
    opened = load_effects(tmp_path / "one")
    assert np.array_equal(opened.predict(repeated.features), one.predict(repeated.features))
    assert files == written(opened, tmp_path / "again")


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_without_features_everybody_gains_alike_to_the_bit(value: float, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    nothing = np.full((250, 2), value, dtype=np.float32)
    one = Experiment(nothing, np.arange(250) % 2, random.random(250), np.full((250, 2), 0.5), np.arange(250))
    assert (out_of_fold_effects(one, 1, 1).above_average == 0).all()
    model = fit_effect_model(one, 1, 1)
    assert (model.predict(nothing) == model.average).all()
    save_effects(model, tmp_path)
    assert (load_effects(tmp_path).predict(nothing) == model.average).all()


def test_thresholds_rest_on_many_customers() -> None:
    trial = experiment(simulate_trial(2000, 1))
    model = fit_effect_model(trial, 1, 1, min_customers=100)
    frames = [booster.trees_to_dataframe() for booster in model.boosters]
    split = [
        (row.split_feature, row.threshold) for one in frames for row in one.dropna(subset="threshold").itertuples()
    ]
    assert split
    for name, threshold in split:
        column = trial.features[:, int(name.removeprefix("Column_"))]
        assert min((column <= threshold).sum(), (column > threshold).sum()) >= 100 or np.isnan(column).sum() >= 100


def test_all_that_makes_it_no_experiment_is_told_at_once() -> None:
    trial = experiment(simulate_trial(1000, 1, control=0.05))
    broken = replace(
        trial, outcome=np.where(np.arange(1000) < 7, np.nan, trial.outcome), propensity=trial.propensity * 2
    )
    with pytest.raises(DataError) as caught:
        fit_effect_model(broken, 1, 1)
    told = str(caught.value)
    assert "7 outcomes are missing" in told and "add up to 1" in told and "control has" in told
    with pytest.raises(DataError, match="different lengths"):
        out_of_fold_effects(replace(trial, arm=trial.arm[:-1]), 1, 1)
    with pytest.raises(DataError, match="arms are numbered"):
        out_of_fold_effects(replace(trial, arm=trial.arm + 1), 1, 1)
