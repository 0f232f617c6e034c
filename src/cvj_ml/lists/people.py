"""What the business says about its customers: who may be contacted is read first, before any list is made."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from cvj_ml.config import Config
from cvj_ml.sources import Permissions, read_contact, read_permissions


@dataclass(frozen=True, slots=True)
class People:
    """What the business says about its customers: who may be contacted, and how they are reached."""

    permissions: Permissions
    contact: pa.Table

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables that are configured, by name."""
        tables = {
            "suppression": self.permissions.suppression,
            "consent": self.permissions.consent,
            "contact": self.contact if self.contact.num_columns > 1 else None,
        }
        return {name: table for name, table in tables.items() if table is not None}


def read_people(config: Config) -> People:
    """Read suppression, consent and contact; DataError where one of them cannot be used, so that no list is made."""
    return People(read_permissions(config), read_contact(config))
