"""A first configuration, guessed from the files themselves and written for a person to correct."""

from cvj_ml.proposal.document import LogFile, Proposal, propose
from cvj_ml.proposal.roles import Lines, Roles, guess_lines, guess_roles

__all__ = ["Lines", "LogFile", "Proposal", "Roles", "guess_lines", "guess_roles", "propose"]
