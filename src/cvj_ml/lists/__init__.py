"""Ranked lists for marketers."""

from cvj_ml.lists.ranking import RankedList, default_lists, rank

__all__ = ["RankedList", "default_lists", "rank"]
