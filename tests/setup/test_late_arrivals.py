"""GA4's table of a day changes for three days: what was said while rows were still to come stays what is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.setup.tools.business import WRITERS, happenings
from tests.trained import call

from cvj_ml.audit.outputs import compare_outputs, outputs_at
from cvj_ml.config import load_config
from cvj_ml.inputs import open_histories
from cvj_ml.panel.model_spec import define
from cvj_ml.run import Silent
from cvj_ml.windows import parse_as_of

FIRST, SECOND = datetime(2024, 10, 20, 6, tzinfo=UTC), datetime(2024, 10, 24, 6, tzinfo=UTC)
"""When the tables were saved; between them all rows arrive that were late at the first."""
DAILY = "20241016"
"""From here on a table a day; an older one changes no more."""
INSTANTS = ("2024-09-01", "2024-10-18T11:30", "2024-10-20")


@dataclass(frozen=True)
class Arriving:
    """A row of the export, the table that it belongs to, and the instant at which GA4 writes it there."""

    row: dict[str, Any]
    at: datetime
    arrived: datetime


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Arriving]:
    """A made-up shop's year: two rows of five come one to three days late, of every kind of event and every device."""
    export = WRITERS["ga4"](happenings(customers=300), tmp_path_factory.mktemp("ga4"))
    found = []
    for number, line in enumerate(line for file in export.files for line in file.read_text().splitlines()):
        row = json.loads(line)
        at = datetime.fromtimestamp(int(row["event_timestamp"]) / 1e6, UTC)
        late = timedelta(days=1, hours=7 * (number % 7)) if number % 5 < 2 else timedelta(hours=1)
        found.append(Arriving(row, at, at + late))
    return found


def save(rows: list[Arriving], folder: Path, moment: datetime) -> list[Path]:
    """Write the tables as they stand at a moment, over those of an earlier one: days at last, months before."""
    tables: dict[str, list[str]] = {}
    for one in rows:
        if one.arrived < moment:
            day = one.row["event_date"]
            tables.setdefault(day if day >= DAILY else f"{day[:6]}01", []).append(json.dumps(one.row))
    folder.mkdir(exist_ok=True)
    for day, lines in tables.items():
        (folder / f"events_{day}.json").write_text("\n".join(lines) + "\n")
    return sorted(folder.glob("events_*.json"))


@pytest.fixture(scope="module")
def configured(rows: list[Arriving], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables as they stand at the first moment, with the configuration that `init` made of them."""
    folder = tmp_path_factory.mktemp("tables")
    files = save(rows, folder, FIRST)
    done = call("init", *files, "--yes", "--config", folder / "ga4.yaml", "--time-zone", "UTC")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def target(configured: Path, tmp_path: Path) -> Path:
    """A copy of tables and configuration for one test."""
    return shutil.copytree(configured, tmp_path / "tables") / "ga4.yaml"


def counted(target: Path) -> dict[str, Any]:
    """Return what `check` counts at the last instant: rows used and replaced, and customers by stage."""
    done = call("check", target, "--as-of", INSTANTS[-1], "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return {name: found[name] for name in ("used", "superseded", "stages")}


def require_audited(target: Path) -> None:
    done = call("audit", target, "--as-of", INSTANTS[-1], "--cut-offs", 1, "--json")
    assert done.code == 0 and json.loads(done.out)["leaks"] == [], done.err


def answers(target: Path, as_of: str) -> list[Any]:
    """Return stages, entries, features and labels of every customer at an instant, block by block."""
    config = load_config(target)
    histories, instant = open_histories(config, Silent()), parse_as_of(as_of, config.zone)
    definition = define(config, histories.visible.journey, histories.engine(), instant)
    delay = histories.store.arrival_delay
    return [*histories.engine().map(lambda block: outputs_at(definition, None, block, instant, delay))]


def differing(one: list[Any], other: list[Any]) -> int:
    """Return how many values, customers and names differ between answers."""
    assert len(one) == len(other)
    return sum(len(compare_outputs(*pair).different) for pair in zip(one, other, strict=True))


@pytest.mark.slow
def test_rows_that_arrive_days_late_change_no_past_answer(rows: list[Arriving], target: Path) -> None:
    late = [one for one in rows if one.at < FIRST <= one.arrived < SECOND]
    assert {"page_view", "view_item", "sign_up", "purchase"} <= {one.row["event_name"] for one in late}
    before, found = counted(target), {as_of: answers(target, as_of) for as_of in INSTANTS}
    save(rows, target.parent, SECOND)
    assert counted(target) == before
    for as_of in INSTANTS:
        assert differing(found[as_of], answers(target, as_of)) == 0, as_of


def test_without_the_three_days_the_same_rows_change_what_was_said(rows: list[Arriving], target: Path) -> None:
    document = yaml.safe_load(target.read_text())
    del document["sources"]["events"]["known_after"]
    target.write_text(yaml.safe_dump(document))
    before = answers(target, INSTANTS[-1])
    save(rows, target.parent, SECOND)
    assert differing(before, answers(target, INSTANTS[-1])) > 50


@pytest.mark.slow
def test_a_night_of_before_the_late_rows_is_published_alike_after_them(rows: list[Arriving], target: Path) -> None:
    trained = call("train", target, "--as-of", "2024-10-17", "--promote", "always")
    assert trained.code == 0, trained.err
    before = published(target, "2024-10-20")
    require_audited(target)
    save(rows, target.parent, SECOND)
    after = published(target, "2024-10-20")
    require_audited(target)
    assert before.keys() == after.keys() and sum(map(len, before.values())) > len(before["scores.parquet"]) > 100
    for name, frame in before.items():
        pd.testing.assert_frame_equal(frame, after[name])


def published(target: Path, as_of: str) -> dict[str, pd.DataFrame]:
    """Publish a night and return scores and lists by the names of their files, without what names the night itself."""
    done = call("nightly", target, "--as-of", as_of, "--watched")
    assert done.code == 0, done.err
    out = target.parent / "out"
    night = out / json.loads((out / "CURRENT.json").read_text())["night"]
    files = [*night.glob("scores/*.parquet"), *night.glob("targets/*.parquet")]
    return {file.name: pd.read_parquet(file).drop(columns=["run_id"], errors="ignore") for file in sorted(files)}
