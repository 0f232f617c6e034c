"""The second pass: each bucket alone is put in its order, versions are linked, and the final files are written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import DAY, SECOND, Config
from cvj_ml.schemas import INSTANT, PROPERTY, STORE_TOUCHPOINTS
from cvj_ml.store.joined_rows import JoinedRows
from cvj_ml.store.ordering import OrderedRows, order_rows
from cvj_ml.store.refusals import Counts
from cvj_ml.store.sql import as_named, identifier, literal, to_wall
from cvj_ml.store.staging import Mapped, Staged
from cvj_ml.store.store import TOUCHPOINTS_FILE, Store, source_label
from cvj_ml.windows import NEVER, Instants

_CONTENT = ("occurred_at", "event", "channel", "value", "touchpoint_id", "visible_at", "source", "date_only")
_ARROW = {"double": pa.float64(), "string": pa.string()}
_CODED = ("customer_id", "event", "channel", "source")
"""Texts that repeat within a bucket, so that they are read, sorted and written as codes."""


@dataclass(frozen=True, slots=True)
class Base:
    """An earlier store of the same meaning, and the sources of which its rows are still all right.

    ``contents`` are the files that it has read, ``kinds`` what their properties are, both by table.
    """

    store: Store
    sources: frozenset[str]
    contents: Mapping[str, Mapping[str, list[str]]]
    kinds: Mapping[str, Mapping[str, str | None]]

    def file(self, bucket: int) -> Path | None:
        """Return the touchpoints of a bucket; None where there is nobody."""
        return self.store.bucket_file(bucket, TOUCHPOINTS_FILE)

    @property
    def whole(self) -> bool:
        """Whether every row of the store stays."""
        return self.sources == self.store.counts.keys()


class TouchpointSorter:
    """Sorts and writes the touchpoints of one bucket after the other, and counts on the way."""

    def __init__(
        self,
        config: Config,
        tables: Mapping[str, Mapped],
        staged: Mapping[str, Staged],
        kinds: Mapping[str, str],
        base: Base | None,
        joined: JoinedRows,
        buckets: int,
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self._config = config
        self._staged = {label.removeprefix("sources."): one for label, one in staged.items()}
        self._known = {label.removeprefix("sources.") for label in staged if tables[label].known}
        self._base = base
        self._buckets = buckets
        self._connection = connection
        extras = {f"x{index}": _ARROW[kind] for index, kind in enumerate(kinds.values())}
        self._columns = ("customer_id", *_CONTENT, *extras)
        text = pa.dictionary(pa.int32(), pa.string())
        self._rows = pa.schema(
            [(name, text if name in _CODED else pa.string() if name == "touchpoint_id" else pa.int64())
             for name in ("customer_id", *_CONTENT)] + list(extras.items())
        )  # fmt: skip
        self._names = [PROPERTY + name for name in kinds]
        self._stored: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._delays: dict[str, Counter[int]] = {name: Counter() for name in self._known}
        self._customers: list[int] = []
        self._aliases = 0
        self._converted = False
        self._unassigned: Counter[str] = Counter()
        self._nobodys: list[pa.Table] = []
        self._joined = joined
        self._reassigned = self._find_shared()
        self._spread_joined()

    def faults(self) -> list[str]:
        """Return the sources whose touchpoint_id does not identify a touchpoint."""
        return [
            f"{source_label(name)}: in {rows} of {self._staged[name].accepted} rows the touchpoint_id belongs to more"
            " than one customer, so it does not identify a touchpoint; map a unique id, or none"
            for name, rows in sorted(self._reassigned.items())
            if rows > self._config.refused_share * self._staged[name].accepted
        ]

    def write(self, bucket: int, folder: Path) -> pa.Array | None:
        """Write one bucket and return its customers in order; None, and no file, where there is nobody."""
        base, superseded_at = self._before(bucket)
        added = self._added(bucket)
        foreign = self._foreign(bucket)
        joined = self._of_joined(bucket)
        if not len(base) and not len(added) and joined is None:
            self._customers.append(0)
            return None
        arranged = self._arranged(base, superseded_at, added, foreign, joined)
        table = arranged.table
        self._count(table.filter(pc.is_null(table["copied"])) if joined else table)
        customers = _coded(table["customer_id"])
        self._customers.append(len(customers.dictionary))
        self._aliases += pc.sum(pc.is_in(customers.dictionary, value_set=self._joined.aliases)).as_py()
        folder.mkdir(parents=True)
        old = self._base.file(bucket) if self._base and self._base.whole else None
        if old is not None and not len(added) and not len(foreign):
            _link(old, folder / TOUCHPOINTS_FILE)
        else:
            self._save(table, arranged.superseded_at, folder / TOUCHPOINTS_FILE)
        return customers.dictionary

    def _arranged(
        self,
        base: pa.Table,
        superseded_at: Instants,
        added: pa.Table,
        foreign: pa.Table,
        joined: tuple[pa.Table, Instants] | None = None,
    ) -> OrderedRows:
        """Return rows in order, with repeats counted, and dropped where the configuration says so."""
        arranged = order_rows(self._columns, base, superseded_at, added, foreign, joined)
        self._repeats.update(_tally(arranged.table["source"].filter(pa.array(arranged.repeated))))
        if self._config.drop_duplicates and arranged.repeated.any():
            arranged = arranged.without_repeats()
        return arranged

    def _spread_joined(self) -> None:
        """Put the rows of joined ids in order and link their versions, once, before they go to each id's history."""
        for part in range(self._joined.parts):
            place = self._joined.place(part)
            added = self._added(place)
            if len(added):
                nothing = self._rows.empty_table(), np.empty(0, dtype=np.int64)
                arranged = self._arranged(*nothing, added, self._foreign(place))
                rows = arranged.table.append_column("superseded_at", pa.array(arranged.superseded_at))
                assigned, unassigned = self._joined.spread(rows, part)
                self._count(assigned)
                self._unassigned.update(_tally(unassigned["source"]))
                texts = pa.table({name: unassigned[name].cast(pa.string()) for name in ("source", "customer_id")})
                self._nobodys.append(texts.group_by(["source", "customer_id"]).aggregate([([], "count_all")]))

    def unassigned(self) -> pa.Table:
        """Return of whom there are rows that count for nobody: source, customer_id as staged, and how many."""
        kinds = pa.schema([("source", pa.string()), ("customer_id", pa.string()), ("count_all", pa.int64())])
        table = pa.concat_tables([kinds.empty_table(), *(one.select(kinds.names).cast(kinds) for one in self._nobodys)])
        return table.sort_by([("source", "ascending"), ("customer_id", "ascending")])

    def _of_joined(self, bucket: int) -> tuple[pa.Table, Instants] | None:
        """Return the rows of joined ids for the histories of a bucket, and when each was replaced."""
        files = self._joined.histories(bucket)
        if not files:
            return None
        read = [pq.read_table(one, partitioning=None, read_dictionary=list(_CODED), use_threads=False) for one in files]
        table, schema = pa.concat_tables(read), self._rows.append(pa.field("copied", pa.bool_()))
        return table.select(schema.names).cast(schema), table["superseded_at"].to_numpy()

    def _save(self, table: pa.Table, superseded_at: Instants, path: Path) -> None:
        instants = table["occurred_at"].to_numpy()
        written: dict[str, pa.Array] = {}
        for name in STORE_TOUCHPOINTS:
            if name == "superseded_at":
                written[name] = pa.array(superseded_at, INSTANT, mask=superseded_at == NEVER)
            elif name == "day":
                written[name] = pa.array((to_wall(instants, self._config.time_zone) // DAY).astype(np.int32))
            elif name in ("occurred_at", "visible_at"):
                written[name] = table[name].combine_chunks().cast(INSTANT)
            elif name == "copied":
                there = name in table.column_names
                written[name] = pc.fill_null(table[name], False) if there else pa.repeat(False, len(table))
            elif name == "date_only":
                written[name] = table[name].combine_chunks().cast(pa.bool_())
            else:
                written[name] = _coded(table[name]) if name in _CODED else table[name]
        for index, name in enumerate(self._names):
            written[name] = table[f"x{index}"]
        whole = pa.table(written)
        pq.write_table(
            whole,
            path,
            # Codes are written as they are: the dictionary of a bucket's customers is larger than the writer's default.
            use_dictionary=[
                one.name
                for one in whole.schema
                if one.name in _CODED or (one.name.startswith(PROPERTY) and pa.types.is_string(one.type))
            ],
            dictionary_pagesize_limit=1 << 28,
            # Instants hardly ever repeat; to look each up in a dictionary took most of the time.
            column_encoding={
                field.name: "DELTA_BINARY_PACKED"
                for field in whole.schema
                if pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type)
            },
            store_schema=False,  # without Arrow's own schema in the file, readers see plain text
        )

    def summary(self) -> dict[str, Any]:
        """Return counts, events, delays and customers of everything written."""
        counts = {}
        for name, one in self._staged.items():
            stored = self._stored[name]
            counts[name] = asdict(
                Counts(
                    rows_in=one.rows_in,
                    stored=stored,
                    refused=dict(sorted(one.refused.items())),
                    left_out=one.left_out,
                    duplicates=one.accepted - stored - self._unassigned[name],
                    repeats=0 if self._config.drop_duplicates else self._repeats[name],
                    reassigned=self._reassigned.get(name, 0),
                    unassigned=self._unassigned[name],
                )
            )
        return {
            "counts": counts,
            "events": dict(sorted(self._events.items())),
            "measured_delays": {name: self._delay(name) for name in self._staged},
            "bucket_customers": self._customers,
            "aliases": self._aliases,
        }

    def _before(self, bucket: int) -> tuple[pa.Table, Instants]:
        """Return the rows of the base that stay, and when each was replaced."""
        path = self._base.file(bucket) if self._base else None
        if self._base is None or path is None:
            return self._rows.empty_table(), np.empty(0, dtype=np.int64)
        names = [*self._columns[: 1 + len(_CONTENT)], *self._names, "superseded_at"]
        table = pq.read_table(path, columns=names, partitioning=None, read_dictionary=list(_CODED), use_threads=False)
        table = table.select(names).rename_columns([*self._columns, "superseded_at"])
        if not self._base.whole:
            table = table.filter(pc.is_in(table["source"].cast(pa.string()), pa.array(sorted(self._base.sources))))
        superseded = pc.fill_null(table["superseded_at"].cast(pa.int64()), NEVER).to_numpy()
        return table.drop_columns(["superseded_at"]).cast(self._rows), superseded.copy()

    def _added(self, place: int) -> pa.Table:
        """Return the staged rows of a place."""
        parts = []
        for name, one in self._staged.items():
            for file in one.files(place):
                coded = [column for column in _CODED if column != "source"]
                table = pq.read_table(file, partitioning=None, read_dictionary=coded, use_threads=False)
                source = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), dtype=np.int32)), [name])
                parts.append(table.append_column("source", source).select(self._columns).cast(self._rows))
        return pa.concat_tables(parts) if parts else self._rows.empty_table()

    def _foreign(self, place: int) -> pa.Table:
        """Return the rows of other places with a touchpoint_id that has a row of this place, too.

        A place is a bucket, or a part of the rows of joined ids.
        """
        if not self._converted:
            return self._rows.empty_table()
        rows = (
            f"SELECT {', '.join(self._columns)} FROM moved WHERE place <> {place}"
            f" AND id_hash IN (SELECT id_hash FROM moved WHERE place = {place})"
        )
        return self._connection.sql(rows).to_arrow_table().cast(self._rows)

    def _find_shared(self) -> dict[str, int]:
        """Find touchpoint_ids that belong to several customers; return how many rows of each source they are.

        Another bucket may hold the newer version of such a row. ``moved`` holds all rows of those ids that occur in
        the added files; of other ids the base has the links, and their rows are in its counts.
        """
        counted: Counter[str] = Counter()
        if self._base:
            counted.update({name: self._base.store.counts[name].reassigned for name in self._base.sources})
        parts = [
            self._part(name, f"read_parquet({literal(one.pattern())}, hive_partitioning=false)")
            for name, one in self._staged.items()
            if one.has_rows
        ]
        if not parts:
            return +counted
        union = " UNION ALL ".join(parts)
        if self._base:
            self._connection.execute(f"CREATE TEMP TABLE fresh AS SELECT DISTINCT id_hash FROM ({union})")
            union = f"{union} UNION ALL {self._kept(self._base)}"
        self._connection.execute(
            f"CREATE TEMP TABLE shared AS SELECT id_hash FROM (SELECT id_hash, hash(customer_id) AS customer FROM"
            f" ({union})) GROUP BY id_hash HAVING min(customer) <> max(customer)"
        )
        self._connection.execute(
            f"CREATE TEMP TABLE moved AS SELECT *, {self._joined.place_sql} AS place"
            f" FROM ({union}) WHERE id_hash IN (SELECT id_hash FROM shared)"
        )
        content = ", ".join(self._columns)
        rows = f"DISTINCT ({content})" if self._config.drop_duplicates else "*"
        # What one person did under several of their ids did not go to another customer.
        several = (
            "SELECT id_hash FROM moved LEFT JOIN persons USING (customer_id) GROUP BY id_hash"
            " HAVING min(coalesce(person, customer_id)) <> max(coalesce(person, customer_id))"
        )
        now = f"SELECT source, count({rows}) FROM moved WHERE id_hash IN ({several}) GROUP BY source"
        found = dict(self._connection.execute(now).fetchall())
        self._converted = bool(self._connection.execute("SELECT 1 FROM moved LIMIT 1").fetchall())
        counted.update(found)
        before = (
            "SELECT source, sum(n)::BIGINT FROM (SELECT source, id_hash, count(*) AS n FROM moved WHERE held"
            " GROUP BY source, id_hash HAVING min(customer_id) <> max(customer_id)) GROUP BY source"
        )
        counted.subtract(dict(self._connection.execute(before).fetchall()))
        return +counted

    def _part(self, source: str, scan: str) -> str:
        plain = [name for name in self._columns if name != "source"]
        return (
            f"SELECT {', '.join(plain)}, {literal(source)} AS source, FALSE AS held,"
            f" hash({literal(source)}, touchpoint_id) AS id_hash FROM {scan} WHERE touchpoint_id IS NOT NULL"
        )

    def _kept(self, base: Base) -> str:
        """Return SQL for the rows of the base with a touchpoint_id of the added files."""
        files = ", ".join(as_named(file) for bucket in range(self._buckets) if (file := base.file(bucket)))
        plain = [
            f"epoch_us({name}) AS {name}" if name in ("occurred_at", "visible_at") else name
            for name in self._columns[: 1 + len(_CONTENT)]
            if name != "source"
        ]
        plain += [f"{identifier(name)} AS x{index}" for index, name in enumerate(self._names)]
        sources = ", ".join(map(literal, sorted(base.sources)))
        return (
            f"SELECT {', '.join(plain)}, source, TRUE AS held, hash(source, touchpoint_id) AS id_hash"
            f" FROM read_parquet([{files}], hive_partitioning=false) WHERE touchpoint_id IS NOT NULL"
            f" AND source IN ({sources}) AND hash(source, touchpoint_id) IN (SELECT id_hash FROM fresh)"
        )

    def _count(self, table: pa.Table) -> None:
        self._stored.update(_tally(table["source"]))
        self._events.update(_tally(table["event"]))
        for name in self._known:
            own = table.filter(pc.equal(table["source"].cast(pa.string()), name)) if len(self._staged) > 1 else table
            late = own["visible_at"].to_numpy() - own["occurred_at"].to_numpy()
            seconds, rows = np.unique(-(-late[late > 0] // SECOND), return_counts=True)
            self._delays[name].update(dict(zip(seconds.tolist(), rows.tolist(), strict=True)))
            self._delays[name][0] += int(np.count_nonzero(late == 0))

    def _delay(self, name: str) -> int:
        """Return the 99 % quantile (nearest rank) of how late rows become known, in whole seconds as microseconds."""
        spec = self._config.touchpoint_tables[source_label(name)]
        if spec.known_after is not None:
            return spec.known_after
        seconds = sorted((+self._delays.get(name, Counter[int]())).items())
        if not seconds:
            return 0
        reached = np.cumsum([count for _, count in seconds])
        rank = -(-99 * int(reached[-1]) // 100)
        return int(seconds[int(np.searchsorted(reached, rank))][0]) * SECOND


def _coded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a text column as codes of the values that occur, in order: equal columns become equal bytes."""
    whole = column.combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    codes, values = pc.fill_null(whole.indices, -1).to_numpy(), whole.dictionary
    used = np.zeros(len(values) + 1, dtype=np.bool_)
    used[codes] = True
    order = pc.sort_indices(values).to_numpy()
    order = order[used[order]]
    rank = np.full(len(values) + 1, -1, dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    new = rank[codes]
    return pa.DictionaryArray.from_arrays(pa.array(new, mask=new < 0), values.take(pa.array(order)))


def _link(file: Path, target: Path) -> None:
    """Give an unchanged file a second name; where the disk cannot, copy it."""
    try:
        os.link(file, target)
    except OSError:
        target.write_bytes(file.read_bytes())


def _tally(column: pa.ChunkedArray) -> dict[Any, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}
