"""Contact columns, shown in lists only."""

from __future__ import annotations

import pyarrow as pa

from cvj_ml.config import Config
from cvj_ml.contracts import TARGETS
from cvj_ml.errors import ConfigError, DataError, raise_all
from cvj_ml.sources.customers import read_customers
from cvj_ml.sources.refusals import excess


def read_contact(config: Config) -> pa.Table:
    """Return ``customer_id`` (unique) and the contact columns, all text, sorted by id; no rows without ``contact:``.

    Raises ConfigError for names that lists have already, DataError for missing files or columns, and for customers
    who occur more than once.
    """
    spec = config.contact
    if spec is None:
        return pa.table({"customer_id": pa.array([], pa.string())})
    taken = sorted({*TARGETS.columns} - {"customer_id"} & {*spec.columns})
    raise_all(
        ConfigError,
        "The contact columns would hide columns of the lists; rename them (a query can):",
        [f"contact.columns: {name}" for name in taken],
    )
    columns = {column: column for column in ("customer_id", *spec.columns)} | {"customer_id": spec.customer_id}
    found = read_customers("contact", spec, columns, config)
    rows = len(found.rows) + sum(found.refused.values())
    faults = excess("contact", rows, found.refused, config.refused_share)
    repeated = len(found.rows) - len(found.rows["customer_id"].unique())
    if repeated:
        faults.append(
            f"contact: {repeated} row(s) repeat a customer_id; keep one row a customer (a query can choose which)"
        )
    raise_all(DataError, "The contact table cannot be used:", faults)
    return found.rows
