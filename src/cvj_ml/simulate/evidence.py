"""The evidence of each move, so that the ``cvj8`` rules read the true stage from the touchpoints.

Channel, value, rating and lateness of the simulated touchpoints.

Attributes that hint at the traits: known from the arrival or a little later, some in several versions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.simulate.log import (
    BEFORE_ASCEND,
    BEFORE_EXCITE,
    BEFORE_PROMOTE,
    CODE,
    EVENTS,
    OUTBOUND,
    SECONDS,
    Log,
    choose,
    join,
    keep_below_next_stage,
    occurrences,
)
from cvj_ml.simulate.process import (
    ADVOCATE,
    ASCEND,
    AWARE,
    CONVERT,
    COUNTRIES,
    ENGAGE,
    EXCITE,
    PROMOTE,
    STAGES,
    SUBSCRIBE,
    Floats,
    Ints,
    Paths,
    Population,
)

# Evidence of a stage that was stepped over lies this much earlier; repeats of one event lie closer together.
_SECONDS_BETWEEN_STAGES = 300
_SECONDS_BETWEEN_REPEATS = 60

_KINDS = {
    ENGAGE: {"visit": 0.5, "content_view": 0.2, "search": 0.15, "product_view": 0.1, "event_attended": 0.05},
    SUBSCRIBE: {"signup": 0.6, "lead": 0.2, "account_created": 0.2},
    CONVERT: {"purchase": 0.65, "trial_started": 0.2, "booking": 0.08, "demo": 0.07},
    EXCITE: {"onboarding_done": 0.35, "product_used": 0.25, "satisfaction": 0.15, "purchase": 0.25},
    ASCEND: {"purchase": 0.7, "upgrade": 0.3},
    ADVOCATE: {"review": 0.8, "testimonial": 0.2},
    PROMOTE: {"referral_converted": 0.7, "referral_shared": 0.3},
}
_FIRST_TOUCH = {"social_view": 0.5, "ad_impression": 0.5}


def add_evidence(people: Population, paths: Paths, background: Log, rng: np.random.Generator) -> Log:
    """Return the background, capped where the rules count, together with each arrival's and move's evidence.

    A customer passes every stage up to Convert, at the latest moments before a higher one (Excite and Advocate are
    entered only after Convert); stages above Convert that are stepped over leave nothing.
    """
    moves = _Moves(people, paths, rng)
    logs = [moves.log(AWARE, np.arange(len(people)), _kinds(_FIRST_TOUCH, len(people), rng))]
    for stage in (ENGAGE, SUBSCRIBE, CONVERT):
        passing = moves.passing(stage)
        logs.append(moves.log(stage, passing, _kinds(_KINDS[stage], len(passing), rng)))

    # Purchases so far decide how many more may happen unnoticed, and whether the next one is the second or third.
    converting = logs[-1]
    purchases = np.bincount(converting.customer[converting.event == CODE["purchase"]], minlength=len(people))
    background = keep_below_next_stage(background, "purchase", BEFORE_EXCITE, 1 - purchases)
    purchases += occurrences(background, "purchase", BEFORE_EXCITE, len(people))
    background = keep_below_next_stage(background, "product_used", BEFORE_EXCITE, np.full(len(people), 2))
    uses = occurrences(background, "product_used", BEFORE_EXCITE, len(people))

    landing = moves.landing(EXCITE)
    kind = _kinds(_KINDS[EXCITE], len(landing), rng)
    missing = np.ones(len(landing), dtype=np.int64)
    missing[kind == CODE["purchase"]] = 2 - purchases[landing[kind == CODE["purchase"]]]
    missing[kind == CODE["product_used"]] = 3 - uses[landing[kind == CODE["product_used"]]]
    logs.append(moves.log(EXCITE, landing, kind, missing))
    purchases[landing] += np.where(kind == CODE["purchase"], missing, 0)

    background = keep_below_next_stage(background, "purchase", BEFORE_ASCEND, 2 - purchases)
    purchases += occurrences(background, "purchase", BEFORE_ASCEND, len(people))
    landing = moves.landing(ASCEND)
    kind = _kinds(_KINDS[ASCEND], len(landing), rng)
    kind[purchases[landing] < 2] = CODE["upgrade"]
    logs.append(moves.log(ASCEND, landing, kind))

    landing = moves.landing(ADVOCATE)
    logs.append(moves.log(ADVOCATE, landing, _kinds(_KINDS[ADVOCATE], len(landing), rng)))

    background = keep_below_next_stage(background, "referral_shared", BEFORE_PROMOTE, np.full(len(people), 2))
    shares = occurrences(background, "referral_shared", BEFORE_PROMOTE, len(people))
    landing = moves.landing(PROMOTE)
    kind = _kinds(_KINDS[PROMOTE], len(landing), rng)
    logs.append(moves.log(PROMOTE, landing, kind, np.where(kind == CODE["referral_shared"], 3 - shares[landing], 1)))
    return join([background, *logs])


class _Moves:
    """When each customer passes each stage: the day, the stage landed on that day, and the second of that move."""

    def __init__(self, people: Population, paths: Paths, rng: np.random.Generator) -> None:
        everyone = np.arange(len(people))
        self.day = np.full((STAGES, len(people)), -1, dtype=np.int64)
        self.landed = np.zeros((STAGES, len(people)), dtype=np.int64)
        for stage in range(STAGES):
            # The stage never falls, so the midnights below it number the day on which it is passed, plus one.
            below = (paths.stage < stage).sum(axis=0)
            self.day[stage] = np.where(below < len(paths.stage), below - 1, -1)
            self.landed[stage] = paths.stage[np.minimum(below, len(paths.stage) - 1), everyone]
        hour = rng.normal(15, 4, (STAGES, len(people))).clip(1, 23.5)
        self.second = (hour * 3600).astype(np.int64)

    def passing(self, stage: int) -> Ints:
        """Return the customers who reach or step over a stage."""
        return np.flatnonzero(self.day[stage] >= 0)

    def landing(self, stage: int) -> Ints:
        """Return the customers who enter a stage itself."""
        return np.flatnonzero((self.day[stage] >= 0) & (self.landed[stage] == stage))

    def log(self, stage: int, customer: Ints, event: Ints, repeats: Ints | None = None) -> Log:
        """Return evidence of a stage, the last repeat at the move itself."""
        repeats = np.ones(len(customer), dtype=np.int64) if repeats is None else repeats
        landed = self.landed[stage, customer]
        second = self.day[stage, customer] * SECONDS + self.second[landed, customer]
        second -= (landed - stage) * _SECONDS_BETWEEN_STAGES
        copy = np.repeat(np.arange(len(customer)), repeats)
        nth_last = np.cumsum(repeats)[copy] - 1 - np.arange(len(copy))
        return Log(
            customer[copy],
            second[copy] - nth_last * _SECONDS_BETWEEN_REPEATS,
            event[copy],
            np.full(len(copy), stage),
            np.ones(len(copy), dtype=bool),
        )


def _kinds(shares: dict[str, float], size: int, rng: np.random.Generator) -> Ints:
    return rng.choice([CODE[event] for event in shares], size, p=list(shares.values()))


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


PLANS = ("basic", "standard", "premium")
_CHANGED_SHARE = 0.15
_MISSING_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class AttributeVersions:
    """Versions in order of time: customer position, second from which known, country, age (NaN), plan."""

    customer: Ints
    known_second: Ints
    country: npt.NDArray[np.object_]
    age: Floats
    plan: npt.NDArray[np.object_]


def draw_attributes(people: Population, arrival: Ints, days: int, rng: np.random.Generator) -> AttributeVersions:
    """Draw attributes, given the second of each customer's first touchpoint; a new version may change the plan.

    The plan is a noisy sign of the spend trait and causes nothing, so a change of plan does not change the process.
    """
    size = len(people)
    known = arrival + np.where(rng.random(size) < 0.8, 0, rng.integers(0, 3 * SECONDS, size))
    age = (40 + 13 * people.age).round().clip(18, 90)
    age[rng.random(size) < _MISSING_SHARE] = np.nan
    country = np.array(COUNTRIES, dtype=object)[people.country]
    country[rng.random(size) < _MISSING_SHARE] = None
    end = days * SECONDS
    again = np.flatnonzero((rng.random(size) < _CHANGED_SHARE) & (known + SECONDS < end))
    later = known[again] + SECONDS + (rng.random(len(again)) * (end - SECONDS - known[again])).astype(np.int64)
    customer = np.concatenate([np.arange(size), again])
    second = np.concatenate([known, later])
    level = people.spend[customer] + 0.8 * rng.normal(size=len(customer))
    plan = np.array(PLANS, dtype=object)[np.digitize(level, [0.0, 1.1])]
    order = np.lexsort((customer, second))
    who = customer[order]
    return AttributeVersions(who, second[order], country[who], age[who], plan[order])
