"""SCORES: one row a customer, coherent probabilities, and nothing that another table could contradict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.oracles.cases import a_definition
from tests.trained import Trained

from cvj_ml.commands.nightly import nightly
from cvj_ml.commands.one_night import Night
from cvj_ml.config import DAY, JourneySpec
from cvj_ml.histories import Block
from cvj_ml.inputs import open_histories
from cvj_ml.models.bundle.bundle import load
from cvj_ml.models.predictor import Predictions
from cvj_ml.models.stage.posterior import assemble
from cvj_ml.night.scores import score
from cvj_ml.run import Silent
from cvj_ml.scoring.scores_table import score_block, scores_contract
from cvj_ml.snapshots import Snapshots

pytest_plugins = ["tests.fixtures"]

DAYS = (7, 30)


@pytest.fixture(scope="module")
def night(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Night:
    config = trained.config(trained.variant(tmp_path_factory.mktemp("night")))
    (night,) = nightly(config, [trained.as_of], Silent(), watched=True)
    return night


@pytest.fixture(scope="module")
def frame(night: Night) -> pd.DataFrame:
    found: pd.DataFrame = night.scores.read().to_pandas()
    return found


def reach(frame: pd.DataFrame, stages: list[str], days: int) -> npt.NDArray[np.float64]:
    """P(return), then P(reach) of each stage after the first, one column each."""
    columns = [f"p_return_{days}d", *(f"p_reach_{stage}_{days}d" for stage in stages[1:])]
    found: npt.NDArray[np.float64] = frame[columns].to_numpy()
    return found


def test_scores_keep_their_contract_and_are_sorted(night: Night, trained: Trained) -> None:
    definition = load(trained.bundle).predictor.definition
    contract = scores_contract(definition)
    table = pq.read_table(night.folder / "scores" / "scores.parquet", partitioning=None)
    contract.check(table)
    assert table.column_names == night.scores.column_names == list(contract.columns)
    names = table["customer_id"].to_pylist()
    assert names == sorted(set(names)) and len(night.scores) == len(names)
    assert set(table["as_of"].to_pylist()) == {pd.Timestamp("2025-06-24", tz="UTC").to_pydatetime()}
    assert set(table["model_version"].to_pylist()) == {night.model_version}


def test_everybody_with_a_visible_touchpoint_has_a_row(frame: pd.DataFrame, trained: Trained) -> None:
    log = pd.read_parquet(trained.folder / "touchpoints.parquet")
    as_of = pd.Timestamp("2025-06-24", tz="UTC")
    visible = log[np.maximum(log["occurred_at"], log["known_at"]) < as_of]
    assert set(frame["customer_id"]) == set(visible["customer_id"])


@pytest.fixture(scope="module")
def stages(trained: Trained) -> list[str]:
    return [stage.slug for stage in load(trained.bundle).predictor.definition.journey.stages]


def test_probabilities_are_coherent(frame: pd.DataFrame, stages: list[str]) -> None:
    """Silent errors 15 and 16: non-decreasing in the horizon, return at least reach of the next stage, and so on."""
    by_days = [reach(frame, stages, days) for days in DAYS]
    for p in by_days:
        known = p[~np.isnan(p)]
        assert ((known >= 0) & (known <= 1)).all()
        for i in range(p.shape[1]):
            for j in range(i + 1, p.shape[1]):
                both = ~np.isnan(p[:, i]) & ~np.isnan(p[:, j])
                assert both.any()
                assert (p[both, i] >= p[both, j]).all()
    later = ~np.isnan(by_days[0])
    assert (by_days[1][later] >= by_days[0][later]).all()


def test_reach_is_null_for_stages_reached_and_only_for_those(frame: pd.DataFrame, stages: list[str]) -> None:
    position = {name: i for i, name in enumerate(stages)}
    present = frame["stage"].str.lower().map(position).fillna(-1).to_numpy()
    assert len(np.unique(present)) > 4
    for i, stage in enumerate(stages[1:], start=1):
        for days in DAYS:
            assert (frame[f"p_reach_{stage}_{days}d"].isna() == (present >= i)).all()


def test_advance_is_reach_of_the_next_stage_and_null_at_the_top(frame: pd.DataFrame, stages: list[str]) -> None:
    following = dict(zip([name.capitalize() for name in stages], [*stages[1:], None], strict=True))
    assert (frame["stage"] == "Promote").any()
    for row in frame.itertuples():
        for days in DAYS:
            advance = getattr(row, f"p_advance_{days}d")
            target = following[row.stage]
            if target is None:
                assert np.isnan(advance)
            else:
                assert advance == getattr(row, f"p_reach_{target}_{days}d")


def test_the_stage_posterior_is_the_observed_stage(frame: pd.DataFrame, stages: list[str]) -> None:
    mass = frame[[f"p_stage_{stage}" for stage in stages]]
    assert (mass.sum(axis=1) == 1).all()
    assert (mass.idxmax(axis=1).str.removeprefix("p_stage_") == frame["stage"].str.lower()).all()
    assert (frame["stage_predicted"] == frame["stage"]).all()
    assert (frame["stage_probability"] == 1).all()


def test_low_evidence_names_the_targets_ahead_that_rest_on_base_rates(
    frame: pd.DataFrame, trained: Trained, stages: list[str]
) -> None:
    predictor = load(trained.bundle).predictor
    names = ["return", *predictor.definition.journey.names]
    rare = {name for name, weak in zip(names, predictor.trees.low, strict=True) if weak}
    assert rare & set(names[2:]) and not rare >= set(names[1:]), "some targets must be weak here and some not"
    for stage, found in zip(frame["stage"], frame["low_evidence"], strict=True):
        ahead = {"return", *names[names.index(stage) + 1 :]}
        known = predictor.trees.base.known[names.index(stage)].all(axis=1)
        unlived = {name for name, each in zip(names, known, strict=True) if not each}
        assert set(found) == (rare | unlived) & ahead
        assert len(set(found)) == len(found)


def answers(stage: list[int], probability: npt.NDArray[np.float64]) -> Predictions:
    count = len(stage)
    position = np.arange(count, dtype=np.int64)
    return Predictions(
        Snapshots(position, np.zeros(count, dtype=np.int64)),
        np.array(stage, dtype=np.int8),
        np.where(np.array(stage) < 0, np.nan, 1.0),
        np.zeros(count, dtype=np.bool_),
        probability,
        assemble(np.array(stage, dtype=np.int8), np.zeros((count, 4))),
        np.empty((count, 0), dtype=np.float32),
        {},
    )


class Fixed:
    """A predictor whose answers are given; stages One to Four, of which Two is unobserved."""

    rare = np.array([False, True, True, False, True])

    def __init__(self, stage: list[int], next_stages: int | None = None) -> None:
        rules = [{"name": name, "enter": {"event": name}} for name in ("One", "Two", "Three", "Four")]
        journey = JourneySpec.model_validate({"name": "test", "stages": rules})
        self.definition = a_definition(journey, frozenset({"Two"}), next_stages=next_stages)
        asked = self.definition.at_risk(np.array(stage, dtype=np.int8))
        # 0.9 for return, 0.8 for One … 0.5 for Four, and less for shorter horizons.
        by_target = 0.9 - 0.1 * np.arange(5)[None, :, None] - 0.01 * np.array([2, 1, 0])[None, None, :]
        self.outcomes, self.segments, self.effects = (), None, ()
        self.given = answers(stage, np.where(asked[:, :, None], by_target, np.nan))

        asked = self.definition.at_risk(np.arange(-1, 4, dtype=np.int8))
        self.low_evidence = np.repeat((asked & self.rare)[:, :, None], 3, axis=2)

    def answer(self, block: Block, as_of: int) -> Predictions:
        return self.given


def scored(stage: list[int], next_stages: int | None = None) -> pd.DataFrame:
    customers = tuple(f"c{i}" for i in range(len(stage)))
    block = Block(customers, None)  # type: ignore[arg-type]
    predictor = Fixed(stage, next_stages)
    table = score_block(predictor, block, 0, "v")  # type: ignore[arg-type]
    scores_contract(predictor.definition).check(table)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def test_before_any_stage_every_target_lies_ahead() -> None:
    (row,) = scored([-1]).to_dict("records")
    assert row["stage"] is None or pd.isna(row["stage"])
    assert pd.isna(row["stage_predicted"]) and np.isnan(row["stage_probability"]) and np.isnan(row["days_in_stage"])
    assert np.isnan(row["p_stage_one"]) and np.isnan(row["p_stage_four"])
    assert (row["p_return_9d"], row["p_reach_three_9d"], row["p_reach_four_9d"]) == pytest.approx((0.9, 0.6, 0.5))
    assert row["p_advance_9d"] == pytest.approx(0.8), "the next stage is the first"
    assert list(row["low_evidence"]) == ["One", "Four"], "what nobody can see is no target"


def test_unobserved_stages_are_neither_target_nor_next() -> None:
    frame = scored([0, 2, 3])
    assert not [name for name in frame.columns if name.startswith("p_reach_two") or name.startswith("p_reach_one")]
    assert "p_stage_two" in frame.columns
    assert frame["p_advance_9d"].tolist() == pytest.approx([0.6, 0.5, np.nan], nan_ok=True)
    assert [list(names) for names in frame["low_evidence"]] == [["Four"], ["Four"], []]


def test_the_next_stages_only_where_so_configured() -> None:
    """``targets: {next: 1}``: the columns stand, but only the next observable stage is predicted."""
    every, following = scored([-1, 0, 2]), scored([-1, 0, 2], next_stages=1)
    assert list(every.columns) == list(following.columns)
    assert following["p_reach_three_9d"].isna().tolist() == [True, False, True]
    assert following["p_reach_four_9d"].isna().tolist() == [True, True, False]
    assert following["p_advance_9d"].tolist() == pytest.approx([0.8, 0.6, 0.5])
    assert following["p_return_9d"].tolist() == pytest.approx([0.9] * 3)
    assert [list(names) for names in following["low_evidence"]] == [["One"], [], ["Four"]]


def test_nobody_to_score_is_an_empty_table() -> None:
    frame = scored([])
    assert len(frame) == 0 and "p_return_9d" in frame.columns


def test_a_night_that_has_passed_can_be_scored_again(trained: Trained, tmp_path: Path) -> None:
    """A backfill sees what was visible then: everybody who came later is missing."""
    config = trained.config(trained.variant(tmp_path))
    histories = open_histories(config, Silent())
    predictor = load(trained.bundle).predictor
    early, late = (
        pq.read_table(
            score(histories, predictor, "v", trained.as_of - days * DAY, tmp_path / str(days)).scores,
            partitioning=None,
        )
        for days in (400, 0)
    )
    before, after = (set(table["customer_id"].to_pylist()) for table in (early, late))
    assert before < after
    assert pa.types.is_float64(early["p_return_7d"].type)
