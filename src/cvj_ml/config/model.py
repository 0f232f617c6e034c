"""What a model learns from (features, grid, rows, stages), and how blocks are worked on, which changes no result."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cvj_ml.config.base import DAY, Duration, Section


class CustomFeature(Section):
    """A function of your own, called with what was visible of customers before an instant; and its columns' names."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="of the feature; its columns begin with custom_")
    function: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", description="to import: package.module:function"
    )
    columns: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], ...] = Field(
        default=(), description="where the function returns several: their names"
    )
    properties: tuple[str, ...] = Field(default=(), description="the touchpoints' properties that the function reads")

    @field_validator("function")
    @classmethod
    def _importable(cls, function: str) -> str:
        if function.startswith("__main__:"):
            raise ValueError("__main__ is another module in every process; put the function into a file of its own")
        return function

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for key, names in (("columns", self.columns), ("properties", self.properties)):
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{key}: named twice: {', '.join(repeated)}")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What its columns are called, without the ``custom_`` before."""
        return tuple(f"{self.name}_{column}" for column in self.columns) or (self.name,)


class FeaturesSpec(Section):
    """How much of the vocabulary becomes features, over which windows, which are left out, and those of your own."""

    windows: tuple[Duration, ...] = (7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY)
    trend: Duration = 30 * DAY
    top_events: int = Field(default=30, ge=1)
    top_channels: int = Field(default=12, ge=1)
    session_gap: Duration = 30 * 60_000_000
    exclude: tuple[str, ...] = Field(default=(), description="features or groups to leave out, by name or pattern (*)")
    custom: tuple[CustomFeature, ...] = Field(default=(), description="features of your own")

    @model_validator(mode="after")
    def _custom_named_once(self) -> Self:
        names = [name for one in self.custom for name in one.feature_names]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"custom: several columns are called {', '.join(repeated)}; name them apart")
        return self

    @property
    def functions(self) -> frozenset[str]:
        """The functions that may be imported: those that are named here, and no other."""
        return frozenset(one.function for one in self.custom)

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


class TreesSpec(Section):
    """Settings of the trees that are given, so that training does not choose them; null: chosen."""

    leaves: int | None = Field(default=None, ge=2, le=4096, description="of a tree at most")
    rows_a_leaf: int | None = Field(default=None, ge=2, description="at least")
    lambda_l2: float | None = Field(default=None, ge=0, description="ridge penalty of a leaf's value")
    path_smooth: float | None = Field(default=None, ge=0, description="how much a leaf is drawn to the node above")
    rounds: int | None = Field(default=None, ge=1, le=10_000, description="trees")
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    columns: float | None = Field(default=None, gt=0, le=1, description="share of the features that a tree sees")
    extra: bool | None = Field(default=None, description="split at random thresholds (extremely randomised trees)")

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are given, by name."""
        return self.model_dump(exclude_none=True)


class WeightsSpec(Section):
    """How much a snapshot counts while trees, ridge and line are fitted: half as much after every half-life."""

    half_life: Duration

    @field_validator("half_life")
    @classmethod
    def _not_nothing(cls, half_life: int) -> int:
        if half_life < DAY:
            raise ValueError("half_life is a day or longer, such as 365d")
        return half_life


class ModelSettings(Section):
    """The row budget and seed of training, its trees and weights, and on how many customers whatever is held rests."""

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
    trees: TreesSpec = TreesSpec()
    weights: WeightsSpec | None = None


class NextStages(Section):
    """Predict only the next ``next`` observable stages."""

    next: int = Field(ge=1)


def _as_text(value: Any) -> Any:
    """Return numbers and switches as Spark writes them: YAML has types where Spark's settings are text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


class EngineSpec(Section):
    """How blocks are laid out and worked on; no setting here changes a result."""

    kind: Literal["local", "spark"] = "local"
    threads: int | None = Field(default=None, ge=1, le=4096, description="of this machine; default: every core")
    buckets: int | None = Field(default=None, ge=1, le=4096, description="default: by the number of rows")
    memory_limit: str | None = Field(default=None, description="of DuckDB: a number with KB, MB, GB or TB")
    master: str | None = Field(default=None, description="address of Spark's cluster; default: local[*], this machine")
    conf: dict[str, Annotated[str, BeforeValidator(_as_text)]] = Field(default={}, description="Spark's own settings")

    @field_validator("memory_limit")
    @classmethod
    def _known_unit(cls, limit: str | None) -> str | None:
        if limit is None:
            return None
        found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*[KMGT]i?B", limit, re.IGNORECASE)
        if found is None or not float(found[1]):
            raise ValueError(f"{limit!r} is no amount of memory; write a number and KB, MB, GB or TB, such as 4GB")
        return limit

    @model_validator(mode="after")
    def _settings_of_spark(self) -> Self:
        if self.kind != "spark" and (self.master or self.conf):
            raise ValueError("master and conf are Spark's: write `kind: spark` beside them, or leave them out")
        foreign = sorted(name for name in self.conf if not name.startswith("spark."))
        if foreign:
            raise ValueError(f"conf: Spark's settings begin with `spark.`, unlike {', '.join(map(repr, foreign))}")
        return self
