"""The track record: past scores of enough customers, each once, from outcomes that do not overlap."""

from __future__ import annotations

import itertools
import json

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
from cvj_ml.evaluation.past_scores import _apart, past_scores, track_record
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.track_record import FEWEST, NEAREST, PastScores, TrackRecord
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


Scored = tuple[F64, npt.NDArray[np.bool_]]


@st.composite
def scored(draw: st.DrawFn) -> Scored:
    """Probabilities of customers, some with many ties, and whether they moved."""
    size, digits = draw(st.integers(FEWEST, 400)), draw(st.sampled_from([1, 2, 40]))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    p = np.round(random.beta(0.5, draw(st.sampled_from([0.5, 4])), size), digits)
    return p, random.random(size) < p


@settings(max_examples=60)
@given(scored(), st.sampled_from([2, 20, FEWEST]))
def test_cells_hold_enough_customers_each_once_and_no_score_of_one(rows: Scored, fewest: int) -> None:
    """Silent error 18: the cells against a loop written out; all who were scored are in one."""
    p, moved = rows
    cells: list[list[int]] = [[]]
    for score in sorted({float(f"{one:.3g}") for one in p}, reverse=True):
        if len(cells[-1]) >= fewest:
            cells.append([])
        cells[-1] += [i for i, one in enumerate(p) if float(f"{one:.3g}") == score]
    if len(cells) > 1 and len(cells[-1]) < fewest:
        rest = cells.pop()
        cells[-1] += rest
    found = past_scores("A", "B", 30, p, moved, fewest)
    assert found.n == tuple(len(cell) for cell in reversed(cells))
    assert found.k == tuple(int(moved[cell].sum()) for cell in reversed(cells))
    assert found.predicted == pytest.approx([p[cell].mean() for cell in reversed(cells)], rel=6e-3, abs=1e-12)
    assert all(float(f"{one:.3g}") == one for one in found.predicted)
    assert sum(found.n) == len(p) and min(found.n) >= fewest


@settings(max_examples=60)
@given(scored(), st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from([0.01, 0.05, 0.3, 1.0]))
def test_the_nearest_past_scores_agree_with_a_search_of_all_runs(rows: Scored, asked: list[float], w: float) -> None:
    found = past_scores("A", "B", 30, *rows, 20)
    cells = list(zip(found.predicted, found.n, found.k, strict=True))

    def size(run: list[tuple[float, int, int]]) -> int:
        return sum(n for _, n, _ in run)

    runs = [cells[i:j] for i in range(len(cells)) for j in range(i + 1, len(cells) + 1)]
    runs = [run for run in runs if size(run[:-1]) < NEAREST <= size(run)] or [cells]

    def mean(run: list[tuple[float, int, int]]) -> float:
        return sum(m * n for m, n, _ in run) / size(run)

    near = found.near(np.array(asked), w)
    for p, n, k, predicted in zip(asked, *near, strict=True):
        distances = [abs(mean(run) - p) for run in runs]
        nearest = [run for run, far in zip(runs, distances, strict=True) if far <= min(distances) + 1e-12]
        kept = [[one for one in run if abs(one[0] - p) <= w + 1e-9] for run in nearest]
        told = [one for one in kept if size(one) >= FEWEST]
        if n == 0:
            assert len(told) < len(nearest) and k == 0 and np.isnan(predicted)
            continue
        assert abs(predicted - p) <= w + 1e-9
        assert any(
            (n, k) == (size(one), sum(moves for _, _, moves in one)) and predicted == pytest.approx(mean(one))
            for one in told
        )


def test_of_calibrated_scores_nineteen_in_twenty_intervals_hold_the_probability() -> None:
    """Whom a list shows first, of whose like there are fewest: what is told of them holds as often as it says."""
    inside, told, top = 0, 0, 100
    for seed in range(200):
        random = np.random.default_rng(seed)
        p = random.beta(1, 6, 3000)
        record = past_scores("A", "B", 30, p, random.random(3000) < p, 20)
        first = np.sort(random.beta(1, 6, 3000))[-top:]
        near = record.near(first, CONFIG.report.track_record_within)
        low, high = wilson_interval(near.k, near.n)
        inside += int(((low <= first) & (first <= high))[near.n > 0].sum())
        told += int((near.n > 0).sum())
        assert near.n.max() < 2 * NEAREST and (high - low)[near.n >= NEAREST].max() < 0.2
    assert 0.92 < inside / told < 0.98
    assert told > 0.8 * 200 * top


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
        found = record.find("Visitor", "Buyer", days)
        assert (found is not None) == (len(scored) >= FEWEST)
        if found is None:
            continue
        first = [several[0] for several in scored.values()]
        assert (sum(found.n), sum(found.k)) == (len(first), sum(move for _, move in first))
        assert np.dot(found.n, found.predicted) == pytest.approx(sum(p for p, _ in first), rel=5e-3)
        assert min(found.n) >= CONFIG.model.min_customers
    assert MODEL in fold.probabilities


def test_a_record_survives_json() -> None:
    scores = PastScores("A", "B", 30, (0.02, 0.5), (60, 70), (1, 2))
    record = TrackRecord("2024-06-01T00:00:00+00:00", ("2024-06-01T00:00:00+00:00",), (scores,))
    assert TrackRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record
    assert record.find("A", "B", 30) == scores
    assert record.find("A", "B", 7) is None and record.find("B", "A", 30) is None
