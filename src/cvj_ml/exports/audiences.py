"""Who is in which export, and why everybody else is not: permissions are asked once more at this door.

Nobody in control and nobody suppressed is reached by an inclusion, nor is anybody who shares an address with them. An
exclusion holds everybody whom chance put into the control group, listed or not, so that ads leave them alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
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
    row: Row
    contact: Contact

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
    """Who may be reached, by the tables of permissions and the control group alone, and which addresses must not be.

    Asked is with channels: those of which each ``closing`` one suppresses, and those of which one ``agreeing`` one is
    enough. The channel None is any way at all: closed to whoever is suppressed everywhere, open to whoever agreed to
    anything.
    """

    def __init__(self, permissions: Permissions, contacts: Mapping[str, Contact], control: Collection[str]) -> None:
        self.contacts, self.control = contacts, control
        self._suppressed = _by_channel(permissions.suppression)
        self._consent = None if permissions.consent is None else _by_channel(permissions.consent)
        self._anything = set[str]().union(*(self._consent or {}).values())
        self._spared = self._mailboxes(control)
        self._held: dict[frozenset[str | None], set[str]] = {}

    def refusal(
        self, customer: str, closing: Iterable[str | None], agreeing: Iterable[str | None]
    ) -> Literal["suppressed", "no_consent"] | None:
        """Return why a customer must not be reached; None where nothing speaks against it."""
        if any(customer in self._suppressed.get(channel, ()) for channel in (None, *closing)):
            return "suppressed"
        if self._consent is None or customer in self._consent.get(None, ()):
            return None
        agreed = (self._anything if channel is None else self._consent.get(channel, ()) for channel in agreeing)
        return None if any(customer in of for of in agreed) else "no_consent"

    def holds_back(self, mailbox: str, closing: Collection[str | None], *, control: bool) -> bool:
        """Return whether an address belongs to somebody suppressed, in the log or not, or in the control group."""
        channels = frozenset({None, *closing})
        if channels not in self._held:
            suppressed = set[str]().union(*(self._suppressed.get(channel, ()) for channel in channels))
            self._held[channels] = self._mailboxes(suppressed)
        return mailbox in self._held[channels] or (control and mailbox in self._spared)

    def _mailboxes(self, customers: Iterable[str]) -> set[str]:
        return {box for one in customers if one in self.contacts for box in self.contacts[one].mailboxes}


def _by_channel(table: pa.Table | None) -> dict[str | None, set[str]]:
    """Return the customers named for each channel, and under None for every channel."""
    found: dict[str | None, set[str]] = {}
    if table is not None:
        for channel in table["channel"].unique().to_pylist():
            same = pc.is_null(table["channel"]) if channel is None else pc.equal(table["channel"], channel)
            found[channel] = set(table.filter(same)["customer_id"].to_pylist())
    return found


def inclusion(
    export: ExportName, served: Collection[str | None], lists: Mapping[str, pa.Table], door: Door
) -> Audience:
    """Return whom an export brings to a tool: each person once, from the first list whose channel it serves.

    served: channels, None among them where rows without one count, too; lists: TARGETS by name. To an ad platform
    nobody is named who is suppressed for any channel that the export serves: which of them its ads are, nobody says.
    """
    platform = TOOLS[export].exclusion

    def candidates() -> Iterator[_Candidate]:
        for row in _rows(lists):
            customer, channel = row["customer_id"], row["channel"]
            closing = served if platform else (channel,)
            reason = "other_channel" if channel not in served else None
            if row["group"] != "target" or customer in door.control:
                reason = "control"
            yield _Candidate(customer, row, reason or door.refusal(customer, closing, (channel,)), closing)

    return _audience(export, "inclusion", candidates(), door)


def exclusion(export: ExportName, served: Collection[str | None], door: Door) -> Audience:
    """Return everybody in control whose address an ad platform may be given.

    served: channels, as of the inclusion; who is suppressed for any of them, or agreed to none, is not named to it.
    """
    candidates = (_Candidate(one, {}, door.refusal(one, served, served), served) for one in sorted(door.control))
    return _audience(export, "exclusion", candidates, door)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Somebody who may come into an export, why not, and the channels for which nobody in it may be suppressed."""

    customer_id: str
    row: Row
    refusal: str | None
    closing: Collection[str | None]


def _audience(
    export: ExportName,
    kind: Literal["inclusion", "exclusion"],
    candidates: Iterable[_Candidate],
    door: Door,
) -> Audience:
    """Let candidates in, one after the other, and count those who stay outside."""
    tool, needed = TOOLS[export], NEEDED_ADDRESSES[export]
    members: dict[str, Member] = {}
    taken, looked_at = set[str](), 0
    left_out, not_written = Counter[str](), Counter[AddressFault]()
    for one in candidates:
        looked_at += 1
        contact = door.contacts.get(one.customer_id, NO_CONTACT)
        email, number, missing = _addresses(tool, contact)
        written = {"email": email, "phone": number}
        # Two people share an address if a message to it reaches both, however it is written.
        boxes = {box for box in (email and google_email(contact.email), number) if box}
        reason = one.refusal or ("other_list" if one.customer_id in members else None)
        if reason is None and needed and not any(there for name, there in written.items() if name in needed):
            reason = next((fault for fault in missing if FAULTY[fault] in needed), "no_address")
        inside = kind == "inclusion"
        if reason is None and any(door.holds_back(box, one.closing, control=inside) for box in boxes):
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
    if tool.has("email") and contact.email.strip():
        address = tool.email(contact.email)
        if not is_email(address):
            address, faults = "", ["bad_email"]
    if tool.has("phone"):
        number = "" if contact.phone is None else e164(contact.phone)
        faults += [contact.phone_fault] if contact.phone_fault else []
    return address and tool.written_email(address), number, faults


def _rows(lists: Mapping[str, pa.Table]) -> Iterator[dict[str, Any]]:
    asked = ["rank", "customer_id", "from_stage", "to_stage", "play", "channel", "group", "reason_1"]
    for name, rows in lists.items():
        for row in rows.select(asked).to_pylist():
            yield {**row, "list": name}
