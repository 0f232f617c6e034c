"""Files as other systems write them: `init` tells its doubts or knows the shape, `check` has the right values.

The files are made up and stay outside the repository: ``$CVJ_ML_FIELD``, else ``../shared/field``. A folder a case with
its ``expected.yaml``: a list of runs, each with ``files``, the exit code of `init` without ``--yes`` (0 if not given;
with ``accept: all`` it is not asked), what it tells, the doubts to accept, and what `check` finds at ``as_of`` with the
journey and settings put in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.required import absent
from tests.trained import call

ROOT = Path(__file__).resolve().parents[1]
CASES = sorted((ROOT / "tests" / "field").glob("*/expected.yaml"))
RUNS = [
    # The first run of a case is the way that most will go; the others are slow only together.
    pytest.param(case.parent.name, number, marks=[pytest.mark.slow] if number else [])
    for case in CASES
    for number, _ in enumerate(yaml.safe_load(case.read_text()))
]


def files_of(case: str, names: list[str]) -> list[Path]:
    folder = Path(os.environ.get("CVJ_ML_FIELD") or ROOT.parent / "shared" / "field")
    if not (folder / case).is_dir():
        absent("field", f"the case {case!r} is not in {folder}; set CVJ_ML_FIELD to the folder that holds it")
    return [folder / case / name for name in names]


@pytest.mark.parametrize(("case", "number"), RUNS)
def test_a_file_as_another_system_writes_it(case: str, number: int, tmp_path: Path) -> None:
    expected: dict[str, Any] = yaml.safe_load((ROOT / "tests" / "field" / case / "expected.yaml").read_text())[number]
    files, target = files_of(case, expected["files"]), tmp_path / "field.yaml"
    arguments = [*files, "--config", target, *expected.get("arguments", [])]
    accepted = expected.get("accept", [])
    if accepted != "all":
        done = call("init", *arguments)
        said = done.out + done.err
        assert done.code == expected.get("exit", 0), said
        for words in expected.get("told", []):
            assert words in said, said
        for words in expected.get("untold", []):
            assert words not in said, said
        assert target.exists() == (done.code == 0), said
    if "values" not in expected:
        return
    target.unlink(missing_ok=True)
    answers = ["--yes"] if accepted == "all" else [part for name in accepted for part in ("--accept", name)]
    more = ["--accept", "events.no-purchase"] if "journey" in expected and accepted != "all" else []
    done = call("init", *arguments, *answers, "--json")
    if done.code == 3 and more:  # the journey is put in below
        done = call("init", *arguments, *answers, *more, "--json")
    assert done.code == 0, done.out + done.err
    config = yaml.safe_load(target.read_text())
    require_proposal(config, json.loads(done.out), expected)
    if "journey" in expected:
        own = {"name": "own", "stages": expected["journey"]}
        config |= {"journey": own | {key: expected[key] for key in {"same_day"} & expected.keys()}}
        config.pop("events", None)
    target.write_text(yaml.safe_dump(config | expected.get("settings", {})))
    require_values(target, expected)


def require_proposal(config: dict[str, Any], said: dict[str, Any], expected: dict[str, Any]) -> None:
    asked = [one for one in said["doubts"] if one["blocking"] and "? If so: " not in one["way_out"]]
    assert not asked, "a blocking doubt ends in a question, with what to do if so"
    for source, columns in expected.get("columns", {}).items():
        assert (
            config["sources"][source]["columns"] == columns
            or columns.items() <= config["sources"][source]["columns"].items()
        )
    for name, events in expected.get("mapped", {}).items():
        assert config["events"][name] == events
    if "history_from" in expected:
        assert config["history_from"] == expected["history_from"]
    if "proposed_as_of" in expected:
        assert said["as_of"] == str(expected["proposed_as_of"])


def require_values(target: Path, expected: dict[str, Any]) -> None:
    values = expected["values"]
    done = call("check", target, "--as-of", expected["as_of"], "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    for name in {"customers", "used", "superseded", "events"} & values.keys():
        assert found[name] == values[name], name
    if "unassigned" in values:
        assert sum(one["unassigned"] for one in found["sources"]) == values["unassigned"]
    if "refused" in values:
        assert sum(sum(one["refused"].values()) for one in found["sources"]) == values["refused"]
    stages = {one["stage"]: one["customers"] for one in found["stages"]}
    assert {name: stages[name] for name in values.get("stages", {})} == values.get("stages", {})
    rows = pd.concat(map(pd.read_parquet, target.parent.rglob("bucket-*/touchpoints.parquet")))
    current = rows[rows["superseded_at"].isna() & ~rows["copied"]]
    if "value" in values:
        assert current["value"].sum() == round(values["value"] * 100)
    for event, amount in values.get("of", {}).items():
        assert current.loc[current["event"] == event, "value"].sum() == round(amount * 100)
    if "first" in values:
        assert str(current["occurred_at"].min()).startswith(values["first"])
