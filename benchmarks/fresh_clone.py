"""How long the make targets take in a fresh clone of this commit, with a clean environment: set-up included.

    python -m benchmarks.fresh_clone [TARGET ...]

Without targets: demo, docs, notebooks, test, in this order, so the first one pays for the first environment. Writes
``benchmarks/results/fresh_clone.md`` and the sentence between the marks in README.md. Data sets beside this checkout
are found by the clone, too. A target that fails ends the run with its last lines, and nothing is written.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.records import ROOT, commit, fill_readme, machine, today
from cvj_ml.evaluation.metrics import markdown_table

FILE = ROOT / "benchmarks" / "results" / "fresh_clone.md"
TARGETS = ("demo", "docs", "notebooks", "test")
_KEPT = re.compile(
    r"PATH|HOME|LANG|CVJ_ML_(DATA|FIELD|REQUIRE)|TMPDIR|JAVA_HOME|(?i:\w*_proxy)|PIP_\w+|UV_\w+|\w*(CERT|CA_BUNDLE)\w*"
)
"""What of the environment a clone needs: where to find programs and packages, nothing of this checkout."""


def run(target: str, clone: Path, log: Path) -> float:
    """Return the wall-clock seconds of a target; what it prints goes to a file."""
    environment = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    # Nothing that an earlier installation or run on this machine has kept.
    environment |= {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1", "CVJ_ML_CACHE": str(clone.with_name("cache"))}
    began = time.perf_counter()
    with log.open("w") as printed:
        done = subprocess.run(["make", target], cwd=clone, env=environment, stdout=printed, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"make {target} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    return time.perf_counter() - began


def main() -> None:
    """Clone, run, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=TARGETS, help="of the Makefile")
    targets = parser.parse_args().targets
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch, "cvj_ml")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for name in ("DATA", "FIELD"):
            beside = ROOT.parent / "shared" / name.lower()
            if beside.is_dir():
                os.environ.setdefault(f"CVJ_ML_{name}", str(beside))
        taken = {target: run(target, clone, Path(scratch, f"{target}.log")) for target in targets}
    origin = f"{today()}, commit {commit()}, {machine()}; other work on the machine: {load:.1f} of its cores"
    rows: list[dict[str, str | float | None]] = [
        {"target": f"`make {name}`", "minutes": f"{seconds / 60:.1f}"} for name, seconds in taken.items()
    ]
    FILE.write_text(
        "# The make targets in a fresh clone\n\n`python -m benchmarks.fresh_clone` says how this is measured.\n\n"
        f"{origin}.\n\n{markdown_table(rows, {name: name for name in rows[0]})}",
        encoding="utf-8",
    )
    told = ", ".join(f"`make {name}` {seconds / 60:.1f}" for name, seconds in taken.items())
    sentence = (
        f"In a fresh clone, with all the set-up, these take so many minutes: {told}"
        f" ([measured](benchmarks/results/fresh_clone.md) by `python -m benchmarks.fresh_clone`, {origin})."
    )
    fill_readme("fresh-clone", sentence)
    print(sentence)


if __name__ == "__main__":
    main()
