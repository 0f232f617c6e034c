"""A published plan against the raw log: every number of the first screen, who is held back, and whom a play is for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.trained import AS_OF, Trained, call

from cvj_ml.config import load_config
from cvj_ml.lists.last_events import ago, did

pytest_plugins = ["tests.fixtures"]

PAIRS = [
    *(("Engage", "Subscribe"), ("Subscribe", "Convert"), ("Convert", "Excite"), ("Convert", "Ascend")),
    *(("Excite", "Ascend"), ("Ascend", "Advocate"), ("Advocate", "Promote")),
]
SETTINGS: dict[str, Any] = {
    "lists": [{"from": a, "to": b, "horizon": "30d"} for a, b in PAIRS],
    "stage_value": {"Subscribe": 5, "Convert": 40, "Excite": 60, "Ascend": 300, "Advocate": 150, "Promote": 250},
    "list_size": {"step": 4, "least": 0.6},
}
NOW = pd.Timestamp(AS_OF, tz="UTC")


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = trained.variant(tmp_path_factory.mktemp("plan") / "out", **SETTINGS)
    ran = call("targets", config, "--as-of", AS_OF, "--json")
    assert ran.code == 0, ran.err
    return Path(json.loads(ran.out)["night"])


@pytest.fixture(scope="module")
def log(trained: Trained) -> pd.DataFrame:
    """What was visible, in the order of time."""
    found = pd.read_parquet(trained.folder / "touchpoints.parquet")
    for name in ("occurred_at", "known_at"):
        found[name] = pd.to_datetime(found[name], utc=True)
    visible = found[["occurred_at", "known_at"]].max(axis=1) < NOW
    return found[visible].sort_values("occurred_at", kind="stable")


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    files = sorted((folder / "targets").glob("*__*.parquet"))
    return pd.concat([pq.read_table(file, partitioning=None).to_pandas() for file in files], ignore_index=True)


def held_by_the_log(log: pd.DataFrame) -> dict[str, set[str]]:
    """Who is held back, by plain rules on the raw log."""
    recent = log[log["occurred_at"] >= NOW - pd.Timedelta(days=3)]
    rated = log[log["rating"].notna()].groupby("customer_id")["rating"].last()
    bad = log[log["event"].isin(["support_ticket", "refund"]) & (log["occurred_at"] >= NOW - pd.Timedelta(days=14))]
    own = log[~log["event"].isin(["email_sent", "ad_impression"])]
    awake = own[own["occurred_at"] >= NOW - pd.Timedelta(days=180)]["customer_id"]
    return {
        "recent_contact": set(recent[recent["event"] == "email_sent"]["customer_id"]),
        "unhappy": set(rated.index[rated <= 2]) | set(bad["customer_id"]),
        "dormant": set(log["customer_id"]) - set(awake),
    }


def test_nobody_is_on_the_plan_twice_or_held_back_by_the_log(rows: pd.DataFrame, log: pd.DataFrame) -> None:
    assert len(rows) > 10 and rows["customer_id"].is_unique
    for reason, people in held_by_the_log(log).items():
        assert not set(rows["customer_id"]) & people, reason


def test_every_number_of_the_first_screen_is_that_of_the_files(
    folder: Path, rows: pd.DataFrame, log: pd.DataFrame
) -> None:
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    summary = pq.read_table(folder / "targets" / "summary.parquet", partitioning=None).to_pandas()
    scores = pq.read_table(folder / "scores" / "scores.parquet", partitioning=None).to_pandas()
    targets = rows[rows["group"] == "target"]
    tiles = [int(text.replace(",", "")) for text in re.findall(r'<dd class="big"[^>]*>([\d,]+)(?:\.\d)?</dd>', page)]
    assert f": {len(targets):,} people to contact</h1>" in page
    expected = targets["probability"].sum()
    assert [tiles[0], tiles[2]] == [len(targets), len(rows) - len(targets)]
    assert re.search(rf'<dd class="big"[^>]*>{expected:,.{0 if expected >= 9.95 else 1}f}</dd>', page)
    # Held back: people of stages with a list, each once, by the first rule that holds them.
    listed_stages = scores[scores["stage"].isin([a for a, _ in PAIRS])]
    left, told = set(listed_stages["customer_id"]), {}
    held = held_by_the_log(log)
    for reason in ("recent_contact", "unhappy", "dormant"):
        told[reason] = left & held[reason]
        left -= held[reason]
    stages = dict(zip(scores["customer_id"], scores["stage"], strict=True))
    for _, one in summary.iterrows():
        for reason, people in told.items():
            assert one[reason] == sum(stages[name] == one["from_stage"] for name in people), (one["list"], reason)
    per_stage = summary.drop_duplicates("from_stage")
    assert tiles[3] == sum(map(len, told.values())) + per_stage["no_play"].sum() + per_stage["no_channel"].sum()
    assert re.findall(r'<strong class="amount">([\d,]+)</strong>', page) == [f"{one:,}" for one in summary["target"]]


def test_each_person_of_a_stage_with_two_lists_is_where_the_stage_is_worth_more(
    folder: Path, rows: pd.DataFrame
) -> None:
    scores = pq.read_table(folder / "scores" / "scores.parquet", partitioning=None).to_pandas().set_index("customer_id")
    both = rows[rows["from_stage"] == "Convert"]
    assert len(both)
    for _, row in both.iterrows():
        p = scores.loc[row["customer_id"]]
        stages = ("Excite", "Ascend")
        worth = {name: SETTINGS["stage_value"][name] * p[f"p_reach_{name.lower()}_30d"] for name in stages}
        assert worth[row["to_stage"]] == max(worth.values())


def test_a_review_is_asked_of_nobody_who_rated_us_badly(rows: pd.DataFrame, log: pd.DataFrame) -> None:
    asked = set(rows[rows["play"].fillna("").str.contains("review|testimonial")]["customer_id"])
    rated = log[log["rating"].notna()].groupby("customer_id")["rating"].last()
    assert not asked & set(rated.index[rated <= 2])
    in_basket = log[(log["event"] == "add_to_cart") & (log["occurred_at"] >= NOW - pd.Timedelta(days=14))]
    reminded = set(rows[rows["play"].fillna("").str.contains("basket")]["customer_id"])
    assert reminded <= set(in_basket["customer_id"])


def test_every_play_with_a_trigger_says_what_brought_it(
    trained: Trained, rows: pd.DataFrame, log: pd.DataFrame
) -> None:
    """On every row, and the last event that it names is that of the raw log, so many calendar days ago."""
    journey = load_config(trained.variant(trained.folder / "because", **SETTINGS)).journey
    triggers = {play.text: play.when for stage in journey.stages for play in stage.plays}
    brought = rows["play"].map(triggers).notna()
    assert brought.any() and (rows["because"].notna() == brought).all()
    checked = 0
    for _, row in rows[brought].iterrows():
        when = triggers[row["play"]]
        assert when is not None
        if when.event is None or when.since or when.where:
            continue
        theirs = log[(log["customer_id"] == row["customer_id"]) & log["event"].isin(when.event)].iloc[-1]
        days = (NOW.normalize() - theirs["occurred_at"].normalize()).days
        assert row["because"].startswith(did(theirs["event"])) and row["because"].endswith(ago(days)), row["because"]
        checked += 1
    assert checked


def test_no_reason_praises_bad_news(rows: pd.DataFrame) -> None:
    reasons = pd.concat([rows[name] for name in ("reason_1", "reason_2", "reason_3")]).dropna()
    praise = reasons[reasons.str.startswith("Speaks for")]
    assert len(praise) and not praise.str.contains("cancel|refund|ticket|with [12] of 5").any()


def test_a_list_ends_where_the_next_step_holds_too_little(folder: Path) -> None:
    for one in pq.read_table(folder / "targets" / "summary.parquet", partitioning=None).to_pylist():
        assert one["size_recommended"] and one["size_step"] == 4
        if one["next_step_customers"]:
            assert one["next_step_moves"] < 0.6 * one["first_step_moves"] and one["listed"] % 4 == 0
        else:
            assert one["list_full"] == 0


def test_a_past_night_whose_manifest_is_broken_is_named(trained: Trained, tmp_path: Path) -> None:
    """What past nights promised is looked at every night: one that cannot be read is told, with what to do."""
    config = trained.variant(tmp_path / "out")
    assert call("targets", config, "--as-of", AS_OF).code == 0
    (manifest,) = (tmp_path / "out").glob(f"as_of={AS_OF}/*/MANIFEST.json")
    manifest.write_text("{")
    ran = call("targets", config, "--as-of", "2025-06-25")
    assert ran.code == 4
    assert "its manifest cannot be read" in ran.err and "cvj-ml verify" in ran.err and "Traceback" not in ran.err
