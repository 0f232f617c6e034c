"""A first configuration, guessed from the files themselves and written for a person to correct."""

from cvj_ml.setup.document import Proposal
from cvj_ml.setup.doubts import Doubt
from cvj_ml.setup.initialising import look, write_config

__all__ = ["Doubt", "Proposal", "look", "write_config"]
