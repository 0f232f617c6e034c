"""Ranked lists for marketers."""

from cvj_ml.lists.ranking import RankedList, list_specs, rank
from cvj_ml.lists.reasons import with_reasons

__all__ = ["RankedList", "list_specs", "rank", "with_reasons"]
