"""The model card: the numbers of the assessment in words a person can read, and never a customer."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.trained import Trained, call

from cvj_ml import tracking
from cvj_ml.commands.backtest import backtest_fold
from cvj_ml.commands.train import training_panel
from cvj_ml.config import DAY, Rule
from cvj_ml.evaluation.assessment import Assessment, assess
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys
from cvj_ml.evaluation.diagnosis import diagnosis
from cvj_ml.evaluation.folds import last_matured
from cvj_ml.evaluation.promotion import Transition, decide_first
from cvj_ml.evaluation.stage_evaluation import FitOfStages, StageEvidence
from cvj_ml.inputs import Histories, open_histories, require_customers
from cvj_ml.journey.words import rule_in_words
from cvj_ml.model_card import Card, Training, markdown, quality, write_card
from cvj_ml.models.bundle.bundle import load
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.stage.posterior import StageModel
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.stage_panel import Tracking
from cvj_ml.run import Silent
from cvj_ml.windows import to_datetime

pytest_plugins = ["tests.fixtures"]


def facts_of(trained: Trained, folder: Path, **settings: object) -> tuple[Training, Histories]:
    """The facts of the training that made the shared bundle, computed anew."""
    config = trained.config(trained.variant(folder, **settings))
    silent = Silent()
    histories = open_histories(config, silent)
    usage = require_customers(histories, trained.as_of)
    fold = last_matured(histories.run(), trained.as_of)
    result = backtest_fold(histories, fold)
    panel = training_panel(histories, trained.as_of)
    fit = fit_reach(panel, config.model.seed, histories.threads)
    predictor = Predictor(panel.definition, fit.trees, fit.calibration)
    keys_ = draw_keys(DRAWS, config.model.seed)
    verdict = decide_first(result.evaluated, keys_, learned=bool(result.predictor.learned.any()))
    facts = Training(
        config, histories.store, histories.visible, usage, trained.as_of, result, panel, fit, predictor, None, verdict
    )
    return facts, histories


@pytest.fixture(scope="module")
def made(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Histories]:
    # Two threads and other buckets than the training that is compared with.
    return facts_of(trained, tmp_path_factory.mktemp("card"), engine={"threads": 2, "buckets": 3})


@pytest.fixture(scope="module")
def facts(made: tuple[Training, Histories]) -> Training:
    return made[0]


@pytest.fixture(scope="module")
def keys(facts: Training) -> np.ndarray:
    return draw_keys(DRAWS, facts.config.model.seed)


@pytest.fixture(scope="module")
def card(made: tuple[Training, Histories], keys: np.ndarray) -> Card:
    facts, histories = made
    return write_card(facts, histories.engine(), keys)


@pytest.fixture(scope="module")
def assessed(facts: Training, keys: np.ndarray) -> Assessment:
    return assess(facts.result.evaluated, keys)


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next of its level."""
    level = re.escape(heading.split(" ")[0])
    found = re.search(rf"^{re.escape(heading)}[^\n]*\n(.*?)(?=^{level} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def test_the_same_training_writes_the_same_bytes(card: Card, trained: Trained) -> None:
    """Silent error 31: another folder, two threads and other buckets leave no trace; nor does the clock or the host."""
    written = load(trained.bundle).card
    assert card.text == written
    assert str(trained.folder) not in written and trained.folder.name + "/" not in written


def test_the_card_holds_the_means_and_intervals_of_the_assessment(card: Card, assessed: Assessment) -> None:
    text = section(card.text, "## How good it is")
    models = assessed.means[assessed.means["contender"] == "model"]
    assert set(models["question"]) == {"return", "reach"} or len(models)
    for row in models.to_dict("records"):
        line = next(x for x in text.splitlines() if x.startswith(f"| {row['question']} | {row['horizon_days']} days"))
        assert f"{row['log_loss']:.4f} ({row['log_loss_low']:.4f} to {row['log_loss_high']:.4f})" in line
        rivals = assessed.means[
            (assessed.means["question"] == row["question"])
            & (assessed.means["horizon_days"] == row["horizon_days"])
            & (assessed.means["contender"] != "model")
        ]
        best = rivals.loc[rivals["log_loss"].idxmin()]
        assert f"| {best['contender']} |" in line and f"| {best['log_loss']:.4f} |" in line
        assert line.endswith(
            f"{best['log_loss_above_model']:.4f} ({best['log_loss_above_model_low']:.4f} to"
            f" {best['log_loss_above_model_high']:.4f}) |"
        )


def test_the_card_says_which_part_was_wrong(card: Card, assessed: Assessment, facts: Training) -> None:
    """In words, in the head and below; and the parts of every contender add up to its log loss."""
    text = section(card.text, "## Level, slope and ranking")
    parts = assessed.decomposition[assessed.decomposition["horizon_days"] == 30]
    mine = parts[parts["contender"] == "model"].to_dict("records")
    first = to_datetime(facts.result.fold.cut, facts.definition.zone).date()
    for row in mine:
        finding = f"- {diagnosis(row, first)}"
        assert finding in text.splitlines() and finding in card.text.split("\n## ")[0].splitlines()
        assert card.metrics[f"test.decomposition.level.{row['question']}.30d"] == row["level"]
    lines = [line for line in text.splitlines() if "| 30 days |" in line]
    assert len(lines) == len(parts) > 0
    for line, row in zip(lines, parts.to_dict("records"), strict=True):
        assert f"| {row['contender']} | {row['log_loss']:.4f} |" in line and f"{row['ranking']:.4f}" in line
        assert row["level"] + row["slope"] + row["ranking"] == pytest.approx(row["log_loss"])


def test_the_card_holds_every_transition_of_the_lists_horizon(card: Card, assessed: Assessment) -> None:
    text = section(card.text, "### Transitions within 30 days")
    cells = assessed.cells[(assessed.cells["contender"] == "model") & (assessed.cells["horizon_days"] == 30)]
    lines = [line for line in text.splitlines() if " → " in line]
    assert len(lines) == len(cells) > 0
    for line, row in zip(lines, cells.to_dict("records"), strict=True):
        assert line.startswith(f"| {row['from']} → {row['to']} | {row['n']} | {row['converted']} |")
        for name, digits in (("log_loss", 4), ("auc", 3), ("observed_expected", 2)):
            bounds = f"({row[f'{name}_low']:.{digits}f} to {row[f'{name}_high']:.{digits}f})"
            assert f"{row[name]:.{digits}f} {bounds}" in line


def test_the_metrics_of_the_training_have_the_intervals_of_the_assessment(card: Card, assessed: Assessment) -> None:
    row = assessed.cells[assessed.cells["contender"] == "model"].iloc[0]
    cell = f"{row['from']}__{row['to']}.{row['horizon_days']}d".lower()
    assert card.metrics[f"test.log_loss_low.{cell}"] == row["log_loss_low"]
    assert card.metrics[f"test.auc_high.{cell}"] == row["auc_high"]
    mean = assessed.means[assessed.means["contender"] == "model"].iloc[0]
    assert card.metrics[f"test.log_loss.{mean['question']}.{mean['horizon_days']}d"] == mean["log_loss"]
    assert all(np.isfinite(value) for value in card.metrics.values())
    assert card.tables["fold_cells"].equals(assessed.cells)


def test_the_card_accounts_for_the_data_without_folders(card: Card, facts: Training) -> None:
    text = section(card.text, "## Data")
    counts = facts.store.counts["touchpoints"]
    assert f"| touchpoints | {counts.rows_in:,} | {counts.stored:,} | 0 | 0 | 0 |" in text
    assert f"the model may use {facts.usage.used:,};" in text
    for source, files in facts.store.fingerprints.items():
        for file in files:
            line = f"| {source} | {Path(file['file']).name} | `{file['sha256'][:12]}` | {file['bytes']:,} |"
            assert line in text


def test_the_card_tells_the_journey_and_how_many_moved(card: Card, facts: Training) -> None:
    text = section(card.text, "## Journey")
    for i, stage in enumerate(facts.definition.journey.stages):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {stage.name} |")]
        assert rule_in_words(stage.enter).replace("|", "\\|") in line
        if i:
            assert line.endswith(f"| {facts.panel.converters[1 + i]:,} |")


def test_the_card_names_what_rests_on_base_rates(card: Card, facts: Training) -> None:
    low = dict(facts.low())
    assert low, "some targets must be weak here"
    assert f"{' and '.join(low)} rest on base rates" in card.text.split("\n## ")[0]
    blind = section(card.text, "## What it cannot see")
    for name, converted in low.items():
        assert f"{name} ({converted} customer" in blind


def test_features_are_counted_by_group_and_what_was_left_out_is_named(card: Card, facts: Training) -> None:
    text = section(card.text, "## Features")
    counted = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in text.splitlines()[3:] if "|" in line}
    groups = [feature.group for feature in facts.definition.catalogue.features]
    assert {name: str(groups.count(name)) for name in set(groups)}.items() <= counted.items()
    assert "windows of 365 days: longer than the burn-in (90 days)" in text


def test_nobody_is_in_the_card(card: Card, trained: Trained) -> None:
    """Neither a real customer nor one of the canary, nor a touchpoint's own name."""
    log = pd.read_parquet(trained.folder / "touchpoints.parquet")
    ids = {*log["customer_id"], *load(trained.bundle).canary.block.customers, *log["touchpoint_id"].dropna()}
    assert len(ids) > 200
    assert [one for one in ids if str(one) in card.text] == []


def test_the_version_in_the_registry_carries_the_card_in_short(trained: Trained) -> None:
    from mlflow import MlflowClient

    uri = trained.config().mlflow.tracking_uri
    client = MlflowClient(uri, uri)
    version = client.get_model_version("tiny", "1")
    assert version.description.startswith("# Model card: tiny\n")
    assert "Promoted: there was no champion" in version.description
    assert "\n## " not in version.description and len(version.description) < 5000
    held = {one.path for one in client.list_artifacts(version.run_id, "bundle")}
    assert "bundle/card.md" in held
    every = client.get_run(version.run_id).data.metrics
    few = {name: value for name, value in every.items() if not name.startswith("system/")}
    assert few.keys() >= {"test.log_loss.return.30d", "test.decomposition.auc.return.30d"} and len(few) <= 60
    training = tracking.find_training(trained.config(), version.tags["digest"])
    assert training and training.metrics.items() >= few.items()
    assert training.metrics["test.log_loss_low.return.30d"] < few["test.log_loss.return.30d"]


def test_a_bundle_with_another_card_is_refused(trained: Trained, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))
    text = (copy / "card.md").read_text()
    (copy / "card.md").write_text(text.replace("log loss 0.", "log loss 0.0", 1))
    refused = call("models", "verify-folder", copy)
    assert refused.code == 4 and "card.md was changed" in refused.err


# Parts of the card that this small training does not have, from facts made by hand.


def table_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_a_failing_calibration_is_named_with_drift_where_it_is_that(facts: Training, assessed: Assessment) -> None:
    """Drift is judged by outcomes known before the fold; a failing slope has no such reason."""
    before = facts.converted_before("any", "return", 30)
    rows = facts.result.rows
    cell = (rows["to"] == "return") & (rows["horizon_days"] == 30)
    during = float(rows.loc[cell, "base_rate"].iloc[0])
    assert 0 < before < 1 and before != during
    ratio = during / before

    def row(figure: str, estimate: float) -> dict[str, object]:
        found = {"figure": figure, "estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1, "p": 0.0}
        return {"from": "any", "to": "return", "horizon_days": 30, **found, "p_holm": 0.0, "finding": "more moved"}

    figures = [("observed_expected", ratio), ("observed_expected", 1 / ratio), ("observed_expected", ratio**3)]
    failing = pd.DataFrame([row(*one) for one in [*figures, ("calibration_slope", 0.7)]])
    calibration = pd.DataFrame(columns=assessed.calibration.columns)
    found = replace(assessed, failing=failing, calibration=_with_a_row(calibration))
    lines = table_of(section(quality.calibration(facts, found), "### Transitions that fail"))[2:]
    assert [line[3].endswith(": drift") for line in lines] == [True, False, False, False]
    assert lines[0][3].startswith(f"{before:.1%}".replace("%", " %")) and lines[3][3] == "–"


def _with_a_row(calibration: pd.DataFrame) -> pd.DataFrame:
    figures = {name: 1.0 for name in calibration.columns if name not in ("question", "horizon_days")}
    return pd.DataFrame(
        [{"question": "return", "horizon_days": 30, **figures, "transitions": 1, "n": 5, "converted": 3}]
    )


def test_moves_before_the_fold_are_those_whose_outcome_was_known_by_then(facts: Training) -> None:
    """An oracle, snapshot by snapshot: nothing that the fold is judged by may excuse it."""
    panel, horizon = facts.panel, 30 * DAY
    for origin, target in (("any", "return"), ("Engage", "Convert")):
        names = facts.definition.journey.names
        j = 0 if target == "return" else 1 + names.index(target)
        outcomes = [
            bool(panel.labels.times[i, j] < horizon)
            for i in range(len(panel))
            if panel.as_of[i] + horizon + facts.store.arrival_delay <= facts.result.fold.cut
            and panel.labels.at_risk[i, j]
            and (origin == "any" or panel.stage[i] == names.index(origin))
        ]
        assert outcomes and facts.converted_before(origin, target, 30) == pytest.approx(np.mean(outcomes))
    assert np.isnan(facts.converted_before("Promote", "Convert", 30))


def test_a_baseline_that_wins_is_named(assessed: Assessment, facts: Training) -> None:
    win = {"from": "Convert", "to": "Ascend", "horizon_days": 30, "contender": "logistic RFM"}
    numbers = {"log_loss_above_model": -0.02, "low": -0.03, "high": -0.01, "p": 0.0, "p_holm": 0.0}
    wins = pd.DataFrame([{**win, **numbers, "beyond_chance": True}])
    text = quality.accuracy(facts, replace(assessed, baseline_wins=wins))
    rows = table_of(section(text, "### Where a baseline does better"))
    assert rows[2] == ["Convert → Ascend", "30 days", "logistic RFM", "0.0200 (0.0100 to 0.0300)"]
    by_chance = quality.accuracy(facts, replace(assessed, baseline_wins=wins.assign(beyond_chance=False)))
    assert "In 1 of" in by_chance and "in none of them beyond chance" in by_chance


def test_the_current_stage_shows_what_another_coverage_would_say(facts: Training) -> None:
    names = facts.definition.journey.names
    config = facts.config.model_copy(update={"coverage": {"Advocate": 0.6}})
    mixes = [[100.0] * 8, [*[100.0] * 5, 80.0, 120.0, 100.0], [*[100.0] * 5, 110.0, 90.0, 100.2]]
    misstated = pd.DataFrame(
        [
            {"changed": changed, "coverage": coverage, **dict(zip(names, mix, strict=True))}
            for changed, coverage, mix in zip(["", "Advocate", "Advocate"], [np.nan, 0.5, 0.7], mixes, strict=True)
        ]
    )
    figures = {
        name: 0.25
        for name in ("log_loss", "accuracy", "macro_f1", "kappa", "ranked_probability_score", "calibration_error")
    }
    metrics = pd.DataFrame([{"contender": "posterior", **figures}, {"contender": "observed stage", **figures}])
    mix = pd.DataFrame([{"contender": "posterior", **dict.fromkeys(names, 1.02)}])
    tracking = Tracking(np.where(np.array(names) == "Advocate", 0.6, 1.0), None, True)
    model = StageModel(tracking, "labels", (None,) * len(names))
    stages = FitOfStages(model, StageEvidence(metrics, mix, 250), 250, 0, misstated)
    text = quality.current_stage(replace(facts, config=config, stages=stages))
    assert "Advocate 0.6" in text and "Judged on 250 customers" in text
    rows = table_of(section(text, "### If the declared coverage is wrong"))
    assert rows[3] == ["Advocate 0.5", *["100"] * 5, "80 (-20 %)", "120 (+20 %)", "100"]
    assert rows[4][-1] == "100", "a change that rounds to nothing is none"
    assert "| posterior | 0.2500 | 25.0 % | 0.250 | 0.250 | 0.2500 | 0.2500 |" in text
    assert "the observed stage is taken as the true one" in quality.current_stage(facts)


def test_subgroups_that_differ_are_named_and_others_are_counted() -> None:
    row = {
        "segment": "attribute:country", "value": "UK|<b>", "from": "Convert", "to": "Ascend", "horizon_days": 30,
        "n": 40, "converted": 12, "log_loss": 0.4, "log_loss_rest": 0.3, "log_loss_gap": 0.1, "log_loss_gap_low": 0.05,
        "log_loss_gap_high": 0.15, "observed_expected": 1.5, "observed_expected_rest": 1.0,
        "p_log_loss_holm": 0.01, "p_observed_expected_holm": 0.02, "log_loss_differs": True,
        "calibration_differs": True,
    }  # fmt: skip
    compared = pd.DataFrame([row, {**row, "value": "FR", "calibration_differs": False, "log_loss_differs": False}])
    text = quality.subgroups(compared, ["first_channel", "attribute:country"])
    assert "By first channel and country: 1 of 2 comparisons" in text
    assert "country: UK\\|\\<b>" in text and "FR" not in text
    assert "0.100 (0.050 to 0.150)" in text and "1.50 / 1.00" in text
    none = quality.subgroups(compared.iloc[1:], ["first_channel"])
    assert none.endswith("none differs after Holm's correction.")


def test_the_verdict_names_the_transitions_that_decided(facts: Training) -> None:
    worse = Transition("Convert", "Ascend", 30, 200, 21, 0.02, 0.01, 0.03, 0.001)
    verdict = replace(facts.verdict, sentence="Kept the champion: it is worse.", customers=300, transitions=(worse,))
    text = quality.verdict(replace(facts, verdict=verdict))
    assert "Kept the champion: it is worse." in text and "Compared on 300 customers and 1 transition " in text
    assert "Convert → Ascend within 30 days: log loss +0.0200 (+0.0100 to +0.0300), 21 customers moved" in text


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"event": "purchase"}, "purchase"),
        ({"event": ["a", "b", "c"]}, "a, b or c"),
        ({"event": "*"}, "any touchpoint"),
        ({"event": "buy", "count": 3}, "3rd buy"),
        ({"event": "buy", "count": 11, "within": "30d"}, "11th buy within 30 days"),
        ({"event": "buy", "count": 2, "distinct": "sku"}, "buy, 2 different values of sku"),
        ({"event": "buy", "value_at_least": 500, "within": "12h"}, "buy worth 500 in total within 12h"),
        ({"event": "review", "where": {"rating": {"gte": 4, "lt": 5}}}, "review with rating ≥ 4 and rating < 5"),
        ({"event": "visit", "where": {"country": ["UK", "FR"]}}, "visit with country one of UK, FR"),
        (
            {"event": "buy", "growth": {"window": "30d", "ratio": 1.5}},
            "buy worth 1.5 times as much in 30 days as in the 30 days before",
        ),
        ({"any": [{"event": "a", "after": "One"}, {"event": "b"}]}, "a, after One; or b"),
        ({"all": [{"any": [{"event": "a"}, {"event": "b"}]}, {"event": "c"}]}, "(a; or b); and c"),
        ({"any": [{"event": "a"}, {"event": "b"}], "after": "One"}, "(a; or b), after One"),
    ],
)
def test_rules_in_words(rule: dict[str, object], words: str) -> None:
    assert rule_in_words(Rule.model_validate(rule)) == words


def test_markdown_keeps_names_apart_from_its_own_signs() -> None:
    assert markdown.escape("a|b\n<i>`x`*") == "a\\|b \\<i>\\`x\\`\\*"
    assert markdown.sentence_list(["a", "b", "c"]) == "a, b and c" and markdown.sentence_list(["a"]) == "a"
    assert markdown.share(float("nan")) == "–" and markdown.formatted(1234.5, 1) == "1,234.5"
    assert markdown.plural(1, "row") == "1 row" and markdown.plural(2, "row") == "2 rows"
