"""The story of ``cvj-ml monitor``: published nights and what `measure` has found, looked at over time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cvj_ml.commands.measure import HISTORY
from cvj_ml.config import Config
from cvj_ml.errors import NightError, raise_all
from cvj_ml.gates.alerts import MonitoredNight, alerts
from cvj_ml.gates.verdicts import GateVerdict
from cvj_ml.night.layout import NightFolder, instant_of, nights
from cvj_ml.night.reading import published_nights
from cvj_ml.report.monitor_page import MonitorFacts
from cvj_ml.windows import to_datetime


@dataclass(frozen=True, slots=True)
class Monitored:
    """What there is to show, and the alerts among it, which say why the command ends as it does."""

    facts: MonitorFacts

    @property
    def failed(self) -> tuple[str, ...]:
        """What failed, in words."""
        return tuple(f"{one.name}: {one.message}" for one in self.facts.verdicts if one.level == "fail")


def monitor(config: Config) -> Monitored:
    """Read the newest published nights, one a day, and the history of `measure`; nothing is scored or published.

    NightError, with every fault, where no night is published or one cannot be read.
    """
    out = Path(config.out)
    found = past_nights(config)[-config.monitor.nights :]
    if not found:
        raise NightError(f"{out}: no night is published, so there is nothing to look at. `cvj-ml nightly` makes one.")
    file = out / HISTORY
    measured = pd.read_parquet(file, partitioning=None) if file.exists() else pd.DataFrame()
    verdicts = alerts(config.monitor, found, measured, config.measure.min_converted, config.journey.in_no_stage)
    names = ("", *config.journey.names)
    return Monitored(MonitorFacts(config.name, names, config.journey.in_no_stage, found, measured, verdicts))


def past_nights(config: Config) -> list[MonitoredNight]:
    """Return the published nights in order of time; of several for one date the current one, or the youngest."""
    out, found, faults = Path(config.out), list[MonitoredNight](), list[str]()
    for of_date in nights(out):
        if not any(one.finished for one in of_date):
            continue
        folder = NightFolder(published_nights(out, of_date[0].date)[0])
        try:
            found.append(_read(config, folder))
        except (OSError, ValueError, KeyError, TypeError):
            faults.append(f"{folder.path} (`cvj-ml verify` says more)")
    raise_all(NightError, "These nights cannot be read; go back to a copy of them, or remove them:", faults)
    return sorted(found, key=lambda one: one.as_of)


def _read(config: Config, folder: NightFolder) -> MonitoredNight:
    manifest, run = folder.manifest(), folder.run()
    as_of = instant_of(manifest)
    return MonitoredNight(
        to_datetime(as_of, config.zone).date().isoformat(),
        as_of,
        str(manifest["journey"]),
        str(manifest["model"]),
        {str(name): int(number) for name, number in manifest["stages"].items()},
        tuple(GateVerdict(**one) for one in run["gates"]),
    )
