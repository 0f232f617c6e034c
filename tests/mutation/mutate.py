"""``make mutate``: plant faults into the modules that decide, one at a time, and see whether their tests notice.

cosmic-ray makes the mutants; each is written into a copy of the repository, and the module's tests run there, in a
process that is forked once the libraries are loaded. Compiled functions run as plain Python (``NUMBA_DISABLE_JIT``),
else a mutant would compile for longer than its tests take.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code, use_mutation
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.work_item import MutationSpec

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent

MOST = 60
"""Mutants of a module at most; of more, a sample drawn by the name of its file, the same wherever that stands."""

SEED = "1"

PASS_AT = 0.9

LIBRARIES = ("numpy", "pandas", "pyarrow.parquet", "pyarrow.compute", "duckdb", "scipy.stats", "sklearn.linear_model",
    "lightgbm", "numba", "yaml", "pydantic", "hypothesis.strategies", "pytest")  # fmt: skip
"""What tests load and nobody mutates."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutation, and the tests that should notice it."""

    spec: MutationSpec
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a mutant was noticed, by its diff."""

    killed: bool
    removed: str
    added: str

    @property
    def change(self) -> str:
        """The changed line, before and after."""
        return f"{self.removed}  →  {self.added}"


def mutants_of(module: str, tests: Sequence[str], most: int) -> list[Mutant]:
    """Return a module's mutants: all, or a sample of them."""
    path = Path(module)
    tree, silent = get_ast_from_path(path), silent_places(path)
    found = []
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments():
            continue  # needs names of variables; none is configured
        operator = operator_class()
        places = (place for node in ast_nodes(tree) for place in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            if not any(first <= start and end <= last for first, last in silent):
                spec = MutationSpec(
                    module_path=path, operator_name=name, occurrence=occurrence, start_pos=start, end_pos=end
                )
                found.append(Mutant(spec, tuple(tests)))
    source = path.read_text(encoding="utf-8")
    drawn = random.Random(f"{SEED}:{path.stem}").sample(found, len(found))
    drawn = list(islice((one for one in drawn if can_be_made(one, source)), most))
    return sorted(drawn, key=lambda one: (one.spec.start_pos, one.spec.operator_name, one.spec.occurrence))


def can_be_made(mutant: Mutant, source: str) -> bool:
    """Return whether cosmic-ray can make the mutant: it fails on some tuples of exceptions."""
    try:
        return mutate_code(source, get_operator(mutant.spec.operator_name)(), mutant.spec.occurrence) is not None
    except AttributeError:
        return False


def silent_places(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where a mutation changes nothing that runs: annotations (they stay text), decorators, ``__future__``.

    A decorator here compiles (switched off) or freezes a dataclass, which hinders mistakes and makes no result.
    """
    places = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts: list[ast.expr | ast.stmt | None] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts += node.decorator_list
        if isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        for part in parts:
            if part is not None and part.end_lineno is not None and part.end_col_offset is not None:
                # cosmic-ray takes the @ and the line's end as part of a decorator.
                at = isinstance(node, ast.FunctionDef | ast.ClassDef) and part in node.decorator_list
                end = (part.end_lineno + 1, 0) if at else (part.end_lineno, part.end_col_offset)
                places.append(((part.lineno, part.col_offset - at), end))
    return places


def enter_copy(folder: str) -> None:
    """Copy the repository's files for this worker, work there, and load what nobody mutates."""
    copy = Path(folder) / str(os.getpid())
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "out", "__pycache__", "mlruns"))
    os.chdir(copy)
    # Before the installed package; data sets are looked for beside the repository.
    sys.path[:0] = [str(copy / "src"), str(copy)]
    os.environ |= {"PYTHONPATH": str(copy / "src"), "NUMBA_DISABLE_JIT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    os.environ.setdefault("CVJ_ML_DATA", str(ROOT.parent / "shared" / "data"))
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    for name in LIBRARIES:
        importlib.import_module(name)


def passes(tests: Sequence[str], patience: float) -> tuple[bool, str]:
    """Return whether tests pass within so many seconds, in a process of their own, and what they said."""
    with tempfile.NamedTemporaryFile() as said:
        process = multiprocessing.get_context("fork").Process(target=run_tests, args=(tests, said.name))
        process.start()
        process.join(patience)
        if process.exitcode is None and process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
        return process.exitcode == 0, said.read().decode(errors="replace")


def run_tests(tests: Sequence[str], said: str) -> None:
    """Run tests until one fails, and end the process with pytest's exit code."""
    import pytest

    os.setsid()
    descriptor = os.open(said, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = pytest.main(
        ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=unshrunk", *tests]
    )
    sys.stdout.flush()
    os._exit(int(code))


def base_seconds(tests: Sequence[str]) -> float:
    """Return how long the tests take on the unchanged module, which they have to pass."""
    start = time.perf_counter()
    passed, output = passes(tests, 1200)
    if not passed:
        raise SystemExit(f"The tests fail without any mutation: {tests}\n{output[-3000:]}")
    return time.perf_counter() - start


def examine(mutant: Mutant, patience: float) -> Verdict:
    """Plant one mutation and run its tests; one that hangs is noticed, too."""
    with use_mutation(mutant.spec.module_path, get_operator(mutant.spec.operator_name)(), mutant.spec.occurrence) as (
        before,
        after,
    ):
        passed, _ = passes(mutant.tests, patience)
    changes = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0))[2:]
    removed, added = (" ".join(line[1:].strip() for line in changes if line[0] == sign) for sign in "-+")
    return Verdict(not passed, removed, added)


def score(noticed: int, of: int) -> str:
    """Return the share of mutants that were noticed, of those that are not equal to the module."""
    return f"{noticed / max(1, of):.1%}"


def main() -> None:
    """Print the score of each module, and every mutant that survived with its reason, if one is written down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="parts of module names; default: all of modules.toml")
    parser.add_argument("--most", type=int, default=MOST, help=f"mutants of a module at most (default {MOST})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    os.chdir(ROOT)
    settings = tomllib.loads((HERE / "modules.toml").read_text(encoding="utf-8"))
    tests = {
        f"src/cvj_ml/{name}": one["tests"]
        for name, one in settings.items()
        if not asked.modules or any(part in name for part in asked.modules)
    }
    reasons = {
        (f"src/cvj_ml/{name}", line): reason
        for name, one in settings.items()
        for line, reason in one.get("equal", {}).items()
    }
    mutants = {module: mutants_of(module, names, asked.most) for module, names in tests.items()}
    killed = alike = failed = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(asked.jobs, initializer=enter_copy, initargs=(folder,)) as pool,
    ):
        bases = {names: pool.submit(base_seconds, tuple(names)) for names in {tuple(one) for one in tests.values()}}
        patience = {names: 30 + 5 * future.result() for names, future in bases.items()}
        futures = {
            module: [pool.submit(examine, mutant, patience[mutant.tests]) for mutant in own]
            for module, own in mutants.items()
        }
        for module, running in futures.items():
            survivors = [one.change for one in (future.result() for future in running) if not one.killed]
            noticed = len(running) - len(survivors)
            equal = sum((module, change) in reasons for change in survivors)
            killed, alike = killed + noticed, alike + equal
            failed += noticed < PASS_AT * (len(running) - equal)
            print(
                f"{module}: {noticed} of {len(running)} noticed, {equal} equal: {score(noticed, len(running) - equal)}"
            )
            for change in sorted(survivors):
                print(f"    {change}\n        {reasons.get((module, change), 'no reason is written down')}", flush=True)
    made = sum(map(len, mutants.values()))
    print(f"{killed} of {made} noticed, {alike} equal: {score(killed, made - alike)}")
    raise SystemExit(int(failed > 0))


if __name__ == "__main__":
    main()
