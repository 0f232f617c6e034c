"""Notebooks run to their end as `make notebooks` runs them, and show what they are about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.required import absent
from website.notebooks import NOTEBOOKS, cells, pages, unexecuted

SHOWN = {
    "backtest_and_bgnbd": ("| BG/NBD |", "Calibration within 91 days"),
    "features_and_leakage": ("lifetime_orders is the number of purchase", "exit code 5"),
    "first_look": ("snapshots of", "in control", "Customers by stage"),
    "monitoring_and_measuring": ("| model_age |", "with 95 % interval"),
    "one_customer": ("Speaks", "| silent for a month |"),
    "own_data": ("orders.csv", "Who is on a list tonight"),
    "whom_a_contact_changes": ("average effect", "What contacts gain", "| effect |"),
    "own_estimator": ("| Pipeline |", "p_return_30d"),
}


def test_every_notebook_is_known() -> None:
    assert {script.stem for script in NOTEBOOKS.glob("*.py")} == SHOWN.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name == "first_look" else pytest.param(name, marks=pytest.mark.notebook) for name in SHOWN]
)
def test_a_notebook_runs_to_its_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("website.notebooks.OUTPUTS", tmp_path)
    from website.notebooks import main

    assert main([name]) == 0
    script = NOTEBOOKS / f"{name}.py"
    found = pages(script)
    page = found.pop(f"{name}.md").decode()
    if "*Not run from here on: CDNOW" in page:
        absent("data", "CDNOW is not in the folder that CVJ_ML_DATA names")
    assert [words for words in SHOWN[name] if words not in page] == []
    assert found and all(f"]({picture})" in page and content for picture, content in found.items())


def test_a_notebook_is_read_cell_by_cell_and_shown_without_outputs_until_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "small.py"
    script.write_text("# ---\n# jupyter:\n# ---\n\n# %% [markdown]\n# # A title\n#\n# Words.\n\n# %%\n1 + 1\n")
    assert [(one.code, one.text, one.line) for one in cells(script.read_text())] == [
        (False, "# A title\n\nWords.", 6),
        (True, "1 + 1", 11),
    ]
    assert unexecuted(script).startswith("# A title\n\nWords.\n\n*Not run when")
    monkeypatch.setattr("website.notebooks.OUTPUTS", tmp_path / "outputs")
    command = "import sys; from pathlib import Path; from website.notebooks import run; run(*map(Path, sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", command, script, tmp_path / "outputs" / "small"], check=True)
    assert pages(script)["small.md"].decode().endswith("```python\n1 + 1\n```\n\n```text\n2\n```\n")
    script.write_text(script.read_text() + "2 + 2\n")
    assert b"*Not run" in pages(script)["small.md"], "what an older script gave is not shown"


def test_a_notebook_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from website.notebooks import main

    (tmp_path / "broken.py").write_text("# %%\n1 / 0\n")
    monkeypatch.setattr("website.notebooks.NOTEBOOKS", tmp_path)
    monkeypatch.setattr("website.notebooks.OUTPUTS", tmp_path / "outputs")
    assert main([]) == 1
    captured = capfd.readouterr()
    assert "broken.py" in captured.out and "(failed)" in captured.out
    assert 'broken.py", line 2' in captured.err and "ZeroDivisionError" in captured.err
