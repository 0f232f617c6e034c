"""Taking customers out of a published night, which stays whole, verified and in its place."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.errors import NightError, raise_all
from cvj_ml.io import sorted_json, write_table
from cvj_ml.lists.changes import without_erased
from cvj_ml.lists.ranked_list import confirmations
from cvj_ml.night.layout import (
    CHANGES,
    FORGOTTEN,
    LISTS,
    PRIVATE_FOLDER,
    STAGED,
    SUMMARY,
    NightFolder,
    nights,
    replace_file,
)
from cvj_ml.night.verifying import night_faults
from cvj_ml.night.writing import move, seal
from cvj_ml.ownership import remove
from cvj_ml.scoring import SCORES
from cvj_ml.store import CustomerIds

_BEGUN = ".forget-ids.json"
"""Whom a call that has not ended forgets; only its owner can read it."""


_PERSON = re.compile(r"contact_\d")
"""The columns of a list that name people of an account; their details have longer names."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """How many rows left a night, and how many files went whole since they are not rewritten row by row."""

    scores: int
    listed: int
    files: int


def nights_naming(out: Path, customers: CustomerIds) -> tuple[list[Path], pa.Array]:
    """Return the nights that hold any of these customers, in order of their dates, and which customers those are.

    Raises NightError with every folder that cannot be searched, or that is not what was published: to write that
    again would vouch for it.
    """
    naming, faults, found = [], list[str](), [customers.ids.slice(0, 0)]
    for night in itertools.chain.from_iterable(nights(out)):
        try:
            files = [night.scores, *night.list_files().values()]
            # Who has left an export since the night before may be in no other table of this one.
            files += [night.members] if night.members.is_file() else []
            theirs = [
                customers.among(column)
                for file in files
                for one in _batches(file, _id_columns(pq.read_schema(file)))
                for column in one.columns
            ]
            held = any(map(len, theirs))
            if held and (damage := night_faults(night.path)):
                faults.append(f"{night.path}: {'; '.join(damage)}")
            naming += [night.path] if held else []
            found += theirs
        except (OSError, pa.ArrowException, KeyError) as error:
            faults.append(f"{night.path}: it cannot be searched ({type(error).__name__})")
    raise_all(
        NightError,
        "Published nights are damaged, so nobody can be forgotten in them. Nothing was removed; remove these folders,"
        " or go back to copies:",
        faults,
    )
    return naming, pa.concat_arrays(found).unique()


def was_forgotten(out: Path, customers: CustomerIds) -> bool:
    """Return whether an earlier call, finished or not, was about exactly these customers."""
    kept = _kept(out)
    return kept is not None and _digest(customers, kept["salt"]) in kept["digests"]


def remember(out: Path, customers: CustomerIds) -> None:
    """Keep that these customers are being forgotten, as a digest of all their ids together that names nobody.

    It is salted and slow to compute, so that few and short ids are not found by trying.
    """
    kept = _kept(out) or {"salt": os.urandom(16).hex(), "digests": []}
    digests = sorted({*kept["digests"], _digest(customers, kept["salt"])})
    replace_file(out / FORGOTTEN, sorted_json({"salt": kept["salt"], "digests": digests}))


def _kept(out: Path) -> dict[str, Any] | None:
    try:
        document = json.loads((out / FORGOTTEN).read_text(encoding="utf-8"))
        return {"salt": str(document["salt"]), "digests": [str(one) for one in document["digests"]]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(customers: CustomerIds, salt: str) -> str:
    # Of ids that differ no two sets are one text.
    text = json.dumps([customers.match, customers.ids.to_pylist()])
    return hashlib.scrypt(text.encode(), salt=salt.encode(), n=1 << 15, r=8, p=4, maxmem=1 << 26).hex()


def unfinished(out: Path, customers: CustomerIds) -> CustomerIds:
    """Return these customers, and the other ids of the same persons whom a call that has not ended had begun with."""
    ids = set(customers.ids.to_pylist())
    if (file := out / _BEGUN).is_file():
        begun = set(json.loads(file.read_text(encoding="utf-8")))
        ids |= begun if begun & ids else set()
    return CustomerIds(pa.array(sorted(ids), pa.string()), customers.match)


def begin(out: Path, customers: CustomerIds) -> None:
    """Keep whom a call forgets until it has ended: what tells that ids are one person's is removed on the way."""
    replace_file(out / _BEGUN, json.dumps(customers.ids.to_pylist()))


def ended(out: Path) -> None:
    """Remove what `begin` kept."""
    remove(out / _BEGUN, strict=True)


def forget_in_night(out: Path, night: Path, customers: CustomerIds) -> Rewritten:
    """Take customers out of a published night that is whole.

    Ranks and probabilities of the others stay what they were. The page, the worksheet and the workbook, which name
    customers in running text, go, and so do the exports, whose hashes nobody can tell apart. The caller holds the
    lock of ``out``.
    """
    found = NightFolder(night)
    lists, manifest, changed = found.list_files(), found.manifest(), list[dict[str, Any]]()
    staged = out / f"{STAGED}{uuid.uuid4().hex[:12]}"
    staged.mkdir(mode=PRIVATE_FOLDER)
    try:
        scores = _copy_without(found.scores, staged / SCORES, customers)
        rows = {SCORES: pq.read_metadata(staged / SCORES).num_rows}
        taken = {}
        for name, path in lists.items():
            table = pq.read_table(path, partitioning=None)
            theirs = customers.holds(table["customer_id"])
            taken[name] = table.filter(theirs)
            rows |= _write(staged, name, _unnamed(table.filter(pc.invert(theirs)), customers))
        if lists:
            if found.changes.is_file():  # unlike in nights of earlier versions
                table = pq.read_table(found.changes, partitioning=None)
                theirs = customers.holds(table["customer_id"])
                changed = table.filter(theirs).to_pylist()
                rows |= _write(staged, CHANGES, table.filter(pc.invert(theirs)))
            summary = pq.read_table(found.summary, partitioning=None)
            left = [_without(row, taken[row["list"]], changed) for row in summary.to_pylist()]
            rows |= _write(staged, SUMMARY, pa.Table.from_pylist(left, schema=summary.schema))
        removed = sorted(manifest["files"].keys() - rows.keys())
        seal(staged, _facts(manifest, scores, removed, taken, changed), found.run(), rows)
        move(out, staged, night)
    finally:
        remove(staged)
    return Rewritten(scores, sum(map(len, taken.values())), len(removed))


def _id_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of ids: of the customer, and of the people whom a list of accounts names."""
    return [name for name in schema.names if name == "customer_id" or _PERSON.fullmatch(name)]


def _unnamed(table: pa.Table, customers: CustomerIds) -> pa.Table:
    """Return the rows of a list with nothing of these people of accounts; the accounts stay."""
    for person in (name for name in _id_columns(table.schema) if name != "customer_id"):
        theirs = customers.holds(table[person])
        for place, name in enumerate(table.column_names):
            if name == person or name.startswith(f"{person}_"):
                table = table.set_column(
                    place, name, pc.if_else(theirs, pa.scalar(None, table[name].type), table[name])
                )
    return table


def _batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(columns=columns)


def _copy_without(source: Path, target: Path, customers: CustomerIds) -> int:
    """Copy a table batch by batch without the rows of customers; return how many those were."""
    target.parent.mkdir(exist_ok=True)
    left_out = 0
    with pq.ParquetWriter(target, pq.read_schema(source)) as writer:
        for batch in _batches(source):
            theirs = customers.holds(batch["customer_id"])
            left_out += theirs.true_count
            writer.write_batch(batch.filter(pc.invert(theirs)))
    return left_out


def _write(staged: Path, name: str, table: pa.Table) -> dict[str, int]:
    (staged / LISTS).mkdir(exist_ok=True)
    return {f"{LISTS}/{file}": count for file, count in write_table(staged / LISTS, name, table).items()}


def _without(counted: Mapping[str, Any], taken: pa.Table, changed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of a list without customers who were on it; who was left out of it is counted for ever."""
    groups = taken["group"].to_pylist()
    less = {group: groups.count(group) for group in ("target", "control")}
    less |= dict.fromkeys(("listed", "eligible", "in_stage"), len(groups)) | confirmations(taken)
    if "selection_probability" in taken.column_names:  # nights of earlier versions have none
        less["explored"] = int(pc.sum(pc.less(taken["selection_probability"], 1)).as_py() or 0)
        contacted = taken["incremental_probability"].filter(pc.equal(taken["group"], "target"))
        less["incremental_moves"] = float(pc.sum(contacted).as_py() or 0.0)
    less |= without_erased(counted["list"], taken["customer_id"].to_pylist(), changed)
    return {
        name: value - less[name] if name in less and value is not None else value for name, value in counted.items()
    }


def _facts(
    manifest: Mapping[str, Any],
    scores: int,
    removed: list[str],
    taken: Mapping[str, pa.Table],
    changed: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what the manifest says now: how many were forgotten, and what is not there any more."""
    facts = {name: value for name, value in manifest.items() if name not in ("files", "exports")}
    before = manifest.get("forgotten", {"customers": 0, "removed": []})
    facts["forgotten"] = {
        "customers": before["customers"] + scores,
        "removed": sorted({*before["removed"], *removed}),
    }
    if "lists" in manifest:
        facts["lists"] = [_without(row, taken[row["list"]], changed) for row in manifest["lists"]]
    return facts
