"""What identities cost: the same touchpoints read with and without pairs of ids that are one person.

    python -m benchmarks.merges [--touchpoints 10000000]

Writes ``benchmarks/results/merges.md``. One Parquet file of made-up touchpoints, 20 an id; one id in twenty merges into
another one at an instant in between. Each way is a process of its own with a new store, in turn (without, with, with,
without), so that what else the machine does meets both. The promise is a ratio of at most 1.25.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.records import ROOT, commit, cpu_of_children, machine, today
from cvj_ml.evaluation.metrics import markdown_table

FILE = ROOT / "benchmarks" / "results" / "merges.md"
AN_ID, MERGING = 20, 0.05
"""Touchpoints an id, and the share of ids that merge into another one."""
MOST = 1.25
_DAY = 86_400_000_000
_BEGIN = 1_672_531_200_000_000  # 2023-01-01
_DAYS = 700
_READ = """
import sys
from pathlib import Path
from cvj_ml.config import load_config
from cvj_ml.store import ingest
ingest(load_config(Path(sys.argv[1])))
"""


def write(folder: Path, touchpoints: int, seed: int = 1) -> int:
    """Write the log, the pairs and both configurations; return how many pairs there are."""
    rng = np.random.default_rng(seed)
    ids = touchpoints // AN_ID
    names = np.array([f"c{i:07d}" for i in range(ids)])
    instants = pa.array(_BEGIN + rng.integers(0, _DAYS * _DAY, touchpoints), pa.timestamp("us", "UTC"))
    events = pa.array(["visit", "signup", "purchase"]).take(pa.array(rng.choice(3, touchpoints, p=[0.8, 0.05, 0.15])))
    log = {"customer_id": names[rng.integers(0, ids, touchpoints)], "occurred_at": instants, "event": events}
    pq.write_table(pa.table(log), folder / "log.parquet")
    chosen = rng.permutation(ids)[: 2 * int(ids * MERGING)].reshape(2, -1)
    known = pa.array(_BEGIN + rng.integers(_DAY, _DAYS * _DAY, chosen.shape[1]), pa.timestamp("us", "UTC"))
    pairs = {"alias": names[chosen[0]], "customer": names[chosen[1]], "known_at": known}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    stages = [{"name": name, "enter": {"event": name.lower()}} for name in ("Visit", "Signup", "Purchase")]
    without = {
        "name": "without",
        "time_zone": "UTC",
        "history_from": "2023-01-01",
        "sources": {"log": {"path": "log.parquet"}},
        "journey": {"name": "three", "stages": stages},
        "engine": {"threads": 2, "memory_limit": "1GB"},
    }
    for name, more in (("without", {}), ("with", {"identities": {"path": "pairs.parquet"}})):
        text = yaml.safe_dump({**without, **more, "name": name, "out": f"out-{name}"})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return int(chosen.shape[1])


def read(folder: Path, name: str) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds of reading one way into a new store."""
    shutil.rmtree(folder / f"out-{name}", ignore_errors=True)
    used, began = cpu_of_children(), time.perf_counter()
    subprocess.run([sys.executable, "-c", _READ, f"{name}.yaml"], cwd=folder, check=True)
    return time.perf_counter() - began, cpu_of_children() - used


def main() -> None:
    """Read both ways twice, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--touchpoints", type=int, default=10_000_000)
    touchpoints = parser.parse_args().touchpoints
    load, taken = os.getloadavg()[0], {"without": np.zeros(2), "with": np.zeros(2)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = write(folder, touchpoints)
        read(folder, "without")  # what is in the machine's own cache is there for both
        for name in ("without", "with", "with", "without"):
            taken[name] += read(folder, name)
    wall, cpu = (taken["with"] / taken["without"]).tolist()
    rows: list[dict[str, str | float | None]] = [
        {"identities": name, "wall, s": f"{one[0] / 2:.1f}", "CPU, s": f"{one[1] / 2:.1f}"}
        for name, one in taken.items()
    ]
    FILE.write_text(
        "# What identities cost\n\n`python -m benchmarks.merges` says how this is measured.\n\n"
        f"{touchpoints:,} touchpoints of {touchpoints // AN_ID:,} ids, {pairs:,} merging: {cpu:.2f} times the CPU"
        f" and {wall:.2f} times the wall clock of reading without ({MOST} is the promise). {today()}, {commit()};"
        f" {machine()}; other work on the machine: {load:.1f} of its cores.\n\n"
        f"{markdown_table(rows, {name: name for name in rows[0]})}",
        encoding="utf-8",
    )
    print(f"CPU {cpu:.2f}, wall {wall:.2f}")


if __name__ == "__main__":
    main()
