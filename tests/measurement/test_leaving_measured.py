"""Lists of who is likely to leave a stage, measured: who left and who stayed, held against the oracle of stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import examples, journey
from tests.oracles.blocks import to_block
from tests.oracles.cases import moment, person, touch
from tests.oracles.examples import DAY, MINOR_UNITS, Setting
from tests.oracles.histories import Customer

from cvj_ml.config import JourneySpec
from cvj_ml.histories import Block
from cvj_ml.journey import Journey
from cvj_ml.measurement.outcomes import Observation, PastList, list_outcomes

HORIZON = 3 * DAY


class Alone:
    """One block of customers, looked at in this process."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def map(self, function: Callable[[Block], Any]) -> list[Any]:
        return [function(self.block)]


@pytest.mark.slow
@settings(max_examples=100)
@given(examples.lives(), examples.instants(), st.integers(1, 6), st.data())
def test_who_left_and_who_stayed_are_those_of_the_oracle(
    lives: tuple[list[Customer], Setting], night: int, after: int, data: st.DataObject
) -> None:
    """By rules alone, of the stage that was theirs on the night, and nobody else is evaluated."""
    customers, setting = lives
    seen, block, cut = Journey(setting.journey, setting.hidden), to_block(customers), night + after * DAY
    names = setting.journey.names
    stages = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    scored = pd.DataFrame({"customer_id": list(block.customers), "probability": 0.5, "group": "target"})
    past = PastList(
        "l", ", ".join(stages), None, HORIZON, "q", night, "m", scored, None, "at_risk", "leave", tuple(stages)
    )
    (found,) = list_outcomes([past], Observation(seen, cut, 0), Alone(block))  # type: ignore[arg-type]
    told = found.set_index("customer_id")
    leavable = {one.name for one in setting.journey.stages if one.leave is not None}
    for one, name in zip(customers, block.customers, strict=True):
        spent = journey.spans(setting.journey, setting.hidden, one, MINOR_UNITS)
        stage = max((i for i, each in enumerate(names) if journey.held(spent[each], night)), default=-1)
        mine = names[stage] if stage >= 0 and names[stage] in leavable and names[stage] in stages else None
        happened = journey.stays_that_happened(setting.journey, one, MINOR_UNITS, cut)
        stays = happened[mine] if mine else []
        now = [stay for stay in stays if stay.enter < night and (stay.leave is None or stay.leave >= night)]
        left = any(not stay.silent and stay.leave is not None and stay.leave < night + HORIZON for stay in now)
        row = told.loc[name]
        assert row["known"] == bool(now)
        if now:
            assert (row["happened"], row["converted"]) == (left, not left)


def test_of_two_lists_of_one_night_each_is_judged_by_its_own_outcome() -> None:
    """Whoever paid and cancelled is kept by the one and has left by the other."""
    stage = {"name": "Active", "enter": {"event": "pay"}, "leave": {"event": "cancel"}}
    spec = JourneySpec.model_validate({"name": "club", "stages": [stage]})
    one = person(touch(1, event="pay"), touch(5, event="pay"), touch(6, event="cancel"), name="a")
    other = person(touch(1, event="pay"), touch(6, event="visit"), name="b")
    block, night = to_block([one, other]), moment(3)
    scored = pd.DataFrame({"customer_id": list(block.customers), "probability": 0.5, "group": "target"})
    lists = [
        PastList(f"l{i}", "Active", None, 10 * DAY, "q", night, "m", scored, None, "at_risk", outcome, ("Active",))
        for i, outcome in enumerate(("leave", "kept"))
    ]
    observation = Observation(Journey(spec), night + 20 * DAY, 0)
    leaving, silent = list_outcomes(lists, observation, Alone(block))  # type: ignore[arg-type]
    assert leaving["happened"].tolist() == [True, False] and leaving["converted"].tolist() == [False, True]
    assert silent["happened"].tolist() == [False, False] and silent["converted"].tolist() == [True, True]
