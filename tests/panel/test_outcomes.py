"""Outcomes: what is asked, when it happened, and that asking it changes nothing of return and reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.oracles import examples, labels
from tests.oracles.blocks import to_block
from tests.oracles.cases import (
    HORIZONS,
    Blocks,
    a_definition,
    a_journey,
    moment,
    person,
    plain,
    random_customers,
    touch,
)
from tests.oracles.examples import DAY, START
from tests.oracles.histories import Customer, live

from cvj_ml.config import JourneySpec
from cvj_ml.journey import KEPT, PURCHASE, Journey, Outcome, outcomes_of
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_outcomes, fit_reach
from cvj_ml.panel.labels import label_outcomes
from cvj_ml.panel.panel import Panel, build_panel, hazard_rows
from cvj_ml.scoring.scores_table import score_block, scores_contract
from cvj_ml.snapshots import eligible
from cvj_ml.windows import NEVER

JOURNEY = a_journey(One={"event": "visit"}, Two={"event": "buy", "count": 2})


def of_journey(**settings: object) -> Journey:
    return Journey(JourneySpec.model_validate({**JOURNEY.model_dump(exclude_none=True), **settings}))


outcomes = st.sampled_from(
    (
        Outcome(KEPT, frozenset(), but=True),
        Outcome(KEPT, frozenset({"visit"}), but=True),
        Outcome(KEPT, frozenset({"mail"}), but=True),
        Outcome(PURCHASE, frozenset({"buy"})),
        Outcome(PURCHASE, frozenset({"buy", "mail"})),
    )
)


@settings(max_examples=150)
@given(
    examples.customers(most=3),
    st.lists(outcomes, min_size=1, max_size=3),
    st.lists(examples.instants(), min_size=1, max_size=3, unique=True).map(sorted),
    examples.instants(),
)
def test_an_outcome_is_the_next_own_touchpoint_that_counts(
    customers: list[Customer], asked: list[Outcome], instants: list[int], cut: int
) -> None:
    """Silent error 107: what we send, what arrived after the cut and what was replaced by then count for nothing."""
    block = to_block(customers)
    snapshots = eligible(block.touchpoints, np.array(instants, dtype=np.int64))
    found = label_outcomes(asked, block.touchpoints, snapshots, cut, DAY)
    expected = []
    for who, as_of in zip(snapshots.customer, snapshots.as_of, strict=True):
        there = [one for one in live(customers[who], cut) if one.inbound and one.occurred >= as_of]
        counted = [
            [one.occurred - as_of for one in there if (one.event in outcome.events) != outcome.but] for outcome in asked
        ]
        expected.append([min(times) if times else None for times in counted])
    assert plain(found.times) == expected
    assert found.at_risk.all() and found.late == 0
    assert found.follow_up.tolist() == (cut - DAY - snapshots.as_of).tolist()


@pytest.mark.parametrize(
    ("spec", "events", "expected"),
    [
        ({}, {"visit", "buy", "mail"}, {"kept": "return"}),
        ({"value": {"events": "buy"}}, {"visit", "buy", "mail"}, {"kept": "return", "purchase": None}),
        ({"value": {"events": "buy"}}, {"buy", "mail"}, {"kept": "return", "purchase": "return"}),
        ({"kept": "buy", "value": {"events": "buy"}}, {"visit", "buy"}, {"kept": None, "purchase": "kept"}),
        ({"unhappy": {"setbacks": ["refund"]}}, {"visit", "buy"}, {"kept": "return"}),
        ({"unhappy": {"setbacks": ["refund"]}}, {"visit", "buy", "refund"}, {"kept": None}),
        ({"value": {"events": "order"}}, {"visit", "buy"}, {"kept": "return"}),
        ({"kept": "mail"}, {"visit", "mail"}, {}),
    ],
)
def test_the_same_question_is_asked_once(
    spec: dict[str, object], events: set[str], expected: dict[str, str | None]
) -> None:
    found = outcomes_of(of_journey(**spec), events | {"CRM stage: Lead"}, ["mail"])
    assert {one.name: one.same_as for one in found} == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"event": "buy"}, "return"),
        ({"event": "never"}, "return"),
        ({"event": "*"}, "return"),
        ({"event": "*", "count": 2}, None),
        ({"event": "mail"}, None),
        ({"stage_field": "Lead"}, None),
        ({"any": [{"event": "buy"}, {"attribute": {"plan": "gold"}}]}, None),
    ],
)
def test_what_keeps_is_no_return_where_a_stage_is_entered_otherwise(rule: object, expected: str | None) -> None:
    """Silent error 161: a return is a stage that somebody else enters them into, too, and that alone keeps nobody."""
    (kept,) = outcomes_of(Journey(a_journey(One=rule)), {"visit", "buy", "mail", "CRM stage: Lead"}, ["mail"])
    assert kept.same_as == expected


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"value": {"events": ["buy", "back"], "refunds": ["back"]}}, "back cannot be bought and given back"),
        ({"stages": [{"name": "purchase", "enter": {"event": "buy"}}]}, "'purchase' has the name of an outcome"),
        ({"stages": [{"name": "leave_One", "enter": {"event": "buy"}}]}, "'leave_One' has the name of an outcome"),
    ],
)
def test_what_is_asked_is_one_thing(spec: dict[str, object], told: str) -> None:
    """In low_evidence a stage of such a name would stand for the outcome, and keep its customers off a list."""
    with pytest.raises(ValidationError, match=told):
        of_journey(**spec)


def a_panel(*asked: Outcome) -> tuple[Panel, Blocks]:
    block = random_customers(300, 8, with_attributes=False)
    blocks = Blocks([block])
    definition = replace(a_definition(JOURNEY), outcomes=asked)
    instants = np.array([START - day * DAY for day in (90, 60, 45, 30)], dtype=np.int64)
    return build_panel(definition, blocks, instants, START, DAY), blocks


ASKED = (Outcome(KEPT, frozenset({"visit"}), but=True), Outcome(PURCHASE, frozenset({"buy"})))


def test_the_panel_keeps_its_rows_and_its_labels_whatever_is_asked_besides() -> None:
    with_outcomes, _ = a_panel(*ASKED)
    without, _ = a_panel()
    for name in ("x", "customer", "as_of", "stage"):
        assert np.array_equal(getattr(with_outcomes, name), getattr(without, name), equal_nan=name == "x")
    assert np.array_equal(with_outcomes.labels.times, without.labels.times)
    assert np.array_equal(with_outcomes.converters, without.converters)
    frame = with_outcomes.to_frame()
    assert {"at_risk_kept", "days_until_kept", "days_until_purchase"} <= {*frame}
    back = with_outcomes.from_frame(frame.sample(frac=1, random_state=1))
    known = with_outcomes.outcomes.times < with_outcomes.labels.follow_up[:, None]
    assert np.array_equal(back.outcomes.times, np.where(known, with_outcomes.outcomes.times, NEVER))


def test_an_outcome_that_is_asked_takes_the_place_of_the_return() -> None:
    panel, _ = a_panel(*ASKED)
    asked = panel.asking(ASKED[1])
    assert np.array_equal(asked.labels.times[:, 0], panel.outcomes.times[:, 1])
    assert not asked.labels.at_risk[:, 1:].any() and not asked.definition.at_risk(asked.stage)[:, 1:].any()
    rows = hazard_rows(asked.labels, HORIZONS)
    assert asked.converters[0] == len(np.unique(panel.customer[rows.snapshot[rows.converted]]))
    assert not asked.converters[1:].any()


def test_scores_tell_churn_as_the_opposite_of_being_kept_and_nothing_is_likelier_than_a_return() -> None:
    """Silent error 108: the outcomes' models must not move return and reach."""
    panel, blocks = a_panel(*ASKED)
    fit = fit_reach(panel, 1, 1)
    models, choices = fit_outcomes(panel, 1, 1, fit.choice.settings)
    assert {*choices} == {"kept", "purchase"} and all(one.trees.booster is not None for one in models)
    again, _ = fit_outcomes(panel, 1, 1, choices)
    block = blocks.blocks[0]
    alone = Predictor(panel.definition, fit.trees, fit.calibration)
    predictor = replace(alone, outcomes=models)
    answers, plainly = predictor.answer(block, START), alone.answer(block, START)
    assert np.array_equal(answers.probability, plainly.probability, equal_nan=True)
    for one in ASKED:
        p = answers.outcomes[one.name]
        assert ((p > 0) & (p < 1)).all() and (np.diff(p, axis=1) >= 0).all()
        assert (p <= answers.probability[:, 0]).all()
    # Silent error 160: every purchase counts as kept, so churn and purchase never add up to more than one.
    assert (answers.outcomes["purchase"] <= answers.outcomes["kept"]).all()
    apart = replace(panel.definition, outcomes=(replace(ASKED[0], events=frozenset({"visit", "buy"})), ASKED[1]))
    bought = replace(predictor, definition=apart).answer(block, START).outcomes["purchase"]
    assert (bought <= answers.probability[:, 0]).all() and (bought > answers.outcomes["kept"]).any()
    assert np.ptp(answers.outcomes["purchase"][:, 0]) > 0.01, "the model must tell customers apart"
    scores = score_block(predictor, block, START, "v")
    scores_contract(panel.definition).check(scores)
    assert np.array_equal(scores["p_churn_5d"].to_numpy(), 1 - answers.outcomes["kept"][:, 1])
    assert np.array_equal(scores["p_purchase_9d"].to_numpy(), answers.outcomes["purchase"][:, 2])
    same = replace(
        predictor,
        definition=replace(panel.definition, outcomes=(ASKED[0], replace(ASKED[1], same_as=KEPT))),
        outcomes=models[:1],
    ).answer(block, START)
    assert np.array_equal(same.outcomes["purchase"], same.outcomes["kept"])
    assert [one.calibration.intercept[0].tolist() for one in again] == [
        one.calibration.intercept[0].tolist() for one in models
    ]


def test_a_cancellation_keeps_nobody() -> None:
    journey = of_journey(unhappy={"setbacks": ["visit"]})
    kept, *_ = outcomes_of(journey, {"visit", "buy"}, [])
    customer = person(touch(1), touch(5, event="visit"), touch(8))
    block = to_block([customer])
    snapshots = eligible(block.touchpoints, np.array([moment(2)], dtype=np.int64))
    found = label_outcomes([kept], block.touchpoints, snapshots, moment(30), 0)
    assert found.times.tolist() == [[6 * DAY]]
    assert labels.is_eligible(customer, moment(2))
