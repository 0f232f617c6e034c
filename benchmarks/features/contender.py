"""One contender in a process of its own: ``python -m benchmarks.features.contender <name> <task> <file> …``."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.features.emission import Emission
from benchmarks.features.inputs import INSTANTS


def main() -> None:
    """Run it and print rows and kernel seconds as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=["package", "ingest", "store", "duckdb", "polars"])
    parser.add_argument("task", choices=list(INSTANTS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--features", type=int)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    instants, file = INSTANTS[arguments.task], arguments.file
    emission = Emission(arguments.save, sample=len(instants) > 1)
    # Imported here: what a contender does not use must not count against it.
    match arguments.contender:
        case "package":
            from benchmarks.features import package

            package.from_file(file, instants, emission, arguments.features)
        case "ingest" | "store":
            from benchmarks.features import stored

            store = stored.ingested(file, arguments.store)
            if arguments.contender == "store":
                stored.compute(store, instants, emission)
        case "duckdb":
            from benchmarks.features import duck

            duck.from_file(file, instants, emission)
        case "polars":
            from benchmarks.features import frames

            frames.from_file(file, instants, emission)
    found = {"rows": emission.rows, "kernel_seconds": emission.kernel_seconds, "megabytes": _peak()}
    print(json.dumps(found), flush=True)
    # Freeing gigabytes one by one is not part of anybody's answer.
    os._exit(0)


def _peak() -> float:
    """Return the most memory this process held; what the parent sees would include its own before the start."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
