"""Where contenders put their rows: counted and dropped when time is measured, written when answers are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass
class Emission:
    """Counts of one run; with a folder, the rows too (``sample``: of about a tenth of the customers)."""

    folder: Path | None = None
    sample: bool = False
    rows: int = 0
    kernel_seconds: float = 0.0
    _files: int = 0

    def save(self, table: pa.Table) -> None:
        """Write rows of customer_id, as_of (microseconds) and the columns."""
        assert self.folder
        ids = table["customer_id"].cast(pa.string())
        table = table.set_column(table.column_names.index("customer_id"), "customer_id", ids)
        if self.sample:
            table = table.filter(pc.ends_with(ids, "7"))
        pq.write_table(table, self.folder / f"{self._files:05d}.parquet")
        self._files += 1
