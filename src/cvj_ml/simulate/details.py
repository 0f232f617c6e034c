"""Channel, value, rating and lateness of the simulated touchpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvj_ml.simulate.log import CODE, EVENTS, OUTBOUND, Log, choose
from cvj_ml.simulate.process import ADVOCATE, EXCITE, Floats, Ints, Population

CHANNELS = ("web", "app", "email", "social", "search", "store", "phone", "ads")
_USUAL_CHANNELS = ("web", "app", "store")
_CHANNELS_OF = {
    "social_view": ("social",),
    "visit": ("web", "app", "social", "search"),
    "content_view": ("web", "app", "social"),
    "search": ("search", "web", "app"),
    "event_attended": ("web", "store"),
    "email_click": ("email",),
    "product_used": ("web", "app"),
    "support_ticket": ("phone", "email", "app"),
    "review": ("web", "app"),
    "satisfaction": ("email", "phone"),
    "testimonial": ("web", "social"),
    "referral_shared": ("social", "email", "app"),
    "referral_converted": ("social", "email", "app"),
    "lead": ("web", "phone"),
    "demo": ("web", "phone"),
    "email_sent": ("email",),
    "ad_impression": ("ads", "social"),
}

# Late rows are of events that no rule counts above Engage, so the stage as known stays the true stage.
_MAY_BE_LATE = (
    *("social_view", "visit", "content_view", "search", "product_view", "add_to_cart", "event_attended"),
    *("email_click", "support_ticket", *OUTBOUND),
)
_LATE_SHARE = 0.05
_LATEST = 2 * 86_400

_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Details:
    """The remaining columns: channel code, value (NaN if none), rating (NaN if none), seconds late."""

    channel: Ints
    value: Floats
    rating: Floats
    late: Ints


def draw_details(people: Population, log: Log, rng: np.random.Generator) -> Details:
    """Draw the remaining columns of a log."""
    late = np.isin(log.event, [CODE[event] for event in _MAY_BE_LATE]) & ~log.evidence
    late &= rng.random(len(log)) < _LATE_SHARE
    return Details(
        channel=_channels(people, log, rng),
        value=_values(people, log, rng),
        rating=_ratings(people, log, rng),
        late=np.where(late, rng.integers(60, _LATEST + 1, len(log)), 0),
    )


def _channels(people: Population, log: Log, rng: np.random.Generator) -> Ints:
    allowed = np.array([[name in _CHANNELS_OF.get(event, _USUAL_CHANNELS) for name in CHANNELS] for event in EVENTS])
    liking = rng.normal(size=(len(people), len(CHANNELS)))
    liking[:, CHANNELS.index("app")] -= 0.5 * people.age
    liking[:, CHANNELS.index("store")] += 0.5 * people.age
    liking[:, CHANNELS.index("social")] += 0.8 * people.sociability
    weights = np.exp(liking)
    chosen = []
    for start in range(0, len(log), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        chosen.append(choose(allowed[log.event[rows]] * weights[log.customer[rows]], rng))
    return np.concatenate(chosen)


def _values(people: Population, log: Log, rng: np.random.Generator) -> Floats:
    value = np.full(len(log), np.nan)
    for event, level in (("purchase", 3.6), ("upgrade", 4.6), ("booking", 3.0), ("refund", 3.3)):
        rows = np.flatnonzero(log.event == CODE[event])
        amount = np.exp(level + 0.6 * people.spend[log.customer[rows]] + 0.5 * rng.normal(size=len(rows)))
        value[rows] = np.round(amount, 2) * (-1 if event == "refund" else 1)
    return value


def _ratings(people: Population, log: Log, rng: np.random.Generator) -> Floats:
    rating = np.full(len(log), np.nan)
    for event, stage in (("review", ADVOCATE), ("satisfaction", EXCITE)):
        rows = np.flatnonzero(log.event == CODE[event])
        mood = 3.4 + 0.8 * people.satisfaction[log.customer[rows]] + 0.7 * rng.normal(size=len(rows))
        stars = np.round(mood).clip(1, 5)
        # A good rating is the evidence of this stage: evidence has one, and before the stage there is none.
        stars = np.where(log.evidence[rows], stars.clip(min=4), stars)
        below = ~log.evidence[rows] & (log.stage[rows] < stage)
        rating[rows] = np.where(below, stars.clip(max=3), stars)
    return rating
