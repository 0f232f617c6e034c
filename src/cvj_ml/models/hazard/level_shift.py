"""The level of a year ago: how far a forecast made exactly one year before was off, carried over in part.

A season that repeats shifts the level of all customers alike, which no feature of theirs knows. What a model fitted a
year ago said too low then, this one is likely to say too low now.
docs/decisions/0035-year-ago-level.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from cvj_ml.models.hazard.calibration import make_coherent, make_rising
from cvj_ml.models.hazard.ridge import head_of

_F64 = npt.NDArray[np.float64]

SHRINKAGE = 50.0
"""Customers who moved at which an error counts half."""

_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class YearAgoError:
    """How far the forecast of one year before was off: (heads, horizons) of log-odds, and customers who moved.

    0 customers where a head or horizon could not be taught or had not matured.
    """

    cut: int
    intercept: _F64
    moved: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class YearAgoLevel:
    """The shift of the log-odds of final probabilities, (heads, horizons), and the errors that it comes from."""

    errors: tuple[YearAgoError, ...]

    @property
    def shift(self) -> _F64:
        """Return the shift: w a m / (m + 50).

        ``a`` is the mean of the years' errors, weighted by the customers who moved; m the fewest of them; and w = k /
        (k + 1) of k years, since a single year tells a season from an accident no better than by half.
        """
        moved = np.stack([one.moved for one in self.errors]).astype(np.float64)
        intercept = np.stack([one.intercept for one in self.errors])
        years = (moved > 0).sum(axis=0)
        fewest = np.where(years > 0, np.where(moved > 0, moved, np.inf).min(axis=0), 0.0)
        mean = (moved * intercept).sum(axis=0) / np.maximum(moved.sum(axis=0), 1.0)
        found: _F64 = years / (years + 1) * mean * fewest / (fewest + SHRINKAGE)
        return found

    def apply(self, probabilities: _F64, learned: npt.NDArray[np.bool_]) -> _F64:
        """Return coherent probabilities at the shifted level, both (rows, targets, horizons).

        What is not ``learned`` rests on base rates, of which nothing was asked a year ago, and is not shifted.
        Equal-weight isotonic regression over the horizons of each target, then over the targets: horizons are shifted
        by different numbers, and a running maximum would push all of them up.
        """
        by_target = self.shift[head_of(np.arange(probabilities.shape[1]))]
        clipped = np.clip(probabilities, _LEAST, 1 - _LEAST)
        shifted = np.where(learned & (by_target != 0.0), expit(logit(clipped) + by_target), probabilities)
        return make_coherent(make_rising(shifted))
