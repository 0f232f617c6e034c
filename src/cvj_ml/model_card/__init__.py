"""The model card: what a model answers, what it learned from, how good it is, and what it cannot see."""

from cvj_ml.model_card.card import Card, write_card
from cvj_ml.model_card.facts import Training, card_segments

__all__ = ["Card", "Training", "card_segments", "write_card"]
