"""Who must not be contacted, and who alone may be: read strictly, since a lost row is a person contacted unasked."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from cvj_ml.config import Config, PermissionSpec
from cvj_ml.errors import DataError, raise_all
from cvj_ml.sources.customers import read_customers

_NAMES = pa.schema([("customer_id", pa.string()), ("channel", pa.string())])


@dataclass(frozen=True, slots=True)
class Permissions:
    """Rows (customer_id, channel) of both tables; a null channel means every channel, None a table that is not set."""

    suppression: pa.Table | None = None
    consent: pa.Table | None = None


def read_permissions(config: Config) -> Permissions:
    """Read the suppression and the consent table.

    Raises DataError where a file is missing or a single row names nobody: without them no list can be made.
    """
    return Permissions(_read("suppression", config.suppression, config), _read("consent", config.consent, config))


def _read(label: str, spec: PermissionSpec | None, config: Config) -> pa.Table | None:
    if spec is None:
        return None
    columns = {"customer_id": spec.customer_id} | ({"channel": spec.channel} if spec.channel else {})
    found = read_customers(label, spec, columns, config)
    raise_all(
        DataError,
        f"The {label} table cannot be used, so no list is made; every row must name a customer:",
        [f"{label}: {count} row(s): {reason}" for reason, count in found.refused.items()],
    )
    rows = found.rows if spec.channel else found.rows.append_column("channel", pa.nulls(len(found.rows), pa.string()))
    return rows.cast(_NAMES)
