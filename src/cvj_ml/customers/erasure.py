"""Where customers who have to be forgotten still stand, and removing what earlier readings left behind."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import Config, TableSpec
from cvj_ml.customers.id_tables import rows_naming
from cvj_ml.ownership import remove
from cvj_ml.schemas import CONTACT, PROPERTY
from cvj_ml.store.cache_key import ATTRIBUTES, LABELS
from cvj_ml.store.customer_ids import CustomerIds, origin_of
from cvj_ml.store.identities import IDENTITIES
from cvj_ml.store.members import MEMBERS
from cvj_ml.store.refusals import QUARANTINE_FILE
from cvj_ml.store.retention import take_away
from cvj_ml.store.store import (
    ATTRIBUTES_FILE,
    IDENTITIES_FILE,
    LABELS_FILE,
    MEMBERS_FILE,
    TOUCHPOINTS_FILE,
    UNASSIGNED_FILE,
    Store,
    bucket_of,
)

_LEFT_BEHIND = (".audit-*", ".contact-*", ".suppression-*", ".consent-*")
"""Folders of runs that were killed while they read or checked."""

_KEPT_ROWS = (TOUCHPOINTS_FILE, ATTRIBUTES_FILE, LABELS_FILE, MEMBERS_FILE)


def rows_held(config: Config, store: Store, customers: CustomerIds) -> dict[str, int]:
    """Return how many rows of these customers each source and table has now, refused rows included.

    Of touchpoints the store has every row. The other tables are read themselves: rows of whoever has no touchpoint
    are not in it. The suppression is left out: whoever is forgotten may stay there.
    """
    held: Counter[str] = Counter()
    labels = {label.removeprefix("sources."): label for label in config.touchpoint_tables}
    names = ["customer_id", PROPERTY + CONTACT] if store.accounts else ["customer_id"]
    asked = {bucket_of(customer, store.buckets) for customer in customers.ids.to_pylist()}
    # What a person did stands with the account.
    for bucket in range(store.buckets) if store.accounts else sorted(asked):
        if (file := store.bucket_file(bucket, TOUCHPOINTS_FILE)) is not None:
            rows = pq.read_table(file, columns=[*names, "source", "copied"], partitioning=None)
            named = [pc.is_in(rows[name], value_set=customers.ids) for name in names]
            own = pc.and_(functools.reduce(pc.or_, named), pc.invert(rows["copied"]))
            theirs = rows["source"].filter(own)
            held.update(labels[name] for name in theirs.to_pylist())
    if store.accounts or store.pairs is not None:
        nobodys = pq.read_table(store.checked(UNASSIGNED_FILE), partitioning=None)
        origins = pa.array([one for name in customers.ids.to_pylist() for one in (name, origin_of(name))], pa.string())
        for row in nobodys.filter(pc.is_in(nobodys["customer_id"], value_set=origins)).to_pylist():
            held[labels[row["source"]]] += row["count_all"]
    refused = pq.read_table(store.checked(QUARANTINE_FILE), partitioning=None)
    refused = refused.filter(pc.is_in(refused["source"], value_set=pa.array(list(labels), pa.string())))
    held.update(f"{name} (refused rows)" for name in refused["source"].filter(_named(refused, customers)).to_pylist())
    for label, spec, column in [*_other_tables(config), *_further_ids(config)]:
        held[label] += rows_naming(label, spec, column, config, customers)
    return {name: count for name, count in sorted(held.items()) if count}


def other_ids(out: Path, customers: CustomerIds) -> CustomerIds:
    """Return these customers with every other id of the same persons that any store in an output folder knows."""
    ids = set(customers.ids.to_pylist())
    for file in sorted((out / "store").glob(f"*/{IDENTITIES_FILE}")):
        try:
            table = pq.read_table(file, columns=["customer_id", "into"], partitioning=None)
        except (OSError, pa.ArrowException):
            continue  # what is damaged knows nobody, and is removed with the rest
        into: dict[str, set[str]] = {}
        for name, other in zip(*(one.to_pylist() for one in table.columns), strict=True):
            into.setdefault(name, set()).update({other} - {None})
        tops = {name: _tops(name, into) for name in into}
        wanted = {top for name in ids if name in tops for top in tops[name]}
        ids |= {name for name, found in tops.items() if found & wanted}
    return CustomerIds(pa.array(sorted(ids), pa.string()), customers.match)


def _tops(name: str, into: Mapping[str, Collection[str]]) -> set[str]:
    """Return the ids that stay of the persons that an id is, or was, one of."""
    found, left = set[str](), [name]
    while left:
        one = left.pop()
        left += into.get(one, ())
        found |= set() if into.get(one) else {one}
    return found


def known_from_readings(out: Path, customers: CustomerIds) -> pa.Array:
    """Return which of these customers any store or quarantined file in an output folder has."""
    found = [customers.ids.slice(0, 0)]
    files = [file for name in _KEPT_ROWS for file in (out / "store").glob(f"*/*/{name}")]
    files += (out / "store").glob(f"*/{UNASSIGNED_FILE}")
    files += [*(out / "store").glob(f"*/{QUARANTINE_FILE}"), *(out / "quarantine").glob("*.parquet")]
    for file in files:
        try:
            found += [customers.among(column) for column in _ids(file)]
        except (OSError, pa.ArrowException):
            continue  # what is damaged knows nobody, and is removed with the rest
    return pa.concat_arrays(found).unique()


def clear_leftovers(out: Path, keep: Store) -> dict[str, int]:
    """Remove all that was read from sources except one store; return how many folders or files went, by kind.

    All of it can be made anew from the sources, so nothing is searched: rows that were refused may hold an id in a
    form that no search finds. Raises LockedError, and removes nothing, while another run reads a store or makes one.
    """
    removed = {"stores": take_away(out / "store", keep)}
    kinds = {
        "quarantined files": list((out / "quarantine").glob("*")),
        "unfinished blocks": list((out / "work").glob("*")),
        "leftovers of killed runs": [path for pattern in _LEFT_BEHIND for path in out.glob(pattern)],
    }
    for path in (path for paths in kinds.values() for path in paths):
        remove(path, strict=True)
    return removed | {kind: len(paths) for kind, paths in kinds.items()}


def _further_ids(config: Config) -> Iterator[tuple[str, TableSpec, str]]:
    """Yield the columns of ids that stand beside the first one: a row of somebody else can name them, too."""
    for label, spec in config.touchpoint_tables.items():
        for column in spec.ids[1:]:
            yield f"{label} ({column})", spec, column


def _other_tables(config: Config) -> Iterator[tuple[str, TableSpec, str]]:
    """Yield the tables beside the touchpoints with each of their columns of ids."""
    for name, mapped in ((ATTRIBUTES, config.attributes), (LABELS, config.stage_labels)):
        if mapped is not None:
            yield name, mapped, mapped.columns.get("customer_id", "customer_id")
    for name, people in (("consent", config.consent), ("contact", config.contact)):
        if people is not None:
            yield name, people, people.contact or people.customer_id
    if config.identities is not None:
        for role in ("alias", "customer"):
            yield IDENTITIES, config.identities, config.identities.columns.get(role, role)
    if config.members is not None:
        for role in (CONTACT, "account"):
            yield MEMBERS, config.members, config.members.columns.get(role, role)


def _ids(file: Path) -> Iterator[pa.Array]:
    """Yield the ids of a file of a store, or of refused rows, which may have several each."""
    with pq.ParquetFile(file) as table:
        of_persons = {CONTACT} if file.name == MEMBERS_FILE else {PROPERTY + CONTACT}
        for name in sorted({"customer_id", "customer_ids", *of_persons} & {*table.schema_arrow.names}):
            for batch in table.iter_batches(columns=[name]):
                found = batch[name].flatten() if name == "customer_ids" else batch[name]
                yield pc.replace_substring_regex(found, f"^{re.escape(origin_of(''))}", "")


def _named(refused: pa.Table, customers: CustomerIds) -> pa.Array:
    """Return which refused rows are, or may be, of these customers."""
    ids = refused["customer_ids"].combine_chunks()
    rows = pc.list_parent_indices(ids).filter(customers.holds(ids.flatten()))
    return pc.is_in(pa.array(range(len(refused)), pa.int64()), value_set=rows.cast(pa.int64()))
