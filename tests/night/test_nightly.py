"""``cvj-ml nightly``: right or not published, whatever fails; the same as each day's own run; one at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.trained import AS_OF, CUSTOMERS, SETTINGS, Outcome, Trained, call

from cvj_ml import tracking
from cvj_ml.commands import one_night
from cvj_ml.inputs import Histories, as_of_name
from cvj_ml.models.bundle.bundle import load, save
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.night.reading import current_night
from cvj_ml.night.timings import Stations
from cvj_ml.night.verifying import verify_night
from cvj_ml.ownership import MARKER
from cvj_ml.scoring.opening import make_canary, open_bundle

pytest_plugins = ["tests.fixtures"]

"""The package has a function of that name, too."""

ROOT = Path(__file__).resolve().parents[2]
EARLIER = "2025-06-10"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nightly(file: Path, *arguments: object) -> dict[str, Any]:
    ran = call("nightly", file, *arguments, "--json")
    assert ran.code == 0, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    return document


def summary(ran: Outcome) -> str:
    return next(line for line in ran.err.splitlines() if line.startswith("Night "))


def metric(out: Path, name: str) -> float:
    lines = (out / "metrics.prom").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(f"cvj_ml_night_{name}{{")).split()[-1])


def assert_stands(out: Path, night: str) -> None:
    """The current night is still this one, it is whole, and nothing half-done lies about."""
    current = current_night(out)
    assert current is not None and current.parent.name == f"as_of={night}"
    verify_night(out)
    assert not list(out.glob(".staged-*"))


@pytest.fixture(scope="module")
def published(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An output folder with one published night, not to be changed, and what was said of it."""
    out = tmp_path_factory.mktemp("published")
    return out, nightly(trained.variant(out), "--as-of", AS_OF)


@pytest.fixture
def out(published: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(published[0], tmp_path / "out"))


def test_a_night_is_published_verified_and_accounted_for(published: tuple[Path, dict[str, Any]]) -> None:
    out, document = published
    (night,) = document["nights"]
    assert (night["outcome"], night["current"], night["customers"]) == ("published", True, CUSTOMERS)
    assert night["model_source"] == "the registry"
    rows = night["rows"]
    assert rows.pop("rows_in") == sum(rows.values()) > 0
    assert verify_night(out).folder == Path(night["night"])
    run = json.loads(Path(night["night"], "run.json").read_text())
    assert {"Reading sources", "Fetching the champion", "Scoring", "Writing the night"} <= run["stations"].keys()
    assert {"customers", "model_age", "freshness:touchpoints"} <= {one["name"] for one in run["gates"]}
    assert run["model"].keys() == {"version", "run_id", "digest", "source"} and run["versions"]["lightgbm"]
    assert metric(out, "exit_code") == 0 and metric(out, "customers") == CUSTOMERS
    assert {path.name for path in out.iterdir()} == {
        *(MARKER, ".lock", "CURRENT.json", f"as_of={AS_OF}", "metrics.prom", "models", "store")
    }  # fmt: skip


def test_a_second_run_finds_the_night_and_scores_nobody(
    trained: Trained, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(out / f"as_of={AS_OF}")
    monkeypatch.setattr(one_night, "score", None)
    (night,) = nightly(trained.variant(out), "--as-of", AS_OF)["nights"]
    assert (night["outcome"], night["current"]) == ("unchanged", True)
    assert night["lists"] == {"convert__ascend__30d": 5, "advocate__promote__30d": 5}
    assert everything(out / f"as_of={AS_OF}") == before


def test_each_list_says_how_many_are_expected_to_move(trained: Trained, out: Path) -> None:
    """The bounds are those of the model's own past forecasts, for as many customers."""
    errors = load(trained.bundle).forecast_errors
    folder = Path(nightly(trained.variant(out), "--as-of", AS_OF)["nights"][0]["night"])
    rows = pq.read_table(folder / "targets" / "summary.parquet", partitioning=None).to_pylist()
    told = call("targets", trained.variant(out), "--as-of", AS_OF).out
    for row in rows:
        listed = pq.read_table(folder / "targets" / f"{row['list']}.parquet", partitioning=None)
        p = listed["probability"].to_numpy()
        found = errors.forecast(row["from_stage"], row["to_stage"], row["horizon_days"], p, row["in_stage"])
        assert found.columns("expected_moves") == {name: row[name] for name in found.columns("expected_moves")}
        assert (row["past_folds"], row["expected_moves_spread"]) == (found.folds, found.spread)
        assert f"moves, going on as before: {found.words}" in told
        assert row["expected_moves"] <= row["stage_expected_moves"] + 1e-9
    assert any(row["past_folds"] >= 3 and row["expected_moves_high_95"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "targets"])
def test_little_data_only_warns_where_a_person_watches(trained: Trained, tmp_path: Path, command: str) -> None:
    """And a night that was published so is not taken over by a run that nobody watches."""
    file = trained.variant(tmp_path, gates={"customers": {"fewest": 10_000}})
    ran = call(command, file, "--as-of", AS_OF)
    assert ran.code == 0, ran.err
    assert "warning: customers: 120 customer(s) to score, fewer than" in ran.err
    assert "`cvj-ml nightly` would not publish this night" in ran.err
    unwatched = call("nightly", file, "--as-of", AS_OF)
    assert unwatched.code == 5 and "--accept customers" in unwatched.err
    again = call(command, file, "--as-of", AS_OF)
    assert again.code == 0 and "It was published already, and is whole." in again.out
    assert not [line for line in again.err.splitlines() if line == "Scoring"]


@pytest.mark.parametrize(("command", "options"), [("targets", []), ("score", ["--no-lists"])])
def test_two_commands_are_short_for_this_one(trained: Trained, out: Path, command: str, options: list[str]) -> None:
    """Also where a night is found that the other one made; a person's run leaves the metrics alone."""
    file, metrics = trained.variant(out), (out / "metrics.prom").read_bytes()
    assert call(command, file, "--as-of", AS_OF).code == 0
    short = call(command, file, "--as-of", AS_OF)
    assert short.code == 0 and "It was published already, and is whole." in short.out
    assert call("nightly", file, "--as-of", AS_OF, "--watched", *options) == short
    one = json.loads(call(command, file, "--as-of", AS_OF, "--json").out)
    assert nightly(file, "--as-of", AS_OF, "--watched", *options) == {"dry_run": False, "nights": [one]}
    assert (out / "metrics.prom").read_bytes() == metrics
    assert bool(one["lists"]) == one["current"] == (command == "targets")
    assert_stands(out, AS_OF)


@pytest.mark.slow
def test_a_night_without_lists_that_nobody_watches(trained: Trained, out: Path) -> None:
    file = trained.variant(out)
    ran = call("nightly", file, "--as-of", EARLIER, "--no-lists", "--watched", "--dry-run")
    first, second, *more = ran.out.splitlines()
    assert ran.code == 0 and first.startswith("Scored 117 customers with model") and not more
    assert second == "  It is not published: this was a dry run." and not list(out.glob(f"as_of={EARLIER}"))
    ran = call("nightly", file, "--as-of", EARLIER, "--no-lists")
    assert ran.code == 0 and "117 customers, 0 on 0 list(s), model" in summary(ran)
    (night,) = out.glob(f"as_of={EARLIER}/*")
    assert not (night / "targets").exists() and (night / "report" / "index.html").is_file()
    assert "\ncvj_ml_night_customers{" in (text := (out / "metrics.prom").read_text())
    assert "cvj_ml_night_listed{" not in text
    assert "It was published already, and is whole." in call("score", file, "--as-of", EARLIER).out


@pytest.mark.parametrize("command", ["nightly", "score", "targets"])
def test_a_damaged_pointer_is_told_before_the_work(trained: Trained, out: Path, command: str) -> None:
    (out / "CURRENT.json").write_text("{")
    before = everything(out)
    ran = call(command, trained.variant(out), "--as-of", EARLIER)
    assert ran.code == 4 and ran.err.startswith(
        f"error: {out}/CURRENT.json: the pointer to the current night is damaged"
    )
    assert {name for name in everything(out) if everything(out)[name] != before.get(name)} <= {".lock"}


FAILING = {"drift": {"warn": 0.0001, "fail": 0.0001}, "model_age": {"warn": "1h", "fail": "1h"}}
LATER = "2025-06-30"


@pytest.mark.parametrize("command", ["nightly", "score", "targets"])
def test_every_command_that_publishes_asks_the_gates(trained: Trained, out: Path, command: str) -> None:
    """Silent error 52: nothing is published past a failing gate, by no command, and `report` publishes nothing."""
    before = everything(out)
    file = trained.variant(out, gates=FAILING)
    ran = call(command, file, "--as-of", LATER)
    assert (ran.code, ran.out) == (5, "")
    assert "The night is not published; the last one stays current." in ran.err and "--accept model_age" in ran.err
    shown = call("report", file, "--as-of", LATER)
    assert (shown.code, shown.out) == (4, "")
    assert shown.err == (
        f"error: {out}: no night of {LATER} is published; the newest is that of {AS_OF}. `cvj-ml targets CONFIG --as-of"
        f" {LATER}` makes and publishes it, if its gates pass.\n"
    )
    assert_stands(out, AS_OF)
    same = {name for name in before if name.startswith("as_of=") or name == "CURRENT.json"}
    assert {name: everything(out).get(name) for name in same} == {name: before[name] for name in same}
    assert not [name for name in everything(out) if LATER in name]
    accepted = call(command, file, "--as-of", LATER, "--accept", "model_age", "--accept", "drift:features", "--json")
    assert accepted.code == 0, accepted.err
    assert "warning: model_age:" in accepted.err and "(accepted for this night)" in accepted.err
    assert_stands(out, LATER)
    page = json.loads(call("report", file, "--as-of", LATER, "--json").out)
    assert Path(page["page"]).is_file() and Path(page["worksheet"]).is_file() and page["current"]
    assert bool(page["lists"]) == (command != "score")
    text = Path(page["page"]).read_text(encoding="utf-8")
    assert ("This night has no lists." in text) == (command == "score")


def test_report_finds_a_night_and_touches_nothing(trained: Trained, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent error 52: neither sources nor models are read for it, and nobody is kept from writing meanwhile."""
    for name in ("open_histories", "pin_champion", "hold"):
        monkeypatch.setattr(f"cvj_ml.commands.nightly.{name}", None)
    monkeypatch.setattr(one_night, "publish", None)
    before = everything(out)
    ran = call("report", trained.variant(out), "--as-of", AS_OF)
    (night,) = out.glob(f"as_of={AS_OF}/*")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"Page:      {night}/report/index.html\nWorksheet: {night}/report/worksheet.md\n"
    assert everything(out) == before
    (night / "report" / "index.html").write_text("another")
    damaged = call("report", trained.variant(out), "--as-of", AS_OF)
    assert damaged.code == 4 and "report/index.html was changed" in damaged.err
    (night / "run.json").write_text("{")
    assert call("report", trained.variant(out), "--as-of", AS_OF).code == 4
    empty = call("report", trained.variant(out / "empty"), "--as-of", AS_OF)
    assert empty.code == 4 and "there is none at all" in empty.err and not (out / "empty").exists()


@pytest.mark.slow
def test_a_dry_run_does_everything_but_publish(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path / "out")
    tried = call("nightly", file, "--as-of", AS_OF, "--dry-run")
    assert tried.code == 0, tried.err
    assert tried.out.startswith(f"Would publish {tmp_path}/out/as_of={AS_OF}/")
    assert "it would become the current night" in tried.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MARKER, ".lock", "models", "store"}
    (night,) = nightly(file, "--as-of", AS_OF)["nights"]
    assert f"Would publish {night['night']}\n" in tried.out, "the same digest"


@pytest.mark.slow
def test_each_night_of_a_backfill_is_that_days_own_run_to_the_byte(trained: Trained, tmp_path: Path) -> None:
    days = ["2025-06-10", "2025-06-11", "2025-06-12"]
    file = trained.variant(tmp_path / "all")
    nightly(file, "--as-of", AS_OF)
    found = nightly(file, "--backfill", f"{days[0]}..{days[-1]}")["nights"]
    assert [(one["as_of"], one["outcome"], one["current"]) for one in found] == [
        (day, "published", False) for day in days
    ]
    assert_stands(tmp_path / "all", AS_OF)
    for night, day in zip(found, days, strict=True):
        # In one folder: the nights before it are what each is compared with.
        (own,) = nightly(trained.variant(tmp_path / "own"), "--as-of", day)["nights"]
        a, b = (everything(Path(one["night"])) for one in (night, own))
        assert Path(night["night"]).name == Path(own["night"]).name
        assert {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)} == {"run.json"}


def test_a_night_that_fails_says_so_in_one_line_and_leaves_the_last_one(trained: Trained, out: Path) -> None:
    success = metric(out, "last_success_timestamp_seconds")
    ran = call("nightly", trained.variant(out), "--as-of", "2019-01-01", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert " failed: exit code 3 after " in summary(ran)
    assert summary(ran).endswith(f"at 'Counting rows'; {AS_OF} is the current night.")
    assert "error: No touchpoint is visible before 2019-01-01" in ran.err
    assert_stands(out, AS_OF)
    assert metric(out, "exit_code") == 3 and metric(out, "last_success_timestamp_seconds") == success
    watched = call("nightly", trained.variant(out), "--backfill", "2019-01-01..2019-01-02", "--watched")
    assert watched.code == 3 and "Night 2019-01-01\nCounting rows\nerror: No touchpoint is visible" in watched.err


@pytest.mark.slow
def test_a_backfill_stops_at_the_first_night_that_fails_and_says_which_are_done(trained: Trained, out: Path) -> None:
    file = trained.variant(out)
    step = Stations.step

    def broken(run: Stations, title: str) -> Any:
        if title == "Ranking the lists" and run.night == "2025-06-11":
            raise OSError(28, "No space left on device")
        return step(run, title)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stations, "step", broken)
        ran = call("nightly", file, "--backfill", "2025-06-10..2025-06-12")
    assert ran.code == 1
    assert "done before it: 2025-06-10;" in summary(ran)
    assert {path.name for path in out.glob("as_of=*")} == {"as_of=2025-06-10", f"as_of={AS_OF}"}
    assert_stands(out, AS_OF)
    again = nightly(file, "--backfill", "2025-06-10..2025-06-12", "--resume")["nights"]
    assert [one["outcome"] for one in again] == ["unchanged", "published", "published"]


@pytest.mark.slow
def test_a_failed_gate_publishes_nothing_unless_it_is_accepted(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path, gates={"customers": {"fewest": 10_000}})
    ran = call("nightly", file, "--as-of", AS_OF)
    assert ran.code == 5
    assert "120 customer(s) to score, fewer than" in ran.err
    assert not list(tmp_path.glob("as_of=*")) and not (tmp_path / "CURRENT.json").exists()
    assert metric(tmp_path, "exit_code") == 5
    assert 'gate="customers"} 2.0' in (tmp_path / "metrics.prom").read_text()
    accepted = call("nightly", file, "--as-of", AS_OF, "--accept", "customers", "--resume")
    assert accepted.code == 0, accepted.err
    assert "warning: customers:" in accepted.err and "1 warning(s)" in summary(accepted)


def test_a_store_that_is_damaged_under_a_night_ends_it_and_is_made_anew(
    trained: Trained, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent error 53: each reader checks anew what was written to since it was looked at."""
    file, whole = trained.variant(out), one_night.score

    def score_from_a_bad_disk(histories: Histories, *rest: Any, **settings: Any) -> Any:
        victim = histories.store.folder / "bucket-0002" / "touchpoints.parquet"
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(bytes(content))
        return whole(histories, *rest, **settings)

    monkeypatch.setattr(one_night, "score", score_from_a_bad_disk)
    ran = call("nightly", file, "--as-of", LATER)
    assert ran.code == 1
    assert "bucket-0002/touchpoints.parquet: it is not what was written (its sha256 differs" in ran.err
    assert "Run the same command again: it makes the store anew from the sources." in ran.err
    assert_stands(out, AS_OF)
    monkeypatch.setattr(one_night, "score", whole)
    again = call("nightly", file, "--as-of", LATER, "--json")
    assert again.code == 0 and "is damaged and is made anew from the sources: bucket-0002/" in again.err
    assert_stands(out, LATER)


# The registry


def own_registry(trained: Trained, folder: Path) -> Path:
    """A configuration with a registry of its own, into which the champion was imported."""
    file = trained.variant(folder / "out", name="own", mlflow={"tracking_uri": f"sqlite:///{folder / 'own.db'}"})
    assert call("models", "import", file, trained.bundle).code == 0
    return file


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_registry_that_is_down_is_stood_in_for_by_the_verified_copy(
    trained: Trained, tmp_path: Path, how: str
) -> None:
    file, out = own_registry(trained, tmp_path), tmp_path / "out"
    (up,) = nightly(file, "--as-of", AS_OF)["nights"]
    database = tmp_path / "own.db"
    if how == "gone":
        database.unlink()
    else:
        database.write_bytes(b"this is no database" * 1000)
    ran = call("nightly", file, "--as-of", AS_OF, "--json")
    assert ran.code == 0, ran.err
    (down,) = json.loads(ran.out)["nights"]
    assert down["model_source"].startswith("registry down, copy of 20")
    assert "registry down, copy of 20" in ran.err
    manifest = json.loads(Path(down["night"], "MANIFEST.json").read_text())
    assert manifest["model_from"] == "local copy, registry down"
    assert json.loads(Path(down["night"], "run.json").read_text())["model"]["source"] == down["model_source"]
    assert 'source="registry down, copy of 20' in (out / "metrics.prom").read_text()
    a, b = (everything(Path(one["night"])) for one in (up, down))
    assert {name for name in a if a[name] != b[name]} == {"MANIFEST.json", "_SUCCESS", "run.json"}
    verify_night(out)

    next((out / "models").glob("*/reach.txt")).write_text("damaged")
    damaged = call("nightly", file, "--as-of", EARLIER)
    assert damaged.code == 1
    assert "The copy of its champion cannot be used either:" in damaged.err
    shutil.rmtree(out / "models")
    nothing = call("nightly", file, "--as-of", EARLIER)
    assert nothing.code == {"gone": 4, "damaged": 1}[how]
    assert_stands(out, AS_OF)


@pytest.mark.slow
def test_a_copy_of_another_registry_is_no_copy(trained: Trained, tmp_path: Path) -> None:
    nightly(own_registry(trained, tmp_path), "--as-of", AS_OF)
    converted = trained.variant(tmp_path / "out", name="own", mlflow={"tracking_uri": f"sqlite:///{tmp_path}/new.db"})
    assert call("nightly", converted, "--as-of", AS_OF).code == 4


def test_a_damaged_copy_is_fetched_anew(trained: Trained, out: Path) -> None:
    (copy,) = (path for path in (out / "models").iterdir() if path.is_dir())
    before = everything(copy)
    (copy / "reach.txt").write_text("damaged")
    (copy / "extra.py").write_text("")
    nightly(trained.variant(out), "--as-of", AS_OF)
    assert everything(copy) == before


def test_a_registry_that_fails_after_the_champion_is_pinned_changes_no_byte(
    trained: Trained, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise tracking_error()

    def tracking_error() -> Exception:
        from cvj_ml.errors import RegistryError

        return RegistryError("The model registry failed.")

    monkeypatch.setattr(tracking, "find_training", fail)
    (night,) = nightly(trained.variant(out), "--as-of", AS_OF)["nights"]
    assert night["outcome"] == "unchanged"


@pytest.mark.slow
def test_a_promotion_during_a_run_changes_nothing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion is pinned once, for all nights of a run."""
    file = own_registry(trained, tmp_path)
    first = open_bundle(trained.bundle)
    old = first.predictor.calibration
    other = replace(first.predictor, calibration=Calibration(old.intercept + 0.1, old.slope))
    save(
        other,
        make_canary(other, trained.as_of, 1),
        tmp_path / "other",
        first.track_record,
        first.card,
        first.forecast_errors,
    )
    assert call("models", "import", file, tmp_path / "other").code == 0
    step = Stations.step

    def promoting(run: Stations, title: str) -> Any:
        if title == "Scoring":
            tracking.promote(trained.config(file), 2)
        return step(run, title)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stations, "step", promoting)
        nights = nightly(file, "--backfill", "2025-06-10..2025-06-11")["nights"]
    assert {one["model_version"] for one in nights} == {first.version}
    (after,) = nightly(file, "--as-of", "2025-06-10")["nights"]
    assert after["model_version"] != first.version


# The log


def test_the_log_is_one_object_a_line_and_holds_no_customer(trained: Trained, tmp_path: Path) -> None:
    strict = trained.variant(tmp_path, gates={"customers": {"fewest": 10_000}})
    ran = call("nightly", strict, "--as-of", AS_OF, "--log-format", "json")
    assert (ran.code, ran.out) == (5, "")
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert all(line.keys() >= {"time", "level", "station", "message"} for line in lines)
    assert {line["level"] for line in lines} == {"info", "error"}
    done = [line for line in lines if line["message"] == "done"]
    assert all(line["seconds"] >= 0 for line in done) and {"Scoring"} <= {line["station"] for line in lines}
    assert lines[-1]["exit_code"] == lines[-2]["exit_code"] == 5
    assert "c000007" not in ran.err and str(strict.name) not in ran.err


def test_a_wrong_configuration_is_told_in_the_log_too(tmp_path: Path) -> None:
    ran = call("nightly", tmp_path / "absent.yaml", "--as-of", AS_OF, "--log-format", "json")
    (line,) = map(json.loads, ran.err.splitlines())
    assert (ran.code, line["level"], line["exit_code"]) == (2, "error", 2)


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_nobody_foresaw_tells_where_and_not_what(
    trained: Trained, out: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise KeyError("customer-4711")

    monkeypatch.setattr(one_night, "score", broken)
    ran = call("nightly", trained.variant(out), "--as-of", EARLIER, "--log-format", form)
    assert ran.code == 1
    assert "an unforeseen KeyError" in ran.err and "nightly.py:" in ran.err
    assert "4711" not in ran.err + ran.out
    assert_stands(out, AS_OF)
    with pytest.raises(KeyError, match="customer-4711"):  # a person who watches is shown all
        call("targets", trained.variant(out), "--as-of", EARLIER)
    logged = call("nightly", trained.variant(out), "--as-of", EARLIER, "--watched", "--log-format", "json")
    assert logged.code == 1 and "an unforeseen KeyError" in logged.err and "4711" not in logged.err


@pytest.mark.parametrize("form", ["text", "json"])
def test_memory_that_runs_out_is_told_with_what_to_change(
    trained: Trained, out: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def greedy(*arguments: object, **settings: object) -> None:
        raise MemoryError

    monkeypatch.setattr(one_night, "score", greedy)
    ran = call("nightly", trained.variant(out), "--as-of", EARLIER, "--log-format", form)
    assert ran.code == 1
    assert "memory ran out" in ran.err and "engine.threads" in ran.err and "unforeseen" not in ran.err
    assert_stands(out, AS_OF)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--as-of", AS_OF, "--backfill", "2025-06-01..2025-06-02"], ["--backfill", "2025-06-02..2025-06-01"],
     ["--backfill", "2025-06-01"], ["--backfill", "a..b"], ["--as-of", "yesterday"]],
)  # fmt: skip
def test_a_wrong_span_is_a_wrong_call(trained: Trained, tmp_path: Path, arguments: list[str]) -> None:
    assert call("nightly", trained.variant(tmp_path), *arguments).code == 2


# Real processes


@contextmanager
def running(file: Path, station: str, marker: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A night in a process of its own that stays at a station; `marker` appears when it is there."""
    code = f"""
import pathlib, signal, sys, time
# A test run in the background of a shell ignores SIGINT, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
from cvj_ml.night.timings import Stations
step = Stations.step
def stay(run, title):
    if title == {station!r}:
        pathlib.Path({str(marker)!r}).touch()
        time.sleep(300)
    return step(run, title)
Stations.step = stay
from cvj_ml.cli import main
sys.argv = ["cvj-ml", "nightly", {str(file)!r}, *{list(arguments)!r}]
main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            deadline = time.monotonic() + 300
            while not marker.exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_one_run_at_a_time_and_none_waits_for_a_dead_one(trained: Trained, out: Path, tmp_path: Path) -> None:
    file = trained.variant(out)
    before = everything(out)
    with running(file, "Counting rows", tmp_path / "marker", "--as-of", EARLIER) as process:
        for command in ("nightly", "score", "targets"):
            ran = call(command, file, "--as-of", EARLIER)
            assert (ran.code, ran.out) == (75, "")
        told = f"{out}: nightly (process {process.pid} on "
        assert told in ran.err and "is running since 20" in ran.err
        assert call("measure", file, "--until", AS_OF).code == 75
        process.kill()
        process.wait()
    changed = {name for name in everything(out) if everything(out)[name] != before.get(name)}
    assert changed == {".lock"}
    (night,) = nightly(file, "--as-of", EARLIER)["nights"]
    assert night["outcome"] == "published"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "station"), [(signal.SIGTERM, "Writing the night"), (signal.SIGINT, "Counting rows")]
)
def test_a_signal_leaves_nothing_half_done(
    trained: Trained, out: Path, tmp_path: Path, number: signal.Signals, station: str
) -> None:
    with running(trained.variant(out), station, tmp_path / "marker", "--as-of", EARLIER) as process:
        process.send_signal(number)
        told, wrong = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert told == ""
    assert wrong.splitlines()[-1] == f"error: stopped by {number.name}; what was half-done is removed."
    assert "Traceback" not in wrong
    assert_stands(out, AS_OF)
    assert metric(out, "exit_code") == 128 + number


@pytest.mark.slow
def test_what_a_killed_run_left_is_swept_and_resume_goes_on_from_its_blocks(
    trained: Trained, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = trained.variant(out)
    with running(file, "Writing the night", tmp_path / "marker", "--as-of", EARLIER) as process:
        process.kill()
        process.wait()
    assert list(out.glob(".staged-*")) and list(out.glob("work/*/blocks/*.arrow"))
    assert current_night(out) == verify_night(out).folder

    def scored_again(*arguments: object) -> None:
        raise AssertionError("every block was finished")

    monkeypatch.setattr("cvj_ml.night.scores.as_table", scored_again)
    (night,) = nightly(file, "--as-of", EARLIER, "--resume")["nights"]
    assert night["outcome"] == "published"
    assert_stands(out, AS_OF)
    assert not (out / "work").exists()


def test_a_locked_database_of_the_registry_is_waited_for(trained: Trained, out: Path) -> None:
    """Somebody who reads the registry does not disturb a night."""
    with closing(sqlite3.connect(trained.folder / "mlflow.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        assert nightly(trained.variant(out), "--as-of", AS_OF)["nights"][0]["outcome"] == "unchanged"


def test_an_instant_within_a_day_has_a_night_of_its_own(trained: Trained, out: Path) -> None:
    (night,) = nightly(trained.variant(out), "--as-of", "2025-06-10T06:00:00")["nights"]
    assert night["as_of"] == "2025-06-10T060000" and not night["current"]
    assert as_of_name(trained.config(), trained.as_of) == AS_OF


@pytest.mark.slow
def test_how_long_rows_take_to_arrive_is_part_of_what_a_night_is_made_from(trained: Trained, tmp_path: Path) -> None:
    """It decides which outcomes are wholly known, so the page of another delay is another page."""
    sources = {"touchpoints": SETTINGS["sources"]["touchpoints"] | {"arrival_delay": "5d"}}
    for settings, outcome in (({}, "published"), ({}, "unchanged"), ({"sources": sources}, "published")):
        run = call("targets", trained.variant(tmp_path / "out", **settings), "--as-of", AS_OF, "--json")
        assert json.loads(run.out)["outcome"] == outcome, run.err
