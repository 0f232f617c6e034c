"""The tools: the columns of their import files, and how each wants its addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cvj_ml.config.exports import ExportName
from cvj_ml.exports.addresses import google_email, meta_email, meta_phone, sha256, trimmed_email


def _same(number: str) -> str:
    return number


@dataclass(frozen=True, slots=True)
class Tool:
    """An import file: its headings with what stands below each, and how addresses are written in it.

    ``email`` normalises the address as it came, ``phone`` the number in E.164; ``hashed`` files hold the sha256 of
    both. An ad platform has an ``exclusion`` file, too, of those whom its ads must leave alone. A file with ``merge``
    ends with the merge fields.
    """

    columns: Mapping[str, str]
    email: Callable[[str], str] = trimmed_email
    phone: Callable[[str], str] = _same
    hashed: bool = False
    exclusion: bool = False
    merge: bool = False

    def written_email(self, address: str) -> str:
        """Return a normalised address as it stands in the file."""
        return sha256(address) if self.hashed else address

    def written_phone(self, number: str) -> str:
        """Return a number in E.164 as it stands in the file."""
        return sha256(self.phone(number)) if self.hashed else self.phone(number)

    def has(self, content: str) -> bool:
        """Return whether the file has a column for something."""
        return content in self.columns.values()


_WHAT_TO_DO = {"List": "list", "Play": "play", "Channel": "channel", "Customer ID": "customer_id"}
_PLAIN = {name: name for name in ("customer_id", "first_name", "email", "phone")}
_PLAIN |= {name: name for name in ("list", "rank", "from_stage", "to_stage", "play", "channel")}

TOOLS: Mapping[ExportName, Tool] = {
    "email": Tool(
        {name: name for name in ("email", "first_name", "customer_id", "list", "from_stage", "to_stage", "play")},
        merge=True,
    ),
    "google_customer_match": Tool({"Email": "email", "Phone": "phone"}, google_email, hashed=True, exclusion=True),
    "meta_custom_audience": Tool(
        {"email": "email", "phone": "phone"}, meta_email, meta_phone, hashed=True, exclusion=True
    ),
    "klaviyo": Tool({"Email Address": "email", "Phone Number": "phone", "First Name": "first_name", **_WHAT_TO_DO}),
    "mailchimp": Tool({"Email Address": "email", "First Name": "first_name", **_WHAT_TO_DO}),
    "hubspot": Tool({"Email": "email", "First Name": "first_name", "Phone Number": "phone", **_WHAT_TO_DO}),
    "calls": Tool({name: name for name in _PLAIN if name != "email"}, merge=True),
    "channels": Tool(_PLAIN, merge=True),
    "segments": Tool(
        {name: name for name in ("customer_id", "first_name", "email", "phone", "segment", "stage")}, merge=True
    ),
}
