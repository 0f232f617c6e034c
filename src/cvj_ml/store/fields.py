"""Which of a table's own columns is meant: by its name, or by a way into what is nested in one.

A way is written with points (``ecommerce.purchase_revenue``): fields of structures, keys of maps and of lists of key
and value, places of other lists (0 is the first), and keys of JSON in text. A column of just that name wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
from duckdb.sqltypes import DuckDBPyType

from cvj_ml.config import EPOCHS
from cvj_ml.errors import nearest
from cvj_ml.store.source_location import SourceLocation
from cvj_ml.store.sql import identifier, literal

_FAMILIES = {
    '"NULL"': "null",
    "NULL": "null",
    "VARCHAR": "text",
    "BLOB": "text",
    "JSON": "text",
    "UUID": "text",
    "DURATION": "duration",
    "HALF": "float",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "FLOAT": "float",
    "DOUBLE": "float",
    "INTEGER": "integer",
    "UINTEGER": "integer",
}
_FAMILIES |= {f"{sign}{size}INT": "integer" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}

_TIMES = ("occurred_at", "known_at", "as_of")


@dataclass(frozen=True, slots=True)
class Field:
    """Where a canonical column comes from: SQL of the raw value and its DuckDB type.

    ``own`` is the table's column (None for a constant), ``way`` the keys that lead into it, ``broken`` SQL of whether
    that column holds what cannot be entered.
    """

    raw: str
    type: str
    untyped: bool
    own: str | None
    way: tuple[str, ...] = ()
    broken: str = "FALSE"

    @property
    def family(self) -> str:
        """Return null, integer, float, decimal, text, boolean, date, zoned, naive, duration or other."""
        kind = self.type.upper()
        if kind.endswith("]"):
            return "other"
        if kind.startswith("TIMESTAMP"):
            return "zoned" if "TIME ZONE" in kind or "TZ" in kind else "naive"
        if kind.startswith(("DECIMAL", "ENUM")):
            return "decimal" if kind.startswith("DECIMAL") else "text"
        return _FAMILIES.get(kind, "other")

    @property
    def nested(self) -> bool:
        """Whether a value is a list, a structure or the like."""
        return self.type.endswith("]") or self.type.upper().startswith(("STRUCT", "MAP", "UNION"))

    @property
    def text(self) -> str:
        """SQL of the value as text; bytes are UTF-8, and null where they are not."""
        return f"TRY(decode({self.raw}))" if self.type == "BLOB" else f"CAST({self.raw} AS VARCHAR)"

    @property
    def undecodable(self) -> str:
        """SQL of whether there is something that cannot be decoded: bytes that are no UTF-8, text that is no JSON."""
        if self.type == "BLOB":
            return f"({self.raw} IS NOT NULL AND {self.text} IS NULL)"
        return self.broken

    @property
    def name(self) -> str | None:
        """The name of the column with the way into it, as it is written in a configuration."""
        return None if self.own is None else ".".join((self.own, *self.way))


@dataclass(frozen=True, slots=True)
class Reading:
    """SQL of the canonical value (null where it cannot be read), and of whether the source has a value there.

    ``wall`` is the local wall time of an instant; it is a column of its own, to be evaluated once, under the name
    ``wall_column`` to which ``value`` refers.
    """

    value: str
    there: str = "FALSE"
    wall: str | None = None


def map_fields(
    location: SourceLocation,
    columns: Mapping[str, str],
    constants: Mapping[str, str],
    roles: Iterable[str],
    required: Iterable[str],
    faults: list[str],
) -> dict[str, Field]:
    """Return the fields by canonical name: mapped, constant, or of the same name in the source.

    A column ``value`` or ``channel`` that is mapped to a property has been given its meaning, and is neither by its own
    name. Times and ids play their roles whatever else they are.
    """
    fields: dict[str, Field] = {}

    for name, own in columns.items():
        found = find_field(location, own)
        if isinstance(found, Field):
            fields[name] = found
        else:
            faults.append(f"{location.label}: columns.{name}: {found}")
    for name, text in constants.items():
        fields[name] = Field(literal(text), "VARCHAR", True, None)
    roles = tuple(roles)
    properties = {own for name, own in columns.items() if name not in roles}
    for role in roles:
        if role in ("value", "channel") and role in properties:
            continue
        if role not in fields and role not in columns and role in location.types:
            fields[role] = location_field(location, role)
    for role in required:
        if role not in fields and role not in columns:
            faults.append(
                f"{location.label}: there is no column {role!r}; map it under columns ({role}: <its name there>)."
                f"{nearest(role, location.types)} Columns found: {', '.join(location.types)}"
            )
    faults += _idle_times(location, [one for name, one in fields.items() if name in _TIMES])
    return fields


def _idle_times(location: SourceLocation, times: Sequence[Field]) -> list[str]:
    """Return the fault of a zone in which nothing is read: what is counted since 1970 has none."""
    spec, counted = location.spec, ("text", "integer", "float", "decimal")
    told = "times" in spec.model_fields_set and spec.times != "utc"
    if not told or spec.time_format not in EPOCHS or not times or any(one.family not in counted for one in times):
        return []
    return [
        f"{location.label}: times: {spec.times} changes nothing beside time_format: {spec.time_format}, which counts"
        " from 1970 in UTC; leave times out, or, if the clock that was counted ran in local time, correct it in a query"
    ]


def where_sql(location: SourceLocation, where: Mapping[str, Any], faults: list[str]) -> tuple[str, list[Field]]:
    """Return SQL of whether a row says what ``where`` asks of its columns (never null), and their fields."""
    conditions, fields = ["TRUE"], list[Field]()
    for name, wanted in where.items():
        found = find_field(location, name)
        if isinstance(found, str):
            faults.append(f"{location.label}: where: {found}")
            continue
        fields.append(found)
        text = plain_text(found)
        texts = [] if wanted == "filled" else list(wanted)
        switch = set(texts) <= {"true", "false"}  # true of a configuration is TRUE in a spreadsheet
        said = f"{f'lower({text})' if switch else text} IN ({', '.join(map(literal, texts))})" if texts else None
        conditions.append(f"coalesce({said or f'{filled(found)}'}, FALSE)")
    return " AND ".join(conditions), fields


def melt_sql(location: SourceLocation, melt: Mapping[str, str], faults: list[str]) -> tuple[str, str, list[Field]]:
    """Return SQL of the list of events and dates that a row holds, the type of the dates, and their fields.

    The dates are plain columns: so can those of a later day be taken out of a row.
    """
    dates = dict[str, Field]()
    for event, own in melt.items():
        if own in location.types:
            dates[event] = location_field(location, own)
        else:
            fault = f"{location.label}: melt.{event}: there is no column {own!r}.{nearest(own, location.types)}"
            faults.append(fault)
    kinds = {one.type for one in dates.values()}
    kind = kinds.pop() if len(kinds) == 1 else "VARCHAR"
    cells = [
        f"CASE WHEN {filled(one)} THEN {{'event': {literal(event)}, 'at': CAST({one.raw} AS {kind})}} END"
        for event, one in dates.items()
    ]
    return f"list_filter([{', '.join(cells)}], lambda one: one IS NOT NULL)", kind, [*dates.values()]


def filled(field: Field) -> str:
    """Return SQL of whether there is anything in the place of a field: neither null nor blank."""
    return f"({field.raw} IS NOT NULL AND ({field.text} IS NULL OR trim({field.text}) <> ''))"


def plain_text(field: Field) -> str:
    """Return SQL of a value as text: whole numbers without a point, lists and structures as JSON; empty is null."""
    raw = field.raw
    match field.family:
        case "float":
            whole = f"{raw} = trunc({raw}) AND abs({raw}) < 1e15"
            number = f"CASE WHEN {whole} THEN CAST(CAST({raw} AS BIGINT) AS VARCHAR) ELSE CAST({raw} AS VARCHAR) END"
            return f"CASE WHEN NOT isnan({raw}) THEN {number} END"
        case "decimal":
            whole = f"CAST(CAST({raw} AS HUGEINT) AS VARCHAR)"
            return f"CASE WHEN {raw} = trunc({raw}) THEN {whole} ELSE rtrim(CAST({raw} AS VARCHAR), '0') END"
        case "other" if field.nested:
            return f"CAST(to_json({raw}) AS VARCHAR)"
    return f"nullif({field.text}, '')"


def location_field(location: SourceLocation, own: str) -> Field:
    """Return a column of a table as a field; what means an empty cell there is null."""
    return _emptied(location, _whole(location, own))


def find_field(location: SourceLocation, name: str) -> Field | str:
    """Return the field that a name means: a column, or what a way into one leads to; else what is wrong with it."""
    if name in location.types:
        return location_field(location, name)
    parts = name.split(".")
    for number in range(len(parts) - 1, 0, -1):
        own = ".".join(parts[:number])
        if own in location.types:
            found = _enter(_whole(location, own), parts[number:])
            return found if isinstance(found, str) else _emptied(location, found)
    return f"there is no column {name!r}.{nearest(name, location.types)}"


def _whole(location: SourceLocation, own: str) -> Field:
    return Field(identifier(own), location.told.get(own, location.types[own]), location.untyped, own)


def _emptied(location: SourceLocation, field: Field) -> Field:
    if not (empty := ", ".join(map(literal, location.spec.null_values))):
        return field
    return replace(field, raw=f"CASE WHEN {field.text} NOT IN ({empty}) THEN {field.raw} END")


def _enter(field: Field, way: Sequence[str]) -> Field | str:
    """Return what a way leads to from a field on; else what is wrong with it."""
    if not way:
        return field
    if field.family == "text":
        return _within_json(field, way)
    kind = duckdb.sqltype(field.type) if field.nested else None
    if kind is not None and kind.id == "struct":
        inside = inner_types(kind)
        for number in range(len(way), 0, -1):  # a key may hold a point
            if (key := ".".join(way[:number])) in inside:
                return _enter(_step(field, f"{field.raw}.{identifier(key)}", inside[key], way[:number]), way[number:])
        return f"there is no field {way[0]!r} in {field.name!r}.{nearest(way[0], inside)}"
    if kind is not None and kind.id == "map":
        value, number = inner_types(kind)["value"], _key_length(inner_types(kind)["value"], way)
        key = ".".join(way[:number])
        return _enter(_step(field, f"{field.raw}[{literal(key)}]", value, way[:number]), way[number:])
    if kind is not None and kind.id in ("list", "array"):
        element = inner_types(kind)["child"]
        pair = inner_types(element) if element.id == "struct" else {}
        if pair.keys() == {"key", "value"}:
            number = _key_length(pair["value"], way)
            key = literal(".".join(way[:number]))
            found = f"list_filter({field.raw}, lambda one: one.key = {key})[1].value"
            entered = _step(field, found, pair["value"], way[:number])
            return _enter(entered, way[number:]) if way[number:] else _one_of(entered)
        if way[0].isdecimal():
            return _enter(_step(field, f"{field.raw}[{int(way[0]) + 1}]", element, way[:1]), way[1:])
        return f"{field.name!r} is a list; say which of it, as in {field.name}.0, or make columns of it in a query"
    return f"{field.name!r} is {field.type}, so there is no {way[0]!r} in it"


def _step(field: Field, raw: str, kind: DuckDBPyType, keys: Sequence[str]) -> Field:
    return replace(field, raw=raw, type=str(kind), way=(*field.way, *keys))


def _key_length(value: DuckDBPyType, way: Sequence[str]) -> int:
    """Return how many parts of a way are a key: all, unless the value has a field of the last one's name."""
    return len(way) - 1 if len(way) > 1 and value.id == "struct" and way[-1] in inner_types(value) else len(way)


def inner_types(kind: DuckDBPyType) -> dict[str, DuckDBPyType]:
    """Return the types within a type; lengths of arrays and names of enumerations are none."""
    return {name: inner for name, inner in kind.children if isinstance(inner, DuckDBPyType)}


def _one_of(field: Field) -> Field:
    """Return the value of a pair; where it is kept in one of several fields by its type, the one that is filled."""
    kind = duckdb.sqltype(field.type)
    if kind.id != "struct":
        return field
    filled = ", ".join(f"nullif(CAST({field.raw}.{identifier(name)} AS VARCHAR), '')" for name in inner_types(kind))
    return replace(field, raw=f"coalesce({filled})", type="VARCHAR", untyped=True)


def _within_json(field: Field, way: Sequence[str]) -> Field:
    """Return what stands in JSON text by keys, by places of a list, or by the key of a pair of key and value.

    Text that is no JSON is broken, and never an empty cell.
    """
    text = field.text
    found = [f"json_extract_string({text}, {_pointer(keys)})" for keys in _groupings(way)]
    for number in range(len(way)):
        pairs = f"CASE WHEN json_type({text}, {_pointer(way[:number])}) = 'ARRAY' THEN"
        pairs += f" CAST(json_extract({text}, {_pointer(way[:number])}) AS JSON[]) END"
        rest = way[number:]
        for key, inside in [(rest, ()), *([(rest[:-1], rest[-1:])] if len(rest) > 1 else [])]:
            of_key = f"json_extract_string(pair, '/key') = {literal('.'.join(key))}"
            value = f"list_filter({pairs}, lambda pair: {of_key})[1]"
            found.append(f"json_extract_string({value}, {_pointer(('value', *inside))})")
            if not inside:  # where it is kept in one of several fields by its type, the one that is filled
                fields = f"json_extract_string(json_extract({value}, '/value'), '$.*')"
                one_of = f"list_filter({fields}, lambda one: one <> '')[1]"
                found[-1] = f"CASE WHEN json_type({value}, '/value') = 'OBJECT' THEN {one_of} ELSE {found[-1]} END"
    return Field(
        f"CASE WHEN json_valid({text}) THEN coalesce({', '.join(found)}) END",
        "VARCHAR",
        True,
        field.own,
        (*field.way, *way),
        f"(nullif(trim({text}), '') IS NOT NULL AND NOT json_valid({text}))",
    )


def _groupings(way: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the keys that a way can mean, since a key may hold points itself; the longest first."""
    if not way:
        return [()]
    return [(".".join(way[:number]), *rest) for number in range(len(way), 0, -1) for rest in _groupings(way[number:])]


def _pointer(keys: Sequence[str]) -> str:
    """Return SQL of a JSON pointer (RFC 6901), in which a number is a key of an object or a place in a list."""
    if not keys:
        return "'$'"
    return literal("".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys))
