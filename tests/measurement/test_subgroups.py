"""What each play brought: held against a truth that was made, and against sums by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.measurement.test_measure import HORIZON, NIGHT, business, publish_past, settings_in
from tests.measurement.test_measure import measure as measured
from tests.trained import call

from cvj_ml.commands.measure import BY_PLAY_HISTORY, observation_at, read_past
from cvj_ml.config import DAY, load_config
from cvj_ml.inputs import open_histories
from cvj_ml.measurement.effects import play_words
from cvj_ml.measurement.subgroups import _plays, measure_subgroups
from cvj_ml.run import Silent
from cvj_ml.windows import to_datetime

UNTIL = NIGHT + HORIZON + 2 * DAY


def test_of_plays_that_chance_gave_the_one_that_works_is_found(tmp_path: Path) -> None:
    """One play moves people and the others do nothing; its effect on everybody who could have had it is told."""
    past = business()
    control = {"share": 0.5, "salt": "s", "epoch": "year", "explore_how": 0.9}
    config = load_config(settings_in(tmp_path, control=control))
    listed = publish_past(config, past, NIGHT)
    offers = listed.groupby(["play", "channel"], dropna=False).size()
    assert len(offers) >= 3 and offers.min() > 30, "chance gives every play"
    works = offers.idxmax()
    its = ((listed["play"] == works[0]) & (listed["channel"] == works[1])).to_numpy()
    treated = listed.loc[its & (listed["group"] == "target"), "customer_id"]
    after = past.treat(treated, NIGHT, 30, 3.0)
    after.write(tmp_path)
    _, done = measured(tmp_path / "c.yaml", UNTIL)
    found = {(row["play"], row["channel"]): row for row in done["by_play"]}
    assert {*found} == {*offers.index}
    ids = np.sort(past.customers["customer_id"].unique())
    uplift = after.true_reach(NIGHT, [HORIZON], 3.0) - after.true_reach(NIGHT, [HORIZON])
    truth = float(uplift[np.isin(ids, listed["customer_id"]), 2, 0].mean())
    assert truth > 0.1
    assert found[works]["difference_low"] <= truth <= found[works]["difference_high"]
    assert found[works]["difference_low"] > 0
    others = [row for offer, row in found.items() if offer != works]
    assert all(row["difference_low"] < 0 < row["difference_high"] for row in others)
    # By hand: everybody stands for 1 / chance, and nobody is in two rows.
    moved = pd.Series(after.true_stage(NIGHT + HORIZON) >= 2, ids)[listed["customer_id"]].to_numpy()
    for offer, row in found.items():
        mine = ((listed["play"] == offer[0]) & (listed["channel"] == offer[1])).to_numpy()
        for arm in ("target", "control"):
            here = mine & (listed["group"] == arm).to_numpy()
            weight = 1 / listed["play_probability"].to_numpy()[here]
            assert (row[f"{arm}_n"], row[f"{arm}_moved"]) == (here.sum(), moved[here].sum())
            assert row[f"{arm}_share"] == pytest.approx((weight * moved[here]).sum() / weight.sum())
    assert sum(row["target_n"] + row["control_n"] for row in found.values()) == len(listed)
    told = call("measure", tmp_path / "c.yaml", "--until", to_datetime(UNTIL, config.zone).isoformat()).out
    assert "By play, each one's people against the same in control:" in told
    assert f"{works[0]} through {works[1]}: {found[works]['target_n']:,} in the target group" in told
    kept = pd.read_parquet(Path(config.out) / BY_PLAY_HISTORY)
    assert len(kept) == len(found), "measured twice, kept once"


def test_without_a_draw_each_play_is_compared_among_its_own_people(tmp_path: Path) -> None:
    """The plain difference of shares, and nights from before plays were drawn are read as such."""
    past = business()
    config = load_config(settings_in(tmp_path))
    listed = publish_past(config, past, NIGHT)
    assert (listed["play_probability"] == 1).all()
    past.write(tmp_path)
    _, done = measured(tmp_path / "c.yaml", UNTIL)
    (whole,) = done["rows"]
    assert sum(row["target_n"] + row["control_n"] for row in done["by_play"]) == len(listed)
    for row in done["by_play"]:
        assert row["with_choice"] == 0
        shares = [row[f"{arm}_moved"] / row[f"{arm}_n"] for arm in ("target", "control")]
        assert row["difference"] == pytest.approx(shares[0] - shares[1])
    if len(done["by_play"]) == 1:
        assert done["by_play"][0]["difference_low"] == pytest.approx(whole["difference_low"])


def test_an_interval_knows_that_those_for_whom_a_play_is_unusual_are_others() -> None:
    """No play changes anything, but the two halves move at other rates, and each is given the other's play rarely."""
    rng, held, runs = np.random.default_rng(3), 0, 200
    for _ in range(runs):
        often = np.arange(2000) % 2 == 0
        swapped = rng.random(2000) < 0.05
        own = pd.DataFrame({"play": np.where(often ^ swapped, "A", "B"), "channel": [None] * 2000})
        own["play_probability"] = np.where(swapped, 0.05, 0.95)
        own["group"] = np.where(rng.random(2000) < 0.3, "control", "target")
        own["converted"] = rng.random(2000) < np.where(often, 0.02, 0.5)
        rows = {row["play"]: row for row in _plays(own)}
        held += rows["A"]["difference_low"] <= 0 <= rows["A"]["difference_high"]
    assert held / runs >= 0.92, "95 % of the runs, as the interval says"


def test_a_play_without_a_channel_beside_one_that_has_some_is_told_without() -> None:
    known = pd.DataFrame(
        {
            "play": ["Call", "Call", "Mail", "Mail"],
            "channel": [None, None, "email", "email"],
            "group": ["target", "control"] * 2,
            "converted": [True, False] * 2,
        }
    )
    told = [play_words(row) for row in pd.DataFrame(_plays(known)).to_dict("records")]
    assert told[0].startswith("Call: 1 in the target group") and told[1].startswith("Mail through email: 1 in")


def test_a_night_that_lists_nobody_new_says_what_its_epoch_has_brought(tmp_path: Path) -> None:
    past = business()
    config = load_config(settings_in(tmp_path))
    publish_past(config, past, NIGHT)
    past.write(tmp_path)
    histories = open_histories(config, Silent())
    (night,) = read_past(config)
    observation = observation_at(histories, UNTIL + DAY)
    _, alone = measure_subgroups([night], observation, histories.engine())
    again = replace(night, as_of=NIGHT + DAY)
    _, both = measure_subgroups([night, again], observation, histories.engine())
    assert alone and both == alone + [{**row, "as_of": NIGHT + DAY} for row in alone]
