"""Ranked lists for marketers."""

from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.night import People, make_lists, read_people
from cvj_ml.lists.ranking import RankedList, list_specs, rank
from cvj_ml.lists.reasons import with_reasons
from cvj_ml.lists.spared import SPARED
from cvj_ml.lists.summary import NOT_LISTED, SUMMARY, summarise

__all__ = [
    "NOT_LISTED",
    "REASONS",
    "SPARED",
    "SUMMARY",
    "People",
    "RankedList",
    "list_specs",
    "make_lists",
    "rank",
    "read_people",
    "summarise",
    "with_reasons",
]
