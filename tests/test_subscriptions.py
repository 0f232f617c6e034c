"""A simulated business with subscriptions, from log to lists: stages and leaves are those of the known process."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from tests import spark
from tests.test_determinism import changed, everything
from tests.trained import call

from cvj_ml.config import DAY, load_config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import ConfigError
from cvj_ml.journey import Journey, stays
from cvj_ml.journey_analytics.dwell_times import dwell_times
from cvj_ml.simulate import Subscriptions, simulate_subscriptions
from cvj_ml.store import ingest
from cvj_ml.windows import midnight, parse_as_of

AS_OF = "2025-04-01"
CONTRACTUAL = "at-risk-contractual__active-won_back__30d"
SETTINGS: dict[str, Any] = {
    "name": "subscriptions",
    "time_zone": "UTC",
    "history_from": "2024-01-01",
    "burn_in": "60d",
    "sources": {
        "log": {
            "path": "log.parquet",
            "times": "utc",
            "columns": {name: name for name in ("customer_id", "occurred_at", "event", "value")},
        }
    },
    "journey": "subscription5",
    "horizons": ["7d", "30d", "60d"],
    "model": {"max_rows": 20_000, "min_customers": 20},
    "lists": [
        {"from": "Trial", "to": "Active", "horizon": "30d"},
        {"from": "Past due", "to": "Active", "horizon": "30d"},
        {"from": "Cancelled", "to": "Won back", "horizon": "60d"},
        {"at_risk": {"stages": ["Active", "Won back"], "churn": "contractual"}, "horizon": "30d", "capacity": 150},
        {"at_risk": {"stages": ["Active", "Won back"]}, "horizon": "30d", "capacity": 50},
    ],
    "control": {"share": 0.1, "salt": "subscriptions"},
}


def business(folder: Path, simulated: Subscriptions, **settings: Any) -> Path:
    """Write the log, and a configuration beside it."""
    simulated.touchpoints.to_parquet(folder / "log.parquet")
    registry = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"}
    own = {"engine": {"threads": 1, "buckets": 4}, "mlflow": registry, "out": str(folder / "out"), **settings}
    file = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, **own}))
    return file


def test_the_stages_of_every_midnight_are_the_true_ones(tmp_path: Path) -> None:
    simulated = simulate_subscriptions(customers=300, seed=3, days=400)
    config = load_config(business(tmp_path, simulated))
    begin, again, journey = midnight(date(2024, 1, 1), ZoneInfo("UTC")), 0, Journey(config.journey)
    for block in LocalEngine(ingest(config), 1).map(lambda one: one):
        held = stays(journey, block.touchpoints)
        numbers = np.array([int(name[1:]) for name in block.customers])
        for day in range(401):
            state = held.at(np.arange(len(block)), begin + day * DAY)
            assert np.array_equal(state.stage, np.maximum(simulated.true_stage(begin + day * DAY)[numbers], -1))
        again += int(dwell_times(block.touchpoints, held, begin + 400 * DAY).again.sum())
    assert again > 200, "subscriptions have to end and begin anew"


def test_the_simulation_is_one_of_its_seed_and_says_what_it_knows() -> None:
    one, same, other = (simulate_subscriptions(50, seed, days=60) for seed in (1, 1, 2))
    assert one.touchpoints.equals(same.touchpoints) and not one.touchpoints.equals(other.touchpoints)
    begin = midnight(one.start, ZoneInfo("UTC"))
    p = one.true_leave(begin + 60 * DAY, [7 * DAY, 30 * DAY])
    asked = np.isin(one.true_stage(begin + 60 * DAY), (3, 4))
    assert asked.any() and np.array_equal(~np.isnan(p[:, 0]), asked)
    assert (p[asked, 0] < p[asked, 1]).all()
    with pytest.raises(ConfigError, match="UTC midnights from 2024-01-01 on, 60 days"):
        one.true_stage(begin + 61 * DAY)
    with pytest.raises(ConfigError, match="at least one customer and one day; found 0 and 60"):
        simulate_subscriptions(0, days=60)


def the_list_is_of_those_who_are_likely_to_leave(
    file: Path, folder: Path, scores: pd.DataFrame, stage: np.ndarray[Any, Any]
) -> None:
    """Whom the list has, in which order and why, by plain loops over the scores."""
    rows = pq.read_table(folder / "targets" / f"{CONTRACTUAL}.parquet").to_pylist()
    summary = {row["list"]: row for row in pq.read_table(folder / "targets" / "summary.parquet").to_pylist()}
    told = summary[CONTRACTUAL]
    assert (told["kind"], told["outcome"], told["by"], told["quiet"]) == ("at_risk", "leave", "churn", 0)
    assert told["in_stage"] == int(np.isin(stage, (3, 4)).sum())
    p = {
        row["customer_id"]: row["p_leave_active_30d" if row["stage"] == "Active" else "p_leave_won_back_30d"]
        for row in scores.to_dict("records")
        if row["stage"] in ("Active", "Won back")
    }
    assert len(rows) == 150
    assert [row["probability"] for row in rows] == [p[row["customer_id"]] for row in rows]
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
    assert {row["from_stage"] for row in rows} == {"Active", "Won back"}
    assert all(row["reason_1"].startswith("Points to leaving: ") for row in rows)
    assert sum("last seen" in row["reason_1"] for row in rows) > 10, "who does not use it leaves"
    preset = load_config(file).journey.at_risk
    assert {row["play"] for row in rows} <= {play.text for play in preset.plays}
    listed = [row["customer_id"] for one in summary for row in names_of(folder, one)]
    assert len(listed) == len(set(listed)), "nobody is on two lists"
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "At risk of leaving: Active, Won back" in page and "expected to leave" in page
    assert "At risk of leaving: Active, 30 days" in page and "At risk of leaving: Won back, 30 days" in page


def names_of(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "targets" / f"{name}.parquet").to_pylist()
    return rows


def the_list_is_measured_by_who_left(file: Path, folder: Path, simulated: Subscriptions, scores: pd.DataFrame) -> None:
    """Who left is counted in the raw log: the first of these events ends the stay, and nothing else does."""
    code = call("measure", file, "--until", "2025-05-03", "--json")
    assert code.code in (0, 5), code.err
    row = next(one for one in json.loads(code.out)["rows"] if one["list"] == CONTRACTUAL)
    log, begin = simulated.touchpoints, pd.Timestamp(AS_OF, tz="UTC")
    there = (log["occurred_at"] >= begin) & (log["occurred_at"] < begin + pd.Timedelta(days=30))
    ends = log["event"].isin(["cancellation", "subscription_ended", "payment_failed"])
    left = set(log.loc[there & ends, "customer_id"])
    rows = names_of(folder, CONTRACTUAL)
    for arm in ("target", "control"):
        names = [one["customer_id"] for one in rows if one["group"] == arm]
        assert row[f"{arm}_n"] == len(names) > 0
        assert row[f"{arm}_moved"] == sum(name not in left for name in names), "a contact is for that they stay"
    given_away = {
        one["customer_id"]
        for name in folder.joinpath("targets").glob("*__*.parquet")
        for one in names_of(folder, name.stem)
        if one["group"] == "target"
    }
    asked = set(scores.loc[scores["stage"].isin(["Active", "Won back"]), "customer_id"]) - given_away
    assert row["untouched_n"] == len(asked) and row["untouched_moved"] == len(asked & left) > 10
    assert row["observed_over_expected_low"] < 1.2 and row["observed_over_expected_high"] > 0.8
    told = call("measure", file, "--until", "2025-05-03").out
    assert "At risk of leaving: Active, Won back, 30 days" in told and "in the target group stayed" in told
    assert "left for each one expected" in told


@pytest.mark.slow
def test_a_night_on_spark_is_the_same_to_the_byte(tmp_path: Path) -> None:
    spark.require_java()
    simulated = simulate_subscriptions(customers=300, seed=5)
    local = business(tmp_path, simulated)
    remote = business(tmp_path, simulated, engine=spark.engine(), out=str(tmp_path / "spark"))
    trained = call("train", local, "--as-of", AS_OF, "--promote", "always", "--json")
    assert trained.code == 0, trained.err
    nights = []
    for file in (local, remote):
        night = call("targets", file, "--as-of", AS_OF, "--json")
        assert night.code == 0, night.err
        nights.append(everything(Path(json.loads(night.out)["night"])))
    assert changed(*nights) == ["run.json"]


@pytest.mark.slow
def test_leaves_are_predicted_as_the_process_has_them_and_nothing_leaks(tmp_path: Path) -> None:
    simulated = simulate_subscriptions(customers=1_000, seed=5)
    file = business(tmp_path, simulated)
    trained = call("train", file, "--as-of", AS_OF, "--promote", "always", "--json")
    assert trained.code == 0, trained.err
    night = call("targets", file, "--as-of", AS_OF, "--json")
    assert night.code == 0, night.err
    folder = Path(json.loads(night.out)["night"])
    scores = pq.read_table(folder / "scores").to_pandas()
    numbers = scores["customer_id"].str[1:].astype(int).to_numpy()
    as_of = parse_as_of(AS_OF, ZoneInfo("UTC"))
    stage = simulated.true_stage(as_of)[numbers]
    truth = simulated.true_leave(as_of, [days * DAY for days in (7, 30, 60)])[numbers]
    for position, slug in ((3, "active"), (4, "won_back")):
        here = stage == position
        for h, days in enumerate((7, 30, 60)):
            p = scores[f"p_leave_{slug}_{days}d"].to_numpy()
            assert np.array_equal(~np.isnan(p), here), "who holds the stage is asked, and nobody else"
            assert p[here].mean() == pytest.approx(truth[here, h].mean(), abs=0.06)
        assert np.corrcoef(p[here], truth[here, 2])[0, 1] > 0.6
        weak = np.array([f"leave_{slug}" in names for names in scores["low_evidence"]])
        assert not weak[~here].any(), "who is not asked has no evidence that could be low"
    the_list_is_of_those_who_are_likely_to_leave(file, folder, scores, stage)
    the_list_is_measured_by_who_left(file, folder, simulated, scores)
    audited = call("audit", file, "--as-of", AS_OF, "--cut-offs", 2, "--json")
    assert audited.code == 0, audited.err
    assert json.loads(audited.out)["leaks"] == []
