"""The story of ``cvj-ml init``: look at the files, guess what they hold, ask, write a configuration to correct."""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from cvj_ml.config import Config, validated
from cvj_ml.config.documents import read_yaml
from cvj_ml.errors import ConfigError, DataError, raise_all
from cvj_ml.setup.columns import words
from cvj_ml.setup.customers import (
    COMES_BACK,
    LIKELY,
    choose_customer,
    customer_doubts,
    find_customers,
    once_each,
    several_ids,
    shared_customers,
    tells_more_apart,
)
from cvj_ml.setup.document import Proposal, propose
from cvj_ml.setup.doubts import Doubt, file_doubts, first_of, rating_doubts, time_doubts
from cvj_ml.setup.drafts import draft
from cvj_ml.setup.named_tools import part_recognised, require_tool, sort_of
from cvj_ml.setup.profile import Table, open_tables, source_name
from cvj_ml.setup.purchases import payment_doubts
from cvj_ml.setup.queries import Draft
from cvj_ml.setup.roles import (
    NOT_WORDS,
    Candidate,
    Roles,
    find_change,
    find_events,
    find_others,
    find_times,
    find_values,
    says_known,
    says_money,
)
from cvj_ml.setup.times import may_count
from cvj_ml.setup.told import TIME_FORMAT, Told, told_nowhere, told_of
from cvj_ml.setup.tool_doubts import joint_doubts
from cvj_ml.setup.tool_drafts import draft_tools

_ONE_EACH = 0.97
_PAID = 0.9
_FEW_IDS = 12
"""A column of so few different values is none of people."""
"""With an amount in so many rows, each is taken for a purchase unless a column plainly names events."""
_MONTHS = frozenset(
    words(
        "jan feb mar apr may jun jul aug sep sept oct nov dec january february march april june july august"
        " september october"
        " november december q part of export final copy new old neu data daten"
    )
)


def look(files: Sequence[Path], target: Path, time_zone: str, told: Told, tool: str | None = None) -> Proposal:
    """Return the configuration that these files seem to need, with every doubt; nothing is written.

    ``told`` names columns; ``tool`` the one whose exports the files are (``none``: of none; not given: as their columns
    tell). Raises ConfigError where the target exists or a column is wrong, DataError for files that
    cannot be read or of which none is a log.
    """
    if tool is not None:
        require_tool(tool)
    if target.exists():
        raise ConfigError(f"{target} exists already; name another file with --config, or remove it.")
    if any(re.match("(s3|gs|abfss):/", str(path)) for path in files):
        raise ConfigError(
            "init looks at files of this machine. Copy one of each table from the object store, and write their"
            " addresses into path afterwards (docs/object-stores.md)."
        )
    files = [match for path in files for match in _matching(path)]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", target.stem).strip("-_") or "customers"
    # Only to look: the settings that reading needs, checked as those of a file are.
    settings = {
        "name": name,
        "time_zone": time_zone,
        "history_from": "2000-01-01",
        "sources": {"files": {"path": [str(path.absolute()) for path in files]}},
        "journey": "cvj8",
    }
    looking = validated(Config, settings, target)
    with (
        tempfile.TemporaryDirectory() as scratch,
        # Copies of what is no plain text lie beside the folder in which DuckDB spills, so that is one inside of ours.
        open_tables(files, looking, Path(scratch, "spill"), lambda location: sort_of(location, tool)) as tables,
    ):
        tables = _with_formats(tables, told)
        raise_all(ConfigError, "These columns cannot be used:", told_nowhere(told, tables))
        beside = target.resolve().parent
        exports, others = part_recognised(tables, tool)
        names = _names([table for table, _ in exports])
        columns = [
            {role: own[0] if len(own) == 1 else own for role, own in told_of(table, told).items()}
            for table, _ in exports
        ]
        drafts, doubts = draft_tools(exports, names, columns, looking, Path(scratch))
        return _propose(name, time_zone, others, told, beside, drafts, doubts)


def _with_formats(tables: Sequence[Table], told: Told) -> list[Table]:
    """Return the tables with their times read as a person said; ConfigError where no row is written so."""
    found, faults = [], list[str]()
    for table in tables:
        said = told_of(table, told, formats=True)
        if TIME_FORMAT in said:
            (written,) = said[TIME_FORMAT]
            when = said["occurred_at"][0] if "occurred_at" in said else _roles(table, told).columns.get("occurred_at")
            if when is None:
                faults.append(f"{table.file.name}: which column is written so? Say it: --column occurred_at=COLUMN")
            else:
                table = table.with_format(when, written)
                column = table.file.column(when)
                if column.unread == column.filled:
                    faults.append(f"{table.file.name}: no {when} is written as {written!r}")
        found.append(table)
    raise_all(ConfigError, "--time-format says how times are written:", faults)
    return found


def _matching(path: Path) -> list[Path]:
    """Return the files that a pattern names, sorted; what is no pattern, or matches none, as it is."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    return [match for match in found if match.is_file()] or [path]


def write_config(proposal: Proposal, target: Path) -> None:
    """Write a configuration whose doubts are answered; an existing file is never replaced.

    One that could not be read is not written: it would stand in the way of the next attempt.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tried = Path(scratch, target.name)
        tried.write_text(proposal.text, encoding="utf-8")
        validated(Config, read_yaml(tried), target)
    with target.open("x", encoding="utf-8") as stream:
        stream.write(proposal.text)


def _propose(
    name: str,
    time_zone: str,
    tables: Sequence[Table],
    told: Told,
    beside: Path,
    recognised: Sequence[Draft],
    noted: Sequence[Doubt],
) -> Proposal:
    tables = [part for table in tables for part in _parts(table, told)]
    roles = [_roles(table, told) for table in tables]
    if any("customer_id" not in one.columns or not one.certain for one in roles):
        joining = _joining(tables)
        roles = [_roles(table, told, joining) for table in tables]
    drafts, doubts = list(recognised), list(noted)
    if not drafts:
        _require_a_log(tables, roles, noted)
    roles, shared = shared_customers(tables, roles)
    doubts += shared
    attributes: list[tuple[str, Table, str]] = []
    uncounted: list[str] = []
    for table, found in zip(tables, roles, strict=True):
        source = source_name(table, [one.source for one in drafts])
        if found.missing:
            doubts += _without_a_time(source, table, found, attributes)
            continue
        made = draft(source, table, found)
        drafts.append(made)
        payments, left_out = payment_doubts(source, table, made.roles, made.key)
        uncounted += left_out
        doubts += [
            *customer_doubts(source, table, made.roles), *once_each(made), *time_doubts(source, table, made.roles),
            *rating_doubts(source, table, made.roles), *payments, *_nested(source, made), *_of_folders(source, made),
            *file_doubts(source, table, made.shape in ("lines", "versions")),
        ]  # fmt: skip
    drafts, joint, twice = joint_doubts(drafts, attributes)
    return propose(name, time_zone, drafts, attributes, doubts + joint, uncounted + twice, beside)


def _parts(table: Table, told: Told) -> list[Table]:
    """Return a table as one, or by what its files are called where no column names the events."""
    paths = table.file.paths
    kinds: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        said = tuple(one for one in words(path.name.split(".")[0]) if not one.isdigit() and one not in _MONTHS)
        kinds.setdefault(said, []).append(path)
    if len(kinds) == 1 or "event" in _roles(table, told).columns:
        return [table]
    return [table.part(group) for group in kinds.values()]


def _joining(tables: Sequence[Table]) -> list[str]:
    """Return the columns of one name in several files that say the same of their rows, as whose they are; widest first.

    Not what by its name is something else: an order's number, a product.
    """
    found: dict[str, int] = {}
    for one, other in combinations(tables, 2):
        ids = {item.name: item for item in other.file.columns}
        for column in one.file.columns:
            beside = ids.get(column.name)
            if beside is None or {column.kind, beside.kind} > {"text", "number"} or {*words(column.name)} & NOT_WORDS:
                continue
            few = min(column.distinct, beside.distinct)
            whole = all(item.kind == "text" or (item.kind == "number" and item.whole) for item in (column, beside))
            if whole and few > _FEW_IDS and 2 * one.in_common(column.name, other, column.name) >= few:
                found[column.name] = max(found.get(column.name, 0), few)
    return sorted(found, key=lambda name: (-found[name], name))


def _roles(table: Table, told: Told, joining: Sequence[str] = ()) -> Roles:
    """Return the roles of a table's columns; what a person told wins where the table has that column.

    Where no name says the customer, ``joining`` may: what stands in another file as well.
    """
    ids = told_of(table, told)
    columns = {role: names[0] for role, names in ids.items()}
    said, rivals = frozenset(columns), dict[str, Sequence[Candidate]]()
    customers = find_customers(table)
    best = choose_customer(table, customers) if "customer_id" not in columns else None
    certain = best is None or best.tier >= LIKELY
    if best is not None:
        columns["customer_id"] = best.column.name
    if "customer_id" not in said and (best is None or not certain):
        names = {one.name for one in table.file.columns}
        if shared := next((name for name in joining if name in names), None):
            columns["customer_id"], certain = shared, False
    own = columns.get("customer_id")
    rivals["customer_id"] = [
        one
        for one in customers
        if one.column.name != own and one.plausible and (one.tier >= LIKELY or tells_more_apart(table, one, own))
    ]
    times = find_times(table, columns.values())
    if "occurred_at" not in columns and times:
        columns["occurred_at"] = times[0].column.name
    rivals["occurred_at"] = [one for one in times if one.column.name != columns.get("occurred_at")]
    if "known_at" not in columns and (known := _known(table, columns, times)):
        columns["known_at"] = known
    events = find_events(table, columns.values())
    values = find_values(table, columns.values())
    paid = bool(values) and values[0].column.filled >= _PAID * table.file.rows
    changes = find_change(table, columns.values()) is not None
    if "event" not in columns and events and (events[0].tier == 2 or (not changes and (events[0].tier or not paid))):
        columns["event"] = events[0].column.name
    rivals["event"] = [one for one in events if one.column.name != columns.get("event")]
    if "value" not in columns and values:
        columns["value"] = values[0].column.name
    rivals["value"] = values
    columns |= {role: name for role, name in find_others(table, columns.values()).items() if role not in columns}
    also = tuple(ids.get("customer_id", ())[1:])
    return Roles(columns, said, rivals, certain, also)


def _known(table: Table, columns: Mapping[str, str], times: Sequence[Candidate]) -> str | None:
    """Return the time when a row was known: its name says so, and it is never before the row happened."""
    if "occurred_at" not in columns:
        return None
    when = table.file.column(columns["occurred_at"])
    for one in times:
        column = one.column
        if says_known(column.name) and column.filled == table.file.rows and column.name != when.name:
            (early,) = table.ask(f"count(*) FILTER (WHERE ({column.moment}) < ({when.moment}))")
            # A source has one format of times.
            if (
                early <= 0.001 * table.file.rows
                and column.time_format == when.time_format
                and column.is_written_plainly
            ):
                return column.name
    return None


def _require_a_log(tables: Sequence[Table], roles: Sequence[Roles], noted: Sequence[Doubt]) -> None:
    """Raise DataError where no table has a customer and a time."""
    if not all(one.missing for one in roles):
        return
    raise_all(
        DataError,
        "No file is a log of touchpoints. Name the columns with --column, as in --column customer_id=cust; a time is a"
        " timestamp, a date, or text or numbers whose --time-format you can say (docs/init.md):",
        [
            f"{table.file.name}: no {' and no '.join(found.missing)} found among"
            f" {', '.join(str(Candidate(one, 0)) for one in table.file.columns)}."
            f"{_whose(table, found)}{_counting(table, found)}"
            for table, found in zip(tables, roles, strict=True)
        ]
        + [str(one) for one in noted],
    )


def _whose(table: Table, roles: Roles) -> str:
    """Return which columns could be the customer, where no name says one: ids of many who come back."""
    if "customer_id" in roles.columns:
        return ""
    taken = {*roles.columns.values()}
    likely = [
        one
        for one in table.file.columns
        if (one.kind == "text" or (one.kind == "number" and one.whole)) and one.name not in taken
        if _FEW_IDS < one.distinct <= COMES_BACK * one.filled and one.filled >= _ONE_EACH * table.file.rows
        if not {*words(one.name)} & NOT_WORDS and not may_count(one) and not says_money(one.name)
    ]
    if not likely:
        return ""
    names = [one.name for one in sorted(likely, key=lambda one: -one.distinct)][:3]
    return f" Is {' or '.join(names)} the customer? If so: --column {table.file.paths[0].name}:customer_id={names[0]}."


def _counting(table: Table, roles: Roles) -> str:
    """Return what is said of numbers that could count from some day, where a table has no other time."""
    if "occurred_at" in roles.columns:
        return ""
    taken = {*roles.columns.values()}
    counting = [one.name for one in table.file.columns if may_count(one) and one.name not in taken]
    if not counting:
        return ""
    return (
        f" Does {' or '.join(counting[:3])} count days, hours or seconds? Then say from which day: --column"
        f' {table.file.paths[0].name}:occurred_at={counting[0]} --time-format "days since 2017-01-01"; where nobody'
        " knows the day take a Monday, and weekdays and seasons mean nothing."
    )


def _without_a_time(source: str, table: Table, roles: Roles, attributes: list[tuple[str, Table, str]]) -> list[Doubt]:
    """Take a table without a time for attributes, if it has a row a customer and is the first."""
    file, customer = table.file, roles.columns.get("customer_id")
    if customer is None and "occurred_at" in roles.columns:
        return [Doubt(
            f"{source}.left-out", file.name,
            f"it is left out, though {roles.get('occurred_at')} is a time: no column is known to be the customer.",
            True, {"rows": file.rows}, tuple(one.name for one in file.columns if one.kind in ("text", "number"))[:8],
            f"Does it say who did something? If so: --column {file.paths[0].name}:customer_id=COLUMN; if another file"
            " tells: join it in a query.",
        )]  # fmt: skip
    if customer is None or attributes or file.column(customer).distinct < _ONE_EACH * file.rows:
        return [Doubt(
            f"{source}.left-out", file.name,
            f"it is left out: it is neither a log with times nor one row a customer.{_counting(table, roles)}",
            numbers={"rows": file.rows},
        )]  # fmt: skip
    attributes.append((source, table, customer))
    return [*several_ids(source, table, customer), Doubt(
        f"{source}.static", file.name,
        "it has no time, so its columns are declared static: remove what changes, such as totals or a churn flag, or"
        " the"
        " model will know the future.",
    )]  # fmt: skip


def _of_folders(source: str, made: Draft) -> list[Doubt]:
    """Return the note on what folders' names say of the rows in them, and no row says itself."""
    if not made.table.file.folders:
        return []
    told = first_of([f"{key}={value}" for key, value in made.table.file.folders])
    return [Doubt(
        f"{source}.folders", made.table.file.name,
        f"its folder is named {told}, which no row says itself: a constant of this source"
        + (f", {made.event!r} its event." if made.event in dict(made.table.file.folders).values() else "."),
        numbers={"rows": made.rows},
        way_out="A folder of another name that is made later is not read until it has a source of its own.",
    )]  # fmt: skip


def _nested(source: str, made: Draft) -> list[Doubt]:
    """Return the note on columns that hold several values in one, and the ways that are taken into them."""
    nested = made.table.nested
    if not nested.columns:
        return []
    used = {*made.roles.columns.values(), *made.roles.also, *made.properties}
    taken = [way for way in nested.ways if way in used]
    closed = [name for name in nested.columns if not any(one.own == name for one in nested.ways.values())]
    told = first_of([f"{name} ({kind})" for name, kind in nested.columns.items()])
    return [Doubt(
        f"{source}.nested", made.table.file.name,
        f"{told} hold several values in one. Ways lead into them"
        + (f": {first_of(taken)} are read." if taken else ", and none of them is read.")
        + (f" Into {first_of(closed)} none leads; make columns of it in a query." if closed else ""),
        numbers={"ways": len(nested.ways)}, rivals=tuple(way for way in nested.ways if way not in used)[:20],
        way_out="Another one: name it under columns, as in value: payment.total.",
    )]  # fmt: skip


def _names(tables: Sequence[Table]) -> list[str]:
    """Return a name for each table's source."""
    names: list[str] = []
    for table in tables:
        names.append(source_name(table, names))
    return names
