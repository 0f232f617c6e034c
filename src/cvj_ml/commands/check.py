"""The story of ``cvj-ml check``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import STAGE_CHANGE, Config
from cvj_ml.features import latest_known
from cvj_ml.histories import Block, Text
from cvj_ml.inputs import Histories, open_histories, require_customers
from cvj_ml.journey_analytics.data_facts import NO_STAGE, DataFacts, data_facts
from cvj_ml.journey_analytics.transition_counts import TransitionCounts, count_transitions
from cvj_ml.panel.model_spec import define
from cvj_ml.run import Watcher
from cvj_ml.store import Usage


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: rows by source, stages, what to tell the user, and what there is to learn from."""

    histories: Histories
    usage: Usage
    stages: pd.DataFrame
    warnings: tuple[str, ...]
    facts: DataFacts


def check(config: Config, as_of: int, watcher: Watcher) -> Checked:
    """Read everything and show what the configuration makes of it, without training."""
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of)
    field = config.stage_history.field if config.stage_history else None
    with watcher.step("Observing stages") as progress:
        engine, delay = histories.engine(progress), histories.store.arrival_delay
        definition = define(config, histories.visible.journey, engine, as_of)

        def count(block: Block) -> tuple[TransitionCounts, npt.NDArray[np.int64]]:
            return count_transitions(config, definition, block, as_of, delay), _compared(block, field, as_of)

        (first, *others), compared = zip(*engine.map(count), strict=True)
        totals = sum(others, start=first)
    facts = data_facts(config, definition, histories.store, totals, as_of, (usage.not_yet_visible, usage.superseded))
    nowhere = f"({config.journey.in_no_stage})" if histories.visible.journey.leavable else NO_STAGE
    seen = ["", *("no" if name in histories.visible.unobserved else "yes" for name in config.journey.names)]
    both, other = np.sum(compared, axis=0).tolist()
    told = [
        f"stage_history: of {both:,} customers with both, {other:,} have another stage in the attribute {field!r} than"
        " the newest date says. Rules read the dates; ask in the CRM which of the two is kept by hand"
    ]
    for warning in told if other else ():
        watcher.say(f"warning: {warning}")
    stages = pd.DataFrame({"stage": [nowhere, *config.journey.names], "observed": seen, "customers": totals.here})
    return Checked(histories, usage, stages, (*histories.visible.warnings, *(told if other else ())), facts)


def _compared(block: Block, field: str | None, as_of: int) -> npt.NDArray[np.int64]:
    """Return how many customers have a date and the CRM's field, and of how many the field is not the newest date's."""
    points, table = block.touchpoints, block.attributes
    column = table.columns.get(field) if table and field else None
    if table is None or not isinstance(column, Text):
        return np.zeros(2, dtype=np.int64)
    everybody = np.arange(len(block))
    version = latest_known(table.offsets, table.known_at, everybody, np.full(len(block), as_of, dtype=np.int64))
    field_is = [column.values[column.codes[row]] if row >= 0 and column.codes[row] >= 0 else None for row in version]
    changes = np.array([name.startswith(STAGE_CHANGE) for name in points.event.values] + [False])
    rows = np.flatnonzero(points.live(as_of) & changes[points.event.codes])
    owner = points.owners()[rows]
    newest = np.full(len(block), np.iinfo(np.int64).min)
    np.maximum.at(newest, owner, points.occurred_at[rows])
    # Of several at the newest instant the field may be any.
    named: dict[int, set[str]] = {}
    for row, customer in zip(rows.tolist(), owner.tolist(), strict=True):
        if points.occurred_at[row] == newest[customer]:
            told = points.event.values[points.event.codes[row]].removeprefix(STAGE_CHANGE)
            named.setdefault(customer, set()).add(told)
    both = [customer for customer in named if field_is[customer] is not None]
    return np.array([len(both), sum(field_is[customer] not in named[customer] for customer in both)], dtype=np.int64)
