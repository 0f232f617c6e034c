"""Contact columns, shown in lists only."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa

from cvj_ml.config import Config
from cvj_ml.errors import DataError, raise_all
from cvj_ml.sources.mapping import map_fields, read_id, read_label
from cvj_ml.sources.origins import describe, land
from cvj_ml.sources.refusals import excess
from cvj_ml.sources.sql import connect, identifier


def read_contact(config: Config) -> pa.Table:
    """Return ``customer_id`` (unique) and the contact columns, all text, sorted by id; no rows without ``contact:``.

    Raises DataError for missing files or columns, and for customers who occur more than once.
    """
    spec = config.contact
    if spec is None:
        return pa.table({"customer_id": pa.array([], pa.string())})
    faults: list[str] = []
    root = Path(config.out)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".contact-", dir=root) as name:
        work = Path(name)
        origin = describe("contact", spec, config, work / "spill")
        own = dict.fromkeys(("customer_id", *spec.columns))
        mapping = {column: column for column in own} | {"customer_id": spec.customer_id}
        fields = map_fields(origin, mapping, {}, (), (), faults)
        raise_all(DataError, "The contact table cannot be used:", faults)
        identity = read_id("contact", "customer_id", fields.pop("customer_id"), faults)
        raise_all(DataError, "The contact table cannot be used:", faults)
        columns = [
            f"({identity.value}) AS customer_id",
            f"({identity.there} AND ({identity.value}) IS NULL) AS unreadable",
        ]
        columns += [f"({read_label(one).value}) AS {identifier(column)}" for column, one in fields.items()]
        with connect(config, work / "spill") as connection:
            relation = land(origin, connection, config, work / "landed")
            table = connection.sql(f"SELECT {', '.join(columns)} FROM {relation.sql} ORDER BY ALL").to_arrow_table()
    wrong = sum(table["unreadable"].to_pylist())
    without = table["customer_id"].null_count - wrong
    refused = {"unreadable customer_id": wrong, "no customer_id": without, "unreadable line": relation.unreadable}
    refused = {reason: count for reason, count in refused.items() if count}
    faults += excess("contact", len(table) + relation.unreadable, refused, config.refused_share)
    table = table.drop_columns(["unreadable"])
    table = table.filter(table["customer_id"].is_valid())
    repeated = len(table) - len(table["customer_id"].unique())
    if repeated:
        faults.append(
            f"contact: {repeated} row(s) repeat a customer_id; keep one row a customer (a query can choose which)"
        )
    raise_all(DataError, "The contact table cannot be used:", faults)
    return table
