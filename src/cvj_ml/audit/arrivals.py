"""When rows of a source happened and when they became known: what looks back-dated, loaded in bulk, or misdated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, SECOND, Config, TableSpec, format_duration
from cvj_ml.store import Store, attribute_rows, touchpoint_rows

LATE_SHARE = 0.02
"""Twice what the measured delay (the 99 % quantile) leaves: more means that the delay is set too short."""

BULK_SHARE = 0.2
"""So large a share of the rows known in one second, though they happened on different days, is a load."""

_ROWS = 100
_CLOCK = re.compile(
    r"\b(now|today|current_date|current_timestamp|get_current_timestamp|current_localtimestamp|random|uuid)\b", re.I
)


def arrival_warnings(config: Config, store: Store, buckets: Iterable[int]) -> list[str]:
    """Return what is suspicious about the times of the sources' rows in these buckets; counts and shares only."""
    chosen = list(buckets)
    rows = pa.concat_tables([touchpoint_rows(store, bucket) for bucket in chosen])
    frame = rows.filter(pc.invert(rows["copied"])).to_pandas()
    found = [warning for label in config.touchpoint_tables for warning in _of_source(config, label, frame)]
    if config.attributes and not config.attributes.static:
        attributes = pa.concat_tables([attribute_rows(store, bucket) for bucket in chosen]).to_pandas()
        found += _of_attributes(config.attributes, attributes, frame)
    tables: dict[str, TableSpec] = {**config.touchpoint_tables}
    tables |= {"attributes": config.attributes} if config.attributes else {}
    for label, spec in tables.items():
        words = sorted({word.lower() for word in _CLOCK.findall(spec.query or "")})
        if words:
            found.append(
                f"{label}.query: it asks the clock or chance ({', '.join(words)}), so the past reads differently every"
                " time; count from a column of the row instead"
            )
    return found


def _of_source(config: Config, label: str, frame: pd.DataFrame) -> Iterator[str]:
    own = frame[frame["source"] == label.removeprefix("sources.")]
    if len(own) < _ROWS:
        return
    occurred, visible = own["occurred_at"].to_numpy(), own["visible_at"].to_numpy()
    spec = config.touchpoint_tables[label]
    if spec.arrival_delay is not None:
        late = int((visible - occurred > spec.arrival_delay).sum())
        if late > LATE_SHARE * len(own):
            yield (
                f"{label}: {late:,} of {len(own):,} rows became known more than arrival_delay"
                f" ({format_duration(spec.arrival_delay)}) after they happened, so the last days look emptier than they"
                " were; leave arrival_delay out and it is measured"
            )
    yield from _bulk(label, visible, occurred)
    low, high = np.quantile(occurred, [0.005, 0.995])
    span = max(high - low, DAY)
    for rows, where, example in (
        (int((occurred < low - span).sum()), "before", "1970-01-01"),
        (int((occurred > high + span).sum()), "after", "2099-12-31"),
    ):
        if rows:
            yield (
                f"{label}: {rows:,} of {len(own):,} rows happened far {where} all others; is it a placeholder such as"
                f" {example}? Leave them out in a query"
            )


def _bulk(label: str, visible: npt.NDArray[np.int64], occurred: npt.NDArray[np.int64]) -> Iterator[str]:
    seconds, place, rows = np.unique(visible // SECOND, return_inverse=True, return_counts=True)
    largest = int(rows.argmax())
    inside = occurred[place == largest]
    if rows[largest] > BULK_SHARE * len(visible) and np.ptp(inside) > DAY:
        day = pd.Timestamp(int(seconds[largest]), unit="s").date()
        yield (
            f"{label}: {int(rows[largest]):,} of {len(visible):,} rows became known in the same second of {day}, as a"
            " load does; no question before it sees them. Map a known_at that tells when each was first known"
        )


def _of_attributes(spec: TableSpec, attributes: pd.DataFrame, touchpoints: pd.DataFrame) -> Iterator[str]:
    if len(attributes) < _ROWS:
        return
    known = attributes["known_at"].to_numpy()
    single = attributes.groupby("customer_id").size() == 1
    _, rows = np.unique(known // SECOND, return_counts=True)
    if rows.max() > BULK_SHARE * len(known):
        yield (
            f"attributes: {int(rows.max()):,} of {len(known):,} rows became known in the same second, as a load does;"
            " no question before it sees them"
        )
    if spec.query is None and single.all():
        first = touchpoints.groupby("customer_id")["occurred_at"].min()
        at_first = attributes["known_at"].to_numpy() <= first.reindex(attributes["customer_id"]).to_numpy()
        if at_first.mean() > 0.95:
            yield (
                f"attributes: {int(at_first.sum()):,} of {len(known):,} customers have one version, known from their"
                " first touchpoint on; if the file was exported later, its columns say what is true today. Ask where"
                " known_at comes from"
            )
