"""A real browser for tests of the page: Debian's chromium, driven by Playwright, with no way to any network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.required import absent


def executable() -> str:
    """Return the browser's path; without one the test is skipped, or fails where CVJ_ML_REQUIRE names browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        absent("browser", "no chromium is installed (Debian: apt-get install chromium)")
    return found


@contextmanager
def opened() -> Iterator[Any]:
    """Yield a running browser."""
    path = executable()
    from playwright.sync_api import sync_playwright

    # Root has no sandbox to give away, and a small /dev/shm would end the page.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, file: Path, width: int = 1280, height: int = 900) -> Iterator[Any]:
    """Yield a page opened from a file; fails where it asked for anything else, or said anything on its console."""
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    noise: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: noise.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    try:
        page.goto(file.as_uri())
        yield page
        assert noise == []
        assert [url for url in requested if not url.startswith("blob:")] == [file.as_uri()]
    finally:
        context.close()
