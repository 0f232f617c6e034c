"""What the business says about its customers: who must not be contacted, who alone may be, and how they are reached.

A row that names nobody is a person contacted unasked, so each table is compared with the log: how many of its rows name
nobody is counted, and a row that looks as if it were meant for a customer is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import Config, PermissionSpec
from cvj_ml.customers.id_tables import CustomerTable, read_customers
from cvj_ml.customers.persons import Identities
from cvj_ml.errors import ConfigError, DataError, raise_all
from cvj_ml.schemas import TARGETS
from cvj_ml.store.customer_ids import Known
from cvj_ml.store.refusals import excess
from cvj_ml.store.rows import customer_ids
from cvj_ml.store.store import Store

_NAMES = pa.schema([("customer_id", pa.string()), ("channel", pa.string())])

_COMMENT = r"^(#|//)"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Rows (customer_id, channel) of both tables; a null channel means every channel, None a table that is not set."""

    suppression: pa.Table | None = None
    consent: pa.Table | None = None


@dataclass(frozen=True, slots=True)
class Naming:
    """How many rows a table has, and how many of them name nobody in the log."""

    rows: int
    nobody: int

    @property
    def share(self) -> float:
        """The share of the rows that name a customer of the log."""
        return 1 - self.nobody / self.rows if self.rows else 0.0

    def __str__(self) -> str:
        return f"{self.nobody:,} of {self.rows:,} rows name nobody in the log"


@dataclass(frozen=True, slots=True)
class People:
    """The tables that are configured, by name, and how they name the log's customers once they were compared."""

    tables: Mapping[str, CustomerTable] = field(default_factory=dict)
    naming: Mapping[str, Naming] = field(default_factory=dict)

    @property
    def permissions(self) -> Permissions:
        """Who must not be contacted, and who alone may be."""
        return Permissions(*(self.tables[name].rows if name in self.tables else None for name in _PERMISSIONS))

    @property
    def contact(self) -> pa.Table:
        """``customer_id`` (unique) and the contact columns, all text, sorted by id; no rows where none are set."""
        if "contact" in self.tables:
            return self.tables["contact"].rows
        return pa.table({"customer_id": pa.array([], pa.string())})

    def under(self, identities: Identities) -> People:
        """Return the tables by customer: whoever is suppressed under one id is under all, a contact is one's own."""
        tables = {
            name: replace(
                one, rows=identities.one_row_each(one.rows) if name == "contact" else identities.by_person(one.rows)
            )
            for name, one in self.tables.items()
        }
        return replace(self, tables=tables)

    def require_unchanged(self) -> None:
        """Raise DataError where a file is not what was read any more: lists would be made of what it said before."""
        for table in self.tables.values():
            table.require_unchanged()


_PERMISSIONS = ("suppression", "consent")


def read_people(config: Config) -> People:
    """Read suppression, consent and contact.

    Raises DataError where one of them cannot be used, so that no list is made; ConfigError for contact columns that
    lists have already.
    """
    specs = {"suppression": config.suppression, "consent": config.consent}
    tables = {name: _read_permission(name, spec, config) for name, spec in specs.items() if spec is not None}
    if config.contact is not None:
        tables["contact"] = _read_contact(config)
    return People(tables)


def match_people(people: People, config: Config, store: Store) -> People:
    """Return the tables with how they name the customers of a store.

    Raises DataError for rows that name nobody but would if ids were read more loosely, for comments, and for a
    suppression of which nobody occurs in the log.
    """
    if not people.tables:
        return people
    known = Known(customer_ids(store), config.ids.match)
    naming, faults = {}, list[str]()
    for name, table in people.tables.items():
        ids = table.rows["customer_id"].combine_chunks()
        lost = pc.indices_nonzero(pc.invert(known.named(ids)))
        naming[name] = Naming(len(ids), len(lost))
        found = _faults(table, lost, ids.take(lost), known)
        if name == "suppression" and len(ids) and len(lost) == len(ids) and not found:
            found = [
                f"suppression: none of its {len(ids):,} row(s) names a customer of the log, so nobody would be held"
                " back; check customer_id, and that ids are written as in the log"
            ]
        faults += found
    raise_all(DataError, "No list is made, since people might be contacted who must not be:", faults)
    return replace(people, naming=naming)


def _faults(table: CustomerTable, lost: pa.Array, ids: pa.Array, known: Known) -> list[str]:
    """Return what is wrong with the rows that name nobody; never their ids."""
    foldable = known.foldable
    ways = {
        "trimmed": (
            "would name a customer without the blanks, invisible characters or quotation marks in the id. Say ids:"
            " {match: trimmed}, or correct the rows"
        ),
        "folded": (
            "would name a customer if capital and small letters, or full-width forms, were one. "
            + (
                "Say ids: {match: folded}, or correct the rows"
                if foldable
                else "Correct the rows (ids: {match: folded} is no way out: the log has ids that differ so themselves)"
            )
        ),
        "number": (
            "would name a customer without leading zeros, a decimal .0 or what a spreadsheet puts around a number: a"
            " program took ids for numbers. Export the ids as text, in the log or here"
        ),
    }
    near = known.nearly(ids)
    faults = [
        f"{table.label}: {len(rows):,} row(s) ({table.places.take(lost.take(rows))}) name nobody in the log, but"
        f" {told}. Rows of somebody else can be left out (a query can)"
        for way, told in ways.items()
        if len(rows := pc.indices_nonzero(pc.equal(near, way)))
    ]
    comments = pc.indices_nonzero(pc.match_substring_regex(ids, _COMMENT))
    if len(comments) and not pc.any(pc.match_substring_regex(known.ids, _COMMENT)).as_py():
        faults.append(
            f"{table.label}: {len(comments):,} row(s) ({table.places.take(lost.take(comments))}) look like comments; a"
            " table has rows only, so remove them"
        )
    return faults


def _read_permission(label: str, spec: PermissionSpec, config: Config) -> CustomerTable:
    """Read who must not, or alone may, be contacted: strictly, since a lost row is a person contacted unasked."""
    columns = {"customer_id": spec.customer_id} | ({"channel": spec.channel} if spec.channel else {})
    found = read_customers(label, spec, columns, config)
    raise_all(
        DataError,
        f"The {label} table cannot be used, so no list is made; every row must name a customer:",
        [f"{label}: {count} row(s): {reason}" for reason, count in found.refused.items()],
    )
    rows = found.rows if spec.channel else found.rows.append_column("channel", pa.nulls(len(found.rows), pa.string()))
    return replace(found, rows=rows.cast(_NAMES))


def _read_contact(config: Config) -> CustomerTable:
    """Read the contact columns, shown in lists only; a customer has one row."""
    spec = config.contact
    assert spec is not None
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
    return found
