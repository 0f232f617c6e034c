"""Six simulated months of nights: a list that learns from its own control groups, beside one that never does.

    python -m benchmarks.contact_loop [--customers 15000]      # about 12 CPU minutes; writes results/contact_loop.md

Every month the real commands train, make a night and publish it. Whom chance left in the target group is treated for
the horizon: the campaign multiplies the daily chance of a move, by a factor that depends on the customer's country, so
some are moved, some are not, and some are driven away. What a contact truly changes is known for each customer; it is
told for those listed, for as many of the likeliest, and for as many of those whom it changes most.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from benchmarks.records import ROOT, commit, machine, today
from cvj_ml.commands.nightly import nightly
from cvj_ml.commands.one_night import Night
from cvj_ml.commands.train import train
from cvj_ml.config import DAY, load_config
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.run import Silent
from cvj_ml.simulate import Simulation, simulate
from cvj_ml.windows import parse_as_of

_F64 = npt.NDArray[np.float64]

FILE = ROOT / "benchmarks" / "results" / "contact_loop.md"
MONTHS = 6
FACTORS = {"DE": 0.3, "ES": 4.0, "FR": 1.0, "GB": 3.0, "NL": 1.0, "US": 0.5}
"""By what a contact multiplies the daily chance of a move, by country; 1 where it is not known."""

STAGES = ("Aware", "Engage", "Subscribe", "Convert")
LISTS = (("Engage", "Subscribe"), ("Subscribe", "Convert"))


def factors(business: Simulation) -> _F64:
    """Return the factor of each customer, in order of the ids."""
    first = business.customers.sort_values("known_at").drop_duplicates("customer_id").sort_values("customer_id")
    found: _F64 = first["country"].map(FACTORS).fillna(1.0).to_numpy(dtype=np.float64)
    return found


def settings(customers: int, explore: float) -> dict[str, Any]:
    """Return the demo's configuration with two lists of two weeks, a control group of 30 % and monthly epochs."""
    found: dict[str, Any] = yaml.safe_load(files("cvj_ml").joinpath("demo.yaml").read_text(encoding="utf-8"))
    found.pop("exports")
    return {
        **found,
        "horizons": ["14d"],
        "control": {"share": 0.3, "epoch": "month", "salt": "loop", "explore_who": explore},
        "lists": [{"from": a, "to": b, "horizon": "14d", "capacity": customers // 10} for a, b in LISTS],
        "model": {"max_rows": 20_000},
    }


def month(folder: Path, business: Simulation, at: int) -> Night:
    """Train on what is known, and publish the night."""
    business.write(folder)
    config = load_config(folder / "loop.yaml")
    train(config, at, Silent(), promote="always")
    (night,) = nightly(config, [at], Silent(), watched=True)
    return night


def told(night: Night, business: Simulation, at: int, number: int) -> list[dict[str, Any]]:
    """Return for each list what contacts truly change: of the listed, of the likeliest, of those changed most."""
    names = np.sort(business.customers["customer_id"].unique())
    factor = factors(business)
    change = business.true_reach(at, [14 * DAY], factor)[:, :, 0] - business.true_reach(at, [14 * DAY])[:, :, 0]
    scores = night.scores.read().to_pandas()
    rows = []
    for one in night.lists:
        here = scores[scores["stage"] == one["from_stage"]]
        place, stage = np.searchsorted(names, here["customer_id"].to_numpy()), STAGES.index(one["to_stage"])
        true = change[place, stage]
        listed = change[
            np.searchsorted(names, night.rows(one["list"])["customer_id"].to_numpy(zero_copy_only=False)), stage
        ]
        likeliest = np.argsort(-here[f"p_reach_{one['to_stage'].lower()}_14d"].to_numpy(), kind="stable")
        column = f"incremental_{one['list']}"
        rows.append(
            {
                "month": number,
                "list": f"{one['from_stage']} to {one['to_stage']}",
                "ranked by": one["ranked_by"],
                "listed": len(listed),
                "drawn by chance": one["explored"],
                "harmed": one["do_not_disturb"],
                "listed change": 100 * float(listed.mean()),
                "likeliest change": 100 * float(true[likeliest[: len(listed)]].mean()),
                "most changed": 100 * float(np.sort(true)[::-1][: len(listed)].mean()),
                "rank correlation": pd.Series(true).corr(pd.Series(here[column].to_numpy()), method="spearman")
                if column in here and here[column].nunique() > 1
                else np.nan,
            }
        )
    return rows


def main() -> None:
    """Simulate the months and write the table."""
    parser = argparse.ArgumentParser(description="Six months of nights that learn from their own control groups.")
    parser.add_argument("--customers", type=int, default=15_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--explore", type=float, default=0.2)
    asked = parser.parse_args()
    business, rows = simulate(asked.customers, asked.seed, days=540), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        text = yaml.safe_dump(settings(asked.customers, asked.explore))
        (folder / "loop.yaml").write_text(text, encoding="utf-8")
        for number in range(1, MONTHS + 1):
            at = parse_as_of(f"2025-{number:02d}-02", load_config(folder / "loop.yaml").zone)
            night = month(folder, business, at)
            rows += told(night, business, at, number)
            print(pd.DataFrame(rows[-len(LISTS) :]).to_string(index=False), flush=True)
            treated = [
                row["customer_id"]
                for one in night.lists
                for row in night.rows(one["list"]).to_pylist()
                if row["group"] == "target"
            ]
            business = business.treat(treated, at, 14, factors(business))
    shown = [{name: f"{one:.2f}" if isinstance(one, float) else one for name, one in row.items()} for row in rows]
    FILE.write_text(
        "# Nights that learn from their own control groups\n\nWhat a contact truly changes, in percentage points of the"
        " probability to move within 14 days: mean over those listed, over as many of the likeliest of the stage, and"
        f" over as many of those whom it changes most. {asked.customers:,} simulated customers, seed {asked.seed}, a"
        f" control group of 30 % drawn anew each month, {asked.explore:.0%} of the places drawn by chance among all who"
        " may be contacted; contacts multiply the chance of a move by 0.3 to 4, by country. The rank correlation is of"
        " the predicted with the true change, over everybody in the stage.\n\n"
        f"{markdown_table(shown, {name: name for name in shown[0]})}\n"
        f"Written by `python -m benchmarks.contact_loop` ({today()}, commit {commit()}, {machine()}).\n",
        encoding="utf-8",
    )
    print(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
