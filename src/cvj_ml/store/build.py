"""From all sources to one finished store: describe, map, stage, sort each bucket, rename into place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import (
    AttributesSpec,
    Config,
    IdentitiesSpec,
    MembersSpec,
    SourceSpec,
    StageHistorySpec,
    StageLabelsSpec,
    TableSpec,
)
from cvj_ml.errors import ConfigError, DataError, StoreError, raise_all
from cvj_ml.ownership import claim
from cvj_ml.schemas import CONTACT
from cvj_ml.store.buckets import Base, TouchpointSorter
from cvj_ml.store.cache_key import (
    ATTRIBUTES,
    BESIDE,
    LABELS,
    CacheKey,
    added_files,
    constant_faults,
    find_base,
    make_cache_key,
    shared_labels,
)
from cvj_ml.store.customer_tables import (
    AttributeSorter,
    map_attributes,
    map_labels,
    map_stage_history,
    sorters_of,
)
from cvj_ml.store.identities import IDENTITIES, find_persons, map_identities, tells_identities
from cvj_ml.store.joined_rows import JoinedRows
from cvj_ml.store.members import MEMBERS, find_members, map_members
from cvj_ml.store.postgres_source import Databases
from cvj_ml.store.refusals import (
    QUARANTINE,
    QUARANTINE_FILE,
    REFUSED,
    RefusedRowsError,
    refused_rows,
    told_silent,
    write_quarantine,
)
from cvj_ml.store.retention import clear, guarded, hold_store, put_in_place, staging
from cvj_ml.store.source_location import Fingerprint, Relation, land, locate, read_rows, typed
from cvj_ml.store.sql import connect_duckdb, within_memory
from cvj_ml.store.staging import (
    Mapped,
    Staged,
    folded_together,
    join_kinds,
    kinds_of,
    map_source,
    mixed_ids,
    row_faults,
    stage,
)
from cvj_ml.store.store import (
    FORMAT,
    IDENTITIES_FILE,
    UNASSIGNED_FILE,
    Store,
    bucket_name,
    bucket_sql,
    enough_buckets,
    open_store,
    refusal_faults,
    write_manifest,
)

_HEADING = "The sources cannot be used:"


def ingest(config: Config, tell: Callable[[str], object] = warnings.warn) -> Store:
    """Read every source into ``<out>/store/<key>`` and return the store; reuse it where nothing changed.

    A store that is damaged is not used: it is made anew from the sources, and that is told.

    Raises ConfigError for mappings and queries that are wrong, DataError for files, columns or rows that are; each
    lists all faults of all sources. Refused rows are in ``quarantine.parquet`` in the store, or in
    ``<out>/quarantine`` where too many were refused for a store to be made.
    """
    claim(Path(config.out))
    root = Path(config.out) / "store"
    root.mkdir(exist_ok=True)
    with within_memory(config), staging(root) as work:
        tables = _map(config, work)
        stamps = {label: mapped.location.stamps() for label, mapped in tables.items()}
        fingerprints = {label: mapped.location.fingerprints() for label, mapped in tables.items()}
        raise_all(ConfigError, _HEADING, shared_labels(fingerprints))
        cache_key = make_cache_key(config, tables, fingerprints)
        folder = root / cache_key.key[:12]
        damaged: set[Path] = set()
        store, base = _usable(root, cache_key, tables, config, damaged, tell)
        if store is None:
            built = work / "store"
            built.mkdir(mode=0o700)
            with connect_duckdb(config, work / "spill") as connection:
                manifest = _build(config, tables, cache_key, fingerprints, base, work, built, connection)
            if stamps != {label: mapped.location.stamps() for label, mapped in tables.items()}:
                raise DataError(f"{_HEADING} an input file changed while it was read; run again when it is complete.")
            sources = {label.removeprefix("sources."): fingerprints[label] for label in config.touchpoint_tables}
            sources |= {label: fingerprints[label] for label in BESIDE if label in fingerprints}
            columns = {label.removeprefix("sources."): mapped.columns() for label, mapped in tables.items()}
            facts = {"key": cache_key.key, "format": FORMAT, "fingerprints": sources, "columns": columns}
            facts |= {"meaning": cache_key.meaning, "contents": cache_key.contents}
            write_manifest(built, {**facts, **manifest})
            store = put_in_place(built, folder, cache_key.key, config, damaged)
    # A store that was made under a laxer refused_share is not good enough for a stricter one.
    refused = folder / QUARANTINE_FILE
    raise_all(DataError, f"{_HEADING} (the refused rows are in {refused})", refusal_faults(store, config))
    for label, silent in store.silent.items():
        tell(f"{label}: {told_silent(silent)}. Correct the configuration, or take it out there.")
    clear(root, store, damaged)
    return store


def _usable(
    root: Path,
    cache_key: CacheKey,
    tables: Mapping[str, Mapped],
    config: Config,
    damaged: set[Path],
    tell: Callable[[str], object],
) -> tuple[Store | None, Base | None]:
    """Return the wanted store, or else one that only lacks rows, every file of it whole; name those that are damaged.

    Files are read outside the guard: that takes a while, and the store is held.
    """
    while True:
        store: Store | None = None
        base: Base | None = None
        try:
            with guarded(root):
                folder = root / cache_key.key[:12]
                store = open_store(folder, cache_key.key, config) if folder not in damaged else None
                base = None if store else find_base(root, cache_key, tables, config, damaged)
                used = store or (base.store if base else None)
                if used is None:
                    return None, None
                hold_store(used)
            faults = used.faults(config.engine.threads)
            place = used.folder
        except StoreError as error:
            faults, place = [str(error)], error.folder
        if not faults:
            return store, base
        damaged.add(place)
        told = f"{'; '.join(faults[:3])}{f'; and {len(faults) - 3} more file(s)' if len(faults) > 3 else ''}"
        tell(f"the store {place} is damaged and is made anew from the sources: {told}")


def _map(config: Config, work: Path) -> dict[str, Mapped]:
    """Describe and map every table, those of servers read into ``work``; raise with all faults at once."""
    misconfigured, faults = constant_faults(config), list[str]()
    tables: dict[str, Mapped] = {}
    beside: dict[str, TableSpec | None] = {ATTRIBUTES: config.attributes, LABELS: config.stage_labels}
    beside |= {IDENTITIES: config.identities, MEMBERS: config.members}
    specs = {**config.touchpoint_tables, **{label: spec for label, spec in beside.items() if spec is not None}}
    with Databases(config, work) as databases:
        for label, spec in specs.items():
            try:
                location = locate(label, databases.landed(label, spec), config, work / "spill")
            except ConfigError as error:
                misconfigured.append(str(error))
                continue
            except DataError as error:
                faults.append(str(error))
                continue
            if isinstance(spec, StageHistorySpec):
                tables[label] = map_stage_history(location, spec, config, faults)
            elif isinstance(spec, SourceSpec):
                tables[label] = map_source(location, spec, config, faults)
            elif isinstance(spec, AttributesSpec):
                tables[label] = map_attributes(location, spec, config, faults)
            elif isinstance(spec, StageLabelsSpec):
                tables[label] = map_labels(location, spec, config, faults)
            elif isinstance(spec, IdentitiesSpec):
                tables[label] = map_identities(location, spec, config, faults)
            elif isinstance(spec, MembersSpec):
                tables[label] = map_members(location, spec, config, faults)
    if config.unit == "account" and tables and not any(CONTACT in one.extras for one in tables.values()):
        faults.append("unit: account: no source says who did it; map the column of the person under columns: contact")
    faults += mixed_ids(config, {label: mapped.id_family for label, mapped in tables.items()})
    raise_all(ConfigError if misconfigured else DataError, _HEADING, misconfigured + faults)
    return tables


def _build(
    config: Config,
    tables: Mapping[str, Mapped],
    cache_key: CacheKey,
    fingerprints: Mapping[str, list[Fingerprint]],
    base: Base | None,
    work: Path,
    built: Path,
    connection: duckdb.DuckDBPyConnection,
) -> dict[str, Any]:
    """Write all buckets and the quarantine; return what store.json says about them."""
    place = work / ("added" if base else "whole")
    landed: dict[str, Relation | None] = {}
    unread = []
    for label, mapped in tables.items():
        try:
            landed[label] = _land(label, mapped, fingerprints[label], base, connection, config, place)
        except DataError as error:
            unread.append(str(error))
    raise_all(DataError, _HEADING, unread)
    sources = [label for label in tables if label not in BESIDE]
    every = {label: _kinds(label, mapped, landed[label], base, connection) for label, mapped in tables.items()}
    kinds = join_kinds(every[label] for label in sources)
    rows = sum(tables[label].rows_in(one, connection) for label in sources if (one := landed[label]))
    rows += sum(base.store.counts[name].rows_in for name in base.sources) if base else 0
    buckets = config.engine.buckets or enough_buckets(rows)
    if base and (kinds != base.store.property_kinds or buckets != base.store.buckets):
        return _build(config, tables, cache_key, fingerprints, None, work, built, connection)

    staged: dict[str, Staged] = {}
    for label in (IDENTITIES, MEMBERS):
        if relation := landed.get(label):
            bucket = bucket_sql("customer_id", buckets)
            landed[label], staged[label] = _stage(tables[label], relation, {}, bucket, connection, place)
    of_accounts = config.unit == "account"
    of_people = find_members(staged.get(MEMBERS), connection) if of_accounts else None
    persons = of_people or find_persons(config, tables, landed, staged, connection, place)
    joined = JoinedRows(persons, buckets, connection, built.with_name("persons"), of_accounts=of_accounts)
    for label, mapped in tables.items():
        if label in staged:
            continue
        own = kinds if label in sources else join_kinds([every[label]])
        read = Staged(place / "rows" / mapped.location.slot, 0)
        bucket = joined.place_sql if label in sources else bucket_sql("customer_id", buckets)
        if relation := landed[label]:
            landed[label], read = _stage(mapped, relation, own, bucket, connection, place)
        name = label.removeprefix("sources.")
        kept = base is not None and label in sources and name in base.sources
        staged[label] = (
            read.joined(base.store.counts[name], base.store.silent.get(label, {})) if base and kept else read
        )
    held = pq.read_table(base.store.checked(QUARANTINE_FILE), partitioning=None) if base else QUARANTINE.empty_table()
    stay = base.sources if base else frozenset[str]()
    quarantine = pa.concat_tables(
        refused_rows(
            name,
            one.files(REFUSED),
            landed[label],
            tables[label].id_fields,
            held if name in stay else held.slice(0, 0),
            connection,
            f"x{list(kinds).index(CONTACT)}" if of_accounts and label in sources else None,
        )
        for label, one in sorted(staged.items())
        for name in (label.removeprefix("sources."),)
    )
    return _write(config, tables, cache_key, staged, every, buckets, base, joined, quarantine, built, connection)


def _land(
    label: str,
    mapped: Mapped,
    fingerprints: list[Fingerprint],
    base: Base | None,
    connection: duckdb.DuckDBPyConnection,
    config: Config,
    place: Path,
) -> Relation | None:
    """Return the rows of a table that have to be read; None where the base has them all."""
    if base is None or label.removeprefix("sources.") not in base.sources or label in BESIDE:
        return land(mapped.location, connection, config, place / "landed" / mapped.location.slot)
    added = added_files(base, label, mapped, fingerprints)
    if mapped.location.spec.query is not None or not added:
        return None
    location = replace(mapped.location, files={"": added})
    # Some files alone may have fewer columns, or narrower types, than all of them.
    return typed(land(location, connection, config, place / "landed" / mapped.location.slot), mapped.location.types)


def _kinds(
    label: str,
    mapped: Mapped,
    relation: Relation | None,
    base: Base | None,
    connection: duckdb.DuckDBPyConnection,
) -> dict[str, str | None]:
    read = [kinds_of(mapped, relation, connection)] if relation else []
    if base and label.removeprefix("sources.") in base.sources and label not in BESIDE:
        read.append(dict(base.kinds[label]))
    # What is text in one file is text in all.
    return {name: max((one[name] for one in read), key=(None, "double", "string").index) for name in mapped.extras}


def _stage(
    mapped: Mapped,
    relation: Relation,
    kinds: Mapping[str, str],
    bucket: str,
    connection: duckdb.DuckDBPyConnection,
    place: Path,
) -> tuple[Relation, Staged]:
    """Stage the rows of a table; return them with the relation that they were read from."""
    slot = mapped.location.slot

    def read(rows: Relation) -> tuple[Relation, Staged]:
        folder = place / ("rows" if rows is relation else "rows-apart") / slot
        return rows, stage(mapped, rows, kinds, bucket, connection, folder)

    owned = [one.own for one in mapped.owns if one.own is not None]
    return read_rows(mapped.location, relation, owned, place / "apart" / slot, read)


def _write(
    config: Config,
    tables: Mapping[str, Mapped],
    cache_key: CacheKey,
    all_staged: Mapping[str, Staged],
    every: Mapping[str, Mapping[str, str | None]],
    buckets: int,
    base: Base | None,
    joined: JoinedRows,
    quarantine: pa.Table,
    built: Path,
    connection: duckdb.DuckDBPyConnection,
) -> dict[str, Any]:
    staged = {label: one for label, one in all_staged.items() if label not in BESIDE}
    kinds = join_kinds(every[label] for label in staged)
    attribute_kinds = join_kinds([every[ATTRIBUTES]]) if ATTRIBUTES in every else {}
    faults = row_faults(config, all_staged, (IDENTITIES, MEMBERS)) + joined.persons.faults()
    touchpoints = TouchpointSorter(config, tables, staged, kinds, base, joined, buckets, connection)
    faults += touchpoints.faults()
    if config.ids.match == "folded":
        faults += folded_together(staged, connection)
    owned = None
    beside = sorters_of(all_staged, connection)
    if ATTRIBUTES in all_staged:
        owned = AttributeSorter(config, all_staged[ATTRIBUTES], attribute_kinds, connection)
        faults += owned.faults()
    if faults:
        if len(quarantine):
            path = Path(config.out) / "quarantine" / f"{cache_key.key[:12]}.parquet"
            write_quarantine(quarantine, path)
            raise RefusedRowsError(faults, _HEADING, path)
        raise_all(DataError, _HEADING, faults)

    for bucket in range(buckets):
        folder = built / bucket_name(bucket)
        customers = touchpoints.write(bucket, folder)
        if owned and customers is not None:
            owned.write(bucket, customers, folder)
        for sorter in beside.values() if customers is not None else ():
            sorter.write(bucket, customers, folder)
    write_quarantine(quarantine, built / QUARANTINE_FILE)
    if tells_identities(config):
        pq.write_table(joined.rows(), built / IDENTITIES_FILE)
    if tells_identities(config) or config.unit == "account":
        pq.write_table(touchpoints.unassigned(), built / UNASSIGNED_FILE)
    return {
        "buckets": buckets,
        "kinds": {label: dict(one) for label, one in every.items()},
        "property_kinds": kinds,
        "attribute_kinds": attribute_kinds,
        "silent": {label: dict(one.silent) for label, one in sorted(all_staged.items()) if one.silent},
        "attribute_counts": asdict(owned.counts()) if owned else None,
        "label_counts": asdict(beside[LABELS].counts()) if LABELS in beside else None,
        "pairs": dict(joined.persons.pairs) if tells_identities(config) else None,
        **touchpoints.summary(),
        **({"member_counts": asdict(beside[MEMBERS].counts())} if MEMBERS in beside else {}),
    }
