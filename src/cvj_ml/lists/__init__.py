"""Ranked lists for marketers."""

from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.outreach import outreach, outreach_schema
from cvj_ml.lists.ranking import SOME_MOVE, RankedList, list_specs, rank, title_of
from cvj_ml.lists.reasons import with_reasons
from cvj_ml.lists.spared import SPARED
from cvj_ml.lists.summary import NOT_LISTED, SUMMARY, summarise

__all__ = [
    "NOT_LISTED",
    "REASONS",
    "SOME_MOVE",
    "SPARED",
    "SUMMARY",
    "RankedList",
    "list_specs",
    "outreach",
    "outreach_schema",
    "rank",
    "summarise",
    "title_of",
    "with_reasons",
]
