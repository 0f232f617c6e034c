"""The file of the amounts in a bundle: one document of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cvj_ml.models.bundle.hazard_files import read_json, write_json
from cvj_ml.models.value.mean import MeanModel
from cvj_ml.models.value.purchase_history import AverageBuyer
from cvj_ml.models.value.spread import Ratios, Spread
from cvj_ml.models.value.value import ValueModel

VALUE = "value.json"
"""Empty where a model does not know amounts."""

_MEANS = ("number", "gross", "refunds")
_LINE = ("mean", "scale", "bound", "slopes", "level")


def save_value(model: ValueModel | None, folder: Path) -> None:
    """Write the amounts' model into a bundle."""
    if model is None:
        write_json(folder / VALUE, {})
        return
    means = {name: getattr(model, name) for name in _MEANS}
    write_json(
        folder / VALUE,
        {
            "ranks": model.ranks,
            "population": {"rate": model.population.rate, "amount": model.population.amount},
            "means": {name: _mean_as_json(mean) if mean is not None else None for name, mean in means.items()},
            "spread": {
                "cuts": model.spread.cuts.tolist(),
                "bands": [
                    {"none": one.none, "points": one.points.tolist(), "share": one.share.tolist()}
                    for one in model.spread.bands
                ],
            },
        },
    )


def load_value(folder: Path) -> ValueModel | None:
    """Return the amounts' model of `save_value`."""
    document = read_json(folder / VALUE)
    if not document:
        return None
    means = {name: _mean_from_json(one) for name, one in document["means"].items() if one}
    bands = tuple(
        Ratios(one["none"], np.array(one["points"], dtype=np.float64), np.array(one["share"], dtype=np.float64))
        for one in document["spread"]["bands"]
    )
    return ValueModel(
        AverageBuyer(**document["population"]),
        means["number"],
        means["gross"],
        Spread(np.array(document["spread"]["cuts"], dtype=np.float64), bands),
        means.get("refunds"),
        document["ranks"],
    )


def _mean_as_json(mean: MeanModel) -> dict[str, Any]:
    return {**{name: getattr(mean, name).tolist() for name in _LINE}, "intercept": mean.intercept}


def _mean_from_json(document: dict[str, Any]) -> MeanModel:
    line = {name: np.array(document[name], dtype=np.float64) for name in _LINE}
    return MeanModel(**line, intercept=document["intercept"])
