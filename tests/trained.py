"""A model trained on a few simulated customers, made once and shared by the tests that need one.

A test module asks for the fixture ``trained`` with ``pytest_plugins = ["tests.fixtures"]``.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from cvj_ml import cli
from cvj_ml.config import Config, load_config
from cvj_ml.windows import parse_as_of

AS_OF = "2025-06-24"
CUSTOMERS = 120
SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "time_zone": "UTC",
    "history_from": "2024-01-01",
    "sources": {
        "touchpoints": {
            "path": "touchpoints.parquet",
            "times": "utc",
            "columns": {
                name: name
                for name in [
                    "customer_id",
                    "occurred_at",
                    "known_at",
                    "touchpoint_id",
                    "event",
                    "channel",
                    "value",
                    "rating",
                ]
            },
            "arrival_delay": "2d",
        }
    },
    "outbound": ["email_sent", "ad_impression"],
    "attributes": {
        "path": "customers.parquet",
        "times": "utc",
        "columns": {name: name for name in ("customer_id", "known_at", "country", "age", "plan")},
    },
    "journey": "cvj8",
    "horizons": ["7d", "30d"],
    # So few customers would teach next to nothing if each name and rate had to rest on twenty.
    "model": {"max_rows": 8000, "min_customers": 5},
    "lists": [
        {"from": "Convert", "to": "Ascend", "horizon": "30d"},
        {"from": "Advocate", "to": "Promote", "horizon": "30d", "capacity": 5},
    ],
    "stage_value": {"Ascend": 120},
    "control": {"share": 0.2, "salt": "tiny"},
    "engine": {"threads": 1, "buckets": 4},
}


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Trained:
    """A folder with data and ``tiny.yaml``, an empty registry but for one champion, and the bundle of that."""

    folder: Path
    bundle: Path
    training: Outcome

    @property
    def config_file(self) -> Path:
        return self.folder / "tiny.yaml"

    def config(self, file: Path | None = None) -> Config:
        return load_config(file or self.config_file)

    @property
    def as_of(self) -> int:
        return parse_as_of(AS_OF, self.config().zone)

    def variant(self, folder: Path, **settings: Any) -> Path:
        """Write a configuration that publishes into another folder, on the same data and registry."""
        # Several processes write here at once, and folders of one name are different ones.
        file = self.folder / f"{folder.name}-{os.getpid()}-{len(list(self.folder.glob('*.yaml')))}.yaml"
        registry = {"tracking_uri": f"sqlite:///{self.folder / 'mlflow.db'}"}
        file.write_text(yaml.safe_dump({**SETTINGS, "out": str(folder), "mlflow": registry, **settings}))
        return file


def call(*arguments: object) -> Outcome:
    """Run a command in this process, as the console script does; nothing is a terminal."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["cvj-ml", *map(str, arguments)]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    return Outcome(int(code), out.getvalue(), err.getvalue())


def train_once(root: Path) -> Trained:
    """Return the model trained in a folder that all test processes share; the first one trains it."""
    folder = root / "trained"
    with (root / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _train(folder)
    return Trained(folder, folder / "bundle", Outcome(**json.loads((folder / "done").read_text())))


def _train(folder: Path) -> None:
    from cvj_ml.simulate import simulate

    folder.mkdir(parents=True)
    simulate(customers=CUSTOMERS, seed=4).write(folder)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    training = call("train", folder / "tiny.yaml", "--as-of", AS_OF, "--json")
    assert training.code == 0, training.err
    exported = call("models", "export", folder / "tiny.yaml", 1, folder / "bundle")
    assert exported.code == 0, exported.err
    (folder / "done").write_text(json.dumps(asdict(training)))
