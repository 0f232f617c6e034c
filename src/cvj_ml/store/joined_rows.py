"""The rows of joined ids on their way into the history of every id of their person."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.schemas import INSTANT
from cvj_ml.store.customer_ids import OF_PERSON
from cvj_ml.store.identities import ROWS, Persons
from cvj_ml.store.store import bucket_sql

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
        self._folder = folder
        self._first_known: dict[str, int] = {}
        ids = sorted(persons.ids)
        last = [persons.person_of(name) for name in ids]
        kinds = pa.schema([("customer_id", pa.string()), ("person", pa.string())])
        connection.register("persons", pa.table([ids, last], schema=kinds))
        # A query answers in any order.
        placed = persons.links.select(["target"]).append_column("place", pa.array(np.arange(len(persons.links))))
        connection.register("targets", placed)
        found = connection.sql(f"SELECT place, {bucket_sql('target', buckets)} AS bucket FROM targets").fetchnumpy()
        connection.unregister("targets")
        self._bucket = np.empty(len(placed), dtype=np.int64)
        self._bucket[found["place"]] = found["bucket"]

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
        ids = rows["customer_id"].combine_chunks()
        codes = ids.indices.to_numpy()
        first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))  # of each id's rows, which stand together
        names, number = ids.take(pa.array(first)).cast(pa.string()), np.diff(first, append=len(rows))
        occurred, visible = rows["occurred_at"].to_numpy(), rows["visible_at"].to_numpy()
        self._first_known.update(zip(names.to_pylist(), np.minimum.reduceat(visible, first).tolist(), strict=True))

        # Every row beside every link of its id.
        own = pc.index_in(self.persons.links["origin"].combine_chunks(), value_set=names)
        link = np.flatnonzero(own.is_valid().to_numpy(zero_copy_only=False))
        at = own.drop_null().to_numpy()
        link, row = np.repeat(link, number[at]), _ranges(first[at], number[at])
        low, high, opened, closed, since, home, told = (
            self.persons.links[name].to_numpy()[link]
            for name in ("low", "high", "opened", "closed", "since", "home", "told")
        )
        occurred, visible = occurred[row], visible[row]
        held = (occurred >= low) & ((occurred < high) | (visible < told)) & (visible >= opened) & (visible < closed)
        somebodys = np.zeros(len(rows), dtype=np.bool_)
        somebodys[row[held]] = True

        # A copy that was replaced before it could be seen there is none.
        seen = np.maximum(visible, since)
        kept = np.flatnonzero(held & (home | (rows["superseded_at"].to_numpy()[row] > seen)))
        bucket = self._bucket[link[kept]]
        kept = kept[np.argsort(bucket, kind="stable")]
        changed = {
            "customer_id": self.persons.links["target"].take(pa.array(link[kept])),
            "visible_at": pa.array(seen[kept]),
            "copied": pa.array(~home[kept]),
        }
        table = rows.take(pa.array(row[kept]))
        table = pa.table({**{name: table[name] for name in table.column_names}, **changed})
        place, counts = 0, np.bincount(bucket)
        for one in np.flatnonzero(counts).tolist():
            folder = self._folder / f"bucket={one}"
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"part-{part}.parquet"
            pq.write_table(table.slice(place, counts[one]), file, compression="lz4", use_dictionary=False)
            place += counts[one]
        if somebodys.all():
            return rows, rows.slice(0, 0)
        return rows.filter(pa.array(somebodys)), rows.filter(pa.array(~somebodys))

    def histories(self, bucket: int) -> list[Path]:
        """Return the files of the rows for a bucket's histories."""
        return sorted((self._folder / f"bucket={bucket}").glob("*.parquet"))

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


def _ranges(first: npt.NDArray[np.int64], number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return so many whole numbers from each first one on, one after the other."""
    ends = np.cumsum(number)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + number, number)
