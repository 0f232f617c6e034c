"""From `pip install` to the first plan: the commands that a newcomer types, in an empty environment, timed.

    python -m benchmarks.newcomer [--customers 1000]

Writes ``benchmarks/results/newcomer.md`` and the sentence between the marks in README.md. The wheel of this checkout is
installed with everything that it declares, from wherever pip is configured to look; then a CSV of simulated touchpoints
goes through ``init``, ``train`` and ``targets``, with no edit between them. The run ends with an error where a command
fails or no plan comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.records import ROOT, commit, fill_readme, machine, today
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.simulate import simulate

FILE = ROOT / "benchmarks" / "results" / "newcomer.md"
AS_OF = "2025-06-24"
"""The day after the last one that is simulated."""


def steps(wheel: str) -> list[list[str]]:
    """Return the commands, in their order, as they are typed in a new folder."""
    program = "shop/bin/cvj-ml"
    return [
        [Path(sys.executable).name, "-m", "venv", "shop"],
        ["shop/bin/pip", "install", wheel],
        [program, "init", "touchpoints.csv", "--config", "shop.yaml", "--yes"],
        [program, "train", "shop.yaml", "--as-of", AS_OF],
        [program, "targets", "shop.yaml", "--as-of", AS_OF, "--json"],
    ]


def measure(customers: int) -> tuple[list[dict[str, str | float | None]], dict[str, float], int]:
    """Return a row for each command, the seconds of installing and of the rest, and how many people the plan names."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulation = simulate(customers=customers, seed=1)
        columns = ["customer_id", "occurred_at", "event", "channel", "value"]
        simulation.touchpoints[columns].to_csv(folder / "touchpoints.csv", index=False)
        wheel = _wheel(folder)
        # Nothing of this environment or of an earlier run: no packages that pip keeps, no compiled kernel.
        clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        clean |= {"PIP_NO_CACHE_DIR": "1", "CVJ_ML_CACHE": str(folder / "cache")}
        seconds: list[float] = []
        told = ""
        for words in steps(str(wheel)):
            began = time.perf_counter()
            program = sys.executable if not seconds else words[0]
            done = subprocess.run([program, *words[1:]], cwd=folder, env=clean, capture_output=True, text=True)
            seconds.append(time.perf_counter() - began)
            if done.returncode:
                sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
            told = done.stdout
    people = sum(json.loads(told)["lists"].values())  # each person is on one list
    if not people:
        sys.exit("The plan names nobody.")
    shown = [" ".join(words).replace(str(wheel), "cvj-ml") for words in steps(str(wheel))]
    rows: list[dict[str, str | float | None]] = [
        {"command": f"`{one}`", "seconds": f"{taken:.0f}"} for one, taken in zip(shown, seconds, strict=True)
    ]
    return rows, {"install": sum(seconds[:2]), "plan": sum(seconds[2:])}, people


def _wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1000, help="in the CSV")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    rows, total, people = measure(given.customers)
    origin = f"{today()}, commit {commit()}, {machine()}; other work on the machine: {load:.1f} of its cores"
    FILE.write_text(
        "# From pip install to the first plan\n\n`python -m benchmarks.newcomer` says how this is measured.\n\n"
        f"A CSV of {given.customers:,} simulated customers; the plan names {people:,} of them. {origin}.\n\n"
        f"{markdown_table(rows, {name: name for name in rows[0]})}",
        encoding="utf-8",
    )
    sentence = (
        f"From nothing to the first plan are {len(rows)} commands: {total['install']:.0f} seconds to install, and"
        f" {total['plan']:.0f} for a CSV of {given.customers:,} customers"
        f" ([measured](benchmarks/README.md) by `python -m benchmarks.newcomer`, {origin})."
    )
    fill_readme("newcomer", sentence)
    print(sentence)


if __name__ == "__main__":
    main()
