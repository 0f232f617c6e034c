"""From touchpoints to stages."""

from cvj_ml.journey.observability import Visible, coverage_of, draw_hidden, entries_when_hidden, hide, observability
from cvj_ml.journey.progress import Progress, progress
from cvj_ml.journey.stages import Followed, StageState, entry_times, followed, occurrence_times, reached, stage_at

__all__ = [
    "Followed",
    "Progress",
    "StageState",
    "Visible",
    "coverage_of",
    "draw_hidden",
    "entries_when_hidden",
    "entry_times",
    "followed",
    "hide",
    "observability",
    "occurrence_times",
    "progress",
    "reached",
    "stage_at",
]
