"""One YAML file, one frozen configuration."""

from cvj_ml.config.durations import DAY, SECOND, format_duration, parse_duration
from cvj_ml.config.journey import Journey, Rule, Stage
from cvj_ml.config.settings import (
    AttributesSpec,
    Config,
    ContactSpec,
    ListSpec,
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
    "ContactSpec",
    "Journey",
    "ListSpec",
    "Rule",
    "SourceSpec",
    "Stage",
    "TableSpec",
    "format_duration",
    "load_config",
    "parse_duration",
    "preset_names",
]
