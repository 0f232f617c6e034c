"""What customers do in each stage, what brought them there, and what goes before moving on: counts, block by block.

Touchpoints that go with moving on or with staying: ratios of shares with intervals, an association and no cause.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from cvj_ml.config import DAY
from cvj_ml.histories import Block, Text, TouchpointColumns
from cvj_ml.journey import Stays, evidence
from cvj_ml.journey_analytics.dwell_times import DwellTimes, Question, add
from cvj_ml.panel.labels import label, stages_ahead
from cvj_ml.snapshots import eligible
from cvj_ml.windows import NEVER, before, happened_within, is_covered

NO_CHANNEL = "(no channel)"
SEVERAL_CHANNELS = "(several channels)"
"""Of the first touchpoints of a customer who came through more than one at once."""

ALL = ""
"""Stands for all customers of a stage, in the place of an event's or a channel's name."""


@dataclass(frozen=True, slots=True)
class TouchpointCounts:
    """Numbers of distinct customers, of any number of blocks; ``ALL`` rows hold a stage's total.

    ``habits``: (stage, event, inbound) customers who stand there and had it since they entered, within the last
    period, with the number of ``touchpoints``. ``origins``: (stage, channel) customers who ever entered, by the
    channel of their first touchpoint. ``precursors``: (stage, event, inbound) active customers who stood there one
    horizon ago and had the event in the period before, with how many of them ``moved`` on since. ``newest`` is the
    latest touchpoint before ``as_of``, ``lately`` and ``usually`` the touchpoints of the last 7 days and of the whole
    ``weeks`` before, four at most, that lie after the beginning of the records.
    """

    habits: pd.DataFrame
    origins: pd.DataFrame
    precursors: pd.DataFrame
    newest: int
    lately: int
    usually: int
    weeks: int


_HABITS = ["stage", "event", "inbound"]
_ORIGINS = ["stage", "channel"]


def count_touchpoints(question: Question, block: Block, stays: Stays, found: DwellTimes) -> TouchpointCounts:
    """Count a block whose stages were held at ``stays``, the highest of them at ``found``."""
    points = block.touchpoints
    owner, as_of = points.owners(), question.as_of
    known = points.live(as_of)
    week = 7 * DAY
    recent = known & ~before(points.occurred_at, as_of - week)
    # A week of which nothing was recorded is not a week without touchpoints.
    weeks = sum(is_covered(as_of, (1 + number) * week, question.observed_from) for number in range(1, 5))
    month = known & ~before(points.occurred_at, as_of - (1 + weeks) * week) & before(points.occurred_at, as_of - week)
    return TouchpointCounts(
        _habits(points, owner, known, found, as_of - question.period),
        _origins(points, owner, known, found),
        _precursors(question, block, owner, stays),
        int(points.occurred_at[known].max(initial=-NEVER)),
        int(recent.sum()),
        int(month.sum()),
        weeks,
    )


def add_touchpoints(parts: Iterable[TouchpointCounts]) -> TouchpointCounts:
    """Add the counts of all blocks; the order of the blocks does not matter."""
    gathered = list(parts)
    return TouchpointCounts(
        add([one.habits for one in gathered], _HABITS),
        add([one.origins for one in gathered], _ORIGINS),
        add([one.precursors for one in gathered], _HABITS),
        max(one.newest for one in gathered),
        sum(one.lately for one in gathered),
        sum(one.usually for one in gathered),
        max(one.weeks for one in gathered),
    )


def present(found: DwellTimes, customers: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each customer's present stage, and since when; (-2, NEVER) for those without any visible row."""
    stage = np.full(customers, -2, dtype=np.int64)
    since = np.full(customers, NEVER, dtype=np.int64)
    now = found.end == NEVER
    stage[found.customer[now]] = found.stage[now]
    since[found.customer[now]] = found.start[now]
    return stage, since


def _habits(
    points: TouchpointColumns,
    owner: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    found: DwellTimes,
    begin: int,
) -> pd.DataFrame:
    stage, since = present(found, len(points.offsets) - 1)
    # Strictly after entering: the touchpoint that led into the stage belongs to the stage before.
    rows = known & (points.occurred_at > since[owner]) & ~before(points.occurred_at, begin)
    return _customers_with(points, owner, rows, stage, {"touchpoints": np.ones(len(points), dtype=np.int64)})


def _customers_with(
    points: TouchpointColumns,
    owner: npt.NDArray[np.int64],
    rows: npt.NDArray[np.bool_],
    stage: npt.NDArray[np.int64],
    sums: dict[str, npt.NDArray[np.int64]],
) -> pd.DataFrame:
    """Count distinct customers by stage and event among some rows; ``sums`` adds numbers over the rows."""
    frame = pd.DataFrame(
        {"owner": owner[rows], "event": points.event.codes[rows], "inbound": points.inbound[rows]}
        | {name: values[rows] for name, values in sums.items()}
    )
    pairs = frame.groupby(["owner", "event", "inbound"], sort=True, as_index=False).sum()
    pairs["customers"] = 1
    pairs["stage"] = stage[pairs["owner"].to_numpy()]
    names = np.array([*points.event.values, ""], dtype=object)
    pairs["event"] = names[pairs["event"].to_numpy()]
    return pairs.groupby(_HABITS, sort=True, as_index=False)[["customers", *sums]].sum()


def _origins(
    points: TouchpointColumns, owner: npt.NDArray[np.int64], known: npt.NDArray[np.bool_], found: DwellTimes
) -> pd.DataFrame:
    channel = first_channels(points, owner, known)
    names = np.array(channel.values, dtype=object)
    once = ~found.again
    frame = pd.DataFrame({"stage": found.stage[once], "channel": names[channel.codes[found.customer[once]]]})
    return frame.groupby(_ORIGINS, sort=True).size().rename("customers").reset_index()


def first_channels(points: TouchpointColumns, owner: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> Text:
    """Return the channel of each customer's first known touchpoint; of several at once no name decides."""
    begun = np.full(len(points.offsets) - 1, NEVER, dtype=np.int64)
    np.minimum.at(begun, owner[known], points.occurred_at[known])
    rows = np.flatnonzero(known & (points.occurred_at == begun[owner]))
    lowest, highest = np.full(len(begun), NEVER), np.full(len(begun), -NEVER)
    np.minimum.at(lowest, owner[rows], points.channel.codes[rows])
    np.maximum.at(highest, owner[rows], points.channel.codes[rows])
    several, none = len(points.channel.values), len(points.channel.values) + 1
    codes = np.where(lowest == highest, np.where(lowest < 0, none, lowest), several)
    return Text(codes.astype(np.int32), (*points.channel.values, SEVERAL_CHANNELS, NO_CHANNEL))


def _precursors(question: Question, block: Block, owner: npt.NDArray[np.int64], stays: Stays) -> pd.DataFrame:
    """Ask one instant, a period (and the delay of arrivals) ago, so that every outcome is complete.

    What was known then is what came before; the outcome is the move within a period after it, by the same labels
    that the model learns from. The touchpoint that is the move itself can therefore never count as its own sign.
    """
    period, journey, points = question.period, question.journey, block.touchpoints
    asked_at = question.as_of - period - question.delay
    snapshots = eligible(points, np.array([asked_at], dtype=np.int64))
    stage = stays.at(snapshots.customer, asked_at).stage
    labels = label(journey, evidence(journey, block), snapshots, stage, question.as_of, question.delay)
    ahead = stages_ahead(journey, stage)
    # Nobody is asked who had moved already and only the evidence was late, nor at the top of the journey.
    asked = ahead.any(axis=1) & (labels.at_risk[:, 1:] == ahead).all(axis=1)
    # Nor is anybody where the period before was not recorded whole: who shows nothing then may have done anything.
    asked &= bool(is_covered(asked_at, period, question.observed_from))
    moved_on = (happened_within(labels.times[:, 1:], period) & ahead).any(axis=1)
    customers = len(points.offsets) - 1
    converted, stood = np.zeros(customers, dtype=np.int64), np.full(customers, -2, dtype=np.int64)
    converted[snapshots.customer] = moved_on
    stood[snapshots.customer[asked]] = stage[asked]
    window = points.live(asked_at) & before(points.occurred_at, asked_at)
    window &= ~before(points.occurred_at, asked_at - period)
    active = np.zeros(customers, dtype=np.bool_)
    active[owner[window & points.inbound]] = True
    rows = window & active[owner] & (stood[owner] > -2)
    found = _customers_with(points, owner, rows, stood, {})
    converters = _customers_with(points, owner, rows & (converted[owner] == 1), stood, {})
    found = found.merge(converters.rename(columns={"customers": "converted"}), on=_HABITS, how="left")
    found["converted"] = found["converted"].fillna(0).astype(np.int64)
    total = pd.DataFrame({"stage": stood, "event": ALL, "inbound": True, "customers": 1, "converted": converted})
    total = total[active & (stood > -2)].groupby(_HABITS, sort=True, as_index=False).sum()
    return pd.concat([found, total], ignore_index=True)


MINIMUM_CUSTOMERS = 30
"""Customers with a touchpoint, and without it, before the two are compared."""

MINIMUM_MOVERS = 10
"""Customers of a stage who must have moved on, and who must not have, before anything is compared."""


@dataclass(frozen=True, slots=True)
class Precursor:
    """One touchpoint before one step: shares that moved on with and without it, and their ratio.

    ``low`` and ``high`` bound the ratio; the intervals of a stage hold together in 95 of 100 cases (Bonferroni).
    """

    event: str
    inbound: bool
    with_it: int
    share_with: float
    share_without: float
    lift: float
    low: float
    high: float

    @property
    def moving(self) -> bool:
        """Whether those with the touchpoint moved on more often, beyond chance."""
        return self.low > 1

    @property
    def staying(self) -> bool:
        """Whether those with the touchpoint moved on less often, beyond chance."""
        return self.high < 1


def precursors(precursors: pd.DataFrame, stage: int) -> list[Precursor]:
    """Return every touchpoint that can be compared, the highest ratio first.

    The ratio is ((a + 1/2) / (n + 1)) / ((b + 1/2) / (m + 1)) with the standard error of its logarithm
    sqrt(1/(a + 1/2) - 1/(n + 1) + 1/(b + 1/2) - 1/(m + 1)): a of n customers with the touchpoint and b of m without
    it moved on (Katz and others 1978; the halves keep small numbers from shouting).
    """
    rows = precursors[precursors["stage"] == stage]
    total = rows[rows["event"] == ALL]
    if total.empty:
        return []
    customers, converted = int(total["customers"].iloc[0]), int(total["converted"].iloc[0])
    if min(converted, customers - converted) < MINIMUM_MOVERS:
        return []
    compared = rows[
        (rows["event"] != ALL)
        & (rows["customers"] >= MINIMUM_CUSTOMERS)
        & (customers - rows["customers"] >= MINIMUM_CUSTOMERS)
    ]
    z = float(norm.ppf(1 - 0.025 / max(len(compared), 1)))
    found = []
    for row in compared.itertuples():
        n, a = int(row.customers), int(row.converted)  # type: ignore[arg-type]
        m, b = customers - n, converted - a
        lift = (a + 0.5) / (n + 1) / ((b + 0.5) / (m + 1))
        spread = np.exp(z * np.sqrt(1 / (a + 0.5) - 1 / (n + 1) + 1 / (b + 0.5) - 1 / (m + 1)))
        found.append(
            Precursor(
                str(row.event), bool(row.inbound), n, a / n, b / m, lift, float(lift / spread), float(lift * spread)
            )
        )
    return sorted(found, key=lambda one: (-one.lift, one.event))
