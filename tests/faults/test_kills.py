"""Kill -9 of a night at each of its stations and at each change on the disk; several nights at once."""

from __future__ import annotations

import fcntl
import json
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from tests.faults.ground import LAST, Ground
from tests.faults.warmed import Running
from tests.trained import AS_OF

from cvj_ml.night.reading import current_night
from cvj_ml.night.verifying import verify_night

pytest_plugins = ["tests.fixtures"]

STATIONS = [
    *("Reading sources", "Counting rows", "Fetching the champion", "Looking at the sources", "Scoring"),
    *("Ranking the lists", "Giving reasons", "Making the page", "Writing the night"),
]


def nights(ground: Ground) -> dict[str, bytes]:
    """Return every byte of the published nights that the next run may not change."""
    found = {str(Path(name).relative_to(ground.out)): content for name, content in ground.standing().items()}
    return {name: content for name, content in found.items() if not name.endswith("run.json")}


@pytest.fixture
def fresh(ground: Ground) -> Ground:
    """Ground on which the store has to be made anew, so that every station has work to do."""
    ground.settings["drop_duplicates"] = True
    return ground


@pytest.fixture
def expected(fresh: Ground, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed run publishes."""
    from tests.faults.ground import copy

    quiet = copy(fresh, tmp_path / "quiet")
    quiet.publishes()
    return nights(quiet)


@pytest.mark.parametrize("station", STATIONS)
def test_a_night_killed_at_a_station_is_run_again(fresh: Ground, expected: dict[str, bytes], station: str) -> None:
    running = fresh.start("--log-format", "json")
    while not any(
        json.loads(line)["station"] == station and json.loads(line)["message"] == "begins"
        for line in running.told().splitlines(keepends=True)
        if line.endswith("\n")
    ):
        time.sleep(0.001)
    running.kill()
    assert running.wait().code == -signal.SIGKILL
    before = current_night(fresh.out)
    assert before is not None and before.parent.name in (f"as_of={LAST}", f"as_of={AS_OF}")
    verify_night(fresh.out)
    fresh.publishes(fresh.night("--resume"))
    assert nights(fresh) == expected


@pytest.mark.slow
def test_customers_are_not_forgotten_under_a_run_that_reads_them(ground: Ground) -> None:
    """One lock for both: `check` ends as if it were alone, and `forget` says so and takes nothing away."""
    log = pd.read_parquet(ground.touchpoints)
    victim = str(log["customer_id"].iloc[0])
    people = ground.folder / "customers.parquet"
    ids = ground.folder / "ids.txt"
    ids.write_text(victim + "\n")

    def forget() -> Running:
        return ground.warmed.start("forget", ground.config, "--customers", ids, "--json")

    for _ in range(3):
        checked, forgetting = ground.start(command="check"), forget()
        assert checked.wait().code == 0
        assert forgetting.wait().code == 3  # the sources have them still
    reading = ground.start(command="check")
    store = next((ground.out / "store").glob("*/store.json"))
    while not held(store):
        time.sleep(0.001)
    reading.kill(signal.SIGSTOP)
    log[log["customer_id"] != victim].to_parquet(ground.touchpoints)
    frame = pd.read_parquet(people)
    frame[frame["customer_id"] != victim].to_parquet(people)
    before = ground.standing()
    refused = forget().wait()
    assert refused.code == 75 and "another run is reading customers from here, and nothing was removed" in refused.err
    assert ground.standing() == before and store.is_file()
    reading.kill(signal.SIGCONT)
    ran = reading.wait()
    assert ran.code == 0, ran.err
    done = forget().wait()
    assert done.code == 0, done.err
    assert json.loads(done.out)["scores"] == 1 and not store.is_file()


def held(file: Path) -> bool:
    """Return whether a process reads this store."""
    with file.open("r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.slow
def test_a_night_killed_at_any_change_on_the_disk_is_run_again(
    fresh: Ground, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Whatever the killed run left, the current night is whole, and the next run publishes the same bytes."""
    from tests.faults.ground import copy

    count = tmp_path / "count"
    counted = copy(fresh, tmp_path / "counted")
    assert counted.night(under=str(counted.out), count=str(count)).code == 0
    changes = count.read_text().splitlines()
    assert any("_SUCCESS" in one for one in changes) and any("CURRENT.json" in one for one in changes)
    first = next(i for i, one in enumerate(changes) if "MANIFEST.json" in one)
    # Every step of what makes a night current, every tenth before.
    steps = [i for i in range(len(changes)) if i >= first or i % 10 == 0]
    for step in steps:
        struck = copy(fresh, tmp_path / f"struck-{step}")
        ran = struck.night(under=str(struck.out), kill_at=step + 1)
        assert ran.code == -signal.SIGKILL, (changes[step], ran)
        verify_night(struck.out)
        struck.publishes()
        assert nights(struck) == expected, changes[step]


def test_of_several_runs_at_once_one_publishes(fresh: Ground, expected: dict[str, bytes]) -> None:
    file = fresh.config
    running = [fresh.warmed.start("nightly", file, "--as-of", AS_OF, "--json") for _ in range(4)]
    ran = [one.wait() for one in running]
    codes = [one.code for one in ran]
    assert set(codes) <= {0, 75} and 0 in codes and 75 in codes
    for one in ran:
        if one.code == 75:
            assert (one.out == "" and "nightly (process " in one.err) or "another run has just started" in one.err
            assert "nothing was changed; run again when that one has ended." in one.err
    fresh.stands(AS_OF)
    assert nights(fresh) == expected
