"""Ready segments: into which one of a few named groups everybody falls, for marketers to choose from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, model_validator

from cvj_ml.config.base import DAY, Duration, Section, format_duration

Share = Annotated[float, Field(gt=0, lt=1)]


class LevelSpec(Section):
    """From where on somebody belongs to a segment: the ``top`` share of customers at training, or ``at_least``.

    Customers are those whom the segment could be of: at risk, the active.

    ``horizon`` is that of the column; by default the one of the configuration that is nearest to the segment's usual
    one.
    """

    top: Share | None = None
    at_least: float | None = Field(default=None, gt=0)
    horizon: Duration | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_of_both(cls, data: Any) -> Any:
        if isinstance(data, dict) and len({"top", "at_least"} & {key for key in data if data[key] is not None}) != 1:
            raise ValueError("give top, a share such as 0.1, or at_least, and not both")
        return data


USUAL_DAYS = {"ready_to_buy": 30, "at_risk": 60, "high_value": 90, "potential_high_value": 90}
"""The usual horizon of each segment's column, in days."""


class SegmentsSpec(Section):
    """The thresholds of the ready segments, which a model keeps from its training."""

    ready_to_buy: LevelSpec = Field(default=LevelSpec(top=0.1), description="of p_purchase")
    at_risk: LevelSpec = Field(default=LevelSpec(top=0.2), description="of p_churn, among the active")
    high_value: LevelSpec = Field(default=LevelSpec(top=0.2), description="of value")
    potential_high_value: LevelSpec = Field(default=LevelSpec(top=0.2), description="of value / p_purchase")
    new: Duration = Field(default=30 * DAY, description="first seen so lately")

    def horizon(self, name: str, horizons: Iterable[int]) -> int:
        """Return the horizon of a segment's column."""
        usual = USUAL_DAYS[name] * DAY
        own: int | None = getattr(self, name).horizon
        return min(horizons, key=lambda one: (abs(one - usual), one)) if own is None else own


def segments_faults(spec: SegmentsSpec, horizons: tuple[int, ...]) -> list[str]:
    """Return which segments ask for a horizon that is not predicted, or for more than a probability can be."""
    choice = ", ".join(map(format_duration, horizons))
    faults = []
    for name in USUAL_DAYS:
        one: LevelSpec = getattr(spec, name)
        if one.horizon is not None and one.horizon not in horizons:
            faults.append(f"segments.{name}: horizon {format_duration(one.horizon)} is not among the horizons {choice}")
        if name in ("ready_to_buy", "at_risk") and one.at_least is not None and one.at_least > 1:
            faults.append(f"segments.{name}: at_least is a probability, at most 1; found {one.at_least:g}")
    return faults
