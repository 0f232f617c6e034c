"""Which column is the customer, the time, the event: by its name, checked against what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cvj_ml.errors import nearest
from cvj_ml.sources.profile import ColumnProfile, FileProfile, words

# Words of a column's name, the surest first; a name has to hold all words of one entry.
_CUSTOMER = (
    "customer id", "cust id", "client id", "user id", "member id", "account id", "person id", "contact id",
    "household id", "visitor id", "subscriber id", "profile id", "customer", "cust", "client", "user", "userid",
    "member", "person", "household", "contact", "visitor", "visitorid", "subscriber", "account", "donor", "guest",
    "patient", "student", "player", "buyer", "shopper", "customerid", "clientid", "custid", "memberid",
)  # fmt: skip
_PEOPLE = frozenset(
    [
        "customers",
        "users",
        "clients",
        "members",
        "accounts",
        "people",
        "persons",
        "contacts",
        "subscribers",
        "households",
    ]
)
_OCCURRED = (
    "occurred at", "event time", "event timestamp", "event date", "timestamp", "ts", "datetime", "occurred",
    "order date", "purchase date", "transaction date", "invoice date", "created at", "creation date", "time", "date",
)  # fmt: skip
_KNOWN = ("known at", "loaded at", "ingested at", "received at", "inserted at", "synced at", "exported at")
_TOUCHPOINT = ("touchpoint id", "event id", "message id", "transaction id", "order id", "row id", "uuid")
_EVENT = ("event name", "event type", "event", "action", "activity", "touchpoint", "type", "name")
_CHANNEL = ("channel", "utm source", "medium", "source", "platform", "device")
_VALUE = ("value", "amount", "revenue", "total", "price", "sales", "spend", "gmv")
_ORDER = (
    "order id",
    "invoice",
    "basket id",
    "transaction id",
    "receipt",
    "order number",
    "order no",
    "order",
    "basket",
)
_QUANTITY = ("quantity", "qty", "units", "count")
_RATING = ("rating", "stars", "score", "nps")


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of one file: role to column, what could not be found, and the columns that mean nothing yet."""

    columns: Mapping[str, str]
    missing: tuple[str, ...]
    others: tuple[str, ...]


def guess_roles(file: FileProfile, told: Mapping[str, str]) -> Roles:
    """Guess the roles of a file's columns; ``told`` (role to column) wins where the file has that column."""
    found = {role: name for role, name in told.items() if any(one.name == name for one in file.columns)}

    def look(role: str, names: Iterable[str], fits: Callable[[ColumnProfile], bool]) -> None:
        free = [one for one in file.columns if one.name not in found.values() and one.filled and fits(one)]
        if role not in found and (best := _best(free, names)):
            found[role] = best.name

    if set(words(file.paths[0].stem)) & set(_PEOPLE):  # in a file of customers a mere id is theirs
        look("customer_id", (*_CUSTOMER, "id"), lambda one: one.kind in ("text", "number") and one.filled == file.rows)
    look("customer_id", _CUSTOMER, lambda one: one.kind == "text" or (one.kind == "number" and one.whole))
    look("known_at", _KNOWN, lambda one: one.kind == "time" and one.filled == file.rows)
    look("occurred_at", _OCCURRED, lambda one: one.kind == "time")
    if "occurred_at" not in found:
        times = [one.name for one in file.columns if one.kind == "time" and one.name not in found.values()]
        found |= {"occurred_at": times[0]} if len(times) == 1 else {}
    if file.format_of(found.get("known_at")) != file.format_of(found.get("occurred_at")):
        found.pop("known_at", None)  # a source has one format of times
    look("event", _EVENT, lambda one: one.kind == "text" and one.names is not None and one.filled == file.rows)
    # An id that repeats is no touchpoint's own: rows with one id are versions of one touchpoint.
    look("touchpoint_id", _TOUCHPOINT, lambda one: one.distinct >= 0.97 * file.rows)
    # A mere "id" is the row's; that of a product is not.
    look("touchpoint_id", ("id",), lambda one: words(one.name) == ("id",) and one.distinct >= 0.97 * file.rows)
    look("channel", _CHANNEL, lambda one: one.kind == "text" and one.names is not None)
    look("value", _VALUE, lambda one: one.kind == "number")
    look("rating", _RATING, lambda one: one.kind == "number" and one.distinct <= 20)
    missing = tuple(role for role in ("customer_id", "occurred_at") if role not in found)
    others = tuple(one.name for one in file.columns if one.name not in found.values())
    return Roles(found, missing, others)


@dataclass(frozen=True, slots=True)
class Lines:
    """The columns of a file whose rows are lines of orders: what tells orders apart, and how many of each thing."""

    order: str | None
    quantity: str | None


def guess_lines(file: FileProfile, roles: Roles) -> Lines:
    """Guess the columns of order lines among those that have no role."""
    free = [one for one in file.columns if one.name in roles.others and one.filled]
    order, quantity = _best(free, _ORDER), _best([one for one in free if one.kind == "number"], _QUANTITY)
    priced = "price" in words(roles.columns.get("value", ""))
    return Lines(order.name if order else None, quantity.name if quantity and priced else None)


def told_nowhere(told: Mapping[str, str], files: Iterable[FileProfile]) -> list[str]:
    """Return the columns that a person named and no file has."""
    known = [one.name for file in files for one in file.columns]
    return [
        f"{role}={name}: no file has a column {name!r}.{nearest(name, known)}"
        for role, name in told.items()
        if name not in known
    ]


def _best(columns: list[ColumnProfile], names: Iterable[str]) -> ColumnProfile | None:
    """Return the column whose name holds the words of the earliest entry; of several, the shortest name."""
    for entry in names:
        wanted = set(entry.split())
        fitting = [one for one in columns if wanted <= set(words(one.name))]
        if fitting:
            return min(fitting, key=lambda one: (len(words(one.name)), one.name))
    return None
