"""Whoever cannot be told: full, closed, abandoned and unread streams stop no run; the exit code says what was done."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.faults.ground import LAST, Ground
from tests.faults.warmed import ROOT
from tests.trained import AS_OF

from cvj_ml.cli.output import PATIENCE
from cvj_ml.night.reading import current_night

pytest_plugins = ["tests.fixtures"]

KINDS = ["full", "closed", "abandoned", "unread"]
_PIPE = 4096


@contextmanager
def told(kind: str, folder: Path, *streams: str) -> Iterator[dict[str, Any]]:
    """Yield what a started command has for streams: a full disk, nothing, or a pipe that nobody reads any more."""
    if kind == "full":
        yield dict.fromkeys(streams, "/dev/full")
    elif kind == "closed":
        yield {"closed": streams}
    elif kind == "abandoned":
        yield {"abandoned": streams}
    else:
        pipes = {name: folder / f"{name}-{len(list(folder.iterdir()))}" for name in streams}
        opened = []
        for pipe in pipes.values():
            os.mkfifo(pipe)
            opened.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
            opened.append(os.open(pipe, os.O_WRONLY))
            os.write(opened[-1], b"x" * fcntl.fcntl(opened[-1], fcntl.F_SETPIPE_SZ, _PIPE))
        yield {name: str(pipe) for name, pipe in pipes.items()}
        for one in opened:
            os.close(one)


def commands(ground: Ground) -> Iterator[list[str]]:
    config, out = str(ground.config), str(ground.out)
    ids = ground.folder / "ids.txt"
    ids.write_text("nobody\n")
    for form in ("json", "text"):
        yield ["nightly", config, "--as-of", AS_OF, "--log-format", form]
    yield ["nightly", config, "--as-of", AS_OF, "--json"]
    for command in ("check", "targets", "report"):
        yield [command, config, "--as-of", AS_OF]
    yield ["measure", config, "--until", AS_OF]
    yield ["verify", out]
    yield ["models", "list", config]
    yield ["models", "verify", config]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_told_and_all_is_done(ground: Ground, tmp_path: Path, kind: str) -> None:
    # To stdout a command writes when its work is done, and waits as every other one does: for a pager, say.
    streams = ("stderr",) if kind == "unread" else ("stdout", "stderr")
    for arguments in [*commands(ground)][: 2 if kind == "unread" else None]:
        with told(kind, tmp_path, *streams) as given:
            ran = ground.warmed.call(*arguments, **given)
        assert ran.code == 0, (arguments, ran.err)
        assert current_night(ground.out) is not None
    ground.stands(AS_OF)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_keeps_its_code(ground: Ground, tmp_path: Path, kind: str, form: str) -> None:
    ground.touchpoints.unlink()
    with told(kind, tmp_path, "stderr") as given:
        ran = ground.start("--json", "--log-format", form, **given).wait()
    assert (ran.code, ran.out) == (3, "")
    ground.stands(LAST)


@pytest.mark.slow
def test_a_log_that_nobody_reads_is_waited_for_once(ground: Ground, tmp_path: Path) -> None:
    assert ground.night().code == 0
    began = time.monotonic()
    assert ground.night().code == 0
    quick = time.monotonic() - began
    with told("unread", tmp_path, "stderr") as given:
        began = time.monotonic()
        assert ground.night(**given).code == 0
    assert PATIENCE <= time.monotonic() - began < 10 * PATIENCE + 3 * quick


def test_results_lost_to_a_full_disk_are_told(ground: Ground) -> None:
    ran = ground.start("--json", stdout="/dev/full").wait()
    assert ran.code == 0
    assert "could be written to stdout: No space left on device. The exit code says what was done." in ran.err
    ground.stands(AS_OF)
    ran = ground.warmed.call("verify", ground.out, abandoned=["stdout"])
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.slow
def test_a_letter_that_a_terminal_does_not_know_fails_nothing(ground: Ground) -> None:
    program = [sys.executable, "-m", "cvj_ml", "check", ground.folder / "größe.yaml", "--as-of", AS_OF]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert ran.returncode == 2
    assert r"gr\xf6\xdfe.yaml: cannot read the file" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("verify OUT >/dev/full", 0),
        ("verify OUT >&-", 0),
        ("verify OUT 2>&-", 0),
        ("verify OUT <&- >&- 2>&-", 0),
        ("verify OUT | true", 0),
        ("--help | head -1", 0),
        ("verify OUT/nothing 2>/dev/full", 4),
        ("verify OUT/nothing 2>&-", 4),
        ("verify OUT/nothing 2>&1 >/dev/null | true", 4),
        ("nonsense 2>/dev/full", 2),
    ],
)
def test_a_whole_process_ends_with_the_code_of_its_work(ground: Ground, shell: str, code: int) -> None:
    """Python itself would end with 120 where it cannot write what is left when it shuts down."""
    script = f"{sys.executable} -m cvj_ml {shell.replace('OUT', str(ground.out))}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr and "Exception ignored" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "form"),
    [
        *(("2>/dev/full", "json"), ("2>&-", "text"), (">&- 2>&-", "json")),
        *(("2>&1 >/dev/full | head -1", "text"), ("2> >(true) | true", "json")),
    ],
)
def test_a_whole_night_is_published(ground: Ground, form: str, to: str) -> None:
    command = f"{sys.executable} -m cvj_ml nightly {ground.config} --as-of {AS_OF} --json --log-format {form}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(["bash", "-c", f"{command} {to}; exit ${{PIPESTATUS[0]}}"], env=environment)
    assert ran.returncode == 0
    ground.stands(AS_OF)
    night = current_night(ground.out)
    assert night is not None and json.loads((night / "run.json").read_text())["gates"]
