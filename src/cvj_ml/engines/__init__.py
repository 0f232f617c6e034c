"""Engines map a function over the blocks of a store."""

from cvj_ml.engines.local import LocalEngine, map_blocks

__all__ = ["LocalEngine", "map_blocks"]
