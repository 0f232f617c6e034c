"""Customer Value Journey: stages, next steps and whom to contact next."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Threads of LightGBM that spin while they wait slow everything down where cores are shared; read once, at its import.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from cvj_ml.api import Model
    from cvj_ml.config import Config, load_config
    from cvj_ml.errors import CvjError
    from cvj_ml.features import PastTouchpoints
    from cvj_ml.journey import Journey
    from cvj_ml.panel.panel import Panel
    from cvj_ml.touchpoints import Touchpoints

__all__ = ["Config", "CvjError", "Journey", "Model", "Panel", "PastTouchpoints", "Touchpoints", "load_config"]

_HOMES = {
    "Config": "config",
    "CvjError": "errors",
    "Journey": "journey",
    "Panel": "panel.panel",
    "PastTouchpoints": "features",
    "Touchpoints": "touchpoints",
    "load_config": "config",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``cvj-ml --help`` must not wait for what it does not need."""
    if name not in __all__:
        raise AttributeError(f"module 'cvj_ml' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cvj_ml.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return __all__
