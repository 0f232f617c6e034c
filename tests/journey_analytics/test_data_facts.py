"""What `check` says of the data: every number again from the raw rows by plain loops, and the page that shows them."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.browser import opened, visit
from tests.trained import call

from cvj_ml.commands.check import check
from cvj_ml.config import Config
from cvj_ml.gates.preflight import FEW_A_WEEK
from cvj_ml.journey_analytics import data_facts
from cvj_ml.journey_analytics.data_facts import DataFacts
from cvj_ml.journey_analytics.source_facts import (
    Purchases,
    RowsInTime,
    SourceFacts,
    days_apart_of,
    season_in_words,
    seasons_of,
    thin_weeks,
)
from cvj_ml.report.data_page import data_page
from cvj_ml.run import Silent
from cvj_ml.windows import parse_as_of

STAGES = ("Seen", "Buyer", "Fan")
EVENTS = {"Seen": "visit", "Buyer": "order", "Fan": "review"}
FROM, AS_OF = date(2024, 1, 1), date(2024, 6, 1)
HORIZONS, BURN_IN, DELAY, FEWEST, EVIDENCE = (7, 30), 14, 2, 2, 3

Row = tuple[str, datetime, datetime, str]
"""Customer, occurred_at, known_at, event."""


def configure(folder: Path, rows: dict[str, list[Row]], **more: Any) -> Config:
    for name, some in rows.items():
        lines = [",".join((who, at.isoformat(), known.isoformat(), event)) for who, at, known, event in some]
        (folder / f"{name}.csv").write_text("\n".join(["customer_id,occurred_at,known_at,event", *lines, ""]))
    return Config.model_validate(
        {
            "name": "shop", "time_zone": "UTC", "history_from": FROM.isoformat(), "burn_in": f"{BURN_IN}d",
            "sources": {name: {"path": f"{name}.csv", "arrival_delay": f"{DELAY}d"} for name in rows},
            "journey": {"name": "shop", "stages": [{"name": n, "enter": {"event": e}} for n, e in EVENTS.items()]},
            "unobserved": sorted(n for n, e in EVENTS.items() if all(e != r[3] for s in rows.values() for r in s)),
            "horizons": [f"{days}d" for days in HORIZONS], "model": {"min_customers": FEWEST},
        } | more,
        context={"folder": folder},
    )  # fmt: skip


def facts_of(config: Config) -> DataFacts:
    return check(config, parse_as_of(AS_OF.isoformat(), config.zone), Silent()).facts


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def late_days(delays: list[timedelta]) -> tuple[float, ...]:
    ordered = sorted(delays)
    at = (math.ceil(len(ordered) * share) - 1 for share in (0.5, 0.9, 0.99, 1.0))
    return tuple(round(ordered[max(i, 0)] / timedelta(days=1), 2) for i in at)


def check_source(found: SourceFacts, rows: list[Row]) -> None:
    used = [row for row in rows if row[2] < midnight(AS_OF)]
    assert (found.rows_in, found.stored, found.refused, found.duplicates) == (len(rows), len(rows), 0, 0)
    assert found.repeats == sum(count - 1 for count in Counter(rows).values())
    assert found.used == len(used)
    days = {row[1].date() for row in used}
    assert (found.first, found.last) == (min(days, default=None), max(days, default=None))
    delays = [known - at for _, at, known, _ in used if known > at]
    assert (found.late, found.late_days) == (len(delays), late_days(delays) if delays else ())
    if not days:
        return
    span = [min(days) + timedelta(i) for i in range((max(days) - min(days)).days + 1)]
    months = {f"{day:%Y-%m}": 0 for day in span}
    for row in used:
        months[f"{row[1]:%Y-%m}"] += 1
    assert found.months == tuple(months.items())
    assert (found.days_with, found.days_without) == (len(days), len(span) - len(days))
    weeks = {day.isocalendar()[:2] for day in span}
    assert found.weeks_without == len(weeks - {day.isocalendar()[:2] for day in days})
    runs, run = [], list[date]()
    for day in [*span, None]:
        if day is not None and day not in days:
            run.append(day)
        elif run:
            runs.append((-len(run), run[0], run[-1]))
            run = []
    assert [(-gap.days, gap.first, gap.last) for gap in found.gaps] == sorted(runs)[:3]


def check_transitions(found: DataFacts, rows: list[Row], hidden: set[str]) -> None:
    cut = midnight(AS_OF)
    seen = [row for row in rows if row[2] < cut]
    customers = sorted({row[0] for row in seen})
    assert found.customers == len(customers)
    shown = [name for name in STAGES if name not in hidden]

    def entry(who: str, stage: str) -> datetime:
        return min((known for w, _, known, e in seen if w == who and EVENTS[stage] == e), default=datetime.max)

    def happened(who: str, stage: str) -> datetime:
        return min((at for w, at, _, e in seen if w == who and EVENTS[stage] == e), default=datetime.max)

    def position(who: str, at: datetime) -> int:
        return max((i for i, stage in enumerate(STAGES) if stage in shown and entry(who, stage) < at), default=-1)

    first = {who: min(row[2] for row in seen if row[0] == who) for who in customers}
    for i, stage in enumerate(found.stages):
        assert stage.entered == (sum(entry(who, stage.name) < cut for who in customers) if stage.observed else 0)
        assert stage.here == sum(position(who, cut) == i for who in customers)
    instants = [midnight(FROM) + timedelta(BURN_IN + 14 * i) for i in range(20)]
    instants = [at for at in instants if at < cut]
    snapshots = [(who, at) for who in customers for at in instants if first[who] < at]
    told = {(one.origin, one.target, one.days): one for one in found.transitions}
    converters: dict[str, set[str]] = {}
    lived: dict[tuple[int, str, int], set[str]] = {}
    for who, at in snapshots:
        for target in shown:
            if STAGES.index(target) <= position(who, at):
                continue
            when = min(happened(who, stage) for stage in shown if STAGES.index(stage) >= STAGES.index(target))
            if when < at:
                continue
            for low, high in zip((0, *HORIZONS), HORIZONS, strict=False):
                if at + timedelta(high + DELAY) <= cut and when >= at + timedelta(low):
                    lived.setdefault((position(who, at), target, high), set()).add(who)
                    if when < at + timedelta(high):
                        converters.setdefault(target, set()).add(who)
    for i, origin in enumerate(("(before any)", *STAGES), -1):
        for target in (stage for stage in shown if STAGES.index(stage) > i):
            for days in HORIZONS:
                if (origin, target, days) not in told:
                    assert i == -1 and all(min(entry(who, s) for s in shown) <= first[who] for who in customers)
                    continue
                came = moved = 0
                for who in customers:
                    begins = first[who] if i < 0 else entry(who, origin) if origin in shown else datetime.max
                    above = min((entry(who, s) for s in shown if STAGES.index(s) > i), default=datetime.max)
                    if begins >= cut or above <= begins or begins + timedelta(days + DELAY) > cut:
                        continue
                    came += 1
                    there = min(entry(who, s) for s in shown if STAGES.index(s) >= STAGES.index(target))
                    moved += there != datetime.max and there < begins + timedelta(days)
                one = told[origin, target, days]
                known = all(len(lived.get((i, target, part), ())) >= FEWEST for part in HORIZONS if part <= days)
                enough = len(converters.get(target, ())) >= EVIDENCE
                assert (one.came, one.moved) == (came, moved), one
                assert one.enough == ("no" if not known else "yes" if enough else "base rates"), one


TIMES = st.integers(0, 160 * 48).map(lambda halves: midnight(FROM) + timedelta(minutes=30 * halves))
DELAYS = st.sampled_from([timedelta(0)] * 4 + [timedelta(hours=5), timedelta(days=1), timedelta(days=9)])
ROWS = st.builds(
    lambda who, at, delay, event: (who, at, at + delay, event),
    st.sampled_from([f"c{i}" for i in range(9)]), TIMES, DELAYS, st.sampled_from(list(EVENTS.values())),
)  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=st.lists(ROWS, min_size=1, max_size=60), two=st.lists(ROWS, min_size=1, max_size=25))
def test_every_number_is_that_of_plain_loops(
    one: list[Row], two: list[Row], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_facts, "LOW_EVIDENCE", EVIDENCE)
    rows = {"one": one, "two": two}
    if not any(row[2] < midnight(AS_OF) for row in [*one, *two]):
        return
    config = configure(tmp_path_factory.mktemp("facts"), rows)
    found = facts_of(config)
    for source in found.sources:
        check_source(source, rows[source.name])
    assert found.used == sum(source.used for source in found.sources)
    check_transitions(found, [*one, *two], set(config.unobserved))
    json.dumps(found.as_document(), allow_nan=False)
    assert data_page(found) == data_page(found)


LOGINS = st.builds(
    lambda device, logged_in, at, delay: (device, logged_in, at, at + delay),
    st.integers(0, 5), st.booleans(), TIMES, DELAYS,
)  # fmt: skip


def with_logins(folder: Path, rows: list[tuple[str, str, datetime, datetime]]) -> Config:
    """Write rows of a login (or none), a device and when they happened and were known; both ids name the customer."""
    lines = [f"{login},{device},{at.isoformat()},{known.isoformat()},visit" for login, device, at, known in rows]
    (folder / "web.csv").write_text("\n".join(["login,device,occurred_at,known_at,event", *lines, ""]))
    document = {
        "name": "shop", "time_zone": "UTC", "history_from": FROM.isoformat(), "burn_in": f"{BURN_IN}d",
        "sources": {"web": {"path": "web.csv", "columns": {"customer_id": ["login", "device"]}}},
        "journey": {"name": "shop", "stages": [{"name": "Seen", "enter": {"event": "visit"}}]},
        "horizons": ["7d"], "model": {"min_customers": FEWEST},
    }  # fmt: skip
    (folder / "shop.yaml").write_text(json.dumps(document))
    return Config.model_validate(document, context={"folder": folder})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(LOGINS, min_size=1, max_size=40))
def test_ids_and_people_are_those_of_plain_loops(
    found: list[tuple[int, bool, datetime, datetime]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [(f"u{device // 2}" if known else "", f"d{device}", at, by) for device, known, at, by in found]
    seen = [row for row in rows if row[3] < midnight(AS_OF)]
    if not seen:
        return
    person = {device: login for login, device, *_ in seen if login}
    ids = {login or device for login, device, *_ in seen}
    facts = facts_of(with_logins(tmp_path_factory.mktemp("ids"), rows))
    assert facts.identities is not None
    assert (facts.identities.ids, facts.identities.unassigned) == (len(ids), 0)
    assert facts.identities.people == facts.customers == len({person.get(one, one) for one in ids})
    (web,) = facts.sources
    assert facts.used == web.used == len(seen), "a row under two ids is one row"
    assert web.late == sum(known > at for _, _, at, known in seen)


def test_what_became_of_pairs_is_told_everywhere_and_only_where_there_are_any(tmp_path: Path) -> None:
    days = [midnight(FROM) + timedelta(i) for i in range(8)]
    one, others = "phone laptop u1+phone u1+laptop", "till u2+till u3+till till"
    told = [(login, device) for text in f"{one} {others}".split() for login, _, device in [text.rpartition("+")]]
    with_logins(tmp_path, [(*ids, at, at) for ids, at in zip(told, days, strict=True)])
    page = tmp_path / "data.html"
    ran = call("check", tmp_path / "shop.yaml", "--as-of", AS_OF, "--page", page)
    assert ran.code == 0, ran.err
    words = " ".join(re.sub("─+", "", ran.out).split())
    # phone, laptop, till, u1, u2 and u3 have a row of their own; the last row of the till is nobody's.
    assert "Ids and people ids people pairs merged pairs shared rows unassigned 6 3 3 1 1" in words
    assert "identities: 1 rows are nobody's" in words
    assert "6 ids with a row are 3 people" in page.read_text(encoding="utf-8")
    found = json.loads(call("check", tmp_path / "shop.yaml", "--as-of", AS_OF, "--json").out)["data"]
    assert found["identities"] == {"ids": 6, "people": 3, "pairs": {"merged": 3, "shared": 1}, "unassigned": 1}
    plain = facts_of(configure(tmp_path, small_log()))
    assert plain.identities is None and "Ids and people" not in data_page(plain)


def small_log() -> dict[str, list[Row]]:
    """Nine customers with a visit a day, a gap of nine days, a repeat, and orders that arrive a day late."""
    visits, orders = list[Row](), list[Row]()
    for i in range(90):
        at = datetime(2024, 1, 1, 9, tzinfo=UTC).replace(tzinfo=None) + timedelta(i)
        if not 40 <= i < 49:
            visits.append((f"c{i % 9}", at, at, "visit"))
        if i % 6 == 0:
            orders.append((f"c{i % 9}", at, at + timedelta(1), "order"))
    return {"web": [*visits, visits[3]], "shop": orders}


GOLDEN = """\
In time
 days weeks late
 source from to without without repeats late days
 web 2024-01-01 2024-03-30 9 1 1 0 –
 shop 2024-01-01 2024-03-25 70 0 0 15 1
Moved on within 30 days
 next step moved of enough
 Seen → Buyer 3 9 base rates
Enough is what training asks for: at least 2 customers of the stage have lived through every part of the days
(model.min_customers), and at least 30 reached the target from anywhere. With fewer of the latter there are base rates
alone, with fewer of the former nothing.
Questions
  - web: no row from 2024-02-10 to 2024-02-18 (9 days), and rows on most other days. Is an export missing? If so: add
    its file to path.
  - web: no row after 2024-03-30, 62 whole days before 2024-06-01. Has the last export arrived? If so: ask about an
    earlier day with --as-of.
  - web: 1 of 82 rows repeat another one exactly, and each counts. Are they copies? If so: drop_duplicates: true.
"""


def test_the_terminal_tells_them_with_the_rule_and_questions(tmp_path: Path) -> None:
    configure(tmp_path, small_log())
    document = {
        "name": "shop", "time_zone": "UTC", "history_from": str(FROM), "burn_in": "14d",
        "horizons": ["7d", "30d"], "model": {"min_customers": 2},
        "sources": {name: {"path": f"{name}.csv", "arrival_delay": "2d"} for name in ("web", "shop")},
        "journey": {"name": "shop", "stages": [{"name": n, "enter": {"event": EVENTS[n]}} for n in STAGES[:2]]},
    }  # fmt: skip
    (tmp_path / "shop.yaml").write_text(json.dumps(document))
    page = tmp_path / "pages" / "data.html"
    ran = call("check", tmp_path / "shop.yaml", "--as-of", AS_OF, "--page", page)
    assert ran.code == 0, ran.err
    told = " ".join(re.sub("─+", "", ran.out).split())
    assert told.endswith(" ".join(f"{GOLDEN} Wrote {page}.".split()))
    text = page.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"<meta http-equiv[^>]*>", "", text)
    for words in ("9 days", "2024-02-10 to 2024-02-18", "2024-03-30"):
        assert words in text


def test_the_page_fits_and_needs_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "data.html"
    page.write_text(data_page(facts_of(configure(tmp_path, small_log()))), encoding="utf-8")
    with opened() as browser:
        for width in (1440, 390):
            with visit(browser, page, width) as shown:
                assert shown.evaluate("document.documentElement.scrollWidth") <= width
                narrow = "[...document.querySelectorAll('th')].filter(one => one.clientWidth < 40).length"
                assert shown.evaluate(narrow) == 0
                assert shown.locator("rect.bar").count() == 6


# --- what past years and weeks say of the days around the instant ---------------------------------------

TODAY = 20_000
"""A day, counted from 1970 on."""


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 200), st.integers(0, 40), max_size=200))
def test_thin_weeks_are_those_of_plain_loops(rows: dict[int, int]) -> None:
    """Silent error 178: each of the last weeks has less than half of the middle one of twelve before them."""
    week = [sum(rows.get(ago, 0) for ago in range(7 * n + 1, 7 * n + 8)) for n in range(24)]
    many = 0
    while many < 11:
        usual = statistics.median(week[many + 1 : many + 13])
        if usual < FEW_A_WEEK or any(2 * one >= usual for one in week[: many + 1]):
            break
        many += 1
    found = thin_weeks({TODAY - ago: count for ago, count in rows.items()}, TODAY)
    assert found.get("thin_weeks", 0) == many
    if many:
        assert found["thin_rows"] == sum(week[:many])
        assert found["usual_rows"] == many * statistics.median(week[many : many + 12])


def test_horizons_shorter_than_the_days_between_rows_are_a_question() -> None:
    months = RowsInTime(Counter({TODAY - 30 * n: 40 for n in range(24)}))
    assert days_apart_of({"bills": months}) == 30
    assert days_apart_of({"bills": months, "visits": RowsInTime(Counter({TODAY - n: 40 for n in range(700)}))}) == 1
    assert days_apart_of({"few": RowsInTime(Counter({TODAY - 30 * n: 2 for n in range(24)}))}) == 1, "that is chance"


def test_a_season_is_one_that_all_past_years_have() -> None:
    def years(*after: int, rows: int = 3) -> tuple[float, ...]:
        days = Counter({TODAY - 365 * (n + 1) + one: many for n, many in enumerate(after) for one in range(30)})
        days.update({TODAY - 365 * (n + 1) - one: rows for n in range(len(after)) for one in range(1, 31)})
        return seasons_of({"shop": RowsInTime(days)}, TODAY, 30)

    assert years(9, 6, 12) == (3.0, 2.0, 4.0)
    told = season_in_words(years(9, 6, 12), 30)
    assert told is not None and "in each of the last 3 years the 30 days after" in told and "2.0 to 4.0 times" in told
    assert "a year ago" in str(season_in_words(years(9), 30)) and "brought 0.7 times" in str(
        season_in_words((0.66,), 30)
    )
    assert season_in_words(years(9, 3), 30) is None, "it does not come each year"
    assert season_in_words((), 30) is None
    assert years(9, 6, rows=1) == (), "fewer than 50 rows before tell nothing"
    assert seasons_of({"shop": RowsInTime(Counter({TODAY - 40: 500}))}, TODAY, 30) == ()


def test_purchases_are_counted_with_what_they_are_worth(tmp_path: Path) -> None:
    """Silent error 196: a column of amounts that has another name in newer files leaves them without any value."""
    rows = [(f"c{n % 20}", AS_OF - timedelta(days=90 - n), 10.5 if n < 50 or n % 10 == 0 else None) for n in range(90)]
    rows += [("c1", AS_OF - timedelta(days=60), 0.0), ("c1", AS_OF - timedelta(days=60), -3.25), ("c2", AS_OF, 99.0)]
    frame = pd.DataFrame(rows, columns=["customer_id", "occurred_at", "value"])
    frame.assign(event="order").to_csv(tmp_path / "shop.csv", index=False)
    columns = {name: name for name in ("customer_id", "occurred_at", "event", "value")}
    stages = [{"name": name, "enter": {"event": event}} for name, event in EVENTS.items()]
    journey = {"name": "shop", "stages": stages, "value": {"events": ["order"]}}
    source = {"path": "shop.csv", "columns": columns}
    facts = facts_of(configure(tmp_path, {}, sources={"shop": source}, journey=journey, unobserved=["Seen", "Fan"]))
    (found,) = facts.sources
    # 50 with a value, and each tenth of the 40 after them; two more; of the day of --as-of nobody can know yet.
    assert found.bought == Purchases(92, 56, 1, 1, 54 * 10.5 - 3.25)
    assert found.lately == Purchases(28, 2, 0, 0, 2 * 10.5)
    (question,) = (one for one in facts.questions() if "have a value" in one)
    assert "of the 28 purchases of the last 28 days 7% have a value, of those before 84%" in question
