"""Did it work? Known effects of a simulated campaign are found, none is found where there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.report.test_page import night as page_of
from tests.trained import SETTINGS, call

from cvj_ml.commands.measure import add_to_history, below_floor, read_past
from cvj_ml.commands.night_gates import Gatekeeper
from cvj_ml.config import DAY, Config, load_config
from cvj_ml.customers import People
from cvj_ml.errors import DataError
from cvj_ml.gates.verdicts import GateVerdict
from cvj_ml.inputs import open_histories
from cvj_ml.journey import Journey
from cvj_ml.lists.ranking import rank
from cvj_ml.measurement.effects import (
    difference,
    effect_words,
    forecast_words,
    lift,
    observed_over_expected,
    score_words,
    top_share,
    wilson,
)
from cvj_ml.measurement.outcomes import PastList, listings, untouched
from cvj_ml.models.bundle.bundle import ModelEvidence
from cvj_ml.models.bundle.forecast_errors import NO_ERRORS, Errors, ForecastErrors, expected_moves
from cvj_ml.night.reading import first_listed, listed_in_control, published_lists
from cvj_ml.night.writing import publish
from cvj_ml.ownership import claim
from cvj_ml.report.list_files import write_night
from cvj_ml.report.plan import plan_of
from cvj_ml.report.workbook import BookFacts
from cvj_ml.run import Silent
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.simulate import Simulation, simulate
from cvj_ml.windows import midnight, to_datetime

UTC = ZoneInfo("UTC")
NIGHT = midnight(date(2024, 7, 19), UTC)
HORIZON = 30 * DAY
LIST = "engage__subscribe__30d"

# Effects.


def test_intervals_are_those_of_the_literature() -> None:
    """Newcombe 1998, table II, method 10, and his examples of Wilson's interval (81 of 263, 0 of 20)."""
    found = difference(56, 70, 48, 80)
    assert (found.estimate, round(found.low, 4), round(found.high, 4)) == (pytest.approx(0.2), 0.0524, 0.3339)
    found = difference(9, 10, 3, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (0.1705, 0.8090)
    found = difference(10, 10, 0, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (0.6075, 1.0000)
    assert [round(x, 4) for x in (wilson(81, 263).low, wilson(81, 263).high)] == [0.2553, 0.3662]
    assert [round(x, 4) for x in (wilson(0, 20).low, wilson(0, 20).high)] == [0.0, 0.1611]
    assert np.isnan(difference(0, 0, 1, 2).low)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of the difference, of observed over expected with weights, and of the lift: 95 % within three errors."""
    rng = np.random.default_rng(5)
    draws, held = 600, np.zeros(3)
    for _ in range(draws):
        converted = rng.binomial([800, 150], [0.12, 0.08])
        found = difference(converted[0], 800, converted[1], 150)
        held[0] += found.low <= 0.04 <= found.high
        p = rng.beta(1, 6, 1500)
        y = (rng.random(1500) < 1.3 * p.clip(max=0.7)).astype(float)
        w = np.where(rng.random(1500) < 0.3, 5.0, 1.0)
        found = observed_over_expected(p, y, w)
        truth = 1.3 * (w @ p.clip(max=0.7)) / (w @ p)
        held[1] += found.low <= truth <= found.high
        top = p > 0.25
        found = lift(y, w, top)
        found_truth = 1.3 * p.clip(max=0.7)
        held[2] += found.low <= (w[top] @ found_truth[top] / w[top].sum()) / (w @ found_truth / w.sum()) <= found.high
    assert np.all(np.abs(held / draws - 0.95) < 3 * np.sqrt(0.05 * 0.95 / draws) + 0.01), held / draws


def test_where_nobody_moved_there_is_still_an_upper_end() -> None:
    p, w, nobody = np.full(100, 0.2), np.ones(100), np.zeros(100)
    found = observed_over_expected(p, nobody, w)
    assert (found.estimate, found.low, round(found.high, 4)) == (0, 0, round(3.6889 / 20, 4))
    assert np.isnan(lift(nobody, w, p > 0).estimate)
    top = np.arange(100) < 20
    found = lift(np.where(top, 0.0, 1.0), w, top)
    assert (found.estimate, found.low, found.high) == (0, 0, pytest.approx(wilson(0, 20).high / 0.8))


def test_the_likeliest_share_is_cut_as_a_list_is() -> None:
    chosen = top_share(np.array([0.5, 0.2, 0.5, 0.5]), ["d", "a", "b", "c"], 0.5)
    assert chosen.tolist() == [False, False, True, True]
    assert top_share(np.array([0.1]), ["a"], 0.05).tolist() == [True]


# Past nights of a simulated business. Scores are the true probabilities, so what is wrong can only be the measuring.


def settings_in(folder: Path, **changes: Any) -> Path:
    file = folder / "c.yaml"
    base = {name: value for name, value in SETTINGS.items() if name not in ("attributes", "stage_value")}
    lists = [{"from": "Engage", "to": "Subscribe", "horizon": "30d"}]
    control = {"share": 0.5, "salt": "s", "epoch": "year"}
    whole = {"list_size": {"least": 0}}  # everybody of the stage is listed, in one group or the other
    file.write_text(yaml.safe_dump({**base, "lists": lists, "control": control, **whole, **changes}))
    return file


def scores_of(business: Simulation, as_of: int, reverse: bool = False) -> pa.Table:
    stages = np.array(["Aware", "Engage", "Subscribe", "Convert", "Excite", "Ascend", "Advocate", "Promote", None])
    ids = np.sort(business.customers["customer_id"].unique())
    stage = business.true_stage(as_of)
    reach = business.true_reach(as_of, [HORIZON])[:, :, 0]
    reach = np.where(np.arange(8) > stage[:, None], 0.9 - reach if reverse else reach, np.nan)
    here = stage >= 0
    columns: dict[str, Any] = {
        "customer_id": ids[here],
        "as_of": pa.array(np.full(here.sum(), as_of)).cast(pa.timestamp("us", tz="UTC")),
        "stage": stages[stage][here],
        "dormant": np.arange(here.sum()) % 3 == 0,
        "active": np.arange(here.sum()) % 3 == 1,
        "p_churn_30d": np.linspace(0.2, 0.8, here.sum()),
        "p_purchase_30d": np.linspace(0.1, 0.3, here.sum()),
        "low_evidence": pa.array([[]] * int(here.sum()), pa.list_(pa.string())),
        "model_version": ["0123456789ab"] * int(here.sum()),
    }
    slugs = ("aware", "engage", "subscribe", "convert", "excite", "ascend", "advocate", "promote")
    columns |= {f"p_reach_{slug}_30d": pa.array(reach[here, j], from_pandas=True) for j, slug in enumerate(slugs) if j}
    return pa.table(columns)


def publish_past(
    config: Config, business: Simulation, as_of: int, reverse: bool = False, errors: ForecastErrors = NO_ERRORS
) -> pd.DataFrame:
    """Publish a night as the command does, but with the true probabilities; return its first list."""
    scores = scores_of(business, as_of, reverse)
    known = ModelEvidence(forecast_errors=errors)
    lists = rank(config, StoredTable.of(scores), Journey(config.journey), as_of, known)
    people = People()
    day = to_datetime(as_of, UTC).date().isoformat()
    file = Path(config.out) / f"{day}.parquet"
    claim(file.parent)
    pq.write_table(scores, file)

    def write(staged: Path) -> Mapping[str, int]:
        facts = BookFacts(day, plan_of(config, lists, as_of, 0, {}), page_of().worksheet)
        return write_night(staged, file, lists, people, facts)

    facts = {"as_of": to_datetime(as_of, UTC).isoformat()}
    publish(Path(config.out), day, "0" * 64, facts, lambda: {"started": 1.0}, write)
    return lists[0].rows.to_pandas()


def measure(file: Path, until: int) -> tuple[int, dict[str, Any]]:
    run = call("measure", file, "--until", to_datetime(until, UTC).isoformat(), "--json")
    assert run.code in (0, 5), run.err
    return run.code, json.loads(run.out)


def business() -> Simulation:
    return simulate(3000, seed=1, days=260)


@pytest.mark.parametrize("factor", [2.5, 1.0])
def test_a_known_effect_is_found_and_none_where_there_is_none(tmp_path: Path, factor: float) -> None:
    """Silent errors 23 and 24: whoever was contacted, and no score is blamed for a good campaign."""
    past = business()
    config = load_config(settings_in(tmp_path))
    listed = publish_past(config, past, NIGHT)
    target = listed.loc[listed["group"] == "target", "customer_id"]
    # Reachable people move more anyway, and they alone are treated: comparing those contacted would not do.
    ids = np.sort(past.customers["customer_id"].unique())
    after = past.treat(target, NIGHT, 30, factor)
    after.write(tmp_path)
    code, done = measure(tmp_path / "c.yaml", NIGHT + HORIZON + 2 * DAY)
    assert code == 0
    (row,) = done["rows"]
    inside = np.isin(ids, target)
    uplift = after.true_reach(NIGHT, [HORIZON], factor) - after.true_reach(NIGHT, [HORIZON])
    truth = float(uplift[inside, 2, 0].mean())
    assert row["target_n"] + row["control_n"] == len(listed) and row["not_judged"] == 0
    assert row["difference_low"] <= truth <= row["difference_high"]
    told = call("measure", tmp_path / "c.yaml", "--until", to_datetime(NIGHT + HORIZON + 2 * DAY, UTC).isoformat()).out
    if factor > 1:
        assert truth > 0.1 and row["difference_low"] > 0
        assert "It helped: " in told
    else:
        assert truth == 0 and row["difference_low"] < 0 < row["difference_high"]
        assert "No effect is shown: " in told
    # Judged on control alone, since everybody else of the stage is in the target group.
    assert row["untouched_n"] == row["control_n"]
    assert row["observed_over_expected_low"] < 1 < row["observed_over_expected_high"]
    assert row["lift_10pct_low"] > 1
    merged = listed.merge(pd.DataFrame({"customer_id": ids, "later": after.true_stage(NIGHT + HORIZON)}))
    treated = merged[merged["group"] == "target"]
    naive = (treated["later"] >= 2).sum() / treated["probability"].sum()
    assert (naive > 1.4) == (factor > 1), "what the scores would be blamed for"


def test_effects_of_several_campaigns_lie_in_their_intervals() -> None:
    truths, found = [], []
    for seed in range(8):
        past = simulate(700, seed=seed, days=160)
        as_of = midnight(date(2024, 4, 29), UTC)
        ids = np.sort(past.customers["customer_id"].unique())
        target = np.random.default_rng(seed).random(len(ids)) < 0.7
        after = past.treat(ids[target], as_of, 30, 3.0)
        here = past.true_stage(as_of) == 1
        converted = after.true_stage(as_of + HORIZON) >= 2
        uplift = after.true_reach(as_of, [HORIZON], 3.0) - after.true_reach(as_of, [HORIZON])
        truths.append(uplift[here & target, 2, 0].mean())
        arms = [converted[here & arm] for arm in (target, ~target)]
        found.append(difference(arms[0].sum(), len(arms[0]), arms[1].sum(), len(arms[1])))
    assert sum(one.low <= truth <= one.high for one, truth in zip(found, truths, strict=True)) >= 7
    assert np.mean([one.estimate for one in found]) == pytest.approx(np.mean(truths), abs=0.04)


def test_a_horizon_counts_from_the_instant_on_at_which_it_is_over(tmp_path: Path) -> None:
    """Silent error 2, and the history: a second measurement changes no byte, an earlier one takes nothing back."""
    past = business()
    config = load_config(settings_in(tmp_path))
    past.write(tmp_path)
    publish_past(config, past, NIGHT)
    end = NIGHT + HORIZON + 2 * DAY  # arrival_delay is two days
    code, early = measure(tmp_path / "c.yaml", end - 1)
    assert (code, early["rows"], early["waiting"]) == (0, [], 1)
    assert not Path(early["history"]).exists()
    told = call("measure", tmp_path / "c.yaml", "--until", "2024-08-01")
    assert told.out == "Nothing to measure yet: 1 published list(s) wait for the end of their horizon.\n"
    _, done = measure(tmp_path / "c.yaml", end)
    (row,) = done["rows"]
    assert (row["list"], row["epoch"], row["night"]) == (LIST, "2024-year-1", "2024-07-19T00:00:00+00:00")
    history = Path(done["history"])
    first = {path.name: path.read_bytes() for path in history.parent.iterdir()}
    assert first.keys() == {f"{name}.{kind}" for name in ("history", "by_play") for kind in ("parquet", "csv")}
    measure(tmp_path / "c.yaml", end)
    assert {path.name: path.read_bytes() for path in history.parent.iterdir()} == first
    publish_past(config, past, NIGHT + 7 * DAY)
    _, again = measure(tmp_path / "c.yaml", end + 7 * DAY)
    assert [one["night"][:10] for one in again["rows"]] == ["2024-07-19", "2024-07-26"]
    newest = history.read_bytes()
    measure(tmp_path / "c.yaml", end)
    assert history.read_bytes() == newest
    assert len(pd.read_parquet(history)) == 2


def test_each_customer_counts_once_from_the_first_listed_night_on(tmp_path: Path) -> None:
    past = business()
    config = load_config(settings_in(tmp_path))
    past.write(tmp_path)
    nights = [publish_past(config, past, NIGHT + k * 7 * DAY) for k in range(3)]
    _, done = measure(tmp_path / "c.yaml", NIGHT + 44 * DAY + 2 * DAY)
    everybody = pd.concat(nights).drop_duplicates("customer_id")
    assert [row["target_n"] + row["control_n"] for row in done["rows"]] == [
        pd.concat(nights[: k + 1])["customer_id"].nunique() for k in range(3)
    ]
    last = done["rows"][-1]
    assert last["control_n"] == (everybody["group"] == "control").sum()
    ids = np.sort(past.customers["customer_id"].unique())
    expected = 0
    for k, night in enumerate(nights):
        before = set(pd.concat(nights[:k])["customer_id"]) if k else set()
        new = night[~night["customer_id"].isin(before) & (night["group"] == "target")]["customer_id"]
        later = past.true_stage(NIGHT + k * 7 * DAY + HORIZON) >= 2
        expected += int(later[np.isin(ids, new)].sum())
    assert last["target_moved"] == expected


def test_contacts_are_those_within_the_horizon(tmp_path: Path) -> None:
    past = business()
    config = load_config(settings_in(tmp_path))
    past.write(tmp_path)
    listed = publish_past(config, past, NIGHT)
    _, done = measure(tmp_path / "c.yaml", NIGHT + HORIZON + 2 * DAY)
    log = past.touchpoints
    begins, ends = (pd.Timestamp(at, unit="us", tz="UTC") for at in (NIGHT, NIGHT + HORIZON))
    sent = log[log["event"].isin(SETTINGS["outbound"]) & (log["occurred_at"] >= begins) & (log["occurred_at"] < ends)]
    for arm in ("target", "control"):
        people = listed.loc[listed["group"] == arm, "customer_id"]
        assert done["rows"][0][f"{arm}_contacted"] == pytest.approx(people.isin(sent["customer_id"]).mean())
        assert 0.1 < done["rows"][0][f"{arm}_contacted"] < 0.9


ERRORS = ForecastErrors(
    ("2024-01-01T00:00:00+00:00",), (Errors("Engage", "Subscribe", 30, 0, (90.0,) * 5, (95,) * 5, 0.05),)
)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_forecast_is_held_against_the_control_group(tmp_path: Path, reverse: bool) -> None:
    """True probabilities hold; reversed ones expect far more than come."""
    past = business()
    config = load_config(settings_in(tmp_path))
    past.write(tmp_path)
    listed = publish_past(config, past, NIGHT, reverse, ERRORS)
    _, done = measure(tmp_path / "c.yaml", NIGHT + HORIZON + 2 * DAY)
    (row,) = done["rows"]
    control = listed[listed["group"] == "control"]
    ids = np.sort(past.customers["customer_id"].unique())
    moved = (past.true_stage(NIGHT + HORIZON) >= 2)[np.isin(ids, control["customer_id"])].sum()
    assert (row["listed"], row["past_folds"]) == (len(listed), 5)
    assert row["expected_moves"] == pytest.approx(listed["probability"].sum())
    assert row["control_scaled"] == pytest.approx(2 * moved)  # control.share is a half
    p = control["probability"].to_numpy()
    for (low, high), level in zip(expected_moves(p, 5, 0.05).ranges, (80, 95), strict=True):
        found = row[f"control_scaled_low_{level}"], row[f"control_scaled_high_{level}"]
        assert found == (pytest.approx(2 * low), pytest.approx(2 * high))
    words = forecast_words(row)
    assert words.startswith(f"Forecast for the {len(listed):,} listed, going on as before: ")
    assert f"Control, scaled to all of them, makes {2 * moved:,}: " in words
    assert ("the forecast was too high" if reverse else "the forecast held") in words
    shown = call("measure", tmp_path / "c.yaml", "--until", to_datetime(NIGHT + HORIZON + 2 * DAY, UTC).isoformat())
    assert words in shown.out


def test_a_forecast_that_ten_people_cannot_tell_of_has_not_held() -> None:
    """Silent error 197: twice as many as expected lie within what so small a control group makes by chance."""
    expected = {"listed": 100, "expected_moves": 15.0, "past_folds": 5, "kind": "move", "outcome": "reach"}
    row = expected | {
        f"expected_moves_{side}_{level}": n for level in (80, 95) for side, n in (("low", 11), ("high", 18))
    }
    small = row | {"control_scaled": 30.0}
    small |= {f"control_scaled_{side}_{level}": n for level in (80, 95) for side, n in (("low", 0), ("high", 30))}
    assert "makes 30: nothing speaks against the forecast, and so few can hardly tell." in forecast_words(small)
    large = row | {"control_scaled": 16.0}
    large |= {f"control_scaled_{side}_{level}": n for level in (80, 95) for side, n in (("low", 10), ("high", 20))}
    assert "makes 16: the forecast held." in forecast_words(large)


def test_a_forecast_without_a_range_or_control_says_so(tmp_path: Path) -> None:
    past = business()
    config = load_config(settings_in(tmp_path, control={"share": 0.0, "salt": "s", "epoch": "year"}))
    past.write(tmp_path)
    publish_past(config, past, NIGHT)
    _, done = measure(tmp_path / "c.yaml", NIGHT + HORIZON + 2 * DAY)
    words = forecast_words(done["rows"][0])
    assert words.endswith("(no interval: no past folds). Nobody in control can tell whether it held.")
    assert forecast_words({"list": "of a night from before"}) == ""


def test_scores_that_mislead_end_with_5_and_are_kept(tmp_path: Path) -> None:
    past = business()
    file = settings_in(tmp_path, measure={"min_converted": 10})
    past.write(tmp_path)
    publish_past(load_config(file), past, NIGHT, reverse=True)
    run = call("measure", file, "--until", "2024-08-20")
    assert run.code == 5
    assert "error: The scores of past nights are surely worse than the floor (measure:); train anew:" in run.err
    assert f"{LIST}, 2024-07-19: the likeliest tenth moved 0." in run.err and "below min_lift 1" in run.err
    assert "off by more than max_miscalibration 2" in run.err
    assert (tmp_path / "out" / "measure" / "history.parquet").exists()
    lenient = settings_in(tmp_path, measure={"min_converted": 10_000})
    assert call("measure", lenient, "--until", "2024-08-20").code == 0


def test_every_night_asks_whether_past_scores_came_true(tmp_path: Path) -> None:
    """Silent error 73: a model that is plainly wrong published night after night; nobody had to call `measure`."""
    past = business()
    levels = {"quality": {"warn": 1.2, "fail": 1.5}}
    config = load_config(settings_in(tmp_path, measure={"min_converted": 10}, gates=levels))
    past.write(tmp_path)
    histories = open_histories(config, Silent())

    def asked(as_of: int, version: str = "0123456789ab") -> list[GateVerdict]:
        return Gatekeeper(histories, as_of, {}, None, {}).quality(version)

    over = NIGHT + HORIZON + 2 * DAY
    assert [one.name for one in asked(over)] == ["quality"] and asked(over)[0].level == "pass"
    publish_past(config, past, NIGHT)
    assert {one.level for one in asked(over)} == {"pass"}, "true probabilities come true"
    publish_past(config, past, NIGHT + DAY, reverse=True)
    assert {one.level for one in asked(over)} == {"pass"}, "its horizon is not over, so the night before is asked"
    (found,) = asked(over + DAY)
    assert (
        (found.name, found.level, found.exit_code) == (f"quality:{LIST}", "fail", 5)
        and found.value is not None
        and found.value > 1.5
    )
    assert "customers" not in found.message and "surely off by a factor of" in found.message
    assert asked(over + DAY, "of another model")[0].level == "warn", "a model of today has nothing to put right"
    lenient = load_config(settings_in(tmp_path, gates={"quality": {"warn": None, "fail": None}}))
    quiet = open_histories(lenient, Silent())
    assert Gatekeeper(quiet, over + DAY, {}, None, {}).quality("0123456789ab") == []


def test_only_the_last_night_of_a_list_is_held_against_the_floor(tmp_path: Path) -> None:
    row = {
        "list": "a", "night": "2024-01-01", "untouched_moved": 50, "untouched_expected": 9.0,
        "lift_10pct": 0.5, "lift_10pct_high": 0.9,
        "observed_over_expected": 3.0, "observed_over_expected_low": 2.5, "observed_over_expected_high": 3.5,
    }  # fmt: skip
    good = {**row, "night": "2024-02-01", "lift_10pct_high": 1.1, "observed_over_expected_low": 1.9}
    config = load_config(settings_in(tmp_path))
    assert len(below_floor(config, pd.DataFrame([good, row]))) == 2
    assert below_floor(config, pd.DataFrame([row, good])) == []
    assert below_floor(config, pd.DataFrame([{**row, "untouched_moved": 29}])) == []
    assert len(below_floor(config, pd.DataFrame([{**row, "untouched_moved": 2, "untouched_expected": 30.0}]))) == 2
    assert below_floor(config, pd.DataFrame()) == []
    lost = below_floor(config, pd.DataFrame([{**row, "kind": "at_risk", "outcome": "kept"}]))
    assert "tenth were lost 0.50 times" in lost[0] and "3.00 customers were lost for each" in lost[1]


def past_list(as_of: int, epoch: str, rows: dict[str, Sequence[Any]], share: float = 0.25) -> PastList:
    scored = pd.DataFrame(rows).assign(probability=0.1)
    scored["control_share"] = np.where(scored["group"].isna(), np.nan, share)
    return PastList("a__b__30d", "A", "B", HORIZON, epoch, as_of, "m", scored)


def test_weights_of_those_whom_lists_left_alone() -> None:
    tonight = past_list(0, "q1", {"customer_id": list("abcd"), "group": [None, "target", "control", None]})
    soon = past_list(29 * DAY, "q2", {"customer_id": list("acd"), "group": ["target", "control", None]})
    late = past_list(30 * DAY, "q2", {"customer_id": list("ad"), "group": ["target", "target"]})
    before = past_list(-29 * DAY, "q1", {"customer_id": list("cd"), "group": ["control", "control"]})
    long_ago = past_list(-30 * DAY, "q1", {"customer_id": list("d"), "group": ["target"]})
    assert untouched(tonight, listings([tonight])).tolist() == [1, 0, 4, 1]
    assert untouched(tonight, listings([tonight, soon])).tolist() == [0, 0, 16, 1]
    assert untouched(tonight, listings([late, long_ago, tonight])).tolist() == [1, 0, 4, 1]
    assert untouched(tonight, listings([before, tonight])).tolist() == [1, 0, 4, 4]


def test_leaving_out_the_treated_does_not_choose_by_outcome() -> None:
    """Silent error 24: who wakes up is listed next week, so the unlisted alone would look worse than predicted."""
    rng = np.random.default_rng(2)
    size = 40_000
    active = rng.random(size) < 0.3
    control = rng.random(size) < 0.25
    untreated = rng.random(size) < np.where(active, 0.4, 0.05)
    converted = untreated | (active & ~control & (rng.random(size) < 0.5))
    ids = [f"c{i}" for i in range(size)]
    tonight = past_list(0, "q1", {"customer_id": ids, "group": [None] * size})
    group = np.where(control, "control", "target")[active]
    later = past_list(7 * DAY, "q1", {"customer_id": np.array(ids)[active], "group": group})
    weight = untouched(tonight, listings([tonight, later]))
    found = np.average(converted, weights=weight)
    assert found == pytest.approx(untreated.mean(), abs=0.01)
    assert converted.mean() > untreated.mean() + 0.05
    assert converted[~active].mean() < untreated.mean() - 0.05


def test_of_several_nights_of_one_date_the_youngest_counts(tmp_path: Path) -> None:
    for name, started, lists in (("a", 3.0, True), ("b", 2.0, True), ("c", 9.0, False)):
        folder = tmp_path / "as_of=2024-01-01" / name
        (folder / "targets").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"started": started}))
        (folder / "_SUCCESS").touch()
        if lists:
            (folder / "targets" / "summary.parquet").touch()
    unfinished = tmp_path / "as_of=2024-01-02" / "d"
    unfinished.mkdir(parents=True)
    assert published_lists(tmp_path) == [tmp_path / "as_of=2024-01-01" / "a"]


def test_a_damaged_night_is_told(tmp_path: Path) -> None:
    past = business()
    config = load_config(settings_in(tmp_path))
    publish_past(config, past, NIGHT)
    other = load_config(settings_in(tmp_path, journey="journey5", lists=[]))
    with pytest.raises(DataError, match="names Engage, Subscribe, which the configuration's journey does not"):
        read_past(other)
    (night,) = Path(config.out).glob("as_of=*/*")
    scores = pq.read_table(night / "scores" / "scores.parquet", partitioning=None)
    lost = [one for one in scores.column_names if one.startswith("p_reach_")]
    pq.write_table(scores.drop_columns(lost), night / "scores" / "scores.parquet")
    with pytest.raises(DataError, match="its scores have no column p_reach_subscribe_30d, so the night is damaged"):
        read_past(config)


def test_nights_of_hindsight_are_counted_and_left_out(tmp_path: Path) -> None:
    """Silent error 176: a model that had seen what followed is right about it, and its lists contacted nobody."""
    past = business()
    file = settings_in(tmp_path)
    config = load_config(file)
    for night in (NIGHT, NIGHT + 7 * DAY):
        publish_past(config, past, night)
    past.write(tmp_path)
    assert len(published_lists(Path(config.out))) == 2
    first = min(Path(config.out).glob("as_of=*/*"))
    run = json.loads((first / "run.json").read_text())
    (first / "run.json").write_text(json.dumps(run | {"gates": [{"name": "model_age", "value": -30.0}]}))
    later = NIGHT + 60 * DAY
    ran = call("measure", file, "--until", to_datetime(later, UTC).isoformat())
    assert ran.code in (0, 5) and "1 night(s) were made by a model that had seen what followed" in ran.err
    assert {one.as_of for one in read_past(config)} == {NIGHT + 7 * DAY}
    held = listed_in_control(config, NIGHT + 8 * DAY)
    assert {*held["as_of"].cast(pa.int64()).to_pylist()} <= {NIGHT + 7 * DAY}
    assert set(first_listed(config, NIGHT + 8 * DAY).values()) == {NIGHT + 7 * DAY}


def test_the_history_takes_rows_of_one_key_once(tmp_path: Path) -> None:
    def row(night: str, until: str, n: int) -> dict[str, Any]:
        return {"list": "l", "epoch": "e", "night": night, "until": until, "n": n}

    claim(tmp_path)
    file = tmp_path / "m" / "history.parquet"
    assert add_to_history(pd.DataFrame(), file).empty and not file.exists()
    add_to_history(pd.DataFrame([row("2024-01-02", "2024-03-01T00:00:00+00:00", 1)]), file)
    both = [row("2024-01-02", "2024-02-01T00:00:00+00:00", 2), row("2024-01-01", "2024-02-01T00:00:00+00:00", 3)]
    assert add_to_history(pd.DataFrame(both), file)["n"].tolist() == [3, 1]
    assert add_to_history(pd.DataFrame([row("2024-01-01", "2024-04-01T00:00:00+00:00", 4)]), file)["n"].tolist() == [
        4,
        1,
    ]


# Lists of who is leaving, or has left.


def test_a_click_on_what_we_sent_keeps_nobody() -> None:
    """Silent error 157: the effect counts who did something that counts as kept; scores are judged by what they say."""
    from cvj_ml.config import Config as Settings
    from cvj_ml.measurement.outcomes import Observation, list_outcomes, measure_lists
    from cvj_ml.simulate import random_block

    journey = Settings.model_validate(
        {
            "name": "shop",
            "time_zone": "UTC",
            "history_from": "2024-01-01",
            "sources": {"log": {"path": "log.csv"}},
            "journey": {
                "name": "short",
                "unhappy": {"setbacks": ["refund"]},
                "value": {"events": ["buy"]},
                "stages": [{"name": "Visitor", "enter": {"event": "visit"}}],
            },
        }
    ).journey
    events = ["visit", "email_click", "refund", "buy", "send"]
    block = random_block(
        customers=300, seed=3, events=events, channels=["a"], properties={}, attributes={}, outbound=["send"],
        until=NIGHT + 40 * DAY,
    )  # fmt: skip
    names = list(block.customers)
    arm = np.where(np.arange(300) % 3 == 0, "control", "target")
    scored = pd.DataFrame({"customer_id": names, "probability": 0.6, "group": arm, "control_share": 0.33})
    kinds = [("at_risk", "kept"), ("win_back", "kept"), ("win_back", "purchase")]
    lists = [
        PastList(f"l{i}", "Visitor", None, HORIZON, "q", NIGHT, "m", scored, None, kind, outcome, ("Visitor",))
        for i, (kind, outcome) in enumerate(kinds)
    ]
    observation = Observation(Journey(journey), NIGHT + 40 * DAY, 0, {}, frozenset({"email_click"}))

    class Alone:
        def map(self, function):  # type: ignore[no-untyped-def]
            return [function(block)]

    found = list_outcomes(lists, observation, Alone())  # type: ignore[arg-type]
    points, clicked = block.touchpoints, 0
    for i, name in enumerate(names):
        seen = set()
        for row in range(points.offsets[i], points.offsets[i + 1]):
            at = points.occurred_at[row]
            live = points.visible_at[row] < observation.cut <= points.superseded_at[row]
            if live and NIGHT <= at < NIGHT + HORIZON:
                seen.add(points.event.values[points.event.codes[row]])
        kept, bought = bool(seen & {"visit", "buy"}), "buy" in seen
        clicked += "email_click" in seen and not kept
        told = [tuple(one.loc[i, ["customer_id", "converted", "happened", "known"]]) for one in found]
        labelled = kept or "email_click" in seen
        assert told == [(name, kept, not labelled, True), (name, kept, labelled, True), (name, bought, bought, True)]
        assert [bool(one.loc[i, "contacted"]) for one in found] == ["send" in seen] * 3
    assert clicked > 3
    rows = measure_lists(lists, observation, Alone())  # type: ignore[arg-type]
    for row, one in zip(sorted(rows, key=lambda row: str(row["list"])), found, strict=True):
        assert row["target_moved"] == int(one["converted"][arm == "target"].sum())
        assert row["untouched_moved"] == int(one["happened"][arm == "control"].sum())
    first = next(row for row in rows if row["list"] == "l0")
    assert "in the target group stayed" in effect_words(first) and "were lost for each one expected" in score_words(
        first
    )


def test_past_lists_of_the_leaving_and_of_those_who_left_are_measured(tmp_path: Path) -> None:
    """Through the command: whom the night's own scores say that they are of, by what the raw log says came after."""
    past = business()
    stages = ["Engage", "Subscribe", "Convert"]
    lists = [{kind: {"stages": stages}, "horizon": "30d"} for kind in ("at_risk", "win_back")]
    config = load_config(settings_in(tmp_path, lists=lists, eligibility={"recent_contact": None, "unhappy": None}))
    publish_past(config, past, NIGHT)
    past.write(tmp_path)
    risk, back = read_past(config)
    scores = scores_of(past, NIGHT).to_pandas()
    here = scores["stage"].isin(stages)
    assert risk.scored["customer_id"].tolist() == scores.loc[here & scores["active"], "customer_id"].tolist()
    assert back.scored["customer_id"].tolist() == scores.loc[here & scores["dormant"], "customer_id"].tolist()
    probabilities = scores.set_index("customer_id")
    for one, column in ((risk, "p_churn_30d"), (back, "p_purchase_30d")):
        assert one.scored["probability"].tolist() == probabilities.loc[one.scored["customer_id"], column].tolist()
    code, done = measure(tmp_path / "c.yaml", NIGHT + HORIZON + 3 * DAY)
    assert code in (0, 5)
    log = pq.read_table(tmp_path / "touchpoints.parquet").to_pandas()
    instants = log["occurred_at"].astype("int64") // (1000 if str(log["occurred_at"].dtype).find("ns") > 0 else 1)
    log = log[(instants >= NIGHT) & (instants < NIGHT + HORIZON)]
    outbound, clicks = {"email_sent", "ad_impression"}, {"email_click", "ad_click", "email_open"}
    setbacks = {"refund", "cancellation", "order_cancelled", "chargeback"}
    kept = set(log.loc[~log["event"].isin(outbound | clicks | setbacks), "customer_id"])
    bought = set(log.loc[log["event"] == "purchase", "customer_id"])
    for row, one, happened in zip(done["rows"], (risk, back), (kept, bought), strict=True):
        listed = one.scored.dropna(subset="group")
        for arm in ("target", "control"):
            names = listed.loc[listed["group"] == arm, "customer_id"]
            assert row[f"{arm}_n"] == len(names) > 50
            assert row[f"{arm}_moved"] == sum(name in happened for name in names)
    assert [(row["kind"], row["outcome"]) for row in done["rows"]] == [("at_risk", "kept"), ("win_back", "purchase")]
    told = call("measure", tmp_path / "c.yaml", "--until", to_datetime(NIGHT + HORIZON + 3 * DAY, UTC).isoformat()).out
    assert "At risk: Engage, Subscribe, Convert, 30 days" in told and "in the target group stayed" in told
    assert "Win back: Engage, Subscribe, Convert, 30 days" in told and "bought again" in told
