"""From a source's own columns to the canonical ones, as SQL expressions.

Each ``Field`` knows where a canonical column comes from; each ``Reading`` is SQL for its canonical value.
A value that is there, but of which nothing can be read, refuses its row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from cvj_ml.config import (
    Config,
    IdentitiesSpec,
    MembersSpec,
    StageLabelsSpec,
    TableSpec,
)
from cvj_ml.schemas import CONTACT
from cvj_ml.store.customer_ids import canonical_sql, origin_of
from cvj_ml.store.fields import Field, Reading, map_fields, plain_text
from cvj_ml.store.instants import read_instant
from cvj_ml.store.source_location import SourceLocation
from cvj_ml.store.sql import literal

_EXACT = {"HALF": 2**11, "FLOAT": 2**24, "DOUBLE": 2**53}
"""The last whole number up to which a type of floats has every one."""

_IGNORED = r"[\s'’$€£¥₹\x{00A0}\x{202F}]"
"""What numbers in text are written with besides marks and digits."""

SPELLING = "spelling"
"""A customer id before it is folded, staged beside what it is read as: to see whether two ids become one."""


def read_id(label: str, name: str, field: Field, faults: list[str]) -> Reading:
    """Return an id as text: integers and integral floats in decimal, text as it is, the empty text as null."""
    raw = field.raw
    match field.family:
        case "text":
            return Reading(f"nullif({field.text}, '')", field.undecodable)
        case "null":
            return Reading("CAST(NULL AS VARCHAR)")
        case "integer":
            return Reading(f"CAST({raw} AS VARCHAR)")
        case "float":
            # From the last exact integer of the type on, two ids can be one number.
            whole = f"{raw} = trunc({raw}) AND abs({raw}) < {_EXACT[field.type.upper()]}"
            value = f"CASE WHEN {whole} THEN CAST(CAST({raw} AS BIGINT) AS VARCHAR) END"
            return Reading(value, f"({raw} IS NOT NULL AND NOT isnan({raw}))")
        case "decimal":
            value = f"CASE WHEN {raw} = trunc({raw}) THEN CAST(CAST({raw} AS HUGEINT) AS VARCHAR) END"
            return Reading(value, f"({raw} IS NOT NULL)")
    faults.append(f"{label}: {name} is {field.type}; an id is text or a whole number.")
    return Reading("CAST(NULL AS VARCHAR)")


def read_customer_id(label: str, field: Field, config: Config, faults: list[str]) -> Reading:
    """Return a customer's id as text, read as ``ids.match`` says: the same in every table."""
    text = read_id(label, "customer_id", field, faults)
    return replace(text, value=canonical_sql(text.value, config.ids.match))


def first_id(readings: Sequence[Reading]) -> Reading:
    """Return the first id that is filled; where it cannot be read there is none, and the next is not asked."""
    cases = [f"WHEN ({one.value}) IS NOT NULL OR {one.there} THEN {one.value}" for one in readings]
    there = " OR ".join(one.there for one in readings)
    return readings[0] if len(readings) == 1 else Reading(f"CASE {' '.join(cases)} END", f"({there})")


def roles_of_accounts(
    label: str,
    columns: Mapping[str, str],
    there: Collection[str],
    roles: tuple[str, ...],
    required: Sequence[str],
    faults: list[str],
) -> tuple[tuple[str, ...], list[str]]:
    """Return the roles of a source's columns, and those required, where a customer is an account.

    A row may name the person alone. A column that is named as the person is not the account, whatever it is called.
    """
    person = columns.get(CONTACT, CONTACT)
    if columns.get("customer_id") == person:
        faults.append(f"{label}: {person!r} is both the account (customer_id) and the person (contact); name one")
    known = CONTACT in columns or CONTACT in there
    needed = [one for one in required if not (known and one == "customer_id")]
    named_so = person == "customer_id" and "customer_id" not in columns
    return tuple(one for one in (*roles, CONTACT) if not (named_so and one == "customer_id")), needed


def read_ids(
    label: str, ids: Sequence[Field], person: Field | None, config: Config, faults: list[str]
) -> dict[str, Reading]:
    """Return whose a row is, and where ids are folded the SPELLING; without an id it is its person's, if it has one."""
    found = {"customer_id": first_id([read_customer_id(label, one, config, faults) for one in ids])} if ids else {}
    if ids and config.ids.match == "folded":
        text = first_id([read_id(label, "customer_id", one, []) for one in ids])
        found[SPELLING] = Reading(canonical_sql(text.value, "trimmed"))
    if person is not None:
        read = read_customer_id(label, person, config, faults)
        found["customer_id"] = read_account(found.get("customer_id"), read)
        if config.ids.match == "folded":
            text = read_id(label, CONTACT, person, [])
            spelt = replace(text, value=canonical_sql(text.value, "trimmed"))
            found[SPELLING] = read_account(found.get(SPELLING), spelt)
    return found or {"customer_id": Reading("CAST(NULL AS VARCHAR)")}


def read_account(account: Reading | None, contact: Reading) -> Reading:
    """Return the id under which a row is staged where a customer is an account: its account's, else its person's."""
    own = account or Reading("CAST(NULL AS VARCHAR)")
    wrong = f"coalesce(starts_with({own.value}, {literal(origin_of(''))}), FALSE)"
    value = (
        f"CASE WHEN {wrong} THEN NULL WHEN ({own.value}) IS NOT NULL OR {own.there} THEN {own.value}"
        f" ELSE {literal(origin_of(''))} || ({contact.value}) END"
    )
    return Reading(value, f"({own.there} OR {contact.there} OR {wrong})")


def contact_field(field: Field, reading: Reading) -> Field:
    """Return the property that says who did it: text that is read as ids are, whatever its column is."""
    broken = f"(({reading.value}) IS NULL AND {reading.there})"
    return replace(field, raw=f"({reading.value})", type="VARCHAR", untyped=False, broken=broken)


def read_roles(
    location: SourceLocation,
    spec: IdentitiesSpec | MembersSpec | StageLabelsSpec,
    table: tuple[str, Sequence[str], Sequence[str]],
    ids: Mapping[str, str],
    instants: Iterable[str],
    config: Config,
    faults: list[str],
) -> tuple[dict[str, Field], dict[str, Reading]]:
    """Return the fields of a table that has some roles and nothing else, and the readings of its ids and instants.

    table: what it is called, all its roles, and those that it must have; ids: the name of each reading to its role.
    """
    what, roles, required = table
    label, readings = location.label, dict[str, Reading]()
    fields = map_fields(location, spec.columns, {}, roles, required, faults)
    faults += [
        f"{label}: columns.{name}: {what} have {', '.join(roles)} and nothing else; remove it"
        for name in spec.columns
        if name not in roles
    ]
    for name, role in ids.items():
        readings[name] = Reading("CAST(NULL AS VARCHAR)")
        if role in fields:
            readings[name] = read_customer_id(label, fields[role], config, faults)
    for name in instants:
        readings[name] = Reading("CAST(NULL AS BIGINT)")
        if name in fields:
            readings[name] = read_instant(label, name, fields[name], spec, config, faults)
    return fields, readings


def read_label(label: str, name: str, field: Field, faults: list[str]) -> Reading:
    """Return a name such as an event as text; the empty text is null."""
    if field.nested or field.family == "duration":
        faults.append(f"{label}: {name} is {field.type}; it is text. Take what names it out of it, in a query")
        return Reading("CAST(NULL AS VARCHAR)")
    return Reading(plain_text(field), field.undecodable)


def read_value(
    label: str, field: Field, spec: TableSpec, decimals: int, faults: list[str], scale: str | None = None
) -> Reading:
    """Return a value in minor units, rounded half away from zero; null stays null, as does NaN.

    ``scale`` is SQL by what it is multiplied, where it is not written in whole units.
    """
    raw, unit = field.raw, 10**decimals
    if scale is not None and field.family in ("float", "integer", "decimal", "text"):
        plain = read_value(label, field, spec, decimals, faults)
        written = f"nullif(trim({field.text}), '')" if field.family == "text" else raw
        number = plain_number(written, spec.decimal_mark) if field.family == "text" else written
        minor = f"round(round(TRY_CAST({number} AS DOUBLE) * {scale}, 6))"
        value = f"CASE WHEN abs({minor}) <= {_EXACT['DOUBLE']} THEN TRY_CAST({minor} AS BIGINT) END"
        return Reading(value, plain.there)
    match field.family:
        case "float":
            # 2.675 is 267.4999… times 100 as a float: the inner rounding restores the decimal that was meant.
            minor = f"round(round(CAST({raw} AS DOUBLE) * {unit}, 6))"
            # Beyond the last exact integer it would be another amount.
            value = f"CASE WHEN abs({minor}) <= {_EXACT['DOUBLE']} THEN TRY_CAST({minor} AS BIGINT) END"
            return Reading(value, f"({raw} IS NOT NULL AND NOT isnan({raw}))")
        case "integer" | "decimal" | "text":
            there = f"nullif(trim({field.text}), '')" if field.family == "text" else raw
            number = plain_number(there, spec.decimal_mark) if field.family == "text" else raw
            value = f"TRY_CAST(TRY_CAST({number} AS DECIMAL(25, {decimals})) * {unit} AS BIGINT)"
            return Reading(value, f"({there} IS NOT NULL OR {field.undecodable})")
        case "null":
            return Reading("CAST(NULL AS BIGINT)")
    faults.append(f"{label}: value is {field.type}; it is a number, or text that holds one.")
    return Reading("CAST(NULL AS BIGINT)")


def plain_number(text: str, decimal_mark: str | None) -> str:
    """Return SQL for a number as SQL writes it: without currency sign and thousands separators, with a point.

    Null where separators do not stand between groups of three digits, so that no mark is taken for another.
    """
    if decimal_mark is None:
        return text
    other = "." if decimal_mark == "," else ","
    bare = f"regexp_replace({text}, {literal(_IGNORED)}, '', 'g')"
    shape = rf"[-+]?((\d+|\d{{1,3}}([{other}]\d{{3}})+)([{decimal_mark}]\d*)?|[{decimal_mark}]\d+)"
    plain = f"replace(replace({bare}, '{other}', ''), '{decimal_mark}', '.')"
    return f"CASE WHEN regexp_full_match({bare}, {literal(shape)}) THEN {plain} END"


def kind_of(field: Field) -> str | None:
    """Return what a property is by its type: double or string, None where only the values can tell."""
    if field.untyped or field.family == "null":
        return None
    return "double" if field.family in ("integer", "float", "decimal", "boolean", "duration") else "string"


def read_property(field: Field, kind: str, spec: TableSpec) -> Reading:
    """Return a property as double (null unless finite, truth values 0 and 1) or as text (the empty text is null).

    It is there, and refuses its row, where it is bytes that are no text.
    """
    if kind == "string":
        return Reading(plain_text(field), field.undecodable)
    number = f"TRY_CAST({_number_in(field, spec)} AS DOUBLE)"
    # Zero is written plainly: 0.0 and -0.0 are equal but not the same bytes.
    return Reading(f"CASE WHEN NOT isfinite({number}) THEN NULL WHEN {number} = 0 THEN 0.0::DOUBLE ELSE {number} END")


def casts_to_double(field: Field, spec: TableSpec) -> str:
    """Return SQL for whether every value of an untyped column is a number."""
    return f"count(nullif({field.raw}, '')) = count(TRY_CAST({_number_in(field, spec)} AS DOUBLE))"


def _number_in(field: Field, spec: TableSpec) -> str:
    return plain_number(field.raw, spec.decimal_mark) if field.untyped else field.raw


def reason(readings: Mapping[str, Reading], required: Iterable[str], extras: Mapping[str, str]) -> str:
    """Return SQL for the first reason to refuse a row, null for a good one.

    It stands outside the select of the readings, where ``<name>`` is the value and ``<name>_there`` says whether
    the source has one; ``extras`` are columns that say so of unreadable properties, and the properties' names.
    """
    needed, cases = set(required), []
    for name, reading in readings.items():
        if reading.there != "FALSE":
            cases.append(f"WHEN {name} IS NULL AND {name}_there THEN {literal(f'unreadable {name}')}")
        if name in needed:
            cases.append(f"WHEN {name} IS NULL THEN {literal(f'no {name}')}")
    cases += [f"WHEN {column} THEN {literal(f'unreadable {name}')}" for column, name in extras.items()]
    return f"CASE {' '.join(cases)} END"
