"""From training to the champion: the window that both models are judged on, the tags, promotion and rollback."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import Blocks, a_shop
from tests.trained import AS_OF, Trained, call

from cvj_ml.config import DAY
from cvj_ml.evaluation import promotion as challenges
from cvj_ml.evaluation.backtesting import FoldResult, run_fold
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.promotion import challenge, undecided
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.bundle import load
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.predictor import Predictor
from cvj_ml.run import Run
from cvj_ml.simulate import random_block
from cvj_ml.windows import parse_as_of, to_datetime

pytest_plugins = ["tests.fixtures"]

CONFIG = a_shop({"Visitor": {"event": "visit"}}, horizons=["7d", "60d"], lists=[], model={"max_rows": 3000})
CUT, UNTIL = (parse_as_of(day, CONFIG.zone) for day in ("2024-09-02", "2024-11-01"))


@pytest.fixture(scope="module")
def blocks() -> Blocks:
    block = random_block(
        customers=200,
        seed=5,
        events=("visit", "buy"),
        channels=("web",),
        properties={},
        attributes={"plan": ("gold",), "rating": None},
        outbound=(),
        until=UNTIL,
    )
    return Blocks([to_block(to_customers(block))])


@pytest.fixture(scope="module")
def fold(blocks: Blocks) -> FoldResult:
    return run_fold(Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1), Fold(CUT, UNTIL))


def worse(predictor: Predictor) -> Predictor:
    """A model that expects far too many moves."""
    old = predictor.calibration
    return replace(predictor, calibration=Calibration(old.intercept + 3.0, old.slope))


def test_the_better_of_two_is_promoted_and_the_same_is_not(blocks: Blocks, fold: FoldResult) -> None:
    better = challenge(Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1), fold, worse(fold.predictor), CUT)
    assert better.promote and better.difference.high < 0
    same = challenge(Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1), fold, fold.predictor, CUT - 30 * DAY)
    assert not same.promote and same.difference.estimate == 0


@pytest.mark.parametrize("late", [0, 1, DAY])
def test_a_younger_champion_is_judged_on_what_came_after_its_own_cut(
    blocks: Blocks, fold: FoldResult, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """Neither model may have seen an outcome of the window: it begins at the later of both cuts."""
    windows: list[Fold] = []

    def noted(run: Run, window: Fold) -> FoldResult:
        windows.append(window)
        return run_fold(run, window)

    monkeypatch.setattr(challenges, "run_fold", noted)
    young = CUT + 10 * DAY + late
    verdict = challenge(Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1), fold, worse(fold.predictor), young)
    (window,) = windows
    assert young <= window.cut < young + DAY and window.until == UNTIL
    assert to_datetime(window.cut, CONFIG.zone).hour == 0
    assert {one.horizon_days for one in verdict.transitions} == {7}, "60 days are not over yet"


def test_a_champion_that_is_too_young_stays_and_says_until_when(blocks: Blocks, fold: FoldResult) -> None:
    """The horizon of the lists (the one nearest to 30 days) must be over since the champion's cut."""
    verdict = challenge(
        Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1), fold, worse(fold.predictor), UNTIL - 5 * DAY
    )
    assert not verdict.promote and np.isnan(verdict.difference.estimate)
    assert "less than 7d have been observed since it was trained" in verdict.sentence
    assert "Train again from 2024-11-04 on" in verdict.sentence


def versions(file: Path) -> dict[int, list[str]]:
    listed = json.loads(call("models", "list", file, "--json").out)["versions"]
    return {one["version"]: one["aliases"] for one in listed}


@pytest.mark.slow
def test_training_promotes_by_the_rule_or_as_asked_and_rollback_goes_back(trained: Trained, tmp_path: Path) -> None:
    registry = {"tracking_uri": f"sqlite:///{tmp_path / 'own.db'}"}
    file = trained.variant(tmp_path, mlflow=registry, model={"max_rows": 1500})
    only = json.loads(call("train", file, "--as-of", "2025-04-20", "--promote", "never", "--json").out)
    assert only["aliases"] == ["challenger"] and only["verdict"]["sentence"].startswith("Only registered: asked for by")
    first = json.loads(call("train", file, "--as-of", "2025-04-20", "--json").out)
    assert first["verdict"]["sentence"].startswith("Promoted: there was no champion")
    same = json.loads(call("train", file, "--as-of", "2025-04-21", "--json").out)
    assert same["aliases"] == ["challenger"] and not same["verdict"]["promote"]
    assert same["verdict"]["sentence"].startswith("Kept the champion: less than 30d have been observed")
    evaluated = json.loads(call("train", file, "--as-of", AS_OF, "--json").out)
    assert evaluated["verdict"]["transitions"] > 0 and evaluated["verdict"]["customers"] > 50
    assert ("champion" in evaluated["aliases"]) == evaluated["verdict"]["promote"]
    forced = call("train", file, "--as-of", AS_OF, "--promote", "always")
    assert forced.out.splitlines()[-1].startswith("Promoted: asked for by --promote always")
    assert versions(file)[5] == ["challenger", "champion"]
    back = call("models", "rollback", file)
    assert back.out.endswith("is the champion again.\n") and "champion" not in versions(file)[5]
    assert call("models", "export", file, 4, tmp_path / "fourth").code == 0
    verdict = load(tmp_path / "fourth").card.split("\n## Against the champion\n")[1].split("\n## ")[0]
    assert evaluated["verdict"]["sentence"] in verdict and f"{evaluated['verdict']['customers']} customers" in verdict
    from mlflow import MlflowClient

    tags = MlflowClient(registry["tracking_uri"], registry["tracking_uri"]).get_model_version("tiny", "4").tags
    assert tags["verdict"] == evaluated["verdict"]["sentence"]
    assert json.loads(tags["verdict_numbers"])["estimate"] == evaluated["verdict"]["estimate"]

    compared = json.loads(call("models", "compare", file, 4, 5, "--json").out)
    assert [one["version"] for one in compared["versions"]] == [4, 5] and compared["warnings"] == []
    (loss,) = [one for one in compared["figures"] if one["figure"] == "test.log_loss.return.30d"]
    assert loss["a_low"] < loss["a"] == loss["b"] < loss["b_high"], "the same data, fold and settings"
    assert compared["settings"] == [] and all(one["a"] == one["b"] for one in compared["data"])
    told = call("models", "compare", file, 3, 4)
    assert told.code == 0 and "warning: They were judged at different folds" in told.out
    assert evaluated["verdict"]["sentence"].split(",")[0] in " ".join(told.out.split())
    assert (call("models", "compare", file, 4, 9).code, call("models", "compare", file, 4, 4).code) == (4, 2)


@pytest.mark.slow
def test_a_refused_first_model_is_registered_and_nothing_else(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent error 73: exit 5, a challenger, no champion; --promote always uses it all the same."""
    bad = replace(undecided(False, "Not promoted: worse than base rates."), refused=True)
    monkeypatch.setattr("cvj_ml.commands.train.decide_first", lambda *_, **__: bad)
    file = trained.variant(
        tmp_path, mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'own.db'}"}, model={"max_rows": 1000}
    )
    found = call("train", file, "--as-of", AS_OF, "--json")
    assert found.code == 5 and "worse than base rates" in found.err and "--promote always" in found.err
    assert json.loads(found.out)["verdict"]["refused"] and versions(file) == {1: ["challenger"]}
    assert call("targets", file, "--as-of", AS_OF).code == 4
    assert call("train", file, "--as-of", AS_OF, "--promote", "always").code == 0
    assert versions(file) == {1: [], 2: ["challenger", "champion"]}
