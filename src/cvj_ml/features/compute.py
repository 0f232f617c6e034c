"""X: one row of float32 features for each snapshot of a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY
from cvj_ml.features.catalogue import Catalogue, Program
from cvj_ml.features.custom import custom_columns
from cvj_ml.features.kernel import run
from cvj_ml.features.people import people_columns
from cvj_ml.histories import Attributes, Block, Text, TouchpointColumns
from cvj_ml.journey import Journey, Stays, evidence, followed, net_values, progress, stage_at
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import NEVER, Instants, local_days, rows_before


def compute(
    catalogue: Catalogue,
    journey: Journey,
    block: Block,
    stays: Stays,
    snapshots: Snapshots,
    observed_from: int,
    zone: ZoneInfo,
) -> npt.NDArray[np.float32]:
    """Return X (snapshots, features), a pure function of each customer's own history before ``as_of``.

    ``stays`` are those of all stages; the catalogue knows the observable ones. What was not recorded
    yet (a window that begins before ``observed_from``) is NaN, not zero. The ``zone`` says which day it is then.
    """
    x = np.full((len(snapshots), len(catalogue.features)), np.nan, dtype=np.float32)
    points, vocabulary, program = block.touchpoints, catalogue.vocabulary, catalogue.program()
    run_program(
        catalogue,
        program,
        points,
        net_values(journey.spec, points),
        points.event.recode({name: i for i, name in enumerate(vocabulary.events)}, len(vocabulary.events)),
        points.channel.recode({name: i for i, name in enumerate(vocabulary.channels)}, len(vocabulary.channels)),
        snapshots,
        observed_from,
        x,
    )
    column, kept = len(program.statistic), iter(catalogue.beside_kernel)
    for group in (
        _journey_columns(journey, block, stays, snapshots),
        _attribute_columns(catalogue, block, snapshots),
        _date_columns(catalogue.vocabulary.dates, block, snapshots, zone),
        people_columns(vocabulary, catalogue.windows, block, snapshots, observed_from) if vocabulary.people else (),
        custom_columns_of(catalogue, journey, points, snapshots).T if catalogue.custom else (),
    ):
        for values in group:
            if next(kept):
                x[:, column] = values
                column += 1
    if column != len(catalogue.features) or any(kept):
        raise AssertionError(f"the catalogue names {len(catalogue.features)} columns, {column} were computed")
    return x


def run_program(
    catalogue: Catalogue,
    program: Program,
    points: TouchpointColumns,
    value: npt.NDArray[np.int64],
    event: npt.NDArray[np.int32],
    channel: npt.NDArray[np.int32],
    snapshots: Snapshots,
    observed_from: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Write the kernel's columns into the first ones of ``out``; events and channels are codes of the vocabulary."""
    run(
        points.offsets,
        points.occurred_at,
        points.visible_at,
        points.superseded_at,
        points.day,
        event,
        channel,
        value,
        points.has_value,
        points.inbound,
        snapshots.customer,
        snapshots.as_of,
        program.rings,
        program.statistic,
        program.cell,
        program.ring,
        program.other_ring,
        program.cells.events,
        program.cells.total,
        catalogue.session_gap,
        float(10**catalogue.value_decimals),
        observed_from,
        out,
    )


def _journey_columns(
    journey: Journey,
    block: Block,
    stays: Stays,
    snapshots: Snapshots,
) -> list[npt.NDArray[np.float64]]:
    as_of = snapshots.as_of
    entries, leaves = (instants[:, journey.observable] for instants in stays.last(snapshots.customer, as_of))
    state = stage_at(np.where(leaves == NEVER, entries, NEVER), as_of)
    entered, left = entries != NEVER, leaves != NEVER
    since = np.where(entered, (as_of[:, None] - np.where(entered, entries, 0)) / DAY, np.nan)
    gone = np.where(left, (as_of[:, None] - np.where(left, leaves, 0)) / DAY, np.nan)
    columns = [state.stage.astype(np.float64), state.days_in_stage, entered.sum(axis=1).astype(np.float64)]
    columns += [since[:, i] for i in range(entries.shape[1])]
    columns += [gone[:, k] for k, i in enumerate(journey.observable) if stays.leavable[i]]
    points, customer = evidence(journey, block), snapshots.customer
    known = followed(journey, points, customer, as_of)
    for i in journey.observable:
        done = progress(journey, i, points, customer, as_of, known)
        columns += [done.fulfilled, done.remaining]
    columns += [since[:, i] - since[:, i + 1] for i in range(entries.shape[1] - 1)]
    return columns


def _attribute_columns(catalogue: Catalogue, block: Block, snapshots: Snapshots) -> list[npt.NDArray[np.float64]]:
    vocabulary, table = catalogue.vocabulary, block.attributes
    names = (*vocabulary.numbers, *vocabulary.categories)
    if not table or not len(table.known_at):
        return [np.full(len(snapshots), np.nan) for _ in names]
    row = latest_known(table.offsets, table.known_at, snapshots.customer, snapshots.as_of)
    columns = []
    for name in names:
        column = table.columns.get(name)
        if column is None:
            values = np.full(len(table.known_at), np.nan)
        elif isinstance(column, Text):
            known = vocabulary.categories.get(name, ())
            codes = column.recode({value: i for i, value in enumerate(known)}, len(known)).astype(np.float64)
            values = np.where(column.codes < 0, np.nan, codes)
        else:
            values = column
        columns.append(np.where(row < 0, np.nan, values[np.maximum(row, 0)]))
    return columns


def _date_columns(
    names: Sequence[str], block: Block, snapshots: Snapshots, zone: ZoneInfo
) -> list[npt.NDArray[np.float64]]:
    columns: list[npt.NDArray[np.float64]] = []
    today = local_days(snapshots.as_of, zone) if names else snapshots.as_of
    for name in names:
        ahead = dates_known(block.attributes, name, snapshots.customer, snapshots.as_of) - today
        columns += [np.where(ahead >= 0, ahead, np.nan), np.where(ahead < 0, -ahead, np.nan)]
    return columns


def custom_columns_of(
    catalogue: Catalogue, journey: Journey, points: TouchpointColumns, snapshots: Snapshots
) -> npt.NDArray[np.float64]:
    """Return the columns of functions of one's own, excluded or not: (snapshots, columns)."""
    net = replace(points, value=net_values(journey.spec, points))
    kinds, unit = catalogue.vocabulary.columns, float(10**catalogue.value_decimals)
    return custom_columns(catalogue.custom, net, kinds, unit, snapshots)


def dates_known(
    table: Attributes | None, name: str, customer: npt.NDArray[np.int64], as_of: Instants
) -> npt.NDArray[np.float64]:
    """Return the local day that the newest attributes known before each instant give a date; NaN for none."""
    column = table.columns.get(name) if table else None
    if table is None or column is None or isinstance(column, Text) or not len(column):
        return np.full(len(customer), np.nan)
    row = latest_known(table.offsets, table.known_at, customer, as_of)
    return np.where(row < 0, np.nan, column[np.maximum(row, 0)])


@compiled
def latest_known(
    offsets: npt.NDArray[np.int64], known_at: Instants, customer: npt.NDArray[np.int64], as_of: Instants
) -> npt.NDArray[np.int64]:
    """Return the row of each customer's newest attributes known before ``as_of``; -1 where there is none."""
    rows = np.full(len(customer), -1, dtype=np.int64)
    for i in range(len(customer)):
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        later = rows_before(known_at, start, stop, as_of[i])
        if later > start:
            rows[i] = later - 1
    return rows
