"""What a training leaves behind, and what the registry knows of a model version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cvj_ml.scoring import Interface


class Fingerprint(TypedDict):
    """One input file: its name, the sha256 of its content and its size."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run leaves: settings, data fingerprints and results, but no customer's data.

    cut: ISO instant at which observation ends; inputs: fingerprints of each source's files; metrics: such as
    ``test.log_loss.convert__ascend.30d``; tables and figures: by the name of their artifact.
    """

    parameters: Mapping[str, str | int | float]
    cut: str
    inputs: Mapping[str, Sequence[Fingerprint]]
    metrics: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """One training, ready to be logged with its bundle.

    bundle: the folder of DESIGN section 9 and digest its sha256 (64 hex digits); interface: what its model takes and
    gives, with an example of simulated customers; tags: of the version.
    """

    bundle: Path
    digest: str
    interface: Interface
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoggedTraining:
    """What the run of a registered version logged; ``cut`` is the ISO instant of the training."""

    cut: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of the model.

    digest: of the bundle, 64 hex digits, and empty for a version that something else registered; cut: ISO instant of
    the training, empty for an imported bundle; created: ISO instant in UTC, whole seconds; bundle_format: what the
    bundle promises (`verification.FORMAT`), 1 where the version does not say.
    """

    name: str
    version: int
    digest: str
    run_id: str
    aliases: tuple[str, ...]
    cut: str
    created: str
    bundle_format: int = 1
