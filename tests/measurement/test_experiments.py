"""Past nights as experiments: counted against plain loops, and what they teach found where it is, and only there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.measurement.test_measure import NIGHT, UTC, publish_past, settings_in
from tests.trained import SETTINGS

from cvj_ml.commands.contact_effects import ContactEffects, learn_contact_effects
from cvj_ml.config import DAY, load_config
from cvj_ml.errors import ConfigError
from cvj_ml.evaluation.bootstrap import draw_keys
from cvj_ml.inputs import open_histories
from cvj_ml.measurement.effects import difference
from cvj_ml.measurement.experiments import LEFT_OUT, Experiments, experiments_of, features_before
from cvj_ml.measurement.outcomes import Observation, PastList
from cvj_ml.measurement.subgroups import arm_effects
from cvj_ml.models.uplift.list_effect import ListEffect
from cvj_ml.panel.model_spec import define
from cvj_ml.run import Silent
from cvj_ml.simulate import Simulation, simulate
from cvj_ml.windows import midnight, to_datetime

HORIZON = 14 * DAY
END = NIGHT + 90 * DAY
USUAL_GAP = 12.0
"""In days; whoever has no rhythm is active for three times as long."""
MAY = midnight(date(2024, 5, 2), UTC)


def business(seed: int = 1) -> Simulation:
    return simulate(3000, seed=seed, days=330)


def settings(folder: Path, **changes: Any) -> Path:
    lists = [{"from": "Engage", "to": "Subscribe", "horizon": "30d"}]
    control = {"share": 0.5, "salt": "s", "epoch": "quarter"}
    return settings_in(folder, **{"lists": lists, "control": control, "horizons": ["30d"], **changes})


def taught(file: Path, until: int) -> ContactEffects:
    histories = open_histories(load_config(file), Silent())
    definition = define(histories.config, histories.visible.journey, histories.engine(), until)
    usual_gap = np.full(1 + len(definition.journey.stages), USUAL_GAP)
    return learn_contact_effects(histories, definition, usual_gap, until, draw_keys(200, 1))


@pytest.mark.slow
def test_listings_are_rows_or_are_counted(tmp_path: Path) -> None:
    """Silent errors 45 and 46: the first listing of an epoch alone, and no window beyond the epoch's end."""
    past = business()
    past.write(tmp_path)
    config = load_config(settings(tmp_path))
    # The third quarter of 2024 ends on 1 October, 30 days after the last night but two; the last one is not over.
    days = [0, 10, 44, 60, 80, 85]
    nights = [NIGHT + day * DAY for day in days]
    listed = [publish_past(config, past, night) for night in nights]
    found = taught(tmp_path / "c.yaml", NIGHT + 100 * DAY).experiments
    left_out, rows = Counter[str](), dict[tuple[str, int], tuple[bool, bool]]()
    seen: dict[str, set[str]] = {}
    ids = np.sort(past.customers["customer_id"].unique())
    for night, table in zip(nights, listed, strict=True):
        epoch = str(pd.Timestamp(night, unit="us").to_period("Q"))
        ends = pd.Timestamp(night, unit="us").to_period("Q").end_time
        for customer, group in zip(table["customer_id"], table["group"], strict=True):
            if customer in seen.setdefault(epoch, set()):
                left_out["later_listing"] += 1
                continue
            seen[epoch].add(customer)
            if pd.Timestamp(night + 30 * DAY, unit="us") > ends + pd.Timedelta(1, "us"):
                left_out["epoch_end"] += 1
            elif night + 32 * DAY > NIGHT + 100 * DAY:
                left_out["not_over"] += 1
            else:
                moved = past.true_stage(night + 30 * DAY)[np.searchsorted(ids, customer)] >= 2
                rows[customer, night] = group == "target", bool(moved)
    assert {name: count for name, count in found.left_out.items() if count} == dict(left_out)
    assert {*left_out} == {"later_listing", "epoch_end", "not_over"}
    told = {(row.customer_id, row.as_of): (bool(row.treated), row.outcome == 1) for row in found.rows.itertuples()}
    assert told == rows
    assert (found.rows["propensity"] == 0.5).all()
    published = pd.concat([table.assign(night=night) for night, table in zip(nights, listed, strict=True)])
    both = found.rows.merge(published, left_on=["customer_id", "as_of"], right_on=["customer_id", "night"])
    assert (both["probability_x"] == both["probability_y"]).all(), "silent error 48: the score published that night"


@pytest.mark.slow
def test_nights_that_nobody_acted_on_and_lists_that_are_gone_teach_nothing(tmp_path: Path) -> None:
    """Silent error 48: a night filled in later was scored by a model that had seen its outcomes."""
    past = business()
    past.write(tmp_path)
    config = load_config(settings(tmp_path))
    listed = publish_past(config, past, NIGHT)
    until = NIGHT + 40 * DAY
    assert len(taught(tmp_path / "c.yaml", until).experiments.rows) == len(listed)
    # The list is retired: another one is configured, and the night's horizon is no longer predicted.
    other = [{"from": "Engage", "to": "Subscribe", "horizon": "60d"}]
    found = taught(settings(tmp_path, lists=other, horizons=["60d"]), until)
    assert (len(found.experiments.rows), found.experiments.left_out["retired"]) == (0, len(listed))
    assert found.notes and not found.learned
    settings(tmp_path)
    (run,) = Path(config.out).rglob("run.json")
    run.write_text(json.dumps({**json.loads(run.read_text()), "gates": [{"name": "model_age", "value": -3.0}]}))
    found = taught(tmp_path / "c.yaml", until)
    assert not len(found.experiments.rows) and not any(found.experiments.left_out.values()) and not found.notes


@pytest.mark.slow
def test_an_epoch_whose_control_was_drawn_anew_teaches_nothing(tmp_path: Path) -> None:
    """Silent error 164: whoever was spared first is contacted under the new salt, and counts as control."""
    past = business()
    past.write(tmp_path)
    # Two nights of the third quarter, two of the fourth; in the third one the salt changes in between.
    nights = [NIGHT + day * DAY for day in (40, 50, 75, 85)]
    assert len({pd.Timestamp(night, unit="us").to_period("Q") for night in nights}) == 2
    listed = []
    for night, salt in zip(nights, "stvv", strict=True):
        config = load_config(settings(tmp_path, control={"share": 0.2, "salt": salt, "epoch": "quarter"}))
        listed.append(publish_past(config, past, night))
    found = taught(tmp_path / "c.yaml", NIGHT + 130 * DAY).experiments
    first = {*listed[0]["customer_id"], *listed[1]["customer_id"]}
    assert found.left_out["redrawn"] == len(first)
    assert {*found.rows["as_of"]} == {*nights[2:]}
    (told,) = found.unbalanced
    assert "were in both groups, so the control group was drawn anew within the epoch" in told


@pytest.mark.slow
def test_a_change_of_the_length_of_epochs_draws_anew_and_a_first_draw_does_not(tmp_path: Path) -> None:
    past = business()
    past.write(tmp_path)
    nights = [NIGHT + day * DAY for day in (40, 50)]
    for night, epoch in zip(nights, ("quarter", "half"), strict=True):
        control = {"share": 0.2, "salt": "s", "epoch": epoch}
        publish_past(load_config(settings(tmp_path, control=control)), past, night)
    found = taught(tmp_path / "c.yaml", NIGHT + 130 * DAY).experiments
    assert found.left_out["redrawn"] > 0 and {*found.rows["as_of"]} == {nights[1]}
    other = tmp_path / "other"
    other.mkdir()
    past.write(other)
    for night, share in zip(nights, (0.0, 0.2), strict=True):
        config = load_config(settings(other, control={"share": share, "salt": "s", "epoch": "quarter"}))
        publish_past(config, past, night)
    found = taught(other / "c.yaml", NIGHT + 130 * DAY).experiments
    assert found.left_out["redrawn"] == 0 and found.left_out["no_control"] > 0


def test_features_of_a_contact_know_nothing_of_what_follows(tmp_path: Path) -> None:
    past = business()
    config = load_config(settings(tmp_path))
    listed = publish_past(config, past, NIGHT)
    rows = pd.DataFrame({"customer_id": listed["customer_id"].iloc[::-1], "as_of": NIGHT})
    found = []
    for log in (
        past.touchpoints,
        past.touchpoints[past.touchpoints["known_at"] < pd.Timestamp(NIGHT, unit="us", tz="UTC")],
    ):
        replace(past, touchpoints=log).write(tmp_path)
        histories = open_histories(load_config(tmp_path / "c.yaml"), Silent())
        definition = define(histories.config, histories.visible.journey, histories.engine(), NIGHT)
        found.append(features_before(definition, rows, histories.engine()))
    assert len(found[0]) > 100 and np.isfinite(found[0]).any(axis=1).all()
    np.testing.assert_array_equal(*found)


def log_of(folder: Path, rows: Sequence[tuple[str, str, str]], **changes: Any) -> Path:
    """Write a log of (customer, day, event) whose stage Fan is entered by a visit or a click on what was sent."""
    frame = pd.DataFrame(rows, columns=["customer_id", "occurred_at", "event"])
    frame.to_csv(folder / "log.csv", index=False)
    stages = [
        {"name": "Aware", "enter": {"event": "seen"}},
        {"name": "Fan", "enter": {"event": ["visit", "email_click"]}},
    ]
    file = folder / "c.yaml"
    columns = {name: name for name in frame.columns}
    base = {
        "name": "clicks",
        "time_zone": "UTC",
        "history_from": "2024-01-01",
        "sources": {"log": {"path": "log.csv", "columns": columns}},
        "journey": {"name": "short", "stages": stages},
        "outbound": ["mail"],
        "horizons": ["30d"],
        **changes,
    }
    file.write_text(yaml.safe_dump(base))
    return file


def observed(file: Path, groups: Sequence[str], share: float = 0.5) -> Experiments:
    histories = open_histories(load_config(file), Silent())
    customers = [f"c{i}" for i in range(len(groups))]
    listed = pd.DataFrame({"customer_id": customers, "group": groups, "control_share": share, "probability": 0.5})
    listed = listed.assign(play="write", channel="email")
    past = PastList(
        "aware__fan__30d", "Aware", "Fan", 30 * DAY, "2024-quarter-3", NIGHT, "m", listed, stages=("Aware", "Fan")
    )
    seen = Observation(histories.visible.journey, END, 0, clicks=frozenset(["email_click"]))
    return experiments_of([past], [END], [True], seen, histories.engine())


def test_what_only_the_contacted_can_do_is_no_outcome(tmp_path: Path) -> None:
    """Silent error 44: a click on what was sent enters the stage, and is no effect of being contacted."""
    rows = [(f"c{i}", "2024-07-01", "seen") for i in range(4)]
    rows += [("c0", "2024-07-20", "mail"), ("c0", "2024-07-21", "email_click"), ("c1", "2024-07-25", "visit")]
    rows += [("c2", "2024-07-24", "email_click"), ("c2", "2024-07-26", "visit")]
    found = observed(log_of(tmp_path, rows), ["target", "control", "target", "control"])
    assert dict(zip(found.rows["customer_id"], found.rows["outcome"], strict=True)) == {
        "c0": 0,
        "c1": 1,
        "c2": 1,
        "c3": 0,
    }


def test_a_control_group_of_another_size_than_its_share_teaches_nothing(tmp_path: Path) -> None:
    rows = [(f"c{i}", "2024-07-01", "seen") for i in range(200)]
    rows += [("other", "2024-07-02", event) for event in ("visit", "email_click")]
    file = log_of(tmp_path, rows)
    found = observed(file, ["target"] * 140 + ["control"] * 60)
    assert (len(found.rows), found.left_out["unbalanced"]) == (0, 200)
    assert "60 of 200 listed are in control, where a share of 50.0%" in found.unbalanced[0]
    fair = observed(file, ["target"] * 104 + ["control"] * 96)
    assert (len(fair.rows), fair.unbalanced) == (200, ())
    without = observed(file, ["target"] * 200, share=0.0)
    assert {name: count for name, count in without.left_out.items() if count} == {"no_control": 200}
    assert {*found.left_out} == {*LEFT_OUT}


@pytest.mark.slow
@pytest.mark.parametrize("helps", [True, False])
def test_who_is_changed_by_contacts_is_learned_where_somebody_is(tmp_path: Path, helps: bool) -> None:
    """A campaign that works on half of the countries ranks the list; one that works on nobody does not."""
    past = simulate(8000, seed=3, days=420)
    config = load_config(settings(tmp_path, attributes=SETTINGS["attributes"]))
    country = (
        past.customers.sort_values("known_at").drop_duplicates("customer_id").sort_values("customer_id")["country"]
    )
    factor = np.where(country.isin(["DE", "FR", "ES"]), 6.0, 0.3) if helps else np.ones(len(country))
    ids = np.sort(past.customers["customer_id"].unique())
    for day in (0, 80, 170):
        night = NIGHT + day * DAY
        listed = publish_past(config, past, night)
        past = past.treat(listed.loc[listed["group"] == "target", "customer_id"], night, 30, factor)
    past.write(tmp_path)
    told = taught(tmp_path / "c.yaml", NIGHT + 205 * DAY)
    (one,) = told.learned
    assert one.effect.ranks == helps, told.sentences
    rows = told.experiments.rows
    assert len(rows) + sum(told.experiments.left_out.values()) > 2000
    if helps:
        assert one.last is not None
        here = np.searchsorted(ids, rows["customer_id"].to_numpy())
        histories = open_histories(load_config(tmp_path / "c.yaml"), Silent())
        definition = define(histories.config, histories.visible.journey, histories.engine(), NIGHT + 205 * DAY)
        x = features_before(definition, rows, histories.engine())
        effects = one.effect.predict(x, rows["probability"].to_numpy(dtype=float))
        responsive = factor[here] > 1
        assert effects[responsive].mean() > 0.05 > effects[~responsive].mean()
    assert to_datetime(NIGHT, UTC).year == 2024


def assignments(folder: Path, people: Sequence[tuple[str | None, int, int | None]], **changes: Any) -> Path:
    """Write a log of people with an arm (None: not in the experiment), the day of March, and that of a visit in April.

    Whoever has an arm is assigned once more, to the other one, two days later: the first assignment counts.
    """
    rows: list[tuple[str, str, str, str | None, str | None]] = []
    for i, (arm, day, visit) in enumerate(people):
        rows.append((f"c{i:05d}", "2024-02-01", "seen", None, None))
        if arm:
            rows.append((f"c{i:05d}", f"2024-03-{day:02d}", "assigned", arm, "spring"))
            rows.append(
                (f"c{i:05d}", f"2024-03-{day + 2:02d}", "assigned", "left" if arm == "mail" else "mail", "spring")
            )
        if visit:
            rows.append((f"c{i:05d}", f"2024-04-{visit:02d}", "visit", None, None))
    frame = pd.DataFrame(rows, columns=["customer_id", "occurred_at", "event", "arm", "test"])
    frame.to_csv(folder / "log.csv", index=False)
    stages = [{"name": "Aware", "enter": {"event": "seen"}}, {"name": "Fan", "enter": {"event": "visit"}}]
    base = {
        "name": "assigned",
        "time_zone": "UTC",
        "history_from": "2024-01-01",
        "sources": {"log": {"path": "log.csv", "columns": {name: name for name in frame.columns}}},
        "journey": {"name": "short", "stages": stages},
        "outbound": ["assigned"],
        "horizons": ["30d"],
        "model": {"min_customers": 5},
        "experiments": {"event": "assigned", "control": "left", "campaign": "test", "propensity": 0.25},
    }
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump({**base, **changes}))
    return file


def test_assignments_in_the_log_are_experiments(tmp_path: Path) -> None:
    people = [("mail", 1, 2), ("left", 5, None), ("mail", 10, 20), (None, 1, 3), ("left", 28, 1), ("mail", 5, None)]
    file = assignments(tmp_path, people)
    found = taught(file, midnight(date(2024, 4, 20), UTC)).experiments
    # The fifth is not followed for 30 days by 20 April; the third moves after them.
    told = {row.customer_id: (bool(row.treated), row.outcome, row.propensity) for row in found.rows.itertuples()}
    assert told == {
        "c00000": (True, 0, 0.25),  # 32 days after
        "c00001": (False, 0, 0.25),
        "c00002": (True, 0, 0.25),
        "c00005": (True, 0, 0.25),
    }
    assert {name: count for name, count in found.left_out.items() if count} == {"not_over": 1}
    assert (found.rows["list"] == "aware__fan__30d").all() and found.rows["probability"].isna().all()
    later = taught(file, MAY).experiments.rows.set_index("customer_id")["outcome"]
    assert later.to_dict() == {"c00000": 0, "c00001": 0, "c00002": 0, "c00004": 1, "c00005": 0}


def test_assignments_teach_the_lists_that_are_of_the_assigned(tmp_path: Path) -> None:
    """Silent error 180: who was active or dormant when lots were drawn, by what could be known then."""
    people = [("mail", 8, 6), ("left", 8, 7), ("mail", 9, None), ("mail", 10, 8), ("left", 10, 9)]
    stages = [{"name": "Aware", "enter": {"event": "seen"}}, {"name": "Fan", "enter": {"event": "visit"}}]
    lists = [{kind: {"stages": ["Aware"]}, "horizon": "30d"} for kind in ("at_risk", "win_back")]
    # Seen on 1 February: active until 8 March by the usual gap of 12 days, dormant from 10 March on.
    journey = {"name": "short", "stages": stages, "dormant_after": "37d"}
    file = assignments(tmp_path, people, lists=lists, journey=journey)
    found = taught(file, MAY).experiments
    told = {(row.list, row.customer_id): (row.treated, row.outcome) for row in found.rows.itertuples()}
    at_risk, win_back = "at-risk__aware__30d", "win-back__aware__30d"
    assert told == {
        (at_risk, "c00000"): (True, 1),  # before 7 April, 30 days later
        (at_risk, "c00001"): (False, 0),
        (win_back, "c00003"): (True, 1),
        (win_back, "c00004"): (False, 0),
    }
    assert {name: count for name, count in found.left_out.items() if count} == {"no_list": 1}


def test_each_arm_of_an_experiment_is_told(tmp_path: Path) -> None:
    """Against the control of its campaign; where the chance to be treated differs, everybody stands for 1 / chance."""
    shares = {"mail": (40, 30), "call": (40, 10), "left": (40, 20)}
    people = [(arm, 28, 1 if i < moved else None) for arm, (size, moved) in shares.items() for i in range(size)]
    file = assignments(tmp_path, people)
    told = taught(file, MAY)
    (mail,) = (one for one in told.arms if one["arm"] == "mail")
    (call,) = (one for one in told.arms if one["arm"] == "call")
    for one, moved in ((mail, 30), (call, 10)):
        found = difference(moved, 40, 20, 40)
        assert (one["campaign"], one["target_n"], one["target_moved"], one["control_n"]) == ("spring", 40, moved, 40)
        assert (one["difference"], one["difference_low"], one["difference_high"]) == pytest.approx(tuple(found))
    assert "aware__fan__30d: arm call of spring, 40 against 40 in control: -25.0 points (-" in "\n".join(told.sentences)
    assert taught(assignments(tmp_path, people, experiments={"event": "assigned", "control": "left"}), MAY).arms == []
    rows = pd.DataFrame(
        [("l", "", None, arm, arm != "left", chance, outcome) for arm, chance, outcome in
         [("a", 0.2, 1), ("a", 0.8, 0), ("left", 0.2, 1), ("left", 0.8, 0)]],
        columns=["list", "epoch", "play", "arm", "treated", "propensity", "outcome"],
    )  # fmt: skip
    (one,) = arm_effects(rows)
    # 1 / 0.2 of them did, 1 / 0.8 did not; of control 1 / 0.8 and 1 / 0.2.
    assert (one["target_share"], one["control_share"]) == pytest.approx((5 / 6.25, 1.25 / 6.25))


@pytest.mark.parametrize("propensity", [0.5, None])
def test_an_experiment_alone_tells_an_effect_and_ranks_nothing(tmp_path: Path, propensity: float | None) -> None:
    """Also of a targeted log, whose propensities are estimated; one without overlap is refused."""
    random = np.random.default_rng(2)
    arms = random.integers(0, 2, 1200)
    moved = random.random(1200) < np.where(arms, 0.6, 0.3)
    visits = [1 + i % 20 if move else None for i, move in enumerate(moved.tolist())]
    people = [("mail" if arm else "left", 28, visit) for arm, visit in zip(arms, visits, strict=True)]
    spec = {"event": "assigned", "control": "left", "propensity": propensity}
    told = taught(assignments(tmp_path, people, experiments=spec), MAY)
    (one,) = told.learned
    estimate, low, high = one.effect.average
    assert low < 0.3 < high and abs(estimate - 0.3) < 0.1
    assert not one.effect.ranks and one.last is None
    assert "no published night tells yet" in one.effect.sentence
    assert (
        ListEffect.from_dict(json.loads(json.dumps(one.effect.as_dict())), one.effect.model).sentence
        == one.effect.sentence
    )


def test_experiments_name_what_is_there(tmp_path: Path) -> None:
    file = assignments(tmp_path, [("mail", 1, 2)])
    spec = {"event": "given", "arm": "arms", "propensity": 1.5}
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "experiments": spec}))
    with pytest.raises(ConfigError, match=r"propensity lies between 0 and 1; found 1\.5"):
        load_config(file)
    file.write_text(
        yaml.safe_dump({**yaml.safe_load(file.read_text()), "experiments": {"event": "given", "arm": "arms"}})
    )
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert "'given' is nothing that a customer does; name it under outbound, too" in str(error.value)
    assert "no source maps a property 'arms'. Did you mean 'arm'?" in str(error.value)
    text = {**yaml.safe_load(file.read_text()), "experiments": {"event": "assigned", "propensity": "test"}}
    file.write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match=r"the property 'test' is text; map a column with numbers"):
        taught(file, MAY)
