"""Dates to come: days until them and since, as known then and by local days; in lists, words and bundles alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.blocks import to_block
from tests.oracles.cases import VOCABULARY, a_definition, a_journey, moment, person, touch
from tests.oracles.examples import DAY
from tests.oracles.histories import Customer, Version

from cvj_ml.audit.perturbation import another_future
from cvj_ml.config import Condition, Config, Play
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import DataError
from cvj_ml.features import DATES
from cvj_ml.histories import Block
from cvj_ml.lists.fact_words import say
from cvj_ml.lists.recent_past import RecentPast
from cvj_ml.models.bundle.bundle import _definition_as_json, _definition_from_json
from cvj_ml.models.bundle.canary import block_from_tables, block_to_tables, canary_block
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.scoring.frames import tables_of
from cvj_ml.snapshots import Snapshots
from cvj_ml.store import ingest
from cvj_ml.windows import parse_as_of

ZONE = "America/New_York"
EPOCH = date(1970, 1, 1)
BUYER = a_journey(Buyer={"event": "buy"})
DATED = replace(VOCABULARY, numbers=(), categories={}, dates=("renewal",))


def definition() -> ModelSpec:
    return a_definition(BUYER, vocabulary=DATED, zone=ZONE)


def dated_block(customers: list[Customer]) -> Block:
    """A block whose attribute rating is the local day of a renewal."""
    block = to_block(customers)
    assert block.attributes is not None
    columns = {"renewal": block.attributes.columns["rating"]}
    return replace(block, attributes=replace(block.attributes, columns=columns, dates=frozenset({"renewal"})))


def columns_of(one: ModelSpec, block: Block, snapshots: Snapshots) -> list[tuple[float, float]]:
    x = one.features(block, one.stays(block), snapshots)
    places = [i for i, feature in enumerate(one.catalogue.features) if feature.group == DATES]
    assert [one.catalogue.names[i] for i in places] == ["days_until_renewal", "days_past_renewal"]
    return [(float(row[places[0]]), float(row[places[1]])) for row in x]


def local_day(instant: int) -> int:
    """The day that a calendar on the wall shows."""
    return ((datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC")) + timedelta(microseconds=instant)).astimezone(
        ZoneInfo(ZONE)
    ).date() - EPOCH).days  # fmt: skip


_VERSIONS = st.lists(st.tuples(st.floats(0, 30), st.one_of(st.none(), st.integers(-40, 60))), max_size=4)


@settings(max_examples=150)
@given(st.lists(_VERSIONS, min_size=1, max_size=3), st.floats(0.5, 300))
def test_days_are_those_of_a_plain_loop(known: list[list[tuple[float, int | None]]], asked: float) -> None:
    """The newest version known before the instant decides, also where it takes a date back."""
    first_day, as_of = moment(0) // DAY, moment(asked)
    customers = [
        person(
            touch(0),
            name=f"c{i}",
            versions=sorted(
                (Version(moment(at), {"rating": None if day is None else float(first_day + day)}) for at, day in some),
                key=lambda one: one.known,
            ),
        )
        for i, some in enumerate(known)
    ]
    snapshots = Snapshots(np.arange(len(customers)), np.full(len(customers), as_of))
    found = columns_of(definition(), dated_block(customers), snapshots)
    for who, (until, past) in zip(customers, found, strict=True):
        then = [one.values["rating"] for one in who.versions if one.known < as_of]
        ahead = None if not then or then[-1] is None else int(then[-1]) - local_day(as_of)
        assert (None if np.isnan(until) else until) == (ahead if ahead is not None and ahead >= 0 else None)
        assert (None if np.isnan(past) else past) == (-ahead if ahead is not None and ahead < 0 else None)


def test_a_date_is_counted_by_local_days() -> None:
    """Over the change of clocks, and in the evening, when it is another day in UTC already."""
    day = (date(2024, 3, 12) - EPOCH).days
    who = person(touch(0), versions=[Version(0, {"rating": float(day)})])
    zone = ZoneInfo(ZONE)
    for text, ahead in (("2024-03-09", 3), ("2024-03-10", 2), ("2024-03-11T22:00", 1), ("2024-03-12T23:30", 0)):
        as_of = np.array([parse_as_of(text, zone)])
        assert columns_of(definition(), dated_block([who]), Snapshots(np.array([0]), as_of))[0][0] == ahead


CONTRACTS = """account,since,renews
a,2024-02-01,2024-05-01
a,2024-03-01,2025-05-01
b,2024-02-01,2024-03-11T23:30:00-05:00
c,2024-02-01,
"""


@pytest.fixture
def contracts(tmp_path: Path) -> Callable[..., Config]:
    def make(rows: str = CONTRACTS, **changes: Any) -> Config:
        (tmp_path / "log.csv").write_text(
            "customer_id,occurred_at,event\n" + "".join(f"{one},2024-02-01T12:00,buy\n" for one in "abcd")
        )
        (tmp_path / "contracts.csv").write_text(rows)
        columns = {"customer_id": "account", "known_at": "since", "renewal": "renews"}
        attributes = {"path": "contracts.csv", "columns": columns, "dates": "renewal"} | changes
        settings = {
            "name": "dates", "time_zone": ZONE, "history_from": "2024-01-01", "journey": BUYER, "out": "out",
            "sources": {"log": {"path": "log.csv"}}, "attributes": attributes, "engine": {"buckets": 1},
        }  # fmt: skip
        return Config.model_validate(settings, context={"folder": tmp_path})

    return make


def asked_at(config: Config, day: str) -> list[tuple[float, float]]:
    (block,) = LocalEngine(ingest(config), 1).map(lambda one: one)
    as_of = np.full(len(block), parse_as_of(day, config.zone))
    return columns_of(definition(), block, Snapshots(np.arange(len(block)), as_of))


def test_dates_are_read_as_days_of_the_business(contracts: Callable[..., Config]) -> None:
    nan = pytest.approx(np.nan, nan_ok=True)
    found = asked_at(contracts(), "2024-02-29")
    assert found == [(62, nan), (12, nan), (nan, nan), (nan, nan)]  # b's is 00:30 of the 12th there
    assert asked_at(contracts(), "2024-03-14") == [(413, nan), (nan, 2), (nan, nan), (nan, nan)]
    # A date without hours is a day of the business's calendar, whatever zone hours are in.
    assert asked_at(contracts(times="utc"), "2024-02-29")[0] == (62, nan)
    german = CONTRACTS.replace("2024-05-01", "01.05.2024").replace("2025-05-01", "01.05.2025")
    german = german.replace("2024-03-11T23:30:00-05:00", "12.03.2024")
    rows = german.replace("2024-02-01,", "01.02.2024,").replace("2024-03-01,", "01.03.2024,")
    np.testing.assert_array_equal(asked_at(contracts(rows, time_format="%d.%m.%Y"), "2024-02-29"), found)


def test_what_is_no_date_refuses_its_row(contracts: Callable[..., Config]) -> None:
    with pytest.raises(DataError, match=r"attributes: 1 of 4 rows refused.*unreadable renewal: 1"):
        ingest(contracts(CONTRACTS.replace("2025-05-01", "next May")))
    with pytest.raises(ValueError, match=r"dates: columns maps no attribute 'renewl'"):
        contracts(dates=["renewl"])


def meant(config: Config, day: str, **condition: Any) -> list[bool]:
    (block,) = LocalEngine(ingest(config), 1).map(lambda one: one)
    past = RecentPast(block, parse_as_of(day, config.zone), config)
    return [bool(one) for one in past.meant_for(Play(text="Call", when=Condition(**condition)))]


def test_a_play_is_meant_for_whose_date_comes(contracts: Callable[..., Config]) -> None:
    """Half-open, by local days: of 62 days, the last is the 61st from today."""
    config = contracts()
    assert meant(config, "2024-02-29", date="renewal", within="62d") == [False, True, False, False]
    assert meant(config, "2024-02-29", date="renewal", within="63d") == [True, True, False, False]
    assert meant(config, "2024-03-12", date="renewal", within="1d") == [False, True, False, False]
    assert meant(config, "2024-03-13", date="renewal", within="60d") == [False, False, False, False]
    for wrong in ({"date": "renewal"}, {"date": "renewal", "within": "36h"}, {"date": "renewal", "since": "buy"}):
        with pytest.raises(ValueError, match=r"a condition with date has within|exactly one of"):
            Condition(**wrong)


def test_plays_name_dates_that_are_there(contracts: Callable[..., Config]) -> None:
    play = {"text": "Call", "when": {"date": "renewl", "within": "60d"}}
    stages = [{"name": "Buyer", "enter": {"event": "buy"}, "plays": [play]}]
    settings = contracts().model_dump() | {"journey": {"name": "one", "stages": stages}}
    document = {name: value for name, value in settings.items() if name in ("name", "time_zone", "history_from")}
    document |= {"journey": settings["journey"], "sources": {"log": {"path": "log.csv"}}}
    held = {"path": "a.csv", "columns": {"renewal": "renews"}, "dates": "renewal"}
    with pytest.raises(ValueError, match=r"journey: Buyer, plays\[0\]: there is no date 'renewl'"):
        Config.model_validate(document | {"attributes": held})
    stages[0]["plays"] = [play | {"when": {"attribute": {"renewal": 3}}}]
    with pytest.raises(ValueError, match=r"'renewal' is a date; a play asks for it with \{date: renewal"):
        Config.model_validate(document | {"attributes": held})


@pytest.mark.parametrize(
    ("until", "past", "words"),
    [
        (23, np.nan, "renewal in 23 days"),
        (0, np.nan, "renewal today"),
        (1, np.nan, "renewal tomorrow"),
        (np.nan, 1, "renewal was yesterday"),
        (np.nan, 40, "renewal was 40 days ago"),
    ],
)
def test_a_date_in_words(until: float, past: float, words: str) -> None:
    one = definition()
    row = np.full(len(one.catalogue.features), np.nan)
    place = one.catalogue.names.index("days_until_renewal")
    row[place : place + 2] = until, past
    said = say(one, place if not np.isnan(until) else place + 1, row.tolist())
    assert said is not None
    assert said.whole == words


def test_another_future_changes_no_day_that_was_known() -> None:
    versions = [Version(moment(at), {"rating": float(moment(at) // DAY + 30)}) for at in (1, 5, 40)]
    block = dated_block([person(touch(0), touch(2), name=f"c{i}", versions=versions) for i in range(30)])
    other, change = another_future(block, moment(20), ZONE, np.random.default_rng(1))
    assert change.attributes
    snapshots = Snapshots(np.arange(30), np.full(30, moment(20)))
    np.testing.assert_array_equal(
        columns_of(definition(), block, snapshots), columns_of(definition(), other, snapshots)
    )


@pytest.mark.parametrize(
    "written", [["2024-05-01", None], [pd.Timestamp("2024-05-01"), pd.NaT], [date(2024, 5, 1), None]]
)
def test_dates_in_a_frame_are_local_days(written: list[object]) -> None:
    """Without a zone there is no instant to convert: midnight of UTC is the day before in New York."""
    rows = {"customer_id": ["a", "b"], "known_at": ["2024-02-01", "2024-02-01"], "renewal": written}
    log = {"customer_id": ["a", "b"], "occurred_at": ["2024-02-01T12:00", "2024-02-01T12:00"], "event": ["buy", "buy"]}
    frame = pd.concat([pd.DataFrame(log).assign(table="touchpoints"), pd.DataFrame(rows).assign(table="attributes")])
    found = tables_of(definition(), frame)["attributes"]["renewal"].to_pylist()
    assert [None if one is None else str(one)[:10] for one in found] == ["2024-05-01", None]


def test_a_bundle_keeps_dates_and_without_them_says_nothing_of_them(tmp_path: Path) -> None:
    one = definition()
    document = json.loads(json.dumps(_definition_as_json(one)))
    spec = one.journey.spec.model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "journey.yaml").write_text(json.dumps(spec))
    again = _definition_from_json(document, tmp_path)
    assert again.catalogue == one.catalogue
    plain = _definition_as_json(a_definition(BUYER))
    assert "dates" not in plain["vocabulary"]
    assert "attribute" not in json.dumps(spec)
    block = canary_block(one, moment(400), 1)
    kept = block_from_tables(*block_to_tables(block), frozenset(one.outbound), frozenset({"renewal"}))
    snapshots = Snapshots(np.arange(len(block)), np.full(len(block), moment(400)))
    np.testing.assert_array_equal(columns_of(one, block, snapshots), columns_of(one, kept, snapshots))
    days = np.array(columns_of(one, block, snapshots))
    assert (~np.isnan(days)).any(axis=0).all(), "the canary has dates ahead and dates passed"
