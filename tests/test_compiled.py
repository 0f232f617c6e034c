"""Machine code is kept by content: a comment compiles nothing, a changed callee or global can never meet stale code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvj_ml.compiled import compiled, content_digest

CALLEE = """
from cvj_ml.compiled import compiled

FACTOR = 3

@compiled
def scaled(x):
    return x * FACTOR
"""
CALLER = """
from callee import scaled
from cvj_ml.compiled import compiled

@compiled
def answer(x):
    '''Say.'''
    return scaled(x) + 1
"""
ASK = "from caller import answer; found = answer(14); print(found, sum(answer.stats.cache_hits.values()))"


def ask(folder: Path, callee: str = CALLEE, caller: str = CALLER) -> tuple[int, bool]:
    """Return the caller's answer in a new process, and whether its machine code was found."""
    (folder / "callee.py").write_text(callee, encoding="utf-8")
    (folder / "caller.py").write_text(caller, encoding="utf-8")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Without bytecode files: two versions written within one second would be taken for the same.
    surroundings = {"CVJ_ML_CACHE": str(folder / "cache"), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **surroundings}, capture_output=True, text=True, check=True
    )
    answer, hits = done.stdout.split()
    return int(answer), int(hits) == 1


@pytest.mark.slow
def test_what_decides_the_machine_code_and_nothing_else(tmp_path: Path) -> None:
    assert ask(tmp_path) == (43, False)
    assert ask(tmp_path) == (43, True)
    converted = "\n# a comment\n\n" + CALLER.replace("Say.", "Say more.").replace("return", "\n    # why\n    return")
    assert ask(tmp_path, "# another\n" + CALLEE, converted) == (43, True)
    assert ask(tmp_path, CALLEE.replace("FACTOR = 3", "FACTOR = 4")) == (57, False)
    assert ask(tmp_path, CALLEE.replace("x * FACTOR", "x - FACTOR")) == (12, False)
    assert ask(tmp_path) == (43, True), "the first machine code is still there, so branches do not push each other out"


@pytest.mark.slow
def test_a_function_that_moved_to_another_module_is_compiled_anew(tmp_path: Path) -> None:
    """Its old machine code imports the module that it was in, which may be gone."""
    assert ask(tmp_path) == (43, False)
    (tmp_path / "callee.py").rename(tmp_path / "elsewhere.py")
    elsewhere = CALLER.replace("from callee", "from elsewhere")
    assert ask(tmp_path, "raise ImportError('the function has gone from here')", elsewhere) == (43, False)


FLAG = 1
TABLE = {"a": 1}


def test_the_type_of_a_global_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> object:
        return FLAG

    digests = {content_digest(read)}
    for value in (True, 1.0, "1"):
        monkeypatch.setitem(globals(), "FLAG", value)
        digests.add(content_digest(read))
    assert len(digests) == 4


def test_what_cannot_be_looked_into_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> object:
        return TABLE

    with pytest.raises(TypeError, match=r"read reads TABLE, a dict, whose content has no digest\."):
        compiled(read)
    monkeypatch.delitem(globals(), "TABLE")
    with pytest.raises(TypeError, match=r"read reads TABLE, which has to be defined above it\."):
        compiled(read)
