"""Runs and model versions in MLflow: the only package that imports it, and only inside functions."""

from cvj_ml.tracking.registry import (
    current_champion,
    describe_version,
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
    promote,
    promote_to,
    rollback,
)
from cvj_ml.tracking.runs import LoggedTraining, ModelVersion, Record, TrainingRecord

__all__ = [
    "LoggedTraining",
    "ModelVersion",
    "Record",
    "TrainingRecord",
    "current_champion",
    "describe_version",
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
    "promote",
    "promote_to",
    "rollback",
]
