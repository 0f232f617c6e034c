"""What has to be read: the key of the store that is wanted, and an earlier store to which only files were added."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvj_ml.config import AttributesSpec, Config
from cvj_ml.store.buckets import Base
from cvj_ml.store.identities import IDENTITIES, tells_identities
from cvj_ml.store.members import MEMBERS
from cvj_ml.store.source_location import Fingerprint
from cvj_ml.store.staging import Mapped
from cvj_ml.store.store import FORMAT, MANIFEST, open_store, read_manifest

ATTRIBUTES = "attributes"
LABELS = "stage_labels"
BESIDE = (ATTRIBUTES, LABELS, IDENTITIES, MEMBERS)
"""The tables that are no source of touchpoints."""

_SETTINGS = {
    "columns", "constants", "where", "melt", "sheet", "member", "minor_units", "resolution", "known_after",
    "static", "encoding", "time_format", "decimal_mark", "null_values",
}  # fmt: skip

LEAST_SHARE = 0.5
"""Below this share of kept bytes, building from nothing is no dearer."""

Contents = dict[str, dict[str, list[str]]]
"""The files of every table by what is in them: sorted digests, since no name decides how a file is read."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """The key of the wanted store, ``meaning`` (all of it but the files), and the files."""

    key: str
    meaning: str
    contents: Contents


def make_cache_key(
    config: Config, tables: Mapping[str, Mapped], fingerprints: Mapping[str, list[Fingerprint]]
) -> CacheKey:
    """Return the digest of all that decides the store's content: files by what is in them, not by where they are."""
    described: dict[str, dict[str, Any]] = {}
    contents: Contents = {}
    for label, mapped in tables.items():
        spec = mapped.location.spec
        digests = _digests(mapped, fingerprints[label])
        contents[label] = {
            name: sorted(digests[path] for path in paths) for name, paths in mapped.location.files.items()
        }
        described[label] = {
            "query": spec.query,
            "zone": {"local": config.time_zone, "utc": "UTC"}.get(spec.times, spec.times),
            "currency": mapped.currency and [mapped.currency.code, mapped.currency.to, mapped.currency.digest],
            "settings": spec.model_dump(mode="json", include=_SETTINGS),
        }
        if isinstance(spec, AttributesSpec) and spec.dates:
            described[label]["dates"] = spec.dates
    if LABELS in described:  # a label of a stage that the journey does not have is refused
        described[LABELS]["stages"] = config.journey.names
    meaning = {
        "format": FORMAT,
        "tables": described,
        "config": config.model_dump(mode="json", include={"time_zone", "ids", "value_decimals", "drop_duplicates"}),
        "most_ids": config.identities.most_ids if config.identities else None,
        "buckets": config.engine.buckets,
    }
    if config.unit != "person":
        meaning["unit"] = config.unit
    # How a column is read depends on its type over all files, so a new type changes the meaning of old rows.
    types = {
        label: {one.name: [one.type, one.untyped, one.raw] for one in mapped.owns}
        for label, mapped in tables.items()
        if label not in BESIDE
    }
    return CacheKey(_digest([meaning, contents]), _digest([meaning, types]), contents)


def find_base(
    root: Path, cache_key: CacheKey, tables: Mapping[str, Mapped], config: Config, damaged: Collection[Path]
) -> Base | None:
    """Return the store with the most rows that can stay, and the sources whose files it has all or some of.

    A source stays where none of the files that were read changed or went; a query stays only whole, for a new file
    can change any of its rows. None where too little would stay. Stores known to be ``damaged`` are left out;
    StoreError for one that is found to be.
    """
    if config.ids.match == "folded":
        return None  # how the ids of its rows were written is not kept, so new rows could not be compared with them
    if tells_identities(config) or config.unit == "account":
        return None  # a new pair, or a new member, can change the history of any id
    if any(f"sources.{name}" in tables for name in BESIDE):
        return None  # the quarantine could not tell such a source from the table
    found: list[tuple[int, Base]] = []
    for path in sorted(root.glob(f"[0-9a-f]*/{MANIFEST}")):
        if path.parent in damaged:
            continue
        manifest = read_manifest(path.parent)
        if manifest.get("meaning") != cache_key.meaning:
            continue
        if (store := open_store(path.parent, manifest["key"], config)) is None:
            continue
        kept = [
            label.removeprefix("sources.")
            for label in config.touchpoint_tables
            if _stays(manifest["contents"][label], cache_key.contents[label])
        ]
        size = sum(one["bytes"] for name in kept for one in store.fingerprints[name])
        found.append((size, Base(store, frozenset(kept), manifest["contents"], manifest["kinds"])))
    if not found:
        return None
    size, base = max(found, key=lambda one: (one[0], one[1].store.key))
    whole = sum(path.stat().st_size for label in config.touchpoint_tables for path in tables[label].location.paths())
    return base if size and size >= LEAST_SHARE * whole else None


def added_files(base: Base, label: str, mapped: Mapped, fingerprints: list[Fingerprint]) -> tuple[Path, ...]:
    """Return the files of a source that the base has not read."""
    held = Counter(base.contents[label].get("", []))
    digests = _digests(mapped, fingerprints)
    added = []
    for path in mapped.location.files.get("", ()):
        if held[digests[path]]:
            held[digests[path]] -= 1
        else:
            added.append(path)
    return tuple(added)


def shared_labels(fingerprints: Mapping[str, list[Fingerprint]]) -> list[str]:
    """Return the tables that read a file of the stage labels, too: a model would copy the labels from there."""
    own = {item["sha256"] for item in fingerprints.get(LABELS, [])}
    return [
        f"{label}: it reads {item['file']}, as stage_labels does. What feeds a rule or a feature cannot be a label;"
        " leave the file out of one of both"
        for label, files in fingerprints.items()
        for item in files
        if label != LABELS and item["sha256"] in own
    ]


def constant_faults(config: Config) -> list[str]:
    """Return the columns that a source has twice: from a column of its own, and as a constant."""
    return [
        f"sources.{name}: {column!r} is in both columns and constants; keep one of them"
        for name, spec in config.sources.items()
        for column in spec.columns.keys() & spec.constants.keys()
    ]


def _stays(before: dict[str, list[str]], now: dict[str, list[str]]) -> bool:
    held = {name: Counter(files) for name, files in before.items()}
    wanted = {name: Counter(files) for name, files in now.items()}
    return held == wanted or (held.keys() == wanted.keys() == {""} and held[""] <= wanted[""])


def _digests(mapped: Mapped, fingerprints: list[Fingerprint]) -> dict[Path, str]:
    read = zip(mapped.location.paths(), fingerprints, strict=True)
    return {path: item["sha256"] for path, item in read}


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
