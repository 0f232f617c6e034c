"""From touchpoints to stages."""

from cvj_ml.journey.attribute_rules import evidence
from cvj_ml.journey.customer_outcomes import KEPT, PURCHASE, Outcome, outcomes_of
from cvj_ml.journey.leaves import column_passes, leaf_mask
from cvj_ml.journey.observability import Journey, Visible, observability
from cvj_ml.journey.progress import Progress, progress
from cvj_ml.journey.stages import Followed, StageState, entry_times, followed, occurrence_times, reached, stage_at
from cvj_ml.journey.thinning import coverage_of, draw_hidden, entries_when_hidden, hide

__all__ = [
    "KEPT",
    "PURCHASE",
    "Followed",
    "Journey",
    "Outcome",
    "Progress",
    "StageState",
    "Visible",
    "column_passes",
    "coverage_of",
    "draw_hidden",
    "entries_when_hidden",
    "entry_times",
    "evidence",
    "followed",
    "hide",
    "leaf_mask",
    "observability",
    "occurrence_times",
    "outcomes_of",
    "progress",
    "reached",
    "stage_at",
]
