"""Exports of well-known tools: told by their columns, and how each is read; a YAML file in ``tools/`` a tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from cvj_ml.config.base import Section, validated
from cvj_ml.config.documents import read_yaml
from cvj_ml.config.plays import Names
from cvj_ml.config.tables import SourceSpec
from cvj_ml.errors import ConfigError, nearest

OFF = "none"
"""What ``--from`` says where columns are to be guessed, whatever tool they look like."""

Find = Callable[[str], str | None]
"""Returns a column, or a way into one, as the file spells it; None where the file has none."""

_NEEDED = ("customer_id", "occurred_at", "event")


class Export(Section):
    """One export of a tool: the columns that tell it, and its sources as a configuration has them, without a path.

    ``this | that`` is the first of several columns that the file has. A column that the file lacks is left out, and so
    is a source that cannot be read without it. An export without sources is not read, and its notes say why.
    """

    documentation: str = Field(pattern="^https://")
    recognise: tuple[str, ...] = Field(min_length=2)
    sources: dict[str, dict[str, Any]] = Field(default={})
    notes: dict[str, str] = Field(default={}, description="what a person should know, by a short name")

    @field_validator("sources")
    @classmethod
    def _in_the_grammar(cls, sources: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for entry in sources.values():
            whole = of_file(entry, lambda column: column)
            if whole is not None and "currency" in whole:
                whole["currency"] = {**whole["currency"], "to": "EUR"}  # which one is for the data to say
            SourceSpec.model_validate({"path": "export", **(whole or {})})
        return sources


class Tool(Section):
    """A tool: its exports, and what its events mean.

    ``events`` are the preset's names with the tool's, as in a configuration. ``uncounted`` are events that mean nothing
    to the preset, whatever their words say, with the reason; ``outbound`` are those that the business makes.
    """

    title: str
    exports: dict[str, Export] = Field(min_length=1)
    events: dict[str, Names] = Field(default={})
    uncounted: dict[str, str] = Field(default={})
    outbound: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recognised:
    """Which export a file is."""

    tool: Tool
    name: str

    @property
    def export(self) -> Export:
        """Return how the export is read."""
        return self.tool.exports[self.name]

    def entries(self, find: Find) -> dict[str, dict[str, Any]]:
        """Return the sources that a file can be read as, with its own spelling of the columns."""
        found = {name: of_file(entry, find) for name, entry in self.export.sources.items()}
        return {name: entry for name, entry in found.items() if entry is not None}


@cache
def known_tools() -> Mapping[str, Tool]:
    """Return the tools in the package by name."""
    folder = files("cvj_ml").joinpath("setup", "tools")
    paths = sorted(Path(str(item)) for item in folder.iterdir() if item.name.endswith(".yaml"))
    return {path.stem: validated(Tool, read_yaml(path), path) for path in paths}


def require_tool(name: str) -> None:
    """Raise ConfigError where ``--from`` names no tool."""
    known = [*known_tools(), OFF]
    if name not in known:
        raise ConfigError(f"--from {name}: it is none of {', '.join(known)}.{nearest(name, known)}")


def recognise(find: Find, tool: str | None) -> Recognised | None:
    """Return the export whose telling columns a file has, the one with most of them; of one tool, or of any."""
    asked = {tool: known_tools()[tool]} if tool is not None else known_tools()
    fitting = [
        Recognised(one, name)
        for one in asked.values()
        for name, export in one.exports.items()
        if all(_first(column, find) is not None for column in export.recognise)
    ]
    return max(fitting, key=lambda one: len(one.export.recognise), default=None)


def lacking(tool: str, find: Find) -> str:
    """Return in words what a file lacks to be one of the exports of a tool."""
    told = []
    for name, export in known_tools()[tool].exports.items():
        missing = [column for column in export.recognise if _first(column, find) is None]
        told.append(f"{name} (it lacks {', '.join(missing)})")
    return "; ".join(told)


def finder(columns: Mapping[str, Any], has_way: Callable[[str], bool]) -> Find:
    """Return how columns are found in a file: exactly, without regard to case as warehouses change it, or by a way."""
    folded = {name.casefold(): name for name in columns}

    def find(column: str) -> str | None:
        if column in columns:
            return column
        if (own := folded.get(column.casefold())) is not None:
            return own
        return column if "." in column and has_way(column) else None

    return find


def of_file(entry: Mapping[str, Any], find: Find) -> dict[str, Any] | None:
    """Return a source with the columns that a file has, in its spelling; None where it cannot be read without one."""
    made = dict(entry)
    columns = {role: _any(column, find) for role, column in entry.get("columns", {}).items()}
    made["columns"] = {role: own for role, own in columns.items() if own is not None}
    told = {*made["columns"], *entry.get("constants", {}), *(("occurred_at", "event") if "melt" in entry else ())}
    if "where" in entry:
        conditions = {_first(column, find): values for column, values in entry["where"].items()}
        if None in conditions:
            return None
        made["where"] = conditions
    if "melt" in entry:
        dates = {event: _first(column, find) for event, column in entry["melt"].items()}
        made["melt"] = {event: own for event, own in dates.items() if own is not None}
        if not made["melt"]:
            return None
    if "currency" in entry:
        own = _first(entry["currency"]["column"], find)
        made.pop("currency")
        if own is not None and "value" in made["columns"]:
            made["currency"] = {**entry["currency"], "column": own}
    return made if told.issuperset(_NEEDED) else None


def _any(column: str | list[str], find: Find) -> str | list[str] | None:
    """Return a column; of a list, those of which the first filled one counts, all that the file has."""
    if isinstance(column, str):
        return _first(column, find)
    found = [own for one in column if (own := _first(one, find)) is not None]
    return found[0] if len(found) == 1 else found or None


def _first(columns: str, find: Find) -> str | None:
    return next(_found(columns, find), None)


def _found(columns: str, find: Find) -> Iterator[str]:
    for column in columns.split(" | "):
        if (own := find(column)) is not None:
            yield own
