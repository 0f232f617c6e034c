"""The examples of unattended nights: files that their readers accept, and commands that the command line knows."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cli_reference import command_of

from cvj_ml.errors import ConfigError, CvjError, DataError, GateError, LockedError, ModelError, NightError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "nightly"
# What a person has to look at: trying again changes nothing.
FINAL = sorted({kind.exit_code for kind in (ConfigError, ModelError, NightError, GateError)})
PASSING = {kind.exit_code for kind in (CvjError, DataError, LockedError)}


def text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def commands(content: str) -> Iterator[list[str]]:
    """Every call of cvj-ml in a text, as words; what a shell, a template or systemd puts in becomes a date."""
    content = re.sub(r'"?\$\(date \+\\?%{1,2}F\)"?|"?\{\{ [^}]* \}\}"?', "2025-06-24", content)
    for found in re.finditer(r"(?<![\w-])cvj-ml (?:nightly|verify|measure|models|train)\b[^\n#`|;]*", content):
        call = re.split(r">>|'|\"(?=$|\])", found[0])[0]
        yield shlex.split(call)[1:]


def options_of(words: list[str]) -> tuple[set[str], list[str]]:
    """Return the options that a command knows, and the words that follow its name."""
    command, rest = command_of(words)
    return {option for parameter in command.params for option in parameter.opts}, rest


def described() -> list[Path]:
    return [*sorted(FOLDER.iterdir()), ROOT / "docs" / "nightly.md"]


@pytest.mark.parametrize("path", described(), ids=lambda path: path.name)
def test_every_command_is_one_that_the_command_line_knows(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        known, rest = options_of(words)
        assert {word for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize(
    "name", ["crontab", "cvj-ml-nightly.service", "airflow_dag.py", "kubernetes.yaml"]
)  # fmt: skip
def test_every_way_of_running_asks_for_a_day_and_resumes(name: str) -> None:
    (nightly, *_) = [words for words in commands(text(name)) if words[0] == "nightly"]
    assert nightly[1:4] == ["shop.yaml", "--as-of", "2025-06-24"] and "--resume" in nightly
    assert "Europe/London" in text(name), "the day is the business's"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text(name))
    return parser


@pytest.mark.parametrize("name", ["cvj-ml-nightly.service", "cvj-ml-nightly.timer", "mlflow.service"])
def test_systemd_accepts_the_units(name: str, tmp_path: Path) -> None:
    assert unit(name).sections()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed, so only the form of the unit was read")
    shutil.copytree(FOLDER, tmp_path / "units")
    # The programs of the example are not on this machine; everything else is checked.
    file = tmp_path / "units" / name
    file.write_text(re.sub(r"/usr/local/bin/\S+", shutil.which("true") or "", file.read_text()))
    run = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (run.returncode, [line for line in run.stderr.splitlines() if str(tmp_path) in line]) == (0, [])


def test_what_may_pass_is_tried_again_and_nothing_else() -> None:
    service = unit("cvj-ml-nightly.service")["Service"]
    assert sorted(map(int, service["RestartPreventExitStatus"].split())) == FINAL
    job = yaml.safe_load(text("kubernetes.yaml"))["spec"]["jobTemplate"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", FINAL)
    assert "|".join(map(str, FINAL)) + ") exit 99" in text("airflow_dag.py")
    assert not PASSING & set(FINAL)


def test_the_cron_job_is_locked_down_and_alone() -> None:
    document = yaml.safe_load(text("kubernetes.yaml"))
    assert (document["kind"], document["apiVersion"]) == ("CronJob", "batch/v1")
    assert document["spec"]["concurrencyPolicy"] == "Forbid"
    pod = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "a failure policy asks for it"
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_dag_is_python_that_asks_for_its_own_day() -> None:
    ast.parse(text("airflow_dag.py"))
    assert "{{ data_interval_end | ds }}" in text("airflow_dag.py")


def test_cron_reads_every_percent_sign_as_one() -> None:
    jobs = [line for line in text("crontab").splitlines() if re.match(r"[\d*]", line)]
    assert jobs and all(len(line.split(maxsplit=5)) == 6 for line in jobs)
    assert not [line for line in jobs if re.search(r"(?<!\\)%", line)]


def test_the_image_runs_without_root_from_the_lock_with_warm_kernels() -> None:
    lines = text("Dockerfile").splitlines()
    copied = [word for line in lines if re.match(r"COPY (?!--from)", line) for word in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert any("--require-hashes --requirement locks/runtime.txt" in line for line in lines)
    user, warmed = lines.index("USER cvj"), next(i for i, line in enumerate(lines) if "warm()" in line)
    assert user < warmed, "the cache belongs to the user that runs"
    assert 'ENTRYPOINT ["cvj-ml"]' in lines


def test_mlflow_listens_to_this_machine_alone() -> None:
    served = [
        line for path in described() for line in path.read_text().splitlines() if re.search(r"mlflow (server|ui)", line)
    ]
    assert served and all("--host 127.0.0.1" in line for line in served)
