"""What the columns of a table look like: enough to guess what each of them means, counted exactly."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Literal

from cvj_ml.config import DecimalMark
from cvj_ml.schemas import TOUCHPOINT_ROLES
from cvj_ml.store.fields import Field
from cvj_ml.store.sql import identifier, literal


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case, without accents: ``InvoiceDate`` is ``invoice date``."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", parted) if not unicodedata.combining(sign))
    return tuple(re.findall(r"[^\W\d_]+|\d+", plain.casefold()))


def property_names(columns: Iterable[str]) -> dict[str, str]:
    """Return column to its name as a property: its words, each once, and never a role's.

    A column ``value`` that was found to be no value is ``value_as_written``; a second ``plan type`` is ``plan_type_2``.
    """
    found: dict[str, str] = {}
    for one in columns:
        name = "_".join(words(one)) or "column"
        name = f"{name}_as_written" if name in TOUCHPOINT_ROLES else name
        taken = {*found.values()}
        copies = (f"{name}_{number}" for number in count(2))
        found.setdefault(one, name if name not in taken else next(copy for copy in copies if copy not in taken))
    return found


Kind = Literal["time", "number", "text", "other"]

NAMES = 200
"""A column of at most so many different texts has them counted."""

PLACEHOLDERS = frozenset(
    [
        "null", "(null)", "<null>", "undefined", "nan", "none", "(none)", "nil", "\\n", "na", "n/a", "#n/a", "#ref!",
        "#value!", "(not set)", "not set", "[object object]", "unknown", "(unknown)", "anonymous", "guest", "missing",
        "empty", "(empty)", "blank", "(blank)", "-", "--", "?", "false", "true", "test", "deleted", "[deleted]",
        "not available", "(not provided)", "unbekannt", "inconnu", "desconocido", "onbekend",
        "00000000-0000-0000-0000-000000000000",
        "walk-in", "walkin", "walk in", "walk-in customer", "walkin customer", "walk in customer", "cash customer",
        "house account", "laufkunde", "barverkauf", "total", "totals", "grand total", "sum", "summe", "gesamt",
        "gesamtsumme", "total general",
        "{{user_id}}", "${user_id}", "%user_id%", "0", "-1",
    ]
)  # fmt: skip
"""What systems write, in lower case, where they do not know who it was, or where a row is nobody's, as a total's is."""
NO_NUMBER = "0{4,}"
"""Zeros alone, where ids are filled up with them."""

TRIMMED = r"regexp_replace({}, '^[\s\p{{Z}}\x{{FEFF}}\x{{200B}}\"'']+|[\s\p{{Z}}\x{{FEFF}}\x{{200B}}\"'']+$', '', 'g')"


def spellings(text: str) -> dict[str, str]:
    """Return in what two spellings of one id may differ, with SQL of the id without that and what stands before it."""
    trimmed = TRIMMED.format(text)
    address = f"regexp_replace(lower({trimmed}), '^.*<([^<>@ ]+@[^<> ]+)>$', '\\1')"
    return {
        "blanks": trimmed,
        "upper and lower case": f"lower({trimmed})",
        "a name before an address": address,
        "zeros in front or .0 behind": f"regexp_replace({address}, '^0*([0-9]+?)([.]0+)?$', '\\1')",
    }


def may_be_somebody(value: str) -> bool:
    """Return whether a placeholder is a number, such as 0, -1 or 000000: it is somebody's id, or an amount, as well."""
    return value.strip() == "-1" or not value.strip().strip("0")


MOSTLY = 0.95
"""Of the values of a column so many have to be times, or numbers, that the others are taken for faults."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column: what it holds, in how many rows, and how many different values.

    ``names`` counts the values of a column of few different texts; ``most`` are the rows of the commonest value;
    ``negative`` are the rows below zero; ``unread`` are the rows that hold something else than the kind says.
    ``offsets`` are the rows of a time in ISO 8601 that name their offset. Between ``first`` and ``last``, in the file's
    own clock, lie the rows of a time that are neither of the future (``ahead``) nor from before 1990 (``ancient``).
    ``time_format`` and ``decimal_mark`` are what the configuration has to say of text that is a time, or a number;
    ``or_format`` fits all rows as well, and ``also`` reads rows that
    ``time_format`` does not; a ``monthly`` one names months, and each row is read as of the last day of its month.
    ``pointed`` are whole numbers that text writes as ``12.0``, ``scientific`` as
    ``1.2E+15``. ``placeholders`` are values that mean nobody, with their rows; ``emails`` and ``people`` are the
    values that look like an address, or like somebody's name.
    """

    name: str
    kind: Kind
    type: str
    filled: int
    distinct: int
    whole: bool = False
    negative: int = 0
    unread: int = 0
    most: int = 0
    names: Mapping[str, int] | None = None
    first: datetime | None = None
    last: datetime | None = None
    ahead: int = 0
    ancient: int = 0
    days_only: bool = False
    zoned: bool = False
    time_format: str | None = None
    or_format: str | None = None
    also: tuple[str | None, int] | None = None
    monthly: bool = False
    offsets: int = 0
    decimal_mark: DecimalMark | None = None
    pointed: bool = False
    scientific: int = 0
    placeholders: Mapping[str, int] | None = None
    emails: int = 0
    people: int = 0
    moment: str = ""
    """SQL of a time's microseconds."""
    way: str | None = None
    """SQL of what stands in a nested column, of which the name is the way into it."""

    @property
    def sql(self) -> str:
        """Return SQL of the column in a query over the file."""
        return self.way or identifier(self.name)

    @property
    def is_written_plainly(self) -> bool:
        """Return whether ``time_format`` says all of how a time is read, and no query is needed."""
        return self.also is None and not self.monthly

    @property
    def nobody(self) -> int:
        """Return the rows that hold a placeholder."""
        return sum((self.placeholders or {}).values())

    @property
    def somebody(self) -> int:
        """Return the rows that hold anything but a placeholder."""
        return self.filled - self.nobody

    @property
    def ids(self) -> int:
        """Return how many different values there are but for placeholders."""
        return self.distinct - len(self.placeholders or ())


def text_of(field: Field) -> str:
    """Return SQL for what stands in a column as text; the empty text is null."""
    return f"nullif({field.text}, '')"


def is_one_of(own: str, texts: Iterable[str]) -> str:
    """Return SQL of whether a column holds one of these texts; where there are none, whether it holds any."""
    listed = ", ".join(map(literal, texts))
    return f"{own} IN ({listed})" if listed else f"nullif(trim(CAST({own} AS VARCHAR)), '') IS NOT NULL"
