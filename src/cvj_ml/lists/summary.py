"""What became of every customer of a list's stage, one row a list."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cvj_ml.config import DAY
from cvj_ml.contracts import Contract
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.ranking import RankedList

NOT_LISTED = {
    "channel_full": "the channels of the plays are full tonight",
    "list_full": "ranked below the list's capacity",
}
"""Why an eligible customer is not listed."""

SUMMARY = Contract(
    "SUMMARY",
    {
        "list": pa.string(),
        "from_stage": pa.string(),
        "to_stage": pa.string(),
        "horizon_days": pa.int64(),
        "by": pa.string(),
        "epoch": pa.string(),
        "in_stage": pa.int64(),
        **dict.fromkeys(REASONS, pa.int64()),
        "eligible": pa.int64(),
        **dict.fromkeys(NOT_LISTED, pa.int64()),
        "listed": pa.int64(),
        "target": pa.int64(),
        "control": pa.int64(),
        "expected_moves": pa.float64(),
    },
    ("list",),
)


def summarise(lists: Sequence[RankedList]) -> pa.Table:
    """Return the counts of lists: in_stage is the sum of the reasons and eligible, eligible that of the rest."""
    rows = [
        {
            "list": one.name,
            "from_stage": one.spec.from_stage,
            "to_stage": one.spec.to_stage,
            "horizon_days": one.spec.horizon // DAY,
            "by": one.spec.by,
            "epoch": one.epoch,
            "in_stage": one.in_stage,
            **one.left_out,
            "eligible": one.eligible,
            **one.not_listed,
            "listed": len(one.rows),
            "target": len(one.rows) - one.control,
            "control": one.control,
            "expected_moves": one.expected,
        }
        for one in lists
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema(SUMMARY.columns.items()))
    SUMMARY.check(table)
    return table
