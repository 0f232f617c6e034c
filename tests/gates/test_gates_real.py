"""The gates on real logs: ninety nights after a training pass by default, broken sources do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cvj_ml.commands.night_gates import Gatekeeper
from cvj_ml.commands.train import training_panel
from cvj_ml.config import DAY, Config, load_config
from cvj_ml.gates.verdicts import Earlier, GateVerdict
from cvj_ml.histories import Block, Text
from cvj_ml.inputs import Histories, open_histories
from cvj_ml.models.drift_profile.learning import learn_drift
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.run import Silent
from cvj_ml.windows import parse_as_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NIGHTS = (1, 15, 30, 45, 60, 75, 90)

Break = Callable[[Block, int], Block]


@dataclass(frozen=True)
class Use:
    """A configuration with a small model of it."""

    histories: Histories
    predictor: Predictor
    cut: int
    customers: int

    def night(self, day: int, broken: Break | None = None, since: int = 0) -> dict[str, GateVerdict]:
        """Judge the night so many days after the cut, its blocks broken for the last ``since`` days."""
        as_of = self.cut + day * DAY

        def count(block: Block) -> Any:
            block = broken(block, as_of - since * DAY) if broken else block
            return self.predictor.count(self.predictor.answer(block, as_of))

        gates = Gatekeeper.of(self.histories, as_of, None)
        parts = self.histories.engine().map(count)
        counts = sum(parts[1:], parts[0])
        before = Earlier("the cut", self.cut, {}, {}, self.customers)
        verdicts = gates.before_scoring(self.predictor)
        verdicts += replace(gates, earlier=before).after_scoring(self.predictor, counts)
        return {one.name: one for one in verdicts}


@pytest.fixture
def use(dataset: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Use]:
    """Return a function from a data set's name and a date to a small model of its configuration, trained there."""

    def make(name: str, day: str, **settings: Any) -> Use:
        monkeypatch.setenv("CVJ_ML_DATA", str(dataset(name).parent.resolve()))
        document = yaml.safe_load((ROOT / "configs" / name / "config.yaml").read_text(encoding="utf-8"))
        own = {"engine": {"threads": 1, "buckets": 4}, "model": {"max_rows": 5_000}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(document | own | settings), encoding="utf-8")
        config: Config = load_config(tmp_path / "config.yaml")
        histories, cut = open_histories(config, Silent()), parse_as_of(day, config.zone)
        panel = training_panel(histories, cut)
        fit = fit_reach(panel, config.model.seed, 1)
        predictor = Predictor(panel.definition, fit.trees, fit.calibration)
        customers, first = histories.store.customers, int(panel.as_of.min())
        learned = learn_drift(predictor, histories.engine(), customers, cut, first)
        there = sum(histories.engine().map(lambda block: len(predictor.answer(block, cut).stage)))
        return Use(histories, replace(predictor, drift=learned), cut, there)

    return make


def failed(verdicts: dict[str, GateVerdict]) -> list[str]:
    return [f"{one.name}: {one.message}" for one in verdicts.values() if one.level == "fail"]


def gone(event: str) -> Break:
    def work(block: Block, since: int) -> Block:
        points = block.touchpoints
        return replace(
            block, touchpoints=points.keep(~(points.event.isin(frozenset({event})) & (points.visible_at >= since)))
        )

    return work


def renamed(channel: str) -> Break:
    def work(block: Block, since: int) -> Block:
        points = block.touchpoints
        hit = points.channel.isin(frozenset({channel})) & (points.visible_at >= since)
        values = (*points.channel.values, "renamed")
        codes = np.where(hit, len(values) - 1, points.channel.codes).astype(np.int32)
        return replace(block, touchpoints=replace(points, channel=Text(codes, values)))

    return work


def in_cents(block: Block, since: int) -> Block:
    points = block.touchpoints
    return replace(
        block, touchpoints=replace(points, value=np.where(points.visible_at >= since, points.value * 100, points.value))
    )


def half_the_customers(block: Block, since: int) -> Block:
    return block.only(frozenset(block.customers[::2]))


def test_online_retail(use: Callable[..., Use]) -> None:
    shop = use("online_retail", "2011-06-01", snapshots={"every": "28d"})
    for day in NIGHTS:
        assert failed(shop.night(day)) == []
    broken = shop.night(30, gone("cancellation"), since=14)["drift:features"]
    assert broken.level == "fail" and "cancellation" in broken.message
    broken = shop.night(30, in_cents, since=7)["drift:features"]
    assert broken.level == "fail" and "value in the last 7 days" in broken.message
    assert shop.night(30, half_the_customers)["customers"].level == "fail"


def test_the_first_christmas_of_a_shop_that_closes(use: Callable[..., Use]) -> None:
    """Trained in the busiest month; from 23 December on nothing happens for twelve days."""
    shop = use("online_retail", "2010-11-15", snapshots={"every": "28d"})
    for day in (30, 38, 44, 47, 50, 52, 60, 75, 90):
        assert failed(shop.night(day)) == []
    assert shop.night(50)["freshness:invoices"].level == "warn"


def test_complete_journey(use: Callable[..., Use]) -> None:
    grocer = use("complete_journey", "2017-10-01", snapshots={"every": "28d"})
    for day in NIGHTS:
        assert failed(grocer.night(day)) == []
    assert grocer.night(30)["drift:features"].level == "warn", "the biggest campaign of the year"
    broken = grocer.night(30, gone("coupon_redeemed"), since=400)["drift:features"]
    assert broken.level == "fail" and "coupon_redeemed" in broken.message
    broken = grocer.night(30, renamed("store"), since=7)["drift:features"]
    assert broken.level == "fail" and "'store'" in broken.message
    assert grocer.night(30, in_cents, since=7)["drift:features"].level == "fail"
    assert grocer.night(30, half_the_customers)["customers"].level == "fail"


def test_stack_exchange(use: Callable[..., Use]) -> None:
    community = use("stackexchange_martialarts", "2023-08-01", snapshots={"every": "84d", "back": "3650d"})
    for day in NIGHTS:
        assert failed(community.night(day)) == []
    broken = community.night(30, gone("Supporter"), since=5000)["drift:features"]
    assert broken.level == "fail" and "Supporter" in broken.message
    assert community.night(30, half_the_customers)["customers"].level == "fail"
