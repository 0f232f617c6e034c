"""What happens to a night besides its folder."""

from __future__ import annotations

from pathlib import Path

from cvj_ml.config import Config
from cvj_ml.delivery import deliver
from cvj_ml.pipeline.opening import Watcher


def hand_over(config: Config, night: Path, watcher: Watcher) -> None:
    """Deliver a published night to where the configuration says; one that cannot be delivered stays published."""
    if config.deliver is None:
        return
    with watcher.step("Delivering to PostgreSQL"):
        outcome = deliver(config.deliver.postgres, night)
    if outcome == "kept":
        watcher.say("PostgreSQL keeps the night that it shows: it is newer, or has lists where this one has none.")
