"""What a model remembers of its customers, so that a night can be compared with the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from cvj_ml.models.drift_profile.distributions import OTHERS, ColumnBins, bins_of, columns_of
from cvj_ml.panel.model_spec import ModelSpec

_HALF = 0.5
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DriftReference:
    """Customers by column and bin at the end of the training, and how much that moved by itself.

    ``presence`` is (columns, 2): the shares of those with some of a column and with none, among those of its base;
    ``values`` (columns, ranges): the shares of each range among those with some. NaN marks what is told only together,
    since few customers are in it. ``sizes`` is (columns, 2), the customers behind those shares, rounded down.
    ``movement`` is (columns, 2): the largest PSI of presence and of values that was surely there between two instants
    of the training, not more than 90 days apart. ``cut`` is where the training ended.
    """

    bins: ColumnBins
    presence: _F64
    values: _F64
    sizes: _I64
    movement: _F64
    cut: int

    def shift(self, counts: _I64, chance: float) -> tuple[_F64, _F64]:
        """Return PSI and noise of counts (columns, bins), each (columns, 2): presence, values; see `stability`."""
        sizes = self.sizes.T.astype(np.float64)
        parts = [
            stability(*together(shares, found), size, chance)
            for shares, found, size in zip((self.presence, self.values), self.bins.split(counts), sizes, strict=True)
        ]
        return np.stack([one for one, _ in parts], axis=1), np.stack([noise for _, noise in parts], axis=1)


def stability(reference: _F64, found: _F64, size: _F64, chance: float) -> tuple[_F64, _F64]:
    """Return the population stability index of each row, less its mean under no drift; and its noise.

    reference: (rows, groups) shares that add up to 1, of ``size`` customers; found: (rows, groups) counts. With p and
    q the smoothed shares (half a customer is added to each group, so an empty one is no infinity), n and m customers
    and B groups, PSI = Σ (q − p) ln(q / p). Without drift it is distributed nearly as (1/n + 1/m) χ² with B − 1
    degrees of freedom (Yurdakul 2018), so its mean is (B − 1)(1/n + 1/m). The noise is what PSI exceeds that mean by
    with the given chance. Both are zero where there is nothing to compare.
    """
    n, m = found.sum(axis=1), size
    used = (reference > 0) | (found > 0)
    groups = used.sum(axis=1)
    some = (n > 0) & (m > 0) & (groups > 1)
    n, m, freedom = np.where(some, n, 1.0), np.where(some, m, 1.0), np.maximum(groups - 1, 1)
    p = (reference * m[:, None] + _HALF) / (m + _HALF * groups)[:, None]
    q = (found + _HALF) / (n + _HALF * groups)[:, None]
    index = np.where(used, (q - p) * np.log(q / p), 0.0).sum(axis=1)
    scale = 1 / n + 1 / m
    noise = scale * (chi2.ppf(1 - chance, freedom) - freedom)
    return np.where(some, index - scale * freedom, 0.0), np.where(some, noise, 0.0)


def together(shares: _F64, counts: _F64) -> tuple[_F64, _F64]:
    """Return shares and counts with one more group for the bins that are told only together."""
    hidden = np.isnan(shares)
    known = np.where(hidden, 0.0, shares)
    rest = np.where(hidden.any(axis=1), np.maximum(1 - known.sum(axis=1), 0), 0)
    joined = np.where(hidden, counts, 0.0).sum(axis=1)
    return np.column_stack([known, rest]), np.column_stack([np.where(hidden, 0.0, counts), joined])


def drift_as_json(reference: DriftReference | None) -> dict[str, Any]:
    """Return a reference as plain data; null stands for what is told only together."""
    if reference is None:
        return {}
    ranges = np.isfinite(reference.bins.edges).sum(axis=1)
    return {
        "cut": reference.cut,
        "columns": [
            {
                "edges": reference.bins.edges[c, :last].tolist(),
                "presence": _or_null(reference.presence[c]),
                "values": _or_null(reference.values[c, : last + 1]),
                "sizes": reference.sizes[c].tolist(),
                "movement": reference.movement[c].tolist(),
            }
            for c, last in enumerate(ranges)
        ],
    }


def drift_from_json(document: dict[str, Any], definition: ModelSpec) -> DriftReference | None:
    """Return the reference that `drift_as_json` wrote."""
    if not document:
        return None
    columns = document["columns"]
    bins = bins_of([one["edges"] for one in columns], columns_of(definition))
    values = np.zeros((len(columns), bins.number - OTHERS))
    for row, one in zip(values, columns, strict=True):
        row[: len(one["values"])] = [np.nan if share is None else share for share in one["values"]]
    presence = [[np.nan if share is None else share for share in one["presence"]] for one in columns]
    return DriftReference(
        bins,
        np.array(presence),
        values,
        np.array([one["sizes"] for one in columns], dtype=np.int64),
        np.array([one["movement"] for one in columns]),
        document["cut"],
    )


def _or_null(shares: _F64) -> list[float | None]:
    return [None if np.isnan(share) else float(share) for share in shares]
