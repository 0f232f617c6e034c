"""The real data sets: what their configurations read, against the published counts, and then from training to lists."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import yaml

from cvj_ml.commands.check import Checked
from cvj_ml.commands.check import check as run_check
from cvj_ml.commands.nightly import nightly
from cvj_ml.commands.one_night import Night
from cvj_ml.commands.train import Promote, train
from cvj_ml.config import DAY, Config, load_config
from cvj_ml.engines import LocalEngine
from cvj_ml.histories import Block, Text
from cvj_ml.run import Silent
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import parse_as_of, to_datetime

ROOT = Path(__file__).resolve().parents[1]

Open = Callable[..., Config]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return one MLflow database for all: setting one up takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


@pytest.fixture
def open_config(
    dataset: Callable[[str], Path], registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Config]:
    """Return a function that loads a copy of a data set's configuration, with other settings where they are given."""

    def open_copy(name: str, **settings: Any) -> Config:
        monkeypatch.setenv("CVJ_ML_DATA", str(dataset(name).parent.resolve()))
        document = yaml.safe_load((ROOT / "configs" / name / "config.yaml").read_text(encoding="utf-8"))
        # One thread, for tests share the machine; no setting of the engine changes a result.
        own = {"engine": {"threads": 1, "buckets": 4}, "mlflow": {"tracking_uri": registry}}
        copy = tmp_path / "config.yaml"
        copy.write_text(yaml.safe_dump(document | own | settings), encoding="utf-8")
        return load_config(copy)

    return open_copy


def check(config: Config, day: str) -> Checked:
    return run_check(config, parse_as_of(day, config.zone), Silent())


def by_stage(found: Checked) -> dict[str, int]:
    return {stage: int(n) for stage, n in zip(found.stages["stage"], found.stages["customers"], strict=True) if n}


def blocks(found: Checked) -> list[Block]:
    return LocalEngine(found.histories.store, 1).map(lambda block: block)


def train_and_rank(config: Config, day: str, promote: Promote = "auto") -> tuple[Night, Any]:
    as_of = parse_as_of(day, config.zone)
    trained = train(config, as_of, Silent(), promote)
    (night,) = nightly(config, [as_of], Silent(), watched=True)
    return night, trained.fold.rows


def assert_lists_are_sound(config: Config, night: Night) -> None:
    scores = night.scores.read(["customer_id", "stage"])
    scored = dict(zip(scores["customer_id"].to_pylist(), scores["stage"].to_pylist(), strict=True))
    assert [(one["kind"], one["from_stage"], one["to_stage"]) for one in night.lists] == [
        (spec.kind, ", ".join(spec.origins), spec.to_stage) for spec in config.lists or ()
    ]
    for spec, one in zip(config.lists or (), night.lists, strict=True):
        rows = night.rows(one["list"]).to_pydict()
        assert rows["rank"], f"{one['list']} is empty"
        assert {scored[customer] for customer in rows["customer_id"]} <= {*spec.origins}
        assert [scored[customer] for customer in rows["customer_id"]] == rows["from_stage"]
        assert rows["probability"] == sorted(rows["probability"], reverse=True)
        assert len(rows["rank"]) == min(spec.capacity or one["eligible"], one["eligible"])


def assert_probabilities_are_coherent(night: Night) -> None:
    names = [name for name in night.scores.column_names if name.startswith(("p_return_", "p_reach_"))]
    targets = list(dict.fromkeys(name.rpartition("_")[0] for name in names))
    days = list(dict.fromkeys(name.rpartition("_")[2] for name in names))
    scores = night.scores.read(names)
    p = np.array([[scores[f"{target}_{day}"].to_numpy() for day in days] for target in targets])
    known = np.isfinite(p)
    assert known[0].all()
    assert ((p[known] >= 0) & (p[known] <= 1)).all()
    assert (np.diff(p, axis=1)[known[:, 1:]] >= -1e-12).all(), "a longer horizon cannot be less likely"
    # A stage already reached is null; every later one is at most as likely as the one before it.
    filled = np.where(known, p, np.inf)
    assert (filled[0] >= np.where(known, p, 0).max(axis=0) - 1e-12).all(), "whoever moves on has returned"
    later = known[1:-1] & known[2:]
    assert (np.diff(p[1:], axis=0)[later] <= 1e-12).all()


# Online Retail II: the counts are protocol A's.


def test_online_retail_reads_the_published_purchases(open_config: Open) -> None:
    config = open_config("online_retail")
    found = check(config, "2011-09-06")
    store = found.histories.store
    assert dict(store.events) == {"purchase": 36_975, "cancellation": 7_897}
    assert dict(store.counts["invoices"].refused) == {"no customer_id": 8_530}
    instants = np.concatenate([b.touchpoints.occurred_at[purchases(b)] for b in blocks(found)])
    assert to_datetime(int(instants.min()), config.zone) == datetime(2009, 12, 1, 7, 45, tzinfo=UTC)
    assert to_datetime(int(instants.max()), config.zone) == datetime(2011, 12, 9, 12, 50, tzinfo=UTC)
    assert sum(len(np.unique(owners(b)[purchases(b)])) for b in blocks(found)) == 5_881


def test_online_retail_stages_are_those_of_the_protocol(open_config: Open) -> None:
    found = check(open_config("online_retail"), "2011-09-06")
    stages = by_stage(found)
    assert {name: stages[name] for name in ("Convert", "Excite", "Ascend", "Advocate")} == {
        "Convert": 1_584,
        "Excite": 1_466,
        "Ascend": 1_173,
        "Advocate": 643,
    }
    assert found.histories.visible.unobserved == {"Aware", "Engage", "Subscribe"}
    assert found.histories.visible.warnings == ()


def test_online_retail_training_asks_on_the_dates_of_the_protocol(open_config: Open) -> None:
    config = open_config("online_retail", snapshots={"every": "7d"})
    dates = [
        to_datetime(int(at), config.zone).date() for at in training_grid(config, parse_as_of("2011-09-06", config.zone))
    ]
    assert (len(dates), str(dates[0]), str(dates[-1])) == (75, "2010-04-01", "2011-09-01")


@pytest.mark.slow
def test_online_retail_from_training_to_lists(open_config: Open) -> None:
    # The last choice date of protocol A: no test outcome is looked at.
    config = open_config("online_retail", model={"max_rows": 5_000}, snapshots={"every": "28d"})
    night, rows = train_and_rank(config, "2011-05-31")
    assert_lists_are_sound(config, night)
    assert_probabilities_are_coherent(night)
    assert not [name for name in night.scores.column_names if name.startswith("p_reach_engage")]
    assert beats_the_stage(rows, "return", 90)


# CDNOW: the counts are protocol B's.


def test_cdnow_reads_the_published_purchase_days(open_config: Open) -> None:
    found = check(open_config("cdnow"), "1998-01-01")
    store = found.histories.store
    assert (store.customers, dict(store.events)) == (23_570, {"purchase": 67_591})
    assert by_stage(found) == {"Convert": 23_570}
    # Purchases of nothing are kept, and no cent is lost.
    assert sum(int(b.touchpoints.value.sum()) for b in blocks(found)) == 250_031_563
    assert all(b.touchpoints.has_value.all() for b in blocks(found))


def test_cdnow_share_of_customers_who_return_is_the_published_one(open_config: Open) -> None:
    config = open_config("cdnow")
    as_of = parse_as_of("1998-01-01", config.zone)
    customers = 0
    for block in blocks(check(config, "1998-01-01")):
        at = block.touchpoints.occurred_at
        customers += len(np.unique(owners(block)[(at >= as_of) & (at < as_of + 181 * DAY)]))
    assert round(customers / 23_570, 4) == 0.2280


@pytest.mark.slow
def test_cdnow_from_training_to_scores(open_config: Open) -> None:
    config = open_config("cdnow", model={"max_rows": 5_000}, snapshots={"every": "14d"})
    night, rows = train_and_rank(config, "1997-10-01")
    assert len(night.scores) == 23_570
    assert_lists_are_sound(config, night)
    assert pc.all(pc.is_null(night.scores.read()["p_advance_30d"])).as_py(), "there is no stage to advance to"
    assert_probabilities_are_coherent(night)
    assert beats_the_stage(rows, "return", 91)


# The Complete Journey (simulated).


def test_complete_journey_reads_baskets_sends_and_redemptions(open_config: Open) -> None:
    found = check(open_config("complete_journey"), "2018-01-01")
    store = found.histories.store
    assert store.customers == 2_469
    assert dict(store.events) == {"basket": 155_848, "campaign_sent": 6_589, "coupon_redeemed": 2_102}
    # Coupons of one campaign used on one day are equal rows, and all kept.
    assert {name: counts.repeats for name, counts in store.counts.items()} == {
        "baskets": 0,
        "redemptions": 954,
        "sends": 0,
    }
    sent_first = 0
    for block in blocks(found):
        sends = block.touchpoints.event.isin(frozenset({"campaign_sent"}))
        assert np.array_equal(block.touchpoints.inbound, ~sends), "a send is the shop's own doing"
        first = [first_of(block, {name}) for name in ("campaign_sent", "basket")]
        sent_first += int((first[0] < first[1]).sum())
    assert sent_first == 155


def test_complete_journey_spreads_households_over_its_stages(open_config: Open) -> None:
    found = check(open_config("complete_journey"), "2017-07-01")
    stages = by_stage(found)
    assert list(stages) == ["(before any)", "Convert", "Excite", "Ascend", "Advocate"]
    assert stages["(before any)"] == 3, "households that were sent a campaign and had no basket yet"
    redeemed = {
        block.customers[c]
        for block in blocks(found)
        for c in np.flatnonzero(first_of(block, {"coupon_redeemed"}) < found_at(found))
    }
    assert 0 < stages["Advocate"] < len(redeemed)


@pytest.mark.slow
def test_complete_journey_from_training_to_lists(open_config: Open) -> None:
    config = open_config("complete_journey", model={"max_rows": 5_000}, snapshots={"every": "14d"})
    night, rows = train_and_rank(config, "2018-01-01")
    assert_lists_are_sound(config, night)
    assert_probabilities_are_coherent(night)
    assert beats_the_stage(rows, "return", 90)


# Starbucks (simulated).


def test_starbucks_reads_every_row_of_thirty_days(open_config: Open) -> None:
    config = open_config("starbucks")
    found = check(config, "2018-08-31")
    store = found.histories.store
    assert store.customers == 17_000
    assert dict(store.events) == {
        "offer completed": 33_579,
        "offer received": 76_277,
        "offer viewed": 57_725,
        "transaction": 138_953,
    }
    assert store.counts["app"].repeats == 397, "repeats are real and kept: one purchase can complete two offers"
    hours = np.concatenate([b.touchpoints.occurred_at for b in blocks(found)]) - parse_as_of("2018-08-01", config.zone)
    assert (int(hours.min()), int(hours.max())) == (0, 714 * DAY // 24)


def test_starbucks_age_118_is_missing(open_config: Open) -> None:
    ages = []
    for block in blocks(check(open_config("starbucks"), "2018-08-31")):
        assert block.attributes is not None
        age = block.attributes.columns["age"]
        assert not isinstance(age, Text)
        ages.append(age)
    known = np.concatenate(ages)
    assert (int(np.isnan(known).sum()), float(np.nanmax(known))) == (2_175, 101.0)


@pytest.mark.slow
def test_starbucks_from_training_to_lists(open_config: Open) -> None:
    config = open_config("starbucks", model={"max_rows": 60_000}, snapshots={"every": "2d"})
    night, rows = train_and_rank(config, "2018-08-31")
    assert_lists_are_sound(config, night)
    assert_probabilities_are_coherent(night)
    assert {name.rpartition("_")[2] for name in night.scores.column_names if name.startswith("p_return")} == {
        "3d",
        "7d",
        "14d",
    }
    assert beats_the_stage(rows, "return", 3)


# Martial Arts Stack Exchange: the counts are protocol D's, without the site's robot.


def test_stackexchange_stages_are_those_of_the_protocol(open_config: Open) -> None:
    found = check(open_config("stackexchange_martialarts"), "2023-12-02")
    store = found.histories.store
    assert dict(store.counts["users"].refused) == {"no customer_id": 1}, "the site's robot is no customer"
    # One more signed up on 2023-12-02 itself.
    assert (store.customers, found.usage.not_yet_visible) == (9_713, 1)
    assert by_stage(found) == {
        "Subscribe": 6_521 - 2,
        "Engage": 1_293,
        "Convert": 960,
        "Excite": 371,
        "Ascend": 266,
        "Advocate": 286,
        "Promote": 17,
    }


@pytest.mark.slow
def test_stackexchange_names_promote_as_low_evidence(open_config: Open) -> None:
    settings = {"model": {"max_rows": 20_000}, "snapshots": {"every": "84d", "back": "3650d"}}
    config = open_config("stackexchange_martialarts", **settings)
    # So few rows may not pass the rule for a first model; this is about what is named.
    night, rows = train_and_rank(config, "2023-12-02", promote="always")
    assert_lists_are_sound(config, night)
    assert_probabilities_are_coherent(night)
    scores = night.scores.read(["stage", "low_evidence"])
    for stage, weak in zip(scores["stage"].to_pylist(), scores["low_evidence"].to_pylist(), strict=True):
        assert ("Promote" in weak) == (stage != "Promote")
        # Among so few rows hardly anybody has lived through a year at the last two stages.
        assert "return" not in weak or stage in ("Advocate", "Promote")
    assert beats_the_stage(rows, "return", 365)


# What the tests above say of a block or a fold.


def purchases(block: Block) -> Any:
    return block.touchpoints.event.isin(frozenset({"purchase"}))


def owners(block: Block) -> Any:
    return np.repeat(np.arange(len(block)), np.diff(block.touchpoints.offsets))


def first_of(block: Block, events: set[str]) -> Any:
    first = np.full(len(block), np.iinfo(np.int64).max)
    mask = block.touchpoints.event.isin(frozenset(events))
    np.minimum.at(first, owners(block)[mask], block.touchpoints.occurred_at[mask])
    return first


def found_at(found: Checked) -> int:
    return parse_as_of("2017-07-01", found.histories.config.zone)


def beats_the_stage(rows: Any, target: str, days: int) -> bool:
    """Return whether the model's log loss is below that of the rates by stage."""
    cell = rows[(rows["to"] == target) & (rows["horizon_days"] == days)].set_index("contender")["log_loss"]
    return bool(cell["model"] < cell["stage"])
