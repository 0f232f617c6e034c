"""What a customer did last, in words: "bought for 1,060 yesterday", "cancelled an order of 40, 3 days ago".

Events that the presets and many systems know by the same name have a verb; any other is quoted as the data writes it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt

from cvj_ml.config import Config, outer_rating
from cvj_ml.histories import Block, Text
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.windows import NEVER, before, in_window, to_datetime

_EPOCH = date(1970, 1, 1)
_LONGEST = 40
_NEWEST = 5

_VERBS: Mapping[str, str] = {
    "account created": "created an account",
    "ad impression": "was shown an ad",
    "add to cart": "put something into the basket",
    "basket": "shopped",
    "booking": "booked",
    "campaign sent": "was sent a campaign",
    "checkout": "went to the checkout",
    "content view": "looked at content",
    "coupon redeemed": "redeemed a coupon",
    "demo": "had a demo",
    "email click": "clicked in an e-mail",
    "email open": "opened an e-mail",
    "email sent": "was sent an e-mail",
    "event attended": "came to an event",
    "lead": "left their details",
    "offer completed": "completed an offer",
    "offer received": "was sent an offer",
    "offer viewed": "looked at an offer",
    "onboarding done": "finished the onboarding",
    "order": "ordered",
    "pricing visit": "visited the prices",
    "product used": "used the product",
    "product view": "looked at a product",
    "purchase": "bought",
    "referral converted": "brought a customer",
    "referral shared": "recommended us",
    "review": "reviewed us",
    "satisfaction": "answered a survey",
    "search": "searched",
    "signup": "signed up",
    "social view": "looked at a post",
    "testimonial": "gave a testimonial",
    "transaction": "bought",
    "trial started": "started a trial",
    "upgrade": "upgraded",
    "visit": "visited us",
}
_BAD_VERBS: Mapping[str, str] = {
    "cancellation": "cancelled an order",
    "complaint": "complained",
    "refund": "got a refund",
    "return": "returned an order",
    "support ticket": "opened a ticket",
    "unsubscribe": "unsubscribed",
}
"""What nobody reads as good news, whatever the configuration calls it."""

_OF = ("an order", "a refund")
"""Verbs that end so have a value of something; all others are done for it."""


def name(text: str) -> str:
    """Return a name of the data fit for a sentence: one line, underscores as spaces, not too long."""
    plain = " ".join(text.replace("_", " ").split())
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"


def did(event: str) -> str:
    """Return what somebody did: "bought", or the name of the event in quotation marks."""
    return _VERBS.get(_known_name(event)) or _BAD_VERBS.get(_known_name(event)) or f"“{name(event)}”"


def reads_well(event: str) -> bool:
    """Return whether what somebody did is told with a verb that reads as good news."""
    return _known_name(event) in _VERBS


@lru_cache(maxsize=1024)
def _known_name(event: str) -> str:
    return name(event).lower().replace("-", " ")


def ago(days: int) -> str:
    """Return how many calendar days ago."""
    return {0: "today", 1: "yesterday"}.get(days, f"{days:,} days ago")


def count_of(value: float, noun: str) -> str:
    """Return a number with its noun."""
    return f"{round(value):,} {noun}{'' if round(value) == 1 else 's'}"


def times(value: float) -> str:
    """Return how often."""
    return {1: "once", 2: "twice"}.get(round(value), f"{round(value):,} times")


def days_ago(days: float) -> str:
    """Return how long ago."""
    return f"{in_days(days)} ago"


def in_days(value: float, decimals: int = 0) -> str:
    """Return days, whole ones where they are many."""
    if 0 <= value < 1 and not decimals:
        return "less than a day"
    text = f"{value:,.{decimals if value < 10 else 0}f}"
    return f"{text} {'day' if text == '1' else 'days'}"


def amount(value: float, decimals: int, currency: str | None = None) -> str:
    """Return an amount as people write it: without decimals from 100 on, and where there are none."""
    whole = abs(value) >= 100 or value == round(value)
    return f"{'-' if value < 0 else ''}{before_amount(currency)}{abs(value):,.{0 if whole else decimals}f}"


def before_amount(currency: str | None) -> str:
    """Return what stands in front of an amount: €, or USD and a blank."""
    return "" if currency is None else currency if unicodedata.category(currency[-1]) == "Sc" else f"{currency} "


@dataclass(frozen=True, slots=True)
class Unhappy:
    """What counts as a bad experience: some events, and ratings in the lower 40 % of their scale.

    Cancellations, refunds and the like always do, where they are called so. ``events`` are named as in the data,
    ``rating`` is the property that holds ratings.
    """

    events: frozenset[str] = frozenset()
    rating: str = "rating"
    rating_scale: tuple[float, float] = (1.0, 5.0)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return what counts as bad by a configuration."""
        return cls(config.journey.unhappy.events, config.report.rating, config.report.rating_scale)

    def is_bad_rating(self, rating: float) -> bool:
        """Return whether a rating lies in the lower 40 % of the scale; a missing one does not."""
        return rating <= outer_rating(self.rating_scale)[0]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event of a customer: how many calendar days ago, its value and rating (NaN: none), whether it was bad."""

    event: str
    days: int
    value: float
    rating: float
    highest_rating: float
    bad: bool
    decimals: int
    currency: str | None = None

    def what(self) -> str:
        """Return it without its time: "bought for 1,060", "reviewed us with 2 of 5"."""
        text = did(self.event)
        if self.value and not np.isnan(self.value):
            text += f" {'of' if text.endswith(_OF) else 'for'} {amount(abs(self.value), self.decimals, self.currency)}"
        return text if np.isnan(self.rating) else f"{text} with {self.rating:g} of {self.highest_rating:g}"

    @property
    def what_and_when(self) -> tuple[str, int]:
        """What tells it from the others that are told of a customer."""
        return self.event, self.days

    def told(self) -> str:
        """Return it with its time: "bought for 1,060 yesterday", "bought for 40, 3 days ago"."""
        what, when = self.what(), ago(self.days)
        return f"{what}{',' if what[-1].isdigit() and when[0].isdigit() else ''} {when}"


@dataclass(frozen=True, slots=True)
class LastEvents:
    """What is known of one customer before as_of: days are calendar days ago.

    ``last`` is the last that they did themselves, None where it may not be named; ``events`` and ``channels`` hold
    the last of each name, ``chosen_channels`` those through which they came themselves. ``single_value`` is the event
    that had a value, if one alone had. ``own`` and ``instants`` are what they did themselves and when, oldest first,
    ``unhappy`` the events that are bad experiences. ``newest`` are the last of all, ours too, the newest first.
    ``currency`` is that of amounts, None where none is configured.
    """

    last: Occurrence | None
    last_days: int | None
    first_days: int | None
    events: Mapping[str, Occurrence]
    single_value: Occurrence | None
    channels: Mapping[str, int]
    chosen_channels: frozenset[str]
    own: tuple[str, ...]
    instants: npt.NDArray[np.int64]
    as_of: int
    unhappy: frozenset[str]
    newest: tuple[Occurrence, ...] = ()
    currency: str | None = None

    @property
    def one_day(self) -> bool:
        """Whether all is of one day: when they first came and when last is one fact."""
        return self.first_days is not None and self.first_days == self.last_days

    def mostly(self, window: int) -> str | None:
        """Return the event that makes up at least half of what they did in a window, None where there is none."""
        recent = np.ones(len(self.own), bool) if window == NEVER else in_window(self.instants, self.as_of, window)
        counts = Counter(event for event, here in zip(self.own, recent, strict=True) if here)
        if not counts:
            return None
        event, number = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        told = event in self.events and not self.events[event].bad
        return event if told and number > 1 and 2 * number >= counts.total() else None


def last_events(
    definition: ModelSpec, block: Block, customer: int, as_of: int, unhappy: Unhappy, currency: str | None = None
) -> LastEvents:
    """Return what the customer at a position of the block did before as_of, as far as it was known then.

    Only events of the vocabulary and those that the configuration calls unhappy are named: a rare name might tell who
    somebody is.
    """
    points, catalogue = block.touchpoints, definition.catalogue
    rows = np.arange(points.offsets[customer], points.offsets[customer + 1])
    live = before(points.occurred_at[rows], as_of) & before(points.visible_at[rows], as_of)
    rows = rows[live & ~before(points.superseded_at[rows], as_of)]
    bad_events = unhappy.events | {event for event in points.event.values if _known_name(event) in _BAD_VERBS}
    today = (to_datetime(as_of, definition.zone).date() - _EPOCH).days
    told = {*catalogue.vocabulary.events, *unhappy.events}
    ratings = points.properties.get(unhappy.rating)
    ratings = None if isinstance(ratings, Text) else ratings
    units = 10**catalogue.value_decimals

    def occurrence(row: int) -> Occurrence:
        event, rating = points.event.values[points.event.codes[row]], float("nan")
        if ratings is not None:
            rating = float(ratings[row])
        value = float(points.value[row]) / units if points.has_value[row] else float("nan")
        bad = event in bad_events or unhappy.is_bad_rating(rating)
        days, highest = today - int(points.day[row]), unhappy.rating_scale[1]
        return Occurrence(event, days, value, rating, highest, bad, catalogue.value_decimals, currency)

    latest: dict[int, int] = {}
    through: dict[int, int] = {}
    for row in rows.tolist():
        latest[int(points.event.codes[row])] = row
        if points.channel.codes[row] >= 0:
            through[int(points.channel.codes[row])] = row
    events = {one.event: one for one in map(occurrence, latest.values()) if one.event in told}
    channels = {points.channel.values[code]: today - int(points.day[row]) for code, row in through.items()}
    own, valued = rows[points.inbound[rows]], rows[points.has_value[rows]]
    # Of several at one instant none is the last: the worst is told, or else the one of the highest value.
    at_once = own[points.occurred_at[own] == points.occurred_at[own[-1]]] if len(own) else own
    last = [one for one in map(occurrence, at_once.tolist()) if one.event in told]
    single = occurrence(int(valued[0])) if len(valued) == 1 else None
    return LastEvents(
        min(last, key=lambda one: (not one.bad, -np.nan_to_num(one.value), one.event)) if last else None,
        today - int(points.day[own[-1]]) if len(own) else None,
        today - int(points.day[rows[0]]) if len(rows) else None,
        events,
        single if single and single.event in told else None,
        channels,
        frozenset(points.channel.values[code] for code in set(points.channel.codes[own].tolist()) if code >= 0),
        tuple(points.event.values[code] for code in points.event.codes[own].tolist()),
        points.occurred_at[own],
        as_of,
        bad_events,
        tuple(one for one in map(occurrence, rows[: -_NEWEST - 1 : -1].tolist()) if one.event in told),
        currency,
    )
