"""What past nights teach of contacts: listings as experiments, an effect model a list, and whether it may rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.commands.measure import end_of_epoch, listed_of, observation_at, past_list, stages_of, summary_of
from cvj_ml.config import Config, ListSpec
from cvj_ml.inputs import Histories
from cvj_ml.journey import KEPT
from cvj_ml.lists.chances import Chances
from cvj_ml.lists.kinds import name_of
from cvj_ml.lists.ranked_list import list_specs
from cvj_ml.measurement.effects import arm_words
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
from cvj_ml.measurement.outcomes import PastList
from cvj_ml.measurement.subgroups import arm_effects
from cvj_ml.night.reading import contacted_lists, night_instant
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.scoring.scores_table import scores_contract
from cvj_ml.windows import before

MOST_ROWS = 300_000
"""Rows of experiments that are learned from; a share of the people stands for more."""

_OF_CONTACT = ("probability", "play", "channel")
"""What a listing says of a contact, beside who it is and whether chance left them alone."""


@dataclass(frozen=True, slots=True)
class ContactEffects:
    """What past nights taught: an effect a list, and of the others why nothing was learned, by name.

    ``warnings`` are what a reader of effects from targeted logs has to know; ``arms`` what each arm of the user's own
    experiments brought, as of `arm_effects`.
    """

    experiments: Experiments
    learned: tuple[LearnedEffect, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    arms: Sequence[Mapping[str, object]] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a person should know of it, a sentence a list."""
        told = [one.effect.sentence for one in self.learned]
        told += [f"{name}: nothing is learned of its contacts yet: {reason}." for name, reason in self.silent.items()]
        told += [f"{arm_words(one)}." for one in self.arms]
        return (*told, *(f"{one}." for one in self.experiments.unbalanced), *self.warnings)

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
    histories: Histories,
    definition: ModelSpec,
    usual_gap: npt.NDArray[np.float64],
    as_of: int,
    keys: npt.NDArray[np.uint64],
) -> ContactEffects:
    """Learn what contacts change from every night before ``as_of``, and from experiments; nothing without either.

    usual_gap: by stage, as of `SegmentLevels`.
    """
    config, told = histories.config, scores_contract(definition).columns
    chances = Chances(config, told)
    # A list whose column SCORES lack cannot be made, and a night says so.
    specs = {
        name_of(config.journey, one): one
        for one in list_specs(config, histories.visible.journey)
        if {*chances.published(one).values()} <= {*told}
    }
    asked = {name: _asked(name, one, chances) for name, one in specs.items()}
    listings = list(_listings(config, as_of))
    observation = observation_at(histories, as_of)
    wanted = [past.name in asked and past.outcome == asked[past.name].outcome for past, _, _ in listings]
    found = experiments_of(
        [past for past, _, _ in listings], [end for _, end, _ in listings], wanted, observation, histories.engine()
    )
    if config.experiments is not None:
        require_properties(config.experiments, histories.store.property_kinds)
        drawn = assigned(config.experiments, definition, usual_gap, as_of, histories.engine())
        found = found.and_those(assigned_experiments(drawn, [*asked.values()], observation, histories.engine()))
    arms = arm_effects(found.rows)
    found = found.at_most(MOST_ROWS, config.model.seed)
    if not len(found.rows):
        return ContactEffects(found)
    blocks = histories.engine().only(found.rows["customer_id"].unique().tolist())
    x = features_before(definition, found.rows, blocks)
    nights: dict[str, list[dict[str, Any]]] = {}
    for (past, _, row), usable in zip(listings, wanted, strict=True):
        if usable:
            nights.setdefault(past.name, []).append(row)
    learned, silent, notes = learn_list_effects(
        [
            _learnable(name, one, chances, nights.get(name, []))
            for name, one in specs.items()
            if name in {*found.rows["list"]}
        ],
        found.rows,
        x,
        keys,
        config.model.seed,
        histories.threads,
        config.model.min_customers,
    )
    return ContactEffects(found, learned, silent, notes, arms)


def _listings(config: Config, as_of: int) -> Iterator[tuple[PastList, int, dict[str, Any]]]:
    """Yield the lists of nights before ``as_of`` with the listed alone, the epoch's end, and the row of SUMMARY."""
    for folder in contacted_lists(Path(config.out)):
        night = night_instant(config, folder)
        if not before(np.array(night), as_of):
            continue
        for row in summary_of(folder):
            # Which model published them is nobody's question here.
            past = past_list(row, stages_of(config, row), night, "", listed_of(folder, row["list"], _OF_CONTACT))
            yield past, end_of_epoch(config, past), row


def _asked(name: str, spec: ListSpec, chances: Chances) -> PastList:
    """Return what a configured list asks, of nobody."""
    stages = (*spec.origins, spec.target) if spec.kind == "move" else spec.origins
    nobody = pd.DataFrame({"customer_id": [], "as_of": []})
    return PastList(
        *(name, ", ".join(spec.origins), spec.to_stage, spec.horizon, "", 0, "", nobody),
        kind=spec.kind,
        outcome=chances.outcome(spec),
        stages=stages,
    )


def _learnable(name: str, spec: ListSpec, chances: Chances, nights: list[dict[str, Any]]) -> LearnableList:
    """Return what is to be learned of a list, and which share of its eligible customers its nights took."""
    listed, eligible = (sum(one[key] for one in nights) for key in ("listed", "eligible"))
    outcome = chances.outcome(spec)
    contrary = spec.kind == "win_back" and outcome == KEPT
    return LearnableList(name, outcome, chances.published(spec), contrary, listed / eligible if eligible else 1.0)
