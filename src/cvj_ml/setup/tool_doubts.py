"""What is to be said of recognised exports: what they lack, what their rows deny, what several files tell twice."""

from __future__ import annotations

from collections.abc import Sequence

from cvj_ml.setup.columns import spellings, words
from cvj_ml.setup.customers import customer_doubts
from cvj_ml.setup.doubts import MANY, Doubt, file_doubts, first_of, spelled_alike, spelled_apart
from cvj_ml.setup.events import COMMITTED
from cvj_ml.setup.named_tools import OFF, Recognised, ToolSource, plain_ids, tool_columns
from cvj_ml.setup.profile import Table
from cvj_ml.setup.purchases import told_twice
from cvj_ml.setup.queries import Draft
from cvj_ml.setup.roles import Roles
from cvj_ml.store.sql import literal


def tool_notes(name: str, table: Table, one: Recognised, made: Sequence[ToolSource]) -> list[Doubt]:
    """Return which export was recognised, what it lacks, and what its documentation warns of."""
    export = one.export
    told = first_of([column.split(" | ")[0] for column in export.recognise])
    text = f"{one.told} by its columns {told}, and read as {export.documentation} says."
    if not made:
        text = f"{one.told}, which is left out."
    found = [Doubt(
        f"{name}.tool", table.file.name, text, numbers={"rows": table.file.rows},
        way_out=f"To have the columns guessed instead: --from {OFF}.",
    )]  # fmt: skip
    read = {kind: set(entry["columns"]) for kind, entry in one.entries(tool_columns(table)).items()}
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


def table_doubts(name: str, table: Table, made: Sequence[ToolSource]) -> list[Doubt]:
    """Return what the rows themselves give reason to doubt, whatever the tool's documentation says."""
    if not made:
        return []
    columns = made[0].entry["columns"]
    customer = columns["customer_id"]
    found = list[Doubt]()
    if ids := plain_ids(table, customer):
        found += customer_doubts(
            name, table, Roles({"customer_id": ids[0]}, frozenset(["customer_id"]), also=tuple(ids[1:]))
        )
    for one in made:
        written = one.entry.get("time_format")
        if written != one.recognised.export.sources[one.kind].get("time_format"):
            own = one.entry["columns"].get("occurred_at")
            rival = table.file.column(own).or_format if own in table.fields else None
            found.append(Doubt(
                f"{one.name}.resaved", table.file.name,
                f"its times are written as {written}, which is not how {one.recognised.tool.title} writes them: a"
                " spreadsheet that saved the file anew may have lost the zone, seconds and digits of long numbers."
                + (f" Each could also be read as {rival}." if rival else ""), bool(rival), {},
                (rival,) if rival else (),
                "Are days and months the wrong way round, or hours of another zone? If so: export the file again, and"
                " leave it closed." if rival else "Better export it again, and leave it closed.",
            ))  # fmt: skip
    # Rows with an id of their own count once, however often they are exported.
    return found + file_doubts(name, table, "touchpoint_id" in columns)


def order_doubts(draft: Draft) -> list[Doubt]:
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


def stage_doubts(draft: Draft) -> list[Doubt]:
    """Return the doubt of a present stage that is not the last of those with a date."""
    read = draft.read
    state = tool_columns(draft.table).first(read.recognised.export.state or "") if read else None
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


def joint_doubts(
    drafts: Sequence[Draft], attributes: Sequence[tuple[str, Table, str]]
) -> tuple[list[Draft], list[Doubt], list[str]]:
    """Return what several files say together: the drafts, their doubts, and the events not to be counted."""
    made, doubts, uncounted = told_twice(drafts)
    doubts += _other_spellings(drafts, attributes)
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
    return made, doubts, uncounted


def _other_spellings(drafts: Sequence[Draft], attributes: Sequence[tuple[str, Table, str]]) -> list[Doubt]:
    """Return the doubt of people whose id one file spells otherwise than another: each would be several customers."""
    files = [(one.table, _customers(one)) for one in drafts]
    log = len(files)
    files += [(table, f"SELECT {table.text(own)} FROM {table.sql}") for _, table, own in attributes]
    if len(files) < 2:
        return []
    kinds = spellings("id")
    ids = " UNION ".join(f"SELECT {number}, own.id FROM ({rows}) AS own(id)" for number, (_, rows) in enumerate(files))
    spelled = ", ".join(f"{sql} AS k{place}" for place, sql in enumerate(kinds.values()))
    # Of what one file alone spells in several ways its own column tells.
    people = (
        f"WITH ids(file, id) AS ({ids}), spelled AS (SELECT *, {spelled} FROM ids WHERE id IS NOT NULL), counted AS"
        " (SELECT *, count(*) OVER (PARTITION BY k3, file) AS own FROM spelled)"
        " SELECT count(DISTINCT k0) AS n0, count(DISTINCT k1) AS n1, count(DISTINCT k2) AS n2, list(DISTINCT file) AS"
        f" files, count(DISTINCT k0) FILTER (file < {log}) AS of_log, contains(k3, '@') AS mail"
        " FROM counted GROUP BY k3 HAVING count(DISTINCT file) > 1 AND count(DISTINCT id) > max(own)"
    )
    *numbers, several, mail, named = (
        drafts[0]
        .table.connection.execute(
            "SELECT count(*) FILTER (n0 = 1), count(*) FILTER (n0 > 1 AND n1 = 1), count(*) FILTER (n1 > 1 AND n2 = 1),"
            " count(*) FILTER (n2 > 1), count(*) FILTER (of_log > 1), bool_or(mail), flatten(list(files))"
            f" FROM ({people})"
        )
        .fetchall()[0]
    )
    apart = dict(zip(kinds, map(int, numbers), strict=True))
    if not (alike := sum(apart.values())):
        return []
    told = [files[number][0].file.name for number in sorted(set(named))]
    counted = f"SELECT min(n) FROM (SELECT count(DISTINCT id) AS n FROM ({ids}) AS own(file, id) GROUP BY file)"
    ((few,),) = drafts[0].table.connection.execute(counted).fetchall()
    return [Doubt(
        "ids.spelling", "",
        f"{first_of(told)} spell {alike:,} customers otherwise than each other, with differences in"
        f" {spelled_apart(apart)}: what one file says of somebody is not known of the same person in the other.",
        mail or alike > MANY * few, {"customers": alike, **{kind: number for kind, number in apart.items() if number}},
        way_out=spelled_alike(apart, "COLUMN", of_log=several > 0),
    )]  # fmt: skip


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
