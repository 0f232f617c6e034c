"""Ranked lists for marketers."""

from cvj_ml.lists.contact_history import contact_history, contact_history_schema
from cvj_ml.lists.control import HOLDOUT_EXPOSURES, epoch_end, epoch_name
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.ranked_list import (
    NOT_LISTED,
    SUMMARY,
    RankedList,
    confirmations,
    held_back,
    list_specs,
    people_of_group,
    summarise,
    title_of,
    without_evidence,
)
from cvj_ml.lists.ranking import rank
from cvj_ml.lists.reasons import with_reasons

__all__ = [
    "HOLDOUT_EXPOSURES",
    "NOT_LISTED",
    "REASONS",
    "SUMMARY",
    "RankedList",
    "confirmations",
    "contact_history",
    "contact_history_schema",
    "epoch_end",
    "epoch_name",
    "held_back",
    "list_specs",
    "people_of_group",
    "rank",
    "summarise",
    "title_of",
    "with_reasons",
    "without_evidence",
]
