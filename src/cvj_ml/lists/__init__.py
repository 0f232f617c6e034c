"""Ranked lists for marketers."""

from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.outreach import outreach, outreach_schema
from cvj_ml.lists.ranking import RankedList, list_specs, rank, title_of, without_evidence
from cvj_ml.lists.reasons import with_reasons
from cvj_ml.lists.spared import SPARED
from cvj_ml.lists.summary import NOT_LISTED, SUMMARY, summarise

__all__ = [
    "NOT_LISTED",
    "REASONS",
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
    "without_evidence",
]
