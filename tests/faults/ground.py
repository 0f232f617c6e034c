"""Where faults strike: a copy of data and an output folder with a good night, and what has to hold afterwards."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tests.faults.warmed import Running, Warmed
from tests.trained import AS_OF, CUSTOMERS, SETTINGS, Outcome, Trained

from cvj_ml.night.reading import current_night
from cvj_ml.ownership import MARKER

LAST = "2025-06-23"
"""The good night, the day before the one that the faults strike."""

CANARY = "canary-4711@example.org"
"""An id in rows that faulty tables hold besides; no message may show it."""

_OWN = {MARKER, ".lock", "metrics.prom", "models", "store", "quarantine", "work"}


@dataclass
class Ground:
    """Data in a folder, a configuration, and an output folder in which the night of ``LAST`` is current."""

    folder: Path
    warmed: Warmed
    settings: dict[str, Any]

    @property
    def touchpoints(self) -> Path:
        """The table of touchpoints."""
        return Path(self.folder, self.settings["sources"]["touchpoints"]["path"])

    @property
    def out(self) -> Path:
        """The output folder."""
        return Path(self.folder, self.settings["out"])

    @property
    def config(self) -> Path:
        """The configuration file, written as the settings are now."""
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        return file

    def start(self, *arguments: object, command: str = "nightly", as_of: str = AS_OF, **limits: Any) -> Running:
        """Start a command."""
        return self.warmed.start(command, self.config, "--as-of", as_of, *arguments, **limits)

    def night(self, *arguments: object, as_of: str = AS_OF, **limits: Any) -> Outcome:
        """Run the night that is struck."""
        return self.start("--json", *arguments, as_of=as_of, **limits).wait()

    def standing(self) -> dict[str, bytes]:
        """Return every byte of the published nights, and the pointer."""
        files = [*self.out.glob("as_of=*/**/*"), self.out / "CURRENT.json"]
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    def stands(self, night: str = LAST) -> None:
        """The current night is this one, and whole; nothing half-done lies about."""
        current = current_night(self.out)
        assert current is not None and current.parent.name == f"as_of={night}"
        verified = self.warmed.call("verify", self.out)
        assert verified.code == 0, verified.err
        assert not list(self.out.rglob(".sta*"))
        assert {path.name for path in self.out.iterdir()} <= _OWN | {"CURRENT.json"} | {
            path.name for path in self.out.glob("as_of=*")
        }

    def refuses(self, code: int, *words: str, ran: Outcome | None = None) -> str:
        """The night ends with this code and these words, and the last one stands as it was to the byte."""
        before = self.standing()
        ran = ran or self.night()
        assert (ran.code, ran.out) == (code, ""), ran.err or ran.out
        told = discreet(ran)
        assert f"failed: exit code {code} after" in told and f"; {LAST} is the current night." in told, told
        error = told[told.index("error: ") :]
        for word in words:
            assert word in error, error
        assert self.standing() == before
        self.stands()
        return error

    def publishes(self, ran: Outcome | None = None) -> dict[str, Any]:
        """The night is published and current, is whole, and its counts add up."""
        ran = ran or self.night()
        assert ran.code == 0, ran.err
        discreet(ran)
        (night,) = json.loads(ran.out)["nights"]
        assert night["current"] and night["as_of"] == AS_OF
        self.stands(AS_OF)
        rows = dict(night["rows"])
        assert rows.pop("rows_in") == sum(rows.values()) > 0
        found: dict[str, Any] = night
        return found

    def scores(self, night: dict[str, Any]) -> pd.DataFrame:
        """Return the scores of a night by customer."""
        return pd.read_parquet(Path(night["night"], "scores", "scores.parquet")).set_index("customer_id")


def discreet(ran: Outcome) -> str:
    """Return what was told on stderr; it shows no traceback and no customer."""
    for text in (ran.err, ran.out):
        assert "Traceback" not in text and "unforeseen" not in text, text
        assert CANARY not in text and not re.search(r"\bc\d{6}\b", text), text
    return ran.err


def lay(folder: Path, trained: Trained, warmed: Warmed, **settings: Any) -> Ground:
    """Lay the data and the settings of the trained model into a folder, and publish the night of ``LAST``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("touchpoints.parquet", "customers.parquet"):
        shutil.copy(trained.folder / name, folder)
    registry = {"tracking_uri": f"sqlite:///{trained.folder / 'mlflow.db'}"}
    ground = Ground(folder, warmed, {**json.loads(json.dumps(SETTINGS)), "out": "out", "mlflow": registry, **settings})
    ran = ground.night(as_of=LAST)
    assert ran.code == 0, ran.err
    (night,) = json.loads(ran.out)["nights"]
    assert night["customers"] == CUSTOMERS
    return ground


def copy(ground: Ground, folder: Path) -> Ground:
    """Return a copy that a test may damage."""
    shutil.copytree(ground.folder, folder, dirs_exist_ok=True)
    return Ground(folder, ground.warmed, json.loads(json.dumps(ground.settings)))
