"""Exports of well-known tools: told by their columns, and how each is read; a YAML file in ``tools/`` a tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydantic

from cvj_ml.config.base import Section, validated
from cvj_ml.config.documents import read_yaml
from cvj_ml.config.plays import Names
from cvj_ml.config.tables import SourceSpec
from cvj_ml.errors import ConfigError, nearest
from cvj_ml.setup.profile import Table
from cvj_ml.store.fields import Field, find_field
from cvj_ml.store.source_location import SourceLocation

OFF = "none"
"""What ``--from`` says where columns are to be guessed, whatever tool they look like."""

_NEEDED = ("customer_id", "occurred_at", "event")


class Export(Section):
    """One export of a tool: the columns that tell it, and its sources as a configuration has them, without a path.

    ``this | that`` is the first of several columns that the file has. A column that the file lacks is left out, and so
    is a source that cannot be read without it. An export without sources is not read, and its notes say why. ``state``
    is a column with the present stage, to compare with the last of the dates of ``melt``.
    """

    documentation: str = pydantic.Field(pattern="^https://")
    recognise: tuple[str, ...] = pydantic.Field(min_length=2)
    sources: dict[str, dict[str, Any]] = pydantic.Field(default={})
    state: str | None = None
    notes: dict[str, str] = pydantic.Field(default={}, description="what a person should know, by a short name")

    @pydantic.field_validator("sources")
    @classmethod
    def _in_the_grammar(cls, sources: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for entry in sources.values():
            whole = of_file(entry, FileColumns(lambda column: column))
            if whole is not None and "currency" in whole:
                whole["currency"] = {**whole["currency"], "to": "EUR"}  # which one is for the data to say
            SourceSpec.model_validate({"path": "export", **(whole or {})})
        return sources


class NamedTool(Section):
    """A tool: its exports, and what its events mean.

    ``events`` are the preset's names with the tool's, as in a configuration. ``uncounted`` are events that mean nothing
    to the preset, whatever their words say, with the reason; ``outbound`` are those that the business makes.
    """

    title: str
    exports: dict[str, Export] = pydantic.Field(min_length=1)
    events: dict[str, Names] = pydantic.Field(default={})
    uncounted: dict[str, str] = pydantic.Field(default={})
    outbound: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileColumns:
    """The columns of a file: ``find`` returns one, or a way into one, in the file's spelling, and None for none.

    ``holds`` says whether anything stands in one.
    """

    find: Callable[[str], str | None]
    holds: Callable[[str], bool] = lambda own: True

    def first(self, columns: str) -> str | None:
        """Return the first of ``this | that`` in which anything stands, else the first that there is."""
        found = [own for one in columns.split(" | ") if (own := self.find(one)) is not None]
        return next(filter(self.holds, found), found[0] if found else None)

    def any(self, column: str | list[str]) -> str | list[str] | None:
        """Return a column; of a list, those of which the first filled one counts, all that the file has."""
        if isinstance(column, str):
            return self.first(column)
        found = [own for one in column if (own := self.first(one)) is not None]
        return found[0] if len(found) == 1 else found or None


@dataclass(frozen=True, slots=True)
class Recognised:
    """Which export a file is."""

    tool: NamedTool
    name: str

    @property
    def export(self) -> Export:
        """Return how the export is read."""
        return self.tool.exports[self.name]

    @property
    def told(self) -> str:
        """Return in words what it is."""
        return f"recognised as an export of {self.tool.title} ({self.name})"

    def entries(self, columns: FileColumns) -> dict[str, dict[str, Any]]:
        """Return the sources that a file can be read as, with its own spelling of the columns."""
        found = {name: of_file(entry, columns) for name, entry in self.export.sources.items()}
        return {name: entry for name, entry in found.items() if entry is not None}


@dataclass(frozen=True, slots=True)
class ToolSource:
    """A source of a recognised table before it was read."""

    name: str
    kind: str
    table: Table
    recognised: Recognised
    entry: Mapping[str, Any]


@cache
def known_tools() -> Mapping[str, NamedTool]:
    """Return the tools in the package by name."""
    folder = files("cvj_ml").joinpath("setup", "tools")
    paths = sorted(Path(str(item)) for item in folder.iterdir() if item.name.endswith(".yaml"))
    return {path.stem: validated(NamedTool, read_yaml(path), path) for path in paths}


def require_tool(name: str) -> None:
    """Raise ConfigError where ``--from`` names no tool."""
    known = [*known_tools(), OFF]
    if name not in known:
        raise ConfigError(f"--from {name}: it is none of {', '.join(known)}.{nearest(name, known)}")


def recognise(columns: FileColumns, tool: str | None) -> Recognised | None:
    """Return the export whose telling columns a file has, the one with most of them; of one tool, or of any."""
    asked = {tool: known_tools()[tool]} if tool is not None else known_tools()
    fitting = [
        Recognised(one, name)
        for one in asked.values()
        for name, export in one.exports.items()
        if all(columns.first(column) is not None for column in export.recognise)
    ]
    return max(fitting, key=lambda one: len(one.export.recognise), default=None)


def lacking(tool: str, columns: FileColumns) -> str:
    """Return in words what a file lacks to be one of the exports of a tool."""
    told = []
    for name, export in known_tools()[tool].exports.items():
        missing = [column for column in export.recognise if columns.first(column) is None]
        told.append(f"{name} (it lacks {', '.join(missing)})")
    return "; ".join(told)


def columns_of(location: SourceLocation) -> FileColumns:
    """Return the columns of a file as it was found: exactly, in capitals as warehouses change them, or by a way."""
    folded = {name.casefold(): name for name in location.types}

    def find(column: str) -> str | None:
        if column not in location.types and (own := folded.get(column.casefold())) is not None:
            return own
        return column if isinstance(find_field(location, column), Field) else None

    return FileColumns(find)


def tool_columns(table: Table) -> FileColumns:
    """Return the columns of a table; of several that could be meant, those count in which anything stands.

    Into text leads any way that one can write, so that there is one only where anything stands in it.
    """

    @cache
    def holds(own: str) -> bool:
        if own in table.fields:
            return table.file.column(own).filled > 0
        found = find_field(table.location, own)
        return isinstance(found, Field) and bool(table.ask(f"count({found.raw})")[0])

    columns = columns_of(table.location)

    def find(column: str) -> str | None:
        own = columns.find(column)
        return None if own and _open(table.location, own) and not holds(own) else own

    return FileColumns(find, holds)


def _open(location: SourceLocation, own: str) -> bool:
    """Return whether a way leads into what has no fields of its own: a map, pairs of key and value, JSON in text."""
    found = find_field(location, own)
    return isinstance(found, Field) and bool(found.way) and found.untyped


def plain_ids(table: Table, customer: str | Sequence[str]) -> list[str]:
    """Return the columns of the customer's ids that were looked at: not the ways into others."""
    return [own for own in ([customer] if isinstance(customer, str) else customer) if own in table.fields]


def sort_of(location: SourceLocation, tool: str | None) -> tuple[str, str] | None:
    """Return the tool and export that a file is, by which several files are one; None for those that are guessed."""
    found = recognise(columns_of(location), tool) if tool != OFF else None
    return (found.tool.title, found.name) if found else None


def part_recognised(tables: Sequence[Table], tool: str | None) -> tuple[list[tuple[Table, Recognised]], list[Table]]:
    """Return the tables that are exports of tools, of one or of any, and the others.

    Raises ConfigError where ``tool`` is named and a table is none of its exports.
    """
    if tool == OFF:
        return [], list(tables)
    found = [(table, recognise(tool_columns(table), tool)) for table in tables]
    if tool is not None and (unlike := [table for table, one in found if one is None]):
        raise ConfigError("\n  - ".join([
            f"--from {tool}: these files are none of its known exports. Leave --from out, and every file is looked at"
            " by itself:",
            *(f"{table.file.name}: {lacking(tool, tool_columns(table))}" for table in unlike),
        ]))  # fmt: skip
    return [(table, one) for table, one in found if one is not None], [table for table, one in found if one is None]


def of_file(entry: Mapping[str, Any], columns: FileColumns) -> dict[str, Any] | None:
    """Return a source with the columns that a file has, in its spelling; None where it cannot be read without one."""
    made = dict(entry)
    found = {role: columns.any(column) for role, column in entry.get("columns", {}).items()}
    made["columns"] = {role: own for role, own in found.items() if own is not None}
    told = {*made["columns"], *entry.get("constants", {}), *(("occurred_at", "event") if "melt" in entry else ())}
    if "where" in entry:
        conditions = {columns.first(column): values for column, values in entry["where"].items()}
        if None in conditions:
            return None
        made["where"] = conditions
    if "melt" in entry:
        dates = {event: columns.first(column) for event, column in entry["melt"].items()}
        made["melt"] = {event: own for event, own in dates.items() if own is not None}
        if not made["melt"]:
            return None
    if "currency" in entry:
        own = columns.first(entry["currency"]["column"])
        made.pop("currency")
        if own is not None and "value" in made["columns"]:
            made["currency"] = {**entry["currency"], "column": own}
    return made if told.issuperset(_NEEDED) else None
