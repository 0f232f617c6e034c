"""How amounts of those who buy spread around what is expected of them, and the intervals that follow.

An amount within a horizon is 0 with probability 1 - p, and else ``expected * ratio``: ratios of past buyers, on rows
later than those their model had seen. Who buys often adds up many amounts and spreads less, so there are bands of the
expected number of purchases. The distribution is kept at rounded points between which enough customers lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.models.hazard.binning import quantile_edges

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]

LEVEL = 0.8
"""Of the interval of an amount."""

_BANDS = (1 / 3, 2 / 3)
_POINTS = tuple(np.linspace(0.025, 0.975, 39).tolist())
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Ratios:
    """A distribution of ratios: ``share`` of them are at most each of the ascending ``points``, ``none`` are zero.

    Between points it is even; beyond the last one it falls off as an exponential would.
    """

    none: float
    points: _F64
    share: _F64

    def quantile(self, level: _F64) -> _F64:
        """Return the ratio below which this share lies; 0 for levels of 0 and less."""
        points, shares = np.append(0.0, self.points), np.append(self.none, self.share)
        within = np.interp(level, shares, points)
        beyond = -np.log1p(-np.clip(level, 0.0, 1.0 - 1e-12)) * self._tail
        return np.where(level <= shares[0], 0.0, np.where(level > shares[-1], beyond, within))

    def below(self, ratio: _F64) -> _F64:
        """Return the share of ratios at or below these: the distribution function."""
        points, shares = np.append(0.0, self.points), np.append(self.none, self.share)
        within = np.interp(ratio, points, shares)
        return np.where(ratio > points[-1], -np.expm1(-ratio / self._tail), within)

    @property
    def _tail(self) -> float:
        """The mean of the exponential that goes through the last point."""
        return float(self.points[-1] / -np.log1p(-self.share[-1])) if len(self.points) else 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Ratios by band of the expected number of purchases of who buys; ``cuts`` are the bands' upper ends but one."""

    cuts: _F64
    bands: tuple[Ratios, ...]

    def band(self, number: _F64) -> _I64:
        """Return the band of each expected number of purchases."""
        return np.searchsorted(self.cuts, number).astype(np.int64)

    def interval(self, p: _F64, expected: _F64, number: _F64) -> tuple[_F64, _F64]:
        """Return between which amounts the middle 80 % of a customer's chances lie; all arrays have one shape.

        ``expected`` is the amount if they buy. Both ends are 0 where they hardly ever do: p at most 0.1.
        """
        margin = (1.0 - LEVEL) / 2.0
        return self._quantile(p, expected, number, margin), self._quantile(p, expected, number, 1.0 - margin)

    def below(self, p: _F64, expected: _F64, number: _F64, amount: _F64) -> _F64:
        """Return P(the amount is at most this)."""
        found, band = np.empty(len(p)), self.band(number)
        for k, ratios in enumerate(self.bands):
            here = band == k
            found[here] = ratios.below(amount[here] / expected[here])
        result: _F64 = 1.0 - p + p * found
        return result

    def _quantile(self, p: _F64, expected: _F64, number: _F64, level: float) -> _F64:
        found, band = np.zeros(p.shape), self.band(number)
        of_buyers = (level - (1.0 - p)) / np.maximum(p, 1e-12)
        for k, ratios in enumerate(self.bands):
            here = band == k
            found[here] = expected[here] * ratios.quantile(of_buyers[here])
        return found


EXPONENTIAL = Spread(np.zeros(0), (Ratios(0.0, np.zeros(0), np.zeros(0)),))
"""What is said where too few have bought to tell more."""


def fit_spread(amount: _F64, expected: _F64, number: _F64, customer: _I64, fewest: int) -> Spread:
    """Fit the spread of buyers' amounts; bands and points have ``fewest`` customers at least between them."""
    if len(np.unique(customer)) < 2 * fewest:
        return EXPONENTIAL
    cuts = quantile_edges(number, customer, _BANDS, fewest)
    band, ratio = np.searchsorted(cuts, number), amount / expected
    return Spread(cuts, tuple(_ratios(ratio[band == k], customer[band == k], fewest) for k in range(len(cuts) + 1)))


def _ratios(ratio: _F64, customer: _I64, fewest: int) -> Ratios:
    zero = ratio <= 0
    none = round(float(zero.mean()), _DIGITS) if len(np.unique(customer[zero])) >= fewest else 0.0
    positive, whose = ratio[~zero], customer[~zero]
    points = quantile_edges(positive, whose, _POINTS, fewest) if len(positive) else np.zeros(0)
    points = points[points > 0]
    share = np.array([round(float((ratio <= point).mean()), _DIGITS) for point in points])
    # Two points that round to one share, or to all of it, tell nothing of what lies between or beyond.
    kept = np.append(share[:-1] < share[1:], True) & (share > none) & (share < 1.0) if len(share) else share > 0
    return Ratios(none, points[kept], share[kept])
