"""`make screenshots`: the pictures of the page and of MLflow in docs/images, taken of the demo by a real browser.

    python -m website.screenshots [--folder DEMO]

A demo that is there already is used as it is; else one is made in a temporary folder. Needs Debian's chromium, and no
network: MLflow's own server runs on a loopback port.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from PIL import Image
from tests.browser import opened, visit
from tests.mlflow_server import tracking_server

from cvj_ml.commands import Silent
from cvj_ml.config import load_config
from cvj_ml.demo import run_demo
from cvj_ml.report.page import PAGE
from cvj_ml.tracking import find_champion

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
CUSTOMERS, SEED = 20_000, 1
_COLOURS = 256
_PATIENCE = 60_000
"""Milliseconds until MLflow's page has shown what a picture is of."""
_DRAWN = 4_000
"""Milliseconds that it takes then to draw the rest."""


def keep(name: str, picture: bytes, height: int | None = None) -> None:
    """Write a picture, or its top, with a palette: a page has few colours, and the repository keeps every version."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    top = image.crop((0, 0, image.width, min(image.height, height or image.height)))
    top.quantize(_COLOURS, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


def take_page(browser: Any, file: Path) -> None:
    """Take the first screen of a night's page, its journey, and the head of its first list."""
    with visit(browser, file, 1440, 900) as page:
        keep("page-plan", page.screenshot())
        keep("page-journey", page.locator("#journey").screenshot())
        keep("page-list", page.locator("section.list").first.screenshot(), 820)


def take_mlflow(browser: Any, address: str, run_id: str, model: str) -> None:
    """Take what MLflow shows of the demo's training and of its registered model."""
    experiment = MlflowClient(tracking_uri=address).get_run(run_id).info.experiment_id
    pages = {
        "mlflow-run": (f"experiments/{experiment}/runs/{run_id}", "test.log_loss"),
        "mlflow-model": (f"models/{model}", "champion"),
    }
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    for name, (place, shows) in pages.items():
        page = context.new_page()
        page.goto(f"{address}/#/{place}")
        page.get_by_text(shows).first.wait_for(timeout=_PATIENCE)
        page.wait_for_timeout(_DRAWN)  # it asks its server for news without end, so it is never idle
        # Without the column on the right, in which MLflow offers its assistant.
        keep(name, page.screenshot(clip={"x": 0, "y": 0, "width": 1072, "height": 900}))
    context.close()


@contextmanager
def demo_in(folder: Path | None) -> Iterator[Path]:
    """Yield the folder of a demo: the one that is named, or one that is made and removed again."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        run_demo(Path(scratch, "demo"), CUSTOMERS, SEED, Silent())
        yield Path(scratch, "demo")


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of a demo that is there")
    with demo_in(parser.parse_args().folder) as folder, opened() as browser:
        config = load_config(folder / "demo.yaml")
        (page,) = Path(config.out).glob(f"as_of=*/*/{PAGE}")
        take_page(browser, page)
        champion = find_champion(config)
        if champion is None:
            raise SystemExit(f"{folder}: no model is registered")
        database = Path(config.mlflow.tracking_uri.removeprefix("sqlite:///"))
        with tempfile.TemporaryDirectory() as scratch, tracking_server(Path(scratch), database=database) as address:
            take_mlflow(browser, address, champion.run_id, config.registered_model)


if __name__ == "__main__":
    main()
