"""Quoting for DuckDB, and connections with the engine's settings.

Local wall time to UTC (in SQL) and back, by the same time zone rules as the rest of the package.

DuckDB's own conversion takes the later of two equal wall times; Python (and so ``windows.midnight``) the earlier.
The offsets come from ``zoneinfo``, so both agree to the microsecond. Times are int64 microseconds.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from weakref import WeakSet
from zoneinfo import ZoneInfo

import duckdb
import numpy as np

from cvj_ml.config import Config
from cvj_ml.errors import CvjError
from cvj_ml.store.customer_ids import define_reading
from cvj_ml.windows import Instants

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


def connect_duckdb(config: Config, spill: Path, *, in_order: bool = False) -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that spills into a folder, reads ids as configured and sees no Python variables.

    With ``in_order`` rows come as they stand in their files, which takes longer.
    """
    connection = duckdb.connect(config={"python_enable_replacements": False})
    _OPEN.add(connection)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")  # a bar of its own where Python runs no file
    connection.execute(f"SET preserve_insertion_order = {str(in_order).lower()}")
    connection.execute(f"SET temp_directory = {literal(spill)}")
    define_reading(connection, config.ids.match)
    if config.engine.threads:
        connection.execute(f"SET threads = {config.engine.threads}")
    if config.engine.memory_limit:
        connection.execute(f"SET memory_limit = {literal(config.engine.memory_limit)}")
    return connection


_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_utc(wall: str, zone: str) -> str:
    """Return SQL for the UTC instant of a local wall time.

    Of a wall time that happens twice it is the first; one that is skipped is read with the offset before the gap.
    """
    first, changes = _transitions(zone)
    offsets, starts = [first], []
    for instant, offset in changes:
        starts.append(instant + max(offsets[-1], offset))
        offsets.append(offset)
    return f"({wall} - {_choose(wall, starts, offsets)})"


def to_local(instant: str, zone: str) -> str:
    """Return SQL for the local wall time of a UTC instant, as ``to_wall`` has it."""
    first, changes = _transitions(zone)
    return f"({instant} + {_choose(instant, [at for at, _ in changes], [first, *(offset for _, offset in changes)])})"


def to_wall(instants: Instants, zone: str) -> Instants:
    """Return the local wall time of UTC instants."""
    first, changes = _transitions(zone)
    starts = np.array([at for at, _ in changes], dtype=np.int64)
    offsets = np.array([first, *(offset for _, offset in changes)], dtype=np.int64)
    return instants + offsets[np.searchsorted(starts, instants, side="right")]


def _choose(value: str, starts: Sequence[int], offsets: Sequence[int]) -> str:
    """Return a binary tree of CASE: few comparisons a row, and branches without rows cost nothing."""
    if not starts:
        return f"({offsets[0]})"
    middle = len(starts) // 2
    below = _choose(value, starts[:middle], offsets[: middle + 1])
    above = _choose(value, starts[middle + 1 :], offsets[middle + 1 :])
    return f"CASE WHEN {value} < {starts[middle]} THEN {below} ELSE {above} END"


@lru_cache(maxsize=16)
def _transitions(zone: str) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the first UTC offset and each (instant, new offset) from 1900 to 2100; rules are constant beyond."""
    rules = ZoneInfo(zone)

    def offset(instant: datetime) -> timedelta:
        return instant.astimezone(rules).utcoffset() or timedelta()

    found = []
    at, present = _FIRST, offset(_FIRST)
    while at < _LAST:
        following = at + timedelta(days=1)
        if (new := offset(following)) != present:
            low, high = at, following
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
                low, high = (middle, high) if offset(middle) == present else (low, middle)
            found.append(((high - _EPOCH) // _MICROSECOND, new // _MICROSECOND))
            present = new
        at = following
    return offset(_FIRST) // _MICROSECOND, tuple(found)


def written_instant(text: str) -> str:
    """Return SQL for the microseconds of ISO 8601 text, in UTC or on the wall of its zone; null for other text."""
    return f"CASE WHEN {has_offset(text)} THEN {with_offset(text)} ELSE {without_offset(text)} END"


def has_offset(text: str) -> str:
    """Return SQL for whether ISO 8601 text says its zone."""
    # A cast to TIMESTAMP drops an offset without a word, so text with one takes the other way.
    return f"regexp_matches(substr({text}, 11), '[^0-9:., Tt]')"


def with_offset(text: str) -> str:
    """Return SQL for the microseconds of ISO 8601 text that says its zone."""
    joined = rf"regexp_replace({text}, '\s+([+-]\d\d)(:?\d\d)?$', '\1\2')"  # the cast wants no blank before it
    return f"epoch_us(TRY_CAST({joined} AS TIMESTAMPTZ))"


def without_offset(text: str) -> str:
    """Return SQL for the microseconds of ISO 8601 text on the wall of its zone; it must not say one."""
    return f"CASE WHEN {text} SIMILAR TO '[0-9]{{4}}-.*' THEN epoch_us(TRY_CAST({text} AS TIMESTAMP)) END"
