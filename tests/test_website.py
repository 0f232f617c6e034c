"""The site of the documents asks for no network, can be searched, and has every page as Markdown, too."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.browser import executable, opened

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "website"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site() -> Path:
    """Return the site as `make docs` builds it; what is wrong with a page or a link is an error there."""
    done = subprocess.run([sys.executable, "-m", "website.build"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return SITE


@contextmanager
def reading(site: Path, scheme: str) -> Iterator[Any]:
    """Yield a browser's page without a network; fails where it asked for anything that is not of the site."""
    executable()
    with opened() as browser:
        page = browser.new_context(offline=True, color_scheme=scheme).new_page()
        wrong: list[str] = []
        page.on("request", lambda one: None if one.url.startswith(site.as_uri()) else wrong.append(one.url[:200]))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        yield page
        assert wrong == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//"""
        r"""|@import\s+["'(url]*(?:https?:)?//|url\(["']?(?:https?:)?//"""
    )
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 60
    assert not [file for file in files if loads.search(file.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_reader_finds_a_page_by_its_words(site: Path, scheme: str) -> None:
    with reading(site, scheme) as page:
        page.goto((site / "index.html").as_uri())
        page.wait_for_url("**/docs/index.html")
        page.fill("input.sidebar-search", "quarantine")
        page.press("input.sidebar-search", "Enter")
        page.wait_for_selector("#search-results li a")
        page.locator("#search-results li a", has_text="Glossary").first.click()
        page.wait_for_url("**/docs/glossary.html*")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 200) == (scheme == "dark")
        for other in ("docs/api.html", "docs/method.html", "docs/decisions/README.html"):
            page.goto((site / other).as_uri())
        assert page.get_by_role("link", name="This page as Markdown").get_attribute("href") == "README.md"


def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    text = (site / "docs" / "method.html").read_text(encoding="utf-8")
    assert text.count("<math") > 100 and "$" not in re.sub(r"<(script|pre|code)\b.*?</\1>", "", text, flags=re.S)


def test_every_page_is_there_as_markdown_and_in_the_list_for_programs(site: Path) -> None:
    made = {"search", "index", "genindex"}
    pages = {file.relative_to(site).with_suffix("").as_posix() for file in site.rglob("*.html")} - made
    assert not [page for page in pages if not (site / f"{page}.md").is_file()]
    assert not [file for file in site.rglob("*.md") if "{toctree}" in file.read_text(encoding="utf-8")]
    told = (site / "llms.txt").read_text(encoding="utf-8")
    assert told.startswith("# cvj_ml\n\n> `cvj_ml` reads a log of touchpoints")
    for link in re.findall(r"^- \[.+?\]\((.+?)\)", told, re.M):
        assert (site / link).is_file(), link
    listed = set(re.findall(r"\]\((docs/[^/)]+)\.md\)", told))
    assert {page for page in pages if re.fullmatch(r"docs/[^/]+", page)} - {"docs/index"} == listed


def test_the_reference_tells_of_everything_public(site: Path) -> None:
    import cvj_ml
    import cvj_ml.sklearn

    text = (site / "docs" / "api.md").read_text(encoding="utf-8")
    for module in (cvj_ml, cvj_ml.sklearn):
        assert [name for name in module.__all__ if f"### {module.__name__}.{name}\n" not in text] == []
    assert "#### Model.fit\n\n```python\nfit(\n    data: Data | Panel,\n" in text
    assert "- `estimator`: any classifier" in text


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    for name, body in {"docs/index": "# A\n\n[gone](gone.md)\n", "docs/other": "# B\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.md").write_text(body)
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-c", ROOT / "website", tmp_path]
    done = subprocess.run([*command, tmp_path / "site"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "'gone.md'" in done.stderr and "isn't included in any toctree" in done.stderr
