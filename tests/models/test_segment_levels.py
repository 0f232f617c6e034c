"""Who is active by their own rhythm, and the ready segments: held against plain loops over raw touchpoints."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.trained import Trained

from cvj_ml.config import DAY, SegmentsSpec
from cvj_ml.histories import Block
from cvj_ml.inputs import open_histories
from cvj_ml.journey import KEPT, Outcome
from cvj_ml.models.segment_levels import LEVELS, SEGMENTS, Rhythm, SegmentLevels, level_column
from cvj_ml.night.scores import score
from cvj_ml.run import Silent
from cvj_ml.scoring import segment_learning
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.scoring.scores_table import StoredTable, score_block
from cvj_ml.scoring.segment_learning import learn_segments
from cvj_ml.simulate import random_block
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import midnight, to_datetime

pytest_plugins = ["tests.fixtures"]

UTC = ZoneInfo("UTC")
AS_OF = midnight(date(2024, 11, 1), UTC)


def plain_rhythm(block: Block, customer: int, kept: Outcome, as_of: int) -> tuple[float, float]:
    """Silence and usual gap of a customer by plain loops; NaN where there is none."""
    points, days = block.touchpoints, set[int]()
    for row in range(points.offsets[customer], points.offsets[customer + 1]):
        seen = points.visible_at[row] < as_of <= points.superseded_at[row]
        name = points.event.values[points.event.codes[row]]
        counts = points.inbound[row] and (name in kept.events) != kept.but
        if seen and counts:
            days.add(int(points.day[row]))
    if not days:
        return np.nan, np.nan
    order = sorted(days)
    gaps = [later - earlier for earlier, later in itertools.pairwise(order)]
    today = (to_datetime(as_of, UTC).date() - date(1970, 1, 1)).days
    return today - order[-1], statistics.median(gaps) if len(gaps) >= 3 else np.nan


@pytest.mark.parametrize("kept", [Outcome(KEPT, frozenset({"refund"}), but=True), Outcome(KEPT, frozenset({"y", "x"}))])
@given(st.integers(0, 40), st.integers(0, 400))
def test_the_rhythm_is_that_of_plain_loops(kept: Outcome, seed: int, back: int) -> None:
    """Silent error 155: silence and gaps are of active days, by what was visible, and of what counts as kept."""
    block = random_block(
        customers=12, seed=seed, events=["x", "refund", "y", "send"], channels=["a"], properties={}, attributes={},
        outbound=["send"], until=AS_OF,
    )  # fmt: skip
    asked = Snapshots(np.array([3, 0, 7, 11, 0]), AS_OF - np.array([back, back, 0, back, 2 * back + 1]) * DAY)
    found = Rhythm.of(block, asked, kept, UTC)
    plain = [plain_rhythm(block, int(i), kept, int(at)) for i, at in zip(asked.customer, asked.as_of, strict=True)]
    np.testing.assert_array_equal(found.silence, [one for one, _ in plain])
    np.testing.assert_array_equal(found.usual_gap, [one for _, one in plain])
    stage_gap = np.array([10.0, 2.0, 10.0, 2.0, 10.0])
    active = [silence <= 3 * (other if np.isnan(gap) else gap) for (silence, gap), other in
              zip(plain, stage_gap, strict=True)]  # fmt: skip
    assert found.active(stage_gap).tolist() == active


@given(st.data())
def test_everybody_is_in_one_segment_the_first_that_fits(data: st.DataObject) -> None:
    """Silent error 156: the segments are exclusive, add up, and follow from the customer's own row alone."""
    size = data.draw(st.integers(0, 12))
    chance = st.sampled_from([0.0, 0.2, 0.5, 0.9, np.nan])

    def column(values: st.SearchStrategy[float] | st.SearchStrategy[bool]) -> np.ndarray:
        return np.array(data.draw(st.lists(values, min_size=size, max_size=size)))

    columns = {
        "p_purchase_30d": column(chance),
        "p_churn_60d": column(chance),
        "value_90d": column(st.sampled_from([0.0, 10.0, 40.0])),
        "p_purchase_90d": column(chance),
    }
    levels = {"ready_to_buy": 0.5, "at_risk": 0.5, "high_value": 40.0, "potential_high_value": 50.0}
    kept = {name: level for name, level in levels.items() if data.draw(st.booleans())}
    days = {"ready_to_buy": 30, "at_risk": 60, "high_value": 90, "potential_high_value": 90}
    found = SegmentLevels(SegmentsSpec(), days, np.zeros(3), kept)
    dormant, active = (column(st.booleans()).astype(bool) for _ in range(2))
    tenure = column(st.sampled_from([3.0, 30.0, 31.0]))
    fallen = found.segment(columns, dormant, active, tenure)
    for i in range(size):
        buys = columns["p_purchase_90d"][i]
        fits = {
            "dormant": dormant[i],
            "ready_to_buy": "ready_to_buy" in kept and columns["p_purchase_30d"][i] >= 0.5,
            "new": tenure[i] <= 30,
            "at_risk": "at_risk" in kept and active[i] and columns["p_churn_60d"][i] >= 0.5,
            "high_value": "high_value" in kept and columns["value_90d"][i] >= 40,
            "potential_high_value": "potential_high_value" in kept
            and buys > 0
            and columns["value_90d"][i] / buys >= 50,
        }
        assert SEGMENTS[fallen[i]] == next((name for name in SEGMENTS if fits.get(name)), "other")
        alone = {name: one[[i]] for name, one in columns.items()}
        assert found.segment(alone, dormant[[i]], active[[i]], tenure[[i]]) == fallen[i]


def test_a_segment_whose_column_is_not_there_is_nobodys() -> None:
    columns = {"p_churn_60d": np.array([0.9, 0.1])}
    assert np.isnan(level_column("high_value", 90, columns)).all() and len(level_column("high_value", 90, columns)) == 2


def test_levels_survive_being_written_down() -> None:
    one = SegmentLevels(
        SegmentsSpec.model_validate({"new": "7d"}), {"at_risk": 60}, np.array([1.0, 2.5]), {"at_risk": 0.25}
    )
    again = SegmentLevels.from_dict(one.as_dict())
    assert again.as_dict() == one.as_dict() and again.spec == one.spec


def test_scores_of_a_trained_model_say_active_and_segment(trained: Trained, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The same alone as among others, from a bundle that was saved and loaded; shares are those of training."""
    predictor = open_bundle(trained.bundle).predictor
    histories = open_histories(trained.config(), Silent())
    scores = StoredTable.at(score(histories, predictor, "0123456789ab", trained.as_of, tmp_path).scores).read()
    assert scores["segment"].null_count == scores["active"].null_count == 0
    assert {*scores["segment"].to_pylist()} <= {*SEGMENTS}
    levels = predictor.segments
    assert levels is not None and {*LEVELS} == levels.levels.keys()
    assert pc.sum(pc.and_(scores["dormant"], pc.not_equal(scores["segment"], "dormant"))).as_py() == 0
    blocks = histories.engine().map(lambda block: block)
    for block in blocks:
        alone = block.only(frozenset(block.customers[:1]))
        (row,) = score_block(predictor, alone, trained.as_of, "0123456789ab").to_pylist()
        place = scores["customer_id"].to_pylist().index(row["customer_id"])
        assert row == scores.slice(place, 1).to_pylist()[0]
    half = SegmentsSpec.model_validate({name: {"top": 0.5} for name in LEVELS})
    learned = learn_segments(replace(predictor, segments=None), histories.engine(), len(scores), half, trained.as_of)
    p = scores[f"p_purchase_{learned.horizons['ready_to_buy']}d"].to_numpy()
    assert float(np.mean(p >= learned.levels["ready_to_buy"])) == pytest.approx(0.5, abs=0.03)
    risk = scores.filter(scores["active"])[f"p_churn_{learned.horizons['at_risk']}d"].to_numpy()
    assert float(np.mean(risk >= learned.levels["at_risk"])) == pytest.approx(0.5, abs=0.05)
    assert pa.types.is_boolean(scores.schema.field("active").type)
    # A level that fewer than min_customers reach would be next to the number of one of them.
    few = SegmentsSpec.model_validate({"ready_to_buy": {"top": 4 / len(scores)}, "at_risk": {"at_least": 0.9}})
    assert predictor.definition.min_customers == 5
    learned = learn_segments(replace(predictor, segments=None), histories.engine(), len(scores), few, trained.as_of)
    assert learned.levels["at_risk"] == 0.9 and "ready_to_buy" not in learned.levels


def test_where_everybody_comes_back_nobody_is_at_risk(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent error 179: of people who are all sure to come back none is at risk. Here the floor is lifted."""
    predictor = replace(open_bundle(trained.bundle).predictor, segments=None)
    histories = open_histories(trained.config(), Silent())

    everybody = SegmentsSpec.model_validate({"at_risk": {"top": 0.999}})
    learned = learn_segments(predictor, histories.engine(), 120, everybody, trained.as_of)
    assert learned.levels["at_risk"] == segment_learning.LEAST_RISK, "the least likely of all is less so"

    def level(floor: float) -> float | None:
        monkeypatch.setattr(segment_learning, "LEAST_RISK", floor)
        found = learn_segments(predictor, histories.engine(), 120, SegmentsSpec(), trained.as_of)
        return found.levels.get("at_risk")

    usual = level(0.0)
    assert usual is not None and level(usual / 2) == usual
    assert level(1.1) is None, "nobody reaches it"
    asked = SegmentsSpec.model_validate({"at_risk": {"at_least": 0.01}})
    assert learn_segments(predictor, histories.engine(), 120, asked, trained.as_of).levels["at_risk"] == 0.01
