"""Propensities of targeted logs: near the truth, out of fold; overlap is told, and its absence refused."""

from __future__ import annotations

import numpy as np
import pytest

from cvj_ml.errors import DataError
from cvj_ml.models.uplift.effect_model import Experiment, fit_effect_model
from cvj_ml.models.uplift.propensity import (
    LOWEST,
    OverlapError,
    estimate_propensity,
    overlap,
    trim,
)
from cvj_ml.simulate.trial import SimulatedTrial, simulate_trial


def estimated(trial: SimulatedTrial, seed: int = 1) -> Experiment:
    propensity = estimate_propensity(trial.features, trial.arm, trial.customer, seed, 1)
    return Experiment(trial.features, trial.arm, trial.outcome, propensity, trial.customer)


def test_propensities_are_near_the_truth_and_do_not_see_the_customer() -> None:
    trial = simulate_trial(3000, 1, arms=2, targeting=1.0, rows_a_customer=3)
    found = estimate_propensity(trial.features, trial.arm, trial.customer, 1, 1)
    assert found.sum(axis=1) == pytest.approx(1)
    assert np.abs(found - trial.propensity).mean() < 0.05 < np.abs(trial.propensity - trial.propensity.mean(0)).mean()
    mine = trial.customer == trial.customer[600]
    other = estimate_propensity(trial.features, np.where(mine, 2 - trial.arm, trial.arm), trial.customer, 1, 3)
    assert np.array_equal(found[mine], other[mine]) and not np.array_equal(found[~mine], other[~mine])
    with pytest.raises(DataError, match=r"found arms \[0, 2\]"):
        estimate_propensity(trial.features, np.where(trial.arm == 1, 2, trial.arm), trial.customer, 1, 1)


def test_weights_make_targeted_customers_comparable() -> None:
    trial = simulate_trial(4000, 1, targeting=1.0)
    one = estimated(trial)
    found = overlap(one)
    assert found.before[0] > 0.5 and found.after[0] < 0.2, "the first feature decides who is contacted"
    assert found.rows.tolist() == np.bincount(trial.arm).tolist()
    for arm in (0, 1):
        weights = [1 / one.propensity[i, arm] for i in range(4000) if trial.arm[i] == arm]
        assert found.effective[arm] == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert "Nobody drew lots" in found.warnings[0]
    outside = [min(row) < LOWEST for row in one.propensity.tolist()]
    assert found.outside == pytest.approx(sum(outside) / 4000)
    inside, before = trim(one)
    assert len(inside) == 4000 - sum(outside) and before.outside == found.outside


def test_the_effect_of_a_targeted_log_is_not_the_difference_of_its_means() -> None:
    trial = simulate_trial(6000, 2, "alike", targeting=1.0)
    naive = trial.outcome[trial.arm == 1].mean() - trial.outcome[trial.arm == 0].mean()
    model = fit_effect_model(trim(estimated(trial))[0], 1, 1)
    assert naive > 0.12, "who would have come anyway is contacted"
    assert abs(model.average[0] - 0.05) < 3 * model.standard_error[0] < 0.06


def test_without_overlap_nothing_is_said() -> None:
    trial = simulate_trial(4000, 1, targeting=300.0)
    with pytest.raises(OverlapError) as caught:
        trim(estimated(trial))
    assert "outside 0.05 to 0.95" in str(caught.value) and "worth" in str(caught.value)
    assert caught.value.exit_code == DataError.exit_code
