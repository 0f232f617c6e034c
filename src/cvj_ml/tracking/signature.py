"""What the logged model takes and gives, as MLflow describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from pandas.api import types

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, DataType

    from cvj_ml.scoring import Interface


def signature_of(interface: Interface) -> ModelSignature:
    """Return rows → SCORES with the parameter ``as_of``.

    The columns have names and no types: MLflow would refuse times with a zone and whole numbers, and make the text
    "None" of a null. The model reads them as ingest reads a source, and its errors name what is missing, which
    MLflow's do not; so MLflow requires only what every form of the rows has.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    anything: AnyType = AnyType()  # type: ignore[no-untyped-call]  # MLflow gives its constructor no types
    names = dict.fromkeys(("customer_id", *interface.required, *interface.optional))
    return ModelSignature(
        Schema([ColSpec(anything, name, required=name == "customer_id") for name in names]),
        Schema([ColSpec(_type(column), str(name)) for name, column in interface.scores.items()]),
        ParamSchema([ParamSpec("as_of", DataType.string, default=None)]),
    )


def _type(column: pd.Series) -> DataType | Array:
    """Return MLflow's type of a column of SCORES; instants are ISO text there, since MLflow's have no zone."""
    from mlflow.types.schema import Array, DataType

    if types.is_bool_dtype(column):
        return DataType.boolean
    if types.is_float_dtype(column):
        return DataType.double
    return Array(DataType.string) if column.name == "low_evidence" else DataType.string
