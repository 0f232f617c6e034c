"""Runs and model versions in MLflow: the only package that imports it, and only inside functions."""

from cvj_ml.tracking.records import Fingerprint, LoggedTraining, ModelVersion, Record, TrainingRecord
from cvj_ml.tracking.registry import (
    export,
    fetch_champion,
    find_champion,
    find_training,
    import_bundle,
    list_versions,
    log_backtest,
    log_search,
    log_training,
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
    "fetch_champion",
    "find_champion",
    "find_training",
    "import_bundle",
    "list_versions",
    "log_backtest",
    "log_search",
    "log_training",
    "promote",
    "rollback",
]
