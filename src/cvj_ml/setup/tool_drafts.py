"""Files recognised as exports of tools: their sources, read once by the store's own reader, and what is to be said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvj_ml.config import Config, SourceSpec
from cvj_ml.config.base import validated
from cvj_ml.setup.columns import words
from cvj_ml.setup.doubts import Doubt, customer_doubts, file_doubts, first_of, nobody_values
from cvj_ml.setup.events import COMMITTED
from cvj_ml.setup.named_tools import OFF, FileColumns, Recognised, columns_of
from cvj_ml.setup.profile import Table
from cvj_ml.setup.queries import Draft, Read
from cvj_ml.setup.roles import Roles
from cvj_ml.store import ingest
from cvj_ml.store.fields import Field, find_field, where_sql
from cvj_ml.store.sql import as_named, identifier, literal
from cvj_ml.store.store import IDENTITIES_FILE, TOUCHPOINTS_FILE, Store

_SINCE = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_CURRENCY = "currency"
"""The property by which the currencies of a source are looked at before one of them is chosen."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A source of a recognised table before it was read."""

    name: str
    kind: str
    table: Table
    recognised: Recognised
    entry: Mapping[str, Any]


def draft_tools(
    found: Sequence[tuple[Table, Recognised]], names: Sequence[str], told: Sequence[Mapping[str, str | list[str]]],
    looking: Config, scratch: Path,
) -> tuple[list[Draft], list[Doubt]]:  # fmt: skip
    """Return the sources of recognised tables, called by ``names``, with all doubts about them.

    ``told`` are columns that a person named, which win; ``looking`` has the settings that reading needs.
    """
    sources, doubts = list[_Source](), list[Doubt]()
    for (table, one), name, columns in zip(found, names, told, strict=True):
        made = _sources(name, table, one, columns)
        sources += made
        doubts += [*_notes(name, table, one, made), *_table_doubts(name, table, made)]
    if not sources:
        return [], doubts
    store = _read(sources, looking, scratch / "look", {"columns": {_CURRENCY: _CURRENCY}})
    sources, mixed = _with_currencies(sources, store, looking)
    if mixed:
        store = _read(sources, looking, scratch / "again", {})
    drafts = [_drafted(one, store, looking) for one in sources]
    for draft in drafts:
        doubts += [*_order_doubts(draft), *_state_doubts(draft)]
    return drafts, doubts + mixed


def _columns(table: Table) -> FileColumns:
    """Return the columns of a table; of several that could be meant, those count in which anything stands."""

    def holds(own: str) -> bool:
        if own in table.fields:
            return table.file.column(own).filled > 0
        found = find_field(table.location, own)
        return isinstance(found, Field) and bool(table.ask(f"count({found.raw})")[0])

    return columns_of(table.location, holds)


def _sources(name: str, table: Table, one: Recognised, columns: Mapping[str, str | list[str]]) -> list[_Source]:
    made = list[_Source]()
    for kind, entry in one.entries(_columns(table)).items():
        if not _rows_of(table, entry):
            continue
        entry["columns"] |= columns
        if "event" in columns:
            entry.pop("constants", None)
        customer = entry["columns"]["customer_id"]
        found = [nobody_values(table, table.file.column(own)) for own in _plain_ids(table, customer)]
        if nobody := sorted({value for values in found for value in values}):
            entry["null_values"] = nobody
        value = entry["columns"].get("value")
        if value in table.fields and (mark := table.file.column(value).decimal_mark):
            entry["decimal_mark"] = mark
        if table.file.encoding != "utf-8":
            entry["encoding"] = table.file.encoding
        made.append(_Source(f"{name}_{kind}" if made else name, kind, table, one, entry))
    return made


def _plain_ids(table: Table, customer: str | Sequence[str]) -> list[str]:
    """Return the columns of the customer's ids that were looked at: not the ways into others."""
    return [own for own in ([customer] if isinstance(customer, str) else customer) if own in table.fields]


def _rows_of(table: Table, entry: Mapping[str, Any]) -> int:
    """Return how many rows a source is about: a source of none is taken for a mistake wherever it is read."""
    spec = SourceSpec.model_validate({"path": "export", "where": entry.get("where", {})})
    condition, _ = where_sql(table.location, spec.where, [])
    dates = [f"{table.text(own)} IS NOT NULL" for own in entry.get("melt", {}).values()]
    return int(table.ask("count(*)", f"{condition} AND ({' OR '.join(dates) or 'TRUE'})")[0])


def _read(sources: Sequence[_Source], looking: Config, out: Path, more: Mapping[str, Mapping[str, str]]) -> Store:
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
    return ingest(validated(Config, settings, out), lambda text: None)


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


def _with_currencies(sources: Sequence[_Source], store: Store, looking: Config) -> tuple[list[_Source], list[Doubt]]:
    """Return the sources with the currency of most of their rows, and a doubt for those that have several."""
    made, doubts = list[_Source](), list[Doubt]()
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


def _drafted(one: _Source, store: Store, looking: Config) -> Draft:
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


def _notes(name: str, table: Table, one: Recognised, made: Sequence[_Source]) -> list[Doubt]:
    """Return which export was recognised, what it lacks, and what its documentation warns of."""
    export = one.export
    told = first_of([column.split(" | ")[0] for column in export.recognise])
    text = (
        f"recognised as an export of {one.tool.title} ({one.name}) by its columns {told}, and read as"
        f" {export.documentation} says."
    )
    if not made:
        text = f"recognised as an export of {one.tool.title} ({one.name}), which is left out."
    found = [Doubt(
        f"{name}.tool", table.file.name, text, numbers={"rows": table.file.rows},
        way_out=f"To have the columns guessed instead: --from {OFF}.",
    )]  # fmt: skip
    read = {kind: set(entry["columns"]) for kind, entry in one.entries(_columns(table)).items()}
    lost = [f"{role} ({entry['columns'][role]})" for kind, entry in export.sources.items()
            for role in sorted(set(entry["columns"]) - read.get(kind, set(entry["columns"])))
            if role in ("value", "known_at", "touchpoint_id")]  # fmt: skip
    lost += [f"the source {kind!r}" for kind in export.sources if kind not in read]
    if made and lost:
        found.append(Doubt(
            f"{name}.lacks", table.file.name, f"it has no columns for {first_of(lost)}.",
            way_out="If the tool can export them, export the file again.",
        ))  # fmt: skip
    if empty := sorted(set(read) - {one.kind for one in made}):
        found.append(Doubt(
            f"{name}.none-yet", table.file.name, f"no row is one of {first_of(empty)}, and that source is left out.",
            way_out="When there are such rows, make the configuration anew.",
        ))  # fmt: skip
    return found + [Doubt(f"{name}.{short}", table.file.name, note) for short, note in export.notes.items()]


def _table_doubts(name: str, table: Table, made: Sequence[_Source]) -> list[Doubt]:
    """Return what the rows themselves give reason to doubt, whatever the tool's documentation says."""
    if not made:
        return []
    columns = made[0].entry["columns"]
    customer = columns["customer_id"]
    found = list[Doubt]()
    if ids := _plain_ids(table, customer):
        found += customer_doubts(
            name, table, Roles({"customer_id": ids[0]}, frozenset(["customer_id"]), also=tuple(ids[1:]))
        )
    # Rows with an id of their own count once, however often they are exported.
    return found + file_doubts(name, table, "touchpoint_id" in columns)


def _order_doubts(draft: Draft) -> list[Doubt]:
    """Return the doubt of dates side by side that are not in the order of their columns."""
    if draft.read is None or "melt" not in draft.read.entry:
        return []
    events = list(draft.read.entry["melt"])
    place = " ".join(f"WHEN {literal(event)} THEN {number}" for number, event in enumerate(events))
    ranked = f"SELECT customer_id, occurred_at, CASE event {place} END AS place FROM {draft.read.touchpoints}"
    turned = (
        f"SELECT customer_id, place < max(place) OVER earlier AS turned FROM ({ranked}) WINDOW earlier AS (PARTITION BY"
        " customer_id ORDER BY occurred_at, place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    )
    ((number,),) = draft.table.connection.execute(
        f"SELECT count(DISTINCT customer_id) FROM ({turned}) WHERE turned"
    ).fetchall()
    if not number:
        return []
    return [Doubt(
        f"{draft.source}.dates-disagree", draft.table.file.name,
        f"the dates of {number:,} customers are not in the order of the stages ({first_of(events)}): the highest stage"
        " with a date counts.", numbers={"customers": int(number)},
        way_out="If the tool says when a stage was left, or what stage is true today, export that, too.",
    )]  # fmt: skip


def _state_doubts(draft: Draft) -> list[Doubt]:
    """Return the doubt of a present stage that is not the last of those with a date."""
    read = draft.read
    state = columns_of(draft.table.location).first(read.recognised.export.state or "") if read else None
    if read is None or state is None or state not in draft.table.fields or "customer_id" not in draft.roles.columns:
        return []
    # The date of something that is no stage, such as the making of a record, says nothing about it.
    stages = [event for event in read.entry["melt"] if event not in read.recognised.tool.uncounted]
    place = " ".join(f"WHEN {literal(event)} THEN {number}" for number, event in enumerate(stages))
    highest = (
        f"SELECT customer_id, replace(arg_max(event, CASE event {place} END), '_', '') AS dated"
        f" FROM {read.touchpoints} WHERE event IN ({', '.join(map(literal, stages))}) GROUP BY 1"
    )
    said = f"regexp_replace(lower({draft.table.text(state)}), '[^a-z]', '', 'g')"
    rows = f"SELECT {draft.table.text(draft.roles.get('customer_id'))} AS id, {said} AS said FROM {draft.table.sql}"
    asked = (
        f"SELECT count(*) FILTER (WHERE said <> dated), count(said) FROM ({rows}) JOIN ({highest}) ON id = customer_id"
    )
    unlike, of = draft.table.connection.execute(asked).fetchall()[0]
    if not unlike:
        return []
    return [Doubt(
        f"{draft.source}.{'-'.join(words(state))}", draft.table.file.name,
        f"{state} is not the highest stage with a date in {unlike:,} of {of:,} rows. The dates count.",
        numbers={"rows": unlike, "of": of},
        way_out=f"If {state} is right, the dates are not, and there is no history to learn from.",
    )]  # fmt: skip


def joint_doubts(drafts: Sequence[Draft]) -> tuple[list[Doubt], list[str]]:
    """Return what several files say together where a tool's is among them, and the events not to be counted."""
    doubts, uncounted = list[Doubt](), list[str]()
    main = max(drafts, key=lambda one: one.rows)
    for one in drafts:
        if one.table is main.table or not (one.read or main.read):
            continue
        if not _in_common(one, main):
            doubts.append(Doubt(
                f"{one.source}.shares-nobody", one.table.file.name,
                f"its customers and those of {main.table.file.name} are all different: not one id stands in both, so"
                " what one file says of somebody is not known of the same person in the other.", True,
                way_out="Has another column the same ids? If so: --column FILE:customer_id=COLUMN.",
            ))  # fmt: skip
    for canonical in COMMITTED:
        claims = [(one, names) for one in drafts if (names := _meant(one, canonical))]
        # The amounts of sales stand where the sales are kept.
        best = max(claims, key=lambda claim: (_has_value(claim[0]), claim[0].rows), default=None)
        for one, names in claims:
            if best is None or one.table is best[0].table or not _in_common(one, best[0]):
                continue
            same = sorted(set(names) & set(best[1]))
            doubts.append(Doubt(
                f"{one.source}.one-{canonical.replace('_', '-')}", one.table.file.name,
                f"{first_of(names)} and {first_of(best[1])} of {best[0].table.file.name} both mean a {canonical}, and"
                " the files share customers: one would count several times."
                + (f" {first_of(same)} stands in both; leave one of the files out." if same
                   else f" Only {first_of(best[1])} is counted."), True, {"rows": one.rows}, tuple(names),
                f"Are they different? If so: write both under events: {{{canonical}: [...]}}.",
            ))  # fmt: skip
            uncounted += [] if same else names
    return doubts, uncounted


def _meant(one: Draft, canonical: str) -> list[str]:
    names = one.read.recognised.tool.events.get(canonical, ()) if one.read else ()
    return [name for name in one.events if name in names]


def _has_value(one: Draft) -> bool:
    return one.read is not None and "value" in one.read.entry["columns"]


def _in_common(one: Draft, other: Draft) -> int:
    shared = f"SELECT count(*) FROM ({_customers(one)} INTERSECT {_customers(other)})"
    return int(one.table.connection.execute(shared).fetchall()[0][0])


def _customers(one: Draft) -> str:
    if one.read:
        return f"SELECT customer_id FROM {one.read.histories}"
    ids = ", ".join(map(one.table.text, (one.roles.get("customer_id"), *one.roles.also)))
    return f"SELECT id FROM (SELECT unnest([{ids}]) AS id FROM {one.table.sql}) WHERE id IS NOT NULL"


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
