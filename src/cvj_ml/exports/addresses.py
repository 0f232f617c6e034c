"""Addresses as the tools want them: e-mail addresses and phone numbers normalised, checked and hashed.

The rules are those of the tools' own pages, which docs/exports.md names. Numbers are read by Google's rules for the
world's numbering plans (the library phonenumbers): in Italy the leading zero stays, in Germany it goes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import ExportsSpec

AddressFault = Literal["bad_email", "bad_phone", "no_country_code"]

_PART = r"[^\s@<>()\[\]\\,;:\"]+"
_EMAIL = re.compile(rf"{_PART}@{_PART}\.{_PART}")
_GMAIL = ("gmail.com", "googlemail.com")


def trimmed_email(text: str) -> str:
    """Return an address to write to, as it is, without white space around it."""
    return text.strip()


def meta_email(text: str) -> str:
    """Return an address as Meta hashes it: without white space around it, in lower case."""
    return text.strip().lower()


def google_email(text: str) -> str:
    """Return an address as Google hashes it: lower case, no white space; of Gmail no dots and no ``+suffix`` either."""
    address = "".join(text.split()).lower()
    local, at, domain = address.rpartition("@")
    return local.replace(".", "").partition("+")[0] + at + domain if domain in _GMAIL else address


def is_email(address: str) -> bool:
    """Return whether a text has the form of one address, without invisible characters."""
    return address.isprintable() and _EMAIL.fullmatch(address) is not None


def meta_phone(number: str) -> str:
    """Return an E.164 number as Meta hashes it: country code and digits, without the plus sign."""
    return number.removeprefix("+")


def sha256(text: str) -> str:
    """Return the sha256 of a text, as lower-case hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_phone(text: str, country: str | None) -> tuple[phonenumbers.PhoneNumber | None, AddressFault | None]:
    """Return a phone number, or why there is none; of neither, the text is empty.

    ``country``: two letters, where numbers without a country code belong; without it such a number is a fault. A number
    counts if its length is possible in its country: which ranges are assigned changes from month to month.
    """
    if not text.strip():
        return None, None
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException as error:
        unknown = error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE
        local = country is None and not text.lstrip().startswith(("+", "＋"))
        return None, "no_country_code" if unknown and local else "bad_phone"
    length = phonenumbers.is_possible_number_with_reason(number)
    return (number, None) if length == phonenumbers.ValidationResult.IS_POSSIBLE else (None, "bad_phone")


def e164(number: phonenumbers.PhoneNumber) -> str:
    """Return a number as +, country code and digits; an extension is not part of it."""
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def readable(number: phonenumbers.PhoneNumber) -> str:
    """Return a number in groups of digits for people, with its extension."""
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)


@dataclass(frozen=True, slots=True)
class Contact:
    """How to reach a customer: the e-mail address as it came (empty: none), the phone number, and the merge fields.

    ``mailboxes`` tell whether two customers share an address, however it is written.
    """

    email: str
    phone: phonenumbers.PhoneNumber | None
    phone_fault: AddressFault | None
    first_name: str
    merge: Mapping[str, str]
    mailboxes: frozenset[str]


NO_CONTACT = Contact("", None, None, "", {}, frozenset())


def contacts_of(spec: ExportsSpec, table: pa.Table, customers: pa.Array) -> dict[str, Contact]:
    """Return how to reach some customers; who has no row in the contact table is not among them.

    table: ``customer_id`` (unique) and the contact columns, all text. Line breaks and runs of blanks in names and merge
    fields become one blank: a tool that reads lines would break a row in two.
    """
    rows = table.filter(pc.is_in(table["customer_id"], value_set=customers))
    nothing = [""] * len(rows)

    def column(name: str | None) -> list[str]:
        return nothing if name is None else [text or "" for text in rows[name].to_pylist()]

    merge = {name: list(map(_one_line, column(name))) for name in spec.merge}
    found = {}
    columns = (rows["customer_id"].to_pylist(), column(spec.email), column(spec.phone), column(spec.first_name))
    for place, (customer, email, phone, first_name) in enumerate(zip(*columns, strict=True)):
        number, fault = read_phone(phone, spec.default_country)
        fields = {name: texts[place] for name, texts in merge.items()}
        boxes = {google_email(email)} if is_email(google_email(email)) else set()
        boxes |= set() if number is None else {e164(number)}
        found[customer] = Contact(email, number, fault, _one_line(first_name), fields, frozenset(boxes))
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())
