"""What a night looks at before it is published: its sources before scoring, its scores after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cvj_ml.commands.measure import newest_matured
from cvj_ml.customers import Naming, People
from cvj_ml.gates.drift import drift
from cvj_ml.gates.preflight import Activity, activity, matched, preflight
from cvj_ml.gates.verdicts import Earlier, GateVerdict
from cvj_ml.inputs import Histories
from cvj_ml.measurement.outcomes import Observation, quality
from cvj_ml.models.drift_profile.distributions import DriftCounts
from cvj_ml.models.predictor import Predictor
from cvj_ml.night.layout import NightFolder, nights
from cvj_ml.windows import before, to_microseconds

OBSERVED = "observed"
"""The key of a night's manifest under which the next night finds what to compare with."""


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """One night's gates: what its sources brought, and the last published night before it."""

    histories: Histories
    as_of: int
    found: Mapping[str, Activity]
    earlier: Earlier | None
    naming: Mapping[str, Naming]

    @classmethod
    def of(cls, histories: Histories, as_of: int, people: People | None) -> Gatekeeper:
        """Look at the sources, and for the newest published night before this instant."""
        earlier = earlier_night(Path(histories.config.out), as_of)
        found = activity(histories.store, as_of, earlier.as_of if earlier else None)
        return cls(histories, as_of, found, earlier, people.naming if people else {})

    def before_scoring(self, predictor: Predictor) -> list[GateVerdict]:
        """Evaluate the sources and the model's age."""
        cut = predictor.drift.cut if predictor.drift else None
        spec, store = self.histories.config.gates, self.histories.store
        evaluated = [matched(spec, name, one, self.earlier) for name, one in self.naming.items()]
        return preflight(spec, store, self.found, self.earlier, cut, self.as_of) + evaluated

    def quality(self, model_version: str) -> list[GateVerdict]:
        """Evaluate past nights whose horizon is over by tonight; ``model_version`` is that of tonight's model."""
        config, histories, spec = self.histories.config, self.histories, self.histories.config.gates.quality
        if spec.warn is None and spec.fail is None:
            return []
        observation = Observation(
            histories.visible.journey,
            self.as_of,
            histories.store.arrival_delay,
        )
        lists, listed = newest_matured(config, observation)
        return quality(
            spec, lists, listed, observation, histories.engine(), model_version, config.measure.min_converted
        )

    def after_scoring(self, predictor: Predictor, counts: DriftCounts) -> list[GateVerdict]:
        """Evaluate the customers, the scores, and the drift of both; counts are those of all blocks."""
        return drift(self.histories.config.gates, predictor, counts, self.earlier)

    def observed(self, customers: int) -> dict[str, Any]:
        """Return what the next night compares itself with; it belongs into the manifest, under ``observed``."""
        return {
            "rows": {name: one.visible for name, one in self.found.items()},
            "columns": {table: dict(columns) for table, columns in self.histories.store.columns.items()},
            "customers": customers,
            "people": {name: asdict(one) for name, one in self.naming.items()},
        }


def earlier_night(out: Path, as_of: int) -> Earlier | None:
    """Return what the newest published night before an instant observed; of several for one date the youngest.

    A night of the same instant is not looked at, so a night that is made again meets the same gates. One that cannot be
    read is passed over: `cvj-ml verify` tells of it.
    """
    for of_date in nights(out, newest_first=True):
        found = [night for folder in of_date if (night := _observed(folder)) is not None]
        found = [night for night in found if before(np.array([night[1].as_of]), as_of).all()]
        if found:
            return max(found, key=lambda night: night[0])[1]
    return None


def _observed(folder: NightFolder) -> tuple[float, Earlier] | None:
    """Return when a night was made, and what it observed; None for a night that is torn, damaged or too old to say."""
    if not folder.finished:
        return None
    try:
        manifest, started = folder.manifest(), float(folder.run()["started"])
        instant, seen = datetime.fromisoformat(manifest["as_of"]), manifest[OBSERVED]
        night = Earlier(
            instant.date().isoformat(),
            to_microseconds(instant),
            seen["rows"],
            seen["columns"],
            int(seen["customers"]),
            {name: Naming(**one) for name, one in seen.get("people", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return started, night
