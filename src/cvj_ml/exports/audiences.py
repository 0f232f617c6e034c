"""Who is in which export, and why everybody else is not: permissions are asked once more at this door.

Nobody in control and nobody suppressed is reached by an inclusion, nor is anybody who shares an address with them. An
exclusion holds everybody whom chance put into the control group, listed or not, so that ads leave them alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config.exports import NEEDED_ADDRESSES, ExportName
from cvj_ml.customers import Permissions
from cvj_ml.exports.addresses import NO_CONTACT, AddressFault, Contact, e164, google_email, is_email
from cvj_ml.exports.tools import TOOLS, Tool

LEFT_OUT = {
    "control": "in the control group",
    "other_channel": "to be contacted through a channel that this export does not serve",
    "suppressed": "named in the suppression file",
    "no_consent": "not named in the consent file",
    "other_list": "in this export already, from an earlier list",
    "no_address": "without the address that it needs",
    "bad_email": "with an e-mail address that is none",
    "bad_phone": "with a phone number that is none",
    "no_country_code": "with a phone number without a country code, and there is no default_country",
    "held_back_address": "with an address that belongs to somebody in control or suppressed, too",
    "shared_address": "with an address that is in this export already",
}
"""Why somebody is not in an export, in the order in which it is asked; the first that holds counts."""

FAULTY: Mapping[AddressFault, Literal["email", "phone"]] = {
    "bad_email": "email",
    "bad_phone": "phone",
    "no_country_code": "phone",
}
"""Which address has the fault."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Member:
    """A person in an export: the addresses as they stand in its file (empty: none), and what else stands there."""

    customer_id: str
    email: str
    phone: str
    row: Row = field(default_factory=dict)
    contact: Contact = NO_CONTACT

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes a member of another night the same one: who it is, and the addresses."""
        return self.customer_id, self.email, self.phone


@dataclass(frozen=True, slots=True)
class Audience:
    """One export: its members in the order of the lists, and what became of all who were looked at.

    ``looked_at`` are the rows of all lists, or everybody in control; they are the members and the ``left_out``.
    ``not_written`` counts bad addresses, by their fault, of members whom another address brought in.
    """

    export: ExportName
    kind: Literal["inclusion", "exclusion"]
    members: tuple[Member, ...]
    looked_at: int
    left_out: Mapping[str, int]
    not_written: Mapping[AddressFault, int]

    def __post_init__(self) -> None:
        if self.looked_at != len(self.members) + sum(self.left_out.values()):
            raise AssertionError(f"{self.name}: {self.looked_at} looked at, {len(self.members)}, {self.left_out}")

    @property
    def name(self) -> str:
        """The name of its file, without the ending."""
        return f"{self.export}_exclusion" if self.kind == "exclusion" else self.export


class Door:
    """Who may be contacted through a channel, by the permission tables alone."""

    def __init__(self, permissions: Permissions) -> None:
        self._suppressed = _by_channel(permissions.suppression)
        self._consent = None if permissions.consent is None else _by_channel(permissions.consent)

    @property
    def everybody_suppressed(self) -> set[str]:
        """The customers who are suppressed for any channel, in the log or not."""
        return set[str]().union(*self._suppressed.values())

    def refusal(self, customer: str, channels: Collection[str | None]) -> Literal["suppressed", "no_consent"] | None:
        """Return why a customer may be reached through none of these channels; None where one of them is open.

        The channel None is any way at all: closed to whoever is suppressed everywhere, open to whoever gave consent to
        anything.
        """
        left = [one for one in channels if not self._named(self._suppressed, customer, one)]
        if not left:
            return "suppressed"
        if self._consent is None or any(self._agreed(customer, one) for one in left):
            return None
        return "no_consent"

    def suppressed(self, channels: Collection[str | None]) -> set[str]:
        """Return the customers who may be reached through none of these channels, in the log or not."""
        return {
            one
            for one in self.everybody_suppressed
            if all(self._named(self._suppressed, one, channel) for channel in channels)
        }

    def _agreed(self, customer: str, channel: str | None) -> bool:
        assert self._consent is not None
        if channel is None:
            return any(customer in of for of in self._consent.values())
        return self._named(self._consent, customer, channel)

    @staticmethod
    def _named(table: Mapping[str | None, set[str]], customer: str, channel: str | None) -> bool:
        return customer in table.get(None, ()) or (channel is not None and customer in table.get(channel, ()))


def _by_channel(table: pa.Table | None) -> dict[str | None, set[str]]:
    """Return the customers named for each channel, and under None for every channel."""
    found: dict[str | None, set[str]] = {}
    if table is not None:
        for channel in table["channel"].unique().to_pylist():
            same = table["channel"].is_null() if channel is None else pc.equal(table["channel"], channel)
            found[channel] = set(table.filter(same)["customer_id"].to_pylist())
    return found


def inclusion(
    export: ExportName,
    channels: Collection[str] | None,
    lists: Mapping[str, pa.Table],
    contacts: Mapping[str, Contact],
    door: Door,
    control: Collection[str],
) -> Audience:
    """Return whom an export brings to a tool: each person once, from the first list whose channel it serves.

    channels: those that it serves (None: every row); lists: TARGETS by name; control: everybody in it tonight.
    """
    held: dict[str | None, set[str]] = {}

    def candidates() -> Iterator[_Candidate]:
        for row in _rows(lists):
            customer, channel = row["customer_id"], row["channel"]
            if channel not in held:
                held[channel] = _mailboxes(contacts, [*control, *door.suppressed([channel])])
            reason = "other_channel" if channels is not None and channel not in channels else None
            if row["group"] != "target" or customer in control:
                reason = "control"
            yield _Candidate(customer, row, reason or door.refusal(customer, [channel]), held[channel])

    return _audience(export, "inclusion", candidates(), contacts)


def exclusion(
    export: ExportName,
    channels: Collection[str | None],
    contacts: Mapping[str, Contact],
    door: Door,
    control: Collection[str],
) -> Audience:
    """Return everybody in control whose address an ad platform may be given; who is suppressed is not given away."""
    held = _mailboxes(contacts, door.suppressed(channels))
    candidates = (_Candidate(one, {}, door.refusal(one, channels), held) for one in sorted(control))
    return _audience(export, "exclusion", candidates, contacts)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Somebody who may come into an export, why not, and the addresses that must not be in it."""

    customer_id: str
    row: Row
    refusal: str | None
    held: Collection[str]


def _audience(
    export: ExportName,
    kind: Literal["inclusion", "exclusion"],
    candidates: Iterable[_Candidate],
    contacts: Mapping[str, Contact],
) -> Audience:
    """Let candidates in, one after the other, and count those who stay outside."""
    tool, needed = TOOLS[export], NEEDED_ADDRESSES[export]
    members: dict[str, Member] = {}
    taken, looked_at = set[str](), 0
    left_out, not_written = Counter[str](), Counter[AddressFault]()
    for one in candidates:
        looked_at += 1
        contact = contacts.get(one.customer_id, NO_CONTACT)
        email, number, missing = _addresses(tool, contact)
        written = {"email": email, "phone": number}
        # Two people share an address if a message to it reaches both, however it is written.
        boxes = {box for box in (email and google_email(contact.email), number) if box}
        reason = one.refusal or ("other_list" if one.customer_id in members else None)
        if reason is None and needed and not any(there for name, there in written.items() if name in needed):
            reason = next((fault for fault in missing if FAULTY[fault] in needed), "no_address")
        if reason is None and not boxes.isdisjoint(one.held):
            reason = "held_back_address"
        if reason is None and needed and not boxes.isdisjoint(taken):
            reason = "shared_address"
        if reason is not None:
            left_out[reason] += 1
            continue
        taken |= boxes
        not_written.update(missing)
        phone = tool.written_phone(number) if number else ""
        members[one.customer_id] = Member(one.customer_id, email, phone, one.row, contact)
    return Audience(export, kind, tuple(members.values()), looked_at, left_out, not_written)


def _addresses(tool: Tool, contact: Contact) -> tuple[str, str, list[AddressFault]]:
    """Return the e-mail address as the tool's file has it, the number in E.164, and the faults of what is missing.

    Of an address that the file has no column for nothing is returned.
    """
    address, number, faults = "", "", list[AddressFault]()
    if tool.heading("email") and contact.email.strip():
        address = tool.email(contact.email)
        if not is_email(address):
            address, faults = "", ["bad_email"]
    if tool.heading("phone"):
        number = "" if contact.phone is None else e164(contact.phone)
        faults += [contact.phone_fault] if contact.phone_fault else []
    return address and tool.written_email(address), number, faults


def _mailboxes(contacts: Mapping[str, Contact], customers: Iterable[str]) -> set[str]:
    return {box for one in customers if one in contacts for box in contacts[one].mailboxes()}


def _rows(lists: Mapping[str, pa.Table]) -> Iterator[dict[str, Any]]:
    asked = ["rank", "customer_id", "from_stage", "to_stage", "play", "channel", "group", "reason_1"]
    for name, rows in lists.items():
        for row in rows.select(asked).to_pylist():
            yield {**row, "list": name}
