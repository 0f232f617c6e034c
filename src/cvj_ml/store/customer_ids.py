"""The one reading of customer ids: which writings are the same id, and which only look as if they were.

Every id, of a log, a permission table, the quarantine or a file of ids, is first text (``mapping.read_id``) and then
read by the configuration's ``ids.match``, here. ``exact`` takes the text as it is. ``trimmed`` takes away invisible
characters, white space around it and one pair of quotation marks. ``folded`` also takes away what Unicode calls
compatibility (NFKC: full-width forms, ligatures) and the difference of capital and small letters.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import ARROW, SPECIAL
from duckdb.sqltypes import VARCHAR

from cvj_ml.config import Match
from cvj_ml.store.headers import TextLayout

# Unicode's Default_Ignorable_Code_Point: zero-width characters, byte order mark, direction marks, soft hyphen …
_INVISIBLE = (
    r"[\x{ad}\x{34f}\x{61c}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180f}\x{200b}-\x{200f}\x{202a}-\x{202e}"
    r"\x{2060}-\x{206f}\x{3164}\x{fe00}-\x{fe0f}\x{feff}\x{ffa0}\x{fff0}-\x{fff8}\x{1bca0}-\x{1bca3}"
    r"\x{1d173}-\x{1d17a}\x{e0000}-\x{e0fff}]"
)
_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))
_PAIRS = ('""', "''", "``", "“”", "„“", "”“", "‘’", "‚‘", "«»", "»«", "‹›", "›‹")
_QUOTED = "(?s)^(?:" + "|".join(f"{pair[0]}.*{pair[1]}" for pair in _PAIRS) + ")$"

# How spreadsheets and scripts damage an id that looks like a number: ="007", '007, 7.0 and 7 for 007.
_GUARD = """(?s)^[='"`‘’“”]+(.*?)['"`‘’“”]*$"""
_DECIMALS = r"^([0-9]+)[.,]0+$"
_ZEROS = r"(?s)^0+(.)"

_SQL: dict[Match, str] = {"trimmed": "trimmed_id", "folded": "folded_id"}


_PERSON = "\x1f"
"""What stands before the id of a person while it is not known for which account a row counts; no id begins with it."""

OF_PERSON = f"starts_with(customer_id, '{_PERSON}')"
"""SQL of whether a row is staged under the id of a person."""


def origin_of(contact: str) -> str:
    """Return the id under which rows of a person are staged that name no account."""
    return _PERSON + contact


def canonical(ids: pa.Array | pa.ChunkedArray, match: Match) -> pa.Array:
    """Return ids as they are read by ``match``; an id of which nothing is left is null, as a null is."""
    text = _one(ids)
    if match == "exact":
        return text
    text = _trimmed(text)
    if match == "folded":
        # Once it is folded, a full-width quotation mark or space is one as well.
        text = _where(_not_ascii(text), lambda some: _trimmed(_folded(some)), pc.ascii_lower(text))
    return _where(pc.equal(text, ""), lambda none: pa.nulls(len(none), pa.string()), text)


def loosest(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return what is left of ids in the loosest reading: of two that are equal in it one may be damaged."""
    text = _replaced(canonical(ids, "folded"), _GUARD, r"\1")
    return _replaced(_replaced(canonical(text, "folded"), _DECIMALS, r"\1"), _ZEROS, r"\1")


def define_reading(connection: duckdb.DuckDBPyConnection, match: Match) -> None:
    """Teach a connection the reading that ``canonical_sql`` calls."""
    for one, name in _SQL.items():
        # What is folded is compared with what is only trimmed.
        if match in (one, "folded"):
            connection.create_function(name, _reading(one), [VARCHAR], VARCHAR, type=ARROW, null_handling=SPECIAL)


def _reading(match: Match) -> Callable[[pa.ChunkedArray], pa.Array]:
    return lambda ids: canonical(ids, match)


def canonical_sql(text: str, match: Match) -> str:
    """Return SQL that agrees with ``canonical``, for a connection of this configuration."""
    return text if match == "exact" else f"{_SQL[match]}({text})"


def ids_in_line(line: str, layout: TextLayout | None, column: str | None) -> list[str]:
    """Return every field of a damaged line that can be the customer's id.

    With too many or too few fields the id's place is not certain, but it is within as many fields of its own. Where a
    quotation mark or an end of a line is the damage, nothing says where fields end, so any piece of it may be it.
    """
    if layout is None:  # a row of a Parquet file, as JSON of what could be read of it
        return sorted({*re.split(r'[\s,:{}"]+', line)} - {""})
    delimiter, columns = layout.delimiter, layout.columns
    if column is None or column not in columns:
        return []
    try:
        fields = [] if line.count('"') % 2 else next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        fields = []
    if not fields:
        return sorted({*re.split(f'["{re.escape(delimiter)}\r\n]', line)} - {""})
    place, more = columns.index(column), len(fields) - len(columns)
    return sorted({*fields[max(place + min(more, 0), 0) : place + max(more, 0) + 1]} - {""})


@dataclass(frozen=True, slots=True)
class CustomerIds:
    """Ids as they are read, and whether those of a table are among them."""

    ids: pa.Array
    match: Match

    @classmethod
    def of(cls, ids: Sequence[str], match: Match) -> CustomerIds:
        """Return the ids that these texts are, each once, in order."""
        read = canonical(pa.array(ids, pa.string()), match).drop_null().unique()
        return cls(read.take(pc.sort_indices(read)), match)

    def holds(self, ids: pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
        """Return which of these ids, as they were read or as they are written, are among them."""
        text = canonical(ids, "exact")
        # As they are, too: an id that was read before may be another one if it is read again.
        return pc.or_(pc.is_in(text, value_set=self.ids), pc.is_in(canonical(text, self.match), value_set=self.ids))

    def among(self, ids: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return those that these ids name, as they were read or as they are written."""
        text = canonical(ids, "exact")
        found = [one.filter(pc.is_in(one, value_set=self.ids)) for one in (text, canonical(text, self.match))]
        return pa.concat_arrays(found).unique()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Known:
    """The customers of a log, and how another table's ids (as read) name them."""

    ids: pa.Array
    match: Match

    def named(self, ids: pa.Array) -> pa.BooleanArray:
        """Return which ids are a customer's."""
        return pc.is_in(ids, value_set=self.ids)

    def nearly(self, ids: pa.Array) -> pa.Array:
        """Return by which looser reading each id, nobody's as it is read, would be somebody's; null: by none."""
        found = pa.nulls(len(ids), pa.string())
        log = loosest(self.ids)
        near = pc.index_in(loosest(ids), value_set=log)
        rows = pc.indices_nonzero(near.is_valid())
        if not len(rows):
            return found
        some = ids.take(rows)
        theirs = self.ids.filter(pc.is_in(log, value_set=log.take(near.take(rows))))
        ways = pa.array(["number"] * len(rows))
        looser: tuple[Match, ...] = ("folded", "trimmed")
        for way in looser:  # the stricter one last: it is the one to be told
            would = pc.is_in(canonical(some, way), value_set=canonical(theirs, way))
            ways = pc.if_else(would, way, ways)
        return pc.replace_with_mask(found, near.is_valid(), ways)

    @property
    def foldable(self) -> bool:
        """Whether no two of these customers would be one if their ids were folded."""
        trimmed = canonical(self.ids, "trimmed").drop_null().unique()
        return len(canonical(trimmed, "folded").unique()) == len(trimmed)


def _trimmed(text: pa.Array) -> pa.Array:
    text = _where(_not_ascii(text), lambda some: pc.replace_substring_regex(some, _INVISIBLE, ""), text)
    text = pc.utf8_trim(text, characters=_SPACE)
    quoted = pc.match_substring_regex(text, _QUOTED)
    return _where(quoted, lambda some: pc.utf8_trim(pc.utf8_slice_codeunits(some, 1, -1), characters=_SPACE), text)


def _folded(text: pa.Array) -> pa.Array:
    # Arrow's own NFKC leaves accents apart from their letters.
    whole = (unicodedata.normalize("NFKC", one).casefold() for one in text.to_pylist())
    return pa.array([unicodedata.normalize("NFKC", one) for one in whole], pa.string())


def _not_ascii(text: pa.Array) -> pa.BooleanArray:
    return pc.invert(pc.string_is_ascii(text))


def _replaced(text: pa.Array, pattern: str, replacement: str) -> pa.Array:
    """Replace where a pattern matches; to look first is cheaper, since few ids match any."""
    matches = pc.match_substring_regex(text, pattern)
    return _where(matches, lambda some: pc.replace_substring_regex(some, pattern, replacement), text)


def _where(mask: pa.BooleanArray, change: Callable[[pa.Array], pa.Array], text: pa.Array) -> pa.Array:
    """Return the text with some rows changed."""
    mask = pc.fill_null(mask, False)
    return pc.replace_with_mask(text, mask, change(text.filter(mask))) if mask.true_count else text


def _one(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array of text."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
        ids = ids if isinstance(ids, pa.Array) else pa.concat_arrays(ids.chunks)
    return ids.cast(pa.string())
