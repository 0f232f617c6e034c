"""One YAML file, one frozen configuration."""

from cvj_ml.config.durations import DAY, SECOND, format_duration, parse_duration
from cvj_ml.config.journey import Journey, Rule, Stage
from cvj_ml.config.settings import (
    AttributesSpec,
    CompleteSpec,
    Config,
    ContactSpec,
    ListSpec,
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
    "ContactSpec",
    "Journey",
    "ListSpec",
    "Rule",
    "SourceSpec",
    "Stage",
    "StageLabelsSpec",
    "TableSpec",
    "format_duration",
    "load_config",
    "parse_duration",
    "preset_names",
]
