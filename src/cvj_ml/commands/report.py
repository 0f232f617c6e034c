"""The stories of ``cvj-ml report`` and ``worksheet``: a published night is found, and none is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, NightError
from cvj_ml.inputs import as_of_name
from cvj_ml.night.reading import current_night, published_nights
from cvj_ml.night.verifying import verify_night
from cvj_ml.report.meeting import meeting_html, print_pdf
from cvj_ml.report.page import PAGE, WORKSHEET, WORKSHEET_VALUES
from cvj_ml.report.worksheet import worksheet_of_json
from cvj_ml.scoring import SCORES
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


def write_worksheet(config: Config, as_of: int, form: Literal["md", "html", "pdf"], target: Path | None) -> str | None:
    """Write the worksheet of a published night into a file, or return it as text where no file is named.

    As Markdown it is the night's own, as HTML or PDF it is made for a meeting from the night's values. NightError
    where there is no such night; ConfigError for a PDF without a file; CvjError where no browser prints it.
    """
    if form == "pdf" and target is None:
        raise ConfigError("--format pdf writes a file; say which one with --out FILE.")
    night = show_night(config, as_of)
    folder = Path(night["night"])
    if form == "md":
        text = (folder / WORKSHEET).read_text(encoding="utf-8")
    else:
        try:
            found = worksheet_of_json((folder / WORKSHEET_VALUES).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            raise NightError(
                f"{folder}: it has no {WORKSHEET_VALUES} that this version reads; an earlier one made the night. Make"
                " the night anew with this version (`cvj-ml targets`), or take --format md."
            ) from None
        text = meeting_html(found, config.name, night["as_of"])
    if target is None:
        return text
    if form == "pdf":
        print_pdf(text, target)
    else:
        target.write_text(text, encoding="utf-8")
    return None
