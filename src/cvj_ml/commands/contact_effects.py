"""What past nights teach of contacts: listings as experiments, an effect model a list, and whether it may rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from cvj_ml.commands.measure import clicks_of, score_columns, stages_of
from cvj_ml.config import DAY, Config, ListSpec
from cvj_ml.customers import Identities
from cvj_ml.inputs import Histories
from cvj_ml.journey import KEPT
from cvj_ml.lists import epoch_end, list_specs
from cvj_ml.lists.chances import Chances
from cvj_ml.lists.kinds import name_of
from cvj_ml.measurement.experiments import (
    LEFT_OUT,
    Experiments,
    assigned,
    assigned_experiments,
    experiments_of,
    features_before,
    require_properties,
)
from cvj_ml.measurement.list_effects import LearnableList, LearnedEffect, learn_list_effects
from cvj_ml.measurement.outcomes import Observation, PastList
from cvj_ml.night import NightFolder, published_lists
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.windows import before, midnight, parse_as_of

_LISTED = ("customer_id", "group", "control_share", "probability", "play", "channel")
"""What a listing says of a customer, and of the contact."""


@dataclass(frozen=True, slots=True)
class ContactEffects:
    """What past nights taught: an effect a list, and of the others why nothing was learned, by name."""

    experiments: Experiments
    learned: tuple[LearnedEffect, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a person should know of it, a sentence a list."""
        told = [one.effect.sentence for one in self.learned]
        told += [f"{name}: nothing is learned of its contacts yet: {reason}." for name, reason in self.silent.items()]
        return (*told, *(f"{one}." for one in self.experiments.unbalanced))

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentences, what the last epoch alone says, and what became of every listing; none without any night."""
        counted = [f"{count:,}: {LEFT_OUT[name]}" for name, count in self.experiments.left_out.items() if count]
        if not counted and not len(self.experiments.rows):
            return ()
        last = [
            f"In its last epoch alone, which decided nothing: {one.last.sentence}"
            for one in self.learned
            if one.last is not None
        ]
        listings = f"Of past listings {len(self.experiments.rows):,} are rows of experiments"
        return (*self.sentences, *last, f"{listings}{'; left out are ' if counted else ''}{'; '.join(counted)}.")


def learn_contact_effects(
    histories: Histories, definition: ModelSpec, as_of: int, keys: npt.NDArray[np.uint64]
) -> ContactEffects:
    """Learn what contacts change from every night before ``as_of``; nothing where none was published."""
    config = histories.config
    listings = list(_listings(config, as_of))
    known = set(config.journey.names) - histories.visible.unobserved
    usable = [(past, end, row) for past, end, row in listings if {*past.stages} <= known]
    if len(usable) < len(listings):
        histories.watcher.say(
            f"warning: {len(listings) - len(usable)} past list(s) name stages that are not observed any more, so they"
            " teach nothing."
        )
    observation = Observation(
        histories.visible.journey,
        as_of,
        histories.store.arrival_delay,
        Identities.at(histories.store, as_of).person,
        clicks_of(config),
    )
    found = experiments_of(
        [past for past, *_ in usable], [end for _, end, _ in usable], observation, histories.engine()
    )
    if config.experiments is not None:
        require_properties(config.experiments, histories.store.property_kinds)
        told = assigned(config.experiments, histories.visible.journey, as_of, histories.engine())
        asked = [_asked(config, spec) for spec in list_specs(config, histories.visible.journey)]
        found = found.and_those(assigned_experiments(told, asked, observation, histories.engine()))
    if not len(found.rows):
        return ContactEffects(found)
    blocks = histories.engine().only(found.rows["customer_id"].unique().tolist())
    x = features_before(definition, found.rows, blocks)
    nights: dict[str, list[tuple[PastList, dict[str, Any]]]] = {}
    for past, _, row in usable:
        nights.setdefault(past.name, []).append((past, row))
    specs = {name_of(config.journey, one): one for one in list_specs(config, histories.visible.journey)}
    names = [name for name in (*nights, *(one for one in specs if one not in nights)) if name in {*found.rows["list"]}]
    learned, silent = learn_list_effects(
        [_learnable(nights[name]) if name in nights else _untried(config, specs[name]) for name in names],
        found.rows,
        x,
        keys,
        config.model.seed,
        histories.threads,
        config.model.min_customers,
    )
    return ContactEffects(found, learned, silent)


def _listings(config: Config, as_of: int) -> Iterator[tuple[PastList, int, dict[str, Any]]]:
    """Yield the lists of nights before ``as_of`` with the listed alone, the epoch's end, and the row of SUMMARY."""
    for folder in published_lists(Path(config.out)):
        night = parse_as_of(folder.parent.name.removeprefix("as_of="), config.zone)
        if not before(np.array(night), as_of):
            continue
        place = NightFolder(folder)
        for row in pq.read_table(place.summary, partitioning=None).to_pylist():
            listed = pq.read_table(place.list_file(row["list"]), columns=[*_LISTED, "model_version"], partitioning=None)
            frame = listed.to_pandas()
            kind, outcome = row.get("kind") or "move", row.get("outcome") or "reach"
            if kind == "win_back" and outcome == KEPT:
                # What SCORES tell of them is churn.
                frame["probability"] = 1 - frame["probability"]
            past = PastList(
                row["list"],
                row["from_stage"],
                row["to_stage"],
                row["horizon_days"] * DAY,
                row["epoch"],
                night,
                str(frame["model_version"].iloc[0]) if len(frame) else "",
                frame[list(_LISTED)],
                kind=kind,
                outcome=outcome,
                stages=stages_of(config, row),
            )
            yield past, midnight(epoch_end(row["epoch"].split("-")[1], night, config.zone), config.zone), row


def _asked(config: Config, spec: ListSpec) -> PastList:
    """Return what a configured list asks, of nobody."""
    outcome = Chances(config, ()).outcome(spec)
    stages = (spec.from_stage or "", spec.target) if spec.kind == "move" else spec.origins
    return PastList(
        name_of(config.journey, spec),
        ", ".join(spec.origins),
        spec.to_stage,
        spec.horizon,
        "",
        0,
        "",
        pd.DataFrame({"customer_id": [], "as_of": []}),
        kind=spec.kind,
        outcome=outcome,
        stages=stages,
    )


def _untried(config: Config, spec: ListSpec) -> LearnableList:
    """Return what is to be learned of a list that no night has published: experiments alone tell of it."""
    asked = _asked(config, spec)
    row = {"list": asked.name, "kind": spec.kind, "outcome": asked.outcome, "horizon_days": spec.horizon // DAY}
    return LearnableList(asked.name, asked.outcome, score_columns(row, asked.stages), 1.0)


def _learnable(nights: list[tuple[PastList, dict[str, Any]]]) -> LearnableList:
    """Return what is to be learned of a list, by its newest night."""
    past, row = nights[-1]
    listed, eligible = (sum(one[key] for _, one in nights) for key in ("listed", "eligible"))
    share = listed / eligible if eligible else 1.0
    return LearnableList(past.name, past.outcome, score_columns(row, past.stages), share)
