"""A published night in PostgreSQL: one transaction, so that readers see all of one night or all of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import NAME_BYTES, PostgresDelivery
from cvj_ml.errors import CvjError, raise_all
from cvj_ml.models.uplift.list_effect import COLUMN
from cvj_ml.night.layout import NightFolder, instant_of
from cvj_ml.postgres import quoted, transaction
from cvj_ml.schemas import INSTANT, TARGETS
from cvj_ml.store import CustomerIds

if TYPE_CHECKING:
    from cvj_ml.postgres import Cursor

_PLACE = "deliver.postgres"
_SCORES, _TARGETS, _NIGHTS = "scores", "targets", "nights"
_TYPES = {
    pa.string(): "text",
    pa.float64(): "double precision",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    INSTANT: "timestamp with time zone",
}
_NIGHT = pa.schema(
    [
        ("night", pa.string()),
        ("as_of", INSTANT),
        ("model_version", pa.string()),
        ("customers", pa.int64()),
        ("listed", pa.int64()),
        ("current", pa.bool_()),
    ]
)
_STANDING = "SELECT night, CAST(extract(epoch FROM as_of) * 1000000 AS bigint), listed FROM {} WHERE current"


def deliver(spec: PostgresDelivery, night: Path) -> str:
    """Make a published night the one that PostgreSQL shows; return what became of it: delivered, unchanged or kept.

    ``kept``: the server holds a newer night, or one of the same instant with lists where this one has none.
    Raises CvjError where it cannot be done; then the server shows what it showed before.
    """
    found = NightFolder(night)
    manifest, scores = found.manifest(), found.scores
    lists = {one["list"]: found.list_file(one["list"]) for one in manifest.get("lists", [])}
    offered = instant_of(manifest)
    schemas = {
        _NIGHTS: _NIGHT,
        _SCORES: pq.read_schema(scores).remove_metadata(),
        _TARGETS: _schema_of_targets(list(lists.values())),
    }
    _check_names(schemas)
    try:
        with transaction(_PLACE, spec.uri) as connection, connection.cursor() as cursor:
            _prepare(cursor, spec.schema_name, schemas)
            nights = quoted(spec.schema_name, _NIGHTS)
            cursor.execute(_STANDING.format(nights))
            for name, shown, listed in cursor.fetchall():
                if name == night.name:
                    return "unchanged"
                # Nights of one instant replace each other, but scores alone do not take a night's lists away.
                if shown > offered or (shown == offered and listed and not lists):
                    return "kept"
            # DELETE and not TRUNCATE: a reader in the middle of its own transaction goes on seeing the old rows.
            for table in (_SCORES, _TARGETS):
                cursor.execute(f"DELETE FROM {quoted(spec.schema_name, table)}")
            customers = _append(cursor, spec.schema_name, _SCORES, schemas[_SCORES], _batches(scores))
            listed = 0
            for name, file in lists.items():
                listed += _append(cursor, spec.schema_name, _TARGETS, schemas[_TARGETS], _named(name, file))
            cursor.execute(f"UPDATE {nights} SET current = false WHERE current")
            cursor.execute(f"DELETE FROM {nights} WHERE night = $1", (night.name,))
            cursor.execute(
                f"INSERT INTO {nights} ({', '.join(map(quoted, _NIGHT.names))})"
                " VALUES ($1, CAST($2 AS timestamptz), $3, $4, $5, true)",
                (night.name, manifest["as_of"], manifest["model"][:12], customers, listed),
            )
    except CvjError as error:
        raise CvjError(
            f"{error} The night is published in {night}; PostgreSQL still shows the night before. Run the same command"
            " again: it finds the night published, and delivers it."
        ) from None
    return "delivered"


def known(spec: PostgresDelivery, customers: CustomerIds) -> pa.Array:
    """Return which of these customers the server shows."""
    with transaction(_PLACE, spec.uri, read_only=True) as connection, connection.cursor() as cursor:
        return customers.among(_shown(cursor, spec.schema_name, customers))


def forget_delivered(spec: PostgresDelivery, customers: CustomerIds) -> dict[str, int]:
    """Delete the rows of customers from the delivered night; return how many there were, by table."""
    deleted = {}
    with transaction(_PLACE, spec.uri) as connection, connection.cursor() as cursor:
        _lock(cursor, spec.schema_name)
        table = pa.table({"customer_id": _shown(cursor, spec.schema_name, customers)})
        cursor.adbc_ingest("cvj_forgotten", table, mode="create", temporary=True)
        for name, counted in ((_SCORES, "customers"), (_TARGETS, "listed")):
            if not _columns(cursor, spec.schema_name, name):
                continue
            of = quoted(spec.schema_name, name)
            theirs = f"FROM {of} WHERE customer_id IN (SELECT customer_id FROM cvj_forgotten)"
            cursor.execute(f"SELECT count(*) {theirs}")
            deleted[name] = int(cursor.fetchall()[0][0])
            cursor.execute(f"DELETE {theirs}")
            nights = quoted(spec.schema_name, _NIGHTS)
            cursor.execute(f"UPDATE {nights} SET {counted} = (SELECT count(*) FROM {of}) WHERE current")
    return deleted


def _shown(cursor: Cursor, schema: str, customers: CustomerIds) -> pa.Array:
    """Return the ids of these customers as the server has them."""
    found = [pa.array([], pa.string())]
    for name in (_SCORES, _TARGETS):
        if _columns(cursor, schema, name):
            cursor.execute(f"SELECT customer_id FROM {quoted(schema, name)}")
            for batch in cursor.fetch_record_batch():
                found.append(batch["customer_id"].filter(customers.holds(batch["customer_id"])).cast(pa.string()))
    return pa.concat_arrays(found).unique()


def _schema_of_targets(lists: list[Path]) -> pa.Schema:
    """Return the columns of all lists in one table: those of the contract, and of contacts where there are any."""
    columns = pq.read_schema(lists[0]).remove_metadata() if lists else pa.schema(TARGETS.columns.items())
    if "list" in columns.names:
        raise CvjError(f"{_PLACE}: a contact column is called list, as the column of the lists' names is; rename it.")
    return pa.schema([pa.field("list", pa.string()), *columns])


def _check_names(schemas: Mapping[str, pa.Schema]) -> None:
    names = {name for schema in schemas.values() for name in schema.names}
    raise_all(
        CvjError,
        f"{_PLACE}: PostgreSQL cuts names after {NAME_BYTES} bytes; shorten the stages or contact columns of these:",
        sorted(name for name in names if len(name.encode()) > NAME_BYTES),
    )


def _prepare(cursor: Cursor, schema: str, schemas: Mapping[str, pa.Schema]) -> None:
    """Make the tables, or the columns that they lack.

    Tables are changed and not made anew, so that grants on them and views of them stay. Effects of contacts are known
    of a list or not from one training to the next: the column of one that is not stays, and is empty.
    """
    _lock(cursor, schema)
    cursor.execute("SELECT count(*) FROM pg_namespace WHERE nspname = $1", (schema,))
    if cursor.fetchall() == [(0,)]:
        cursor.execute(f"CREATE SCHEMA {quoted(schema)}")
    there = {name: _columns(cursor, schema, name) for name in schemas}
    foreign = [name for name in schemas if there[name] and not there[_NIGHTS]]
    raise_all(
        CvjError,
        f"{_PLACE}: the schema {schema} has tables of these names that no night was delivered to; name another schema:",
        foreign,
    )
    keys = {_NIGHTS: ["night"], _SCORES: ["customer_id"], _TARGETS: ["list", "customer_id"]}
    for name, columns in schemas.items():
        wanted = {column.name: _type(column.type) for column in columns}
        table = quoted(schema, name)
        if not there[name]:
            declared = [f"{quoted(column)} {kind}" for column, kind in wanted.items()]
            declared.append(f"PRIMARY KEY ({', '.join(map(quoted, keys[name]))})")
            cursor.execute(f"CREATE TABLE {table} ({', '.join(declared)})")
            continue
        for column, _ in there[name].items() - wanted.items():
            if column in wanted or not column.startswith(COLUMN):
                cursor.execute(f"ALTER TABLE {table} DROP COLUMN {quoted(column)}")
        for column, kind in wanted.items():
            if there[name].get(column) != kind:
                cursor.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(column)} {kind}")


def _lock(cursor: Cursor, schema: str) -> None:
    """Keep other deliveries out until the end of the transaction; readers are not kept out."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('cvj_ml ' || $1, 0))::text", (schema,))
    cursor.fetchall()


def _type(kind: pa.DataType) -> str:
    return f"{_TYPES[kind.value_type]}[]" if pa.types.is_list(kind) else _TYPES[kind]


def _columns(cursor: Cursor, schema: str, table: str) -> dict[str, str]:
    """Return the columns of a table with their types; none where there is no such table."""
    cursor.execute(
        "SELECT CAST(a.attname AS text), format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
        (schema, table),
    )
    return {str(name): str(kind) for name, kind in cursor.fetchall()}


def _append(cursor: Cursor, schema: str, table: str, columns: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Load rows by COPY, batch by batch; return how many."""
    counted = 0

    def count() -> Iterator[pa.RecordBatch]:
        nonlocal counted
        for batch in batches:
            counted += len(batch)
            yield batch

    reader = pa.RecordBatchReader.from_batches(columns, count())
    cursor.adbc_ingest(table, reader, mode="append", db_schema_name=schema)
    return counted


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file) as rows:
        for batch in rows.iter_batches():
            yield batch.replace_schema_metadata()


def _named(name: str, file: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a list with its name before them."""
    for batch in _batches(file):
        column = pa.array([name] * len(batch), pa.string())
        yield pa.RecordBatch.from_arrays([column, *batch.columns], ["list", *batch.schema.names])
