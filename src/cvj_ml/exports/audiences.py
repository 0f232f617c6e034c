"""Who is in which export, and why everybody else is not: permissions are asked once more at this door.

Nobody in control and nobody suppressed is reached by an inclusion, nor is anybody who shares an address with them. An
exclusion holds everybody whom chance put into the control group, listed or not, so that ads leave them alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config.exports import NEEDED_ADDRESSES, ExportName
from cvj_ml.customers import Permissions
from cvj_ml.exports.addresses import NO_CONTACT, AddressFault, Contact, e164, google_email, is_email
from cvj_ml.exports.tools import TOOLS, Tool
from cvj_ml.lists.reasons import COLUMNS

Address = Literal["email", "phone"]

FAULTY: Mapping[AddressFault, Address] = {
    "bad_email": "email",
    "bad_phone": "phone",
    "no_country_code": "phone",
}
"""Which address has the fault."""

NOT_WRITTEN = (*FAULTY, "closed_email", "closed_phone")
"""Why an address is missing in a row that is written."""

CHANNEL_WORDS: Mapping[Address, frozenset[str]] = {
    "email": frozenset({"email", "emails", "mailing", "newsletter"}),
    "phone": frozenset({"phone", "telephone", "mobile", "call", "calls", "sms", "mms", "text", "whatsapp"}),
}
"""A channel whose name has one of these words reaches people by that address; others do by whichever there is."""

ADDRESSES: tuple[Address, ...] = ("email", "phone")
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
    ``not_written`` counts the addresses, by `NOT_WRITTEN`, that are missing for members whom another one brought in.
    """

    export: ExportName
    kind: Literal["inclusion", "exclusion"]
    members: tuple[Member, ...]
    looked_at: int
    left_out: Mapping[str, int]
    not_written: Mapping[str, int]

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

    def closed(self, address: Address, customer: str, mailbox: str, served: Collection[str | None]) -> bool:
        """Return whether none of an export's channels that use an address is open to a customer and the mailbox.

        Where the export serves no channel of this address, those of neither address use it, whatever they are; then
        a suppression for any channel of the address closes it, too.
        """
        own = [channel for channel in served if address in _uses(channel)]
        others = [channel for channel in served if not _uses(channel)]
        of_address = [] if own else [channel for channel in self._suppressed if address in _uses(channel)]
        return not any(
            self.refusal(customer, (channel, *of_address), (channel,)) is None
            and not self.holds_back(mailbox, (channel, *of_address), control=False)
            for channel in own or others
        )

    def _mailboxes(self, customers: Iterable[str]) -> set[str]:
        return {box for one in customers if one in self.contacts for box in self.contacts[one].mailboxes}


@cache
def _uses(channel: str | None) -> frozenset[Address]:
    """Return the addresses by which a channel reaches people, by the words of its name; often none."""
    words = set(re.findall(r"[a-z]+", (channel or "").lower().replace("e-mail", "email")))
    return frozenset(address for address, known in CHANNEL_WORDS.items() if words & known)


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

    return _audience(export, "inclusion", candidates(), served, door)


def of_segments(segments: Mapping[str, pa.Table], served: Collection[str | None], door: Door) -> Audience:
    """Return everybody of the ready segments who may be reached through one of the served channels.

    segments: ``customer_id`` and ``stage`` by name; nobody is in two of them.
    """

    def candidates() -> Iterator[_Candidate]:
        for name, rows in segments.items():
            for row in rows.select(["customer_id", "stage"]).to_pylist():
                customer = row["customer_id"]
                refusals = {channel: door.refusal(customer, (channel,), (channel,)) for channel in served}
                through = [channel for channel, refusal in refusals.items() if refusal is None]
                reason = "control" if customer in door.control else None
                if reason is None and not through:
                    reason = next(iter(refusals.values()))
                yield _Candidate(customer, {**row, "segment": name}, reason, through)

    return _audience("segments", "inclusion", candidates(), served, door)


def exclusion(export: ExportName, served: Collection[str | None], door: Door) -> Audience:
    """Return everybody in control whose address an ad platform may be given.

    served: channels, as of the inclusion; who is suppressed for any of them, or agreed to none, is not named to it.
    """
    candidates = (_Candidate(one, {}, door.refusal(one, served, served), served) for one in sorted(door.control))
    return _audience(export, "exclusion", candidates, served, door)


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
    served: Collection[str | None],
    door: Door,
) -> Audience:
    """Let candidates in, one after the other, and count those who stay outside.

    To an ad platform an address is what it finds people by, for channels that are all asked already; in any other file
    it is for writing or calling, so one whose channels are closed is not in it.
    """
    tool, needed = TOOLS[export], NEEDED_ADDRESSES[export]
    members: dict[str, Member] = {}
    taken, looked_at = set[str](), 0
    left_out, not_written = Counter[str](), Counter[str]()
    for one in candidates:
        looked_at += 1
        contact = door.contacts.get(one.customer_id, NO_CONTACT)
        found, boxes, missing = _addresses(tool, contact)
        reason = one.refusal or ("other_list" if one.customer_id in members else None)
        if reason is None and needed and found.keys().isdisjoint(needed):
            reason = next((fault for fault in missing if FAULTY[fault] in needed), "no_address")
        inside = kind == "inclusion"
        if reason is None and any(door.holds_back(box, one.closing, control=inside) for box in boxes.values()):
            reason = "held_back_address"
        closed = list[Address]()
        if reason is None and not tool.exclusion:
            closed = [name for name in found if door.closed(name, one.customer_id, boxes[name], served)]
            if needed and not any(name in needed and name not in closed for name in found):
                reason = "closed_address"
        mine = {box for name, box in boxes.items() if name not in closed}
        if reason is None and needed and not mine.isdisjoint(taken):
            reason = "shared_address"
        if reason is not None:
            left_out[reason] += 1
            continue
        taken |= mine
        not_written.update([*missing, *(f"closed_{name}" for name in closed)])
        email, phone = ("" if name in closed else found.get(name, "") for name in ADDRESSES)
        members[one.customer_id] = Member(one.customer_id, email, phone, one.row, contact)
    return Audience(export, kind, tuple(members.values()), looked_at, left_out, not_written)


def _addresses(tool: Tool, contact: Contact) -> tuple[dict[Address, str], dict[Address, str], list[AddressFault]]:
    """Return the addresses as the tool's file has them, their mailboxes, and the faults of what is missing.

    Two people share an address if a message to it reaches both, however it is written: they have one mailbox. Of an
    address that the file has no column for nothing is returned.
    """
    found, boxes, faults = dict[Address, str](), dict[Address, str](), list[AddressFault]()
    if tool.has("email") and contact.email.strip():
        address = tool.email(contact.email)
        if is_email(address):
            found["email"], boxes["email"] = tool.written_email(address), google_email(contact.email)
        else:
            faults.append("bad_email")
    if tool.has("phone"):
        if contact.phone is not None:
            boxes["phone"] = e164(contact.phone)
            found["phone"] = tool.written_phone(boxes["phone"])
        faults += [contact.phone_fault] if contact.phone_fault else []
    return found, boxes, faults


def _rows(lists: Mapping[str, pa.Table]) -> Iterator[dict[str, Any]]:
    asked = ["rank", "customer_id", "from_stage", "to_stage", "play", "channel", "group", *COLUMNS]
    for name, rows in lists.items():
        for row in rows.select(asked).to_pylist():
            yield {**row, "list": name}
