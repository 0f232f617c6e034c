"""Columns that hold structures, lists, maps or JSON: which they are, the ways into them, and ways that find nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from cvj_ml.store.fields import Field, filled, find_field, inner_types, location_field
from cvj_ml.store.source_location import SourceLocation
from cvj_ml.store.sql import identifier

_MOST = 40
"""Ways into one column that are looked at."""

_SHOWN = 12
"""Ways that are told where another one finds nothing."""

_KINDS = {"struct": "a structure", "list": "a list", "array": "a list", "map": "a map", "union": "a union"}


@dataclass(frozen=True, slots=True)
class Nested:
    """The nested columns of a table by what each of them is, and the fields that ways into them lead to."""

    columns: Mapping[str, str]
    ways: Mapping[str, Field]


def find_nested(location: SourceLocation, rows: str, connection: duckdb.DuckDBPyConnection) -> Nested:
    """Return what is nested in the rows (SQL to select from) of a table.

    Fields of structures, keys of maps and of lists of key and value, and keys of JSON in text have ways; what is in
    other lists has none.
    """
    fields = {name: location_field(location, name) for name in location.types}
    kinds = {name: duckdb.sqltype(one.type).id for name, one in fields.items() if one.nested}
    found = {name: _KINDS.get(kind, kind) for name, kind in kinds.items()}
    texts = [name for name, one in fields.items() if one.type == "VARCHAR"]
    found |= dict.fromkeys(_json_columns(rows, texts, connection), "JSON in text")
    ways: dict[str, Field] = {}
    taken = {name.lower() for name in location.types}
    for name in fields:
        if name not in found:
            continue
        for way in _ways_into(location, name, rows, connection):
            field = find_field(location, way)
            # Upper and lower case are one in the name of a column, and a point in a key of JSON parts it.
            if isinstance(field, Field) and way.lower() not in taken and field.way:
                taken.add(way.lower())
                ways[way] = field
    return Nested({name: found[name] for name in fields if name in found}, ways)


def silent_ways(
    location: SourceLocation, asked: Collection[Field], rows: str, connection: duckdb.DuckDBPyConnection
) -> dict[str, list[str]]:
    """Return those of the fields asked for in which nothing stands in any of the rows, with the ways that there are.

    A way is taken on trust where it is configured: a key that is written otherwise looks like one that is never filled.
    """
    silent: dict[str, list[str]] = {}
    for one in asked:
        # Where something stands, a few rows are enough to see it.
        if not connection.execute(f"SELECT 1 FROM {rows} WHERE {filled(one)} LIMIT 1").fetchall():
            there = _ways_into(location, str(one.own), rows, connection) if one.way else iter(())
            silent[str(one.name)] = first_ways(way for way in there if way != one.own)
    return silent


def first_ways(ways: Iterable[str]) -> list[str]:
    """Return the ways that are told, of those that there are, each once."""
    return sorted(set(ways))[:_SHOWN]


def _ways_into(location: SourceLocation, name: str, rows: str, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield the ways into a column: of text, those into the JSON that is in it."""
    if location_field(location, name).family == "text":
        return _of_json(name, rows, connection)
    return _of_type(location, name, rows, connection)


def _json_columns(rows: str, texts: list[str], connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield the columns of text in which every value is a JSON object, or a list."""
    for sample in (f"(SELECT * FROM {rows} LIMIT 500)", rows):
        like = "({0} IS NULL OR (regexp_matches({0}, '^\\s*[{{\\[]') AND json_valid({0})))"
        tests = ", ".join(f"count({own}) > 0 AND bool_and({like.format(own)})" for own in map(identifier, texts))
        if not texts:
            return
        (fits,) = connection.execute(f"SELECT {tests} FROM {sample}").fetchall()
        texts = [name for name, fit in zip(texts, fits, strict=True) if fit]
    yield from texts


def _of_json(name: str, rows: str, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    own = identifier(name)
    ((shape,),) = connection.execute(
        f"SELECT json_group_structure(TRY_CAST({own} AS JSON)) FROM (SELECT {own} FROM {rows} LIMIT 10000)"
    ).fetchall()

    def walk(node: Any, way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(node, dict) and node:
            for key, inner in node.items():
                yield from walk(inner, (*way, key))
        elif way and not any("." in key or not key for key in way):
            yield way

    for way in list(walk(json.loads(shape or "null"), ()))[:_MOST]:
        yield ".".join((name, *way))


def _of_type(location: SourceLocation, way: str, rows: str, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    field = find_field(location, way)
    if not isinstance(field, Field) or not field.nested:
        yield way
        return
    kind = duckdb.sqltype(field.type)
    if kind.id == "struct":
        for key in list(inner_types(kind))[:_MOST]:
            yield from _of_type(location, f"{way}.{key}", rows, connection)
        return
    keys = f"map_keys({field.raw})" if kind.id == "map" else None
    element = inner_types(kind)["child"] if kind.id == "list" else None
    if element is not None and element.id == "struct" and inner_types(element).keys() == {"key", "value"}:
        keys = f"list_transform({field.raw}, lambda one: one.key)"
    if keys is None:
        return
    named = f"SELECT DISTINCT unnest({keys}) AS name FROM {rows} ORDER BY ALL LIMIT {_MOST}"
    for (key,) in connection.execute(f"SELECT CAST(name AS VARCHAR) FROM ({named}) WHERE name IS NOT NULL").fetchall():
        yield f"{way}.{key}"
