"""Exports: the night's lists as the files that other tools import, and the audience that ads must leave alone."""

from cvj_ml.exports.audiences import LEFT_OUT
from cvj_ml.exports.export_files import Base, Exported, make_exports, write_exports

__all__ = ["LEFT_OUT", "Base", "Exported", "make_exports", "write_exports"]
