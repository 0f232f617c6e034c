"""The model card: what a model answers, what it learned from, how good it is, and what it cannot see."""

from cvj_ml.evaluation.card.facts import Training, segments_of
from cvj_ml.evaluation.card.writing import Card, write_card

__all__ = ["Card", "Training", "segments_of", "write_card"]
