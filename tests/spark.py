"""Spark for tests: one session of two threads in the test's process, with a second attempt for every block."""

from __future__ import annotations

import shutil
from typing import Any

from tests.required import absent

MASTER = "local[2, 2]"
"""Two threads; a task that failed is tried once more, as on a cluster."""


def require_java() -> None:
    """Skip the test where there is no Java, or fail it where CVJ_ML_REQUIRE names java."""
    if shutil.which("java") is None:
        absent("java", "no java is installed (Debian: apt-get install default-jre-headless)")


def engine(**settings: Any) -> dict[str, Any]:
    """Return the engine section of a configuration that uses Spark."""
    return {"kind": "spark", "master": MASTER, "threads": 1, "buckets": 4, **settings}
