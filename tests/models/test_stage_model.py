"""The posterior in scores, bundle and registry: saved as text, loaded alike, never used with another coverage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.models.test_stage import COVERAGE, FULL, JOURNEY, STAGES, tracking, world
from tests.oracles.cases import Blocks, a_definition, a_predictor, moment
from tests.trained import SETTINGS, call

from cvj_ml.config import load_config
from cvj_ml.errors import ModelError
from cvj_ml.evaluation.stage_evaluation import POSTERIOR, fit_and_evaluate
from cvj_ml.inputs import open_histories
from cvj_ml.models.bundle.bundle import load, save
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.stage.posterior_fitting import fit_stages
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.stage_panel import Tracking, stage_rows
from cvj_ml.run import Silent
from cvj_ml.scoring.opening import make_canary, open_bundle
from cvj_ml.scoring.scores_table import score_block
from cvj_ml.simulate import simulate
from cvj_ml.windows import parse_as_of

CUT = moment(90)
SLUGS = [f"p_stage_{stage.slug}" for stage in JOURNEY.stages]


@pytest.fixture(scope="module")
def blocks() -> Blocks:
    return world(900, 1, complete=0.5)[0]


@pytest.fixture(scope="module")
def predictor(blocks: Blocks) -> Predictor:
    definition = a_definition(JOURNEY)
    rows = stage_rows(definition, tracking(complete_when=FULL), blocks, CUT)
    reach = a_predictor(definition, blocks, np.array([moment(20), moment(50)]), CUT)
    return replace(reach, stage=fit_stages(rows, tracking(complete_when=FULL), 1, 1))


def scores(predictor: Predictor, blocks: Blocks) -> pd.DataFrame:
    frame: pd.DataFrame = pd.concat([score_block(predictor, block, CUT, "v").to_pandas() for block in blocks.blocks])
    return frame


def test_scores_hold_the_posterior(predictor: Predictor, blocks: Blocks) -> None:
    _, truth, whole = world(900, 1, complete=0.5)
    frame = scores(predictor, blocks)
    p = frame[SLUGS].to_numpy()
    floor = frame["stage"].map({name: i for i, name in enumerate(JOURNEY.names)}).to_numpy()
    assert p.sum(axis=1) == pytest.approx(1)
    assert (p[np.arange(STAGES) < floor[:, None]] == 0).all()
    assert (frame["stage_probability"] == p.max(axis=1)).all()
    assert (frame["stage_predicted"] == np.array(JOURNEY.names)[p.argmax(axis=1)]).all()
    assert (p[whole].max(axis=1) == 1).all(), "complete customers are where they are seen"
    assert (truth[whole] == floor[whole]).all()
    assert (p[~whole][floor[~whole] < STAGES - 1].max(axis=1) < 1).all()


def test_a_bundle_gives_back_the_same_posterior(predictor: Predictor, blocks: Blocks, tmp_path: Path) -> None:
    digest = save(predictor, make_canary(predictor, CUT, 1), tmp_path / "bundle")
    opened = open_bundle(tmp_path / "bundle", digest)
    pd.testing.assert_frame_equal(scores(opened.predictor, blocks), scores(predictor, blocks))
    names = {path.name for path in (tmp_path / "bundle").iterdir() if path.is_file()}
    assert {"stage.json", "stage_2.txt", "stage_3.txt"} <= names
    told = json.loads((tmp_path / "bundle" / "stage.json").read_text())
    assert told["coverage"] == COVERAGE.tolist()
    stage = (tmp_path / "bundle" / "stage_3.txt").read_text()
    (tmp_path / "bundle" / "stage_3.txt").write_text(stage + " ")
    with pytest.raises(ModelError, match=r"stage_3.txt was changed"):
        load(tmp_path / "bundle")


def test_the_canary_sees_another_posterior(predictor: Predictor, tmp_path: Path) -> None:
    assert predictor.stage is not None
    other = replace(predictor.stage, tracking=tracking([1.0, 1.0, 0.6, 0.2], complete_when=FULL))
    save(replace(predictor, stage=other), make_canary(predictor, CUT, 1), tmp_path / "bundle")
    with pytest.raises(ModelError, match="the column p_stage_promoter differs"):
        open_bundle(tmp_path / "bundle")


def test_coverage_of_one_is_the_observed_stage(predictor: Predictor, blocks: Blocks) -> None:
    assert predictor.stage is not None
    whole = replace(predictor, stage=fit_stages(_rows(blocks), tracking(np.ones(STAGES)), 1, 1))
    none = replace(predictor, stage=None)
    pd.testing.assert_frame_equal(scores(whole, blocks), scores(none, blocks))
    assert (scores(none, blocks)["stage_probability"] == 1).all()


def _rows(blocks: Blocks):
    return stage_rows(a_definition(JOURNEY), tracking(np.ones(STAGES)), blocks, CUT)


@pytest.mark.slow
def test_the_whole_way_on_simulated_customers(tmp_path: Path) -> None:
    """Evidence of the top stages is lost for some; the posterior finds the truth better than counting does."""
    simulation = simulate(customers=700, seed=3)
    simulation.write(tmp_path)
    log, people = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("touchpoints", "customers"))
    ids = sorted(people["customer_id"].unique())
    rng = np.random.default_rng(0)
    full = set(rng.choice(ids, 400, replace=False))
    evidence = {
        "Advocate": log["event"].eq("testimonial") | (log["event"].eq("review") & (log["rating"] >= 4)),
        "Promote": log["event"].isin(["referral_converted", "referral_shared"]),
    }
    coverage = {"Advocate": 0.6, "Promote": 0.4}
    lost = np.zeros(len(log), dtype=bool)
    for stage, share in coverage.items():
        unlucky = {name for name, draw in zip(ids, rng.random(len(ids)), strict=True) if draw > share} - full
        lost |= (evidence[stage] & log["customer_id"].isin(unlucky)).to_numpy()
    log[~lost].to_parquet(tmp_path / "touchpoints.parquet")
    people["tracking"] = np.where(people["customer_id"].isin(full), "full", "part")
    people.to_parquet(tmp_path / "customers.parquet")
    attributes = {**SETTINGS["attributes"], "columns": {**SETTINGS["attributes"]["columns"], "tracking": "tracking"}}
    settings = {
        **SETTINGS,
        "attributes": attributes,
        "coverage": coverage,
        "complete_when": {"attribute": "tracking", "eq": "full"},
    }
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(settings))
    trained = call("train", file, "--as-of", "2025-06-24")
    assert trained.code == 0, trained.err
    scored = call("score", file, "--as-of", "2025-06-24", "--json")
    assert scored.code == 0, scored.err
    frame = pd.read_parquet(Path(json.loads(scored.out)["night"]) / "scores" / "scores.parquet")
    slugs = [name for name in frame.columns if name.startswith("p_stage_")]
    instant = parse_as_of("2025-06-24", ZoneInfo("UTC"))
    truth = simulation.true_stage(instant)[[ids.index(name) for name in frame["customer_id"]]]
    p = frame[slugs].to_numpy()
    counted = np.bincount(frame["stage"].str.lower().map({s[8:]: i for i, s in enumerate(slugs)}), minlength=8)
    true = np.bincount(truth, minlength=8)
    assert abs(p.sum(axis=0)[7] / true[7] - 1) < 0.5 * abs(counted[7] / true[7] - 1)

    config = load_config(file)
    histories = open_histories(config, Silent())
    definition = define(config, histories.visible.journey, histories.engine(), instant)
    found = fit_and_evaluate(definition, Tracking.of(config), histories.engine(), instant, 1, 1)
    assert found.evidence is not None and found.evidence.customers > 350
    losses = found.evidence.metrics.set_index("contender")["log_loss"]
    assert (losses[POSTERIOR] < losses.drop(POSTERIOR)).all()

    file.write_text(yaml.safe_dump({**settings, "coverage": {"Advocate": 0.6, "Promote": 0.5}}))
    refused = call("score", file, "--as-of", "2025-06-24")
    assert refused.code == 4
    assert "  - the coverage differs" in refused.err
