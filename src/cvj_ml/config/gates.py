"""When a night warns, when it refuses to publish, and what is an alert where nights are looked at over time."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cvj_ml.config.base import DAY, Duration, Section

Silence = Literal["usual"] | Duration | None
"""How long a source may be silent: as it was before, a fixed time, or (null) as long as it likes."""

Share = Annotated[float, Field(gt=0)] | None


class Freshness(Section):
    """How long ago the newest rows of a source may have become known."""

    warn: Silence = "usual"
    fail: Silence = "usual"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if isinstance(self.warn, int) and isinstance(self.fail, int) and self.warn > self.fail:
            raise ValueError("warn comes before fail: give warn the shorter time")
        return self


class Levels(Section):
    """From which value on a gate warns, and from which it fails; null: never."""

    warn: Share = None
    fail: Share = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warn is not None and self.fail is not None and self.warn > self.fail:
            raise ValueError("warn comes before fail: give warn the smaller number")
        return self


class RowLevels(Levels):
    """Levels of the share by which rows that the night before had seen are fewer, or more."""

    warn: Share = 0.05
    fail: Share = 0.2


class VolumeLevels(Levels):
    """Levels of the share by which the rows of the last 7 days are fewer than those of a usual week."""

    warn: Share = 0.5


class MatchedLevels(Levels):
    """Levels of the part of a table's share of known customers that is lost since the night before."""

    warn: Share = 0.05


class DriftLevels(Levels):
    """Levels of the population stability index; a column that moves by itself has higher ones."""

    warn: Share = 0.1
    fail: Share = 0.25


class CohortLevels(Levels):
    """Levels of the share of customers lost since the night before, and how many there have to be at least."""

    warn: Share = 0.05
    fail: Share = 0.2
    fewest: int = Field(default=20, ge=1)


class AgeLevels(Section):
    """From which age on a model warns, and from which it fails; null: never."""

    warn: Duration | None = 90 * DAY
    fail: Duration | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warn is not None and self.fail is not None and self.warn > self.fail:
            raise ValueError("warn comes before fail: give warn the shorter time")
        return self


class QualityLevels(Levels):
    """Levels of how many times more, or fewer, moved than a past night had expected, as far as that is sure."""

    warn: Share = 2.0
    fail: Share = 3.0


class GatesSpec(Section):
    """What a night has to pass before it is published; each gate warns or fails."""

    freshness: Freshness = Freshness()
    sources: dict[str, Freshness] = Field(default={}, description="freshness of single sources")
    rows: RowLevels = RowLevels()
    volume: VolumeLevels = VolumeLevels()
    columns: Literal["fail", "warn"] | None = "fail"
    customers: CohortLevels = CohortLevels()
    matched: MatchedLevels = MatchedLevels()
    drift: DriftLevels = DriftLevels()
    model_age: AgeLevels = AgeLevels()
    quality: QualityLevels = QualityLevels()

    def freshness_of(self, source: str) -> Freshness:
        """Return how fresh a source has to be."""
        return self.sources.get(source, self.freshness)


class StreakLevels(Levels):
    """Levels of how many nights in a row a gate did not pass."""

    warn: Share = 2


class AlertsSpec(Section):
    """What is an alert over time: levels as those of gates, which look at one night alone."""

    stages: DriftLevels = Field(default=DriftLevels(), description="drift of the stage mix over `over`")
    streak: StreakLevels = Field(default=StreakLevels(), description="nights in a row on which a gate did not pass")
    quality: QualityLevels = Field(default=QualityLevels(), description="of the newest measured night of a list")


class MonitorSpec(Section):
    """Which nights are looked at over time, and what about them is an alert."""

    nights: int = Field(default=365, ge=2, description="how many nights, the newest")
    over: Duration = Field(default=28 * DAY, description="how long before the newest night the stage mix is compared")
    alerts: AlertsSpec = AlertsSpec()
