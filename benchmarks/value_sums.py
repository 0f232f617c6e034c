"""Sums over customers: whether what many buy together lies inside the interval that past folds give.

    python -m benchmarks.value_sums [--data cdnow ...]

Folds stand 30 days apart and end before the test instants of `benchmarks.value`, so none is an opening. In each the
package's hurdle is fitted on what was visible, and expects amounts and numbers of purchases within 30 days: of the 100
and of the 500 for whom the amount is largest, and of everybody. Around the sum E lies E exp(spread T) with gamma noise:
T is t with one degree of freedom less than past folds, the spread is that of log(observed / expected) between them
beyond sampling, as of moves (`forecast_errors`); the relative variance of sampling is the mean of past folds' squared
errors over the customers, divided by E². A sum is inside if it lies between the tails of that distribution. For
comparison also without a level: what sampling alone would allow.

Each run replaces the rows of its data sets in ``results/value_sums.csv`` and writes ``results/value_sums.md`` of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import gamma
from scipy.stats import t as student_t

from benchmarks.protocols import Instant
from benchmarks.records import ROOT, SIMULATED, commit, machine, today
from benchmarks.value import DATA, chances, panels
from cvj_ml.evaluation.interval_coverage import Scheme, coverage_of_ranges
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.models.bundle.forecast_errors import EVERYBODY, FEWEST_FOLDS, LEVELS, between_folds
from cvj_ml.models.value.purchase_history import PurchaseColumns
from cvj_ml.models.value.value import fit_value

_F64 = npt.NDArray[np.float64]

RESULTS = ROOT / "benchmarks" / "results" / "value_sums.md"
TABLE = RESULTS.with_suffix(".csv")
DAYS = 30
FOLDS = {
    "cdnow": (date(1997, 4, 5), 9),
    "online_retail": (date(2010, 6, 13), 15),
    "complete_journey": (date(2017, 4, 6), 6),
}
"""The first fold of each data set, and how many there are, 30 days apart."""

NUMBERS = (100, 500, EVERYBODY)
SCHEMES: tuple[Scheme, ...] = ("expanding", "leave one out")
_NODES = 400


def folds(name: str) -> list[Instant]:
    """Return the instants of a data set; the last one's outcomes are over by the test instant."""
    first, number = FOLDS[name]
    days = [first + timedelta(days=DAYS * k) for k in range(number)]
    if days[-1] + timedelta(days=DAYS) > DATA[name].test.day:
        raise AssertionError(f"{name}: the last fold would look at what the test instant is judged by")
    return [Instant(day, (14, DAYS), (DAYS,)) for day in days]


def sums(name: str, instant: Instant, max_rows: int) -> Iterator[dict[str, object]]:
    """Yield the sums of one fold: expected, observed, and the customers' squared errors added up."""
    history, test = panels(name, instant, max_rows)
    at_past, at_test = chances(history, test)
    model = fit_value(history, at_past)
    if model is None or test.amounts is None:
        return
    values = model.predict(test.x, PurchaseColumns.of(test.definition), at_test, test.definition.horizons)
    unit = 10.0**test.definition.catalogue.value_decimals
    told = {
        "amount": (values.gross[:, -1], test.amounts.gross[:, -1] / unit),
        "purchases": (values.number[:, -1], test.amounts.purchases[:, -1].astype(np.float64)),
    }
    ranked = np.argsort(-values.gross[:, -1], kind="stable")
    for what, (expected, observed) in told.items():
        for number in NUMBERS:
            top = ranked[: number or None]
            yield {
                "data": name,
                "instant": str(instant.day),
                "what": what,
                "number": number,
                "customers": len(top),
                "expected": float(expected[top].sum()),
                "observed": float(observed[top].sum()),
                "squared_errors": float(((observed[top] - expected[top]) ** 2).sum()),
            }


def judged(found: pd.DataFrame, scheme: Scheme, *, levels: bool = True) -> pd.DataFrame:
    """Return each sum with whether it lay inside its intervals, and their widths; missing where folds are too few."""
    rows = []
    for _, cell in found.groupby(["data", "what", "number"], sort=False):
        for _, one in cell.iterrows():
            others = cell[cell["instant"] < one["instant"]]
            if scheme == "leave one out":
                others = cell[cell["instant"] != one["instant"]]
            row = {**one.to_dict(), "folds": len(others)}
            for level in LEVELS:
                row |= {f"inside_{level}": np.nan, f"width_{level}": np.nan}
            spread = between_folds(
                others["expected"].tolist(), others["squared_errors"].tolist(), others["observed"].tolist()
            )
            if len(others) >= FEWEST_FOLDS and spread is not None:
                noise = float((others["squared_errors"] / others["expected"] ** 2).mean())
                row["spread"] = spread
                for level in LEVELS:
                    low, high = bounds(spread if levels else 0.0, noise, len(others), level)
                    ratio = float(one["observed"] / one["expected"])
                    row |= {f"inside_{level}": float(low <= ratio <= high), f"width_{level}": high - low}
            rows.append(row)
    return pd.DataFrame(rows)


def bounds(spread: float, noise: float, number: int, level: int) -> tuple[float, float]:
    """Return between which multiples of what is expected the middle ``level`` per cent of sums lie."""
    centres = np.exp(spread * student_t.ppf((np.arange(_NODES) + 0.5) / _NODES, number - 1))

    def below(ratio: float) -> float:
        return float(gamma.cdf(ratio / centres, 1 / noise, scale=noise).mean())

    most = float(centres[-1]) * (1 + 20 * noise**0.5)
    tail = (1 - level / 100) / 2
    low, high = (float(brentq(lambda ratio, at=at: below(ratio) - at, 1e-9, most)) for at in (tail, 1 - tail))
    return low, high


def report(found: pd.DataFrame) -> str:
    """Return the results as Markdown."""
    parts = [
        "# Sums of amounts and purchases",
        "Written by `python -m benchmarks.value_sums`, whose docstring says how. Complete Journey is simulated by its"
        f" publisher. {DAYS} days; {today()}, commit {commit()}, {machine()}.",
        "## Expected and observed, fold by fold",
        "Observed over expected: the median of the folds, and the least and the greatest. The log error is the root of"
        f" its mean square from fold {FEWEST_FOLDS + 1} on, *corrected* what is left where the mean log error of all"
        " earlier folds is taken off first: where that is no less, the past tells nothing of the level to come.",
        markdown_table(list(_ratios(found)), {"data": "data", "what": "what", "top": "customers", **_RATIOS}, 2),
    ]
    for scheme in SCHEMES:
        teach = "Intervals from the folds before, as in use." if scheme == "expanding" else "From all other folds."
        parts += [f"## Coverage, {scheme}", f"{teach} In brackets the 95 % interval, clustered by instant."]
        rows = []
        for key, part in _parts(found, scheme):
            covered = coverage_of_ranges(judged(part, scheme)).iloc[0]
            alone = coverage_of_ranges(judged(part, scheme, levels=False)).iloc[0]
            rows.append({**key, **_told(covered), "alone": f"{alone['coverage_80']:.0%} / {alone['coverage_95']:.0%}"})
        parts.append(markdown_table(rows, {"data": "data", "what": "what", "top": "customers", **_COVERED}, 2))
    return "\n\n".join(one.strip() for one in parts) + "\n"


_RATIOS = {
    "folds": "folds",
    "median": "median",
    "least": "least",
    "greatest": "greatest",
    "spread": "spread",
    "error": "log error",
    "left": "corrected",
}
_COVERED = {
    "n": "sums",
    "80": "inside 80 %",
    "95": "inside 95 %",
    "width": "width of 80 %, of what is expected",
    "verdict": "verdict",
    "alone": "80 / 95 % without a level",
}


def _told(row: pd.Series) -> dict[str, str | float | None]:
    found: dict[str, str | float | None] = {"n": int(row["forecasts"]), "verdict": str(row["verdict"])}
    for level in LEVELS:
        low, high = row[f"coverage_{level}_low"], row[f"coverage_{level}_high"]
        found[str(level)] = f"{row[f'coverage_{level}']:.0%} [{low:.0%}, {high:.0%}]"
    found["width"] = float(row["median_width_80"])
    return found


def _parts(found: pd.DataFrame, scheme: Scheme) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield each cell of the table, the cells of a data set together, then all data sets together."""
    for (name, what, number), part in found.groupby(["data", "what", "number"], sort=False):
        if len(part) > FEWEST_FOLDS:
            yield {"data": _data(str(name)), "what": str(what), "top": _top(int(number))}, part
    for what, part in found.groupby("what", sort=False):
        # Instants of different data sets are different ones.
        yield {"data": "all", "what": str(what), "top": "all"}, part


def _ratios(found: pd.DataFrame) -> Iterator[dict[str, str | float | None]]:
    for (name, what, number), part in found.groupby(["data", "what", "number"], sort=False):
        part = part.sort_values("instant")
        ratio = part["observed"] / part["expected"]
        spread = between_folds(part["expected"].tolist(), part["squared_errors"].tolist(), part["observed"].tolist())
        yield {
            "data": _data(str(name)),
            "what": str(what),
            "top": _top(int(number)),
            "folds": len(part),
            "median": float(ratio.median()),
            "least": float(ratio.min()),
            "greatest": float(ratio.max()),
            "spread": spread,
            **_corrected(np.log(ratio)),
        }


def _corrected(error: pd.Series) -> dict[str, float]:
    """Return the root mean square of log errors in order of time, as they are and less the mean of earlier ones."""
    errors = error.to_numpy(dtype=np.float64)
    later = np.arange(FEWEST_FOLDS, len(errors))
    left = np.array([errors[k] - errors[:k].mean() for k in later])
    return {"error": float((errors[later] ** 2).mean() ** 0.5), "left": float((left**2).mean() ** 0.5)}


def _data(name: str) -> str:
    return f"{name} (simulated)" if name in SIMULATED else name


def _top(number: int) -> str:
    return f"top {number}" if number != EVERYBODY else "everybody"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sums of some data sets, and write the table of all."""
    parser = argparse.ArgumentParser(description="Measure whether sums of amounts lie inside their intervals.")
    parser.add_argument("--data", nargs="*", choices=sorted(FOLDS), default=sorted(FOLDS))
    parser.add_argument("--max-rows", type=int, default=25_000, help="hazard rows, as past folds of a training have")
    chosen = parser.parse_args(arguments)
    for name in chosen.data:
        rows = [row for instant in folds(name) for row in sums(name, instant, chosen.max_rows)]
        before = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame(columns=["data"])
        kept = before[before["data"] != name]
        both = pd.concat([kept, pd.DataFrame(rows)] if len(kept) else [pd.DataFrame(rows)], ignore_index=True)
        both.sort_values(["data", "instant"], kind="stable").to_csv(TABLE, index=False, lineterminator="\n")
    found = pd.read_csv(TABLE)
    RESULTS.write_text(report(found), encoding="utf-8")


if __name__ == "__main__":
    main()
