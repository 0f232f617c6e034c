"""Whether contenders give the same answers, value by value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.features.columns import NAMES, SUMS_OF_SQUARES

TOLERANCE = 1e-5
"""Relative, and absolute in days, for the standard deviations; every other column must agree to the bit."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two answers compare: rows and values, values that are not the same float, and columns out of bounds."""

    rows: int
    values: int
    not_identical: int
    wrong: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the contenders answered the same question alike."""
        return not self.wrong


def compare(one: Path, other: Path) -> Agreement:
    """Compare the rows in two folders; NaN and NULL are the same answer."""
    left, right = _read(one), _read(other)
    if not (left.select(_KEY).equals(right.select(_KEY))):
        return Agreement(len(left), 0, 0, ("the rows themselves",))
    different, wrong = 0, []
    for name in NAMES:
        a, b = _floats(left[name]), _floats(right[name])
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        different += int((~same).sum())
        close = np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True) if name in SUMS_OF_SQUARES else same
        if not close.all():
            wrong.append(f"{name} ({int((~close).sum())})")
    return Agreement(len(left), len(left) * len(NAMES), different, tuple(wrong))


_KEY = ["customer_id", "as_of"]


def _read(folder: Path) -> pa.Table:
    table = pq.read_table(folder)
    table = table.set_column(
        table.column_names.index("customer_id"), "customer_id", table["customer_id"].cast(pa.string()).combine_chunks()
    )
    order = pc.sort_indices(table.select(_KEY), [(name, "ascending") for name in _KEY])
    return table.select([*_KEY, *NAMES]).take(order).combine_chunks()


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    if column.type != pa.float32():
        raise TypeError(f"a column is {column.type}, expected float")
    values: npt.NDArray[np.float32] = pc.fill_null(column, np.float32("nan")).to_numpy()
    return values
