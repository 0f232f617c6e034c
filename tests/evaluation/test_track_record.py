"""The track record: score bands of enough customers, each once, from outcomes that do not overlap."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import Blocks, a_shop

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, FoldResult, run_fold
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.metrics import wilson_interval
from cvj_ml.evaluation.score_bands import MINIMUM_CUSTOMERS, _apart, bands_of, track_record
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.track_record import Bands, TrackRecord
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.simulate import random_block
from cvj_ml.windows import parse_as_of

F64 = npt.NDArray[np.float64]
CONFIG = a_shop(
    {"Visitor": {"event": "visit"}, "Buyer": {"event": "buy"}}, horizons=["5d", "15d"], model={"max_rows": 3000}
)
CUT, UNTIL = (parse_as_of(day, CONFIG.zone) for day in ("2024-06-01", "2024-06-16"))


@pytest.fixture(scope="module")
def blocks() -> Blocks:
    block = random_block(
        customers=260,
        seed=5,
        events=("visit", "visit", "buy", "look"),
        channels=("web", "shop"),
        properties={},
        attributes={"plan": ("gold", "free"), "rating": None},
        outbound=(),
        until=UNTIL,
    )
    return Blocks([to_block(to_customers(block))])


@pytest.fixture(scope="module")
def fold(blocks: Blocks) -> FoldResult:
    return run_fold(Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1), Fold(CUT, UNTIL))


@settings(max_examples=40)
@given(st.integers(1, 400), st.integers(1, 3), st.integers(0, 9), st.sampled_from([1, 2, 40]))
def test_bands_hold_enough_customers_and_each_customer_once(size: int, rows: int, seed: int, digits: int) -> None:
    """Silent error 18: one row a customer a band, against a loop written out."""
    random = np.random.default_rng(seed)
    customer = np.tile(np.arange(size), rows)
    p = np.round(random.random(len(customer)), digits)
    converted = random.random(len(p)) < p
    found = bands_of("A", "B", 30, p, converted, customer)
    assert len(found.n) == len(found.k) == len(found.edges) + 1 <= 20
    assert list(found.edges) == sorted(set(found.edges))
    if size >= MINIMUM_CUSTOMERS:
        assert min(found.n) >= MINIMUM_CUSTOMERS
    seen: dict[tuple[int, int], bool] = {}
    for who, score, move in zip(customer.tolist(), p, converted, strict=True):
        band = sum(score >= edge for edge in found.edges)
        assert found.of(np.array([score])).tolist() == [band]
        seen.setdefault((band, who), bool(move))
    for band in range(len(found.n)):
        conversions = [move for (where, _), move in seen.items() if where == band]
        assert (found.n[band], found.k[band]) == (len(conversions), sum(conversions))
    low, high = wilson_interval(found.k, found.n)
    assert found.low == tuple(low) and found.high == tuple(high)


def test_many_distinct_scores_give_twenty_bands() -> None:
    p = np.linspace(0, 1, 4000)
    found = bands_of("A", "B", 30, p, p > 0.5, np.arange(4000))
    assert found.n == (200,) * 20
    assert found.k == (0,) * 10 + (200,) * 10


def test_wilson_by_known_values() -> None:
    """Wilson's interval of 81 in 263 (Newcombe 1998, table I) is 0.2553 to 0.3662."""
    low, high = wilson_interval([81], [263])
    assert (low[0], high[0]) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 90))
def test_snapshots_of_a_horizon_lie_at_least_itself_apart(steps: list[int], horizon: int) -> None:
    instants = [int(day) * DAY for day in np.cumsum([0, *steps])]
    chosen = [instants[i] for i in _apart(instants, horizon * DAY)]
    assert chosen[0] == 0
    assert all(b - a >= horizon * DAY for a, b in itertools.pairwise(chosen))
    for instant in instants:
        assert instant in chosen or any(abs(instant - other) < horizon * DAY for other in chosen)


def test_the_record_is_of_customers_scored_after_the_models_cut(blocks: Blocks, fold: FoldResult) -> None:
    """Every number is counted anew from the panels at the cut, five and ten days later."""
    record = track_record(Run(CONFIG, Journey(CONFIG.journey), blocks, 0, 1), fold)
    assert [instant[:10] for instant in record.instants] == ["2024-06-01", "2024-06-06", "2024-06-11"]
    assert record.cut[:10] == "2024-06-01"
    for days, looks in ((5, 3), (15, 1)):
        h = CONFIG.horizons.index(days * DAY)
        scored: dict[str, list[tuple[float, bool]]] = {}
        for look in range(looks):
            panel = build_panel(fold.panel.definition, blocks, np.array([CUT + 5 * look * DAY]), UNTIL, 0)
            p = fold.predictor.predict(panel, 1)[:, 2, h]
            for i in np.flatnonzero((panel.stage == 0) & panel.labels.at_risk[:, 2]):
                move = bool(0 <= panel.labels.times[i, 2] < days * DAY)
                scored.setdefault(panel.names[panel.customer[i]], []).append((p[i], move))
        bands = record.find("Visitor", "Buyer", days)
        assert (bands is not None) == (len(scored) >= MINIMUM_CUSTOMERS)
        if bands is None:
            continue
        n, k = [0] * len(bands.n), [0] * len(bands.n)
        for several in scored.values():
            once: dict[int, bool] = {}
            for score, move in several:
                once.setdefault(sum(score >= edge for edge in bands.edges), move)
            for band, move in once.items():
                n[band], k[band] = n[band] + 1, k[band] + move
        assert bands.n == tuple(n) and bands.k == tuple(k)
        assert sum(n) > 0
    assert MODEL in fold.probabilities


def test_a_record_survives_json() -> None:
    bands = Bands("A", "B", 30, (0.5,), (60, 70), (1, 2), (0.0, 0.1), (0.1, 0.2))
    record = TrackRecord("2024-06-01T00:00:00+00:00", ("2024-06-01T00:00:00+00:00",), (bands,))
    import json

    assert TrackRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record
    assert record.find("A", "B", 30) == bands
    assert record.find("A", "B", 7) is None and record.find("B", "A", 30) is None
