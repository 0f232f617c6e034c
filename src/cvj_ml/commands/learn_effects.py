"""What past nights teach of contacts: their listings as experiments, an effect model a list, and whether it may rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cvj_ml.commands.measure import clicks_of, stages_of
from cvj_ml.config import DAY, Config
from cvj_ml.customers import Identities
from cvj_ml.inputs import Histories
from cvj_ml.lists import epoch_end
from cvj_ml.measurement.experiments import Experiments, experiments_of
from cvj_ml.measurement.outcomes import Observation, PastList
from cvj_ml.night import NightFolder, published_lists
from cvj_ml.windows import before, midnight, parse_as_of

_LISTED = ("customer_id", "group", "control_share", "probability", "play", "channel")


def read_listings(config: Config, as_of: int) -> Iterator[tuple[PastList, int]]:
    """Yield the lists of the nights before ``as_of``, with those alone who were listed, and when their epoch ended."""
    for folder in published_lists(Path(config.out)):
        night = parse_as_of(folder.parent.name.removeprefix("as_of="), config.zone)
        if not before(np.array(night), as_of):
            continue
        place = NightFolder(folder)
        for row in pq.read_table(place.summary, partitioning=None).to_pylist():
            listed = pq.read_table(place.list_file(row["list"]), columns=[*_LISTED, "model_version"], partitioning=None)
            end = midnight(epoch_end(row["epoch"].split("-")[1], night, config.zone), config.zone)
            frame = listed.to_pandas()
            yield (
                PastList(
                    row["list"],
                    row["from_stage"],
                    row["to_stage"],
                    row["horizon_days"] * DAY,
                    row["epoch"],
                    night,
                    str(frame["model_version"].iloc[0]) if len(frame) else "",
                    frame[list(_LISTED)],
                    kind=row.get("kind") or "move",
                    outcome=row.get("outcome") or "reach",
                    stages=stages_of(config, row),
                ),
                end,
            )


def past_experiments(histories: Histories, as_of: int) -> Experiments:
    """Return the experiments that the published nights are, as known at ``as_of``."""
    config = histories.config
    found = list(read_listings(config, as_of))
    known = set(config.journey.names) - histories.visible.unobserved
    usable = [(past, end) for past, end in found if {*past.stages} <= known]
    observation = Observation(
        histories.visible.journey,
        as_of,
        histories.store.arrival_delay,
        Identities.at(histories.store, as_of).person,
        clicks_of(config),
    )
    return experiments_of(
        [past for past, _ in usable], [end for _, end in usable], observation, histories.engine()
    )
