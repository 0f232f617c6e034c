"""The page in a real browser, without a network: it opens, works, is readable, and what comes from data stays text."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.browser import opened, visit
from tests.trained import AS_OF, Trained, call

from cvj_ml import schemas
from cvj_ml.commands.measure import known_history
from cvj_ml.config import Config, ListSpec
from cvj_ml.customers import Naming
from cvj_ml.journey import Journey
from cvj_ml.journey_analytics.counts import JourneyCounts
from cvj_ml.journey_analytics.dwell_times import STILL_THERE, DwellTimeCounts, Question
from cvj_ml.journey_analytics.experience import TICKET, ExperienceCounts
from cvj_ml.journey_analytics.journey_map import opportunities
from cvj_ml.journey_analytics.personas import KnownCustomers
from cvj_ml.journey_analytics.precursors import ALL, TouchpointCounts
from cvj_ml.lists.eligibility import HELD_BACK, POSITION
from cvj_ml.lists.ranked_list import ListSize, RankedList, summarise
from cvj_ml.models.bundle.forecast_errors import CountRange, ExpectedMoves, expected_moves
from cvj_ml.models.segment_levels import SEGMENTS
from cvj_ml.ownership import claim
from cvj_ml.report import wording
from cvj_ml.report.campaign_history import list_histories
from cvj_ml.report.page import MOST_BYTES, PageFacts, Source, page
from cvj_ml.report.plan import plan_of
from cvj_ml.report.wording import TrainedModel
from cvj_ml.report.worksheet import worksheet, worksheet_markdown, worksheet_rows
from cvj_ml.schemas import TARGETS
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.windows import midnight

pytest_plugins = ["tests.fixtures"]

LONG = "x" * 10_000
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "\"quoted\" & 'single'",
    '=HYPERLINK("http://example.com";"click")',
    "@SUM(1+1)",
    " ＝1+1",
    "'apostrophe",
    "{{ 7 * 7 }}{% raw %}",
    "مرحبا بالعالم",
    "\u202egnp.exe",
    "👩‍👩‍👧 emoji",
    "  two  spaces ",
    "a\ttab",
    LONG,
)
STAGES = ("Visitor", "</script><b>Buyer", "مشتر & Fan")
SLUGS = ("visitor", "script_b_buyer", "fan")


def config() -> Config:
    stages = [
        {"name": name, "enter": {"event": f"e{i}"}, "goal": f"<i>goal {i}</i>", "plays": [{"text": "<u>call</u>"}]}
        for i, name in enumerate(STAGES)
    ]
    return Config.model_validate(
        {
            "name": "shop",
            "time_zone": "Europe/London",
            "history_from": "2024-01-01",
            "sources": {"log": {"path": "log.csv"}},
            "journey": {"name": "short", "stages": stages},
            "horizons": ["30d"],
            "lists": [{"from": STAGES[0], "to": STAGES[1], "horizon": "30d"}],
        }
    )


CONFIG = config()
AT = midnight(date(2024, 11, 1), CONFIG.zone)


def scores(size: int) -> pa.Table:
    contract = schemas.scores(SLUGS, {slug: [30] for slug in SLUGS[1:]}, [30])
    values: dict[str, Any] = {
        "customer_id": [f"c{i}" for i in range(size)],
        "stage": [STAGES[0]] * size,
        "dormant": [i % 3 == 0 for i in range(size)],
        f"p_reach_{SLUGS[1]}_30d": np.linspace(0.9, 0.001, size),
        "segment": [SEGMENTS[i % len(SEGMENTS)] for i in range(size)],
        "low_evidence": [["<b>low</b>"]] * size,
    }
    return pa.table(
        {
            name: pa.array(values[name], kind) if name in values else pa.nulls(size, kind)
            for name, kind in contract.columns.items()
        }
    )


def ranked(customers: list[str], name: str = "visitor__buyer__30d", reason: str = "<b>seen</b> pricing") -> RankedList:
    """A list as TARGETS has it, nearly everything filled in; every tenth row is in control."""
    size = len(customers)
    p = np.linspace(0.9, 0.001, size)
    values: dict[str, Any] = {
        "rank": np.arange(1, size + 1),
        "customer_id": customers,
        "from_stage": [STAGES[0]] * size,
        "to_stage": [STAGES[1]] * size,
        "horizon_days": np.full(size, 30),
        "probability": p,
        "track_record_n": np.full(size, 100),
        "track_record_k": np.full(size, 68),
        "track_record_predicted": np.full(size, 0.704),
        # What lies outside has no interval.
        "track_record_low": [0.583 if 0.583 <= one <= 0.763 else None for one in p],
        "track_record_high": [0.763 if 0.583 <= one <= 0.763 else None for one in p],
        "lift": p / p.mean(),
        "expected_value": p * 1200,
        "reason_1": [f"{reason} {i % 9} times" for i in range(size)],
        "reason_2": [reason] * size,
        "reason_3": [None if i % 2 else reason for i in range(size)],
        "play": ["<i>Offer</i>"] * size,
        "because": [None if i % 3 else "<b>opened</b> a ticket 21 days ago" for i in range(size)],
        "channel": ["email" if i % 2 else "<phone>" for i in range(size)],
        "group": ["control" if i % 10 == 3 else "target" for i in range(size)],
        "control_share": np.full(size, 0.1),
        "as_of": np.full(size, AT).astype("datetime64[us]"),
        "model_version": ["0123456789ab"] * size,
    }
    columns = {
        # What a contact changes nobody knows here.
        column: pa.array(values[column], kind) if column in values else pa.nulls(size, kind)
        for column, kind in TARGETS.columns.items()
    }
    rows = pa.table(columns)
    TARGETS.check(rows)
    assert CONFIG.lists is not None
    return RankedList(
        name,
        CONFIG.lists[0],
        rows,
        eligible=size + 7,
        in_stage=size + 10,
        left_out={"suppressed": 3, "dormant": 0},
        not_listed={"list_full": 7},
        epoch="2024-quarter-4",
        moves=ExpectedMoves(size, float(p.sum()), 6, 0.1, (CountRange(4, 1520), CountRange(2, 1860))),
        stage_moves=ExpectedMoves(size + 10, float(p.sum()) + 1, 2),
        size=ListSize(500, float(p[:500].sum()), 7, 0.5, 0.5, True),
        reason={STAGES[0]: np.array([-1] * (size + 7) + [POSITION["suppressed"]] * 3, dtype=np.int8)},
        details={
            name: ("Last: <b>bought</b> yesterday.", "Chances within 30 days: Buyer 70%.") for name in customers[:30]
        },
    )


def at_risk(customers: list[str]) -> RankedList:
    """The same as a list of those who are leaving."""
    spec = ListSpec.model_validate({"at_risk": {"stages": [STAGES[0], STAGES[1]]}, "horizon": "30d"})
    one = ranked(customers, "at-risk__visitor-buyer__30d", "Points to leaving: silent")
    moves = ExpectedMoves(len(customers), one.moves.expected, 0)
    return replace(one, spec=spec, outcome="kept", reason={**one.reason, STAGES[1]: np.zeros(0, np.int8)}, moves=moves)


def survey_of(segment: str | None = None) -> JourneyCounts:
    """Counts as a survey of 300 customers would have them."""
    stays = pd.DataFrame(
        [("<b>vip</b>", 0, STILL_THERE, 90, 2, False, 200), ("b", 0, 1, 5, 2, True, 60), ("b", 0, 2, 9, 2, True, 40)],
        columns=["segment", "stage", "next", "days", "followed", "recent", "customers"],
    ).assign(again=False)
    ended = stays.iloc[1:].assign(stage=[1, 2], next=STILL_THERE, recent=False)
    return JourneyCounts(
        Question(Journey(CONFIG.journey), AT, CONFIG.report.period, 0, segment, "rating", 0),
        DwellTimeCounts(
            pd.concat([stays, ended]), pd.DataFrame([("b", 0, 7)], columns=["segment", "stage", "customers"])
        ),
        TouchpointCounts(
            pd.DataFrame(
                [(0, "<b>click</b>", True, 50, 80)],
                columns=["stage", "event", "inbound", "customers", "touchpoints"],
            ),
            pd.DataFrame([(0, "<ads>", 300)], columns=["stage", "channel", "customers"]),
            pd.DataFrame(
                [(0, "<b>click</b>", True, 100, 60), (0, "quiet|*", False, 100, 5), (0, ALL, True, 300, 90)],
                columns=["stage", "event", "inbound", "customers", "converted"],
            ),
            AT - 3 * 86_400_000_000,
            10,
            400,
            4,
        ),
        ExperienceCounts(
            pd.DataFrame([(0, 4.0, 30), (0, 1.0, 10), (0, 9.0, 2), (-1, 3.0, 1)], columns=["stage", "rating", "given"]),
            pd.DataFrame([(0, TICKET, 50)], columns=["stage", "trouble", "customers"]),
            frozenset({TICKET}),
        ),
        KnownCustomers(
            pa.table(
                {
                    "customer_id": [f"c{i}" for i in range(300)],
                    "group": pa.array(["<ads>"] * 200 + ["shop"] * 100).dictionary_encode(),
                    "value": pa.array([0] * 200 + [4_990] * 100, pa.int64()),
                    "bought": [False] * 200 + [True] * 100,
                    "stage": pa.array([0] * 200 + [1] * 60 + [2] * 40, pa.int8()),
                    "arrived": pa.array([0] * 7 + [-2] * 293, pa.int8()),
                }
            ),
            pa.table(
                {
                    "row": pa.array(range(200, 300), pa.int64()),
                    "origin": pa.array([0] * 100, pa.int8()),
                    "to": pa.array([1] * 60 + [2] * 40, pa.int8()),
                }
            ),
        ),
    )


def night(*lists: RankedList, segment: str | None = "<i>plan</i>", history: pd.DataFrame | None = None) -> PageFacts:
    assert CONFIG.lists is not None
    table, found = StoredTable.of(scores(300)), survey_of(segment)
    return PageFacts(
        CONFIG,
        AT,
        "0123456789ab",
        table,
        lists,
        plan_of(CONFIG, lists, AT, 0, {}),
        worksheet(CONFIG, found, table, CONFIG.lists, [one.rows for one in lists]),
        found.touchpoints,
        [Source("<b>log</b>", 10, 8, 1, 1)],
        {"suppression": Naming(60, 2)},
        8,
        2,
        TrainedModel("2024-11-01", "2024-09-01", {"test.auc.visitor__script_b_buyer.30d": 0.83}),
        pd.DataFrame() if history is None else history,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as found:
        yield found


def written(folder: Path, text: str) -> Path:
    file = folder / "index.html"
    file.write_text(text, encoding="utf-8")
    return file


def names_shown(page: Any, table: str = "table.rows") -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{table} tbody tr", "rows => rows.filter(r => !r.hidden).map(r => r.querySelector('th').textContent)"
    )
    return found


def test_names_from_data_stay_text(browser: Any, tmp_path: Path) -> None:
    people = list(HOSTILE)
    with visit(browser, written(tmp_path, page(night(ranked(people))))) as opened_page:
        assert opened_page.title() == "shop: whom to contact, 2024-11-01"
        assert names_shown(opened_page) == [one for i, one in enumerate(people) if i % 10 != 3]
        control = opened_page.locator(".control bdi").evaluate_all("all => all.map(one => one.textContent)")
        assert control == people[3::10]
        # The template's own marks are the only elements of their kinds.
        assert opened_page.locator("script").count() == 1
        assert opened_page.locator("img, b, i, u, iframe, form").count() == 0
        opened_page.evaluate("document.querySelectorAll('.tab').forEach(one => { one.hidden = false; })")
        opened_page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        shown = opened_page.locator("main").inner_text()
        told = (
            *STAGES,
            "<b>vip</b>",
            "<b>click</b>",
            "<ads>",
            "<b>log</b>",
            "<b>low</b>",
            "<u>call</u>",
            "<b>bought</b>",
        )
        for text in told:
            assert text in shown, text
        assert opened_page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_first_screen_is_the_plan(browser: Any, tmp_path: Path) -> None:
    """Headline, first queue and the leave-alone tile need no scrolling, on a desk and on a phone."""
    people = [f"c{i:04}" for i in range(600)]
    other = ranked([f"d{i}" for i in range(9)], "other__list__30d")
    later = other.spec.model_copy(update={"from_stage": STAGES[1], "to_stage": STAGES[2]})
    text = page(
        night(
            ranked(people),
            replace(other, spec=later, reason=dict(zip(later.origins, other.reason.values(), strict=True))),
        )
    )
    for width, height in ((1440, 900), (390, 844)):
        with visit(browser, written(tmp_path, text), width, height) as found:
            assert found.locator("h1").inner_text() == "Friday 1 November: 548 people to contact"
            for mark in ("h1", "#leave-alone", ".queue:first-child"):
                box = found.locator(mark).first.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= width, (mark, width)
                assert box["y"] >= 0 and box["y"] + box["height"] <= height, (mark, width)
            assert found.locator("#leave-alone").inner_text() == "61"
            assert "No consent and no suppression file is configured" in found.locator("header").inner_text()


def test_everything_is_on_one_of_two_tabs(browser: Any, tmp_path: Path) -> None:
    with visit(browser, written(tmp_path, page(night(ranked(["a", "b"]))))) as found:
        assert found.locator("#plan").is_visible() and not found.locator("#quality").is_visible()
        found.get_by_role("link", name="Quality and data").click()
        assert found.locator("#quality").is_visible() and not found.locator("#plan").is_visible()
        found.goto(found.url.split("#")[0] + "#list-visitor__buyer__30d")
        assert found.locator("#plan").is_visible() and not found.locator("#quality").is_visible()


def test_expected_moves_are_told_with_their_range(browser: Any, tmp_path: Path) -> None:
    one = ranked([f"c{i:03}" for i in range(40)])
    expected = wording.moves(one.moves.expected)
    with visit(browser, written(tmp_path, page(night(one)))) as opened_page:
        shown = opened_page.locator("main").inner_text()
    assert (
        f"Of all who are listed, {expected} are expected to move in time, if you go on as before: 4 to 1,520 in 80 of"
        " 100 cases, 2 to 1,860 in 95 of 100 cases." in shown
    )


def test_a_list_of_whom_nobody_is_expected_to_move_is_no_ranking(browser: Any, tmp_path: Path) -> None:
    """Silent error 76: hundreds of people at 0.00 % stood there in an order that meant nothing."""
    found = ranked([f"c{i:03}" for i in range(40)])
    column = found.rows.column_names.index("probability")
    p = np.linspace(1e-5, 1e-6, 40)
    rows, moves = found.rows.set_column(column, "probability", pa.array(p)), expected_moves(p, 2, None)
    low = replace(found, rows=rows, moves=moves)
    assert low.without_evidence and not found.without_evidence
    assert summarise([low])["expected_moves"].to_pylist() == [pytest.approx(p.sum())]
    with visit(browser, written(tmp_path, page(night(low)))) as opened_page:
        assert names_shown(opened_page) == []
        shown = opened_page.locator("main").inner_text()
        assert "next to nobody is expected to move in time" in shown and "Without evidence" in shown
        assert "0.0 are expected to move in time, if you go on as before (no interval: only 2 past folds)" in shown
    assert wording.percent(1e-5) == "under 0.01%" and wording.percent(0.0) == "0%"


def test_the_policy_lets_nothing_else_run_or_load(browser: Any, tmp_path: Path) -> None:
    """The policy itself holds: a script or picture that came in all the same is refused."""
    text = page(night(ranked(["a"])))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    smuggled = text.replace("</main>", "<script>document.title='owned'</script><img src='x.png'></main>")
    context = browser.new_context(offline=True)
    found = context.new_page()
    refused: list[str] = []
    found.on("console", lambda message: refused.append(message.text))
    found.goto(written(tmp_path, smuggled).as_uri())
    assert found.title() == "shop: whom to contact, 2024-11-01"
    assert any("script" in one for one in refused)
    assert any("image" in one or "img-src" in one for one in refused)
    context.close()


def test_search(browser: Any, tmp_path: Path) -> None:
    people = [f"c{i:02}" for i in range(30)]
    targets = [one for i, one in enumerate(people) if i % 10 != 3]
    with visit(browser, written(tmp_path, page(night(ranked(people))))) as found:
        assert names_shown(found) == targets
        found.get_by_label("Search").fill("C1")
        assert names_shown(found) == [one for one in targets if "c1" in one]
        assert found.locator(".tools output").inner_text() == "9 of 27 rows"
        found.get_by_label("Search").fill("")
        assert names_shown(found) == targets


def test_what_is_exported_is_everybody_to_contact(browser: Any, tmp_path: Path) -> None:
    """The whole list, of which the page shows the first; nobody of the control group is in it, no cell is a formula."""
    people = [*HOSTILE[:-1], *(f"c{i:03}" for i in range(100))]
    one = ranked(people)
    contact = pa.array([f"=cmd|{i}" if i else None for i in range(len(people))])
    one = replace(one, rows=one.rows.append_column("e-mail", contact))
    with visit(browser, written(tmp_path, page(night(one)))) as found:
        assert len(names_shown(found)) == 50
        with found.expect_download() as waiting:
            found.get_by_role("button", name="Export").click()
        assert waiting.value.suggested_filename == "visitor__buyer__30d.csv"
        text = Path(waiting.value.path()).read_bytes().decode("utf-8-sig")
    heading, *rows = csv.reader(io.StringIO(text, newline=""))
    assert heading == ["rank", "customer_id", "probability", "play", "because", "channel", "e-mail"]
    expected = [(str(i + 1), name) for i, name in enumerate(people) if i % 10 != 3]
    assert [(row[0], row[1].removeprefix("'")) for row in rows] == expected
    assert [cell for row in rows for cell in row if re.match(r"\s*[=+\-@＝\t\r]", cell)] == []
    assert rows[1][6] == "'=cmd|1"


@pytest.mark.slow
def test_the_page_has_no_serious_fault_of_accessibility(browser: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    text = page(night(ranked([f"c{i:02}" for i in range(30)]), at_risk([f"d{i:02}" for i in range(30)])))
    for width, scheme in itertools.product((1440, 1024, 390), ("light", "dark")):
        with visit(browser, written(tmp_path, text), width) as found:
            found.emulate_media(color_scheme=scheme)
            found.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
            found.evaluate("document.querySelectorAll('.tab').forEach(one => { one.hidden = false; })")
            faults = [
                (one["id"], [node["html"][:200] for node in one["nodes"]][:3])
                for one in Axe().run(found).response["violations"]
            ]
            assert faults == []


def test_without_its_script_the_page_still_shows_everything(browser: Any, tmp_path: Path) -> None:
    """As in the preview of an e-mail program."""
    context = browser.new_context(java_script_enabled=False, offline=True)
    found = context.new_page()
    found.goto(written(tmp_path, page(night(ranked(["a", "b"])))).as_uri())
    assert found.locator("table.rows tbody tr").count() == 2
    assert not found.locator(".tools").first.is_visible()
    context.close()


def test_ten_long_lists_fit_into_an_email() -> None:
    """The shortest lists are in the page as a whole; for the others it names the file."""
    long = "visited the pricing page 5 times in the last 7 days; most customers there: 0"
    lists = []
    for k in range(10):
        one = ranked([f"customer-{i:07}" for i in range(500 * (k + 1))], f"list_{k}", long)
        spec = one.spec.model_copy(update={"from_stage": f"stage {k}"})
        lists.append(replace(one, spec=spec, reason=dict(zip(spec.origins, one.reason.values(), strict=True))))
    text = page(night(*lists))
    assert MOST_BYTES / 2 < len(text.encode()) <= MOST_BYTES
    whole = [f'data-export="{k}"' in text for k in range(10)]
    assert whole == sorted(whole, reverse=True) and any(whole) and not all(whole)
    assert (
        "<code>targets/list_9.csv</code>" in text and "<code>targets/list_0.csv</code>" not in text.split("<section")[1]
    )


def test_longer_lists_are_cut_and_say_so() -> None:
    text = page(night(ranked([f"c{i:05}" for i in range(1_200)])))
    assert "The first 50 of 1,080 to contact; targets/visitor__buyer__30d.csv holds all, with the control" in text
    assert text.count('<th scope="row"><bdi>c') == 50


def test_who_was_left_out_is_told_by_reason() -> None:
    text = page(night(ranked(["a", "b"])))
    assert "Not on it: 3 named in the suppression file; 7 ranked below the size of the list." in text
    assert "<dd>3 asked not to be contacted</dd>" in text and "dormant" not in text
    assert "The next 7 would hold 0.5 who move on; the first 9 hold" in text


def test_contact_columns_stand_beside_the_customer(browser: Any, tmp_path: Path) -> None:
    one = ranked(["a", "b"])
    rows = one.rows.append_column("e-mail", pa.array(["<b>a</b>@example.com", None]))
    with visit(browser, written(tmp_path, page(night(replace(one, rows=rows))))) as found:
        cells = found.locator("table.rows tbody th").all_inner_texts()
        assert [one.split() for one in cells] == [["a", "<b>a</b>@example.com"], ["b"]]


def test_the_page_says_which_part_of_the_forecast_was_wrong() -> None:
    """By the intervals that the training logged; a model from before they were logged says what it can."""
    logged = {
        **{"converted": 1240, "expected": 1000.2, "log_loss": 0.4, "auc": 0.81, "auc_low": 0.8, "auc_high": 0.82},
        **{"observed_expected": 1.24, "observed_expected_low": 1.2, "observed_expected_high": 1.3},
    }
    metrics = {f"test.decomposition.{name}.return.30d": value for name, value in logged.items()}
    cell = "visitor__script_b_buyer.30d"
    metrics |= {f"test.auc.{cell}": 0.83, f"test.observed_expected.{cell}": 1.05}
    bounds = {f"test.observed_expected_low.{cell}": 0.9, f"test.observed_expected_high.{cell}": 1.2}
    before = night(ranked(["a"]))
    text = page(replace(before, training=TrainedModel("2024-11-01", "2024-09-01", metrics | bounds)))
    assert "Return within 30 days, September 2024: it ranked the mover higher in 81 % of all pairs (AUC 0.81);" in text
    assert "the level was 24 % too low: 1,240 came back, 1,000 were expected." in text and "Reach of" not in text
    assert "The level held: where 100 moves were expected, 105 happened." in text
    unsure = page(replace(before, training=TrainedModel("2024-11-01", "2024-09-01", metrics)))
    assert "<td>Where 100 moves were expected, 105 happened.</td>" in unsure, "without an interval no word"
    assert "Return within" not in page(before)


def test_equal_nights_give_equal_pages() -> None:
    assert page(night(ranked(["a", "b"]))) == page(night(ranked(["a", "b"])))


def test_what_is_missing_is_left_out(browser: Any, tmp_path: Path) -> None:
    """Lists as they are before reasons and track records exist, an empty list, and no training known."""
    bare = ranked(["a", "b"])
    empty = [name for name in TARGETS.columns if re.match(r"track|reason|play|because|channel|expected", name)]
    rows = bare.rows
    for name in empty:
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.nulls(len(rows), TARGETS.columns[name]))
    nobody = replace(bare, name="empty", rows=rows.slice(0, 0), eligible=7, in_stage=10)
    lists = replace(bare, rows=rows, details={}), nobody
    quiet = replace(night(*lists, segment=None), training=None)
    with visit(browser, written(tmp_path, page(quiet))) as found:
        row = found.locator("#list-visitor__buyer__30d table.rows tbody tr").first
        assert row.locator("td, th").all_inner_texts() == ["1", "a", "", "", "90%"]
        assert "Nobody is to be contacted for this tonight." in found.locator("#list-empty").inner_text()
        assert "The registry has no metrics of this model." in (found.locator("#quality").text_content() or "")
    assert "This night has no lists." in page(replace(quiet, lists=()))


@pytest.mark.slow
def test_a_published_night_has_its_page_and_worksheet(
    browser: Any, trained: Trained, tmp_path: Path, record_property: Any
) -> None:
    """The command, the files in the manifest, and the rows of the page against the rows of the Parquet files."""
    config = trained.variant(tmp_path / "out", report={"segment": "plan"})
    assert call("targets", config, "--as-of", AS_OF).code == 0
    ran = call("report", config, "--as-of", AS_OF)
    assert ran.code == 0, ran.err
    file = Path(ran.out.splitlines()[0].removeprefix("Page:").strip())
    folder = file.parents[1]
    manifest = (folder / "MANIFEST.json").read_text()
    assert '"report/index.html"' in manifest and '"report/worksheet.md"' in manifest
    shots = tmp_path / "screenshots"
    for name, width, height in (("desktop", 1280, 900), ("phone", 390, 844)):
        with visit(browser, file, width, height) as found:
            assert found.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            found.screenshot(path=shots / f"{name}.png", full_page=True)
            record_property(f"screenshot_{name}", str(shots / f"{name}.png"))
            for parquet in sorted((folder / "targets").glob("*__*.parquet")):
                rows = pq.read_table(parquet, partitioning=None).to_pylist()
                expected = [[str(row["rank"]), row["customer_id"]] for row in rows if row["group"] == "target"]
                shown = found.eval_on_selector_all(
                    f"#list-{parquet.stem} table.rows tbody tr",
                    "rows => rows.map(r => [r.cells[0].textContent, r.cells[1].querySelector('bdi').textContent])",
                )
                assert shown == expected[:50]
                control = found.eval_on_selector_all(
                    f"#list-{parquet.stem} .control bdi", "all => all.map(one => one.textContent)"
                )
                assert control == [row["customer_id"] for row in rows if row["group"] == "control"][:50]
    plan = read_plan(folder)
    with visit(browser, file) as found:
        numbers = found.locator(".tiles .big").all_inner_texts()
        assert numbers == [
            f"{plan['people']:,}",
            wording.moves(plan["expected"]),
            f"{plan['control']:,}",
            f"{plan['held']:,}",
        ]
        assert found.locator("h1").inner_text().endswith(f": {plan['people']:,} people to contact")
        assert found.locator(".amount").all_inner_texts() == [f"{number:,}" for number in plan["targets"]]
        here = found.locator(".blueprint thead th span").all_inner_texts()
        stages = pq.read_table(folder / "scores" / "scores.parquet", partitioning=None)["stage"].to_pylist()
        names = found.locator(".blueprint thead th bdi").all_inner_texts()
        told = {name: int(text.split()[0].replace(",", "")) for name, text in zip(names, here, strict=True)}
    assert told == {name: stages.count(None if name == "Before any stage" else name) for name in told}
    assert sum(told.values()) == len(stages)


def read_plan(folder: Path) -> dict[str, Any]:
    """The numbers of the first screen from the files alone; here every stage has one list."""
    summary = pq.read_table(folder / "targets" / "summary.parquet", partitioning=None).to_pylist()
    people: dict[str, dict[str, Any]] = {}
    for one in summary:
        rows = pq.read_table(folder / "targets" / f"{one['list']}.parquet", partitioning=None).to_pylist()
        for row in rows:
            assert row["customer_id"] not in people, "nobody is on two lists"
            people[row["customer_id"]] = row
    targets = [row for row in people.values() if row["group"] == "target"]
    assert len({one["from_stage"] for one in summary}) == len(summary)
    return {
        "people": len(targets),
        "expected": sum(row["probability"] for row in targets),
        "control": len(people) - len(targets),
        "held": sum(one[name] for one in summary for name in HELD_BACK),
        "targets": [one["target"] for one in summary],
    }


def test_a_wrong_segment_is_told(trained: Trained, tmp_path: Path) -> None:
    ran = call("targets", trained.variant(tmp_path, report={"segment": "plam"}), "--as-of", AS_OF)
    assert ran.code == 2
    assert "there is no attribute 'plam'. Did you mean 'plan'?" in ran.err


def test_the_worksheet_as_rows_and_as_markdown() -> None:
    found = night(ranked(["a"])).worksheet
    rows = worksheet_rows(found)
    assert rows["stage"].tolist() == list(STAGES)
    first = rows.iloc[0]
    assert (first["customers"], first["moved_on_in_period"], first["stalled"]) == (200, 100, 200)
    assert (first["rating_mean"], first["ratings"], first["bad_ratings"]) == (3.25, 40, 10)
    assert (first["had_a_ticket"], first["had_a_setback"], first["median_days_so_far"]) == (50, None, 90)
    assert first["goes_with_moving_on"].startswith("<b>click</b> 3.9")
    assert first["goes_with_staying"].startswith("quiet|* (sent by us) 0.")
    text = worksheet_markdown(found, "Worksheet")
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "quiet\\|\\* (sent by us)" in text
    by_segment = text[text.index("## By") :]
    lines = [line for line in by_segment.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
    assert "3 ratings" not in text and "2 ratings lie outside the scale 1 to 5 and are not counted." in text
    assert "1 rating came before the customer stood in any stage" in text
    assert "### Came through \\<ads\\>, no purchases yet" in text


def test_opportunities_are_ranked_by_customers_times_gap_times_value() -> None:
    table = StoredTable.of(scores(100))
    specs = CONFIG.lists or ()
    (only,) = opportunities(CONFIG, table, specs)
    p = np.linspace(0.9, 0.001, 100)
    assert only.customers == 100 and only.value is None
    assert only.moves == pytest.approx(100 * (p[:25].mean() - p.mean()))
    worth = CONFIG.model_copy(update={"stage_value": {STAGES[1]: 3.0}})
    assert opportunities(worth, table, specs)[0].value == pytest.approx(3 * only.moves)


# Did it work?


def measured(night: str, epoch: str = "2024-quarter-3", difference: float = 0.05, **changes: Any) -> dict[str, Any]:
    """One row of the history of `measure`, as the command writes it."""
    return {
        "list": "visitor__buyer__30d", "epoch": epoch, "night": f"{night}T00:00:00+00:00",
        "from_stage": STAGES[0], "to_stage": STAGES[1], "horizon_days": 30, "model_version": "m",
        "target_n": 900, "control_n": 100, "target_moved": 135, "control_moved": 10,
        "target_contacted": 0.8, "control_contacted": 0.1, "not_judged": 0,
        "difference": difference, "difference_low": difference - 0.04, "difference_high": difference + 0.04,
        "untouched_n": 100, "untouched_moved": 10, "untouched_expected": 9.0, "observed_over_expected": 1.11,
        "observed_over_expected_low": 0.6, "observed_over_expected_high": 2.1,
        "lift_10pct": 2.5, "lift_10pct_low": 1.2, "lift_10pct_high": 5.0,
        "until": "2024-10-20T00:00:00+00:00", **changes,
    }  # fmt: skip


@pytest.mark.slow
def test_the_history_of_measure_is_a_chart_beside_its_table(browser: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    nan = float("nan")
    rows = [measured(f"2024-08-{day:02}") for day in range(1, 20)]
    rows += [measured("2024-09-01", "2024-quarter-4", -0.2), measured("2024-09-08", "2024-quarter-4", 0.0)]
    not_evaluated = {
        "observed_over_expected": nan,
        "observed_over_expected_low": nan,
        "observed_over_expected_high": nan,
    }
    rows += [measured("2024-09-01", list="other__list__30d", from_stage="</script><b>x", control_n=0, difference=nan)]
    rows[-1] |= {"difference_low": nan, "difference_high": nan, **not_evaluated}
    text = page(night(ranked(["a", "b"]), history=pd.DataFrame(rows)))
    for width in (1280, 390):
        with visit(browser, written(tmp_path, text), width) as found:
            assert found.evaluate("document.documentElement.scrollWidth <= innerWidth")
            section = found.locator("#past-visitor__buyer__30d")
            assert "No effect is shown: 15.0% of 900 in the target group moved" in section.inner_text()
            assert section.locator("svg.chart").count() == 2 and section.locator("svg.chart .band").count() == 4
            nights = section.locator("tbody tr").evaluate_all(
                "all => all.map(r => [...r.cells].map(c => c.textContent))"
            )
            assert len(nights) == 21 and nights[0][:2] == ["2024-09-08", "2024-quarter-4"]
            assert nights[1][2:] == [
                *("15% of 900", "10% of 100", "-20.0 (-24.0 to -16.0)", "80% / 10%"),
                *("1.11 (0.60 to 2.10)", "2.5 (1.2 to 5.0)"),
            ]
            # Dots stand where their numbers are: higher for more, later to the right, all within the drawing.
            dots = section.locator("svg.chart").first.locator(".dot")
            x, y = (
                dots.evaluate_all(f"all => all.map(one => Number(one.getAttribute('{name}')))") for name in ("cx", "cy")
            )
            assert x == sorted(x) and len(set(y)) == 3 and y[0] < y[20] < y[19]
            assert min(x) >= 0 and max(x) <= 440 and min(y) >= 0 and max(y) <= 190
            other = found.locator("#past-other__list__30d")
            assert "</script><b>x" in other.inner_text() and other.locator("svg").count() == 0
            faults = [one["id"] for one in Axe().run(found).response["violations"] if one["impact"] != "minor"]
            assert faults == []


def test_before_anything_is_measured_the_page_says_when_it_will_be() -> None:
    text = page(night(ranked(["a"])))
    assert "Nothing to show yet. A list can be judged when its days are over" in text
    assert "<figure>" not in text


@pytest.mark.parametrize("difference", [0.0, 0.004, -0.31, 0.9])
def test_a_single_night_has_a_chart_with_room_for_its_interval(difference: float) -> None:
    (found,) = list_histories(pd.DataFrame([measured("2024-09-01", difference=difference)]), [])
    assert found.effect is not None and 2 <= len(found.effect.ticks) <= 9
    heights = [y for y, _ in found.effect.ticks]
    assert heights == sorted(heights, reverse=True) and found.effect.reference in heights
    corners = [float(one) for one in re.findall(r"[-\d.]+", found.effect.series[0].band)]
    assert all(heights[-1] <= y <= heights[0] for y in corners[1::2])
    assert "0" in [text for _, text in found.effect.ticks]


@pytest.mark.slow
def test_no_page_shows_what_was_measured_after_its_night(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path / "out")
    history = tmp_path / "out" / "measure" / "history.parquet"
    claim(tmp_path / "out")
    history.parent.mkdir()
    untils = ["2025-06-23T00:00:00+00:00", f"{AS_OF}T00:00:00+00:00", "2025-06-25T00:00:00+00:00"]
    pd.DataFrame([measured("2025-05-01", until=until, list=until[:10]) for until in untils]).to_parquet(history)
    play = {"channel": "email", "target_n": 40, "control_n": 12, "with_choice": 9, "difference": 0.021}
    play |= {"difference_low": -0.01, "difference_high": 0.05, "epoch": measured("2025-05-01")["epoch"]}
    plays = [{**play, "play": f"Ask {until[:10]}", "until": until, "list": until[:10]} for until in untils]
    nights = measured("2025-05-01")["night"]
    pd.DataFrame(plays).assign(night=nights).to_parquet(history.with_name("by_play.parquet"))
    assert known_history(trained.config(file), trained.as_of)["list"].tolist() == ["2025-06-23", AS_OF]
    ran = call("targets", file, "--as-of", AS_OF, "--json")
    assert ran.code == 0, ran.err
    text = Path(json.loads(ran.out)["page"]).read_text(encoding="utf-8")
    assert f'id="past-{AS_OF}"' in text and 'id="past-2025-06-25"' not in text
    told = "through email: 40 in the target group, 12 in control; 9 of them could have had another: +2.1 points"
    assert f"Ask {AS_OF} {told}" in text and "Ask 2025-06-25" not in text


def test_who_is_leaving_and_the_segments_are_told_as_what_they_are() -> None:
    people = [f"c{i}" for i in range(20)]
    text = page(night(ranked(people), at_risk([f"d{i}" for i in range(20)])))
    assert "At risk: Visitor" in text and "Chance to be lost" in text and "are expected to be lost in time" in text
    assert "At risk: " in text.split('id="expected"')[1][:400], "the tile of moves tells it beside them"
    assert "how likely they do nothing in time that counts as staying" in text
    assert "which does not say whom a contact would keep" in text
    plain = page(night(ranked(people)))
    assert "counts as staying" not in plain and "Chance to" not in plain
    table = text.split('id="segments"')[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:]]
    assert [row[0].split("<")[0] for row in rows] == [name.replace("_", " ").capitalize() for name in SEGMENTS]
    assert sum(int(row[1]) for row in rows) == 300
    # c0, c7 and c14 are dormant; c13, who is in control, is not to be contacted.
    assert rows[0][1:3] == ["43", "3"] and "Offer" in rows[0][3]
    assert "Nobody: the journey file has no value:" in rows[1][0]
    assert "Nobody: the scores have no column p_churn_30d" in rows[3][0]
