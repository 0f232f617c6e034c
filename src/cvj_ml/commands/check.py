"""The story of ``cvj-ml check``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import Config
from cvj_ml.histories import Block
from cvj_ml.inputs import Histories, open_histories, require_customers
from cvj_ml.journey import stage_at
from cvj_ml.panel.model_spec import define
from cvj_ml.run import Watcher
from cvj_ml.snapshots import eligible
from cvj_ml.store import Usage


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: rows by source, events, and customers per observed stage."""

    histories: Histories
    usage: Usage
    stages: pd.DataFrame


def check(config: Config, as_of: int, watcher: Watcher) -> Checked:
    """Read everything and show what the configuration makes of it, without training."""
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of)
    with watcher.step("Observing stages") as progress:
        engine = histories.engine(progress)
        definition = define(config, histories.visible.journey, engine, as_of)

        def count(block: Block) -> npt.NDArray[np.int64]:
            snapshots = eligible(block.touchpoints, np.array([as_of], dtype=np.int64))
            stage = stage_at(definition.entries(block)[snapshots.customer], as_of).stage
            return np.bincount(stage.astype(np.int64) + 1, minlength=1 + len(config.journey.stages))

        totals = np.sum(engine.map(count), axis=0)
    names = ["(before any)", *config.journey.names]
    seen = ["", *("no" if name in histories.visible.unobserved else "yes" for name in config.journey.names)]
    return Checked(histories, usage, pd.DataFrame({"stage": names, "observed": seen, "customers": totals}))
