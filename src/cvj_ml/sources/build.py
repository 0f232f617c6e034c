"""From all sources to one finished store: describe, map, stage, sort each bucket, rename into place."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cvj_ml.config import AttributesSpec, Config, SourceSpec, StageLabelsSpec, TableSpec
from cvj_ml.errors import ConfigError, DataError, raise_all
from cvj_ml.sources.buckets import AttributeSorter, LabelSorter, TouchpointSorter
from cvj_ml.sources.origins import Fingerprint, Relation, describe, land
from cvj_ml.sources.postgres import Databases
from cvj_ml.sources.refusals import QUARANTINE_FILE, excess, write_quarantine
from cvj_ml.sources.sql import connect, within_memory
from cvj_ml.sources.staging import (
    Mapped,
    Staged,
    kinds_of,
    map_attributes,
    map_labels,
    map_source,
    mixed_ids,
    refused_rows,
    stage,
)
from cvj_ml.sources.store import Store, bucket_name, counts_as_json, open_store, refusal_faults, write_manifest

FORMAT = 1
"""The version of the store's layout and of the rules by which rows are read; part of the key."""

_HEADING = "The sources cannot be used:"
_ATTRIBUTES = "attributes"
_LABELS = "stage_labels"


def ingest(config: Config) -> Store:
    """Read every source into ``<out>/store/<key>`` and return the store; reuse it where nothing changed.

    Raises ConfigError for mappings and queries that are wrong, DataError for files, columns or rows that are; each
    lists all faults of all sources. Refused rows are in ``quarantine.parquet`` in the store, or in
    ``<out>/quarantine`` where too many were refused for a store to be made.
    """
    root = Path(config.out) / "store"
    root.mkdir(parents=True, exist_ok=True)
    with within_memory(config), tempfile.TemporaryDirectory(prefix=".staging-", dir=root) as name:
        work = Path(name)
        tables = _map(config, work)
        stamps = {label: mapped.origin.stamps() for label, mapped in tables.items()}
        fingerprints = {label: mapped.origin.fingerprints() for label, mapped in tables.items()}
        raise_all(ConfigError, _HEADING, _shared_labels(fingerprints))
        key = _key(config, tables, fingerprints)
        folder = root / key[:12]
        store = open_store(folder, key, config)
        if store is None:
            built = work / "store"
            built.mkdir(mode=0o700)
            with connect(config, work / "spill") as connection:
                manifest = _build(config, tables, key, work, built, connection)
            if stamps != {label: mapped.origin.stamps() for label, mapped in tables.items()}:
                raise DataError(f"{_HEADING} an input file changed while it was read; run again when it is complete.")
            sources = {name: fingerprints[f"sources.{name}"] for name in config.sources}
            sources |= {label: fingerprints[label] for label in (_ATTRIBUTES, _LABELS) if label in fingerprints}
            columns = {label.removeprefix("sources."): mapped.columns() for label, mapped in tables.items()}
            facts = {"key": key, "format": FORMAT, "fingerprints": sources, "columns": columns}
            write_manifest(built, {**facts, **manifest})
            store = _rename(built, folder, key, config)
    # A store that was made under a laxer refused_share is not good enough for a stricter one.
    refused = folder / QUARANTINE_FILE
    raise_all(DataError, f"{_HEADING} (the refused rows are in {refused})", refusal_faults(store, config))
    return store


def _map(config: Config, work: Path) -> dict[str, Mapped]:
    """Describe and map every table, those of servers read into ``work``; raise with all faults at once."""
    misconfigured, faults = _config_faults(config), list[str]()
    tables: dict[str, Mapped] = {}
    specs: dict[str, TableSpec] = {f"sources.{name}": spec for name, spec in config.sources.items()}
    specs |= {_ATTRIBUTES: config.attributes} if config.attributes else {}
    specs |= {_LABELS: config.stage_labels} if config.stage_labels else {}
    with Databases(config, work) as databases:
        for label, spec in specs.items():
            try:
                origin = describe(label, databases.landed(label, spec), config, work / "spill")
            except ConfigError as error:
                misconfigured.append(str(error))
                continue
            except DataError as error:
                faults.append(str(error))
                continue
            if isinstance(spec, SourceSpec):
                tables[label] = map_source(origin, spec, config, faults)
            elif isinstance(spec, AttributesSpec):
                tables[label] = map_attributes(origin, spec, config, faults)
            elif isinstance(spec, StageLabelsSpec):
                tables[label] = map_labels(origin, spec, config, faults)
    faults += mixed_ids(config, {label: mapped.id_family for label, mapped in tables.items()})
    raise_all(ConfigError if misconfigured else DataError, _HEADING, misconfigured + faults)
    return tables


def _shared_labels(fingerprints: Mapping[str, list[Fingerprint]]) -> list[str]:
    """Return the tables that read a file of the stage labels, too: a model would copy the labels from there."""
    own = {item["sha256"] for item in fingerprints.get(_LABELS, [])}
    return [
        f"{label}: it reads {item['file']}, as stage_labels does. What feeds a rule or a feature cannot be a label;"
        " leave the file out of one of both"
        for label, files in fingerprints.items()
        for item in files
        if label != _LABELS and item["sha256"] in own
    ]


def _config_faults(config: Config) -> list[str]:
    return [
        f"sources.{name}: {column!r} is in both columns and constants; keep one of them"
        for name, spec in config.sources.items()
        for column in spec.columns.keys() & spec.constants.keys()
    ]


def _key(config: Config, tables: Mapping[str, Mapped], fingerprints: Mapping[str, list[Fingerprint]]) -> str:
    """Return the digest of all that decides the store's content: files by what is in them, not by where they are."""
    described: dict[str, dict[str, Any]] = {}
    for label, mapped in tables.items():
        spec = mapped.origin.spec
        read = zip(mapped.origin.paths(), fingerprints[label], strict=True)
        digests = {path: item["sha256"] for path, item in read}
        described[label] = {
            "files": {
                name: sorted((digests[path], path.suffixes[-1:]) for path in paths)
                for name, paths in mapped.origin.files.items()
            },
            "query": spec.query,
            "zone": {"local": config.time_zone, "utc": "UTC"}.get(spec.times, spec.times),
            "settings": spec.model_dump(mode="json", include={"columns", "constants", "known_after", "static"}),
        }
    if _LABELS in described:  # a label of a stage that the journey does not have is refused
        described[_LABELS]["stages"] = config.journey.names
    whole = {
        "format": FORMAT,
        "tables": described,
        "config": config.model_dump(mode="json", include={"time_zone", "ids", "value_decimals", "drop_duplicates"}),
        "buckets": config.engine.buckets,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _build(
    config: Config,
    tables: Mapping[str, Mapped],
    key: str,
    work: Path,
    built: Path,
    connection: duckdb.DuckDBPyConnection,
) -> dict[str, Any]:
    """Write all buckets and the quarantine; return what store.json says about them."""
    landed: dict[str, tuple[Mapped, Relation]] = {}
    unread = []
    for label, mapped in tables.items():
        try:
            landed[label] = mapped, land(mapped.origin, connection, config, work / "landed" / label)
        except DataError as error:
            unread.append(str(error))
    raise_all(DataError, _HEADING, unread)
    sources = {label: pair for label, pair in landed.items() if label not in (_ATTRIBUTES, _LABELS)}
    kinds = kinds_of(sources, connection)
    staged = {label: stage(*pair, kinds, config, connection, work / "rows" / label) for label, pair in sources.items()}
    attributes, attribute_kinds = None, dict[str, str]()
    if _ATTRIBUTES in landed:
        attribute_kinds = kinds_of({_ATTRIBUTES: landed[_ATTRIBUTES]}, connection)
        attributes = stage(*landed[_ATTRIBUTES], attribute_kinds, config, connection, work / "rows" / _ATTRIBUTES)
    labels = None
    if _LABELS in landed:
        labels = stage(*landed[_LABELS], {}, config, connection, work / "rows" / _LABELS)

    all_staged = staged | ({_ATTRIBUTES: attributes} if attributes else {}) | ({_LABELS: labels} if labels else {})
    quarantine = pa.concat_tables(
        refused_rows(label.removeprefix("sources."), one, landed[label][1], connection)
        for label, one in sorted(all_staged.items())
    )
    faults = _row_faults(config, all_staged)
    touchpoints = TouchpointSorter(config, tables, staged, kinds, connection)
    faults += touchpoints.faults()
    owned = AttributeSorter(config, attributes, attribute_kinds, connection) if attributes else None
    faults += owned.faults() if owned else []
    labelled = LabelSorter(labels, connection) if labels else None
    if faults:
        heading = _HEADING
        if len(quarantine):
            path = Path(config.out) / "quarantine" / f"{key[:12]}.parquet"
            write_quarantine(quarantine, path)
            heading = f"{_HEADING} (the refused rows are in {path})"
        raise_all(DataError, heading, faults)

    for bucket in range(config.engine.buckets):
        folder = built / bucket_name(bucket)
        customers = touchpoints.write(bucket, folder)
        if owned and customers is not None:
            owned.write(bucket, customers, folder)
        if labelled and customers is not None:
            labelled.write(bucket, customers, folder)
    write_quarantine(quarantine, built / QUARANTINE_FILE)
    return {
        "buckets": config.engine.buckets,
        "property_kinds": kinds,
        "attribute_kinds": attribute_kinds,
        "attribute_counts": counts_as_json(owned.counts()) if owned else None,
        "label_counts": counts_as_json(labelled.counts()) if labelled else None,
        **touchpoints.summary(),
    }


def _row_faults(config: Config, staged: Mapping[str, Staged]) -> list[str]:
    """Return the tables of which too much was refused, or nothing is left."""
    faults: list[str] = []
    for label, one in staged.items():
        too_many = excess(label, one.rows_in, one.refused, config.refused_share)
        if too_many and one.refused.get("unreadable stage"):
            too_many = [f"{fault}; the journey's stages are {', '.join(config.journey.names)}" for fault in too_many]
        faults += too_many
        if not one.accepted and not too_many:
            faults.append(f"{label}: {one.rows_in} rows came in and none is left; is the export complete?")
    return faults


def _rename(built: Path, folder: Path, key: str, config: Config) -> Store:
    """Put a finished store in its place; another process may have been faster with the same content."""
    for _ in range(2):
        try:
            built.rename(folder)
            break
        except OSError:
            if store := open_store(folder, key, config):
                return store
            shutil.rmtree(folder, ignore_errors=True)
    store = open_store(folder, key, config)
    if store is None:
        raise DataError(f"{folder}: the store cannot be put in place; is the disk full, or the folder not writable?")
    return store
