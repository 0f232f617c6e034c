"""The command line: help, exit codes, what goes to stdout and what to stderr, bars only for a person."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from tests.cli_reference import command_of
from tests.trained import AS_OF, CUSTOMERS, SETTINGS, Trained, call

pytest_plugins = ["tests.fixtures"]

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "mlflow",
    "lightgbm",
    "duckdb",
    "mcp",
    "pandas",
    "numpy",
    "pyarrow",
    "pyspark",
    "numba",
    "matplotlib",
    "sklearn",
    "scipy",
}
COMMANDS = (
    "demo",
    "init",
    "check",
    "train",
    "backtest",
    "audit",
    "score",
    "targets",
    "report",
    "measure",
    "nightly",
    "verify",
    "forget",
    "models",
)


def in_a_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = f"""
import io, sys
from contextlib import redirect_stdout
from cvj_ml.cli import main
for words in [[], *([name] for name in {COMMANDS}), ["models", "promote"]]:
    sys.argv = ["cvj-ml", *words, "--help"]
    try:
        with redirect_stdout(io.StringIO()) as shown:
            main()
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
    assert "Usage: cvj-ml " + " ".join(words) in shown.getvalue(), words
print(sorted({HEAVY} & sys.modules.keys()))
"""
    run = in_a_process(code)
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_version_and_completion_import_nothing_heavy() -> None:
    code = f"""
import os, sys
from cvj_ml.cli import main
for words, settings in [
    (["--version"], {{}}),
    ([], dict(_CVJ_ML_COMPLETE="complete_bash", COMP_WORDS="cvj-ml models pro", COMP_CWORD="2")),
    ([], dict(_CVJ_ML_COMPLETE="complete_bash", COMP_WORDS="cvj-ml check --as", COMP_CWORD="2")),
]:
    os.environ |= settings
    sys.argv = ["cvj-ml", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
print(sorted({HEAVY} & sys.modules.keys()))
"""
    run = in_a_process(code)
    assert run.stderr == ""
    assert run.stdout.split() == ["cvj-ml", metadata.version("cvj-ml"), "promote", "--as-of", "[]"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from cvj_ml.cli import main; main()"
    monkeypatch.setenv("_CVJ_ML_COMPLETE", f"source_{shell}")
    script = in_a_process(code).stdout
    assert f"_CVJ_ML_COMPLETE=complete_{shell}" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chek"], r"No such command 'chek'. Did you mean 'check'\?"),
        (["check"], "Missing argument 'CONFIG'."),
        (["check", "shop.yaml"], "Missing option '--as-of'."),
        (["check", "shop.yaml", "--as_of", "2024-01-01"], r"No such option:? '?--as_of"),
        (["demo", "--customers", "1"], r"greater than or equal to 100|x>=100"),
        (["demo", "--customers", "many"], "valid integer"),
        (["models", "promote", "shop.yaml", "0"], r"greater than or equal to 1|x>=1"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_right(arguments: list[str], told: str) -> None:
    run = call(*arguments)
    assert run.code == 2
    assert run.out == ""
    # In the words of the typer that is installed.
    assert re.search(told, " ".join(run.err.replace("│", " ").split()))


def test_without_a_command_the_help_is_shown() -> None:
    run = call()
    assert run.code == 2
    assert all(name in run.out + run.err for name in COMMANDS)


@pytest.mark.parametrize("short", ["targets", "score"])
def test_the_help_says_what_a_command_is_short_for(short: str) -> None:
    alias, _ = command_of([short])
    (told,) = re.findall(r"short for `cvj-ml (.+?)`", alias.help)
    command, rest = command_of(told.split())
    given = command.make_context("cvj-ml", rest).params
    assert (command.name, given["watched"], given["no_lists"]) == ("nightly", True, short == "score")
    assert {one.name for one in alias.params} <= {one.name for one in command.params}


def test_train_prints_one_object_and_tells_its_steps_on_stderr(trained: Trained) -> None:
    document = json.loads(trained.training.out)
    assert trained.training.out.count("\n") == 1
    assert {"model", "version", "digest", "aliases", "run_id", "verdict", "summary"} == document.keys()
    assert document["verdict"]["sentence"].startswith("Promoted: there was no champion")
    assert (document["model"], document["version"], document["aliases"]) == ("tiny", 1, ["challenger", "champion"])
    assert len(document["digest"]) == 64
    assert {row["contender"] for row in document["summary"]} >= {"model", "stage"}
    assert trained.training.err.splitlines()[:3] == ["Reading sources", "Counting rows", "Backtest at 2025-05-23"]
    assert "Keeping the track record" in trained.training.err
    assert "\x1b" not in trained.training.err


@pytest.mark.slow
def test_json_is_all_of_stdout(trained: Trained, tmp_path: Path) -> None:
    """In a process of its own: libraries that print around Python's streams would be seen."""
    file = trained.variant(tmp_path)
    code = "from cvj_ml.cli import main; main()"
    run = in_a_process(code, "targets", str(file), "--as-of", AS_OF, "--json")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert run.stdout.count("\n") == 1
    assert set(document) == {
        *("night", "as_of", "instant", "outcome", "current", "page", "customers", "model_version", "model_source"),
        *("lists", "exports", "people", "rows"),
    }  # fmt: skip
    assert document["lists"].keys() == {"convert__ascend__30d", "advocate__promote__30d"}
    assert Path(document["night"], "_SUCCESS").is_file()
    told = ["Reading sources", "Counting rows", "Fetching the champion", "Looking at the sources", "Scoring"]
    told += ["Ranking the lists", "Giving reasons", "Making the page", "Writing the night"]
    assert run.stderr.splitlines() == told


def test_check_counts_every_row(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path)
    run = call("check", file, "--as-of", AS_OF, "--json")
    found = json.loads(run.out)
    stored = found["used"] + found["not_yet_visible"] + found["superseded"]
    rows = found["sources"][0]
    assert rows["rows_in"] == stored + rows["duplicates"] + sum(rows["refused"].values())
    assert sum(row["customers"] for row in found["stages"]) <= found["customers"] == CUSTOMERS
    assert [row["stage"] for row in found["stages"]][:2] == ["(before any)", "Aware"]
    spoken = call("check", file, "--as-of", AS_OF)
    assert f"Of the stored rows {found['used']:,} are used at {AS_OF}" in spoken.out
    assert "purchase" in spoken.out


def test_a_night_is_told_in_words(trained: Trained, tmp_path: Path) -> None:
    run = call("targets", trained.variant(tmp_path), "--as-of", AS_OF)
    assert run.code == 0, run.err
    first, *lists, workbook, page = run.out.splitlines()
    assert first.startswith("Scored ") and str(tmp_path) in first
    assert workbook.startswith("For people: ") and workbook.endswith("/targets/lists.xlsx")
    assert page.startswith("In a browser: ") and page.endswith("/report/index.html")
    assert [line.partition(":")[0] for line in lists if not line.startswith("    ")] == [
        "  Convert → Ascend, 30 days",
        "  Advocate → Promote, 30 days",
    ]


@pytest.mark.slow
def test_models_are_listed_promoted_rolled_back_exported_verified_and_imported(
    trained: Trained, tmp_path: Path
) -> None:
    file = trained.variant(tmp_path, name="copy", mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'other.db'}"})
    digest = json.loads(trained.training.out)["digest"]
    verified = call("models", "verify-folder", trained.bundle, "--json")
    assert json.loads(verified.out) == {"folder": str(trained.bundle), "digest": digest}
    assert call("models", "verify", trained.bundle).code == 2
    imported = json.loads(call("models", "import", file, trained.bundle, "--json").out)
    assert (imported["name"], imported["version"], imported["digest"]) == ("copy", 1, digest)
    registered = call("models", "verify", file, "--json")
    assert json.loads(registered.out) == {"model": "copy", "version": 1, "digest": digest}
    assert call("models", "verify", file, 1).out == f"copy version 1: whole, digest {digest}\n"
    assert call("models", "verify", file, 2).code == 4
    again = call("models", "import", file, trained.bundle)
    assert again.out == "Registered copy version 1.\n"
    (listed,) = json.loads(call("models", "list", file, "--json").out)["versions"]
    assert listed["aliases"] == ["challenger", "champion"]
    assert digest[:12] in call("models", "list", file).out
    assert call("models", "promote", file, 1).out == "copy version 1 is the champion.\n"
    target = tmp_path / "exported"
    assert json.loads(call("models", "export", file, 1, target, "--json").out) == {
        "version": 1,
        "folder": str(target),
    }
    occupied = call("models", "export", file, 1, target)
    assert (occupied.code, occupied.out) == (2, "")
    rolled_back = call("models", "rollback", file)
    assert rolled_back.code == 4
    unknown = call("models", "promote", file, 7)
    assert unknown.code == 4
    assert unknown.err == "error: copy has no version 7. Versions: 1.\n"


def test_a_champion_for_other_settings_is_refused_with_each_difference(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(
        tmp_path, horizons=["7d", "14d", "30d"], outbound=["email_sent"], time_zone="Europe/London", value_decimals=3
    )
    run = call("targets", file, "--as-of", AS_OF)
    assert run.code == 4
    assert run.err.partition("error: ")[2] == (
        "The champion tiny version 1 does not answer for this configuration; run `cvj-ml train --promote always` with"
        " it, or go back to the settings that the champion was trained with:\n"
        "  - the horizons differ\n"
        "  - the time zone differs\n"
        "  - other events are outbound\n"
        "  - value_decimals differ\n"
    )
    assert not list(tmp_path.glob("as_of=*")) and not (tmp_path / "CURRENT.json").exists()


def test_paths_and_names_are_shown_as_they_are(tmp_path: Path) -> None:
    run = call("check", tmp_path / "[bold]:smile:.yaml", "--as-of", AS_OF)
    assert run.code == 2
    assert "[bold]:smile:.yaml: cannot read the file" in run.err


def test_a_disk_that_refuses_is_no_traceback(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    run = call("check", trained.variant(tmp_path / "occupied" / "out"), "--as-of", AS_OF)
    assert run.code == 1
    assert run.err.splitlines()[-1] == (
        f"error: {tmp_path}/occupied/out: Not a directory. Check the path, its rights and the free space."
    )


@pytest.mark.slow
def test_a_person_at_a_terminal_sees_bars(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path)
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "cvj_ml", "check", str(file), "--as-of", AS_OF, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=environment) as process:
        os.close(slave)
        seen = b""
        try:
            while part := os.read(master, 4096):
                seen += part
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
        document = json.loads(process.stdout.read() if process.stdout else b"")
    os.close(master)
    assert process.returncode == 0
    assert "━".encode() in seen and b"Observing stages" in seen
    assert document["customers"] == CUSTOMERS


def test_forced_colours_do_not_put_bars_into_a_log(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from cvj_ml.cli import output

    monkeypatch.setattr(output, "err", Console(stderr=True, highlight=False, force_terminal=True))
    run = call("check", trained.variant(tmp_path), "--as-of", AS_OF)
    assert run.err.splitlines() == ["Reading sources", "Counting rows", "Observing stages"]


def test_the_demo_has_the_configuration_of_the_package() -> None:
    """The shared settings are the demo's in small, so what holds here holds there."""
    demo = yaml.safe_load((ROOT / "src" / "cvj_ml" / "demo.yaml").read_text())
    for name in ("sources", "outbound", "attributes", "journey", "time_zone"):
        assert demo[name] == SETTINGS[name]
