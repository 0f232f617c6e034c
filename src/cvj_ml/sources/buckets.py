"""The second pass: each bucket alone is put in its order, versions are linked, and the final files are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import DAY, SECOND, Config
from cvj_ml.contracts import INSTANT, PROPERTY, STORE_TOUCHPOINTS
from cvj_ml.sources.refusals import Counts
from cvj_ml.sources.sql import literal
from cvj_ml.sources.staging import Mapped, Staged
from cvj_ml.sources.store import (
    ATTRIBUTE,
    ATTRIBUTES_FILE,
    LABELS_FILE,
    TOUCHPOINTS_FILE,
    bucket_sql,
    counts_as_json,
)
from cvj_ml.sources.zones import to_wall

_CONTENT = ("occurred_at", "event", "channel", "value", "touchpoint_id", "visible_at", "source")
_ARROW = {"double": pa.float64(), "string": pa.string()}


class TouchpointSorter:
    """Sorts and writes the touchpoints of one bucket after the other, and counts on the way."""

    def __init__(
        self,
        config: Config,
        tables: Mapping[str, Mapped],
        staged: Mapping[str, Staged],
        kinds: Mapping[str, str],
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self._config = config
        self._staged = {label.removeprefix("sources."): one for label, one in staged.items()}
        self._known = {name for name in self._staged if tables[f"sources.{name}"].known}
        self._kinds = kinds
        self._connection = connection
        self._extras = [f"x{index}" for index in range(len(kinds))]
        self._columns = ("customer_id", *_CONTENT, *self._extras)
        self._stored: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._delays: dict[str, Counter[int]] = {name: Counter() for name in self._known}
        self._customers: list[int] = []
        self._reassigned = self._link_versions()

    def faults(self) -> list[str]:
        """Return the sources whose touchpoint_id does not identify a touchpoint."""
        return [
            f"sources.{name}: in {rows} of {self._staged[name].accepted} rows the touchpoint_id belongs to more than"
            " one customer, so it does not identify a touchpoint; map a unique id, or none"
            for name, rows in sorted(self._reassigned.items())
            if rows > self._config.refused_share * self._staged[name].accepted
        ]

    def write(self, bucket: int, folder: Path) -> pa.Array | None:
        """Write one bucket and return its customers in order; None, and no file, where there is nobody."""
        rows = self._rows(bucket)
        if rows is None:
            self._customers.append(0)
            return None
        order = ", ".join(f"{name} NULLS FIRST" for name in self._columns)
        table = self._connection.sql(
            f"SELECT * FROM ({rows}) ORDER BY {order}, superseded_at NULLS LAST"
        ).to_arrow_table()
        table = self._without_repeats(table)
        days = to_wall(table["occurred_at"].to_numpy(), self._config.time_zone) // DAY
        table = table.append_column("day", pa.array(days.astype(np.int32)))
        self._count(table)
        customers = pc.run_end_encode(table["customer_id"].combine_chunks(), run_end_type=pa.int64()).values
        self._customers.append(len(customers))
        schema = pa.schema(
            [*STORE_TOUCHPOINTS.items(), *((PROPERTY + name, _ARROW[kind]) for name, kind in self._kinds.items())]
        )
        names = [*STORE_TOUCHPOINTS, *self._extras]
        folder.mkdir(parents=True)
        pq.write_table(table.select(names).rename_columns(schema.names).cast(schema), folder / TOUCHPOINTS_FILE)
        return customers

    def summary(self) -> dict[str, Any]:
        """Return counts, events, delays and customers of everything written."""
        counts = {}
        for name, one in self._staged.items():
            repeats = self._repeats[name]
            dropped = repeats if self._config.drop_duplicates else 0
            counts[name] = counts_as_json(
                Counts(
                    rows_in=one.rows_in,
                    stored=self._stored[name],
                    refused=dict(sorted(one.refused.items())),
                    duplicates=dropped,
                    repeats=repeats - dropped,
                    reassigned=self._reassigned.get(name, 0),
                )
            )
        return {
            "counts": counts,
            "events": dict(sorted(self._events.items())),
            "measured_delays": {name: self._delay(name) for name in self._staged},
            "bucket_customers": self._customers,
        }

    def _link_versions(self) -> dict[str, int]:
        """Find the touchpoint_ids that occur more than once; return the rows whose id has several customers.

        ``repeated`` holds hashes of such ids: few, as a rule, so that only their rows need a window. ``moved``
        holds the rows of ids that several customers share, for another bucket may hold the newer version.
        """
        bucket = bucket_sql("customer_id", self._config.engine.buckets)
        parts = [
            self._part(name, f"read_parquet({literal(one.pattern())}, hive_partitioning=false)", bucket)
            for name, one in self._staged.items()
            if one.accepted
        ]
        if not parts:
            return {}
        union = " UNION ALL ".join(parts)
        self._connection.execute(
            f"CREATE TEMP TABLE repeated AS SELECT id_hash, min(customer) <> max(customer) AS shared"
            f" FROM (SELECT hash(source, touchpoint_id) AS id_hash, hash(customer_id) AS customer FROM ({union})"
            f" WHERE touchpoint_id IS NOT NULL) GROUP BY id_hash HAVING count(*) > 1"
        )
        self._connection.execute(
            f"CREATE TEMP TABLE moved AS SELECT * FROM ({union}) WHERE touchpoint_id IS NOT NULL"
            f" AND hash(source, touchpoint_id) IN (SELECT id_hash FROM repeated WHERE shared)"
        )
        return dict(self._connection.execute("SELECT source, count(*) FROM moved GROUP BY source").fetchall())

    def _part(self, source: str, scan: str, bucket: str) -> str:
        plain = [name for name in self._columns if name != "source"]
        return f"SELECT {', '.join(plain)}, {literal(source)} AS source, {bucket} AS bucket FROM {scan}"

    def _rows(self, bucket: int) -> str | None:
        """Return SQL for the rows of a bucket with the instant at which each was superseded."""
        parts = []
        for name, one in self._staged.items():
            if files := one.files(bucket):
                listed = ", ".join(map(literal, files))
                parts.append(self._part(name, f"read_parquet([{listed}], hive_partitioning=false)", str(bucket)))
        if not parts:
            return None
        here = " UNION ALL ".join(parts)
        repeated = "(touchpoint_id IS NOT NULL AND hash(source, touchpoint_id) IN (SELECT id_hash FROM repeated))"
        columns = ", ".join(self._columns)
        newest = ", ".join(f"{name} NULLS FIRST" for name in ("visible_at", *self._columns))
        next_version = f"lead(visible_at) OVER (PARTITION BY source, touchpoint_id ORDER BY {newest})"
        single = f"SELECT {columns}, CAST(NULL AS BIGINT) AS superseded_at FROM here WHERE NOT {repeated}"
        candidates = (
            f"SELECT {columns}, bucket FROM here WHERE {repeated}"
            f" UNION ALL SELECT {columns}, bucket FROM moved WHERE bucket <> {bucket}"
        )
        versions = f"SELECT {columns}, bucket, {next_version} AS superseded_at FROM ({candidates})"
        return (
            f"WITH here AS ({here}) {single}"
            f" UNION ALL SELECT {columns}, superseded_at FROM ({versions}) WHERE bucket = {bucket}"
        )

    def _without_repeats(self, table: pa.Table) -> pa.Table:
        """Count exact repeats, which stand side by side, and drop them if asked: all but the last of a run.

        Of repeats with a touchpoint_id the last is the one that the next real version replaces.
        """
        same = np.ones(max(0, len(table) - 1), dtype=np.bool_)
        for name in self._columns:
            if not same.any():
                break
            same &= _equals_next(table[name])
        repeated = np.append(same, False)
        self._repeats.update(_tally(table["source"].filter(pa.array(repeated))))
        return table.filter(pa.array(~repeated)) if self._config.drop_duplicates and same.any() else table

    def _count(self, table: pa.Table) -> None:
        self._stored.update(_tally(table["source"]))
        self._events.update(_tally(table["event"]))
        for name in self._known:
            own = table.filter(pc.equal(table["source"], name))
            late = pc.subtract(own["visible_at"], own["occurred_at"]).to_numpy()
            self._delays[name].update(_tally(pa.chunked_array([pa.array(-(-late // SECOND))])))

    def _delay(self, name: str) -> int:
        """Return the 99 % quantile (nearest rank) of how late rows become known, in whole seconds as microseconds."""
        spec = self._config.sources[name]
        if spec.known_after is not None:
            return spec.known_after
        seconds = sorted(self._delays.get(name, Counter()).items())
        if not seconds:
            return 0
        reached = np.cumsum([count for _, count in seconds])
        rank = -(-99 * int(reached[-1]) // 100)
        return int(seconds[int(np.searchsorted(reached, rank))][0]) * SECOND


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


class LabelSorter:
    """Sorts and writes the stage labels of one bucket after the other."""

    def __init__(self, staged: Staged, connection: duckdb.DuckDBPyConnection) -> None:
        self._staged = staged
        self._connection = connection
        self._stored = 0

    def write(self, bucket: int, customers: pa.Array, folder: Path) -> None:
        """Write the labels of these customers; rows of others are counted by ``counts`` only."""
        schema = pa.schema(
            [("customer_id", pa.string()), ("as_of", INSTANT), ("known_at", INSTANT), ("stage", pa.string())]
        )
        table = _rows_of(self._staged.files(bucket), schema.names, schema, customers, self._connection)
        self._stored += len(table)
        pq.write_table(table, folder / LABELS_FILE)

    def counts(self) -> Counts:
        """Return the counts of the table of labels."""
        return _counts(self._staged, self._stored)


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
    listed = ", ".join(map(literal, files))
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


def _equals_next(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return whether each value is the next one's equal; two nulls are."""
    whole = column.combine_chunks()
    this, following = whole.slice(0, len(whole) - 1), whole.slice(1)
    both_null = pc.and_(this.is_null(), following.is_null())
    equal = pc.or_(pc.fill_null(pc.equal(this, following), False), both_null)
    result: npt.NDArray[np.bool_] = equal.to_numpy(zero_copy_only=False)
    return result


def _tally(column: pa.ChunkedArray) -> dict[Any, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}
