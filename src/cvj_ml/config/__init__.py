"""One YAML file, one frozen configuration."""

from cvj_ml.config.databases import NAME_BYTES, DeliverSpec, PostgresDelivery, PostgresSource
from cvj_ml.config.durations import DAY, SECOND, format_duration, parse_duration
from cvj_ml.config.engine import EngineSpec
from cvj_ml.config.gates import Freshness, GatesSpec, Levels, QualityLevels, Silence
from cvj_ml.config.journey import Journey, Play, Rule, Stage
from cvj_ml.config.lists import ContactCap, EligibilitySpec, ExcludeSpec, ListSpec, MeasureSpec, play_channels
from cvj_ml.config.settings import Config, load_config, preset_names
from cvj_ml.config.tables import (
    EPOCHS,
    AttributesSpec,
    CompleteSpec,
    ContactSpec,
    DecimalMark,
    Encoding,
    IdsSpec,
    Match,
    PermissionSpec,
    SourceSpec,
    StageLabelsSpec,
    TableSpec,
)

__all__ = [
    "DAY",
    "EPOCHS",
    "NAME_BYTES",
    "SECOND",
    "AttributesSpec",
    "CompleteSpec",
    "Config",
    "ContactCap",
    "ContactSpec",
    "DecimalMark",
    "DeliverSpec",
    "EligibilitySpec",
    "Encoding",
    "EngineSpec",
    "ExcludeSpec",
    "Freshness",
    "GatesSpec",
    "IdsSpec",
    "Journey",
    "Levels",
    "ListSpec",
    "Match",
    "MeasureSpec",
    "PermissionSpec",
    "Play",
    "PostgresDelivery",
    "PostgresSource",
    "QualityLevels",
    "Rule",
    "Silence",
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
