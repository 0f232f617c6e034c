"""Amounts that customers buy for: the package's hurdle beside what its field uses, fitted in the same run.

    python -m benchmarks.value --data cdnow --instant choice
    python -m benchmarks.value --data online_retail --instant test --catboost /path/to/python

CDNOW: BG/NBD with Gamma-Gamma (`btyd`). Online Retail II: a two-stage CatBoost, by any interpreter that has it. All
data: the mean of the stage, a regression on recency, frequency and value; hurdles whose amounts LightGBM regresses on
all features, without the package's start: gamma, log-normal, and ZILN (Wang, Liu and Miao 2019: the variance of the log
depends on the customer, too); and trees on top of the model. Choices are made at the choice instants; openings of test
instants are rows of ``openings.csv``. Figures are of one seed; intervals are the middle 95 % of 1,000 draws of
customers, and those of a difference pair two contenders on the same customers.

Each run replaces its sections of ``results/value.md``.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LinearRegression

from benchmarks import btyd
from benchmarks.protocols import Instant, Protocol, configured
from benchmarks.records import ROOT, SIMULATED, commit, machine, record_opening, require_data, today, write_section
from cvj_ml.config import DAY
from cvj_ml.engines import LocalEngine
from cvj_ml.evaluation.amount_metrics import mean_of_stage, normalised_gini
from cvj_ml.evaluation.backtesting import rfm
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys, times_drawn
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.journey import PURCHASE, observability
from cvj_ml.models.hazard.tree_size import DEFAULT, Choice
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.models.value.purchase_history import PurchaseColumns
from cvj_ml.models.value.value import Values, fit_value
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.snapshots import training_grid
from cvj_ml.store import ingest
from cvj_ml.windows import midnight

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]

RESULTS = ROOT / "benchmarks" / "results" / "value.md"
MODEL, BOOSTED, ZERO = "model", "model with trees on top", "all zero"
BTYD, CATBOOST = "BG/NBD + Gamma-Gamma", "CatBoost, two stages"
PUBLISHED = (6.25, 3.74, 15.45)
"""Gamma-Gamma's p, q and v of the CDNOW sample (Fader and Hardie 2013, which `lifetimes` ships)."""

_FIXED = {"feature_fraction": 0.6, "verbosity": -1, "seed": 1, "num_threads": 1, "deterministic": True}
_SEED = 20240229
_TAUGHT = 40_000  # of the contenders' rows, at most


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: its burn-in (days), the grid's spacing, the choice instants and the test instant.

    An instant is judged at its last horizon.
    """

    burn_in: int
    every: int
    choices: tuple[Instant, ...]
    test: Instant


def _instant(day: date, *horizons: int) -> Instant:
    return Instant(day, horizons, horizons[-1:])


DATA = {
    # Outcomes of the choice instants end before 1998.
    "cdnow": Data(
        380,
        7,
        (_instant(date(1997, 7, 1), 14, 30, 60, 91), _instant(date(1997, 9, 24), 14, 30, 60, 91)),
        _instant(date(1998, 1, 1), 14, 30, 60, 90, 120, 181),
    ),
    # The first choice instant has the size of the published split: 4,026 customers, 62.5 % of whom buy nothing.
    "online_retail": Data(
        121,
        14,
        (_instant(date(2010, 11, 8), 14, 30, 75), _instant(date(2011, 3, 1), 14, 30, 60, 90)),
        _instant(date(2011, 9, 6), 14, 30, 60, 90),
    ),
    "complete_journey": Data(
        60,
        7,
        (_instant(date(2017, 7, 5), 14, 30, 60), _instant(date(2017, 8, 2), 14, 30, 60)),
        _instant(date(2017, 10, 3), 14, 30, 60, 90),
    ),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One instant at its last horizon: what each customer bought for, and what each contender expected.

    ``below`` is the model's P(amount at most what was bought), and just below it; ``taught`` is told of the fit.
    """

    days: int
    bought: _F64
    expected: Mapping[str, _F64]
    values: Values
    chance: _F64
    below: tuple[_F64, _F64]
    taught: str


def panels(name: str, instant: Instant, max_rows: int) -> tuple[Panel, Panel]:
    """Return what was visible at the instant to learn from, and the customers who are asked then."""
    require_data(name)
    data = DATA[name]
    config = configured(Protocol(name, data.burn_in, data.every, instant, (), (), {}), instant, data.every, max_rows)
    store = ingest(config)
    engine, journey = LocalEngine(store, 1), observability(config, store.events, store.property_kinds).journey
    cut, until = (midnight(day, config.zone) for day in (instant.day, _end(instant)))
    definition = define(config, journey, engine, cut)
    test = build_panel(definition, engine, np.array([cut], dtype=np.int64), until, store.arrival_delay)
    grid = training_grid(config, cut)
    return build_panel(definition, engine, grid, cut, store.arrival_delay, max_rows=max_rows, seed=1), test


def measure(name: str, instant: Instant, catboost: str | None, max_rows: int) -> Measured:
    """Fit everything on what was visible at the instant, and predict."""
    folder, (history, test) = require_data(name), panels(name, instant, max_rows)
    definition = test.definition
    chance, at_test = chances(history, test)
    model = fit_value(history, chance)
    if model is None or test.amounts is None:
        raise SystemExit(f"{name}: too few customers bought before {instant.day} to learn amounts from.")
    columns, horizons, last = PurchaseColumns.of(definition), definition.horizons, len(definition.horizons) - 1
    unit = 10.0**definition.catalogue.value_decimals
    bought = test.amounts.gross[:, last] / unit
    values = model.predict(test.x, columns, at_test, horizons)
    at_most = model.below(test.x, columns, at_test, horizons, last, bought)
    expected = {MODEL: values.gross[:, last], **_contenders(history, test, chance, at_test, catboost)}
    at_past = model.predict(history.x, columns, chance, horizons).gross[:, last]
    expected[BOOSTED] = _boosted(history, test, at_past, expected[MODEL])
    if name == "cdnow":
        order = pd.Index([test.names[i] for i in test.customer])
        expected[BTYD] = btyd.amounts(folder / "cdnow_master.parquet", pd.Timestamp(instant.day), horizons[-1] // DAY)[
            btyd.buying(folder / "cdnow_master.parquet", pd.Timestamp(instant.day)).customers.get_indexer(order)
        ]
    expected[ZERO] = np.zeros(len(test))
    taught = f"{len(history):,} of {history.eligible:,} snapshots"
    before = np.where(bought > 0, at_most, 0.0)
    return Measured(horizons[-1] // DAY, bought, expected, values, at_test[:, last], (before, at_most), taught)


def _end(instant: Instant) -> date:
    return instant.day + timedelta(days=max(instant.horizons))


def chances(history: Panel, test: Panel) -> tuple[_F64, _F64]:
    """Return P(buys within each horizon) of both panels, by the hazard of purchases in its default settings."""
    past, now = of_purchases(history), of_purchases(test)
    fit = fit_reach(past, 1, 1, given=Choice(DEFAULT))
    predictor = Predictor(past.definition, fit.trees, fit.calibration)
    return predictor.predict(past, 1)[:, 0], predictor.predict(now, 1)[:, 0]


def of_purchases(panel: Panel) -> Panel:
    """Return a panel that is asked who buys; as it is, where that is who returns."""
    asked = panel.definition.answering(PURCHASE)
    return panel if asked is None else panel.asking(asked)


def _contenders(history: Panel, test: Panel, chance: _F64, at_test: _F64, catboost: str | None) -> dict[str, _F64]:
    """Return the mean of the stage, the RFM regression, hurdles by LightGBM, and CatBoost's where there is one."""
    last = len(history.definition.horizons) - 1
    whole, amount = _taught(history)
    past, now = _rfm(history)[whole], _rfm(test)
    found = {
        "mean of the stage": mean_of_stage(history, test)[:, last],
        "RFM regression": np.maximum(LinearRegression().fit(past, amount).predict(now), 0.0),
    }
    buys = amount > 0
    x, y = history.x[whole][buys], amount[buys]
    for kind in ("gamma", "log-normal", "ZILN"):
        found[f"LightGBM hurdle, {kind}"] = at_test[:, last] * _hurdle(kind, x, y, test.x)
    if catboost is not None:
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch, "rows.npz"), Path(scratch, "expected.npy")
            np.savez(source, x=history.x[whole], amount=amount, test=test.x)
            script = ROOT / "benchmarks" / "catboost_hurdle.py"
            subprocess.run([catboost, str(script), str(source), str(target)], check=True)
            found[CATBOOST] = np.load(target)
    return found


def _boosted(history: Panel, test: Panel, at_past: _F64, at_test: _F64) -> _F64:
    """Return the model's amounts times what trees make of them: Poisson's objective, on all features."""
    whole, amount = _taught(history)
    start = np.log(np.maximum(at_past[whole], 1e-6))
    unit = amount.mean()
    data = lgb.Dataset(history.x[whole], amount / unit, init_score=start - np.log(unit))
    fixed = {"boost_from_average": False, "num_leaves": 8, "min_data_in_leaf": 200, "learning_rate": 0.05}
    trees = lgb.train({"objective": "poisson", "lambda_l2": 5.0, **fixed, **_FIXED}, data, num_boost_round=60)
    return at_test * np.exp(np.asarray(trees.predict(test.x, raw_score=True), dtype=np.float64))


def _taught(history: Panel) -> tuple[_I64, _F64]:
    """Return snapshots whose last window was observed whole, evenly spaced, and what was bought within it."""
    if history.amounts is None:
        raise SystemExit("The journey has no value.")
    last = len(history.definition.horizons) - 1
    whole = np.flatnonzero(history.amounts.whole[:, last])
    whole = whole[:: -(-len(whole) // _TAUGHT)]
    return whole, history.amounts.gross[whole, last] / 10.0**history.definition.catalogue.value_decimals


def _rfm(panel: Panel) -> _F64:
    known = rfm(panel)
    recency = np.nan_to_num(known.recency_days, nan=3650.0)
    columns = (np.log1p(recency), np.log1p(known.frequency), known.value, known.value / np.maximum(known.frequency, 1))
    return np.column_stack([np.ones(len(recency)), *columns])


def _hurdle(kind: str, x: npt.NDArray[np.float32], y: _F64, test: npt.NDArray[np.float32]) -> _F64:
    """Return the mean amount of who buys."""

    def boost(objective: str, label: _F64) -> lgb.Booster:
        settings = {"objective": objective, "num_leaves": 8, "min_data_in_leaf": 50, "learning_rate": 0.05}
        return lgb.train({**settings, **_FIXED}, lgb.Dataset(x, label), num_boost_round=100)

    def told(booster: lgb.Booster, where: npt.NDArray[np.float32]) -> _F64:
        return np.asarray(booster.predict(where), dtype=np.float64)

    if kind == "gamma":
        return told(boost("gamma", y), test)
    logs = np.log(y)
    centre = boost("regression", logs)
    if kind == "log-normal":
        # The one factor under which the mean of the buyers is right (Duan's smearing).
        return np.exp(told(centre, test)) * np.exp(logs - told(centre, x)).mean()
    variance = boost("gamma", (logs - told(centre, x)) ** 2)
    return np.exp(told(centre, test) + told(variance, test) / 2)


def figures(one: Measured) -> pd.DataFrame:
    """Return a row a contender: squared error, R², normalised Gini, absolute error, and differences from the model."""
    weights = np.vstack([np.ones(len(one.bought), dtype=np.int64), _draws(len(one.bought))])
    squared = {name: (one.bought - said) ** 2 for name, said in one.expected.items()}
    errors = {name: weights @ loss / weights.sum(axis=1) for name, loss in squared.items()}
    ginis = {name: normalised_gini(one.bought, said, weights) for name, said in one.expected.items()}
    rows = []
    for name, said in one.expected.items():
        row: dict[str, str | float] = {
            "contender": name,
            "rmse": float(np.sqrt(errors[name][0])),
            "r2": 1.0 - float(errors[name][0] / one.bought.var()),
            "gini": float(ginis[name][0]),
            "mae": float(np.abs(one.bought - said).mean()),
            "ratio": float(said.sum() / one.bought.sum()),
        }
        if name != MODEL:
            row |= _interval("squared", errors[name] - errors[MODEL]) | _interval("less", ginis[MODEL] - ginis[name])
        rows.append(row)
    return pd.DataFrame(rows)


def _draws(customers: int) -> _I64:
    return times_drawn(np.arange(customers), draw_keys(DRAWS, _SEED))


def _interval(name: str, draws: _F64) -> dict[str, str]:
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return {name: f"{draws[0]:+,.4g} [{low:,.4g}, {high:,.4g}]"}


def section(name: str, instant: Instant, which: str, one: Measured, table: pd.DataFrame) -> str:
    """Return one instant as Markdown: who is better, deciles, intervals."""
    headings = {
        "contender": "contender",
        "rmse": "root of squared error",
        "r2": "R²",
        "gini": "normalised Gini",
        "mae": "absolute error",
        "ratio": "expected / observed",
        "squared": "squared error above the model's",
        "less": "Gini below the model's",
    }
    rows = [
        {str(key): "-" if pd.isna(value) else value for key, value in row.items()} for row in table.to_dict("records")
    ]
    simulated = " (simulated by its publisher)" if name in SIMULATED else ""
    return "\n".join(
        [
            f"## {name}{simulated}, {instant.day}, {one.days} days ({which})\n",
            f"{len(one.bought):,} customers, {(one.bought <= 0).mean():.1%} of whom bought nothing. {one.taught}."
            f" {today()}, commit {commit()}, {machine()}.\n",
            markdown_table(rows, headings),
            _deciles(one),
            _intervals(one),
        ]
    )


def _deciles(one: Measured) -> str:
    shown = [name for name in (MODEL, BTYD, CATBOOST) if name in one.expected]
    rows = []
    for k in range(10):
        row: dict[str, str | float | None] = {"decile": str(k + 1)}
        for name in shown:
            rank = np.argsort(np.argsort(-one.expected[name], kind="stable"), kind="stable")
            here = rank * 10 // len(rank) == k
            row[name] = f"{one.expected[name][here].mean():.2f} / {one.bought[here].mean():.2f}"
        rows.append(row)
    title = "Expected / observed mean amount by decile of the forecast, the highest first:\n\n"
    return title + markdown_table(rows, {"decile": "decile", **{name: name for name in shown}})


def _intervals(one: Measured) -> str:
    """Return coverage and the randomised probability integral transform, whose deciles should hold 10 % each."""
    before, at_most = one.below
    pit = before + np.random.default_rng(_SEED).random(len(before)) * (at_most - before)
    shares = np.histogram(pit, 10, (0.0, 1.0))[0] / len(pit)
    buyers = one.bought > 0
    among = (at_most[buyers] - (1.0 - one.chance[buyers])) / one.chance[buyers]
    inside = (one.bought >= one.values.low[:, -1]) & (one.bought <= one.values.high[:, -1])
    likely = one.chance > 0.3
    text = f"The 80 % interval holds the amount of {inside.mean():.1%} of all"
    if likely.any():
        text += f", of {inside[likely].mean():.1%} of the {likely.sum():,} with P(buys) above 0.3"
    text += f"; the middle 80 % of the distribution among buyers holds {((among >= 0.1) & (among <= 0.9)).mean():.1%}"
    return f"{text} of them. Deciles of the randomised PIT: {', '.join(f'{share:.1%}' for share in shares)}.\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one data set at its choice instants or at its test instant."""
    parser = argparse.ArgumentParser(description="Measure forecasts of amounts.")
    parser.add_argument("--data", choices=sorted(DATA), required=True)
    parser.add_argument("--instant", choices=("choice", "test"), required=True)
    parser.add_argument("--catboost", metavar="PYTHON", help="an interpreter that has CatBoost")
    parser.add_argument("--max-rows", type=int, default=100_000, help="hazard rows, a sample of the package's own")
    chosen = parser.parse_args(arguments)
    data = DATA[chosen.data]
    for instant in data.choices if chosen.instant == "choice" else (data.test,):
        one = measure(chosen.data, instant, chosen.catboost, chosen.max_rows)
        table = figures(one)
        if chosen.instant == "test":
            shown = "; ".join(
                f"{row['contender']} {one.days}d rmse {row['rmse']:.2f} gini {row['gini']:.4f} mae {row['mae']:.2f}"
                for row in table.to_dict("records")
            )
            record_opening(f"value {chosen.data}", f"{instant.day}: {shown} (at most {chosen.max_rows:,} rows)")
        text = section(chosen.data, instant, chosen.instant, one, table)
        print(text)
        write_section(RESULTS, "# Amounts\n\nWritten by `python -m benchmarks.value`.\n", text)


if __name__ == "__main__":
    main()
