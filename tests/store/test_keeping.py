"""Which stores stay and which go, with real processes that read, and that are killed while they write."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cvj_ml.config import Config
from cvj_ml.store import ingest

SETTINGS = {
    "name": "test",
    "time_zone": "UTC",
    "history_from": "2024-01-01",
    "journey": {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]},
    "sources": {"log": {"path": "log-*.parquet"}},
    "engine": {"buckets": 2},
    "out": "out",
}

PROGRAM = f"""
import sys
from pathlib import Path
from cvj_ml.config import Config
from cvj_ml.store import build, ingest
config = Config.model_validate({SETTINGS!r}, context={{"folder": Path(sys.argv[1])}})
"""
READ = "store = ingest(config); print('ready', flush=True); sys.stdin.read(); print(store.read(0).customers)"
STALL = "build._build = lambda *_: (print('ready', flush=True), sys.stdin.read()); ingest(config)"


def config_in(folder: Path) -> Config:
    return Config.model_validate(SETTINGS, context={"folder": folder})


def add_night(folder: Path, night: int) -> None:
    days = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta([night] * 20, unit="D")
    rows = {"customer_id": [f"c{one}" for one in range(20)], "occurred_at": days, "event": "purchase"}
    pd.DataFrame(rows).to_parquet(folder / f"log-{night}.parquet")


def started(folder: Path, what: str) -> subprocess.Popen[str]:
    """Start a process and return once it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + what, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "out" / "store").iterdir()} - {".lock"}


def test_the_present_store_and_the_one_before_stay(tmp_path):
    made = []
    for night in range(4):
        add_night(tmp_path, night)
        made.append(ingest(config_in(tmp_path)).folder.name)
        assert names(tmp_path) == set(made[-2:])


def test_a_store_that_another_process_reads_stays_until_that_one_ends(tmp_path):
    add_night(tmp_path, 0)
    reader = started(tmp_path, READ)
    (held,) = names(tmp_path)
    for night in range(1, 4):
        add_night(tmp_path, night)
        last = ingest(config_in(tmp_path))
    assert len(names(tmp_path)) == 3
    assert held in names(tmp_path)
    out, _ = reader.communicate()
    assert reader.returncode == 0 and "'c" in out
    ingest(config_in(tmp_path))
    assert len(names(tmp_path)) == 2
    assert held not in names(tmp_path)
    assert last.folder.name in names(tmp_path)


def test_a_killed_run_leaves_nothing_for_long_and_a_live_one_is_left_alone(tmp_path):
    add_night(tmp_path, 0)
    killed, live = started(tmp_path, STALL), started(tmp_path, STALL)
    try:
        assert len(names(tmp_path)) == 2
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        store = ingest(config_in(tmp_path))
        (staged,) = names(tmp_path) - {store.folder.name}
        assert staged.startswith(".staging-") and os.access(tmp_path / "out" / "store" / staged / "in-use", os.R_OK)
    finally:
        live.kill()
        live.wait()
    again = ingest(config_in(tmp_path))
    assert names(tmp_path) == {again.folder.name}
    assert sum(len(again.read(bucket).customers) for bucket in range(2)) == 20


@pytest.mark.slow
def test_runs_killed_at_any_moment_do_not_spoil_the_next(tmp_path):
    for night in range(3):
        add_night(tmp_path, night)
    for delay in (0.0, 0.05, 0.1, 0.2):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = started(tmp_path, "print('ready', flush=True); ingest(config)")
        time.sleep(delay)
        process.kill()
        process.wait()
        store = ingest(config_in(tmp_path))
        assert store.counts["log"].stored == 60
        assert names(tmp_path) == {store.folder.name}


@pytest.mark.slow
def test_two_runs_at_once_get_one_whole_store(tmp_path):
    for night in range(3):
        add_night(tmp_path, night)
    processes = [started(tmp_path, "print('ready', flush=True); print(len(ingest(config).read(0).customers))")
                 for _ in range(3)]  # fmt: skip
    answers = {process.communicate()[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(answers) == 1
    assert names(tmp_path) == {ingest(config_in(tmp_path)).folder.name}
