"""Backtests: folds that know nothing of their future, figures with intervals, subgroups, model age, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import Blocks, a_shop, moment, person, touch
from tests.oracles.histories import Customer, as_known
from tests.trained import Trained, call

from cvj_ml.cli.backtest import _show_report
from cvj_ml.config import DAY
from cvj_ml.errors import ConfigError
from cvj_ml.evaluation import metrics
from cvj_ml.evaluation.ageing import loss_by_age
from cvj_ml.evaluation.assessment import assess
from cvj_ml.evaluation.backtesting import MODEL, Evaluated, FoldResult, evaluate, run_fold, summary
from cvj_ml.evaluation.bootstrap import draw_keys, holm
from cvj_ml.evaluation.folds import Fold, rolling
from cvj_ml.evaluation.mlflow_record import evaluation_of
from cvj_ml.evaluation.segments import Segment, gaps, segment
from cvj_ml.journey import Journey
from cvj_ml.models.hazard.calibration import make_coherent
from cvj_ml.run import Run
from cvj_ml.simulate import random_block
from cvj_ml.windows import parse_as_of

pytest_plugins = ["tests.fixtures"]

F64 = npt.NDArray[np.float64]
KEYS = draw_keys(300, 1)
CONFIG = a_shop({"Visitor": {"event": "visit"}, "Buyer": {"event": "buy", "count": 2}}, model={"max_rows": 3000})
CUT, LATER, UNTIL = (parse_as_of(day, CONFIG.zone) for day in ("2024-08-01", "2024-09-15", "2024-11-01"))


@pytest.fixture(scope="module")
def customers() -> list[Customer]:
    block = random_block(
        customers=150,
        seed=5,
        events=("visit", "buy", "look"),
        channels=("web", "shop"),
        properties={},
        attributes={"plan": ("gold", "free"), "rating": None},
        outbound=(),
        until=UNTIL,
    )
    return to_customers(block)


@pytest.fixture(scope="module")
def folds(customers: list[Customer]) -> list[FoldResult]:
    return [
        run_fold(Run(CONFIG, Journey(CONFIG.journey), Blocks([to_block(customers)]), 0, 1), Fold(cut, UNTIL))
        for cut in (CUT, LATER)
    ]


def test_a_fold_never_sees_the_future(customers: list[Customer], folds: list[FoldResult]) -> None:
    """What becomes visible from the cut on changes outcomes and not one bit of what anybody had said before."""
    past = [as_known(one, CUT) for one in customers]
    blind = run_fold(Run(CONFIG, Journey(CONFIG.journey), Blocks([to_block(past)]), 0, 1), Fold(CUT, UNTIL))
    seen = folds[0]
    assert [blind.panel.names[i] for i in blind.panel.customer] == [seen.panel.names[i] for i in seen.panel.customer]
    assert blind.probabilities.keys() == seen.probabilities.keys()
    for name, p in seen.probabilities.items():
        assert np.array_equal(p, blind.probabilities[name], equal_nan=True), name
    assert seen.evaluated.converted.sum() > 50 > blind.evaluated.converted.sum() == 0, (
        "the outcomes alone are of the future"
    )


def test_test_snapshots_are_never_sampled(customers: list[Customer]) -> None:
    """Silent error 12: the row budget is for training; figures are those of everybody."""
    small = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"max_rows": 1000})})
    result = run_fold(Run(small, Journey(small.journey), Blocks([to_block(customers)]), 0, 1), Fold(CUT, UNTIL))
    seen = [one for one in customers if any(touch.visible < CUT for touch in one.touches)]
    assert len(result.panel) == result.panel.eligible == len(seen) and result.panel.share == 1.0


def test_what_is_judged_are_the_final_numbers(folds: list[FoldResult]) -> None:
    """Silent error 16: coherence comes last, so making them coherent once more changes nothing."""
    p = folds[0].evaluated.probabilities[MODEL]
    assert np.isfinite(p).any()
    assert make_coherent(p) == pytest.approx(p, nan_ok=True, abs=1e-12)


def test_folds_nearer_than_the_longest_horizon_are_refused() -> None:
    """Silent error 18: the same move would be judged twice."""
    with pytest.raises(ConfigError, match=r"at least the longest horizon \(30d\) apart, found 7d"):
        rolling(Run(CONFIG, Journey(CONFIG.journey), Blocks([]), 0, 1), UNTIL, 2, 7 * DAY)
    cuts = [fold.cut for fold in rolling(Run(CONFIG, Journey(CONFIG.journey), Blocks([]), 0, 1), UNTIL, 3, 45 * DAY)]
    assert np.diff(cuts).tolist() == [45 * DAY, 45 * DAY]


# Figures of a fold whose truth is known.


def made(size: int = 4000, seed: int = 3, **contenders: tuple[float, float]) -> Evaluated:
    """Customers of one stage whose true log-odds are known; contenders say slope * truth + shift."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1.0, 1.0, size)
    converted, known = np.zeros((size, 3, 1), dtype=np.bool_), np.zeros((size, 3, 1), dtype=np.bool_)
    known[:, 2], converted[:, 2, 0] = True, random.random(size) < 1 / (1 + np.exp(-truth))
    predicted = {}
    for name, (slope, shift) in contenders.items():
        p = np.full(converted.shape, np.nan)
        p[:, 2, 0] = 1 / (1 + np.exp(-(slope * truth + shift)))
        predicted[name] = p
    return Evaluated(
        ("Visitor", "Buyer"), (30 * DAY,), np.arange(size), np.zeros(size, dtype=np.int8), converted, known, predicted
    )


def test_a_calibrated_model_does_not_fail_and_an_extreme_or_high_one_does() -> None:
    fine = assess(made(model=(1, 0), flat=(0, -0.9)), KEYS)
    assert fine.failing.empty
    (row,) = fine.calibration.to_dict("records")
    assert row["calibration_slope_low"] < 1 < row["calibration_slope_high"]
    assert row["observed_expected_low"] < 1 < row["observed_expected_high"]
    assert row["expected_calibration_error_low"] < 0.01
    extreme = assess(made(model=(1.6, 0.6), flat=(0, -0.9)), KEYS).failing
    assert extreme[["from", "to", "horizon_days", "figure", "finding"]].to_numpy().tolist() == [
        ["Visitor", "Buyer", 30, "observed_expected", "fewer moved"],
        ["Visitor", "Buyer", 30, "calibration_slope", "too extreme"],
    ]
    assert extreme["p_holm"].tolist() == pytest.approx(holm(extreme["p"]).tolist())


def test_a_baseline_that_wins_is_named_and_one_that_may_be_chance_is_not_called_sure() -> None:
    wins = assess(made(model=(0.2, 0), better=(1, 0), same=(0.21, 0.0)), KEYS).baseline_wins
    assert set(wins["contender"]) == {"better", "same"}
    sure = wins.set_index("contender")
    assert sure.loc["better", "beyond_chance"] and sure.loc["better", "high"] < 0
    chance = assess(made(size=200, model=(1, 0), near=(1.02, 0.01)), KEYS).baseline_wins
    assert not chance["beyond_chance"].any()


def test_means_are_those_of_the_summary_and_contain_their_estimate(folds: list[FoldResult]) -> None:
    """Point figures come from the same rows as training's, and every interval holds its estimate."""
    result = folds[1]
    found = assess(result.evaluated, KEYS)
    assert not found.means.empty
    rows = evaluate(result.panel, result.probabilities).merge(
        found.cells[["contender", "from", "to", "horizon_days"]], on=["contender", "from", "to", "horizon_days"]
    )
    expected = summary(rows).set_index(["target", "horizon_days", "contender"])["log_loss"]
    for row in found.means.to_dict("records"):
        assert row["log_loss"] == pytest.approx(expected[row["question"], row["horizon_days"], row["contender"]])
    for table in (found.cells, found.means):
        for name in ("log_loss", "auc", "observed_expected", "log_loss_above_model"):
            if f"{name}_low" in table.columns:
                here = table[table[f"{name}_low"].notna()]
                assert (here[f"{name}_low"] <= here[name]).all() and (here[name] <= here[f"{name}_high"]).all(), name


@pytest.mark.parametrize(("slope", "shift"), [(1.0, -0.6), (1.0, 0.0), (1.6, 0.0)])
def test_the_decomposition_names_the_part_that_is_wrong(slope: float, shift: float) -> None:
    """Silent error 7: a wrong level is not taken for a wrong ranking, which no shift and no slope changes."""
    found, right = (assess(made(model=line, flat=(0, -0.9)), KEYS) for line in ((slope, shift), (1.0, 0.0)))
    row, best = (one.decomposition.set_index("contender").loc["model"] for one in (found, right))
    assert row["level"] + row["slope"] + row["ranking"] == pytest.approx(row["log_loss"])
    assert row["log_loss"] == pytest.approx(found.means.set_index("contender").loc["model", "log_loss"])
    assert row["ranking"] == pytest.approx(best["ranking"], abs=1e-6) and row["auc"] == pytest.approx(best["auc"])
    assert row["ranking_low"] < row["ranking"] < row["ranking_high"] and row["auc_low"] < row["auc"] < row["auc_high"]
    if slope == 1:  # a stretch around 0 moves the level of rare moves, too
        assert (row["level_low"] > 0) == (shift != 0), "a level that is right has an interval down to 0"
        assert (row["observed_expected_low"] <= 1 <= row["observed_expected_high"]) == (shift == 0)
    assert (row["calibration_slope_low"] <= 1 <= row["calibration_slope_high"]) == (slope == 1)
    flat = found.decomposition.set_index("contender").loc["flat"]
    assert flat["slope"] == pytest.approx(0, abs=1e-9) and flat["auc"] == 0.5


def test_the_decomposition_covers_the_transitions_of_the_means(folds: list[FoldResult]) -> None:
    found = assess(folds[1].evaluated, KEYS)
    shared = ["question", "horizon_days", "contender", "transitions", "n", "converted"]
    pd.testing.assert_frame_equal(found.decomposition[shared], found.means[shared])
    assert found.decomposition["log_loss"].to_numpy() == pytest.approx(found.means["log_loss"].to_numpy())
    cells = found.cells[found.cells["contender"] == MODEL]
    for row in found.decomposition[found.decomposition["contender"] == MODEL].to_dict("records"):
        here = cells[
            ((cells["to"] == "return") == (row["question"] == "return"))
            & (cells["horizon_days"] == row["horizon_days"])
        ]
        assert row["auc"] == pytest.approx(np.average(here["auc"], weights=here["n"]))
        assert row["expected"] == pytest.approx((here["converted"] / here["observed_expected"]).sum())


def test_cells_in_which_few_moved_are_not_judged() -> None:
    evaluated = made(size=60, model=(1, 0), flat=(0, -0.9))
    converters = np.flatnonzero(evaluated.converted[:, 2, 0])
    evaluated.converted[converters[9:], 2, 0] = False
    assert assess(evaluated, KEYS).means.empty
    evaluated.converted[converters[9], 2, 0] = True
    found = assess(evaluated, KEYS)
    assert len(found.means) == 2 and found.calibration.empty and found.failing.empty


def test_movers_are_customers_and_not_rows() -> None:
    """Silent error 10: nine people with five moves each are nine."""
    evaluated = made(size=300, model=(1, 0))
    shared = replace(
        evaluated, customer=np.where(evaluated.converted[:, 2, 0], evaluated.customer % 9, evaluated.customer)
    )
    assert assess(shared, KEYS).means.empty and not assess(evaluated, KEYS).means.empty


# Subgroups.


def test_a_subgroup_that_the_model_gets_wrong_is_flagged() -> None:
    evaluated = made(size=6000, model=(1, 0))
    codes = np.arange(6000) % 3
    p = evaluated.probabilities[MODEL].copy()
    p[codes == 2] *= 0.5
    table = gaps(replace(evaluated, probabilities={MODEL: p}), Segment("plan", ("a", "b", "c"), codes), KEYS)
    assert table["value"].tolist() == ["a", "b", "c"]
    row = table.set_index("value").loc["c"]
    here, converted = codes == 2, evaluated.converted[:, 2, 0]
    assert row["observed_expected"] == pytest.approx(metrics.observed_expected(converted[here], p[here, 2, 0]))
    assert row["observed_expected_rest"] == pytest.approx(metrics.observed_expected(converted[~here], p[~here, 2, 0]))
    assert row["log_loss_gap"] == pytest.approx(
        metrics.log_loss(converted[here], p[here, 2, 0]) - metrics.log_loss(converted[~here], p[~here, 2, 0])
    )
    assert row["calibration_differs"] and row["observed_expected_gap_low"] > 0.5
    even = gaps(evaluated, Segment("plan", ("a", "b", "c"), codes), KEYS)
    assert not even["calibration_differs"].any() and not even["log_loss_differs"].any()


def test_small_subgroups_are_not_compared() -> None:
    evaluated = made(size=600, model=(1, 0))
    codes = np.zeros(600, dtype=np.int64)
    codes[np.flatnonzero(evaluated.converted[:, 2, 0])[:9]] = 1
    assert gaps(evaluated, Segment("plan", ("many", "few"), codes), KEYS).empty


def values_of(name: str, customers: list[Customer], day: float) -> dict[str, str]:
    found = segment(name, Blocks([to_block(customers[::2]), to_block(customers[1::2])]), moment(day), np.arange(4), 1)
    return dict(zip(sorted(one.name for one in customers), np.array(found.values)[found.codes], strict=True))


def test_the_first_channel_is_that_of_the_first_touchpoint_then_visible() -> None:
    people = [
        person(touch(2, channel="web"), touch(1, channel="shop", visible=6), name="late"),
        person(touch(2, channel="web"), touch(1, channel="shop", superseded=4), name="corrected"),
        person(touch(1), touch(2, channel="web"), name="unknown"),
        person(touch(9, channel="web"), name="future"),
    ]
    seen = values_of("first_channel", people, 5)
    assert seen == {"late": "web", "corrected": "web", "unknown": "(unknown)", "future": "(unknown)"}
    assert values_of("first_channel", people, 3)["corrected"] == "shop"
    assert values_of("first_channel", people, 7)["late"] == "shop"


def test_a_segment_that_does_not_exist_is_told(customers: list[Customer]) -> None:
    blocks, nobody = Blocks([to_block(customers)]), np.zeros(0, dtype=np.int64)
    with pytest.raises(ConfigError, match=r"no attribute 'plann'. Did you mean 'plan'\? Attributes: plan, rating."):
        segment("attribute:plann", blocks, CUT, nobody, 1)
    with pytest.raises(ConfigError, match="a segment is first_channel, or attribute:country"):
        segment("plan", blocks, CUT, nobody, 1)


def test_attributes_are_those_known_then_and_numbers_fall_into_quarters(customers: list[Customer]) -> None:
    everybody = np.arange(len(customers))
    ids = sorted(one.name for one in customers)
    by_id = {one.name: one for one in customers}

    def newest(name: str, attribute: str) -> Any:
        known = [version for version in by_id[name].versions if version.known < CUT]
        return known[-1].values.get(attribute) if known else None

    blocks = Blocks([to_block(customers)])
    plan = segment("attribute:plan", blocks, CUT, everybody, 1)
    expected = [newest(name, "plan") or "(unknown)" for name in ids]
    assert np.array(plan.values)[plan.codes].tolist() == expected
    assert len(set(expected)) == 3
    rating = segment("attribute:rating", blocks, CUT, everybody, 1)
    sizes = np.bincount(rating.codes)
    numbers = sorted(v for v in rating.values if v != "(unknown)")
    assert len(numbers) == 4
    known = sizes[[rating.values.index(v) for v in numbers]]
    assert known.min() > 0.15 * known.sum()


# Age.


def test_an_older_model_is_judged_on_the_same_customers(customers: list[Customer], folds: list[FoldResult]) -> None:
    table = loss_by_age(Run(CONFIG, Journey(CONFIG.journey), Blocks([to_block(customers)]), 0, 1), folds, KEYS)
    assert set(table["age_days"]) == {45} and set(table["model_of"]) == {"2024-08-01"}
    row = table[(table["question"] == "return") & (table["horizon_days"] == 30)].iloc[0]
    evaluated = folds[1].evaluated
    refitted = metrics.log_loss(evaluated.converted[:, 0, 1], evaluated.probabilities[MODEL][:, 0, 1])
    assert row["log_loss_refitted"] == pytest.approx(refitted)
    assert row["lost_by_age"] == pytest.approx(row["log_loss"] - refitted)
    same = loss_by_age(
        Run(CONFIG, Journey(CONFIG.journey), Blocks([to_block(customers)]), 0, 1), [folds[1], folds[1]], KEYS
    )
    assert (same["lost_by_age"].abs() < 1e-12).all(), "a model loses nothing against itself"


# The command.


def test_the_screen_says_which_part_was_wrong_and_what_all_folds_say(
    folds: list[FoldResult], capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluation_of(folds, KEYS)
    _show_report(report)
    told = " ".join(capsys.readouterr().out.split())
    found = report.tables["diagnosis"]
    for row in found[found["horizon_days"] == 30].to_dict("records"):
        assert row["finding"] in told
    assert "All 2 folds: mean ± standard error over folds; won and worst by log loss" in told and " of 2" in told
    assert any(name.startswith("level_and_ranking_return") for name in report.figures)
    alone = evaluation_of(folds[:1], KEYS)
    _show_report(alone)
    assert "All " not in capsys.readouterr().out and "before" not in " ".join(alone.tables["diagnosis"]["finding"])


@pytest.mark.slow
def test_the_command_tells_writes_and_logs(trained: Trained, tmp_path: Path) -> None:
    registry = {"tracking_uri": f"sqlite:///{tmp_path / 'own.db'}"}
    file = trained.variant(tmp_path / "out", mlflow=registry, model={"max_rows": 2000})
    options = ["--until", "2025-06-24", "--folds", "2", "--segment", "attribute:country", "--segment", "first_channel"]
    run = call("backtest", file, *options, "--out", tmp_path / "found", "--json")
    assert run.code == 0, run.err
    document: Mapping[str, Any] = json.loads(run.out)
    assert document["folds"] == ["2025-04-23", "2025-05-23"]
    assert {row["fold"] for row in document["means"]} == set(document["folds"])
    names = {"cells", "means", "calibration", "failing", "baseline_wins", "subgroup_gaps", "model_age"}
    names |= {"decomposition", "diagnosis", "over_folds", "outcomes"}
    assert names <= document.keys()
    assert {file.stem for file in (tmp_path / "found" / "tables").glob("*.csv")} == names
    assert list((tmp_path / "found" / "plots").glob("reliability_*.svg"))
    assert list((tmp_path / "found" / "plots").glob("level_and_ranking_*.svg"))
    assert set(pd.DataFrame(document["over_folds"])["folds"]) <= {1, 2}
    cells = pd.read_parquet(tmp_path / "found" / "tables" / "cells.parquet")
    assert len(cells) == len(document["cells"])
    from mlflow import MlflowClient

    client = MlflowClient(registry["tracking_uri"], registry["tracking_uri"])
    logged = client.get_run(document["run_id"])
    runs = client.search_runs([logged.info.experiment_id], f"tags.`mlflow.parentRunId` = '{document['run_id']}'")
    assert {one.info.run_name.removeprefix("fold ") for one in runs} == set(cells["fold"])
    assert all("backtest.log_loss.return.30d" in one.data.metrics for one in runs)
    for logs in ("log_loss", "over_folds.log_loss_won"):
        assert any(name.startswith(f"backtest.{logs}.return") for name in logged.data.metrics), logs
    assert logged.info.status == "FINISHED"


def test_a_wrong_option_is_told_before_any_training(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path)
    run = call("backtest", file, "--until", "2025-06-24", "--segment", "attribute:plann")
    assert run.code == 2 and "Did you mean 'plan'?" in run.err and "Backtest at" not in run.err
    run = call("backtest", file, "--until", "2025-06-24", "--spacing", "soon")
    assert run.code == 2 and "--spacing: 'soon' is not a duration" in run.err
