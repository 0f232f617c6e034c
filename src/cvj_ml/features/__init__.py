"""Features: vocabulary (frozen), catalogue (what), kernel (how)."""

from cvj_ml.features.catalogue import PROGRESS, Catalogue, Feature, compile_catalogue
from cvj_ml.features.compute import compute
from cvj_ml.features.vocabulary import Sightings, Vocabulary, learn, sight

__all__ = [
    "PROGRESS",
    "Catalogue",
    "Feature",
    "Sightings",
    "Vocabulary",
    "compile_catalogue",
    "compute",
    "learn",
    "sight",
]
