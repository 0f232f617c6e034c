"""Files recognised as exports of tools: their sources, read once by the store's own reader, and what is to be said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvj_ml.config import Config, SourceSpec
from cvj_ml.config.base import validated
from cvj_ml.errors import DataError, raise_all
from cvj_ml.setup.customers import nobody_values
from cvj_ml.setup.doubts import Doubt, first_of
from cvj_ml.setup.named_tools import Recognised, ToolSource, plain_ids, tool_columns
from cvj_ml.setup.profile import Table
from cvj_ml.setup.queries import Draft, Read
from cvj_ml.setup.roles import Roles
from cvj_ml.setup.tool_doubts import order_doubts, stage_doubts, table_doubts, tool_notes
from cvj_ml.store import ingest
from cvj_ml.store.fields import where_sql
from cvj_ml.store.instants import formatted_instant
from cvj_ml.store.refusals import RefusedRowsError
from cvj_ml.store.sql import as_named, identifier, literal
from cvj_ml.store.store import IDENTITIES_FILE, TOUCHPOINTS_FILE, Store

_SINCE = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_CURRENCY = "currency"
"""The property by which the currencies of a source are looked at before one of them is chosen."""


def draft_tools(
    found: Sequence[tuple[Table, Recognised]], names: Sequence[str], told: Sequence[Mapping[str, str | list[str]]],
    looking: Config, scratch: Path,
) -> tuple[list[Draft], list[Doubt]]:  # fmt: skip
    """Return the sources of recognised tables, called by ``names``, with all doubts about them.

    ``told`` are columns that a person named, which win; ``looking`` has the settings that reading needs.
    """
    sources, doubts = list[ToolSource](), list[Doubt]()
    for (table, one), name, columns in zip(found, names, told, strict=True):
        made = _sources(name, table, one, columns)
        sources += made
        doubts += [*tool_notes(name, table, one, made), *table_doubts(name, table, made)]
    if not sources:
        return [], doubts
    store = _read(sources, looking, scratch / "look", {"columns": {_CURRENCY: _CURRENCY}})
    sources, mixed = _with_currencies(sources, store)
    if mixed:
        store = _read(sources, looking, scratch / "again", {})
    drafts = [_drafted(one, store, looking) for one in sources]
    for draft in drafts:
        doubts += [*order_doubts(draft), *stage_doubts(draft)]
    return drafts, doubts + mixed


def _sources(name: str, table: Table, one: Recognised, columns: Mapping[str, str | list[str]]) -> list[ToolSource]:
    made = list[ToolSource]()
    for kind, entry in one.entries(tool_columns(table)).items():
        if not _rows_of(table, entry):
            continue
        entry["columns"] |= columns
        if "event" in columns:
            entry.pop("constants", None)
        customer = entry["columns"]["customer_id"]
        found = [nobody_values(table.file.column(own)) for own in plain_ids(table, customer)]
        if nobody := sorted({value for values in found for value in values}):
            entry["null_values"] = nobody
        value = entry["columns"].get("value")
        if value in table.fields and (mark := table.file.column(value).decimal_mark):
            entry["decimal_mark"] = mark
        if (written := _time_format(table, entry)) is not None:
            entry["time_format"] = written
        if table.file.encoding != "utf-8":
            entry["encoding"] = table.file.encoding
        made.append(ToolSource(f"{name}_{kind}" if made else name, kind, table, one, entry))
    return made


def _time_format(table: Table, entry: Mapping[str, Any]) -> str | None:
    """Return how all times of a source are written, where that is not as the tool writes them; else None."""
    columns, told = entry["columns"], entry.get("time_format")
    named = [columns[role] for role in ("occurred_at", "known_at") if role in columns]
    times = [table.file.column(own) for own in (*named, *entry.get("melt", {}).values()) if own in table.fields]
    written = {one.time_format for one in times if one.kind == "time"}
    if len(written) != 1 or not all(one.is_written_plainly for one in times):
        return None
    if told is not None:
        fits = [f"count(*) FILTER (WHERE {formatted_instant(table.text(one.name), told)} IS NOT NULL)" for one in times]
        if all(read == one.filled for read, one in zip(table.ask(", ".join(fits)), times, strict=True)):
            return None
    return written.pop()


def _rows_of(table: Table, entry: Mapping[str, Any]) -> int:
    """Return how many rows a source is about: a source of none is taken for a mistake wherever it is read."""
    spec = SourceSpec.model_validate({"path": "export", "where": entry.get("where", {})})
    condition, _ = where_sql(table.location, spec.where, [])
    dates = [f"{table.text(own)} IS NOT NULL" for own in entry.get("melt", {}).values()]
    return int(table.ask("count(*)", f"{condition} AND ({' OR '.join(dates) or 'TRUE'})")[0])


def _read(sources: Sequence[ToolSource], looking: Config, out: Path, more: Mapping[str, Mapping[str, str]]) -> Store:
    """Return a store of the sources, made as any is; nothing is refused as a whole, so that all is counted."""
    entries = {}
    for one in sources:
        entry = dict(one.entry)
        if more and _CURRENCY in entry:
            entry["columns"] = {**entry["columns"], _CURRENCY: entry.pop(_CURRENCY)["column"]}
        entries[one.name] = {"path": [str(path) for path in one.table.file.paths], **entry}
    settings = {
        "name": looking.name,
        "time_zone": looking.time_zone,
        "history_from": looking.history_from,
        "sources": entries,
        "journey": "cvj8",
        "refused_share": 1,
        "ids": "text",
        "out": str(out),
    }
    try:
        return ingest(validated(Config, settings, out), lambda text: None)
    except RefusedRowsError as error:  # the file of refused rows is gone when init ends
        files = [f"sources.{one.name} is {one.table.file.name}, {one.recognised.told}" for one in sources]
        way_out = "If it is another tool's file, or was changed since, --from none has its columns guessed instead"
        raise_all(DataError, "These exports cannot be read as the tool writes them:", [*error.faults, *files, way_out])
        raise


def _histories(store: Store, source: str) -> str:
    """Return SQL of what was stored of a source and holds now, under every id of its person."""
    files = [store.bucket_file(bucket, TOUCHPOINTS_FILE) for bucket in range(store.buckets)]
    listed = ", ".join(as_named(file) for file in files if file is not None)
    return (
        f"(SELECT * FROM read_parquet([{listed}], hive_partitioning=false) WHERE source = {literal(source)}"
        " AND superseded_at IS NULL)"
    )


def _touchpoints(store: Store, source: str) -> str:
    """Return SQL of the same rows, each once: in the history of the id that stays."""
    histories = _histories(store, source)
    if store.pairs is None:
        return histories
    aliases = (
        f"SELECT customer_id FROM {as_named(store.checked(IDENTITIES_FILE))} WHERE {identifier('into')} IS NOT NULL"
    )
    return f"(SELECT * FROM {histories} WHERE customer_id NOT IN ({aliases}))"


def _with_currencies(sources: Sequence[ToolSource], store: Store) -> tuple[list[ToolSource], list[Doubt]]:
    """Return the sources with the currency of most of their rows, and a doubt for those that have several."""
    made, doubts = list[ToolSource](), list[Doubt]()
    for one in sources:
        entry, told = dict(one.entry), dict[str, int]()
        if _CURRENCY in entry:
            counted = (
                f"SELECT upper(trim(property_{_CURRENCY})) AS name, count(*) FROM"
                f" {_touchpoints(store, one.name)} WHERE value IS NOT NULL"
                " GROUP BY 1 HAVING name <> '' ORDER BY 2 DESC, 1"
            )
            told = dict(one.table.connection.execute(counted).fetchall())
            entry.pop(_CURRENCY)
            if told:
                entry[_CURRENCY] = {"column": one.entry[_CURRENCY]["column"], "to": next(iter(told))}
        if len(told) > 1:
            most, rows = next(iter(told.items()))
            others = {name: number for name, number in told.items() if name != most}
            shares = first_of([f"{name} in {number:,} rows" for name, number in others.items()])
            doubts.append(Doubt(
                f"{one.name}.currencies", one.table.file.name,
                f"amounts are in {len(told)} currencies: {most} in {rows:,} rows, {shares}. Those in {most} are read;"
                " rows in others are refused and counted.", True, dict(told), tuple(others),
                f"Are there rates by day? If so: currency: {{rates: rates.csv}} under sources.{one.name}.",
            ))  # fmt: skip
        made.append(replace(one, entry=entry))
    return made, doubts


def _drafted(one: ToolSource, store: Store, looking: Config) -> Draft:
    rows, counts = _touchpoints(store, one.name), store.counts[one.name]
    ask = one.table.connection.execute
    events = dict(ask(f"SELECT event, count(*) FROM {rows} GROUP BY 1 ORDER BY 2 DESC, 1").fetchall())
    now = int(datetime.now(UTC).timestamp()) * 1_000_000
    when = "epoch_us(occurred_at)"
    ((first, last),) = ask(
        f"SELECT min({when}), max({when}) FROM {rows} WHERE {when} BETWEEN {_SINCE} AND {now}"
    ).fetchall()
    plain = {
        role: own for role, own in one.entry["columns"].items() if isinstance(own, str) and own in one.table.fields
    }
    return Draft(
        one.name,
        one.table,
        Roles(plain, frozenset(plain)),
        events=events,
        first=_local(first, looking),
        last=_local(last, looking),
        null_values=tuple(one.entry.get("null_values", ())),
        read=Read(
            one.recognised,
            one.entry,
            counts.rows_in - counts.left_out,
            counts.refused,
            rows,
            _histories(store, one.name),
            sum(events.values()),
        ),
    )


def _local(instant: int | None, looking: Config) -> datetime | None:
    """Return an instant by the business's clock, as the times of other files are."""
    if instant is None:
        return None
    return datetime.fromtimestamp(instant / 1e6, UTC).astimezone(looking.zone).replace(tzinfo=None)


def tool_events(drafts: Sequence[Draft]) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Return what the tools say of events: the preset's names with theirs, those not to be counted (why), and sends.

    Of a tool whose events are values of a column all names are told, since others may come; else those that there are.
    """
    meant: dict[str, list[str]] = {}
    uncounted: dict[str, str] = {}
    sent: list[str] = []
    for one in drafts:
        if one.read is None:
            continue
        tool, free = one.read.recognised.tool, "event" in one.read.entry["columns"]

        def told(names: Iterable[str], free: bool = free, events: Mapping[str, int] = one.events) -> list[str]:
            return [name for name in names if free or name in events]

        for canonical, names in tool.events.items():
            held = meant.setdefault(canonical, [])
            held += [name for name in told(names) if name not in held]
        uncounted |= {name: tool.uncounted[name] for name in told(tool.uncounted)}
        sent += [name for name in told(tool.outbound) if name not in sent]
    return {canonical: names for canonical, names in meant.items() if names}, uncounted, sent
