"""The journeys in the package, the demo's config, and that both fit the simulation."""

from __future__ import annotations

import shutil
from datetime import date
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from tests.oracles.blocks import to_block
from tests.oracles.cases import a_shop, moment, person, touch
from tests.oracles.histories import Touch

from cvj_ml.config import DAY, Condition, Config, JourneySpec, load_config, preset_names
from cvj_ml.config.documents import read_yaml
from cvj_ml.lists.contact_history import contact_history
from cvj_ml.lists.next_action import meant_for, offers_of
from cvj_ml.simulate import Simulation, simulate

STAGES = {
    "cvj8": ("Aware", "Engage", "Subscribe", "Convert", "Excite", "Ascend", "Advocate", "Promote"),
    "journey5": ("Awareness", "Consideration", "Decision", "Purchase", "Post-purchase"),
    "loyalty5": ("Awareness", "Consideration", "Purchase", "Retention", "Advocacy"),
    "flowchart7": (*("Awareness", "Engagement", "Information collection", "Convert", "Excite", "Advocate", "Promote"),),
    "subscription5": ("Cancelled", "Trial", "Past due", "Active", "Won back"),
}
NOT_LED_TO = {"Cancelled", "Past due"}
CHANNELS = {
    *("email", "sms", "phone", "push", "in_app", "chat", "web"),
    *("social", "search", "ads", "affiliate", "direct_mail"),
}


def preset(name: str) -> JourneySpec:
    with as_file(files("cvj_ml") / "journey" / "presets" / f"{name}.yaml") as path:
        return JourneySpec.model_validate(read_yaml(path))


def events_of(journey: JourneySpec) -> set[str]:
    return {event for stage in journey.stages for leaf in stage.enter.leaves() for event in leaf.event or ()}


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with as_file(files("cvj_ml") / "demo.yaml") as path:
        shutil.copy(path, folder / "demo.yaml")
    return folder


@pytest.fixture(scope="module")
def demo(demo_folder: Path) -> Config:
    return load_config(demo_folder / "demo.yaml")


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(customers=2_000)


def test_the_package_holds_the_five_journeys_and_no_other() -> None:
    assert set(preset_names()) == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_preset_has_the_stages_of_the_design_in_order(name: str) -> None:
    journey = preset(name)
    assert journey.name == name
    assert journey.names == STAGES[name]


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_a_goal_and_two_or_three_plays_with_channels(name: str) -> None:
    for stage in preset(name).stages:
        assert stage.goal.endswith(".") and "\n" not in stage.goal, stage.name
        offered = stage.plays_here if stage.name in NOT_LED_TO else stage.plays
        assert 2 <= len(offered) <= 3, stage.name
        assert stage.value.endswith(".") and stage.next_step.endswith("."), stage.name
        for play in stage.plays + stage.plays_here:
            assert play.text and play.channels and set(play.channels) <= CHANNELS, (stage.name, play)


def fulfilling(condition: Condition) -> list[Touch]:
    """The fewest touchpoints of the last days with which a condition holds."""
    if condition.any or condition.all:
        parts = condition.all or condition.any[:1]
        return [one for part in parts for one in fulfilling(part)]
    if condition.last_rating is not None:
        return [] if "none" in condition.last_rating else [touch(97, event="satisfaction", rating=5.0)]
    return [touch(98 + i / 10, event=condition.event[0]) for i in range(condition.count)]


@pytest.mark.parametrize("name", STAGES)
def test_every_play_that_leads_to_a_stage_can_be_what_somebody_is_offered(name: str) -> None:
    """For each there is a customer whom it is the first one meant for; the others would never be seen on a list."""
    journey = preset(name)
    shop = a_shop({}, journey=journey.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    apart = [shop.journey.at_risk.plays, shop.journey.win_back.plays]
    assert all(apart), "who is leaving, and who has left, is offered something"
    for plays in [*(stage.plays for stage in shop.journey.stages[1:]), *apart]:
        offers = offers_of(shop.journey, plays)
        for play in plays:
            block = to_block([person(touch(50, event="visit"), *(fulfilling(play.when) if play.when else []))])
            meant = meant_for(offers, contact_history(block, moment(100), shop))[0]
            assert offers[int(meant.argmax())].play.text == play.text, play.text


@pytest.mark.parametrize("name", STAGES)
def test_a_review_is_asked_of_nobody_with_a_bad_rating_or_a_bad_experience(name: str) -> None:
    journey = preset(name)
    shop = a_shop({}, journey=journey.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    bad = (
        [touch(99, event="satisfaction", rating=2.0)],
        [touch(95, event="refund")],
        [touch(95, event="support_ticket")],
    )
    for stage in shop.journey.stages[1:]:
        offers = offers_of(shop.journey, stage.plays)
        for touches in bad:
            block = to_block([person(touch(50, event="visit"), *touches)])
            meant = meant_for(offers, contact_history(block, moment(100), shop))[0]
            texts = [one.play.text for one, holds in zip(offers, meant, strict=True) if holds]
            assert not [text for text in texts if "review" in text and "personal" not in text and "Show" not in text]


def test_open_tickets_of_a_preset_hold_back_where_the_business_says_what_closes_them(demo_folder: Path) -> None:
    """Its own name for the event has to be given: without one, every ticket would stay open for ever."""
    text = (demo_folder / "demo.yaml").read_text()
    assert load_config(demo_folder / "demo.yaml").journey.unhappy.closed == ()
    (demo_folder / "closing.yaml").write_text(text + "events: {ticket_closed: [solved, done]}\n")
    assert load_config(demo_folder / "closing.yaml").journey.unhappy.closed == ("solved", "done")


def test_the_rules_of_cvj8_are_those_of_the_design() -> None:
    rules = {
        stage.name: stage.enter.model_dump(exclude_defaults=True, exclude_none=True, mode="json")
        for stage in preset("cvj8").stages
    }
    good = {"rating": {"gte": 4}}
    assert rules == {
        "Aware": {"event": ["*"]},
        "Engage": {"event": ["visit", "content_view", "search", "email_click", "product_view", "event_attended"]},
        "Subscribe": {"event": ["signup", "lead", "account_created"]},
        "Convert": {"event": ["purchase", "booking", "demo", "trial_started"]},
        "Excite": {
            "any": [
                {"event": ["onboarding_done"], "after": "Convert"},
                {"event": ["product_used"], "count": 3, "after": "Convert"},
                {"event": ["satisfaction"], "where": good, "after": "Convert"},
                {"event": ["purchase"], "count": 2},
            ]
        },
        "Ascend": {"any": [{"event": ["upgrade"]}, {"event": ["purchase"], "count": 3}]},
        "Advocate": {
            "any": [
                {"event": ["review"], "where": good, "after": "Convert"},
                {"event": ["testimonial"], "after": "Convert"},
            ]
        },
        "Promote": {"any": [{"event": ["referral_converted"]}, {"event": ["referral_shared"], "count": 3}]},
    }


@pytest.mark.parametrize("name", [name for name in STAGES if name != "subscription5"])
def test_all_presets_use_the_event_names_of_cvj8(name: str) -> None:
    assert events_of(preset(name)) <= events_of(preset("cvj8"))


def test_the_simulation_shows_every_event_of_cvj8(simulation: Simulation) -> None:
    assert events_of(preset("cvj8")) - {"*"} <= set(simulation.touchpoints["event"])


def test_the_demo_config_is_valid_and_lies_wholly_in_its_folder(demo: Config, demo_folder: Path) -> None:
    folder = demo_folder.resolve()
    assert demo.preset == "cvj8"
    assert demo.horizons == tuple(days * DAY for days in (7, 14, 30, 60, 90))
    assert demo.model.max_rows == 200_000
    assert demo.outbound == ("email_sent", "ad_impression")
    assert demo.out == str(folder / "out")
    assert demo.mlflow.tracking_uri == f"sqlite:///{folder / 'mlflow.db'}"
    assert demo.sources["touchpoints"].path == (str(folder / "touchpoints.parquet"),)
    assert demo.attributes is not None and demo.attributes.path == (str(folder / "customers.parquet"),)
    lists = {(one.from_stage, one.to_stage, one.horizon // DAY) for one in demo.lists or ()}
    assert {("Convert", "Ascend", 30), ("Advocate", "Promote", 90)} <= lists


def test_the_demo_config_fits_what_the_simulation_writes(demo: Config, simulation: Simulation) -> None:
    assert demo.history_from == date(2024, 1, 1) == simulation.start
    assert set(demo.sources["touchpoints"].columns.values()) == set(simulation.touchpoints.columns)
    assert demo.attributes is not None
    assert set(demo.attributes.columns.values()) == set(simulation.customers.columns)
    assert set(demo.outbound) <= set(simulation.touchpoints["event"])
    delay = simulation.touchpoints["known_at"] - simulation.touchpoints["occurred_at"]
    assert delay.max().total_seconds() * 1_000_000 <= (demo.sources["touchpoints"].arrival_delay or 0)
