"""The files of effect models in a bundle, a folder for each list: trees as LightGBM's text, documents of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightgbm as lgb
import numpy as np

from cvj_ml.models.bundle.hazard_files import read_json, text_of, write_json
from cvj_ml.models.uplift.effect_model import EffectModel
from cvj_ml.models.uplift.list_effect import ListEffect

EFFECTS, EFFECT_TREES = "effects.json", "effect_trees.txt"

_OF_LIST = "list.json"
_NUMBERS = ("average", "standard_error", "weight")
_BETWEEN = "end of booster\n"
"""A line that LightGBM never writes: a committee is one file, so that an arm more is no file more."""


def save_effects(model: EffectModel, folder: Path) -> None:
    """Write an effect model into a folder; the same model gives the same bytes."""
    texts = [text_of(booster) for booster in model.boosters]
    (folder / EFFECT_TREES).write_text("".join(text + _BETWEEN for text in texts), encoding="utf-8")
    write_json(
        folder / EFFECTS,
        {
            **{name: getattr(model, name).tolist() for name in _NUMBERS},
            "rows": model.rows,
            "customers": model.customers,
        },
    )


def load_effects(folder: Path) -> EffectModel:
    """Return the effect model of `save_effects`, which predicts the same to the bit."""
    document = read_json(folder / EFFECTS)
    texts = (folder / EFFECT_TREES).read_text(encoding="utf-8").split(_BETWEEN)[:-1]
    average, error, weight = (np.array(document[name], dtype=np.float64) for name in _NUMBERS)
    boosters = tuple(lgb.Booster(model_str=text) for text in texts)
    return EffectModel(boosters, average, error, weight, document["rows"], document["customers"])


def save_list_effects(effects: Sequence[ListEffect], folder: Path) -> None:
    """Write the effects of lists into a bundle, a folder each; of none nothing is written."""
    for effect in effects:
        place = folder / f"effect_{effect.name}"
        place.mkdir()
        save_effects(effect.model, place)
        write_json(place / _OF_LIST, effect.as_dict())


def load_list_effects(folder: Path) -> tuple[ListEffect, ...]:
    """Return the effects of lists of a verified bundle, by their names."""
    files = sorted(folder.glob(f"effect_*/{_OF_LIST}"))
    return tuple(ListEffect.from_dict(read_json(file), load_effects(file.parent)) for file in files)
