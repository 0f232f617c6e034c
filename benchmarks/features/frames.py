"""The dataframe contender: lazy Polars, sorted once, then one group_by for each instant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from benchmarks.features.columns import GAP_WINDOWS, NAMES, SESSION_GAP, TREND, TRENDS, WINDOWS
from benchmarks.features.emission import Emission
from benchmarks.features.inputs import CHANNELS, DAY, EVENTS, SECOND


def from_file(path: Path, instants: Sequence[int], emission: Emission) -> None:
    """Compute the features, one collect for each instant."""
    rows = _touchpoints(path)
    if len(instants) > 1:
        # Sorting keeps its result when rows are filtered, so that it is done once.
        rows = rows.sort("customer_id", "t").collect().lazy()
    for as_of in instants:
        visible = rows.filter(pl.col("visible") < as_of)
        if len(instants) == 1:
            visible = visible.sort("customer_id", "t")
        frame = _features(visible, as_of).collect()
        emission.rows += len(frame)
        if emission.folder:
            emission.save(frame.with_columns(as_of=pl.lit(as_of)).to_arrow())


def _touchpoints(path: Path) -> pl.LazyFrame:
    t, known = (pl.col(name).dt.epoch("us") for name in ("occurred_at", "known_at"))
    codes = [
        pl.col(column).replace_strict(list(names), range(len(names)), return_dtype=pl.Int8)
        for column, names in (("event", EVENTS), ("channel", CHANNELS))
    ]
    customer = pl.col("customer_id")
    schema = pl.read_parquet_schema(path)
    if schema["customer_id"] == pl.String:
        customer = customer.cast(pl.Categorical)
    return pl.scan_parquet(path).select(
        customer, t.alias("t"), pl.max_horizontal(t, known).alias("visible"), *codes, pl.col("value").cast(pl.Int32)
    )


def _features(rows: pl.LazyFrame, as_of: int) -> pl.LazyFrame:
    same = pl.col("customer_id") == pl.col("customer_id").shift(1)
    before = pl.when(same).then(pl.col("t").shift(1)).alias("t0")
    t, t0 = pl.col("t"), pl.col("t0")
    gap = ((t - t0) // SECOND).cast(pl.Float64)
    derived = [
        gap.alias("gap"),
        (t0.is_null() | (t - t0 > SESSION_GAP)).alias("starts"),
        (t0.is_null() | (t0 // DAY != t // DAY)).alias("new_day"),
        *((t * 32 + pl.col(name).cast(pl.Int64)).alias(f"{name}_up") for name in ("event", "channel")),
        *((t * 32 + 31 - pl.col(name).cast(pl.Int64)).alias(f"{name}_down") for name in ("event", "channel")),
    ]
    named = [one.cast(pl.Float32).alias(name) for name, one in zip(NAMES, _expressions(as_of), strict=True)]
    return rows.with_columns(before).with_columns(derived).group_by("customer_id").agg(named)


def _expressions(as_of: int) -> Iterator[pl.Expr]:
    """Yield expressions in the order of ``columns.NAMES``."""
    t, value, gap = pl.col("t"), pl.col("value"), pl.col("gap")
    is_event = [pl.col("event") == i for i in range(len(EVENTS))]
    is_channel = [pl.col("channel") == i for i in range(len(CHANNELS))]
    counted = [*is_event, *is_channel, pl.lit(True), pl.col("new_day"), pl.col("starts")]
    within = {name: None if name == "all" else t >= as_of - window for name, window in WINDOWS.items()}
    for window in WINDOWS:
        inside = within[window]
        for condition in counted:
            yield (t.is_not_null() & condition if inside is None else condition & inside).sum()
    for window in WINDOWS:
        inside = within[window]
        here = value if inside is None else pl.when(inside).then(value)
        total, number = here.cast(pl.Float64).sum(), here.count()
        yield total / 100
        yield pl.when(number > 0).then(total / 100 / number)
        yield here.max().cast(pl.Float64) / 100
    for window in GAP_WINDOWS:
        inside = pl.lit(True) if window == "all" else pl.col("t0") >= as_of - WINDOWS[window]
        here = pl.when(inside).then(gap)
        number = here.count()
        mean = here.sum() / number
        spread = ((here * here).sum() / number - mean * mean).clip(0).sqrt()
        yield pl.when(number > 0).then(mean / 86_400)
        yield pl.when(number > 0).then(spread / 86_400)
    for condition in is_event:
        yield (as_of - pl.when(condition).then(t).max()) / DAY
    yield (as_of - t.max()) / DAY
    yield (as_of - t.min()) / DAY
    last_30, last_60 = t >= as_of - TREND, t >= as_of - 2 * TREND
    for condition in counted[: len(TRENDS)]:
        recent, both = (condition & last_30).sum().cast(pl.Int64), (condition & last_60).sum().cast(pl.Int64)
        yield 2 * recent - both
    # Of several touchpoints at the last instant none is the last: where they differ, a code of its own says so.
    for name, names in (("event", EVENTS), ("channel", CHANNELS)):
        highest, lowest = pl.col(f"{name}_up").max() % 32, 31 - pl.col(f"{name}_down").max() % 32
        yield pl.when(highest == lowest).then(highest).otherwise(len(names) + 1)
