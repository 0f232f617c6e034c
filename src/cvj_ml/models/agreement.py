"""Whether a trained model still answers the question that a configuration asks."""

from __future__ import annotations

from cvj_ml.config import Config
from cvj_ml.journey import Visible
from cvj_ml.models.predictor import Predictor


def differences(predictor: Predictor, config: Config, visible: Visible) -> list[str]:
    """Return what a model was trained for, and how the configuration differs, in what gives predictions a meaning."""
    trained = predictor.definition
    next_stages = None if config.targets == "all" else config.targets.next
    declared = (
        dict(zip(trained.journey.names, predictor.stage.tracking.coverage, strict=True)) if predictor.stage else {}
    )
    complete_when = predictor.stage.tracking.complete_when if predictor.stage else None
    same = {
        "the journey's stages or their rules differ": trained.journey.rules == config.journey.rules,
        "other stages are unobserved in the data": trained.unobserved == visible.unobserved,
        "the horizons differ": trained.horizons == config.horizons,
        "targets differ": trained.next_stages == next_stages,
        "the time zone differs": trained.time_zone == config.time_zone,
        "other events are outbound": set(trained.outbound) == set(config.outbound),
        "the coverage differs": {name: c for name, c in declared.items() if c < 1}
        == {name: c for name, c in config.coverage.items() if c < 1},
        "complete_when differs": complete_when == config.complete_when,
        "value_decimals differ": trained.catalogue.value_decimals == config.value_decimals,
    }
    return [difference for difference, agrees in same.items() if not agrees]
