"""Finding published nights in an output folder.

Who was listed in control on earlier nights, read back from what was published.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import DAY, Config
from cvj_ml.errors import NightError
from cvj_ml.lists.control import HOLDOUT_EXPOSURES, epoch_name
from cvj_ml.night.layout import CURRENT, LISTS, NightFolder, nights
from cvj_ml.windows import before, in_window, parse_as_of


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

    def rank(night: NightFolder) -> tuple[bool, bool, float]:
        return night.path == current, (night.path / LISTS).is_dir(), _started(night)

    found = [night for of_date in nights(out, as_of) for night in of_date if night.finished]
    return [night.path for night in sorted(found, key=rank, reverse=True)]


def published_lists(out: Path) -> list[Path]:
    """Return the folders of the nights with lists, in order of their dates; of several for one date the youngest."""
    return _youngest_of_date(out, lambda night: True)


def contacted_lists(out: Path) -> list[Path]:
    """Return of `published_lists` the nights by which somebody may have been contacted, which alone can be judged.

    A night whose model had seen what followed was made later, to fill a gap: of its date another run counts, or none.
    """
    return _youngest_of_date(out, lambda night: not _backfilled(night))


def _youngest_of_date(out: Path, counts: Callable[[NightFolder], bool]) -> list[Path]:
    """Return for each date the youngest finished night with lists among those that count."""
    found = []
    for of_date in nights(out):
        lists = (night for night in of_date if night.finished and night.summary.is_file())
        runs = [(_started(night), night.path) for night in lists if counts(night)]
        found += [max(runs)[1]] if runs else []
    return found


def _backfilled(night: NightFolder) -> bool:
    """Return whether a night's model was trained after the night; one whose run.json cannot be read was not."""
    try:
        gates = night.run()["gates"]
        ages = [one["value"] for one in gates if one["name"] == "model_age" and one["value"] is not None]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return any(age < 0 for age in ages)


def _started(night: NightFolder) -> float:
    """Return when a night was made; one whose run.json cannot be read is older than all."""
    try:
        return float(night.run()["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf


def night_instant(config: Config, night: Path) -> int:
    """Return the instant that a night was made for, as its folder is named."""
    return parse_as_of(NightFolder(night).date, config.zone)


def first_listed(config: Config, as_of: int) -> dict[str, int]:
    """Return on which night of the epoch of ``as_of`` each list first had somebody to contact, as published before."""
    epoch, found = epoch_name(config.control.epoch, as_of, config.zone), dict[str, int]()
    for folder in contacted_lists(Path(config.out)):
        night = night_instant(config, folder)
        if not before(np.array(night), as_of) or epoch_name(config.control.epoch, night, config.zone) != epoch:
            continue
        summary = pq.read_table(NightFolder(folder).summary, columns=["list", "target"], partitioning=None)
        for row in summary.to_pylist():
            if row["target"]:
                found.setdefault(row["list"], night)
    return found


def listed_in_control(config: Config, as_of: int) -> pa.Table:
    """Return HOLDOUT_EXPOSURES of the nights before ``as_of``, as far back as a contact holds anybody back."""
    eligibility, parts = config.eligibility, [HOLDOUT_EXPOSURES.empty_table()]
    looks = [cap.within for cap in eligibility.contact_caps]
    looks += [] if eligibility.recent_contact is None else [eligibility.recent_contact]
    for folder in contacted_lists(Path(config.out)) if looks else []:
        # Most nights are older than any contact that still counts: their files are not opened. Names have no fractions.
        if before(np.array(night_instant(config, folder) + max(looks) + DAY), as_of):
            continue
        for file in sorted((folder / LISTS).glob("*__*.parquet")):
            rows = pq.read_table(file, columns=[*HOLDOUT_EXPOSURES.names, "group"], partitioning=None)
            rows = (
                rows.filter(pc.equal(rows["group"], "control")).select(HOLDOUT_EXPOSURES.names).cast(HOLDOUT_EXPOSURES)
            )
            night = rows["as_of"].to_numpy()
            parts.append(rows.filter(before(night, as_of) & in_window(night, as_of, max(looks))))
    return pa.concat_tables(parts)
