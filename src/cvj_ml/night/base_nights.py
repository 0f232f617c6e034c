"""The earlier nights that a night is compared with, and how many stood in each stage over the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cvj_ml.config import Config
from cvj_ml.customers import Identities
from cvj_ml.exports.export_files import EarlierExports
from cvj_ml.io import sha256_of
from cvj_ml.lists import BASES
from cvj_ml.lists.changes import NotComparable
from cvj_ml.lists.standing import Standing
from cvj_ml.night.layout import MANIFEST, NightFolder, instant_of
from cvj_ml.night.reading import published_lists
from cvj_ml.night.verifying import night_faults
from cvj_ml.night.writing import digest_of
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.windows import before, to_datetime, to_microseconds

TREND = 14
"""Nights of which the numbers by stage are told, tonight included."""


@dataclass(frozen=True, slots=True)
class BaseNight:
    """A published night with lists: where it is, when, what its manifest says, and why it cannot be compared with."""

    folder: NightFolder
    as_of: int
    manifest: Mapping[str, Any]
    problem: str | None = None

    def standing(self) -> Standing:
        """Return who stood where, as far as nobody was erased since."""
        lists = {
            one["list"]: pq.read_table(
                self.folder.list_file(one["list"]), columns=["customer_id", "group"], partitioning=None
            )
            for one in self.manifest["lists"]
        }
        erased = self.manifest.get("forgotten", {}).get("customers", 0)
        return Standing.of(self.as_of, StoredTable.at(self.folder.scores), lists, erased)


@dataclass(frozen=True, slots=True)
class BaseNights:
    """The base nights of a night, None where there is none, and the trend: earlier nights' numbers by stage."""

    nights: Mapping[str, BaseNight | None]
    trend: tuple[Mapping[str, Any], ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What they add to what a night is made from: another base, or one that was changed, makes another night."""
        return {"bases": {name: _fact(night) for name, night in self.nights.items()}, "trend": list(self.trend)}

    def standings(self, identities: Identities) -> dict[str, Standing | NotComparable]:
        """Read the base nights, people under the ids that they have now."""
        read = {name: _standing(name, night) for name, night in self.nights.items()}
        return {name: one.under(identities) if isinstance(one, Standing) else one for name, one in read.items()}

    def exports(self) -> EarlierExports | None:
        """Read the exports that adds and removes are told against; None where the last night is damaged or has none."""
        night = self.nights["last"]
        return None if night is None or night.problem == "damaged" else EarlierExports.of(night.folder.path)


def find_base_nights(config: Config, as_of: int) -> BaseNights:
    """Return the newest published night with lists before ``as_of``, and the newest at least 7 local days before it.

    A folder whose manifest cannot be read is no published night. Of several nights of one date the youngest counts.
    """
    earlier = list(_earlier(Path(config.out), as_of))
    week_ago = to_microseconds(to_datetime(as_of, config.zone) - timedelta(days=7))
    old = before(np.array([one.as_of for one in earlier], dtype=np.int64), week_ago + 1)  # exactly 7 days are enough
    last, week = earlier[:1], [one for one, enough in zip(earlier, old, strict=True) if enough][:1]
    journey = digest_of_journey(config)
    found = {
        name: _judged(night[0], journey) if night else None for name, night in zip(BASES, (last, week), strict=True)
    }
    same = [one.manifest for one in earlier if one.manifest.get("journey") == journey and "stages" in one.manifest]
    return BaseNights(found, tuple({"as_of": one["as_of"], "stages": one["stages"]} for one in same[: TREND - 1][::-1]))


def digest_of_journey(config: Config) -> str:
    """Return a digest of what stages mean: nights of two journeys cannot be compared."""
    spec = config.journey
    rules = [(stage.name, *(rule.model_dump(mode="json") for rule in stage.rules)) for stage in spec.stages]
    return digest_of(spec.dormant_after, spec.same_day, rules)


def _earlier(out: Path, as_of: int) -> Iterator[BaseNight]:
    """Yield the published nights with lists before an instant, the newest first."""
    found = []
    for path in published_lists(out):
        folder = NightFolder(path)
        try:
            manifest = folder.manifest()
            found.append(BaseNight(folder, instant_of(manifest), manifest))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    past = before(np.array([one.as_of for one in found], dtype=np.int64), as_of)
    yield from sorted((one for one, there in zip(found, past, strict=True) if there), key=lambda one: -one.as_of)


def _judged(night: BaseNight, journey: str) -> BaseNight:
    problem = "damaged" if night_faults(night.folder.path) else None
    if problem is None and night.manifest.get("journey") != journey:
        problem = "journey"
    return BaseNight(night.folder, night.as_of, night.manifest, problem)


def _fact(night: BaseNight | None) -> dict[str, Any]:
    if night is None:
        return {"problem": "no_night"}
    path = night.folder.path
    return {
        "night": f"{path.parent.name}/{path.name}",
        "manifest": sha256_of(path / MANIFEST),
        "problem": night.problem,
    }


def _standing(name: str, night: BaseNight | None) -> Standing | NotComparable:
    if night is None:
        return NotComparable(name, "no_night")
    return NotComparable(name, night.problem, night.as_of) if night.problem else night.standing()
