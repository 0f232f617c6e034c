"""Buy-till-you-die models of repeat buying (`lifetimes`), the reference on CDNOW.

Gamma-Gamma is of amounts (Fader and Hardie 2013), fitted by its own likelihood. Input is each customer's purchase days
before an instant, in weeks: x repeat purchase days, the time of the last one and the time observed, since the first
(Fader, Hardie and Lee 2005; Schmittlein, Morrison and Colombo 1987).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import gammaln

_F64 = npt.NDArray[np.float64]
_WEEK = 7.0


@dataclass(frozen=True, slots=True)
class Buying:
    """Customers with repeat purchase days ``x``, last purchase ``recency`` and time observed ``age``, in weeks."""

    customers: pd.Index[Any]
    x: _F64
    recency: _F64
    age: _F64


def buying(master: Path, as_of: pd.Timestamp) -> Buying:
    """Summarise the CDNOW master's purchase days before a midnight."""
    return summarised(pd.read_parquet(master, columns=["customer_id", "date"]).drop_duplicates(), as_of)


def summarised(days: pd.DataFrame, as_of: pd.Timestamp) -> Buying:
    """Summarise purchase days (``customer_id`` and ``date``, each day once) before a midnight."""
    each = days[days["date"] < as_of].groupby("customer_id")["date"].agg(["min", "max", "count"])

    def weeks(span: pd.Series[Any]) -> _F64:
        return np.asarray(span.dt.days, dtype=np.float64) / _WEEK

    return Buying(
        each.index,
        each["count"].to_numpy(dtype=np.float64) - 1,
        weeks(each["max"] - each["min"]),
        weeks(as_of - each["min"]),
    )


def bg_nbd(past: Buying, days: list[int]) -> _F64:
    """Return P(a purchase within each number of days), (customers, days), by BG/NBD without a penalty."""
    return alive_and_buying(past, days)[1]


def alive_and_buying(past: Buying, days: list[int]) -> tuple[_F64, _F64]:
    """Return P(alive), (customers,), and P(a purchase within each number of days), by BG/NBD without a penalty.

    P = P(alive) (1 - ((alpha + T) / (alpha + T + t))^(r + x)).
    """
    from lifetimes import BetaGeoFitter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = BetaGeoFitter(penalizer_coef=0.0).fit(past.x, past.recency, past.age)
        alive = np.asarray(model.conditional_probability_alive(past.x, past.recency, past.age), dtype=np.float64)
    r, alpha = float(model.params_["r"]), float(model.params_["alpha"])
    silent = [((alpha + past.age) / (alpha + past.age + day / _WEEK)) ** (r + past.x) for day in days]
    return alive, np.column_stack([alive * (1 - one) for one in silent])


def pareto_nbd(past: Buying, days: list[int]) -> _F64 | None:
    """Return the same by Pareto/NBD; None where the fit does not converge."""
    from lifetimes import ParetoNBDFitter
    from lifetimes.utils import ConvergenceError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = ParetoNBDFitter(penalizer_coef=0.0).fit(past.x, past.recency, past.age)
        except ConvergenceError:
            return None
        silent = [
            np.asarray(
                model.conditional_probability_of_n_purchases_up_to_time(0, day / _WEEK, past.x, past.recency, past.age),
                dtype=np.float64,
            )
            for day in days
        ]
    found = 1 - np.column_stack(silent)
    return np.clip(found, 0.0, 1.0) if np.isfinite(found).all() else None


def amounts(master: Path, as_of: pd.Timestamp, days: int) -> _F64:
    """Return the amount that each customer of `buying` is expected to buy for within some days.

    The number of purchases by BG/NBD times the mean amount by Gamma-Gamma, which knows repeat purchases alone and
    takes the two for independent.
    """
    from lifetimes import BetaGeoFitter

    past = buying(master, as_of)
    spent = pd.read_parquet(master, columns=["customer_id", "date", "amount"])
    each = spent[spent["date"] < as_of].groupby(["customer_id", "date"])["amount"].sum().reset_index()
    repeats = each[each["date"] > each.groupby("customer_id")["date"].transform("min")]
    mean = np.asarray(repeats.groupby("customer_id")["amount"].mean().reindex(past.customers).fillna(0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = BetaGeoFitter(penalizer_coef=0.0).fit(past.x, past.recency, past.age)
        number = np.asarray(
            model.conditional_expected_number_of_purchases_up_to_time(days / _WEEK, past.x, past.recency, past.age),
            dtype=np.float64,
        )
    p, q, v = gamma_gamma(past.x, mean)
    result: _F64 = number * p * (v + mean * past.x) / (p * past.x + q - 1)
    return result


def gamma_gamma(x: _F64, mean: _F64) -> tuple[float, float, float]:
    """Return p, q and v of Gamma-Gamma by maximum likelihood, from who bought again for more than nothing.

    On the sample of CDNOW that `lifetimes` ships they are 6.25, 3.74 and 15.45, as published.
    """
    repeated = (x > 0) & (mean > 0)
    n, m = x[repeated], mean[repeated]

    def loss(logs: _F64) -> float:
        p, q, v = np.exp(logs)
        terms = gammaln(p * n + q) - gammaln(p * n) - gammaln(q) + q * np.log(v)
        terms += (p * n - 1) * np.log(m) + p * n * np.log(n) - (p * n + q) * np.log(v + m * n)
        return float(-terms.mean())

    found = minimize(loss, np.log([6.0, 4.0, 15.0]), method="Nelder-Mead", options={"maxiter": 5000, "fatol": 1e-10})
    p, q, v = np.exp(found.x)
    return float(p), float(q), float(v)
