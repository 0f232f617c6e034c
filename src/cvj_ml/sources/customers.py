"""A table with one id column and some texts: whom it names, read as the log's own ids are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cvj_ml.config import Config, TableSpec
from cvj_ml.errors import DataError, raise_all
from cvj_ml.ownership import claim, scratch
from cvj_ml.sources.mapping import map_fields, read_id, read_label
from cvj_ml.sources.origins import Relation, describe, land, read_rows
from cvj_ml.sources.postgres import Databases
from cvj_ml.sources.sql import connect, identifier, within_memory


@dataclass(frozen=True, slots=True)
class CustomerTable:
    """Rows with a readable ``customer_id``, sorted, all columns text; and how many had to be left out, and why."""

    rows: pa.Table
    refused: Mapping[str, int]


def read_customers(label: str, spec: TableSpec, columns: Mapping[str, str], config: Config) -> CustomerTable:
    """Read a table's columns (name here → name there, ``customer_id`` among them).

    Raises DataError for missing or unreadable files and for missing columns.
    """
    faults: list[str] = []
    heading = f"The {label} table cannot be used:"
    out = Path(config.out)
    claim(out)
    with within_memory(config), scratch(out, f".{label}-") as work:
        with Databases(config, work) as databases:
            origin = describe(label, databases.landed(label, spec), config, work / "spill")
        fields = map_fields(origin, columns, {}, (), (), faults)
        raise_all(DataError, heading, faults)
        identity = read_id(label, "customer_id", fields.pop("customer_id"), faults)
        names = {name: read_label(label, name, one, faults) for name, one in fields.items()}
        raise_all(DataError, heading, faults)
        selected = [
            f"({identity.value}) AS customer_id",
            f"({identity.there} AND ({identity.value}) IS NULL) AS unreadable",
        ]
        selected += [f"({one.value}) AS {identifier(column)}" for column, one in names.items()]
        with connect(config, work / "spill") as connection:

            def read(rows: Relation) -> tuple[pa.Table, int]:
                query = f"SELECT {', '.join(selected)} FROM {rows.sql} ORDER BY ALL"
                return connection.sql(query).to_arrow_table(), rows.unreadable

            relation = land(origin, connection, config, work / "landed")
            table, lines = read_rows(origin, relation, sorted({*columns.values()}), work / "apart", read)
    wrong = sum(table["unreadable"].to_pylist())
    without = table["customer_id"].null_count - wrong
    refused = {"unreadable customer_id": wrong, "no customer_id": without, "unreadable line": lines}
    rows = table.drop_columns(["unreadable"])
    return CustomerTable(
        rows.filter(rows["customer_id"].is_valid()), {reason: count for reason, count in refused.items() if count}
    )
