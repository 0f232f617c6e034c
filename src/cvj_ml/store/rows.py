"""The store's rows as tables with the name of their source, for whoever evaluates sources and not customers."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.histories import ALWAYS
from cvj_ml.schemas import CONTACT, INSTANT, PROPERTY, STORE_TOUCHPOINTS
from cvj_ml.store.refusals import Usage, account
from cvj_ml.store.store import ATTRIBUTE, ATTRIBUTES_FILE, MEMBERS_FILE, TOUCHPOINTS_FILE, Store
from cvj_ml.windows import NEVER

_KINDS = {"double": pa.float64(), "string": pa.string()}


def touchpoint_rows(store: Store, bucket: int) -> pa.Table:
    """Return the touchpoints of a bucket in the order of the store; instants are microseconds, NEVER for never."""
    extras = ((PROPERTY + name, _KINDS[kind]) for name, kind in store.property_kinds.items())
    return _plain(_read(store, bucket, TOUCHPOINTS_FILE, pa.schema([*STORE_TOUCHPOINTS.items(), *extras])), NEVER)


def customer_ids(store: Store) -> pa.Array:
    """Return the id of every customer, each once."""
    schema = pa.schema([("customer_id", pa.string())])
    buckets = (bucket for bucket, number in enumerate(store.bucket_customers) if number)
    columns = (_read(store, bucket, TOUCHPOINTS_FILE, schema, schema.names)["customer_id"] for bucket in buckets)
    return pa.concat_arrays([pa.array([], pa.string()), *(column.unique() for column in columns)])


def contact_ids(store: Store) -> pa.Array:
    """Return the id of every person of an account, each once."""
    found = [pa.array([], pa.string())]
    for bucket in (bucket for bucket, number in enumerate(store.bucket_customers) if number):
        files = {TOUCHPOINTS_FILE: PROPERTY + CONTACT} | ({MEMBERS_FILE: CONTACT} if store.member_counts else {})
        for file, name in files.items():
            found.append(_read(store, bucket, file, pa.schema([(name, pa.string())]), [name])[name].unique())
    return pa.concat_arrays(found).drop_null().unique()


def arrivals(store: Store, bucket: int) -> pa.Table:
    """Return source and visible_at (microseconds) of the touchpoints of a bucket, and read nothing else."""
    schema = pa.schema([(name, STORE_TOUCHPOINTS[name]) for name in ("source", "visible_at", "copied")])
    rows = _plain(_read(store, bucket, TOUCHPOINTS_FILE, schema, schema.names), NEVER)
    return rows.filter(pc.invert(rows["copied"])).drop_columns(["copied"])


def row_times(store: Store, bucket: int) -> pa.Table:
    """Return source, event, value, local day and instants (microseconds, NEVER for never) of a bucket's touchpoints.

    Each once: what stands in the histories of several ids of a person is told where it is no copy.
    """
    names = ("source", "event", "value", "day", "occurred_at", "visible_at", "superseded_at", "copied")
    schema = pa.schema([(name, STORE_TOUCHPOINTS[name]) for name in names])
    rows = _plain(_read(store, bucket, TOUCHPOINTS_FILE, schema, schema.names), NEVER)
    return rows.filter(pc.invert(rows["copied"])).drop_columns(["copied"])


def usage(store: Store, as_of: int) -> Usage:
    """Account for every stored touchpoint at an instant; nothing else of the rows is read."""
    names = ("visible_at", "superseded_at", "copied")
    schema = pa.schema([(name, STORE_TOUCHPOINTS[name]) for name in names])
    found = Usage(0, 0, 0)
    for bucket, customers in enumerate(store.bucket_customers):
        if customers:
            rows = _plain(_read(store, bucket, TOUCHPOINTS_FILE, schema, schema.names), NEVER)
            rows = rows.filter(pc.invert(rows["copied"]))
            found += account(rows["visible_at"].to_numpy(), rows["superseded_at"].to_numpy(), as_of)
    return found


def attribute_rows(store: Store, bucket: int) -> pa.Table:
    """Return the attributes of a bucket: customer_id, known_at (microseconds, ALWAYS for static) and the attributes."""
    extras = ((ATTRIBUTE + name, _KINDS[kind]) for name, kind in store.attribute_kinds.items())
    schema = pa.schema([("customer_id", pa.string()), ("known_at", INSTANT), *extras])
    table = _plain(_read(store, bucket, ATTRIBUTES_FILE, schema), ALWAYS)
    return table.rename_columns([name.removeprefix(ATTRIBUTE) for name in table.column_names])


def _read(store: Store, bucket: int, name: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    path = store.bucket_file(bucket, name)
    return pq.read_table(path, columns=columns, partitioning=None) if path else schema.empty_table()


def _plain(table: pa.Table, missing: int) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(place, field.name, pc.fill_null(table[field.name].cast(pa.int64()), missing))
    return table
