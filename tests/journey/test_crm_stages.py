"""Stages from a CRM: its stage history as evidence, through the store that a business would have."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.oracles.cases import a_definition, a_journey
from tests.required import absent

from cvj_ml.commands.check import check
from cvj_ml.config import DAY, Config, Rule, load_config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import ConfigError, DataError
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, entry_times, stage_at, stays
from cvj_ml.lists.contact_history import contact_history
from cvj_ml.panel.labels import label
from cvj_ml.run import Silent
from cvj_ml.snapshots import eligible
from cvj_ml.store import Truncation, ingest
from cvj_ml.windows import NEVER, parse_as_of

ROOT = Path(__file__).resolve().parents[2]
LOG = """customer_id,occurred_at,event
a,2024-02-01T10:00,visit
a,2024-02-20T10:00,visit
b,2024-02-01T10:00,visit
"""
HISTORY = """customer_id,stage,entered_at,known_at
a,Lead,2024-02-05T09:00,2024-02-05T09:00
a,Won,2024-02-10T09:00,2024-02-12T09:00
a,Lead,2024-02-15T09:00,2024-02-15T09:00
c,Lead,2024-02-03T09:00,2024-02-03T09:00
"""
STAGES = a_journey(
    Seen={"event": "visit"}, Lead={"stage_field": "Lead"}, Won={"stage_field": ["Won", "Closed Won"], "after": "Lead"}
)


@pytest.fixture
def crm(tmp_path: Path) -> Callable[..., Config]:
    """Return a function from the text of a stage history and settings to a configuration."""

    def make(history: str = HISTORY, log: str = LOG, **settings: Any) -> Config:
        (tmp_path / "log.csv").write_text(log)
        (tmp_path / "crm-1.csv").write_text(history)
        defaults = {
            "name": "crm",
            "time_zone": "UTC",
            "history_from": "2024-01-01",
            "sources": {"log": {"path": "log.csv"}},
            "stage_history": {"path": "crm-*.csv"},
            "journey": STAGES,
            "refused_share": 1.0,
            "engine": {"buckets": 2, "threads": 1},
            "out": "out",
        }
        return Config.model_validate(defaults | settings, context={"folder": tmp_path})

    return make


def blocks(config: Config) -> list[Block]:
    return LocalEngine(ingest(config), 1).map(lambda one: one)


def entered(config: Config) -> dict[str, list[str | None]]:
    """The instants at which each customer entered the stages, as text."""
    journey, found = Journey(config.journey), dict[str, list[str | None]]()
    for block in blocks(config):
        for name, row in zip(block.customers, entry_times(journey, block.touchpoints), strict=True):
            found[name] = [None if at == NEVER else str(np.datetime64(int(at), "us"))[:16] for at in row]
    return found


def test_a_change_enters_a_stage_when_it_is_known(crm: Callable[..., Config]) -> None:
    """Who only the CRM knows is a customer, too."""
    assert entered(crm()) == {
        "a": ["2024-02-01T10:00", "2024-02-05T09:00", "2024-02-12T09:00"],
        "b": ["2024-02-01T10:00", None, None],
        "c": [None, "2024-02-03T09:00", None],
    }


def test_a_stage_field_is_combined_like_an_event(crm: Callable[..., Config]) -> None:
    rules = {
        "Twice": {"stage_field": "Lead", "count": 2},
        "Both": {"all": [{"stage_field": "Lead"}, {"event": "visit", "count": 2}]},
        "Either": {"any": [{"stage_field": "Won"}, {"stage_field": "Lead", "where": {"pipeline": "new"}}]},
    }
    history = (
        HISTORY.replace("known_at\n", "known_at,pipeline\n").replace(":00\n", ":00,old\n").replace("old", "new", 1)
    )
    config = crm(
        history, journey=a_journey(**rules), stage_history={"path": "crm-1.csv", "columns": {"pipeline": "pipeline"}}
    )
    assert entered(config)["a"] == ["2024-02-15T09:00", "2024-02-20T10:00", "2024-02-05T09:00"]
    assert Rule.model_validate({"stage_field": "Lead"}).event == ("CRM stage: Lead",)
    with pytest.raises(ConfigError, match=r"stage_field and event: a rule asks for one of them"):
        Journey({"One": {"stage_field": "Lead", "event": "visit"}})


def test_what_a_sales_person_does_is_neither_the_customers_own_nor_sent(crm: Callable[..., Config]) -> None:
    """Silent error: a stage set by hand would wake the dormant, count as a return and as a contact."""
    config, as_of = crm(outbound=["mail"]), parse_as_of("2024-02-16", crm().zone)
    (block,) = (one for one in blocks(config) if "a" in one.customers)
    points, journey = block.touchpoints, Journey(config.journey)
    at = block.customers.index("a")
    changes = points.event.isin(frozenset({"CRM stage: Lead", "CRM stage: Won"}))
    assert changes.any()
    assert not (changes & points.inbound).any()
    assert not points.sent.any()
    history = contact_history(block, as_of, config)
    place = eligible(points, np.array([as_of])).customer.tolist().index(at)
    assert history.last_own[place] == parse_as_of("2024-02-01T10:00", config.zone)
    assert not history.recent[place]
    asked = eligible(points, np.array([parse_as_of("2024-02-13", config.zone)]))
    stage = stage_at(entry_times(journey, points)[asked.customer], asked.as_of).stage
    found = label(journey, points, asked, stage, parse_as_of("2024-03-01", config.zone), 0)
    until = int(found.times[asked.customer.tolist().index(at), 0])
    assert until == parse_as_of("2024-02-20T10:00", config.zone) - parse_as_of("2024-02-13", config.zone)
    names = a_definition(config.journey).catalogue.names
    assert "recency" in names


def test_history_tells_when_a_stage_was_known(crm: Callable[..., Config]) -> None:
    """A date set by hand afterwards would reach into the past."""
    unknown = HISTORY.replace("known_at", "saved")
    with pytest.raises(DataError, match="stage_history: nothing says when a stage became known"):
        ingest(crm(unknown))
    assert entered(crm(unknown, stage_history={"path": "crm-1.csv", "known_after": "3d"}))["a"][1] == "2024-02-08T09:00"
    columns = {"known_at": "entered_at"}
    assert entered(crm(unknown, stage_history={"path": "crm-1.csv", "columns": columns}))["a"][2] == "2024-02-10T09:00"


def test_faults_of_a_history_are_told_in_its_own_words(crm: Callable[..., Config]) -> None:
    with pytest.raises(DataError, match=r"stage_history: columns.entered_at: there is no column 'entered_at'"):
        ingest(crm(HISTORY.replace("entered_at", "since")))
    with pytest.raises(ValueError, match="value: a change of stage has customer_id, stage, entered_at and known_at"):
        crm(stage_history={"path": "crm-1.csv", "columns": {"value": "amount"}})
    with pytest.raises(ValueError, match="'stage_history' is the name of the CRM's stage history"):
        crm(sources={"stage_history": {"path": "log.csv"}})
    with pytest.raises(ValueError, match="sources: name at least one"):
        crm(sources={}, stage_history=None)
    with pytest.raises(ConfigError, match=r"stage 'Won': stage_field 'Wonn' never occurs.*Won"):
        check(crm(journey=a_journey(Won={"stage_field": "Wonn"})), parse_as_of("2024-03-01", crm().zone), Silent())


def test_what_feeds_a_rule_cannot_be_a_label(crm: Callable[..., Config]) -> None:
    """Silent error 20: the model would copy the label from the rule's evidence."""
    labels = {"path": "crm-1.csv", "columns": {"as_of": "entered_at"}}
    with pytest.raises(ConfigError, match=r"stage_history: it reads crm-1.csv, as stage_labels does"):
        ingest(crm(stage_labels=labels, coverage={"Won": 0.5}))


def test_rows_in_are_rows_stored_and_refused(crm: Callable[..., Config]) -> None:
    store = ingest(crm(HISTORY + "d,,2024-02-03T09:00,2024-02-03T09:00\nd,Lead,soon,2024-02-03T09:00\n"))
    counts = store.counts["stage_history"]
    assert (counts.rows_in, counts.stored, sum(counts.refused.values())) == (6, 4, 2)


def test_the_past_is_the_same_without_what_came_later(crm: Callable[..., Config], tmp_path: Path) -> None:
    """Silent error 4: of a table cut off at any instant, the entries before it are those of the whole."""
    config = crm()
    whole, truncation = entered(config), Truncation(config, tmp_path)
    for day in ("2024-02-04", "2024-02-11", "2024-02-14"):
        cut = truncation.before(parse_as_of(day, config.zone))
        assert cut is not None
        expected = {name: [at if at is not None and at < day else None for at in row] for name, row in whole.items()}
        assert entered(cut) == {name: row for name, row in expected.items() if any(row)}


def test_a_history_to_which_a_file_was_added_is_that_of_all_files(crm: Callable[..., Config], tmp_path: Path) -> None:
    def digests(config: Config) -> dict[str, str]:
        store = ingest(config)
        return {
            str(path.relative_to(store.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in store.folder.rglob("*.parquet")
        }

    config = crm()
    before = digests(config)
    (tmp_path / "crm-2.csv").write_text("customer_id,stage,entered_at,known_at\nb,Lead,2024-02-06,2024-02-07\n")
    added = digests(config)
    assert added != before
    assert added == digests(crm(out="fresh"))


def test_check_counts_where_the_field_and_the_dates_disagree(crm: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "now.csv").write_text("customer_id,known_at,lifecycle\na,2024-02-20,Won\nc,2024-02-20,Lead\n")
    config = crm(
        attributes={"path": "now.csv", "columns": {"lifecycle": "lifecycle"}},
        stage_history={"path": "crm-1.csv", "field": "lifecycle"},
        journey=a_journey(Lead={"stage_field": "Lead"}),
    )
    found = check(config, parse_as_of("2024-03-01", config.zone), Silent())
    assert "of 2 customers with both, 1 have another stage in the attribute 'lifecycle'" in found.warnings[0]
    with pytest.raises(ValueError, match=r"stage_history.field: there is no attribute 'lifecycel'"):
        crm(stage_history={"path": "crm-1.csv", "field": "lifecycel"})


def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    """Four accounts, one at each of the upper stages, and one that only the product knows."""
    (block,) = re.findall(r"^```yaml\n(name: b2b\n.*?)^```", (ROOT / "docs" / "journey.md").read_text(), re.M | re.S)
    (tmp_path / "b2b.yaml").write_text(block)
    shared = "".join(
        f"{account},2024-0{month}-{day:02d}T10:00,report_shared\n"
        for account, month, days in (("active", 3, (2, 3, 4)), ("grown", 4, (2,)), ("user", 1, (5, 6, 7)))
        for day in days
    )
    (tmp_path / "product_events.csv").write_text("customer_id,occurred_at,event\n" + shared)
    (tmp_path / "opportunity_history.csv").write_text(
        "AccountId,NewValue,CreatedDate,Pipeline\n"
        "lead,Prospecting,2024-02-01T09:00,New business\n"
        "lead,Proposal,2024-02-02T09:00,Renewal\n"
        "offered,Qualification,2024-02-01T09:00,New business\n"
        "offered,Proposal,2024-02-03T09:00,New business\n"
        "active,Closed Won,2024-03-01T09:00,New business\n"
    )
    (tmp_path / "accounts.csv").write_text(
        "AccountId,ChangedAt,Plan,RenewalDate\n"
        "grown,2024-02-01,Team,2025-02-01\ngrown,2024-05-01,Enterprise,2025-05-01\nuser,2024-01-01,Free,\n"
    )
    config = load_config(tmp_path / "b2b.yaml")
    assert highest(config, "2024-04-15") == [1, 1, 1, 1, 1, 0]
    assert highest(config, "2024-05-02") == [1, 1, 1, 0, 1, 1]


FIELD = Path(os.environ.get("CVJ_ML_FIELD") or ROOT.parent / "shared" / "field")


def highest(config: Config, as_of: str) -> list[int]:
    stages = check(config, parse_as_of(as_of, config.zone), Silent()).stages
    return [int(number) for number in stages["customers"]]


def test_stages_of_a_crms_files_are_those_by_dates(tmp_path: Path) -> None:
    if not FIELD.is_dir():
        absent("field", f"{FIELD} is not there; set CVJ_ML_FIELD to the folder that holds it")
    order = ["Prospecting", "Qualification", "Proposal", "Closed Won"]
    base = {"name": "crm", "time_zone": "UTC", "history_from": "2023-01-01", "out": str(tmp_path / "out")}
    opportunities = {
        "files": {"history": str(FIELD / "field_history" / "history.csv")},
        "query": "SELECT * FROM history WHERE Field = 'StageName'",
        "time_format": "%Y-%m-%dT%H:%M:%S.%f%z",
        "columns": {
            "customer_id": "AccountId", "stage": "NewValue", "entered_at": "CreatedDate", "known_at": "CreatedDate",
        },
    }  # fmt: skip
    config = base | {
        "stage_history": opportunities,
        "journey": a_journey(**{name: {"stage_field": name} for name in order}),
    }
    assert highest(Config.model_validate(config), "2027-01-01") == [0, 6, 41, 21, 22]

    for file, names, counts in (
        (
            "all-contacts.csv",
            ["New", "Lead", "Marketing Qualified Lead", "Opportunity", "Customer"],
            [92, 84, 61, 27, 36],
        ),
        ("contacts-lifecycle.csv", ["Subscriber", "Lead", "Opportunity", "Customer"], [44, 133, 144, 79]),
    ):
        dated = [f"'{name}', \"{_date_column(name)}\"" for name in names]
        rows = " UNION ALL ".join(f'SELECT "Record ID" AS customer_id, {pair} FROM contacts' for pair in dated)
        contacts = {
            "files": {"contacts": str(FIELD / "crm_contacts" / file)},
            "query": f"SELECT * FROM ({rows}) t(customer_id, stage, entered_at) WHERE entered_at <> ''",
            "known_after": "1s",
        }
        stages = {"stage_history": contacts, "journey": a_journey(**{name: {"stage_field": name} for name in names})}
        found = highest(Config.model_validate(base | stages), "2027-01-01")
        assert found == [0, *counts]


def test_stages_that_go_back_and_forth_are_recounted_by_hand(tmp_path: Path) -> None:
    """A stage is left where the CRM sets an earlier one, so the highest stage held is what the field says."""
    if not FIELD.is_dir():
        absent("field", f"{FIELD} is not there; set CVJ_ML_FIELD to the folder that holds it")
    order = ["Prospecting", "Qualification", "Proposal", "Closed Won"]
    stages: list[dict[str, Any]] = [{"name": name, "enter": {"stage_field": name}} for name in order]
    for i, stage in enumerate(stages[1:], 1):
        stage["leave"] = {"stage_field": order[:i]}
    config = Config.model_validate(
        {
            "name": "crm",
            "time_zone": "UTC",
            "history_from": "2023-01-01",
            "out": str(tmp_path / "out"),
            "stage_history": {
                "files": {"history": str(FIELD / "field_history" / "history.csv")},
                "query": "SELECT * FROM history WHERE Field = 'StageName'",
                "time_format": "%Y-%m-%dT%H:%M:%S.%f%z",
                "columns": {
                    "customer_id": "AccountId",
                    "stage": "NewValue",
                    "entered_at": "CreatedDate",
                    "known_at": "CreatedDate",
                },
            },
            "journey": {"name": "crm", "stages": stages},
            "engine": {"buckets": 2, "threads": 1},
        }
    )
    assert highest(config, "2027-01-01") == [0, 17, 37, 17, 19]
    changes: dict[str, list[tuple[int, str]]] = {}
    with (FIELD / "field_history" / "history.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["Field"] == "StageName":
                at = parse_as_of(row["CreatedDate"].replace(".000+0000", "+00:00"), config.zone)
                changes.setdefault(row["AccountId"], []).append((at, row["NewValue"]))
    backwards, compared = 0, 0
    journey, instants = Journey(config.journey), np.array([at for one in changes.values() for at, _ in one])
    for block in blocks(config):
        held = stays(journey, block.touchpoints)
        for i, name in enumerate(block.customers):
            for as_of in np.unique(np.concatenate([instants, instants + 1]))[::5].tolist():
                since: dict[str, int] = {}
                for at, value in sorted(one for one in changes[name] if one[0] < as_of):
                    for stage in order[order.index(value) + 1 :]:
                        backwards += since.pop(stage, None) is not None
                    since.setdefault(value, at)
                here = max(since, key=order.index, default=None)
                state = held.at(np.array([i]), as_of)
                assert state.stage[0] == (-1 if here is None else order.index(here))
                days = np.nan if here is None else (as_of - since[here]) / DAY
                assert state.days_in_stage[0] == pytest.approx(days, nan_ok=True)
                compared += 1
    assert backwards > 100 and compared > 1000


def _date_column(stage: str) -> str:
    if stage == "New":
        return "Create Date"
    return f"Became a{'n' if stage[0] == 'O' else ''} {stage} Date"
