"""Protocols A, B and C: the published figures, measured on the package's own functions.

    python -m benchmarks.protocols --protocol A --instant choice
    python -m benchmarks.protocols --protocol B --instant test

Settings are chosen at the choice instants; every opening of a test instant is a row in ``benchmarks/openings.csv``,
written before a figure is shown. Figures are means of three seeds, intervals are the middle 95 % of 1,000 bootstrap
draws of customers; the interval of a difference pairs two contenders on the same customers.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import cpu_count

from benchmarks import btyd
from benchmarks.records import STORES, commit, config_file, machine, record_opening, require_data, today
from cvj_ml.config import DAY, Config, load_config
from cvj_ml.config.model import SnapshotsSpec
from cvj_ml.engines import LocalEngine
from cvj_ml.evaluation.backtesting import MINIMUM_CONVERTED, matured_outcomes, rfm
from cvj_ml.evaluation.baselines import baselines
from cvj_ml.evaluation.metrics import bootstrap_interval, log_loss_terms, markdown_table
from cvj_ml.histories import Block
from cvj_ml.journey import observability
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.labels import label
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.snapshots import eligible, training_grid
from cvj_ml.store import ingest
from cvj_ml.windows import Instants, edges, happened_within, midnight, observed_whole

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

DRAWS = 1000
BOOTSTRAP_SEED = 20240229
MODEL = "model"
BASE_RATES = "base rates"


@dataclass(frozen=True, slots=True)
class Instant:
    """Where the test snapshots stand, and the horizons (days) that are trained and judged there."""

    day: date
    horizons: tuple[int, ...]
    evaluated: tuple[int, ...]


Move = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol: its data, its grid, its instants, and the moves (from, to) that can be judged.

    ``from`` None is everybody and ``to`` None the return. What the protocol names for its test instant is compared
    with what is found there: ``scored``, the moves at each horizon that at least ten customers made, and ``known``,
    customers by stage and the instants, snapshots and hazard rows of the full training grid.
    """

    dataset: str
    burn_in: int
    every: int
    test: Instant
    choices: tuple[Instant, ...]
    moves: tuple[Move, ...]
    scored: Mapping[int, tuple[Move, ...]]
    known: Mapping[str, int] = field(default_factory=dict)


_STAGES = ("Convert", "Excite", "Ascend", "Advocate", "Promote")
_NEXT = tuple(itertools.pairwise(_STAGES))
_RETURN = ((None, None),)
_A = (7, 14, 30, 60, 90)
_B = (14, 30, 60, 90, 120, 181)
_C = (7, 14, 30, 60, 91)

PROTOCOLS = {
    "A": Protocol(
        "online_retail",
        burn_in=121,
        every=7,
        test=Instant(date(2011, 9, 6), _A, (30, 90)),
        choices=(Instant(date(2011, 3, 1), _A, (30, 90)), Instant(date(2011, 5, 31), _A, (30, 90))),
        moves=tuple(itertools.combinations(_STAGES, 2)),
        scored={30: _NEXT, 90: (*_NEXT, ("Convert", "Ascend"), ("Excite", "Advocate"))},
        known={"Convert": 1584, "Excite": 1466, "Ascend": 1173, "Advocate": 643, "dates": 75, "snapshots": 286_199},
    ),
    "B": Protocol(
        "cdnow",
        burn_in=380,
        every=7,
        test=Instant(date(1998, 1, 1), _B, (181,)),
        # Within C's choice window 181 days are not over, so the same recipe is judged at 90.
        choices=(Instant(date(1997, 7, 1), _B[:4], (90,)),),
        moves=_RETURN,
        scored={181: _RETURN},
        known={"Convert": 23_570, "rows": 4_332_500},
    ),
    "C": Protocol(
        "cdnow",
        burn_in=411,
        every=7,
        test=Instant(date(1997, 10, 1), _C, (30, 60, 91)),
        choices=(Instant(date(1997, 7, 1), _C, (30, 60, 91)),),
        moves=_RETURN,
        scored={30: _RETURN, 60: _RETURN, 91: _RETURN},
        known={"Convert": 23_570},
    ),
}


@dataclass(frozen=True, slots=True)
class Past:
    """All training snapshots without features: stage, time to each target, follow-up, and what is asked."""

    stage: npt.NDArray[np.int8]
    times: Instants
    follow_up: Instants
    asked: _Mask


@dataclass(frozen=True, slots=True)
class Judged:
    """One horizon: rows (customer, move), whether they moved, and each contender's probabilities, one row a seed."""

    horizon: int
    moves: tuple[Move, ...]
    customer: npt.NDArray[np.int64]
    move: npt.NDArray[np.int64]
    converted: _Mask
    probabilities: Mapping[str, _F64]


def measure(protocol: Protocol, instant: Instant, every: int, max_rows: int, seeds: int) -> list[Judged]:
    """Fit at the instant with each seed, predict, and return every contender at each judged horizon."""
    data, threads = require_data(protocol.dataset), cpu_count()
    config = configured(protocol, instant, every, max_rows)
    store = ingest(config)
    engine = LocalEngine(store, threads)
    journey = observability(config, store.events, store.property_kinds).journey
    cut = midnight(instant.day, config.zone)
    grid = training_grid(config, cut)
    definition = define(config, journey, engine, cut)
    delay = store.arrival_delay
    past = look_back(definition, engine, grid, cut, delay)
    until = midnight(instant.day + timedelta(days=max(instant.horizons)), config.zone)
    test = build_panel(definition, engine, np.array([cut], dtype=np.int64), until, delay)
    if instant is protocol.test:
        compare_counts(protocol, config, grid, past, test, full=every == protocol.every)

    found: dict[str, list[_F64]] = {}
    for seed in range(1, seeds + 1):
        history = build_panel(definition, engine, grid, cut, delay, max_rows=max_rows, seed=seed)
        fit = fit_reach(history, seed, threads)
        print(
            f"  seed {seed}: {len(history):,} of {history.eligible:,} snapshots, {fit.choice.settings},"
            f" {'slopes' if fit.choice.slopes is not None else 'no slopes'}",
            file=sys.stderr,
        )
        found.setdefault(MODEL, []).append(Predictor(definition, fit.trees, fit.calibration).predict(test, threads))
        matured = matured_outcomes(history)
        for baseline in baselines()[1:]:  # the first, rates by stage, is the protocol's own, on all snapshots
            found.setdefault(baseline.name, []).append(baseline.fit(matured).predict(rfm(test)))
    if protocol.dataset == "cdnow":
        found |= {name: [p] for name, p in buy_till_you_die(data / "cdnow_master.parquet", instant, test).items()}
    return [judge(protocol, instant, days, test, past, found) for days in instant.evaluated]


def configured(protocol: Protocol, instant: Instant, every: int, max_rows: int) -> Config:
    """Return the data set's own configuration with the protocol's grid, horizons and row budget."""
    config = load_config(config_file(protocol.dataset))
    return config.model_copy(
        update={
            "burn_in": protocol.burn_in * DAY,
            "horizons": tuple(days * DAY for days in instant.horizons),
            "snapshots": SnapshotsSpec.model_validate({"every": f"{every}d"}),
            "model": config.model.model_copy(update={"max_rows": max_rows}),
            "out": str(STORES / protocol.dataset),
        }
    )


def look_back(definition: ModelSpec, engine: LocalEngine, grid: Instants, cut: int, delay: int) -> Past:
    """Label every training snapshot, without a row budget."""

    def part(block: Block) -> Past:
        snapshots = eligible(block.touchpoints, grid)
        stage = definition.stays(block).at(snapshots.customer, snapshots.as_of).stage
        labels = label(
            definition.journey,
            block.touchpoints,
            snapshots,
            stage,
            cut,
            delay,
        )
        return Past(stage, labels.times, labels.follow_up, labels.at_risk)

    parts = engine.map(part)
    return Past(
        np.concatenate([one.stage for one in parts]),
        np.concatenate([one.times for one in parts]),
        np.concatenate([one.follow_up for one in parts]),
        np.concatenate([one.asked for one in parts]),
    )


def compare_counts(protocol: Protocol, config: Config, grid: Instants, past: Past, test: Panel, *, full: bool) -> None:
    """Exit where the data is not what the protocol describes: its figures would not be the protocol's."""
    names = config.journey.names
    found = {name: int((test.stage == i).sum()) for i, name in enumerate(names)}
    if full:
        counted = [names.index(name) for name in protocol.known if name in names]
        rows = 0
        for low, high in itertools.pairwise(edges(config.horizons)):
            whole = observed_whole(past.follow_up, high)
            rows += int((past.asked & (past.times >= low) & whole[:, None]).sum())
        found |= {"dates": len(grid), "snapshots": int(np.isin(past.stage, counted).sum()), "rows": rows}
    wrong = [f"{name}: {found[name]}, not {n}" for name, n in protocol.known.items() if found.get(name, n) != n]
    if wrong:
        sys.exit("The counts are not the protocol's: " + "; ".join(wrong))


def judge(
    protocol: Protocol,
    instant: Instant,
    days: int,
    test: Panel,
    past: Past,
    found: Mapping[str, Sequence[_F64]],
) -> Judged:
    """Gather the rows of one horizon: a customer counts in each move that begins at his stage.

    Only moves that at least ten customers made are scored.
    """
    names, h, horizon = test.definition.journey.names, instant.horizons.index(days), days * DAY
    matured = observed_whole(past.follow_up, horizon)
    scored: list[Move] = []
    customer, move, converted = [], [], []
    contenders: dict[str, list[_F64]] = {BASE_RATES: [], **{name: [] for name in found}}
    for origin, target in protocol.moves:
        j = 0 if target is None else 1 + names.index(target)
        here = np.ones(len(test), dtype=np.bool_) if origin is None else test.stage == names.index(origin)
        happened = happened_within(test.labels.times[here, j], horizon)
        if happened.sum() < MINIMUM_CONVERTED:
            continue
        before = matured if origin is None else matured & (past.stage == names.index(origin))
        rate = float(happened_within(past.times[before, j], horizon).mean())
        customer.append(test.customer[here])
        move.append(np.full(int(here.sum()), len(scored)))
        converted.append(happened)
        scored.append((origin, target))
        contenders[BASE_RATES].append(np.full((1, int(here.sum())), rate))
        for name, seeds in found.items():
            contenders[name].append(np.stack([one[here, j, h] for one in seeds]))
    if instant is protocol.test and set(scored) != set(protocol.scored[days]):
        sys.exit(f"The moves scored at {days} days are not the protocol's: {scored}")
    return Judged(
        days,
        tuple(scored),
        np.concatenate(customer),
        np.concatenate(move),
        np.concatenate(converted),
        {name: np.concatenate(parts, axis=1) for name, parts in contenders.items()},
    )


def buy_till_you_die(master: Path, instant: Instant, test: Panel) -> dict[str, _F64]:
    """Return BG/NBD and Pareto/NBD, fitted on the purchase days before the instant: (snapshots, 1, horizons)."""
    past, days = btyd.buying(master, pd.Timestamp(instant.day)), list(instant.horizons)
    order = past.customers.get_indexer(pd.Index([test.names[i] for i in test.customer]))
    models = {"BG/NBD": btyd.bg_nbd(past, days), "Pareto/NBD": btyd.pareto_nbd(past, days)}
    return {name: p[order][:, None, :] for name, p in models.items() if p is not None}


def figures(one: Judged) -> pd.DataFrame:
    """Return a row for each contender: log loss and AUC with intervals, observed over expected, paired differences.

    ``less`` is the contender's log loss minus the model's, ``auc_gain`` the model's AUC minus the contender's: above
    0 the model is better, and its interval tells whether that is more than chance. AUC is over one question; with
    several moves (protocol A) it is left out.
    """
    terms = {
        name: np.mean([log_loss_terms(one.converted, p) for p in seeds], axis=0)
        for name, seeds in one.probabilities.items()
    }
    drawn = auc_draws(one) if one.move.max() == 0 else {}
    rows = []
    for name, seeds in one.probabilities.items():
        loss = bootstrap_interval(terms[name], one.customer, DRAWS, seed=BOOTSTRAP_SEED)
        row: dict[str, str | float] = {
            "contender": name,
            "days": one.horizon,
            "log_loss": loss.estimate,
            "log_loss_low": loss.low,
            "log_loss_high": loss.high,
            "observed_expected": float(one.converted.sum() / seeds.mean(axis=0).sum()),
        }
        if drawn:
            row |= _with_interval("auc", drawn[name])
        if name != MODEL:
            less = bootstrap_interval(terms[name] - terms[MODEL], one.customer, DRAWS, seed=BOOTSTRAP_SEED)
            row |= {"less": less.estimate, "less_low": less.low, "less_high": less.high}
            if drawn:
                row |= _with_interval("auc_gain", drawn[MODEL] - drawn[name])
        rows.append(row)
    return pd.DataFrame(rows)


def cells(one: Judged) -> pd.DataFrame:
    """Return a row for each judged move: customers, movers, log loss of the model and of base rates."""
    rows = []
    for k, (origin, target) in enumerate(one.moves):
        here = one.move == k
        loss = {
            name: float(np.mean([log_loss_terms(one.converted[here], p[here]).mean() for p in one.probabilities[name]]))
            for name in (MODEL, BASE_RATES)
        }
        expected = one.probabilities[MODEL].mean(axis=0)[here].sum()
        rows.append(
            {
                "move": f"{origin or 'any'} to {target or 'return'}",
                "days": one.horizon,
                "customers": int(here.sum()),
                "converted": int(one.converted[here].sum()),
                **loss,
                "observed_expected": float(one.converted[here].sum() / expected),
            }
        )
    return pd.DataFrame(rows)


def auc_draws(one: Judged) -> dict[str, _F64]:
    """Return each contender's AUC (mean of its seeds): first as measured, then in each draw of customers.

    Every contender sees the same draws. A draw is a weight for each row, so one sort serves all draws.
    """
    random, n = np.random.default_rng(BOOTSTRAP_SEED), len(one.converted)
    weights = [np.ones(n), *(np.bincount(random.integers(n, size=n), minlength=n) for _ in range(DRAWS))]
    return {
        name: np.mean([_weighted_auc(one.converted, p, weights) for p in seeds], axis=0)
        for name, seeds in one.probabilities.items()
    }


def _weighted_auc(converted: _Mask, p: _F64, weights: Sequence[npt.NDArray[Any]]) -> _F64:
    _, group = np.unique(p, return_inverse=True)
    found = []
    for weight in weights:
        converters = np.bincount(group, weights=weight * converted)
        others = np.bincount(group, weights=weight * ~converted)
        below = np.cumsum(others) - others
        found.append((converters * (below + others / 2)).sum() / (converters.sum() * others.sum()))
    return np.array(found)


def _with_interval(name: str, draws: _F64) -> dict[str, float]:
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return {name: float(draws[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def in_words(instant: Instant, results: pd.DataFrame) -> str:
    """Return a run's figures in one line for the record of openings."""
    parts = []
    for row in results.to_dict("records"):
        auc = f" auc {row['auc']:.4f}" if "auc" in row else ""
        parts.append(f"{row['contender']} {row['days']}d log loss {row['log_loss']:.4f}{auc}")
    return f"{instant.day}: " + "; ".join(parts)


_HEADINGS = {
    "contender": "contender",
    "days": "days",
    "log_loss": "log loss",
    "log_loss_interval": "95 %",
    "auc": "AUC",
    "auc_interval": "95 %",
    "observed_expected": "observed / expected",
    "less_interval": "log loss above the model's",
    "auc_gain_interval": "AUC below the model's",
}


def as_table(results: pd.DataFrame) -> str:
    """Return figures as Markdown, intervals in brackets."""
    rows = []
    for row in results.to_dict("records"):
        shown: dict[str, str | float | None] = {str(key): value for key, value in row.items()}
        for name in ("log_loss", "auc", "less", "auc_gain"):
            if pd.notna(row.get(f"{name}_low")):
                middle = f"{row[name]:+.4f} " if name in ("less", "auc_gain") else ""
                shown[f"{name}_interval"] = f"{middle}[{row[f'{name}_low']:.4f}, {row[f'{name}_high']:.4f}]"
            else:
                shown[f"{name}_interval"] = "-"
        rows.append(shown)
    headings = {key: text for key, text in _HEADINGS.items() if "auc" not in key or "auc" in results}
    return markdown_table(rows, headings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one protocol at its choice instants or at its test instant."""
    parser = argparse.ArgumentParser(description="Measure a published protocol.")
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--instant", choices=("choice", "test"), required=True)
    parser.add_argument("--every", type=int, metavar="DAYS", help="spacing of the training grid (default: 7)")
    parser.add_argument("--max-rows", type=int, default=1_500_000, help="the row budget (default: the package's)")
    parser.add_argument("--seeds", type=int, default=3, help="published figures are means of three")
    chosen = parser.parse_args(arguments)
    protocol = PROTOCOLS[chosen.protocol]
    every = chosen.every or protocol.every
    settings = f"grid every {every} days, at most {chosen.max_rows:,} rows, {chosen.seeds} seed(s)"
    print(f"{today()}, commit {commit()}, {machine()}\n{settings}\n")
    for instant in protocol.choices if chosen.instant == "choice" else (protocol.test,):
        measured = measure(protocol, instant, every, chosen.max_rows, chosen.seeds)
        results = pd.concat([figures(one) for one in measured], ignore_index=True)
        if chosen.instant == "test":
            record_opening(chosen.protocol, f"{in_words(instant, results)} ({settings})")
        print(f"Protocol {chosen.protocol} at {instant.day} ({chosen.instant})\n\n{as_table(results)}")
        if protocol.dataset == "online_retail":
            table = pd.concat([cells(one) for one in measured], ignore_index=True)
            rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
            print(markdown_table(rows, {name: name.replace("_", " ") for name in table.columns}))


if __name__ == "__main__":
    main()
