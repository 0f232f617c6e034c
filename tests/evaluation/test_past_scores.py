"""The track record: past scores of enough customers, each once, from outcomes that do not overlap."""

from __future__ import annotations

import itertools
import json
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import Blocks, a_shop

from cvj_ml.commands.train import training_panel
from cvj_ml.config import DAY, load_config
from cvj_ml.evaluation.backtesting import MODEL, FoldResult, run_fold
from cvj_ml.evaluation.folds import Fold, last_matured
from cvj_ml.evaluation.metrics import wilson_interval
from cvj_ml.evaluation.past_scores import _apart, past_scores, track_record
from cvj_ml.inputs import open_histories
from cvj_ml.journey import Journey
from cvj_ml.lists.ranking import rank
from cvj_ml.models.bundle.bundle import ModelEvidence
from cvj_ml.models.bundle.track_record import FEWEST, NEAREST, PastScores, TrackRecord
from cvj_ml.models.hazard.tree_size import DEFAULT
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run, Silent
from cvj_ml.scoring.scores_table import StoredTable, score_block
from cvj_ml.simulate import random_block, simulate
from cvj_ml.windows import midnight, parse_as_of

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


@pytest.mark.parametrize(
    ("within", "told", "inside", "lists"), [(0.05, 0.6, 0.95, 0.15), (0.1, 0.87, 0.94, 0.17), (0.15, 0.94, 0.9, 0.32)]
)
def test_of_calibrated_scores_nineteen_in_twenty_lie_inside_but_not_on_every_list(
    within: float, told: float, inside: float, lists: float
) -> None:
    """The first 100 of a list share past customers: about one list in six has fewer than 90 inside, by chance alone.

    Nearer ones are fewer, farther ones moved less often than the first of a list will: why the default is 0.1.
    """
    shares, known = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        p = random.beta(1, 6, 3000)
        record = past_scores("A", "B", 30, p, random.random(3000) < p, 20)
        first = np.sort(random.beta(1, 6, 3000))[-100:]
        near = record.near(first, within)
        low, high = wilson_interval(near.k, near.n)
        shares.append(((low <= first) & (first <= high))[near.n > 0].mean())
        known.append((near.n > 0).mean())
        assert near.n.max() < 2 * NEAREST and (high - low)[near.n >= NEAREST].max(initial=0) < 0.2
    assert np.mean(known) == pytest.approx(told, abs=0.02)
    assert np.mean(shares) == pytest.approx(inside, abs=0.02)
    assert np.mean(np.array(shares) < 0.9) == pytest.approx(lists, abs=0.05)


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


@pytest.mark.slow
def test_on_simulated_nights_the_first_of_each_list_agree_with_what_is_printed_beside_them(tmp_path: Path) -> None:
    """Two businesses of a known process: fold, record, refit and lists, as a training and a night make them.

    Every printed interval holds its probability, since none is printed beside another: that says nothing of the model.
    What does is how many are confirmed, over all lists; chance alone leaves one list in six below 90, as shown above.
    """
    rows = []
    for seed in (41, 42):
        folder = tmp_path / str(seed)
        folder.mkdir()
        business = simulate(customers=5000, seed=seed)
        business.write(folder)
        demo = yaml.safe_load(files("cvj_ml").joinpath("demo.yaml").read_text(encoding="utf-8"))
        # Lists of the leaving have no track record.
        demo |= {
            "model": {"max_rows": 50_000},
            "horizons": ["30d", "90d"],
            "lists": [one for one in demo["lists"] if "from" in one],
        }
        (folder / "demo.yaml").write_text(yaml.safe_dump(demo), encoding="utf-8")
        config = load_config(folder / "demo.yaml")
        as_of = midnight(business.start, config.zone) + business.days * DAY
        histories = open_histories(config, Silent())
        run = histories.run()
        result = run_fold(run, last_matured(run, as_of), DEFAULT)
        record = track_record(run, result)
        history = training_panel(histories, as_of)
        fit = fit_reach(history, run.seed, run.threads, given=result.fit.choice)
        predictor = Predictor(history.definition, fit.trees, fit.calibration)
        parts = run.blocks.map(partial(score_block, predictor, as_of=as_of, model_version="0123456789ab"))
        scores = pa.concat_tables(parts).sort_by("customer_id")
        for one in rank(config, StoredTable.of(scores), histories.visible.journey, as_of, ModelEvidence(record)):
            first = one.rows.slice(0, 100).to_pandas()
            rows.append(first.assign(list=f"{seed} {one.name}"))
    found = pd.concat(rows)
    told = found[found["track_record_n"].notna()]
    assert len(told) > 0.8 * len(found) > 0
    printed = told[told["track_record_low"].notna()]
    assert printed["probability"].between(printed["track_record_low"], printed["track_record_high"]).all()
    width = (printed["track_record_high"] - printed["track_record_low"]).groupby(printed["list"]).median()
    assert (width < 0.2).all() and set(width.index) == set(found["list"])
    # Of trained models fewer are confirmed than of calibrated scores: 92 % on other businesses than these
    # (benchmarks/results/track_record.md). One list in seven that is wholly off is what a season does; two are a fault.
    assert len(printed) >= 0.8 * len(told), printed.groupby("list").size() / told.groupby("list").size()
