"""`make notebooks`: run every notebook, and write it as a page with its outputs for the site.

A notebook is a script in jupytext's percent format. It runs as a notebook does: cell by cell in one process, what a
cell's last line is worth is shown, and so are its plots. Outputs stay below build/, which git ignores.
"""

from __future__ import annotations

import ast
import io
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
OUTPUTS = ROOT / "build" / "notebooks"

CUT = 60
"""Lines of text or rows of a table that a page shows of one output."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: Markdown, or code with the line at which it begins in the script."""

    code: bool
    text: str
    line: int


def main(names: list[str]) -> int:
    """Run the named notebooks, or all, each in a process and an empty folder of its own; 1 where one failed."""
    code = "import sys; from pathlib import Path; from website.notebooks import run; run(*map(Path, sys.argv[1:]))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "CVJ_ML_DATA": os.environ.get("CVJ_ML_DATA") or str(ROOT.parent / "shared" / "data"),
        "MPLBACKEND": "agg",
        "COLUMNS": "140",
        "OMP_WAIT_POLICY": "passive",  # threads that wait for each other would count as work
    }
    failed = []
    for script in sorted(NOTEBOOKS.glob("*.py")):
        if names and script.stem not in names:
            continue
        before = _children()
        command = [sys.executable, "-c", code, script, OUTPUTS / script.stem]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        print(f"{script.name}: {_children() - before:.0f} s of CPU" + " (failed)" * bool(done.returncode), flush=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            failed.append(script.name)
    return bool(failed)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cells(script: str) -> Iterator[Cell]:
    """Yield the cells of a script; what stands before the first is jupytext's header."""
    found = re.compile(r"^# %%( \[markdown\])?.*\n", re.M)
    marks = list(found.finditer(script))
    for mark, end in zip(marks, [*(one.start() for one in marks[1:]), len(script)], strict=True):
        body = script[mark.end() : end].strip("\n")
        if mark[1]:
            body = re.sub(r"^# ?", "", body, flags=re.M)
        yield Cell(not mark[1], body, script.count("\n", 0, mark.end()) + 1)


def unexecuted(script: Path) -> str:
    """Return the page of a notebook that was not run: its text and its code."""
    note = "*Not run when this page was made: `make notebooks` shows what comes out.*"
    parts = [_code(one.text) if one.code else one.text for one in cells(script.read_text(encoding="utf-8"))]
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n"


def pages(script: Path) -> dict[str, bytes]:
    """Return the page of a notebook and its pictures by name: as it was run last if it is still the same script."""
    folder = OUTPUTS / script.stem
    ran = folder / "source.py"
    if not ran.is_file() or ran.read_bytes() != script.read_bytes():
        return {f"{script.stem}.md": unexecuted(script).encode()}
    return {one.name: one.read_bytes() for one in sorted(folder.iterdir()) if one != ran}


def run(script: Path, target: Path) -> None:
    """Run a notebook in this process, and write its page and pictures into the folder ``target``.

    A notebook that cannot run here, such as without a data set, says so by SystemExit: the rest is shown as it is.
    """
    source = script.read_text(encoding="utf-8")
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    names: dict[str, Any] = {"__name__": "__main__"}
    parts: list[str] = []
    pictures = 0
    stopped = False
    for cell in cells(source):
        parts.append(_code(cell.text) if cell.code else cell.text)
        if not cell.code or stopped:
            continue
        try:
            text, value = _executed(cell, script, names)
        except SystemExit as reason:
            stopped = True
            parts.append(f"*Not run from here on: {reason}*")
            continue
        parts += [_as_text(one) for one in (text, *_shown(value)) if one]
        for title, picture in _figures():
            pictures += 1
            (target / f"{script.stem}-{pictures}.png").write_bytes(picture)
            parts.append(f"![{title}]({script.stem}-{pictures}.png)")
    (target / f"{script.stem}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (target / "source.py").write_text(source, encoding="utf-8")


def _executed(cell: Cell, script: Path, names: dict[str, Any]) -> tuple[str, Any]:
    """Return what a cell printed, and what its last line is worth if that is an expression."""
    tree = ast.parse("\n" * (cell.line - 1) + cell.text, filename=str(script))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(tree, str(script), "exec"), names)
        value = eval(compile(ast.Expression(last.value), str(script), "eval"), names) if last else None
    return printed.getvalue().rstrip(), value


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def _as_text(output: str) -> str:
    """Return an output as Markdown: a table as it is, all else as a block that says what a screen would."""
    if output.startswith("| "):
        return output
    lines = output.splitlines()
    cut = [*lines[:CUT], f"… {len(lines) - CUT} more lines"] if len(lines) > CUT else lines
    return "```text\n" + "\n".join(cut) + "\n```"


def _shown(value: Any) -> Iterator[str]:
    import pandas as pd

    if isinstance(value, pd.Series):
        value = value.to_frame()
    if isinstance(value, pd.DataFrame):
        named = value.index.names != [None] or value.index.dtype == object or value.index.dtype == "str"
        yield _table(value.reset_index() if named else value)
    elif value is not None and not type(value).__module__.startswith("matplotlib"):
        yield repr(value)


def _table(frame: Any) -> str:
    """Return a data frame as a table of Markdown."""

    def cell(value: Any) -> str:
        text = f"{value:,.4g}" if isinstance(value, float) else str(value)
        return "" if text in ("nan", "NaT", "None", "<NA>") else text.replace("|", "\\|").replace("\n", " ")

    def row(values: Any) -> str:
        return "| " + " | ".join(cell(one) for one in values) + " |"

    columns = [" ".join(map(str, one)).strip() if isinstance(one, tuple) else str(one) for one in frame.columns]
    lines = [row(columns), row(["---"] * len(columns))]
    lines += [row(one) for one in frame.head(CUT).itertuples(index=False)]
    return "\n".join(lines) + (f"\n\n… {len(frame) - CUT:,} more rows" if len(frame) > CUT else "")


def _figures() -> Iterator[tuple[str, bytes]]:
    """Yield the title and the picture of each open figure of matplotlib, and close it."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    import matplotlib.pyplot as plt

    for number in plt.get_fignums():
        figure = plt.figure(number)
        picture = io.BytesIO()
        # Without the metadata the same plot gives the same bytes.
        figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        yield " · ".join(filter(None, (axes.get_title() for axes in figure.axes))), picture.getvalue()
        plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
