"""What a run does and how long each part of it takes: for run.json, the metrics and the summary."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from cvj_ml.engines import Progress
from cvj_ml.gates.verdicts import GateVerdict, accept, require
from cvj_ml.night.champion import Champion
from cvj_ml.run import Watcher, peak_memory

_LIBRARIES = ("cvj-ml", "duckdb", "lightgbm", "mlflow", "numba", "numpy", "pandas", "pyarrow", "scikit-learn")


class Stations:
    """A watcher that passes everything on, and keeps the seconds of each step, the verdicts, and the nights made.

    ``night`` is the one that is being made, ``verdicts`` are those of its gates, ``nights`` say what became of those
    before it. ``accepted`` are failures of gates that a person accepts, by name; ``watched``: a person looks at what
    is made, so that little data only warns.
    """

    def __init__(self, watcher: Watcher, accepted: Collection[str] = (), *, watched: bool = False) -> None:
        self._watcher = watcher
        self._accepted = accepted
        self.watched = watched
        self._began = time.perf_counter()
        self.run_id = uuid.uuid4().hex
        self.started = time.time()
        self.seconds: dict[str, float] = {}
        self.station = ""
        self.night = ""
        self.nights: list[dict[str, Any]] = []
        self.verdicts: list[GateVerdict] = []
        self.warnings = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def say(self, message: str, **numbers: float | None) -> None:
        """Pass a line on."""
        self.warnings += message.startswith("warning: ")
        self._watcher.say(message, **numbers)

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Pass a step on; one that comes again, for another night of the run, adds to its seconds."""
        self.station, began = title, time.perf_counter()
        try:
            with self._watcher.step(title) as progress:
                yield progress
        finally:
            self.seconds[title] = self.seconds.get(title, 0.0) + time.perf_counter() - began

    def begin(self, night: str) -> None:
        """Go on to a night."""
        self.night, self.verdicts = night, []

    def enforce(self, verdicts: list[GateVerdict]) -> None:
        """Keep what gates say and tell what warns; DataError or GateError with all that failed."""
        verdicts = accept(verdicts, self._accepted, watched=self.watched)
        self.verdicts += verdicts
        for one in verdicts:
            if one.level == "warn":
                self.say(f"warning: {one.name}: {one.message}", value=one.value, limit=one.limit)
        require(verdicts)

    def document(self, champion: Champion) -> dict[str, Any]:
        """Return what run.json holds: everything about the run that is not the same in the next one."""
        return {
            "run_id": self.run_id,
            "started": self.started,
            "seconds": round(self.elapsed, 3),
            "stations": {title: round(seconds, 3) for title, seconds in self.seconds.items()},
            "gates": [one.as_json() for one in self.verdicts],
            "peak_memory_bytes": peak_memory(),
            "host": platform.node(),
            "versions": {"python": platform.python_version(), **library_versions()},
            "model": {
                "version": champion.version,
                "run_id": champion.run_id,
                "digest": champion.bundle.digest,
                "source": champion.source,
            },
        }


def library_versions() -> dict[str, str]:
    """Return the versions of what computes a night."""
    return {name: version for name in _LIBRARIES if (version := _version_of(name))}


def package_version() -> str:
    """Return the version of this package: another one may write other bytes."""
    return _version_of("cvj-ml") or "unknown"


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
