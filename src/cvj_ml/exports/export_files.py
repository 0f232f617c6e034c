"""A night's exports as files: what each tool imports, what has changed since another night, and the counts."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Template

from cvj_ml.config import ExportsSpec
from cvj_ml.config.exports import NEEDED_ADDRESSES
from cvj_ml.customers import Permissions
from cvj_ml.exports import COUNTS, EXPORTS, LEFT_OUT, MEMBERS
from cvj_ml.exports.addresses import contacts_of, readable
from cvj_ml.exports.audiences import NOT_WRITTEN, Audience, Door, Member, exclusion, inclusion, of_segments
from cvj_ml.exports.tools import TOOLS
from cvj_ml.io import html_environment, write_table
from cvj_ml.lists.reasons import COLUMNS, sentence
from cvj_ml.models.segment_levels import SEGMENTS
from cvj_ml.scoring.scores_table import StoredTable

_MEMBERS = pa.schema([(name, pa.string()) for name in ("export", "customer_id", "email", "phone", "change")])
_COUNTS = pa.schema(
    [("export", pa.string()), ("kind", pa.string()), ("epoch", pa.string())]
    + [(name, pa.int64()) for name in ("looked_at", "written", "added", "removed", "still_in", *LEFT_OUT)]
    + [(f"without_{why}", pa.int64()) for why in NOT_WRITTEN]
)

Key = tuple[str, str, str]
"""A member: customer, e-mail address and phone number, both as they stand in the export's file."""


@dataclass(frozen=True, slots=True)
class EarlierExports:
    """The exports of an earlier night: the members of each, and the epoch of each exclusion (null for inclusions)."""

    members: Mapping[str, frozenset[Key]]
    epochs: Mapping[str, str | None]

    @classmethod
    def of(cls, night: Path) -> EarlierExports | None:
        """Read the exports of a published night; None where it has none, or they went with the forgotten."""
        files = [night / EXPORTS / f"{name}.parquet" for name in (MEMBERS, COUNTS)]
        if not all(file.is_file() for file in files):
            return None
        members, counts = (pq.read_table(file, partitioning=None).to_pylist() for file in files)
        found: dict[str, set[Key]] = {row["export"]: set() for row in counts}
        for row in members:
            if row["change"] != "removed":
                found[row["export"]].add((row["customer_id"], row["email"], row["phone"]))
        return cls(
            {name: frozenset(keys) for name, keys in found.items()}, {row["export"]: row["epoch"] for row in counts}
        )


@dataclass(frozen=True, slots=True)
class Exported:
    """An audience with what has changed: the keys ``before``, None where there is nothing to compare with."""

    audience: Audience
    epoch: str | None
    before: frozenset[Key] | None

    @property
    def added(self) -> list[Member] | None:
        """The members who were none before, or with another address."""
        before = self.before
        return None if before is None else [one for one in self.audience.members if one.key not in before]

    @property
    def gone(self) -> list[Key] | None:
        """Who was a member before and is none any more, with the addresses of then."""
        return None if self.before is None else sorted(self.before - {one.key for one in self.audience.members})

    @property
    def removed(self) -> list[Key] | None:
        """Those of the gone whom a tool has to take out, without the addresses that are still in the file.

        A tool matches by address, in any case of letters: an address that somebody else has now, or somebody with one
        new address of two, must stay. A row without an address that the file needs is none. The rows of `channels` are
        customers, and stay what they are.
        """
        gone = self.gone
        if gone is None or not (needed := NEEDED_ADDRESSES[self.audience.export]):
            return gone
        emails = {one.email.lower() for one in self.audience.members}
        phones = {one.phone for one in self.audience.members}
        bare = (
            (customer, "" if email.lower() in emails else email, "" if phone in phones else phone)
            for customer, email, phone in gone
        )
        return [
            (who, email, phone)
            for who, email, phone in bare
            if any({"email": email, "phone": phone}[one] for one in needed)
        ]

    @property
    def counts(self) -> dict[str, Any]:
        """The row of the summary: ``looked_at`` is ``written`` and everybody left out, by reason.

        ``still_in`` are the gone who are no row among the removed, as their addresses are in the file.
        """
        one, added, gone, removed = self.audience, self.added, self.gone, self.removed
        return {
            "export": one.name,
            "kind": one.kind,
            "epoch": self.epoch,
            "looked_at": one.looked_at,
            "written": len(one.members),
            "added": None if added is None else len(added),
            "removed": None if removed is None else len(removed),
            "still_in": None if removed is None or gone is None else len(gone) - len(removed),
            **{reason: one.left_out.get(reason, 0) for reason in LEFT_OUT},
            **{f"without_{why}": one.not_written.get(why, 0) for why in NOT_WRITTEN},
        }

    @property
    def rows(self) -> Iterator[tuple[str | None, ...]]:
        """The members, in the order of the file, and the removed ones, with what has become of each."""
        before = self.before
        for one in self.audience.members:
            change = None if before is None else "kept" if one.key in before else "added"
            yield self.audience.name, *one.key, change
        for key in self.removed or ():
            yield self.audience.name, *key, "removed"


def make_exports(
    spec: ExportsSpec,
    lists: Mapping[str, pa.Table],
    contact: pa.Table,
    permissions: Permissions,
    control: pa.Array,
    epoch: str,
    channels: Sequence[str],
    base: EarlierExports | None = None,
    segments: Mapping[str, pa.Table] | None = None,
) -> tuple[Exported, ...]:
    """Return every configured export, in the order of the configuration, an exclusion behind its inclusion.

    lists: TARGETS by name, in the order in which they are served; contact: ``customer_id`` (unique) and the contact
    columns; control: everybody of SCORES in the control group of the ``epoch``; channels: all of the plays; base: the
    night that adds and removes are told against. Another epoch has other people in control, so its exclusions are not
    compared but replace the earlier ones whole. segments: ``customer_id`` and ``stage`` of each, where asked for.
    """
    spared, segments = set(control.to_pylist()), segments or {}
    asked = spared.union(*(rows["customer_id"].to_pylist() for rows in (*lists.values(), *segments.values())))
    if permissions.suppression is not None:
        asked.update(permissions.suppression["customer_id"].to_pylist())
    contacts = contacts_of(spec, contact, pa.array(sorted(asked), pa.string()))
    door, made = Door(permissions, contacts, spared), list[Audience]()
    for export, of in spec.files.items():
        served = (*channels, None) if of == "all" else of
        of_lists = export != "segments"
        made.append(inclusion(export, served, lists, door) if of_lists else of_segments(segments, served, door))
        if TOOLS[export].exclusion:
            made.append(exclusion(export, served, door))
    return tuple(_compared(one, epoch, base) for one in made)


def _compared(audience: Audience, epoch: str, base: EarlierExports | None) -> Exported:
    of = epoch if audience.kind == "exclusion" else None
    comparable = base is not None and audience.name in base.members and base.epochs[audience.name] == of
    return Exported(audience, of, base.members[audience.name] if base is not None and comparable else None)


def segments_of(scores: StoredTable) -> dict[str, pa.Table]:
    """Return ``customer_id`` and ``stage`` of everybody in each ready segment, those in none of a name left out."""
    table = scores.read(["customer_id", "stage", "segment"])
    return {name: table.filter(pc.equal(table["segment"], name)) for name in SEGMENTS if name != "other"}


def write_exports(folder: Path, exports: Sequence[Exported], merge: Sequence[str], night: str) -> dict[str, int]:
    """Write every export into a new folder; return the rows of each file. night: the date or instant in words.

    No text gets a spreadsheet's apostrophe: a tool would take it for a part of the address.
    """
    folder.mkdir()
    rows: dict[str, int] = {}
    for one in exports:
        audience = one.audience
        if audience.export == "calls":
            page = _calls(audience.members, merge, night)
            (folder / "calls.html").write_text(page, encoding="utf-8", newline="")
            rows["calls.html"] = len(audience.members)
        elif audience.export == "channels":
            rows |= _write_channels(folder, audience.members, merge)
        elif audience.export == "segments":
            rows |= _write_segments(folder, audience.members, merge)
        else:
            rows |= _write_tool(folder, one, merge)
    members = list(itertools.chain.from_iterable(one.rows for one in exports))
    columns = list(zip(*members, strict=True)) or [()] * len(_MEMBERS)
    table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=_MEMBERS)
    pq.write_table(table, folder / f"{MEMBERS}.parquet")
    counts = pa.Table.from_pylist([one.counts for one in exports], schema=_COUNTS)
    return {**rows, f"{MEMBERS}.parquet": len(table), **write_table(folder, COUNTS, counts)}


def _write_tool(folder: Path, one: Exported, merge: Sequence[str]) -> dict[str, int]:
    """Write an import file, and beside it, where there is a night to compare with, what to remove and to add."""
    name, tool = one.audience.name, TOOLS[one.audience.export]
    headings = {**tool.columns, **({column: column for column in merge} if tool.merge else {})}
    rows = {f"{name}.csv": _write(folder / f"{name}.csv", headings, map(_cells, one.audience.members))}
    if one.added is not None and one.removed is not None:
        rows[f"{name}_adds.csv"] = _write(folder / f"{name}_adds.csv", headings, map(_cells, one.added))
        kept = {heading: of for heading, of in tool.columns.items() if of in ("customer_id", "email", "phone")}
        gone = (dict(zip(("customer_id", "email", "phone"), key, strict=True)) for key in one.removed)
        rows[f"{name}_removes.csv"] = _write(folder / f"{name}_removes.csv", kept, gone)
    return rows


def _write_channels(folder: Path, members: Sequence[Member], merge: Sequence[str]) -> dict[str, int]:
    """Write a file for each channel; whoever has none is in the one that is called ``channel.csv``."""
    headings = {**TOOLS["channels"].columns, **{column: column for column in merge}}
    through: dict[str | None, list[Member]] = {}
    for one in members:
        through.setdefault(one.row["channel"], []).append(one)
    rows = {}
    for channel, some in through.items():
        name = "channel.csv" if channel is None else f"channel_{quote(channel, safe='')}.csv"
        rows[name] = _write(folder / name, headings, map(_cells, some))
    return rows


def _write_segments(folder: Path, members: Sequence[Member], merge: Sequence[str]) -> dict[str, int]:
    """Write a file for each ready segment that somebody is in."""
    headings = {**TOOLS["segments"].columns, **{column: column for column in merge}}
    fallen: dict[str, list[Member]] = {}
    for one in members:
        fallen.setdefault(one.row["segment"], []).append(one)
    return {
        f"segment_{name}.csv": _write(folder / f"segment_{name}.csv", headings, map(_cells, some))
        for name, some in fallen.items()
    }


def _cells(member: Member) -> Mapping[str, Any]:
    """Return all that a file may say of a member, by name."""
    of_contact = {"first_name": member.contact.first_name, **member.contact.merge}
    return {**of_contact, **member.row, "customer_id": member.customer_id, "email": member.email, "phone": member.phone}


def _write(path: Path, headings: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a CSV file as RFC 4180 has it, in UTF-8 and with line feeds; return its rows."""
    counted = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(headings)
        for row in rows:
            cells = [row.get(of) for of in headings.values()]  # who has no row of contact has no merge fields
            writer.writerow("" if cell is None else cell for cell in cells)
            counted += 1
    return counted


def _calls(members: Sequence[Member], merge: Sequence[str], night: str) -> str:
    """Return the call sheet, an HTML page to print: whom to call, why, and room for what came of it."""
    calls = [
        {
            **_cells(one),
            "phone": readable(one.contact.phone),
            "why": sentence([text for name in COLUMNS if (text := one.row[name])]),
            "merge": [one.contact.merge[name] for name in merge],
        }
        for one in members
        if one.contact.phone is not None
    ]
    return _template().render(calls=calls, merge=merge, night=night)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = html_environment("cvj_ml.exports")
    environment.keep_trailing_newline = True
    return environment.get_template("calls.html")
