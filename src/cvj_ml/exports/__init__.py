"""Exports: the night's lists as the files that other tools import, and the audience that ads must leave alone."""

from cvj_ml.exports.audiences import LEFT_OUT
from cvj_ml.exports.export_files import (
    EXPORTS,
    MEMBERS,
    EarlierExports,
    Exported,
    make_exports,
    segments_of,
    write_exports,
)

__all__ = [
    "EXPORTS",
    "LEFT_OUT",
    "MEMBERS",
    "EarlierExports",
    "Exported",
    "make_exports",
    "segments_of",
    "write_exports",
]
