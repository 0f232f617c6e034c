"""The story of ``cvj-ml report``: a published night is found, and nothing is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvj_ml.config import Config
from cvj_ml.errors import NightError
from cvj_ml.inputs import as_of_name
from cvj_ml.night import current_night, published_nights, verify_night
from cvj_ml.report.list_files import SCORES
from cvj_ml.report.page import PAGE, WORKSHEET
from cvj_ml.windows import to_datetime


def show_night(config: Config, as_of: int) -> dict[str, Any]:
    """Return where the published night of an instant and its page are, as plain data; nothing is made or published.

    NightError where there is none, it is not whole, or it has no page.
    """
    out, name = Path(config.out), as_of_name(config, as_of)
    day = to_datetime(as_of, config.zone).isoformat() if "T" in name else name
    command = f"`cvj-ml targets CONFIG --as-of {day}` makes and publishes it"
    nights = published_nights(out, name)
    if not nights:
        newest = max((path.name.removeprefix("as_of=") for path in out.glob("as_of=*")), default=None)
        there = f"the newest is that of {newest}" if newest else "there is none at all"
        raise NightError(f"{out}: no night of {name} is published; {there}. {command}, if its gates pass.")
    folder = next((one for one in nights if (one / PAGE).is_file()), nights[0])
    manifest = verify_night(folder).manifest
    if PAGE not in manifest["files"]:
        raise NightError(f"{folder}: it has no page, which goes where customers are forgotten. {command} anew.")
    return {
        "night": str(folder),
        "as_of": name,
        "instant": manifest["as_of"],
        "current": folder == current_night(out),
        "page": str(folder / PAGE),
        "worksheet": str(folder / WORKSHEET),
        "customers": manifest["files"][SCORES]["rows"],
        "model_version": manifest["model"][:12],
        "lists": {one["list"]: one["listed"] for one in manifest.get("lists", ())},
    }
