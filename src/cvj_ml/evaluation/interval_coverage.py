"""Do the ranges of expected numbers hold as often as they say? Each past forecast, judged by other folds' errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import beta
from scipy.stats import t as student_t

from cvj_ml.evaluation.metrics import Interval
from cvj_ml.evaluation.past_forecasts import PastForecast, spread_of
from cvj_ml.models.bundle.forecast_errors import FEWEST_FOLDS, LEVELS, ranges_of

Scheme = Literal["expanding", "leave one out"]
"""Which folds a forecast's range may come from: the earlier ones, as in use, or all others, of which there are more."""


def judged_ranges(forecasts: Iterable[PastForecast], scheme: Scheme = "expanding") -> pd.DataFrame:
    """Return one row for each forecast, with its ranges from other folds, and whether they held what happened.

    Columns: ``instant``, ``from``, ``to``, ``horizon_days``, ``number`` (0: the whole stage), ``expected``,
    ``observed``, ``folds`` (those that the ranges come from) and for each level, 80 and 95: ``low_80``, ``high_80``,
    ``inside_80`` (1 or 0) and ``width_80``, (high − low) / expected. They are missing where folds were too few.
    """
    cells: dict[tuple[str, str, int, int], list[PastForecast]] = {}
    for one in forecasts:
        cells.setdefault((one.origin, one.target, one.horizon_days, one.number), []).append(one)
    rows = []
    for key, cell in cells.items():
        for one in sorted(cell, key=lambda one: one.instant):
            others = [past for past in cell if _may_teach(past, one, scheme)]
            row: dict[str, object] = {
                **dict(zip(("from", "to", "horizon_days", "number"), key, strict=True)),
                "instant": one.instant,
                "expected": one.expected,
                "observed": one.observed,
                "folds": len(others),
            }
            if (spread := spread_of(others)) is not None:
                ranges = ranges_of(one.expected, one.variance, one.customers, spread, len(others))
                for level, (low, high) in zip(LEVELS, ranges, strict=True):
                    row |= {
                        f"low_{level}": low,
                        f"high_{level}": high,
                        f"inside_{level}": float(low <= one.observed <= high),
                        f"width_{level}": (high - low) / one.expected if one.expected else np.nan,
                    }
            rows.append(row)
    names = ["instant", "from", "to", "horizon_days", "number", "expected", "observed", "folds"]
    names += [f"{name}_{level}" for level in LEVELS for name in ("low", "high", "inside", "width")]
    return pd.DataFrame(rows, columns=names).sort_values(names[:5], kind="stable", ignore_index=True)


def _may_teach(past: PastForecast, one: PastForecast, scheme: Scheme) -> bool:
    return past.instant != one.instant if scheme == "leave one out" else past.instant < one.instant


def coverage_of_ranges(judged: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return how often ranges held, one row for each value of ``by`` (one row in all without), with 95 % intervals.

    Columns: those of ``by``; ``forecasts`` with a range and ``without`` one, ``instants``; for each level
    ``coverage_80``, ``coverage_80_low``, ``coverage_80_high`` (clustered by instant, see `clustered_share`),
    ``median_width_80``; and ``verdict``: whether both intervals contain their level, or that instants are too few.
    """
    rows = []
    for key, part in judged.groupby(list(by), sort=True) if by else [((), judged)]:
        found = part[part[f"inside_{LEVELS[0]}"].notna()]
        row: dict[str, object] = dict(zip(by, key, strict=True))
        row |= {"forecasts": len(found), "without": len(part) - len(found), "instants": found["instant"].nunique()}
        missed = []
        for level in LEVELS:
            share = clustered_share(found[f"inside_{level}"].to_numpy(), found["instant"].to_numpy())
            row |= {
                f"coverage_{level}": share.estimate,
                f"coverage_{level}_low": share.low,
                f"coverage_{level}_high": share.high,
                f"median_width_{level}": float(found[f"width_{level}"].median()) if len(found) else np.nan,
            }
            if share.low > level / 100:
                missed.append(f"too wide at {level} %")
            if share.high < level / 100:
                missed.append(f"too narrow at {level} %")
        few = f"too few instants to judge by: {row['instants']}, of at least {FEWEST_FOLDS}"
        row["verdict"] = few if row["instants"] < FEWEST_FOLDS else "; ".join(missed) or "holds"  # type: ignore[operator]
        rows.append(row)
    return pd.DataFrame(rows)


def clustered_share(inside: np.ndarray, cluster: np.ndarray) -> Interval:
    """Return the mean of 0/1 values (n,) with a 95 % interval that takes those of one cluster for no independent ones.

    Clopper and Pearson's interval on the effective number n* = p(1 − p) / var(p), var(p) that of a ratio over clusters,
    times (t_{n−1} / t_{G−1})² for G clusters (Korn and Graubard 1998, Survey Methodology 24). Where all values agree
    the variance says nothing and n* is G. NaN without two clusters.
    """
    n = len(inside)
    clusters = len(np.unique(cluster))
    if clusters < 2:
        return Interval(float(np.mean(inside)) if n else np.nan, np.nan, np.nan)
    share = float(inside.mean())
    _, which = np.unique(cluster, return_inverse=True)
    pulls = np.bincount(which, weights=inside - share)
    variance = clusters / (clusters - 1) * float(pulls @ pulls) / n**2
    worth = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else float(clusters)
    worth *= (student_t.ppf(0.975, n - 1) / student_t.ppf(0.975, clusters - 1)) ** 2
    worth = min(worth, float(n))
    hits = share * worth
    low = float(beta.ppf(0.025, hits, worth - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(0.975, hits + 1, worth - hits)) if hits < worth else 1.0
    return Interval(share, low, high)
