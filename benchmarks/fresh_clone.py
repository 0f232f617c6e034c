"""How long the make targets take in a fresh clone of this commit, with a clean environment: set-up included.

    python -m benchmarks.fresh_clone [TARGET ...]

Without targets: demo, docs, notebooks, test, in this order, so the first one pays for the first environment. Writes
``benchmarks/results/fresh_clone.md`` and the sentence between the marks in README.md. Data sets beside this checkout
are found by the clone, too. A target that fails ends the run with its last lines; those before it are written.
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


def rows_so_far() -> dict[str, dict[str, str | float | None]]:
    """Return the rows of the file by target: each says when and at which commit it was measured."""
    text = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    found = re.findall(r"^\| `make ([\w-]+)` *\| *([\d.]+) *\| *(.*?) *\|$", text, flags=re.MULTILINE)
    return {target: _row(target, minutes, measured) for target, minutes, measured in found}


def _row(target: str, minutes: str, measured: str) -> dict[str, str | float | None]:
    return {"target": f"`make {target}`", "minutes": minutes, "measured": measured}


def main() -> None:
    """Clone, run, and write what was measured, each target as soon as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=TARGETS, help="of the Makefile")
    targets = parser.parse_args().targets
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch, "cvj_ml")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for name in ("DATA", "FIELD"):
            beside = ROOT.parent / "shared" / name.lower()
            if beside.is_dir():
                os.environ.setdefault(f"CVJ_ML_{name}", str(beside))
        for target in targets:
            load, at = os.getloadavg()[0], commit()
            minutes = f"{run(target, clone, Path(scratch, f'{target}.log')) / 60:.1f}"
            measured = f"{today()}, {at}, other work on {load:.1f} of its cores"
            rows = {**rows_so_far(), target: _row(target, minutes, measured)}
            ordered = [rows[name] for name in sorted(rows, key=[*TARGETS, *rows].index)]
            write(ordered)


def write(rows: list[dict[str, str | float | None]]) -> None:
    """Write the page, and the sentence of README.md."""
    FILE.write_text(
        "# The make targets in a fresh clone\n\n`python -m benchmarks.fresh_clone` says how this is measured.\n\n"
        f"{machine()}.\n\n{markdown_table(rows, {name: name for name in rows[0]})}",
        encoding="utf-8",
    )
    told = ", ".join(f"{row['target']} {row['minutes']}" for row in rows)
    sentence = (
        f"In a fresh clone, with all the set-up and empty caches, these take so many minutes: {told}"
        f" ([measured](benchmarks/README.md) by `python -m benchmarks.fresh_clone`; {machine()})."
    )
    fill_readme("fresh-clone", sentence)
    print(sentence, flush=True)


if __name__ == "__main__":
    main()
