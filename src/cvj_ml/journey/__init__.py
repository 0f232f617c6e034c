"""From touchpoints to stages."""

from cvj_ml.config import KEPT, PURCHASE
from cvj_ml.journey.attribute_rules import evidence
from cvj_ml.journey.customer_outcomes import Outcome, asked_of, in_scores, net_values, outcomes_of
from cvj_ml.journey.leaves import column_passes, leaf_mask
from cvj_ml.journey.observability import Journey, Visible, observability
from cvj_ml.journey.progress import Progress, progress
from cvj_ml.journey.stages import (
    Followed,
    entry_times,
    followed,
    occurrence_times,
    stays,
    stays_that_happened,
)
from cvj_ml.journey.stays import StageState, Stays, reached, stage_at
from cvj_ml.journey.thinning import coverage_of, draw_hidden, hide, stays_when_hidden

__all__ = [
    "KEPT",
    "PURCHASE",
    "Followed",
    "Journey",
    "Outcome",
    "Progress",
    "StageState",
    "Stays",
    "Visible",
    "asked_of",
    "column_passes",
    "coverage_of",
    "draw_hidden",
    "entry_times",
    "evidence",
    "followed",
    "hide",
    "in_scores",
    "leaf_mask",
    "net_values",
    "observability",
    "occurrence_times",
    "outcomes_of",
    "progress",
    "reached",
    "stage_at",
    "stays",
    "stays_that_happened",
    "stays_when_hidden",
]
