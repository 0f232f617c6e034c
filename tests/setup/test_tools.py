"""Exports of well-known tools: recognised by their columns, read as the tool's documentation says, with no edits.

``tools/<tool>/`` has a tiny export of each kind with what is right of it, by hand; ``tools/business.py`` writes a year
of one made-up business as every tool would show it.
"""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.setup.tools.business import WRITERS, happenings
from tests.setup.tools.first_list import list_of_it, newest, read_as_it_is
from tests.test_field import require_values
from tests.trained import Outcome, call

from cvj_ml.config import load_config
from cvj_ml.config.journey import JourneySpec
from cvj_ml.config.settings import read_journey
from cvj_ml.setup.named_tools import FileColumns, known_tools, recognise

HERE = Path(__file__).parent / "tools"
SAMPLES = [
    (path.parent.name, number)
    for path in sorted(HERE.glob("*/expected.yaml"))
    for number, _ in enumerate(yaml.safe_load(path.read_text()))
]
TOOLS = sorted(known_tools())


def init(folder: Path, *arguments: object) -> tuple[Outcome, Path]:
    target = folder / "tool.yaml"
    return call("init", *arguments, "--config", target, "--time-zone", "UTC"), target


@pytest.mark.parametrize(("tool", "number"), SAMPLES)
def test_a_tiny_export_has_the_values_that_are_right_by_hand(tool: str, number: int, tmp_path: Path) -> None:
    expected: dict[str, Any] = yaml.safe_load((HERE / tool / "expected.yaml").read_text())[number]
    files = [HERE / tool / name for name in expected["files"]]
    done, target = init(tmp_path, *files, "--from", tool, "--yes")
    if "unread" in expected:
        assert done.code == 3 and expected["unread"] in done.err
        return
    assert done.code == 0, done.err
    said = " ".join((done.out + done.err).split())
    assert f"({expected['export']})" in said
    for words in expected.get("told", []):
        assert words in said
    text = target.read_text()
    target.unlink()
    found, _ = init(tmp_path, *files, "--yes")
    assert found.code == 0 and target.read_text() == text, "what --from says is found by itself"
    if "edit" in expected:
        target.write_text(yaml.safe_dump(yaml.safe_load(text) | expected["edit"]))
    require_values(target, expected)
    if "late" in expected:
        rows = newest(target)
        late = (rows["visible_at"] - rows["occurred_at"]).max()
        assert late == pd.Timedelta(expected["late"].replace("h", " hours").replace("d", " days"))


@pytest.mark.slow  # tiny exports of every kind are fast
@pytest.mark.parametrize("tool", TOOLS)
def test_a_year_of_a_business_has_the_values_of_its_log(tool: str, tmp_path: Path) -> None:
    read = read_as_it_is(call, tool, WRITERS[tool](happenings(), tmp_path), tmp_path)
    assert read.stored and "tool" in read.doubts


@pytest.mark.slow
def test_a_list_comes_out_of_an_export_without_edits(tmp_path: Path) -> None:
    """Devices and logins; `python -m benchmarks.first_list` goes the way for every tool."""
    read = read_as_it_is(call, "ga4", WRITERS["ga4"](happenings(customers=600), tmp_path), tmp_path)
    verdict, listed = list_of_it(call, read)
    assert verdict.startswith("Promoted") and len(listed) > 100


@pytest.mark.slow
def test_a_refused_model_of_few_orders_ends_with_what_leads_to_a_list(tmp_path: Path) -> None:
    """Orders alone of 181 buyers teach less than base rates; what the message says then is tried here."""
    read = read_as_it_is(call, "shopify", WRITERS["shopify"](happenings(), tmp_path), tmp_path)
    refused = call("train", read.target, "--as-of", read.as_of)
    assert refused.code == 5 and "write model: {min_customers: N}" in refused.err
    read.target.write_text(read.target.read_text() + "model: {min_customers: 1000}\n")
    verdict, listed = list_of_it(call, read)
    assert "rests wholly on base rates" in verdict and len(listed) > 50


def test_every_tool_has_a_sample_of_every_export_and_a_business() -> None:
    assert set(WRITERS) == set(TOOLS) == {tool for tool, _ in SAMPLES}
    for tool in TOOLS:
        runs = yaml.safe_load((HERE / tool / "expected.yaml").read_text())
        without = {name for name, one in known_tools()[tool].exports.items() if not one.sources}
        assert set(known_tools()[tool].exports) - without <= {run["export"] for run in runs}


def test_no_export_is_taken_for_another() -> None:
    """What tells an export has to tell it from all others: its own columns alone recognise it, and only it."""
    for name, tool in known_tools().items():
        for kind, export in tool.exports.items():
            ways = [column.split(" | ")[0] for column in export.recognise]
            found = recognise(FileColumns(lambda way, ways=ways: way if way in ways else None), None)
            assert found is not None and (found.tool, found.name) == (tool, kind), (name, kind)


def test_what_tools_say_of_events_is_known_to_the_preset_and_said_once() -> None:
    cvj8: JourneySpec = read_journey("cvj8")
    for name, tool in known_tools().items():
        assert cvj8.unknown_events(tool.events) == [], name
        counted = {event for names in tool.events.values() for event in names}
        for one, other in pairwise([counted, set(tool.uncounted), set(tool.outbound)]):
            assert not one & other, name
        assert not counted & set(tool.outbound), name


def test_a_file_that_is_none_of_the_tool_ends_with_what_it_lacks(tmp_path: Path) -> None:
    done, target = init(tmp_path, HERE / "shopify" / "orders_export.csv", "--from", "snowplow", "--yes")
    assert done.code == 2 and not target.exists()
    assert "orders_export.csv: events (it lacks event_id" in done.err
    done, _ = init(tmp_path, HERE / "shopify" / "orders_export.csv", "--from", "shopfy", "--yes")
    assert done.code == 2 and "Did you mean" in done.err and "shopify" in done.err


def test_recognition_can_be_switched_off_and_a_told_column_wins(tmp_path: Path) -> None:
    file = HERE / "snowplow" / "events.csv"
    done, target = init(tmp_path, file, "--from", "none", "--yes")
    assert done.code == 0 and "recognised" not in done.out
    target.unlink()
    done, target = init(tmp_path, file, "--column", "customer_id=user_id", "--yes")
    assert done.code == 0, done.err
    (source,) = yaml.safe_load(target.read_text())["sources"].values()
    assert source["columns"]["customer_id"] == "user_id" and source["columns"]["event"] == "event_name"


def test_a_warehouse_in_capitals_is_the_same_table(tmp_path: Path) -> None:
    rows = pd.read_csv(HERE / "snowplow" / "events.csv", dtype=str)
    rows.rename(columns=str.upper).to_csv(tmp_path / "EVENTS.csv", index=False)
    done, target = init(tmp_path, tmp_path / "EVENTS.csv", "--yes")
    assert done.code == 0, done.err
    (source,) = yaml.safe_load(target.read_text())["sources"].values()
    assert source["columns"]["occurred_at"] == "DERIVED_TSTAMP"


@pytest.mark.parametrize(("without", "left"), [("user_id", "domain_userid"), ("domain_userid", "user_id")])
def test_an_export_with_one_of_two_ids_is_read_by_that_one(without: str, left: str, tmp_path: Path) -> None:
    rows = pd.read_csv(HERE / "snowplow" / "events.csv", dtype=str).drop(columns=without)
    rows.dropna(subset=left).to_csv(tmp_path / "events.csv", index=False)
    done, target = init(tmp_path, tmp_path / "events.csv", "--yes")
    assert done.code == 0 and "recognised as an export of Snowplow" in done.out, done.err
    assert load_config(target).sources["events"].columns["customer_id"] == left


def test_logins_that_are_numbers_and_devices_that_are_text_are_joined(tmp_path: Path) -> None:
    text = (HERE / "segment" / "calls.jsonl").read_text()
    (tmp_path / "calls.jsonl").write_text(re.sub('"userId": "u(.)"', r'"userId": \1', text))
    done, target = init(tmp_path, tmp_path / "calls.jsonl", "--yes")
    assert done.code == 0 and "userId, anonymousId are text and numbers" in " ".join(done.out.split()), done.err
    assert yaml.safe_load(target.read_text())["ids"] == "text"
    require_values(target, {"as_of": "2024-05-01", "values": {"customers": 2, "used": 8}})


def test_the_configuration_needs_nothing_of_the_tool_again(tmp_path: Path) -> None:
    shutil.copy(HERE / "snowplow" / "events.csv", tmp_path)
    _, target = init(tmp_path, tmp_path / "events.csv", "--yes")
    assert load_config(target).sources["events"].columns["event"] == "event_name"
    assert "# Snowplow, events: https://docs.snowplow.io" in target.read_text()
    assert not re.search("setup/tools|recognise:", target.read_text())


def test_two_tools_whose_customers_have_nothing_in_common_are_a_question(tmp_path: Path) -> None:
    done, target = init(tmp_path, HERE / "snowplow" / "events.csv", HERE / "klaviyo" / "event.csv")
    assert done.code == 3 and not target.exists()
    assert "shares-nobody" in done.err and "not one id stands in both" in " ".join(done.err.split())


def test_amounts_in_two_currencies_are_never_summed(tmp_path: Path) -> None:
    text = (HERE / "shopify" / "orders_export.csv").read_text()
    (tmp_path / "orders.csv").write_text(text.replace("yes,EUR,10.25", "yes,USD,10.25"))
    done, _ = init(tmp_path, tmp_path / "orders.csv")
    assert (
        done.code == 3
        and "orders.currencies" in done.err
        and "EUR in 3 rows, USD in 1 rows" in " ".join(done.err.split())
    )
    done, target = init(tmp_path, tmp_path / "orders.csv", "--yes")
    assert done.code == 0, done.err
    assert yaml.safe_load(target.read_text())["sources"]["orders"]["currency"] == {"column": "Currency", "to": "EUR"}


def test_an_export_that_a_spreadsheet_saved_anew_is_read_as_it_is_written_now(tmp_path: Path) -> None:
    rows = pd.read_csv(HERE / "shopify" / "orders_export.csv", dtype=str)
    for column in ("Paid at", "Created at", "Cancelled at"):
        local = rows[column].dropna().str.slice(0, 19).map(pd.Timestamp)
        rows[column] = local.dt.strftime("%d.%m.%Y %H:%M").reindex(rows.index)
    rows["Total"] = rows["Total"].str.replace(".", ",")
    anew, sound = tmp_path / "anew", tmp_path / "sound"
    anew.mkdir()
    rows.to_csv(anew / "orders.csv", index=False, sep=";", encoding="cp1252")
    done, target = init(anew, anew / "orders.csv", "--yes", "--json")
    assert done.code == 0, done.err
    assert any(one["name"] == "orders.resaved" for one in json.loads(done.out)["doubts"])
    source = yaml.safe_load(target.read_text())["sources"]["orders"]
    assert source["time_format"] == "%d.%m.%Y %H:%M" and source["decimal_mark"] == ","
    sound.mkdir()
    _, plain = init(sound, HERE / "shopify" / "orders_export.csv", "--yes")
    for one in (target, plain):
        assert call("check", one, "--as-of", "2024-12-31").code == 0
    assert newest(target)["value"].sum() == newest(plain)["value"].sum() > 0


def test_an_export_of_which_nothing_is_left_says_why_and_names_no_file_that_is_gone(tmp_path: Path) -> None:
    text = (HERE / "shopify" / "orders_export.csv").read_text()
    (tmp_path / "orders.csv").write_text(re.sub(r"\d\d:\d\d:\d\d [+-]\d{4}", "in the morning", text))
    done, target = init(tmp_path, tmp_path / "orders.csv", "--from", "shopify", "--yes")
    assert done.code == 3 and not target.exists()
    assert "unreadable occurred_at: " in done.err and "by where or melt)" in done.err and "orders.csv" in done.err
    assert "quarantine" not in done.err


def test_json_in_text_is_another_tools_only_with_the_keys_that_tell_it(tmp_path: Path) -> None:
    rows = [
        {"uuid": f"e{row}", "event": "purchase_completed" if row % 3 else "$pageview", "distinct_id": f"p{row % 4}",
         "properties": json.dumps({"$current_url": "/", **({"amount": 10 + row} if row % 3 else {})}),
         "timestamp": f"2024-01-{1 + row:02}T10:00:00+00:00"}
        for row in range(24)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "events.csv", index=False)
    done, target = init(tmp_path, tmp_path / "events.csv", "--yes")
    assert done.code == 0 and "recognised" not in done.out + done.err
    assert load_config(target).sources["events"].columns["value"] == "properties.amount"
