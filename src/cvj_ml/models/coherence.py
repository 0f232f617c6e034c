"""From hazards to coherent probabilities: cumulated over intervals, then ordered over targets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled

_F64 = npt.NDArray[np.float64]


def cumulate(hazards: _F64) -> _F64:
    """Return P(T <= h) = 1 - prod(1 - hazard) over the last axis (intervals)."""
    survival = np.cumprod(1.0 - hazards, axis=-1, dtype=np.float64)
    return 1.0 - survival


def make_coherent(probabilities: _F64) -> _F64:
    """Return probabilities (rows, targets, horizons) that do not increase from one target to the next.

    Equal-weight isotonic regression over the targets at each horizon (pool adjacent violators; Barlow et al. 1972):
    it keeps the sum over targets, where a running maximum would push it up. NaN marks targets that are not asked.
    Being the projection onto ordered vectors it is monotone in its input, so what grew with the horizon still does.
    """
    result = probabilities.copy()
    _pool_adjacent_violators(result)
    return result


@compiled
def _pool_adjacent_violators(values: _F64) -> None:
    rows, targets, horizons = values.shape
    mean, size = np.empty(targets), np.empty(targets, dtype=np.int64)
    for i in range(rows):
        for h in range(horizons):
            blocks = 0
            for j in range(targets):
                if np.isnan(values[i, j, h]):
                    continue
                mean[blocks], size[blocks] = values[i, j, h], 1
                blocks += 1
                while blocks > 1 and mean[blocks - 2] < mean[blocks - 1]:
                    total = size[blocks - 2] + size[blocks - 1]
                    mean[blocks - 2] = (
                        mean[blocks - 2] * size[blocks - 2] + mean[blocks - 1] * size[blocks - 1]
                    ) / total
                    size[blocks - 2] = total
                    blocks -= 1
            block, left = 0, size[0]
            for j in range(targets):
                if np.isnan(values[i, j, h]):
                    continue
                if left == 0:
                    block += 1
                    left = size[block]
                values[i, j, h] = mean[block]
                left -= 1
