"""The story of ``cvj-ml check``."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cvj_ml.config import Config
from cvj_ml.histories import Block
from cvj_ml.inputs import Histories, open_histories, require_customers
from cvj_ml.journey_analytics.data_facts import NO_STAGE, DataFacts, TransitionCounts, count_transitions, data_facts
from cvj_ml.panel.model_spec import define
from cvj_ml.run import Watcher
from cvj_ml.store import Usage


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: rows by source, events, customers per observed stage, and what there is to learn from."""

    histories: Histories
    usage: Usage
    stages: pd.DataFrame
    facts: DataFacts


def check(config: Config, as_of: int, watcher: Watcher) -> Checked:
    """Read everything and show what the configuration makes of it, without training."""
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of)
    with watcher.step("Observing stages") as progress:
        engine, delay = histories.engine(progress), histories.store.arrival_delay
        definition = define(config, histories.visible.journey, engine, as_of)

        def count(block: Block) -> TransitionCounts:
            return count_transitions(config, definition, block, as_of, delay)

        first, *others = engine.map(count)
        totals = sum(others, start=first)
    facts = data_facts(config, definition, histories.store, totals, as_of, (usage.not_yet_visible, usage.superseded))
    names = [NO_STAGE, *config.journey.names]
    seen = ["", *("no" if name in histories.visible.unobserved else "yes" for name in config.journey.names)]
    stages = pd.DataFrame({"stage": names, "observed": seen, "customers": totals.here})
    return Checked(histories, usage, stages, facts)
