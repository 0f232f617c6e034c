"""A night as files: scores, and the lists as Parquet with the raw text, CSV that no spreadsheet runs, one workbook."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.customers import People
from cvj_ml.io import write_table
from cvj_ml.lists.changes import NOTHING_BEFORE, Changes, with_changes
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.report.workbook import BookFacts, write_workbook
from cvj_ml.scoring import SCORES


def write_night(
    staged: Path,
    scores: Path,
    lists: Sequence[RankedList],
    people: People | None,
    facts: BookFacts,
    changes: Changes = NOTHING_BEFORE,
) -> Mapping[str, int]:
    """Put scores, and the lists where people were read for them, into a folder; return the rows of each file.

    The file of scores is moved: it may be large, and has to lie in the same file system.
    """
    rows = {SCORES: pq.read_metadata(scores).num_rows}
    (staged / SCORES).parent.mkdir()
    os.replace(scores, staged / SCORES)
    if people is not None:
        listed = write_lists(staged / "targets", lists, people.contact, facts, changes)
        rows |= {f"targets/{name}": count for name, count in listed.items()}
    return rows


def write_lists(
    folder: Path,
    lists: Sequence[RankedList],
    contact: pa.Table,
    facts: BookFacts,
    changes: Changes = NOTHING_BEFORE,
) -> Mapping[str, int]:
    """Write every list, their summary, what changed and the workbook into a folder; return the rows of each file.

    contact: ``customer_id`` (unique) and the contact columns, which stand behind those of the contract; facts: what the
    workbook tells beside the lists.
    """
    folder.mkdir()
    summary = with_changes(lists, changes)
    tables = {one.name: with_contact(one.rows, contact) for one in lists}
    rows: dict[str, int] = {}
    for name, table in {**tables, "summary": summary, "changes": changes.rows}.items():
        rows |= write_table(folder, name, table)
    write_workbook(folder / "lists.xlsx", lists, [tables[one.name] for one in lists], summary, facts)
    return {**rows, "lists.xlsx": sum(map(len, tables.values()))}


def with_contact(rows: pa.Table, contact: pa.Table) -> pa.Table:
    """Return the rows of a list in their order, with the contact columns; null for customers whom the table lacks.

    Null for those in control, too: a file that somebody uploads as a whole must not reach them.
    """
    places = pc.index_in(rows["customer_id"], contact["customer_id"].combine_chunks())
    places = pc.if_else(pc.equal(rows["group"], "control"), pa.scalar(None, pa.int32()), places)
    for name in contact.column_names:
        if name != "customer_id":
            rows = rows.append_column(name, contact[name].take(places))
    return rows
