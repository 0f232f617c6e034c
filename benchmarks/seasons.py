"""What the level of a year ago gains where a season repeats, and what it costs where nothing does.

    python -m benchmarks.seasons [--seeds 20]      # about 10 CPU minutes; writes results/seasons.md

Visitors of a known process over two years, by four kinds of level: a season that repeats, levels of quarters that do
not, a trend, and a recruitment wave a year before. Each is asked at the end of the second year about the 90 days after
it. Beside the level of a year ago stands the error of the last matured fold, which decision 13 refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from benchmarks.records import ROOT, commit, machine, today
from cvj_ml import Journey, Touchpoints
from cvj_ml.evaluation.metrics import log_loss, markdown_table
from cvj_ml.evaluation.year_ago import learn_year_ago, measured_error
from cvj_ml.inputs import open_under
from cvj_ml.models.hazard.level_shift import YearAgoLevel
from cvj_ml.models.hazard.tree_size import DEFAULT, Choice
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import Fit, fit_reach
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.run import Run, Silent
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import midnight, parse_as_of

_F64 = npt.NDArray[np.float64]

FILE = ROOT / "benchmarks" / "results" / "seasons.md"
DAYS = 820
"""From 2022-01-01: two years, and the quarter after them."""

CUSTOMERS = 1_500
HORIZONS = ("30d", "60d", "90d")
CHOICE = Choice(DEFAULT)
MODEL, YEAR_AGO, LAST_FOLD = "no level of the moment", "a year ago", "last matured fold"
KINDS = ("a season that repeats", "levels that do not repeat", "a trend", "a recruitment wave")


def level(kind: str, random: np.random.Generator) -> _F64:
    """Return by how much everybody's rate is multiplied on each day."""
    day = np.arange(DAYS)
    if kind == KINDS[0]:
        return np.where(day % 365 < 90, 2.0, 1.0)
    if kind == KINDS[1]:
        return np.exp(random.normal(0.0, 0.35, DAYS // 91 + 1))[day // 91]
    if kind == KINDS[2]:
        return np.exp(np.log(1.5) * day / 365)
    return np.ones(DAYS)


def visits(kind: str, seed: int) -> pd.DataFrame:
    """Return the log of visitors who come at rates of their own, and stop one day."""
    random = np.random.default_rng([seed, KINDS.index(kind)])
    arrival = random.integers(0, DAYS - 90, CUSTOMERS)
    if kind == KINDS[3]:
        wave = random.random(CUSTOMERS) < 0.6
        arrival = np.where(wave, random.integers(280, 360, CUSTOMERS), arrival)
    stay = random.exponential(400.0, CUSTOMERS)
    rate = 0.02 * random.gamma(2.0, size=CUSTOMERS)
    since = np.arange(DAYS) - arrival[:, None]
    chance = rate[:, None] * level(kind, random) * ((since >= 0) & (since < stay[:, None]))
    customer, day = np.nonzero((random.random(chance.shape) < chance) | (since == 0))
    second = random.integers(0, 86_400, len(day))
    bought = random.random(len(day)) < 0.05
    return pd.DataFrame(
        {
            "customer_id": [f"c{i:05d}" for i in customer],
            "occurred_at": pd.Timestamp("2022-01-01", tz="UTC") + pd.to_timedelta(day * 86_400 + second, unit="s"),
            "event": np.where(bought, "purchase", "visit"),
        }
    )


def fitted(run: Run, cut: int, until: int) -> tuple[Predictor, Panel, Fit]:
    """Return the model fitted at a cut, the customers it is asked about there, and the fit."""
    spec = define(run.config, run.journey, run.blocks, cut)
    grid, most = training_grid(run.config, cut), 20_000
    history = build_panel(spec, run.blocks, grid, cut, run.arrival_delay, max_rows=most, seed=run.seed)
    test = build_panel(spec, run.blocks, np.array([cut], dtype=np.int64), until, run.arrival_delay)
    fit = fit_reach(history, run.seed, 1, given=CHOICE)
    return Predictor(spec, fit.trees, fit.calibration), test, fit


def losses(kind: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the mean log loss of each contender over horizons, for the return and for reach."""
    journey = Journey({"Visit": {"event": "visit"}, "Buy": {"event": "purchase"}})
    settings = {"horizons": list(HORIZONS), "burn_in": "90d", "snapshots": {"every": "14d"}}
    settings |= {
        "features": {"windows": ["30d", "90d"]},
        "control": {"epoch": "half"},
        "model": {"seed": 1 + seed, "year_ago_level": True},
    }
    data = Touchpoints(visits(kind, seed), time_zone="UTC", history_from="2022-01-01")
    run = open_under(data, journey, settings, Silent()).run()
    cut, until = (parse_as_of(day, run.config.zone) for day in ("2024-01-01", "2024-03-31"))
    predictor, test, fit = fitted(run, cut, until)
    before = midnight(pd.Timestamp("2023-10-03").date(), run.config.zone)
    earlier, seen, _ = fitted(run, before, cut)
    converted, known = seen.matured()
    last = YearAgoLevel((measured_error(earlier.predict(seen, 1), converted, known, seen.customer, before, 20),))
    ago = learn_year_ago(run, cut, predictor.definition, fit)
    own = predictor.predict(test, 1)
    learned = predictor.learned[test.stage + 1]
    said = {MODEL: own, YEAR_AGO: own if ago is None else ago.apply(own, learned), LAST_FOLD: last.apply(own, learned)}
    converted, known = test.matured()
    found: dict[str, dict[str, float]] = {}
    for head, targets in (("return", slice(0, 1)), ("reach", slice(1, None))):
        found[head] = {}
        for name, p in said.items():
            parts = []
            for h in range(p.shape[2]):
                here = known[:, targets, h]
                parts.append(log_loss(converted[:, targets, h][here], p[:, targets, h][here]))
            found[head][name] = float(np.mean(parts))
    return found


def rows_of(results: Mapping[str, list[dict[str, dict[str, float]]]]) -> list[dict[str, str | float | None]]:
    """Return the change of log loss in thousandths for each kind and question, with its standard error over seeds."""
    rows: list[dict[str, str | float | None]] = []
    for kind, found in results.items():
        for head in ("return", "reach"):
            row: dict[str, str | float | None] = {"level": kind, "question": head}
            for name in (YEAR_AGO, LAST_FOLD):
                change = 1000 * np.array([one[head][name] - one[head][MODEL] for one in found])
                error = change.std(ddof=1) / np.sqrt(len(change))
                row[name] = f"{change.mean():+.2f} ± {error:.2f} (better in {(change < 0).sum()} of {len(change)})"
            rows.append(row)
    return rows


def main() -> None:
    """Simulate, fit and write the table."""
    parser = argparse.ArgumentParser(description="The level of a year ago on levels of known kinds.")
    parser.add_argument("--seeds", type=int, default=20)
    asked = parser.parse_args()
    tasks = [(kind, seed) for kind in KINDS for seed in range(asked.seeds)]
    found = Parallel(n_jobs=cpu_count(), verbose=1)(delayed(losses)(*task) for task in tasks)
    results = {kind: [one for (of, _), one in zip(tasks, found, strict=True) if of == kind] for kind in KINDS}
    rows = rows_of(results)
    FILE.write_text(
        "# The level of a year ago, on levels of known kinds\n\nChange of log loss in thousandths, mean over 30, 60 and"
        f" 90 days and {asked.seeds} seeds of {CUSTOMERS:,} simulated visitors, ± its standard error over"
        f" seeds: below 0 the shift helps.\n\n{markdown_table(rows, {name: name for name in rows[0]})}\n"
        f"Written by `python -m benchmarks.seasons` ({today()}, commit {commit()}, {machine()}).\n",
        encoding="utf-8",
    )
    print(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
