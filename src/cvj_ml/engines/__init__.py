"""Engines map a function over the blocks of a store."""

from cvj_ml.engines.local import LocalEngine

__all__ = ["LocalEngine"]
