"""The gates of a night: what each asks, when it warns or fails, and every word that it then says."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cvj_ml.commands.night_gates import earlier_night
from cvj_ml.config import DAY, Config, GatesSpec
from cvj_ml.errors import ConfigError, DataError, GateError
from cvj_ml.gates.preflight import (
    LOOKBACK,
    Activity,
    activity,
    cohort,
    columns,
    fresh,
    model_age,
    preflight,
    rows,
    volume,
)
from cvj_ml.gates.verdicts import Earlier, GateVerdict, accept, require
from cvj_ml.store import Store, ingest
from cvj_ml.windows import to_microseconds

SPEC = GatesSpec()
NIGHT = datetime(2024, 6, 1, tzinfo=UTC)
AS_OF = to_microseconds(NIGHT)


def spec(**settings: Any) -> GatesSpec:
    return GatesSpec.model_validate(settings)


def days(found: list[int], rows_a_day: int = 10) -> Activity:
    """Return the activity of a source with rows on these days before the night."""
    counts = np.zeros(LOOKBACK, dtype=np.int64)
    counts[[one for one in found if one < LOOKBACK]] = rows_a_day
    return Activity(counts, int(counts.sum()), int(counts.sum()))


# Volume.


@pytest.mark.parametrize(("last", "level"), [(70, "pass"), (35, "pass"), (34, "warn"), (0, "warn")])
def test_half_a_weeks_rows_warn(last: int, level: str) -> None:
    """Silent error 178: a part of an export is as fresh as a whole one; thin weeks before change no usual one."""
    counts = np.zeros(LOOKBACK, dtype=np.int64)
    counts[:140] = 10
    counts[14:28] = 1
    counts[:7] = np.diff(np.linspace(0, last, 8).astype(int))
    found = volume(SPEC, "shop", Activity(counts, int(counts.sum()), 0))
    assert (found.level, found.value, found.exit_code) == (level, pytest.approx(1 - last / 70), 3)
    assert found.message.startswith(f"{last} rows became known in the last 7 days, 70 are usual")


def test_few_rows_have_no_usual_week() -> None:
    found = volume(SPEC, "shop", days(list(range(7, 300)), rows_a_day=2))
    assert (found.level, found.value) == ("pass", None) and "fewer than 20 rows in a usual week" in found.message
    assert volume(spec(volume={"fail": 0.8}), "shop", days(list(range(7, 300)))).level == "fail"


# Freshness.


@pytest.mark.parametrize(
    ("silence", "level", "limit"), [(0, "pass", 2), (2, "pass", 2), (3, "warn", 2), (7, "warn", 2), (8, "fail", 7)]
)
def test_a_daily_source_warns_after_two_silent_days_and_fails_after_seven(silence: int, level: str, limit: int) -> None:
    found = fresh(SPEC, "shop", days(list(range(silence, 300))))
    assert (found.name, found.level, found.value, found.limit, found.exit_code) == (
        "freshness:shop", level, silence, limit, 3,
    )  # fmt: skip


def test_a_silent_source_is_told_in_whole_sentences() -> None:
    assert fresh(SPEC, "shop", days(list(range(9, 300)))).message == (
        "silent for 9 day(s) up to this night (at most 0 before). Check that its export ran; if it has ended for good,"
        " set gates.sources.shop: {warn: null, fail: null}"
    )
    assert (
        fresh(SPEC, "shop", days(list(range(1, 300)))).message
        == "silent for 1 day(s) up to this night (at most 0 before)"
    )


def test_a_weekly_source_may_be_silent_for_a_week() -> None:
    assert fresh(SPEC, "letters", days(list(range(6, 399, 7)))).level == "pass"
    assert fresh(SPEC, "letters", days(list(range(13, 399, 7)))).level == "fail"


def test_the_silence_of_last_winter_is_known() -> None:
    shut = [day for day in range(11, 399) if not 365 <= day < 377]
    assert fresh(SPEC, "shop", days(shut)).level == "warn", "eleven days now, twelve a year ago"
    assert fresh(SPEC, "shop", days(list(range(11, 399)))).level == "fail", "eleven days now, and never before"


def test_a_source_with_few_days_has_no_rhythm_to_break() -> None:
    found = fresh(SPEC, "dump", days([100, 130, 160]))
    assert (found.level, found.limit) == ("pass", None)
    assert "too few days with rows to know its rhythm" in found.message
    assert fresh(SPEC, "dump", days([])).level == "pass"


def test_freshness_is_configured_for_all_sources_or_one() -> None:
    two_days = days(list(range(2, 300)))
    assert fresh(spec(freshness={"warn": "1d", "fail": "36h"}), "shop", two_days).level == "fail"
    one = spec(sources={"shop": {"warn": "1d", "fail": None}})
    assert fresh(one, "shop", two_days).level == "warn"
    assert fresh(one, "other", two_days).level == "pass"
    assert fresh(spec(freshness={"fail": "90d"}), "dump", days([])).level == "fail", (
        "asked for, so nothing is too little"
    )


def test_a_stray_row_does_not_make_a_dead_source_look_alive() -> None:
    dead = days(list(range(10, 300)), rows_a_day=100)
    dead.days[1] = 4
    assert fresh(SPEC, "shop", dead).level == "fail"
    dead.days[1] = 5
    assert fresh(SPEC, "shop", dead).level == "pass", "a twentieth of an ordinary day"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Config, Store]]:
    """Return a function from frames by source to a configuration and its store."""

    def store_of(**frames: pd.DataFrame) -> tuple[Config, Store]:
        for name, frame in frames.items():
            frame.to_parquet(tmp_path / f"{name}.parquet")
        document = {
            "name": "gates",
            "time_zone": "UTC",
            "history_from": "2023-01-01",
            "sources": {name: {"path": f"{name}.parquet", "times": "utc"} for name in frames},
            "journey": {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]},
            "engine": {"buckets": 3},
            "out": "out",
        }
        config = Config.model_validate(document, context={"folder": tmp_path})
        return config, ingest(config)

    return store_of


def log(ages: list[float], **extra: Any) -> pd.DataFrame:
    """Return purchases so many days before the night, each of another customer."""
    at = pd.to_datetime([NIGHT - timedelta(days=age) for age in ages], utc=True)
    ids = [f"c{i}" for i in range(len(ages))]
    return pd.DataFrame({"customer_id": ids, "occurred_at": at, "event": "purchase", **extra})


def test_activity_counts_visible_rows_by_source_and_day(make: Callable[..., tuple[Config, Store]]) -> None:
    far = [(NIGHT - datetime(1970, 1, 1, tzinfo=UTC)).days, -30_000.0, -0.5, 0.0]
    _, store = make(shop=log([0.1, 0.2, 1.0, 1.1, 8.0, *far]), web=log([3.5] * 4))
    found = activity(store, AS_OF, AS_OF - 2 * DAY)
    # A row exactly at the night is the future; one exactly a day before belongs to the last 24 hours.
    assert np.flatnonzero(found["shop"].days).tolist() == [0, 1, 7]
    assert found["shop"].days[[0, 1, 7]].tolist() == [3, 1, 1]
    assert (found["shop"].visible, found["shop"].seen) == (6, 2), (
        "the row of 1970 is old, not new; the future is not seen"
    )
    assert found["web"].days[3] == 4


def test_rows_of_the_future_and_of_1970_do_not_fool_freshness(make: Callable[..., tuple[Config, Store]]) -> None:
    far = [(NIGHT - datetime(1970, 1, 1, tzinfo=UTC)).days, -30_000.0, -1.0]
    _, store = make(shop=log([*(10 + day for day in range(100)), *far]))
    assert fresh(SPEC, "shop", activity(store, AS_OF, None)["shop"]).value == 9.0


# Rows.


def earlier(**changed: Any) -> Earlier:
    facts: dict[str, Any] = {"name": "2024-05-31", "as_of": AS_OF - DAY, "rows": {"shop": 1000}, "columns": {}}
    return Earlier(**{**facts, "customers": 500, **changed})


def seen(number: int) -> Activity:
    return Activity(np.zeros(LOOKBACK, dtype=np.int64), number + 50, number)


@pytest.mark.parametrize(
    ("now", "level"),
    [(1000, "pass"), (950, "pass"), (949, "warn"), (800, "warn"), (799, "fail"), (1051, "warn"), (1201, "fail")],
)
def test_rows_that_were_known_stay_known(now: int, level: str) -> None:
    found = rows(SPEC, "shop", seen(now), earlier())
    assert (found.name, found.level, found.exit_code) == ("rows:shop", level, 5)


def test_missing_and_added_rows_are_told_apart() -> None:
    assert rows(SPEC, "shop", seen(500), earlier()).message == (
        "500 rows were known by 2024-05-31, that night had 1000 (-50%). Rows are missing: is the export complete, or"
        " was it cut to a shorter time?"
    )
    assert rows(SPEC, "shop", seen(2000), earlier()).message == (
        "2000 rows were known by 2024-05-31, that night had 1000 (+100%). Rows were added to the past: was a file read"
        " twice, or older history delivered?"
    )


def test_rows_without_a_night_before_or_in_small_numbers_pass() -> None:
    assert rows(SPEC, "shop", seen(5), None).message == "no published night before to compare with"
    assert rows(SPEC, "new", seen(500), earlier()).level == "pass"
    assert rows(SPEC, "shop", seen(5), earlier(rows={"shop": 99})).level == "pass"
    assert rows(SPEC, "shop", seen(0), earlier(rows={"shop": 100})).level == "fail"


# Columns.


def described(store: Store) -> Any:
    return json.loads(json.dumps(store.columns))


def test_columns_of_the_night_before(make: Callable[..., tuple[Config, Store]]) -> None:
    _, before = make(shop=log([1.0], value=[1.5], note=["a"]))
    then = earlier(columns=described(before))
    assert [one.level for one in columns(SPEC, before, then)] == ["pass"]
    assert [one.level for one in columns(SPEC, before, None)] == ["pass"]
    _, fewer = make(shop=log([1.0], colour=["red"]))
    (found,) = columns(SPEC, fewer, then)
    assert (found.name, found.level, found.exit_code) == ("columns:shop", "fail", 3)
    assert found.message == (
        "'value' is gone; 'colour' is new; 'note', which nothing reads, is gone. Ask who delivers it what has changed,"
        " and map the column anew"
    )
    _, retyped = make(shop=log([1.0], value=["1.5"], note=["a"]))
    (found,) = columns(SPEC, retyped, then)
    assert (found.level, found.message.partition(". ")[0]) == ("fail", "'value' was number and is text")
    _, more = make(shop=log([1.0], value=[2], note=["a"], colour=["red"]))
    (found,) = columns(SPEC, more, then)
    assert (found.level, found.message) == ("warn", "'colour' is new"), "whole numbers for floats are no other kind"
    assert [one.level for one in columns(spec(columns="warn"), fewer, then)] == ["warn"]
    assert columns(spec(columns=None), fewer, then) == []


# The model's age, the customers.


@pytest.mark.parametrize(("age", "level"), [(90, "pass"), (91, "warn"), (-1, "warn")])
def test_the_age_of_a_model(age: int, level: str) -> None:
    found = model_age(SPEC, AS_OF - age * DAY, AS_OF)
    assert (found.level, found.value, found.exit_code) == (level, age, 5)


def test_an_old_model_and_one_of_the_future_are_told() -> None:
    strict = spec(model_age={"fail": "180d"})
    found = model_age(strict, AS_OF - 181 * DAY, AS_OF)
    assert (found.level, found.message) == (
        "fail",
        "the model's training ended 181 day(s) before this night. Train anew",
    )
    assert model_age(strict, AS_OF - 100 * DAY, AS_OF).level == "warn", "the other level stays"
    assert model_age(SPEC, AS_OF + 2 * DAY, AS_OF).message == (
        "the model was trained on 2 day(s) after this night: it has seen what it is to predict. Do not judge the model"
        " by such nights"
    )
    assert model_age(SPEC, None, AS_OF).level == "pass"


@pytest.mark.parametrize(
    ("customers", "level"), [(500, "pass"), (475, "pass"), (474, "warn"), (399, "fail"), (5000, "pass"), (19, "fail")]
)
def test_the_number_of_customers(customers: int, level: str) -> None:
    found = cohort(SPEC, customers, earlier())
    assert (found.name, found.level, found.exit_code) == ("customers", level, 5)


def test_few_and_missing_customers_are_told() -> None:
    assert cohort(SPEC, 19, None).message == (
        "19 customer(s) to score, fewer than gates.customers.fewest 20. Check --as-of and that the sources hold whole"
        " histories"
    )
    assert cohort(SPEC, 250, earlier()).message == (
        "250 customers, 500 on 2024-05-31 (-50%). Customers are missing: is an export incomplete, or are ids written"
        " otherwise?"
    )
    assert cohort(SPEC, 20, None).level == "pass"
    assert cohort(spec(customers={"fewest": 1, "fail": None, "warn": None}), 1, earlier()).level == "pass"


# All together.


def test_half_of_a_source_missing_fails_the_night(make: Callable[..., tuple[Config, Store]]) -> None:
    whole = log([day % 300 + 0.5 for day in range(600)])
    config, store = make(shop=whole)
    then = AS_OF - DAY
    before = Earlier("2024-05-31", then, {"shop": activity(store, then, None)["shop"].visible}, described(store), 600)
    assert {one.level for one in preflight(config.gates, store, activity(store, AS_OF, then), before, then, AS_OF)} == {
        "pass"
    }
    config, store = make(shop=whole[::2])
    verdicts = preflight(config.gates, store, activity(store, AS_OF, then), before, then, AS_OF)
    assert [one.name for one in verdicts if one.level == "fail"] == ["rows:shop"]
    json.dumps([one.as_json() for one in verdicts], allow_nan=False)


FAILED = [
    GateVerdict("rows:shop", "fail", 0.5, 0.2, "half is gone", 5),
    GateVerdict("customers", "warn", 0.1, 0.05, "a tenth is gone", 5),
    GateVerdict("drift:features", "fail", 2.0, 0.25, "a channel is gone", 5),
]


def test_all_that_failed_is_told_at_once() -> None:
    with pytest.raises(GateError) as error:
        require(FAILED)
    assert error.value.exit_code == 5
    assert str(error.value) == (
        "The night is not published; the last one stays current. What did not pass:"
        "\n  - rows:shop: half is gone"
        "\n  - drift:features: a channel is gone"
        "\nIf this is as it should be, publish this one night with --accept rows:shop --accept drift:features;"
        " docs/gates.md tells of each gate."
    )


def test_data_comes_before_quality() -> None:
    with pytest.raises(DataError) as error:
        require([*FAILED, GateVerdict("freshness:shop", "fail", 9.0, 7.0, "silent", 3)])
    assert error.value.exit_code == 3
    require([one for one in FAILED if one.level != "fail"])


def test_what_a_person_accepts_only_warns() -> None:
    found = accept(FAILED, {"rows:shop", "drift:features"})
    assert [one.level for one in found] == ["warn"] * 3
    assert found[0].message == "half is gone (accepted for this night)"
    assert accept(FAILED, {"customers"})[0].level == "fail"
    require(found)


def publish(out: Path, day: str, folder: str, started: float, rows: int, *, success: bool = True) -> None:
    night = out / f"as_of={day}" / folder
    night.mkdir(parents=True)
    observed = {"rows": {"shop": rows}, "columns": {}, "customers": 7}
    (night / "MANIFEST.json").write_text(json.dumps({"as_of": f"{day}T00:00:00+00:00", "observed": observed}))
    (night / "run.json").write_text(json.dumps({"started": started}))
    if success:
        (night / "_SUCCESS").touch()


def test_the_night_before_is_the_newest_one_that_was_published(tmp_path: Path) -> None:
    assert earlier_night(tmp_path, AS_OF) is None
    publish(tmp_path, "2024-05-29", "aa", 3.0, 1)
    publish(tmp_path, "2024-05-30", "aa", 1.0, 2)
    publish(tmp_path, "2024-05-30", "bb", 2.0, 3)
    publish(tmp_path, "2024-05-31", "aa", 4.0, 4, success=False)
    publish(tmp_path, "2024-05-31", "bb", 4.0, 4)
    (tmp_path / "as_of=2024-05-31" / "bb" / "MANIFEST.json").write_text("{")
    publish(tmp_path, "2024-06-01", "aa", 5.0, 5)
    found = earlier_night(tmp_path, AS_OF)
    assert found == Earlier("2024-05-30", AS_OF - 2 * DAY, {"shop": 3}, {}, 7), (
        "not the same night, nor a torn or a damaged one"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows": {"warn": 0.5}}, "warn comes before fail"),
        ({"drift": {"warn": 0.3}}, "warn comes before fail"),
        ({"freshness": {"warn": "3d", "fail": "1d"}}, "warn comes before fail"),
        ({"model_age": {"warn": "90d", "fail": "30d"}}, "warn comes before fail"),
        ({"customers": {"fewest": 0}}, "fewest"),
        ({"sources": {"shp": {}}}, "there is no source 'shp'. Did you mean 'shop'?"),
        ({"columns": "ignore"}, "columns"),
        ({"drifts": {}}, "unknown key 'drifts'. Did you mean 'drift'?"),
    ],
)
def test_gates_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    document = {
        "name": "gates", "time_zone": "UTC", "history_from": "2023-01-01", "sources": {"shop": {"path": "a.csv"}},
        "journey": {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]}, "gates": settings,
    }  # fmt: skip
    with pytest.raises((ConfigError, ValueError), match=words.replace("?", r"\?").replace(".", r"\.")):
        Config.model_validate(document)
