"""The story of ``cvj-ml init``: look at the files, guess what they hold, write a configuration to correct."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from cvj_ml.config import Config, load_config
from cvj_ml.config.faults import check
from cvj_ml.errors import ConfigError, DataError, raise_all
from cvj_ml.pipeline.opening import Watcher
from cvj_ml.proposal import LogFile, guess_lines, guess_roles, propose
from cvj_ml.proposal.roles import told_nowhere
from cvj_ml.sources.profile import FileProfile, count_moments, profile_files

_LINES = 1.5
"""Rows a customer and instant from which rows are taken for lines of orders, not for touchpoints."""


@dataclass(frozen=True, slots=True)
class Initialised:
    """The configuration that was written, the date to ask about first, and what to look at."""

    file: Path
    as_of: date
    doubts: tuple[str, ...]


def initialise(
    files: Sequence[Path], target: Path, time_zone: str, told: Mapping[str, str], watcher: Watcher
) -> Initialised:
    """Write a configuration for these files; ``told`` names columns by role. An existing file is never replaced."""
    if target.exists():
        raise ConfigError(f"{target} exists already; name another file with --config, or remove it.")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", target.stem).strip("-_") or "customers"
    # Only to look: the settings that reading needs, checked as those of a file are.
    settings = {
        "name": name,
        "time_zone": time_zone,
        "history_from": "2000-01-01",
        "sources": {"files": {"path": [str(path.absolute()) for path in files]}},
        "journey": "cvj8",
    }
    looking = check(Config, settings, target)
    beside = target.resolve().parent
    with watcher.step("Looking at the files"), tempfile.TemporaryDirectory() as scratch:
        profiles = profile_files(files, looking, Path(scratch))
        raise_all(ConfigError, "These columns cannot be used:", told_nowhere(told, profiles))
        tables = [LogFile(one, _path_of(one, beside), guess_roles(one, told)) for one in profiles]
        _require_a_log(tables)
        tables = [
            replace(table, lines=guess_lines(table.file, table.roles))
            if _has_lines(table, looking, Path(scratch, f"lines-{i}"))
            else table
            for i, table in enumerate(tables)
        ]
    proposal = propose(name, time_zone, tables)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as stream:
        stream.write(proposal.text)
    load_config(target)
    return Initialised(target, proposal.as_of, proposal.doubts)


def _path_of(profile: FileProfile, beside: Path) -> str:
    """Return the path that the configuration names: of one file, or a pattern that files to come will match, too."""
    first = profile.paths[0]
    path = first if len(profile.paths) == 1 else first.with_name(f"*{''.join(first.suffixes[-1:])}")
    return os.path.relpath(path.resolve(), beside)


def _require_a_log(tables: Sequence[LogFile]) -> None:
    """Raise DataError where no table has a customer and a time."""
    if not all(table.roles.missing for table in tables):
        return
    raise_all(
        DataError,
        "No file is a log of touchpoints. Name the columns with --column, as in --column customer_id=cust; a time is a"
        " timestamp, a date, or text or numbers that time_format can describe (docs/configuration.md):",
        [
            f"{table.file.name}: no {' and no '.join(table.roles.missing)} found among"
            f" {', '.join(column.name for column in table.file.columns)}"
            for table in tables
        ],
    )


def _has_lines(table: LogFile, config: Config, scratch: Path) -> bool:
    """Return whether rows are lines of orders: no event column, and many rows of a customer at one instant."""
    if table.roles.missing or "event" in table.roles.columns:
        return False
    columns = [table.roles.columns[role] for role in ("customer_id", "occurred_at")]
    return table.file.rows > _LINES * count_moments(table.file, columns, config, scratch)
