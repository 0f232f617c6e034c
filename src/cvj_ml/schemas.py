"""The tables that others read: their columns, types and keys, and one check that lists every fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cvj_ml.errors import DataError, nearest, raise_all

INSTANT = pa.timestamp("us", tz="UTC")

TOUCHPOINT_ROLES = ("customer_id", "occurred_at", "known_at", "touchpoint_id", "event", "channel", "value")
"""Canonical columns of a touchpoint source; any other mapped column is a property."""

CONTACT = "contact"
"""The property of a touchpoint that says who did it, where a customer is an account."""

STORE_TOUCHPOINTS: Mapping[str, pa.DataType] = {
    "customer_id": pa.string(),
    "occurred_at": INSTANT,
    "visible_at": INSTANT,
    "superseded_at": INSTANT,
    "day": pa.int32(),
    "date_only": pa.bool_(),
    "event": pa.string(),
    "channel": pa.string(),
    "value": pa.int64(),
    "source": pa.string(),
    "touchpoint_id": pa.string(),
    "copied": pa.bool_(),
}
"""Columns of the store's touchpoints; ``copied`` are those of another id of the same person.

Properties follow as ``property_<name>``, double or string.
"""

PROPERTY = "property_"


@dataclass(frozen=True, slots=True)
class Contract:
    """A table's columns with their types, and the columns that identify a row."""

    name: str
    columns: Mapping[str, pa.DataType]
    key: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        return pa.schema(self.columns.items())

    def check(self, table: pa.Table) -> None:
        """Raise DataError with every fault of the table at once; never shows a customer's data."""
        faults = []
        for name, kind in self.columns.items():
            if name not in table.column_names:
                faults.append(f"the column {name!r} is missing.{nearest(name, table.column_names)}")
            elif table.schema.field(name).type != kind:
                faults.append(f"the column {name!r} is {table.schema.field(name).type}, expected {kind}")
        faults += [f"the column {name!r} is not part of it" for name in table.column_names if name not in self.columns]
        if not faults:
            keys = table.select(list(self.key))
            nulls = sum(column.null_count for column in keys.columns)
            if nulls:
                faults.append(f"{nulls} null(s) in the key {', '.join(self.key)}")
            repeats = len(keys) - len(keys.group_by(list(self.key)).aggregate([]))
            if repeats:
                faults.append(f"{repeats} row(s) repeat the key {', '.join(self.key)}")
        raise_all(DataError, f"The table {self.name} breaks its contract:", faults)


def scores(
    stages: Sequence[str],
    reach: Mapping[str, Sequence[int]],
    days: Sequence[int],
    outcomes: Sequence[str] = (),
    amounts: Sequence[str] = (),
    effects: Sequence[str] = (),
) -> Contract:
    """Return the contract of SCORES.

    stages: slugs of all stages; reach: slug to the horizons in days for which a ``p_reach`` column exists;
    days: the horizons in days of ``p_return`` and ``p_advance``; outcomes: what ``p_`` columns of these days there are
    besides; amounts: what number columns of these days there are, after which comes ``next_purchase``; effects: the
    columns of what a contact changes.
    """
    number = pa.float64()
    columns: dict[str, pa.DataType] = {
        "customer_id": pa.string(),
        "as_of": INSTANT,
        "stage": pa.string(),
        "days_in_stage": number,
        "dormant": pa.bool_(),
        "active": pa.bool_(),
        "stage_predicted": pa.string(),
        "stage_probability": number,
    }
    columns |= {f"p_stage_{slug}": number for slug in stages}
    columns |= {f"p_return_{day}d": number for day in days}
    columns |= {f"p_advance_{day}d": number for day in days}
    columns |= {f"p_reach_{slug}_{day}d": number for slug, horizons in reach.items() for day in horizons}
    columns |= {f"p_{name}_{day}d": number for name in outcomes for day in days}
    columns |= {column.format(day): number for column in amounts for day in days}
    columns |= {"next_purchase": INSTANT} if amounts else {}
    columns |= dict.fromkeys(effects, number)
    columns |= {"segment": pa.string(), "low_evidence": pa.list_(pa.string()), "model_version": pa.string()}
    return Contract("SCORES", columns, ("customer_id",))


TARGETS = Contract(
    "TARGETS",
    {
        "rank": pa.int64(),
        "customer_id": pa.string(),
        "from_stage": pa.string(),
        "to_stage": pa.string(),
        "horizon_days": pa.int64(),
        "probability": pa.float64(),
        "track_record_n": pa.int64(),
        "track_record_k": pa.int64(),
        "track_record_predicted": pa.float64(),
        "track_record_low": pa.float64(),
        "track_record_high": pa.float64(),
        "lift": pa.float64(),
        "expected_value": pa.float64(),
        "incremental_probability": pa.float64(),
        "incremental_low": pa.float64(),
        "incremental_high": pa.float64(),
        "response_type": pa.string(),
        "reason_1": pa.string(),
        "reason_2": pa.string(),
        "reason_3": pa.string(),
        "play": pa.string(),
        "because": pa.string(),
        "channel": pa.string(),
        "group": pa.string(),
        "control_share": pa.float64(),
        "selection_probability": pa.float64(),
        "play_probability": pa.float64(),
        "as_of": INSTANT,
        "model_version": pa.string(),
    },
    ("customer_id",),
)
