"""The 174 columns that every contender computes, and what they mean.

Windows are ``[as_of - w, as_of)`` over what was visible before ``as_of``. For each of five: the twelve events, the
eight channels, all touchpoints, active (UTC) days, sessions that began in it (30 minutes without a touchpoint end
one), sum, mean and maximum of the value. Mean and standard deviation of the gaps whose both ends lie in the window,
for three. Days since the last of each event, since the last and the first touchpoint. Trends: the last 30 days minus
the 30 before, for events, channels, touchpoints and active days. Event and channel of the last touchpoint, as codes.
Without a value, a gap or an event the answer is NaN (NULL), counts and sums are 0.
"""

from __future__ import annotations

from benchmarks.features.inputs import CHANNELS, DAY, EVENTS

ALL = 1 << 62
WINDOWS = {"7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY, "365d": 365 * DAY, "all": ALL}
GAP_WINDOWS = ("90d", "365d", "all")
TREND = 30 * DAY
SESSION_GAP = 30 * 60 * 1_000_000

COUNTED = (
    *(("event", name) for name in EVENTS),
    *(("channel", name) for name in CHANNELS),
    ("touchpoints", ""),
    ("days", ""),
    ("sessions", ""),
)
TRENDS = COUNTED[:-1]

NAMES = [
    *(f"{kind}_{name}_{window}" for window in WINDOWS for kind, name in COUNTED),
    *(f"value_{statistic}_{window}" for window in WINDOWS for statistic in ("sum", "mean", "max")),
    *(f"gap_{statistic}_{window}" for window in GAP_WINDOWS for statistic in ("mean", "sd")),
    *(f"recency_{name}" for name in EVENTS),
    "recency",
    "tenure",
    *(f"trend_{kind}_{name}" for kind, name in TRENDS),
    "last_event",
    "last_channel",
]
assert len(NAMES) == len(set(NAMES)) == 174

SUMS_OF_SQUARES = [name for name in NAMES if name.startswith("gap_sd")]
"""Columns in which contenders may differ in the last digits: SQL adds the squares as floats, the kernel as integers."""
