"""Each journey of the cookbook loads as a configuration, and customers who do what it asks for come to every stage."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cvj_ml as cvj
from cvj_ml.config import JourneySpec, Rule

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cookbook.md"
RECIPES = dict(re.findall(r"^## (.+?)\n.*?^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S))

CUSTOMERS = 24
"""On the way to each stage."""


def events_of(rule: Rule) -> Iterator[str]:
    yield from rule.event or ()
    for part in (*(rule.any or ()), *(rule.all or ())):
        yield from events_of(part)


def path(spec: JourneySpec, aim: int, number: int, draw: np.random.Generator) -> Iterator[tuple[str, float, str]]:
    """Yield what a customer does on the way to a stage: what it follows, then what enters it, more or less often."""
    named = {stage.name: stage for stage in spec.stages}
    before = [list(events_of(named[name].enter)) for name in sorted(spec.stages[aim].enter.follows())]
    last = list(events_of(spec.stages[aim].enter))
    rest = sorted({*(spec.kept or ()), *spec.unhappy.setbacks, *spec.unhappy.tickets, *left_by(spec)})
    rest += [*(spec.value.events + spec.value.refunds if spec.value else ())]
    if number == 0 and aim == 0:  # every event that the journey names occurs once, or it would be refused
        yield from (
            (f"{aim}-{number}", 1.0, event) for event in {*rest, *itertools.chain(*map(events_of, enters(spec)))}
        )
        return
    for step, events in enumerate(before):
        yield f"{aim}-{number}", 100 + step + draw.random(), draw.choice([one for one in events if one != "*"])
    for day in np.sort(draw.random(1 + number % 12)) * 60:
        chosen = draw.choice([one if one != "*" else "ad_impression" for one in last])
        yield f"{aim}-{number}", 110 + day, chosen


def enters(spec: JourneySpec) -> list[Rule]:
    return [stage.enter for stage in spec.stages]


def left_by(spec: JourneySpec) -> Iterator[str]:
    return itertools.chain(*(events_of(stage.leave) for stage in spec.stages if stage.leave))


def test_the_cookbook_has_six_kinds_of_business() -> None:
    assert list(RECIPES) == [
        *("E-commerce", "B2B with the stages of a CRM", "Subscription", "Community", "Retail loyalty", "Non-profit")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_somebody_stands_at_every_stage(name: str, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(
        "name: shop\ntime_zone: Europe/London\nhistory_from: 2024-01-01\nsources: {log: {path: log.parquet}}\n"
        + RECIPES[name]
    )
    config = cvj.load_config(tmp_path / "shop.yaml")
    spec = config.journey
    draw = np.random.default_rng(1)
    rows = [
        row for aim in range(len(spec.stages)) for number in range(CUSTOMERS) for row in path(spec, aim, number, draw)
    ]
    log = pd.DataFrame(rows, columns=["customer_id", "day", "event"])
    log["occurred_at"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(log.pop("day"), unit="D")
    log["value"] = draw.choice([5.0, 20.0, 300.0], len(log))
    log["rating"] = draw.integers(1, 6, len(log)).astype(float)
    journey = cvj.Journey(spec)
    touchpoints = cvj.Touchpoints(log, properties=["rating"], outbound=[*config.outbound])
    frame = cvj.Model(journey, horizons=["30d"]).panel(touchpoints, "2024-12-31").to_frame()
    assert set(frame["observed_stage"].dropna()) == set(journey.names)
