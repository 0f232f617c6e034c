"""The simulated log while it is being built: flat columns of positions, seconds and codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.simulate.process import Floats, Ints

SECONDS = 86_400

BEHAVIOUR = (
    "social_view",
    "visit",
    "content_view",
    "search",
    "product_view",
    "add_to_cart",
    "event_attended",
    "email_click",
    "product_used",
    "support_ticket",
    "purchase",
    "refund",
    "review",
    "satisfaction",
    "upgrade",
    "testimonial",
    "referral_shared",
    "referral_converted",
)
_EVIDENCE_ONLY = ("signup", "lead", "account_created", "booking", "demo", "trial_started", "onboarding_done")
OUTBOUND = ("email_sent", "ad_impression")
EVENTS = (*BEHAVIOUR, *_EVIDENCE_ONLY, *OUTBOUND)
CODE = {event: code for code, event in enumerate(EVENTS)}


@dataclass(frozen=True, slots=True)
class Log:
    """Touchpoints: customer position, whole second from the start, event code, stage at the start of the day.

    ``evidence`` marks what makes a move visible, ``arrival`` included.
    """

    customer: Ints
    second: Ints
    event: Ints
    stage: Ints
    evidence: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, which: Ints) -> Log:
        """Return the rows at some positions, in that order."""
        return Log(*(getattr(self, name)[which] for name in self.__slots__))


def join(logs: Sequence[Log]) -> Log:
    """Return several logs one after the other."""
    return Log(*(np.concatenate([getattr(log, name) for log in logs]) for name in Log.__slots__))


def choose(weights: Floats, rng: np.random.Generator) -> Ints:
    """Draw one column a row in proportion to its weights; shape (rows, options) to (rows,)."""
    edges = np.cumsum(weights, axis=1)
    draw = rng.random(len(weights)) * edges[:, -1]
    chosen: Ints = (draw[:, None] >= edges[:, :-1]).sum(axis=1)
    return chosen
