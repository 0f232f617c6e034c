"""A frame of rows as the tables of a night: touchpoints and attributes, told apart by the column ``table``.

What a model learned from has to be there: what is missing is an error, never another number.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api import types

from cvj_ml.errors import DataError, nearest, raise_all
from cvj_ml.features import DATES, INSTANTS, NUMBERS, TEXTS
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.schemas import INSTANT, TOUCHPOINT_ROLES

TABLE, ROWS = "table", "rows"
TOUCHPOINTS, ATTRIBUTES = "touchpoints", "attributes"
HEADING = "These rows cannot be scored:"
_NEEDED = ("customer_id", "occurred_at", "event")
_EXACT = 2**53
"""The last whole number up to which no two are the same float."""
_NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)


def touchpoint_columns(definition: ModelSpec) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the columns that touchpoints must have, and the kind of every one that they may have.

    A column in which training found something decides scores, so it has to be there, be it empty.
    """
    found = definition.catalogue.vocabulary.columns
    tested = {
        str(name)
        for leaf in definition.journey.spec.leaves()
        for name in (*leaf.where, leaf.distinct)
        if name is not None
    }
    tested |= {name for one in definition.catalogue.custom for name in one.spec.properties}
    roles = {"occurred_at": INSTANTS, "known_at": INSTANTS}
    properties = {name: kind for name, kind in found.items() if name not in TOUCHPOINT_ROLES and name in tested}
    kinds = dict.fromkeys(TOUCHPOINT_ROLES, "") | roles | properties
    return tuple(name for name in kinds if name in _NEEDED or name in found), kinds


def require_persons(definition: ModelSpec) -> None:
    """Raise DataError for a model of accounts: rows in memory do not say who is of which."""
    if definition.catalogue.vocabulary.people:
        raise DataError(
            f"{HEADING} the model's customers are accounts, and rows alone do not tell who is of which account. Ask it"
            " with a configuration (unit: account), as a night does."
        )


def attribute_columns(definition: ModelSpec) -> dict[str, str]:
    """Return the columns that attributes must have, and their kinds; none where the model uses no attributes."""
    vocabulary = definition.catalogue.vocabulary
    kinds = dict.fromkeys(vocabulary.numbers, NUMBERS) | dict.fromkeys(vocabulary.categories, TEXTS)
    kinds |= dict.fromkeys(vocabulary.dates, DATES)
    times = {} if vocabulary.static else {"known_at": INSTANTS}
    return {"customer_id": "", **times, **kinds} if kinds else {}


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a touchpoint or version of attributes, also of a row a customer with those in a list (``rows``).

    Raises DataError where such a row is not one customer's, or where Spark hands over rows one by one: its batches
    cut customers in two.
    """
    if ROWS not in frame.columns:
        if in_spark_task():
            raise DataError(
                f"{HEADING} Spark cuts a table into batches anywhere, so a customer's rows can be in several. Give one"
                f" row a customer, with the customer_id and, in {ROWS!r}, the list of that customer's rows:"
                " df.groupBy('customer_id').agg(collect_list(struct('*')).alias('rows'))"
            )
        if len(frame) == 1 and all(isinstance(one, list) for one in frame.iloc[0]):
            # What MLflow makes of a JSON object of columns that are all text.
            return frame.explode(list(frame.columns), ignore_index=True)
        return frame
    faults, records = list[str](), list[dict[str, Any]]()
    customers = frame_customers(frame)
    if repeated := len(customers) - len(set(customers)):
        faults.append(f"{repeated} row(s) repeat a customer; with {ROWS!r}, a customer has one row")
    strangers = 0
    for customer, rows in zip(customers, frame[ROWS], strict=True):
        for row in () if _is_null(rows) else rows:
            record = dict(row) if isinstance(row, Mapping) else row.asDict()
            strangers += id_as_text(record.setdefault("customer_id", customer)) != customer
            records.append({**record, "customer_id": customer})
    if strangers:
        faults.append(f"{strangers} row(s) stand in the list of another customer than they name")
    raise_all(DataError, HEADING, faults)
    return pd.DataFrame.from_records(records)


def frame_customers(frame: pd.DataFrame) -> list[str]:
    """Return the customers of a frame with a row each, as text; raises DataError where a row names none."""
    found = [id_as_text(one) for one in frame["customer_id"]] if "customer_id" in frame.columns else []
    if len(found) != len(frame) or None in found:
        raise DataError(f"{HEADING} with {ROWS!r}, every row has a customer_id, which is text or a whole number.")
    return [one for one in found if one is not None]


def id_as_text(value: object) -> str | None:
    """Return an id as ingest reads it: text as it is, whole numbers in decimal; None for anything else."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() and abs(float(value)) <= _EXACT else None
    return str(int(value)) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def in_spark_task() -> bool:
    """Return whether this is a worker of Spark, at work on a part of a table."""
    spark = sys.modules.get("pyspark")
    return spark is not None and spark.TaskContext.get() is not None


def tables_of(definition: ModelSpec, frame: pd.DataFrame) -> dict[str, pa.Table]:
    """Return the touchpoints and, where the model uses any, the attributes of a frame."""
    faults: list[str] = []
    require_persons(definition)
    required, kinds = touchpoint_columns(definition)
    needed = attribute_columns(definition)
    parts = _parts(frame, bool(needed), faults)
    tables = {}
    for name, wanted, columns in ((TOUCHPOINTS, required, kinds), (ATTRIBUTES, tuple(needed), needed)):
        absent = [one for one in wanted if one not in frame.columns]
        faults += [f"there is no column {one!r} for the {name}.{nearest(one, frame.columns)}" for one in absent]
        if columns and name in parts:
            part = parts[name]
            # What the other table needs says nothing here where it is empty.
            there = [one for one in columns if one in part.columns and (one in wanted or part[one].notna().any())]
            tables[name] = pa.table(
                {one: _array(f"{one} of the {name}", part[one], columns[one], faults) for one in there}
            )
            if (
                "date_only" in definition.catalogue.vocabulary.columns
                and name == TOUCHPOINTS
                and "occurred_at" in there
            ):
                faults += _ambiguous_midnights(part["occurred_at"], definition.zone)
    if "date_only" in definition.catalogue.vocabulary.columns and "occurred_at" in frame.columns:
        faults += _ambiguous_midnights(parts[TOUCHPOINTS]["occurred_at"], definition.zone)
    raise_all(DataError, HEADING, faults)
    return tables


def _parts(frame: pd.DataFrame, with_attributes: bool, faults: list[str]) -> dict[str, pd.DataFrame]:
    """Split a frame by its column ``table``, which only a model without attributes can do without."""
    if TABLE not in frame.columns:
        if with_attributes:
            faults.append(
                f"there is no column {TABLE!r}, and the model uses attributes. Give the rows of both tables, with"
                f" {TOUCHPOINTS!r} or {ATTRIBUTES!r} in that column"
            )
        parts = {TOUCHPOINTS: frame}
    else:
        known = frame[TABLE].isin([TOUCHPOINTS, ATTRIBUTES])
        if not known.all():
            faults.append(
                f"{(~known).sum()} row(s) name another table than {TOUCHPOINTS!r} or {ATTRIBUTES!r} in the column"
                f" {TABLE!r}"
            )
        parts = {name: frame[frame[TABLE] == name] for name in (TOUCHPOINTS, ATTRIBUTES)}
    used = (TOUCHPOINTS, ATTRIBUTES) if with_attributes else (TOUCHPOINTS,)
    faults += [f"there is no row of {name}" for name in used if name in parts and not len(parts[name])]
    return parts


def _array(label: str, column: pd.Series, kind: str, faults: list[str]) -> pa.Array:
    """Return a column as Arrow: instants in UTC or as text, numbers as double, what has no kind as it is."""
    empty = pa.nulls(len(column), pa.string())
    if kind == DATES and types.is_datetime64_dtype(column):
        return pa.array(column, from_pandas=True).cast(pa.date32(), safe=False)  # without a zone, it is a local day
    if kind in (INSTANTS, DATES):
        return _instants(label, column, faults)
    try:
        values = pa.array(column.astype(object), from_pandas=True)
    except pa.ArrowException:
        faults.append(f"{label} mixes types; give text or numbers")
        return empty
    if pa.types.is_null(values.type):
        return pa.nulls(len(column), pa.float64() if kind == NUMBERS else pa.string())
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    is_number = any(test(values.type) for test in _NUMERIC)
    if kind == NUMBERS and is_number:
        # Truth values are 0 and 1, as in a file.
        plain = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        return plain.cast(pa.float64(), safe=False)
    if (kind == TEXTS and is_text) or (not kind and (is_text or is_number)):
        return values
    wanted = {NUMBERS: "numbers", TEXTS: "text"}.get(kind, "text or numbers")
    faults.append(f"{label} holds {values.type}, and the model learned from {wanted}")
    return empty


def _instants(label: str, column: pd.Series, faults: list[str]) -> pa.Array:
    """Return times as instants in UTC, or as text that ingest reads; naive ones are UTC, but for those of Spark."""
    if types.is_datetime64_any_dtype(column) and (column.dt.tz is not None or not in_spark_task()):
        utc = column if column.dt.tz is None else column.dt.tz_convert(None)
        return pa.array(utc.dt.as_unit("us"), pa.timestamp("us"), from_pandas=True).cast(INSTANT)
    texts: list[str | None] = []
    others = without_zone = 0
    for one in column.astype(object):
        text: str | None = None
        if isinstance(one, str):
            text = one
        elif isinstance(one, date) and not isinstance(one, datetime):
            text = one.isoformat()
        elif isinstance(one, datetime) and not _is_null(one):
            without_zone += one.tzinfo is None
            text = (one if one.tzinfo else one.replace(tzinfo=UTC)).isoformat(timespec="microseconds")
        elif not _is_null(one):
            others += 1
        texts.append(text)
    if others:
        faults.append(f"{label} holds what is no time; give timestamps, or text such as 2024-12-31T18:30:00+01:00")
    if without_zone and in_spark_task():
        faults.append(
            f"{label} holds timestamps of Spark, which hands them over in its session's zone without naming it; write"
            f" them as text with an offset: date_format(t, \"yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX\")"
        )
    return pa.array(texts, pa.string())


def _ambiguous_midnights(column: pd.Series, zone: ZoneInfo) -> list[str]:
    """Return the fault of timestamps that may be days: a model that learned from days tells the two apart."""
    number = sum(
        isinstance(one, datetime) and not _is_null(one) and any(_is_midnight(one, place) for place in (None, zone))
        for one in column.astype(object)
    )
    if not number:
        return []
    return [
        f"occurred_at of the touchpoints: {number} timestamp(s) stand at midnight, and the model also learned from days"
        " without hours. Write days as text without hours, such as 2024-12-31, and instants as text with hours"
    ]


def _is_midnight(instant: datetime, zone: ZoneInfo | None) -> bool:
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return (instant if zone is None else aware.astimezone(zone)).time() == time()


def _is_null(value: object) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value))
