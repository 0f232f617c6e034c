"""One YAML file, one frozen configuration."""

from cvj_ml.config.durations import DAY, SECOND, format_duration, parse_duration
from cvj_ml.config.journey import Journey, Play, Rule, Stage
from cvj_ml.config.lists import ContactCap, EligibilitySpec, ExcludeSpec, ListSpec, MeasureSpec, play_channels
from cvj_ml.config.settings import (
    AttributesSpec,
    Config,
    ContactSpec,
    PermissionSpec,
    SourceSpec,
    TableSpec,
    load_config,
    preset_names,
)

__all__ = [
    "DAY",
    "SECOND",
    "AttributesSpec",
    "Config",
    "ContactCap",
    "ContactSpec",
    "EligibilitySpec",
    "ExcludeSpec",
    "Journey",
    "ListSpec",
    "MeasureSpec",
    "PermissionSpec",
    "Play",
    "Rule",
    "SourceSpec",
    "Stage",
    "TableSpec",
    "format_duration",
    "load_config",
    "parse_duration",
    "play_channels",
    "preset_names",
]
