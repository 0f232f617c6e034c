"""Ids of one person: what is joined, since when, and that no older answer knows of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.store.conftest import DAYS, day, instant

from cvj_ml.config import DAY, Config
from cvj_ml.customers import Identities
from cvj_ml.errors import DataError
from cvj_ml.journey import Journey, entry_times, stage_at
from cvj_ml.panel.labels import label
from cvj_ml.snapshots import eligible
from cvj_ml.store import Store, ingest
from cvj_ml.windows import NEVER

NAMES = "abcdef"


@dataclass(frozen=True)
class Row:
    """A touchpoint of the random logs: the days when it occurred and arrived; later rows may repeat its key."""

    customer: str
    occurred: int
    known: int
    event: str
    key: int | None = None


@dataclass(frozen=True)
class Told:
    """A line of the table of identities, in days."""

    alias: str
    customer: str
    known: int
    until: int | None = None


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(1, 14))):
        occurred = draw(st.integers(0, DAYS - 2))
        known = min(DAYS - 1, occurred + draw(st.sampled_from([0, 0, 1, 5])))
        key = draw(st.none() | st.integers(0, 3))
        rows.append(Row(draw(st.sampled_from(NAMES)), occurred, known, f"e{number % 3}", key))
    return rows


def pairs(until: bool = True) -> st.SearchStrategy[list[Told]]:
    """Pairs of ids of which the one given up comes later in the alphabet, so that none contradicts another."""
    one = st.builds(
        lambda ids, known, ends: Told(max(ids), min(ids), known, known + ends if ends is not None else None),
        st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True),
        st.integers(0, DAYS - 1),
        st.sampled_from([None, None, -3, 0, 4]) if until else st.none(),
    )
    return st.lists(one, max_size=6)


def config_of(folder: Path, **more: object) -> Config:
    return Config.model_validate(
        {
            "name": "ids", "time_zone": "UTC", "history_from": "2024-02-01", "burn_in": "1d",
            "journey": {"name": "one", "stages": [{"name": "Seen", "enter": {"event": "*"}}]},
            "engine": {"buckets": 2}, "out": str(folder / "out"), "refused_share": 1, **more,
        }
    )  # fmt: skip


def stored(
    folder: Path, rows: Sequence[Row], told: Sequence[Told], most_ids: int = 50, **more: object
) -> tuple[Store, Config]:
    log = ["customer_id,occurred_at,known_at,event,touchpoint_id"]
    log += [f"{r.customer},{day(r.occurred)},{day(r.known)},{r.event},{'' if r.key is None else r.key}" for r in rows]
    table = ["alias,customer,known_at,until"]
    table += [f"{t.alias},{t.customer},{day(t.known)},{'' if t.until is None else day(t.until)}" for t in told]
    (folder / "log.csv").write_text("\n".join(log) + "\n")
    (folder / "ids.csv").write_text("\n".join(table) + "\n")
    told_as = {"path": str(folder / "ids.csv"), "most_ids": most_ids}
    config = config_of(folder, sources={"log": {"path": str(folder / "log.csv")}}, identities=told_as, **more)
    return ingest(config), config


def view(store: Store, as_of: int) -> dict[str, Counter[tuple[int, str]]]:
    """What each customer of an instant had done by then, as the store knows it."""
    found = {}
    for bucket in range(store.buckets):
        block = store.read(bucket)
        points = block.touchpoints
        live, owner = points.live(as_of), points.owners()
        for customer in eligible(points, np.array([as_of])).customer:
            rows = np.flatnonzero(live & (owner == customer))
            seen = Counter((int(points.occurred_at[i]), points.event.values[points.event.codes[i]]) for i in rows)
            found[block.customers[customer]] = seen
    return found


def expected(rows: Sequence[Row], told: Sequence[Told], as_of: int, most_ids: int = 50) -> dict[str, Counter]:
    """The same by the raw tables, walked through in the order in which things became known before the instant."""
    person: dict[str, str] = {}
    shared: dict[str, int] = {}
    known = [one for one in told if instant(one.known) < as_of]
    at_once = Counter((one.alias, one.known) for one in {(t.alias, t.customer, t.known): t for t in told}.values())
    for one in sorted(known, key=lambda t: (t.known, t.alias, t.customer)):
        of, to = person.get(one.alias, one.alias), person.get(one.customer, one.customer)
        if at_once[one.alias, one.known] > 1 or (of != to and one.alias in person):
            if one.alias in person:
                shared.setdefault(one.alias, instant(one.known))
        elif of != to:
            for name in {*NAMES}:
                if person.get(name, name) == of:
                    person[name] = to
    live = [row for row in rows if instant(row.known) < as_of]
    newest: dict[int, Row] = {}
    order = {id(row): i for i, row in enumerate(sorted(live, key=lambda r: (r.customer, r.occurred, r.event, r.known)))}
    for row in sorted(live, key=lambda r: (r.known, order[id(r)])):
        if row.key is not None:
            newest[row.key] = row
    found: dict[str, Counter] = {}
    for row in live:
        if instant(row.known) >= shared.get(row.customer, NEVER):
            continue
        seen = found.setdefault(person.get(row.customer, row.customer), Counter())
        if row.key is None or newest[row.key] is row:
            seen[instant(row.occurred), row.event] += 1
    return found


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(logs(), pairs(until=False), st.integers(1, DAYS))
@example([Row("b", 0, 0, "e0"), Row("a", 9, 9, "e1")], [Told("b", "a", 5)], 7)
def test_an_instant_knows_the_persons_that_could_be_known_then(rows, told, at) -> None:
    """Silent error 90: who is a customer, and what they did, by plain loops over the raw tables."""
    with tempfile.TemporaryDirectory() as folder:
        store, _ = stored(Path(folder), rows, told)
        as_of = instant(at) - DAY // 2
        assert view(store, as_of) == expected(rows, told, as_of)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(logs(), pairs(), st.integers(1, DAYS))
def test_tables_as_they_stood_give_the_same_view(rows, told, at) -> None:
    """Silent error 90: chains, splits, shared ids and ends; what is told later changes no older answer."""
    as_of = instant(at) - DAY // 2
    rows = [*rows, Row("z", 0, 0, "e0")]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, _ = stored(Path(one), rows, told)
        stood = [row for row in rows if instant(row.known) < as_of]
        then, _ = stored(Path(other), stood, [t for t in told if instant(t.known) < as_of])
        assert view(whole, as_of) == view(then, as_of)
        assert view(then, as_of) == view(then, NEVER - 1)


@st.composite
def visits(draw: st.DrawFn) -> list[tuple[str, str, int, int]]:
    """Rows with a user, a cookie or both: user, cookie, day of occurrence and of arrival."""
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        user, cookie = draw(st.sampled_from(["", "a", "b"])), draw(st.sampled_from(["", "x", "y", "z"]))
        occurred = draw(st.integers(0, DAYS - 2))
        rows.append(
            (user, cookie or ("" if user else "x"), occurred, min(DAYS - 1, occurred + draw(st.integers(0, 4))))
        )
    return rows


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(visits(), st.integers(1, DAYS))
@example([("", "x", 0, 0), ("a", "x", 4, 4), ("", "x", 6, 6), ("b", "x", 8, 8), ("", "x", 9, 9)], 12)
def test_rows_with_two_ids_say_what_a_table_of_identities_says(rows, at) -> None:
    told = [Told(cookie, user, known) for user, cookie, _, known in rows if user and cookie]
    as_of = instant(at) - DAY // 2
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        table, _ = stored(Path(one), [Row(u or c, o, k, "e0") for u, c, o, k in rows], told)
        (Path(other) / "log.csv").write_text(
            "user,cookie,occurred_at,known_at,event\n"
            + "".join(f"{user},{cookie},{day(o)},{day(k)},e0\n" for user, cookie, o, k in rows)
        )
        source = {"path": str(Path(other) / "log.csv"), "columns": {"customer_id": ["user", "cookie"]}}
        log = ingest(config_of(Path(other), sources={"log": source}))
        assert view(log, as_of) == view(table, as_of)
        assert log.counts["log"].unassigned == table.counts["log"].unassigned


def test_ids_of_a_stronger_kind_take_a_person_over(tmp_path) -> None:
    """A cookie is known with an e-mail address first and with an account later: all three are one person."""
    (tmp_path / "log.csv").write_text(
        "account,mail,cookie,occurred_at,event\n"
        f",,k,{day(0)},e\n,m,k,{day(1)},e\n,,k,{day(2)},e\nn,,k,{day(3)},e\n,m,,{day(4)},e\n"
    )
    source = {"path": str(tmp_path / "log.csv"), "columns": {"customer_id": ["account", "mail", "cookie"]}}
    store = ingest(config_of(tmp_path, sources={"log": source}))
    seen = {at: {name: sum(rows.values()) for name, rows in view(store, instant(at)).items()} for at in range(1, 6)}
    assert seen == {1: {"k": 1}, 2: {"m": 2}, 3: {"m": 3}, 4: {"n": 4}, 5: {"n": 5}}
    assert store.pairs == {"merged": 2}


def test_pairs_that_contradict_each_other_end_the_run(tmp_path) -> None:
    rows = [Row("a", 0, 0, "e0"), Row("b", 0, 0, "e0")]
    with pytest.raises(DataError, match=r"identities: 1 pair\(s\) make an id the alias of its own alias"):
        stored(tmp_path, rows, [Told("a", "b", 1), Told("b", "a", 2)])


def test_a_person_has_no_more_ids_than_the_limit(tmp_path) -> None:
    rows = [Row(name, 0, 0, "e0") for name in "abcd"]
    told = [Told(name, "a", 1 + number) for number, name in enumerate("bcd")]
    store, _ = stored(tmp_path, rows, told, most_ids=3)
    assert {*view(store, NEVER - 1)} == {"a", "d"}
    assert store.pairs == {"merged": 2, "too many": 1}


def test_what_an_id_did_for_several_people_is_nobodys(tmp_path) -> None:
    """Silent error 91: rows of a shared device are counted apart, and never given to whoever logged in first."""
    rows = [
        Row("x", 0, 0, "e0"),
        Row("x", 5, 5, "e1"),
        Row("x", 9, 9, "e2"),
        Row("a", 1, 1, "e0"),
        Row("b", 1, 1, "e0"),
    ]
    store, _ = stored(tmp_path, rows, [Told("x", "a", 2), Told("x", "b", 7)])
    counts = store.counts["log"]
    assert (counts.rows_in, counts.stored, counts.unassigned) == (5, 4, 1)
    assert {name: sum(one.values()) for name, one in view(store, NEVER - 1).items()} == {"a": 3, "b": 1}
    assert store.pairs == {"merged": 1, "shared": 1}


def test_outcomes_of_an_alias_follow_the_person(tmp_path) -> None:
    """A visitor who signs up is not censored by it: what the person does later is the outcome of their first visits."""
    rows = [Row("x", 0, 0, "visit"), Row("a", 5, 5, "visit"), Row("a", 8, 8, "buy"), Row("y", 0, 0, "visit")]
    stages = [{"name": "Seen", "enter": {"event": "*"}}, {"name": "Buyer", "enter": {"event": "buy"}}]
    store, config = stored(tmp_path, rows, [Told("x", "a", 6)], journey={"name": "two", "stages": stages})
    journey, found = Journey(config.journey), {}
    for bucket in range(store.buckets):
        block = store.read(bucket)
        snapshots = eligible(block.touchpoints, np.array([instant(at) - DAY // 2 for at in (3, 6, 7)]))
        stage = stage_at(entry_times(journey, block.touchpoints)[snapshots.customer], snapshots.as_of).stage
        labels = label(journey, block.touchpoints, snapshots, stage, instant(20), 0)
        for i, customer in enumerate(snapshots.customer):
            days = (snapshots.as_of[i] + DAY // 2 - instant(0)) // DAY
            until = labels.times[i, 2]
            found[block.customers[customer], int(days)] = None if until == NEVER else until / DAY
    assert found == {
        ("x", 3): 5.5, ("x", 6): 2.5, ("a", 6): 2.5, ("a", 7): 1.5, ("y", 3): None, ("y", 6): None, ("y", 7): None,
    }  # fmt: skip


def test_a_refused_row_joins_nobody(tmp_path) -> None:
    """Silent error 91: of what is not known when it was known, nothing is known."""
    (tmp_path / "log.csv").write_text(
        "user,cookie,occurred_at,known_at,event\n"
        f",k,{day(0)},{day(0)},visit\nu,k,{day(3)},,login\nu,k,{day(4)},{day(4)},\nu,,{day(8)},{day(8)},buy\n"
    )
    source = {"path": str(tmp_path / "log.csv"), "columns": {"customer_id": ["user", "cookie"]}}
    store = ingest(config_of(tmp_path, sources={"log": source}))
    assert store.counts["log"].refused == {"no event": 1, "no known_at": 1}
    assert (store.pairs, {*view(store, NEVER - 1)}) == ({}, {"k", "u"})


def test_an_id_that_was_handed_on_is_its_new_person(tmp_path) -> None:
    """Silent error 90: at each instant an alias stands for whom it was known to be; an end told later ends it, too."""
    rows = [Row("d", at, at, "e0") for at in (0, 3, 9)] + [Row(name, 0, 0, "e0") for name in "ab"]
    for folder, told in (
        ("once", [Told("d", "a", 1, 5), Told("d", "b", 6)]),
        ("later", [Told("d", "a", 1), Told("d", "a", 5, 5), Told("d", "b", 6)]),
    ):
        (tmp_path / folder).mkdir()
        store, _ = stored(tmp_path / folder, rows, told)
        assert {name: sum(one.values()) for name, one in view(store, NEVER - 1).items()} == {"a": 3, "b": 2}
        persons = [Identities.at(store, instant(at)).persons(pa.array(["d"])).to_pylist() for at in (1, 4, 8)]
        assert persons == [["d"], ["a"], ["b"]]
