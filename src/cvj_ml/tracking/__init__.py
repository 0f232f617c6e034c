"""Runs and model versions in MLflow: the only package that imports it, and only inside functions."""

from cvj_ml.tracking.records import Fingerprint, LoggedTraining, ModelVersion, Record, TrainingRecord
from cvj_ml.tracking.registry import (
    export,
    fetch,
    find_champion,
    find_training,
    find_version,
    import_bundle,
    list_versions,
    log_backtest,
    log_search,
    log_training,
    pin_champion,
    promote,
    rollback,
)

__all__ = [
    "Fingerprint",
    "LoggedTraining",
    "ModelVersion",
    "Record",
    "TrainingRecord",
    "export",
    "fetch",
    "find_champion",
    "find_training",
    "find_version",
    "import_bundle",
    "list_versions",
    "log_backtest",
    "log_search",
    "log_training",
    "pin_champion",
    "promote",
    "rollback",
]
