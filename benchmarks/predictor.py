"""The compiled trees against LightGBM: CPU seconds for the same raw scores, and for the same contributions.

    python -m benchmarks.predictor                    # 3,000 simulated customers, about three minutes
    python -m benchmarks.predictor --customers 800    # a small run

Trees are fitted on a panel of simulated customers as the package trains (300 x 7 leaves), and larger (500 x 63).
Asked about is every customer at one instant: all targets ahead, all intervals. Scores have to agree to the last bit.
Both contenders run in this process, on one thread, in turns; the least of three repeats counts. LightGBM's time is
that of its predict alone: the table of inputs that it needs is made beforehand.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

from cvj_ml.config import DAY, Config
from cvj_ml.engines import LocalEngine
from cvj_ml.journey import Journey
from cvj_ml.models.explain.shap import paths_of
from cvj_ml.models.hazard.fitting import Settings, fit_trees
from cvj_ml.models.hazard.reach import EXTRA_COLUMNS, own_x, prediction_rows, stacked_x
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import Panel, build_panel, hazard_rows
from cvj_ml.simulate import simulate
from cvj_ml.snapshots import training_grid
from cvj_ml.store import ingest
from cvj_ml.windows import midnight

SIZES = ((300, 7), (500, 63))
EXPLAINED = 64
"""Rows whose contributions are measured: LightGBM takes its time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=3000)
    arguments = parser.parse_args()
    panel, night = panels(arguments.customers)
    print(f"{len(panel)} snapshots to learn from, {len(night)} customers to score, {panel.x.shape[1]} features\n")
    print("| trees x leaves | rows | split on own columns | what | LightGBM | compiled | ratio |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for rounds, leaves in SIZES:
        measure(panel, night, rounds, leaves)


def panels(customers: int) -> tuple[Panel, Panel]:
    """Return a panel to train on, and every customer at its cut."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(customers=customers, seed=11).write(Path(folder))
        names = ("customer_id", "occurred_at", "known_at", "touchpoint_id", "event", "channel", "value", "rating")
        config = Config.model_validate(
            {
                "name": "predictor",
                "time_zone": "UTC",
                "history_from": date(2024, 1, 1),
                "sources": {"touchpoints": {"path": "touchpoints.parquet", "columns": {name: name for name in names}}},
                "attributes": {
                    "path": "customers.parquet",
                    "columns": {name: name for name in ("customer_id", "known_at", "country", "age", "plan")},
                },
                "journey": "cvj8",
                "out": "out",
            },
            context={"folder": folder},
        )
        engine = LocalEngine(ingest(config))
        cut = midnight(date(2025, 6, 24), config.zone)
        definition = define(config, Journey(config.journey), engine, cut)
        panel = build_panel(definition, engine, training_grid(config, cut), cut, 2 * DAY, max_rows=300_000, seed=1)
        return panel, build_panel(definition, engine, np.array([cut], dtype=np.int64), cut, 0)


def measure(panel: Panel, night: Panel, rounds: int, leaves: int) -> None:
    """Fit trees of a size and print what both ways cost."""
    rows_a_leaf, shrinkage = (500, 1000.0) if leaves < 10 else (50, 10.0)
    settings = Settings(leaves, rows_a_leaf, lambda_l2=10.0, path_smooth=shrinkage, rounds=rounds)
    trees = fit_trees(panel, hazard_rows(panel.labels, panel.definition.horizons), settings, seed=1, threads=2)
    forest, booster = trees.forest, trees.booster
    if forest is None or booster is None:
        raise SystemExit("no trees were fitted: give more customers")
    intervals = len(panel.definition.horizons)
    rows = prediction_rows(night.definition.at_risk(night.stage) & ~trees.low, intervals)
    inputs = stacked_x(night.x, night.stage, rows, trees.columns.progress)
    own = own_x(night.x, night.stage, rows, trees.columns.progress)
    reference, expected = least(lambda: booster.predict(inputs, raw_score=True, num_threads=1))
    compiled, found = least(lambda: forest.margins(night.x, own, rows.snapshot))
    assert np.array_equal(found, expected), "the compiled trees score otherwise"
    name, share = f"{rounds} x {leaves}", (forest.feature >= night.x.shape[1]).mean()
    print(
        f"| {name} | {len(rows):,} | {share:.0%} | raw score, µs a row | {reference / len(rows) * 1e6:.2f}"
        f" | {compiled / len(rows) * 1e6:.2f} | {reference / compiled:.1f} |"
    )
    some = np.linspace(0, len(rows) - 1, EXPLAINED).astype(np.int64)
    mixed = night.x.shape[1] + EXTRA_COLUMNS.index("interval")
    paths = paths_of(forest, mixed, intervals)
    if paths is None:
        raise SystemExit("a node without training rows")
    mixture = np.eye(intervals)[rows.interval[some]]
    reference, expected = least(lambda: booster.predict(inputs[some], pred_contrib=True, num_threads=1))
    compiled, found = least(lambda: paths.contributions(inputs[some], mixture))
    assert np.abs(found - expected[:, :-1]).max() < 1e-9, "the contributions differ"
    print(
        f"| {name} | {len(some):,} | {share:.0%} | contributions, ms a row | {reference / len(some) * 1e3:.2f}"
        f" | {compiled / len(some) * 1e3:.3f} | {reference / compiled:.1f} |"
    )


def least(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return the least CPU seconds of three runs, and the result; the first run, which may compile, is not counted."""
    result, seconds = work(), np.inf
    for _ in range(3):
        begin = time.process_time()
        result = work()
        seconds = min(seconds, time.process_time() - begin)
    return seconds, result


if __name__ == "__main__":
    main()
