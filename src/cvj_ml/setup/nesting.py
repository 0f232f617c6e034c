"""Columns that hold structures, lists, maps or JSON: which they are, and the query that makes plain columns of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
from duckdb.sqltypes import DuckDBPyType

from cvj_ml.store.sql import identifier, literal

_MOST = 40
"""Keys of one column that become columns."""

_KINDS = {"struct": "a structure", "list": "a list", "array": "a list", "map": "a map", "union": "a union"}

_Leaf = tuple[tuple[str, ...], str]
"""The names on the way to a plain value, and its SQL."""


@dataclass(frozen=True, slots=True)
class Nested:
    """The nested columns of a table by what each of them is, and a SELECT over the table that makes them plain."""

    columns: Mapping[str, str]
    query: str


def find_nested(rows: str, connection: duckdb.DuckDBPyConnection, table: str = "log") -> Nested | None:
    """Return what is nested in the rows (SQL to select from); None where nothing is.

    The query selects from ``table``. Fields of structures, keys of maps and of lists of key and value, and fields of
    JSON in text become columns, named by their way; what is in other lists stays as it is.
    """
    relation = connection.sql(f"SELECT * FROM {rows}")
    types = dict(zip(relation.columns, relation.types, strict=True))
    found = {name: _KINDS[kind.id] for name, kind in types.items() if kind.id in _KINDS}
    found |= dict.fromkeys(_json_columns(rows, types, connection), "JSON in text")
    if not found:
        return None
    leaves: list[_Leaf] = []
    for name, kind in types.items():
        own = identifier(name)
        if found.get(name) == "JSON in text":
            leaves += _of_json(name, rows, connection)
        elif name in found:
            leaves += _of_type((name,), own, kind, rows, connection)
        else:
            leaves.append(((name,), own))
    taken: set[str] = set()
    columns = [
        sql if sql == identifier(name) else f"{sql} AS {identifier(name)}" for name, sql in _named(leaves, taken)
    ]
    ordered = {name: found[name] for name in types if name in found}
    return Nested(ordered, f"SELECT {', '.join(columns)} FROM {identifier(table)}")


def _json_columns(rows: str, types: Mapping[str, DuckDBPyType], connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield the columns of text in which every value is a JSON object, or a list."""
    texts = [name for name, kind in types.items() if kind.id == "varchar"]
    for sample in (f"(SELECT * FROM {rows} LIMIT 500)", rows):
        like = "({0} IS NULL OR (regexp_matches({0}, '^\\s*[{{\\[]') AND json_valid({0})))"
        tests = ", ".join(f"count({own}) > 0 AND bool_and({like.format(own)})" for own in map(identifier, texts))
        if not texts:
            return
        (fits,) = connection.execute(f"SELECT {tests} FROM {sample}").fetchall()
        texts = [name for name, fit in zip(texts, fits, strict=True) if fit]
    yield from texts


def _of_json(name: str, rows: str, connection: duckdb.DuckDBPyConnection) -> Iterator[_Leaf]:
    own = identifier(name)
    ((shape,),) = connection.execute(
        f"SELECT json_group_structure(CAST({own} AS JSON)) FROM (SELECT {own} FROM {rows} LIMIT 10000)"
    ).fetchall()

    def walk(node: Any, way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(node, dict) and node:
            for key, inner in node.items():
                yield from walk(inner, (*way, key))
        else:
            yield way

    for way in list(walk(json.loads(shape), ()))[:_MOST]:
        path = "$" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in way)
        yield (name, *way), f"json_extract_string({own}, {literal(path)})" if way else own


def _of_type(
    way: tuple[str, ...], sql: str, kind: DuckDBPyType, rows: str, connection: duckdb.DuckDBPyConnection
) -> Iterator[_Leaf]:
    if kind.id == "struct":
        for name, inner in _inside(kind).items():
            yield from _of_type((*way, name), f"{sql}.{identifier(name)}", inner, rows, connection)
        return
    keys = f"map_keys({sql})" if kind.id == "map" else None
    element = _inside(kind)["child"] if kind.id == "list" else None
    pair = _inside(element) if element is not None and element.id == "struct" else {}
    if pair.keys() == {"key", "value"}:
        keys = f"list_transform({sql}, lambda one: one.key)"
    if keys is None:
        yield way, sql
        return
    named = f"SELECT DISTINCT unnest({keys}) AS name FROM {rows} ORDER BY ALL LIMIT {_MOST}"
    for (key,) in connection.execute(f"SELECT CAST(name AS VARCHAR) FROM ({named}) WHERE name IS NOT NULL").fetchall():
        if kind.id == "map":
            found, inner = f"{sql}[{literal(key)}]", _inside(kind)["value"]
        else:
            found = f"list_filter({sql}, lambda one: one.key = {literal(key)})[1].value"
            inner = pair["value"]
        yield (*way, key), _one_of(found, inner)


def _inside(kind: DuckDBPyType) -> dict[str, DuckDBPyType]:
    """Return the types within a type; lengths of arrays and names of enumerations are none."""
    return {name: inner for name, inner in kind.children if isinstance(inner, DuckDBPyType)}


def _one_of(sql: str, kind: DuckDBPyType) -> str:
    """Return the value of a pair; where it is kept in one of several fields by its type, the one that is filled."""
    if kind.id != "struct":
        return sql
    return f"coalesce({', '.join(f'CAST({sql}.{identifier(name)} AS VARCHAR)' for name in _inside(kind))})"


def _named(leaves: Iterable[_Leaf], taken: set[str]) -> Iterator[tuple[str, str]]:
    """Yield each leaf with a name of its own; upper and lower case are one."""
    for way, sql in leaves:
        name = "_".join(way)
        while name.lower() in taken:
            name += "_2"
        taken.add(name.lower())
        yield name, sql
