"""One process, measured from outside: user and system time of it and its children."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Run:
    """What one process used: CPU and kernel seconds, megabytes at the most, rows computed."""

    cpu: float
    kernel: float
    megabytes: float
    rows: int


def run(cache: Path, *arguments: str | Path) -> Run:
    """Run one contender in a new process and measure it."""
    # Compiled code, numba's and Python's, is loaded from the cache for everybody.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), str(_ROOT / "src")])
    environment["PYTHONPYCACHEPREFIX"] = str(cache / "bytecode")
    environment["CVJ_ML_CACHE"] = str(cache / "compiled")
    command = [sys.executable, "-m", "benchmarks.features.contender", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    found = json.loads(printed.splitlines()[-1])
    return Run(used.ru_utime + used.ru_stime, found["kernel_seconds"], found["megabytes"], found["rows"])


def median(runs: list[Run]) -> Run:
    """Return the medians of each figure."""
    return Run(
        statistics.median(one.cpu for one in runs),
        statistics.median(one.kernel for one in runs),
        statistics.median(one.megabytes for one in runs),
        runs[0].rows,
    )
