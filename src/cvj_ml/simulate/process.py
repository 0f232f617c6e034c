"""The known process: traits, a hidden engagement state and daily moves through the eight stages of ``cvj8``.

A customer's latent state at a UTC midnight is (stage, engagement). During the day the stage may rise by one, two or
three and, independently, the engagement may change; both depend on that midnight's state and on fixed traits only.
So the state is a Markov chain over days and every reach probability follows exactly from one forward recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
States = npt.NDArray[np.int8]

AWARE, ENGAGE, SUBSCRIBE, CONVERT, EXCITE, ASCEND, ADVOCATE, PROMOTE = range(8)
STAGES = 8
HOT, COLD, DORMANT, GONE = range(4)
ENGAGEMENTS = 4

COUNTRIES = ("DE", "ES", "FR", "GB", "NL", "US")
_COUNTRY_SHARES = (0.18, 0.10, 0.14, 0.22, 0.06, 0.30)
_COUNTRY_EFFECT = np.array([0.1, -0.25, -0.1, 0.15, 0.3, 0.0])

_MOVE_WHEN_HOT = np.array([0.10, 0.035, 0.028, 0.032, 0.024, 0.014, 0.013, 0.0])
_MOVE_BY_ENGAGEMENT = np.array([1.0, 0.2, 0.02, 0.0])
_HIGHEST_MOVE = 0.5


@dataclass(frozen=True, slots=True)
class Population:
    """Fixed traits of the customers, each of shape (customers,); all but the days and codes are standardised."""

    arrival_day: Ints
    first_engagement: Ints
    activity: Floats
    curiosity: Floats
    need: Floats
    satisfaction: Floats
    spend: Floats
    sociability: Floats
    age: Floats
    country: Ints

    def __len__(self) -> int:
        return len(self.arrival_day)

    def take(self, which: npt.NDArray[np.bool_]) -> Population:
        """Return some of the customers."""
        return Population(*(getattr(self, name)[which] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Paths:
    """Stage (-1 before arrival) and engagement at midnight of day 0, 1, …, ``days``; shape (days + 1, customers)."""

    stage: States
    engagement: States


@dataclass(frozen=True, slots=True)
class Campaign:
    """A treatment: from ``first_day`` on, for so many days, the daily chance of a move of some is multiplied.

    ``treated`` is a mask over the customers, ``factor`` one number, or one for each customer.
    """

    treated: npt.NDArray[np.bool_]
    first_day: int
    days: int
    factor: float | Floats

    def factors(self, day: int) -> Floats | float:
        """Return by what each customer's chance of a move is multiplied on a day."""
        return np.where(self.treated, self.factor, 1.0) if 0 <= day - self.first_day < self.days else 1.0


def draw_population(customers: int, days: int, rng: np.random.Generator) -> Population:
    """Draw the traits; a quarter of the customers arrive early, the others evenly over the whole span."""
    early = rng.random(customers) < 0.25
    arrival = np.where(early, rng.random(customers) * min(60, days), rng.random(customers) * days).astype(np.int64)
    age = rng.normal(size=customers)
    return Population(
        arrival_day=arrival,
        first_engagement=np.where(rng.random(customers) < 0.7, HOT, COLD),
        activity=rng.normal(size=customers),
        curiosity=rng.normal(size=customers),
        need=rng.normal(size=customers),
        satisfaction=rng.normal(size=customers),
        spend=0.9 * rng.normal(size=customers) + 0.4 * age,
        sociability=0.95 * rng.normal(size=customers) - 0.3 * age,
        age=age,
        country=rng.choice(len(COUNTRIES), customers, p=_COUNTRY_SHARES),
    )


def move_probabilities(people: Population) -> Floats:
    """Return the probability of a move on one day; shape (stages, engagements, customers)."""
    common = 0.35 * people.activity + _COUNTRY_EFFECT[people.country]
    affinity = np.stack(
        [
            0.5 * people.curiosity,
            0.6 * people.curiosity,
            0.8 * people.need - 0.1 * people.age,
            0.6 * people.satisfaction,
            0.8 * people.spend,
            0.8 * people.satisfaction,
            0.9 * people.sociability,
            np.zeros(len(people)),
        ]
    )
    base = _MOVE_WHEN_HOT[:, None, None] * _MOVE_BY_ENGAGEMENT[None, :, None]
    probability: Floats = np.minimum(base * np.exp(affinity + common)[:, None, :], _HIGHEST_MOVE)
    return probability


def step_shares(people: Population) -> Floats:
    """Return how a move divides into steps of one, two and three stages; shape (3, customers)."""
    two = 0.12 * np.exp(0.3 * people.spend).clip(max=3)
    three = 0.03 * np.exp(0.3 * people.need).clip(max=3)
    return np.stack([1 - two - three, two, three])


def engagement_changes(people: Population) -> Floats:
    """Return the daily engagement transition matrix; shape (engagement before, engagement after, customers)."""
    losing = np.exp(-0.4 * people.satisfaction)
    matrix = np.zeros((ENGAGEMENTS, ENGAGEMENTS, len(people)))
    matrix[HOT, COLD] = 0.06
    matrix[COLD, HOT] = 0.025
    matrix[COLD, DORMANT] = 0.008 * losing
    matrix[DORMANT, HOT] = 0.007
    matrix[DORMANT, GONE] = 0.005 * losing
    for state in range(ENGAGEMENTS):
        matrix[state, state] = 1 - matrix[state].sum(axis=0)
    return matrix


def draw_paths(people: Population, days: int, rng: np.random.Generator, campaigns: Sequence[Campaign] = ()) -> Paths:
    """Draw every customer's latent state at each midnight; until a campaign begins it changes nothing."""
    everyone = np.arange(len(people))
    move = move_probabilities(people)
    up_to_one, up_to_two = np.cumsum(step_shares(people), axis=0)[:2]
    change = np.cumsum(engagement_changes(people), axis=1)
    stages = np.full((days + 1, len(people)), -1, dtype=np.int8)
    engagements = np.full((days + 1, len(people)), GONE, dtype=np.int8)
    for day in range(days):
        stage, engagement = stages[day], engagements[day]
        probability = move[stage, engagement, everyone]
        for campaign in campaigns:
            probability = np.minimum(probability * campaign.factors(day), _HIGHEST_MOVE)
        draw = rng.random(len(people))
        moves = (draw < probability) & (stage >= 0)
        # Given a move, draw / probability is again uniform: it chooses the length of the step.
        length = draw / np.maximum(probability, 1e-300)
        steps = 1 + (length >= up_to_one).astype(np.int8) + (length >= up_to_two).astype(np.int8)
        arrives = people.arrival_day == day
        stages[day + 1] = np.where(arrives, AWARE, np.where(moves, np.minimum(stage + steps, PROMOTE), stage))
        # Rounding may leave the last cumulative sum just below one, so only the first three edges are compared.
        after = (rng.random(len(people)) >= change[engagement, : ENGAGEMENTS - 1, everyone].T).sum(axis=0)
        engagements[day + 1] = np.where(arrives, people.first_engagement, after)
    return Paths(stages, engagements)


def true_reach_probabilities(
    people: Population, stage: Ints, engagement: Ints, days: Sequence[int], factor: float | Floats = 1.0
) -> Floats:
    """Return P(stage j or higher after d days) from the latent state; shape (customers, stages, len(days)).

    ``stage`` and ``engagement`` are of shape (customers,) with every customer present; ``factor`` is that of a
    campaign which treats them all the while.
    """
    move = np.minimum(move_probabilities(people) * factor, _HIGHEST_MOVE)
    shares = step_shares(people)
    change = engagement_changes(people)
    state = np.zeros((STAGES, ENGAGEMENTS, len(people)))
    state[stage, engagement, np.arange(len(people))] = 1
    reached = {0: _at_or_above(state)}
    for day in range(1, max(days, default=0) + 1):
        moved = state * move
        after = state - moved
        for step, share in enumerate(shares, start=1):
            for source in range(PROMOTE):
                after[min(source + step, PROMOTE)] += moved[source] * share
        state = np.einsum("sen,efn->sfn", after, change)
        if day in days:
            reached[day] = _at_or_above(state)
    return np.stack([reached[day] for day in days], axis=-1)


def _at_or_above(state: Floats) -> Floats:
    return np.cumsum(state.sum(axis=1)[::-1], axis=0)[::-1].T.clip(0, 1)
