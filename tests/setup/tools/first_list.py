"""From a tool's export to the first list by the commands themselves, held against the log that it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tests.setup.tools.business import Export
from tests.trained import Outcome

KNOWN = "2025-01-15"
"""When every row of the made-up year is known, even where a tool's rows count as known days late."""

Command = Callable[..., Outcome]
"""Runs one command of the package with its arguments."""


@dataclass(frozen=True)
class Read:
    """A configuration that `init` wrote, and what became of the rows of the files, which its sources read once each."""

    target: Path
    as_of: str
    doubts: frozenset[str]
    rows: int
    stored: int
    left_out: int
    """Not asked for by what the tool's file says: an order's further lines, other objects, unpaid orders."""


def read_as_it_is(run: Command, tool: str, export: Export, folder: Path) -> Read:
    """Make a configuration with no edits and require that `check` finds what the log tells, row for row."""
    target = folder / "tool.yaml"
    done = run("init", *export.files, "--from", tool, "--yes", "--config", target, "--time-zone", "UTC", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    checked = run("check", target, "--as-of", KNOWN, "--json")
    assert checked.code == 0, checked.err
    found = json.loads(checked.out)
    assert found["customers"] == export.customers
    assert found["events"] == export.events
    sources = yaml.safe_load(target.read_text())["sources"]
    for one in found["sources"]:
        source = sources[one["source"]]
        assert one["rows_in"] == sum(rows_of(file, source.get("melt")) for file in folder.glob(source["path"])), one
        assert one["rows_in"] == one["stored"] + one["left_out"], one
    rows = newest(target)
    assert len(rows) == sum(export.events.values())
    assert rows["value"].sum() == round(100 * export.value)
    doubts = frozenset(one["name"].split(".")[-1] for one in said["doubts"])
    rows_in, stored, left_out = (sum(one[way] for one in found["sources"]) for way in ("rows_in", "stored", "left_out"))
    return Read(target, said["as_of"], doubts, rows_in, stored, left_out)


def list_of_it(run: Command, read: Read) -> tuple[str, pd.DataFrame]:
    """Train and publish at the instant that `init` proposed; return the verdict and everybody who is listed."""
    trained = run("train", read.target, "--as-of", read.as_of, "--json")
    assert trained.code == 0, trained.err
    verdict: dict[str, Any] = json.loads(trained.out)["verdict"]
    assert verdict["promote"]
    night = run("targets", read.target, "--as-of", read.as_of)
    assert night.code == 0, night.err
    files = sorted((read.target.parent / "out").rglob("targets/*__*d.parquet"))
    return verdict["sentence"], pd.concat(map(pd.read_parquet, files))


def newest(target: Path) -> pd.DataFrame:
    """Return the touchpoints that stand in the store beside a configuration, without those that were replaced."""
    rows = pd.concat(map(pd.read_parquet, target.parent.rglob("bucket-*/touchpoints.parquet")))
    return rows[rows["superseded_at"].isna() & ~rows["copied"]]


def rows_of(file: Path, melt: Mapping[str, str] | None) -> int:
    """Return how many rows a source finds in a file: objects, lines of a table, or of dates to melt the filled ones."""
    if melt:
        return int(pd.read_csv(file, usecols=[*melt.values()]).count().sum())
    text = file.read_text(encoding="utf-8")
    return len(json.loads(text)) if text.startswith("[") else text.count("\n") - (file.suffix == ".csv")
