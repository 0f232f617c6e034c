"""Features: vocabulary (frozen), catalogue (what), kernel and functions of one's own (how), selection (what not)."""

from cvj_ml.features.catalogue import DATES, PROGRESS, Catalogue, Feature, Statistic, compile_catalogue, window_words
from cvj_ml.features.compute import compute, custom_columns_of, dates_known, latest_known
from cvj_ml.features.custom import CUSTOM, CustomColumns, PastTouchpoints, require_functions
from cvj_ml.features.selection import Selection, unknown_patterns
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
    "CUSTOM",
    "DATES",
    "INSTANTS",
    "NUMBERS",
    "OTHER",
    "PROGRESS",
    "SEVERAL",
    "TEXTS",
    "Catalogue",
    "CustomColumns",
    "Feature",
    "PastTouchpoints",
    "Selection",
    "Sightings",
    "Statistic",
    "Vocabulary",
    "Written",
    "compile_catalogue",
    "compute",
    "custom_columns_of",
    "dates_known",
    "latest_known",
    "learn",
    "require_functions",
    "sight",
    "unknown_patterns",
    "window_words",
]
