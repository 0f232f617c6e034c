"""The demo: the whole job on simulated customers whose true hazards are known."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd

from cvj_ml.commands.nightly import nightly
from cvj_ml.commands.one_night import Night
from cvj_ml.commands.train import train
from cvj_ml.config import DAY, load_config
from cvj_ml.evaluation.backtesting import FoldResult, matured_outcomes
from cvj_ml.evaluation.metrics import log_loss
from cvj_ml.ownership import claim
from cvj_ml.run import Watcher
from cvj_ml.simulate import Simulation, simulate
from cvj_ml.windows import midnight


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What the demo made: the published night, and the model beside base rates and the true hazards."""

    night: Night
    comparison: pd.DataFrame
    tracking_uri: str


def run_demo(folder: Path, customers: int, seed: int, watcher: Watcher) -> Demonstration:
    """Simulate customers into a folder, train, register, score and rank."""
    claim(folder)  # an earlier demo there is replaced, and nothing else
    with watcher.step(f"Simulating {customers:,} customers"):
        simulation = simulate(customers=customers, seed=seed)
        simulation.write(folder)
        with as_file(files("cvj_ml").joinpath("demo.yaml")) as packaged:
            shutil.copyfile(packaged, folder / "demo.yaml")
    config = load_config(folder / "demo.yaml")
    as_of = midnight(simulation.start, config.zone) + simulation.days * DAY
    # A second demo in the same folder must not score with the first one's model.
    trained = train(config, as_of, watcher, promote="always")
    (night,) = nightly(config, [as_of], watcher, watched=True)
    return Demonstration(night, compare(trained.fold, simulation), config.mlflow.tracking_uri)


def compare(result: FoldResult, simulation: Simulation) -> pd.DataFrame:
    """Return the log loss of every contender and of the true hazards, over all reach targets of a horizon.

    The panel's customers are all customers who had a touchpoint by the fold's cut; the simulation knows the true
    probability of each of them.
    """
    panel, found = result.panel, matured_outcomes(result.panel)
    horizons = panel.definition.horizons
    position = {name: i for i, name in enumerate(sorted(simulation.customers["customer_id"].unique()))}
    simulated = np.array([position[name] for name in panel.names])[panel.customer]
    truth = simulation.true_reach(result.fold.cut, horizons)[simulated]
    rows = []
    for h, horizon in enumerate(horizons):
        known = found.known[:, 1:, h]
        converted = found.converted[:, 1:, h][known]
        true = log_loss(converted, truth[:, :, h][known])
        losses = {name: log_loss(converted, p[:, 1:, h][known]) for name, p in result.probabilities.items()}
        rows.append({"horizon_days": horizon // DAY, **losses, "true_hazards": true, "regret": losses["model"] - true})
    return pd.DataFrame(rows)
