"""Rows that are not used, and why: counted by reason, and kept where a person can look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.errors import DataError
from cvj_ml.ownership import remove
from cvj_ml.store.customer_ids import ids_in_line
from cvj_ml.store.fields import Field
from cvj_ml.store.headers import TextLayout
from cvj_ml.store.source_location import Relation
from cvj_ml.store.sql import as_named, literal
from cvj_ml.windows import Instants, before

REFUSED = -1
"""The bucket of refused rows, where tables are staged."""

QUARANTINE_FILE = "quarantine.parquet"
"""The refused rows of a store, in its folder."""

QUARANTINE = pa.schema(
    [("source", pa.string()), ("reason", pa.string()), ("row", pa.string()), ("customer_ids", pa.list_(pa.string()))]
)
"""``customer_ids``: whose row it is; where no id could be read, all values that may be one."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows of one table; rows_in is the sum of all but ``repeats`` and ``reassigned``.

    Of a melted table each date that is filled is a row, and a row without any is one. ``left_out`` are those, and the
    rows that ``where`` does not name.

    ``repeats`` are exact repeats that were kept; ``reassigned`` are rows whose touchpoint_id also belongs to
    another customer; ``unmatched`` are attribute rows of customers without touchpoints; ``unassigned`` are rows of an
    id that stood for several people, when it was not known whose they are.
    """

    rows_in: int
    stored: int
    refused: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0
    repeats: int = 0
    reassigned: int = 0
    unmatched: int = 0
    unassigned: int = 0
    left_out: int = 0

    def __post_init__(self) -> None:
        accounted = accounted_for(asdict(self))
        assert self.rows_in == accounted, f"{self.rows_in} rows came in, {accounted} are accounted for"


def accounted_for(counts: Mapping[str, Any]) -> int:
    """Return the rows of `Counts`, as a store or a night keeps them, whose fate is told: all that came in, or a fault.

    Nights of old know neither ``left_out`` nor ``unassigned``.
    """
    refused = sum(counts["refused"].values())
    known = ("stored", "duplicates", "unmatched", "unassigned", "left_out")
    return int(refused + sum(counts.get(name, 0) for name in known))


@dataclass(frozen=True, slots=True)
class Usage:
    """What became of stored rows at an instant: used, not yet visible, or replaced by a newer version."""

    used: int
    not_yet_visible: int
    superseded: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.used + other.used,
            self.not_yet_visible + other.not_yet_visible,
            self.superseded + other.superseded,
        )


def account(visible_at: Instants, superseded_at: Instants, as_of: Instants | int) -> Usage:
    """Return how many touchpoints are used at an instant (microseconds), and why others are not."""
    visible, replaced = before(visible_at, as_of), before(superseded_at, as_of)
    return Usage(
        used=int(np.count_nonzero(visible & ~replaced)),
        not_yet_visible=int(np.count_nonzero(~visible)),
        superseded=int(np.count_nonzero(visible & replaced)),
    )


_HINTS = {
    "unreadable line": "if a CSV file is not UTF-8, say so: encoding: windows-1252",
    "unreadable occurred_at": "if times are not ISO 8601, say how they are written: time_format",
    "unreadable known_at": "if times are not ISO 8601, say how they are written: time_format",
    "unreadable value": "if numbers have separators or a currency sign, say which: decimal_mark",
}


def excess(label: str, rows_in: int, refused: Mapping[str, int], share: float) -> list[str]:
    """Return the fault of a table of which more than the allowed share was refused."""
    number = sum(refused.values())
    if number <= share * rows_in:
        return []
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(refused.items()))
    hint = "".join(f"; {text}" for text in dict.fromkeys(_HINTS[one] for one in sorted(refused) if one in _HINTS))
    return [f"{label}: {number} of {rows_in} rows refused, more than refused_share {share:g} allows ({reasons}){hint}"]


def nothing_left(label: str, rows_in: int, refused: Mapping[str, int], left_out: int, silent: str) -> str:
    """Return the fault of a table of which no row is left, with the reasons for each."""
    reasons = [f"{reason}: {count}" for reason, count in sorted(refused.items())]
    reasons += [f"{left_out} by where or melt"] if left_out else []
    told = f" ({', '.join(reasons)})" if reasons else ""
    hints = [_HINTS[one] for one in sorted(refused) if one in _HINTS] + ([silent] if silent else [])
    return "; ".join(
        [f"{label}: {rows_in} rows came in and none is left{told}", *dict.fromkeys(hints), "is the export complete?"]
    )


def told_silent(silent: Mapping[str, list[str]]) -> str:
    """Return in words which ways and dates of ``melt`` found nothing in any row, and what there is; or nothing."""
    told = [f"{way} (there are {', '.join(there)})" if there else way for way, there in silent.items()]
    return f"in no row stands anything in {', '.join(told)}" if told else ""


class RefusedRowsError(DataError):
    """Tables of which too much was refused; the refused rows are kept in a file."""

    def __init__(self, faults: Sequence[str], heading: str, path: Path) -> None:
        super().__init__("\n  - ".join([f"{heading} (the refused rows are in {path})", *faults]))
        self.faults = tuple(faults)


def write_quarantine(table: pa.Table, path: Path) -> None:
    """Write refused rows to a file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove(path, strict=True)
    path.touch(mode=0o600)
    pq.write_table(table.cast(QUARANTINE), path)


def refused_rows(
    source: str,
    files: Sequence[Path],
    relation: Relation | None,
    id_fields: Sequence[Field],
    before: pa.Table,
    connection: duckdb.DuckDBPyConnection,
    contact: str | None = None,
) -> pa.Table:
    """Return the refused rows of a table (staged in files) and those of files read before, in a stable order.

    ``contact`` is the staged column of the person, where rows have one beside the customer.
    """
    parts = [f"SELECT reason, row, customer_ids FROM before WHERE source = {literal(source)}"]
    if files:
        names = ", ".join(map(as_named, files))
        # Of a row without a readable id every value may be the one.
        every = "json_extract_string(row, '$.*')"
        if any(one.way for one in id_fields):
            every = rf"list_concat({every}, regexp_split_to_array(row, '[\s,:{{}}\[\]\"\\]+'))"
        own = "[customer_id]" if contact is None else f"list_filter([customer_id, {contact}], one -> one IS NOT NULL)"
        ids = f"CASE WHEN customer_id IS NULL THEN {every} ELSE {own} END"
        parts.append(f"SELECT reason, row, {ids} FROM read_parquet([{names}], hive_partitioning=false)")
    if relation and relation.unreadable:
        lines = connection.sql(f"SELECT * FROM {relation.rejects}").to_arrow_table().to_pylist()
        fields = [
            {
                "source": source,
                "reason": "unreadable line",
                "row": one["csv_line"],
                "customer_ids": _ids_in_line(one["csv_line"], relation.layout_of(one), id_fields),
            }
            for one in lines
        ]
        connection.register("lines", pa.Table.from_pylist(fields, schema=QUARANTINE))
        parts.append("SELECT reason, row, customer_ids FROM lines")
    connection.register("before", before)
    rows = f"SELECT {literal(source)} AS source, * FROM ({' UNION ALL '.join(parts)}) ORDER BY ALL"
    table = connection.sql(rows).to_arrow_table().cast(QUARANTINE)
    connection.unregister("before")
    if relation and relation.unreadable:
        connection.unregister("lines")
    return table


def _ids_in_line(line: str, layout: TextLayout | None, id_fields: Sequence[Field]) -> list[str]:
    """Return what in a damaged line can be an id: of JSON within a field, any piece of the line."""
    if layout is None or any(one.way for one in id_fields):
        return ids_in_line(line, None, None)
    return sorted({found for one in id_fields for found in ids_in_line(line, layout, one.own)})
