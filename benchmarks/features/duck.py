"""The SQL contender: the fastest form found for DuckDB 2.

FILTER was not tried (known to be superlinear in the number of aggregates). Tried on 10 million touchpoints, not kept:
aggregation by (customer, ring) first and over the rings afterwards (a quarter slower); several counts packed into
one sum (no faster); counts by ring summed outwards (no faster); ids as ENUM (slower: the cast looks each text up).
For the panel: gaps computed once and mended where a late row was not visible yet (no faster: the aggregation costs
most). What helped: small integers for customers, events and channels; one pass of the cheapest aggregates;
no sum over BIGINT, which is a HUGEINT; for the panel, a table in the order of customers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.features.columns import GAP_WINDOWS, NAMES, SESSION_GAP, TREND, TRENDS, WINDOWS
from benchmarks.features.emission import Emission
from benchmarks.features.inputs import CHANNELS, DAY, EVENTS, SECOND

_RINGS = (*(WINDOWS[name] for name in ("7d", "30d")), 2 * TREND, *(WINDOWS[name] for name in ("90d", "365d")))
_RING_OF = {"7d": 0, "30d": 1, "90d": 3, "365d": 4, "all": 5}


def from_file(path: Path, instants: Sequence[int], emission: Emission) -> None:
    """Compute the features in one connection, one query for each instant."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        (kind,) = connection.execute(f"SELECT typeof(customer_id) FROM '{path}' LIMIT 1").fetchall()[0]
        ids = kind == "VARCHAR"
        if ids:
            connection.execute(
                "CREATE TABLE ids AS SELECT customer_id AS name, row_number() OVER ()::INTEGER AS customer"
                f" FROM (SELECT DISTINCT customer_id FROM '{path}')"
            )
        touchpoints = _touchpoints(path, ids)
        if len(instants) > 1:
            connection.execute(f"CREATE TABLE ordered AS {touchpoints} ORDER BY customer, t")
            touchpoints = "SELECT * FROM ordered"
        connection.execute("SET preserve_insertion_order = false")
        for as_of in instants:
            for batch in connection.sql(_query(touchpoints, as_of, ids)).to_arrow_reader(1 << 16):
                emission.rows += batch.num_rows
                if emission.folder:
                    emission.save(pa.Table.from_batches([batch]).append_column("as_of", [[as_of] * len(batch)]))


def _touchpoints(path: Path, ids: bool) -> str:
    def code(column: str, names: Sequence[str]) -> str:
        cases = " ".join(f"WHEN '{name}' THEN {i}" for i, name in enumerate(names))
        return f"CASE {column} {cases} END::TINYINT AS {column}"

    return (
        f"SELECT {'customer' if ids else 'customer_id AS customer'}, epoch_us(occurred_at) AS t,"
        f" epoch_us(greatest(occurred_at, known_at)) AS visible, {code('event', EVENTS)}, {code('channel', CHANNELS)},"
        f" value::INTEGER AS value FROM '{path}'{' JOIN ids ON customer_id = name' if ids else ''}"
    )


def _query(touchpoints: str, as_of: int, ids: bool) -> str:
    def ring(instant: str) -> str:
        cases = " ".join(f"WHEN {instant} >= {as_of - window} THEN {i}" for i, window in enumerate(_RINGS))
        return f"CASE {cases} ELSE {len(_RINGS)} END::TINYINT"

    # Active days by their first row: as_of is a midnight and windows are whole days, so all rows of a day share a ring.
    rows = (
        f"SELECT customer, t, event, channel, value, {ring('t')} AS ring,"
        f" CASE WHEN t0 IS NOT NULL THEN {ring('t0')} END AS gap_ring, ((t - t0) // {SECOND})::DOUBLE AS gap,"
        f" t0 IS NULL OR t - t0 > {SESSION_GAP} AS starts, t0 IS NULL OR t0 // {DAY} <> t // {DAY} AS new_day"
        f" FROM (SELECT *, lag(t) OVER (PARTITION BY customer ORDER BY t) AS t0"
        f" FROM ({touchpoints}) WHERE visible < {as_of})"
    )
    columns = ", ".join(f"({sql})::FLOAT AS {name}" for name, sql in zip(NAMES, _expressions(as_of), strict=True))
    query = f"SELECT customer AS customer_id, {columns} FROM ({rows}) GROUP BY customer"
    if ids:
        query = f"SELECT name AS customer_id, * EXCLUDE (customer_id) FROM ({query}) JOIN ids ON customer = customer_id"
    return query


def _expressions(as_of: int) -> Iterator[str]:
    """Yield SQL in the order of ``columns.NAMES``."""
    is_event = {name: f"event = {i}" for i, name in enumerate(EVENTS)}
    is_channel = {name: f"channel = {i}" for i, name in enumerate(CHANNELS)}
    others = {"touchpoints": "TRUE", "days": "new_day", "sessions": "starts"}
    counted = [*is_event.values(), *is_channel.values(), *others.values()]
    within = {name: "TRUE" if name == "all" else f"ring <= {number}" for name, number in _RING_OF.items()}
    for window in WINDOWS:
        for condition in counted:
            yield f"count_if({' AND '.join([condition, within[window]])})"
    for window in WINDOWS:
        value = "value" if window == "all" else f"CASE WHEN {within[window]} THEN value END"
        yield f"coalesce(sum({value}::DOUBLE), 0) / 100"
        yield f"sum({value}::DOUBLE) / 100 / count({value})"
        yield f"max({value}) / 100"
    for window in GAP_WINDOWS:
        gap = f"CASE WHEN gap_ring <= {_RING_OF[window]} THEN gap END"
        mean = f"sum({gap}) / count({gap})"
        yield f"{mean} / 86400"
        variance = f"sum({gap} * {gap}) / count({gap}) - ({mean}) * ({mean})"
        # Not greatest(0, …) alone: it passes over NULL.
        yield f"CASE WHEN count({gap}) > 0 THEN sqrt(greatest(0, {variance})) / 86400 END"
    for condition in is_event.values():
        yield f"({as_of} - max(CASE WHEN {condition} THEN t END)) / {DAY}"
    yield f"({as_of} - max(t)) / {DAY}"
    yield f"({as_of} - min(t)) / {DAY}"
    for condition in counted[: len(TRENDS)]:
        yield f"2 * count_if({condition} AND ring <= 1) - count_if({condition} AND ring <= 2)"
    # Of several touchpoints at the last instant none is the last: where they differ, a code of its own says so.
    for column, names in (("event", EVENTS), ("channel", CHANNELS)):
        highest, lowest = f"max(t * 32 + {column}::BIGINT) % 32", f"31 - max(t * 32 + 31 - {column}::BIGINT) % 32"
        yield f"CASE WHEN {highest} = {lowest} THEN {highest} ELSE {len(names) + 1} END"
