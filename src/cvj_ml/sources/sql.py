"""Quoting for DuckDB, and connections with the engine's settings."""

from __future__ import annotations

from pathlib import Path

import duckdb

from cvj_ml.config import Config


def identifier(name: str) -> str:
    """Return a quoted column or table name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """Return a quoted text."""
    return "'" + str(text).replace("'", "''") + "'"


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
