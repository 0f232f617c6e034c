"""Contact caps and the control group: whoever is spared rests as whoever is contacted does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lists.test_eligibility import JOURNEY, scores_of
from tests.lists.test_lists import AS_OF, config
from tests.trained import AS_OF as NIGHT
from tests.trained import SETTINGS, Trained, call

from cvj_ml.config import DAY, ContactCap, load_config
from cvj_ml.journey import Journey
from cvj_ml.lists.contact_history import no_contact_history
from cvj_ml.lists.control import HOLDOUT_EXPOSURES, holdout_exposures
from cvj_ml.lists.ranking import rank
from cvj_ml.night.reading import listed_in_control
from cvj_ml.scoring.scores_table import StoredTable

pytest_plugins = ["tests.fixtures"]

CAPS = [
    ContactCap.model_validate({"max": 1, "within": "14d"}),
    ContactCap.model_validate({"max": 2, "within": "7d", "channel": "email"}),
]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "é"]),
        st.sampled_from([None, "email", "phone"]),
        st.integers(-20, 3).map(lambda days: days * DAY) | st.sampled_from([-14 * DAY - 1, -7 * DAY - 1, -1, 1]),
    ),
    max_size=20,
)


@given(ROWS)
def test_nights_are_counted_as_plain_loops_count_them(rows: list[tuple[str, str | None, int]]) -> None:
    exposures = pa.Table.from_pylist(
        [{"customer_id": name, "channel": channel, "as_of": AS_OF + at} for name, channel, at in rows],
        HOLDOUT_EXPOSURES,
    )
    found = holdout_exposures(pa.array(["a", "b", "z", "é"]), exposures, AS_OF, CAPS)
    for i, name in enumerate(["a", "b", "z", "é"]):
        for k, cap in enumerate(CAPS):
            nights = {
                at
                for one, channel, at in rows
                if one == name and cap.channel in (None, channel) and -cap.within <= at < 0
            }
            assert found[i, k] == len(nights)


def nightly(nights: int, *, resting: bool) -> list[tuple[int, int]]:
    """Make a capped list every night, contact all of its target group, and return (target, control) of each night."""
    size, capacity = 500, 20
    people = scores_of(["Visitor"] * size, np.linspace(0.9, 0.1, size).tolist(), [0.1] * size, [False] * size)
    ids = [f"c{i:03d}" for i in range(size)]
    people = people.set_column(0, "customer_id", pa.array(ids))
    made = config(
        journey=JOURNEY,
        outbound=["send"],
        lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d", "capacity": capacity}],
        control={"share": 0.25, "salt": "s", "epoch": "year"},
        eligibility={"contact_caps": [{"max": 1, "within": "14d"}], "recent_contact": None},
    )
    sent: list[tuple[str, int]] = []
    exposures: list[dict[str, Any]] = []
    found = []
    for at in range(AS_OF, AS_OF + nights * DAY, DAY):
        history = no_contact_history(size, made, at)
        recent = {name for name, when in sent if at - 14 * DAY <= when < at}
        history.contacts[:, 0] = [name in recent for name in ids]
        past = pa.Table.from_pylist(exposures, HOLDOUT_EXPOSURES) if resting else None
        stored = StoredTable.of(pa.table(dict(history.columns(made))))
        (only,) = rank(made, StoredTable.of(people), Journey(made.journey), at, history=stored, exposures=past)
        rows = only.rows.to_pylist()
        sent += [(row["customer_id"], at + DAY // 2) for row in rows if row["group"] == "target"]
        control = [row for row in rows if row["group"] == "control"]
        exposures += [{"customer_id": row["customer_id"], "channel": row["channel"], "as_of": at} for row in control]
        found.append((len(rows) - len(control), len(control)))
    return found


def share_in_control(nights: list[tuple[int, int]]) -> float:
    return sum(control for _, control in nights) / sum(map(sum, nights))


def test_with_caps_a_list_keeps_its_share_to_contact() -> None:
    found = nightly(20, resting=True)
    assert share_in_control(found) == pytest.approx(0.25, abs=0.08)
    assert min(target for target, _ in found) >= 10
    assert share_in_control(nightly(20, resting=False)[5:]) > 0.6, "what resting is for"


def test_published_nights_are_read_back_and_later_ones_are_not(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(
        tmp_path / "out",
        lists=[{"from": "Engage", "to": "Subscribe", "horizon": "30d"}],
        eligibility={"contact_caps": [{"max": 99, "within": "7d"}]},
        control={**SETTINGS["control"], "share": 0.5},
        mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'own.db'}"},
    )
    # A model that had seen what followed would have contacted nobody.
    assert call("train", file, "--as-of", "2025-06-16", "--promote", "always").code == 0
    published = tmp_path / "out"

    def control(day: str) -> list[str]:
        ran = call("targets", file, "--as-of", day)
        assert ran.code == 0, ran.err
        newest = max((published / f"as_of={day}").iterdir(), key=lambda one: one.stat().st_mtime_ns)
        rows = pq.read_table(newest / "targets" / "engage__subscribe__30d.parquet", partitioning=None).to_pylist()
        return [row["customer_id"] for row in rows if row["group"] == "control"]

    control(NIGHT)
    first = control("2025-06-17")
    assert first
    read = listed_in_control(load_config(file), trained.as_of)
    assert read["customer_id"].to_pylist() == first and set(read["as_of"].to_pylist()) == {trained.as_of - 7 * DAY}
    assert len(listed_in_control(load_config(file), trained.as_of - 7 * DAY)) == 0
    assert len(listed_in_control(load_config(file), trained.as_of + 1)) > 0
    control(NIGHT)
    assert len([*(published / f"as_of={NIGHT}").iterdir()]) == 2, "an earlier night is an input of this one"
    control("2025-06-17")
    assert len([*(published / "as_of=2025-06-17").iterdir()]) == 1, "a later one is not"
