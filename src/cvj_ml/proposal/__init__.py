"""A first configuration, guessed from the files themselves and written for a person to correct."""

from cvj_ml.proposal.document import Proposal
from cvj_ml.proposal.doubts import Doubt
from cvj_ml.proposal.initialising import look, write

__all__ = ["Doubt", "Proposal", "look", "write"]
