"""The tables beside the logs: how attributes, stage labels and a CRM's stage history are mapped.

And the second pass over attributes, stage labels and members of each bucket's customers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import STAGE_CHANGE, AttributesSpec, Config, StageHistorySpec, StageLabelsSpec
from cvj_ml.schemas import INSTANT
from cvj_ml.store.coming_dates import read_dates
from cvj_ml.store.fields import Reading, map_fields
from cvj_ml.store.instants import read_instant
from cvj_ml.store.mapping import read_customer_id, read_label, read_roles
from cvj_ml.store.refusals import Counts
from cvj_ml.store.source_location import SourceLocation
from cvj_ml.store.sql import as_named, literal
from cvj_ml.store.staging import Mapped, Staged, id_family, map_source, owned_fields
from cvj_ml.store.store import ATTRIBUTE, ATTRIBUTES_FILE, LABELS_FILE, MEMBERS_FILE

_ARROW = {"double": pa.float64(), "string": pa.string()}


def map_attributes(location: SourceLocation, spec: AttributesSpec, config: Config, faults: list[str]) -> Mapped:
    """Map the columns of the attributes table, adding what is wrong to the faults."""
    roles = ("customer_id",) if spec.static else ("customer_id", "known_at")
    fields = map_fields(location, spec.columns, {}, roles, ("customer_id",), faults)
    label = location.label
    readings = {"customer_id": Reading("CAST(NULL AS VARCHAR)"), "known_at": Reading("CAST(NULL AS BIGINT)")}
    if "customer_id" in fields:
        readings["customer_id"] = read_customer_id(label, fields["customer_id"], config, faults)
    required = ["customer_id"]
    if spec.static and "known_at" in fields:
        faults.append(f"{label}: columns.known_at and static: true exclude each other; keep one of them")
    elif "known_at" in fields:
        readings["known_at"] = read_instant(label, "known_at", fields["known_at"], spec, config, faults)
        required.append("known_at")
    elif not spec.static and "known_at" not in spec.columns:
        faults.append(
            f"{label}: nothing says when an attribute became known, so old snapshots would see today's values."
            " Map the time of each version (columns: {known_at: <its column>}), or, if these columns never change"
            " for a customer, declare static: true"
        )
    extras = {name: one for name, one in fields.items() if name not in ("customer_id", "known_at")}
    if not extras:
        faults.append(f"{label}: columns names no attribute; add them as <name>: <column there>")
    dates = read_dates(label, extras, spec, config, faults)
    ids = tuple(one for name, one in fields.items() if name == "customer_id")
    family = id_family(ids, faults, label, config)
    owned = owned_fields(fields.values())
    return Mapped(location, readings, tuple(required), extras, owned, ids, family, not spec.static, dates=dates)


def map_labels(location: SourceLocation, spec: StageLabelsSpec, config: Config, faults: list[str]) -> Mapped:
    """Map the columns of the stage labels, adding what is wrong to the faults; a stage that is unknown is refused."""
    roles, label = ("customer_id", "as_of", "stage", "known_at"), location.label
    fields, readings = read_roles(
        location, spec, ("stage labels", roles, roles), {"customer_id": "customer_id"}, ("as_of", "known_at"), config,
        faults,
    )  # fmt: skip
    readings["stage"] = Reading("CAST(NULL AS VARCHAR)")
    if "stage" in fields:
        text = read_label(label, "stage", fields["stage"], faults).value
        names = ", ".join(map(literal, config.journey.names))
        readings["stage"] = Reading(f"CASE WHEN ({text}) IN ({names}) THEN ({text}) END", f"(({text}) IS NOT NULL)")
    ids = tuple(one for name, one in fields.items() if name == "customer_id")
    family = id_family(ids, faults, label, config)
    return Mapped(location, readings, roles, {}, owned_fields(fields.values()), ids, family, True)


def map_stage_history(location: SourceLocation, spec: StageHistorySpec, config: Config, faults: list[str]) -> Mapped:
    """Map the columns of the CRM's stage history: touchpoints whose event names the stage.

    When a stage became known has to be told: dates of a CRM can be set by hand, long after the day that they name.
    """
    found: list[str] = []
    mapped = map_source(location, spec.as_source(), config, found)
    own = {"event": "stage", "occurred_at": "entered_at"}
    faults += [re.sub(r"(?<!')\b(event|occurred_at)\b(?!')", lambda word: own[word[1]], one) for one in found]
    if not mapped.known and spec.known_after is None and "known_at" not in spec.columns:
        faults.append(
            f"{location.label}: nothing says when a stage became known, so a date set later by hand would reach into"
            " the past. Map the time of each change (columns: {known_at: <its column>}; of a log that is written at"
            " the change, that of entered_at), or say how long it takes: known_after: 1d"
        )
    nothing = {"channel": Reading("CAST(NULL AS VARCHAR)"), "value": Reading("CAST(NULL AS BIGINT)")}
    stage = mapped.readings["event"]
    named = replace(stage, value=f"{literal(STAGE_CHANGE)} || ({stage.value})")
    return replace(mapped, readings={**mapped.readings, "event": named, **nothing})


class AttributeSorter:
    """Sorts and writes the attributes of one bucket after the other."""

    def __init__(
        self, config: Config, staged: Staged, kinds: Mapping[str, str], connection: duckdb.DuckDBPyConnection
    ) -> None:
        self._static = config.attributes is not None and config.attributes.static
        self._staged = staged
        self._kinds = kinds
        self._connection = connection
        self._stored = 0

    def faults(self) -> list[str]:
        """Return the fault of static attributes that name a customer twice."""
        if not self._static or not self._staged.accepted:
            return []
        scan = f"read_parquet({literal(self._staged.pattern())}, hive_partitioning=false)"
        repeated = f"SELECT 1 FROM {scan} GROUP BY customer_id HAVING count(*) > 1"
        (number,) = self._connection.execute(f"SELECT count(*) FROM ({repeated})").fetchall()[0]
        if not number:
            return []
        return [
            f"attributes: {number} customer(s) have several rows although static: true allows one; map known_at,"
            " or keep one row"
        ]

    def write(self, bucket: int, customers: pa.Array, folder: Path) -> None:
        """Write the attributes of these customers; rows of others are counted by ``counts`` only."""
        columns = ["customer_id", "known_at", *(f"x{index}" for index in range(len(self._kinds)))]
        schema = pa.schema(
            [("customer_id", pa.string()), ("known_at", INSTANT)]
            + [(ATTRIBUTE + name, _ARROW[kind]) for name, kind in self._kinds.items()]
        )
        table = _rows_of(self._staged.files(bucket), columns, schema, customers, self._connection)
        self._stored += len(table)
        pq.write_table(table, folder / ATTRIBUTES_FILE)

    def counts(self) -> Counts:
        """Return the counts of the attributes table."""
        return _counts(self._staged, self._stored)


LABEL_ROWS = pa.schema(
    [("customer_id", pa.string()), ("as_of", INSTANT), ("known_at", INSTANT), ("stage", pa.string())]
)
"""The stage labels of a bucket."""

MEMBERS = pa.schema(
    [("customer_id", pa.string()), ("contact", pa.string()), ("known_at", INSTANT), ("until", INSTANT),
     ("role", pa.string())]
)  # fmt: skip
"""The people of a bucket's accounts."""


class TableSorter:
    """Sorts and writes the rows of a table, for one bucket after the other."""

    def __init__(self, staged: Staged, schema: pa.Schema, file: str, connection: duckdb.DuckDBPyConnection) -> None:
        self._schema = schema
        self._file = file
        self._staged = staged
        self._connection = connection
        self._stored = 0

    def write(self, bucket: int, customers: pa.Array, folder: Path) -> None:
        """Write the rows of these customers; those of others are counted by ``counts`` only."""
        schema = self._schema
        table = _rows_of(self._staged.files(bucket), schema.names, schema, customers, self._connection)
        self._stored += len(table)
        pq.write_table(table, folder / self._file)

    def counts(self) -> Counts:
        """Return the counts of the table."""
        return _counts(self._staged, self._stored)


_BESIDE = {"stage_labels": (LABEL_ROWS, LABELS_FILE), "members": (MEMBERS, MEMBERS_FILE)}


def sorters_of(staged: Mapping[str, Staged], connection: duckdb.DuckDBPyConnection) -> dict[str, TableSorter]:
    """Return a sorter for each staged table that has a file of its own in every bucket as it is."""
    return {label: TableSorter(staged[label], *own, connection) for label, own in _BESIDE.items() if label in staged}


def _rows_of(
    files: list[Path],
    columns: list[str],
    schema: pa.Schema,
    customers: pa.Array,
    connection: duckdb.DuckDBPyConnection,
) -> pa.Table:
    """Return the staged rows of these customers, sorted by all columns."""
    if not files:
        return schema.empty_table()
    connection.register("present", pa.table({"customer_id": customers}))
    listed = ", ".join(map(as_named, files))
    order = ", ".join(f"{name} NULLS FIRST" for name in columns)
    rows = (
        f"SELECT {', '.join(columns)} FROM read_parquet([{listed}], hive_partitioning=false)"
        f" WHERE customer_id IN (SELECT customer_id FROM present) ORDER BY {order}"
    )
    table = connection.sql(rows).to_arrow_table().rename_columns(schema.names).cast(schema)
    connection.unregister("present")
    return table


def _counts(staged: Staged, stored: int) -> Counts:
    unmatched = staged.accepted - stored
    return Counts(staged.rows_in, stored, dict(sorted(staged.refused.items())), unmatched=unmatched)
