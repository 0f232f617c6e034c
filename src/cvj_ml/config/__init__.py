"""One YAML file, one frozen configuration."""

from cvj_ml.config.durations import DAY, SECOND, format_duration, parse_duration
from cvj_ml.config.engine import EngineSpec
from cvj_ml.config.journey import Journey, Play, Rule, Stage
from cvj_ml.config.lists import ContactCap, EligibilitySpec, ExcludeSpec, ListSpec, MeasureSpec, play_channels
from cvj_ml.config.settings import (
    AttributesSpec,
    CompleteSpec,
    Config,
    ContactSpec,
    PermissionSpec,
    SourceSpec,
    StageLabelsSpec,
    TableSpec,
    load_config,
    preset_names,
)

__all__ = [
    "DAY",
    "SECOND",
    "AttributesSpec",
    "CompleteSpec",
    "Config",
    "ContactCap",
    "ContactSpec",
    "EligibilitySpec",
    "EngineSpec",
    "ExcludeSpec",
    "Journey",
    "ListSpec",
    "MeasureSpec",
    "PermissionSpec",
    "Play",
    "Rule",
    "SourceSpec",
    "Stage",
    "StageLabelsSpec",
    "TableSpec",
    "format_duration",
    "load_config",
    "parse_duration",
    "play_channels",
    "preset_names",
]
