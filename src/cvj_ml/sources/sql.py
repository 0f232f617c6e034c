"""Quoting for DuckDB, and connections with the engine's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from cvj_ml.config import Config
from cvj_ml.errors import CvjError


def identifier(name: str) -> str:
    """Return a quoted column or table name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """Return a quoted text."""
    return "'" + str(text).replace("'", "''") + "'"


@contextmanager
def within_memory(config: Config) -> Iterator[None]:
    """Say what to change where DuckDB's memory is too small for a step that cannot spill."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        limit = config.engine.memory_limit
        raise CvjError(
            f"engine.memory_limit: {limit or 'the memory of this machine'} is too little to read the sources; nothing"
            " was changed. Raise it, or read with fewer engine.threads, or into more engine.buckets."
        ) from None


def require_room(error: Exception, label: str) -> None:
    """Raise where DuckDB failed for want of room on the disk: that is no fault of the data."""
    if "No space left on device" in str(error):
        raise CvjError(f"{label}: there is no space left on the disk to read the rows. Free some space.") from None


def connect(config: Config, spill: Path) -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that spills into a folder and never looks at Python variables."""
    connection = duckdb.connect(config={"python_enable_replacements": False})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET temp_directory = {literal(spill)}")
    if config.engine.threads:
        connection.execute(f"SET threads = {config.engine.threads}")
    if config.engine.memory_limit:
        connection.execute(f"SET memory_limit = {literal(config.engine.memory_limit)}")
    return connection
