"""A configuration around small files that a test writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cvj_ml.config import Config

JOURNEY = {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]}
ROLES = ["customer_id", "occurred_at", "event"]
DAYS = 24
"""How many days the random logs of ids and of members span."""


def day(number: int) -> str:
    """Noon of a day of these logs, as files write it."""
    return f"{np.datetime64('2024-02-01') + number}T12:00:00"


def instant(number: int) -> int:
    """The same as microseconds."""
    return int(np.datetime64(day(number), "us").astype(np.int64))


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """Return a function from settings to a Config whose paths are relative to ``tmp_path``."""

    def make(**settings: Any) -> Config:
        defaults = {"name": "test", "time_zone": "UTC", "history_from": "2024-01-01", "journey": JOURNEY, "out": "out"}
        return Config.model_validate(defaults | settings, context={"folder": tmp_path})

    return make


@pytest.fixture
def one_source(tmp_path: Path, configure: Callable[..., Config]) -> Callable[..., Config]:
    """Return a function from rows (a frame, or CSV text) and settings to a Config with one source ``log``."""

    def make(rows: pd.DataFrame | str, source: dict[str, Any] | None = None, **settings: Any) -> Config:
        name = "log.csv" if isinstance(rows, str) else "log.parquet"
        if isinstance(rows, str):
            (tmp_path / name).write_text(rows, encoding="utf-8")
        else:
            rows.to_parquet(tmp_path / name)
        return configure(sources={"log": {"path": name} | (source or {})}, **settings)

    return make
