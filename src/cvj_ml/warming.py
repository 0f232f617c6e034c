"""Compiling the kernels at set-up, so that the first command does not wait for it."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

import lightgbm as lgb
import numpy as np

from cvj_ml.config import DAY, Config
from cvj_ml.engines import LocalEngine
from cvj_ml.evaluation.bootstrap import draw_cell, draw_keys, grouped_sums
from cvj_ml.journey import Journey
from cvj_ml.models.explain.explanation import Explainer
from cvj_ml.models.hazard.base_rates import fit_base_rates
from cvj_ml.models.hazard.calibration import identity
from cvj_ml.models.hazard.linear import fit_linear, linear_columns
from cvj_ml.models.hazard.reach import Trees, reach_probabilities, stacked_x
from cvj_ml.models.hazard.ridge import fit_ridge
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import build_panel, hazard_rows
from cvj_ml.simulate import simulate
from cvj_ml.store import ingest
from cvj_ml.windows import midnight


def warm() -> None:
    """Run every compiled function once on a few simulated customers; the machine code stays in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(customers=50, days=200).write(Path(folder))
        config = Config.model_validate(
            {
                "name": "warm",
                "time_zone": "UTC",
                "history_from": date(2024, 1, 1),
                "sources": {"touchpoints": {"path": "touchpoints.parquet", "columns": {"rating": "rating"}}},
                "attributes": {"path": "customers.parquet", "columns": {"plan": "plan"}},
                "journey": "cvj8",
                "out": "out",
            },
            context={"folder": folder},
        )
        engine = LocalEngine(ingest(config), 1)
        cut = midnight(date(2024, 6, 1), config.zone)
        definition = define(config, Journey(config.journey), engine, cut)
        instants = np.array([cut - 30 * DAY, cut])
        panel = build_panel(definition, engine, instants, cut, 0)
        pro = {"attribute": {"plan": "pro"}}
        rules = {"enter": {"any": [{"event": "*"}, pro]}, "leave": {"any": [pro, {"silent_for": "30d"}]}}
        left = define(config, Journey({"Here": rules}), engine, cut)
        build_panel(left, engine, instants, cut, 0)
    rows = hazard_rows(panel.labels, definition.horizons)
    stages, intervals = len(config.journey.stages), len(config.horizons)
    base = fit_base_rates(rows, panel.customer, panel.stage, panel.column("recency"), stages, intervals, 20)
    columns = linear_columns(definition)
    booster = lgb.train(
        {"num_leaves": 3, "min_data_in_leaf": 1, "verbosity": -1, "num_threads": 1},
        lgb.Dataset(stacked_x(panel.x, panel.stage, rows, columns.progress), label=rows.converted),
        num_boost_round=1,
    )
    linear = fit_linear(panel.x, columns, base, panel.stage, rows, panel.customer, 20)
    offset = linear.logits(panel.x, columns, base, panel.stage, rows)
    ridge = fit_ridge(panel.x, ~definition.catalogue.coded, rows, offset, panel.customer, 20)
    trees = Trees(booster, linear, base, np.zeros(1 + stages, dtype=np.bool_), columns, ridge)
    maps = identity(1 + stages, intervals)
    reach_probabilities(trees, maps, panel.labels.at_risk, panel.x, panel.stage, definition.horizons)
    explainer = Explainer(Predictor(definition, trees, maps))
    explainer.explain(panel.x[:1], int(panel.stage[0]), stages, intervals, panel.x[1])
    keys, alike = draw_keys(2, 1), np.zeros(2, dtype=np.int64)
    drawn = draw_cell(np.array([0.0, 1.0]), np.array([0.2, 0.4]), alike, keys)
    drawn.statistics()
    drawn.parts()
    grouped_sums(np.ones((2, 1)), alike, 1, alike, keys)
