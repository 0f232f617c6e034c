"""Churn by silence beside BG/NBD's P(alive), at the choice instants of `benchmarks.value`: no opening of a test.

    python -m benchmarks.churn [--data cdnow ...]

What is asked: does a customer buy nothing within the last horizon of the instant? On both data sets only purchases
count as kept, so that is ``p_churn`` of SCORES. Contenders: the package's hazard; BG/NBD's P(no purchase within the
horizon) and 1 - P(alive), fitted on all purchase days before the instant; the rates by stage and recency and the
logistic regression on recency, frequency and value of the backtest. 1 - P(alive) is no probability of silence within a
horizon: somebody may be alive and not buy. It is what such models rank by, so its ranking is to be compared.

Of everybody; of who bought within the last 60 days, since most of the others are silent anyway; and of who bought on
two days at least, since in BG/NBD nobody leaves before a second purchase: P(alive) of all others is 1. Writes
``results/churn.md``; differences pair two contenders on the same customers, intervals are the middle 95 % of 1,000
draws of customers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import btyd
from benchmarks.protocols import Instant
from benchmarks.records import ROOT, commit, machine, require_data, today
from benchmarks.value import DATA, chances, of_purchases, panels
from cvj_ml.evaluation.backtesting import matured_outcomes, rfm
from cvj_ml.evaluation.baselines import LogisticRFM, StageRecency
from cvj_ml.evaluation.metrics import auc, bootstrap_interval, lift_at, log_loss_terms, markdown_table
from cvj_ml.evaluation.recalibration import calibration_slope_intercept

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

RESULTS = ROOT / "benchmarks" / "results" / "churn.md"
MODEL, DEAD, SILENT = "model", "1 − P(alive), BG/NBD", "BG/NBD, no purchase"
RECENT_DAYS = 60
_SEED = 20240229


def purchase_days(name: str) -> pd.DataFrame:
    """Return ``customer_id`` and ``date`` of each day on which somebody bought."""
    folder = require_data(name)
    if name == "cdnow":
        return pd.read_parquet(folder / "cdnow_master.parquet", columns=["customer_id", "date"]).drop_duplicates()
    lines = pd.read_parquet(folder / "online_retail.parquet", columns=["Customer ID", "InvoiceDate", "Invoice"])
    bought = lines[lines["Customer ID"].notna() & ~lines["Invoice"].fillna("C").astype(str).str.startswith("C")]
    days = pd.DataFrame({"customer_id": bought["Customer ID"], "date": bought["InvoiceDate"].dt.normalize()})
    return days.drop_duplicates()


def measure(name: str, instant: Instant, max_rows: int) -> tuple[_Mask, dict[str, _F64], _F64, _Mask]:
    """Return who bought nothing, P(nothing) by contender, days since the last purchase, and who bought on two days."""
    history, test = panels(name, instant, max_rows)
    if test.amounts is None:
        raise SystemExit(f"{name}: the journey has no value.")
    silent = test.amounts.purchases[:, -1] == 0
    found = {MODEL: 1 - chances(history, test)[1][:, -1]}
    past = btyd.summarised(purchase_days(name), pd.Timestamp(instant.day))
    alive, buys = btyd.alive_and_buying(past, list(instant.horizons))
    names = pd.Index([test.names[i] for i in test.customer])
    order = pd.Index([_text(one) for one in past.customers]).get_indexer(names)
    # Whoever has only cancelled has no purchase day, and BG/NBD nothing to say of them.
    known = order >= 0
    found |= {SILENT: 1 - buys[order, -1], DEAD: 1 - alive[order]}
    for baseline in (StageRecency(), LogisticRFM()):
        fitted = baseline.fit(matured_outcomes(of_purchases(history)))
        found[baseline.name] = 1 - fitted.predict(rfm(test))[:, 0, -1]
    since = 7 * (past.age[order] - past.recency[order])
    return silent[known], {one: p[known] for one, p in found.items()}, since[known], past.x[order][known] > 0


def _text(customer: object) -> str:
    return str(int(customer)) if isinstance(customer, float) else str(customer)


def figures(silent: _Mask, contenders: Mapping[str, _F64]) -> Iterator[dict[str, str | float | None]]:
    """Yield a row a contender: lift, AUC, log loss, calibration, and differences from the model."""
    customers, y = np.arange(len(silent)), silent.astype(np.float64)
    terms = {name: log_loss_terms(y, p) for name, p in contenders.items()}
    for name, p in contenders.items():
        row: dict[str, str | float | None] = {
            "contender": name,
            **{f"lift_{share:g}": lift_at(y, p, share) for share in (0.05, 0.1, 0.2)},
            "auc": auc(y, p),
            "loss": float(terms[name].mean()),
            "ratio": float(y.sum() / p.sum()),
            "slope": calibration_slope_intercept(y, p).slope,
        }
        if name != MODEL:
            more = bootstrap_interval(terms[name] - terms[MODEL], customers, seed=_SEED)
            row["more"] = f"{more.estimate:+.4f} [{more.low:+.4f}, {more.high:+.4f}]"
        yield row


_HEADINGS = {
    "contender": "contender",
    "lift_0.05": "lift at the top 5 %",
    "lift_0.1": "10 %",
    "lift_0.2": "20 %",
    "auc": "AUC",
    "loss": "log loss",
    "ratio": "observed / expected",
    "slope": "slope",
    "more": "log loss above the model's",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure churn at the choice instants."""
    parser = argparse.ArgumentParser(description="Measure churn by silence beside P(alive).")
    parser.add_argument("--data", nargs="*", choices=("cdnow", "online_retail"), default=("cdnow", "online_retail"))
    parser.add_argument("--max-rows", type=int, default=100_000, help="hazard rows, a sample of the package's own")
    chosen = parser.parse_args(arguments)
    parts = [
        "# Churn by silence",
        f"Written by `python -m benchmarks.churn`, whose docstring says how. {today()}, commit {commit()},"
        f" {machine()}.",
    ]
    for name in chosen.data:
        for instant in DATA[name].choices:
            silent, contenders, since, repeated = measure(name, instant, chosen.max_rows)
            everybody = np.ones(len(silent), dtype=np.bool_)
            of = {
                "everybody": everybody,
                f"bought in the last {RECENT_DAYS} days": since <= RECENT_DAYS,
                "bought on two days at least": repeated,
            }
            for whom, here in of.items():
                rows = figures(silent[here], {one: p[here] for one, p in contenders.items()})
                parts += [
                    f"## {name}, {instant.day}, {instant.horizons[-1]} days: {whom}",
                    f"{here.sum():,} customers, {silent[here].mean():.1%} of whom bought nothing.",
                    markdown_table(list(rows), _HEADINGS),
                ]
            print("\n\n".join(parts[-9:]))
    RESULTS.write_text("\n\n".join(one.strip() for one in parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
