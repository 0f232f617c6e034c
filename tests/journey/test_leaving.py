"""Stages that can be left and entered again, against the oracle, which asks all rules anew at every instant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from tests.oracles import examples, journey
from tests.oracles.blocks import to_block
from tests.oracles.examples import MINOR_UNITS, Setting
from tests.oracles.histories import Customer

from cvj_ml.config import JourneySpec
from cvj_ml.journey import Journey, Stays, evidence, stays, stays_that_happened
from cvj_ml.windows import NEVER

Span = tuple[int, int | None]


def plain(found: Stays, customer: int, names: tuple[str, ...]) -> dict[str, list[Span]]:
    """The stays of a customer by stage; of one that cannot be left from its first entry on."""
    spent: dict[str, list[Span]] = {name: [] for name in names}
    for i, name in enumerate(names):
        if not found.leavable[i] and found.first[customer, i] != NEVER:
            spent[name].append((int(found.first[customer, i]), None))
    for k in range(found.offsets[customer], found.offsets[customer + 1]):
        leave = int(found.leave[k])
        spent[names[found.stage[k]]].append((int(found.enter[k]), None if leave == NEVER else leave))
    return spent


def known(setting: Setting, customers: list[Customer]) -> Stays:
    seen = Journey(setting.journey, setting.hidden)
    return stays(seen, evidence(seen, to_block(customers)))


@settings(max_examples=300)
@given(examples.customers(most=3), examples.leaving())
def test_stays_are_those_of_the_oracle(customers: list[Customer], setting: Setting) -> None:
    """Every stay is a longest span of instants at which the stage was held by what was visible then."""
    found = known(setting, customers)
    for i, one in enumerate(customers):
        expected = journey.spans(setting.journey, setting.hidden, one, MINOR_UNITS)
        assert plain(found, i, setting.journey.names) == expected, one


@settings(max_examples=200)
@given(examples.customers(most=3), examples.leaving(), examples.instants())
def test_stays_that_happened_are_those_of_the_oracle(customers: list[Customer], setting: Setting, cut: int) -> None:
    seen = Journey(setting.journey, setting.hidden)
    found = stays_that_happened(seen, evidence(seen, to_block(customers)), cut)
    for i, one in enumerate(customers):
        expected = journey.stays_that_happened(setting.journey, one, MINOR_UNITS, cut)
        spent = plain(found, i, setting.journey.names)
        for stage in setting.journey.stages:
            wanted = [] if stage.name in setting.hidden else [(at.enter, at.leave) for at in expected[stage.name]]
            assert spent[stage.name] == wanted, (stage.name, one)


MANY_STAYS = (
    {"enter": {"event": "buy"}, "leave": {"any": [{"event": "review"}, {"silent_for": "1d"}]}},
    {"enter": {"event": "*", "count": 2}, "leave": {"event": ["mail", "visit"], "count": 2, "within": "1d"}},
    {"enter": {"event": ["buy", "visit"], "after": "One"}, "leave": {"event": "*", "value_at_least": 10}},
    {"enter": {"event": "visit"}, "leave": {"all": [{"event": "mail"}, {"event": "buy"}]}},
)


@pytest.mark.parametrize("same_day", ["counts", "later"])
def test_many_stays_in_few_days_are_those_of_the_oracle(same_day: str) -> None:
    """Full windows, equal instants, days of which nobody knows the hours, late rows and corrections, back and forth."""
    stages = [{"name": name, **rules} for name, rules in zip(examples.STAGES, MANY_STAYS, strict=True)]
    spec = JourneySpec.model_validate({"name": "many", "same_day": same_day, "stages": stages})
    customers = [*examples.close_histories(5, 120), *examples.crowded_days(7, 120)]
    customers = [replace(one, name=f"c{i:03}") for i, one in enumerate(customers)]
    found, again = known(Setting(spec, frozenset()), customers), 0
    for i, one in enumerate(customers):
        spent = plain(found, i, spec.names)
        assert spent == journey.spans(spec, (), one, MINOR_UNITS), one
        again += sum(len(several) > 1 for several in spent.values())
    assert again > 100
