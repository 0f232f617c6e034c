"""``python -m benchmarks.features``: protocol E, measured in one go and written to benchmarks/results/features.md."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.features import report
from benchmarks.features.agreement import Agreement, compare
from benchmarks.features.inputs import INPUTS, INSTANTS, make
from benchmarks.features.measure import Run, median, run

CONTENDERS = ("package", "duckdb", "polars")
SUBSETS = (20, 160)
RESULT = Path(__file__).resolve().parents[1] / "results" / "features.md"


def main() -> None:
    """Draw the inputs, compare the answers, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--touchpoints", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3, help="measured runs of each line; the median is reported")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "cvj_ml_benchmark")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    cache, size, repeats = arguments.cache, arguments.touchpoints, arguments.repeats

    small = {kind: make(kind, 20_000, cache) for kind in INPUTS}
    for file in small.values():
        # Once unmeasured: code is compiled and put into the cache.
        for contender in CONTENDERS:
            run(cache, contender, "as_of", file)
        run(cache, "store", "as_of", file, "--store", cache / "store")
    files = {kind: make(kind, size, cache) for kind in INPUTS}
    agreements = {(kind, task): _agreements(cache, task, files[kind]) for kind in INPUTS for task in INSTANTS}
    main_lines: dict[tuple[str, str, str], list[Run]] = {}
    for _ in range(repeats):
        # Contenders take turns, so that whatever else the machine does meets all of them.
        for kind, file in files.items():
            for task in INSTANTS:
                for contender in CONTENDERS:
                    _say(f"{contender}, {task}, {kind}")
                    main_lines.setdefault((kind, task, contender), []).append(run(cache, contender, task, file))
    shuffled = files["shuffled"]
    sizes = [size // 4, size // 2, size]
    scaling = {n: _repeat(cache, repeats, "package", "as_of", make("shuffled", n, cache)) for n in sizes}
    subsets = {n: _repeat(cache, repeats, "package", "as_of", shuffled, "--features", str(n)) for n in SUBSETS}
    figures = report.Figures(
        touchpoints=size,
        repeats=repeats,
        lines={key: median(runs) for key, runs in main_lines.items()},
        agreements=agreements,
        scaling=scaling,
        subsets=subsets,
        stored=_stored(cache, repeats, shuffled),
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(report.write(figures), encoding="utf-8")
    print(arguments.out.read_text(encoding="utf-8"))


def _agreements(cache: Path, task: str, file: Path) -> dict[str, Agreement]:
    """Compare every other contender's answers with the package's."""
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folders = {contender: Path(name) / contender for contender in CONTENDERS}
        for contender, folder in folders.items():
            _say(f"answers of {contender}, {task}, {file.name}")
            folder.mkdir()
            run(cache, contender, task, file, "--save", folder)
        return {contender: compare(folders["package"], folders[contender]) for contender in CONTENDERS[1:]}


def _repeat(cache: Path, repeats: int, *arguments: str | Path) -> Run:
    _say(" ".join(map(str, arguments)))
    return median([run(cache, *arguments) for _ in range(repeats)])


def _stored(cache: Path, repeats: int, file: Path) -> dict[str, Run]:
    """Measure ingestion into a new store, and both tasks from one that exists."""
    ingested = []
    folder = cache / "store"
    for _ in range(repeats):
        shutil.rmtree(folder, ignore_errors=True)
        ingested.append(_repeat(cache, 1, "ingest", "as_of", file, "--store", folder))
    found = {"ingest": median(ingested)}
    found |= {task: _repeat(cache, repeats, "store", task, file, "--store", folder) for task in INSTANTS}
    shutil.rmtree(folder)
    return found


def _say(what: str) -> None:
    print(f"{what} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
