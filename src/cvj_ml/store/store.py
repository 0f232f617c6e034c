"""The store: canonical touchpoints in bucketed Parquet, written once, checked and read back as blocks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import DAY, STAGE_HISTORY, Config
from cvj_ml.errors import StoreError
from cvj_ml.histories import ALWAYS, Attributes, Block, Column, Members, StageLabels, Text, TouchpointColumns, own_doing
from cvj_ml.io import sha256_of, sorted_json
from cvj_ml.schemas import PROPERTY
from cvj_ml.store import read_columns
from cvj_ml.store.refusals import Counts, excess
from cvj_ml.store.source_location import Fingerprint
from cvj_ml.store.sql import to_wall
from cvj_ml.windows import NEVER, Instants

ATTRIBUTE = "attribute_"
TOUCHPOINTS_FILE = "touchpoints.parquet"
ATTRIBUTES_FILE = "attributes.parquet"
LABELS_FILE = "stage_labels.parquet"
IDENTITIES_FILE = "identities.parquet"
MEMBERS_FILE = "members.parquet"
UNASSIGNED_FILE = "unassigned.parquet"
MANIFEST = "store.json"

FORMAT = 8
"""The version of the store's layout and of the rules by which rows are read; part of the key."""


_ROWS_PER_BUCKET = 1 << 20


def bucket_of(customer_id: str, buckets: int) -> int:
    """Return the bucket of a customer: the first 8 hex digits of the md5 of the UTF-8 id, modulo the buckets."""
    digest = hashlib.md5(customer_id.encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) % buckets


def enough_buckets(rows: int) -> int:
    """Return a power of two that leaves about a million rows to a bucket, so that memory does not grow with the log."""
    return min(4096, max(16, 1 << (max(rows - 1, 0) // _ROWS_PER_BUCKET).bit_length()))


def bucket_sql(customer_id: str, buckets: int) -> str:
    """Return SQL that agrees with ``bucket_of``."""
    return f"CAST(CAST('0x' || left(md5({customer_id}), 8) AS UINTEGER) % {buckets} AS INTEGER)"


class SourceColumn(TypedDict):
    """A column of a source: what kind of values it has (number, text, date …), and whether it is read."""

    kind: str
    read: bool


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Store:
    """A finished store.

    ``arrival_delay`` is in microseconds; ``events`` counts rows by event; kinds are ``double`` or ``string``;
    ``bucket_customers`` counts the ids with a history by bucket, so that empty ones need no reading; ``aliases`` of
    them are no customers any more. ``attribute_counts`` and
    ``label_counts`` are None where no attributes, no stage labels are configured; ``pairs`` counts what became of the
    pairs of ids of one person, None where none are told.
    ``silent`` are the ways and dates of ``melt``, by table, that found nothing in any row, with the ways there are.
    ``accounts`` says that customers are accounts, ``member_counts`` are those of their members. ``files`` are the
    sha256 of all files but store.json, by their names in the folder: whoever reads one asks `checked` or
    `bucket_file` for it.
    """

    folder: Path
    buckets: int
    key: str
    counts: Mapping[str, Counts]
    attribute_counts: Counts | None
    label_counts: Counts | None
    pairs: Mapping[str, int] | None
    events: Mapping[str, int]
    arrival_delay: int
    bucket_customers: tuple[int, ...]
    aliases: int
    fingerprints: Mapping[str, list[Fingerprint]]
    columns: Mapping[str, Mapping[str, SourceColumn]]
    property_kinds: Mapping[str, str]
    attribute_kinds: Mapping[str, str]
    outbound: frozenset[str]
    time_zone: str
    dates: frozenset[str]
    files: Mapping[str, str]
    silent: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    accounts: bool = False
    member_counts: Counts | None = None

    @property
    def customers(self) -> int:
        """The number of customers: people, whatever the number of their ids."""
        return sum(self.bucket_customers) - self.aliases

    def buckets_of(self, customers: Iterable[str] | None) -> list[int]:
        """Return the buckets that have customers, or in which these customers would be, in order."""
        held = [bucket for bucket, number in enumerate(self.bucket_customers) if number]
        if customers is None:
            return held
        asked = {bucket_of(name, self.buckets) for name in customers}
        return [bucket for bucket in held if bucket in asked]

    def bucket_file(self, bucket: int, name: str) -> Path | None:
        """Return a file of a bucket as `checked` does; None where the store has none, since nobody is in it."""
        file = f"{bucket_name(bucket)}/{name}"
        return self.checked(file) if file in self.files else None

    def checked(self, name: str) -> Path:
        """Return the path of a file whose bytes are those that were written; StoreError where they are not."""
        path = self.folder / name
        if fault := _fault(path, self.files[name]):
            raise StoreError(
                f"{path}: {fault}. What it holds is not used. Run the same command again: it makes the store anew from"
                " the sources. If it comes again, the disk or the memory of this machine is at fault.",
                self.folder,
            )
        return path

    def faults(self, threads: int | None = None) -> list[str]:
        """Return every file that is not what was written; files are read by several threads."""
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda name: _fault(self.folder / name, self.files[name]), self.files)
            return [f"{name}: {fault}" for name, fault in zip(self.files, found, strict=True) if fault]

    def read(self, bucket: int) -> Block:
        """Return the whole customers of one bucket, sorted by id."""
        if not self.bucket_customers[bucket]:
            return _nobody(self)
        texts = [PROPERTY + name for name, kind in self.property_kinds.items() if kind == "string"]
        numbers = [PROPERTY + name for name, kind in self.property_kinds.items() if kind != "string"]
        table = read_columns.load(
            self.checked(f"{bucket_name(bucket)}/{TOUCHPOINTS_FILE}"),
            ["occurred_at", "visible_at", "superseded_at", "day", "date_only", "value", *numbers],
            ["customer_id", "event", "channel", *texts],
        )
        customers, offsets = read_columns.runs(table["customer_id"])
        event = read_columns.text(table["event"])
        value = table["value"]
        touchpoints = TouchpointColumns(
            offsets=offsets,
            occurred_at=read_columns.instants(table["occurred_at"]),
            visible_at=read_columns.instants(table["visible_at"]),
            superseded_at=read_columns.instants(table["superseded_at"], NEVER),
            day=read_columns.numbers(table["day"], np.int32),
            date_only=read_columns.numbers(table["date_only"], np.bool_),
            event=event,
            channel=read_columns.text(table["channel"]),
            value=read_columns.numbers(pc.fill_null(value, 0), np.int64),
            has_value=read_columns.numbers(pc.is_valid(value), np.bool_),
            inbound=own_doing(event, self.outbound),
            properties=read_columns.columns(table, PROPERTY, self.property_kinds),
            merged_at=self._merged_at(customers),
        )
        return Block(
            customers,
            touchpoints,
            self._attributes(bucket, customers) if self.attribute_kinds else None,
            _labels(self.checked(f"{bucket_name(bucket)}/{LABELS_FILE}"), customers) if self.label_counts else None,
            self._members(bucket, customers) if self.accounts else None,
        )

    def identities(self) -> pa.Table | None:
        """Return every id that is joined with another one (identities.py says how); None where none are told."""
        return pq.read_table(self.checked(IDENTITIES_FILE), partitioning=None) if self.pairs is not None else None

    def _members(self, bucket: int, customers: tuple[str, ...]) -> Members:
        if self.member_counts is None:
            return Members.none(len(customers))
        path = self.checked(f"{bucket_name(bucket)}/{MEMBERS_FILE}")
        table = read_columns.load(path, ["known_at", "until"], ["customer_id", "contact", "role"])
        return Members(
            offsets=read_columns.offsets(table["customer_id"], customers),
            known_at=read_columns.instants(table["known_at"]),
            until=read_columns.instants(table["until"], NEVER),
            contact=read_columns.text(table["contact"]),
            role=read_columns.text(table["role"]),
        )

    def _merged_at(self, customers: Sequence[str]) -> Instants:
        """Return when each customer was known to be somebody else's id."""
        if self.pairs is None:
            return np.full(len(customers), NEVER, dtype=np.int64)
        aliases, merged_at = _merges(self.checked(IDENTITIES_FILE), self.files[IDENTITIES_FILE])
        place = pc.index_in(pa.array(customers, pa.string()), value_set=aliases)
        return read_columns.instants(merged_at.take(place), NEVER)

    def _attributes(self, bucket: int, customers: tuple[str, ...]) -> Attributes:
        kinds = self.attribute_kinds
        texts = [ATTRIBUTE + name for name, kind in kinds.items() if kind == "string"]
        numbers = [ATTRIBUTE + name for name, kind in kinds.items() if kind != "string"]
        path = self.checked(f"{bucket_name(bucket)}/{ATTRIBUTES_FILE}")
        table = read_columns.load(path, ["known_at", *numbers], ["customer_id", *texts])
        known_at = read_columns.instants(table["known_at"], ALWAYS)
        day = to_wall(np.where(known_at == ALWAYS, 0, known_at), self.time_zone) // DAY
        return Attributes(
            offsets=read_columns.offsets(table["customer_id"], customers),
            known_at=known_at,
            day=day.astype(np.int32),
            columns=read_columns.columns(table, ATTRIBUTE, kinds),
            dates=self.dates,
        )


def source_label(name: str) -> str:
    """Return where a source of touchpoints stands in the configuration, by its name in the store."""
    return name if name == STAGE_HISTORY else f"sources.{name}"


def bucket_name(bucket: int) -> str:
    """Return the folder name of a bucket."""
    return f"bucket-{bucket:04d}"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write store.json, with the sha256 of every other file and of itself, so that no damage goes unseen."""
    paths = sorted(folder.rglob("*.parquet"))
    document = {**manifest, "files": {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}}
    (folder / MANIFEST).write_text(_sealed(document), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return store.json of a folder; FileNotFoundError where there is none, StoreError where it is damaged."""
    path = folder / MANIFEST
    content = path.read_bytes()
    try:
        document: dict[str, Any] = json.loads(content)
        if document.pop(_SEAL, None) is None and document["format"] != FORMAT:
            return document  # of a version that sealed nothing; nobody reads such a store
        if _sealed(document).encode() == content:
            return document
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise StoreError(f"{path}: it is not what was written (its own sha256 differs)", folder)


def open_store(folder: Path, key: str, config: Config) -> Store | None:
    """Return the store of this key in a folder, None where there is none; StoreError for a damaged store.json.

    Whether its other files are whole is what `Store.faults` says, and what reading each asks again.
    """
    if not folder.is_dir():
        return None
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        raise StoreError(f"{folder / MANIFEST}: it is missing", folder) from None
    if manifest["key"] != key or manifest["format"] != FORMAT:
        return None
    attributes, labels = manifest["attribute_counts"], manifest.get("label_counts")
    members = manifest.get("member_counts")
    delays = {label.removeprefix("sources."): spec.arrival_delay for label, spec in config.touchpoint_tables.items()}
    return Store(
        folder=folder,
        buckets=manifest["buckets"],
        key=key,
        counts={name: Counts(**counts) for name, counts in manifest["counts"].items()},
        attribute_counts=Counts(**attributes) if attributes else None,
        label_counts=Counts(**labels) if labels else None,
        pairs=manifest["pairs"],
        events=manifest["events"],
        arrival_delay=max(
            measured if (given := delays[name]) is None else given
            for name, measured in manifest["measured_delays"].items()
        ),
        bucket_customers=tuple(manifest["bucket_customers"]),
        aliases=manifest["aliases"],
        fingerprints=manifest["fingerprints"],
        columns=manifest["columns"],
        property_kinds=manifest["property_kinds"],
        attribute_kinds=manifest["attribute_kinds"],
        outbound=frozenset(config.outbound),
        time_zone=config.time_zone,
        dates=frozenset(config.attributes.dates if config.attributes else ()),
        files=manifest["files"],
        silent=manifest["silent"],
        accounts=config.unit == "account",
        member_counts=Counts(**members) if members else None,
    )


_SEAL = "sha256"

_SEEN: set[tuple[object, ...]] = set()
"""Files whose sha256 this process has computed, as they were then: a night reads each several times."""


def _sealed(document: Mapping[str, Any]) -> str:
    """Return a document as text that holds its own sha256: any other text of it is not this one."""
    plain = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    seal = hashlib.sha256(plain.encode()).hexdigest()
    return sorted_json({**document, _SEAL: seal})


def _fault(path: Path, sha256: str) -> str | None:
    """Say in what a file is not the one that was written; None where it is that one."""
    try:
        if (*_state(path), sha256) in _SEEN or _sha256(path) == sha256:
            return None
    except FileNotFoundError:
        return "it is missing"
    return "it is not what was written (its sha256 differs from the one in store.json)"


def _sha256(path: Path) -> str:
    """Return the sha256 of a file, and remember of which state of the file it is."""
    state = _state(path)
    digest = sha256_of(path)
    _SEEN.add((*state, digest))
    return digest


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes whenever a file is written to, by whatever means; not even root can set the last."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def refusal_faults(store: Store, config: Config) -> list[str]:
    """Return the tables of which more was refused than the configuration allows now."""
    faults: list[str] = []
    for name, counts in store.counts.items():
        faults += excess(source_label(name), counts.rows_in - counts.left_out, counts.refused, config.refused_share)
    for label, counted in (
        ("attributes", store.attribute_counts),
        ("stage_labels", store.label_counts),
        ("members", store.member_counts),
    ):
        if counted:
            faults += excess(label, counted.rows_in, counted.refused, config.refused_share)
    return faults


@lru_cache(maxsize=1)
def _merges(path: Path, sha256: str) -> tuple[pa.Array, pa.ChunkedArray]:
    """Return the aliases of a store with when each first merged: every bucket asks for them."""
    table = pq.read_table(path, columns=["customer_id", "merged_at"], partitioning=None)
    table = table.filter(pc.is_valid(table["merged_at"]))
    return table["customer_id"].combine_chunks(), table["merged_at"]


def _labels(path: Path, customers: tuple[str, ...]) -> StageLabels:
    table = read_columns.load(path, ["as_of", "known_at"], ["customer_id", "stage"])
    return StageLabels(
        offsets=read_columns.offsets(table["customer_id"], customers),
        as_of=read_columns.instants(table["as_of"]),
        known_at=read_columns.instants(table["known_at"]),
        stage=read_columns.text(table["stage"]),
    )


def _nobody(store: Store) -> Block:
    """Return the block of a bucket without customers."""

    def empty(kinds: Mapping[str, str]) -> dict[str, Column]:
        return {name: text if kind == "string" else np.empty(0) for name, kind in kinds.items()}

    text = Text(np.empty(0, dtype=np.int32), ())
    instants = np.empty(0, dtype=np.int64)
    flags = np.empty(0, dtype=np.bool_)
    start = np.zeros(1, dtype=np.int64)
    touchpoints = TouchpointColumns(
        start, instants, instants, instants, np.empty(0, dtype=np.int32), flags, text, text, instants, flags, flags,
        empty(store.property_kinds), instants,
    )  # fmt: skip
    kinds = store.attribute_kinds
    return Block(
        (),
        touchpoints,
        Attributes(start, instants, np.empty(0, dtype=np.int32), empty(kinds), store.dates) if kinds else None,
        StageLabels(start, instants, instants, text) if store.label_counts else None,
        Members.none(0) if store.accounts else None,
    )
