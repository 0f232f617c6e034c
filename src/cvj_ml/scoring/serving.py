"""Scores for tools that know neither configurations nor stores: from a frame of rows to SCORES."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import DataError
from cvj_ml.histories import Block, Column, Text
from cvj_ml.models.bundle.bundle import Bundle
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.scoring.frames import (
    ATTRIBUTES,
    HEADING,
    ROWS,
    TABLE,
    TOUCHPOINTS,
    attribute_columns,
    flat,
    frame_customers,
    tables_of,
    touchpoint_columns,
)
from cvj_ml.scoring.parts import work_off
from cvj_ml.scoring.scores_table import merge, score_block, scores_contract
from cvj_ml.store import ingest
from cvj_ml.windows import NEVER, before, parse_as_of, to_datetime

# One customer is asked about oftener than a million; the number changes no score.
_ROWS_PER_BUCKET = 1 << 20


@dataclass(frozen=True, slots=True)
class Interface:
    """What a model takes and gives: the columns of a frame, and simulated customers that it scores.

    ``required`` are the columns without which it answers nothing, ``optional`` may be there; ``example`` is a frame to
    be asked about at ``as_of``; ``scores`` has the columns and types of SCORES and no row.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    example: pd.DataFrame
    as_of: str
    scores: pd.DataFrame


def interface_of(bundle: Bundle) -> Interface:
    """Describe what a bundle's model takes and gives, with customers of its canary as the example."""
    definition = bundle.predictor.definition
    touchpoints, kinds = touchpoint_columns(definition)
    attributes = attribute_columns(definition)
    required = tuple(dict.fromkeys((*((TABLE,) if attributes else ()), *touchpoints, *attributes)))
    optional = tuple(name for name in (TABLE, *kinds, ROWS) if name not in required)
    example = _example(bundle, ("customer_id", TABLE, *required))
    as_of = to_datetime(bundle.canary.as_of, definition.zone).isoformat()
    return Interface(required, optional, example, as_of, _schema(bundle).empty_table().to_pandas())


def score_frame(bundle: Bundle, frame: pd.DataFrame, as_of: str) -> pd.DataFrame:
    """Return the SCORES of a frame's customers, to the last bit those of a night over the same rows.

    A frame with a row a customer is answered row by row, empty for who has no touchpoint before ``as_of``. Naive
    times are UTC. The rows go through the ingest of any source, and none may be refused. Raises DataError with every
    fault at once.
    """
    definition = bundle.predictor.definition
    instant = parse_as_of(as_of, definition.zone)
    rows = flat(frame)
    if ROWS not in frame.columns:
        scores = _scores(bundle, rows, instant)
    else:
        silent = not len(rows) or (TABLE in rows.columns and (rows[TABLE] == ATTRIBUTES).all())
        found = _schema(bundle).empty_table() if silent else _scores(bundle, rows, instant)
        scores = _row_by_row(found, frame_customers(frame), instant)
    as_frame: pd.DataFrame = scores.to_pandas()
    return as_frame


def _schema(bundle: Bundle) -> pa.Schema:
    return scores_contract(bundle.predictor.definition, bundle.predictor.effects).schema


def _scores(bundle: Bundle, rows: pd.DataFrame, instant: int) -> pa.Table:
    """Return the SCORES of whoever has rows, by the way that a night takes."""
    definition = bundle.predictor.definition
    tables = tables_of(definition, rows)
    with tempfile.TemporaryDirectory() as folder:
        engine = LocalEngine(ingest(_configuration(definition, tables, Path(folder))))
        if ATTRIBUTES in tables:
            _require_attributes(engine.map(_without_attributes))
        parts = work_off(
            engine,
            Path(folder, "out", "work"),
            lambda block: score_block(bundle.predictor, block, instant, bundle.version),
        )
        path = Path(folder, "scores.parquet")
        merge(parts, {path: _schema(bundle)})
        return pq.read_table(path, partitioning=None)


def _row_by_row(scores: pa.Table, customers: Sequence[str], as_of: int) -> pa.Table:
    """Return the scores of these customers in this order; null but for who and when where somebody has none."""
    position = {name: i for i, name in enumerate(scores["customer_id"].to_pylist())}
    rows = scores.take(pa.array([position.get(name) for name in customers], pa.int64()))
    instants = pa.array(np.full(len(customers), as_of), pa.int64()).cast(scores.schema.field("as_of").type)
    rows = rows.set_column(0, scores.schema.field("customer_id"), pa.array(customers, pa.string()))
    return rows.set_column(1, scores.schema.field("as_of"), instants)


def _configuration(definition: ModelSpec, tables: Mapping[str, pa.Table], folder: Path) -> Config:
    """Write the tables and return the configuration under which a night would read them."""
    sources: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        pq.write_table(table, path)
        sources[name] = {"path": str(path), "times": "utc", "columns": {one: one for one in table.column_names}}
    if ATTRIBUTES in sources:
        sources[ATTRIBUTES]["static"] = definition.catalogue.vocabulary.static
        sources[ATTRIBUTES]["dates"] = definition.catalogue.vocabulary.dates
    return Config.model_validate(
        {
            "name": "model",
            "time_zone": definition.time_zone,
            "history_from": to_datetime(definition.observed_from, definition.zone).date(),
            "sources": {TOUCHPOINTS: sources[TOUCHPOINTS]},
            "attributes": sources.get(ATTRIBUTES),
            "journey": definition.journey.spec,
            "value_decimals": definition.catalogue.value_decimals,
            "outbound": definition.outbound,
            "drop_duplicates": definition.drop_duplicates,
            # A night counts what it cannot read; here, a row less would be another number that looks like an answer.
            "refused_share": 0,
            "engine": {"buckets": 1 + len(tables[TOUCHPOINTS]) // _ROWS_PER_BUCKET},
            "out": str(folder / "out"),
        }
    )


def _without_attributes(block: Block) -> tuple[int, int]:
    """Return how many customers of a block have no row of attributes, and how many there are."""
    rows = np.diff(block.attributes.offsets) if block.attributes else np.zeros(len(block))
    return int((rows == 0).sum()), len(block)


def _require_attributes(counts: Iterable[tuple[int, int]]) -> None:
    without, customers = (sum(numbers) for numbers in zip(*counts, strict=True))
    if without:
        raise DataError(
            f"{HEADING} {without} of {customers} customer(s) have no row of {ATTRIBUTES}, which the model uses. Add"
            f" them; for somebody of whom nothing is known, a row with the customer_id and known_at alone."
        )


def _example(bundle: Bundle, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of two of the canary's customers, as other tools write them: text, numbers and null."""
    definition, block = bundle.predictor.definition, bundle.canary.block
    points, table = block.touchpoints, block.attributes
    owner = points.owners()
    shown = np.bincount(owner[points.superseded_at != NEVER], minlength=len(block)) == 0
    shown &= before(points.visible_at[points.offsets[:-1]], bundle.canary.as_of)
    if table is not None:
        shown &= np.diff(table.offsets) == 1
    chosen = np.flatnonzero(shown)[:2]
    records: list[dict[str, object]] = []
    for i in chosen:
        name = block.customers[i]
        for row in range(points.offsets[i], points.offsets[i + 1]):
            found = {
                "occurred_at": _iso(points.occurred_at[row]),
                "known_at": _iso(points.visible_at[row]),
                "event": _cell(points.event, row),
                "channel": _cell(points.channel, row),
                "value": float(points.value[row] / definition.journey.minor_units) if points.has_value[row] else None,
                **{one: _cell(column, row) for one, column in points.properties.items()},
            }
            records.append({TABLE: TOUCHPOINTS, "customer_id": name, **found})
        if table is not None:
            row = table.offsets[i]
            known = {
                one: _date(column, row) if one in table.dates else _cell(column, row)
                for one, column in table.columns.items()
            }
            records.append({TABLE: ATTRIBUTES, "customer_id": name, "known_at": _iso(table.known_at[row]), **known})
    names = list(dict.fromkeys(columns))
    cells = [[record.get(name) for name in names] for record in records]
    # Of objects, since MLflow writes a null of a column of numbers as NaN, which is no JSON, and compares the names
    # with numbers, which those of pandas 3.0 refuse as text.
    return pd.DataFrame(cells, columns=pd.Index(names, dtype=object), dtype=object)


def _iso(instant: int) -> str:
    return to_datetime(int(instant), ZoneInfo("UTC")).isoformat()


def _date(column: Column, row: int) -> str | None:
    day = None if isinstance(column, Text) or np.isnan(column[row]) else int(column[row])
    return None if day is None else (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _cell(column: Column, row: int) -> object:
    if isinstance(column, Text):
        return None if column.codes[row] < 0 else column.values[column.codes[row]]
    return None if np.isnan(column[row]) else float(column[row])
