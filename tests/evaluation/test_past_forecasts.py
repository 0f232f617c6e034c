"""Past forecasts: the likeliest of a stage, as lists rank them, against a loop written out; no one person's number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import Blocks, a_shop

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, Evaluated, run_fold
from cvj_ml.evaluation.folds import last_matured
from cvj_ml.evaluation.past_forecasts import MOST_ROWS, forecast_errors, forecasts_of, numbers_of, past_forecasts
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.forecast_errors import EVERYBODY
from cvj_ml.run import Run
from cvj_ml.simulate import random_block
from cvj_ml.windows import parse_as_of

STAGES = ("A", "B", "C")
WORTH = {"B": 3.0, "C": 20.0}


def evaluated_of(size: int, seed: int, digits: int) -> Evaluated:
    random = np.random.default_rng(seed)
    p = np.round(random.random((size, 4, 2)), digits)
    stage = random.integers(-1, 3, size).astype(np.int8)
    known = (np.arange(4)[None, :] - 1 > stage[:, None])[:, :, None] & (random.random((size, 4, 2)) < 0.9)
    return Evaluated(STAGES, (7 * DAY, 30 * DAY), np.arange(size), stage, random.random(p.shape) < p, known, {MODEL: p})


@settings(max_examples=40)
@given(st.integers(0, 200), st.integers(0, 99), st.sampled_from([1, 3]), st.sampled_from([1, 5, 20]))
def test_the_likeliest_are_counted_as_a_list_ranks_them(size: int, seed: int, digits: int, fewest: int) -> None:
    """Silent error 37: the top of past folds, not the whole stage. Two numbers lie ``fewest`` apart: error 75."""
    found = evaluated_of(size, seed, digits)
    rows = list(forecasts_of(found, 5, (3, 10, 12, 40), WORTH, fewest))
    p = found.probabilities[MODEL]
    seen: dict[tuple[str, str, int], list[int]] = {}
    for one in rows:
        origin, target = STAGES.index(one.origin), STAGES.index(one.target)
        h = (7, 30).index(one.horizon_days)
        here = [i for i in range(size) if found.stage[i] == origin and found.known[i, 1 + target, h]]
        worth = {i: sum(WORTH.get(STAGES[k], 0) * p[i, 1 + k, h] for k in range(target, 3)) for i in here}
        here.sort(key=lambda i: (-p[i, 1 + target, h], -round(worth[i], 9), i))
        top = here[: one.number] if one.number else here
        assert one.customers == len(top) >= fewest
        chances = [p[i, 1 + target, h] for i in top]
        assert one.expected == pytest.approx(sum(chances))
        assert one.variance == pytest.approx(sum(c * (1 - c) for c in chances))
        if digits > 1:  # ties of worth that differ in the last bit are drawn either way
            assert one.observed == sum(bool(found.converted[i, 1 + target, h]) for i in top)
        seen.setdefault((one.origin, one.target, one.horizon_days), []).append(one.customers)
    for sizes in seen.values():
        assert all(b - a >= fewest for a, b in itertools.pairwise(sizes))
    for origin, target in itertools.combinations(STAGES, 2):
        for h, days in enumerate((7, 30)):
            row = found.known[:, 1 + STAGES.index(target), h] & (found.stage == STAGES.index(origin))
            assert ((origin, target, days) in seen) == (row.sum() >= fewest)


def test_earlier_folds_are_refitted_with_the_settings_of_the_reported_one() -> None:
    config = a_shop(
        {"Visitor": {"event": "visit"}, "Buyer": {"event": "buy"}},
        horizons=["5d", "15d"],
        model={"max_rows": 3000, "min_customers": 5},
        lists=[{"from": "Visitor", "to": "Buyer", "horizon": "5d", "capacity": 30}],
    )
    until = parse_as_of("2024-06-16", config.zone)
    block = random_block(
        customers=160,
        seed=5,
        events=("visit", "visit", "buy", "look"),
        channels=("web", "shop"),
        properties={},
        attributes={},
        outbound=(),
        until=until,
    )
    blocks = Blocks([to_block(to_customers(block))])
    told: list[tuple[int, int]] = []
    run = Run(config, Journey(config.journey), blocks, 0, 1, lambda done, of: told.append((done, of)))
    result = run_fold(run, last_matured(run, until))
    told.clear()
    found = past_forecasts(run, result)
    instants = sorted({one.instant for one in found})
    assert len(instants) >= 3 and instants[-1] == result.fold.cut and told[-1] == (len(instants) - 1,) * 2
    assert all(later - earlier >= 15 * DAY - DAY // 24 for earlier, later in itertools.pairwise(instants))
    last = [one for one in found if one.instant == result.fold.cut]
    assert last == list(forecasts_of(result.evaluated, result.fold.cut, numbers_of(run), {}, 5))
    assert 30 in numbers_of(run) and MOST_ROWS < 100_000
    kept = forecast_errors(run, found)
    assert len(kept.instants) == len(instants)
    whole = kept.find("Visitor", "Buyer", 5, 10_000, 10_000)
    assert whole is not None and whole.number == EVERYBODY
    ours = [one for one in found if (one.horizon_days, one.number) == (5, EVERYBODY)]
    assert whole.expected == tuple(one.expected for one in ours)
    assert whole.observed == tuple(one.observed for one in ours)
    assert past_forecasts(Run(config, Journey(config.journey), blocks, 0, 2), result) == found
