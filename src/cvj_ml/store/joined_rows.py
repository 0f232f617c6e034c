"""The rows of joined ids on their way into the history of every id of their person."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from cvj_ml.schemas import INSTANT
from cvj_ml.store.customer_ids import OF_PERSON
from cvj_ml.store.identities import ROWS, Persons
from cvj_ml.store.sql import literal
from cvj_ml.store.store import bucket_sql
from cvj_ml.windows import NEVER

_HELD = (
    "occurred_at >= low AND (occurred_at < high OR visible_at < told) AND visible_at >= opened AND visible_at < closed"
)
"""Whether a row of a joined id is of the person to whom the link leads."""

_PARTS = 8
"""Buckets to a part of the rows of joined ids, which are few."""


class JoinedRows:
    """The rows of joined ids on their way into the history of every id of their person.

    They are staged apart, in ``parts`` by their own id, and written by the bucket of each id in whose history they are.
    So are, with ``of_accounts``, the rows of people on their way to their account.
    """

    def __init__(
        self,
        persons: Persons,
        buckets: int,
        connection: duckdb.DuckDBPyConnection,
        folder: Path,
        *,
        of_accounts: bool = False,
    ) -> None:
        few = max(1, buckets // _PARTS) if persons.ids else 0
        # Where customers are accounts, every row may be one of a person.
        self.parts = buckets if of_accounts else few
        self._apart = OF_PERSON if of_accounts else "customer_id IN (SELECT customer_id FROM persons)"
        self.aliases = pa.array(sorted(persons.merges), pa.string())
        self.persons = persons
        self._buckets = buckets
        self._connection = connection
        self._folder = folder
        self._first_known: dict[str, int] = {}
        ends = (persons.links[name].to_numpy() for name in ("high", "closed"))
        self._bounded = of_accounts or any(bool((one != NEVER).any()) for one in ends)
        ids = sorted(persons.ids)
        last = [persons.person_of(name) for name in ids]
        kinds = pa.schema([("customer_id", pa.string()), ("person", pa.string())])
        connection.register("persons", pa.table([ids, last], schema=kinds))
        connection.register("links", persons.links)

    def place(self, part: int) -> int:
        """Return where a part of the rows is put in order: beyond the buckets."""
        return self._buckets + part

    @property
    def place_sql(self) -> str:
        """SQL for where a row is put in order: the bucket of its customer, or a part of the joined ids' rows."""
        bucket = bucket_sql("customer_id", self._buckets)
        if not self.parts:
            return bucket
        part = bucket_sql("customer_id", self.parts)
        return f"CASE WHEN {self._apart} THEN {self._buckets} + {part} ELSE {bucket} END"

    def spread(self, rows: pa.Table, part: int) -> tuple[pa.Table, pa.Table]:
        """Write ordered rows of a part to every history that they belong to; return them, and those of nobody.

        Of an id that was known to stand for several people, nobody can say whose a row is.
        """
        self._folder.mkdir(exist_ok=True)
        self._connection.register("own", rows)
        first = "SELECT customer_id, min(visible_at) FROM own GROUP BY customer_id"
        self._first_known.update(self._connection.execute(first).fetchall())
        assigned, nobody = rows, rows.slice(0, 0)
        if self._bounded:
            held = f"EXISTS (SELECT 1 FROM links WHERE origin = customer_id AND {_HELD})"
            assigned = self._connection.sql(f"SELECT * FROM own WHERE {held}").to_arrow_table()
            nobody = self._connection.sql(f"SELECT * FROM own WHERE NOT {held}").to_arrow_table()
        plain = ", ".join(name for name in rows.column_names if name not in ("customer_id", "visible_at"))
        at = "greatest(visible_at, since)"
        self._connection.execute(
            f"COPY (SELECT target AS customer_id, {at} AS visible_at, {plain}, {bucket_sql('target', self._buckets)}"
            f" AS bucket, NOT home AS copied FROM own JOIN links ON origin = customer_id AND {_HELD}"
            f" WHERE home OR superseded_at > {at}) TO"
            f" {literal(self._folder / f'histories-{part}')}"
            f" (FORMAT parquet, PARTITION_BY (bucket), COMPRESSION lz4_raw)"
        )
        self._connection.unregister("own")
        return assigned, nobody

    def histories(self, bucket: int) -> list[Path]:
        """Return the files of the rows for a bucket's histories."""
        return sorted(self._folder.glob(f"histories-*/bucket={bucket}/*.parquet"))

    def rows(self) -> pa.Table:
        """Return every joined id as ROWS, once for each merge, the first one first."""
        every = [(name, *self.persons.merges.get(name, (None, None))) for name in self.persons.ids]
        rows = sorted([*every, *self.persons.later], key=lambda one: (one[0], one[2] or 0))
        columns = [
            [name for name, _, _ in rows],
            [into for _, into, _ in rows],
            [at for _, _, at in rows],
            [self._first_known.get(name) for name, _, _ in rows],
        ]
        kinds = [pa.int64() if kind.type == INSTANT else kind.type for kind in ROWS]
        arrays = [pa.array(one, kind) for one, kind in zip(columns, kinds, strict=True)]
        return pa.Table.from_arrays(arrays, names=ROWS.names).cast(ROWS)
