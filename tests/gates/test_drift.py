"""Drift: counts that add up, an index that knows its own noise, and what a model may remember."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from cvj_ml.config import DAY, GatesSpec
from cvj_ml.gates.drift import CHANCE, drift
from cvj_ml.gates.verdicts import GateVerdict
from cvj_ml.histories import Block
from cvj_ml.models.bundle.bundle import load
from cvj_ml.models.drift_profile.distributions import ColumnKind, DriftCounts, bins_of, learn_bins
from cvj_ml.models.drift_profile.learning import ENOUGH, _published, learn_drift
from cvj_ml.models.drift_profile.reference import DriftReference, drift_as_json, drift_from_json, stability, together
from cvj_ml.models.predictor import Predictor
from cvj_ml.simulate import simulate

pytest_plugins = ["tests.fixtures"]

SPEC = GatesSpec()
FEWEST = 20
COMPARISONS = 300
"""About as many comparisons as a night has."""

numbers = st.one_of(st.just(math.nan), st.just(0.0), st.floats(-100, 100, width=32))


def matrix(rows: list[list[float]]) -> Any:
    return np.array(rows, dtype=np.float32).reshape(-1, 3)


COLUMNS = [ColumnKind(), ColumnKind(zero=True), ColumnKind(names=4)]
rows_of_three = st.lists(st.tuples(numbers, numbers, st.sampled_from([math.nan, 0, 1, 2, 3])).map(list), max_size=60)


@given(rows_of_three, rows_of_three)
@settings(max_examples=50)
def test_bins_agree_with_a_plain_search(learned: list[list[float]], found: list[list[float]]) -> None:
    bins = learn_bins(matrix(learned), COLUMNS, FEWEST)
    expected = np.zeros((3, bins.number), dtype=np.int64)
    for row in found:
        for c, value in enumerate(np.float32(row).tolist()):
            edges = [edge for edge in bins.edges[c] if math.isfinite(edge)]
            if math.isnan(value):
                expected[c, 0] += 1
            elif value == 0 and c == 0:
                expected[c, 1] += 1
            else:
                expected[c, 2 + bisect.bisect_left(edges, value)] += 1
    assert np.array_equal(bins.tally(matrix(found)), expected)


@given(rows_of_three, rows_of_three, st.integers(0, 60))
@settings(max_examples=50)
def test_counts_of_parts_add_up_to_those_of_the_whole(
    learned: list[list[float]], found: list[list[float]], cut: int
) -> None:
    bins, x = learn_bins(matrix(learned), COLUMNS, FEWEST), matrix(found)
    assert np.array_equal(bins.tally(x[:cut]) + bins.tally(x[cut:]), bins.tally(x))


def test_ranges_hold_equally_many_of_the_values_other_than_zero() -> None:
    values = np.concatenate([np.zeros(500), np.arange(1, 801)]).astype(np.float32)[:, None]
    counts = learn_bins(values, [ColumnKind()], FEWEST).tally(values)[0]
    assert counts[1] == 500
    assert counts[2:].tolist() == [101, 100, 100, 100, 100, 100, 100, 99]


@given(st.lists(st.integers(0, 9), max_size=300))
def test_every_edge_has_enough_customers_on_its_side(values: list[int]) -> None:
    """Edges are values that customers had, so each stands for 20 of them at least, and no edge for the last 20."""
    column = np.array(values, dtype=np.float32)[:, None]
    known = column[column != 0]
    bins = learn_bins(column, [ColumnKind()], FEWEST)
    assert np.isfinite(bins.edges).sum() <= max(len(known) // FEWEST - 1, 0)
    for edge in bins.edges[np.isfinite(bins.edges)]:
        assert (known <= edge).sum() > FEWEST - 1 and (known >= edge).sum() >= FEWEST


def test_those_without_are_counted_among_the_base() -> None:
    bins = bins_of([[], []], [ColumnKind(), ColumnKind(base=0)])
    counts = bins.tally(np.array([[1, 1], [1, 0], [1, 0], [0, 0], [math.nan, math.nan]], dtype=np.float32))
    presence, _ = bins.split(counts)
    assert presence.tolist() == [[3, 2], [1, 2]], "two of the three who were active have none of the second"


# The index.


def test_the_index_is_the_textbook_one_less_its_mean() -> None:
    reference, found, size = np.array([[0.5, 0.3, 0.2]]), np.array([[300.0, 500.0, 200.0]]), np.array([400.0])
    p = [(share * 400 + 0.5) / (400 + 1.5) for share in (0.5, 0.3, 0.2)]
    q = [(count + 0.5) / (1000 + 1.5) for count in (300, 500, 200)]
    textbook = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    value, noise = stability(reference, found, size, 0.01)
    scale = 1 / 1000 + 1 / 400
    assert value[0] == pytest.approx(textbook - 2 * scale)
    assert noise[0] == pytest.approx(scale * (chi2.ppf(0.99, 2) - 2))


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=12).filter(lambda counts: sum(counts) > 0))
def test_equal_shares_are_no_drift(counts: list[int]) -> None:
    found = np.array([counts], dtype=np.float64)
    value, noise = stability(found / found.sum(), found, found.sum(axis=1), CHANCE)
    assert value[0] <= 0
    assert noise[0] >= 0


@pytest.mark.parametrize("customers", [50, 500, 50_000])
@pytest.mark.parametrize(
    "shares", [np.full(10, 0.1), np.array([0.02, 0.98]), 0.5 ** np.arange(1, 12) / (0.5 ** np.arange(1, 12)).sum()]
)
def test_nights_without_drift_stay_below_their_limits(customers: int, shares: Any) -> None:
    draw, nights = np.random.default_rng(customers), 20_000
    learned = draw.multinomial(5_000, shares, size=nights).astype(np.float64)
    found = draw.multinomial(customers, shares, size=nights).astype(np.float64)
    value, noise = stability(learned / 5_000, found, np.full(nights, 5_000.0), CHANCE / COMPARISONS)
    # χ² is an approximation: 20,000 × 0.001 / 300 = 0.07 were to be expected above the noise, and up to 3 are.
    assert (value > noise).sum() <= 3
    assert not (value > SPEC.drift.warn + noise).any()
    assert abs(value.mean()) < 0.25 * (len(shares) - 1) * (1 / customers + 1 / 5_000), "the mean was taken out"


@pytest.mark.parametrize("customers", [200, 500, 50_000])
def test_a_real_shift_is_found(customers: int) -> None:
    shares = np.full((1, 10), 0.1)
    converted = np.array([[0.01] * 5 + [0.19] * 5]) * customers
    value, noise = stability(shares, converted, np.array([5_000.0]), CHANCE / COMPARISONS)
    assert value[0] > SPEC.drift.fail + noise[0]


# What a model remembers.


@given(
    st.lists(st.lists(st.integers(0, 60), min_size=5, max_size=5), min_size=1, max_size=8).map(
        lambda rows: np.array(rows, dtype=np.float64)
    )
)
def test_nothing_that_is_remembered_tells_of_few_customers(counts: Any) -> None:
    shares = _published(counts, FEWEST)
    for row, found in zip(shares, counts, strict=True):
        assert all(count == 0 or count >= FEWEST for count in found[~np.isnan(row)])
        hidden = found[np.isnan(row)].sum()
        # Who has the total and the others can work out what is hidden: it is nobody's, or as good as everybody's.
        assert hidden == 0 or hidden >= FEWEST or hidden == found.sum()
        assert not (found[np.isnan(row)] == 0).any()


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.lists(st.integers(0, 99), min_size=4, max_size=4))
def test_hidden_bins_are_compared_together(shares: list[float], counts: list[int]) -> None:
    known = np.array([[0.25, np.nan, 0.25, np.nan]])
    joined, found = together(known, np.array([counts], dtype=np.float64))
    assert joined.tolist() == [[0.25, 0, 0.25, 0, 0.5]]
    assert found.tolist() == [[counts[0], 0, counts[2], 0, counts[1] + counts[3]]]


@dataclass(frozen=True)
class Pieces:
    """Blocks of the same customers, cut into so many pieces."""

    block: Block
    pieces: int

    def map(self, function: Callable[[Block], Any]) -> list[Any]:
        names = self.block.customers
        return [function(self.block.only(frozenset(names[i :: self.pieces]))) for i in range(self.pieces)]


CUSTOMERS = 500


@pytest.fixture(scope="module")
def predictor(trained: Any, block: Block) -> Predictor:
    """The shared model, remembering other simulated customers: its own are too few."""
    bundle = load(trained.bundle)
    assert bundle.predictor.drift is not None
    assert not bundle.predictor.drift.sizes.any(), "120 customers are too few to remember"
    assert bundle.predictor.drift.cut == trained.as_of
    return replace(bundle.predictor, drift=learn(bundle.predictor, block, trained))


def learn(predictor: Predictor, block: Block, trained: Any, pieces: int = 3) -> DriftReference:
    return learn_drift(predictor, Pieces(block, pieces), len(block), trained.as_of, trained.as_of - 120 * DAY)


@pytest.fixture(scope="module")
def block(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Block:
    from cvj_ml.store import ingest

    folder = tmp_path_factory.mktemp("drift")
    simulate(customers=CUSTOMERS, seed=9).write(folder)
    file = folder / "config.yaml"
    file.write_text(trained.config_file.read_text())
    config = trained.config(file)
    store = ingest(config.model_copy(update={"engine": config.engine.model_copy(update={"buckets": 1})}))
    return store.read(0)


def count(predictor: Predictor, block: Block, as_of: int, pieces: int) -> DriftCounts:
    parts = Pieces(block, pieces).map(lambda part: predictor.count(predictor.answer(part, as_of)))
    return sum(parts[1:], parts[0])


def levels(verdicts: list[GateVerdict]) -> dict[str, str]:
    return {one.name: one.level for one in verdicts}


def test_counts_do_not_depend_on_the_blocks(predictor: Predictor, block: Block, trained: Any) -> None:
    whole, parts = (count(predictor, block, trained.as_of, pieces) for pieces in (1, 7))
    assert whole.encode() == parts.encode()
    assert DriftCounts.decode(whole.encode()).encode() == whole.encode()
    assert whole.customers == whole.bins[0].sum() > ENOUGH


def test_the_reference_does_not_depend_on_the_blocks(predictor: Predictor, block: Block, trained: Any) -> None:
    other = learn(predictor, block, trained, pieces=1)
    assert predictor.drift is not None
    assert drift_as_json(other) == drift_as_json(predictor.drift)


def test_a_reference_is_read_back_as_it_was(predictor: Predictor) -> None:
    assert predictor.drift is not None
    document = drift_as_json(predictor.drift)
    again = drift_from_json(json.loads(json.dumps(document)), predictor.definition)
    assert again is not None
    assert drift_as_json(again) == document
    for one in ("presence", "values", "sizes", "movement"):
        assert np.array_equal(getattr(again, one), getattr(predictor.drift, one), equal_nan=True)
    assert not (predictor.drift.sizes % predictor.definition.min_customers).any()


def test_the_night_of_the_training_has_not_drifted(predictor: Predictor, block: Block, trained: Any) -> None:
    found = drift(SPEC, predictor, count(predictor, block, trained.as_of, 2))
    assert set(levels(found).values()) == {"pass"}
    assert [one.name for one in found] == [
        "customers", "probabilities", "equal_scores", "drift:features", "drift:scores", "drift:stages",
    ]  # fmt: skip
    json.dumps([one.as_json() for one in found], allow_nan=False)


def test_too_few_customers_to_remember_pass(predictor: Predictor, block: Block, trained: Any) -> None:
    few = block.only(frozenset(block.customers[:120]))
    without = replace(predictor, drift=learn(predictor, few, trained))
    found = {one.name: one for one in drift(SPEC, without, count(without, block, trained.as_of, 2))}
    assert found["drift:features"].level == "pass"
    assert found["drift:features"].message == (
        "nothing to compare with: the model was trained on fewer than 200 customers"
    )


def without_event(block: Block, name: str) -> Block:
    points = block.touchpoints
    return replace(block, touchpoints=points.keep(~points.event.isin(frozenset({name}))))


def test_an_event_that_is_gone_fails_and_is_named(predictor: Predictor, block: Block, trained: Any) -> None:
    found = drift(SPEC, predictor, count(predictor, without_event(block, "product_used"), trained.as_of, 2))
    features = next(one for one in found if one.name == "drift:features")
    assert features.level == "fail" and features.exit_code == 5
    assert "product_used" in features.message and ": 0.0% of " in features.message
    assert features.message.endswith(
        "(renamed, other units, rows missing?). If the business itself has changed, train anew"
    )


def test_other_units_fail(predictor: Predictor, block: Block, trained: Any) -> None:
    points = block.touchpoints
    cents = replace(block, touchpoints=replace(points, value=points.value * 100))
    features = next(
        one for one in drift(SPEC, predictor, count(predictor, cents, trained.as_of, 2)) if one.name == "drift:features"
    )
    assert features.level == "fail"
    assert "value" in features.message and "more than" in features.message


def test_what_appears_only_warns(predictor: Predictor, block: Block, trained: Any) -> None:
    """A model that knew customers without an event meets customers with it: a campaign, not a broken source."""
    poorer = without_event(block, "product_used")
    learned = learn_drift(replace(predictor, drift=None), Pieces(poorer, 2), 500, trained.as_of, trained.as_of - 10**13)
    found = drift(
        SPEC, replace(predictor, drift=learned), count(replace(predictor, drift=learned), block, trained.as_of, 2)
    )
    assert levels(found)["drift:features"] == "warn"


def test_levels_are_configured(predictor: Predictor, block: Block, trained: Any) -> None:
    counts = count(predictor, without_event(block, "product_used"), trained.as_of, 2)
    off = GatesSpec.model_validate({"drift": {"warn": None, "fail": None}})
    warning = GatesSpec.model_validate({"drift": {"fail": None}})
    assert levels(drift(off, predictor, counts))["drift:features"] == "pass"
    assert levels(drift(warning, predictor, counts))["drift:features"] == "warn"


def test_equal_scores_fail(predictor: Predictor, block: Block, trained: Any) -> None:
    counts = count(predictor, block, trained.as_of, 1)
    equal = replace(counts, highest=counts.highest.copy())
    equal.highest[0] = equal.lowest[0]
    found = next(one for one in drift(SPEC, predictor, equal) if one.name == "equal_scores")
    assert (found.level, found.value, found.exit_code) == ("fail", 1.0, 5)
    assert found.message == (
        "every customer has the same probability of: return in 7 days. Lists of them would be drawn by chance."
        " Check that the sources still hold whole histories, and the card of the model"
    )


def test_a_score_that_is_no_probability_fails(predictor: Predictor, block: Block, trained: Any) -> None:
    answers = predictor.answer(block, trained.as_of)
    answers.probability[3, 0, 1] = np.nan
    answers.probability[4:6, 0, 1] = 1.5
    found = next(one for one in drift(SPEC, predictor, predictor.count(answers)) if one.name == "probabilities")
    assert (found.level, found.value, found.exit_code) == ("fail", 3.0, 5)
    assert found.message == (
        "customers whose probability is no number from 0 to 1, by question: return in 30 days: 3. The model is at"
        " fault: go back to the one before (`cvj-ml models rollback`) or train anew"
    )
