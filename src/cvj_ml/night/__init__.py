"""A published night: written beside under a lock, checked, renamed, made current in one step, verified afterwards."""

from cvj_ml.night.forgetting import (
    Rewritten,
    begin,
    ended,
    forget_in_night,
    nights_naming,
    remember,
    unfinished,
    was_forgotten,
)
from cvj_ml.night.layout import LISTS, NightFolder, nights, replace_file
from cvj_ml.night.locking import hold
from cvj_ml.night.reading import current_night, published_lists, published_nights
from cvj_ml.night.verifying import Verified, verified_file, verified_manifest, verify_night
from cvj_ml.night.writing import Published, digest_of, digest_of_table, find_night, publish

__all__ = [
    "LISTS",
    "NightFolder",
    "Published",
    "Rewritten",
    "Verified",
    "begin",
    "current_night",
    "digest_of",
    "digest_of_table",
    "ended",
    "find_night",
    "forget_in_night",
    "hold",
    "nights",
    "nights_naming",
    "publish",
    "published_lists",
    "published_nights",
    "remember",
    "replace_file",
    "unfinished",
    "verified_file",
    "verified_manifest",
    "verify_night",
    "was_forgotten",
]
