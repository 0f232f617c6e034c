"""The proposal as YAML: every guess with what it was guessed from, for a person to correct."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from cvj_ml.config import EPOCHS, Config
from cvj_ml.proposal.events import meanings, sent_by_business
from cvj_ml.proposal.roles import Lines, Roles
from cvj_ml.sources.mapping import formatted_instant
from cvj_ml.sources.profile import FileProfile

_HORIZONS = (7, 14, 30, 60, 90)
_BURN_IN, _SPACING = 90, 14
_YAML_VALUES = ("true", "false", "null", "yes", "no", "on", "off")
_KNOWN_ENOUGH = 0.5
_REFUSED_SHARE: float = Config.model_fields["refused_share"].default
"""What the configuration allows where it says nothing."""
_MOST = 12
"""Names shown in a comment."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration as text, the date to ask about first, and what a person should look at."""

    text: str
    as_of: date
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogFile:
    """Files of one table, the path that names them, and their roles; ``lines`` where rows are lines of orders."""

    file: FileProfile
    path: str
    roles: Roles
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class _Log:
    """A table of touchpoints with its events by how often they occur, and when it begins and ends."""

    table: LogFile
    events: Mapping[str, int]
    first: datetime
    last: datetime


def propose(name: str, time_zone: str, tables: Sequence[LogFile]) -> Proposal:
    """Write the configuration of tables with their roles; those without a time become attributes.

    At least one table has a customer and a time.
    """
    doubts: list[str] = []
    logs = [_log(table, doubts) for table in tables if not table.roles.missing]
    known: Counter[str] = Counter()
    for log in logs:
        known.update(log.events)
    first, last = max(log.first for log in logs), max(log.last for log in logs)
    as_of = last.date() + timedelta(days=1)
    burn_in, horizons = _calendar((as_of - first.date()).days, doubts)
    lines = [
        "# Guessed from the files by `cvj-ml init`. Read it line by line: what is wrong here is wrong in every list.",
        f"name: {name}",
        f"time_zone: {time_zone}  # of the business: its days, and the midnight that a date means",
        f"history_from: {first.date()}  # from here on every source records; guessed from the first rows",
        f"burn_in: {burn_in}d  # no training before history_from + burn_in",
        "sources:",
    ]
    for source, log in zip(_names(logs), logs, strict=True):
        lines += _source(source, log)
    lines += _refused_share(logs, doubts)
    lines += _attributes([table for table in tables if table.roles.missing], doubts)
    sent = sent_by_business(known)
    lines += [
        f"outbound: {_flow(sent)}  # what you send or show: a feature, never the customer's own activity",
        *_journey(known, sent, doubts),
        f"horizons: [{', '.join(f'{days}d' for days in horizons)}]",
        'control: {share: 0.1}  # add  salt: "${CVJ_SALT}"  so that nobody can foretell who is in the control group',
        "",
    ]
    return Proposal("\n".join(lines), as_of, tuple(doubts))


def _log(table: LogFile, doubts: list[str]) -> _Log:
    file, columns = table.file, table.roles.columns
    customer = file.column(columns["customer_id"])
    if customer.pointed:
        doubts.append(
            f"{file.name}: every {customer.name} is written as 12.0, as whole numbers are that were saved beside empty"
            " cells. A file that says 12 means somebody else: "
            + ("the query takes them for whole numbers." if table.lines else "save them as whole numbers.")
        )
    when, stem = file.column(columns["occurred_at"]), _slug(file.paths[0].name)
    if "event" in columns:
        events = dict(file.column(columns["event"]).names or {})
    else:
        event = next(iter(meanings([stem])), "purchase" if "value" in columns else stem)
        if customer.distinct >= 0.97 * file.rows:
            event = "signup"  # one row a customer, with a time: when they came
        events = {event: file.rows}
        doubts.append(f"{file.name} has no column of event names, so every row is taken for {event!r}.")
        if table.lines:
            doubts.append(
                f"{file.name}: several rows of a customer stand at one instant, as lines of an order do, so a query"
                " makes one touchpoint of them: check what it groups by and what it sums up."
            )
        amounts = [columns.get("value"), table.lines.quantity if table.lines else None]
        for column in [file.column(name) for name in amounts if name]:
            if column.negative:
                doubts.append(
                    f"{file.name}: {column.name} is below zero in {column.negative:,} rows. If these are returns or"
                    " cancellations, give them an event of their own in a query, or they count as purchases."
                )
    if when.or_format is not None:
        doubts.append(
            f"{file.name}: every {when.name} can be read as {when.time_format} and as {when.or_format}; the first is"
            " taken. If that is wrong, change time_format."
        )
    if when.first is None or when.last is None:
        raise AssertionError("a column of times has a first and a last one")
    return _Log(table, events, when.first, when.last)


def _names(logs: Sequence[_Log]) -> list[str]:
    """Return a name for each source, from its file's or folder's, each once."""
    names: list[str] = []
    for log in logs:
        first = log.table.file.paths[0]
        name = _slug(first.parent.name if "*" in log.table.path else first.name)
        while name in names:
            name += "_2"
        names.append(name)
    return names


def _source(name: str, log: _Log) -> list[str]:
    table, mapped = log.table, log.table.roles.columns
    lines = [f"  {name}:  # {table.file.rows:,} rows, {log.first:%Y-%m-%d} to {log.last:%Y-%m-%d}"]
    if table.lines:
        lines += [*_query(table, table.lines, next(iter(log.events))), f"    files: {{lines: {_scalar(table.path)}}}"]
    else:
        columns = ", ".join(f"{role}: {_scalar(own)}" for role, own in mapped.items())
        lines += [f"    path: {_scalar(table.path)}", f"    columns: {{{columns}}}"]
        if "event" not in mapped:
            lines.append(f"    constants: {{event: {_scalar(next(iter(log.events)))}}}")
    when = table.file.column(mapped["occurred_at"])
    if table.file.encoding != "utf-8":
        lines.append(f"    encoding: {table.file.encoding}")
    if table.lines is None:
        lines += [f"    time_format: {_scalar(when.time_format)}"] if when.time_format else []
        if "value" in mapped and (mark := table.file.column(mapped["value"]).decimal_mark):
            lines.append(f'    decimal_mark: "{mark}"')
    if when.time_format in EPOCHS:
        lines.append("    times: utc")
    else:
        lines.append("    times: local  # the zone of times that name none: local (time_zone), utc, or a zone")
    if "known_at" not in mapped:
        lines.append("    # known_after: 1d   if a row is known later than it happens, as where files come once a day")
    if others := [one for one in table.roles.others if table.lines is None or one not in _used(table.lines)]:
        lines.append(f"    # not used (any can become a property for rules): {_listed(others)}")
    return lines


def _refused_share(logs: Sequence[_Log], doubts: list[str]) -> list[str]:
    """Return the setting without which a file with rows of nobody would be refused as a whole."""
    most = 0.0
    for log in logs:
        file = log.table.file
        customer = file.column(log.table.roles.columns["customer_id"])
        empty = file.rows - customer.filled
        if empty > _REFUSED_SHARE * file.rows:
            most = max(most, empty / file.rows)
            doubts.append(
                f"{file.name}: {customer.name} is empty in {empty:,} of {file.rows:,} rows. They are refused and"
                " counted, for which refused_share is raised; if you know whose they are, add it."
            )
    # Lines become orders, and orders of nobody can be a larger share of these.
    return [f"refused_share: {min(1.0, math.ceil(30 * most) / 20):g}"] if most else []


def _query(table: LogFile, lines: Lines, event: str) -> list[str]:
    """Return a query that makes one touchpoint of the lines of an order."""
    customer, at = _quoted(table.roles.columns["customer_id"]), _instant(table)
    if table.file.column(table.roles.columns["customer_id"]).pointed:
        customer = f"TRY_CAST(TRY_CAST({customer} AS DOUBLE) AS BIGINT)"
    groups = [customer]
    if lines.order:
        # Lines without an order's number would all become one order.
        order = _quoted(lines.order)
        groups += [order, f"CASE WHEN {order} IS NULL THEN {at} END"]
    else:
        groups.append(at)
    rows = [
        "    query: >-",
        f"      SELECT {customer} AS customer_id, min({at}) AS occurred_at, '{event}' AS event",
    ]
    if "value" in table.roles.columns:
        value = _number(table.file, table.roles.columns["value"])
        quantity = f"{_number(table.file, lines.quantity)} * " if lines.quantity else ""
        rows[-1] += f", sum({quantity}{value}) AS value"
    return [*rows, f"      FROM lines GROUP BY {', '.join(groups)}"]


def _instant(table: LogFile) -> str:
    """Return SQL for the time of a row; one that cannot be read is empty, so that the row is refused and counted."""
    when = table.file.column(table.roles.columns["occurred_at"])
    if when.time_format is None:
        return _quoted(when.name)
    if when.time_format in EPOCHS:
        return f"make_timestamp({formatted_instant(_quoted(when.name), when.time_format)})"
    return f"try_strptime({_quoted(when.name)}, '{when.time_format}')"


def _number(file: FileProfile, name: str) -> str:
    """Return SQL for the number of a row, which in a CSV file is text.

    One that cannot be read fails the query: left out of an order's sum, nobody would see that it is missing.
    """
    if not file.is_text:
        return _quoted(name)
    mark = file.column(name).decimal_mark
    if mark is None:
        return f"CAST({_quoted(name)} AS DOUBLE)"
    bare = f"regexp_replace({_quoted(name)}, '[^0-9{mark}+-]', '', 'g')"
    return f"CAST(replace({bare}, '{mark}', '.') AS DOUBLE)"


def _used(lines: Lines) -> tuple[str | None, ...]:
    return lines.order, lines.quantity


def _attributes(tables: Sequence[LogFile], doubts: list[str]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        file, customer = table.file, table.roles.columns.get("customer_id")
        if customer is None or lines or file.column(customer).distinct < 0.97 * file.rows:
            doubts.append(f"{file.name} is left out: it is neither a log with times nor one row a customer.")
            continue
        named = [one.name for one in file.columns if one.name != customer and one.kind in ("text", "number")]
        columns = ", ".join([f"customer_id: {_scalar(customer)}", *(f"{_key(one)}: {_scalar(one)}" for one in named)])
        lines += [
            "attributes:",
            f"  path: {_scalar(table.path)}",
            *([f"  encoding: {file.encoding}"] if file.encoding != "utf-8" else []),
            f"  columns: {{{columns}}}",
            "  static: true  # true only of what never changes; else map  known_at",
        ]
        doubts.append(
            f"{file.name} has no time, so its columns are declared static: remove what changes, such as totals"
            " or a churn flag, or the model will know the future."
        )
    return lines


def _journey(known: Mapping[str, int], sent: list[str], doubts: list[str]) -> list[str]:
    own = [name for name in known if name not in sent]
    found = meanings(own)
    mapped = {name: events for name, events in found.items() if events != [name]}
    unmapped = [name for name in own if not any(name in events for events in found.values())]
    lines = ["journey: cvj8  # or journey5, loyalty5, flowchart7, a file of your own, or stages written here"]
    if mapped:
        lines.append("events:  # the preset's name: yours")
        lines += [f"  {name}: {_flow(events)}" for name, events in mapped.items()]
    else:
        lines.append("# events: {purchase: [order_paid]}  # the preset's names: yours")
    if unmapped:
        lines.append(f"# mapped to nothing: {_listed(f'{name} ({known[name]:,})' for name in unmapped)}")
    share = 1 - sum(known[name] for name in unmapped) / max(1, sum(known[name] for name in own))
    if share < _KNOWN_ENOUGH:
        doubts.append(
            f"The preset knows {share:.0%} of the rows by the names of their events, so few customers get beyond its"
            " first stages: map your events under events, or write your own stages (docs/journey.md)."
        )
    return lines


def _calendar(days: int, doubts: list[str]) -> tuple[int, list[int]]:
    """Return burn-in and horizons that so many days of history can teach: a fold and the training before it."""
    burn_in = min(_BURN_IN, max(1, days // 5))
    room = max(1, (days - burn_in - min(_SPACING, days // 10)) // 3)
    horizons = [one for one in _HORIZONS if one <= room] or [room]
    if horizons[-1] < _HORIZONS[-1]:
        doubts.append(f"The history of {days} days is short: the longest horizon is {horizons[-1]} days.")
    return burn_in, horizons


def _slug(name: str) -> str:
    stem = re.sub(r"[^a-z0-9]+", "_", name.lower().split(".")[0]).strip("_")
    return stem or "source"


def _key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "column"


def _scalar(text: str) -> str:
    """Return a text as YAML; what YAML could read as anything else is quoted."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./*-]*", text) and text.lower() not in _YAML_VALUES
    return text if plain else json.dumps(text, ensure_ascii=False)


def _quoted(name: str) -> str:
    """Return a column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _flow(names: Iterable[str]) -> str:
    return f"[{', '.join(map(_scalar, names))}]"


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _MOST} more" if len(shown) > _MOST else ""
    return re.sub(r"\s+", " ", ", ".join(shown[:_MOST])) + more
