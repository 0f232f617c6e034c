"""Rows that come twice, shuffled, late, too early, from the future, from 1970, at odd hours and on odd days."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.faults.ground import CANARY, LAST, Ground
from tests.trained import AS_OF, CUSTOMERS

pytest_plugins = ["tests.fixtures"]

STRUCK = pd.Timestamp(AS_OF, tz="UTC")


def log(ground: Ground) -> pd.DataFrame:
    return pd.read_parquet(ground.touchpoints)


def some(frame: pd.DataFrame, share: float = 0.01) -> pd.DataFrame:
    return frame.sample(frac=share, random_state=7)


def converted(rows: pd.DataFrame, instant: str) -> pd.DataFrame:
    """The rows as new touchpoints that happened, and were known, at an instant."""
    at = pd.Timestamp(instant, tz="UTC")
    return rows.assign(occurred_at=at, known_at=at, touchpoint_id="new-" + rows["touchpoint_id"])


def write(ground: Ground, *frames: pd.DataFrame) -> int:
    whole = pd.concat(frames, ignore_index=True)
    whole.to_parquet(ground.touchpoints, index=False)
    return len(whole)


@pytest.fixture
def before(ground: Ground) -> pd.DataFrame:
    """The scores of the night without a fault."""
    return ground.scores(ground.publishes())


@pytest.mark.slow
def test_every_row_twice_is_asked_about_and_counts_once(ground: Ground) -> None:
    """The same touchpoint_id is one touchpoint, so a person who knows of it may accept the rows."""
    expected, last = ground.scores(ground.publishes()), ground.standing()
    frame = log(ground)
    number = write(ground, frame, frame)
    ran = ground.night()
    assert ran.code == 5 and "was a file read twice, or older history delivered?" in ran.err
    assert ground.standing() == last
    night = ground.publishes(ground.night("--accept", "rows:touchpoints"))
    assert night["rows"]["rows_in"] == number
    assert night["rows"]["superseded"] + night["rows"]["duplicates"] + night["rows"]["not_yet_visible"] / 2 == len(
        frame
    )
    pd.testing.assert_frame_equal(ground.scores(night), expected)


def test_every_row_twice_without_ids_fails_the_night(ground: Ground) -> None:
    """True repeats cannot be told from a file that was read twice, but the rows that were known have doubled."""
    del ground.settings["sources"]["touchpoints"]["columns"]["touchpoint_id"]
    frame = log(ground)
    write(ground, frame, frame)
    ground.refuses(5, "rows:touchpoints", "was a file read twice, or older history delivered?")


@pytest.mark.slow
def test_the_order_of_rows_changes_no_byte_of_the_scores(ground: Ground) -> None:
    first = Path(ground.publishes()["night"], "scores", "scores.parquet").read_bytes()
    write(ground, log(ground).sample(frac=1, random_state=3))
    again = ground.publishes()
    assert again["outcome"] == "published", "other inputs have a night of their own"
    assert Path(again["night"], "scores", "scores.parquet").read_bytes() == first


def test_history_that_appears_overnight_fails_the_night(ground: Ground) -> None:
    write(ground, log(ground), converted(some(log(ground), 0.5), "2024-06-01"))
    ground.refuses(5, "rows:touchpoints", "Rows were added to the past")


def test_a_few_late_rows_are_used(ground: Ground, before: pd.DataFrame) -> None:
    write(ground, log(ground), late := converted(some(log(ground)), "2024-06-01"))
    night = ground.publishes()
    scores = ground.scores(night)
    changed = scores.index[(scores["p_return_30d"] != before["p_return_30d"]).to_numpy()]
    assert set(changed) and set(changed) <= set(late["customer_id"])


@pytest.mark.parametrize("instant", ["2099-12-31", "2025-06-24", "2025-06-24T00:00:00.000001"])
def test_rows_of_the_future_are_counted_and_change_no_score(ground: Ground, before: pd.DataFrame, instant: str) -> None:
    future = converted(some(log(ground), 0.2), instant)
    write(ground, log(ground), future)
    unseen = int((log(ground)["known_at"] >= STRUCK).sum())
    night = ground.publishes()
    assert night["rows"]["not_yet_visible"] == unseen >= len(future)
    pd.testing.assert_frame_equal(ground.scores(night), before)


def test_rows_of_the_future_do_not_make_a_dead_source_look_alive(ground: Ground) -> None:
    frame = log(ground)
    dead = frame[frame["known_at"] < STRUCK - pd.Timedelta(days=30)]
    write(ground, dead, converted(some(frame, 0.2), "2099-12-31"))
    ground.refuses(3, "freshness:touchpoints: silent for", "Check that its export ran")


@pytest.mark.slow
@pytest.mark.parametrize("instant", ["1970-01-01", "1969-12-31T23:59:59", "1900-01-01"])
def test_rows_of_1970_are_history_like_any_other(ground: Ground, instant: str) -> None:
    """What a system writes for "unknown" is far before every window: it may make nobody young, new or active."""
    expected = ground.scores(ground.publishes())
    old = converted(some(log(ground)), instant)
    number = write(ground, log(ground), old)
    night = ground.publishes()
    assert night["rows"]["rows_in"] == number and night["rows"]["refused"] == 0
    scores = ground.scores(night)
    others = ~scores.index.isin(old["customer_id"])
    pd.testing.assert_frame_equal(scores[others], expected[others])
    assert scores.filter(like="p_").apply(lambda one: one.dropna().between(0, 1).all()).all()


def test_rows_known_before_they_happened_are_visible_when_they_happen(ground: Ground, before: pd.DataFrame) -> None:
    early = converted(some(log(ground)), AS_OF).assign(known_at=pd.Timestamp("2024-01-01", tz="UTC"))
    write(ground, log(ground), early)
    pd.testing.assert_frame_equal(ground.scores(ground.publishes()), before)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda rows: rows.assign(occurred_at=pd.NaT), "unreadable time"),
        (lambda rows: rows.assign(customer_id=None), "missing customer_id"),
        (lambda rows: rows.assign(event=None), "missing event"),
    ],
    ids=["without a time", "without a customer", "without an event"],
)
def test_rows_that_say_nothing_are_refused_and_counted(
    ground: Ground, before: pd.DataFrame, made: Callable[[pd.DataFrame], pd.DataFrame], why: str
) -> None:
    bad = made(converted(some(log(ground), 0.005), "2025-06-01"))
    write(ground, log(ground), bad)
    night = ground.publishes()
    assert night["rows"]["refused"] == len(bad)
    manifest = json.loads(Path(night["night"], "MANIFEST.json").read_text())
    assert sum(manifest["counts"]["touchpoints"]["refused"].values()) == len(bad)
    pd.testing.assert_frame_equal(ground.scores(night), before)
    many = made(converted(some(log(ground), 0.5), "2025-06-01").assign(customer_id=CANARY))
    write(ground, log(ground), many)
    ran = ground.night()
    assert ran.code == 3 and "more than refused_share 0.01 allows" in ran.err and CANARY not in ran.err


def clock(ground: Ground, walls: list[str]) -> None:
    """Deliver the log as wall times of London, with more rows at these."""
    frame = log(ground)
    london = frame["occurred_at"].dt.tz_convert("Europe/London")
    more = frame.iloc[: len(walls)].assign(touchpoint_id=[f"new-{i}" for i in range(len(walls))])
    texts = [*london.dt.strftime("%Y-%m-%d %H:%M:%S"), *walls]
    whole = pd.concat([frame, more], ignore_index=True).assign(occurred_at=texts).drop(columns="known_at")
    source = ground.settings["sources"]["touchpoints"]
    source["columns"] = {name: one for name, one in source["columns"].items() if name != "known_at"}
    source["times"] = "Europe/London"
    whole.to_parquet(ground.touchpoints, index=False)
    ground.settings["gates"] = {"columns": "warn", "rows": {"warn": None, "fail": None}}


def test_hours_that_come_twice_or_never_are_read_and_counted(ground: Ground) -> None:
    """01:30 occurs twice when the clocks go back, and never when they go forward."""
    walls = ["2024-10-27 01:30:00", "2024-10-27 00:59:59", "2024-10-27 02:00:00", "2024-03-31 01:30:00"]
    clock(ground, walls)
    night = ground.publishes()
    assert night["customers"] == CUSTOMERS
    assert night["rows"]["rows_in"] == len(log(ground))
    assert night["rows"]["refused"] == 0, (
        "an hour that the clock skips is read as it would have been without the change"
    )


def test_the_29th_of_february_is_a_day_where_it_is_one(ground: Ground) -> None:
    clock(ground, ["2024-02-29 12:00:00", "2023-02-29 12:00:00", "2100-02-29 12:00:00"])
    assert ground.publishes()["rows"]["refused"] == 2
    wrong = ground.night(as_of="2023-02-29")
    assert wrong.code == 2 and "'2023-02-29' is not a date" in wrong.err


@pytest.mark.slow
def test_a_backfill_passes_over_a_change_of_the_clock_and_a_leap_day(ground: Ground) -> None:
    ground.settings["gates"] = {"freshness": {"fail": None}, "drift": {"fail": None}, "customers": {"fewest": 1}}
    for span, days in (
        ("2024-02-28..2024-03-01", ["2024-02-28", "2024-02-29", "2024-03-01"]),
        ("2025-03-29..2025-03-31", ["2025-03-29", "2025-03-30", "2025-03-31"]),
    ):
        ran = ground.warmed.call("nightly", ground.config, "--backfill", span, "--json")
        assert ran.code == 0, ran.err
        nights = json.loads(ran.out)["nights"]
        assert [one["as_of"] for one in nights] == days and not any(one["current"] for one in nights)
    ground.stands(LAST)


# Values that the model has never seen, and customers that are not there


def test_names_that_training_never_saw_are_other(ground: Ground, before: pd.DataFrame) -> None:
    few = converted(some(log(ground), 0.005), "2025-06-20").assign(event="teleported", channel="smoke_signals")
    write(ground, log(ground), few)
    people = pd.read_parquet(ground.folder / "customers.parquet")
    people.loc[:2, ["country", "plan"]] = ["Atlantis", "imaginary"]
    people.to_parquet(ground.folder / "customers.parquet")
    night = ground.publishes()
    assert night["rows"]["refused"] == 0 and night["customers"] == CUSTOMERS
    scores = ground.scores(night)
    touched = {*few["customer_id"], *people["customer_id"][:3]}
    others = ~scores.index.isin(touched)
    pd.testing.assert_frame_equal(scores[others], before[others])


def test_a_log_in_another_language_fails_the_night(ground: Ground) -> None:
    """No event has its old name: not a stage, not a list could be right."""
    frame = log(ground)
    write(ground, frame.assign(event="ereignis_" + frame["event"]))
    ran = ground.night()
    assert ran.code in (2, 4), ran.err
    ground.refuses(ran.code, ran=ran)


def test_new_customers_are_scored_and_counted(ground: Ground) -> None:
    write(ground, log(ground), converted(some(log(ground), 0.001), "2025-06-20").assign(customer_id=CANARY))
    night = ground.publishes()
    assert night["customers"] == CUSTOMERS + 1 and CANARY in ground.scores(night).index


def test_half_of_the_customers_missing_fails_the_night(ground: Ground) -> None:
    frame = log(ground)
    ids = np.sort(frame["customer_id"].unique())
    write(ground, frame[frame["customer_id"].isin(ids[::2])])
    ground.refuses(5, "rows:touchpoints", "Rows are missing")
    ground.settings["gates"] = {"rows": {"warn": None, "fail": None}, "drift": {"fail": None}}
    ground.refuses(5, "customers", "Customers are missing: is an export incomplete, or are ids written otherwise?")


@pytest.mark.parametrize("how", ["no rows", "no customer before the instant", "nobody may be contacted"])
def test_zero_customers(ground: Ground, how: str) -> None:
    frame = log(ground)
    if how == "no rows":
        write(ground, frame[:0])
        ground.refuses(3, "0 rows came in and none is left; is the export complete?")
    elif how == "no customer before the instant":
        write(ground, converted(frame, "2025-06-30"))
        ground.refuses(3, "No touchpoint is visible before 2025-06-24", "Check --as-of")
    else:
        pd.DataFrame({"customer_id": frame["customer_id"].unique()}).to_parquet(ground.folder / "people.parquet")
        ground.settings["suppression"] = {"path": "people.parquet"}
        night = ground.publishes()
        assert night["customers"] == CUSTOMERS and not any(night["lists"].values())
