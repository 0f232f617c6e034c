"""The two simulated logs: one in time order with integer ids, one shuffled with text ids and late rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

SECOND = 1_000_000
DAY = 86_400 * SECOND
EVENTS = (
    *("cart", "checkout", "click", "content", "download", "login"),
    *("open", "purchase", "review", "search", "signup", "visit"),
)
CHANNELS = ("affiliate", "direct", "email", "organic", "paid", "referral", "social", "store")

INPUTS = {"ordered": "time-ordered file, integer ids", "shuffled": "shuffled file, text ids, late and negative rows"}


def _midnight(day: str) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))


INSTANTS = {
    "as_of": (_midnight("2024-12-31"),),
    "panel": tuple(_midnight(f"2024-{month:02}-01") for month in range(1, 13)),
}
"""The cut-offs of each task."""

START, END = _midnight("2022-12-31"), _midnight("2024-12-31")

VERSION = 1
"""Part of the file name: a change in how the log is drawn makes new files."""

_SEED = 20241231
_CUSTOMERS_PER_TOUCHPOINT = 0.038
_MEDIAN, _SPREAD = 11.0, 1.325
_LARGEST = 5196
_LATE, _NEGATIVE, _VALUED = 0.05, 0.03, 0.6


def make(kind: str, touchpoints: int, folder: Path) -> Path:
    """Return the Parquet file of one input, drawing it first where it is missing."""
    path = folder / f"{kind}-{touchpoints}-v{VERSION}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        pq.write_table(_draw(kind, touchpoints), part)
        part.rename(path)
    return path


def _draw(kind: str, touchpoints: int) -> pa.Table:
    random = np.random.default_rng(_SEED)
    lengths = _lengths(random, touchpoints)
    customer = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    occurred_at = _instants(random, customer, lengths)
    known_at = occurred_at.copy()
    event = random.choice(len(EVENTS), size=touchpoints, p=_shares(len(EVENTS))).astype(np.int32)
    channel = random.choice(len(CHANNELS), size=touchpoints, p=_shares(len(CHANNELS))).astype(np.int32)
    value = np.rint(100 * random.lognormal(3.0, 1.0, touchpoints)).astype(np.int64)
    unvalued = random.random(touchpoints) >= _VALUED
    if kind == "shuffled":
        late = random.random(touchpoints) < _LATE
        known_at[late] += random.integers(1, 3 * 86_400, late.sum()) * SECOND
        value[random.random(touchpoints) < _NEGATIVE / _VALUED] *= -1
        order = random.permutation(touchpoints)
        # Ten hexadecimal digits, so that text order is neither the order of first appearance nor of any number.
        numbers = random.permutation(16**5)[: len(lengths)] if len(lengths) <= 16**5 else np.arange(len(lengths))
        names = pa.array([f"{n * 0x9E3779B1 % 16**8:08x}{n % 256:02x}" for n in numbers.tolist()])
        ids = names.take(pa.array(customer[order]))
    else:
        order = np.argsort(occurred_at, kind="stable")
        ids = pa.array(random.permutation(len(lengths))[customer[order]] + 1_000_000)
    instant = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "customer_id": ids,
            "occurred_at": pa.array(occurred_at[order]).cast(instant),
            "known_at": pa.array(known_at[order]).cast(instant),
            "event": pa.array(EVENTS).take(pa.array(event[order])),
            "channel": pa.array(CHANNELS).take(pa.array(channel[order])),
            "value": pa.array(value[order], mask=unvalued[order]),
        }
    )


def _lengths(random: np.random.Generator, touchpoints: int) -> npt.NDArray[np.int64]:
    """Return touchpoints by customer: log-normal, of exactly the asked sum."""
    customers = max(1, round(touchpoints * _CUSTOMERS_PER_TOUCHPOINT))
    drawn = np.exp(np.log(_MEDIAN) + _SPREAD * random.standard_normal(customers))
    lengths: npt.NDArray[np.int64] = np.clip(np.rint(drawn), 1, _LARGEST).astype(np.int64)
    while difference := touchpoints - int(lengths.sum()):
        # A touchpoint more or less for some of the customers who have several.
        several = np.flatnonzero((lengths > 1) & (lengths < _LARGEST))
        chosen = random.choice(several, size=min(abs(difference), len(several)), replace=False)
        lengths[chosen] += np.sign(difference)
    return lengths


def _instants(
    random: np.random.Generator, customer: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return whole seconds: spread from a customer's first to the end, a third soon after another, some at once."""
    rows = len(customer)
    seconds = (END - START) // SECOND
    first = random.integers(0, seconds, len(lengths))[customer]
    at = first + ((seconds - first) * random.random(rows)).astype(np.int64)
    follows = np.append(False, customer[1:] == customer[:-1])
    kind = random.random(rows)
    soon = follows & (kind < 0.34)
    wait = np.where(kind < 0.01, 0, random.exponential(600.0, rows)).astype(np.int64)
    at[soon] = at[np.flatnonzero(soon) - 1] + wait[soon]
    return START + np.minimum(at, seconds - 1) * SECOND


def _shares(kinds: int) -> npt.NDArray[np.float64]:
    weights = 1 / np.arange(1, kinds + 1)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares
