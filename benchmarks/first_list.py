"""From the export of each known tool to the first list, with the commands a newcomer types and no edit between them.

    python -m benchmarks.first_list [--customers 1000] [--only ga4 shopify]

Writes ``benchmarks/results/first_list.md``. A year of one made-up shop (``tests/setup/tools/business.py``) is written
as each tool would export it; then ``init --from TOOL --yes``, ``check``, ``train`` and ``targets`` run as processes of
their own. What `check` finds has to be what the log of the shop tells (people, events by name, amounts to the cent),
and every row of the files has to be stored or left out by name; the run ends with an error otherwise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.setup.tools.business import WRITERS, happenings
from tests.setup.tools.first_list import list_of_it, read_as_it_is
from tests.trained import Outcome

from benchmarks.records import ROOT, commit, cpu_of_children, machine, today
from cvj_ml.evaluation.metrics import markdown_table

FILE = ROOT / "benchmarks" / "results" / "first_list.md"
COMMANDS = ("init", "check", "train", "targets")
MOST = 90.0
"""CPU seconds that all of them may take: what the wall clock shows of them depends on what else the machine does."""


class Timed:
    """Runs commands as processes, and keeps the wall clock and the CPU seconds of each."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def __call__(self, *arguments: object) -> Outcome:
        name, wall, cpu = str(arguments[0]), time.perf_counter(), cpu_of_children()
        done = subprocess.run(
            [sys.executable, "-m", "cvj_ml", *map(str, arguments)], capture_output=True, text=True, check=False
        )
        self.wall[name], self.cpu[name] = time.perf_counter() - wall, cpu_of_children() - cpu
        return Outcome(done.returncode, done.stdout, done.stderr)


def measure(tool: str, customers: int) -> tuple[Mapping[str, str | float | None], str]:
    """Return one tool's row, and its model's verdict."""
    run = Timed()
    with tempfile.TemporaryDirectory() as folder:
        export = WRITERS[tool](happenings(customers), Path(folder))
        read = read_as_it_is(run, tool, export, Path(folder))
        verdict, listed = list_of_it(run, read)
    row = {
        "tool": tool,
        "people": f"{export.customers:,}",
        "rows read": f"{read.rows:,}",
        "stored": f"{read.stored:,}",
        "left out by name": f"{read.left_out:,}",
        "neither": f"{read.rows - read.stored - read.left_out:,}",
        "listed": f"{len(listed):,}",
        **{f"{name}, s": f"{run.wall[name]:.1f}" for name in COMMANDS},
        "all, s": f"{sum(run.wall.values()):.1f}",
        "CPU, s": f"{sum(run.cpu.values()):.1f}",
    }
    return row, verdict


def report(customers: int, rows: list[Mapping[str, str | float | None]], verdicts: list[str], load: float) -> str:
    """Return the page with what was measured so far."""
    return (
        "# From an export to the first list\n\n"
        "`python -m benchmarks.first_list` says how this is measured.\n\n"
        f"A year of a made-up shop with {customers:,} visitors, as each tool exports it, and no edits.\n"
        "Two sources of one file read its rows once each, and one of them leaves out what is the other's.\n"
        f"{MOST:.0f} s of CPU are the promise. {today()}, {commit()}; {machine()};"
        f" other work on the machine: {load:.1f} of its cores.\n\n"
        f"{markdown_table(rows, {name: name for name in rows[0]})}\n"
        "What training said of each model:\n\n" + "\n".join(verdicts) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1000, help="of the made-up shop")
    parser.add_argument("--only", nargs="*", choices=sorted(WRITERS), default=sorted(WRITERS))
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    rows, verdicts, load, slow = [], [], os.getloadavg()[0], []
    for tool in given.only:
        row, verdict = measure(tool, given.customers)
        print(f"{tool}: {row['all, s']} s, CPU {row['CPU, s']} s, {row['listed']} listed. {verdict}", file=sys.stderr)
        rows.append(row)
        verdicts.append(f"- {tool}: {verdict}")
        given.out.write_text(report(given.customers, rows, verdicts, load), encoding="utf-8")
        if float(str(row["CPU, s"])) > MOST:
            slow.append(tool)
    if slow:
        sys.exit(f"{', '.join(slow)}: more than the {MOST:.0f} s of CPU that are promised.")


if __name__ == "__main__":
    main()
