"""A list as the page shows it: the first people to contact, a sentence each, and the whole list as a file to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from cvj_ml.config import DAY, Config
from cvj_ml.io import csv_lines
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.kinds import Verb
from cvj_ml.lists.ranked_list import NOT_LISTED, RankedList, confirmations
from cvj_ml.lists.reasons import sentence
from cvj_ml.models.bundle.forecast_errors import ExpectedMoves
from cvj_ml.report import contact_words, wording
from cvj_ml.schemas import TARGETS

MOST_ROWS = 50
"""People of a list whom the page shows; whom it leaves out is said, and the files hold all."""

MOST_CONTROL = 50
"""Customers of the control group whom the page names for each list."""

_REASONS = ("reason_1", "reason_2", "reason_3")
_EXPORTED = ("rank", "customer_id", "probability", "play", "because", "channel")


@dataclass(frozen=True, slots=True)
class Row:
    """One person to contact: ``sentence`` says why, ``details`` more of it where the page has room.

    ``confirmed`` is false where past scores speak against the ``chance``.
    """

    rank: int
    customer: str
    contact: tuple[str, ...]
    sentence: str
    details: tuple[str, ...]
    play: str
    because: str
    channel: str
    chance: str
    confirmed: bool
    worth: str
    change: str


@dataclass(frozen=True, slots=True)
class ListView:
    """One list: the first people to contact as ``rows``, ids of the control group, and what became of the others.

    ``stages`` are whose customers it is of, ``said`` is how what the chances are of is said;
    ``targets`` and ``controls`` count the whole list; ``left_out`` counts those who stand in the stage and are not on
    it by reason; ``contacts`` says what past control groups show of contacts, ``plays`` what that makes of each
    play; ``rest`` says where those are whom ``rows`` lack. Of a list ``without_evidence`` no row is here.
    """

    name: str
    origin: str
    to: str
    horizon_days: int
    in_stage: int
    stages: str
    said: Verb
    left_out: tuple[tuple[str, int], ...]
    rows: tuple[Row, ...]
    control: tuple[str, ...]
    targets: int
    controls: int
    rest: str
    without_evidence: bool
    moves: ExpectedMoves
    effect: str
    contacts: str
    plays: tuple[str, ...]
    confirmed: str


@dataclass(frozen=True, slots=True)
class ListFile:
    """The people to contact of a list as CSV, where the page has room for the ``whole`` of it; ``rows`` are all."""

    name: str
    rows: int
    text: str
    whole: bool


def list_view(one: RankedList, effect: str, config: Config) -> ListView:
    """Return the view of a list; effect: when it can be told."""
    targets = one.of_group("target")
    control = one.of_group("control")["customer_id"]
    most = 0 if one.without_evidence else MOST_ROWS
    words_of, left_out = {**REASONS, **NOT_LISTED}, {**one.left_out, **one.not_listed}
    return ListView(
        one.name,
        *one.heading,
        one.spec.horizon // DAY,
        one.in_stage,
        one.origin,
        one.said,
        tuple((words_of[name], number) for name, number in left_out.items() if number),
        _rows(targets.slice(0, most), one.details, config.report.currency),
        tuple(control.slice(0, MOST_CONTROL).to_pylist()),
        len(targets),
        len(control),
        f"targets/{one.name}.csv holds all, with the control group marked",
        one.without_evidence,
        one.moves,
        effect,
        contact_words.of_list(one),
        contact_words.of_plays(one, config),
        wording.confirmed(confirmations(one.rows)) if one.spec.kind == "move" else wording.UNRECORDED,
    )


def _rows(shown: pa.Table, details: Mapping[str, Sequence[str]], currency: str | None) -> tuple[Row, ...]:
    contact = [name for name in shown.column_names if name not in TARGETS.columns]
    rows = []
    for row, record in zip(shown.to_pylist(), wording.track_records(shown), strict=True):
        reasons = [row[name] for name in _REASONS if row[name]]
        more = details.get(row["customer_id"])
        told = [*reasons, *more, *([f"Others like this: {record}."] if record else [])] if more else []
        rows.append(
            Row(
                row["rank"],
                row["customer_id"],
                tuple(str(row[name]) for name in contact if row[name] is not None),
                sentence(reasons),
                tuple(told),
                row["play"] or "",
                row["because"] or "",
                wording.spoken(row["channel"] or ""),
                wording.percent(row["probability"]),
                row["track_record_n"] is None or row["track_record_low"] is not None,
                "" if row["expected_value"] is None else wording.amount(row["expected_value"], currency),
                contact_words.of_person(row),
            )
        )
    return tuple(rows)


def list_files(lists: Sequence[RankedList]) -> list[ListFile]:
    """Return each list's file; a list without evidence has none to take."""
    found = []
    for one in lists:
        targets = one.of_group("target")
        contact = [name for name in targets.column_names if name not in TARGETS.columns]
        text = "" if one.without_evidence else "".join(csv_lines(targets.select([*_EXPORTED, *contact])))
        found.append(ListFile(f"{one.name}.csv", len(one.rows), text, bool(text)))
    return found


def fitting(files: Sequence[ListFile], room: int) -> list[ListFile]:
    """Return the files, whole as long as there are so many bytes of ``room``, the shortest first."""
    kept = set[str]()
    for one in sorted(files, key=lambda one: (one.rows, one.name)):
        # What the page has to escape takes more room than the file does.
        size = len(one.text.encode()) + 5 * sum(map(one.text.count, "&<>'\""))
        if one.whole and size <= room:
            kept.add(one.name)
            room -= size
    return [one if one.name in kept else replace(one, text="", whole=False) for one in files]
