"""LibreOffice for tests of the workbook, each call with a profile of its own, so that tests can run side by side."""

from __future__ import annotations

import csv
import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.required import absent

# Separator, quote, UTF-8, first line; text as it is, no formulas; -1: every sheet in a file of its own.
_EVERY_SHEET = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,-1"


def executable() -> str:
    """Return LibreOffice's path; without one the test is skipped, or fails where CVJ_ML_REQUIRE names office."""
    found = shutil.which("soffice")
    if found is None:
        absent("office", "no LibreOffice is installed (Debian: apt-get install libreoffice-calc-nogui)")
    return found


def sheets_as_shown(book: Path) -> dict[str, list[list[str]]]:
    """Open a workbook and return what the cells of every sheet hold, numbers without their separators."""
    with tempfile.TemporaryDirectory() as folder:
        _convert(book, _EVERY_SHEET, folder)
        found = {}
        for file in Path(folder).glob("*.csv"):
            with file.open(encoding="utf-8", newline="") as stream:
                found[file.stem.removeprefix(f"{book.stem}-")] = list(csv.reader(stream))
        return found


def numbers_as_shown(book: Path) -> list[str]:
    """Open a workbook and return the numbers of its cells as a person sees them, row by row."""
    with tempfile.TemporaryDirectory() as folder:
        _convert(book, "html", folder)
        text = Path(folder, f"{book.stem}.html").read_text(encoding="utf-8")
    return [html.unescape(one) for one in re.findall(r"<td[^>]* sdval=[^>]*><font[^>]*>([^<]*)</font>", text)]


def _convert(book: Path, form: str, folder: str) -> None:
    done = subprocess.run(
        [
            *(executable(), "--headless", f"-env:UserInstallation={Path(folder, 'profile').as_uri()}"),
            *("--convert-to", form, "--outdir", folder, str(book)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
