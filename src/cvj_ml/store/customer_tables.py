"""The second pass over the tables beside the touchpoints: attributes, stage labels and members of each bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config
from cvj_ml.schemas import INSTANT
from cvj_ml.store.refusals import Counts
from cvj_ml.store.sql import as_named, literal
from cvj_ml.store.staging import Staged
from cvj_ml.store.store import ATTRIBUTE, ATTRIBUTES_FILE, LABELS_FILE, MEMBERS_FILE

_ARROW = {"double": pa.float64(), "string": pa.string()}


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


LABELS = pa.schema([("customer_id", pa.string()), ("as_of", INSTANT), ("known_at", INSTANT), ("stage", pa.string())])
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


_BESIDE = {"stage_labels": (LABELS, LABELS_FILE), "members": (MEMBERS, MEMBERS_FILE)}


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
