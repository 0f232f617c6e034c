"""How far past forecasts missed, kept beside a model: the range around every expected number of moves comes from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.special import betainc
from scipy.stats import t as student_t

LEVELS = (80, 95)
"""Per cent of cases in which the number of moves lies within a range, one range each."""

FEWEST_FOLDS = 3
"""Past folds from which on a range is told: of two, 2.5 % of all t distributions lie beyond 12 standard errors."""

EVERYBODY = 0
"""Stands for the whole stage where a number of customers is asked for."""

_NODES = 400
"""Equally likely levels of the moment over which a range is averaged."""

_F64 = npt.NDArray[np.float64]


class CountRange(NamedTuple):
    """The least and the greatest number of moves of a range, both inside."""

    low: int
    high: int


def moves_in_words(number: float) -> str:
    """Return an expected number of moves: with a decimal below ten."""
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}"


@dataclass(frozen=True, slots=True)
class ExpectedMoves:
    """How many of some customers are expected to move under business as usual, and how sure that is.

    customers and expected (Σp) are tonight's; folds: past folds that the spread comes from, and spread: the standard
    deviation of log(observed/expected) between them beyond sampling, None where they are fewer than `FEWEST_FOLDS`;
    ranges: one for each of `LEVELS`, none without a spread.
    """

    customers: int
    expected: float
    folds: int = 0
    spread: float | None = None
    ranges: tuple[CountRange, ...] = ()

    def columns(self, name: str) -> dict[str, float | int | None]:
        """Return the numbers as the columns of a table whose names begin with ``name``; null where there are none."""
        found: dict[str, float | int | None] = {name: self.expected}
        for i, level in enumerate(LEVELS):
            for side in CountRange._fields:
                found[f"{name}_{side}_{level}"] = getattr(self.ranges[i], side) if self.ranges else None
        return found

    @classmethod
    def from_columns(cls, row: Mapping[str, Any], name: str, customers: int) -> Self:
        """Return what `columns` wrote under a name, with ``past_folds`` and the spread where the row has them.

        An expected number that is missing, as in the row of an older night, is NaN.
        """

        def number(column: str) -> float:
            value = row.get(column)
            return math.nan if value is None else float(value)

        bounds = [[number(f"{name}_{side}_{level}") for side in CountRange._fields] for level in LEVELS]
        told = not any(math.isnan(one) for pair in bounds for one in pair)
        folds, spread = number("past_folds"), number(f"{name}_spread")
        return cls(
            customers,
            number(name),
            0 if math.isnan(folds) else int(folds),
            None if math.isnan(spread) else spread,
            tuple(CountRange(int(low), int(high)) for low, high in bounds) if told else (),
        )

    @property
    def words(self) -> str:
        """The number with its narrower range, or why there is none: "638 expected, 520 to 760 (80 %)"."""
        if not self.ranges:
            return f"{moves_in_words(self.expected)} expected ({self.why_no_range})"
        low, high = self.ranges[0]
        return f"{moves_in_words(self.expected)} expected, {low:,} to {high:,} ({LEVELS[0]} %)"

    @property
    def why_no_range(self) -> str:
        """Why there is no range, in words; empty where there is one."""
        if self.ranges:
            return ""
        told = f"only {self.folds} past fold{'' if self.folds == 1 else 's'}" if self.folds else "no past folds"
        return f"no interval: {told}"


@dataclass(frozen=True, slots=True)
class Errors:
    """What was expected and what happened among the likeliest of one transition, past fold by past fold.

    number: how many stood at the top (`EVERYBODY`: the whole stage); expected and observed: moves in each fold whose
    stage held as many; spread: as in `ExpectedMoves`.
    """

    origin: str
    target: str
    horizon_days: int
    number: int
    expected: tuple[float, ...]
    observed: tuple[int, ...]
    spread: float | None


@dataclass(frozen=True, slots=True)
class ForecastErrors:
    """The errors of every transition, horizon and number; instants: ISO, of the folds that they come from."""

    instants: tuple[str, ...]
    errors: tuple[Errors, ...]

    def find(self, origin: str, target: str, horizon_days: int, customers: int, of: int) -> Errors | None:
        """Return the errors of a past top of about the same number, None where nothing is recorded.

        ``customers`` are asked about of the ``of`` in the stage. The nearest number on the logarithm is taken, of those
        with enough folds if there are such; the whole stage counts with tonight's number.
        """
        wanted = (origin, target, horizon_days)
        here = [one for one in self.errors if (one.origin, one.target, one.horizon_days) == wanted]
        here = [one for one in here if one.spread is not None] or here
        return min(here, key=lambda one: abs(math.log(max(customers, 1) / (one.number or max(of, 1)))), default=None)

    def forecast(self, origin: str, target: str, horizon_days: int, probability: _F64, of: int) -> ExpectedMoves:
        """Return the expected moves of the customers with these probabilities (n,), among ``of`` in the stage."""
        found = self.find(origin, target, horizon_days, len(probability), of)
        folds, spread = (len(found.observed), found.spread) if found else (0, None)
        return expected_moves(probability, folds, spread)

    def as_dict(self) -> dict[str, Any]:
        """Return the errors as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the errors of ``as_dict``."""
        errors: list[dict[str, Any]] = [
            {name: tuple(value) if isinstance(value, list) else value for name, value in one.items()}
            for one in document["errors"]
        ]
        return cls(tuple(document["instants"]), tuple(Errors(**one) for one in errors))


NO_ERRORS = ForecastErrors((), ())


def expected_moves(probability: _F64, folds: int, spread: float | None) -> ExpectedMoves:
    """Return the sum of the probabilities with its ranges, from a spread and the folds that it was estimated on."""
    expected = float(np.sum(probability))
    if spread is None or folds < FEWEST_FOLDS:
        return ExpectedMoves(len(probability), expected, folds)
    variance = float(np.sum(probability * (1 - probability)))
    ranges = ranges_of(expected, variance, len(probability), spread, folds)
    return ExpectedMoves(len(probability), expected, folds, spread, ranges)


def ranges_of(expected: float, variance: float, customers: int, spread: float, folds: int) -> tuple[CountRange, ...]:
    """Return the range of the number of moves for each of `LEVELS`, around the expected number Σp.

    The level of the moment multiplies the expected number by exp(spread × T), T a t variable of ``folds`` − 1 degrees
    of freedom (Higgins, Thompson and Spiegelhalter 2009, JRSS A 172; centred on the forecast, not on past errors).
    Given the level, moves are a sum of independent events with mean Σp and the ``variance`` Σp(1 − p), taken for a
    binomial of both, cut at the customers (Ehm 1991, Statistics & Probability Letters 11). A number lies inside if its
    mid-P, P(fewer) + P(as many) / 2, lies between the tails: so a small count's range holds as often as it says.
    """
    levels = np.exp(spread * student_t.ppf((np.arange(_NODES) + 0.5) / _NODES, folds - 1))
    if not expected:
        return (CountRange(0, 0),) * len(LEVELS)
    share = min(max(1 - variance / expected, 1e-12), 1 - 1e-9)

    def within(level: int) -> CountRange:
        tail = (1 - level / 100) / 2
        first = _first(lambda k: _mid(k, expected * levels, share, customers) >= tail, customers)
        beyond = _first(lambda k: _mid(k, expected * levels, share, customers) > 1 - tail, customers)
        return CountRange(first, max(beyond - 1, first))

    return tuple(map(within, LEVELS))


def _first(holds: Callable[[int], bool], most: int) -> int:
    """Return the first number from 0 to ``most`` at which a rising condition holds, ``most`` + 1 where none does."""
    low, high = 0, most + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _mid(k: int, means: _F64, share: float, most: int) -> float:
    """Return P(fewer than k) + P(k) / 2, averaged over the means of the levels."""
    return float(np.mean(_at_most(k - 1, means, share, most) + _at_most(k, means, share, most))) / 2


def _at_most(k: int, means: _F64, share: float, most: int) -> _F64:
    """Return P(at most k) of binomials of these means and one share; the number of trials need not be whole."""
    if k < 0:
        return np.zeros_like(means)
    if k >= most:
        return np.ones_like(means)
    left = means / share - k
    inside = betainc(np.maximum(left, 1e-300), k + 1, 1 - share)
    return np.where(left > 0, inside, 1.0)


def between_folds(expected: Sequence[float], variance: Sequence[float], observed: Sequence[int]) -> float | None:
    """Return the standard deviation of log(observed/expected) between folds, beyond sampling; None for too few.

    It is the τ ≥ 0 with Σ e² / (τ² + v) = folds, where e = log((observed + ½) / (expected + ½)) and
    v = variance / (expected + ½)², the sampling variance of e (Paule and Mandel 1982, J. Res. NBS 87; of counts:
    Breslow 1984, Applied Statistics 33). The mean error is not taken out: a forecast that is always too high misses.
    """
    if len(expected) < FEWEST_FOLDS:
        return None
    e, v = np.asarray(expected, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    squares, v = np.log((np.asarray(observed) + 0.5) / (e + 0.5)) ** 2, v / (e + 0.5) ** 2
    low, high = 0.0, float(squares.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(squares / np.maximum(middle + v, 1e-300)) > len(e) else (low, middle)
    # Six digits tell all that so few folds can, and no library's last bit.
    return float(f"{math.sqrt(low):.6g}") if low > high * 1e-6 else 0.0
