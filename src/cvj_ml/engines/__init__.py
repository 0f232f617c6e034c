"""Engines map a function over the blocks of a store."""

from cvj_ml.config import EngineSpec
from cvj_ml.engines.local import Blocks, Engine, LocalEngine, Progress
from cvj_ml.store import Store

__all__ = ["Blocks", "Engine", "LocalEngine", "Progress", "open_engine", "require_engine"]


def require_engine(spec: EngineSpec) -> None:
    """Raise ConfigError where the configured engine lacks something that has to be installed."""
    if spec.kind == "spark":
        from cvj_ml.engines.spark import require_spark

        require_spark()


def open_engine(spec: EngineSpec, store: Store, progress: Progress | None = None) -> Engine:
    """Return the configured engine over a store's blocks."""
    if spec.kind == "spark":
        from cvj_ml.engines.spark import SparkEngine

        return SparkEngine(store, spec, progress)
    return LocalEngine(store, spec.threads, progress)
