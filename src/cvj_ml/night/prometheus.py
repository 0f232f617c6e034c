"""The metrics of the last run, in Prometheus's text format, for a collector of text files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cvj_ml.night.layout import replace_file
from cvj_ml.night.timings import Stations
from cvj_ml.run import peak_memory

FILE = "metrics.prom"
_LAST_SUCCESS = "cvj_ml_night_last_success_timestamp_seconds"
_READABLE_BY_ALL = 0o644
_LEVELS = {"pass": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric with a value for each combination of labels."""

    name: str
    help: str
    values: Iterable[tuple[Mapping[str, str], float]]


def write_metrics(out: Path, use: str, run: Stations, exit_code: int) -> None:
    """Write ``<out>/metrics.prom`` whole, after a failed run, too: no customer is in it, so everybody may read it."""
    file = out / FILE
    replace_file(file, as_text(gauges(use, run, exit_code, last_success(file))), _READABLE_BY_ALL)


def gauges(use: str, run: Stations, exit_code: int, before: float | None) -> list[Gauge]:
    """Return the metrics of a run; ``before`` is when the last good one ended."""
    us = {"use": use}
    found = [
        Gauge("cvj_ml_night_exit_code", "Exit code of the last run.", [(us, exit_code)]),
        Gauge("cvj_ml_night_last_run_timestamp_seconds", "When the last run ended.", [(us, time.time())]),
        Gauge(
            _LAST_SUCCESS,
            "When the last run that published its night ended.",
            [(us, moment)] if (moment := before if exit_code else time.time()) is not None else [],
        ),
        Gauge("cvj_ml_night_duration_seconds", "Wall time of the last run.", [(us, run.elapsed)]),
        Gauge("cvj_ml_night_peak_memory_bytes", "Most memory that the last run held.", [(us, peak_memory())]),
        Gauge("cvj_ml_night_warnings", "Warnings of the last run.", [(us, run.warnings)]),
        Gauge("cvj_ml_night_published", "Nights that the last run published or found.", [(us, len(run.nights))]),
        Gauge(
            "cvj_ml_night_station_duration_seconds",
            "Wall time of each station of the last run.",
            [({**us, "station": title}, seconds) for title, seconds in run.seconds.items()],
        ),
        Gauge(
            "cvj_ml_night_gate_level",
            "What each gate said of the last night of the run: 0 pass, 1 warn, 2 fail.",
            [({**us, "gate": one.name}, _LEVELS[one.level]) for one in run.verdicts],
        ),
        Gauge(
            "cvj_ml_night_gate_value",
            "What each gate found.",
            [({**us, "gate": one.name}, one.value) for one in run.verdicts if one.value is not None],
        ),
        Gauge(
            "cvj_ml_night_gate_limit",
            "The limit that each gate passed over, or the next one.",
            [({**us, "gate": one.name}, one.limit) for one in run.verdicts if one.limit is not None],
        ),
    ]
    if not run.nights:
        return found
    night = run.nights[-1]
    return [
        *found,
        Gauge(
            "cvj_ml_night_as_of_timestamp_seconds",
            "The instant that the last night of the run asks about.",
            [(us, datetime.fromisoformat(night["instant"]).timestamp())],
        ),
        Gauge("cvj_ml_night_customers", "Customers scored.", [(us, night["customers"])]),
        Gauge(
            "cvj_ml_night_rows",
            "Rows of the touchpoint sources by what became of them.",
            [({**us, "outcome": outcome}, count) for outcome, count in night["rows"].items() if outcome != "rows_in"],
        ),
        Gauge(
            "cvj_ml_night_people_rows",
            "Rows of suppression, consent and contact by whether they name a customer of the log.",
            [
                ({**us, "table": name, "names": whom}, count)
                for name, one in night["people"].items()
                for whom, count in (("customer", one["rows"] - one["nobody"]), ("nobody", one["nobody"]))
            ],
        ),
        Gauge(
            "cvj_ml_night_listed",
            "Customers on each list, control group included.",
            [({**us, "list": name}, count) for name, count in night["lists"].items()],
        ),
        Gauge(
            "cvj_ml_night_model_info",
            "The model that scored the night; 1 always.",
            [({**us, "model_version": night["model_version"], "source": night["model_source"]}, 1)],
        ),
    ]


def as_text(metrics: Iterable[Gauge]) -> str:
    """Return metrics in the text format, version 0.0.4; those without a value are left out."""
    lines = []
    for metric in metrics:
        samples = [f"{metric.name}{{{_labels(labels)}}} {float(value)!r}" for labels, value in metric.values]
        if samples:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge", *samples]
    return "\n".join(lines) + "\n"


def last_success(file: Path) -> float | None:
    """Return when the last good run ended, by the metrics of the run before."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{_LAST_SUCCESS}\{{.*\}} (\S+)$", text, flags=re.MULTILINE)
    return float(found[1]) if found else None


def _labels(labels: Mapping[str, str]) -> str:
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    return ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())
