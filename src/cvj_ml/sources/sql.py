"""Quoting for DuckDB, and connections with the engine's settings."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

import duckdb

from cvj_ml.config import Config
from cvj_ml.errors import CvjError
from cvj_ml.sources.customer_ids import define_reading

_OPEN: WeakSet[duckdb.DuckDBPyConnection] = WeakSet()


def identifier(name: str) -> str:
    """Return a quoted column or table name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """Return a quoted text."""
    return "'" + str(text).replace("'", "''") + "'"


def as_named(path: str | Path) -> str:
    """Return a quoted path for DuckDB to read, which takes one with brackets or stars in it for a pattern."""
    return literal(glob.escape(str(path)))


@contextmanager
def within_memory(config: Config) -> Iterator[None]:
    """Say what to change where DuckDB's memory is too small for a step that cannot spill."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        require_room(error, "sources")
        limit = config.engine.memory_limit
        raise CvjError(
            f"engine.memory_limit: {limit or 'the memory of this machine'} is too little to read the sources; nothing"
            " was changed. Raise it, or read with fewer engine.threads, or into more engine.buckets."
        ) from None


def require_room(error: Exception, label: str) -> None:
    """Raise where DuckDB failed for want of room on the disk: that is no fault of the data."""
    # DuckDB lays aside on the disk what the memory does not hold, up to a share of what is free there.
    if "No space left on device" in str(error) or "max_temp_directory_size" in str(error):
        raise CvjError(f"{label}: there is no space left on the disk to read the rows. Free some space.") from None


def interrupt_queries() -> None:
    """End whatever the connections of this process are doing; may be called from any thread."""
    for connection in list(_OPEN):
        with suppress(duckdb.Error):  # it is closed
            connection.interrupt()


def connect(config: Config, spill: Path, *, in_order: bool = False) -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that spills into a folder, reads ids as configured and sees no Python variables.

    With ``in_order`` rows come as they stand in their files, which takes longer.
    """
    connection = duckdb.connect(config={"python_enable_replacements": False})
    _OPEN.add(connection)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET preserve_insertion_order = {str(in_order).lower()}")
    connection.execute(f"SET temp_directory = {literal(spill)}")
    define_reading(connection, config.ids.match)
    if config.engine.threads:
        connection.execute(f"SET threads = {config.engine.threads}")
    if config.engine.memory_limit:
        connection.execute(f"SET memory_limit = {literal(config.engine.memory_limit)}")
    return connection
