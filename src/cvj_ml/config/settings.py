"""The configuration of one use: sources, journey, model, lists."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cvj_ml.config.base import DAY, Duration, ResolvedPath, Section, format_duration, validated, zone_names
from cvj_ml.config.calendar_spec import CalendarSpec, audience_faults, calendar_below_out
from cvj_ml.config.documents import read_yaml
from cvj_ml.config.exports import ExportsSpec, exports_faults
from cvj_ml.config.gates import GatesSpec, MonitorSpec
from cvj_ml.config.journey import JourneySpec
from cvj_ml.config.lists import (
    ControlSpec,
    EligibilitySpec,
    ExperimentsSpec,
    ListSizeSpec,
    ListSpec,
    MeasureSpec,
    eligibility_faults,
    epoch_faults,
    play_channels,
)
from cvj_ml.config.model import EngineSpec, FeaturesSpec, ModelSettings, NextStages, SnapshotsSpec
from cvj_ml.config.places import lies_below, out_faults
from cvj_ml.config.plays import Names
from cvj_ml.config.segments_spec import SegmentsSpec, segments_faults
from cvj_ml.config.tables import (
    STAGE_HISTORY,
    AttributesSpec,
    CompleteSpec,
    ContactSpec,
    DeliverSpec,
    IdentitiesSpec,
    IdsSpec,
    MembersSpec,
    PermissionSpec,
    SourceSpec,
    StageHistorySpec,
    StageLabelsSpec,
    TableSpec,
    account_faults,
    history_faults,
)
from cvj_ml.errors import nearest


class ReportSpec(Section):
    """What the page tells about the business beside the lists."""

    period: Duration = Field(default=30 * DAY, description="the last period, of moves and of what customers did")
    segment: str | None = Field(default=None, description="text attribute that tells groups of customers apart")
    rating: str = Field(default="rating", description="property of touchpoints that holds ratings")
    track_record_within: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="how far past scores may lie from a probability that they are shown beside",
    )
    rating_scale: tuple[float, float] = Field(default=(1, 5), description="the worst and the best rating")
    currency: str | None = Field(
        default=None,
        max_length=8,
        description="of stage_value and cost, as it stands in front of amounts: € or USD",
    )

    @field_validator("currency")
    @classmethod
    def _sign_or_letters(cls, text: str | None) -> str | None:
        # It stands inside the number formats of the workbook, too.
        odd = [one for one in text or "" if not one.isalpha() and one != "." and unicodedata.category(one) != "Sc"]
        if text is not None and (odd or not text.strip(".")):
            raise ValueError("currency is a sign or letters alone, such as € or USD, without an amount or blanks")
        return text

    @field_validator("rating_scale")
    @classmethod
    def _worst_first(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] >= scale[1]:
            raise ValueError("rating_scale is the worst and the best rating, such as [1, 5]")
        return scale

    @field_validator("period")
    @classmethod
    def _whole_days(cls, period: int) -> int:
        if period % DAY or not period:
            raise ValueError("period is a number of whole days, such as 30d")
        return period


def _tracking_uri_of_environment() -> str:
    """Return what MLflow's own variable names, as MLflow reads it: a file is found from the working folder."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return _found_from(Path(), named) if named else "sqlite:///mlflow.db"


def _found_from(folder: Path, uri: str) -> str:
    """Return an address with the whole path where it is that of a sqlite file below a folder."""
    scheme, _, path = uri.partition(":///")
    if scheme != "sqlite" or path.startswith("/") or not path:
        return uri
    return f"sqlite:///{Path(folder, path).resolve()}"


class MlflowSpec(Section):
    """Where training runs and models are recorded."""

    tracking_uri: str = Field(default_factory=_tracking_uri_of_environment, validate_default=True)
    experiment: str | None = None
    registered_model: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    artifact_location: str | None = None

    @field_validator("tracking_uri")
    @classmethod
    def _beside_the_config(cls, uri: str, info: ValidationInfo) -> str:
        return _found_from((info.context or {}).get("folder", Path()), uri)


class Config(Section):
    """The whole configuration of one use, frozen."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    time_zone: str
    history_from: date
    burn_in: Duration = 90 * DAY
    sources: dict[str, SourceSpec] = {}
    unit: Literal["person", "account"] = Field(
        default="person", description="who a customer is: a person, or an account with the people of a company"
    )
    ids: IdsSpec = IdsSpec()
    value_decimals: int = Field(default=2, ge=0, le=6)
    outbound: tuple[str, ...] = ()
    drop_duplicates: bool = False
    refused_share: float = Field(default=0.01, ge=0, le=1)
    stage_history: StageHistorySpec | None = None
    attributes: AttributesSpec | None = None
    contact: ContactSpec | None = None
    stage_labels: StageLabelsSpec | None = None
    identities: IdentitiesSpec | None = None
    members: MembersSpec | None = None
    suppression: PermissionSpec | None = None
    consent: PermissionSpec | None = None
    journey: JourneySpec
    preset: str | None = Field(default=None, exclude=True)
    events: dict[str, Names] = {}
    unobserved: tuple[str, ...] = ()
    coverage: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    complete_when: CompleteSpec | None = None
    calendar: CalendarSpec | None = None
    horizons: tuple[Duration, ...] = Field(default=(7 * DAY, 14 * DAY, 30 * DAY, 60 * DAY, 90 * DAY), min_length=1)
    targets: Literal["all"] | NextStages = "all"
    snapshots: SnapshotsSpec = SnapshotsSpec()
    features: FeaturesSpec = FeaturesSpec()
    model: ModelSettings = ModelSettings()
    lists: tuple[ListSpec, ...] | None = None
    segments: SegmentsSpec = SegmentsSpec()
    stage_value: dict[str, float] = {}
    list_size: ListSizeSpec = ListSizeSpec()
    eligibility: EligibilitySpec = EligibilitySpec()
    control: ControlSpec = ControlSpec()
    measure: MeasureSpec = MeasureSpec()
    experiments: ExperimentsSpec | None = None
    gates: GatesSpec = GatesSpec()
    monitor: MonitorSpec = MonitorSpec()
    report: ReportSpec = ReportSpec()
    mlflow: MlflowSpec = Field(default={}, validate_default=True)
    engine: EngineSpec = EngineSpec()
    exports: ExportsSpec | None = None
    deliver: DeliverSpec | None = None
    out: ResolvedPath = Field(default="out", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _read_journey(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("journey"), str):
            return data
        reference, folder = data["journey"], (info.context or {}).get("folder", Path())
        if reference in preset_names():
            return {**data, "journey": read_journey(reference), "preset": reference}
        if lies_below(str(Path(folder, reference)), str(Path(folder, str(data.get("out", "out"))))):
            raise ValueError(f"journey: {reference} lies below out, where files are removed; put it elsewhere")
        return {**data, "journey": read_journey(reference, folder)}

    @model_validator(mode="before")
    @classmethod
    def _calendar_is_apart(cls, data: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder", Path())
        if isinstance(data, dict) and (fault := calendar_below_out(data, folder)):
            raise ValueError(fault)
        return data

    @model_validator(mode="after")
    def _out_is_apart(self, info: ValidationInfo) -> Self:
        named: dict[str, TableSpec | None] = {**self.touchpoint_tables}
        people = ("attributes", "contact", "stage_labels", "identities", "members", "suppression", "consent")
        named |= {name: getattr(self, name) for name in people}
        tables = {label: spec for label, spec in named.items() if spec is not None}
        if faults := out_faults(self.out, tables, self.mlflow.tracking_uri, (info.context or {}).get("folder")):
            raise ValueError("\n".join(faults))
        return self

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        if zone not in zone_names():
            raise ValueError(f"unknown time zone {zone!r}.{nearest(zone, zone_names())}")
        return zone

    @field_validator("horizons")
    @classmethod
    def _ascending(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if any(horizon % DAY for horizon in horizons):
            raise ValueError("horizons are whole days, such as 30d")
        return tuple(sorted(set(horizons)))

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        faults = list(self._unknown_stages())
        faults += history_faults(self.stage_history, self.sources, self._attributes)
        faults += self.journey.unknown_events(self.events)
        faults += self._wrong_lists()
        faults += segments_faults(self.segments, self.horizons)
        faults += self._wrong_coverage()
        faults += audience_faults(self.calendar, self._attributes)
        dates = self.attributes.dates if self.attributes else ()
        faults += self.journey.unknown_attributes(self._attributes, dates)
        people = {name: getattr(self, name) for name in ("contact", "suppression", "consent")}
        elsewhere = {"exports": self.exports, "deliver.postgres": self.deliver and self.deliver.postgres}
        faults += account_faults(self.unit, self.sources, self.members, self.identities, people, elsewhere)
        faults += self._wrong_experiments()
        columns = self.contact.columns if self.contact else None
        faults += exports_faults(self.exports, columns, play_channels(self.journey))
        if faults:
            raise ValueError("\n".join(faults))
        journey = self.journey
        if self.preset:  # without a name of the business's own, every ticket of a preset would stay open for ever
            journey = journey.with_closing_events(tuple(self.events))
        object.__setattr__(self, "journey", journey.with_events(self.events))
        return self

    def _unknown_stages(self) -> Iterable[str]:
        named = [(place, name) for place in ("unobserved", "stage_value", "coverage") for name in getattr(self, place)]
        for i, one in enumerate(self.lists or ()):
            named += [(f"lists[{i}].{place}", name) for place, name in one.stages_by_place]
        for place, name in named:
            if name not in self.journey.names:
                yield f"{place}: unknown stage {name!r}.{nearest(name, self.journey.names)}"
        known = [label.removeprefix("sources.") for label in self.touchpoint_tables]
        for name in self.gates.sources:
            if name not in known:
                yield f"gates.sources: there is no source {name!r}.{nearest(name, known)}"

    def _wrong_lists(self) -> list[str]:
        faults = []
        known = self.journey.names
        for i, one in enumerate(self.lists or ()):
            place = f"lists[{i}] ({one.words})"
            if one.horizon not in self.horizons:
                choice = ", ".join(map(format_duration, self.horizons))
                faults.append(f"{place}: horizon {format_duration(one.horizon)} is not among the horizons {choice}")
            stages = [name for _, name in one.stages_by_place]
            if set(stages) <= set(known):
                if one.kind == "move" and known.index(stages[0]) >= known.index(stages[1]):
                    faults.append(f"{place}: {one.to_stage} does not come after {one.from_stage} in the journey")
                for name in dict.fromkeys(name for name in stages if name in self.unobserved):
                    faults.append(f"{place}: {name} is unobserved, so there is no such list")
        permissions = {"suppression": self.suppression, "consent": self.consent}
        by_channel = [f"{name}.channel" for name, spec in permissions.items() if spec and spec.channel]
        faults += eligibility_faults(
            self.eligibility, self.lists, self.journey, self.outbound, self.stage_value, by_channel
        )
        default = self.default_list_horizon if self.lists is None else 0
        faults += epoch_faults(self.control, self.lists or (), default)
        return faults

    def _wrong_experiments(self) -> Iterable[str]:
        if self.experiments is None:
            return
        for name in self.experiments.event:
            if name not in self.outbound:
                yield f"experiments.event: {name!r} is nothing that a customer does; name it under outbound, too"
        mapped = {name for spec in self.touchpoint_tables.values() for name in (*spec.columns, *spec.constants)}
        for setting, name in self.experiments.properties.items():
            if name not in mapped:
                yield (
                    f"experiments.{setting}: no source maps a property {name!r}.{nearest(name, mapped)} Add it to the"
                    " columns of the source that has these touchpoints"
                )

    def _wrong_coverage(self) -> list[str]:
        faults: list[str] = []
        left = [stage.name for stage in self.journey.stages if stage.leave is not None]
        # The posterior takes the observed stage for a floor; with hidden evidence of a leave it is none.
        given = [key for key in ("coverage", "complete_when", "stage_labels") if getattr(self, key)]
        if left and given:
            return [
                f"{', '.join(given)}: {', '.join(left)} can be left, and where evidence may be hidden nobody knows who"
                " has; remove these settings, or the leave rules"
            ]
        for stage in self.journey.stages:
            if stage.name not in self.coverage:
                continue
            if stage.name in self.unobserved:
                faults.append(
                    f"coverage: {stage.name} is unobserved: nobody's evidence of it is visible; name it in one of both"
                )
            if any(leaf.attribute is not None for leaf in stage.enter.leaves()):
                faults.append(f"coverage: {stage.name} asks for attributes, which are features and cannot be hidden")
            if any("*" in (leaf.event or ()) for leaf in stage.enter.leaves()):
                faults.append(f"coverage: {stage.name} takes any event ('*'), so its evidence cannot be hidden alone")
        for key in ("complete_when", "stage_labels"):
            if getattr(self, key) is not None and not self.coverage:
                faults.append(
                    f"{key}: coverage is missing; name the stages whose evidence may be hidden, with the share of"
                    " customers for whom it is visible, such as coverage: {Advocate: 0.6}"
                )
        if self.complete_when is not None:
            known = self._attributes
            if (name := self.complete_when.attribute) not in known:
                faults.append(
                    f"complete_when: there is no attribute {name!r}.{nearest(name, known)} It is one of those that"
                    f" attributes.columns maps: {', '.join(sorted(known)) or 'none yet'}"
                )
        return faults

    @property
    def _attributes(self) -> set[str]:
        return set(self.attributes.columns if self.attributes else ()) - {"customer_id", "known_at"}

    @property
    def touchpoint_tables(self) -> dict[str, SourceSpec]:
        """The tables that touchpoints come from, by where they stand in the configuration."""
        tables = {f"sources.{name}": spec for name, spec in self.sources.items()}
        return tables | ({STAGE_HISTORY: self.stage_history} if self.stage_history else {})

    @property
    def registered_model(self) -> str:
        """The name of the model in the registry."""
        return self.mlflow.registered_model or self.name

    @property
    def default_list_horizon(self) -> int:
        """The horizon of lists that are not configured: 30 days, or the nearest there is."""
        return min(self.horizons, key=lambda horizon: (abs(horizon - 30 * DAY), horizon))

    @property
    def zone(self) -> ZoneInfo:
        """The business's time zone."""
        return ZoneInfo(self.time_zone)


def read_journey(reference: str, folder: Path = Path()) -> JourneySpec:
    """Read a journey by the name of a preset, or from a YAML file (relative to ``folder``).

    ValueError for a name that is neither, ConfigError for what is wrong in a file.
    """
    if reference in preset_names():
        return _preset(reference)
    if not reference.endswith((".yaml", ".yml")):
        raise ValueError(
            f"journey: unknown preset {reference!r}.{nearest(reference, preset_names())}"
            f" Presets: {', '.join(preset_names())}; or name a .yaml file, or write the stages here"
        )
    file = Path(folder, reference)
    return validated(JourneySpec, read_yaml(file), file)


@cache  # a file of the package, which nothing changes while it runs
def _preset(name: str) -> JourneySpec:
    file = Path(str(files("cvj_ml").joinpath("journey", "presets", f"{name}.yaml")))
    return validated(JourneySpec, read_yaml(file), file)


@cache
def preset_names() -> tuple[str, ...]:
    """Return the names of the journeys in the package."""
    folder = files("cvj_ml").joinpath("journey", "presets")
    return tuple(sorted(Path(str(item)).stem for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_config(path: str | Path) -> Config:
    """Read one YAML file into a frozen, checked Config.

    Paths in the file are relative to it; ``${NAME}`` is taken from the environment.
    Raises ConfigError with every fault at once.
    """
    file = Path(path)
    return validated(Config, read_yaml(file), file)
