"""`make docs`: stage the sources, let Sphinx build them, and lay Markdown and llms.txt beside the pages.

Everything lies below build/, which git ignores. A link that leads nowhere, a page outside the table of contents and a
formula that cannot be read are errors.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from website.api_reference import reference
from website.notebooks import NOTEBOOKS, pages

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "build" / "website-sources"
SITE = ROOT / "build" / "website"

SOURCE_FILES = (
    *("docs/*.md", "docs/decisions/*.md", "docs/images/*", "benchmarks/README.md", "benchmarks/results/*.md"),
    *(
        "examples/*/README.md",
        "notebooks/README.md",
        "tests/exports/fixtures/README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ),
)
"""What is on the site, in the places that it has in the repository, so that links between files hold on both."""

NAVIGATION: Mapping[str, Sequence[str]] = {
    "Begin": (
        *("docs/concepts", "docs/init", "docs/check", "docs/configuration", "docs/journey", "docs/cookbook"),
        "docs/questions",
    ),
    "Act on a night": ("docs/lists", "docs/uplift", "docs/exports", "docs/page", "docs/reasons"),
    "Judge a model": ("docs/backtest", "docs/audit", "docs/method", "docs/features"),
    "Customers": ("docs/identities", "docs/accounts", "docs/privacy"),
    "Notebooks": (
        *("notebooks/README", "notebooks/first_look", "notebooks/own_data", "notebooks/features_and_leakage"),
        *("notebooks/backtest_and_bgnbd", "notebooks/own_estimator", "notebooks/one_customer"),
        *("notebooks/whom_a_contact_changes", "notebooks/monitoring_and_measuring"),
    ),
    "Python": ("docs/python", "docs/sklearn", "docs/api"),
    "Operations": (
        *(
            "docs/operations",
            "docs/nightly",
            "docs/gates",
            "docs/monitor",
            "docs/troubleshooting",
            "docs/store",
            "docs/sizing",
        ),
        *(
            "docs/postgres",
            "docs/object-stores",
            "docs/spark",
            "docs/mlflow",
            "docs/mcp",
            "docs/serving",
            "examples/nightly/README",
            "SECURITY",
        ),
    ),
    "Reference": ("docs/cli", "docs/outputs", "docs/glossary"),
    "Project": ("docs/design", "docs/decisions/README", "benchmarks/README", "CONTRIBUTING", "CHANGELOG"),
}
"""The side bar. A page of docs/ or a notebook that is not named here stands under `MORE`."""

MORE = "More"

LINE = 240
"""Characters that llms.txt tells of a page, at most."""

BELOW = {
    "docs/decisions/README": "docs/decisions/0",
    "benchmarks/README": "benchmarks/results/",
    "docs/exports": "tests/exports/",
}
"""Pages that stand below another one: the other, and how their names begin."""


def main() -> int:
    """Build the site and say where it is."""
    stage()
    settings = ["--conf-dir", str(ROOT / "website"), "--doctree-dir", str(ROOT / "build" / "doctrees")]
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--quiet", *settings]
    if code := subprocess.run([*command, SOURCES, SITE], check=False).returncode:
        return code
    add_markdown()
    print(f"The documentation is in {SITE.relative_to(ROOT) / 'index.html'}; it opens without a server.")
    return 0


def stage() -> None:
    """Lay all sources into one new folder, with what is made from code, and the table of contents."""
    for folder in (SOURCES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in SOURCE_FILES:
        for file in sorted(ROOT.glob(pattern)):
            _write(SOURCES / file.relative_to(ROOT), file.read_bytes())
    _write(SOURCES / "docs" / "api.md", reference().encode())
    for script in sorted(NOTEBOOKS.glob("*.py")):
        for name, content in pages(script).items():
            _write(SOURCES / "notebooks" / name, content)
    for owner, begin in BELOW.items():
        _add_contents(owner, {"": [page for page in _page_names() if page.startswith(begin)]})
    _add_contents("docs/index", navigation())


def navigation() -> dict[str, list[str]]:
    """Return the pages of the side bar by their heading."""
    named = {page for group in NAVIGATION.values() for page in group} | {"docs/index"}
    more = [page for page in _page_names() if re.fullmatch(r"(docs|notebooks)/[^/]+", page) and page not in named]
    return {name: list(group) for name, group in {**NAVIGATION, MORE: more}.items() if group}


def _page_names() -> list[str]:
    return sorted(file.relative_to(SOURCES).with_suffix("").as_posix() for file in SOURCES.rglob("*.md"))


def _add_contents(owner: str, groups: Mapping[str, Sequence[str]]) -> None:
    """Append tables of contents that are seen in the side bar only."""
    blocks = [
        "\n".join(["```{toctree}", ":hidden:", *([f":caption: {name}"] if name else []), "", *(f"/{p}" for p in pages)])
        for name, pages in groups.items()
    ]
    file = SOURCES / f"{owner}.md"
    file.write_text(file.read_text(encoding="utf-8") + "".join(f"\n{one}\n```\n" for one in blocks), encoding="utf-8")


def add_markdown() -> None:
    """Lay the Markdown of every page and its pictures beside the HTML, and at the top llms.txt and a way in."""
    for file in sorted(SOURCES.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            if file.suffix == ".md":
                content = re.sub(r"\n```\{toctree\}\n.*?\n```\n", "", content.decode(), flags=re.S).encode()
            _write(SITE / file.relative_to(SOURCES), content)
    _write(SITE / "llms.txt", llms_txt().encode())
    home = '<!doctype html><meta charset="utf-8"><title>cvj_ml</title><meta http-equiv="refresh" content="0; url='
    _write(SITE / "index.html", f'{home}docs/index.html"><a href="docs/index.html">cvj_ml</a>\n'.encode())


def llms_txt() -> str:
    """Return the pages for programs that read text (llmstxt.org): what this is, and a link and a line for each page."""
    parts = ["# cvj_ml\n", f"> {_first_words('docs/index')}\n"]
    for name, group in navigation().items():
        parts.append(f"## {name}\n")
        parts += [f"- [{_title(page)}]({page}.md): {_first_words(page)}" for page in group]
        parts.append("")
    return "\n".join(parts)


def _title(page: str) -> str:
    return _text(page).partition("\n")[0].removeprefix("# ").replace("`", "")


def _first_words(page: str) -> str:
    """Return the first sentence of a page's text that is not about where words are explained, without links."""
    text = re.sub(r"^```.*?^```", "", _text(page), flags=re.M | re.S)
    paragraphs = [one for one in re.split(r"\n\s*\n", text) if not re.match(r"[#|\-!<{]|    ", one.lstrip("\n"))]
    words = re.sub(r"\s+", " ", re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(paragraphs))).replace("**", "").strip()
    sentences = [one for one in re.split(r"(?<=[.!?]) ", words) if not one.startswith("Words are")]
    first = sentences[0].rstrip(":") if sentences else ""
    return first if len(first) <= LINE else first[: first.rindex(" ", 0, LINE)] + " …"


def _text(page: str) -> str:
    return (SOURCES / f"{page}.md").read_text(encoding="utf-8")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
