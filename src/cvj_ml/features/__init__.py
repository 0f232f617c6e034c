"""Features: vocabulary (frozen), catalogue (what), kernel (how)."""

from cvj_ml.features.catalogue import DATES, PROGRESS, Catalogue, Feature, Statistic, compile_catalogue, window_words
from cvj_ml.features.compute import compute, dates_known, latest_known
from cvj_ml.features.vocabulary import (
    INSTANTS,
    NUMBERS,
    OTHER,
    SEVERAL,
    TEXTS,
    Sightings,
    Vocabulary,
    Written,
    learn,
    sight,
)

__all__ = [
    "DATES",
    "INSTANTS",
    "NUMBERS",
    "OTHER",
    "PROGRESS",
    "SEVERAL",
    "TEXTS",
    "Catalogue",
    "Feature",
    "Sightings",
    "Statistic",
    "Vocabulary",
    "Written",
    "compile_catalogue",
    "compute",
    "dates_known",
    "latest_known",
    "learn",
    "sight",
    "window_words",
]
