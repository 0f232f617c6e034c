"""What a notebook needs: five calls, pandas at the edges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cvj_ml import commands
from cvj_ml.commands import Histories, Scored, Silent
from cvj_ml.config import DAY, Config
from cvj_ml.customers import match_people, read_people
from cvj_ml.evaluation.mlflow_record import low_targets
from cvj_ml.lists import rank
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.ownership import claim
from cvj_ml.panel.panel import Panel
from cvj_ml.scoring import StoredTable
from cvj_ml.windows import parse_as_of

UNREGISTERED = "unregistered"
"""The ``model_version`` of a model that lives in a notebook only."""


@dataclass(frozen=True, slots=True)
class TrainingPanel:
    """Snapshots with features and labels of everything that was visible before ``as_of``."""

    histories: Histories
    panel: Panel
    as_of: int

    def to_frame(self) -> pd.DataFrame:
        """Return one row a snapshot: customer_id, as_of, stage, the features, and days until each target.

        A target that had not happened by the panel's ``as_of`` has no days; follow_up_days says how far it was seen.
        """
        panel, labels = self.panel, self.panel.labels
        journey = panel.definition.journey
        frame = pd.DataFrame(panel.x, columns=panel.definition.catalogue.names)
        names = pd.array([*journey.names, None], dtype="str")
        frame.insert(0, "customer_id", [panel.names[i] for i in panel.customer])
        frame.insert(1, "as_of", pd.to_datetime(panel.as_of, unit="us", utc=True))
        frame.insert(2, "observed_stage", pd.Series(names[panel.stage]))
        frame["follow_up_days"] = labels.follow_up / DAY
        for j, name in enumerate(["return", *(stage.slug for stage in journey.stages)]):
            happened = labels.asked[:, j] & (labels.times[:, j] < labels.follow_up)
            frame[f"days_until_{name}"] = pd.Series(labels.times[:, j] / DAY).where(happened)
        return frame


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted model: probabilities for any customers whose history it is shown."""

    predictor: Predictor
    histories: Histories

    @property
    def low_evidence(self) -> list[str]:
        """Targets that too few customers reached: they rest on base rates."""
        return low_targets(self.predictor)


def build_panel(config: Config, as_of: str) -> TrainingPanel:
    """Read the sources and build the training panel of what was visible before ``as_of``."""
    histories = commands.open_histories(config, Silent())
    instant = parse_as_of(as_of, config.zone)
    return TrainingPanel(histories, commands.training_panel(histories, instant, Silent()), instant)


def fit(panel: TrainingPanel) -> Model:
    """Fit the reach model: settings chosen out of time, calibrated, refitted on the whole panel.

    Where the configuration declares coverage, the posterior of the current stage is fitted, too.
    """
    histories = panel.histories
    fitted = fit_reach(
        panel.panel, panel.as_of, histories.store.arrival_delay, histories.config.model.seed, histories.threads
    )
    definition = panel.panel.definition
    posterior = commands.true_stages(histories, definition, panel.as_of, Silent())
    stage = posterior.model if posterior else None
    return Model(Predictor(definition, fitted.trees, fitted.calibration, stage), histories)


def backtest(config: Config, until: str, folds: int = 1) -> pd.DataFrame:
    """Return one row of metrics for each fold, contender, transition and horizon."""
    results = commands.backtest(config, parse_as_of(until, config.zone), folds, Silent())
    named = [result.rows.assign(fold=commands.as_of_name(config, result.fold.cut)) for result in results]
    return pd.concat(named, ignore_index=True)


def score(model: Model, as_of: str) -> pd.DataFrame:
    """Return SCORES: one row a customer with a touchpoint visible before ``as_of``."""
    with _scored(model, as_of) as scored:
        frame: pd.DataFrame = pd.read_parquet(scored.scores, partitioning=None)
    return frame


def targets(model: Model, as_of: str) -> dict[str, pd.DataFrame]:
    """Return the configured lists of whom to target next, by the name of the list."""
    histories = model.histories
    config = histories.config
    instant = parse_as_of(as_of, config.zone)
    people = match_people(read_people(config), config, histories.store)
    with _scored(model, as_of, history=True) as scored:
        # A model that was never judged at a past instant has no track record.
        lists = rank(
            config,
            StoredTable.at(scored.scores),
            histories.visible.journey,
            instant,
            history=StoredTable.at(scored.history) if scored.history else None,
            permissions=people.permissions,
            exposures=commands.listed_in_control(config, instant),
        )
    return {one.name: one.rows.to_pandas() for one in lists}


@contextmanager
def _scored(model: Model, as_of: str, *, history: bool = False) -> Iterator[Scored]:
    instant = parse_as_of(as_of, model.histories.config.zone)
    with tempfile.TemporaryDirectory() as folder:
        claim(Path(folder))  # blocks are written and removed in it
        yield commands.score(model.histories, model.predictor, UNREGISTERED, instant, Path(folder), history=history)
