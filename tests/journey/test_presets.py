"""The journeys in the package, the demo's config, and that both fit the simulation."""

from __future__ import annotations

import shutil
from datetime import date
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from cvj_ml.config import DAY, Config, JourneySpec, load_config, preset_names
from cvj_ml.config.documents import read_yaml
from cvj_ml.simulate import Simulation, simulate

STAGES = {
    "cvj8": ("Aware", "Engage", "Subscribe", "Convert", "Excite", "Ascend", "Advocate", "Promote"),
    "journey5": ("Awareness", "Consideration", "Decision", "Purchase", "Post-purchase"),
    "loyalty5": ("Awareness", "Consideration", "Purchase", "Retention", "Advocacy"),
    "flowchart7": (*("Awareness", "Engagement", "Information collection", "Convert", "Excite", "Advocate", "Promote"),),
}
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


def test_the_package_holds_the_four_journeys_and_no_other() -> None:
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
        assert 2 <= len(stage.plays) <= 3, stage.name
        for play in stage.plays:
            assert play.text and play.channels and set(play.channels) <= CHANNELS, (stage.name, play)


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


@pytest.mark.parametrize("name", STAGES)
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
