"""What the logged model takes and gives, as MLflow describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from pandas.api import types

from cvj_ml.tracking.records import TrainingRecord

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema
    from mlflow.types.schema import Array, DataType

_REQUIRED = ("customer_id", "occurred_at", "event")


def signature_of(record: TrainingRecord | None) -> ModelSignature:
    """Return touchpoints → SCORES with the parameter ``as_of``; without a record, the parameter alone.

    Instants are naive in MLflow; here they are read as UTC.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import DataType, ParamSchema, ParamSpec

    parameters = ParamSchema([ParamSpec("as_of", DataType.string, default=None)])
    if record is None:
        return ModelSignature(params=parameters)
    return ModelSignature(_schema(record.example_input, _REQUIRED), _schema(record.example_output, ()), parameters)


def _schema(example: pd.DataFrame, required: tuple[str, ...]) -> Schema:
    from mlflow.types import ColSpec, Schema

    return Schema([ColSpec(_type(column), str(name), required=name in required) for name, column in example.items()])


def _type(column: pd.Series) -> DataType | Array:
    """Return MLflow's type of a column, without looking at more than one value."""
    from mlflow.types.schema import Array, DataType

    if types.is_bool_dtype(column):
        return DataType.boolean
    if types.is_integer_dtype(column):
        return DataType.long
    if types.is_float_dtype(column):
        return DataType.double
    if types.is_datetime64_any_dtype(column):
        return DataType.datetime
    return Array(DataType.string) if types.is_list_like(next(iter(column.dropna()), None)) else DataType.string
