"""Ranked lists for marketers."""

from cvj_ml.lists.ranking import RankedList, list_specs, rank

__all__ = ["RankedList", "list_specs", "rank"]
