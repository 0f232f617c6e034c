"""What each play brought: held against a truth that was made, and against sums by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.measurement.test_measure import HORIZON, NIGHT, business, publish_past, settings_in
from tests.measurement.test_measure import measure as measured
from tests.trained import call

from cvj_ml.commands.measure import BY_PLAY_HISTORY
from cvj_ml.config import DAY, load_config
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
        assert row["drawn"] == 0
        shares = [row[f"{arm}_moved"] / row[f"{arm}_n"] for arm in ("target", "control")]
        assert row["difference"] == pytest.approx(shares[0] - shares[1])
    if len(done["by_play"]) == 1:
        assert done["by_play"][0]["difference_low"] == pytest.approx(whole["difference_low"])
