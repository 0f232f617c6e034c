"""The search for settings: earlier folds only, chosen beyond chance only, every trial logged as a nested run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.trained import AS_OF, CUSTOMERS, Trained, call

from cvj_ml.config import load_config
from cvj_ml.errors import CvjError
from cvj_ml.evaluation import backtesting, tuning
from cvj_ml.evaluation.folds import Fold, last_matured
from cvj_ml.evaluation.metrics import Interval
from cvj_ml.evaluation.tuning import Search, Trial, search
from cvj_ml.inputs import open_histories
from cvj_ml.models.hazard.fitting import Settings
from cvj_ml.models.hazard.tree_size import DEFAULT
from cvj_ml.models.training import fit_reach
from cvj_ml.run import Silent
from cvj_ml.windows import parse_as_of

pytest_plugins = ["tests.fixtures"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of few rounds: what is tested is what they are asked, not what they learn."""

    def quickly(*arguments: Any, given: Settings | None, **named: Any) -> Any:
        return fit_reach(*arguments, given=replace(given or DEFAULT, rounds=2), **named)

    monkeypatch.setattr(tuning, "fit_reach", quickly)


def searched(trained: Trained, file: Path, trials: int = 2) -> tuple[Fold, Search]:
    config = load_config(file)
    histories = open_histories(config, Silent())
    fold = last_matured(histories.run(), parse_as_of(AS_OF, config.zone))
    found = search(histories.run(), fold, trials)
    return fold, found


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_no_fold_of_the_search_sees_what_came_after_the_reported_cut(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent error 11: settings are chosen on earlier cuts, and the reported fold stays unseen."""
    cuts: list[tuple[int, int]] = []
    build = backtesting.build_panel

    def built(definition: Any, blocks: Any, instants: Any, until: int, *arguments: Any, **named: Any) -> Any:
        cuts.append((int(instants.max()), until))
        return build(definition, blocks, instants, until, *arguments, **named)

    monkeypatch.setattr(backtesting, "build_panel", built)
    reported, found = searched(trained, trained.variant(tmp_path))
    assert len(found.folds) == tuning.FOLDS and len(found.trials) == 2
    assert all(asked < reported.cut and until <= reported.cut for asked, until in cuts)
    assert found == searched(trained, trained.variant(tmp_path))[1], "a function of its seed"


@pytest.mark.usefixtures("quick")
def test_a_history_without_an_earlier_fold_keeps_the_settings(trained: Trained, tmp_path: Path) -> None:
    _, found = searched(trained, trained.variant(tmp_path, burn_in="470d"))
    assert found.settings is None and not found.trials
    assert found.sentence == "Kept the package's settings: the history has no earlier fold to choose on."


def test_the_luckiest_of_many_is_not_chosen() -> None:
    """A difference that one trial alone would carry does not carry the best of ten."""
    other = replace(DEFAULT, leaves=9)
    lucky = Trial(other, 0.29, Interval(-0.01, -0.019, -0.001), 0.03)
    sure = Trial(other, 0.29, Interval(-0.01, -0.015, -0.005), 0.0001)
    same = Trial(DEFAULT, 0.3, Interval(0.0, -0.01, 0.01), 1.0)
    assert tuning._choose([lucky], ()).settings == other
    assert tuning._choose([lucky, *[same] * 9], ()).settings is None
    chosen = tuning._choose([sure, *[same] * 9], ())
    assert chosen.settings == other
    assert chosen.sentence == (
        "Chose other settings: the best of 10 trials changes log loss by -0.0100 (95 % interval -0.0150 to -0.0050;"
        " p = 0.001 after Holm's correction)."
    )
    worse = Trial(other, 0.31, Interval(0.01, 0.005, 0.015), 0.0001)
    assert tuning._choose([worse], ()).settings is None


def test_without_optuna_the_line_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CvjError, match=r"pip install 'cvj_ml\[tune\]'"):
        tuning._optuna()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_train_logs_every_trial_as_a_run_within_the_search(trained: Trained, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    file = trained.variant(tmp_path, mlflow={"tracking_uri": uri})
    done = call("train", file, "--as-of", AS_OF, "--tune", 2, "--json")
    assert done.code == 0, done.err
    assert "package's settings: the best of 2 trials" in done.err
    client = MlflowClient(uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "tiny"]
    runs = {run.info.run_name.split()[0]: [] for run in client.search_runs([experiment.experiment_id])}
    for run in client.search_runs([experiment.experiment_id]):
        runs[run.info.run_name.split()[0]].append(run)
    (parent,) = runs["search"]
    assert [run.data.tags["mlflow.parentRunId"] for run in runs["trial"]] == [parent.info.run_id] * 2
    assert all(run.data.metrics["validation.log_loss"] > 0 for run in runs["trial"])
    assert f"{CUSTOMERS}" and "trees_leaves" not in parent.data.params, "the package's own"
