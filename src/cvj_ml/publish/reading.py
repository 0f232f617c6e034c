"""Finding published nights in an output folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cvj_ml.errors import NightError
from cvj_ml.publish.files import CURRENT, LISTS, RUN, SUCCESS


def current_night(out: Path) -> Path | None:
    """Return the folder of the current night, None where nothing was published yet; NightError for a damaged pointer.

    That the folder is whole, or there at all, is `verify_night`'s question.
    """
    pointer = read_pointer(out)
    return None if pointer is None else out / pointer["night"]


def read_pointer(out: Path) -> dict[str, str] | None:
    """Return what CURRENT.json says, ``as_of`` and ``night``; None where there is none."""
    file = out / CURRENT
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        pointer = {name: str(found[name]) for name in ("as_of", "night")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pointer = {}
    parts = Path(pointer.get("night", "")).parts
    if len(parts) != 2 or parts[0] != f"as_of={pointer['as_of']}":
        raise NightError(
            f"{file}: the pointer to the current night is damaged. The nights themselves are not: remove this file and"
            " run the newest night again, which finds itself published and writes the pointer anew."
        )
    return pointer


def published_nights(out: Path, as_of: str) -> list[Path]:
    """Return the finished nights of a date: the current one first, then those with lists, then the youngest."""
    current = current_night(out)

    def rank(folder: Path) -> tuple[bool, bool, float]:
        return folder == current, (folder / LISTS).is_dir(), _started(folder)

    found = [path.parent for path in (out / f"as_of={as_of}").glob(f"*/{SUCCESS}")]
    return sorted(found, key=rank, reverse=True)


def published_lists(out: Path) -> list[Path]:
    """Return the folders of the nights with lists, in order of their dates; of several for one date the youngest."""
    found = []
    for night in sorted(out.glob("as_of=*")):
        runs = [
            (_started(folder), folder)
            for folder in sorted(night.iterdir())
            if (folder / SUCCESS).is_file() and (folder / LISTS / "summary.parquet").is_file()
        ]
        found += [max(runs)[1]] if runs else []
    return found


def _started(night: Path) -> float:
    """Return when a night was made; one whose run.json cannot be read is older than all."""
    try:
        return float(json.loads((night / RUN).read_text(encoding="utf-8"))["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf
