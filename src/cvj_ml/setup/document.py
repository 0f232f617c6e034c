"""The proposal as YAML: every guess with what it was guessed from, for a person to correct."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from cvj_ml.config import EPOCHS, Config
from cvj_ml.setup.columns import property_names, words
from cvj_ml.setup.doubts import SHOWN, Doubt, first_of
from cvj_ml.setup.events import COMMITTED, alike, meanings, sent_by_business, unsure
from cvj_ml.setup.history import days_apart, horizons_of, span_of
from cvj_ml.setup.profile import Table
from cvj_ml.setup.queries import LINES, Draft, dates_of, number_sql, refusals_of
from cvj_ml.setup.tool_drafts import tool_events
from cvj_ml.setup.yaml_text import inline, one_line, path_of, quoted, scalar
from cvj_ml.store.fields import Field, find_field
from cvj_ml.store.sql import literal

_ROUNDED_AWAY = 0.001
"""So much of a usual amount may be lost by rounding."""
_KNOWN_ENOUGH = 0.5
_REFUSED_SHARE: float = Config.model_fields["refused_share"].default
"""What the configuration allows where it says nothing."""
_ASKED_SHARE = 0.05
"""More refused rows than this are not accepted without a question."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration as text, the date to ask about first, and what a person should look at or answer."""

    text: str
    as_of: date
    doubts: tuple[Doubt, ...]


def propose(
    name: str, time_zone: str, drafts: Sequence[Draft], attributes: Sequence[tuple[str, Table, str]],
    doubts: Sequence[Doubt], uncounted: Iterable[str], beside: Path,
) -> Proposal:  # fmt: skip
    """Write the configuration of drafted logs, at least one, and of tables with a row a customer and no time.

    ``uncounted`` are events that mean a purchase but are not to be counted as one.
    """
    found = [*doubts, *(doubt for one in drafts for doubt in one.doubts)]
    known: Counter[str] = Counter()
    for one in drafts:
        known.update(one.events)
    first, last, calendar = span_of(drafts)
    as_of = last.date() + timedelta(days=1)
    burn_in, horizons, short = horizons_of(
        (as_of - first.date()).days,
        days_apart(drafts),
        monthly=any(when.monthly for one in drafts if (when := one.column("occurred_at"))),
    )
    body = ["sources:"]
    for draft in drafts:
        body += _source(draft, beside)
    refused, refusals = _refused(drafts)
    alike, mixed = _ids(drafts)
    body += [*alike, *refused]
    body += _attributes(attributes, beside)
    said, excluded, sends = tool_events(drafts)
    settled = {*excluded, *sends, *(name for names in said.values() for name in names)}
    sent = [*sends, *sent_by_business(name for name in known if name not in settled)]
    journey, events = _journey(known, sent, {*uncounted, *excluded}, drafts, said)
    stopped, opted = _opt_outs(drafts, [*said.get("unsubscribe", ()), *meanings(known).get("unsubscribe", ())], beside)
    found += [*calendar, *short, *refusals, *events, *mixed, *opted]
    body += stopped
    body += [
        f"outbound: {inline(sent)}  # what you send or show: a feature, never the customer's own activity",
        *journey,
        f"horizons: [{', '.join(f'{days}d' for days in horizons)}]",
        'control: {share: 0.1}  # add  salt: "${CVJ_SALT}"  so that nobody can foretell who is in the control group',
        "",
    ]
    head = [
        "# Guessed from the files by `cvj-ml init`. Read it line by line: what is wrong here is wrong in every list."
    ]
    for doubt in found:
        head.append(f"# {f'accepted {doubt.name}' if doubt.blocking else 'note'}: {one_line(str(doubt))}")
    head += [
        f"name: {scalar(name)}",
        f"time_zone: {time_zone}  # of the business: its days, and the midnight that a date means",
        f"history_from: {first.date()}  # from here on every source records; guessed from the first rows",
        f"burn_in: {burn_in}d  # no training before history_from + burn_in",
        *_decimals(drafts),
    ]
    return Proposal("\n".join([*head, *body]), as_of, tuple(found))


def _tool_source(draft: Draft, entry: Mapping[str, Any], beside: Path) -> list[str]:
    """Write a source of a recognised export: nothing in it needs the tool's file again."""
    file, said = draft.table.file, draft.read.recognised if draft.read else None
    span = f", {draft.first:%Y-%m-%d} to {draft.last:%Y-%m-%d}" if draft.first and draft.last else ""
    lines = [f"  {scalar(draft.source)}:  # {draft.rows:,} touchpoints in {file.rows:,} rows{span}"]
    if said is not None:
        lines.append(f"    # {said.tool.title}, {said.name}: {said.export.documentation}")
    lines.append(f"    path: {path_of(file.paths, beside)}")
    return lines + [f"    {key}: {inline(value)}" for key, value in entry.items()]


def _source(draft: Draft, beside: Path) -> list[str]:
    if draft.read is not None:
        return _tool_source(draft, draft.read.entry, beside)
    table, mapped = draft.table, dict[str, Any](draft.roles.columns)
    file = table.file
    if draft.unvalued:
        mapped.pop("value", None)
    span = f", {draft.first:%Y-%m-%d} to {draft.last:%Y-%m-%d}" if draft.first and draft.last else ""
    lines = [f"  {scalar(draft.source)}:  # {file.rows:,} rows{span}"]
    path = path_of(file.paths, beside)
    when = draft.column("occurred_at")
    value = draft.column("value")
    properties: dict[str, Any] = {key: key for key in ("rating",) if key in mapped}
    if draft.query is not None:
        lines += ["    query: >-", f"      {one_line(draft.query)}", f"    files: {{{LINES}: {path}}}"]
        properties |= {key: key for key in property_names(draft.properties).values()}
        if draft.roles.also:
            properties = {"customer_id": ["customer_id", *draft.roles.also], **properties}
        if properties and draft.shape != "dates":
            lines.append(f"    columns: {inline(properties)}")
    else:
        others = [name for name in draft.properties if name not in mapped.values()]
        properties = {key: name for name, key in property_names(others).items()}
        if draft.roles.also:
            mapped["customer_id"] = [mapped["customer_id"], *draft.roles.also]
        if draft.melt:
            mapped = {role: name for role, name in mapped.items() if role not in ("occurred_at", "event", "value")}
        lines += [f"    path: {path}", f"    columns: {inline({**mapped, **properties})}"]
        if draft.where:
            lines.append(f"    where: {inline(draft.where)}  # only these rows are touchpoints; the others are counted")
        if draft.melt:
            lines.append(f"    melt: {inline(draft.melt)}  # event: the column with its date")
    constants = {"_".join(words(key)): value for key, value in file.folders if value != draft.event}
    if draft.event is not None and draft.query is None:
        constants = {"event": draft.event, **constants}
    if constants:
        lines.append(f"    constants: {inline(constants)}")
    if draft.null_values:
        lines.append(f"    null_values: {quoted(draft.null_values)}  # what stands where nobody is known")
    if file.encoding != "utf-8":
        lines.append(f"    encoding: {file.encoding}")
    if draft.query is None and when is not None and when.time_format:
        lines.append(f"    time_format: {scalar(when.time_format)}")
    if value is not None and value.decimal_mark and not draft.unvalued and not draft.computes_value:
        lines.append(f'    decimal_mark: "{value.decimal_mark}"')
    zoned = when is not None and (when.zoned or when.time_format in EPOCHS)
    if when is not None and not zoned:
        zone = "utc" if {"utc", "gmt"} & set(words(when.name)) else "local"
        lines.append(f"    times: {zone}  # the zone of times that name none: local (time_zone), utc, or a zone")
    if "known_at" not in mapped:
        lines.append("    # known_after: 1d   if a row is known later than it happens, as where files come once a day")
    used = {*draft.roles.columns.values(), *draft.roles.also, *draft.properties, draft.key or "", *draft.where}
    used |= {one.name for one in dates_of(table)} if draft.shape == "dates" else set()
    if others := [one.name for one in file.columns if one.name not in used and one.name.strip()]:
        lines.append(f"    # not used (any can become a property for rules): {first_of(others)}")
    return lines


def _ids(drafts: Sequence[Draft]) -> tuple[list[str], list[Doubt]]:
    """Return the setting without which ids of one source that are text and numbers could not be read."""
    for one in drafts:
        own = one.read.entry["columns"]["customer_id"] if one.read else [one.roles.get("customer_id"), *one.roles.also]
        named = [own] if isinstance(own, str) else own
        fields = [find_field(one.table.location, name) for name in named]
        kinds = {field.family == "text" for field in fields if isinstance(field, Field) and field.family != "null"}
        if len(kinds) > 1:
            return ["ids: text  # numbers are compared as they are written in decimal"], [Doubt(
                "ids.text", one.table.file.name,
                f"{first_of(list(named))} are text and numbers; a number is the id that is written so in decimal.",
                len({id(other.table) for other in drafts}) > 1,
                way_out="Are ids written otherwise elsewhere, as 007? If so: write them alike in a query.",
            )]  # fmt: skip
    return [], []


def _refused(drafts: Sequence[Draft]) -> tuple[list[str], list[Doubt]]:
    """Return the setting without which rows of nobody would end every run, no higher than they explain."""
    most, doubts = 0.0, []
    for one in drafts:
        rows, reasons = refusals_of(one)
        total = sum(reasons.values())
        share = total / max(1, rows)
        if share > _REFUSED_SHARE:
            most = max(most, share)
            told = ", ".join(f"{words_}: {number:,}" for words_, number in reasons.items() if number)
            doubts.append(Doubt(
                f"{one.source}.refused", one.table.file.name,
                f"{total:,} of {rows:,} rows ({share:.1%}) cannot be used and are refused and counted ({told});"
                f" refused_share"
                " is raised for them.", share > _ASKED_SHARE, {"rows": total, "of": rows, **reasons},
                way_out="Do you know whose they are, or what they say? If so: correct them.",
            ))  # fmt: skip
    return ([f"refused_share: {math.ceil(1000 * most) / 1000:g}"] if most else []), doubts


def _attributes(tables: Sequence[tuple[str, Table, str]], beside: Path) -> list[str]:
    lines: list[str] = []
    for _, table, customer in tables[:1]:
        file = table.file
        named = [
            one.name
            for one in file.columns
            if one.name != customer and one.kind in ("text", "number") and words(one.name)
        ]
        columns = {"customer_id": customer, **{key: name for name, key in property_names(named).items()}}
        lines += [
            "attributes:",
            f"  path: {path_of(file.paths, beside)}",
            *([f"  encoding: {file.encoding}"] if file.encoding != "utf-8" else []),
            f"  columns: {inline(columns)}",
            "  static: true  # true only of what never changes; else map  known_at",
        ]
    return lines


def _opt_outs(drafts: Sequence[Draft], names: Sequence[str], beside: Path) -> tuple[list[str], list[Doubt]]:
    """Return the suppression of those whom the log itself calls opted out, and what is told of it.

    The bad news of an unsubscription holds back for days; who wants no more e-mail is to be left alone for good.
    """
    if not names:
        return [], []
    own = [one for one in drafts if {*one.events} & {*names}]
    plain = [one for one in own if one.read is None and "event" in one.roles.columns]
    rows = sum(one.events.get(name, 0) for one in own for name in {*names})
    told = f"{rows:,} rows ({first_of(sorted({*names}))}) say that somebody wants no more e-mail"
    if plain != own:
        return [], [Doubt(
            "events.opt-outs", "", f"{told}; they are bad news for some days, and nobody is kept from it for good.",
            numbers={"rows": rows}, way_out="Give your tool's list of them as suppression (docs/configuration.md).",
        )]  # fmt: skip
    files, parts = list[str](), list[str]()
    for number, one in enumerate(own, 1):
        column = one.table.file.column
        ids = [column(name).sql for name in (one.roles.get("customer_id"), *one.roles.also)]
        event = column(one.roles.get("event")).sql
        listed = ", ".join(literal(name) for name in one.events if name in names)
        files.append(f"{LINES}_{number}: {path_of(one.table.file.paths, beside)}")
        parts.append(
            f"SELECT coalesce({', '.join(ids)}) AS customer_id, 'email' AS channel FROM {LINES}_{number}"
            f" WHERE {event} IN ({listed})"
        )
    encodings = {one.table.file.encoding for one in own} - {"utf-8"}
    lines = [
        "suppression:  # who wants no more e-mail, by the log itself",
        *("    query: >-", f"      {one_line(' UNION ALL '.join(parts))}"),
        f"    files: {{{', '.join(files)}}}",
        *(f"    encoding: {one}" for one in encodings),
        "    customer_id: customer_id",
        "    channel: channel",
    ]
    return lines, [Doubt(
        "events.opt-outs", "", f"{told}: suppression keeps them from it for good, also who signed up again later.",
        numbers={"rows": rows}, way_out="If your tool has a list of its own, name that one instead.",
    )]  # fmt: skip


def _journey(
    known: Mapping[str, int],
    sent: list[str],
    uncounted: set[str],
    drafts: Sequence[Draft],
    said: Mapping[str, list[str]],
) -> tuple[list[str], list[Doubt]]:
    own = [name for name in known if name not in sent]
    told = {name for names in said.values() for name in names}
    found = meanings(name for name in own if name not in told)
    found |= {canonical: [*names, *found.get(canonical, ())] for canonical, names in said.items()}
    found = {canonical: [name for name in names if name not in uncounted] for canonical, names in found.items()}
    ours = [f"{one.event}_undone" for one in drafts if one.undone]
    if ours:
        # What came to nothing is bad news to the customer, too.
        found["order_cancelled"] = [*found.get("order_cancelled", ()), *dict.fromkeys(ours)]
    found = {canonical: names for canonical, names in found.items() if names}
    paid = [] if "purchase" in found else [name for name in found.get("booking", ()) if _is_paid(name, drafts)]
    if paid:
        found["purchase"] = paid
        found["booking"] = [name for name in found["booking"] if name not in paid]
        found = {canonical: names for canonical, names in found.items() if names}
    mapped = {canonical: names for canonical, names in found.items() if names != [canonical]}
    unmapped = [name for name in own if name not in uncounted and not any(name in names for names in found.values())]
    others = "journey5, loyalty5, flowchart7, subscription5"
    lines = [f"journey: cvj8  # or {others}, a file of your own, or stages written here"]
    if mapped:
        lines.append("events:  # the preset's name: yours")
        lines += [f"  {name}: {inline(events)}" for name, events in mapped.items()]
    else:
        lines.append("# events: {purchase: [order_paid]}  # the preset's names: yours")
    if unmapped:
        lines.append(f"# mapped to nothing: {first_of([f'{name} ({known[name]:,})' for name in unmapped])}")
    if left := [f"{name} ({known[name]:,})" for name in own if name in uncounted]:
        lines.append(f"# known, and left out of events: {first_of(left)}")
    doubts = _event_doubts(known, own, found, unmapped, drafts)
    if paid:
        rows = sum(known[name] for name in paid)
        doubts.append(Doubt(
            "events.bookings", "",
            f"{rows:,} rows ({first_of(paid)}) are bookings with amounts, and the preset's purchases alone are worth"
            " something, so they are taken for purchases.", True, {"rows": rows}, ("booking",),
            "Is nothing paid for them? If so: map them to booking under events.",
        ))  # fmt: skip
    return lines, doubts


def _is_paid(event: str, drafts: Sequence[Draft]) -> bool:
    """Return whether rows of an event come with an amount that is their value."""
    return any(
        event in one.events and "value" in one.roles.columns and not one.unvalued for one in drafts if not one.read
    )


def _event_doubts(
    known: Mapping[str, int],
    own: list[str],
    found: Mapping[str, list[str]],
    unmapped: list[str],
    drafts: Sequence[Draft],
) -> list[Doubt]:
    doubts = []
    open_ones = [name for name in unmapped if unsure(name)]
    for canonical in COMMITTED:
        names = [name for name in open_ones if unsure(name) == canonical]
        if names:
            sure = found.get(canonical, [])
            now, then = _people(drafts, sure), {name: _people(drafts, [*sure, name]) for name in names[:SHOWN]}
            doubts.append(Doubt(
                f"events.{canonical}", "",
                f"{first_of(names)} may or may not mean a {canonical}: some of the words fit, others do not. Mapped are"
                f" {first_of(sure) or 'none'}: {now:,} customers. With "
                + ", ".join(f"{name} ({known[name]:,} rows) {people:,}" for name, people in then.items())
                + ". They are not mapped.", True, {"customers": now, **then}, tuple(names),
                f"Do they? If so: write them under events: {{{canonical}: {inline([*sure, *names])}}}.",
            ))  # fmt: skip
    if others := [name for name in unmapped if alike(name)]:
        doubts.append(Doubt(
            "events.alike", "",
            f"{first_of([f'{name} ({known[name]:,} rows)' for name in others])} hold a word of a purchase, a booking"
            f" or a trial, but"
            " say something else: none of them is mapped.", False, {}, tuple(others),
        ))  # fmt: skip
    share = 1 - sum(known[name] for name in unmapped) / max(1, sum(known[name] for name in own))
    if share < _KNOWN_ENOUGH:
        doubts.append(Doubt(
            "events.unknown", "",
            f"The preset knows {share:.0%} of the rows by the names of their events, so few customers get beyond its"
            " first stages: map your events under events, or write your own stages (docs/journey.md).", False,
            {"share": share},
        ))  # fmt: skip
    if not any(name in known for canonical in COMMITTED for name in found.get(canonical, ())):
        doubts.append(Doubt(
            "events.no-purchase", "",
            "no event means a purchase, a booking, a demo or a trial to the preset, so nobody becomes a"
            " customer.", True,
            way_out="Does one mean it all the same? If so: map it under events, or write your own stages"
            " (docs/journey.md).",
        ))  # fmt: skip
    return doubts


def _people(drafts: Sequence[Draft], names: Sequence[str]) -> int:
    """Return the most customers of one source who have one of these events."""
    most = 0
    for one in drafts:
        if one.read is not None and names:
            listed_names = ", ".join(map(literal, names))
            asked = f"SELECT count(DISTINCT customer_id) FROM {one.read.touchpoints} WHERE event IN ({listed_names})"
            most = max(most, *one.table.connection.execute(asked).fetchall()[0])
        elif one.event in names:
            most = max(most, *one.table.ask(f"count(DISTINCT {one.customer})"))
        elif "event" in one.roles.columns and names:
            listed_names = ", ".join(map(literal, names))
            where = f"{one.table.text(one.roles.get('event'))} IN ({listed_names})"
            most = max(most, *one.table.ask(f"count(DISTINCT {one.customer})", where))
    return most


def _decimals(drafts: Sequence[Draft]) -> list[str]:
    """Return the setting without which small amounts would be rounded away, as prices below one of anything are."""
    most = 2
    for one in drafts:
        value = one.column("value")
        if one.read is not None or one.unvalued or value is None or value.whole:
            continue
        amount = f"TRY_CAST({number_sql(one.table, value.name, strict=False)} AS DOUBLE)"
        lost = ", ".join(f"avg(abs({amount} - round({amount}, {digits})))" for digits in range(2, 7))
        usual, *errors = one.table.ask(f"median(abs({amount})), {lost}", f"{amount} <> 0")
        if usual:
            enough = (digits for digits, error in enumerate(errors, 2) if error <= _ROUNDED_AWAY * usual)
            most = max(most, next(enough, 6))
    return [f"value_decimals: {most}  # of amounts so small, two would lose more than a thousandth"] if most > 2 else []
