"""What every published figure is printed with: the data, the commit, the machine, and the openings of test instants."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).resolve().parents[1]
OPENINGS = ROOT / "benchmarks" / "openings.csv"
STORES = ROOT / "out" / "benchmarks"
"""Where the benchmarks keep what they read; git-ignored."""

SIMULATED = ("starbucks", "complete_journey")
"""Data sets that their publishers simulated; the word stands beside every figure on them."""

_COLUMNS = ("date", "commit", "protocol", "figures")


def require_data(name: str) -> Path:
    """Return the folder of a data set and set CVJ_ML_DATA, by which the configurations find it; exit without it.

    Data sets are looked for in ``$CVJ_ML_DATA``, else in ``../shared/data`` beside the repository.
    """
    folder = Path(os.environ.get("CVJ_ML_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not (folder / name).is_dir():
        sys.exit(f"The data set {name!r} is not in {folder}. Set CVJ_ML_DATA to the folder that holds it.")
    os.environ["CVJ_ML_DATA"] = str(folder)
    return folder / name


def config_file(name: str) -> Path:
    """Return the configuration of a data set."""
    return ROOT / "configs" / name / "config.yaml"


def fill_readme(name: str, sentence: str) -> None:
    """Write a sentence between the marks of this name in README.md."""
    file = ROOT / "README.md"
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = file.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f"README.md has no place for {name}.")
    head, rest = text.split(f"{begin}\n")
    file.write_text(f"{head}{begin}\n{sentence}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def today() -> str:
    """Return the date in UTC."""
    return datetime.now(UTC).date().isoformat()


def commit() -> str:
    """Return the commit of this checkout, with ``+changes`` where files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        # What the benchmarks write themselves is no change of the code.
        written = (":!benchmarks/openings.csv", ":!benchmarks/results", ":!README.md")
        changed = git("status", "--porcelain", "--", ".", *written).strip()
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "no git"


def machine() -> str:
    """Return processor, number of CPUs, system and Python in one line; nothing that names the host."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {usable} CPU(s), {platform.system()}, Python {platform.python_version()}"


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that were started here and have ended."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_section(results: Path, title: str, text: str) -> None:
    """Put a section into a page, in the place of the one with the same heading; ``title`` opens a new page."""
    heading = text.split("\n", 1)[0]
    found = results.read_text(encoding="utf-8") if results.exists() else title
    first, *sections = re.split(r"^(?=## )", found, flags=re.MULTILINE)
    kept = {one.split("\n", 1)[0]: one.strip() + "\n" for one in sections} | {heading: text.strip() + "\n"}
    results.write_text("\n".join([first.strip() + "\n", *(kept[key] for key in sorted(kept))]), encoding="utf-8")


def record_opening(protocol: str, figures: str) -> None:
    """Append a row to ``benchmarks/openings.csv``: a test instant was looked at."""
    new = not OPENINGS.exists()
    with OPENINGS.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(_COLUMNS)
        writer.writerow([today(), commit(), protocol, figures])
