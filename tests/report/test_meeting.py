"""The worksheet for a meeting: through the command, in a real browser, and as a PDF that is counted page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from tests.browser import executable, opened, visit
from tests.report.test_page import HOSTILE, night, ranked
from tests.trained import AS_OF, Trained, call

from cvj_ml.errors import CvjError
from cvj_ml.journey import Journey
from cvj_ml.report import meeting
from cvj_ml.report.meeting import meeting_html, print_pdf
from cvj_ml.report.page import WORKSHEET, WORKSHEET_VALUES
from cvj_ml.report.worksheet import Worksheet, worksheet_json, worksheet_of_json

pytest_plugins = ["tests.fixtures"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as found:
        yield found


def filled_in() -> Worksheet:
    return night(ranked([f"c{i}" for i in range(40)])).worksheet


def pages_of(pdf: Path) -> int:
    return max(int(number) for number in re.findall(rb"/Count (\d+)", pdf.read_bytes()))


def test_values_read_back_as_they_were_written() -> None:
    found = filled_in()
    # Plays with every kind of condition: what stands beside an event may not stand beside a rating.
    plays = [play for stage in Journey("cvj8").stages for play in (*stage.plays, *stage.plays_here)]
    found = replace(found, sheets=tuple(replace(sheet, plays=tuple(plays)) for sheet in found.sheets))
    text = worksheet_json(found)
    assert worksheet_of_json(text) == found
    assert worksheet_json(worksheet_of_json(text)) == text
    assert not [one for one in HOSTILE if one in text], "no customer is in it"
    with pytest.raises(ValueError):
        worksheet_of_json(text.replace('"sheets"', '"leaves"'))


def test_the_document_shows_every_persona_and_no_markup_of_the_data(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "worksheet.html"
    file.write_text(meeting_html(filled_in(), "shop", "2024-11-01"), encoding="utf-8")
    for width, height in ((1280, 900), (390, 844)):
        with visit(browser, file, width, height) as page:
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.locator("section h2").all_inner_texts() == [
                "Came through <ads>, no purchases yet",
                "Came through shop, has bought",
            ]
            shown = page.locator("main").inner_text()
            assert page.locator("script, img, iframe, main i i").count() == 0
            assert "2 ratings lie outside the scale 1 to 5 and are not counted." in shown
            assert "200 people, 67% of everybody." in shown
            assert "100 people, 33% of everybody, 49.90 on average." in shown
            assert "<i>Offer</i> (36 people tonight, mostly through <phone>)" in shown
            found = Axe().run(page).response["violations"]
            assert [one["id"] for one in found] == []


def test_each_persona_is_one_page(tmp_path: Path) -> None:
    executable()
    target = tmp_path / "worksheet.pdf"
    print_pdf(meeting_html(filled_in(), "shop", "2024-11-01"), target)
    assert target.read_bytes().startswith(b"%PDF")
    assert pages_of(target) == 1 + len(filled_in().personas)


def test_without_a_browser_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CvjError, match=r"no browser to print a PDF with.*apt-get install chromium.*--format html"):
        print_pdf("<p>", tmp_path / "worksheet.pdf")
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho 'cannot open display' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(CvjError, match="could not be printed: cannot open display"):
        print_pdf("<p>", tmp_path / "worksheet.pdf")
    monkeypatch.setattr(meeting, "_PATIENCE", 0.2)
    broken.write_text("#!/bin/sh\nexec /bin/sleep 9\n")
    with pytest.raises(CvjError, match=r"could not be printed: no answer within 0\.2 seconds"):
        print_pdf("<p>", tmp_path / "worksheet.pdf")
    assert not (tmp_path / "worksheet.pdf").exists()


def test_the_command_writes_the_worksheet_of_a_published_night(trained: Trained, tmp_path: Path) -> None:
    config = trained.variant(tmp_path / "out")
    assert call("worksheet", config, "--as-of", AS_OF).code == 4
    assert call("targets", config, "--as-of", AS_OF).code == 0
    (folder,) = (tmp_path / "out").glob(f"as_of={AS_OF}/*")
    markdown = call("worksheet", config, "--as-of", AS_OF, "--format", "md")
    assert (markdown.code, markdown.err) == (0, "")
    assert markdown.out == (folder / WORKSHEET).read_text(encoding="utf-8") + "\n"
    shown = call("worksheet", config, "--as-of", AS_OF)
    assert (shown.code, shown.err) == (0, "") and shown.out.startswith("<!doctype html>")
    written = tmp_path / "worksheet.html"
    assert call("worksheet", config, "--as-of", AS_OF, "--out", written).out == f"Worksheet: {written}\n"
    assert written.read_text(encoding="utf-8") + "\n" == shown.out
    # Everybody who has scores is one persona's.
    found = worksheet_of_json((folder / WORKSHEET_VALUES).read_text(encoding="utf-8"))
    scored = pq.read_table(folder / "scores" / "scores.parquet", partitioning=None)
    assert sum(one.people for one in found.personas) == len(scored)
    nowhere = call("worksheet", config, "--as-of", AS_OF, "--format", "pdf")
    assert nowhere.code == 2 and "--format pdf writes a file; say which one with --out FILE." in nowhere.err
    executable()
    printed = tmp_path / "worksheet.pdf"
    ran = call("worksheet", config, "--as-of", AS_OF, "--format", "pdf", "--out", printed)
    assert ran.code == 0, ran.err
    assert pages_of(printed) == 1 + len(found.personas)
