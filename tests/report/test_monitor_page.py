"""Nights over time: what is an alert, what the page shows, and the command on nights that were published."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.browser import opened, visit
from tests.trained import Trained, call

from cvj_ml.config import DAY, MonitorSpec
from cvj_ml.gates.alerts import MonitoredNight, alerts
from cvj_ml.gates.verdicts import GateVerdict
from cvj_ml.report.monitor_page import MonitorFacts, monitor_page

pytest_plugins = ["tests.fixtures"]

FIRST = 1_740_787_200_000_000  # 2025-03-01, UTC


def gate(name: str, level: Any = "pass", value: float | None = 0.05, limit: float | None = 0.2) -> GateVerdict:
    return GateVerdict(name, level, value, limit, f"{name} said so", 5)


def past_night(k: int, stages: Mapping[str, int], *gates: GateVerdict, journey: str = "j") -> MonitoredNight:
    as_of = FIRST + k * DAY
    day = pd.Timestamp(as_of, unit="us").date().isoformat()
    return MonitoredNight(day, as_of, journey, "0123456789abcdef", stages, gates)


def measured_row(night: str, ratio: float, spread: float = 0.2, moved: float = 100, **more: Any) -> dict[str, Any]:
    return {
        "list": "visitor__buyer__30d",
        "from_stage": "visitor",
        "to_stage": "<b>buyer</b>",
        "horizon_days": 30,
        "kind": "move",
        "outcome": "reach",
        "epoch": "2025-quarter-1",
        "night": f"{night}T00:00:00+00:00",
        "observed_over_expected": ratio,
        "observed_over_expected_low": ratio - spread,
        "observed_over_expected_high": ratio + spread,
        "lift_10pct": 2.0,
        "lift_10pct_low": 1.5,
        "lift_10pct_high": 2.5,
        "untouched_moved": moved,
        "untouched_expected": moved / ratio,
        **more,
    }


def levels(
    nights: list[MonitoredNight], measured: list[dict[str, Any]] | None = None, **spec: Any
) -> dict[str, tuple[str, float | None]]:
    found = alerts(MonitorSpec.model_validate(spec), nights, pd.DataFrame(measured or []), 30, "no stage")
    return {one.name: (one.level, one.value) for one in found}


def test_a_stage_mix_that_creeps_away_is_an_alert_though_no_night_differs_from_the_one_before() -> None:
    creeping = [past_night(k, {"": 4000 - 60 * k, "buyer": 1000 + 60 * k}) for k in range(40)]
    steady = [past_night(k, {"": 4000 + 40 * k, "buyer": 1000 + 10 * k}) for k in range(40)]
    level, value = levels(creeping)["stage_mix"]
    assert level == "fail" and value is not None
    assert levels(steady)["stage_mix"][0] == "pass"
    # The night 28 days before it is compared; what lies nearer is not far enough.
    assert levels(creeping[-28:])["stage_mix"] == ("pass", None)
    assert levels(creeping[-29:])["stage_mix"] == (level, value)
    assert levels(creeping, over="14d")["stage_mix"][0] == "warn"
    assert levels(creeping, alerts={"stages": {"warn": None, "fail": None}})["stage_mix"][0] == "pass"
    other = [replace(one, journey="other") for one in creeping[:-5]] + creeping[-5:]
    assert levels(other)["stage_mix"] == ("pass", None), "another journey has other stages"


def test_a_gate_that_did_not_pass_for_nights_on_end_is_an_alert() -> None:
    stages = {"": 10}
    said = ["warn", "pass", "warn", "fail", "warn"]
    nights = [past_night(k, stages, gate("drift:scores", one), gate("rows:log")) for k, one in enumerate(said)]
    assert levels(nights)["streak:drift:scores"] == ("warn", 3)
    assert "streak:rows:log" not in levels(nights)
    assert levels(nights[:4])["streak:drift:scores"] == ("pass", 2)
    assert levels(nights, alerts={"streak": {"fail": 2}})["streak:drift:scores"][0] == "fail"
    assert levels(nights[:2])["streak"] == ("pass", None)


@pytest.mark.parametrize(
    ("ratio", "spread", "moved", "expected"),
    [
        (1.3, 0.2, 100, ("pass", pytest.approx(1.1))),
        (2.5, 0.2, 100, ("warn", pytest.approx(2.3))),
        (4.0, 0.5, 100, ("fail", pytest.approx(3.5))),
        (0.2, 0.1, 100, ("fail", pytest.approx(1 / 0.3))),
        (4.0, 0.5, 20, ("pass", None)),
    ],
)
def test_only_what_is_surely_off_is_an_alert(ratio: float, spread: float, moved: float, expected: Any) -> None:
    rows = [measured_row("2025-01-02", ratio, spread, moved), measured_row("2025-01-01", 9.0)]
    assert levels([past_night(0, {"": 1})], rows)["quality:visitor__buyer__30d"] == expected


def facts() -> MonitorFacts:
    """Sixty nights of a growing stage, with drift near its limit and names that would be markup."""
    nights = [
        past_night(
            k,
            {"": 4000 - 30 * k, "visitor": 900, "<b>buyer</b>": 1000 + 30 * k},
            gate("drift:features", "warn" if k > 55 else "pass", 0.05 + k / 400, 0.19),
            gate("drift:scores", "pass", -0.001, 0.2),
            gate("rows:<i>log</i>"),
        )
        for k in range(60)
    ]
    measured = pd.DataFrame(
        [measured_row(f"2025-01-{day:02}", 1 + day / 40, 0.3) for day in range(1, 29)]
        + [measured_row("2025-01-28", float("nan"), list="other__list__7d")]
    )
    verdicts = alerts(MonitorSpec(), nights, measured, 30, "before any stage")
    return MonitorFacts("<u>shop</u>", ["", "visitor", "<b>buyer</b>"], "before any stage", nights, measured, verdicts)


def test_equal_facts_give_equal_pages_and_names_stay_text() -> None:
    text = monitor_page(facts())
    assert text == monitor_page(facts())
    assert not [tag for tag in ("<b>", "<i>", "<u>", "<script") if tag in text]
    assert text.count("<svg") == 3 + 2 + 1
    assert "before any stage holds " in text and "<bdi>&lt;b&gt;buyer&lt;/b&gt;</bdi>" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as found:
        yield found


@pytest.mark.slow
def test_the_page_has_no_fault_of_accessibility_and_fits(browser: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    file = tmp_path / "monitor.html"
    file.write_text(monitor_page(facts()), encoding="utf-8")
    for width, scheme in itertools.product((1280, 390), ("light", "dark")):
        with visit(browser, file, width) as page:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
            found = Axe().run(page).response["violations"]
            faults = [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found]
            assert faults == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_a_night_there_is_nothing_to_look_at(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "none" / "as_of=2025-06-24").mkdir(parents=True)  # what a run that was stopped may leave
    run = call("monitor", trained.variant(tmp_path / "none"))
    assert run.code == 4 and "no night is published" in run.err


@pytest.mark.slow
def test_published_nights_are_read_and_an_alert_ends_with_5(trained: Trained, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "monitor.html"
    days = ["2025-05-20", "2025-06-24"]
    # A night by a model that has seen what followed is not measured.
    own = {"mlflow": {"tracking_uri": f"sqlite:///{tmp_path / 'own.db'}"}}
    assert call("train", trained.variant(out, **own), "--as-of", days[0], "--promote", "always").code == 0
    for day in days:
        run = call("targets", trained.variant(out, **own), "--as-of", day)
        assert run.code == 0, run.err
    # What came out exactly as was said is off by a factor of 1, which is above these levels.
    strict = {"monitor": {"alerts": {"quality": {"warn": 0.5, "fail": 0.5}}}, "measure": {"min_converted": 1}}
    # What a night is does not hang on how nights are looked at.
    again = call("targets", trained.variant(out, **own, **strict), "--as-of", days[-1], "--json")
    assert json.loads(again.out)["outcome"] == "unchanged", again.out
    assert call("measure", trained.variant(out, **own), "--until", "2025-06-24").code in (0, 5)
    run = call("monitor", trained.variant(out, **own, **strict), "--page", page, "--json")
    found = json.loads(run.out)
    assert [one["day"] for one in found["nights"]] == days
    assert all(sum(one["stages"].values()) == one["customers"] > 100 for one in found["nights"])
    assert all(any(gate["name"] == "drift:scores" for gate in one["gates"]) for one in found["nights"])
    assert found["measured"] > 0
    failed = [one["name"] for one in found["alerts"] if one["level"] == "fail"]
    assert failed and all(name.startswith("quality:") for name in failed)
    assert run.code == 5 and f"{failed[0]}: of the night of 2025-05-20" in run.err
    assert "stage_mix" in {one["name"] for one in found["alerts"]}
    shown = page.read_text(encoding="utf-8")
    assert all(day in shown for day in days)
    # A night that cannot be read is told.
    (next((out / f"as_of={days[0]}").iterdir()) / "run.json").write_text("{}")
    assert call("monitor", trained.variant(out, **own)).code == 4
