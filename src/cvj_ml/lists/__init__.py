"""Ranked lists for marketers."""

from cvj_ml.lists.contact_history import contact_history, contact_history_schema
from cvj_ml.lists.control import HOLDOUT_EXPOSURES
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.last_events import Unhappy
from cvj_ml.lists.ranking import (
    NOT_LISTED,
    SUMMARY,
    RankedList,
    list_specs,
    rank,
    summarise,
    title_of,
    without_evidence,
)
from cvj_ml.lists.reasons import with_reasons

__all__ = [
    "HOLDOUT_EXPOSURES",
    "NOT_LISTED",
    "REASONS",
    "SUMMARY",
    "RankedList",
    "Unhappy",
    "contact_history",
    "contact_history_schema",
    "list_specs",
    "rank",
    "summarise",
    "title_of",
    "with_reasons",
    "without_evidence",
]
