"""The worksheet for a meeting: the journey as a service blueprint, then one page a persona; as HTML and as PDF."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from cvj_ml.errors import CvjError
from cvj_ml.io import html_environment
from cvj_ml.report import blueprint_words, wording
from cvj_ml.report.blueprint import blueprint
from cvj_ml.report.worksheet import Worksheet, persona_rows

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
"""Programs that print a page as PDF, by what they are called on Linux."""

_PATIENCE = 120  # seconds; a cold start on a busy machine takes a few


def meeting_html(found: Worksheet, name: str, day: str) -> str:
    """Return the document; it needs nothing else, runs no script, and whatever comes from data is escaped."""
    environment = html_environment("cvj_ml.report")
    environment.filters |= {"percent": wording.percent, "count": wording.whole_number}
    sheets = [sheet for sheet in found.sheets if sheet.step.observed]
    facts = [
        ("What they get here", [sheet.value for sheet in sheets]),
        ("Next step", [sheet.next_step for sheet in sheets]),
        ("Owner", [sheet.owner for sheet in sheets]),
    ]
    return environment.get_template("meeting.html").render(
        name=name,
        day=day,
        sheets=sheets,
        facts=[(topic, cells) for topic, cells in facts if any(cells)],
        blueprint=blueprint(found),
        personas=[(one, persona_rows(found, one)) for one in found.personas],
        everybody=sum(one.people for one in found.personas),
        names=found.stages,
        period_days=found.map.period_days,
        currency=found.currency,
        words=wording,
        told=blueprint_words,
    )


def print_pdf(html: str, target: Path) -> None:
    """Print a document into a file, by the browser that is there; CvjError where there is none, or it fails."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise CvjError(
            f"There is no browser to print a PDF with ({', '.join(BROWSERS)}). Install one (Debian, Ubuntu: `apt-get"
            " install chromium`), or write --format html and print that file from any browser."
        )
    with tempfile.TemporaryDirectory(prefix="cvj-ml-") as name:
        folder = Path(name)
        source, printed = folder / "worksheet.html", folder / "worksheet.pdf"
        source.write_text(html, encoding="utf-8")
        options = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        options += ["--no-first-run", "--no-pdf-header-footer", f"--user-data-dir={folder / 'profile'}"]
        # Root has no sandbox to give away; the document is our own and runs no script.
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        call = [browser, *options, f"--print-to-pdf={printed}", source.as_uri()]
        try:
            ran = subprocess.run(call, capture_output=True, timeout=_PATIENCE, check=False, text=True, errors="replace")
            said = ran.stderr.strip().splitlines()[-1:]
        except subprocess.TimeoutExpired:
            said = [f"no answer within {_PATIENCE} seconds"]
        if not printed.is_file():
            raise CvjError(
                f"{browser}: the PDF could not be printed: {''.join(said) or 'it said nothing'}. Write --format html"
                " and print that file from any browser."
            )
        target.write_bytes(printed.read_bytes())
