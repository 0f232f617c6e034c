"""The workbook and the CSV of a night: text stays text, control stands apart, the same lists give the same bytes."""

from __future__ import annotations

import csv
import re
import shutil
import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.lists.test_eligibility import JOURNEY, scores_of
from tests.lists.test_lists import AS_OF, config
from tests.office import numbers_as_shown, sheets_as_shown
from tests.oracles.cases import a_journey
from tests.report.test_page import STAGES, night

from cvj_ml import io
from cvj_ml.config import DAY, Config
from cvj_ml.errors import CvjError
from cvj_ml.exports import LEFT_OUT
from cvj_ml.io import read_csv, spreadsheet_safe, write_table
from cvj_ml.journey import Journey
from cvj_ml.lists.changes import NOTHING_BEFORE, Balance, Changes, Comparison, NotComparable, with_changes
from cvj_ml.lists.last_events import before_amount
from cvj_ml.lists.ranked_list import RankedList, summarise
from cvj_ml.lists.ranking import rank
from cvj_ml.models.bundle.forecast_errors import expected_moves
from cvj_ml.night.verifying import verify_night
from cvj_ml.night.writing import publish
from cvj_ml.report import workbook as module
from cvj_ml.report.list_files import with_contact, write_lists
from cvj_ml.report.plan import plan_of
from cvj_ml.report.what_changed import what_changed
from cvj_ml.report.wording import amount, percent
from cvj_ml.report.workbook import CHANGED, DONE, EXPECTED, HOW_TO_READ, PLAN, BookFacts
from cvj_ml.report.workbook import JOURNEY as JOURNEY_SHEET
from cvj_ml.report.xlsx import PERCENT, Formats, height, write_row
from cvj_ml.schemas import TARGETS
from cvj_ml.scoring.scores_table import StoredTable

HOSTILE = (
    '=HYPERLINK("http://example.org")',
    "+cmd|' /C calc'!A0",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "  =1",
    "\r\n=1",
    "＝1",
    "'=1",
    "</script><script>alert(1)</script>",
    "http://example.org",
    "mailto:a@example.org",
    "0012",
    "1e5",
    "TRUE",
    "_x0041_",
    "\x00\x07\x1f",
    "\ufffe\uffff",
    "שלום \u202e עולם",
    "🙂👩\u200d🚀",
    'a"b,c;d\ne',
    "x" * 10_000,
    "🙂" * 20_000,
)
WORKSHEET = night(segment="<i>plan</i>").worksheet
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def lists_of(people: list[str], share: float = 0.3, **changes: Any) -> list[RankedList]:
    size = len(people)
    # SCORES stand by customer; the lists are to be in the order of ``people``.
    order = sorted(range(size), key=people.__getitem__)
    probability = np.linspace(0.9, 0.1, size)[order].tolist()
    scores = scores_of(["Visitor"] * size, probability, [0.1] * size, [False] * size)
    scores = scores.set_column(0, "customer_id", pa.array([people[i] for i in order], pa.string()))
    config = made(share=share, **changes)
    return list(rank(config, StoredTable.of(scores), Journey(config.journey), AS_OF))


def made(share: float = 0.3, **changes: Any) -> Config:
    return config(**{"journey": JOURNEY, "stage_value": {"Buyer": 3}, "control": {"share": share}, **changes})


def contact_of(people: list[str]) -> pa.Table:
    return pa.table({"customer_id": pa.array(people, pa.string()), "e-mail": pa.array(people[::-1], pa.string())})


def facts_of(lists: list[RankedList], config: Config | None = None, **beside: Any) -> BookFacts:
    return BookFacts("2024-11-01", plan_of(config or made(), lists, AS_OF, 0, {}), WORKSHEET, **beside)


def write(folder: Path, people: list[str], **changes: Any) -> list[RankedList]:
    lists = lists_of(people, **changes)
    shutil.rmtree(folder, ignore_errors=True)
    write_lists(folder, lists, contact_of(people), facts_of(lists, made(**changes)))
    return lists


def sheets(path: Path) -> dict[str, list[list[str | float | None]]]:
    """Read a workbook with nothing but its definition; fail on any cell that is no plain text or number."""
    found = {}
    with zipfile.ZipFile(path) as file:
        assert not [name for name in file.namelist() if "vba" in name.lower() or "external" in name.lower()]
        assert "hyperlink" not in "".join(file.read(name).decode() for name in file.namelist() if "_rels" in name)
        book = ElementTree.fromstring(file.read("xl/workbook.xml"))
        for number, sheet in enumerate(book.iter(f"{_MAIN}sheet"), 1):
            root = ElementTree.fromstring(file.read(f"xl/worksheets/sheet{number}.xml"))
            for tag in ("f", "hyperlink", "conditionalFormatting", "formula2"):
                assert not list(root.iter(f"{_MAIN}{tag}")), tag
            for one in root.iter(f"{_MAIN}dataValidation"):
                assert one.attrib["type"] == "list" and re.fullmatch(r"A2(:A\d+)?", one.attrib["sqref"])
                assert [found.text for found in one] == [f'"{",".join(DONE)}"']
            found[sheet.attrib["name"]] = [[_value(cell) for cell in row] for row in root.iter(f"{_MAIN}row")]
    return found


def _value(cell: ElementTree.Element) -> str | float | None:
    if cell.attrib.get("t") == "inlineStr":
        text = "".join(part.text or "" for part in cell.iter(f"{_MAIN}t"))
        return re.sub(r"_x([0-9A-F]{4})_", lambda code: chr(int(code[1], 16)), text)
    assert cell.attrib.get("t", "n") == "n"
    value = cell.find(f"{_MAIN}v")
    return None if value is None or value.text is None else float(value.text)


def shown_as(text: str) -> str:
    """What of a text Excel can hold."""
    text = text.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")
    return (
        text if len(text.encode("utf-16-le")) <= 65_534 else text.encode("utf-16-le")[:65_532].decode("utf-16-le") + "…"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(HOSTILE),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_text_stays_text_in_the_workbook(tmp_path: Path, people: list[str]) -> None:
    (first, _) = write(tmp_path / "t", people)
    found = sheets(tmp_path / "t" / "lists.xlsx")
    target = [row for row in first.rows.to_pylist() if row["group"] == "target"]
    sheet = found["1 Visitor → Buyer, 30 days"]
    if not target:
        assert sheet[1] == ["Nobody tonight; the summary says why."]
    else:
        assert [row[2] for row in sheet[1:]] == [shown_as(row["customer_id"]) for row in target]
        assert sheet[0][:5] == ["Done", "Rank", "Customer", "e-mail", "What to do"]
        contact = dict(zip(people, people[::-1], strict=True))
        assert [row[3] for row in sheet[1:]] == [shown_as(contact[row["customer_id"]]) for row in target]
        assert [row[sheet[0].index("Probability")] for row in sheet[1:]] == pytest.approx(
            [row["probability"] for row in target]
        )
        assert [row[1] for row in sheet[1:]] == [row["rank"] for row in target]
        assert {row[0] for row in sheet[1:]} == {None}


def test_every_hostile_name_stays_text_everywhere(tmp_path: Path) -> None:
    people = list(HOSTILE)
    (first, _) = write(tmp_path / "t", people, share=0)
    assert [row[2] for row in sheets(tmp_path / "t" / "lists.xlsx")["1 Visitor → Buyer, 30 days"][1:]] == [
        shown_as(name) for name in people
    ]
    table = pq.read_table(tmp_path / "t" / "visitor__buyer__30d.parquet", partitioning=None)
    assert table["customer_id"].to_pylist() == people
    assert table.drop_columns(["e-mail"]).equals(first.rows)
    with (tmp_path / "t" / "visitor__buyer__30d.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [
        row["customer_id"].removeprefix("'") if row["customer_id"][:1] == "'" else row["customer_id"] for row in rows
    ] == people
    for name, row in zip(people, rows, strict=True):
        assert (row["customer_id"] != name) == (name in HOSTILE[:9]), name


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from("=+-@'\t\r\n "), max_size=6))
)
def test_no_text_of_a_csv_begins_a_formula_and_each_can_be_had_back(texts: list[str]) -> None:
    guarded_texts = spreadsheet_safe(pa.table({"x": pa.array(texts, pa.string())}))["x"].to_pylist()
    for text, found in zip(texts, guarded_texts, strict=True):
        assert found.strip()[:1] not in {*"=+-@＝＋－＠"} and found[:1] not in {*"\t\r\n"}
        assert (found[1:] if found.startswith("'") else found) == text


ODD = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("=+-@＝'\"\t\r\n,; \x00\x0b\x0c\x1c\x85\xa0\u200b\u2028\u2029\ufeff"),
    max_size=12,
) | st.sampled_from((*HOSTILE, "a\r=1+1", "a\r\n=1+1,2", '"', '","', "\u2028=1", "\ufeff=1", "y" * 200_000))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
def test_whatever_a_contact_holds_the_night_verifies_and_reads_back(tmp_path: Path, data: st.DataObject) -> None:
    """Silent error 51: in Parquet and CSV every text and heading is what it was, and none of CSV begins a formula."""
    people = data.draw(st.lists(ODD.filter(bool), min_size=1, max_size=6, unique=True), "customers")
    headings = data.draw(
        st.lists(ODD.filter(lambda name: name not in TARGETS.columns), min_size=1, max_size=3, unique=True), "headings"
    )
    texts = st.lists(st.none() | ODD, min_size=len(people), max_size=len(people))
    contact = {name: pa.array(data.draw(texts, "texts"), pa.string()) for name in headings}
    contact_table = pa.table({"customer_id": pa.array(people, pa.string()), **contact})
    lists = lists_of(people)

    def writer(staged: Path) -> dict[str, int]:
        rows = write_lists(staged / "targets", lists, contact_table, facts_of(lists))
        return {f"targets/{name}": count for name, count in rows.items()}

    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    facts = {"as_of": "2024-11-01T00:00:00+00:00", "model": "m", "lists": summarise(lists).to_pylist()}
    folder = publish(out, "2024-11-01", "0" * 12, facts, dict, writer).folder
    verify_night(folder)
    for one in lists:
        expected = with_contact(one.rows, contact_table)
        assert pq.read_table(folder / "targets" / f"{one.name}.parquet", partitioning=None).equals(expected)
        with (folder / "targets" / f"{one.name}.csv").open(encoding="utf-8", newline="") as stream:
            csv.field_size_limit(1 << 20)
            heading, *lines = csv.reader(stream)
        assert [name.removeprefix("'") for name in heading] == expected.column_names
        for place, name in enumerate(expected.column_names):
            cells = [line[place] for line in lines]
            if not pa.types.is_string(expected.schema.field(name).type):
                continue
            assert [cell.removeprefix("'") for cell in cells] == [text or "" for text in expected[name].to_pylist()]
            for cell in (heading[place], *cells):
                assert not begins_a_formula(cell), cell


def begins_a_formula(cell: str) -> bool:
    """Judge by the first character that is no space, control or format character."""
    seen = [letter for letter in cell if unicodedata.category(letter)[0] not in "ZC"]
    return cell[:1] in {*"\t\r\n"} or seen[:1] in [[letter] for letter in "=+-@＝＋－＠"]


@pytest.mark.parametrize(
    "text", ["\r", "a\rb", "=a", "a\x00b", "\ufeffa", "", "'", '"', "a,b", "x" * 200_000, "\u2028", "\x85"]
)
def test_a_table_that_would_not_read_back_is_not_written(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent error 51: each file is compared with its table by the reader that verifies nights."""
    table = pa.table({"=a": [text, None], "b": [0.1, None], "c": [1, None], "d": [float("nan"), -0.0]})
    assert write_table(tmp_path, "t", table) == {"t.parquet": 2, "t.csv": 2}
    heading, *lines = read_csv(tmp_path / "t.csv")
    assert heading == ["'=a", "b", "c", "d"] and [line[1:] for line in lines] == [["0.1", "1", ""], ["", "", "-0.0"]]
    monkeypatch.setattr(io, "_quoted", lambda cell: cell.replace("a", "b") + "a")
    with pytest.raises(CvjError, match=r"^t\.csv: what was written does not read back as it was"):
        write_table(tmp_path, "t", table)


def test_control_stands_apart_without_what_would_help_to_contact_it(tmp_path: Path) -> None:
    people = [f"c{i:03d}" for i in range(60)]
    (first, _) = write(tmp_path / "t", people)
    found = sheets(tmp_path / "t" / "lists.xlsx")
    assert list(found) == [
        *(PLAN, "1 Visitor → Buyer, 30 days", "2 Buyer → Fan, 30 days", "DO NOT CONTACT"),
        *("Summary", "How to read this", JOURNEY_SHEET),
    ]
    groups = {row["customer_id"]: row["group"] for row in first.rows.to_pylist()}
    control = {name for name, group in groups.items() if group == "control"}
    assert 5 < len(control) < 40
    assert {row[2] for row in found["1 Visitor → Buyer, 30 days"][1:]} == groups.keys() - control
    apart = found["DO NOT CONTACT"]
    assert apart[0] == ["Do not contact these customers (control group)", "They are listed on"]
    assert {row[0] for row in apart[1:]} == control and {len(row) for row in apart} == {2}


def test_the_summary_and_the_way_to_read_it(tmp_path: Path) -> None:
    people = [f"c{i:03d}" for i in range(60)]
    lists = write(
        tmp_path / "t",
        people,
        lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d", "capacity": 20, "min_probability": 0.5}],
    )
    found = sheets(tmp_path / "t" / "lists.xlsx")
    head, row, *_ = found["Summary"]
    told = dict(zip(head, row, strict=True))
    (counts,) = summarise(lists).to_pylist()
    assert told["Left: below the smallest probability"] == counts["improbable"] == 30
    assert told["Left: ranked below the size of the list"] == counts["list_full"] == 10
    assert told["In the stage"] == 60 and told["Eligible"] == 30
    assert told["To contact"] + told["Control"] == 20
    assert told["Epoch of the control group"] == "2024-quarter-4"
    assert (
        told[EXPECTED] == pytest.approx(counts["expected_moves"])
        and told["In 80 of 100 cases"] == "no interval: no past folds"
    )
    assert {row[0] for row in found["How to read this"][1:]} == {title for title, _ in HOW_TO_READ}
    saved = pq.read_table(tmp_path / "t" / "summary.parquet", partitioning=None)
    assert saved.equals(with_changes(lists, NOTHING_BEFORE))


def test_an_expected_number_stands_between_its_bounds(tmp_path: Path) -> None:
    (one,) = lists_of([f"c{i:03d}" for i in range(60)], lists=[{"from": "Visitor", "to": "Buyer", "horizon": "30d"}])
    told = replace(one, moves=expected_moves(one.rows["probability"].to_numpy(), 6, 0.1))
    write_lists(tmp_path / "t", [told], contact_of([]), facts_of([told]))
    head, row, *_ = sheets(tmp_path / "t" / "lists.xlsx")["Summary"]
    (counts,) = summarise([told]).to_pylist()
    place = head.index(EXPECTED)
    bounds = [[counts[f"expected_moves_{side}_{level}"] for side in ("low", "high")] for level in (80, 95)]
    assert row[place] == pytest.approx(counts["expected_moves"])
    assert row[place + 1 : place + 3] == [f"{low} to {high}" for low, high in bounds]
    assert bounds[1][0] < bounds[0][0] < row[place] < bounds[0][1] < bounds[1][1]
    assert head[place + 1 : place + 3] == ["In 80 of 100 cases", "In 95 of 100 cases"]


def test_the_plan_comes_first_and_tells_what_the_page_tells(tmp_path: Path) -> None:
    """Silent error 83: two ways to one plan would tell two numbers."""
    people = [f"c{i:03d}" for i in range(60)]
    lists = lists_of(people)
    exports = [
        {"export": "email", "written": 4, "added": 2, "removed": 1, **dict.fromkeys(LEFT_OUT, 0), "no_address": 3}
    ]
    write_lists(tmp_path / "t", lists, contact_of(people), facts_of(lists, exports=exports))
    found = sheets(tmp_path / "t" / "lists.xlsx")
    plan = [[cell for cell in row if cell is not None] for row in found[PLAN]]
    rows = [row for one in lists for row in one.rows.to_pylist()]
    targets = {row["customer_id"]: row["probability"] for row in rows if row["group"] == "target"}
    control = {row["customer_id"] for row in rows if row["group"] == "control"}
    assert next(iter(found)) == PLAN
    assert plan[0] == [f"Friday 1 November: {len(targets)} people to contact"]
    assert plan[1] == ["No consent and no suppression file is configured: check before you send."]
    tiles = {str(row[1]): row for row in plan[2:6]}
    assert tiles["To contact today"] == [len(targets), "To contact today", "each person once"]
    assert tiles["Expected to move on, going on as before"][0] == pytest.approx(sum(targets.values()), rel=1e-5)
    assert tiles["Leave alone"][0] == len(control)
    assert tiles["Held back for a reason"] == [0, "Held back for a reason", "nobody"]
    head = next(i for i, row in enumerate(plan) if row[:1] == ["List"])
    queue = dict(zip(plan[head], found[PLAN][head + 1], strict=True))
    assert queue["List"] == "1 Visitor → Buyer, 30 days" and queue["What to offer"] == f"{len(targets)} × Offer"
    assert (queue["To contact"], queue["Control"], queue["Ranked"]) == (len(targets), len(control), 60)
    assert queue["Why it ends there"] == "Everybody who may be contacted."
    assert plan[-1] == [
        "email.csv",
        "4 people, 2 of them new; 1 not any more.\nLeft out: 3 without the address that it needs.",
    ]


def test_permissions_that_were_asked_are_not_warned_about(tmp_path: Path) -> None:
    lists = lists_of(["a"])
    facts = replace(facts_of(lists), plan=replace(facts_of(lists).plan, unasked=""))
    write_lists(tmp_path / "t", lists, contact_of(["a"]), facts)
    assert "check before you send" not in str(sheets(tmp_path / "t" / "lists.xlsx")[PLAN])


def test_what_changed_has_a_sheet_where_it_is_known(tmp_path: Path) -> None:
    lists, stages = lists_of(["a"]), ("Visitor", "Buyer", "Fan")
    journey = a_journey(**{stage: {"event": "buy"} for stage in stages})
    balances: dict[str | None, Balance] = {stage: Balance(5, 2, 1, 6) for stage in (None, *stages)}
    plan, rows = Balance(4, 2, 3, 3), NOTHING_BEFORE.rows
    one = Comparison(
        "last", AS_OF - DAY, rows, Balance(9, 1, 0, 10), plan, balances, {}, {"list_full": 3}, other_list=1,
        moved_stage=5, erased=0,
    )  # fmt: skip
    nights = [{"as_of": "", "stages": dict.fromkeys(stages, 5)}, {"as_of": "", "stages": dict.fromkeys(stages, 6)}]
    changed = what_changed(Changes((one, NotComparable("week", "no_night"))), nights, journey, ZoneInfo("UTC"))
    write_lists(tmp_path / "t", lists, contact_of(["a"]), facts_of(lists, changed=changed))
    found = sheets(tmp_path / "t" / "lists.xlsx")
    text = [row[0] for row in found[CHANGED] if row]
    assert all(sentence in text for since in changed.since for sentence in since.sentences)
    assert ["Buyer", 6, 2, 1, 5, 6] in found[CHANGED]
    assert "2 new and 3 dropped since the night before" in str(found[PLAN])


CURRENCIES = st.none() | st.sampled_from(("€", "$", "USD", "R$", "Fr.", "zł", "₹"))


@settings(max_examples=20)
@given(CURRENCIES, st.lists(st.floats(0, 1e7) | st.sampled_from((99.49, 99.5, 0.005, 1060.0)), min_size=1, max_size=30))
def test_amounts_are_written_as_people_write_them(currency: str | None, amounts: list[float]) -> None:
    for number in amounts:
        told = amount(number, currency)
        assert told.startswith(before_amount(currency))
        digits = told.removeprefix(before_amount(currency)).replace(",", "")
        assert float(digits) == pytest.approx(number, abs=0.5 if number >= 99.5 else 0.0051)
        assert ("." in digits) == (number < 99.5)
    assert amount(-1060, "€") == "-€1,060" and amount(1060, "USD") == "USD 1,060" and amount(40, None) == "40.00"


@pytest.mark.parametrize("currency", [None, "€", "USD", "R$"])
def test_libreoffice_shows_amounts_and_shares_as_the_page_tells_them(tmp_path: Path, currency: str | None) -> None:
    amounts = (-5.0, 0.4, 5.0, 99.4, 99.5, 1060.0, 1_234_567.0)
    shares = (0.002, 0.0044, 0.0101, 0.0949, 0.0996, 0.3, 0.72)
    with xlsxwriter.Workbook(str(tmp_path / "b.xlsx")) as book:
        sheet, formats = book.add_worksheet("numbers"), Formats(book, currency)
        for row, pair in enumerate(zip(amounts, shares, strict=True)):
            write_row(sheet, row, pair, (formats.amount, formats.percent), (20, 20))
    told = [text for a, b in zip(amounts, shares, strict=True) for text in (amount(a, currency), percent(b))]
    assert numbers_as_shown(tmp_path / "b.xlsx") == told


@pytest.mark.parametrize("wrong", ["", " ", "€ ", '"', "1", "[Red]", "€;0", "=1", "\n", "."])
def test_a_currency_is_a_sign_or_letters(wrong: str) -> None:
    with pytest.raises(ValueError, match="currency is a sign or letters alone"):
        made(report={"currency": wrong})


def test_a_contact_column_with_the_name_of_ours_is_shown_beside_it(tmp_path: Path) -> None:
    lists = lists_of(["a", "b"], share=0)
    contact = pa.table({"customer_id": ["a", "b"], "why": ["x", "y"], "Done": ["no", "yes"], "form": ["v", "w"]})
    write_lists(tmp_path / "t", lists, contact, facts_of(lists))
    head, *rows = sheets(tmp_path / "t" / "lists.xlsx")["1 Visitor → Buyer, 30 days"]
    assert head[:6] == ["Done", "Rank", "Customer", "why", "Done", "form"]
    assert [row[:6] for row in rows] == [[None, 1, "a", "x", "no", "v"], [None, 2, "b", "y", "yes", "w"]]


@given(st.lists(st.text(st.sampled_from("abcdefg hij\n好"), max_size=300), min_size=1, max_size=4), st.data())
def test_a_row_is_high_enough_for_its_texts(texts: list[str], data: st.DataObject) -> None:
    wide = data.draw(st.lists(st.sampled_from((9.0, 20.0, 46.0)), min_size=len(texts), max_size=len(texts)))
    found = height(texts, wide)
    least = max(
        sum(max(1, len(line) / (1.2 * w)) for line in text.split("\n")) for text, w in zip(texts, wide, strict=True)
    )
    assert min(15 * least, 400) <= found <= 409
    assert height([*texts, None, 3], [*wide, 9, 9]) == found


def test_a_sheet_is_easy_to_use(tmp_path: Path) -> None:
    write(tmp_path / "t", [f"c{i}" for i in range(9)])
    with zipfile.ZipFile(tmp_path / "t" / "lists.xlsx") as file:
        sheet = file.read("xl/worksheets/sheet2.xml").decode()
        styles = file.read("xl/styles.xml").decode()
    assert 'state="frozen"' in sheet and 'ySplit="1"' in sheet
    assert "<autoFilter ref=" in sheet and "<col min=" in sheet
    assert 'formatCode="[&gt;=0.0995]0%;' in styles and 'wrapText="1"' in styles
    assert '<dataValidation type="list" errorStyle="warning"' in sheet and 'sqref="A2:A' in sheet
    assert 'orientation="landscape"' in sheet and 'fitToHeight="0"' in sheet


def test_the_same_lists_give_the_same_bytes(tmp_path: Path) -> None:
    """Silent error 31: a workbook usually holds the time of its writing."""
    people = [f"c{i}" for i in range(30)]
    for name in ("one", "two"):
        write(tmp_path / name, people)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "lists.xlsx" in files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_list_longer_than_a_sheet_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 5)
    write(tmp_path / "t", [f"c{i}" for i in range(20)], share=0.5)
    found = sheets(tmp_path / "t" / "lists.xlsx")
    assert "Cut after 5 of " in str(found["1 Visitor → Buyer, 30 days"][-1][-1]) and len(found["DO NOT CONTACT"]) == 7


def test_contact_columns_follow_the_rows_of_a_list() -> None:
    rows = lists_of(["b", "a", "c"])[0].rows
    joined = with_contact(rows, pa.table({"customer_id": ["c", "b", "z"], "name": ["Cy", None, "Zoe"]}))
    assert joined.column_names == [*rows.column_names, "name"]
    assert dict(zip(joined["customer_id"].to_pylist(), joined["name"].to_pylist(), strict=True)) == {
        "a": None, "b": None, "c": "Cy"
    }  # fmt: skip
    assert joined.drop_columns(["name"]).equals(rows)


def test_libreoffice_shows_what_was_written(tmp_path: Path) -> None:
    people = list(HOSTILE[:21])
    (first, _) = write(tmp_path / "t", people, share=0.2)
    found = sheets_as_shown(tmp_path / "t" / "lists.xlsx")
    assert list(found) and {name.split(" ")[0] for name in found} >= {"Plan", "How", "Summary", "1", "2", "DO", "Value"}
    rows = next(rows for name, rows in found.items() if name.startswith("1 "))
    target = [row for row in first.rows.to_pylist() if row["group"] == "target"]
    assert len(rows) == 1 + len(target)
    for shown, row in zip(rows[1:], target, strict=True):
        assert printable(shown[2]) == printable(row["customer_id"])
        assert shown[rows[0].index("Probability")] == percent(row["probability"])
    apart = [row[0] for row in found["DO NOT CONTACT"][1:]]
    control = [row["customer_id"] for row in first.rows.to_pylist() if row["group"] == "control"]
    assert [printable(name) for name in apart] == [printable(name) for name in control]


def printable(text: str) -> str:
    """Leave out control and line-break characters, which programs show in their own ways."""
    return re.sub(r"[\x00-\x1f\ufffd\ufffe\uffff]", "", text)


def test_openpyxl_finds_text_and_numbers_and_no_formula(tmp_path: Path) -> None:
    people = list(HOSTILE)
    (first, _) = write(tmp_path / "t", people, share=0)
    book = openpyxl.load_workbook(tmp_path / "t" / "lists.xlsx")
    assert book.sheetnames[0] == PLAN and book.sheetnames[-1] == JOURNEY_SHEET
    kinds = {cell.data_type for sheet in book for row in sheet.iter_rows() for cell in row}
    assert kinds <= {"s", "n", "inlineStr"}
    assert not [cell for sheet in book for row in sheet.iter_rows() for cell in row if cell.hyperlink]
    listed = book.worksheets[1]
    assert listed.freeze_panes == "D2" and listed.auto_filter.ref
    place = [cell.value for cell in listed[1]].index("Probability")
    shown = [row[place].value for row in listed.iter_rows(min_row=2)]
    assert shown == pytest.approx(first.rows["probability"].to_pylist())
    assert [row[place].number_format for row in listed.iter_rows(min_row=2, max_row=2)] == [PERCENT]
    assert [len(str(row[2].value)) > 0 for row in listed.iter_rows(min_row=2)] == [True] * len(people)


def test_the_worksheet_is_a_sheet_and_its_names_stay_text(tmp_path: Path) -> None:
    write(tmp_path / "t", ["a"])
    (sheet,) = [rows for name, rows in sheets(tmp_path / "t" / "lists.xlsx").items() if name == JOURNEY_SHEET]
    head, *body = sheet
    assert head == ["Stage", *STAGES]
    told = {row[0]: row[1:] for row in body if row}
    assert told["Customers"][0] == "200 customers now, 100 of them silent; 300 have been here"
    assert told["Goal"][0] == "<i>goal 0</i>" and told["First channel"][0] == "<ads> 100%"
    assert str(told["Goes with moving on"][0]).startswith("<b>click</b> 3.9")
    assert told[f"{STAGES[0]} → {STAGES[1]}, 30 days"][0] == 300
    assert told["Mood (last 30 days)"][0] == "3.2 on the scale 1 to 5: 40 ratings, 25% bad"
    assert told["Pain points (last 30 days)"][0] == "50% silent\n25% had a ticket"
    assert told["Personas"] == ["People", *STAGES, "Spent until tonight", "Offered most", "To how many"]
    assert told["Came through shop, has bought"][:5] == [100, 0, 60, 40, 4990]
    by_segment = [row for row in body if row[:2] == [STAGES[0], "b"]]
    assert len(by_segment) == 1 and by_segment[0][3] == 1.0
