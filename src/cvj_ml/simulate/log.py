"""The simulated log while it is being built: flat columns of positions, seconds and codes.

Touchpoints beside the moves: what people do every day, and what the business sends them.

None of it can enter a stage above the customer's own: what the rules count (a second purchase, a third use or share)
is capped until the stage that it leads to is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.simulate.process import CONVERT, EXCITE, HOT, PROMOTE, SUBSCRIBE, Floats, Ints, Paths, Population

SECONDS = 86_400

BEHAVIOUR = (
    "social_view",
    "visit",
    "content_view",
    "search",
    "product_view",
    "add_to_cart",
    "event_attended",
    "email_click",
    "product_used",
    "support_ticket",
    "purchase",
    "refund",
    "review",
    "satisfaction",
    "upgrade",
    "testimonial",
    "referral_shared",
    "referral_converted",
)
_EVIDENCE_ONLY = ("signup", "lead", "account_created", "booking", "demo", "trial_started", "onboarding_done")
OUTBOUND = ("email_sent", "ad_impression")
EVENTS = (*BEHAVIOUR, *_EVIDENCE_ONLY, *OUTBOUND)
CODE = {event: code for code, event in enumerate(EVENTS)}


@dataclass(frozen=True, slots=True)
class Log:
    """Touchpoints: customer position, whole second from the start, event code, stage at the start of the day.

    ``evidence`` marks what makes a move visible, ``arrival`` included.
    """

    customer: Ints
    second: Ints
    event: Ints
    stage: Ints
    evidence: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, which: Ints) -> Log:
        """Return the rows at some positions, in that order."""
        return Log(*(getattr(self, name)[which] for name in self.__slots__))


def join(logs: Sequence[Log]) -> Log:
    """Return several logs one after the other."""
    return Log(*(np.concatenate([getattr(log, name) for log in logs]) for name in Log.__slots__))


def choose(weights: Floats, rng: np.random.Generator) -> Ints:
    """Draw one column a row in proportion to its weights; shape (rows, options) to (rows,)."""
    edges = np.cumsum(weights, axis=1)
    draw = rng.random(len(weights)) * edges[:, -1]
    chosen: Ints = (draw[:, None] >= edges[:, :-1]).sum(axis=1)
    return chosen


# Relative frequency of an event by the stage at the start of the day, Aware to Promote.
_FREQUENCY = {
    "social_view": (10, 2, 2, 1.5, 1.5, 1.5, 2, 3),
    "visit": (0, 10, 9, 7, 6, 6, 6, 6),
    "content_view": (0, 8, 6, 4, 3, 3, 3, 3),
    "search": (0, 4, 4, 2, 2, 2, 2, 2),
    "product_view": (0, 5, 7, 4, 4, 5, 4, 4),
    "add_to_cart": (0, 0.7, 1.5, 0.6, 0.8, 1, 1, 1),
    "event_attended": (0, 0.5, 0.6, 0.4, 0.4, 0.5, 0.6, 0.6),
    "email_click": (0, 0, 3, 3, 3, 3, 3, 3),
    "product_used": (0, 0, 0, 1, 6, 7, 7, 7),
    "support_ticket": (0, 0, 0, 0.8, 0.8, 0.7, 0.5, 0.4),
    "purchase": (0, 0, 0, 0.5, 0.8, 2, 2.2, 2.2),
    "refund": (0, 0, 0, 0, 0, 0.15, 0.15, 0.15),
    "review": (0, 0, 0, 0.4, 0.4, 0.4, 0.5, 0.5),
    "satisfaction": (0, 0, 0, 0.3, 0.5, 0.5, 0.5, 0.5),
    "upgrade": (0, 0, 0, 0, 0, 0.15, 0.15, 0.15),
    "testimonial": (0, 0, 0, 0, 0, 0, 0.1, 0.1),
    "referral_shared": (0, 0, 0, 0.05, 0.3, 0.3, 0.6, 1.5),
    "referral_converted": (0, 0, 0, 0, 0, 0, 0, 0.5),
}
_MORE_WHEN_HOT = {"product_view": 1.6, "add_to_cart": 1.6, "search": 1.3}

_RATE_BY_ENGAGEMENT = np.array([0.44, 0.07, 0.008, 0.0])
_RATE_BY_STAGE = np.array([0.3, 0.8, 0.9, 1.1, 1.2, 1.3, 1.3, 1.3])
_RATE_BY_WEEKDAY = np.array([1.1, 1.1, 1.05, 1.0, 1.0, 0.8, 0.95])
_EMAILS_A_DAY = 0.03
_ADS_A_DAY = 0.012

_ROWS_AT_ONCE = 100_000


def behaviour(people: Population, paths: Paths, first_weekday: int, rng: np.random.Generator) -> Log:
    """Return what the customers do besides moving on, day by day; a day's touchpoints form one session."""
    activity = np.exp(0.4 * people.activity)
    customers, days = [], []
    for day in range(len(paths.stage) - 1):
        rate = activity * _RATE_BY_ENGAGEMENT[paths.engagement[day]] * _RATE_BY_STAGE[paths.stage[day]]
        rate[paths.stage[day] < 0] = 0
        who = np.repeat(np.arange(len(people)), rng.poisson(rate * _RATE_BY_WEEKDAY[(first_weekday + day) % 7]))
        customers.append(who)
        days.append(np.full(len(who), day))
    customer, day_of = np.concatenate(customers), np.concatenate(days)
    stage = paths.stage[day_of, customer].astype(np.int64)
    event = _events(people, customer, stage, paths.engagement[day_of, customer] == HOT, rng)
    return Log(customer, day_of * SECONDS + _seconds(customer, day_of, rng), event, stage, np.zeros(len(event), bool))


def sends(people: Population, paths: Paths, rng: np.random.Generator) -> Log:
    """Return what the business sends: advertising to everybody, e-mail from Subscribe on, whatever they do."""
    total = len(paths.stage[:-1].ravel())
    cells, events = [], []
    for event, rate in (("email_sent", _EMAILS_A_DAY), ("ad_impression", _ADS_A_DAY)):
        cells.append(np.unique(rng.integers(0, total, rng.poisson(rate * total))))
        events.append(np.full(len(cells[-1]), CODE[event]))
    cell, event_of = np.concatenate(cells), np.concatenate(events)
    day_of, customer = np.divmod(cell, len(people))
    stage = paths.stage[day_of, customer].astype(np.int64)
    sent = stage >= np.where(event_of == CODE["email_sent"], SUBSCRIBE, 0)
    second = day_of * SECONDS + rng.integers(8 * 3600, 18 * 3600, len(cell))
    return Log(customer, second, event_of, stage, np.zeros(len(cell), bool)).take(np.flatnonzero(sent))


def keep_below_next_stage(log: Log, event: str, stages: Ints, cap: Ints) -> Log:
    """Turn an event into a visit where, within some stages, a customer would have more than their cap of it."""
    rows = np.flatnonzero((log.event == CODE[event]) & np.isin(log.stage, stages))
    order = rows[np.lexsort((log.second[rows], log.customer[rows]))]
    customer = log.customer[order]
    rank = np.arange(len(order)) - np.searchsorted(customer, customer, side="left")
    kept = log.event.copy()
    kept[order[rank >= cap[customer]]] = CODE["visit"]
    return Log(log.customer, log.second, kept, log.stage, log.evidence)


def occurrences(log: Log, event: str, stages: Ints, customers: int) -> Ints:
    """Return how often each customer did something within some stages."""
    rows = (log.event == CODE[event]) & np.isin(log.stage, stages)
    return np.bincount(log.customer[rows], minlength=customers)


BEFORE_EXCITE = np.array([CONVERT])
BEFORE_ASCEND = np.array([EXCITE])
BEFORE_PROMOTE = np.arange(PROMOTE)


def _events(
    people: Population, customer: Ints, stage: Ints, hot: npt.NDArray[np.bool_], rng: np.random.Generator
) -> Ints:
    by_stage = np.array([_FREQUENCY[event] for event in BEHAVIOUR]).T
    when_hot = np.array([_MORE_WHEN_HOT.get(event, 1.0) for event in BEHAVIOUR])
    taste = {
        "content_view": 0.5 * people.curiosity,
        "event_attended": 0.5 * people.curiosity,
        "search": 0.3 * people.need,
        "product_view": 0.5 * people.need,
        "add_to_cart": 0.7 * people.need,
        "product_used": 0.3 * people.satisfaction,
        "support_ticket": -0.6 * people.satisfaction,
        "refund": -0.6 * people.satisfaction,
        "purchase": 0.3 * people.spend,
        "social_view": 0.4 * people.sociability,
        "referral_shared": 0.7 * people.sociability,
        "referral_converted": 0.5 * people.sociability,
    }
    by_customer = np.exp(np.stack([taste.get(event, np.zeros(len(people))) for event in BEHAVIOUR], axis=1))
    chosen = []
    for start in range(0, max(len(customer), 1), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        weights = by_stage[stage[rows]] * by_customer[customer[rows]]
        chosen.append(choose(np.where(hot[rows, None], weights * when_hot, weights), rng))
    return np.concatenate(chosen)


def _seconds(customer: Ints, day: Ints, rng: np.random.Generator) -> Ints:
    """Return the second of the day: a session's start, and minutes between its touchpoints (rows come in sessions)."""
    starts = np.ones(len(customer), dtype=bool)
    starts[1:] = (customer[1:] != customer[:-1]) | (day[1:] != day[:-1])
    session = np.cumsum(starts) - 1
    hour: Floats = rng.normal(15, 4, int(starts.sum())).clip(0.1, 22.5)
    gap = np.where(starts, 0, rng.exponential(180, len(customer))).cumsum()
    within = gap - gap[starts][session]
    second: Ints = np.minimum(hour[session] * 3600 + within, SECONDS - 60).astype(np.int64)
    return second
