"""The posterior of the current stage: coherent, honest about its floor, and better than what anybody would count."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import check_grad
from tests.oracles.blocks import to_block
from tests.oracles.cases import Blocks, a_definition, a_journey, moment, person, touch
from tests.oracles.histories import Version

from cvj_ml.config import CompleteSpec
from cvj_ml.evaluation import stage_evaluation
from cvj_ml.evaluation import stage_evaluation as judging
from cvj_ml.evaluation.stage_evaluation import (
    FLOOR,
    ORDINAL,
    POSTERIOR,
    TABLE,
    contenders,
    first_copies,
    fit_and_evaluate,
    mix_if_misstated,
    ranked_probability_score,
    stage_log_loss,
    stage_metrics,
    stage_mix,
)
from cvj_ml.models.stage import posterior_fitting
from cvj_ml.models.stage.posterior import assemble, corrected
from cvj_ml.models.stage.posterior_fitting import fit_stages
from cvj_ml.panel.stage_panel import BEFORE_ANY, Seen, StageRows, Tracking, stage_rows

STAGES = 4
COVERAGE = np.array([1.0, 1.0, 0.6, 0.3])

JOURNEY = a_journey(
    Visitor={"event": "*"}, Buyer={"event": "buy"}, Fan={"event": "review"}, Promoter={"event": "share"}
)


def tracking(coverage=COVERAGE, **settings) -> Tracking:
    return Tracking(np.asarray(coverage, dtype=np.float64), settings.pop("complete_when", None), **settings)


floors = arrays.arrays(np.int8, st.integers(1, 8), elements=st.integers(BEFORE_ANY, STAGES - 1))


@given(floors, st.data())
def test_probabilities_sum_to_one_and_say_nothing_below_the_floor(floor, data) -> None:
    r = data.draw(arrays.arrays(np.float64, (len(floor), STAGES), elements=st.floats(0, 1)))
    p = assemble(floor, r)
    nowhere = floor == BEFORE_ANY
    assert np.isnan(p[nowhere]).all()
    assert np.allclose(p[~nowhere].sum(axis=1), 1, atol=1e-12)
    assert ((p[~nowhere] >= 0) & (p[~nowhere] <= 1)).all()
    assert (p[~nowhere][np.arange(STAGES) < floor[~nowhere][:, None]] == 0).all()


@given(floors)
def test_with_nothing_hidden_the_posterior_is_the_observed_stage(floor) -> None:
    p = assemble(floor, np.zeros((len(floor), STAGES)))
    there = floor > BEFORE_ANY
    assert (p[there] == np.eye(STAGES)[floor[there]]).all()


def test_assembly_agrees_with_the_formula_by_hand() -> None:
    (p,) = assemble(np.array([1], dtype=np.int8), np.array([[0.9, 0.9, 0.5, 0.2]]))
    assert p == pytest.approx([0, 0.8 * 0.5, 0.8 * 0.5, 0.2])


@given(st.floats(-20, 20), st.floats(0.01, 0.99))
def test_the_correction_is_bayes_rule(log_odds, c) -> None:
    q = 1 / (1 + np.exp(-log_odds))
    (found,) = corrected(np.array([log_odds]), c, "complete")
    assert found == pytest.approx(q * (1 - c) / (q * (1 - c) + 1 - q), rel=1e-9, abs=1e-12)
    (found,) = corrected(np.array([log_odds]), c, "presence")
    assert found == pytest.approx(min(1.0, (1 - c) / c * q / (1 - q)) if q < 1 else 1.0, rel=1e-6, abs=1e-12)


def test_full_coverage_leaves_no_room_for_a_hidden_stage() -> None:
    assert (corrected(np.array([50.0, -1.0]), 1.0, "complete") == 0).all()
    assert (corrected(np.array([50.0, -1.0]), 1.0, "presence") == 0).all()


# A small world: the taste decides who writes reviews and who shares; visits give a sign of it.


def world(size: int, seed: int, complete: float = 1.0) -> tuple[Blocks, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Blocks of customers as tracked, their true stage, and whose tracking is complete; coverage is COVERAGE."""
    rng = np.random.default_rng(seed)
    customers, truth, whole = [], [], []
    for i in range(size):
        taste = rng.normal()
        stage = 1 + int(rng.random() < 1 / (1 + np.exp(1.0 - 2 * taste)))
        if stage == 2 and rng.random() < 1 / (1 + np.exp(0.5 - taste)):
            stage = 3
        tracked = rng.random() < complete
        touches = [touch(rng.uniform(0, 80), event="visit") for _ in range(1 + rng.poisson(np.exp(1 + 0.7 * taste)))]
        touches.append(touch(rng.uniform(0, 80)))
        for position, event in ((2, "review"), (3, "share")):
            if stage >= position and (tracked or rng.random() < COVERAGE[position]):
                touches.append(touch(rng.uniform(0, 80), event=event))
        versions = (Version(moment(0), {"plan": "full" if tracked else "part", "rating": None}),)
        customers.append(person(*touches, name=f"c{i:05d}", versions=versions))
        truth.append(stage)
        whole.append(tracked)
    # Two blocks of unequal size, as buckets are.
    third = size // 3
    blocks = Blocks([to_block(customers[:third]), to_block(customers[third:])])
    return blocks, np.array(truth), np.array(whole)


@pytest.fixture(scope="module")
def definition():
    return a_definition(JOURNEY)


FULL = CompleteSpec(attribute="plan", eq="full")


@pytest.fixture(scope="module")
def fitted(definition):
    blocks, truth, whole = world(900, 1, complete=0.5)
    rows = stage_rows(definition, tracking(complete_when=FULL), blocks, moment(90))
    return rows, fit_stages(rows, tracking(complete_when=FULL), 1, 1), truth, whole


def test_only_complete_customers_are_thinned(fitted) -> None:
    """Silent error 19: to hide again what is half hidden already would understate the top stages."""
    rows, _, truth, whole = fitted
    assert rows.source == "complete"
    assert set(rows.seen.customer) == set(np.flatnonzero(whole))
    assert (rows.seen.truth == truth[rows.seen.customer]).all()
    assert (rows.seen.floor <= rows.seen.truth).all() and (rows.seen.floor < rows.seen.truth).any()


def test_incomplete_data_is_never_thinned(definition) -> None:
    """Silent error 19: with nobody complete, everything that was seen stays seen."""
    blocks, _, _ = world(200, 2, complete=0.0)
    rows = stage_rows(definition, tracking(), blocks, moment(90))
    assert rows.source == "presence"
    assert (rows.seen.floor == rows.seen.truth).all()
    assert len(rows.seen) == 200
    again = stage_rows(definition, tracking(complete_when=FULL), blocks, moment(90))
    assert again.source == "presence", "nobody fulfils complete_when"


def test_no_classifier_sees_the_evidence_of_its_own_label(fitted, definition) -> None:
    """Else it would learn the rule: of customers at a stage, every trace of it is gone."""
    rows, _, _, _ = fitted
    names = definition.catalogue.names
    for stage, event in ((2, "Fan"), (3, "Promoter")):
        own = rows.without.take(rows.without.truth == stage)
        assert len(own) and (own.floor < stage).all()
        assert np.isnan(own.x[:, names.index(f"days_since_{event}")]).all()
        assert (own.x[:, names.index(f"fulfilled_{event}")] == 0).all()
    # Visits and purchases are no evidence of either, so they are all there.
    seen = rows.seen.take(rows.seen.truth == 2)
    assert (seen.x[:, names.index("count_event_buy_all")] == 1).all()


def test_the_rows_do_not_depend_on_the_blocks(definition) -> None:
    blocks, _, _ = world(150, 3)
    whole = Blocks([to_block([*customers(blocks.blocks[0]), *customers(blocks.blocks[1])])])
    swapped = Blocks(blocks.blocks[::-1])
    one, two, three = (
        stage_rows(definition, tracking(complete_when=FULL), some, moment(90)) for some in (blocks, whole, swapped)
    )
    for other in (two, three):
        for a, b in ((one.seen, other.seen), (one.without, other.without)):
            assert (a.customer == b.customer).all()
            np.testing.assert_array_equal(a.x, b.x)
            assert (a.floor == b.floor).all()


def customers(block):
    from tests.oracles.blocks import to_customers

    return to_customers(block)


def test_a_sample_keeps_whole_customers(definition) -> None:
    blocks, _, _ = world(300, 3)
    rows = stage_rows(definition, tracking(complete_when=FULL), blocks, moment(90), most=100)
    number = np.unique(rows.seen.customer, return_counts=True)[1]
    assert 60 < len(number) < 140
    assert (number == 3).all()


def test_the_fit_is_the_same_for_any_number_of_threads(fitted) -> None:
    rows, model, _, _ = fitted
    other = fit_stages(rows, tracking(complete_when=FULL), 1, 2)
    one, two = (some.posterior(rows.seen.x, rows.seen.floor, threads=k) for k, some in ((1, model), (2, other)))
    np.testing.assert_array_equal(one, two)
    alone = np.vstack([model.posterior(rows.seen.x[[i]], rows.seen.floor[[i]]) for i in range(20)])
    np.testing.assert_array_equal(alone, one[:20])


def test_complete_customers_are_where_they_are_seen(fitted) -> None:
    rows, model, _, _ = fitted
    floor = rows.seen.floor
    p = model.posterior(rows.seen.x, floor, np.ones(len(floor), dtype=np.bool_))
    assert (p == np.eye(STAGES)[floor]).all()
    assert (model.posterior(rows.seen.x, floor).max(axis=1) < 1).any()


def test_the_posterior_beats_every_baseline_on_customers_it_has_not_seen(fitted) -> None:
    rows, _, _, _ = fitted
    blocks, truth, _ = world(900, 5, complete=0.0)
    definition = a_definition(JOURNEY)
    evaluated = stage_rows(definition, tracking(), blocks, moment(90)).seen
    found = {name: predict(evaluated) for name, predict in contenders(rows, tracking(complete_when=FULL), 1, 1).items()}
    losses = {name: stage_log_loss(truth, p) for name, p in found.items()}
    scores = {name: ranked_probability_score(truth, p) for name, p in found.items()}
    for baseline in (FLOOR, TABLE, ORDINAL):
        assert losses[POSTERIOR] < losses[baseline] - 0.005
        assert scores[POSTERIOR] < scores[baseline]
    assert stage_mix(truth, found[POSTERIOR])[1:] == pytest.approx(1, abs=0.2)
    assert (evaluated.floor == 3).sum() < 0.45 * (truth == 3).sum(), "counting what is seen misses most promoters"


def test_presence_only_finds_the_mix(definition) -> None:
    blocks, truth, _ = world(1500, 7, complete=0.0)
    rows = stage_rows(definition, tracking(), blocks, moment(90))
    p = fit_stages(rows, tracking(), 1, 1).posterior(rows.seen.x, rows.seen.floor)
    assert stage_mix(truth, p)[1:] == pytest.approx(1, abs=0.25)


def hidden_by_chance(customers: int, seen_at_top: int) -> StageRows:
    """Presence-only rows of two stages whose features say nothing: trees can only learn them by heart."""
    random = np.random.default_rng(11)
    x = random.normal(size=(customers, 200)).astype(np.float32)
    floor = (np.arange(customers) < seen_at_top).astype(np.int8)
    seen = Seen(np.arange(customers), x, floor, floor)
    top = seen.take(floor == 1)
    return StageRows("presence", seen, Seen(top.customer, top.x, np.zeros_like(top.floor), top.truth), np.arange(4), 20)


def test_the_level_of_presence_only_data_holds_for_customers_who_taught_nothing() -> None:
    """As many are hidden as are seen at a coverage of a half; a level set on the taught would say more."""
    customers, at_top = 1000, 100
    rows, half = hidden_by_chance(customers, at_top), tracking([1.0, 0.5])
    model = fit_stages(rows, half, 1, 1)
    others = np.random.default_rng(12).normal(size=(4000, 200)).astype(np.float32)
    expected = at_top / (customers - at_top)
    assert model.posterior(others, np.zeros(4000, np.int8))[:, 1].mean() == pytest.approx(expected, rel=0.05)
    (_, top), below = model.stages, rows.seen.take(rows.seen.floor == 0)
    assert top is not None
    taught = top.logits(below.x, below.floor, 1) - top.shift
    assert posterior_fitting._level(taught, np.ones(len(below)), at_top, 0.5) > top.shift + 0.2


def test_few_customers_get_the_table_and_are_named(definition) -> None:
    blocks, _, _ = world(40, 1)
    found = fit_and_evaluate(definition, tracking(complete_when=FULL), blocks, moment(90), 1, 1)
    assert [one is not None and one.trees is None for one in found.model.stages] == [False, False, True, True]
    (warning,) = found.warnings(JOURNEY.names)
    assert warning.startswith("fewer than 30 customers are known at Fan, Promoter, or below")
    p = found.model.posterior(np.zeros((2, len(definition.catalogue.names)), np.float32), np.array([1, 3], np.int8))
    assert np.isfinite(p).all() and p[1].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("size", [0, 1, 5])
def test_nobody_and_hardly_anybody_do_not_crash(definition, size) -> None:
    blocks, _, _ = world(max(size, 1), 1)
    cut = moment(90) if size else moment(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_and_evaluate(definition, tracking(complete_when=FULL), blocks, cut, 1, 1)
    assert found.evidence is None
    x = np.zeros((1, len(definition.catalogue.names)), np.float32)
    assert found.model.posterior(x, np.array([1], np.int8)).sum() == pytest.approx(1)


def test_what_the_coverage_does_by_itself(fitted) -> None:
    """The less is declared visible, the more must be there unseen."""
    rows, model, _, _ = fitted
    mixes = {(j, c): mix for j, c, mix in mix_if_misstated(model, first_copies(rows.seen))}
    (declared,) = (mix for (j, _), mix in mixes.items() if j == -1)
    assert len(mixes) == 5
    assert mixes[2, 0.5][2] > declared[2] > mixes[2, 0.7][2]
    assert all(mix.sum() == pytest.approx(declared.sum()) for mix in mixes.values())
    model.posterior(rows.seen.x, rows.seen.floor)


# Metrics against plain arithmetic.


def test_metrics_by_hand() -> None:
    truth = np.array([0, 2])
    p = np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    clipped = p[0, 0] / (1 + judging.CLIP)
    assert stage_log_loss(truth, p) == pytest.approx(-(np.log(clipped) + np.log(0.5)) / 2)
    assert ranked_probability_score(truth, p) == pytest.approx((0.25 / 2 + (0.0625 + 0.25) / 2) / 2)
    found = stage_metrics(truth, p)
    assert (found["accuracy"], found["macro_f1"], found["kappa"]) == (1.0, 1.0, 1.0)
    assert stage_mix(truth, p) == pytest.approx([0.75, np.nan, 0.5], nan_ok=True)
    assert judging.calibration_error(truth, np.eye(3)[truth]) == 0


def test_the_ordinal_regression_has_the_right_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 60)
    seen = Seen(np.arange(60), rng.normal(size=(60, 2)).astype(np.float32), np.minimum(truth, 1).astype(np.int8), truth)
    checked = []

    def check(loss, first, **_):
        at = first + rng.normal(0, 0.1, len(first))
        checked.append(check_grad(lambda w: loss(w)[0], lambda w: loss(w)[1], at))
        return type("Found", (), {"x": at})

    monkeypatch.setattr(stage_evaluation, "minimize", check)
    p = stage_evaluation.ordinal_regression(seen, 4, np.array([0, 1]))(seen)
    assert checked[0] < 1e-3
    assert np.allclose(p.sum(axis=1), 1) and (p[seen.floor == 1][:, 0] == 0).all()
