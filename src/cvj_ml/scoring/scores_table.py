"""SCORES as a table: a block's rows, all blocks' rows merged on disk by customer_id, and read back by column and row.

Memory holds the ids, their order, and one piece of the result: each part is sorted, so the rows that a piece takes
from it stand side by side. Row groups have a fixed size, so the bytes do not depend on how the rows were spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cvj_ml import schemas
from cvj_ml.config import DAY
from cvj_ml.histories import Block
from cvj_ml.journey import KEPT, PURCHASE, Outcome, in_scores
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.models.segment_levels import SEGMENTS, Rhythm
from cvj_ml.models.uplift.list_effect import ListEffect, column_of
from cvj_ml.models.value.value import median_time
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.scoring.parts import read_part
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import NEVER

_F64 = npt.NDArray[np.float64]

_AMOUNT_COLUMNS = ("value_{}d", "value_{}d_low", "value_{}d_high", "purchases_{}d", "refunds_{}d")
"""Where the journey says what is bought; refunds where it says what is given back."""


def scores_contract(definition: ModelSpec, effects: Sequence[ListEffect] = ()) -> schemas.Contract:
    """Return the contract of the SCORES that a model of this definition gives; effects: those that it knows."""
    days = [horizon // DAY for horizon in definition.horizons]
    slugs = [stage.slug for stage in definition.journey.stages]
    reach = {slugs[i]: days for i in definition.journey.observable[1:]}
    outcomes = [in_scores(one.name) for one in definition.outcomes]
    value = definition.purchases
    amounts = [name for name in _AMOUNT_COLUMNS if value and (name != "refunds_{}d" or value.refunds)]
    return schemas.scores(slugs, reach, days, outcomes, amounts, [column_of(one.name) for one in effects])


def score_block(predictor: Predictor, block: Block, as_of: int, model_version: str) -> pa.Table:
    """Score a block's customers at one instant; rows sorted by customer."""
    return as_table(predictor, block, predictor.answer(block, as_of), as_of, model_version)


def as_table(predictor: Predictor, block: Block, answers: Predictions, as_of: int, model_version: str) -> pa.Table:
    """Return a model's answers as rows of SCORES."""
    definition = predictor.definition
    customers = [block.customers[i] for i in answers.snapshots.customer]
    stages = definition.journey.stages
    names = pa.array([*definition.journey.names, None], pa.string())
    predicted = np.where(answers.stage < 0, -1, np.argmax(np.nan_to_num(answers.true_stage), axis=1))
    days = [horizon // DAY for horizon in definition.horizons]
    columns: dict[str, object] = {
        "customer_id": customers,
        "as_of": np.full(len(customers), as_of).astype("datetime64[us]"),
        "stage": names.take(pa.array(answers.stage.astype(np.int64) % len(names))),
        "days_in_stage": answers.days_in_stage,
        "dormant": answers.dormant,
        "active": pa.nulls(len(customers), pa.bool_()),
        "stage_predicted": names.take(pa.array(predicted % len(names))),
        "stage_probability": answers.true_stage.max(axis=1),
    }
    for i, stage in enumerate(stages):
        columns[f"p_stage_{stage.slug}"] = answers.true_stage[:, i]
    for h, day in enumerate(days):
        columns[f"p_return_{day}d"] = answers.probability[:, 0, h]
    advance = _advance(definition, answers)
    for h, day in enumerate(days):
        columns[f"p_advance_{day}d"] = advance[:, h]
    for i in definition.journey.observable[1:]:
        for h, day in enumerate(days):
            columns[f"p_reach_{stages[i].slug}_{day}d"] = answers.probability[:, 1 + i, h]
    for one in definition.outcomes:
        p = answers.outcomes.get(one.name)
        told = np.full((len(customers), len(days)), np.nan) if p is None else 1 - p if one.name == KEPT else p
        for h, day in enumerate(days):
            columns[f"p_{in_scores(one.name)}_{day}d"] = told[:, h]
    columns |= _amounts(definition, answers, as_of)
    columns["segment"] = pa.nulls(len(customers), pa.string())
    if (levels := predictor.segments) is not None:
        active = rhythm_of(definition, block, answers.snapshots).active(levels.usual_gap[answers.stage + 1])
        tenure = answers.x[:, definition.catalogue.names.index("tenure")].astype(np.float64)
        numbers = {name: one for name, one in columns.items() if name.startswith(("p_", "value_"))}
        fallen = levels.segment(cast(Mapping[str, _F64], numbers), answers.dormant, active, tenure)
        columns |= {"active": active, "segment": pa.array(SEGMENTS).take(pa.array(fallen))}
    for effect in predictor.effects:
        stood = names.to_numpy(zero_copy_only=False)[answers.stage]
        published = np.full(len(customers), np.nan)
        for name, column in effect.published.items():
            published = np.where(stood == name, cast(_F64, columns[column]), published)
        columns[column_of(effect.name)] = effect.predict(answers.x, published)
    columns["low_evidence"] = _low_evidence(predictor, answers)
    columns["model_version"] = pa.repeat(model_version, len(customers))
    schema = scores_contract(definition, predictor.effects).schema
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values, schema.field(name).type, from_pandas=True)
        for name, values in columns.items()
    }
    return pa.table(arrays, schema)


def rhythm_of(definition: ModelSpec, block: Block, snapshots: Snapshots) -> Rhythm:
    """Return the rhythm of customers at some snapshots, by the touchpoints that count as kept."""
    # Where none ever occurs the question is not asked, and nobody is active by it.
    kept = next((one for one in definition.outcomes if one.name == KEPT), Outcome(KEPT, frozenset()))
    return Rhythm.of(block, snapshots, kept, definition.zone)


def _amounts(definition: ModelSpec, answers: Predictions, as_of: int) -> dict[str, object]:
    """Return the columns of amounts, null where the model does not know any, and when the next purchase is due."""
    if definition.purchases is None:
        return {}
    shape, values = (len(answers.snapshots), len(definition.horizons)), answers.values
    nothing = np.full(shape, np.nan)
    tables = [nothing] * 5 if values is None else [values.gross, values.low, values.high, values.number, values.refunds]
    columns: dict[str, object] = {}
    for name, table in zip(_AMOUNT_COLUMNS, tables, strict=True):
        if name != "refunds_{}d" or definition.purchases.refunds:
            told = nothing if table is None else table
            columns |= {name.format(one // DAY): told[:, h] for h, one in enumerate(definition.horizons)}
    chance = answers.outcomes.get(PURCHASE)
    due = np.full(len(answers.snapshots), NEVER) if chance is None else median_time(chance, definition.horizons)
    instants = np.where(due == NEVER, 0, as_of + np.where(due == NEVER, 0, due))
    columns["next_purchase"] = pa.array(instants, pa.int64(), mask=due == NEVER).cast(schemas.INSTANT)
    return columns


def _advance(definition: ModelSpec, answers: Predictions) -> npt.NDArray[np.float64]:
    """Return reach of the next observable stage; NaN at the top."""
    following = np.array(
        [
            next((1 + i for i in definition.journey.observable if i > stage), 0)
            for stage in range(-1, len(definition.journey.stages))
        ]
    )[answers.stage.astype(np.int64) + 1]
    chosen = answers.probability[np.arange(len(following)), following]
    return np.where(following[:, None] == 0, np.nan, chosen)


def _low_evidence(predictor: Predictor, answers: Predictions) -> pa.Array:
    """Name, per customer, the asked targets and outcomes that rest on base rates, at some horizon at least."""
    own = predictor.definition.own_outcomes if predictor.outcomes else ()
    names = ["return", *predictor.definition.journey.names, *(one.name for one in own)]
    asked = [predictor.low_evidence, *(predictor.asking(one).low_evidence[:, :1] for one in own)]
    # Who stands in the same stage, and holds the same ones, is asked about the same targets, with the same evidence.
    weak_of_stage = np.logical_or.reduce(np.concatenate(asked, axis=1), axis=2)
    leaves = [one.name for one in own if one.stage is not None]
    held = np.array([~np.isnan(answers.outcomes[name][:, 0]) for name in leaves], dtype=np.int64)
    alike, rows = np.unique(
        answers.stage.astype(np.int64) + 1 + len(weak_of_stage) * (2 ** np.arange(len(leaves)) @ held),
        return_inverse=True,
    )
    texts = []
    for one in alike.tolist():
        holds, stage = divmod(one, len(weak_of_stage))
        free = {name for k, name in enumerate(leaves) if not holds >> k & 1}
        texts.append([names[j] for j in np.flatnonzero(weak_of_stage[stage]) if names[j] not in free])
    return pa.array(texts, pa.list_(pa.string())).take(pa.array(rows))


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table whose columns and rows are read when they are asked for; rows keep their order."""

    source: ds.Dataset

    @classmethod
    def at(cls, file: Path) -> StoredTable:
        """Return the table of a Parquet file."""
        return cls(ds.dataset(file, format="parquet"))

    @classmethod
    def of(cls, table: pa.Table) -> StoredTable:
        """Return a table that is in memory already."""
        return cls(ds.dataset(table))

    def __len__(self) -> int:
        return int(self.source.count_rows())

    @property
    def column_names(self) -> list[str]:
        """The names of all columns, in order."""
        return list(self.source.schema.names)

    def first(self, column: str) -> object:
        """Return a column's value in the first row."""
        return self.source.head(1, columns=[column])[column][0].as_py()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Return some columns of all rows, piece by piece."""
        # One piece ahead is enough, and more would be memory.
        yield from self.source.to_batches(
            columns=list(columns), use_threads=False, batch_readahead=1, fragment_readahead=1
        )

    def read(self, columns: Sequence[str] | None = None, rows: npt.NDArray[np.bool_] | None = None) -> pa.Table:
        """Return some columns (default: all) of the rows that a mask marks (default: all)."""
        names = self.column_names if columns is None else list(columns)
        schema = pa.schema([self.source.schema.field(name) for name in names])
        parts, begin = [], 0
        for batch in self.batches(names):
            marked = None if rows is None else rows[begin : begin + len(batch)]
            begin += len(batch)
            parts.append(batch if marked is None else batch.filter(pa.array(marked)))
        return pa.Table.from_batches(parts, schema).combine_chunks()


ROW_GROUP = 100_000
KEY = "customer_id"


def merge(parts: Sequence[Path], files: Mapping[Path, pa.Schema]) -> int:
    """Write the rows of all parts, sorted by customer_id, into Parquet files and return how many there are.

    Each part is an Arrow file that is sorted already, with the key as its first column. Each file gets the columns of
    its schema.
    """
    ids = pa.chunked_array([_keys(path) for path in parts], pa.string())
    order = pc.sort_indices(ids).to_numpy().astype(np.int64)
    begins = np.cumsum([0] + [len(chunk) for chunk in ids.chunks])
    del ids
    last: str | None = None
    with ExitStack() as stack:
        writers = {path: stack.enter_context(_writer(path, schema)) for path, schema in files.items()}
        for start in range(0, len(order), ROW_GROUP):
            piece = _take(parts, begins, order[start : start + ROW_GROUP])
            last = _require_ascending(piece[KEY].combine_chunks(), last)
            for path, writer in writers.items():
                writer.write_table(piece.select(files[path].names), row_group_size=ROW_GROUP)
    return len(order)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Probabilities hardly repeat: a dictionary of them would be made in vain.
    texts = [field.name for field in schema if not pa.types.is_floating(field.type) and field.name != KEY]
    return pq.ParquetWriter(path, schema, use_dictionary=texts)


def _keys(path: Path) -> pa.Array:
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=[0])).read_all()
    return table[KEY].combine_chunks()


def _take(parts: Sequence[Path], begins: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> pa.Table:
    """Return rows by their numbers over all parts; those of one part have to be neighbours in it."""
    part = np.searchsorted(begins, rows, side="right") - 1
    low, high = np.full(len(parts), np.iinfo(np.int64).max), np.full(len(parts), -1)
    np.minimum.at(low, part, rows)
    np.maximum.at(high, part, rows)
    slices, placed, size = [], np.zeros(len(parts), dtype=np.int64), 0
    for i in np.flatnonzero(high >= 0).tolist():
        slices.append(read_part(parts[i], int(low[i] - begins[i]), int(high[i] - begins[i]) + 1))
        placed[i], size = size - low[i], size + len(slices[-1])
    if size != len(rows):
        raise AssertionError(f"a part is not sorted by {KEY}")
    return pa.concat_tables(slices).combine_chunks().take(pa.array(placed[part] + rows))


def _require_ascending(ids: pa.Array, last: str | None) -> str:
    """Raise AssertionError unless each id is greater than the one before; return the last one."""
    ascending = pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py() is not False
    first = ids[0].as_py()
    if not ascending or (last is not None and last >= first):
        raise AssertionError(f"a {KEY} occurs in two rows")
    return str(ids[-1].as_py())
