"""Segments of customers, and how well the model does for each of them beside all others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.engines import Blocks
from cvj_ml.errors import ConfigError, nearest
from cvj_ml.evaluation.assessment import SIGNIFICANT, bounds
from cvj_ml.evaluation.backtesting import MINIMUM_CONVERTED, MODEL, Cell, Evaluated
from cvj_ml.evaluation.bootstrap import grouped_sums, holm, interval, p_value
from cvj_ml.evaluation.metrics import log_loss_terms
from cvj_ml.features.compute import latest_known
from cvj_ml.histories import Block, Text

FIRST_CHANNEL = "first_channel"
ATTRIBUTE = "attribute:"
_UNKNOWN, _OTHER = "(unknown)", "(other)"
_MOST = 12

_GAPS = [
    "segment", "value", "from", "to", "horizon_days", "n", "converted", "log_loss", "log_loss_rest",
    "log_loss_gap", "log_loss_gap_low", "log_loss_gap_high", "observed_expected", "observed_expected_rest",
    "observed_expected_gap", "observed_expected_gap_low", "observed_expected_gap_high",
    "p_log_loss_holm", "p_observed_expected_holm", "log_loss_differs", "calibration_differs",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """Which value each snapshot's customer has: ``codes`` (n,) index ``values``."""

    name: str
    values: tuple[str, ...]
    codes: npt.NDArray[np.int64]


def segment(name: str, blocks: Blocks, as_of: int, customers: npt.NDArray[np.int64], fewest: int) -> Segment:
    """Return a segment of the customers as it was known at ``as_of``.

    name: ``first_channel``, the channel of the first touchpoint, or ``attribute:<column>``; numbers fall into their
    quarters, of texts the 12 most frequent keep their own value where as many customers as ``fewest`` have it.
    customers: positions among all customers of the blocks, by id, as in a `Panel`. ConfigError for a segment that the
    data does not have.
    """
    if name != FIRST_CHANNEL and not name.startswith(ATTRIBUTE):
        raise ConfigError(f"--segment {name!r}: a segment is first_channel, or attribute:country and the like.")
    column = name.removeprefix(ATTRIBUTE)
    parts = blocks.map(lambda block: (block.customers, _values(block, name, as_of), _attributes(block)))
    known = set().union(*(attributes for _, _, attributes in parts))
    if name != FIRST_CHANNEL and column not in known:
        found = f" Attributes: {', '.join(sorted(known))}." if known else " The configuration has no attributes."
        raise ConfigError(f"--segment {name!r}: no attribute {column!r}.{nearest(column, known)}{found}")
    ids = [one for names, _, _ in parts for one in names]
    values = [value for _, several, _ in parts for value in several]
    by_name = [values[i] for i in sorted(range(len(ids)), key=ids.__getitem__)]
    chosen = [by_name[i] for i in customers]
    if any(isinstance(value, float) for value in chosen):
        chosen = _quarters(chosen)
    texts = np.array([_UNKNOWN if value is None else str(value) for value in chosen], dtype=object)
    frequent = pd.Series(texts).value_counts().reset_index().sort_values(["count", "index"], ascending=[False, True])
    kept = set(frequent.loc[frequent["count"] >= fewest, "index"].head(_MOST)) | {_UNKNOWN}
    kinds, codes = np.unique([text if text in kept else _OTHER for text in texts], return_inverse=True)
    return Segment(name, tuple(map(str, kinds)), codes.astype(np.int64))


def gaps(evaluated: Evaluated, by: Segment, keys: npt.NDArray[np.uint64]) -> pd.DataFrame:
    """Compare the model's log loss and observed/expected in each subgroup with the rest of the same cell.

    One row a subgroup, transition and horizon in which at least 10 customers of the subgroup and 10 of the rest
    moved. Gaps are differences, subgroup minus rest, with 95 % intervals; a difference is flagged where it stands after
    Holm's correction over the whole table. A gap in log loss alone says that a subgroup is harder to predict.
    """
    rows = [
        row for cell in evaluated.cells() if evaluated.evaluable(cell) for row in _cell_gaps(evaluated, cell, by, keys)
    ]
    frame = pd.DataFrame(rows, columns=[*_GAPS[:-4], "p_log_loss", "p_observed_expected"])
    adjusted = holm(np.concatenate([frame.pop("p_log_loss"), frame.pop("p_observed_expected")]).astype(np.float64))
    loss, ratio = adjusted[: len(frame)], adjusted[len(frame) :]
    return frame.assign(
        p_log_loss_holm=loss,
        p_observed_expected_holm=ratio,
        log_loss_differs=loss < SIGNIFICANT,
        calibration_differs=ratio < SIGNIFICANT,
    )


def _cell_gaps(
    evaluated: Evaluated, cell: Cell, by: Segment, keys: npt.NDArray[np.uint64]
) -> Iterator[dict[str, object]]:
    converted, p, customer = (
        evaluated.converted_in(cell),
        evaluated.predicted(MODEL, cell),
        evaluated.customer[cell.rows],
    )
    codes = by.codes[cell.rows]
    converters = np.array([len(np.unique(customer[converted & (codes == g)])) for g in range(len(by.values))])
    shown = np.flatnonzero((converters >= MINIMUM_CONVERTED) & (converters.sum() - converters >= MINIMUM_CONVERTED))
    if not len(shown):
        return
    # Two groups are compared and not two contenders on one group, so there is no `paired_difference` row by row.
    terms = np.column_stack([np.ones(len(p)), log_loss_terms(converted, p), converted, p])
    drawn = grouped_sums(terms, codes, len(by.values), customer, keys)
    of_all = np.array([terms[codes == g].sum(axis=0) for g in range(len(by.values))])[None]
    for g in map(int, shown):
        (loss, loss_rest, ratio, ratio_rest), draws = _beside_rest(of_all, g)[:, 0], _beside_rest(drawn, g)
        with np.errstate(divide="ignore", invalid="ignore"):
            on_log = np.log(draws[2]) - np.log(draws[3])
            p_ratio = p_value(math.log(ratio) - math.log(ratio_rest), on_log)
        yield {
            "segment": by.name,
            "value": by.values[g],
            "from": cell.origin,
            "to": cell.name,
            "horizon_days": evaluated.horizons[cell.horizon] // DAY,
            "n": int((codes == g).sum()),
            "converted": int(converted[codes == g].sum()),
            "log_loss": loss,
            "log_loss_rest": loss_rest,
            **bounds("log_loss_gap", interval(loss - loss_rest, draws[0] - draws[1])),
            "observed_expected": ratio,
            "observed_expected_rest": ratio_rest,
            **bounds("observed_expected_gap", interval(ratio - ratio_rest, draws[2] - draws[3])),
            "p_log_loss": p_value(loss - loss_rest, draws[0] - draws[1]),
            "p_observed_expected": p_ratio,
        }


def _beside_rest(sums: npt.NDArray[np.float64], group: int) -> npt.NDArray[np.float64]:
    """Return (4, draws): log loss of the group and of the rest, then observed/expected of both."""
    here, rest = sums[:, group], sums.sum(axis=1) - sums[:, group]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack(
            [here[:, 1] / here[:, 0], rest[:, 1] / rest[:, 0], here[:, 2] / here[:, 3], rest[:, 2] / rest[:, 3]]
        )


def _attributes(block: Block) -> frozenset[str]:
    return frozenset(block.attributes.columns) if block.attributes is not None else frozenset()


def _values(block: Block, name: str, as_of: int) -> list[str | float | None]:
    """Return the value of each of the block's customers, None where nothing was known."""
    if name == FIRST_CHANNEL:
        points = block.touchpoints
        owner, live = points.owners(), points.live(as_of)
        # Touchpoints stand in the order of occurrence, so the first row is the first touchpoint.
        customers, first = np.unique(owner[live], return_index=True)
        rows = np.full(len(block), -1, dtype=np.int64)
        rows[customers] = np.flatnonzero(live)[first]
        column: Text | npt.NDArray[np.float64] = points.channel
    else:
        table = block.attributes
        if table is None or name.removeprefix(ATTRIBUTE) not in table.columns:
            return [None] * len(block)
        instants = np.full(len(block), as_of, dtype=np.int64)
        rows = latest_known(table.offsets, table.known_at, np.arange(len(block)), instants)
        column = table.columns[name.removeprefix(ATTRIBUTE)]
    if isinstance(column, Text):
        codes = np.where(rows < 0, -1, column.codes[rows]) if len(column.codes) else rows
        return [None if code < 0 else column.values[code] for code in codes]
    numbers = np.where(rows < 0, np.nan, column[rows]) if len(column) else np.full(len(rows), np.nan)
    return [None if math.isnan(value) else float(value) for value in numbers]


def _quarters(values: list[str | float | None]) -> list[str | float | None]:
    """Return the quarter that each number falls into, in words."""
    numbers = np.array([math.nan if value is None else float(value) for value in values])
    cuts = np.unique(np.nanquantile(numbers, [0.25, 0.5, 0.75], method="lower"))
    names = [
        f"up to {cuts[0]:.3g}",
        *(f"{a:.3g} to {b:.3g}" for a, b in itertools.pairwise(cuts)),
        f"over {cuts[-1]:.3g}",
    ]
    return [None if math.isnan(x) else names[int(np.searchsorted(cuts, x, side="left"))] for x in numbers]
