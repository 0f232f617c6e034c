"""The figures as a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.features.agreement import TOLERANCE, Agreement
from benchmarks.features.inputs import INPUTS
from benchmarks.features.measure import Run

_NAMES = {"package": "cvj_ml", "duckdb": "DuckDB", "polars": "Polars"}
_TASKS = {"as_of": "one `as_of`", "panel": "panel of 12 cut-offs"}
_BARS = {"as_of": 0.6, "panel": 0.2}
_BAR_SIZE = 10_000_000
_SUBSET_BAR = 6.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was measured; lines are by (input, task, contender)."""

    touchpoints: int
    repeats: int
    lines: dict[tuple[str, str, str], Run]
    agreements: dict[tuple[str, str], dict[str, Agreement]]
    scaling: dict[int, Run]
    subsets: dict[int, Run]
    stored: dict[str, Run]


def write(figures: Figures) -> str:
    """Return the page in Markdown."""
    parts = (_head, _contenders, _agreement, _scaling, _store)
    return "\n".join(line for part in parts for line in part(figures))


def _head(figures: Figures) -> Iterator[str]:
    yield "# Cost of features"
    yield ""
    yield f"Written by `python -m benchmarks.features --touchpoints {figures.touchpoints}`; `benchmarks/README.md` says"
    yield "what is measured. CPU seconds are user plus system time of the whole process, children included, the median"
    yield f"of {figures.repeats} run(s)."
    yield ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "polars", "pyarrow", "numpy", "numba"))
    yield f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}."
    yield ""


def _contenders(figures: Figures) -> Iterator[str]:
    yield "| input | task | contender | CPU s | of DuckDB's | peak MB |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for (kind, task, contender), line in sorted(figures.lines.items(), key=lambda item: list(INPUTS).index(item[0][0])):
        share = line.cpu / figures.lines[kind, task, "duckdb"].cpu
        cells = f"{_NAMES[contender]} | {line.cpu:.2f} | {share:.2f} | {line.megabytes:.0f}"
        yield f"| {INPUTS[kind]} | {_TASKS[task]} | {cells} |"
    yield ""
    for task, bar in _BARS.items():
        share = figures.lines["shuffled", task, "package"].cpu / figures.lines["shuffled", task, "duckdb"].cpu
        holds = _met(share <= bar) if figures.touchpoints >= _BAR_SIZE else f"set for {_BAR_SIZE} touchpoints"
        verdict = f"{share:.2f} of DuckDB's time; target at most {bar}: {holds}"
        yield f"- Shuffled file, {_TASKS[task]}: {verdict}."
    yield ""


def _agreement(figures: Figures) -> Iterator[str]:
    yield "## Same answers"
    yield ""
    yield "Values are compared as float32, NaN and NULL alike: all customers at one `as_of`, those whose id ends in 7"
    yield f"in the panel. Only the gaps' standard deviations may differ ({TOLERANCE:g}); all else must be identical."
    yield ""
    yield "| input | task | against cvj_ml | rows | values | not the same float | out of tolerance |"
    yield "| --- | --- | --- | ---: | ---: | ---: | --- |"
    for (kind, task), found in figures.agreements.items():
        for contender, one in found.items():
            wrong = ", ".join(one.wrong) or "none"
            yield (
                f"| {INPUTS[kind]} | {_TASKS[task]} | {_NAMES[contender]} | {one.rows} | {one.values} |"
                f" {one.not_identical} | {wrong} |"
            )
    yield ""


def _scaling(figures: Figures) -> Iterator[str]:
    yield "## Linear in touchpoints, cheap in features"
    yield ""
    yield "cvj_ml, shuffled file, one `as_of`. A kernel second is CPU time inside the compiled pass alone."
    yield ""
    yield "| touchpoints | features | CPU s | kernel s | kernel ns a touchpoint |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    for touchpoints, line in figures.scaling.items():
        yield _scaling_row(touchpoints, 174, line)
    for features, line in figures.subsets.items():
        yield _scaling_row(figures.touchpoints, features, line)
    yield ""
    few, many = figures.subsets.values()
    ratio = many.kernel / few.kernel
    names = " and ".join(map(str, sorted(figures.subsets, reverse=True)))
    verdict = f"{ratio:.1f} to 1; target at most {_SUBSET_BAR:g}: {_met(ratio <= _SUBSET_BAR)}"
    yield f"- Kernel cost of {names} features: {verdict}."
    smallest, *_, largest = figures.scaling
    growth = largest / smallest
    kernel, whole = (
        getattr(figures.scaling[largest], name) / getattr(figures.scaling[smallest], name) for name in ("kernel", "cpu")
    )
    yield f"- {growth:.0f} times the touchpoints: {kernel:.1f} times the kernel's time, {whole:.1f} the process's."
    yield ""


def _scaling_row(touchpoints: int, features: int, line: Run) -> str:
    each = 1e9 * line.kernel / touchpoints
    return f"| {touchpoints} | {features} | {line.cpu:.2f} | {line.kernel:.3f} | {each:.0f} |"


def _store(figures: Figures) -> Iterator[str]:
    yield "## With a store"
    yield ""
    yield "The nightly way, shuffled file: sources are checked and written to a store once; features come from blocks."
    yield ""
    yield "| step | CPU s | kernel s | peak MB |"
    yield "| --- | ---: | ---: | ---: |"
    steps = {"ingest": "ingest", "as_of": "store to one `as_of`", "panel": "store to panel of 12 cut-offs"}
    for key, name in steps.items():
        line = figures.stored[key]
        yield f"| {name} | {line.cpu:.2f} | {line.kernel:.2f} | {line.megabytes:.0f} |"
    yield ""


def _met(holds: bool) -> str:
    return "met" if holds else "missed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown processor")
