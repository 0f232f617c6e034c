"""Ranked lists for marketers."""

from cvj_ml.lists.contact_history import contact_history, contact_history_schema
from cvj_ml.lists.control import HOLDOUT_EXPOSURES, epoch_end, epoch_name
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.kinds import said_of_row, title_of_row
from cvj_ml.lists.ranked_list import (
    NOT_LISTED,
    SUMMARY,
    RankedList,
    confirmations,
    held_back,
    list_specs,
    people_of_group,
    require_columns,
    summarise,
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
    "require_columns",
    "said_of_row",
    "summarise",
    "title_of_row",
    "with_reasons",
    "without_evidence",
]
