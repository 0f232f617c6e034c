"""A night as files: scores, and the lists as Parquet with the raw text, CSV that no spreadsheet runs, one workbook.

A list as a table of text cells: what the page shows of TARGETS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import DAY
from cvj_ml.customers import People
from cvj_ml.io import write_table
from cvj_ml.lists import NOT_LISTED, RankedList, summarise
from cvj_ml.lists.changes import NOTHING_BEFORE, Changes, with_changes
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.models.bundle.forecast_errors import ExpectedMoves
from cvj_ml.report import wording
from cvj_ml.report.workbook import write_workbook
from cvj_ml.report.worksheet import Worksheet
from cvj_ml.schemas import TARGETS

SCORES = "scores/scores.parquet"


def write_night(
    staged: Path,
    scores: Path,
    lists: Sequence[RankedList],
    people: People | None,
    worksheet: Worksheet,
    night: str,
    changes: Changes = NOTHING_BEFORE,
) -> Mapping[str, int]:
    """Put scores, and the lists where people were read for them, into a folder; return the rows of each file.

    The file of scores is moved: it may be large, and has to lie in the same file system.
    """
    rows = {SCORES: pq.read_metadata(scores).num_rows}
    (staged / SCORES).parent.mkdir()
    os.replace(scores, staged / SCORES)
    if people is not None:
        listed = write_lists(staged / "targets", lists, people.contact, worksheet, night, changes)
        rows |= {f"targets/{name}": count for name, count in listed.items()}
    return rows


def write_lists(
    folder: Path,
    lists: Sequence[RankedList],
    contact: pa.Table,
    worksheet: Worksheet,
    night: str,
    changes: Changes = NOTHING_BEFORE,
) -> Mapping[str, int]:
    """Write every list, their summary, what changed and the workbook into a folder; return the rows of each file.

    contact: ``customer_id`` (unique) and the contact columns, which stand behind those of the contract; worksheet: a
    sheet of the workbook; night: the date or instant in words.
    """
    folder.mkdir()
    summary = with_changes(summarise(lists), changes)
    tables = {one.name: with_contact(one.rows, contact) for one in lists}
    rows: dict[str, int] = {}
    for name, table in {**tables, "summary": summary, "changes": changes.rows}.items():
        rows |= write_table(folder, name, table)
    write_workbook(folder / "lists.xlsx", lists, [tables[one.name] for one in lists], summary, worksheet, night)
    return {**rows, "lists.xlsx": sum(map(len, tables.values()))}


def with_contact(rows: pa.Table, contact: pa.Table) -> pa.Table:
    """Return the rows of a list in their order, with the contact columns; null for customers whom the table lacks."""
    places = pc.index_in(rows["customer_id"], contact["customer_id"].combine_chunks())
    for name in contact.column_names:
        if name != "customer_id":
            rows = rows.append_column(name, contact[name].take(places))
    return rows


_REASONS = ("reason_1", "reason_2", "reason_3")
_HEADINGS = {
    "rank": "Rank",
    "customer_id": "Customer",
    "probability": "Probability",
    "track_record": "Track record",
    "lift": "Times average",
    "expected_value": "Expected value",
    "reasons": "Why",
    "play": "Play",
    "channel": "Channel",
}
_NUMBERS = frozenset({"rank", "probability", "lift", "expected_value"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its key, heading, and whether its cells are numbers."""

    key: str
    heading: str
    number: bool


@dataclass(frozen=True, slots=True)
class ListTable:
    """One list: rows to contact and rows in control, each cell a text (reasons: a tuple of texts).

    ``targets`` and ``controls`` count the whole list, of which the first ``shown`` rows are here; ``left_out`` counts
    the others who stand in the stage by reason; ``play`` and ``channel`` are those of all rows, where all agree;
    ``reasons`` is how many the list has for a row at most. Of a list ``without_evidence`` no row is here.
    ``moves`` are expected of the whole list, ``stage_moves`` of everybody in the stage.
    """

    anchor: str
    title: str
    origin: str
    to: str
    horizon_days: int
    in_stage: int
    eligible: int
    left_out: tuple[tuple[str, int], ...]
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    control: tuple[tuple[Any, ...], ...]
    targets: int
    controls: int
    shown: int
    play: str | None
    channel: str | None
    channels: tuple[str, ...]
    reasons: int
    without_evidence: bool
    moves: ExpectedMoves
    stage_moves: ExpectedMoves


def list_table(one: RankedList, most: int, reasons: int) -> ListTable:
    """Return the first ``most`` rows of a list with at most so many reasons each; columns without a value are left out.

    Columns that the contract of TARGETS does not name, such as contact columns, stand beside the customer as text.
    """
    rows = one.rows
    group = rows["group"].to_pylist()
    most = 0 if one.without_evidence else most
    shown = rows.slice(0, most)
    cells: dict[str, Sequence[Any]] = {}
    extra = [name for name in rows.column_names if name not in TARGETS.columns]
    for name in ("rank", "customer_id", *extra):
        cells[name] = [_text(value) for value in shown[name].to_pylist()]
    cells["probability"] = [wording.percent(p) for p in shown["probability"].to_pylist()]
    cells["track_record"] = [
        None if n is None else f"{k:,} of {n:,} ({wording.percent(low)} to {wording.percent(high)})"
        for n, k, low, high in zip(*(shown[f"track_record_{part}"].to_pylist() for part in _RECORD), strict=True)
    ]
    cells["lift"] = [None if value is None else f"{value:.1f}" for value in shown["lift"].to_pylist()]
    cells["expected_value"] = [
        None if value is None else f"{value:,.2f}" for value in shown["expected_value"].to_pylist()
    ]
    told = [name for name in _REASONS if rows[name].null_count < len(rows)]
    if told and reasons:
        columns = [shown[name].to_pylist() for name in told[:reasons]]
        cells["reasons"] = [tuple(text for text in row if text) for row in zip(*columns, strict=True)]
    common = {name: _only(rows[name]) for name in ("play", "channel")}
    for name, value in common.items():
        if value is None:
            cells[name] = shown[name].to_pylist()
    kept = {name: values for name, values in cells.items() if any(value is not None for value in values)}
    columns_shown = tuple(Column(name, _HEADINGS.get(name, name), name in _NUMBERS) for name in kept)
    table = list(zip(*kept.values(), strict=True))
    marked = group[:most]
    words_of, left_out = {**REASONS, **NOT_LISTED}, {**one.left_out, **one.not_listed}
    return ListTable(
        f"list-{one.name}",
        one.title,
        one.spec.from_stage,
        one.spec.to_stage,
        one.spec.horizon // DAY,
        one.in_stage,
        one.eligible,
        tuple((words_of[name], number) for name, number in left_out.items() if number),
        columns_shown,
        tuple(row for row, mark in zip(table, marked, strict=True) if mark != "control"),
        tuple(row for row, mark in zip(table, marked, strict=True) if mark == "control"),
        len(group) - group.count("control"),
        group.count("control"),
        len(marked),
        common["play"],
        common["channel"],
        tuple(sorted({value for value in cells.get("channel", ()) if value})),
        len(told),
        one.without_evidence,
        one.moves,
        one.stage_moves,
    )


_RECORD = ("n", "k", "low", "high")


def _only(column: pa.ChunkedArray) -> str | None:
    """Return the value that all rows have; None where they differ, or there is none."""
    values = column.unique().to_pylist()
    return str(values[0]) if len(values) == 1 and values[0] is not None else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
