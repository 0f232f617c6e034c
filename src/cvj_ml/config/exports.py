"""Exports: which files a night writes for other tools, and from which contact columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from phonenumbers import SUPPORTED_REGIONS
from pydantic import BeforeValidator, Field, field_validator

from cvj_ml.config.base import Section
from cvj_ml.errors import nearest

ExportName = Literal[
    "email",
    "google_customer_match",
    "meta_custom_audience",
    "klaviyo",
    "mailchimp",
    "hubspot",
    "calls",
    "channels",
    "segments",
]

NEEDED_ADDRESSES: Mapping[ExportName, tuple[Literal["email", "phone"], ...]] = {
    "email": ("email",),
    "google_customer_match": ("email", "phone"),
    "meta_custom_audience": ("email", "phone"),
    "klaviyo": ("email", "phone"),
    "mailchimp": ("email",),
    "hubspot": ("email",),
    "calls": ("phone",),
    "channels": (),
    "segments": (),
}
"""The addresses one of which a person must have to be in an export; none for those whose rows are customers."""

# Headings of the exports themselves, in lower case and without blanks and underscores.
_HEADINGS = {"email", "emailaddress", "phone", "phonenumber", "firstname", "customerid", "list", "play", "channel"}


def _as_channels(value: Any) -> Any:
    return [value] if isinstance(value, str) and value != "all" else value


Channels = Annotated[Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)], BeforeValidator(_as_channels)]
"""Channels of the plays, or ``all``, which also takes rows without a channel."""


class ExportsSpec(Section):
    """What a night writes for other tools: ``files`` names each export with the channels that it serves."""

    files: dict[ExportName, Channels] = Field(min_length=1)
    email: str | None = Field(default=None, description="contact column with the e-mail address")
    phone: str | None = Field(default=None, description="contact column with the phone number")
    first_name: str | None = Field(default=None, description="contact column with the first name")
    merge: tuple[str, ...] = Field(default=(), description="contact columns that e-mail and channel files have besides")
    default_country: str | None = Field(default=None, description="of phone numbers without a country code, such as DE")

    @field_validator("default_country")
    @classmethod
    def _known_country(cls, country: str | None) -> str | None:
        if country is not None and country not in SUPPORTED_REGIONS:
            raise ValueError(
                f"{country!r} is no country with phone numbers; write two capital letters of ISO 3166-1, such as DE"
            )
        return country


def exports_faults(spec: ExportsSpec | None, contact: Iterable[str] | None, channels: Iterable[str]) -> list[str]:
    """Return what cannot be kept; contact: the contact columns (None: no such table), channels: those of the plays."""
    if spec is None:
        return []
    if contact is None:
        return ["exports: there is no contact table to take addresses from; name it under contact"]
    known, through, faults = tuple(contact), tuple(channels), []
    named = [(name, getattr(spec, name)) for name in ("email", "phone", "first_name")]
    for place, column in [*named, *(("merge", column) for column in spec.merge)]:
        if column is not None and column not in known:
            faults.append(
                f"exports.{place}: {column!r} is not among contact.columns.{nearest(column, known)}"
                f" They are: {', '.join(known)}"
            )
    for column in spec.merge:
        if column.lower().replace(" ", "").replace("_", "") in _HEADINGS:
            faults.append(f"exports.merge: {column!r} would be a second column of that name; rename it (a query can)")
    if repeated := sorted({column for column in spec.merge if spec.merge.count(column) > 1}):
        faults.append(f"exports.merge: {', '.join(repeated)} is given twice; keep one")
    for export, of in spec.files.items():
        needed = NEEDED_ADDRESSES[export]
        if needed and not any(getattr(spec, one) for one in needed):
            faults.append(f"exports.files.{export}: it needs exports.{' or exports.'.join(needed)}, a contact column")
        for channel in () if of == "all" else of:
            if channel not in through:
                faults.append(
                    f"exports.files.{export}: no play of the journey goes through {channel!r}."
                    f"{nearest(channel, through)} Channels of the plays: {', '.join(through) or 'none'}"
                )
    return faults
