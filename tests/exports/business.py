"""A small business whose exports are written out in `fixtures/`: two nights of lists, contacts and permissions.

Nobody here exists: addresses are of example.com or stand in the tools' own documentation, numbers are reserved for
fiction or stand there, too.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cvj_ml.config import ExportsSpec
from cvj_ml.customers import Permissions
from cvj_ml.schemas import TARGETS

CHANNELS = ("email", "ads", "social", "phone", "in app")
EPOCH = "2025-quarter-2"

SPEC = ExportsSpec.model_validate(
    {
        "email": "mail",
        "phone": "tel",
        "first_name": "given",
        "merge": ["city"],
        "default_country": "US",
        "files": {
            "email": ["email"],
            "google_customer_match": ["ads", "social"],
            "meta_custom_audience": "social",
            "klaviyo": "all",
            "mailchimp": ["email"],
            "hubspot": ["email", "phone"],
            "calls": ["phone"],
            "channels": "all",
        },
    }
)

# customer, e-mail address, phone number, first name, city
CONTACTS = [
    ("c01", " User.Name+NYC@Example.com ", "(800)555-0100", "Customer 1", "York"),
    ("c02", "cloudy.sanfrancisco+shopping@gmail.com", "+1 202-555-0143", 'Customer "2", the second', "St. Ives, GB"),
    ("c03", "control@example.com", None, "Customer 3", None),
    ("c04", "unsubscribed@example.com", None, "Customer 4", "York"),
    ("c05", None, "+49 (0)30 23125 012", "=Customer\r\n5", "Köln"),
    ("c07", None, "1 650 555 1212", None, None),
    ("c08", "no address", "12345", "Customer 8", None),
    ("c09", "nine@example.com", None, None, "York"),
    ("c10", "CONTROL@example.com", "+1 202-555-0145", "Customer 10", None),
    ("c11", "john_smith@gmail.com", "+1 202-555-0146", None, None),
    ("c12", "twelve@example.com", None, None, None),
    ("c13", "nine@EXAMPLE.com", None, None, None),
    ("c14", None, "555-0143", None, None),
]
CONTROL = ("c03", "c11", "c12")
SUPPRESSED = [("c04", "email"), ("c12", None), ("not a customer", None)]

# list, rank, customer, channel, group
FIRST = [
    ("engage__buy__30d", 1, "c01", "email", "target"),
    ("engage__buy__30d", 2, "c02", "ads", "target"),
    ("engage__buy__30d", 3, "c03", "ads", "control"),
    ("engage__buy__30d", 4, "c04", "email", "target"),
    ("engage__buy__30d", 5, "c05", "phone", "target"),
    ("engage__buy__30d", 6, "c06", "ads", "target"),
    ("engage__buy__30d", 7, "c07", "social", "target"),
    ("engage__buy__30d", 8, "c08", "email", "target"),
    ("buy__love__30d", 1, "c01", "social", "target"),
    ("buy__love__30d", 2, "c09", "email", "target"),
    ("buy__love__30d", 3, "c10", "social", "target"),
    ("buy__love__30d", 4, "c13", "email", "target"),
    ("buy__love__30d", 5, "c14", "phone", "target"),
    ("buy__love__30d", 6, "c15", "in app", "target"),
    ("buy__love__30d", 7, "c16", None, "target"),
]
SECOND = [
    ("engage__buy__30d", 1, "c02", "email", "target"),
    ("engage__buy__30d", 2, "c07", "ads", "target"),
    ("buy__love__30d", 1, "c09", "email", "target"),
]


def lists_of(rows: list[tuple[str, int, str, str | None, str]]) -> dict[str, pa.Table]:
    """Return TARGETS, the list of each first row first."""
    return {name: _targets([row for row in rows if row[0] == name]) for name in dict.fromkeys(row[0] for row in rows)}


def _targets(rows: list[tuple[str, int, str, str | None, str]]) -> pa.Table:
    known: dict[str, list[Any]] = {
        "rank": [row[1] for row in rows],
        "customer_id": [row[2] for row in rows],
        "from_stage": [row[0].split("__")[0].title() for row in rows],
        "to_stage": [row[0].split("__")[1].title() for row in rows],
        "reason_1": [None if row[1] % 2 else "third visit to pricing & plans this week" for row in rows],
        "play": [None if row[3] is None else f"Write, call or show: {row[3]}" for row in rows],
        "channel": [row[3] for row in rows],
        "group": [row[4] for row in rows],
    }
    return pa.table(
        {name: pa.array(known[name], kind) if name in known else pa.nulls(len(rows), kind)
         for name, kind in TARGETS.columns.items()}
    )  # fmt: skip


def contact(rows: list[tuple[str | None, ...]] = CONTACTS) -> pa.Table:  # type: ignore[assignment]
    names = ("customer_id", "mail", "tel", "given", "city")
    return pa.table({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)})


def permissions(
    suppressed: list[tuple[str, str | None]] | None = SUPPRESSED,
    consent: list[tuple[str, str | None]] | None = None,
) -> Permissions:
    return Permissions(*(None if rows is None else _named(rows) for rows in (suppressed, consent)))


def _named(rows: list[tuple[str, str | None]]) -> pa.Table:
    return pa.table(
        {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(("customer_id", "channel"))}
    )
