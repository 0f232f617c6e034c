"""Whatever goes into a model, what comes out is coherent: over horizons, over stages, and over the current stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.cases import Blocks
from tests.trained import Trained

from cvj_ml.histories import Block
from cvj_ml.models.bundle.bundle import load
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.stage.posterior import HiddenStage, Line, StageModel
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.panel.stage_panel import Tracking
from cvj_ml.scoring.scores_table import score_block, scores_contract
from cvj_ml.simulate import random_block

pytest_plugins = ["tests.fixtures"]

F64 = npt.NDArray[np.float64]
TOUCHES = 1e-12
ROWS = 4


@pytest.fixture(scope="module")
def predictor(trained: Trained) -> Predictor:
    found = load(trained.bundle).predictor
    assert found.trees.booster is not None and found.trees.low.any() and not found.trees.low.all()
    return found


@pytest.fixture(scope="module")
def panel(predictor: Predictor, trained: Trained) -> Panel:
    """Rows whose features and stages are replaced by what hypothesis draws."""
    block = a_block(0, trained.as_of, unseen=False, attributes=True)
    instants = np.array([trained.as_of])
    return build_panel(predictor.definition, Blocks([block]), instants, trained.as_of, 0)


def a_block(seed: int, until: int, *, unseen: bool, attributes: bool) -> Block:
    """Random customers; ``unseen``: of events, channels and attribute values that no training has met."""
    known = ("visit", "purchase", "signup", "review", "referral_converted", "upgrade", "email_sent")
    values: dict[str, tuple[str, ...] | None] = {"country": ("??",) if unseen else ("UK", "DE"), "age": None}
    return random_block(
        customers=6,
        seed=seed,
        events=(*known, "never_seen", "ünbekannt") if unseen else known,
        channels=("smoke signals",) if unseen else ("email", "web"),
        properties={"rating": None},
        attributes=values if attributes else {},
        outbound=("email_sent",),
        until=until,
    )


def assert_coherent(p: F64, asked: npt.NDArray[np.bool_]) -> None:
    """p: (rows, targets, horizons): finite where asked, within [0, 1], growing in h, nested in the stage."""
    assert np.array_equal(np.isfinite(p), np.broadcast_to(asked[:, :, None], p.shape))
    known = p[np.isfinite(p)]
    assert ((known >= 0) & (known <= 1)).all()
    growth = np.diff(p, axis=2)
    assert (growth[np.isfinite(growth)] >= -TOUCHES).all(), "monotone in the horizon"
    for row, wanted in zip(p, asked, strict=True):
        ladder = np.vstack([np.ones(p.shape[2]), row[wanted], np.zeros(p.shape[2])])
        outcomes = -np.diff(ladder, axis=0)  # silent, active at the same stage, one stage up, …
        assert (outcomes >= -TOUCHES).all(), "nested in the stage"
        assert outcomes.sum(axis=0) == pytest.approx(np.ones(p.shape[2]))


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    missing=st.sampled_from([0.0, 0.3, 0.95]),
    scale=st.sampled_from([1.0, 1e4, 1e30, 3e38]),
    present=st.integers(-1, 7),
)
def test_any_features_give_coherent_probabilities(
    predictor: Predictor, panel: Panel, seed: int, missing: float, scale: float, present: int
) -> None:
    """Random numbers, negative and huge ones, and a row in which everything is missing."""
    random = np.random.default_rng(seed)
    x = (scale * random.uniform(-1, 1, (ROWS, len(predictor.definition.catalogue.names)))).astype(np.float32)
    x[random.random(x.shape) < missing] = np.nan
    x[0] = np.nan
    stage = np.append(present, random.integers(-1, 8, ROWS - 1)).astype(np.int8)
    p = predictor.predict(replace(panel, x=x, stage=stage), threads=1)
    assert_coherent(p, predictor.definition.at_risk(stage))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    unseen=st.booleans(),
    attributes=st.booleans(),
    level=st.floats(-30, 30),
    slope=st.floats(0, 5),
    next_stages=st.sampled_from([None, 1, 2]),
)
def test_any_customers_give_coherent_scores(
    predictor: Predictor,
    trained: Trained,
    seed: int,
    unseen: bool,
    attributes: bool,
    level: float,
    slope: float,
    next_stages: int | None,
) -> None:
    """Unseen names, no attributes, however far the calibration bends: the table keeps its contract."""
    random = np.random.default_rng(seed)
    shape = predictor.calibration.slope.shape
    bent = Calibration(level * random.random(shape), slope * random.random(shape))
    definition = replace(predictor.definition, next_stages=next_stages)
    changed = replace(predictor, definition=definition, calibration=bent)
    block = a_block(seed, trained.as_of, unseen=unseen, attributes=attributes)
    answers = changed.answer(block, trained.as_of)
    assert len(answers.snapshots) > 0
    assert_coherent(answers.probability, definition.at_risk(answers.stage))
    scores = score_block(changed, block, trained.as_of, "v")
    scores_contract(definition).check(scores)


@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**31), unseen=st.booleans())
def test_any_customers_have_a_current_stage_that_sums_to_one(
    predictor: Predictor, trained: Trained, data: st.DataObject, seed: int, unseen: bool
) -> None:
    """With any classifiers and any coverage: one in sum, nothing below the observed stage, finite."""
    stages = len(predictor.definition.journey.stages)
    coverage = np.array(data.draw(st.lists(st.floats(0.01, 1.0), min_size=stages, max_size=stages)))
    source = data.draw(st.sampled_from(["labels", "complete", "presence"]))
    random = np.random.default_rng(seed)
    columns = random.integers(len(predictor.definition.catalogue.names), size=3)
    line = Line(columns, np.zeros(4), np.ones(4), random.normal(size=4) * 5, 0.0)
    one = HiddenStage(random.normal(size=stages + 1) * 20, line, None, float(random.normal()))
    plain = HiddenStage(random.normal(size=stages + 1) * 20, None, None)
    chosen = tuple(None if c >= 1 else (one, plain)[i % 2] for i, c in enumerate(coverage))
    changed = replace(predictor, stage=StageModel(Tracking(coverage, None), source, chosen))
    answers = changed.answer(a_block(seed, trained.as_of, unseen=unseen, attributes=False), trained.as_of)
    at = answers.stage >= 0
    assert at.any() and np.isnan(answers.true_stage[~at]).all()
    mass = answers.true_stage[at]
    assert np.isfinite(mass).all() and (mass >= 0).all()
    assert mass.sum(axis=1) == pytest.approx(np.ones(len(mass)))
    below = np.arange(stages)[None, :] < answers.stage[at][:, None]
    assert (mass[below] == 0).all()
