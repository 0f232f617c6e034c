"""The documents say what is: commands, options, settings and links exist, and blocks of code do what they say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
import yaml
from pydantic import BaseModel
from tests.cli_reference import FILE, command_of, reference
from tests.trained import Trained

import cvj_ml
from cvj_ml.config import Config

pytest_plugins = ["tests.fixtures"]

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "decisions").glob("*.md")])
SETTINGS_IN = (
    "configuration",
    "features",
    "gates",
    "monitor",
    "journey",
    "lists",
    "postgres",
    "spark",
    "sizing",
    "store",
    "page",
    "exports",
)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(language: str) -> Iterator[Any]:
    for path in PAGES:
        for number, found in enumerate(re.findall(rf"^```{language}\n(.*?)^```", text(path), re.M | re.S)):
            yield pytest.param(found, id=f"{path.name}-{number}")


def test_the_reference_of_the_commands_is_current() -> None:
    assert text(FILE) == reference(), "run: python -m tests.cli_reference"


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_in_blocks_are_known(block: str) -> None:
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] != "cvj-ml":
            continue
        command, rest = command_of(words[1:])
        command.make_context("cvj-ml", rest)


def setting_names(model: type[BaseModel], seen: frozenset[type] = frozenset()) -> Iterator[str]:
    """Yield the name of every setting, as it is written in YAML."""
    for name, field in model.model_fields.items():
        if field.exclude:
            continue  # found by the program, and not written
        yield field.alias or name
        for part in nested(field.annotation):
            if part not in seen:
                yield from setting_names(part, seen | {model})


def nested(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from nested(part)


def test_every_setting_is_described() -> None:
    described = "".join(text(ROOT / "docs" / f"{name}.md") for name in SETTINGS_IN)
    code = " ".join(re.findall(r"`[^`]+`|^```yaml\n.*?^```", described, re.M | re.S))
    missing = {name for name in setting_names(Config) if not re.search(rf"\b{name}\b", code)}
    assert not missing


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (
            anchor and anchor not in {slug(one) for one in re.findall(r"^#+ (.+)$", text(file), re.M)}
        ):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_in_the_index(page: Path) -> None:
    assert page.name == "index.md" or f"]({page.name})" in text(ROOT / "docs" / "index.md")


# What the blocks refer to.
BASE: dict[str, Any] = {
    "name": "shop",
    "time_zone": "Europe/London",
    "history_from": "2024-01-01",
    "sources": {"orders": {"path": "orders.parquet"}, "newsletter": {"path": "newsletter.parquet"}},
    "attributes": {"path": "customers.parquet", "columns": {"tracking_consent": "tracking_consent"}},
    "outbound": ["email_sent"],
    "stage_value": {"Ascend": 120},
    "journey": "cvj8",
}


@pytest.mark.parametrize("block", blocks("yaml"))
def test_blocks_of_yaml_are_settings(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"SALT": "a-secret", "WEBHOOK": "https://shop.example/hook"}
    for name in re.findall(r"\$\{(\w+)\}", block):
        told = (value for part, value in values.items() if part in name)
        monkeypatch.setenv(name, next(told, "postgresql://shop:secret@localhost:5432/shop"))
    document = yaml.safe_load(block)
    # A journey of its own, or a part of a configuration.
    merged = {**BASE, "journey": document} if "stages" in document else {**BASE, **document}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(merged, sort_keys=False))
    assert cvj_ml.load_config(tmp_path / "shop.yaml").name


@pytest.mark.slow
def test_the_notebook_of_the_readme_runs(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", text(ROOT / "README.md"), re.M | re.S)
    names: dict[str, Any] = {}
    monkeypatch.chdir(trained.folder)
    exec(block.replace("2025-06-30", "2025-06-24"), names)
    assert len(names["scores"]) == 120 and len(names["lists"]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("page", ["python.md", "sklearn.md"])
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.findall(r"^```python\n(.*?)^```", text(ROOT / "docs" / page), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(found), {})


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_every_page_leads_to_the_glossary(page: str) -> None:
    made = ("glossary.md", "cli.md")  # the glossary itself, and what the commands say of themselves
    assert page in made or "](glossary.md" in text(ROOT / "docs" / page)


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").rglob("*.svg")), ids=lambda path: path.stem)
def test_drawings_say_what_they_show_and_can_be_read_in_the_dark(picture: Path) -> None:
    root = ElementTree.fromstring(text(picture))
    space = "{http://www.w3.org/2000/svg}"
    assert (root.findtext(f"{space}title") or "").strip()
    style = root.findtext(f"{space}style") or ""
    assert "prefers-color-scheme: dark" in style and ".ground" in style  # a ground of its own, whatever the page's is
    assert not re.search(r"href|url\(|@import|<script", text(picture))
