"""What a model learns from: features, the grid of instants, the budget of rows, and which stages it predicts."""

from __future__ import annotations

from pydantic import Field, field_validator

from cvj_ml.config.base import DAY, Duration, Section


class FeaturesSpec(Section):
    """How much of the vocabulary becomes features, and over which windows."""

    windows: tuple[Duration, ...] = (7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY)
    trend: Duration = 30 * DAY
    top_events: int = Field(default=30, ge=1)
    top_channels: int = Field(default=12, ge=1)
    session_gap: Duration = 30 * 60_000_000

    @field_validator("windows")
    @classmethod
    def _ascending(cls, windows: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(windows)))


class SnapshotsSpec(Section):
    """The grid of instants that training asks about."""

    every: Duration = 14 * DAY
    back: Duration = 730 * DAY

    @field_validator("every")
    @classmethod
    def _whole_days(cls, every: int) -> int:
        if every % DAY:
            raise ValueError("snapshots stand at local midnights: every is a number of whole days, such as 14d")
        return every


class ModelSettings(Section):
    """The row budget and the seed of training, and on how many customers whatever a model holds rests."""

    max_rows: int = Field(default=1_500_000, ge=1_000)
    seed: int = Field(default=1, ge=0, lt=2**31)
    min_customers: int = Field(
        default=20,
        ge=2,
        description="customers on whom a name, bound, threshold or rate in a model rests at least",
    )
    year_ago_level: bool = Field(
        default=False,
        description="carry over in part how far the forecast of exactly a year before was off, where one can be made",
    )


class NextStages(Section):
    """Predict only the next ``next`` observable stages."""

    next: int = Field(ge=1)
