"""People of accounts: for whom a touchpoint counts, since when, and that no older answer knows of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.store.conftest import DAYS, day, instant

from cvj_ml.config import DAY, Config, validated
from cvj_ml.customers import known_from_readings, rows_held
from cvj_ml.errors import ConfigError
from cvj_ml.histories import Text
from cvj_ml.snapshots import eligible
from cvj_ml.store import CustomerIds, Store, ingest
from cvj_ml.store.customer_ids import origin_of
from cvj_ml.store.members import Membership, link_members
from cvj_ml.windows import NEVER

ACCOUNTS, CONTACTS = "ABC", "ABpq"  # a person may have the id of an account

View = dict[str, Counter[tuple[int, str, str]]]


@dataclass(frozen=True)
class Row:
    """A touchpoint: the days when it occurred and arrived; later rows may repeat its key."""

    account: str
    contact: str
    occurred: int
    known: int
    event: str
    key: int | None = None


@dataclass(frozen=True)
class Line:
    """A line of the table of members, in days."""

    contact: str
    account: str
    known: int
    until: int | None = None
    role: str = ""


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(1, 14))):
        occurred = draw(st.integers(0, DAYS - 2))
        known = min(DAYS - 1, occurred + draw(st.sampled_from([0, 0, 1, 5])))
        account = draw(st.sampled_from(["", "", *ACCOUNTS]))
        contact = draw(st.sampled_from([*CONTACTS, ""] if account else CONTACTS))
        rows.append(Row(account, contact, occurred, known, f"e{number % 3}", draw(st.none() | st.integers(0, 2))))
    return rows


lines = st.lists(
    st.builds(
        Line,
        st.sampled_from(CONTACTS),
        st.sampled_from(ACCOUNTS),
        st.integers(0, DAYS - 1),
        st.sampled_from([None, None, 5, 12]),
        st.sampled_from(["", "buyer"]),
    ),
    max_size=7,
)


def config_of(folder: Path, **more: object) -> Config:
    document = {
        "name": "accounts", "time_zone": "UTC", "history_from": "2024-02-01", "burn_in": "1d", "unit": "account",
        "journey": {"name": "one", "stages": [{"name": "Seen", "enter": {"event": "*"}}]},
        "engine": {"buckets": 2}, "out": str(folder / "out"), "refused_share": 1, **more,
    }  # fmt: skip
    return validated(Config, document, None)


def stored(folder: Path, rows: Sequence[Row], members: Sequence[Line], **more: object) -> tuple[Store, Config]:
    log = ["account,contact,occurred_at,known_at,event,touchpoint_id"]
    log += [
        f"{r.account},{r.contact},{day(r.occurred)},{day(r.known)},{r.event},{'' if r.key is None else r.key}"
        for r in rows
    ]
    table = ["contact,account,known_at,until,role"]
    table += [
        f"{m.contact},{m.account},{day(m.known)},{'' if m.until is None else day(m.until)},{m.role}" for m in members
    ]
    (folder / "log.csv").write_text("\n".join(log) + "\n")
    (folder / "members.csv").write_text("\n".join(table) + "\n")
    source = {"path": str(folder / "log.csv"), "columns": {"customer_id": "account"}}
    config = config_of(folder, sources={"log": source}, members={"path": str(folder / "members.csv")}, **more)
    return ingest(config), config


def view(store: Store, as_of: int) -> View:
    """What each account of an instant had done by then, and who did it, as the store knows it."""
    found: View = {}
    for bucket in range(store.buckets):
        block = store.read(bucket)
        points = block.touchpoints
        contact = points.properties["contact"]
        assert isinstance(contact, Text)
        live, owner = points.live(as_of), points.owners()
        for customer in eligible(points, np.array([as_of])).customer:
            found[block.customers[customer]] = Counter(
                (
                    int(points.occurred_at[i]),
                    points.event.values[points.event.codes[i]],
                    contact.values[contact.codes[i]] if contact.codes[i] >= 0 else "",
                )
                for i in np.flatnonzero(live & (owner == customer))
            )
    return found


def account_of(row: Row, members: Sequence[Line], at: int) -> str | None:
    """Whose a row is by the lines known at an instant."""
    newest: dict[str, tuple[int, int]] = {}
    for one in members:
        if one.contact == row.contact and instant(one.known) <= at:
            until = NEVER if one.until is None else instant(one.until)
            newest[one.account] = max(newest.get(one.account, (-1, 0)), (one.known, until))
    later = {name: until for name, (_, until) in newest.items() if until > instant(row.occurred)}
    first = [name for name, until in later.items() if until == min(later.values())]
    return first[0] if len(first) == 1 else None


def account_by(row: Row, members: Sequence[Line], as_of: int) -> str | None:
    """Whose a row is, decided at the first instant at which it is known."""
    told = sorted({instant(one.known) for one in members if instant(row.known) < instant(one.known) < as_of})
    account = row.account or None
    for at in [instant(row.known), *told]:
        account = account or account_of(row, members, at)
    return account


def expected(rows: Sequence[Row], members: Sequence[Line], as_of: int) -> View:
    """The same by the raw tables: row by row, and instant by instant until it is known whose the row is."""
    live = [row for row in rows if instant(row.known) < as_of]
    newest: dict[int, Row] = {}
    # Of versions known at one instant the order of the store decides.
    for row in sorted(live, key=lambda r: (r.known, r.account or f"\x1f{r.contact}", r.occurred, r.event, r.contact)):
        if row.key is not None:
            newest[row.key] = row
    found: View = {}
    for row in live:
        if (account := account_by(row, members, as_of)) is not None:
            seen = found.setdefault(account, Counter())
            if row.key is None or newest[row.key] is row:
                seen[instant(row.occurred), row.event, row.contact] += 1
    return found


@given(logs(), lines)
def test_links_lead_to_the_account_that_is_known_first(rows, members) -> None:
    """Silent error 92: at most one link holds a row, and it leads where plain loops over the lines lead."""
    found = link_members(
        Membership(one.contact, instant(one.known), one.account, NEVER if one.until is None else instant(one.until))
        for one in members
    )
    links = found.links.to_pylist()
    for row in rows:
        at, seen = instant(row.occurred), instant(row.known)
        held = [
            one
            for one in links
            if one["origin"] == origin_of(row.contact)
            and one["low"] <= at < one["high"]
            and one["opened"] <= seen < one["closed"]
        ]
        wanted = account_by(replace(row, account=""), members, NEVER)
        assert [one["target"] for one in held] == ([] if wanted is None else [wanted])
        if held and held[0]["since"] > seen:
            assert account_by(replace(row, account=""), members, held[0]["since"]) is None


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(logs(), lines, st.integers(1, DAYS))
@example([Row("", "p", 0, 0, "e0")], [Line("p", "A", 5)], 7)
def test_an_instant_knows_the_people_that_could_be_known_then(rows, members, at) -> None:
    """Silent error 92: for whom a touchpoint counts, by plain loops over the raw tables."""
    rows = [*rows, Row("A", "", 0, 0, "e0")]
    with tempfile.TemporaryDirectory() as folder:
        store, _ = stored(Path(folder), rows, members)
        as_of = instant(at) - DAY // 2
        assert view(store, as_of) == expected(rows, members, as_of)
        counts = store.counts["log"]
        assert counts.stored == sum(account_by(row, members, NEVER) is not None for row in rows)
        assert counts.rows_in == len(rows) == counts.stored + counts.unassigned


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(logs(), lines, st.integers(1, DAYS))
def test_tables_as_they_stood_give_the_same_view(rows, members, at) -> None:
    """Silent error 92: people who come, go and stand in several accounts; later lines change no older answer."""
    as_of = instant(at) - DAY // 2
    rows = [*rows, Row("A", "", 0, 0, "e0")]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, _ = stored(Path(one), rows, members)
        stood = [row for row in rows if instant(row.known) < as_of]
        then, _ = stored(Path(other), stood, [m for m in members if instant(m.known) < as_of])
        assert view(whole, as_of) == view(then, as_of) == view(then, NEVER - 1)


def test_a_person_in_several_accounts_is_nobodys(tmp_path) -> None:
    """Silent error 93: such rows are counted apart, and never given to the first account."""
    rows = [Row("", "p", 0, 0, "e0"), Row("", "p", 9, 9, "e1"), Row("B", "p", 9, 9, "e2"), Row("", "q", 1, 1, "e0")]
    store, _ = stored(tmp_path, rows, [Line("p", "A", 0), Line("p", "B", 7)])
    assert {name: sum(one.values()) for name, one in view(store, NEVER - 1).items()} == {"A": 1, "B": 1}
    counts = store.counts["log"]
    assert (counts.rows_in, counts.stored, counts.unassigned) == (4, 2, 2)
    assert store.member_counts is not None and store.member_counts.stored == 2


def test_who_has_left_is_of_the_next_account(tmp_path) -> None:
    rows = [Row("", "p", 3, 3, "e0"), Row("", "p", 8, 8, "e1"), Row("", "p", 3, 9, "e2")]
    store, _ = stored(tmp_path, rows, [Line("p", "A", 0), Line("p", "A", 6, 5), Line("p", "B", 6)])
    seen = {name: {event for _, event, _ in one} for name, one in view(store, NEVER - 1).items()}
    assert seen == {"A": {"e0", "e2"}, "B": {"e1"}}


def test_ids_of_people_are_read_as_those_of_customers_are(tmp_path) -> None:
    (tmp_path / "log.csv").write_text(f'person,occurred_at,event\n" p1 ",{day(0)},e0\np1,{day(1)},e0\n7,{day(1)},e0\n')
    (tmp_path / "members.csv").write_text(f"who,firm,since\np1,A,{day(0)}\n7,A,{day(0)}\n")
    names = {"contact": "who", "account": "firm", "known_at": "since"}
    tables = {
        "sources": {"log": {"path": str(tmp_path / "log.csv"), "columns": {"contact": "person"}}},
        "members": {"path": str(tmp_path / "members.csv"), "columns": names},
    }
    assert ingest(config_of(tmp_path, **tables)).counts["log"].unassigned == 1
    assert ingest(config_of(tmp_path, **tables, ids={"match": "trimmed"})).counts["log"].unassigned == 0


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"unit": "person"}, "members: they are the people of accounts; say unit: account"),
        ({"identities": {"path": "ids.csv"}}, "identities: ids of one person are not joined"),
        ({"sources": {"log": {"path": "a.csv", "columns": {"customer_id": ["a", "b"]}}}}, "name the column of the"),
        (
            {"contact": {"path": "p.csv", "columns": ["email"]}},
            "it is of people; name the column of their ids",
        ),
        ({"suppression": {"path": "p.csv", "contact": "who", "channel": "by"}}, "permissions of people are for every"),
        ({"exports": {"files": {"email": ["email"]}, "email": "email"}}, "exports: where a customer is"),
    ],
)
def test_settings_that_exclude_each_other_are_told(tmp_path, more, fault) -> None:
    with pytest.raises(ConfigError, match=fault):
        config_of(tmp_path, **{"sources": {"log": {"path": "a.csv"}}, "members": {"path": "m.csv"}, **more})


def test_rows_that_count_for_nobody_are_held_of_a_person(tmp_path) -> None:
    """Silent error 96: whoever is forgotten must be gone from the sources, as somebody's and as nobody's."""
    rows = [Row("", "p", 0, 0, "e0"), Row("A", "q", 1, 1, "e0"), Row("", "q", 2, 2, "e0")]
    store, config = stored(tmp_path, rows, [Line("p", "B", 1)])
    held = {name: rows_held(config, store, CustomerIds.of([name], "exact")) for name in ("p", "q", "r")}
    assert held == {"p": {"sources.log": 1, "members": 1}, "q": {"sources.log": 2}, "r": {}}
    known = known_from_readings(tmp_path / "out", CustomerIds.of(["p", "q", "r", "A"], "exact"))
    assert {*known.to_pylist()} == {"p", "q", "A"}
