"""Small data, by simulation: no crash, a mark, and never worse than the base rate beyond noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from tests.oracles.cases import Blocks, a_plain_block, a_shop

from cvj_ml.config import DAY, Config
from cvj_ml.evaluation.backtesting import MODEL, FoldResult, run_fold
from cvj_ml.evaluation.baselines import StageRate
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.metrics import bootstrap_interval, log_loss_terms
from cvj_ml.histories import Block, Text
from cvj_ml.journey import Journey
from cvj_ml.models.hazard.fitting import LOW_EVIDENCE
from cvj_ml.models.hazard.tree_size import DEFAULT
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.scoring.scores_table import score_block
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import NEVER, parse_as_of

CONFIG = a_shop({"Visitor": {"event": "visit"}, "Buyer": {"event": "purchase"}}, snapshots={"every": "28d"})
FROM, CUT, UNTIL = (parse_as_of(day, CONFIG.zone) for day in ("2024-01-01", "2024-12-01", "2025-01-01"))
SEEDS = range(4)


def shop(customers: int, buyers: int, seed: int) -> Block:
    """Customers who visit at their own pace and stop one day; so many of them bought once before the cut.

    As many again, scaled to a month, buy in the month after it, so that there is something to be wrong about.
    """
    random = np.random.default_rng(seed)
    instants, events, offsets = [], [], [0]
    span = UNTIL - FROM
    after = max(1, round(buyers / 11))
    for i in range(customers):
        visits = 1 + random.poisson(20 * random.gamma(1.0))
        at = FROM + np.sort(random.random(visits)) * span * random.uniform(0.3, 1.0)
        at = np.concatenate([[FROM + random.uniform(0, 30) * DAY], at])
        kinds = np.zeros(len(at), dtype=np.int32)
        if i < buyers:
            at, kinds = np.append(at, random.uniform(FROM + 40 * DAY, CUT - 1)), np.append(kinds, 1)
        elif i < buyers + after:
            at, kinds = np.append(at, random.uniform(CUT, UNTIL - DAY)), np.append(kinds, 1)
        order = np.argsort(at, kind="stable")
        instants.append(at[order].astype(np.int64))
        events.append(kinds[order].astype(np.int32))
        offsets.append(offsets[-1] + len(at))
    occurred, code = np.concatenate(instants), np.concatenate(events)
    return a_plain_block(offsets, occurred, code, ("visit", "purchase"))


def above_base_rate(result: FoldResult, target: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Each row's log loss above the base rate's at every horizon, and whose row it is."""
    evaluated = result.evaluated
    terms, owners = [], []
    for h in range(len(evaluated.horizons)):
        rows = evaluated.known[:, target, h]
        converted = evaluated.converted[rows, target, h]
        said = [evaluated.probabilities[name][rows, target, h] for name in (MODEL, StageRate.name)]
        terms.append(log_loss_terms(converted, said[0]) - log_loss_terms(converted, said[1]))
        owners.append(evaluated.customer[rows])
    return np.concatenate(terms), np.concatenate(owners)


@pytest.mark.slow
@pytest.mark.parametrize(("customers", "buyers"), [(50, 1), (50, 5), (50, 40), (400, 1), (400, 5), (400, 50)])
def test_little_data_is_never_worse_than_the_base_rate_beyond_noise(customers: int, buyers: int) -> None:
    """Over several simulated shops together, the interval of the loss above the base rate reaches down to 0."""
    results = [
        run_fold(Run(CONFIG, Journey(CONFIG.journey), Blocks([shop(customers, buyers, seed)]), 0, 1), Fold(CUT, UNTIL))
        for seed in SEEDS
    ]
    assert all(one.fit.trees.low[2] == (buyers < LOW_EVIDENCE) for one in results), "few have reached it: marked"
    for target in (0, 2):
        parts = [above_base_rate(one, target) for one in results]
        terms = np.concatenate([above for above, _ in parts])
        owners = np.concatenate([owner + customers * seed for (_, owner), seed in zip(parts, SEEDS, strict=True)])
        found = bootstrap_interval(terms, owners, 500, seed=1)
        assert found.low <= 0.0, f"target {target}: {found}"


@pytest.mark.parametrize(("customers", "buyers"), [(1, 0), (1, 1), (2, 1), (5, 0)])
def test_a_handful_of_customers_gives_probabilities(customers: int, buyers: int) -> None:
    result = run_fold(
        Run(CONFIG, Journey(CONFIG.journey), Blocks([shop(customers, buyers, 1)]), 0, 1), Fold(CUT, UNTIL)
    )
    p = result.probabilities[MODEL][result.evaluated.known]
    assert len(p) and ((p > 0) & (p < 1)).all()
    assert result.fit.trees.low.all()


BATCH = Config.model_validate(
    {
        "name": "batch",
        "time_zone": "UTC",
        "history_from": "2024-01-01",
        "burn_in": "30d",
        "sources": {"log": {"path": "log.csv"}},
        "journey": {
            "name": "batch",
            "stages": [
                {"name": "Visitor", "enter": {"event": "visit"}},
                {"name": "Member", "enter": {"event": "purchase"}},
            ],
        },
        "horizons": ["7d", "30d", "60d"],
        "features": {"windows": ["30d"]},
        "snapshots": {"every": "7d"},
    }
)
SILENT = 120


def migrated(days_ago: int) -> Block:
    """Lively visitors, and as many long silent customers whom one batch made members; few of these ever come back."""
    random = np.random.default_rng(11)
    instants, events, offsets = [], [], [0]
    for i in range(2 * SILENT):
        if i < SILENT:
            at = FROM + np.cumsum(random.exponential(12 * DAY, 60))
            at = at[at < UNTIL]
            kinds = np.zeros(len(at), dtype=np.int32)
        else:
            at = FROM + np.sort(random.random(3)) * 30 * DAY
            at, kinds = np.append(at, CUT - days_ago * DAY + i), np.array([0, 0, 0, 1], dtype=np.int32)
            if i % 40 == 0:
                at, kinds = np.append(at, CUT - (days_ago - 3) * DAY), np.append(kinds, 0).astype(np.int32)
        instants.append(at.astype(np.int64))
        events.append(kinds)
        offsets.append(offsets[-1] + len(at))
    occurred = np.concatenate(instants)
    block = shop(2, 1, 0)
    return Block(
        tuple(f"c{i:04d}" for i in range(2 * SILENT)),
        replace(
            block.touchpoints,
            offsets=np.array(offsets, dtype=np.int64),
            occurred_at=occurred,
            visible_at=occurred,
            superseded_at=np.full(len(occurred), NEVER),
            day=(occurred // DAY).astype(np.int32),
            date_only=np.zeros(len(occurred), dtype=np.bool_),
            event=Text(np.concatenate(events), ("visit", "purchase")),
            channel=Text(np.full(len(occurred), -1, dtype=np.int32), ()),
            value=np.zeros(len(occurred), dtype=np.int64),
            has_value=np.zeros(len(occurred), dtype=np.bool_),
            inbound=np.ones(len(occurred), dtype=np.bool_),
            merged_at=np.full(len(offsets) - 1, NEVER),
        ),
    )


@pytest.mark.parametrize("days_ago", [45, 1], ids=["lived for 45 days", "lived for a day"])
def test_what_nobody_in_a_stage_has_lived_through_rests_on_what_is_known_of_it(days_ago: int) -> None:
    """Silent error 72: the return of a whole batch in 60 days was told from how other stages live on."""
    block = Blocks([migrated(days_ago)])
    definition = define(BATCH, Journey(BATCH.journey), block, CUT)
    panel = build_panel(definition, block, training_grid(BATCH, CUT), CUT, 0)
    fit = fit_reach(panel, seed=1, threads=1, given=replace(DEFAULT, rounds=20))
    predictor = Predictor(definition, fit.trees, fit.calibration)
    answers = predictor.answer(migrated(days_ago), CUT)
    members = answers.stage == 1
    known, low = fit.trees.base.known[2, 0], predictor.low_evidence[2, 0]
    p, bottom, top = fit.trees.base.bounds(1, 0, 3)
    assert bottom <= p <= top
    if days_ago == 45:
        assert known.tolist() == [True, True, False] and low.tolist() == [False, False, True]
        assert answers.probability[members, 0, 2].mean() < 0.2 and bottom < 0.08 and top < 0.25
    else:
        assert not known.any() and low.all()
        assert (bottom, top) == (0.0, 1.0), "nothing is known of members, and it says so"
    table = score_block(predictor, migrated(days_ago), CUT, "0123456789ab").to_pandas()
    said = table["low_evidence"].map(lambda names: "return" in names)
    assert said.equals(table["stage"] == "Member")
    told = [one.sentence for one in predictor.unlived() if (one.stage, one.target) == ("Member", "return")]
    assert len(told) == 1
    if days_ago == 45:
        assert told[0].startswith("Member: too few have been seen there for longer than 30 days without it, so")
    else:
        assert told[0].endswith("to tell of returning; it may be anything")
