"""The compiled pass: touchpoints of whole customers in, one row of numbers a snapshot out.

For a snapshot the pass walks back from ``as_of`` through the customer's live rows once. The windows cut that walk
into rings (the 7 days before ``as_of``, then the rest of the 30, …); each row adds to the cells of its ring, the
rings are then summed outwards, and the program reads its columns off. All sums are of integers (minor units, whole
seconds), divided at the end, so no result depends on the order of additions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY, SECOND
from cvj_ml.features.catalogue import Statistic
from cvj_ml.windows import NEVER, Instants, in_window, is_covered, is_live, rows_before

_I64 = npt.NDArray[np.int64]

COUNT, SUM, MEAN, MAX = int(Statistic.COUNT), int(Statistic.SUM), int(Statistic.MEAN), int(Statistic.MAX)
GAP_MEAN, GAP_SD = int(Statistic.GAP_MEAN), int(Statistic.GAP_SD)
RECENCY, TREND, TENURE = int(Statistic.RECENCY), int(Statistic.TREND), int(Statistic.TENURE)
LAST_EVENT, LAST_CHANNEL = int(Statistic.LAST_EVENT), int(Statistic.LAST_CHANNEL)


@compiled
def run(
    offsets: _I64,
    occurred_at: Instants,
    visible_at: Instants,
    superseded_at: Instants,
    day: npt.NDArray[np.int32],
    event: npt.NDArray[np.int32],
    channel: npt.NDArray[np.int32],
    value: _I64,
    has_value: npt.NDArray[np.bool_],
    inbound: npt.NDArray[np.bool_],
    customer: _I64,
    as_of: Instants,
    rings: _I64,
    statistic: _I64,
    cell: _I64,
    ring: _I64,
    other_ring: _I64,
    events: int,
    cells: int,
    session_gap: int,
    minor_units: float,
    observed_from: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Fill ``out[:, :len(statistic)]`` with one row a snapshot; sequential, deterministic, without the GIL.

    ``customer`` and ``as_of`` are the snapshots; events and channels are codes of the vocabulary (-1 null). Of several
    inbound rows at one instant none is the last: events, and channels, that differ there get the code after all others.
    """
    fixed = cells - 8
    days, sessions, gaps, gap_sum, gap_squares, valued, value_sum = (
        fixed + 1, fixed + 2, fixed + 3, fixed + 4, fixed + 5, fixed + 6, fixed + 7,
    )  # fmt: skip
    tally = np.zeros((len(rings), cells), dtype=np.int64)
    highest = np.zeros(len(rings), dtype=np.int64)
    last_seen = np.zeros(cells, dtype=np.int64)
    last_events = np.zeros(3, dtype=np.int64)
    several_events, several_channels = events, fixed - events
    for i in range(len(customer)):
        now = as_of[i]
        start, stop = offsets[customer[i]], offsets[customer[i] + 1]
        tally[:] = 0
        highest[:] = -NEVER
        last_seen[:] = -NEVER
        last_events[:] = -1
        last_channel = -1
        kept, begin, alike = 0, 0, -1
        first_seen = -NEVER
        later_at, later_day, later_ring = -NEVER, -1, 0
        r = 0
        row = rows_before(occurred_at, start, stop, now) - 1
        while row >= start:
            if is_live(visible_at[row], superseded_at[row], now):
                at = occurred_at[row]
                while not in_window(at, now, rings[r]):
                    r += 1
                first_seen = at
                e, c = event[row], channel[row]
                tally[r, e] += 1
                if last_seen[e] == -NEVER:
                    last_seen[e] = at
                if c >= 0:
                    tally[r, events + c] += 1
                    if last_seen[events + c] == -NEVER:
                        last_seen[events + c] = at
                if has_value[row]:
                    tally[r, valued] += 1
                    tally[r, value_sum] += value[row]
                    highest[r] = max(highest[r], value[row])
                if inbound[row]:
                    tally[r, fixed] += 1
                    if at != later_at:
                        begin, alike = kept, e
                    elif e != alike:
                        alike = several_events
                        for k in range(begin, min(kept, 3)):
                            last_events[k] = alike
                    if kept < 3:
                        last_events[kept] = alike
                    if kept == 0:
                        last_seen[fixed] = at
                        last_channel = c
                    elif begin == 0 and c != last_channel:
                        last_channel = several_channels
                    kept += 1
                    if day[row] != later_day or later_at == -NEVER:
                        tally[r, days] += 1
                    if later_at != -NEVER:
                        gap = later_at - at
                        seconds = gap // SECOND
                        # A gap lies in a window when both its ends do; a session is counted where it began.
                        tally[r, gaps] += 1
                        tally[r, gap_sum] += seconds
                        tally[r, gap_squares] += seconds * seconds
                        if gap > session_gap:
                            tally[later_ring, sessions] += 1
                    later_at, later_day, later_ring = at, day[row], r
            row -= 1
        if later_at != -NEVER:
            tally[later_ring, sessions] += 1
        for k in range(1, len(rings)):
            for x in range(cells):
                tally[k, x] += tally[k - 1, x]
            highest[k] = max(highest[k], highest[k - 1])
        for f in range(len(statistic)):
            what, x, k = statistic[f], cell[f], ring[f]
            number = np.nan
            widest = other_ring[f] if what == TREND else k
            if rings[widest] == NEVER or is_covered(now, rings[widest], observed_from):
                if what == COUNT:
                    number = float(tally[k, x])
                elif what == SUM:
                    number = tally[k, value_sum] / minor_units
                elif what == MEAN:
                    if tally[k, valued] > 0:
                        number = tally[k, value_sum] / minor_units / tally[k, valued]
                elif what == MAX:
                    if tally[k, valued] > 0:
                        number = highest[k] / minor_units
                elif what == GAP_MEAN:
                    if tally[k, gaps] > 0:
                        number = tally[k, gap_sum] / tally[k, gaps] / (DAY / SECOND)
                elif what == GAP_SD:
                    if tally[k, gaps] > 0:
                        mean = tally[k, gap_sum] / tally[k, gaps]
                        number = np.sqrt(max(0.0, tally[k, gap_squares] / tally[k, gaps] - mean * mean)) / (
                            DAY / SECOND
                        )
                elif what == RECENCY:
                    if last_seen[x] != -NEVER:
                        number = (now - last_seen[x]) / DAY
                elif what == TREND:
                    number = float(2 * tally[k, x] - tally[other_ring[f], x])
                elif what == TENURE:
                    if first_seen != -NEVER:
                        number = (now - first_seen) / DAY
                elif what == LAST_EVENT:
                    if last_events[x] >= 0:
                        number = float(last_events[x])
                elif what == LAST_CHANNEL and last_channel >= 0:
                    number = float(last_channel)
            out[i, f] = number
