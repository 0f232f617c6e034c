"""Who was listed in control on earlier nights, read back from what was published."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import Config
from cvj_ml.lists import SPARED
from cvj_ml.publish import LISTS, published_lists
from cvj_ml.windows import before, in_window


def listed_in_control(config: Config, as_of: int) -> pa.Table:
    """Return `SPARED` of the nights before ``as_of``, as far back as a contact cap looks."""
    caps, parts = config.eligibility.contact_caps, [SPARED.empty_table()]
    for folder in published_lists(Path(config.out)) if caps else []:
        for file in sorted((folder / LISTS).glob("*__*.parquet")):
            rows = pq.read_table(file, columns=[*SPARED.names, "group"], partitioning=None)
            rows = rows.filter(pc.equal(rows["group"], "control")).select(SPARED.names).cast(SPARED)
            night = rows["as_of"].to_numpy()
            parts.append(rows.filter(before(night, as_of) & in_window(night, as_of, max(cap.within for cap in caps))))
    return pa.concat_tables(parts)
