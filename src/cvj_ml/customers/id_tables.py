"""A table with one id column and some texts: whom it names, where, and that it was not written meanwhile.

Its rows are people, so none may be lost in silence: a blank row or a comment inside a CSV file is told as a fault, and
each row keeps its place, by which it can be told without its id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import Config, TableSpec
from cvj_ml.errors import DataError, raise_all
from cvj_ml.ownership import claim, scratch
from cvj_ml.store.customer_ids import CustomerIds, ids_in_line
from cvj_ml.store.fields import map_fields
from cvj_ml.store.formats import open_text
from cvj_ml.store.headers import TextLayout
from cvj_ml.store.mapping import read_customer_id, read_label
from cvj_ml.store.postgres_source import Databases
from cvj_ml.store.source_location import (
    Fingerprint,
    Relation,
    SourceLocation,
    fingerprints,
    input_files,
    land,
    locate,
    read_rows,
)
from cvj_ml.store.sql import connect_duckdb, identifier, within_memory

_MOST_TOLD = 10
_BLANK = r"^[\s,;|]*$"

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows stand: the file, and the line in it (of CSV) or the number of the row."""

    files: tuple[str, ...]
    unit: str
    file: _Numbers
    number: _Numbers

    def take(self, rows: pa.Array | _Numbers) -> Places:
        """Return the places of some rows."""
        at = np.asarray(rows)
        return replace(self, file=self.file[at], number=self.number[at])

    def __str__(self) -> str:
        """Name the places, the first ones of many."""
        told = []
        for index in np.unique(self.file):
            numbers = np.unique(self.number[self.file == index])
            more = f" and {len(numbers) - _MOST_TOLD:,} more" if len(numbers) > _MOST_TOLD else ""
            several = "s" if len(numbers) > 1 else ""
            shown = ", ".join(map(str, numbers[:_MOST_TOLD]))
            told.append(f"{self.files[index]}, {self.unit}{several} {shown}{more}")
        return "; ".join(told)


@dataclass(frozen=True, slots=True)
class CustomerTable:
    """Rows with a readable ``customer_id``, sorted, all columns text, and where each stood.

    ``refused`` says how many had to be left out, and why.
    """

    label: str
    rows: pa.Table
    places: Places
    refused: Mapping[str, int]
    spec: TableSpec
    files: list[Fingerprint]

    def require_unchanged(self) -> None:
        """Raise DataError where a file is not what was read any more."""
        _require_same(self.label, self.spec, self.files)


def read_customers(label: str, spec: TableSpec, columns: Mapping[str, str], config: Config) -> CustomerTable:
    """Read a table's columns (name here → name there, ``customer_id`` among them).

    Raises DataError for missing, unreadable or changing files, for missing columns, blank rows and comments.
    """
    # Before anything of them is read: what changes from here on is seen.
    files = fingerprints(input_files(label, spec))
    read = _read(label, spec, columns, config)
    _require_same(label, spec, files)
    faults: list[str] = []
    table, places, unread = _placed(spec, read, faults)
    raise_all(DataError, _heading(label), faults)
    nobody = table["customer_id"].is_null().to_numpy()
    wrong = int(np.count_nonzero(nobody & table["is_there"].to_numpy()))
    refused = {
        "unreadable customer_id": wrong,
        "no customer_id": int(nobody.sum()) - wrong,
        "unreadable line": len(unread) if read.location.untyped else read.unreadable,
    }
    names = list(columns)
    kept = table.select(names).append_column("place", pa.array(np.arange(len(table)))).filter(pa.array(~nobody))
    kept = kept.sort_by([(column, "ascending") for column in [*names, "place"]])
    rows = kept.select(names)
    at = kept["place"].to_numpy()
    # The rows of a query or a server stand in no order of their own, so they are told in that of their content.
    placed = places.take(at) if places else _in_order(spec, len(rows))
    counted = {reason: count for reason, count in refused.items() if count}
    return CustomerTable(label, rows, placed, counted, spec, files)


def rows_naming(label: str, spec: TableSpec, column: str, config: Config, customers: CustomerIds) -> int:
    """Return how many rows of a table are, or where the id cannot be read may be, of some customers."""
    read = _read(label, spec, {"customer_id": column}, config)
    lines = read.lines.to_pylist()
    unread = (ids_in_line(one["csv_line"], read.relation.layout_of(one), column) for one in lines)
    ids = read.table["customer_id"]
    # Of a row without a readable id every value may be the one.
    lost = read.table.filter(ids.is_null())["cells"].to_pylist()
    named: int = sum(customers.holds(ids).to_pylist())
    return named + sum(bool(len(customers.among(pa.array(one, pa.string())))) for one in (*lost, *unread))


@dataclass(frozen=True, slots=True)
class _Read:
    """A table as it stands: its rows in order, with the ids as read, and the lines that could not be read."""

    location: SourceLocation
    relation: Relation
    table: pa.Table
    lines: pa.Table
    unreadable: int


def _heading(label: str) -> str:
    return f"The {label} table cannot be used:"


def _read(label: str, spec: TableSpec, columns: Mapping[str, str], config: Config) -> _Read:
    """Read columns as text beside ``is_there`` (there is something in the place of the id) and all ``cells``."""
    faults: list[str] = []
    out = Path(config.out)
    claim(out)
    with within_memory(config), scratch(out, f".{label}-") as work:
        with Databases(config, work) as databases:
            location = locate(label, databases.landed(label, spec), config, work / "spill")
        fields = map_fields(location, columns, {}, (), (), faults)
        raise_all(DataError, _heading(label), faults)
        identity = read_customer_id(label, fields.pop("customer_id"), config, faults)
        names = {name: read_label(label, name, one, faults) for name, one in fields.items()}
        raise_all(DataError, _heading(label), faults)
        cells = ", ".join(f"CAST({identifier(column)} AS VARCHAR)" for column in location.types)
        selected = [f"({identity.value}) AS customer_id", f"{identity.there} AS is_there", f"[{cells}] AS cells"]
        selected += [f"({one.value}) AS {identifier(column)}" for column, one in names.items()]
        with connect_duckdb(config, work / "spill", in_order=True) as connection:

            def read(rows: Relation) -> tuple[pa.Table, int]:
                query = f"SELECT {', '.join(selected)} FROM {rows.sql}"
                return connection.sql(query).to_arrow_table(), rows.unreadable

            relation = land(location, connection, config, work / "landed")
            table, unreadable = read_rows(location, relation, sorted(location.types), work / "apart", read)
            return _Read(location, relation, table, _unreadable(relation, connection), unreadable)


def _require_same(label: str, spec: TableSpec, files: list[Fingerprint]) -> None:
    if fingerprints(input_files(label, spec)) != files:
        raise DataError(
            f"{label}: a file changed after this run had begun to read it, so whom it names is not certain. Nothing was"
            " published; run again when it is complete."
        )


def _unreadable(relation: Relation, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    columns = {"csv_line": pa.string(), "line": pa.int64(), "file": pa.int64()}
    if not relation.rejects:
        return pa.schema(columns).empty_table()
    rows = connection.sql(f"SELECT {', '.join(columns)} FROM {relation.rejects}").to_arrow_table()
    return rows.cast(pa.schema(columns))


def _placed(spec: TableSpec, read: _Read, faults: list[str]) -> tuple[pa.Table, Places | None, list[str]]:
    """Return the rows without blank ones at the end of a file, their places, and the lines that cannot be read.

    Adds the blank rows and the comments inside of CSV files to the faults.
    """
    location, relation, table, lines = read.location, read.relation, read.table, read.lines
    if spec.path is None:
        return table, None, []
    plain = location.plain[""]
    names = tuple(one.name for one in plain)
    if not location.untyped:
        counts = relation.file_rows or [pq.read_metadata(one.path).num_rows for one in plain]
        number = np.concatenate([np.arange(1, count + 1) for count in counts])
        return table, Places(names, "row", np.repeat(np.arange(len(counts)), counts), number), []
    blank = _blank(table["cells"])
    inside, comments = list[tuple[int, int]](), list[tuple[int, int]]()
    kept, numbers, files = list[_Numbers](), list[_Numbers](), list[_Numbers]()
    begins = 0
    for index, (file, count) in enumerate(zip(relation.read, relation.file_rows, strict=True)):
        assert isinstance(file.layout, TextLayout)
        records, counted, gaps = _records(file.source, file.encoding, file.layout.above)
        inside += [(index, line) for line in gaps]
        own = lines.filter(pc.equal(lines["file"], index))
        unread = np.isin(counted, own["line"].to_numpy())
        commented = np.isin(counted, own.filter(pc.starts_with(own["csv_line"], "#"))["line"].to_numpy())
        comments += [(index, int(line)) for line in records[commented]]
        lying = records[1:][~unread[1:]]
        end = len(lying)
        if end > count or not blank[begins + end : begins + count].all():
            # Lines that cannot be told apart for certain are counted as if each row had its own.
            there = np.flatnonzero(~blank[begins : begins + count])
            end = int(there[-1]) + 1 if len(there) else 0
            lying = np.arange(2, end + 2)
        numbers.append(lying)
        kept.append(np.arange(begins, begins + end))
        files.append(np.full(end, index))
        begins += count
    places = Places(names, "line", np.concatenate(files), np.concatenate(numbers))
    rows = table.take(pa.array(np.concatenate(kept)))
    faults += _told("a blank row inside the file; remove it, or restore what stood there", inside, places)
    faults += _told("a comment; a table has rows only, so remove it", comments, places)
    unreadable = [one for one in lines["csv_line"].to_pylist() if not re.match(_BLANK, one)]
    return rows, places, unreadable


def _blank(cells: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have nothing in any cell."""
    whole = cells.combine_chunks()
    filled = pc.fill_null(pc.invert(pc.match_substring_regex(whole.flatten(), _BLANK)), False)
    blank = np.ones(len(whole), dtype=np.bool_)
    blank[pc.list_parent_indices(whole).filter(filled).to_numpy()] = False
    return blank


def _told(what: str, found: Sequence[tuple[int, int]], places: Places) -> list[str]:
    if not found:
        return []
    file, number = np.array(found, dtype=np.int64).T
    return [f"{replace(places, file=file, number=number)}: {what}"]


def _records(path: Path, encoding: str, above: int) -> tuple[_Numbers, _Numbers, list[int]]:
    """Return the lines on which the records of a CSV file begin, the header's first, and the blank lines inside.

    In between: the same lines as DuckDB counts them, from the header on and a record over several lines as one.
    """
    records, counted, gaps, pending = list[int](), list[int](), list[int](), list[int]()
    quoted, folded = False, 0
    with open_text(path, encoding, errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if number <= above:
                continue
            if not quoted and re.match(_BLANK, line):
                pending.append(number)
                continue
            if quoted:
                folded += 1
            else:
                gaps += pending
                pending.clear()
                records.append(number)
                counted.append(number - above - folded)
            quoted ^= bool(line.count('"') % 2)
    return np.array(records, dtype=np.int64), np.array(counted, dtype=np.int64), gaps


def _in_order(spec: TableSpec, count: int) -> Places:
    kind = "the query" if spec.query else "the table"
    return Places((kind,), "row", np.zeros(count, dtype=np.int64), np.arange(1, count + 1))
